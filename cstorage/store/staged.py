"""Layers in two steps: content first, without any lock; then a place in the store (semantics §4.5).

Only drivers that can take over a finished directory can do this. Until it is applied, a staged
layer is a work folder like any other: it goes when it is closed, or when its process dies.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from cstorage import events as ev
from cstorage.errors import NotSupported, StorageError
from cstorage.model import (
    BigDataItem,
    Compression,
    DiffSummary,
    Digest,
    IDMaps,
    Kind,
    Layer,
    LayerID,
)
from cstorage.store import bigdata, chunked, layers, lookup
from cstorage.store.filling import extract, replace_content
from cstorage.store.workspace import Intent, declare, remove_tree
from journal.plain import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cstorage.archive.compression import ByteSource
    from cstorage.archive.options import ApplyOptions
    from cstorage.drivers.contract import Prepared
    from cstorage.store.core import Core
    from cstorage.store.workspace import Workspace


def _need_staging(core: Core) -> None:
    if not core.driver.stages_content:
        raise NotSupported(f"graph driver {core.driver.name} does not support partial pull")


def target(core: Core, key: str) -> Path:
    """The directory with a layer's own content. Raises ``LayerUnknown``, ``NotSupported``."""
    layer = core.catalogue.layer(key)
    _need_staging(core)
    return Path(core.driver.content_root(layer.id))


class StagedLayer:
    """Content that waits for its layer; a context manager that cleans up what was not applied."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._holder: AbstractContextManager[Workspace] = core.work(image=True)
        self._work = self._holder.__enter__()
        self._prepared: Prepared | None = None
        self._maps = IDMaps()
        self.diff = DiffSummary()
        self.big_data: tuple[bigdata.Blob, ...] = ()
        """Data items that the layer gets besides those that are given when it is applied."""

    def __enter__(self) -> StagedLayer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The staged tree, until it is applied. Raises ``StorageError`` then."""
        self.check_unused()
        return Path(self._tree)

    def check_unused(self) -> None:
        """Raises ``StorageError`` if it was applied or cleaned up."""
        if self._prepared is None:
            raise StorageError("this staged layer was applied or cleaned up already")

    @property
    def _tree(self) -> str:
        assert self._prepared is not None
        return os.readlink(f"/proc/self/fd/{self._prepared.root_fd}")

    def fill(
        self, source: ByteSource, options: ApplyOptions | None, maps: IDMaps, *, packed: bool
    ) -> None:
        """Extract the archive; ``packed``: it was made of a directory and gets a table."""
        from cstorage.drivers.contract import LayerPlan

        self._maps = maps
        plan = LayerPlan(id=layers.new_layer_id(self._core.state), maps=maps)
        self._prepared = self._core.driver.prepare(plan, self._work.path)
        self._prepared.guards = self._work.guards
        archive = chunked.TableReader(source)
        diff = extract(self._core, self._prepared, archive, options, self._work)
        manifest, root = self._work.path / f"content-{diff.manifest}", self._prepared.root_fd
        if packed:
            table = chunked.made(chunked.entries(manifest, root))
            toc_digest = table.digest
            self.big_data = (
                (chunked.MANIFEST_ITEM, table.json),
                (chunked.LAYER_DATA_ITEM, chunked.LAYER_DATA),
            )
        else:
            toc_digest = chunked.digest_of(archive, options, manifest, root)
        self._core.driver.make_durable(self._prepared)
        # What was received is known as a tree, not as a blob that could be asked for again.
        self.diff = diff._replace(
            compressed_digest=Digest(""),
            compressed_size=0,
            compression=Compression.NONE,
            toc_digest=toc_digest,
        )

    def close(self) -> None:
        """Delete what was not applied. Safe to call twice."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.close()
        self._holder.__exit__(None, None, None)


def prepare(
    core: Core,
    source: ByteSource | str | os.PathLike[str],
    options: ApplyOptions | None = None,
    maps: IDMaps = IDMaps(),
) -> StagedLayer:
    """Stage an archive, or a directory's content (a missing directory counts as empty).

    Raises ``NotSupported``, ``ArchiveError``.
    """
    _need_staging(core)
    staged = StagedLayer(core)
    try:
        if isinstance(source, str | os.PathLike):
            with _Packed(os.fspath(source)) as stream:
                staged.fill(stream, options, maps, packed=True)
        else:
            staged.fill(source, options, maps, packed=False)
    except BaseException:
        staged.close()
        raise
    return staged


class _Packed:
    """A directory as an archive, made by a thread while it is read."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        reading, self._writing = os.pipe()
        self._stream: BinaryIO = open(reading, "rb")
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._pack, name="pack-directory", daemon=True)

    def __enter__(self) -> _Packed:
        self._thread.start()
        return self

    def read(self, n: int, /) -> bytes:
        data = self._stream.read(n)
        if not data:
            self._thread.join()
            if self._error is not None:
                raise self._error
        return data

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._thread.join()

    def _pack(self) -> None:
        from cstorage.archive.produce import write_tree

        try:
            with open(self._writing, "wb") as sink:
                if os.path.isdir(self._folder):
                    root = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    try:
                        write_tree(root, sink)
                    finally:
                        os.close(root)
        except BrokenPipeError:
            pass  # the reader gave up and knows why
        except BaseException as error:
            self._error = error


