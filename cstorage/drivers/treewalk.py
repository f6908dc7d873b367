"""Reaching every directory of a tree, however deep, without leaving it.

A walk keeps paths, not descriptors: a container can nest directories deeper than there are
descriptors or stack frames. Each directory is opened from the root, or from a descriptor kept on
the way, in pieces that are short enough for the kernel, resolved inside the root, so a symbolic
link that somebody puts in the way leads nowhere else.
"""

from __future__ import annotations

import os

from cstorage.archive.beneath import open_in_root
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE_BYTES_MAX = 3500
"""Bytes of path handed to one call; the kernel's limit is 4095 including what it is joined to."""
_PIECE_NAMES = 64
"""Names after which a descriptor is kept, so that deep walks need not begin at the root."""


class Tree:
    """An open directory and the way to every directory below it. ``close`` keeps the root open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._kept: list[tuple[bytes, int]] = []

    def open(self, path: bytes) -> int:
        """A new descriptor of the directory ``path`` (relative, no links, b"" = the root)."""
        if not path:
            return os.open(b".", DIRECTORY, dir_fd=self._root)
        while self._kept and not (path + b"/").startswith(self._kept[-1][0] + b"/"):
            os.close(self._kept.pop()[1])
        start, above = self._kept[-1] if self._kept else (b"", self._root)
        rest = path[len(start) :].lstrip(b"/")
        if not rest:
            return os.open(b".", DIRECTORY, dir_fd=above)
        while cut := _piece(rest):
            start = joined(start, rest[:cut])
            above = open_in_root(above, rest[:cut], DIRECTORY)
            self._kept.append((start, above))
            rest = rest[cut + 1 :]
        return open_in_root(above, rest, DIRECTORY)

    def close(self) -> None:
        """Close what was kept."""
        while self._kept:
            os.close(self._kept.pop()[1])

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _piece(path: bytes) -> int:
    """Where to cut a path that is too long for one call, 0 if it is not."""
    names_ahead = path.split(b"/", _PIECE_NAMES)
    if len(names_ahead) <= _PIECE_NAMES and len(path) <= _PIECE_BYTES_MAX:
        return 0
    length = len(path) - len(names_ahead[-1]) - 1 if len(names_ahead) > _PIECE_NAMES else len(path)
    if length <= _PIECE_BYTES_MAX:
        return length
    return path.rfind(b"/", 0, _PIECE_BYTES_MAX)


def names(directory: int) -> list[bytes]:
    """Names in an open directory, raw."""
    return os.listdir(f"/proc/self/fd/{directory}".encode())


def entries(directory: int) -> Iterator[tuple[bytes, os.stat_result]]:
    """Entries of an open directory with their ``lstat``.

    Without those that are listed but not there: where nothing lies below, a mounted overlay lists
    its whiteouts.
    """
    for name in names(directory):
        try:
            yield name, os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            continue


def place(directory: int, name: bytes) -> bytes:
    """A path of an entry of an open directory, for calls that take no directory descriptor."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def joined(directory: bytes, name: bytes) -> bytes:
    """The path of an entry of a directory of the walk."""
    return directory + b"/" + name if directory else name
