"""What happened to the store: every event with its time, actor and reason."""

from __future__ import annotations

from collections.abc import Iterator

from cstorage import events as ev
from cstorage.errors import StoreIsReadOnly
from cstorage.events import codec
from cstorage.model import Kind
from cstorage.store.lookup import GENERIC_ORDER
from cstorage.store.reading import translated
from journal.frame import DATA
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.store.core import Core
    from journal import Frame


def entries_of(frame: Frame) -> Iterator[ev.HistoryEntry]:
    """The history entries of one frame; none for control frames."""
    if frame.kind != DATA:
        return
    transaction = frame.transaction()
    raw = transaction.actor
    actor = ev.Actor(int(raw[0]), int(raw[1]), str(raw[2]), str(raw[3]), str(raw[4]))
    sequence = frame.first_sequence
    for event in transaction.events:
        yield ev.HistoryEntry(
            sequence, frame.time_ns, actor, transaction.reason, codec.decode(event)
        )
        sequence += 1


def everything(core: Core) -> Iterator[ev.HistoryEntry]:
    """All events from the first one the journal still has, in order; of a past store, its own."""
    until = core.until
    with translated():
        for frame in core.journal.frames():
            if until is not None and frame.first_sequence > until:
                return
            yield from entries_of(frame)


def of(core: Core, key: str) -> Iterator[ev.HistoryEntry]:
    """Events of the items of a key: all that have or had it as their ID, and living ones by any.

    What no living item answers to may be a former name or the beginning of a former ID.
    """
    found = ((kind, core.state.resolve(kind, key)) for kind in GENERIC_ORDER)
    wanted: set[tuple[Kind | None, str]] = {(kind, id_) for kind, id_ in found if id_ is not None}
    if not wanted:
        for entry in everything(core):
            kind, id_ = ev.subject(entry.event)
            names = getattr(entry.event, "names", ())
            if id_ == key or key in names or (len(key) >= 8 and id_.startswith(key)):
                wanted.add((kind, id_))
    for entry in everything(core):
        subject = ev.subject(entry.event)
        if subject in wanted or subject[1] == key:
            yield entry


def watch(core: Core, since: int | None = None) -> Iterator[ev.HistoryEntry]:
    """Events as they are committed, by any process, from after sequence ``since`` on.

    ``None`` means from now. Blocks between events; ends when the store is closed. Raises
    ``StoreIsReadOnly`` for a store of the past.
    """
    if core.until is not None:
        raise StoreIsReadOnly("a store of the past does not change: watch the store of today")
    with translated():
        if since is None:
            core.state  # noqa: B018  catching up sets the position that "now" means
            start = core.position
        else:
            start = None
        # Closed in any case: its thread must not outlive whoever was interrupted while waiting.
        with core.journal.watch(start) as watcher:
            for frame in watcher:
                for entry in entries_of(frame):
                    if since is None or entry.sequence > since:
                        yield entry
