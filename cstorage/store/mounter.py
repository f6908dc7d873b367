"""The part of ``Store`` that mounts and unmounts. See ``store`` for what ``key`` may be."""

from __future__ import annotations

from collections.abc import Sequence

from cstorage.model import LayerID
from cstorage.store import lookup
from cstorage.store.lazily import LazyModule
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage.store import mounts
    from cstorage.store.core import Core
    from cstorage.store.mounts import MountTable
else:
    mounts = LazyModule("cstorage.store.mounts")


class Mounter:
    """Mounts with reference counts."""

    _core: Core

    @property
    def _mounts(self) -> MountTable:
        return self._core.mounts

    def mount(self, key: str, label: str = "", options: Sequence[str] = ()) -> Path:
        """Mount a container's layer, or a layer, for writing; returns where.

        Every call counts, in all processes, and needs its ``unmount``; a mounted layer stays as it
        is, whatever ``label`` (SELinux) and ``options`` (instead of the recorded or configured
        ones) say. Raises ``LayerUnknown``, also for images; ``StoreIsReadOnly`` for layers of
        additional stores; ``DriverError``.
        """
        return mounts.mount(self._core, self._mounts, key, label, options)

    def mount_image(self, key: str, label: str = "", options: Sequence[str] = ()) -> Path:
        """Mount an image's top layer read-only; returns where. Counts as ``mount`` does.

        Raises ``StorageError`` for the option ``rw``, ``ImageUnknown``, ``LayerUnknown`` for images
        without layers, ``DriverError``.
        """
        return mounts.mount_image(self._core, self._mounts, key, label, options)

    def unmount(self, key: str, force: bool = False) -> bool:
        """Undo one ``mount``, or all with ``force``; True if it is still mounted.

        What is not mounted is left as it is. Raises ``LayerUnknown``, ``DriverError``.
        """
        return mounts.unmount(self._core, self._mounts, key, force)

    def unmount_image(self, key: str, force: bool = False) -> bool:
        """Undo one ``mount_image``, or all with ``force``; True if it is still mounted.

        Raises ``ImageUnknown``, ``LayerUnknown``, ``DriverError``.
        """
        return mounts.unmount_image(self._core, self._mounts, key, force)

    def mounted(self, key: str) -> int:
        """How many times it is mounted; 0 if the kernel knows better. Raises ``LayerUnknown``."""
        return mounts.mounted(self._core, self._mounts, key)

    def mount_path(self, layer_id: str) -> str:
        """Where the layer is mounted, "" if it is not."""
        recorded = self._mounts.get(layer_id)
        if recorded.users and self._core.driver.is_mounted(layer_id):
            return recorded.path
        return ""

    def shutdown(self, force: bool = False) -> list[LayerID]:
        """Release the driver's own mounts; with ``force`` unmount all layers before.

        Raises ``LayerUsedByContainer`` if layers were mounted, even if ``force`` has just unmounted
        them (as the original does; the next call succeeds). The store stays usable.
        """
        return mounts.shutdown(self._core, self._mounts, force)

    def layer_parent_owners(self, key: str) -> tuple[list[int], list[int]]:
        """Unmapped owners above the mount point. Raises ``LayerUnknown``, ``LayerNotMounted``."""
        return mounts.parent_owners(self._core, self._mounts, key)

    def container_parent_owners(self, key: str) -> tuple[list[int], list[int]]:
        """The same for a container's layer. Raises ``ContainerUnknown``, ``LayerUnknown``."""
        return self.layer_parent_owners(lookup.container(self._core.state, key).layer)
