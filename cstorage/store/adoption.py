"""Taking over what other tools wrote: their records as events of ours, their content verified.

Per item one transaction, parents before children, images before containers; the actor names the
source. Whatever moment the process dies, each item is adopted whole or not at all, and a second run
takes what is left. Items that cannot be taken are reported, and everything that rests on them too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from cstorage import events as ev
from cstorage.errors import ArchiveError, DriverError, StoreIsReadOnly
from cstorage.interop import transfer
from cstorage.interop.origin import Fault, Found, ItemFault, Origin, OriginError, choose_driver
from cstorage.model import BigDataItem, Container, ContainerID, Image, ImageID, Kind, Layer, LayerID
from cstorage.store import bigdata, layers
from cstorage.store.incoming import Incoming, Mode, declare
from cstorage.store.workspace import Intent, Workspace, remove_tree
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cstorage.state import State
    from cstorage.store.core import Core


class Adoption(NamedTuple):
    """What was taken. Items are ``layer ID``, ``image ID``, ``container ID``."""

    adopted: tuple[str, ...]
    known: tuple[str, ...]
    left_out: tuple[Fault, ...]
    notes: tuple[str, ...]


def adopt(
    core: Core,
    graph_root: str,
    *,
    mode: Mode = Mode.COPY,
    dry_run: bool = False,
    from_driver: str = "",
    run_root: str = "",
    image_store: str = "",
    additional: Sequence[str] = (),
    timeout_s: float = 10.0,
    tell: Callable[[str], None] | None = None,
) -> Adoption:
    """Adopt the containers/storage store at ``graph_root``.

    ``dry_run`` verifies and changes nothing. ``run_root`` is where the source keeps volatile
    records, ``image_store`` its split image store, ``additional`` are stores that hold parents of
    its layers. ``tell`` hears a line per item as it is done. Raises ``OriginError``, ``StoreBusy``
    (another tool holds the source's locks for longer than ``timeout_s``), ``StoreIsReadOnly``.
    """
    if core.location.read_only and not dry_run:
        raise StoreIsReadOnly(f"{core.location.graph_root} is open for reading only")
    root = os.path.realpath(graph_root)
    same = root == os.path.realpath(core.location.graph_root)
    driver = choose_driver(root, from_driver or (core.driver.name if same else ""))
    if same != (mode is Mode.IN_PLACE):
        raise OriginError(
            f"{graph_root} is {'this' if same else 'not this'} store's graph root",
            hint="--in-place is for a store at this graph root, and such a store for --in-place",
        )
    if same and driver != core.driver.name:
        raise OriginError(f"{graph_root} was written with the driver {driver}")
    origin = Origin(
        root,
        driver,
        run_root=run_root and os.path.realpath(run_root),
        image_store=image_store and os.path.realpath(image_store),
        additional=tuple(os.path.realpath(path) for path in additional),
        timeout_s=timeout_s,
    )
    origin.read()
    return _Run(core, origin, mode, dry_run, tell or (lambda _: None)).work()


class _Run:
    def __init__(
        self, core: Core, origin: Origin, mode: Mode, dry_run: bool, tell: Callable[[str], None]
    ) -> None:
        self.core = core
        self.origin = origin
        self.mode = mode
        self.dry_run = dry_run
        self.tell = tell
        self.adopted: list[str] = []
        self.known: list[str] = []
        self.left_out: list[Fault] = []
        self.notes: list[str] = []
        self._layers: set[str] = set()
        """Layers that are in our store, or would be after this run."""
        self._images: set[str] = set()
        own = core.actor()
        self._actor = own._replace(program=f"{own.program} from {origin.text}")
        self._reason = core.location.reason or f"adopted from {origin.text}"

    def work(self) -> Adoption:
        for fault in self.origin.faults:
            self._leave_out(fault.item, fault.why)
        private = {
            found.item.layer
            for found in self.origin.containers.values()
            if isinstance(found.item, Container)
        }
        for layer in self.origin.ordered_layers():
            if layer.id not in private:
                self._each(Kind.LAYER, self.origin.layers[layer.id], self._layer)
        for found in self.origin.images.values():
            self._each(Kind.IMAGE, found, self._image)
        for found in self.origin.containers.values():
            self._each(Kind.CONTAINER, found, self._container)
        return Adoption(
            tuple(self.adopted), tuple(self.known), tuple(self.left_out), tuple(self.notes)
        )

    def _leave_out(self, item: str, why: str) -> None:
        self.left_out.append(Fault(item, why))
        self.tell(f"left out: {item}: {why}")

    def _each(self, kind: Kind, found: Found, take: Callable[[Found], bool]) -> None:
        """Take one item; what stands against it is a line of the report."""
        item = f"{kind.name.lower()} {found.item.id}"
        try:
            new = take(found)
        except (ItemFault, ArchiveError, DriverError) as error:
            self._leave_out(item, str(error))
            return
        except OSError as error:
            if not self._of_source(error):
                raise
            self._leave_out(item, f"{error.strerror}: {error.filename}")
            return
        (self.adopted if new else self.known).append(item)
        if new:
            self.tell(f"{'would adopt' if self.dry_run else 'adopted'}: {item}")

    def _of_source(self, error: OSError) -> bool:
        """Whether it was the source that could not be read: another disk's fault is no item's."""
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        return any(name.startswith(f"{root}/") for root in self.origin.roots)

    # -- layers ----------------------------------------------------------------------------------

    def _layer(self, found: Found) -> bool:
        layer = found.item
        assert isinstance(layer, Layer)
        if self._known_layer(layer):
            return False
        self._check_layer(layer)
        if self.dry_run:
            import tempfile

            with self.origin.steady(layer):
                self.origin.big_data(found)
                with tempfile.TemporaryDirectory(prefix="cstorage-") as scratch:
                    transfer.verify_any(self.origin, layer, scratch)
        else:
            with self._incoming(layer) as incoming:
                declare(self.core, incoming)
                with self.core.transaction(self._reason, self._actor) as tx:
                    self._check_new(tx.state, layer)
                    incoming.emit(tx)
        self._layers.add(layer.id)
        return True

    def _incoming(self, layer: Layer) -> Incoming:
        return Incoming(self.core, self.origin, self.mode, layer)

    def _known_layer(self, layer: Layer) -> bool:
        """Whether we have it already; another layer of the same ID is a fault."""
        mine = self.core.state.layer(layer.id)
        if mine is None:
            return False
        theirs = layer.diff.uncompressed_digest
        if mine.parent != layer.parent or mine.diff.uncompressed_digest != theirs:
            raise ItemFault("this store has another layer with the same ID")
        self._layers.add(layer.id)
        return True

    def _check_layer(self, layer: Layer) -> None:
        if layer.flags.get("incomplete"):
            raise ItemFault("it is incomplete: its tool was making or deleting it")
        if layer.parent and layer.parent not in self._layers:
            if layer.parent not in self.origin.layers:
                raise ItemFault(f"its parent {layer.parent} is not in the store")
            raise ItemFault(f"its parent {layer.parent} was left out")
        if self.mode is Mode.IN_PLACE:
            fault = self.origin.lower_fault(layer) if self.origin.driver == "overlay" else ""
            if self.origin.mount_program:
                fault = "its tree was written by a mount program; adopt it by copying"
            if fault:
                raise ItemFault(fault)

    def _check_new(self, state: State, layer: Layer) -> None:
        if state.layer(layer.id) is not None:
            raise ItemFault("this store got a layer with the same ID meanwhile; run it again")
        if layer.parent and state.layer(layer.parent) is None:
            raise ItemFault(f"its parent {layer.parent} was deleted from this store meanwhile")

    # -- images ----------------------------------------------------------------------------------

    def _image(self, found: Found) -> bool:
        image = found.item
        assert isinstance(image, Image)
        mine = self.core.state.image(image.id)
        if mine is not None:
            if mine.top_layer != image.top_layer:
                raise ItemFault("this store has another image with the same ID")
            self._images.add(image.id)
            return False
        if image.top_layer and image.top_layer not in self._layers:
            known = image.top_layer in self.origin.layers
            raise ItemFault(
                f"its layer {image.top_layer} " + ("was left out" if known else "is not there")
            )
        blobs = self.origin.big_data(found)
        names = self._free(Kind.IMAGE, image.names)
        if not self.dry_run:
            with self.core.work() as work:
                staged = bigdata.stage(blobs, work, Kind.IMAGE)
                contents = [blob.content for blob in staged]
                work.declare(Intent(self.core.driver.name, (), tuple(contents)))
                with self.core.transaction(self._reason, self._actor) as tx:
                    if tx.state.image(image.id) is not None:
                        raise ItemFault("this store got the same image meanwhile; run it again")
                    layers.adopt_contents(tx, work, contents)
                    tx.emit(self._image_created(image, names, staged))
                    for id_ in image.mapped_top_layers:
                        if tx.state.layer(id_) is not None:
                            tx.emit(ev.ImageMappedLayerAdded(image.id, LayerID(id_)))
        self._images.add(image.id)
        return True

    def _free(self, kind: Kind, names: Sequence[str]) -> tuple[str, ...]:
        """The names that nothing here has; the others stay where they are, with a note."""
        free = []
        for name in names:
            holder = self.core.state.holder(kind, name)
            if holder is None:
                free.append(name)
            else:
                self.notes.append(f"name {name} stays with {kind.name.lower()} {holder}")
                self.tell(f"note: {self.notes[-1]}")
        return tuple(free)

    def _image_created(
        self, image: Image, names: tuple[str, ...], blobs: tuple[BigDataItem, ...]
    ) -> ev.ImageCreated:
        return ev.ImageCreated(
            id=ImageID(image.id),
            names=names,
            names_history=image.names_history,
            top_layer=image.top_layer,
            metadata=image.metadata,
            digest=image.digest,
            created_ns=image.created_ns,
            flags=dict(image.flags),
            big_data=blobs,
            store=self.core.image_store,
        )

    # -- containers ------------------------------------------------------------------------------

    def _container(self, found: Found) -> bool:
        container = found.item
        assert isinstance(container, Container)
        state = self.core.state
        mine = state.container(container.id)
        if mine is not None:
            if mine.layer != container.layer:
                raise ItemFault("this store has another container with the same ID")
            return False
        layer = self._container_layer(container)
        if state.layer(layer.id) is not None:
            raise ItemFault(f"this store has a layer {layer.id} already")
        if container.image and container.image not in self._images:
            raise ItemFault(f"its image {container.image} was left out or is not there")
        self._check_layer(layer)
        blobs = self.origin.big_data(found)
        if self.dry_run:
            self.origin.contents(layer)
            return True
        names = self._free(Kind.CONTAINER, container.names)
        with self._incoming(layer) as incoming:
            staged = bigdata.stage(blobs, incoming.work, Kind.CONTAINER)
            contents = [blob.content for blob in staged]
            private = self._private(found, incoming.work)
            declare(self.core, incoming, contents)
            with self.core.transaction(self._reason, self._actor) as tx:
                self._check_new(tx.state, layer)
                if tx.state.container(container.id) is not None:
                    raise ItemFault("this store got the same container meanwhile; run it again")
                incoming.emit(tx)
                layers.adopt_contents(tx, incoming.work, contents)
                tx.emit(
                    ev.ContainerCreated(
                        id=ContainerID(container.id),
                        names=names,
                        image=container.image,
                        layer=layer.id,
                        metadata=container.metadata,
                        created_ns=container.created_ns,
                        maps=container.maps,
                        flags=dict(container.flags),
                        big_data=staged,
                        volatile=container.volatile,
                    )
                )
                private()
        return True

    def _container_layer(self, container: Container) -> Layer:
        record = self.origin.layers.get(container.layer)
        if record is None:
            raise ItemFault(f"its layer {container.layer} is not there")
        layer = record.item
        assert isinstance(layer, Layer)
        return layer._replace(writable=True, volatile=layer.volatile or container.volatile)

    def _private(self, found: Found, work: Workspace) -> Callable[[], None]:
        """Copy the container's own directory into ``work``; the result moves it into place."""
        source = f"{self.origin.private(found)}/userdata"
        if self.mode is Mode.IN_PLACE or not os.path.isdir(source) or os.path.islink(source):
            return lambda: None
        copy = work.path / "=userdata"
        copy.mkdir(mode=0o700)
        target = os.open(copy, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            transfer.copy_tree(source, target)
        finally:
            os.close(target)
        root = self.core.location.graph_root
        place = root / f"{self.core.driver.name}-containers" / found.item.id / "userdata"

        def move() -> None:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_tree(place)
            copy.rename(place)

        return move


__all__ = ["Adoption", "Mode", "adopt"]
