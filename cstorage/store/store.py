"""``Store``: the façade. One typed method per operation; the work is done by the modules beside it.

``key`` stands for an ID, a name or a unique prefix of an ID; containers also answer to the ID of
their layer. Errors are classes of ``cstorage.errors``; a method that raises has changed nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cstorage.archive.apply import ApplyOptions
    from cstorage.archive.compression import ByteSink, ByteSource
    from cstorage.drivers.contract import DriverReader, StrPath
    from cstorage.interop.consumers import Consumer
    from cstorage.interop.projection import Outcome
    from cstorage.interop.selection import Form
    from cstorage.store import (
        adoption,
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
        projecting,
        replay,
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
    from cstorage.store.adoption import Adoption
    from cstorage.store.incoming import Mode
    from cstorage.store.replay import Copied
else:
    adoption = LazyModule("cstorage.store.adoption")
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
    projecting = LazyModule("cstorage.store.projecting")
    replay = LazyModule("cstorage.store.replay")
    staged = LazyModule("cstorage.store.staged")
    transactions = LazyModule("cstorage.store.transactions")
    usage = LazyModule("cstorage.store.usage")


class Store(Finder, ItemData, Mounter, Chronicler):
    """An open store; a context manager. Safe to use from several threads.

    Open one with ``cstorage.open``.
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

        Nothing is unmounted, nothing is lost without it.
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
        """Where the store keeps what stays."""
        return _public(self._core.location.graph_root)

    @property
    def run_root(self) -> Path:
        """Where it keeps what a reboot may empty."""
        return _public(self._core.location.run_root)

    @property
    def image_store(self) -> str:
        """Root of the split image store, "" without one."""
        return self._core.location.image_store

    @property
    def transient(self) -> bool:
        """Whether containers are kept in the run root."""
        return self._core.location.transient

    @property
    def driver_name(self) -> str:
        """The graph driver's name: ``overlay``, ``vfs`` …"""
        return self._core.driver.name

    @property
    def graph_driver(self) -> DriverReader:
        """The graph driver's answers about trees of layers, by exact ID.

        What changes a tree goes through the store's own methods, so that the journal knows of it.
        """
        return self._core.driver

    @property
    def driver_options(self) -> tuple[str, ...]:
        """Options of the driver, as ``overlay.name=value``."""
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
        """Version of the installed distribution, "" where it runs without being installed."""
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
        """An empty layer. Errors: ``layers.create``."""
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
        """A layer filled from a tar archive, compressed or not, in one transaction.

        ``options`` bound it (limits) and report progress. Errors: ``layers.create``.
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
        """Extract an archive over a layer. Raises ``LayerUnknown``, ``ArchiveError``."""
        return filling.apply_diff(self._core, key, source, options)

    def diff(
        self,
        to: str,
        sink: ByteSink,
        from_: str = "",
        compression: Compression | None = None,
    ) -> None:
        """Write the layer's archive. Errors and defaults: ``diffs.write``."""
        diffs.write(self._core, to, sink, from_, compression)

    def diff_size(self, to: str, from_: str = "") -> int:
        """Bytes of the files added or modified since ``from_`` (default: the parent)."""
        return diffs.size(self._core, to, from_)

    def changes(self, to: str, from_: str = "") -> list[Change]:
        """Paths changed since ``from_`` (default: the parent)."""
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
        """An image on ``layer`` ("" = on none). Errors: ``images.create``."""
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
        """A container on ``image`` ("" = on nothing). Errors: ``containers.create``."""
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
        """Bytes of layer, big data and directories. Raises ``ContainerUnknown``."""
        return containers.size(self._core, key)

    # -- deletion --------------------------------------------------------------------------------

    def delete_layer(self, key: str) -> None:
        """Delete a layer that nothing rests on. Errors: ``deletion.layer``."""
        deletion.layer(self._core, key)

    def delete_image(self, key: str, commit: bool = True) -> list[LayerID]:
        """Delete an image and the layers only it needs; returns those. ``deletion.image``."""
        return deletion.image(self._core, key, commit)

    def delete_container(self, key: str) -> None:
        """Delete a container with its layer. Raises ``NotAContainer``."""
        deletion.container(self._core, key)

    def delete(self, key: str) -> None:
        """Delete a container, else an image record, else a layer, unchecked."""
        deletion.anything(self._core, key)

    def wipe(self) -> None:
        """Delete everything."""
        deletion.everything(self._core)

    def pin(self, *keys: str, by: str = "", why: str = "") -> list[Pin]:
        """Forbid deleting these images and layers. Arguments and errors: ``pins.pin``."""
        return pins_of.pin(self._core, keys, by=by, why=why)

    def unpin(self, *keys: str, by: str = "", everybody: bool = False) -> list[Pin]:
        """Allow it again. Arguments and errors: ``pins.unpin``."""
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
        """Compare everything with what was recorded; ``None`` looks at all but trees' contents."""
        return checking.check(self._core, options or checking.CHECK_MOST)

    def repair(self, report: Report, remove_containers: bool = True) -> list[Exception]:
        """Delete what ``report`` found damaged; returns the refusals. See ``checking.repair``."""
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

    # -- other tools -----------------------------------------------------------------------------

    def project(
        self,
        *,
        form: Form | None = None,
        keep: bool | None = None,
        grace_s: int | None = None,
        overwrite: bool = False,
        verify: bool = False,
    ) -> Outcome:
        """Write the view that podman and its like read. Errors: ``projecting.project``."""
        return projecting.project(
            self._core, form=form, keep=keep, grace_s=grace_s, overwrite=overwrite, verify=verify
        )

    def consumers(self) -> list[Consumer]:
        """Mounts on this machine that rest on layers of this store, ours among them."""
        from cstorage.interop.consumers import consumers

        return consumers(self._core.driver.home) if self.driver_name == "overlay" else []

    def stop_projecting(self, *, overwrite: bool = False) -> None:
        """Remove the view. Raises ``ViewChanged`` if another program wrote to it."""
        projecting.stop(self._core, overwrite=overwrite)

    def adopt(
        self,
        graph_root: StrPath,
        mode: Mode | str = "copy",
        *,
        dry_run: bool = False,
        from_driver: str = "",
        run_root: str = "",
        image_store: str = "",
        additional: Sequence[str] = (),
        timeout_s: float = 10.0,
        tell: Callable[[str], None] | None = None,
    ) -> Adoption:
        """Take over a store of containers/storage; ``mode``: copy, link, in-place.

        Arguments and errors: ``adoption.adopt``.
        """
        return adoption.adopt(
            self._core,
            str(graph_root),
            mode=adoption.Mode(mode),
            dry_run=dry_run,
            from_driver=from_driver,
            run_root=run_root,
            image_store=image_store,
            additional=additional,
            timeout_s=timeout_s,
            tell=tell,
        )

    def convert(self, directory: StrPath, driver: str) -> Copied:
        """A copy of the store that uses another driver. Errors: ``replay.convert``."""
        return replay.convert(self._core, str(directory), driver)

    def export(self, directory: StrPath) -> Copied:
        """A store of containers/storage with everything in it. Errors: ``replay.export``."""
        return replay.export(self._core, str(directory))


def _public(path: Path) -> Path:
    """A path as others know them (``journal.plain``)."""
    import pathlib

    return pathlib.Path(path)
