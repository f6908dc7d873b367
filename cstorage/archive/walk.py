"""Walking a tree by descriptors: in order, following nothing, however deep it is.

Rules of this module:

* A directory comes before what is in it; names in bytewise order.
* At most ``_HELD`` descriptors are open per tree and no recursion happens, so the depth of a tree
  (which a container chooses) is bounded by neither. A directory left behind is opened again as
  ``..`` of the one below it if that is the same one still, else from the root, one component at a
  time, never through a link.
"""

from __future__ import annotations

import os
import stat

from cstorage.archive import beneath
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HELD = 64


class Step(NamedTuple):
    """One entry: ``name`` in the open directory ``dir_fd`` (valid until the next step)."""

    dir_fd: int
    name: bytes
    path: bytes
    """Relative to the root of the walk."""
    depth: int
    """0 for entries of the root."""
    info: os.stat_result


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


class Descent:
    """A position in a tree, moved by ``enter`` and ``leave``; ``fd`` is the directory there."""

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._names: list[bytes] = []
        self._fds: list[int] = []  # -1: closed meanwhile
        self._closed: dict[int, tuple[int, int]] = {}  # index -> device and inode of a closed one
        self.fd = root_fd

    def enter(self, name: bytes) -> None:
        self.fd = open_child(self.fd, name)
        self._names.append(name)
        self._fds.append(self.fd)
        old = len(self._fds) - _HELD
        if old >= 0 and self._fds[old] >= 0:
            self._closed[old] = _identity(self._fds[old])
            os.close(self._fds[old])
            self._fds[old] = -1

    def leave(self) -> None:
        below = self._fds.pop()
        self._names.pop()
        try:
            if not self._fds:
                self.fd = self._root
                return
            if self._fds[-1] < 0 and not self._climb(below):
                self._reopen()
            self.fd = self._fds[-1]
        finally:
            os.close(below)

    def _climb(self, below: int) -> bool:
        """Open the closed directory above ``below``; False if another one is there now."""
        index = len(self._fds) - 1
        fd = open_child(below, b"..")
        if _identity(fd) != self._closed.pop(index):
            os.close(fd)
            return False
        self._fds[index] = fd
        return True

    def _reopen(self) -> None:
        """Come back to a directory that was closed: its parents are needed soon, too."""
        fd = self._root
        keep_from = len(self._names) - _HELD // 2
        for index, name in enumerate(self._names):
            child = open_child(fd, name)
            if fd != self._root and index - 1 < keep_from:
                os.close(fd)
            if index >= keep_from:
                self._fds[index] = child
            fd = child

    def close(self) -> None:
        for fd in self._fds:
            if fd >= 0:
                os.close(fd)
        self._fds.clear()


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def walk(root_fd: int) -> Iterator[Step]:
    """Everything below ``root_fd``, the root itself left out.

    Directories that vanish meanwhile are left out; other errors are raised (``OSError``).
    """
    at = Descent(root_fd)
    levels = [(b"", iter(scan(root_fd)))]
    try:
        while levels:
            path, entries = levels[-1]
            entry = next(entries, None)
            if entry is None:
                levels.pop()
                if levels:
                    at.leave()
                continue
            name, info = entry
            full = path + b"/" + name if path else name
            yield Step(at.fd, name, full, len(levels) - 1, info)
            if stat.S_ISDIR(info.st_mode):
                try:
                    at.enter(name)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                levels.append((full, iter(scan(at.fd))))
    finally:
        at.close()
