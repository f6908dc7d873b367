"""Trees of files as comparable facts: modes, owners, attributes, whiteouts, times, content."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

#: Attributes whose value is a file handle or a random number of the file system.
_OPAQUE_VALUES = ("trusted.overlay.origin", "trusted.overlay.nlink")

#: Attributes of the running system: not part of a layer.
_FOREIGN = ("security.selinux", "trusted.overlay.uuid")


class Entry(NamedTuple):
    """One file; ``time`` is "now" when it is not older than the comparison."""

    kind: str
    mode: str
    uid: int
    gid: int
    size: int
    time: str
    link: str
    device: str
    xattrs: tuple[tuple[str, str], ...]
    content: str
    same_as: str  # first path of the same inode, for hard links


def _kind(mode: int) -> str:
    for letter, test in (
        ("d", stat.S_ISDIR), ("-", stat.S_ISREG), ("l", stat.S_ISLNK), ("c", stat.S_ISCHR),
        ("b", stat.S_ISBLK), ("p", stat.S_ISFIFO), ("s", stat.S_ISSOCK),
    ):  # fmt: skip
        if test(mode):
            return letter
    return "?"


def _xattrs(path: bytes) -> tuple[tuple[str, str], ...]:
    found = []
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if name in _FOREIGN:
            continue
        value = os.getxattr(path, name, follow_symlinks=False)
        found.append((name, "<handle>" if name in _OPAQUE_VALUES else value.hex()))
    return tuple(found)


def snapshot(root: Path, since_ns: int) -> dict[str, Entry]:
    """Everything below ``root``, ``root`` itself as "."; times from ``since_ns`` on read "now"."""
    entries: dict[str, Entry] = {}
    inodes: dict[tuple[int, int], str] = {}
    top = os.fsencode(root)
    waiting = [b""]
    while waiting:
        relative = waiting.pop()
        path = os.path.join(top, relative) if relative else top
        try:
            facts = os.lstat(path)
        except FileNotFoundError:
            if relative:  # the kernel lists whiteouts of the lowest layer
                continue
            raise
        kind = _kind(facts.st_mode)
        shown = os.fsdecode(relative) or "."
        same_as = ""
        if facts.st_nlink > 1 and kind != "d":
            same_as = inodes.setdefault((facts.st_dev, facts.st_ino), shown)
        content = ""
        if kind == "-":
            content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()[:16]
        entries[shown] = Entry(
            kind,
            oct(stat.S_IMODE(facts.st_mode)),
            facts.st_uid,
            facts.st_gid,
            0 if kind == "d" else facts.st_size,
            "now" if facts.st_mtime_ns >= since_ns else str(facts.st_mtime_ns),
            os.fsdecode(os.readlink(path)) if kind == "l" else "",
            f"{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}" if kind in "bc" else "",
            _xattrs(path),
            content,
            same_as,
        )
        if kind == "d":
            waiting += [
                os.path.join(relative, name) for name in sorted(os.listdir(path), reverse=True)
            ]
    return entries


def differing(ours: dict[str, Entry], theirs: dict[str, Entry]) -> list[str]:
    """One line for each path and field that differs."""
    lines = []
    for path in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(path), theirs.get(path)
        if left is None or right is None:
            lines.append(f"{path}: only {'theirs' if left is None else 'ours'}: {left or right}")
            continue
        for field in Entry._fields:
            mine, other = getattr(left, field), getattr(right, field)
            if mine != other:
                lines.append(f"{path}: {field}: ours {mine!r}, theirs {other!r}")
    return lines
