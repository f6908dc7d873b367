"""A state that follows a journal: tables, then every frame since, without any lock.

When the tail behind the newest table has grown long, whoever notices has a new table made by a
process of its own (docs/decisions/0030-tables-by-a-helper.md); nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import journal as journal_api
from cstorage.errors import OutcomeUnknown, StorageError, StoreBusy, StoreDamaged, StoreIsReadOnly
from cstorage.state import State
from cstorage.store import tables
from journal.frame import DATA
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from journal import Frame, Journal, Reader

TAIL_EVENTS = 64
"""Events behind the newest table that make another one worth its while when a store is closed."""
TAIL_EVENTS_OPEN = 1024
"""The same for a store that stays open, at most every ``TABLE_PAUSE_S`` seconds."""
TAIL_EVENTS_KEPT = 4096
"""Events that a store which stays open holds applied before it goes over to a newer table."""
TABLE_PAUSE_S = 2.0


@contextmanager
def translated() -> Iterator[None]:
    """Journal errors as errors of the store, with what to do about them."""
    try:
        yield
    except journal_api.LockTimeout as error:
        raise StoreBusy(str(error)) from error
    except journal_api.JournalReadOnly as error:
        raise StoreIsReadOnly(str(error)) from error
    except journal_api.JournalDamaged as error:
        raise StoreDamaged(f"{error}; run `cstorage-journal verify`") from error
    except journal_api.WriterPoisoned as error:
        raise OutcomeUnknown(str(error)) from error
    except journal_api.InvalidRecord as error:
        raise StorageError(
            f"one change may hold 16 MiB of names and metadata, not more ({error}); "
            "large data belongs into big data items"
        ) from error
    except journal_api.JournalError as error:
        raise StorageError(str(error)) from error


def apply_frame(state: State, frame: Frame) -> int:
    """Apply one frame of the journal to ``state``; how many events it had."""
    if frame.kind != DATA:
        return 0
    from cstorage.events import codec
    from cstorage.state import ahead
    from cstorage.state.reducer import apply

    sequence = frame.first_sequence
    transaction = frame.transaction()
    uid = int(transaction.actor[0])
    if frame.count < ahead.LEAST:
        for raw in transaction.events:
            apply(state, codec.decode(raw), sequence, uid)
            sequence += 1
        return frame.count
    for at in range(0, frame.count, ahead.PART):
        events = [codec.decode(raw) for raw in transaction.events[at : at + ahead.PART]]
        ahead.look(state, events)
        for event in events:
            apply(state, event, sequence, uid)
            sequence += 1
    return frame.count


def settle_tables(journal_path: str) -> None:
    """What the process of ``tables.Helper`` does. It has nobody to complain to."""
    try:
        with journal_api.Journal.open(journal_path, mode="w") as journal:
            tables.settle(journal, journal_path, apply_frame, least=TAIL_EVENTS)
    except (journal_api.JournalError, OSError):
        return


class Own(NamedTuple):
    """What the holder of the writer lock has just committed, and the state that it leads to."""

    first_sequence: int
    draft: State


class Replica:
    """The state of one journal as of the last ``catch_up``. Not safe for several threads."""

    until: int | None = None
    """The last event that it may know of; ``None`` for a replica of the present."""

    def __init__(self, journal: Journal, folder: Path, *, writable: bool = False) -> None:
        self.journal = journal
        self.folder = folder
        self._writable = writable
        self._helper = tables.Helper(str(folder))
        self.reader: Reader | None = None
        self._looked = 0.0
        """When the tail was last found long, and something done about it."""
        self._tried = 0
        """The newest table that was gone over to."""
        self._asked = 0
        """Where the tail ended when a table was last asked for."""
        self._torn = False
        """Frames were read that may not have been applied."""
        self.load()

    def load(self) -> None:
        """Begin again from the newest tables."""
        with translated():
            loaded = tables.load(self.journal, str(self.folder), apply_frame)
        if self.reader is not None:
            self.reader.close()
        self.state = loaded.state
        self.reader = loaded.reader
        self.tail_events = loaded.tail_events
        self._torn = False

    @property
    def position(self) -> journal_api.Position:
        assert self.reader is not None
        return self.reader.position

    def catch_up(self, own: Own | None = None) -> None:
        """Apply what was committed since; costs one ``fstat`` when that is nothing.

        Events of ``own`` were applied to its draft and need not be once more.

        If it does not come to its end, interrupted say, the next call begins anew: a state that
        lacks a frame which its reader has passed would be wrong for good.
        """
        assert self.reader is not None
        if self._torn:
            self.load()
        if not self.reader.changed():
            return
        self._torn = True
        with translated():
            for frame in self.reader.read_new():
                if (
                    own is not None
                    and frame.kind == DATA
                    and frame.first_sequence == own.first_sequence
                    and self.state.is_base_of(own.draft)
                ):
                    self.state.take_over(own.draft)
                    self.tail_events += frame.count
                else:
                    self.tail_events += apply_frame(self.state, frame)
        self._torn = False

    def refresh(self) -> None:
        """Catch up, and do something about a long tail.

        Not for the holder of the writer lock: all others would wait while it goes over to a table.
        """
        self.catch_up()
        if self.tail_events >= TAIL_EVENTS_OPEN:
            self._shorten()

    def _shorten(self) -> None:
        """Go over to a newer table, whoever made it; have one made if there is none."""
        now = monotonic()
        if now - self._looked < TABLE_PAUSE_S:
            return
        self._looked = now
        self._helper.finished()
        newest = tables.newest_sequence(str(self.folder))
        sequence = self.position.sequence
        if sequence - newest >= TAIL_EVENTS_OPEN:
            if sequence != self._asked:  # else the last one made none, and nothing happened since
                self._asked = sequence
                self._have_one_made()
        elif self.tail_events >= TAIL_EVENTS_KEPT and newest != self._tried:
            self._tried = newest  # should it turn out not to be trusted, once is enough
            self.load()

    def _have_one_made(self) -> None:
        if self._writable and not tables.being_made(str(self.folder)):
            self._helper.start(TABLE_PAUSE_S)

    def snapshot(self) -> bool:
        """Write everything as a snapshot and go on from it; False if there is nothing."""
        with translated():
            if not tables.settle(self.journal, str(self.folder), apply_frame, full=True):
                return False
        self.load()
        return True

    def close(self) -> None:
        """Have a table made of a long tail, so that the next one who opens need not read it."""
        if self.tail_events < TAIL_EVENTS:
            return
        # Another process may have seen to it long ago.
        if self.position.sequence - tables.newest_sequence(str(self.folder)) >= TAIL_EVENTS:
            self._have_one_made()
