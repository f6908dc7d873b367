"""A place in the log that can be kept, sent and resumed from.

Rules of this module:

* A position lies between two frames: everything up to it has been seen, nothing after it.
* ``link`` proves that the place is in *this* history: it is the last 32 bytes before ``offset``
  (the frame's chain link), or the segment header's previous link at the start of a segment.
"""

from __future__ import annotations

from journal.errors import InvalidRecord
from journal.plain import NamedTuple


class Position(NamedTuple):
    """``segment`` number, byte ``offset`` in it, last event ``sequence`` before it, ``link``."""

    segment: int
    offset: int
    sequence: int
    link: bytes

    def text(self) -> str:
        """One word that ``parse`` reads back."""
        return f"{self.segment}:{self.offset}:{self.sequence}:{self.link.hex()}"


def parse(text: str) -> Position:
    """The position that ``Position.text`` wrote; ``InvalidRecord`` for anything else."""
    try:
        segment, offset, sequence, link = text.split(":")
        place = Position(int(segment), int(offset), int(sequence), bytes.fromhex(link))
    except ValueError as error:
        raise InvalidRecord(f"not a journal position: {text!r}") from error
    if len(place.link) != 32 or not all(0 <= number < 1 << 63 for number in place[:3]):
        raise InvalidRecord(f"not a journal position: {text!r}")
    return place
