"""Steps that drivers share when layers appear and disappear.

Publishing is ``rename`` then making the directories durable; withdrawing is ``rename`` into a trash
directory. Whatever moment the process dies, a layer directory is whole and in exactly one place.

podman and containers/storage leave overlay's home mounted on itself. The kernel renames nothing
from one mount to another, so that is then done below the mount (``below_mounts``).
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

from cstorage.errors import DriverError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@contextmanager
def below_mounts(first: str, second: str) -> Iterator[tuple[int, str, str]]:
    """A descriptor, and both paths relative to it, without what is mounted on their ways.

    Raises ``OSError`` with ``EXDEV`` if that would lead to other directories than the paths do.
    """
    from cstorage.drivers import mountapi

    first, second = os.path.abspath(first), os.path.abspath(second)
    top = os.path.commonpath((first, second))
    apart = OSError(errno.EXDEV, os.strerror(errno.EXDEV), first, None, second)
    try:
        tree = mountapi.clone_tree(top)
    except OSError:  # not allowed, or an older kernel
        raise apart from None
    try:
        found = []
        for path in (first, second):
            inner = os.path.relpath(path, top)
            folder = os.stat(os.path.dirname(inner) or ".", dir_fd=tree)
            if not os.path.samestat(folder, os.stat(os.path.dirname(path))):
                raise apart
            found.append(inner)
        yield tree, found[0], found[1]
    finally:
        os.close(tree)


def rename(source: str, target: str) -> None:
    """``os.rename``, also where one of the two is on a mount of a directory on itself."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with below_mounts(source, target) as (tree, old, new):
            os.rename(old, new, src_dir_fd=tree, dst_dir_fd=tree)


def move_into_place(prepared: Prepared, target: str) -> None:
    """Rename a prepared layer to ``target``, which must not exist yet (or be empty)."""
    try:
        rename(prepared.path, target)
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
                rename(path, target)
                return True
            except FileNotFoundError:
                if not os.path.isdir(trash):
                    raise
                return False
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
        number += 1
