"""A layer of another tool's store on its way into ours.

Content comes by the first way that fits (architecture: staged, verified, durable, then published):

* left in place, after it was verified;
* for images' layers with other owners than the archive's: made again from the layer they were made
  from, the way we make such layers;
* for trees that no archive describes (containers' layers): copied as they are;
* linked, after the archive was verified;
* extracted from the archive, rebuilt from the source's tar-split and verified as it passes by.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum

from cstorage import events as ev
from cstorage.drivers.copytree import TreeCopier
from cstorage.errors import ArchiveError
from cstorage.interop import transfer
from cstorage.interop.origin import ItemFault, Origin
from cstorage.model import BigDataItem, IDMaps, Kind, Layer, LayerID
from cstorage.store import bigdata, layers, workspace
from cstorage.store.filling import extract
from cstorage.store.workspace import Intent, Workspace
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.archive.compression import ByteSink
    from cstorage.drivers.contract import Prepared
    from cstorage.store.commit import Transaction
    from cstorage.store.core import Core


class Mode(StrEnum):
    """How content comes over."""

    COPY = "copy"
    LINK = "link"
    IN_PLACE = "in-place"


class Incoming:
    """The layer, complete in a work folder (or in place). A context manager: entering does it all.

    Raises ``ItemFault`` if the source's content is not what its record says, or is not there.
    """

    def __init__(self, core: Core, origin: Origin, mode: Mode, layer: Layer) -> None:
        self.core = core
        self.origin = origin
        self.mode = mode
        self.layer = layer
        self.diff = layer.diff
        self.blobs: tuple[BigDataItem, ...] = ()
        self.prepared: Prepared | None = None
        self.work: Workspace
        self.tree_work: Workspace
        self._stack = ExitStack()

    def __enter__(self) -> Incoming:
        try:
            self.work = self._stack.enter_context(self.core.work())
            self.tree_work = self._stack.enter_context(
                self.core.tree_work(self.work, image=not self._writable)
            )
            found = self.origin.layers[self.layer.id]
            assert isinstance(found.item, Layer)
            with self.origin.steady(found.item):
                self.blobs = bigdata.stage(self.origin.big_data(found), self.work, Kind.LAYER)
                self._content()
            if self.prepared is not None:
                self.core.driver.make_durable(self.prepared)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.__exit__(*raised)  # type: ignore[arg-type]

    @property
    def _writable(self) -> bool:
        return self.layer.writable or not self.layer.diff.uncompressed_digest

    @property
    def keys(self) -> list[str]:
        """Content files that belong to the layer."""
        return layers.staged_contents(self.diff, self.blobs)

    def emit(self, tx: Transaction) -> None:
        """Add the layer to the transaction, under the names that are free."""
        layer = self.layer
        if self.prepared is not None:
            tx.publish(self.prepared)
        layers.adopt_contents(tx, self.work, self.keys)
        tx.emit(
            ev.LayerCreated(
                id=layer.id,
                names=tuple(n for n in layer.names if tx.state.holder(Kind.LAYER, n) is None),
                parent=layer.parent,
                metadata=layer.metadata,
                mount_label=layer.mount_label,
                created_ns=layer.created_ns,
                diff=self.diff,
                flags=dict(layer.flags),
                maps=layer.maps,
                big_data=self.blobs,
                writable=self._writable,
                volatile=layer.volatile,
            )
        )

    # -- content ---------------------------------------------------------------------------------

    def _content(self) -> None:
        layer, same = self.layer, self.origin.driver == self.core.driver.name
        digested = bool(layer.diff.uncompressed_digest) and not layer.writable
        twin = self._twin() if layer.maps and digested else None
        linkable = (
            same and self.mode is Mode.LINK and self.origin.driver == "overlay"
            and not self.origin.mount_program and bool(self.origin.recipe(layer))
            and not transfer.has_other_owners(self.origin, layer)
        )  # fmt: skip
        if self.mode is Mode.IN_PLACE:
            self._verify(digested)
            if digested and not layer.maps and transfer.has_other_owners(self.origin, layer):
                raise ItemFault("its files have owners that its archive does not name")
        elif twin is not None:
            self._verify(digested)
            self._prepare(LayerID(""), template=twin)
        elif layer.maps or not digested:
            self._verify(digested)
            self._as_it_is(same)
        elif linkable:
            self._verify(digested)
            self._prepare(layer.parent)
            self._copy_tree(transfer.Linker)
        else:
            self._prepare(layer.parent)
            self._from_archive()

    def _twin(self) -> Layer | None:
        """Our layer with the same content and parent, and the archive's owners."""
        state = self.core.state
        for id_ in state.layers_by_digest("u", self.layer.diff.uncompressed_digest):
            found = state.layer(id_)
            if found is not None and found.parent == self.layer.parent and not found.maps:
                return found
        return None

    def _verify(self, digested: bool) -> None:
        """Compare with the digest if there is one; a proven tar-split file becomes ours."""
        if not digested:
            self.origin.contents(self.layer)
            self.diff = self.layer.diff._replace(recipe="", manifest="")
            return
        transfer.verify_any(self.origin, self.layer, f"{self.work.path}/=reading")
        key = ""
        path = self.origin.recipe(self.layer)
        if path:
            with open(path, "rb") as file:
                data = file.read()
            key = hashlib.sha256(data).hexdigest()
            self.work.put(key, data)
        self.diff = self.layer.diff._replace(recipe=key, manifest="")

    def _prepare(
        self, parent: LayerID, *, template: Layer | None = None, keep_owners: bool = False
    ) -> None:
        from cstorage.drivers.contract import LayerPlan

        below = template or (self.core.state.layer(parent) if parent else None)
        plan = LayerPlan(
            id=self.layer.id,
            parent=parent,
            template=template.id if template else LayerID(""),
            writable=self._writable,
            mount_label=self.layer.mount_label,
            maps=self.layer.maps,
            # A copied tree brings its owners along: nothing is to be changed for it.
            parent_maps=self.layer.maps if keep_owners else below.maps if below else IDMaps(),
        )
        prepared = self.core.driver.prepare(plan, self.tree_work.path)
        prepared.guards = self.tree_work.guards
        self.prepared = self._stack.enter_context(prepared)

    def _from_archive(self) -> None:
        """Extract the rebuilt archive; its digest is known when all of it has passed by."""
        layer = self.layer
        assert self.prepared is not None

        def produce(sink: ByteSink) -> None:
            if self.origin.recipe(layer):
                transfer.write_archive(self.origin, layer, sink)
            else:
                transfer.generate(self.origin, layer, f"{self.work.path}/=reading", sink)

        try:
            with transfer.Stream(produce) as stream:
                diff = extract(self.core, self.prepared, stream, None, self.work)
                stream.finish()
        except ArchiveError as error:
            raise ItemFault(f"its archive cannot be rebuilt: {error}") from error
        transfer.compare(
            layer, diff.uncompressed_digest, diff.uncompressed_size,
            made_anew=not self.origin.recipe(layer),
        )  # fmt: skip
        self.diff = diff._replace(
            compressed_digest=layer.diff.compressed_digest,
            compressed_size=layer.diff.compressed_size,
            compression=layer.diff.compression,
            toc_digest=layer.diff.toc_digest,
        )

    def _as_it_is(self, same_driver: bool) -> None:
        """Bring a tree that no archive describes."""
        contents = self.origin.contents(self.layer)
        overlay = self.origin.driver == "overlay"
        foreign = overlay and (
            self.origin.mount_program or any(map(transfer.points_elsewhere, contents))
        )
        if same_driver and not foreign:
            whole = self.core.driver.name == "vfs"
            self._prepare(LayerID("") if whole else self.layer.parent, keep_owners=True)
            self._copy_tree(TreeCopier)
            return
        self._prepare(self.layer.parent)
        assert self.prepared is not None
        scratch = f"{self.work.path}/=reading"
        with transfer.Stream(
            lambda sink: transfer.generate(self.origin, self.layer, scratch, sink)
        ) as stream:
            self.core.driver.apply(self.prepared, stream)
            stream.finish()

    def _copy_tree(self, copier: type[TreeCopier]) -> None:
        assert self.prepared is not None
        self.prepared.filled = True
        first, *rotated = self.origin.contents(self.layer)
        transfer.copy_tree(first, self.prepared.root_fd, copier())
        for number, source in enumerate(rotated, 1):
            path = f"{self.prepared.path}/diff{number}"
            os.mkdir(path, 0o700)
            target = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                transfer.copy_tree(source, target, copier())
            finally:
                os.close(target)


def declare(core: Core, incoming: Incoming, more: Sequence[str] = ()) -> None:
    """Write down what is about to move from the work folders of ``incoming`` into the store."""
    mine = (incoming.layer.id,) if incoming.prepared is not None else ()
    keys = tuple(dict.fromkeys((*incoming.keys, *more)))
    workspace.declare(incoming.work, incoming.tree_work, Intent(core.driver.name, mine, keys))
