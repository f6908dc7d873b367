"""Owner, mode, times and extended attributes of what an archive creates.

Rules of this module:

* Owners are mapped container → host; an ID that the map does not cover is an error. A failed
  ``chown`` is an error unless the caller asked to ignore it (drivers-and-formats §3.10).
* Times before 1970 or beyond the file system become the epoch; the access time is never before
  the modification time, and equals it where the archive says nothing (§6.6).
* Extended attributes that would forge the state of overlay file systems or of stores are dropped,
  as are ``security.selinux`` and unknown namespaces (§9.6); the recipe still has them.
* With ``force_mask`` the real attributes go into ``user.containers.override_stat`` (§3.9).
"""

from __future__ import annotations

import errno
import os

from cstorage.archive.ids import to_host
from cstorage.archive.reader import shown
from cstorage.errors import ArchiveError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.archive.options import ApplyOptions
    from cstorage.archive.reader import Member

OVERRIDE_XATTR = "user.containers.override_stat"
TIME_MAX_NS = ((1 << 34) - (1 << 31) - 1) * 1_000_000_000  # what ext4 can hold (year 2446)

_ID_MAX = (1 << 32) - 2  # the last 32-bit value means "leave as is" to chown
_OWNERS_MAX = 4096
_FORGED = (
    "trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "user.containers.",
    "security.selinux",
)  # fmt: skip
_NAMESPACES = ("user.", "trusted.", "security.", "system.posix_acl_")
_DEFAULT_ACL = "system.posix_acl_default"

# What setxattr answers to attributes that the archive should not have asked for.
_XATTR_REFUSED = (errno.EPERM, errno.EINVAL, errno.E2BIG, errno.ERANGE, errno.ENAMETOOLONG)


class Explained(OSError):
    """A failure of the machine whose text already says which entry and how to fix it."""


def times(member: Member) -> tuple[int, int]:
    """(atime, mtime) to set, in nanoseconds."""
    mtime = member.mtime_ns
    if not 0 <= mtime <= TIME_MAX_NS:
        mtime = 0
    atime = member.atime_ns
    if atime is None or not mtime <= atime <= TIME_MAX_NS:
        atime = mtime
    return atime, mtime


class Attributes:
    """Sets attributes as ``options`` ask."""

    def __init__(self, options: ApplyOptions) -> None:
        self._maps = options.maps
        self._ignore_chown_errors = options.ignore_chown_errors
        self._in_userns = options.in_userns
        self._owners: dict[tuple[int, int], tuple[int, int]] = {}
        self.force_mask = options.force_mask
        self.failed_chowns = 0
        self.default_acls: list[tuple[bytes, bytes]] = []
        """(path, value) of directories' default ACLs, which wait until the tree is complete."""

    def owner(self, uid: int, gid: int, name: bytes) -> tuple[int, int]:
        """The host's owner for an archive's. Raises ``ArchiveError`` if there is none."""
        owner = self._owners.get((uid, gid))
        if owner is not None:
            return owner
        if not (0 <= uid <= _ID_MAX and 0 <= gid <= _ID_MAX):
            raise ArchiveError(f"{shown(name)}: owner {uid}:{gid} is out of range")
        owner = (
            to_host(self._maps.uids, uid, f"{shown(name)}: user ID"),
            to_host(self._maps.gids, gid, f"{shown(name)}: group ID"),
        )
        if len(self._owners) >= _OWNERS_MAX:
            self._owners.clear()
        self._owners[uid, gid] = owner
        return owner

    def chown(self, fd: int, uid: int, gid: int, name: bytes) -> None:
        """Give what ``fd`` holds to ``uid``:``gid`` (host IDs)."""
        try:
            os.fchown(fd, uid, gid)
        except OSError as error:
            self._chown_failed(error, uid, gid, name)

    def chown_path(self, path: bytes, uid: int, gid: int, name: bytes) -> None:
        """The same through a descriptor's path (``beneath.descriptor_path``)."""
        try:
            os.chown(path, uid, gid)
        except OSError as error:
            self._chown_failed(error, uid, gid, name)

    def chown_entry(self, dir_fd: int, base: bytes, uid: int, gid: int) -> None:
        """The same for a directory's entry, which is not followed."""
        try:
            os.chown(base, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            self._chown_failed(error, uid, gid, base)

    def _chown_failed(self, error: OSError, uid: int, gid: int, name: bytes) -> None:
        if self._ignore_chown_errors:
            self.failed_chowns += 1
            return
        text = f"cannot give {shown(name)} to {uid}:{gid}: {error.strerror}"
        if error.errno == errno.EINVAL:
            raise ArchiveError(
                text, hint="the ID is not mapped here: check /etc/subuid and /etc/subgid"
            ) from error
        raise Explained(
            error.errno, f"{text} (run as root, or use the driver option ignore_chown_errors)"
        ) from error

    def set_xattrs(
        self,
        target: int | bytes,
        member: Member,
        name: bytes,
        *,
        follow: bool = False,
        directory: bool = False,
    ) -> None:
        """Set the member's attributes on a descriptor or a descriptor's path."""
        for key, value in member.xattrs or ():
            if key.startswith(_FORGED) or not key.startswith(_NAMESPACES):
                continue
            if directory and key == _DEFAULT_ACL:
                self.default_acls.append((name, value))
            else:
                self._set_xattr(target, key, value, name, follow=follow)

    def set_default_acl(self, path: bytes, value: bytes, name: bytes) -> None:
        """Set a default ACL that waited, through a descriptor's path."""
        self._set_xattr(path, _DEFAULT_ACL, value, name, follow=True)

    def _set_xattr(
        self, target: int | bytes, key: str, value: bytes, name: bytes, *, follow: bool
    ) -> None:
        try:
            raw_key = os.fsencode(key)
            if isinstance(target, int):
                os.setxattr(target, raw_key, value)
            else:
                os.setxattr(target, raw_key, value, follow_symlinks=follow)
        except (OSError, ValueError) as error:
            code = error.errno if isinstance(error, OSError) else errno.EINVAL
            reason = error.strerror if isinstance(error, OSError) else str(error)
            if code == errno.ENOTSUP or (code == errno.EPERM and self._in_userns):
                return
            text = f"{shown(name)}: cannot set extended attribute {key!a}: {reason}"
            if code in _XATTR_REFUSED:
                raise ArchiveError(text) from error
            raise Explained(code, text) from error

    def override(self, fd: int, member: Member | None, word: str) -> None:
        """Record the attributes that ``force_mask`` keeps from the file itself."""
        if self.force_mask is None:
            return
        os.fchmod(fd, self.force_mask)
        uid, gid, mode = (
            (member.uid, member.gid, member.mode & 0o7777) if member is not None else (0, 0, 0o755)
        )
        os.setxattr(fd, OVERRIDE_XATTR, f"{uid}:{gid}:{mode:04o}:{word}".encode())
