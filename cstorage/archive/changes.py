"""What changed between two trees, or in an overlay layer; and how much there is.

Rules of this module:

* Source of the rules: drivers-and-formats §5.2 (comparison), §5.3 (overlay), §5.6 (sizes).
* Results are in a deterministic order: a directory before what is in it, names bytewise.
* Trees are walked by descriptors; nothing is followed, nothing outside is looked at.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from cstorage.archive import beneath
from cstorage.archive.ids import to_container
from cstorage.archive.whiteouts import OPAQUE_XATTRS, is_whiteout_device
from cstorage.model import Change, ChangeKind, IDMaps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_MAPS = IDMaps()


def scan(dir_fd: int) -> list[tuple[bytes, os.stat_result]]:
    """Entries of an open directory with their ``lstat``, sorted bytewise, without vanished ones."""
    found = []
    for name in beneath.list_names(dir_fd):
        info = beneath.stat_in(dir_fd, name)
        if info is not None:
            found.append((name, info))
    return found


def open_child(dir_fd: int, name: bytes) -> int:
    """Open a subdirectory for reading, never through a link."""
    return os.open(name, _OPEN_DIR, dir_fd=dir_fd)


# -- two trees -------------------------------------------------------------------------------------


class _Tree(NamedTuple):
    """One side of a comparison: an open directory (``None``: an empty one) and its layer's maps."""

    fd: int | None
    maps: IDMaps


def compare_trees(
    old_fd: int | None,
    new_fd: int,
    *,
    old_maps: IDMaps = _NO_MAPS,
    new_maps: IDMaps = _NO_MAPS,
) -> list[Change]:
    """Changes that turn the tree ``old_fd`` (``None``: an empty one) into ``new_fd``."""
    changes: list[Change] = []
    _compare(_Tree(old_fd, old_maps), _Tree(new_fd, new_maps), b"", changes)
    return changes


def _compare(old: _Tree, new: _Tree, path: bytes, changes: list[Change]) -> None:
    before_all = dict(scan(old.fd)) if old.fd is not None else {}
    now_all = dict(scan(new.fd)) if new.fd is not None else {}
    for name in sorted(before_all.keys() | now_all.keys()):
        full = path + b"/" + name
        before, now = before_all.get(name), now_all.get(name)
        if now is None:
            changes.append(Change(full, ChangeKind.DELETE))
            continue
        at = len(changes)
        is_directory = stat.S_ISDIR(now.st_mode)
        if before is None:
            changes.append(Change(full, ChangeKind.ADD))
            if is_directory:
                _descend(old._replace(fd=None), new, name, full, changes)
            continue
        if (before.st_dev, before.st_ino) == (now.st_dev, now.st_ino):
            continue
        if _differs(old, before, new, now, name):
            changes.append(Change(full, ChangeKind.MODIFY))
        if is_directory:
            changed = len(changes) > at
            beside = old if stat.S_ISDIR(before.st_mode) else old._replace(fd=None)
            _descend(beside, new, name, full, changes)
            if not changed and len(changes) > at:
                changes.insert(at, Change(full, ChangeKind.MODIFY))


def _descend(old: _Tree, new: _Tree, name: bytes, full: bytes, changes: list[Change]) -> None:
    opened = []
    try:
        sides = []
        for side in (old, new):
            if side.fd is not None:
                opened.append(open_child(side.fd, name))
                side = side._replace(fd=opened[-1])  # noqa: PLW2901
            sides.append(side)
        _compare(sides[0], sides[1], full, changes)
    finally:
        for fd in opened:
            os.close(fd)


def _owner(info: os.stat_result, maps: IDMaps) -> tuple[int, int]:
    uid = to_container(maps.uids, info.st_uid)
    gid = to_container(maps.gids, info.st_gid)
    return info.st_uid if uid is None else uid, info.st_gid if gid is None else gid


def same_time(old_ns: int, new_ns: int) -> bool:
    """Equal, or equal to the second if either has no fraction (archives mostly have none)."""
    if old_ns == new_ns:
        return True
    old_s, old_part = divmod(old_ns, 1_000_000_000)
    new_s, new_part = divmod(new_ns, 1_000_000_000)
    return old_s == new_s and not (old_part and new_part)


def _differs(
    old: _Tree, before: os.stat_result, new: _Tree, now: os.stat_result, name: bytes
) -> bool:
    if (
        before.st_mode != now.st_mode
        or _owner(before, old.maps) != _owner(now, new.maps)
        or before.st_rdev != now.st_rdev
        or not same_time(before.st_mtime_ns, now.st_mtime_ns)
        or (before.st_size != now.st_size and not stat.S_ISDIR(now.st_mode))
    ):
        return True
    assert old.fd is not None
    assert new.fd is not None
    if stat.S_ISLNK(now.st_mode):
        return os.readlink(name, dir_fd=old.fd) != os.readlink(name, dir_fd=new.fd)
    return _compared_xattrs(old.fd, name) != _compared_xattrs(new.fd, name)


