"""What a log must be able to do so that the rest can stand on it, and two that do.

Rules of this module:

* ``JournalBackend`` is the seam: append with an expected sequence, read from a position, watch from
  a position. Sequence numbers count events from 1; one append is atomic and, when it returns,
  as durable as the backend promises.
* ``FileBackend`` is the journal in a folder; ``MemoryBackend`` keeps everything in the process (for
  simulations and tests of consumers). A replicated log (one message per frame, the expected-last-
  sequence header as the fence, the transaction id as the duplicate window) can be a third.
"""

from __future__ import annotations

from _thread import allocate_lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from journal.codec import decode, encode
from journal.errors import Conflict, DuplicateTransaction, InvalidRecord, ResyncRequired
from journal.frame import DATA, MAX_BODY, MAX_EVENTS, Transaction
from journal.position import Position
from journal.position import parse as parse_position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from journal.facade import Journal


class Record(NamedTuple):
    """One transaction as a backend hands it out; ``cursor`` resumes after it."""

    first_sequence: int
    time_ns: int
    transaction: Transaction
    cursor: str


class JournalBackend(Protocol):
    """A log of transactions."""

    def append(
        self,
        events: Sequence[Sequence[Any]],
        *,
        actor: Sequence[Any] = (),
        reason: str = "",
        txid: bytes | None = None,
        expected: int | None = None,
        schema: int = 1,
    ) -> tuple[int, int]:
        """First and last sequence number. ``Conflict`` if the log does not end at ``expected``,
        ``DuplicateTransaction`` for a transaction id that is recorded already."""

    def read(self, cursor: str = "") -> Iterator[Record]:
        """Transactions after ``cursor`` ("" = the beginning) up to the present end."""

    def watch(self, cursor: str = "", timeout_s: float | None = None) -> Iterator[Record]:
        """The same, then those to come; ends after ``timeout_s`` without any."""

    def last_sequence(self) -> int:
        """Number of the newest event, 0 for none."""

    def close(self) -> None:
        """Free what reading and watching holds."""


class FileBackend:
    """The journal in a folder. Methods: ``JournalBackend``."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def append(
        self,
        events: Sequence[Sequence[Any]],
        *,
        actor: Sequence[Any] = (),
        reason: str = "",
        txid: bytes | None = None,
        expected: int | None = None,
        schema: int = 1,
    ) -> tuple[int, int]:
        done = self.journal.commit(
            events, actor=actor, reason=reason, txid=txid, expected=expected, schema=schema
        )
        return done.first_sequence, done.last_sequence

    @staticmethod
    def _place(cursor: str) -> Position | None:
        return parse_position(cursor) if cursor else None

    def read(self, cursor: str = "") -> Iterator[Record]:
        for frame in self.journal.frames(self._place(cursor)):
            if frame.kind == DATA:
                yield Record(
                    frame.first_sequence, frame.time_ns, frame.transaction(), frame.end.text()
                )

    def watch(self, cursor: str = "", timeout_s: float | None = None) -> Iterator[Record]:
        with self.journal.watch(self._place(cursor)) as watcher:
            for frame in watcher.follow(timeout_s):
                if frame.kind == DATA:
                    yield Record(
                        frame.first_sequence, frame.time_ns, frame.transaction(), frame.end.text()
                    )

    def last_sequence(self) -> int:
        return self.journal.position.sequence

    def close(self) -> None:
        self.journal.close()


class MemoryBackend:
    """Everything in this process; records pass through the codec, as they would on disk.

    Methods: ``JournalBackend``.
    """

    def __init__(self, now: Callable[[], int] | None = None) -> None:
        import time

        self._now = now or time.time_ns
        self._lock = allocate_lock()
        self._records: list[tuple[int, int, bytes]] = []
        self._txids: dict[bytes, int] = {}
        self._last = 0

    def append(
        self,
        events: Sequence[Sequence[Any]],
        *,
        actor: Sequence[Any] = (),
        reason: str = "",
        txid: bytes | None = None,
        expected: int | None = None,
        schema: int = 1,
    ) -> tuple[int, int]:
        if not 0 < len(events) <= MAX_EVENTS:
            raise InvalidRecord(f"a transaction has 1 to {MAX_EVENTS} events, not {len(events)}")
        if txid is not None and (type(txid) is not bytes or len(txid) != 16):
            raise InvalidRecord("a transaction id is 16 bytes")
        if type(reason) is not str or type(schema) is not int or schema < 0:
            raise InvalidRecord("reason is text, schema a number from 0")
        if not all(isinstance(event, (list, tuple)) for event in events):
            raise InvalidRecord("an event is a list")
        body = encode([schema, list(actor), txid or bytes(16), reason, [list(e) for e in events]])
        if len(body) > MAX_BODY:
            raise InvalidRecord(f"a transaction of {len(body)} bytes is larger than {MAX_BODY}")
        with self._lock:
            if expected is not None and expected != self._last:
                raise Conflict(expected, self._last)
            first = self._last + 1
            if txid is not None:
                if txid in self._txids:
                    raise DuplicateTransaction(txid, self._txids[txid])
                self._txids[txid] = first
            self._last += len(events)
            self._records.append((first, self._now(), body))
            return first, self._last

    def read(self, cursor: str = "") -> Iterator[Record]:
        index = int(cursor or 0) if (cursor or "0").isdecimal() else -1
        if index < 0:
            raise InvalidRecord(f"not a cursor: {cursor!r}")
        if index > len(self._records):
            raise ResyncRequired(f"cursor {cursor} is not part of this history")
        while index < len(self._records):
            first, time_ns, body = self._records[index]
            index += 1
            yield Record(first, time_ns, Transaction(*decode(body)), str(index))

    def watch(self, cursor: str = "", timeout_s: float | None = None) -> Iterator[Record]:
        import time

        deadline = time.monotonic() + (timeout_s or 0.0)
        while True:
            for record in self.read(cursor):
                cursor = record.cursor
                deadline = time.monotonic() + (timeout_s or 0.0)
                yield record
            if timeout_s is not None and time.monotonic() >= deadline:
                return
            time.sleep(0.001)

    def last_sequence(self) -> int:
        return self._last

    def close(self) -> None:
        """Nothing to free."""
