"""Limits for the space and the inodes of one layer: project quotas.

A project is a number that the layer's directory and everything created in it carry; the file system
counts per project. Rules (drivers-and-formats §3.3): the number goes onto the still empty layer
directory with the inherit flag; limits are hard = soft; numbers start at one more than the home's
own project, or, if that is 0, at 10000 + inode(home) × 10000 mod (2³² - 1 - 10000).

The original offers this on XFS only; the calls are the same on every file system with project
quotas (ext4, f2fs), so what decides is whether they work. Errors: ``DriverError``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from cstorage.errors import DriverError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cstorage.drivers.overlay_options import Quota

_FSGETXATTR = 0x801C581F
_FSSETXATTR = 0x401C5820
_FSXATTR = struct.Struct("<5I8s")  # xflags, extsize, nextents, projid, cowextsize, pad
_INHERIT = 0x200

_SYS_QUOTACTL_FD = 443
_PROJECT_QUOTA = 2
_XSETQLIM = (ord("X") << 8) + 4
_LIMITS = struct.Struct("<bbHIQQQQQQiiHHhbbQQQ ihh8s")
_VERSION = 1
_FIELDS_INODES = 0x3  # soft and hard
_FIELDS_BLOCKS = 0xC
_BASIC_BLOCK = 512

_BASE = 10000


def project_id(directory: int) -> int:
    """The project of an open directory, 0 = none."""
    attributes = bytearray(_FSXATTR.size)
    try:
        fcntl.ioctl(directory, _FSGETXATTR, attributes)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
            return 0
        raise
    return int(_FSXATTR.unpack(attributes)[3])


def set_project_id(directory: int, project: int) -> None:
    """Give an open, empty directory a project that its content inherits."""
    attributes = bytearray(_FSXATTR.size)
    try:
        fcntl.ioctl(directory, _FSGETXATTR, attributes)
        flags, extent, extents, _, cow, pad = _FSXATTR.unpack(attributes)
        changed = _FSXATTR.pack(flags | _INHERIT, extent, extents, project, cow, pad)
        fcntl.ioctl(directory, _FSSETXATTR, changed)
    except OSError as error:
        raise _unsupported(error) from None


def set_limits(directory: int, project: int, quota: Quota) -> None:
    """Limit a project on the file system of ``directory``."""
    size, inodes = quota.size // _BASIC_BLOCK, quota.inodes
    limits = _LIMITS.pack(
        _VERSION, _PROJECT_QUOTA, _FIELDS_INODES | _FIELDS_BLOCKS, project,
        size, size, inodes, inodes,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b"",
    )  # fmt: skip
    buffer = ctypes.create_string_buffer(limits, len(limits))
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(
        ctypes.c_long(_SYS_QUOTACTL_FD),
        ctypes.c_uint(directory),
        ctypes.c_uint((_XSETQLIM << 8) | _PROJECT_QUOTA),
        ctypes.c_uint(project),
        buffer,
    )
    if result < 0:
        number = ctypes.get_errno()
        raise _unsupported(OSError(number, os.strerror(number)))


def _unsupported(error: OSError) -> DriverError:
    return DriverError(
        "storage option overlay.size and overlay.inodes not supported. "
        f"Filesystem does not support Project Quota: {(error.strerror or str(error)).lower()}",
        hint="use XFS mounted with pquota, or remove the limits",
    )


def check_file_system(name: str) -> None:
    """Limits for all layers are refused when a store is opened where they cannot work (§3.2)."""
    if name != "xfs":
        raise DriverError(
            "storage option overlay.size and overlay.inodes only supported for backingFS XFS. "
            f"Found {name}",
            hint="remove the limits from the options of the store",
        )


def first_project(home_project: int, home_inode: int) -> int:
    """Where the numbers of a home start. Pure."""
    if home_project:
        return home_project + 1
    return _BASE + (home_inode * _BASE) % ((1 << 32) - 1 - _BASE)


def limit_layer(path: str, quota: Quota, home: str, run_home: str, layers: Iterable[str]) -> int:
    """Give the new layer directory ``path`` a project of its own with limits; returns it.

    ``layers`` are the directories whose projects are taken. The last number is remembered in
    RUNROOT under a lock, because layers are prepared by several processes at once before any is
    published.
    """
    os.makedirs(run_home, mode=0o700, exist_ok=True)
    os.makedirs(home, mode=0o755, exist_ok=True)
    counter = os.open(f"{run_home}/last-project", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    directory = -1
    try:
        fcntl.flock(counter, fcntl.LOCK_EX)
        text = os.read(counter, 32)
        last = int(text) if text.isdigit() else _highest(home, layers)
        project = last + 1
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        set_project_id(directory, project)
        if quota:
            set_limits(directory, project, quota)
        os.pwrite(counter, str(project).encode(), 0)
        return project
    finally:
        os.close(counter)
        if directory >= 0:
            os.close(directory)


def _highest(home: str, layers: Iterable[str]) -> int:
    def of(path: str) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return project_id(descriptor)
        finally:
            os.close(descriptor)

    start = first_project(of(home), os.stat(home).st_ino)
    return max([start - 1, *(of(path) for path in layers)])
