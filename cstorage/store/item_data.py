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
        """Names of a layer, image or container (in this order). Raises ``LayerUnknown``."""
        return names.of(self._core, key)

    def set_names(self, key: str, new: Sequence[str]) -> tuple[str, ...]:
        """Replace the names; returns the resulting ones. Another item of the kind loses its own.

        An image of an additional store becomes this store's own first. Raises ``LayerUnknown`` if
        ``key`` stands for nothing, ``DuplicateName`` if such an image's name is taken here.
        """
        return names.change(self._core, ev.NamesSet, key, new)

    def add_names(self, key: str, new: Sequence[str]) -> tuple[str, ...]:
        """Put names before the present ones; returns the resulting ones. Errors: ``set_names``."""
        return names.change(self._core, ev.NamesAdded, key, new)

    def remove_names(self, key: str, old: Sequence[str]) -> tuple[str, ...]:
        """Take names away, ignoring absent ones; returns those left. Errors: ``set_names``."""
        return names.change(self._core, ev.NamesRemoved, key, old)

    def metadata(self, key: str) -> str:
        """Text that callers keep with any item, "" at first. Raises ``NotAnID``."""
        return names.metadata(self._core, key)

    def set_metadata(self, key: str, text: str) -> None:
        """Replace that text. Raises ``NotAnID``, also for items of additional stores."""
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
    # Named blobs. Of images and layers of additional stores too; only those of this store can be
    # written. Sizes are bytes; digests, "algorithm:hex", are SHA-256 unless the writer said else.

    def list_layer_big_data(self, key: str) -> list[str]:
        """Names of a layer's blobs in the order of their first write. Raises ``LayerUnknown``."""
        return bigdata.names(self._core, Kind.LAYER, key)

    def layer_big_data(self, key: str, name: str) -> bytes:
        """One blob. Raises ``LayerUnknown``, ``BigDataUnknown`` (a ``FileNotFoundError``)."""
        return bigdata.read(self._core, Kind.LAYER, key, name)

    def set_layer_big_data(self, key: str, name: str, data: bytes) -> None:
        """Store or replace a blob. Raises ``LayerUnknown``, ``InvalidBigDataName`` for ""."""
        bigdata.write(self._core, Kind.LAYER, key, name, data)

    def list_image_big_data(self, key: str) -> list[str]:
        """Names of an image's blobs in the order of their first write. Raises ``ImageUnknown``."""
        return bigdata.names(self._core, Kind.IMAGE, key)

    def image_big_data(self, key: str, name: str) -> bytes:
        """One blob. Raises ``ImageUnknown``, ``BigDataUnknown`` (a ``FileNotFoundError``)."""
        return bigdata.read(self._core, Kind.IMAGE, key, name)

    def image_big_data_size(self, key: str, name: str) -> int:
        """Bytes of a blob. Raises ``SizeUnknown``, for unknown images too."""
        return bigdata.size(self._core, Kind.IMAGE, key, name)

    def image_big_data_digest(self, key: str, name: str) -> Digest:
        """Recorded digest of a blob. Raises ``DigestUnknown``, for unknown images too."""
        return bigdata.digest(self._core, Kind.IMAGE, key, name)

    def set_image_big_data(
        self, key: str, name: str, data: bytes, digester: Callable[[bytes], str] | None = None
    ) -> None:
        """Store or replace a blob.

        ``digester`` gives the digest of blobs whose name begins with ``manifest``, which need one:
        the image answers to it (``images_by_digest``) from then on. Raises ``ImageUnknown``,
        ``DigestUnknown``, ``InvalidBigDataName``, ``InvalidDigest``, and what ``digester`` raises.
        """
        bigdata.write(self._core, Kind.IMAGE, key, name, data, digester)

    def list_container_big_data(self, key: str) -> list[str]:
        """Names of a container's blobs, in order of first write. Raises ``ContainerUnknown``."""
        return bigdata.names(self._core, Kind.CONTAINER, key)

    def container_big_data(self, key: str, name: str) -> bytes:
        """One blob.

        Raises ``ContainerUnknown``, ``BigDataUnknown`` (a ``FileNotFoundError``), and
        ``InvalidBigDataName`` for "".
        """
        return bigdata.read(self._core, Kind.CONTAINER, key, name)

    def container_big_data_size(self, key: str, name: str) -> int:
        """Bytes. Raises ``ContainerUnknown``, ``SizeUnknown``, ``InvalidBigDataName`` for ""."""
        return bigdata.size(self._core, Kind.CONTAINER, key, name)

    def container_big_data_digest(self, key: str, name: str) -> Digest:
        """Recorded digest of a blob.

        Raises ``ContainerUnknown``, ``DigestUnknown``, ``InvalidBigDataName`` for "".
        """
        return bigdata.digest(self._core, Kind.CONTAINER, key, name)

    def set_container_big_data(self, key: str, name: str, data: bytes) -> None:
        """Store or replace a blob. Raises ``ContainerUnknown``, ``InvalidBigDataName`` for ""."""
        bigdata.write(self._core, Kind.CONTAINER, key, name, data)

    # -- directories -----------------------------------------------------------------------------

    def container_directory(self, key: str) -> Path:
        """Persistent directory of a container, made if need be. Raises ``ContainerUnknown``."""
        return directories.container_directory(self._core, key)

    def container_run_directory(self, key: str) -> Path:
        """The same, emptied by a reboot. Raises ``ContainerUnknown``."""
        return directories.container_run_directory(self._core, key)

    def image_directory(self, key: str) -> Path:
        """Persistent directory for ``key``, which need not be an image. Raises ``InvalidID``."""
        return directories.image_directory(self._core, key)

    def image_run_directory(self, key: str) -> Path:
        """The same, emptied by a reboot. Raises ``InvalidID``."""
        return directories.image_run_directory(self._core, key)

    def set_container_directory_file(self, key: str, file: str, data: bytes) -> None:
        """Write a file below ``container_directory``, atomically and with mode 0600.

        Directories between are made. Raises ``ContainerUnknown``, ``InvalidID`` for ``..``.
        """
        self._core.check_writable()
        directories.write_file(self.container_directory(key), file, data)

    def from_container_directory(self, key: str, file: str) -> bytes:
        """Read such a file.

        Raises ``ContainerUnknown``, ``DirectoryFileUnknown`` (a ``FileNotFoundError``).
        """
        return directories.read_file(self.container_directory(key), file)

    def set_container_run_directory_file(self, key: str, file: str, data: bytes) -> None:
        """As ``set_container_directory_file``, below ``container_run_directory``."""
        self._core.check_writable()
        directories.write_file(self.container_run_directory(key), file, data)

    def from_container_run_directory(self, key: str, file: str) -> bytes:
        """As ``from_container_directory``, below ``container_run_directory``."""
        return directories.read_file(self.container_run_directory(key), file)
