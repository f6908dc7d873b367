"""Copy a file tree exactly: contents, owners, modes, extended attributes, times, hard links.

Rules (drivers-and-formats §4.1, and where we keep more than the original does):

* File contents travel by the cheapest way that works: share the extents (``FICLONE``), else
  ``copy_file_range``, else read and write. A way that fails once is not tried again in that copy.
  Holes stay holes.
* Files that are one inode in the source are one inode in the copy.
* Attributes in the order owner, mode, extended attributes, times: changing the owner clears setuid
  bits and capabilities. Directory times come last, when nothing changes the directory any more.
* All extended attributes are copied except SELinux labels (the mount decides) and overlay's private
  marks other than the opaque one. The original copies ``security.capability``, ``user.*`` and
  ``trusted.overlay.opaque`` only, so POSIX ACLs of a parent layer are lost there.
* Everything is done relative to directory descriptors, symbolic links are never followed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from cstorage.drivers import treewalk
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FICLONE = 0x40049409
_CHUNK = 1 << 30
_BUFFER = 1 << 20
_UNSUPPORTED = frozenset(
    (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EPERM)
)
_NO_ATTRIBUTE = frozenset((errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM))


def copied_attribute(name: str) -> bool:
    """Whether an extended attribute belongs to the copy."""
    if name == "security.selinux":
        return False
    return not name.startswith("trusted.overlay.") or name == "trusted.overlay.opaque"


class TreeCopier:
    """One copy operation; remembers hard links and which fast ways the file systems refuse."""

    def __init__(self, owner: Callable[[int, int], tuple[int, int]] | None = None) -> None:
        """``owner`` maps (uid, gid) of the source to those of the copy."""
        self._owner = owner
        self._inodes: dict[tuple[int, int], bytes] = {}
        self._clone = True
        self._range = True
        self._target_root = -1
        self.files = 0
        self.cloned = 0

    def copy(self, source: int, target: int) -> None:
        """Copy the content and attributes of directory ``source`` to the empty ``target``."""
        self._target_root = target
        pending = [b""]
        directories: list[bytes] = []
        with treewalk.Tree(source) as old, treewalk.Tree(target) as new:
            while pending:
                current = pending.pop()
                directories.append(current)
                with _Pair(old, new, current) as (inner, copied):
                    for name, status in treewalk.entries(inner):
                        path = treewalk.joined(current, name)
                        self._entry(inner, copied, name, path, status)
                        if stat.S_ISDIR(status.st_mode):
                            pending.append(path)
            for current in reversed(directories):
                with _Pair(old, new, current) as (inner, copied):
                    self._finish(inner, copied, os.fstat(inner))

    def _entry(
        self, source: int, target: int, name: bytes, path: bytes, status: os.stat_result
    ) -> None:
        """Make one entry; of a directory only the empty directory."""
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            os.mkdir(name, 0o700, dir_fd=target)
            return
        if status.st_nlink > 1:
            first = self._inodes.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                above, _, base = first.rpartition(b"/")
                with treewalk.Tree(self._target_root) as links:
                    other = links.open(above)
                try:
                    os.link(base, name, src_dir_fd=other, dst_dir_fd=target, follow_symlinks=False)
                finally:
                    os.close(other)
                return
        if stat.S_ISREG(mode):
            self._file(source, target, name, status)
            return
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, mode, status.st_rdev, dir_fd=target)
        self._finish_named(source, target, name, status)

    def _file(self, source: int, target: int, name: bytes, status: os.stat_result) -> None:
        inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            copied = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target
            )
            try:
                if status.st_size:
                    self._content(inner, copied, status)
                self._finish(inner, copied, status)
            finally:
                os.close(copied)
        finally:
            os.close(inner)
        self.files += 1

    def _content(self, source: int, target: int, status: os.stat_result) -> None:
        if self._clone:
            try:
                fcntl.ioctl(target, _FICLONE, source)
                self.cloned += 1
                return
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._clone = False
        size = status.st_size
        if status.st_blocks * 512 >= size:
            self._extent(source, target, 0, size)
            return
        position = 0
        while position < size:
            try:
                start = os.lseek(source, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # ENXIO: only a hole is left
                    raise
                break
            end = os.lseek(source, start, os.SEEK_HOLE)
            self._extent(source, target, start, end)
            position = end
        os.ftruncate(target, size)

    def _extent(self, source: int, target: int, start: int, end: int) -> None:
        position = start
        while self._range and position < end:
            try:
                count = os.copy_file_range(
                    source, target, min(end - position, _CHUNK), position, position
                )
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._range = False
                break
            if not count:
                # Some file systems report 0 where they cannot; plain reading finds out.
                break
            position += count
        while position < end:
            data = os.pread(source, min(end - position, _BUFFER), position)
            if not data:
                raise OSError(errno.EIO, "file became shorter while it was copied")
            written = 0
            while written < len(data):
                written += os.pwrite(target, data[written:], position + written)
            position += len(data)

    def _owners(self, status: os.stat_result) -> tuple[int, int]:
        if self._owner is None:
            return status.st_uid, status.st_gid
        return self._owner(status.st_uid, status.st_gid)

    def _finish(self, source: int, target: int, status: os.stat_result) -> None:
        os.fchown(target, *self._owners(status))
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        for name in _attributes(source):
            if copied_attribute(name):
                os.setxattr(target, name, os.getxattr(source, name))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _finish_named(self, source: int, target: int, name: bytes, status: os.stat_result) -> None:
        os.chown(name, *self._owners(status), dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            # No-follow chmod does not exist; the entry was just created by us and is no link.
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        path = treewalk.place(source, name)
        for attribute in _attributes(path):
            if copied_attribute(attribute):
                value = os.getxattr(path, attribute, follow_symlinks=False)
                os.setxattr(
                    treewalk.place(target, name), attribute, value,
                    follow_symlinks=False,
                )  # fmt: skip
        os.utime(
            name, ns=(status.st_atime_ns, status.st_mtime_ns),
            dir_fd=target, follow_symlinks=False,
        )  # fmt: skip


class _Pair:
    """The same directory of both trees, open."""

    def __init__(self, source: treewalk.Tree, target: treewalk.Tree, path: bytes) -> None:
        self._source = source.open(path)
        try:
            self._target = target.open(path)
        except BaseException:
            os.close(self._source)
            raise

    def __enter__(self) -> tuple[int, int]:
        return self._source, self._target

    def __exit__(self, *_: object) -> None:
        os.close(self._source)
        os.close(self._target)


def _attributes(place: int | bytes) -> list[str]:
    try:
        if isinstance(place, int):
            return os.listxattr(place)
        return os.listxattr(place, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTE:
            return []
        raise
