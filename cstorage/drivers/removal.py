"""Delete a file tree of ours, whatever a container left in it.

Symbolic links are never followed, other file systems never entered (a forgotten mount must not be
emptied), depth does not matter. Immutable and append-only flags are cleared on the way, because a
container may have set them.
"""

from __future__ import annotations

import errno
import fcntl
import os

from cstorage.drivers import treewalk
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_GETFLAGS = 0x80086601
_SETFLAGS = 0x40086602
_FROZEN = 0x10 | 0x20  # immutable, append only
_ANY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Delete ``path`` and everything below it; nothing happens if it is not there.

    Raises ``OSError`` (EBUSY) if another file system is mounted inside.
    """
    above = os.path.dirname(path) or "."
    try:
        parent = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    name = os.fsencode(os.path.basename(path))
    try:
        try:
            _insist(os.unlink, parent, name)
            return
        except FileNotFoundError:
            return
        except IsADirectoryError:
            pass
        root = os.open(name, treewalk.DIRECTORY, dir_fd=parent)
        try:
            _empty(root, parent, path)
        finally:
            os.close(root)
        _insist(os.rmdir, parent, name)
    finally:
        os.close(parent)


def _empty(root: int, parent: int, path: str) -> None:
    device = os.fstat(parent).st_dev
    pending = [b""]
    found: list[bytes] = []
    with treewalk.Tree(root) as tree:
        while pending:
            current = pending.pop()
            directory = tree.open(current)
            try:
                if os.fstat(directory).st_dev != device and _mount(directory) != _mount(parent):
                    raise OSError(
                        errno.EBUSY, "something is mounted here", f"{path}/{os.fsdecode(current)}"
                    )
                for name in treewalk.names(directory):
                    try:
                        _insist(os.unlink, directory, name)
                    except FileNotFoundError:
                        continue
                    except IsADirectoryError:
                        pending.append(treewalk.joined(current, name))
            finally:
                os.close(directory)
            found.append(current)
        for current in reversed(found[1:]):
            above, _, name = current.rpartition(b"/")
            directory = tree.open(above)
            try:
                _insist(os.rmdir, directory, name)
            finally:
                os.close(directory)


def _mount(descriptor: int) -> bytes:
    """The mount that an open file belongs to; subvolumes differ in device, not in mount."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as facts:
        return next((line for line in facts if line.startswith(b"mnt_id:")), b"")


def _insist(remove: Callable[..., None], directory: int, name: bytes) -> None:
    """Remove an entry; clear the flags that forbid it and try again."""
    try:
        remove(name, dir_fd=directory)
    except PermissionError:
        _thaw(os.dup(directory))
        try:
            _thaw(os.open(name, _ANY, dir_fd=directory))
        except OSError:  # what cannot be opened carries no such flags
            pass
        try:
            remove(name, dir_fd=directory)
        except PermissionError:
            # Linux answers EISDIR when a directory is unlinked, POSIX allows EPERM.
            if remove is os.unlink and os.path.isdir(treewalk.place(directory, name)):
                raise IsADirectoryError(errno.EISDIR, "is a directory") from None
            raise


def _thaw(descriptor: int) -> None:
    """Clear the immutable and append-only flags; closes the descriptor."""
    flags = bytearray(8)
    try:
        fcntl.ioctl(descriptor, _GETFLAGS, flags)
        value = int.from_bytes(flags[:4], "little")
        if value & _FROZEN:
            fcntl.ioctl(descriptor, _SETFLAGS, (value & ~_FROZEN).to_bytes(8, "little"))
    except OSError:
        pass
    finally:
        os.close(descriptor)
