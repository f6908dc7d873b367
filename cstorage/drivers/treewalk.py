"""Reaching every directory of a tree, however deep, without leaving it.

A walk keeps paths, not descriptors: a container can nest directories deeper than there are
descriptors or stack frames. Each directory is opened from the root in pieces that are short enough
for the kernel, resolved inside the root, so a symbolic link that somebody puts in the way leads
nowhere else.
"""

from __future__ import annotations

import os

from cstorage.archive.beneath import open_in_root

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE_MAX = 3500
"""Bytes of path handed to one call; the kernel's limit is 4095 including what it is joined to."""


def open_directory(root: int, path: bytes) -> int:
    """A descriptor of the directory ``path`` (relative, no links, b"" = the root itself)."""
    if not path:
        return os.open(b".", DIRECTORY, dir_fd=root)
    held = -1
    try:
        while len(path) > _PIECE_MAX:
            cut = path.rfind(b"/", 0, _PIECE_MAX)
            step = open_in_root(root if held < 0 else held, path[:cut], DIRECTORY)
            if held >= 0:
                os.close(held)
            held, path = step, path[cut + 1 :]
        return open_in_root(root if held < 0 else held, path, DIRECTORY)
    finally:
        if held >= 0:
            os.close(held)


def names(directory: int) -> list[bytes]:
    """Names in an open directory, raw."""
    return os.listdir(f"/proc/self/fd/{directory}".encode())


def place(directory: int, name: bytes) -> bytes:
    """A path of an entry of an open directory, for calls that take no directory descriptor."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def joined(directory: bytes, name: bytes) -> bytes:
    """The path of an entry of a directory of the walk."""
    return directory + b"/" + name if directory else name
