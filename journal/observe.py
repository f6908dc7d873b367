"""Look at the end of a log and say what is there, in the words of the decision table.

Rules of this module:

* Only looks: no byte is changed, no lock is needed (without the lock the answer may be about an
  append in progress).
* The cursor has walked to its stop; what it stopped at is classified, what lies behind it is
  searched, and whoever may know a durable place further on is asked.
"""

from __future__ import annotations

from journal import frame as fr
from journal import mark as mk
from journal import recovery
from journal import segment as sg
from journal.cursor import SEGMENT_FAULT, SHRUNK, STRUCTURE_FAULT, Cursor
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from journal.clock import Clock
    from journal.fs import Fs
    from journal.position import Position


def observe(
    fs: Fs,
    clock: Clock,
    root: str,
    uuid: bytes,
    cursor: Cursor,
    acked: Position | None,
    *,
    thorough: bool,
) -> tuple[recovery.Observation, str]:
    """The observation at ``cursor`` and words for people.

    ``acked`` is the tail this process knows it wrote; ``thorough`` also asks the durability mark
    and the snapshots.
    """
    number = cursor.header.number
    place = recovery.LAST
    fault = recovery.CLEAN
    later = recovery.NOTHING
    detail = ""
    if cursor.fault in (SEGMENT_FAULT, STRUCTURE_FAULT):
        fault = recovery.SEGMENT if cursor.fault == SEGMENT_FAULT else recovery.STRUCTURE
        detail = f": {sg.name(number + 1)}"
        if sg.exists(fs, root, number + 2):
            place = recovery.EARLIER
        elif fs.stat(f"{root}/{sg.FOLDER}/{sg.name(number + 1)}").st_size > sg.HEADER_SIZE:
            later = recovery.UNPROMISED
    elif cursor.fault == SHRUNK:
        return recovery.Observation(place, fault, later, recovery.YES), ""
    elif cursor.sealed:
        numbers = sg.listing(fs, f"{root}/{sg.FOLDER}")
        if cursor.fault != fr.NONE:
            fault = recovery.CHAIN
            detail = ": bytes after the seal"
        if numbers and numbers[-1] > number:
            place, fault = recovery.EARLIER, recovery.STRUCTURE
            detail = f": {sg.name(number + 1)} is missing"
    elif sg.exists(fs, root, number + 1):
        place = recovery.EARLIER
        fault = _fault(cursor)
        if fault == recovery.CLEAN:
            fault = recovery.STRUCTURE
            detail = ": it is not sealed"
    elif cursor.fault != fr.NONE:
        fault = _fault(cursor)
        found = cursor.later()
        if found.promised > cursor.offset:
            later = recovery.PROMISED
        elif found.frames:
            later = recovery.UNPROMISED
    beyond = _known_beyond(fs, clock, root, uuid, cursor, acked, thorough)
    if beyond:
        detail += f" ({beyond})"
    known = recovery.YES if beyond else recovery.NO
    return recovery.Observation(place, fault, later, known), detail


def _fault(cursor: Cursor) -> str:
    if cursor.fault == fr.NONE:
        return recovery.CLEAN
    if not cursor.rest().strip(b"\0"):
        return recovery.ZEROS
    return {
        fr.SHORT: recovery.SHORT,
        fr.HEADER_BAD: recovery.HEADER,
        fr.CHAIN: recovery.CHAIN,
    }.get(cursor.fault, recovery.BODY)


def _known_beyond(
    fs: Fs,
    clock: Clock,
    root: str,
    uuid: bytes,
    cursor: Cursor,
    acked: Position | None,
    thorough: bool,
) -> str:
    """Who knows of a durable place behind the cursor ("" for nobody)."""
    here = (cursor.header.number, cursor.offset)
    if acked is not None and acked[:2] > here:
        return "this process wrote further"
    if not thorough:
        return ""
    mark = mk.load(fs, root, clock.boot_id())
    if mark is not None and (mark.segment, mark.offset) > here:
        return "the durability mark is further"
    from journal.snapshots import newest_sequence

    if newest_sequence(fs, root, uuid, cursor.sequence) > cursor.sequence:
        return "a snapshot is further"
    return ""
