"""``Store``: the façade. One typed method per operation; the work is done by the modules beside it.

``key`` stands for an ID, a name or a unique prefix of an ID; containers also answer to the ID of
their layer. Errors are classes of ``cstorage.errors``; a method that raises has changed nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from cstorage.errors import InvalidID
from cstorage.model import (
    Change,
    Compression,
    Container,
    DiffSummary,
    IDMap,
    IDMaps,
    Image,
    Layer,
    LayerID,
    Pin,
)
from cstorage.store.chronicler import Chronicler
from cstorage.store.finder import Finder
from cstorage.store.item_data import ItemData
from cstorage.store.lazily import LazyModule
from cstorage.store.mapping import MapOptions
from cstorage.store.mounter import Mounter
from cstorage.store.neighbour import Neighbour
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cstorage.archive.apply import ApplyOptions
    from cstorage.archive.compression import ByteSink, ByteSource
    from cstorage.drivers.contract import DriverReader
    from cstorage.store import (
        bigdata,
        checking,
        containers,
        dedup,
        deletion,
        diffs,
        directories,
        filling,
        images,
        layers,
        mounts,
        names,
        staged,
        transactions,
        usage,
    )
    from cstorage.store import flags as flags_of
    from cstorage.store import pins as pins_of
    from cstorage.store.additional_layers import AdditionalLayer
    from cstorage.store.checking import CheckOptions, Report
    from cstorage.store.core import Core
    from cstorage.store.files import Files
    from cstorage.store.lockfile import LockFile
    from cstorage.store.staged import StagedLayer
    from cstorage.store.transactions import StoreTransaction
    from cstorage.store.usage import ImageUsage, OwnerUsage, StoreUsage

    _Blobs = Sequence[bigdata.Blob]
else:
    bigdata = LazyModule("cstorage.store.bigdata")
    checking = LazyModule("cstorage.store.checking")
    containers = LazyModule("cstorage.store.containers")
    dedup = LazyModule("cstorage.store.dedup")
    deletion = LazyModule("cstorage.store.deletion")
    diffs = LazyModule("cstorage.store.diffs")
    directories = LazyModule("cstorage.store.directories")
    flags_of = LazyModule("cstorage.store.flags")
    filling = LazyModule("cstorage.store.filling")
    images = LazyModule("cstorage.store.images")
    layers = LazyModule("cstorage.store.layers")
    mounts = LazyModule("cstorage.store.mounts")
    names = LazyModule("cstorage.store.names")
    pins_of = LazyModule("cstorage.store.pins")
    staged = LazyModule("cstorage.store.staged")
    transactions = LazyModule("cstorage.store.transactions")
    usage = LazyModule("cstorage.store.usage")


class Store(Finder, ItemData, Mounter, Chronicler, Neighbour):
    """An open store; a context manager. Open one with ``cstorage.open``.

    Safe to use from several threads and beside other processes. ``key`` stands for an ID, a name or
    the unique beginning of an ID; containers also answer to their layer's ID. Records
    (``cstorage.model``) are copies of the moment and immutable. Sizes are bytes, times nanoseconds
    since 1970. Errors are classes of ``cstorage.errors``; a method that raises has changed nothing.
    Beside those that it names, every method can raise ``StoreBusy``, ``StoreDamaged`` and
    ``OSError``, and what changes the store ``StoreIsReadOnly`` and ``OutcomeUnknown``.
    """

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._users = 1

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal, once for every time it was opened; the last one counts.

        Waits for files that are being removed. Nothing is unmounted, nothing is lost without it.
        """
        from cstorage.store import opening

        if opening.released(self):
            self._core.close()

    def free(self) -> None:
        """Let the next opening of the same roots make an object of its own; this one stays open."""
        from cstorage.store import opening

        opening.forget(self)

    # -- the store itself ------------------------------------------------------------------------

    @property
    def graph_root(self) -> Path:
        """Directory of what survives a reboot."""
        return _public(self._core.location.graph_root)

    @property
    def run_root(self) -> Path:
        """Directory of what need not survive a reboot: mount counts, mount points."""
        return _public(self._core.location.run_root)

    @property
    def image_store(self) -> str:
        """Directory that holds images and their layers apart from containers, "" if none does."""
        return self._core.location.image_store

    @property
    def transient(self) -> bool:
        """Whether containers live only until the run root is emptied."""
        return self._core.location.transient

    @property
    def driver_name(self) -> str:
        """Name of the graph driver in use: ``overlay``, ``vfs`` or ``btrfs``."""
        return self._core.driver.name

    @property
    def graph_driver(self) -> DriverReader:
        """The graph driver's answers about trees of layers, by exact ID.

        What changes a tree goes through the store's own methods, so that the journal knows of it.
        """
        return self._core.driver

    @property
    def driver_options(self) -> tuple[str, ...]:
        """Driver options as they were given, ``key=value``."""
        return self._core.location.driver_options

    @property
    def uid_map(self) -> IDMap:
        """Default map of layers without a parent."""
        return self._core.options.uid_map

    @property
    def gid_map(self) -> IDMap:
        """The same for groups."""
        return self._core.options.gid_map

    @property
    def pull_options(self) -> dict[str, str]:
        """What the configuration says to those who fetch images."""
        return dict(self._core.pull_options)

    @property
    def journal_path(self) -> Path:
        """The folder of the store's journal."""
        return _public(self._core.journal_path)

    @property
    def sequence(self) -> int:
        """Number of the last event that this process has seen."""
        return self._core.position.sequence

    def status(self) -> list[tuple[str, str]]:
        """Rows of the driver's status, without the store's own."""
        return self._core.driver.status()

    def version(self) -> str:
        """Version of this library, "" where it runs without having been installed."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("cstorage")
        except PackageNotFoundError:
            return ""

    # -- several changes as one --------------------------------------------------------------

    def transaction(self, reason: str = "") -> AbstractContextManager[StoreTransaction]:
        """All changes that this thread makes in the block become one, or none of them happens.

        Others read the old state until the block ends, and do not write meanwhile: keep it short.
        See ``transactions.StoreTransaction``.
        """
        return transactions.joint(self, self._core, reason)

    def because(self, reason: str) -> AbstractContextManager[None]:
        """Record ``reason`` with the changes of the block, "" leaves the reason as it is."""
        return transactions.because(self._core, reason)

    def usage(self, measure: bool = False) -> StoreUsage:
        """What the store occupies, without walking it. See ``usage.of_store``."""
        return usage.of_store(self._core, measure)

    def owner_usage(self) -> Iterator[OwnerUsage]:
        """What every user brought into the store, by UID. See ``usage.of_owners``."""
        return usage.of_owners(self._core)

    def image_usage(self) -> Iterator[ImageUsage]:
        """What each image adds to the store."""
        return usage.of_images(self._core)

    # -- layers ----------------------------------------------------------------------------------

    def create_layer(
        self,
        id: str = "",
        parent: str = "",
        names: Sequence[str] = (),
        *,
        mount_label: str = "",
        writable: bool = True,
        maps: MapOptions = MapOptions(),
        flags: Mapping[str, Any] | None = None,
        template: str = "",
        big_data: _Blobs = (),
        volatile: bool = False,
        storage_options: Mapping[str, str] | None = None,
    ) -> Layer:
        """Make an empty layer, or a copy of ``template``, on top of ``parent``; one transaction.

        ``id`` "" generates one. ``writable`` says which store of a split store it goes to.
        ``maps``: see ``MapOptions``; a ``template``'s content, digests and metadata are copied with
        other maps. ``big_data``: (name, bytes) or (name, bytes, digest). ``storage_options``:
        the driver's, such as ``{"size": "10G"}``.

        Raises ``LayerUnknown`` (parent, template), ``ParentIsContainer``, ``DuplicateID``,
        ``DuplicateName``, ``InvalidID``, ``InvalidBigDataName``, ``DriverError``; nothing is left.
        """
        request = layers.LayerRequest(
            id=id,
            parent=parent,
            names=names,
            mount_label=mount_label,
            writable=writable,
            maps=maps,
            flags=flags or {},
            template=template,
            big_data=big_data,
            volatile=volatile,
            storage_options=storage_options or {},
        )
        return layers.create(self._core, request)

    def import_layer(
        self,
        source: ByteSource,
        id: str = "",
        parent: str = "",
        names: Sequence[str] = (),
        *,
        mount_label: str = "",
        writable: bool = False,
        maps: MapOptions = MapOptions(),
        flags: Mapping[str, Any] | None = None,
        big_data: _Blobs = (),
        volatile: bool = False,
        options: ApplyOptions | None = None,
    ) -> Layer:
        """Make a layer from a tar archive, in one transaction; no lock is held while it is read.

        ``source`` is a binary file or anything with ``read(size)``; gzip, zstd, bzip2 and xz are
        told by content. ``options`` bound it (limits) and report progress. The record's ``diff``
        has digests and sizes. Raises what ``create_layer`` raises, ``ArchiveError`` and its
        subclasses; nothing is left.
        """
        request = layers.LayerRequest(
            id=id,
            parent=parent,
            names=names,
            mount_label=mount_label,
            writable=writable,
            maps=maps,
            flags=flags or {},
            big_data=big_data,
            volatile=volatile,
        )
        return layers.create(self._core, request, source, options)

    def apply_diff(
        self, key: str, source: ByteSource, options: ApplyOptions | None = None
    ) -> DiffSummary:
        """Extract an archive over a layer; its digests and sizes replace those recorded.

        Raises ``LayerUnknown``, ``ArchiveError``, ``DriverError``; the layer is as before then,
        unless it is mounted, or its file system cannot exchange directories.
        """
        return filling.apply_diff(self._core, key, source, options)

    def diff(
        self,
        to: str,
        sink: ByteSink,
        from_: str = "",
        compression: Compression | None = None,
        *,
        slow: bool = True,
    ) -> None:
        """Write what a layer changes as a tar archive to ``sink``, anything with ``write(bytes)``.

        Against the recorded parent, ``from_`` "", it is byte for byte the archive that the layer
        was made from, where it was. ``compression`` ``None`` is the recorded one. Raises
        ``LayerUnknown``, ``UnsupportedCompression`` for bzip2 and xz unless they are asked for and
        ``slow`` is left true, ``DriverError``, and, having written a part, ``ContentChanged`` if a
        file is not what was imported.
        """
        diffs.write(self._core, to, sink, from_, compression, slow)

    def diff_size(self, to: str, from_: str = "") -> int:
        """Bytes of the files added or modified since ``from_`` (default: the parent).

        Raises ``LayerUnknown``, ``DriverError``.
        """
        return diffs.size(self._core, to, from_)

    def changes(self, to: str, from_: str = "") -> list[Change]:
        """Paths changed since ``from_`` (default: the parent), as absolute ``bytes``, and how.

        An unknown ``from_`` means the parent. Raises ``LayerUnknown``, ``DriverError``.
        """
        return diffs.changes(self._core, to, from_)

    def files(self, key: str) -> Files:
        """The files of a layer or an image as recorded, without a mount. Errors: ``files.Files``.

        An exact ID or name goes before the beginning of an ID, an image before a layer.
        """
        from cstorage.store.files import Files

        return Files(self._core, key)

    def changes_between(self, old: str, new: str) -> Iterator[Change]:
        """What turns the recorded files of one layer or image into those of another.

        Errors: ``files.Files``; order and rules: ``files.compare``.
        """
        from cstorage.store.files import compare

        return compare(self.files(old), self.files(new))

    def prepare_staged_layer(
        self,
        source: ByteSource | str | os.PathLike[str],
        options: ApplyOptions | None = None,
        maps: IDMaps = IDMaps(),
    ) -> StagedLayer:
        """Extract an archive, or pack and extract a directory, for a layer yet to be named.

        The result is a context manager: what was not applied goes. Raises ``NotSupported``.
        """
        return staged.prepare(self._core, source, options, maps)

    def apply_staged_layer(
        self,
        staged_layer: StagedLayer,
        id: str = "",
        parent: str = "",
        names: Sequence[str] = (),
        *,
        metadata: str = "",
        flags: Mapping[str, Any] | None = None,
        big_data: _Blobs = (),
    ) -> Layer:
        """Put staged content into the layer ``id`` (ID, name, prefix), or a new one.

        Errors: ``staged.apply``.
        """
        return staged.apply(self._core, staged_layer, id, parent, names, metadata, flags, big_data)

    def cleanup_staged_layer(self, staged_layer: StagedLayer) -> None:
        """Delete staged content that will not be applied."""
        staged_layer.close()

    def lookup_additional_layer(self, toc_digest: str, image: str = "") -> AdditionalLayer:
        """The layer with this table of contents in an additional layer store.

        Raises ``LayerUnknown``, also for drivers without such stores.
        """
        from cstorage.store import additional_layers

        return additional_layers.find(self._core, toc_digest, image)

    def differ_target(self, key: str) -> Path:
        """Directory of a layer's own content. Raises ``LayerUnknown``, ``NotSupported``."""
        return staged.target(self._core, key)

    def layer_size(self, key: str) -> int:
        """Recorded uncompressed size, -1 if the layer was never filled. Raises ``LayerUnknown``."""
        diff = self._core.catalogue.layer(key).diff
        known = diff.uncompressed_digest or diff.toc_digest
        return diff.uncompressed_size if known else -1

    def storage_layers(self) -> list[str]:
        """IDs of all trees that the driver has, recorded or not, sorted."""
        return self._core.driver.layers()

    def create_storage_layer(
        self,
        id: str = "",
        parent: str = "",
        *,
        writable: bool = True,
        mount_label: str = "",
        maps: MapOptions = MapOptions(),
    ) -> str:
        """A driver tree without a record; ``parent`` is a tree's exact ID. Returns its ID."""
        request = layers.LayerRequest(
            id=id, parent=parent, writable=writable, mount_label=mount_label, maps=maps
        )
        return layers.create_tree(self._core, request)

    # -- images and containers -------------------------------------------------------------------

    def create_image(
        self,
        id: str = "",
        names: Sequence[str] = (),
        layer: str = "",
        *,
        metadata: str = "",
        digest: str = "",
        created_ns: int = 0,
        big_data: _Blobs = (),
        flags: Mapping[str, Any] | None = None,
        names_history: Sequence[str] = (),
    ) -> Image:
        """Make an image on top of ``layer`` ("" for none).

        ``created_ns`` 0 is now. ``digest`` is one that it answers to; those of blobs whose names
        begin with ``manifest`` are others. ``big_data``: (name, bytes) or (name, bytes, digest). An
        ``id`` that only an additional store has takes over that image's data and names.

        Raises ``LayerUnknown``, ``DuplicateID``, ``DuplicateName``, ``InvalidID``,
        ``InvalidDigest``, ``InvalidBigDataName``; nothing is left.
        """
        request = images.ImageRequest(
            id=id,
            names=names,
            layer=layer,
            metadata=metadata,
            digest=digest,
            created_ns=created_ns,
            big_data=big_data,
            flags=flags or {},
            names_history=names_history,
        )
        return images.create(self._core, request)

    def image_size(self, key: str) -> int:
        """Bytes of layers and big data. Raises ``ImageUnknown``, ``LayerUnknown``."""
        return images.size(self._core, key)

    def create_container(
        self,
        image: str = "",
        id: str = "",
        names: Sequence[str] = (),
        *,
        layer_id: str = "",
        metadata: str = "",
        maps: MapOptions = MapOptions(),
        flags: Mapping[str, Any] | None = None,
        big_data: _Blobs = (),
        volatile: bool = False,
        storage_options: Mapping[str, str] | None = None,
        mount_options: Sequence[str] | None = None,
    ) -> Container:
        """Make a container, with a writable layer of its own, on ``image`` ("" for none).

        Missing ``maps`` are the image's; where mounts cannot apply them, a copy of the image's top
        layer is made for them and kept for other containers. ``volatile``: mounts need not sync.
        ``mount_options`` are used at every mount.

        Raises ``ImageUnknown``, ``LayerUnknown``, ``DuplicateID``, ``DuplicateName``,
        ``InvalidID``, ``InvalidMappings``, ``NoAvailableIDs``, ``InvalidBigDataName``,
        ``DriverError``; nothing is left.
        """
        request = containers.ContainerRequest(
            image=image,
            id=id,
            names=names,
            layer_id=layer_id,
            metadata=metadata,
            maps=maps,
            flags=flags or {},
            big_data=big_data,
            volatile=volatile,
            storage_options=storage_options or {},
            mount_options=mount_options,
        )
        return containers.create(self._core, request)

    def container_size(self, key: str) -> int:
        """Bytes of its layer's files, big data and directories, which are made if need be.

        Raises ``ContainerUnknown``, ``LayerUnknown`` if its layer is missing.
        """
        return containers.size(self._core, key)

    # -- deletion --------------------------------------------------------------------------------

    def delete_layer(self, key: str) -> None:
        """Delete a layer that nothing rests on, mounted or not.

        Raises ``NotALayer``, ``LayerHasChildren``, ``LayerUsedByImage``, ``LayerUsedByContainer``,
        ``ItemPinned``, in this order.
        """
        deletion.layer(self._core, key)

    def delete_image(self, key: str, commit: bool = True) -> list[LayerID]:
        """Delete an image and the layers that only it needs; returns those, the topmost first.

        Files of sixteen layers and more are removed soon after. Without ``commit`` it only tells.
        Raises ``NotAnImage``, ``ImageUsedByContainer``, ``ItemPinned``; and ``LayerUnknown`` after
        the image is gone if a layer was missing.
        """
        return deletion.image(self._core, key, commit)

    def delete_container(self, key: str) -> None:
        """Delete a container with its layer. Raises ``NotAContainer``."""
        deletion.container(self._core, key)

    def delete(self, key: str) -> None:
        """Delete a container, else an image's record, else a layer, without safety checks.

        Raises ``ItemPinned``, ``LayerUnknown`` if nothing answers to ``key``, ``NotALayer`` if a
        container's layer is missing.
        """
        deletion.anything(self._core, key)

    def wipe(self) -> None:
        """Delete everything, mounted or not. Raises ``ItemPinned`` if anything is."""
        deletion.everything(self._core)

    def pin(self, *keys: str, by: str = "", why: str = "") -> list[Pin]:
        """Forbid deleting these images and layers, all or none; returns their pins.

        ``by`` "" is this user and host. Raises ``NotAnID``, ``WrongKindError``.
        """
        return pins_of.pin(self._core, keys, by=by, why=why)

    def unpin(self, *keys: str, by: str = "", everybody: bool = False) -> list[Pin]:
        """Take back the pins of ``by``, or of ``everybody``; returns them.

        Raises ``NotAnID``, ``StorageError`` where there is no such pin.
        """
        return pins_of.unpin(self._core, keys, by=by, everybody=everybody)

    def pins(self, key: str = "") -> list[Pin]:
        """All pins, or those of one item. Raises ``NotAnID``."""
        return pins_of.of(self._core, key)

    # -- maintenance -----------------------------------------------------------------------------

    def digest_lock(self, digest: str) -> LockFile:
        """A lock of callers' own for whatever has this digest; the digest is not checked.

        Raises ``InvalidID`` if it is no file name; an empty one fails when it is locked.
        """
        from cstorage.store import lockfile

        if "/" in digest or "\0" in digest or digest in (".", ".."):
            raise InvalidID(f"digest {digest!r} is no file name")
        folder = self.run_root / f"{self.driver_name}-locks"
        return lockfile.get_lockfile(os.path.join(folder, digest))

    def check(self, options: CheckOptions | None = None) -> Report:
        """Compare everything with what was recorded; changes nothing.

        ``options`` ``None`` looks at all but the contents of trees; see ``checking.CheckOptions``.
        The report has findings (mostly ``CheckError``) by item ID; ``healthy`` if none.
        """
        return checking.check(self._core, options or checking.CHECK_MOST)

    def repair(self, report: Report, remove_containers: bool = True) -> list[Exception]:
        """Mend what ``report`` found, and delete what cannot be mended; returns the refusals.

        Damaged containers, and so the images that they use, stay unless ``remove_containers``.
        """
        return checking.repair(self._core, report, remove_containers)

    def garbage_collect(self) -> None:
        """Remove driver trees, content and data directories that no record owns."""
        checking.collect(self._core)

    def dedup(self, method: str = "crc") -> int:
        """Share equal files' extents among the layers of images; bytes that are duplicates.

        ``method``: ``crc``, ``size`` or ``sha256``. 0 where the file system cannot share.
        """
        return dedup.dedup(self._core, method)

    # -- journal ---------------------------------------------------------------------------------

    def snapshot(self) -> Path | None:
        """Write a snapshot of the state, so that the next open replays less."""
        found = self._core.snapshot()
        return None if found is None else _public(found)


def _public(path: Path) -> Path:
    """A path as others know them (``journal.plain``)."""
    import pathlib

    return pathlib.Path(path)
