"""ID-mapped mounts: the same files, shown with other owners.

A mount takes its ID map from a user namespace. So a child process enters a new one, we write the
maps as its creator, keep a descriptor of the namespace and let the child go. ``mount_setattr`` then
applies the namespace to a detached bind mount, which is attached where an overlay can use it as
lower directory and detached again afterwards: the overlay holds on to it.

Sources: drivers-and-formats §3.8; mount_setattr(2), user_namespaces(7). Errors: ``OSError``.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager

from cstorage.drivers import mountapi
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cstorage.model import IDMap, IDMaps

_CLONE_NEWUSER = 0x10000000
_SYS_MOUNT_SETATTR = 442
_AT_EMPTY_PATH = 0x1000
_MOUNT_ATTR_IDMAP = 0x00100000
_IDENTITY = "0 0 4294967295"
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def map_text(id_map: IDMap) -> str:
    """The form of ``/proc/<pid>/uid_map``. An empty map is the identity."""
    if not id_map:
        return _IDENTITY
    return "\n".join(f"{e.container_id} {e.host_id} {e.size}" for e in id_map)


@contextmanager
def user_namespace(maps: IDMaps) -> Iterator[int]:
    """A descriptor of a user namespace with these maps."""
    libc = ctypes.CDLL(None, use_errno=True)
    ready_read, ready_write = os.pipe()
    hold_read, hold_write = os.pipe()
    child = os.fork()
    if child == 0:
        # Only calls that need no lock of the parent's threads.
        code = 1
        try:
            os.close(ready_read)
            os.close(hold_write)
            libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL)
            code = 0 if libc.unshare(_CLONE_NEWUSER) == 0 else ctypes.get_errno()
            os.write(ready_write, bytes((min(code, 255),)))
            os.read(hold_read, 1)
        finally:
            os._exit(code)
    namespace = -1
    try:
        os.close(ready_write)
        ready_write = -1
        answer = os.read(ready_read, 1)
        if answer != b"\0":
            number = answer[0] if answer else errno.EIO
            raise OSError(number, f"new user namespace: {os.strerror(number).lower()}")
        for name, id_map in (("uid_map", maps.uids), ("gid_map", maps.gids)):
            descriptor = os.open(f"/proc/{child}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, map_text(id_map).encode())
            except OSError as error:
                raise OSError(
                    error.errno, f"{name} {map_text(id_map)!r}: {error.strerror}"
                ) from None
            finally:
                os.close(descriptor)
        namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        yield namespace
    finally:
        for descriptor in (ready_read, ready_write, hold_read, hold_write, namespace):
            if descriptor >= 0:
                os.close(descriptor)
        os.waitpid(child, 0)


def map_mount(tree: int, namespace: int) -> None:
    """Apply a user namespace's maps to a detached mount."""
    attributes = _MountAttributes(_MOUNT_ATTR_IDMAP, 0, 0, namespace)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(tree),
        b"",
        ctypes.c_uint(_AT_EMPTY_PATH),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount_setattr: {os.strerror(number).lower()}")


@contextmanager
def mapped_directories(sources: Sequence[str], place: str, maps: IDMaps) -> Iterator[list[str]]:
    """``place/0``, ``place/1`` … showing ``sources`` with mapped owners, detached at the end."""
    attached: list[str] = []
    try:
        with user_namespace(maps) as namespace:
            for number, source in enumerate(sources):
                target = f"{place}/{number}"
                os.makedirs(target, mode=0o700, exist_ok=True)
                tree = mountapi.clone_tree(source)
                try:
                    map_mount(tree, namespace)
                    mountapi.attach(tree, target)
                finally:
                    os.close(tree)
                attached.append(target)
        yield attached
    finally:
        for target in attached:
            mountapi.detach(target)
