"""The part of ``Store`` for what hangs on items: names, metadata, flags, blobs, directories.

See ``store`` for what ``key`` may be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cstorage.model import Digest, Kind
from cstorage.store.lazily import LazyModule
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage import events as ev
    from cstorage.store import bigdata, directories, names
    from cstorage.store import flags as flags_of
    from cstorage.store.core import Core
    from cstorage.store.protocols import Blobs
else:
    ev = LazyModule("cstorage.events")
    bigdata = LazyModule("cstorage.store.bigdata")
    directories = LazyModule("cstorage.store.directories")
    flags_of = LazyModule("cstorage.store.flags")
    names = LazyModule("cstorage.store.names")


class ItemData:
    """What is recorded with an item, or kept for it."""

    _core: Core

    # -- names and metadata ----------------------------------------------------------------------

    def names(self, key: str) -> tuple[str, ...]:
        """Raises ``LayerUnknown``."""
        return names.of(self._core, key)

    def set_names(self, key: str, new: Sequence[str]) -> tuple[str, ...]:
        """Replace the names; returns the resulting ones. Raises ``LayerUnknown``."""
        return names.change(self._core, ev.NamesSet, key, new)

    def add_names(self, key: str, new: Sequence[str]) -> tuple[str, ...]:
        """Put names before the present ones; returns the resulting ones."""
        return names.change(self._core, ev.NamesAdded, key, new)

    def remove_names(self, key: str, old: Sequence[str]) -> tuple[str, ...]:
        """Take names away; absent ones are ignored. Returns the resulting ones."""
        return names.change(self._core, ev.NamesRemoved, key, old)

    def metadata(self, key: str) -> str:
        """Raises ``NotAnID``."""
        return names.metadata(self._core, key)

    def set_metadata(self, key: str, text: str) -> None:
        """Raises ``NotAnID``."""
        names.set_metadata(self._core, key, text)

    # -- flags -----------------------------------------------------------------------------------

    def flags(self, key: str) -> Mapping[str, Any]:
        """Flags of any item. Raises ``NotAnID``."""
        return flags_of.of(self._core, key)

    def set_flag(self, key: str, flag: str, value: Any) -> None:
        """Set one flag of any item to a JSON value. Raises ``NotAnID``."""
        flags_of.change(self._core, key, {flag: value}, frozenset())

    def clear_flag(self, key: str, flag: str) -> None:
        """Take one flag away; an absent one is ignored. Raises ``NotAnID``."""
        flags_of.change(self._core, key, {}, frozenset((flag,)))

    def blobs(self, kind: Kind) -> Blobs:
        """The blobs of all items of one kind, as a ``protocols.BigDataStore``."""
        from cstorage.store.protocols import Blobs

        return Blobs(self._core, kind)

    # -- big data --------------------------------------------------------------------------------

    def list_layer_big_data(self, key: str) -> list[str]:
        """Names of the layer's blobs, by their first write. Raises ``LayerUnknown``."""
        return bigdata.names(self._core, Kind.LAYER, key)

    def layer_big_data(self, key: str, name: str) -> bytes:
        """One blob of a layer. Raises ``LayerUnknown``, ``BigDataUnknown``."""
        return bigdata.read(self._core, Kind.LAYER, key, name)

    def set_layer_big_data(self, key: str, name: str, data: bytes) -> None:
        """Store or replace one blob of a layer.

        Raises ``LayerUnknown``, ``InvalidBigDataName``.
        """
        bigdata.write(self._core, Kind.LAYER, key, name, data)

    def list_image_big_data(self, key: str) -> list[str]:
        """Names of the image's blobs, by their first write. Raises ``ImageUnknown``."""
        return bigdata.names(self._core, Kind.IMAGE, key)

    def image_big_data(self, key: str, name: str) -> bytes:
        """One blob of an image. Raises ``ImageUnknown``, ``BigDataUnknown``."""
        return bigdata.read(self._core, Kind.IMAGE, key, name)

    def image_big_data_size(self, key: str, name: str) -> int:
        """Its length in bytes. Raises ``SizeUnknown``, also for an unknown image."""
        return bigdata.size(self._core, Kind.IMAGE, key, name)

    def image_big_data_digest(self, key: str, name: str) -> Digest:
        """Its recorded digest. Raises ``DigestUnknown``, also for an unknown image."""
        return bigdata.digest(self._core, Kind.IMAGE, key, name)

    def set_image_big_data(
        self, key: str, name: str, data: bytes, digester: Callable[[bytes], str] | None = None
    ) -> None:
        """Store a blob; ``digester`` gives the digest of blobs named ``manifest…``, which need one.

        Raises ``ImageUnknown``, ``DigestUnknown``, ``InvalidBigDataName``, ``InvalidDigest``.
        """
        bigdata.write(self._core, Kind.IMAGE, key, name, data, digester)

    def list_container_big_data(self, key: str) -> list[str]:
        """Names of the container's blobs, by their first write. Raises ``ContainerUnknown``."""
        return bigdata.names(self._core, Kind.CONTAINER, key)

    def container_big_data(self, key: str, name: str) -> bytes:
        """One blob of a container.

        Raises ``ContainerUnknown``, ``BigDataUnknown``, ``InvalidBigDataName``.
        """
        return bigdata.read(self._core, Kind.CONTAINER, key, name)

    def container_big_data_size(self, key: str, name: str) -> int:
        """Its length in bytes. Raises ``ContainerUnknown``, ``SizeUnknown``."""
        return bigdata.size(self._core, Kind.CONTAINER, key, name)

    def container_big_data_digest(self, key: str, name: str) -> Digest:
        """Its SHA-256. Raises ``ContainerUnknown``, ``DigestUnknown``."""
        return bigdata.digest(self._core, Kind.CONTAINER, key, name)

    def set_container_big_data(self, key: str, name: str, data: bytes) -> None:
        """Store or replace one blob of a container.

        Raises ``ContainerUnknown``, ``InvalidBigDataName``.
        """
        bigdata.write(self._core, Kind.CONTAINER, key, name, data)

    # -- directories -----------------------------------------------------------------------------

    def container_directory(self, key: str) -> Path:
        """The container's own directory in the graph root, made if missing, mode 0700.

        It goes with the container. Raises ``ContainerUnknown``.
        """
        return directories.container_directory(self._core, key)

    def container_run_directory(self, key: str) -> Path:
        """The same in the run root, where a reboot empties it. Raises ``ContainerUnknown``."""
        return directories.container_run_directory(self._core, key)

    def image_directory(self, key: str) -> Path:
        """The image's own directory in the graph root, made if missing, mode 0700.

        ``key`` is taken as an ID and need not be one of an image (quirk Q-19). Raises ``InvalidID``
        for one that would lead out of the store.
        """
        return directories.image_directory(self._core, key)

    def image_run_directory(self, key: str) -> Path:
        """The same in the run root, where a reboot empties it. Raises ``InvalidID``."""
        return directories.image_run_directory(self._core, key)

    def set_container_directory_file(self, key: str, file: str, data: bytes) -> None:
        """Write a file of the container's directory. Raises ``ContainerUnknown``."""
        directories.write_file(self.container_directory(key), file, data)

    def from_container_directory(self, key: str, file: str) -> bytes:
        """Read one. Raises ``ContainerUnknown``, ``DirectoryFileUnknown``."""
        return directories.read_file(self.container_directory(key), file)

    def set_container_run_directory_file(self, key: str, file: str, data: bytes) -> None:
        """Write a file of the container's run directory. Raises ``ContainerUnknown``."""
        directories.write_file(self.container_run_directory(key), file, data)

    def from_container_run_directory(self, key: str, file: str) -> bytes:
        """Read one. Raises ``ContainerUnknown``, ``DirectoryFileUnknown``."""
        return directories.read_file(self.container_run_directory(key), file)
