"""Bringing back what was deleted and is kept (``kept``), and undoing single transactions.

Rules of this module:

* What an item rests on comes back with it: a layer's ancestors, an image's layers, a container's
  layer and image. A layer never comes to lie on another one than it was deleted from, even if that
  has the ID: then nothing is restored.
* Names that somebody else has by now stay where they are; everything else is as it was.
* One transaction of events that say the same as those that made the items. A process that dies
  meanwhile has restored all, or nothing, and then everything is still kept.
* Undoing refuses what has been changed again since: it never takes back more than it was asked to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack

from cstorage import events as ev
from cstorage.drivers.contract import LayerPlan
from cstorage.errors import (
    ChangedSince,
    DuplicateID,
    NotInHistory,
    NotKept,
    NotSupported,
    StorageError,
    UnknownItemError,
)
from cstorage.model import Container, Image, ImageID, Item, Kind, Layer, LayerID
from cstorage.state import keys
from cstorage.store import directories, history, kept
from cstorage.store.past import Past
from cstorage.store.reading import translated
from cstorage.store.transient import run_mark
from cstorage.store.workspace import Folder as CallersFolder
from cstorage.store.workspace import Intent, Workspace
from journal.plain import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage.state import State
    from cstorage.store.commit import Transaction
    from cstorage.store.core import Core

_PREFIX_MIN = 4
_WIDEST_FIRST = (Kind.CONTAINER, Kind.IMAGE, Kind.LAYER)


class _Step(NamedTuple):
    """One item to be restored, and the folder that has it."""

    gone: kept.Gone
    folder: kept.Folder


class _Plan:
    """Items in the order in which they can be created, found by what rests on what."""

    def __init__(self, core: Core, tx: Transaction) -> None:
        self.core = core
        self.tx = tx
        self.folders = kept.folders(core)
        self.steps: dict[tuple[Kind, str], _Step] = {}

    def find(self, key: str, kind: Kind | None) -> _Step:
        """The item deleted last that ``key`` stands for; of one deletion the widest kind."""
        kinds = _WIDEST_FIRST if kind is None else (kind,)
        for matches in (_by_id, _by_name, _by_prefix):
            for folder in self.folders:
                for one in kinds:
                    found = [x for x in folder.items if x.kind is one and matches(x.item, key)]
                    found = [x for x in found if not kept.is_back(self.tx.state, one, x.item)]
                    if len(found) > 1:
                        raise NotKept(f"{key!r} stands for several deleted items")
                    if found:
                        return _Step(found[0], folder)
        raise NotKept(f"nothing deleted that is still kept has the ID or name {key!r}")

    def add(self, step: _Step) -> None:
        """Plan an item with everything it rests on, which comes first."""
        where = (step.gone.kind, step.gone.item.id)
        if where in self.steps or kept.is_back(self.tx.state, *step.gone[:2]):
            return
        if self.tx.state.get(keys.record(*where)) is not None:
            raise DuplicateID(f"{where[0].name.lower()} {where[1]} was made anew meanwhile")
        item = step.gone.item
        match item:
            case Layer():
                self._layer(step, item.parent)
            case Image():
                self._layer(step, item.top_layer)
                for mapped in item.mapped_top_layers:
                    try:
                        self._layer(step, mapped)
                    except UnknownItemError:
                        continue  # a copy, made again when it is needed
            case Container():
                self._layer(step, item.layer)
                self._image(item.image)
        self.steps[where] = step

    def _layer(self, above: _Step, id_: str) -> None:
        """Plan the layer that an item rests on, unless it is there or was missing before."""
        if not id_:
            return
        created_ns = above.gone.rested_on.get(id_)
        now = self.tx.catalogue.layer_by_id(id_)
        of = f"{above.gone.kind.name.lower()} {above.gone.item.id}"
        if now is not None:
            if created_ns in (None, now.created_ns):
                return
            raise NotKept(f"{of} rested on another layer than the {id_} of today")
        for folder in [above.folder, *self.folders]:
            for one in folder.items:
                same = one.kind is Kind.LAYER and one.item.id == id_
                if same and created_ns in (None, one.item.created_ns):
                    self.add(_Step(one, folder))
                    return
        if created_ns is None and not isinstance(above.gone.item, Container):
            return  # it was missing when the item was deleted
        raise NotKept(f"{of} rested on layer {id_}, which is not kept any more")

    def _image(self, id_: str) -> None:
        if not id_ or self.tx.catalogue.find_image(id_) is not None:
            return
        for folder in self.folders:
            for one in folder.items:
                if one.kind is Kind.IMAGE and one.item.id == id_:
                    self.add(_Step(one, folder))
                    return


def _by_id(item: Item, key: str) -> bool:
    return item.id == key


def _by_name(item: Item, key: str) -> bool:
    return key in item.names


def _by_prefix(item: Item, key: str) -> bool:
    return len(key) >= _PREFIX_MIN and item.id.startswith(key)


def restore(core: Core, key: str, kind: Kind | None = None, reason: str = "") -> list[Item]:
    """Bring back the item deleted last that had the ID, name or beginning of an ID ``key``.

    Returns everything that came back, what it rests on first. Raises ``NotKept``, ``DuplicateID``
    if its ID is taken, ``StoreIsReadOnly``, ``StoreBusy``; nothing is changed then.
    """
    _alone(core)
    with core.transaction(reason) as tx, ExitStack() as stack:
        plan = _Plan(core, tx)
        plan.add(plan.find(key, kind))
        return _carry_out(core, tx, plan, stack)


def _alone(core: Core) -> None:
    core.check_writable()
    if core.joint is not None:
        raise StorageError("restoring and undoing are transactions of their own")


def _carry_out(
    core: Core,
    tx: Transaction,
    plan: _Plan,
    stack: ExitStack,
    mapped: Sequence[tuple[ImageID, LayerID]] = (),
) -> list[Item]:
    """Restore what is planned, and record ``mapped`` copies with images that are there already."""
    steps = list(plan.steps.values())
    works: dict[Path, list[Workspace]] = {}
    for _, folder in steps:
        if folder.path not in works:
            works[folder.path] = kept.claim(core, folder)
            for work in works[folder.path]:
                stack.callback(work.abandon)
            if not works[folder.path]:
                raise NotKept("what is to be restored is being deleted for good")
    _move_in(core, tx, steps, works, stack)
    for gone, _ in steps:
        _emit(core, tx, gone)
    for image_id, layer_id in mapped:
        image = tx.state.image(image_id)
        if image is not None and layer_id not in image.mapped_top_layers:
            tx.emit(ev.ImageMappedLayerAdded(image_id, layer_id))
    tx.commit()
    for gone, _ in steps:
        if isinstance(gone.item, Layer) and core.driver.damage(gone.item.id, gone.item.parent):
            core.driver.mend(gone.item.id, gone.item.parent)
    for claimed in works.values():
        _tidy(core, claimed)
    found = [core.state.get(keys.record(gone.kind, gone.item.id)) for gone, _ in steps]
    return [item for item in found if item is not None]


def _move_in(
    core: Core,
    tx: Transaction,
    steps: list[_Step],
    works: dict[Path, list[Workspace]],
    stack: ExitStack,
) -> None:
    """Let trees, blobs and callers' directories move when the transaction commits.

    The folders' intents say so before: of a process that dies, what the journal does not know in
    the end is moved back into them.
    """
    staging = stack.enter_context(core.work())
    contents: list[str] = []
    layers: dict[Path, list[str]] = {}
    callers: list[tuple[str, str]] = []
    for gone, folder in steps:
        for key in kept.contents_of(gone.item):
            if not core.content.holds(key) and key not in contents:
                _link(folder.path / key, staging, key, gone.item)
                contents.append(key)
        if isinstance(gone.item, Layer):
            path = kept.tree_of(core, folder, gone.item.id)
            if path is None:
                raise NotKept(f"the files of layer {gone.item.id} are not kept any more")
            plan = LayerPlan(
                id=gone.item.id, parent=gone.item.parent, writable=gone.item.writable,
                maps=gone.item.maps,
            )  # fmt: skip
            tx.publish(core.driver.readmit(plan, path), path.parent)
            layers.setdefault(path.parent, []).append(gone.item.id)
        else:
            callers_own = CallersFolder(gone.kind, gone.item.id)
            place = folder.path / directories.withdrawn_name(callers_own)
            if place.is_dir():
                own = directories.place(core, callers_own)
                callers.append((str(place), str(own)))
    staging.declare(Intent(core.driver.name, (), tuple(contents)))
    for key in contents:
        tx.adopt(key, staging.path / f"content-{key}")
    for claimed in works.values():
        for work in claimed:
            work.declare(Intent(core.driver.name, tuple(layers.get(work.path, ()))))
    for place_text, own_text in callers:
        if not os.path.lexists(own_text):
            os.makedirs(os.path.dirname(own_text), mode=0o700, exist_ok=True)
            os.rename(place_text, own_text)
            stack.push(_BackUnless(tx, own_text, place_text).leave)


class _BackUnless:
    """Moves a directory back if the block ends with an error before the frame was written."""

    def __init__(self, tx: Transaction, here: str, back: str) -> None:
        self.tx, self.here, self.back = tx, here, back

    def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self.tx.written and not os.path.lexists(self.back):
            os.rename(self.here, self.back)


def _link(source: Path, staging: Workspace, key: str, item: Item) -> None:
    try:
        os.link(source, staging.path / f"content-{key}")
    except FileNotFoundError:
        raise NotKept(f"data of {item.id} is not kept any more ({source})") from None


def _emit(core: Core, tx: Transaction, gone: kept.Gone) -> None:
    """The events that make the item what it was, but for names that others have."""
    item = gone.item
    names = tuple(x for x in item.names if tx.state.holder(gone.kind, x) is None)
    match item:
        case Layer():
            tx.emit(
                ev.LayerCreated(
                    item.id, names, item.parent, item.metadata, item.mount_label, item.created_ns,
                    item.diff, item.flags, item.maps, item.big_data, item.writable, item.volatile,
                )
            )  # fmt: skip
        case Image():
            tx.emit(
                ev.ImageCreated(
                    item.id, names, item.names_history, item.top_layer, item.metadata, item.digest,
                    item.created_ns, item.flags, item.big_data, item.store,
                )
            )  # fmt: skip
            for mapped in item.mapped_top_layers:
                if tx.state.layer(mapped) is not None:
                    tx.emit(ev.ImageMappedLayerAdded(item.id, mapped))
        case Container():
            tx.emit(
                ev.ContainerCreated(
                    item.id, names, item.image, item.layer, item.metadata, item.created_ns,
                    item.maps, item.flags, item.big_data, item.volatile,
                    run_mark(core) if item.run_mark else "",
                )
            )  # fmt: skip


def _tidy(core: Core, claimed: list[Workspace]) -> None:
    """Delete a folder of which everything is back; leave it to its time otherwise."""
    folder = kept.read(claimed[0].path)
    for work in claimed:
        work.settle()
        if folder is not None and any(
            not kept.is_back(core.state, x.kind, x.item) for x in folder.items
        ):
            work.keep((folder.until_ns - time.time_ns()) / 1e9)
        work.discard()


def forget(core: Core, older_than_s: float = 0.0) -> int:
    """Delete for good what is kept and was deleted that long ago; how many transactions' folders.

    Raises ``StoreIsReadOnly``.
    """
    core.check_writable()
    until_ns = time.time_ns() - int(older_than_s * 1e9)
    old = [folder for folder in kept.folders(core) if folder.time_ns <= until_ns]
    return sum(kept.discard(core, folder) for folder in old)


# -- undoing ---------------------------------------------------------------------------------------


def undo(core: Core, sequence: int, reason: str = "") -> list[ev.Event]:
    """Take back the transaction that event ``sequence`` is part of; the events that did it.

    Deletions are taken back as by ``restore``; changes of names, metadata and flags by setting what
    was before. Raises ``NotInHistory``, ``NotKept``, ``ChangedSince``, ``DuplicateID``, and
    ``NotSupported`` for transactions with other events: what was made is deleted, not undone.
    """
    _alone(core)
    undone = _transaction(core, sequence)
    first, last = undone[0].sequence, undone[-1].sequence
    for entry in undone:
        if not isinstance(entry.event, _UNDOABLE):
            what = type(entry.event).__name__
            raise NotSupported(f"undoing {what} (event {entry.sequence})")
    before = Past(core.journal, core.journal_path, first - 1).state
    after = Past(core.journal, core.journal_path, last).state
    with core.transaction(reason or f"undo of event {sequence}") as tx, ExitStack() as stack:
        changed = [ev.subject(entry.event) for entry in undone if isinstance(entry.event, _CHANGED)]
        for kind, id_ in dict.fromkeys(changed):
            assert kind is not None
            if after.get(keys.record(kind, id_)) is not None:  # else it was deleted with the rest
                _set_back(tx, before, after, kind, id_)
        if any(isinstance(entry.event, _DELETED) for entry in undone):
            plan = _Plan(core, tx)
            folder = next((x for x in plan.folders if x.sequence == first), None)
            if folder is None:
                raise NotKept(f"what event {sequence} deleted is not kept any more")
            for gone in folder.items:
                plan.add(_Step(gone, folder))
            mapped = [
                (entry.event.id, entry.event.layer)
                for entry in undone
                if isinstance(entry.event, ev.ImageMappedLayerRemoved)
            ]
            _carry_out(core, tx, plan, stack, mapped)
        return list(tx.events)


_DELETED = (ev.LayerDeleted, ev.ImageDeleted, ev.ContainerDeleted)
_CHANGED = (ev.NamesSet, ev.NamesAdded, ev.NamesRemoved, ev.MetadataSet, ev.FlagsSet)
_UNDOABLE = (*_DELETED, *_CHANGED, ev.ImageMappedLayerRemoved)


def _transaction(core: Core, sequence: int) -> list[ev.HistoryEntry]:
    """All of the transaction that holds the event. Raises ``NotInHistory``."""
    with translated():
        for frame in core.journal.frames():
            if frame.first_sequence <= sequence <= frame.last_sequence:
                found = list(history.entries_of(frame))
                if found:
                    return found
        newest = core.journal.position.sequence
    raise NotInHistory(f"the journal holds no event {sequence}; the last one is {newest}")


def _set_back(tx: Transaction, before: State, after: State, kind: Kind, id_: str) -> None:
    """Names, metadata and flags of one item, and the names that others lost to it."""
    now: Any = tx.state.get(keys.record(kind, id_))
    old: Any = before.get(keys.record(kind, id_))
    new: Any = after.get(keys.record(kind, id_))
    if now is None or (now.names, now.metadata, now.flags) != (new.names, new.metadata, new.flags):
        raise ChangedSince(f"{kind.name.lower()} {id_} was changed or deleted since")
    losers: dict[str, Any] = {}
    for name in new.names:
        holder = before.holder(kind, name)
        if holder is not None and holder != id_:
            losers[holder] = before.get(keys.record(kind, holder))
    for name in old.names:
        holder = tx.state.holder(kind, name)
        if holder not in (None, id_):
            raise ChangedSince(f"name {name!r} belongs to {kind.name.lower()} {holder} by now")
    for loser in losers:
        current: Any = tx.state.get(keys.record(kind, loser))
        then: Any = after.get(keys.record(kind, loser))
        if current is None or then is None or current.names != then.names:
            raise ChangedSince(f"{kind.name.lower()} {loser} was changed or deleted since")
    if old.names != now.names:
        tx.emit(ev.NamesSet(kind, id_, old.names))
    for loser, record in losers.items():
        tx.emit(ev.NamesSet(kind, loser, record.names))
    if old.metadata != now.metadata:
        tx.emit(ev.MetadataSet(kind, id_, old.metadata))
    if old.flags != now.flags:
        tx.emit(ev.FlagsSet(kind, id_, old.flags))
