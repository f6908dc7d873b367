"""A pile of tables read as one: a full one at the bottom, above it only what changed since.

Rules of this module:

* A value of a level above the bottom replaces that of the levels below; an empty one removes it.
  No encoded value is empty (``values``), so nothing else can mean that.
* A level carries the digest of the whole pile up to itself, so the pile's digest is its top's.
* A table that proves damaged is reported to ``damaged`` and the error goes on: the entries are
  only a cache, but an answer must never come from a broken one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from cstorage.state import keys
from cstorage.state.gaps import GONE, Gaps
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.state import Table


class Levels:
    """Implements ``cstorage.state.Table`` over tables from the bottom to the top."""

    def __init__(
        self,
        tables: Sequence[Table],
        damaged: Callable[[Table, Exception], None] | None = None,
    ) -> None:
        self.tables = tuple(tables)
        self._downwards = self.tables[::-1]
        self._damaged = damaged
        self._gaps = Gaps()

    @property
    def digest(self) -> bytes:
        return self.tables[-1].digest

    def __len__(self) -> int:
        """Entries of all levels: at least as many as the pile has."""
        return sum(len(table) for table in self.tables)

    def get(self, key: bytes) -> bytes | None:
        for table in self._downwards:
            try:
                value = table.get(key)
            except Exception as error:
                self._report(table, error)
                raise
            if value is not None:
                return value or None
        return None

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for table in self._downwards:
            keys = [key for key in keys if key not in found]
            try:
                found |= table.get_many(keys)
            except Exception as error:
                self._report(table, error)
                raise
        return {key: value for key, value in found.items() if value}

    def scan(
        self, prefix: bytes, start: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        if len(self.tables) == 1:  # a full table has nothing that is gone
            yield from self._guarded(self.tables[0], prefix, start, reverse)
            return

        def rows(start: bytes) -> Iterator[tuple[bytes, object]]:
            scans = [self._guarded(table, prefix, start, reverse) for table in self.tables]
            for key, value in merged(scans, reverse):
                yield key, value or GONE

        found: Iterator[tuple[bytes, bytes]] = (
            ((key, value) for key, value in rows(start) if value is not GONE)  # type: ignore[misc]
            if reverse
            else self._gaps.live(rows, start, keys.after(prefix))
        )
        yield from found

    def _guarded(
        self, table: Table, prefix: bytes, start: bytes, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from table.scan(prefix, start, reverse)
        except Exception as error:
            self._report(table, error)
            raise

    def _report(self, table: Table, error: Exception) -> None:
        if self._damaged is not None:
            self._damaged(table, error)


def merged(
    scans: Sequence[Iterator[tuple[bytes, bytes]]], reverse: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """Scans of tables from the bottom to the top as one; for each key the topmost value.

    Values that say "gone" are passed on.
    """
    if len(scans) == 1:
        yield from scans[0]
        return
    from heapq import merge

    def ranked(
        scan: Iterator[tuple[bytes, bytes]], rank: int
    ) -> Iterator[tuple[bytes, int, bytes]]:
        for key, value in scan:
            yield key, rank, value

    # The topmost of equal keys has to come first, whichever way the keys run.
    sign = 1 if reverse else -1
    last: bytes | None = None
    for key, _, value in merge(
        *(ranked(scan, sign * rank) for rank, scan in enumerate(scans)), reverse=reverse
    ):
        if key != last:
            last = key
            yield key, value
