"""``Store``: the façade. One typed method per operation; the work is done by the modules beside it.

``key`` stands for an ID, a name or a unique prefix of an ID; containers also answer to the ID of
their layer. Errors are classes of ``cstorage.errors``; a method that raises has changed nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cstorage import events as ev
from cstorage.errors import ContainerUnknown, LayerUnknown
from cstorage.model import (
    Change,
    Compression,
    Container,
    DiffSummary,
    Digest,
    IDMaps,
    Image,
    Kind,
    Layer,
    LayerID,
)
from cstorage.store import lookup
from cstorage.store.lazily import LazyModule
from cstorage.store.mapping import MapOptions

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cstorage.archive.apply import ApplyOptions
    from cstorage.archive.compression import ByteSink, ByteSource
    from cstorage.drivers.contract import StrPath
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
        history,
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
    from cstorage.store.checking import CheckOptions, Report
    from cstorage.store.core import Core
    from cstorage.store.mounts import MountTable
    from cstorage.store.staged import StagedLayer
    from cstorage.store.transactions import StoreTransaction
    from cstorage.store.usage import ImageUsage, StoreUsage

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
    filling = LazyModule("cstorage.store.filling")
    history = LazyModule("cstorage.store.history")
    images = LazyModule("cstorage.store.images")
    layers = LazyModule("cstorage.store.layers")
    mounts = LazyModule("cstorage.store.mounts")
    names = LazyModule("cstorage.store.names")
    projecting = LazyModule("cstorage.store.projecting")
    replay = LazyModule("cstorage.store.replay")
    staged = LazyModule("cstorage.store.staged")
    transactions = LazyModule("cstorage.store.transactions")
    usage = LazyModule("cstorage.store.usage")


class Store:
    """An open store; a context manager. Safe to use from several threads.

    Open one with ``cstorage.open``.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

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
        """Close the journal. Nothing is unmounted, nothing is lost without it."""
        self._core.close()

    # -- the store itself ------------------------------------------------------------------------

    @property
    def graph_root(self) -> Path:
        return self._core.location.graph_root

    @property
    def run_root(self) -> Path:
        return self._core.location.run_root

    @property
    def image_store(self) -> str:
        return self._core.location.image_store

    @property
    def transient(self) -> bool:
        return self._core.location.transient

    @property
    def driver_name(self) -> str:
        return self._core.driver.name

    @property
    def driver_options(self) -> tuple[str, ...]:
        return self._core.location.driver_options

    @property
    def journal_path(self) -> Path:
        """The folder of the store's journal."""
        return self._core.journal_path

    @property
    def sequence(self) -> int:
        """Number of the last event that this process has seen."""
        return self._core.position.sequence

    def status(self) -> list[tuple[str, str]]:
        """Rows of the driver's status, without the store's own."""
        return self._core.driver.status()

    def version(self) -> str:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("cstorage")
        except PackageNotFoundError:
            return ""

    # -- listing and finding ---------------------------------------------------------------------

    def layers(self) -> Iterator[Layer]:
        """All layers in creation order, volatile ones last, then those of additional stores."""
        return self._core.view.layers()

    def images(self) -> Iterator[Image]:
        """All images in creation order, then those of additional stores."""
        return self._core.view.images()

    def containers(self) -> Iterator[Container]:
        """All containers in creation order, volatile ones last."""
        state = self._core.view.primary
        for id_ in state.ids(Kind.CONTAINER):
            found = state.container(id_)
            if found is not None:
                yield found

    def layer(self, key: str) -> Layer:
        """Raises ``LayerUnknown``."""
        return self._core.catalogue.layer(key)

    def image(self, key: str) -> Image:
        """Raises ``ImageUnknown``, also where the primary store has a record that hides it."""
        return self._core.catalogue.unhidden_image(key)

    def container(self, key: str) -> Container:
        """Raises ``ContainerUnknown``."""
        return lookup.container(self._core.state, key)

    def exists(self, key: str) -> bool:
        """Whether any layer, image or container answers to ``key``."""
        return self._core.catalogue.any_item(key) is not None

    def lookup(self, key: str) -> str:
        """ID of the layer, image or container (in this order). Raises ``LayerUnknown``."""
        found = self._core.catalogue.any_item(key)
        if found is None:
            raise LayerUnknown
        return found.id

    def layers_by_compressed_digest(self, digest: str) -> list[Layer]:
        """Raises ``InvalidDigest``, ``LayerUnknown`` if there is none."""
        return self._layers_by("c", digest)

    def layers_by_uncompressed_digest(self, digest: str) -> list[Layer]:
        """Raises ``InvalidDigest``, ``LayerUnknown`` if there is none."""
        return self._layers_by("u", digest)

    def layers_by_toc_digest(self, digest: str) -> list[Layer]:
        """Raises ``InvalidDigest``, ``LayerUnknown`` if there is none."""
        return self._layers_by("t", digest)

    def _layers_by(self, which: str, digest: str) -> list[Layer]:
        from cstorage.store import digests

        digests.check(digest)
        with self._core.mutex:
            found = list(self._core.catalogue.layers_by_digest(which, digest))
        if not found:
            raise LayerUnknown
        return found

    def images_by_digest(self, digest: str) -> list[Image]:
        """Images that answer to ``digest``; a digest nobody has, or a malformed one, finds none."""
        with self._core.mutex:
            return list(self._core.catalogue.images_by_digest(digest))

    def images_by_top_layer(self, key: str) -> list[Image]:
        """Images whose top layer or mapped top layer it is. Raises ``LayerUnknown``."""
        with self._core.mutex:
            catalogue = self._core.catalogue
            return list(catalogue.images_of_layer(catalogue.layer(key).id))

    def container_by_layer(self, key: str) -> Container:
        """Raises ``LayerUnknown``, ``ContainerUnknown`` if it belongs to no container."""
        with self._core.mutex:
            catalogue = self._core.catalogue
            id_ = catalogue.primary.container_of_layer(catalogue.layer(key).id)
            if id_ is None:
                raise ContainerUnknown
            return lookup.container(catalogue.primary, id_)

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

    def image_usage(self) -> Iterator[ImageUsage]:
        """What each image adds to the store."""
        return usage.of_images(self._core)

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

    # -- mounting --------------------------------------------------------------------------------

    @property
    def _mounts(self) -> MountTable:
        return self._core.mounts

    def mount(self, key: str, label: str = "", options: Sequence[str] = ()) -> Path:
        """Mount a container or layer; returns where. Each call needs its ``unmount``."""
        return mounts.mount(self._core, self._mounts, key, label, options)

    def mount_image(self, key: str, label: str = "", options: Sequence[str] = ()) -> Path:
        """Mount an image's top layer read-only; returns where."""
        return mounts.mount_image(self._core, self._mounts, key, label, options)

    def unmount(self, key: str, force: bool = False) -> bool:
        """Undo one ``mount``, or all with ``force``; True if it is still mounted."""
        return mounts.unmount(self._core, self._mounts, key, force)

    def unmount_image(self, key: str, force: bool = False) -> bool:
        """Undo one ``mount_image``, or all with ``force``; True if it is still mounted."""
        return mounts.unmount_image(self._core, self._mounts, key, force)

    def mounted(self, key: str) -> int:
        """How many users the mount has. Raises ``LayerUnknown``."""
        return mounts.mounted(self._core, self._mounts, key)

    def mount_path(self, layer_id: str) -> str:
        """Where the layer is mounted, "" if it is not."""
        recorded = self._mounts.get(layer_id)
        if recorded.users and self._core.driver.is_mounted(layer_id):
            return recorded.path
        return ""

    def shutdown(self, force: bool = False) -> list[LayerID]:
        """Release the driver's mounts; with ``force`` unmount layers. ``mounts.shutdown``."""
        return mounts.shutdown(self._core, self._mounts, force)

    def layer_parent_owners(self, key: str) -> tuple[list[int], list[int]]:
        """Unmapped owners above the mount point. Raises ``LayerUnknown``, ``LayerNotMounted``."""
        return mounts.parent_owners(self._core, self._mounts, key)

    def container_parent_owners(self, key: str) -> tuple[list[int], list[int]]:
        """The same for a container's layer. Raises ``ContainerUnknown``, ``LayerUnknown``."""
        return self.layer_parent_owners(self.container(key).layer)

    # -- big data --------------------------------------------------------------------------------

    def list_layer_big_data(self, key: str) -> list[str]:
        return bigdata.names(self._core, Kind.LAYER, key)

    def layer_big_data(self, key: str, name: str) -> bytes:
        return bigdata.read(self._core, Kind.LAYER, key, name)

    def set_layer_big_data(self, key: str, name: str, data: bytes) -> None:
        bigdata.write(self._core, Kind.LAYER, key, name, data)

    def list_image_big_data(self, key: str) -> list[str]:
        return bigdata.names(self._core, Kind.IMAGE, key)

    def image_big_data(self, key: str, name: str) -> bytes:
        return bigdata.read(self._core, Kind.IMAGE, key, name)

    def image_big_data_size(self, key: str, name: str) -> int:
        return bigdata.size(self._core, Kind.IMAGE, key, name)

    def image_big_data_digest(self, key: str, name: str) -> Digest:
        return bigdata.digest(self._core, Kind.IMAGE, key, name)

    def set_image_big_data(
        self, key: str, name: str, data: bytes, digester: Callable[[bytes], str] | None = None
    ) -> None:
        """Store a blob; ``digester`` gives the digest of blobs named ``manifest…``, which need one.

        Raises ``ImageUnknown``, ``DigestUnknown``, ``InvalidBigDataName``, ``InvalidDigest``.
        """
        bigdata.write(self._core, Kind.IMAGE, key, name, data, digester)

    def list_container_big_data(self, key: str) -> list[str]:
        return bigdata.names(self._core, Kind.CONTAINER, key)

    def container_big_data(self, key: str, name: str) -> bytes:
        return bigdata.read(self._core, Kind.CONTAINER, key, name)

    def container_big_data_size(self, key: str, name: str) -> int:
        return bigdata.size(self._core, Kind.CONTAINER, key, name)

    def container_big_data_digest(self, key: str, name: str) -> Digest:
        return bigdata.digest(self._core, Kind.CONTAINER, key, name)

    def set_container_big_data(self, key: str, name: str, data: bytes) -> None:
        bigdata.write(self._core, Kind.CONTAINER, key, name, data)

    # -- directories -----------------------------------------------------------------------------

    def container_directory(self, key: str) -> Path:
        return directories.container_directory(self._core, key)

    def container_run_directory(self, key: str) -> Path:
        return directories.container_run_directory(self._core, key)

    def image_directory(self, key: str) -> Path:
        return directories.image_directory(self._core, key)

    def image_run_directory(self, key: str) -> Path:
        return directories.image_run_directory(self._core, key)

    def set_container_directory_file(self, key: str, file: str, data: bytes) -> None:
        directories.write_file(self.container_directory(key), file, data)

    def from_container_directory(self, key: str, file: str) -> bytes:
        return directories.read_file(self.container_directory(key), file)

    def set_container_run_directory_file(self, key: str, file: str, data: bytes) -> None:
        directories.write_file(self.container_run_directory(key), file, data)

    def from_container_run_directory(self, key: str, file: str) -> bytes:
        return directories.read_file(self.container_run_directory(key), file)

    # -- maintenance -----------------------------------------------------------------------------

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

    def history(self, key: str = "") -> Iterator[ev.HistoryEntry]:
        """Every event of the store, or of one item, in order."""
        return history.of(self._core, key) if key else history.everything(self._core)

    def watch(self, since: int | None = None) -> Iterator[ev.HistoryEntry]:
        """Events as they are committed, by any process; blocks in between."""
        return history.watch(self._core, since)

    def snapshot(self) -> Path | None:
        """Write a snapshot of the state, so that the next open replays less."""
        return self._core.snapshot()

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
