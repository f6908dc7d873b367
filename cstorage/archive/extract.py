"""Building a tree from archive members, one system call at a time, never outside the tree.

Rules of this module:

* Parents are resolved in-root (``beneath.open_in_root``) and kept open in a bounded cache; the last
  component is created with ``O_EXCL``/``O_NOFOLLOW`` or its equivalent. Whatever another process
  plants meanwhile, nothing is created, changed, linked or removed outside the tree.
* Names with ``..`` are refused, not clamped (§9.2): a clamped layer could not be exported again.
  Leading slashes are dropped. Link targets are text for symlinks and refused with ``..`` for
  hard links.
* An existing path is kept if both are directories, otherwise removed first (§6.4). The same path
  twice in one archive is refused.
* Order per entry: create, owner, mode, times, extended attributes (§6.6); directory times and
  default ACLs wait until the end, because creating entries would change the first and be changed by
  the second.
* Extended attributes that would forge overlay or override state are dropped, as is
  ``security.selinux`` (§9.6).

Malformed members raise ``ArchiveError``; a failing disk or missing privilege raises ``OSError``.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import TYPE_CHECKING

from cstorage.archive import beneath
from cstorage.archive import header as tar
from cstorage.archive import whiteouts as wh
from cstorage.archive.ids import to_host
from cstorage.archive.reader import Member, shown
from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.errors import ArchiveBreakout, ArchiveError, ArchiveLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from cstorage.archive.options import ApplyOptions

_PARENTS_MAX = 128  # parent descriptors kept open; well below the usual limit of 1024
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_ANY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ID_MAX = (1 << 32) - 2  # the last 32-bit value means "leave as is" to chown
_TIME_MAX_NS = ((1 << 34) - (1 << 31) - 1) * 1_000_000_000  # what ext4 can hold (year 2446)

_UNCLEAN = re.compile(rb"(?:^|/)\.{0,2}(?:/|$)|\0")
"""Finds empty, ``.`` and ``..`` components and NUL bytes: names without a match are clean."""

_FORGED = (
    "trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "user.containers.",
    "security.selinux",
)  # fmt: skip
_NAMESPACES = ("user.", "trusted.", "security.", "system.posix_acl_")
OVERRIDE_XATTR = "user.containers.override_stat"

# Errors that only a malformed or hostile archive causes.
_ARCHIVE_ERRNOS = frozenset((
    errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOENT, errno.EISDIR,
    errno.EMLINK, errno.EINVAL, errno.ENOTEMPTY, errno.EXDEV, errno.EFBIG, errno.EOVERFLOW,
))  # fmt: skip


def clean(name: bytes) -> bytes:
    """A member's name as a relative path without empty and ``.`` components; ``b""`` is the root.

    Raises ``ArchiveBreakout`` for a name with a ``..`` component, ``ArchiveError`` for a NUL byte.
    """
    if name.startswith(b"./"):
        name = name[2:]
    if name.endswith(b"/"):
        name = name[:-1]
    if _UNCLEAN.search(name) is None:
        return name
    if b"\0" in name:
        raise ArchiveError(f"{shown(name)}: name contains a NUL byte")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ArchiveBreakout(
            f'{shown(name)}: name contains "..": refused, because it could leave the layer'
        )
    return b"/".join(parts)


class Extractor:
    """Applies members to the tree below ``root_fd``.

    ``write_content(fd, member)`` is called to fill a newly created regular file.
    """

    def __init__(
        self, root_fd: int, options: ApplyOptions, write_content: Callable[[int, Member], None]
    ) -> None:
        self._root = os.open(b".", beneath.DIRECTORY, dir_fd=root_fd)
        self._options = options
        self._write_content = write_content
        self._overlay = options.whiteouts == WhiteoutFormat.OVERLAY
        self._parents: dict[bytes, tuple[int, bool]] = {b"": (self._root, False)}
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._force = options.force_mask is not None
        self._chown = not self._force
        self._umask = _umask()
        self._directory_times: list[tuple[bytes, int, int]] = []
        self._default_acls: list[tuple[bytes, str, bytes]] = []
        self._owners: dict[tuple[int, int], tuple[int, int]] = {}
        self._seen: set[bytes] = set()
        self._used: set[bytes] = set()  # directories through which this archive made something
        self._was_empty = not beneath.list_names(self._root)
        self._exact = self._was_empty
        self._content_size = 0
        self.entries = 0
        self.failed_chowns = 0
        self._root_sgid = bool(os.fstat(self._root).st_mode & stat.S_ISGID)
        self._parents[b""] = (self._root, self._root_sgid)
        self._opaque_xattr = wh.OPAQUE_XATTRS[1 if options.in_userns else 0]

    def close(self) -> None:
        self._forget_parents()
        os.close(self._root)

    # -- parents -------------------------------------------------------------------------------

    def _parent(self, directory: bytes, name: bytes) -> int:
        """Descriptor of a member's parent, made if missing. Sets nothing else."""
        found = self._parents.get(directory)
        if found is not None:
            return found[0]
        try:
            fd = beneath.open_in_root(self._root, directory, beneath.DIRECTORY)
        except OSError as error:
            if error.errno == errno.ENOENT:
                fd = self._make_parent(directory, name)
            elif error.errno == errno.ENOTDIR and self._overlay:
                fd = self._revive_parent(directory, name, error)
            else:
                raise self._refused(name, error, "its parent directory") from error
        sgid = bool(os.fstat(fd).st_mode & stat.S_ISGID)
        if len(self._parents) >= _PARENTS_MAX:
            self._forget_parents()
        self._parents[directory] = (fd, sgid)
        while directory and directory not in self._used:
            self._used.add(directory)
            directory = directory.rpartition(b"/")[0]
        return fd

    def _make_parent(self, directory: bytes, name: bytes) -> int:
        """Parents that the archive does not mention: 0755, owned by the mapped root (§6.3)."""
        above, _, base = directory.rpartition(b"/")
        parent = self._parent(above, name)
        try:
            os.mkdir(base, 0o755, dir_fd=parent)
            self._describe_new_directory(parent, base)
        except FileExistsError as error:  # a symlink that leads nowhere in the tree
            raise ArchiveError(
                f"{shown(name)}: its parent {shown(directory)} is a symbolic link to nothing"
            ) from error
        try:
            return os.open(base, beneath.DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as error:
            raise self._refused(name, error, "its parent directory") from error

    def _describe_new_directory(self, parent: int, base: bytes) -> None:
        uid, gid = self._owner(0, 0, base)
        fd = os.open(base, _OPEN_DIR, dir_fd=parent)
        try:
            if self._force:
                mode = self._options.force_mask or 0
                os.fchmod(fd, mode)
                self._override(fd, 0, 0, 0o755, "dir")
            else:
                self._set_owner(fd, uid, gid, base)
                os.fchmod(fd, 0o755)
        finally:
            os.close(fd)

    def _revive_parent(self, directory: bytes, name: bytes, cause: OSError) -> int:
        """A parent that this archive whited out before: a new directory, opaque to what was."""
        above, _, base = directory.rpartition(b"/")
        if not above and not base:
            raise cause
        parent = self._parent(above, name)
        info = beneath.stat_in(parent, base)
        if info is None or not wh.is_whiteout_device(info):
            raise self._refused(name, cause, "its parent directory") from cause
        os.unlink(base, dir_fd=parent)
        os.mkdir(base, 0o755, dir_fd=parent)
        self._describe_new_directory(parent, base)
        self._make_opaque(parent, base)
        return os.open(base, beneath.DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)

    def _forget_parents(self) -> None:
        for fd, _ in self._parents.values():
            if fd != self._root:
                os.close(fd)
        self._parents = {b"": (self._root, self._root_sgid)}

    # -- one member ----------------------------------------------------------------------------

    def add(self, member: Member) -> tuple[bytes, int]:
        """Apply one member. Returns its cleaned path and its ``manifest.Mark`` (-1: skipped)."""
        name = clean(member.name)
        if member.type == tar.GLOBAL:
            return name, -1
        limits = self._options.limits
        if len(name) > limits.max_name or name.count(b"/") >= limits.max_depth:
            raise ArchiveLimitExceeded(
                f"{shown(name)}: path of {len(name)} bytes in {name.count(b'/') + 1} components; "
                f"at most {limits.max_name} and {limits.max_depth} are accepted"
            )
        self.entries += 1
        if limits.max_entries and self.entries > limits.max_entries:
            raise ArchiveLimitExceeded(
                f"the archive has more than {limits.max_entries} entries",
                hint="raise --max-entries if this archive is trusted",
            )
        if name in self._seen:
            raise ArchiveError(f"{shown(name)}: duplicates of file paths not supported")
        self._seen.add(name)
        directory, _, base = name.rpartition(b"/")
        if base.startswith(wh.PREFIX):
            return self._whiteout(member, name, directory, base)
        if not self._overlay and name.startswith(wh.META_PREFIX):
            return name, -1
        try:
            if not base:
                self._root_entry(member)
            else:
                self._entry(member, name, directory, base)
        except OSError as error:
            raise self._refused(name, error) from error
        return name, 0

    def _entry(self, member: Member, name: bytes, directory: bytes, base: bytes) -> None:
        kind = member.type
        parent = self._parent(directory, name)
        if kind == tar.REGTYPE:
            self._regular(member, parent, directory, base)
        elif kind == tar.DIRTYPE:
            self._directory(member, name, parent, base)
        elif kind == tar.SYMTYPE:
            self._symlink(member, parent, base)
        elif kind == tar.LNKTYPE:
            self._hard_link(member, name, parent, base)
        elif kind in (tar.CHRTYPE, tar.BLKTYPE, tar.FIFOTYPE):
            self._special(member, parent, base)
        else:
            raise ArchiveError(f"{shown(name)}: unhandled tar header type {chr(kind)!r}")

    def _regular(self, member: Member, parent: int, directory: bytes, base: bytes) -> None:
        mode = member.mode & 0o7777
        try:
            fd = os.open(base, _CREATE, mode & 0o777, dir_fd=parent)
        except FileExistsError:
            self._make_way(parent, base)
            fd = os.open(base, _CREATE, mode & 0o777, dir_fd=parent)
        try:
            if member.size:
                self._write_content(fd, member)
                self._content_size += member.size
            if self._force:
                os.fchmod(fd, self._options.force_mask or 0)
            else:
                uid, gid = self._owner(member.uid, member.gid, base)
                if uid != self._uid or gid != self._gid or self._parents[directory][1]:
                    self._set_owner(fd, uid, gid, base)
                os.fchmod(fd, mode)
            mtime = member.mtime_ns
            if member.atime_ns is None and 0 <= mtime <= _TIME_MAX_NS:
                os.utime(fd, ns=(mtime, mtime))
            else:
                os.utime(fd, ns=_times(member))
            if member.xattrs:
                self._set_xattrs(fd, member, base)
            if self._force:
                self._override(fd, member.uid, member.gid, mode, "file")
        finally:
            os.close(fd)

    def _directory(self, member: Member, name: bytes, parent: int, base: bytes) -> None:
        opaque = False
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            info = beneath.stat_in(parent, base)
            if info is None or not stat.S_ISDIR(info.st_mode):
                # What a whiteout of this archive removed must stay hidden below a new directory.
                opaque = self._overlay and info is not None and wh.is_whiteout_device(info)
                self._make_way(parent, base)
                os.mkdir(base, 0o700, dir_fd=parent)
        fd = os.open(base, _OPEN_DIR, dir_fd=parent)
        try:
            self._describe_directory(fd, member, name)
        finally:
            os.close(fd)
        if opaque:
            self._make_opaque(parent, base)

    def _root_entry(self, member: Member) -> None:
        """``./`` describes the root for drivers without overlay only; ``/`` always does (§6.3)."""
        if member.type != tar.DIRTYPE:
            raise ArchiveError(f"{shown(member.name)}: the layer's root must be a directory")
        if self._overlay and not member.name.startswith(b"/"):
            return
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        try:
            self._describe_directory(fd, member, b"")
        finally:
            os.close(fd)

    def _describe_directory(self, fd: int, member: Member, name: bytes) -> None:
        mode = member.mode & 0o7777
        if self._force:
            os.fchmod(fd, self._options.force_mask or 0)
        else:
            self._set_owner(fd, *self._owner(member.uid, member.gid, name), name)
            os.fchmod(fd, mode)
        if mode & stat.S_ISGID or name in self._parents:
            sgid = bool(os.fstat(fd).st_mode & stat.S_ISGID)
            if not name:
                self._root_sgid = sgid
            known = self._parents.get(name)
            if known is not None:
                self._parents[name] = (known[0], sgid)
        self._directory_times.append((name, *_times(member)))
        if member.xattrs:
            self._set_xattrs(fd, member, name, defer_acl=name)
        if self._force:
            self._override(fd, member.uid, member.gid, mode, "dir")

    def _symlink(self, member: Member, parent: int, base: bytes) -> None:
        if not member.linkname or b"\0" in member.linkname:
            raise ArchiveError(f"{shown(member.name)}: symbolic link without a usable target")
        try:
            os.symlink(member.linkname, base, dir_fd=parent)
        except FileExistsError:
            self._make_way(parent, base)
            os.symlink(member.linkname, base, dir_fd=parent)
        self._content_size += len(member.linkname)
        uid, gid = self._owner(member.uid, member.gid, base)
        if self._chown:
            try:
                os.chown(base, uid, gid, dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                self._chown_failed(error, uid, gid, base)
        if member.mtime_ns or member.atime_ns:
            os.utime(base, ns=_times(member), dir_fd=parent, follow_symlinks=False)
        if member.xattrs:
            self._set_xattrs(beneath.descriptor_path(parent, base), member, base)

    def _hard_link(self, member: Member, name: bytes, parent: int, base: bytes) -> None:
        target = clean(member.linkname)
        directory, _, target_base = target.rpartition(b"/")
        if not target_base:
            raise ArchiveError(f"{shown(name)}: hard link to the layer's root")
        if target == name:
            raise ArchiveError(f"{shown(name)}: hard link to itself")
        source = self._parents.get(directory)
        if source is None:
            try:
                found = beneath.open_in_root(self._root, directory, beneath.DIRECTORY)
            except OSError as error:
                raise self._refused(name, error, f"its target {shown(target)}") from error
        else:
            found = source[0]
        try:
            info = beneath.stat_in(found, target_base)
            if info is None:
                raise ArchiveError(f"{shown(name)}: hard link to missing {shown(target)}")
            if stat.S_ISDIR(info.st_mode):
                raise ArchiveError(f"{shown(name)}: hard link to directory {shown(target)}")
            try:
                os.link(target_base, base, src_dir_fd=found, dst_dir_fd=parent,
                        follow_symlinks=False)  # fmt: skip
            except FileExistsError:
                own = beneath.stat_in(parent, base)
                if own is not None and (own.st_dev, own.st_ino) == (info.st_dev, info.st_ino):
                    pass  # the same file already: nothing to replace
                else:
                    self._make_way(parent, base)
                    os.link(target_base, base, src_dir_fd=found, dst_dir_fd=parent,
                            follow_symlinks=False)  # fmt: skip
        finally:
            if source is None:
                os.close(found)
        self._describe_link(member, parent, base, info)

    def _describe_link(
        self, member: Member, parent: int, base: bytes, info: os.stat_result
    ) -> None:
        """A hard-link entry's attributes go to the shared inode: the last one wins (§6.6)."""
        uid, gid = self._owner(member.uid, member.gid, base)
        mode = member.mode & 0o7777
        link = stat.S_ISLNK(info.st_mode)
        times = _times(member)
        same_owner = (info.st_uid, info.st_gid) == (uid, gid) or not self._chown
        same_mode = link or self._force or stat.S_IMODE(info.st_mode) == mode
        if same_owner and same_mode and info.st_mtime_ns == times[1] and not member.xattrs:
            return
        if link:
            if not same_owner:
                os.chown(base, uid, gid, dir_fd=parent, follow_symlinks=False)
            os.utime(base, ns=times, dir_fd=parent, follow_symlinks=False)
            return
        self._describe_unopenable(member, parent, base, stat.S_IFMT(info.st_mode))

    def _special(self, member: Member, parent: int, base: bytes) -> None:
        """Devices and pipes; in a user namespace devices cannot be made and are left out (§6.5)."""
        kind = {tar.CHRTYPE: stat.S_IFCHR, tar.BLKTYPE: stat.S_IFBLK}.get(member.type, stat.S_IFIFO)
        mode = member.mode & 0o7777
        if self._force:
            self._special_as_file(member, parent, base, kind, mode)
            return
        if kind != stat.S_IFIFO and self._options.in_userns:
            return
        device = 0
        if kind != stat.S_IFIFO:
            if member.devmajor >= 1 << 12 or member.devminor >= 1 << 20:
                raise ArchiveError(
                    f"{shown(member.name)}: device {member.devmajor}:{member.devminor} is beyond "
                    "what the kernel can number"
                )
            device = os.makedev(member.devmajor, member.devminor)
        try:
            os.mknod(base, kind | mode & 0o777, device, dir_fd=parent)
        except FileExistsError:
            self._make_way(parent, base)
            os.mknod(base, kind | mode & 0o777, device, dir_fd=parent)
        self._describe_unopenable(member, parent, base, kind)

    def _special_as_file(
        self, member: Member, parent: int, base: bytes, kind: int, mode: int
    ) -> None:
        """With ``force_mask`` a device is a plain file that says what it stands for (§3.9)."""
        word = "pipe"
        if kind != stat.S_IFIFO:
            letter = "char" if kind == stat.S_IFCHR else "block"
            word = f"{letter}-{member.devmajor}-{member.devminor}"
        try:
            fd = os.open(base, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._make_way(parent, base)
            fd = os.open(base, _CREATE, 0o600, dir_fd=parent)
        try:
            os.fchmod(fd, self._options.force_mask or 0)
            os.utime(fd, ns=_times(member))
            self._override(fd, member.uid, member.gid, mode, word)
        finally:
            os.close(fd)

    def _describe_unopenable(self, member: Member, parent: int, base: bytes, kind: int) -> None:
        """Owner, mode, times, xattrs of something that must not be opened, through its inode."""
        fd = os.open(base, _OPEN_ANY, dir_fd=parent)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
                raise ArchiveBreakout(
                    f"{shown(member.name)}: replaced by another process during the import"
                )
            path = beneath.descriptor_path(fd)
            if not self._force:
                uid, gid = self._owner(member.uid, member.gid, base)
                info = os.fstat(fd)
                if (info.st_uid, info.st_gid) != (uid, gid):
                    try:
                        os.chown(path, uid, gid)
                    except OSError as error:
                        self._chown_failed(error, uid, gid, base)
                os.chmod(path, member.mode & 0o7777)
            os.utime(path, ns=_times(member))
            if member.xattrs:
                self._set_xattrs(path, member, base, follow=True)
        finally:
            os.close(fd)

    # -- attributes ----------------------------------------------------------------------------

    def _owner(self, uid: int, gid: int, name: bytes) -> tuple[int, int]:
        owner = self._owners.get((uid, gid))
        if owner is None:
            if not (0 <= uid <= _ID_MAX and 0 <= gid <= _ID_MAX) and self._chown:
                raise ArchiveError(f"{shown(name)}: owner {uid}:{gid} is out of range")
            if self._force:
                owner = (uid, gid)
            else:
                maps = self._options.maps
                owner = (
                    to_host(maps.uids, uid, f"{shown(name)}: user ID"),
                    to_host(maps.gids, gid, f"{shown(name)}: group ID"),
                )
            if len(self._owners) > 4096:
                self._owners.clear()
            self._owners[uid, gid] = owner
        return owner

    def _set_owner(self, fd: int, uid: int, gid: int, name: bytes) -> None:
        try:
            os.fchown(fd, uid, gid)
        except OSError as error:
            self._chown_failed(error, uid, gid, name)

    def _chown_failed(self, error: OSError, uid: int, gid: int, name: bytes) -> None:
        if self._options.ignore_chown_errors:
            self.failed_chowns += 1
            return
        text = f"cannot give {shown(name)} to {uid}:{gid}: {error.strerror}"
        if error.errno == errno.EINVAL:
            raise ArchiveError(text, hint="the ID is not mapped here: check /etc/subuid and "
                               "/etc/subgid") from error  # fmt: skip
        raise OSError(
            error.errno, f"{text} (run as root, or use the driver option ignore_chown_errors)"
        ) from error

    def _set_xattrs(
        self,
        target: int | bytes,
        member: Member,
        name: bytes,
        *,
        defer_acl: bytes | None = None,
        follow: bool = False,
    ) -> None:
        for key, value in member.xattrs or ():
            if key.startswith(_FORGED) or not key.startswith(_NAMESPACES):
                continue
            if defer_acl is not None and key == "system.posix_acl_default":
                self._default_acls.append((defer_acl, key, value))
                continue
            self._set_xattr(target, key, value, name, follow=follow)

    def _set_xattr(
        self, target: int | bytes, key: str, value: bytes, name: bytes, *, follow: bool = False
    ) -> None:
        try:
            raw_key = os.fsencode(key)
            if isinstance(target, int):
                os.setxattr(target, raw_key, value)
            else:
                os.setxattr(target, raw_key, value, follow_symlinks=follow)
        except (OSError, ValueError) as error:
            code = error.errno if isinstance(error, OSError) else errno.EINVAL
            if code == errno.ENOTSUP or (code == errno.EPERM and self._options.in_userns):
                return
            reason = error.strerror if isinstance(error, OSError) else str(error)
            text = f"{shown(name)}: cannot set extended attribute {key!r}: {reason}"
            if code in (errno.EPERM, errno.EINVAL, errno.E2BIG, errno.ERANGE, errno.ENAMETOOLONG):
                raise ArchiveError(text) from error
            raise OSError(code, text) from error

    def _override(self, fd: int, uid: int, gid: int, mode: int, word: str) -> None:
        os.setxattr(fd, OVERRIDE_XATTR, f"{uid}:{gid}:{mode:04o}:{word}".encode())

    # -- whiteouts -----------------------------------------------------------------------------

    def _whiteout(
        self, member: Member, name: bytes, directory: bytes, base: bytes
    ) -> tuple[bytes, int]:
        try:
            if base == wh.OPAQUE:
                parent = self._parent(directory, name)
                if self._overlay:
                    self._make_opaque_fd(parent)
                else:
                    self._empty_lower(directory, parent)
                return directory, 2
            if base.startswith(wh.META_PREFIX):
                return name, -1
            target = base[len(wh.PREFIX) :]
            if target in (b"", b".", b".."):
                raise ArchiveError(f"{shown(name)}: whiteout of {shown(target)} is refused")
            path = directory + b"/" + target if directory else target
            if self._overlay and self._below_whiteout(directory):
                return path, -1  # all of it is gone already
            parent = self._parent(directory, name)
            if self._overlay:
                self._whiteout_device(member, parent, target, path)
            elif path in self._seen or path in self._used:
                self._empty_lower(path, parent, target)
            else:
                self._remove(parent, target)
        except OSError as error:
            raise self._refused(name, error) from error
        return path, 1

    def _below_whiteout(self, directory: bytes) -> bool:
        """Whether a whiteout of this archive already covers ``directory``."""
        while directory and directory not in self._parents:
            above, _, base = directory.rpartition(b"/")
            if above + b"/" + wh.PREFIX + base in self._seen or (
                not above and wh.PREFIX + base in self._seen
            ):
                parent = self._parent(above, directory)
                info = beneath.stat_in(parent, base)
                return info is not None and wh.is_whiteout_device(info)
            directory = above
        return False

    def _whiteout_device(self, member: Member, parent: int, target: bytes, path: bytes) -> None:
        if path in self._seen or path in self._used:
            # Whiteouts speak of lower layers only: a new directory hides what was there before.
            info = beneath.stat_in(parent, target)
            if info is not None and stat.S_ISDIR(info.st_mode):
                self._make_opaque(parent, target)
            return
        try:
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            info = beneath.stat_in(parent, target)
            if info is not None and not wh.is_whiteout_device(info):
                self._make_way(parent, target)
                os.mknod(target, stat.S_IFCHR, 0, dir_fd=parent)
        uid, gid = self._owner(member.uid, member.gid, target)
        if self._chown and (uid != self._uid or gid != self._gid):
            try:
                os.chown(target, uid, gid, dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                self._chown_failed(error, uid, gid, target)

    def _make_opaque(self, parent: int, base: bytes) -> None:
        fd = os.open(base, beneath.DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            self._make_opaque_fd(fd)
        finally:
            os.close(fd)

    def _make_opaque_fd(self, fd: int) -> None:
        os.setxattr(beneath.descriptor_path(fd), self._opaque_xattr, b"y")

    def _empty_lower(self, directory: bytes, parent: int, base: bytes = b"") -> None:
        """Remove what this archive did not make below a directory (itself, or ``base`` in it)."""
        if base:
            info = beneath.stat_in(parent, base)
            if info is None or not stat.S_ISDIR(info.st_mode):
                return
            top = os.open(base, _OPEN_DIR, dir_fd=parent)
        else:
            top = os.open(b".", _OPEN_DIR, dir_fd=parent)
        stack = [(directory, top)]
        while stack:
            path, fd = stack.pop()
            try:
                for name in beneath.list_names(fd):
                    child = path + b"/" + name if path else name
                    if child not in self._seen and child not in self._used:
                        self._remove(fd, name)
                        continue
                    info = beneath.stat_in(fd, name)
                    if info is not None and stat.S_ISDIR(info.st_mode):
                        stack.append((child, os.open(name, _OPEN_DIR, dir_fd=fd)))
            finally:
                os.close(fd)

    # -- replacing and removing ----------------------------------------------------------------

    def _make_way(self, parent: int, base: bytes) -> None:
        self._remove(parent, base)

    def _remove(self, parent: int, base: bytes) -> None:
        self._exact = False
        beneath.remove_in(parent, base)
        # Any cached directory may have been below; the parent at hand stays valid for its caller.
        keep = {fd for fd, _ in self._parents.values() if fd == parent}
        for fd, _ in self._parents.values():
            if fd != self._root and fd not in keep:
                os.close(fd)
        self._parents = {
            path: entry
            for path, entry in self._parents.items()
            if entry[0] in keep or entry[0] == self._root
        }

    def _refused(self, name: bytes, error: OSError, what: str = "") -> Exception:
        """What a failed call means: the archive's fault, or the machine's."""
        if error.errno in _ARCHIVE_ERRNOS:
            about = f"{what}: " if what else ""
            return ArchiveError(f"{shown(name)}: {about}{error.strerror}")
        if error.filename is None and error.args[1:] and str(error.args[1]).startswith("cannot "):
            return error
        return OSError(error.errno, f"cannot extract {shown(name)}: {error.strerror}")

    # -- the end -------------------------------------------------------------------------------

    def finish(self) -> int:
        """Set directory times and default ACLs; returns the content size (§5.6)."""
        for path, key, value in self._default_acls:
            fd = beneath.open_in_root(self._root, path, beneath.DIRECTORY | os.O_NOFOLLOW)
            try:
                self._set_xattr(beneath.descriptor_path(fd), key, value, path, follow=True)
            finally:
                os.close(fd)
        for path, atime, mtime in self._directory_times:
            directory, _, base = path.rpartition(b"/")
            try:
                if not base:
                    os.utime(beneath.descriptor_path(self._root), ns=(atime, mtime))
                    continue
                found = self._parents.get(directory)
                if found is None:
                    fd = beneath.open_in_root(self._root, directory, beneath.DIRECTORY)
                    if len(self._parents) >= _PARENTS_MAX:
                        self._forget_parents()
                    self._parents[directory] = (fd, False)
                else:
                    fd = found[0]
                info = beneath.stat_in(fd, base)
                if info is not None and stat.S_ISDIR(info.st_mode):
                    os.utime(base, ns=(atime, mtime), dir_fd=fd, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed again by a later entry
        if self._exact:
            return self._content_size
        from cstorage.archive.changes import tree_size

        return tree_size(self._root)


def _times(member: Member) -> tuple[int, int]:
    """(atime, mtime) to set: never before 1970 or beyond the file system; atime ≥ mtime (§6.6)."""
    mtime = member.mtime_ns
    if not 0 <= mtime <= _TIME_MAX_NS:
        mtime = 0
    atime = member.atime_ns
    if atime is None or not mtime <= atime <= _TIME_MAX_NS:
        atime = mtime
    return atime, mtime


def _umask() -> int:
    """This process's umask, read without changing it (threads share it)."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o077