def _compared_xattrs(dir_fd: int, name: bytes) -> dict[str, bytes | None]:
    path = beneath.descriptor_path(dir_fd, name)
    try:
        keys = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.ENOENT):
            return {}
        raise
    return {
        key: beneath.get_xattr(path, key)
        for key in keys
        if key == "security.capability" or key.startswith("user.")
    }


# -- overlay ---------------------------------------------------------------------------------------


def is_opaque(dir_fd: int, name: bytes = b"") -> bool:
    """Whether a directory (itself, or the entry ``name``) hides what lower layers have in it."""
    path = beneath.descriptor_path(dir_fd, name)
    return any(beneath.get_xattr(path, key, follow=not name) == b"y" for key in OPAQUE_XATTRS)


def lower_stat(lower_fds: Sequence[int], path: bytes) -> os.stat_result | None:
    """``lstat`` of ``path`` (relative) as the lower layers show it, topmost first.

    The search stops at a whiteout on the path or on one of its parents, and below an opaque or
    replaced directory.
    """
    parts = path.split(b"/")
    for lower in lower_fds:
        fd = lower
        try:
            for index, part in enumerate(parts):
                info = beneath.stat_in(fd, part)
                if info is None:
                    if fd != lower and is_opaque(fd):
                        return None
                    break
                if is_whiteout_device(info):
                    return None
                if index == len(parts) - 1:
                    return info
                if not stat.S_ISDIR(info.st_mode):
                    return None
                child = open_child(fd, part)
                if fd != lower:
                    os.close(fd)
                fd = child
        finally:
            if fd != lower:
                os.close(fd)
    return None


def overlay_changes(upper_fd: int, lower_fds: Sequence[int]) -> list[Change]:
    """Changes that the upper directory of an overlay makes to its lower layers (§5.3)."""
    changes: list[Change] = []
    mentioned: set[bytes] = set()

    def record(path: bytes, kind: ChangeKind) -> None:
        if kind != ChangeKind.MODIFY:
            parts = path.split(b"/")[:-1]
            for count in range(1, len(parts) + 1):
                above = b"/".join(parts[:count])
                if above not in mentioned:
                    mentioned.add(above)
                    changes.append(Change(b"/" + above, ChangeKind.MODIFY))
        mentioned.add(path)
        changes.append(Change(b"/" + path, kind))

    def walk(fd: int, path: bytes, hidden: bool) -> None:
        for name, info in scan(fd):
            full = path + b"/" + name if path else name
            directory = stat.S_ISDIR(info.st_mode)
            if is_whiteout_device(info):
                record(full, ChangeKind.DELETE)
                continue
            below = None if hidden else lower_stat(lower_fds, full)
            opaque = directory and is_opaque(fd, name)
            if opaque and below is not None:
                record(full, ChangeKind.DELETE)
            elif below is None:
                record(full, ChangeKind.ADD)
            elif not (
                directory
                and stat.S_ISDIR(below.st_mode)
                and below.st_size == info.st_size
                and below.st_mode == info.st_mode
                and same_time(below.st_mtime_ns, info.st_mtime_ns)
            ):
                record(full, ChangeKind.MODIFY)
            if directory:
                child = open_child(fd, name)
                try:
                    walk(child, full, hidden or opaque)
                finally:
                    os.close(child)

    walk(upper_fd, b"", False)
    return changes


# -- sizes -----------------------------------------------------------------------------------------


def changes_size(new_fd: int, changes: Iterable[Change]) -> int:
    """Bytes of the added and modified non-directories, each inode once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for change in changes:
        if change.kind == ChangeKind.DELETE:
            continue
        directory, _, base = change.path.strip(b"/").rpartition(b"/")
        fd = beneath.open_in_root(new_fd, directory, beneath.DIRECTORY)
        try:
            info = beneath.stat_in(fd, base)
        finally:
            os.close(fd)
        if info is not None:
            total += _counted(info, seen)
    return total


def tree_size(root_fd: int) -> int:
    """Bytes of all non-directories below ``root_fd``, each inode once; links count their target."""
    seen: set[tuple[int, int]] = set()

    def walk(fd: int) -> int:
        total = 0
        for name, info in scan(fd):
            if stat.S_ISDIR(info.st_mode):
                child = open_child(fd, name)
                try:
                    total += walk(child)
                finally:
                    os.close(child)
            else:
                total += _counted(info, seen)
        return total

    return walk(root_fd)


def _counted(info: os.stat_result, seen: set[tuple[int, int]]) -> int:
    if stat.S_ISDIR(info.st_mode):
        return 0
    if info.st_nlink > 1:
        key = (info.st_dev, info.st_ino)
        if key in seen:
            return 0
        seen.add(key)
    return info.st_size
