"""An append-only event journal: checksummed, hash-chained, crash-safe, lock-free to read.

Rules of this package:

* It knows nothing of what the events mean.
* ``import journal`` stays light; watcher, snapshots, audit and command line load when used.
* The format is specified in ``docs/journal-format.md``; modules cite its sections.
"""

from __future__ import annotations

from journal.errors import (
    Conflict,
    DuplicateTransaction,
    InvalidRecord,
    JournalClosed,
    JournalDamaged,
    JournalError,
    JournalExists,
    JournalFull,
    JournalNotFound,
    JournalReadOnly,
    JournalSuspect,
    LockTimeout,
    ResyncRequired,
    SnapshotRefused,
    UnsupportedFormat,
    WriterPoisoned,
)
from journal.facade import Journal, Writer
from journal.frame import Frame, Transaction
from journal.plain import TYPE_CHECKING, Any
from journal.position import Position
from journal.reader import Reader

if TYPE_CHECKING:
    from journal.request import Committed

__all__ = [
    "Committed",
    "Conflict",
    "DuplicateTransaction",
    "Frame",
    "InvalidRecord",
    "Journal",
    "JournalClosed",
    "JournalDamaged",
    "JournalError",
    "JournalExists",
    "JournalFull",
    "JournalNotFound",
    "JournalReadOnly",
    "JournalSuspect",
    "LockTimeout",
    "Position",
    "Reader",
    "ResyncRequired",
    "SnapshotRefused",
    "Transaction",
    "UnsupportedFormat",
    "Writer",
    "WriterPoisoned",
]


def __getattr__(name: str) -> Any:
    if name == "Committed":  # readers start without the writing half
        from journal.request import Committed

        return Committed
    raise AttributeError(f"module 'journal' has no attribute {name!r}")
