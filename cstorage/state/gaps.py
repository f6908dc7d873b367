"""Runs of removed entries that a scan has passed, so that the next one need not pass them again.

Deleting the ten thousand oldest layers leaves as many removed entries where every listing begins,
until a new snapshot is written without them. Rules of this module:

* A run is noted when a scan met ``LEAST`` removed entries in a row: from the first of them up to,
  not including, the entry behind the last there is nothing.
* Only what was looked at is noted, and putting an entry into a run ends it, so a run is a fact and
  not a guess. It is worth nothing to others: the next one who opens the store passes it once.
"""

from __future__ import annotations

from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from journal.plain import Any

    Rows = Callable[[bytes], Iterator[tuple[bytes, Any]]]
    """Entries from a key on, in order, those that are gone with the value ``GONE``."""

GONE = object()
LEAST = 64
MOST = 64
"""Runs that are kept."""


class Gaps:
    """The runs of one table or state."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: dict[bytes, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def copy(self) -> Gaps:
        """The runs as they are now, apart from later ones."""
        made = Gaps()
        made._runs = dict(self._runs)
        return made

    def put(self, key: bytes) -> None:
        """There is something under ``key`` from now on."""
        for first, end in list(self._runs.items()):
            if first <= key < end:
                self._runs.pop(first, None)

    def live(self, rows: Rows, start: bytes, above: bytes) -> Iterator[tuple[bytes, Any]]:
        """The entries of ``rows`` from ``start`` on that are not gone; known runs are jumped over.

        ``above``: a key above all of them, empty if there is none.
        """
        runs = self._runs
        while True:
            first, passed = b"", 0
            for key, value in rows(start):
                if value is not GONE:
                    if passed >= LEAST:
                        self._note(first, key)
                    passed = 0
                    yield key, value
                elif passed:
                    passed += 1
                elif key in runs:
                    start = runs[key]
                    break
                else:
                    first, passed = key, 1
            else:
                if passed >= LEAST and above:
                    self._note(first, above)
                return

    def _note(self, first: bytes, end: bytes) -> None:
        if len(self._runs) >= MOST:
            self._runs.clear()
        self._runs[first] = end
