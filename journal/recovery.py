"""The decision table for the end of the log, as data (docs/recovery.md explains each row).

Rules of this module:

* Pure: an ``Observation`` in, exactly one ``Row`` out. A test proves that every combination of
  observations hits exactly one row.
* Nothing that verifies and was promised is ever removed; without evidence against it, the invalid
  end of the last segment is what a crash leaves behind ("torn").
* Only the holder of the writer lock acts on a verdict. Readers stop before the invalid byte.
"""

from __future__ import annotations

from journal.plain import NamedTuple

# Where the first invalid byte is.
LAST = "last segment"
EARLIER = "earlier segment"
PLACES = (LAST, EARLIER)

# What is wrong there.
CLEAN = "nothing"
SHORT = "fewer bytes than a header"
ZEROS = "zeros to the end"
HEADER = "frame header"
BODY = "frame body"
CHAIN = "sequence or link"
SEGMENT = "segment header"
STRUCTURE = "missing, foreign or unsealed segment"
FAULTS = (CLEAN, SHORT, ZEROS, HEADER, BODY, CHAIN, SEGMENT, STRUCTURE)

# What follows it in the same file.
NOTHING = "nothing valid"
UNPROMISED = "valid frames, none promising that the place was durable"
PROMISED = "a frame header promising that the place was durable"
LATERS = (NOTHING, UNPROMISED, PROMISED)

# Whether something outside the segment knows a durable place beyond it (durability mark of this
# boot, snapshot, or this process's own acknowledged tail).
NO = "no"
YES = "yes"
KNOWNS = (NO, YES)

# Verdicts.
ADOPT = "adopt"
TRUNCATE = "truncate"
RECREATE = "recreate"
REFUSE = "refuse"


class Observation(NamedTuple):
    place: str
    fault: str
    later: str
    known: str


class Row(NamedTuple):
    """A rule: the observations it covers, the verdict, and the reason shown to people."""

    name: str
    places: tuple[str, ...]
    faults: tuple[str, ...]
    laters: tuple[str, ...]
    knowns: tuple[str, ...]
    verdict: str
    reason: str


TABLE: tuple[Row, ...] = (
    Row("clean", PLACES, (CLEAN,), LATERS, (NO,), ADOPT, "the log ends with a whole frame"),
    Row("lost-tail", PLACES, (CLEAN,), LATERS, (YES,), REFUSE,
        "the log ends before a place that is known to have been durable"),
    Row("torn-short", (LAST,), (SHORT, ZEROS), (NOTHING,), (NO,), TRUNCATE,
        "an append was cut off before its header was whole"),
    Row("torn-frame", (LAST,), (HEADER, BODY), (NOTHING,), (NO,), TRUNCATE,
        "an append was cut off inside a frame"),
    Row("torn-group", (LAST,), (SHORT, ZEROS, HEADER, BODY), (UNPROMISED,), (NO,), TRUNCATE,
        "an unsynced group reached the disk out of order"),
    Row("promised", (LAST,), (SHORT, ZEROS, HEADER, BODY), (PROMISED,), KNOWNS, REFUSE,
        "a later frame promises that this place had been durable"),
    Row("known-durable", (LAST,), (SHORT, ZEROS, HEADER, BODY), (NOTHING, UNPROMISED), (YES,),
        REFUSE, "this place is known to have been durable"),
    Row("chain-break", (LAST,), (CHAIN,), LATERS, KNOWNS, REFUSE,
        "a whole frame does not continue the log: no torn write does that"),
    Row("unfinished-rotation", (LAST,), (SEGMENT,), (NOTHING,), (NO,), RECREATE,
        "a new segment was cut off before its header was whole"),
    Row("segment-header", (LAST,), (SEGMENT,), (UNPROMISED, PROMISED), KNOWNS, REFUSE,
        "the header is damaged and the segment holds frames"),
    Row("segment-header-known", (LAST,), (SEGMENT,), (NOTHING,), (YES,), REFUSE,
        "the header is damaged and the segment is known to have held frames"),
    Row("structure", (LAST,), (STRUCTURE,), LATERS, KNOWNS, REFUSE,
        "segments do not fit together"),
    Row("earlier", (EARLIER,), FAULTS[1:], LATERS, KNOWNS, REFUSE,
        "a segment with a successor was durable as a whole"),
)  # fmt: skip


def matching(seen: Observation) -> list[Row]:
    """All rows that cover ``seen`` (a correct table gives exactly one)."""
    return [
        row
        for row in TABLE
        if seen.place in row.places
        and seen.fault in row.faults
        and seen.later in row.laters
        and seen.known in row.knowns
    ]


hits: dict[str, int] = {}
"""How often each row was decided on in this process (the fault programme reports it)."""


def decide(seen: Observation) -> Row:
    """The one row for ``seen``."""
    row = matching(seen)[0]
    hits[row.name] = hits.get(row.name, 0) + 1
    return row
