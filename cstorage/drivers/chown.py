"""Give every file of a tree the owners that another ID map asks for.

Rules (drivers-and-formats §3.8): an owner is taken from the host to the container with the old maps
and from the container to the host with the new ones. An unmapped 0 stays 0, other owners that the
old maps do not know are errors; an owner that the new maps cannot express becomes the overflow ID.
The root of the tree is not touched. Changing an owner clears setuid bits and
``security.capability``; both are restored. Hard links stay hard links even where a change of owner
copies a file up in an overlay, and directories keep the times that making them again would change.
"""

from __future__ import annotations

import errno
import os
import stat

from cstorage import idmap
from cstorage.drivers import treewalk
from cstorage.errors import DriverError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.model import IDMap, IDMaps

_CAPABILITY = "security.capability"


def mapped_id(number: int, old: IDMap, new: IDMap) -> int:
    """The owner under ``new`` of a file that belongs to ``number`` under ``old``."""
    try:
        inside = idmap.to_container(number, old)
    except idmap.IDMapError:
        if number != 0:
            raise
        inside = 0
    try:
        return idmap.to_host(inside, new)
    except idmap.IDMapError:
        return idmap.OVERFLOW_ID


class Owners:
    """The function from old to new owners, for one pair of maps."""

    def __init__(self, old: IDMaps, new: IDMaps) -> None:
        self._old, self._new = old, new
        self._known: dict[tuple[int, int], tuple[int, int]] = {}

    def __call__(self, uid: int, gid: int) -> tuple[int, int]:
        """New (uid, gid). Raises ``DriverError`` for owners outside the old maps."""
        pair = self._known.get((uid, gid))
        if pair is None:
            try:
                pair = (
                    mapped_id(uid, self._old.uids, self._new.uids),
                    mapped_id(gid, self._old.gids, self._new.gids),
                )
            except idmap.IDMapError as error:
                raise DriverError(f"owner {uid}:{gid} of a file: {error}") from None
            self._known[uid, gid] = pair
        return pair


def chown_tree(root: int, owners: Owners) -> None:
    """Change the owners of everything below the directory ``root``."""
    with treewalk.Tree(root) as tree, treewalk.Tree(root) as links:
        _Walk(tree, links, owners).run()


class _Walk:
    def __init__(self, tree: treewalk.Tree, links: treewalk.Tree, owners: Owners) -> None:
        self._tree = tree
        self._links = links
        self._owners = owners
        self._inodes: dict[tuple[int, int], bytes] = {}

    def run(self) -> None:
        pending = [b""]
        while pending:
            current = pending.pop()
            directory = self._tree.open(current)
            try:
                before = os.fstat(directory)
                for name, status in treewalk.entries(directory):
                    path = treewalk.joined(current, name)
                    if self._entry(directory, name, path, status):
                        pending.append(path)
                if os.fstat(directory).st_mtime_ns != before.st_mtime_ns:
                    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
            finally:
                os.close(directory)

    def _entry(self, directory: int, name: bytes, path: bytes, status: os.stat_result) -> bool:
        """Change one entry; True if it is a directory."""
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            first = self._inodes.setdefault((status.st_dev, status.st_ino), path)
            if first is not path:
                self._link_again(directory, name, first)
                return False
        uid, gid = self._owners(status.st_uid, status.st_gid)
        if (uid, gid) != (status.st_uid, status.st_gid):
            place = treewalk.place(directory, name)
            capability = _get(place) if kind == stat.S_IFREG else None
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
            if kind != stat.S_IFLNK and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=directory)
            if capability is not None:
                os.setxattr(place, _CAPABILITY, capability, follow_symlinks=False)
        return kind == stat.S_IFDIR

    def _link_again(self, directory: int, name: bytes, first: bytes) -> None:
        """Make ``name`` the same file as ``first`` again, which may have been copied up."""
        above, _, base = first.rpartition(b"/")
        other = self._links.open(above)
        try:
            now = os.lstat(base, dir_fd=other)
            here = os.lstat(name, dir_fd=directory)
            if (now.st_ino, now.st_uid, now.st_gid) == (here.st_ino, here.st_uid, here.st_gid):
                return
            os.unlink(name, dir_fd=directory)
            os.link(base, name, src_dir_fd=other, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(other)


def _get(place: bytes) -> bytes | None:
    try:
        return os.getxattr(place, _CAPABILITY, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise
