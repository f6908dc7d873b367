"""Standing at the end of the log: find it, decide what is there, make it durable.

Rules of this module (journal format, section 6; docs/recovery.md):

* Under the lock first catch up, then decide by the recovery table, then act; only here is anything
  cut off or set aside.
* Frames another process left behind are synced before anything is built on them.
* The epoch is above every number that the log may hold: the durability mark's, and those of open
  frames behind it (its writer may have been killed between the sync and the mark).
"""

from __future__ import annotations

from journal import frame as fr
from journal import layout, recovery
from journal import mark as mk
from journal import segment as sg
from journal.checksum import extender
from journal.codec import encode
from journal.cursor import Cursor
from journal.errors import JournalDamaged, JournalError, JournalSuspect, UnsupportedFormat
from journal.fs import O_RDWR, read_file
from journal.observe import observe
from journal.plain import TYPE_CHECKING, NoReturn
from journal.position import Position
from journal.request import Request

if TYPE_CHECKING:
    from typing import NoReturn

    from journal.recent import Recent
    from journal.tail import Tail


def adopt(tail: Tail, recent: Recent) -> None:
    """Stand at the end; costs one ``fstat`` when nobody else has written."""
    cursor = tail.cursor
    if cursor is not None and not (tail.torn or tail.stale or cursor.sealed):
        stat = tail.fstat(tail.fd)
        if stat.st_size == cursor.offset and stat.st_nlink:
            return
    if tail.torn:
        tail.drop()
        tail.acked = cursor = None
    if tail.fd >= 0 and tail.fs.fstat(tail.fd).st_nlink == 0:
        tail.acked = cursor = None  # a repair put another file in its place
    if layout.suspect(tail.fs, tail.root):
        # Whoever wrote meanwhile may have seen its sync fail: what the kernel shows of it need
        # not be on the disk, and another descriptor's sync would not say so.
        raise JournalSuspect(
            f"{tail.root}: a sync failed earlier ({layout.SUSPECT} file); check the "
            "device, then run `verify --full` and `repair --clear-suspect`"
        )
    out = recent.wanted
    if cursor is None:
        cursor = tail.cursor = _first_cursor(tail)
        recent.forget()
    elif out is None and tail.hint[0][:2] > cursor.position[:2]:
        cursor.seek(tail.hint[0])  # a reader of this process has been here
    while cursor.read(out):
        pass
    recent.read(out)
    if cursor.header.compat:
        raise UnsupportedFormat(
            f"{tail.root}: segment {cursor.header.number} has features "
            f"{cursor.header.compat:#x} that only a newer version may write; it can be read"
        )
    _settle(tail, cursor)
    _attach(tail, cursor)
    tail.stale = tail.torn = False
    tail.hint[0] = cursor.position


def _first_cursor(tail: Tail) -> Cursor:
    """Start from what a reader of this process has proved, else from the last segment."""
    tail.drop()
    fs, root, uuid = tail.fs, tail.root, tail.uuid
    if tail.hint[0].segment:
        try:
            return Cursor(fs, root, uuid, tail.hint[0])
        except JournalError:
            tail.hint[0] = Position(0, 0, 0, b"")
    numbers = sg.listing(fs, f"{root}/{sg.FOLDER}")
    missing = [1] if not numbers else sorted({*range(numbers[0], numbers[-1])} - {*numbers})
    if missing:
        row = recovery.decide(
            recovery.Observation(recovery.LAST, recovery.STRUCTURE, recovery.NOTHING, recovery.NO)
        )
        text = f"{row.reason}: {sg.name(missing[0])} is missing"
        _refuse(tail, row.name, text, missing[0], 0)
    last = numbers[-1]
    if last > numbers[0]:
        # A valid header that continues the segment before is where to start; otherwise walk
        # into it from there, so that the decision table sees what is wrong.
        before = Cursor(fs, root, uuid, number=last - 1)
        try:
            assert before.handle is not None
            link = before.handle.read(32, before.handle.size() - 32)
            try:
                cursor = Cursor(fs, root, uuid, number=last)
            except JournalDamaged:
                return before
            if cursor.header.previous != link:  # damage, or a seal that a repair wrote
                cursor.close()
                return before
        except BaseException:
            before.close()
            raise
        before.close()
        return cursor
    return Cursor(fs, root, uuid, number=last)


# -- deciding --------------------------------------------------------------------------------------


