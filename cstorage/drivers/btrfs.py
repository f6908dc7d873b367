"""The btrfs driver: every layer is a subvolume, a child begins as a snapshot of its parent.

Layout: ``<home>/subvolumes/<id>`` (drivers-and-formats §4.2). A snapshot takes the same time
whatever the parent holds and shares everything with it; apart from how a layer comes into being
this is the ``vfs`` driver. Limits (``size``, ``min_space``) need quota groups and are refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from cstorage.drivers.vfs import VfsDriver
from cstorage.errors import DriverError, DriverNotSupported
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.drivers.contract import DriverOptions, LayerPlan

_SUBVOL_CREATE = 0x5000940E
_SNAP_CREATE_V2 = 0x50009417
_NAMED = struct.Struct("=q4088s")  # descriptor, name
_SNAPSHOT = struct.Struct("=qQQ32x4040s")  # source, transaction, flags, unused, name
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class BtrfsDriver(VfsDriver):
    """See the module."""

    name = "btrfs"
    folder = "subvolumes"
    option_keys = ("min_space", "size")

    def __init__(self, given: DriverOptions) -> None:
        super().__init__(given)
        for key, value, _ in _chosen(self.name, given.options):
            if value not in {"", "0"}:
                raise DriverError(
                    f"btrfs: the option {key} is not supported",
                    hint="remove it, or limit the subvolume with btrfs qgroup",
                )

    def check_supported(self) -> None:
        """Raise ``DriverNotSupported`` unless the home is (or will be) on btrfs."""
        from cstorage.drivers.probe import file_system

        path = self.home
        while not os.path.isdir(path) and path not in {"", "/"}:
            path = os.path.dirname(path)
        found = file_system(path or "/")
        if found != "btrfs":
            raise DriverNotSupported(f"btrfs needs a btrfs file system, {path} is on {found}")

    def _create(self, path: str, source: str) -> None:
        above, name = os.path.split(path)
        parent = os.open(above, _DIRECTORY)
        origin = -1
        try:
            if source:
                origin = os.open(source, _DIRECTORY | os.O_NOFOLLOW)
                request = bytearray(_SNAPSHOT.pack(origin, 0, 0, os.fsencode(name)))
                fcntl.ioctl(parent, _SNAP_CREATE_V2, request)
            else:
                request = bytearray(_NAMED.pack(0, os.fsencode(name)))
                fcntl.ioctl(parent, _SUBVOL_CREATE, request)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV):
                raise DriverError(
                    f"{above} cannot hold a subvolume: {(error.strerror or str(error)).lower()}",
                    hint="the btrfs driver needs its store on one btrfs file system",
                ) from None
            raise
        finally:
            os.close(parent)
            if origin >= 0:
                os.close(origin)

    def _fill(self, plan: LayerPlan, root: int, source: str) -> None:
        if not source:
            super()._fill(plan, root, source)
            return
        owners = self._owners(plan)
        if owners is not None:
            from cstorage.drivers.chown import chown_tree

            chown_tree(root, owners)
            status = os.fstat(root)
            os.fchown(root, *owners(status.st_uid, status.st_gid))


def _chosen(name: str, given: tuple[str, ...]) -> list[tuple[str, str, str]]:
    from cstorage.drivers.options import addressed_to

    return list(addressed_to(name, given))
