"""What the journal refuses, one class per reason a caller may want to tell apart.

Rules of this module:

* Everything raised on purpose is a ``JournalError``; real I/O errors stay ``OSError``.
* The text names what is wrong, where, and what to do about it; ``exit_code`` is the documented
  exit code of the command line (docs/journal-format.md, section 9).
"""

from __future__ import annotations


class JournalError(Exception):
    """Base of all refusals of the journal."""

    exit_code = 3


class JournalNotFound(JournalError):
    """The path holds no journal and none was to be created."""


class JournalExists(JournalError):
    """Something other than a journal is where one was to be created."""


class UnsupportedFormat(JournalError):
    """Written by a version, or with a feature, that this version does not know."""


class JournalDamaged(JournalError):
    """Bytes that had been made durable are missing or changed; nothing was altered."""

    exit_code = 2

    def __init__(self, text: str, *, segment: int = 0, offset: int = 0, rule: str = "") -> None:
        super().__init__(text)
        self.segment = segment
        self.offset = offset
        self.rule = rule


class ResyncRequired(JournalError):
    """A cursor points at history that is gone or was replaced: start again from a snapshot."""


class JournalReadOnly(JournalError):
    """A change was asked of a journal that is open for reading."""


class JournalClosed(JournalError):
    """The object was closed, or was made before a ``fork`` and is used in the child."""


class LockTimeout(JournalError):
    """Another writer held the lock for longer than the caller wanted to wait."""

    exit_code = 4

    def __init__(self, text: str, holder: str = "") -> None:
        super().__init__(text)
        self.holder = holder


class Conflict(JournalError):
    """``expected`` is not the sequence number the journal ends with; nothing was written."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(
            f"expected the journal to end at sequence {expected}, it ends at {actual}: "
            "read the new events and decide again"
        )
        self.expected = expected
        self.actual = actual


class DuplicateTransaction(JournalError):
    """The transaction id is in the journal already: the earlier attempt had succeeded."""

    def __init__(self, txid: bytes, first_sequence: int) -> None:
        super().__init__(
            f"transaction {txid.hex()} is already recorded at sequence {first_sequence}"
        )
        self.txid = txid
        self.first_sequence = first_sequence


class InvalidRecord(JournalError):
    """A value that the codec does not carry, or bytes that do not follow the codec's rules."""


class JournalFull(JournalError):
    """No space (ENOSPC, EDQUOT, EFBIG): the frame was cut back, the journal is as before."""


class WriterPoisoned(JournalError):
    """A sync failed: what is on the disk is unknown, this writer never writes again."""


class JournalSuspect(JournalError):
    """An earlier sync failed; the journal must be verified before it is written again."""

    exit_code = 2


class SnapshotRefused(JournalError):
    """A snapshot that may not be trusted, and which rule it breaks."""
