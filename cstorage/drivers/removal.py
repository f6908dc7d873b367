"""Delete a file tree of ours, whatever a container left in it.

Symbolic links are never followed, other file systems never entered (a forgotten mount must not be
emptied), depth does not matter. Immutable and append-only flags are cleared on the way, because a
container may have set them.
"""

from __future__ import annotations

import errno
import fcntl
import os
from itertools import islice

from cstorage.drivers import treewalk
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_GETFLAGS = 0x80086601
_SETFLAGS = 0x40086602
_FROZEN = 0x10 | 0x20  # immutable, append only
PART = 4096
"""Entries of a directory that are read before they are deleted: it may have millions."""
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
                pending += [treewalk.joined(current, name) for name in _clear(directory)]
            finally:
                os.close(directory)
            found.append(current)
        above, directory = b"", root
        try:
            for current in reversed(found[1:]):
                place, _, name = current.rpartition(b"/")
                if place != above:  # neighbours mostly have the same one
                    if directory != root:
                        os.close(directory)
                        directory = root
                    directory, above = tree.open(place), place
                _insist(os.rmdir, directory, name)
        finally:
            if directory != root:
                os.close(directory)


def _clear(directory: int) -> list[bytes]:
    """Delete what is in an open directory; returns the names of directories that are not empty.

    A directory is taken for empty first: many are, and one call does without walking into it.
    """
    left: list[bytes] = []
    with os.scandir(directory) as entries:
        while part := list(islice(entries, PART)):
            for entry in part:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    try:
                        os.rmdir(name, dir_fd=directory)
                    except FileNotFoundError:
                        continue
                    except OSError:  # not empty, frozen, a mount: whoever walks into it will know
                        left.append(os.fsencode(name))
                    continue
                try:
                    os.unlink(name, dir_fd=directory)
                except FileNotFoundError:
                    continue
                except IsADirectoryError:
                    left.append(os.fsencode(name))
                except PermissionError:
                    try:
                        _insist(os.unlink, directory, os.fsencode(name))
                    except IsADirectoryError:
                        left.append(os.fsencode(name))
    return left


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
