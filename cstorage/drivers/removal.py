"""Delete a file tree of ours, whatever a container left in it.

Relative to directory descriptors, never following symbolic links, not leaving the file system (a
forgotten mount inside must not be emptied). Immutable and append-only flags are cleared on the way,
because a container may have set them.
"""

from __future__ import annotations

import errno
import fcntl
import os

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GETFLAGS = 0x80086601
_SETFLAGS = 0x40086602
_FROZEN = 0x10 | 0x20  # immutable, append only


def remove_tree(path: str) -> None:
    """Delete ``path`` and everything below it; nothing happens if it is not there."""
    parent = os.open(os.path.dirname(path) or ".", _DIRECTORY)
    try:
        _remove(parent, os.fsencode(os.path.basename(path)), os.fstat(parent).st_dev)
    finally:
        os.close(parent)


def _remove(parent: int, name: bytes, device: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except IsADirectoryError:
        pass
    except PermissionError:
        if not os.path.isdir(b"/proc/self/fd/%d/%s" % (parent, name)):
            _thaw(parent, name)
            os.unlink(name, dir_fd=parent)
            return
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return
    try:
        if os.fstat(directory).st_dev != device:
            raise OSError(errno.EBUSY, "something is mounted here", os.fsdecode(name))
        for entry in os.listdir(f"/proc/self/fd/{directory}".encode()):
            _remove(directory, entry, device)
    finally:
        os.close(directory)
    try:
        os.rmdir(name, dir_fd=parent)
    except PermissionError:
        _thaw(parent, name)
        os.rmdir(name, dir_fd=parent)


def _thaw(parent: int, name: bytes) -> None:
    """Clear the immutable and append-only flags of ``name`` and of the directory it is in."""
    for descriptor in (parent, -1):
        opened = -1
        try:
            if descriptor < 0:
                opened = os.open(
                    name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent
                )
                descriptor = opened  # noqa: PLW2901 - the second object of the pair
            flags = bytearray(8)
            fcntl.ioctl(descriptor, _GETFLAGS, flags)
            value = int.from_bytes(flags[:4], "little") & ~_FROZEN
            fcntl.ioctl(descriptor, _SETFLAGS, value.to_bytes(8, "little"))
        except OSError:
            continue
        finally:
            if opened >= 0:
                os.close(opened)