def apply(
    core: Core,
    staged: StagedLayer,
    id_: str,
    parent: str = "",
    names: Sequence[str] = (),
    metadata: str = "",
    flags: Mapping[str, Any] | None = None,
    big_data: Sequence[bigdata.Blob] = (),
) -> Layer:
    """Make the staged content the layer ``id_``'s, which is created if it does not exist.

    Raises ``LayerUnknown`` (parent), ``ParentIsContainer``, ``DuplicateName``,
    ``InvalidBigDataName``, ``InvalidID``; the staged content is used up in any case.
    """
    _need_staging(core)
    staged.check_unused()
    with staged:
        existing = lookup.find_layer(core.state, id_)
        with core.work() as work:
            blobs = bigdata.stage((*staged.big_data, *big_data), work, Kind.LAYER)
            for key in layers.staged_contents(staged.diff, ()):
                source = staged._work.path / f"content-{key}"
                work.put_file(key, source)
            contents = tuple(layers.staged_contents(staged.diff, blobs))
            if existing is not None:
                os.rename(staged._tree, staged._work.path / "=tree")
                events: list[ev.Event] = [
                    ev.LayerDiffApplied(existing.id, staged.diff),
                    ev.MetadataSet(Kind.LAYER, existing.id, metadata),
                    ev.FlagsSet(Kind.LAYER, existing.id, {**existing.flags, **(flags or {})}),
                    *(ev.BigDataSet(Kind.LAYER, existing.id, blob) for blob in blobs),
                ]
                replace_content(
                    core,
                    existing,
                    str(staged._work.path / "=tree"),
                    events,
                    staged.diff,
                    work,
                    staged._work,
                    contents,
                )
                return lookup.layer(core.state, existing.id)
            request = layers.LayerRequest(
                id=id_ or layers.new_layer_id(core.state),
                parent=parent,
                names=names,
                writable=False,
                flags=flags or {},
                metadata=metadata,
            )
            return _create(core, staged, request, blobs, contents, work)


def _create(
    core: Core,
    staged: StagedLayer,
    request: layers.LayerRequest,
    blobs: tuple[BigDataItem, ...],
    contents: tuple[str, ...],
    work: Workspace,
) -> Layer:
    base = layers.check(core, core.catalogue, request, staged=True)
    if base.maps != staged._maps:
        raise StorageError(f"the content staged for layer {request.id} has other ID maps")
    with (
        core.work(image=True) as tree_work,
        layers.prepare(core, base, LayerID(request.id), request, tree_work) as prepared,
    ):
        content = os.readlink(f"/proc/self/fd/{prepared.root_fd}")
        remove_tree(Path(content))
        os.rename(staged._tree, content)
        prepared.filled = True
        core.driver.make_durable(prepared)
        declare(work, tree_work, Intent(core.driver.name, (request.id,), contents))
        with core.transaction() as tx:
            layers.check(core, tx.catalogue, request, staged=True)
            tx.publish(prepared)
            layers.adopt_contents(tx, work, contents)
            tx.emit(layers.created(tx, base, LayerID(request.id), request, staged.diff, blobs))
    return lookup.layer(core.state, request.id)
