"""Steps that drivers share when layers appear and disappear.

Publishing is ``rename`` then making the directories durable; withdrawing is ``rename`` into a trash
directory. Whatever moment the process dies, a layer directory is whole and in exactly one place.
"""

from __future__ import annotations

import errno
import os

from cstorage.errors import DriverError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.drivers.contract import Prepared

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def sync_directory(path: str) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: str, mode: int) -> None:
    """Create ``path`` (absolute) and what is missing above it, durably."""
    path = os.path.abspath(path)
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for made in reversed(missing):
        try:
            os.mkdir(made, mode)
        except FileExistsError:
            continue
        sync_directory(os.path.dirname(made))


def sync_file(path: str) -> None:
    """Make a file's content durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def sync_content(prepared: Prepared) -> None:
    """Make everything that was written into a prepared layer durable: one ``syncfs``.

    Syncing each file instead costs one journal commit per file, seconds for an ordinary layer.
    """
    from cstorage.drivers.mountapi import sync_file_system

    sync_file_system(prepared.root_fd)


def move_into_place(prepared: Prepared, target: str) -> None:
    """Rename a prepared layer to ``target``, which must not exist yet (or be empty)."""
    try:
        os.rename(prepared.path, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise DriverError(
                f"{target} already exists",
                hint="withdraw the leftover of an earlier attempt first",
            ) from None
        raise
    prepared.path = target


def move_to_trash(path: str, trash: str) -> bool:
    """Rename ``path`` into the directory ``trash`` under a free name; False if it is not there."""
    name = os.path.basename(path)
    number = 0
    while True:
        target = f"{trash}/{name}.{number}" if number else f"{trash}/{name}"
        if not os.path.lexists(target):
            try:
                os.rename(path, target)
                return True
            except FileNotFoundError:
                if not os.path.isdir(trash):
                    raise
                return False
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
        number += 1
