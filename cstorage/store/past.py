"""The store as it was: the state after a given event, or at a given time.

Rules of this module:

* A moment is a sequence number (``int``, as ``history`` shows them) or a ``datetime``; one without
  a time zone is local time. Transactions are whole: the one that holds the event is the last.
* A state of the past does not follow the journal and cannot be changed.
* Records are those of the moment. Files are those of today: what was changed since shows its new
  content, what was deleted is gone unless it is kept (``kept``) and restored.
"""

from __future__ import annotations

from datetime import datetime

from cstorage.errors import NotInHistory
from cstorage.store import tables
from cstorage.store.reading import Replica, apply_frame, translated
from journal.frame import DATA
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage.state import State
    from cstorage.store.reading import Own
    from journal import Frame, Journal, Position

Moment = int | datetime


class Past(Replica):
    """The state of one journal after event ``until``; never catches up."""

    def __init__(self, journal: Journal, folder: Path, moment: Moment) -> None:
        self.until: int = _sequence(journal, moment)
        self._reached = 0
        super().__init__(journal, folder)

    def load(self) -> None:
        with translated():
            loaded = tables.load(self.journal, str(self.folder), self._apply, self.until)
        self.reader = loaded.reader
        self.state = loaded.state
        if loaded.pile:
            self._reached = max(self._reached, loaded.pile[-1].position.sequence)
        self.tail_events = 0

    def _apply(self, state: State, frame: Frame) -> int:
        if frame.first_sequence > self.until:
            return 0
        self._reached = max(self._reached, frame.last_sequence)
        return apply_frame(state, frame)

    @property
    def position(self) -> Position:
        return super().position._replace(sequence=self._reached)

    def catch_up(self, own: Own | None = None) -> None:
        """Nothing: the past stays as it is."""


def _sequence(journal: Journal, moment: Moment) -> int:
    """The last event of the moment. Raises ``NotInHistory``."""
    with translated(), journal.reader(None) as reader:
        oldest = reader.position.sequence
        if isinstance(moment, int):
            newest = journal.position.sequence
            if not oldest <= moment <= newest:
                raise NotInHistory(
                    f"there is no event {moment}: the journal holds events {oldest + 1} to {newest}"
                )
            return moment
        until_ns = int(moment.timestamp() * 1_000_000) * 1000 + 999  # of a datetime's precision
        found = -1
        for frame in reader.read_new():
            if frame.kind != DATA:
                continue
            if frame.time_ns > until_ns:
                break
            found = frame.last_sequence
    if found < 0:
        raise NotInHistory(f"the journal begins after {moment.isoformat()}")
    return found
