"""Tar archives made from trees: a whole tree, a list of changes, an overlay layer.

Rules of this module:

* Headers as in ``writer``; order and whiteouts as in drivers-and-formats §5.5. The same tree gives
  the same bytes: whiteouts of removed paths carry time 0 instead of the moment of the export.
* Sockets are skipped. A file that vanishes before its header is written is skipped; one that
  shrinks afterwards ends the export with ``OSError``, because the archive is already wrong.
* Of a file with several names the first one in the archive carries the content, the others are
  hard links.
* Exported extended attributes: ``security.capability``, ``security.ima``, ``user.*`` except what
  overlay file systems and stores keep there.
* Everything is opened from descriptors, never through a link.
"""

from __future__ import annotations

import errno
import os
import stat

from cstorage.archive import beneath
from cstorage.archive import header as tar
from cstorage.archive import whiteouts as wh
from cstorage.archive.changes import is_opaque, lower_stat
from cstorage.archive.ids import to_container
from cstorage.archive.reader import shown
from cstorage.archive.walk import walk
from cstorage.archive.writer import END, Entry, encode, padding
from cstorage.errors import ArchiveError
from cstorage.model import Change, ChangeKind, IDMaps
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cstorage.archive.compression import ByteSink

_PIECE = 1 << 20
_BATCH = 1 << 18
_NO_MAPS = IDMaps()
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NOT_EXPORTED = ("user.overlay.", "user.fuseoverlayfs.", "user.containers.")


class _Archive:
    """Members on their way to the sink, joined into larger writes."""

    def __init__(self, sink: ByteSink, maps: IDMaps) -> None:
        self._write = sink.write
        self._maps = maps
        self._parts: list[bytes] = []
        self._held = 0
        self._names: dict[tuple[int, int], bytes] = {}

    def _put(self, data: bytes) -> None:
        self._parts.append(data)
        self._held += len(data)
        if self._held >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self._write(b"".join(self._parts))
        self._parts.clear()
        self._held = 0

    def close(self) -> None:
        self._put(END)
        self._flush()

    def whiteout(self, path: bytes, *, mtime: int = 0, uid: int = 0, gid: int = 0) -> None:
        """``path`` (relative) is gone."""
        directory, slash, base = path.rpartition(b"/")
        name = directory + slash + wh.PREFIX + base
        self._put(encode(Entry(name, tar.REGTYPE, 0, uid, gid, 0, mtime)))

    def opaque(self, path: bytes, info: os.stat_result) -> None:
        """What lower layers have in the directory ``path`` is gone."""
        self._put(encode(Entry(
            path + b"/" + wh.OPAQUE, tar.REGTYPE, info.st_mode & 0o777, info.st_uid, info.st_gid,
        )))  # fmt: skip

    def member(self, dir_fd: int, base: bytes, path: bytes, info: os.stat_result) -> None:
        """The entry ``base`` of ``dir_fd`` as member ``path``; vanished ones are skipped."""
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFSOCK:
            return
        name, size, linkname, major, minor = path, 0, b"", 0, 0
        fd = -1
        try:
            if kind == stat.S_IFREG:
                first = self._first_name(info, path)
                if first is not None:
                    letter, linkname = tar.LNKTYPE, first
                else:
                    fd = os.open(base, _OPEN_FILE, dir_fd=dir_fd)
                    info = os.fstat(fd)
                    if not stat.S_ISREG(info.st_mode):
                        return
                    letter, size = tar.REGTYPE, info.st_size
            elif kind == stat.S_IFDIR:
                letter, name = tar.DIRTYPE, path + b"/"
            else:
                first = self._first_name(info, path)
                if first is not None:
                    letter, linkname = tar.LNKTYPE, first
                elif kind == stat.S_IFLNK:
                    letter, linkname = tar.SYMTYPE, os.readlink(base, dir_fd=dir_fd)
                elif kind == stat.S_IFIFO:
                    letter = tar.FIFOTYPE
                else:
                    letter = tar.CHRTYPE if kind == stat.S_IFCHR else tar.BLKTYPE
                    major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
            xattrs = _exported_xattrs(fd if fd >= 0 else beneath.descriptor_path(dir_fd, base))
        except FileNotFoundError:
            if fd >= 0:
                os.close(fd)
            self._names.pop((info.st_dev, info.st_ino), None)
            return
        try:
            self._put(encode(Entry(
                name, letter, info.st_mode & 0o7777, self._uid(info.st_uid),
                self._gid(info.st_gid), size, info.st_mtime_ns // 1_000_000_000, linkname,
                major, minor, xattrs,
            )))  # fmt: skip
            if size:
                self._content(fd, size, path)
        finally:
            if fd >= 0:
                os.close(fd)

    def _first_name(self, info: os.stat_result, path: bytes) -> bytes | None:
        if info.st_nlink < 2:
            return None
        key = (info.st_dev, info.st_ino)
        first = self._names.setdefault(key, path)
        return None if first == path else first

    def _content(self, fd: int, size: int, path: bytes) -> None:
        left = size
        while left:
            data = os.read(fd, min(left, _PIECE))
            if not data:
                raise OSError(
                    errno.EIO, f"{shown(path)} shrank from {size} bytes while it was exported"
                )
            left -= len(data)
            if len(data) >= _BATCH:
                self._flush()
                self._write(data)
            else:
                self._put(data)
        if pad := padding(size):
            self._put(pad)

    def _uid(self, host_id: int) -> int:
        found = to_container(self._maps.uids, host_id)
        if found is None:
            raise ArchiveError(f"user ID {host_id} cannot be mapped to a container ID")
        return found

    def _gid(self, host_id: int) -> int:
        found = to_container(self._maps.gids, host_id)
        if found is None:
            raise ArchiveError(f"group ID {host_id} cannot be mapped to a container ID")
        return found