def _settle(tail: Tail, cursor: Cursor) -> None:
    """Observe the end of the log, decide by the table, act.

    Until an end was adopted everybody is asked: one refusal must not be the last.
    """
    thorough = tail.acked is None or cursor.fault != fr.NONE
    seen, detail = observe(
        tail.fs, tail.clock, tail.root, tail.uuid, cursor, tail.acked, thorough=thorough
    )
    row = recovery.decide(seen)
    number, offset = cursor.header.number, cursor.offset
    if row.verdict == recovery.REFUSE:
        _refuse(tail, row.name, f"{row.reason}{detail}", number, offset)
    elif row.verdict == recovery.TRUNCATE:
        _truncate(tail, cursor, row.name)
    elif row.verdict == recovery.RECREATE:
        _set_aside(tail, cursor, row.name)


def _refuse(tail: Tail, rule: str, text: str, number: int, offset: int) -> NoReturn:
    raise JournalDamaged(
        f"{tail.root}: segment {number} offset {offset}: {text} ({rule}); nothing was "
        "changed: run `verify`, then `repair`",
        segment=number,
        offset=offset,
        rule=rule,
    )


def _truncate(tail: Tail, cursor: Cursor, rule: str) -> None:
    number, offset = cursor.header.number, cursor.offset
    cut = cursor.rest()
    digest, saved = layout.save_cut(tail.fs, tail.root, number, offset, cut)
    fd = tail.fs.open(f"{tail.root}/{sg.FOLDER}/{sg.name(number)}", O_RDWR)
    try:
        tail.fs.ftruncate(fd, offset)
        tail.fs.fdatasync(fd)
    finally:
        tail.fs.close(fd)
    cursor.fault = fr.NONE
    tail.owed.append(
        Request(fr.RECOVERY, encode([rule, number, offset, len(cut), digest, saved]), 0)
    )


def _set_aside(tail: Tail, cursor: Cursor, rule: str) -> None:
    """A successor whose header never became whole: move it away, it is made anew."""
    number = cursor.header.number + 1
    path = f"{tail.root}/{sg.FOLDER}/{sg.name(number)}"
    cut = read_file(tail.fs, path)
    digest, saved = layout.save_cut(tail.fs, tail.root, number, 0, cut)
    tail.fs.unlink(path)
    tail.fs.sync_directory(f"{tail.root}/{sg.FOLDER}")
    cursor.fault = fr.NONE
    tail.owed.append(Request(fr.RECOVERY, encode([rule, number, 0, len(cut), digest, saved]), 0))


# -- durability ------------------------------------------------------------------------------------


def _attach(tail: Tail, cursor: Cursor) -> None:
    """Open the last segment for writing and make what it holds durable."""
    number = cursor.header.number
    if tail.fd >= 0 and (tail.acked is None or tail.acked.segment != number):
        fd, tail.fd = tail.fd, -1
        tail.fs.close(fd)
    if tail.fd < 0:
        tail.fd = tail.fs.open(f"{tail.root}/{sg.FOLDER}/{sg.name(number)}", O_RDWR)
        tail.synced = 0
    tail.extend = extender(cursor.header.algorithm)
    if tail.acked is not None and tail.acked == cursor.position:
        return
    mark = tail.mark.load()
    tail.epoch = max(tail.epoch, _epoch(tail, cursor, mark))
    if mark is not None and (mark.segment, mark.offset) >= (number, cursor.offset):
        tail.synced = cursor.offset
    elif cursor.sealed:
        tail.surely()  # the seal may be visible and not durable; its segment gets a successor
    elif cursor.last_kind == fr.CLOSE:
        # Its promise, not its place: closes are not synced, and one may follow another.
        tail.synced = cursor.last_promise
    elif cursor.offset == sg.HEADER_SIZE:
        tail.synced = sg.HEADER_SIZE  # the header was synced before it got its name
    else:
        tail.sync(cursor.position)
    tail.acked = cursor.position


def _epoch(tail: Tail, cursor: Cursor, mark: mk.Mark | None) -> int:
    """The highest epoch that the log may hold: the mark's, or that of an open frame behind it."""
    number = cursor.header.number
    start: Position | None = None
    epoch = cursor.header.epoch
    if mark is not None:
        epoch = max(epoch, mark.epoch)
        if (mark.segment, mark.offset) >= (number, cursor.offset):
            return epoch
        if mark.segment == number and mark.offset >= sg.HEADER_SIZE + fr.OVERHEAD:
            assert cursor.handle is not None
            link = cursor.handle.read(32, mark.offset - 32)
            start = Position(number, mark.offset, mark.sequence, link)
    scan = Cursor(tail.fs, tail.root, tail.uuid, start, number=0 if start else number)
    try:
        frames: list[fr.Frame] = []
        while scan.read(frames) and scan.header.number == number:
            for found in frames:
                if found.kind == fr.OPEN:
                    epoch = max(epoch, int(found.value()[0]))
            frames.clear()
    finally:
        scan.close()
    return epoch
