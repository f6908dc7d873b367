"""What changed between two trees, or in an overlay layer; and how much there is.

Rules of this module:

* Source of the rules: drivers-and-formats §5.2 (comparison), §5.3 (overlay), §5.6 (sizes).
* Results are in a deterministic order: a directory before what is in it, names bytewise; of two
  trees, what a directory no longer has after what it has.
* Trees are walked by descriptors; nothing is followed, nothing outside is looked at.
"""

from __future__ import annotations

import errno
import os
import stat

from cstorage.archive import beneath
from cstorage.archive.ids import to_container
from cstorage.archive.walk import Descent, open_child, scan, walk
from cstorage.archive.whiteouts import OPAQUE_XATTRS, is_whiteout_device
from cstorage.model import Change, ChangeKind, IDMaps
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NO_MAPS = IDMaps()


# -- two trees -------------------------------------------------------------------------------------


def compare_trees(
    old_fd: int | None,
    new_fd: int,
    *,
    old_maps: IDMaps = _NO_MAPS,
    new_maps: IDMaps = _NO_MAPS,
) -> list[Change]:
    """Changes that turn the tree ``old_fd`` (``None``: an empty one) into ``new_fd``."""
    old = None if old_fd is None else Descent(old_fd)
    new = Descent(new_fd)
    try:
        return _compare(old, new, old_maps, new_maps)
    finally:
        new.close()
        if old is not None:
            old.close()


class _Level:
    """One directory of a comparison. ``beside``: whether the old tree has it too."""

    def __init__(self, path: bytes, old: Descent | None, new: Descent, unreported: bool) -> None:
        self.path = path
        self.beside = old is not None
        self.unreported = unreported  # the directory itself did not change (so far)
        self.before = dict(scan(old.fd)) if old is not None else {}
        self.now = dict(scan(new.fd))
        gone = self.before.keys() - self.now.keys()
        self.names = iter((*sorted(self.now), *sorted(gone)))


def _compare(old: Descent | None, new: Descent, old_maps: IDMaps, new_maps: IDMaps) -> list[Change]:
    changes: list[Change] = []
    levels = [_Level(b"", old, new, False)]

    def report(path: bytes, kind: ChangeKind) -> None:
        for level in levels:  # a directory with changes in it counts as modified, before them
            if level.unreported:
                level.unreported = False
                changes.append(Change(level.path, ChangeKind.MODIFY))
        changes.append(Change(path, kind))

    while levels:
        level = levels[-1]
        name = next(level.names, None)
        if name is None:
            levels.pop()
            if levels:
                new.leave()
                if level.beside and old is not None:
                    old.leave()
            continue
        full = level.path + b"/" + name
        before, now = level.before.get(name), level.now.get(name)
        if now is None:
            report(full, ChangeKind.DELETE)
            continue
        changed = True
        if before is None or old is None:
            report(full, ChangeKind.ADD)
        elif (before.st_dev, before.st_ino) == (now.st_dev, now.st_ino):
            continue
        elif _differs((old.fd, before, old_maps), (new.fd, now, new_maps), name):
            report(full, ChangeKind.MODIFY)
        else:
            changed = False
        if stat.S_ISDIR(now.st_mode):
            below = before is not None and stat.S_ISDIR(before.st_mode)
            new.enter(name)
            if below and old is not None:
                old.enter(name)
            levels.append(_Level(full, old if below else None, new, not changed))
    return changes


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
    old: tuple[int, os.stat_result, IDMaps], new: tuple[int, os.stat_result, IDMaps], name: bytes
) -> bool:
    """Whether an entry changed; each side is (directory descriptor, ``lstat``, maps)."""
    old_fd, before, old_maps = old
    new_fd, now, new_maps = new
    if (
        before.st_mode != now.st_mode
        or _owner(before, old_maps) != _owner(now, new_maps)
        or before.st_rdev != now.st_rdev
        or not same_time(before.st_mtime_ns, now.st_mtime_ns)
        or (before.st_size != now.st_size and not stat.S_ISDIR(now.st_mode))
    ):
        return True
    if stat.S_ISLNK(now.st_mode):
        return os.readlink(name, dir_fd=old_fd) != os.readlink(name, dir_fd=new_fd)
    return _compared_xattrs(old_fd, name) != _compared_xattrs(new_fd, name)


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
            opaque = False
            for index, part in enumerate(parts):
                info = beneath.stat_in(fd, part)
                if info is None:
                    if opaque:
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
                opaque = opaque or is_opaque(fd)
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

    hidden = [False]  # per depth: whether an opaque directory above hides the lower layers
    for dir_fd, name, path, depth, info in walk(upper_fd):
        del hidden[depth + 1 :]
        if is_whiteout_device(info):
            record(path, ChangeKind.DELETE)
            continue
        directory = stat.S_ISDIR(info.st_mode)
        below = None if hidden[depth] else lower_stat(lower_fds, path)
        opaque = directory and is_opaque(dir_fd, name)
        if opaque and below is not None:
            record(path, ChangeKind.DELETE)
        elif below is None:
            record(path, ChangeKind.ADD)
        elif not (
            directory
            and stat.S_ISDIR(below.st_mode)
            and below.st_size == info.st_size
            and below.st_mode == info.st_mode
            and same_time(below.st_mtime_ns, info.st_mtime_ns)
        ):
            record(path, ChangeKind.MODIFY)
        hidden.append(hidden[depth] or opaque)
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
    return sum(_counted(step.info, seen) for step in walk(root_fd))


def _counted(info: os.stat_result, seen: set[tuple[int, int]]) -> int:
    if stat.S_ISDIR(info.st_mode):
        return 0
    if info.st_nlink > 1:
        key = (info.st_dev, info.st_ino)
        if key in seen:
            return 0
        seen.add(key)
    return info.st_size
