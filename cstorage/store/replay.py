"""The store once more at another place: with another driver, or as a store of the original.

The journal is replayed, transaction by transaction with its actor and reason, so the copy tells the
same story; times of changes are those of the copying, times of items are kept. Content comes for
what is still there: archives are rebuilt from their recipes, which verifies them, and extracted by
the other driver; trees without a recipe are copied. Where the beginning of the journal is archived,
the state is replayed instead: one creation per item.

The copy is made under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import journal as journal_api
from cstorage import events as ev
from cstorage.content import ContentDamaged
from cstorage.drivers.options import canonical
from cstorage.errors import ArchiveError, DriverError, StorageError
from cstorage.interop import transfer
from cstorage.model import Container, DiffSummary, IDMaps, Image, Kind, Layer, LayerID
from cstorage.store import diffs
from cstorage.store.filling import extract
from cstorage.store.history import entries_of
from cstorage.store.workspace import Intent, Workspace, remove_tree
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cstorage.archive.compression import ByteSink
    from cstorage.drivers.contract import Prepared
    from cstorage.store.core import Core

_OWN_FOLDERS = ("journal", "content", "projection", "staging", "trash")


class Copied(NamedTuple):
    """Counts of live items in the copy, and what could not come along."""

    layers: int
    images: int
    containers: int
    left_out: tuple[tuple[str, str], ...]


class _LeftOut(Exception):
    """Why an item cannot come along."""


def convert(core: Core, directory: str, driver: str) -> Copied:
    """A copy of the store at ``directory`` (missing or empty) with the driver ``driver``.

    Raises ``StorageError`` if the directory is in use, ``DriverNotSupported``.
    """
    with _Target(directory, canonical(driver)) as target:
        done = _Replay(core, target.core).work()
        target.finish()
    return done


def export(core: Core, directory: str) -> Copied:
    """A full store in the original's format at ``directory`` (missing or empty).

    What the original's tools cannot digest is left out of its lists. Raises ``StorageError``.
    """
    from cstorage.interop.selection import Form
    from cstorage.store.projecting import project

    with _Target(directory, core.driver.name) as target:
        done = _Replay(core, target.core).work()
        shown = project(target.core, form=Form.OWN_ROOT)
        target.finish(drop=_OWN_FOLDERS)
    hidden = [item for item, _ in shown.left_out]
    return done._replace(
        layers=done.layers - sum(item.startswith("layer ") for item in hidden),
        images=done.images - sum(item.startswith("image ") for item in hidden),
        containers=done.containers - sum(item.startswith("container ") for item in hidden),
        left_out=(*done.left_out, *shown.left_out),
    )


class _Target:
    """The place of the copy: built beside ``directory``, renamed by ``finish``."""

    core: Core

    def __init__(self, directory: str, driver: str) -> None:
        self._place = Path(os.path.abspath(directory))
        if self._place.is_symlink() or (self._place.exists() and any(self._place.iterdir())):
            raise StorageError(
                f"{directory} exists and is not an empty directory", hint="name a new one"
            )
        self._draft = self._place.with_name(f".{self._place.name}.{os.urandom(4).hex()}")
        self._driver = driver
        self._stack = ExitStack()

    def __enter__(self) -> _Target:
        from cstorage.store.opening import open_store

        self._stack.callback(remove_tree, self._draft)
        try:
            self._draft.mkdir(mode=0o700, parents=True)
            store = open_store(self._draft / "graph", self._draft / "run", self._driver)
            self._stack.callback(store.close)
            self.core = store._core
        except BaseException:
            self._stack.close()
            raise
        return self

    def finish(self, drop: tuple[str, ...] = ()) -> None:
        """Close the copy, take away what is ours alone, and give it its name."""
        self.core.close()
        graph = self._draft / "graph"
        for name in drop:
            remove_tree(graph / name)
            (graph / f"{name}.driver").unlink(missing_ok=True)
        if self._place.exists():
            self._place.rmdir()
        graph.rename(self._place)

    def __exit__(self, *raised: object) -> None:
        self._stack.__exit__(*raised)  # type: ignore[arg-type]


class _Step(NamedTuple):
    """One transaction to repeat."""

    actor: ev.Actor | None
    reason: str
    events: list[tuple[int, ev.Event]]


def _history(core: Core) -> Iterator[_Step]:
    for frame in core.journal.frames():
        entries = list(entries_of(frame))
        if entries:
            yield _Step(
                entries[0].actor, entries[0].reason, [(e.sequence, e.event) for e in entries]
            )


_CLASSES = {Kind.LAYER: Layer, Kind.IMAGE: Image, Kind.CONTAINER: Container}


def _state(core: Core) -> Iterator[_Step]:
    """One creation per item, in the order in which the items were made."""
    state = core.state
    items: list[Layer | Image | Container] = []
    for kind, find in (
        (Kind.LAYER, state.layer), (Kind.IMAGE, state.image), (Kind.CONTAINER, state.container),
    ):  # fmt: skip
        items += [item for id_ in state.ids(kind) if (item := find(id_)) is not None]
    for item in sorted(items, key=lambda item: item.sequence):
        kind = next(kind for kind, cls in _CLASSES.items() if isinstance(item, cls))
        pins = [ev.Pinned(*pin) for pin in state.pins(kind, item.id)]
        yield _Step(None, "", [(item.sequence, event) for event in (*_creation(item), *pins)])


def _creation(item: Layer | Image | Container) -> Iterator[ev.Event]:
    match item:
        case Layer():
            yield ev.LayerCreated(
                item.id, item.names, item.parent, item.metadata, item.mount_label,
                item.created_ns, item.diff, item.flags, item.maps, item.big_data, item.writable,
                item.volatile,
            )  # fmt: skip
        case Image():
            yield ev.ImageCreated(
                item.id, item.names, item.names_history, item.top_layer, item.metadata,
                item.digest, item.created_ns, item.flags, item.big_data,
            )  # fmt: skip
            for layer in item.mapped_top_layers:
                yield ev.ImageMappedLayerAdded(item.id, layer)
        case Container():
            yield ev.ContainerCreated(
                item.id, item.names, item.image, item.layer, item.metadata, item.created_ns,
                item.maps, item.flags, item.big_data, item.volatile,
            )  # fmt: skip


class _Replay:
    def __init__(self, core: Core, target: Core) -> None:
        self.core = core
        self.target = target
        self.state = core.state
        self._same = core.driver.name == target.driver.name
        self._left_out: dict[tuple[Kind, str], str] = {}
        self._diffs: dict[str, DiffSummary] = {}
        """Of layers brought so far: what the other driver found in their archives."""

    def work(self) -> Copied:
        for step in self._steps():
            self._repeat(step)
        for id_ in self.state.ids(Kind.CONTAINER):
            self._private(id_)
        state = self.target.state
        left = [(f"{k.name.lower()} {i}", why) for (k, i), why in self._left_out.items()]
        return Copied(
            state.count(Kind.LAYER),
            state.count(Kind.IMAGE),
            state.count(Kind.CONTAINER),
            tuple(left),
        )

    def _steps(self) -> Iterator[_Step]:
        try:
            steps = list(_history(self.core))
            begins = bool(steps) and isinstance(steps[0].events[0][1], ev.StoreInitialised)
        except journal_api.JournalError:
            begins = False
        yield from steps if begins else _state(self.core)

    def _repeat(self, step: _Step) -> None:
        with self.target.work() as work, ExitStack() as stack:
            made: dict[str, Prepared] = {}
            keys: dict[str, None] = {}
            events: list[ev.Event] = []
            for sequence, event in step.events:
                kind, id_ = ev.subject(event)
                if kind is None or isinstance(event, ev.ImageMoved):
                    continue
                try:
                    self._check(event)
                    events.append(self._bring(event, sequence, work, stack, made, keys))
                except (_LeftOut, ArchiveError, DriverError, ContentDamaged) as error:
                    if not isinstance(event, ev.ImageMappedLayerAdded | ev.ImageMappedLayerRemoved):
                        self._left_out.setdefault((kind, id_), str(error))
            if not events:
                return
            for prepared in made.values():
                self.target.driver.make_durable(prepared)
            work.declare(Intent(self.target.driver.name, tuple(made), tuple(keys)))
            with self.target.transaction(step.reason, step.actor) as tx:
                for prepared in made.values():
                    tx.publish(prepared)
                for key in keys:
                    tx.adopt(key, work.path / f"content-{key}")
                for event in events:
                    tx.emit(event)

    def _check(self, event: ev.Event) -> None:
        """Raise ``_LeftOut`` for what was left out, and for what rests on it."""
        rests: list[tuple[Kind, str]] = []
        kind, id_ = ev.subject(event)
        match event:
            case ev.LayerCreated():
                rests = [(Kind.LAYER, event.parent)]
            case ev.ImageCreated():
                rests = [(Kind.LAYER, event.top_layer)]
            case ev.ImageMappedLayerAdded() | ev.ImageMappedLayerRemoved():
                rests = [(Kind.LAYER, event.layer)]
            case ev.ContainerCreated():
                rests = [(Kind.LAYER, event.layer), (Kind.IMAGE, event.image)]
            case _:
                pass
        created = isinstance(event, ev.LayerCreated | ev.ImageCreated | ev.ContainerCreated)
        if kind is not None and not created and (kind, id_) in self._left_out:
            raise _LeftOut(self._left_out[kind, id_])
        for on in rests:
            if on in self._left_out:
                raise _LeftOut(f"rests on {on[0].name.lower()} {on[1]}, which was left out")

    def _bring(
        self,
        event: ev.Event,
        sequence: int,
        work: Workspace,
        stack: ExitStack,
        made: dict[str, Prepared],
        keys: dict[str, None],
    ) -> ev.Event:
        """The event as the copy records it, its content staged in ``work``."""
        match event:
            case ev.LayerCreated():
                now = self.state.layer(event.id)
                self._blobs(now if now and now.sequence == sequence else None, event, work, keys)
                if now is not None and now.sequence == sequence:
                    diff = self._layer(now, event, work, stack, made, keys)
                    event = event._replace(maps=self._maps(now))
                    if event.diff.uncompressed_digest == diff.uncompressed_digest:
                        return event._replace(diff=diff)
                return event
            case ev.LayerDiffApplied():
                return event._replace(diff=self._diffs.get(event.id, event.diff))
            case ev.ImageCreated():
                self._blobs(self.state.image(event.id), event, work, keys)
                return event._replace(store="")
            case ev.ContainerCreated():
                self._blobs(self.state.container(event.id), event, work, keys)
                if event.maps and self.core.driver.can_shift_ids != self._shifts:
                    layer = self.state.layer(event.layer)
                    if layer is not None and self._maps(layer) != event.maps:
                        raise _LeftOut("its ID maps are applied by mounts that the driver lacks")
                return event._replace(run_mark="")
            case ev.BigDataSet():
                self._content(event.item.content, work, keys, needed=False)
                return event
            case _:
                return event

    def _maps(self, layer: Layer) -> IDMaps:
        """Whose owners the layer has in the copy.

        A driver whose mounts shift IDs leaves a container's layer as it is; one that cannot gives
        it the container's owners.
        """
        container = self.state.container(self.state.container_of_layer(layer.id) or "")
        if container is None or layer.maps or self._shifts or not self.core.driver.can_shift_ids:
            return layer.maps
        return container.maps

    @property
    def _shifts(self) -> bool:
        return self.target.driver.can_shift_ids

    def _blobs(
        self,
        now: Layer | Image | Container | None,
        event: ev.LayerCreated | ev.ImageCreated | ev.ContainerCreated,
        work: Workspace,
        keys: dict[str, None],
    ) -> None:
        living = {item.content for item in now.big_data} if now is not None else set()
        for item in event.big_data:
            self._content(item.content, work, keys, needed=item.content in living)

    def _content(self, key: str, work: Workspace, keys: dict[str, None], *, needed: bool) -> None:
        """Stage a content file. What nobody refers to any more may be gone."""
        if not needed and not self.state.refers_to_content(key):
            return
        work.put(key, self.core.content.read(key))
        keys[key] = None

    def _layer(
        self,
        layer: Layer,
        event: ev.LayerCreated,
        work: Workspace,
        stack: ExitStack,
        made: dict[str, Prepared],
        keys: dict[str, None],
    ) -> DiffSummary:
        """Make the layer's tree; returns what is recorded of its archive."""
        from cstorage.drivers.contract import LayerPlan

        template = self._twin(layer)
        parent = self.target.state.layer(layer.parent) if layer.parent else None
        below = template or parent or (made[layer.parent].plan if layer.parent in made else None)
        plan = LayerPlan(
            id=layer.id,
            parent=layer.parent,
            template=template.id if template else LayerID(""),
            writable=layer.writable,
            mount_label=layer.mount_label,
            maps=self._maps(layer),
            parent_maps=below.maps if below else IDMaps(),
        )
        whole = self._same and self.target.driver.name == "vfs" and not layer.diff.recipe
        if whole and template is None:
            plan = plan._replace(parent=LayerID(""), parent_maps=layer.maps)
        prepared = stack.enter_context(
            self.target.driver.prepare(
                plan, work.path, None if whole or template else made.get(layer.parent)
            )
        )
        made[layer.id] = prepared
        try:
            diff = layer.diff
            if template is not None:
                diff = layer.diff._replace(
                    recipe=template.diff.recipe, manifest=template.diff.manifest
                )
            elif layer.diff.recipe:
                diff = self._from_archive(layer, prepared, work)
                for key in (diff.recipe, diff.manifest):
                    keys[key] = None
            else:
                self._from_tree(layer, prepared)
        except BaseException:
            del made[layer.id]
            raise
        del event
        self._diffs[layer.id] = diff
        return diff

    def _twin(self, layer: Layer) -> Layer | None:
        """The layer of the copy that this one is only another owner's version of."""
        if not layer.maps or not layer.diff.uncompressed_digest:
            return None
        state = self.target.state
        for id_ in state.layers_by_digest("u", layer.diff.uncompressed_digest):
            found = state.layer(id_)
            if found is not None and found.parent == layer.parent and not found.maps:
                return found
        return None

    def _from_archive(self, layer: Layer, prepared: Prepared, work: Workspace) -> DiffSummary:
        def produce(sink: ByteSink) -> None:
            from cstorage.model import Compression

            diffs.write(self.core, layer.id, sink, compression=Compression.NONE)

        folder = Workspace(
            work.path / f"archive-{hashlib.sha256(layer.id.encode()).hexdigest()}", -1
        )
        folder.path.mkdir()
        with transfer.Stream(produce) as stream:
            diff = extract(self.target, prepared, stream, None, folder)
            stream.finish()
        if diff.uncompressed_digest != layer.diff.uncompressed_digest:
            raise _LeftOut(
                f"its archive has digest {diff.uncompressed_digest}, "
                f"not {layer.diff.uncompressed_digest}"
            )
        for key in (diff.recipe, diff.manifest):
            (folder.path / f"content-{key}").rename(work.path / f"content-{key}")
        return diff._replace(
            compressed_digest=layer.diff.compressed_digest,
            compressed_size=layer.diff.compressed_size,
            compression=layer.diff.compression,
            toc_digest=layer.diff.toc_digest,
        )

    def _from_tree(self, layer: Layer, prepared: Prepared) -> None:
        root = self.core.driver.content_root(layer.id)
        if not root:
            raise _LeftOut("its tree is missing")
        marked = self.core.driver.name == "overlay" and transfer.points_elsewhere(root)
        rotated = os.path.isdir(f"{os.path.dirname(root)}/diff1")
        if self._same and not marked and not rotated:
            prepared.filled = True
            transfer.copy_tree(root, prepared.root_fd)
            return
        parent = self.state.layer(layer.parent) if layer.parent else None

        def produce(sink: ByteSink) -> None:
            self.core.driver.write_diff(
                layer.id,
                layer.parent,
                sink,
                maps=self._maps(layer),
                parent_maps=parent.maps if parent else IDMaps(),
            )

        with transfer.Stream(produce) as stream:
            self.target.driver.apply(prepared, stream)
            stream.finish()

    def _private(self, container: str) -> None:
        """The container's own directory."""
        name = f"{self.core.driver.name}-containers"
        source = self.core.location.graph_root / name / container / "userdata"
        if not source.is_dir() or self.target.state.container(container) is None:
            return
        place = (
            self.target.location.graph_root
            / f"{self.target.driver.name}-containers"
            / container
            / "userdata"
        )
        place.mkdir(mode=0o700, parents=True)
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            transfer.copy_tree(str(source), fd)
        finally:
            os.close(fd)


__all__ = ["Copied", "convert", "export"]