def _exported_xattrs(target: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    try:
        keys = (
            os.listxattr(target)
            if isinstance(target, int)
            else os.listxattr(target, follow_symlinks=False)
        )
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return ()
        raise
    found = []
    for key in keys:
        if key in ("security.capability", "security.ima") or (
            key.startswith("user.") and not key.startswith(_NOT_EXPORTED)
        ):
            value = beneath.get_xattr(target, key)
            if value is not None:
                found.append((os.fsencode(key), value))
    return tuple(sorted(found))


def write_tree(root_fd: int, sink: ByteSink, *, maps: IDMaps = _NO_MAPS) -> None:
    """A plain archive of everything below ``root_fd`` (not the root itself)."""
    archive = _Archive(sink, maps)
    for dir_fd, name, path, _, info in walk(root_fd):
        archive.member(dir_fd, name, path, info)
    archive.close()


def write_changes(
    new_fd: int, changes: Iterable[Change], sink: ByteSink, *, maps: IDMaps = _NO_MAPS
) -> None:
    """The archive of ``changes`` (sorted bytewise by path), contents taken from ``new_fd``."""
    archive = _Archive(sink, maps)
    for change in sorted(changes):
        path = change.path.strip(b"/")
        if change.kind == ChangeKind.DELETE:
            archive.whiteout(path)
            continue
        directory, _, base = path.rpartition(b"/")
        try:
            fd = beneath.open_in_root(new_fd, directory, beneath.DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            info = beneath.stat_in(fd, base)
            if info is not None:
                archive.member(fd, base, path, info)
        finally:
            os.close(fd)
    archive.close()


def write_overlay_diff(
    upper_fd: int, lower_fds: Sequence[int], sink: ByteSink, *, maps: IDMaps = _NO_MAPS
) -> None:
    """The archive of an overlay layer's own directory, markers turned into whiteouts."""
    archive = _Archive(sink, maps)
    hidden = [False]  # per depth: whether an opaque directory above hides the lower layers
    for dir_fd, name, path, depth, info in walk(upper_fd):
        del hidden[depth + 1 :]
        if wh.is_whiteout_device(info):
            archive.whiteout(
                path, mtime=info.st_mtime_ns // 1_000_000_000, uid=info.st_uid, gid=info.st_gid
            )
            continue
        archive.member(dir_fd, name, path, info)
        opaque = stat.S_ISDIR(info.st_mode) and is_opaque(dir_fd, name)
        if opaque and not hidden[depth] and lower_stat(lower_fds, path) is not None:
            archive.opaque(path, info)
        hidden.append(hidden[depth] or opaque)
    archive.close()
