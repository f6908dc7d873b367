"""Append to the log: adopt the tail under the lock, write frames, sync, answer.

Rules of this module (journal format, section 6; docs/recovery.md):

* Under the lock first catch up, then decide by the recovery table, then write.
* Frames another process left behind are synced before anything is built on them.
* No room (ENOSPC, EDQUOT, EFBIG) or a short write: keep the whole frames, cut the rest back and
  sync; if that fails too, the writer is dead.
* A failed sync kills the writer for good: no retry, no truncation, no acknowledgement, a
  ``SUSPECT`` marker for the next one.
* Any other interruption in the middle leaves the outcome unknown: the tail is read again.
"""

from __future__ import annotations

import errno

from journal import frame as fr
from journal import layout, lock, recovery
from journal import mark as mk
from journal import segment as sg
from journal.checksum import Extend, extender, preferred
from journal.codec import encode
from journal.cursor import Cursor
from journal.errors import (
    Conflict,
    DuplicateTransaction,
    JournalDamaged,
    JournalError,
    JournalFull,
    JournalSuspect,
    WriterPoisoned,
)
from journal.fs import FULL, O_RDWR, Fs, publish
from journal.observe import observe
from journal.plain import TYPE_CHECKING
from journal.position import Position
from journal.request import Committed, Request

if TYPE_CHECKING:
    from journal.clock import Clock

VERSION = 1
"""Of the software, in open frames."""
RECENT_SEGMENTS = 2
"""How far back a given transaction id is looked for, in segments."""


class Appender:
    """The writing half of one open journal. Callers hold the object's own thread lock."""

    __slots__ = (
        "_acked", "_clock", "_extend", "_fs", "_hint", "_mark", "_opened", "_poison",
        "_prelude", "_root", "_stale", "_start", "_torn", "_txids", "_uuid", "cursor",
        "durability", "durable", "epoch", "fd", "lock", "reserve_bytes", "segment_bytes",
        "synced", "wrote",
    )  # fmt: skip

    def __init__(
        self,
        fs: Fs,
        clock: Clock,
        root: str,
        uuid: bytes,
        *,
        durability: str,
        segment_bytes: int,
        reserve_bytes: int,
        hint: list[Position],
        held: lock.WriterLock,
    ) -> None:
        self._fs = fs
        self._clock = clock
        self._root = root
        self._uuid = uuid
        self._hint = hint
        self.durability = durability
        self.segment_bytes = segment_bytes
        self.reserve_bytes = reserve_bytes
        self.lock = held
        self._mark = mk.MarkFile(fs, root, clock.boot_id())
        self.cursor: Cursor | None = None
        self.fd = -1
        self.epoch = 0
        self.synced = 0  # bytes of the current segment known to be durable
        self._acked: Position | None = None  # the tail this object left behind
        self._stale = True  # the tail must be read again
        self._torn = False  # an append was interrupted: what is known of the tail may be half new
        self._poison: BaseException | None = None
        self._opened = False
        self.wrote = False
        self._prelude: list[Request] = []
        self._txids: dict[bytes, int] | None = None
        self._extend: Extend = extender(preferred())

    # -- the lock and the tail ----------------------------------------------------------------

    @property
    def tail(self) -> Position:
        assert self.cursor is not None
        return self.cursor.position

    def acquire(self, timeout_s: float) -> None:
        """Take the lock and stand at the end of the log; releases the lock on any error."""
        self._check_poison()
        self.lock.acquire(timeout_s)
        try:
            if self._acked is None and layout.suspect(self._fs, self._root):
                raise JournalSuspect(
                    f"{self._root}: a sync failed earlier ({layout.SUSPECT} file); check the "
                    "device, then run `verify --full` and `repair --clear-suspect`"
                )
            self._catch_up()
        except BaseException:
            self.lock.release()
            raise

    def release(self) -> None:
        self.lock.release()

    def _check_poison(self) -> None:
        if self._poison is not None:
            raise WriterPoisoned(
                f"{self._root}: an earlier sync failed ({self._poison}); what the disk holds is "
                "unknown: check the device, then verify"
            ) from self._poison

    def _catch_up(self) -> None:
        if self._torn:
            self._drop()
            self._acked = None
        cursor = self.cursor
        if cursor is not None and not self._stale and not cursor.sealed:
            stat = self._fs.fstat(self.fd)
            if stat.st_size == cursor.offset and stat.st_nlink:
                return
        first = cursor is None
        if self._replaced():
            self._acked = None  # a repair put another file in its place
            first = True
        if cursor is None or first:
            cursor = self._first_cursor()
        elif self._hint[0][:2] > cursor.position[:2]:
            cursor.seek(self._hint[0])
        out: list[fr.Frame] | None = None if self._txids is None else []
        while cursor.read(out):
            pass
        self.cursor = cursor
        for found in out or ():
            if found.kind == fr.DATA and self._txids is not None:
                self._txids[found.transaction().txid] = found.first_sequence
        self._settle(cursor, first)
        self._attach(cursor)
        self._stale = self._torn = False
        self._hint[0] = cursor.position

    def _replaced(self) -> bool:
        return self.fd >= 0 and self._fs.fstat(self.fd).st_nlink == 0

    def _first_cursor(self) -> Cursor:
        """Start from what a reader of this process has proved, else from the last segment."""
        self._drop()
        if self._hint[0].segment:
            try:
                return Cursor(self._fs, self._root, self._uuid, self._hint[0])
            except JournalError:
                self._hint[0] = Position(0, 0, 0, b"")
        numbers = sg.listing(self._fs, f"{self._root}/{sg.FOLDER}")
        missing = [1] if not numbers else sorted({*range(numbers[0], numbers[-1])} - {*numbers})
        if missing:
            row = recovery.decide(
                recovery.Observation(
                    recovery.LAST, recovery.STRUCTURE, recovery.NOTHING, recovery.NO
                )
            )
            self._refuse(row.name, f"{row.reason}: {sg.name(missing[0])} is missing", missing[0], 0)
        last = numbers[-1]
        if last > numbers[0]:
            # A valid header that continues the segment before is where to start; otherwise walk
            # into it from there, so that the decision table sees what is wrong.
            before = Cursor(self._fs, self._root, self._uuid, number=last - 1)
            assert before.handle is not None
            link = before.handle.read(32, before.handle.size() - 32)
            try:
                cursor = Cursor(self._fs, self._root, self._uuid, number=last)
            except JournalDamaged:
                return before
            if cursor.header.previous != link:  # damage, or a seal that a repair wrote
                cursor.close()
                return before
            before.close()
            return cursor
        return Cursor(self._fs, self._root, self._uuid, number=last)

    def _drop(self) -> None:
        if self.cursor is not None:
            cursor, self.cursor = self.cursor, None
            cursor.close()
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._fs.close(fd)

    # -- recovery -----------------------------------------------------------------------------

    def _settle(self, cursor: Cursor, first: bool) -> None:
        """Observe the end of the log, decide by the table, act."""
        thorough = first or cursor.fault != fr.NONE
        seen, detail = observe(
            self._fs, self._clock, self._root, self._uuid, cursor, self._acked, thorough=thorough
        )
        row = recovery.decide(seen)
        number, offset = cursor.header.number, cursor.offset
        if row.verdict == recovery.REFUSE:
            self._refuse(row.name, f"{row.reason}{detail}", number, offset)
        elif row.verdict == recovery.TRUNCATE:
            self._truncate(cursor, row.name)
        elif row.verdict == recovery.RECREATE:
            self._set_aside(number + 1, row.name)

    def _refuse(self, rule: str, text: str, number: int, offset: int) -> None:
        raise JournalDamaged(
            f"{self._root}: segment {number} offset {offset}: {text} ({rule}); nothing was "
            "changed: run `verify`, then `repair`",
            segment=number,
            offset=offset,
            rule=rule,
        )

    def _truncate(self, cursor: Cursor, rule: str) -> None:
        number, offset = cursor.header.number, cursor.offset
        cut = cursor.rest()
        digest, saved = layout.save_cut(self._fs, self._root, number, offset, cut)
        fd = self._fs.open(f"{self._root}/{sg.FOLDER}/{sg.name(number)}", O_RDWR)
        try:
            self._fs.ftruncate(fd, offset)
            self._fs.fdatasync(fd)
        finally:
            self._fs.close(fd)
        cursor.fault = fr.NONE
        self._prelude.append(
            Request(fr.RECOVERY, encode([rule, number, offset, len(cut), digest, saved]), 0)
        )

    def _set_aside(self, number: int, rule: str) -> None:
        """A successor whose header never became whole: move it away, it is made anew."""
        path = f"{self._root}/{sg.FOLDER}/{sg.name(number)}"
        from journal.fs import read_file

        cut = read_file(self._fs, path)
        digest, saved = layout.save_cut(self._fs, self._root, number, 0, cut)
        self._fs.unlink(path)
        self._fs.sync_directory(f"{self._root}/{sg.FOLDER}")
        assert self.cursor is not None
        self.cursor.fault = fr.NONE
        self._prelude.append(
            Request(fr.RECOVERY, encode([rule, number, 0, len(cut), digest, saved]), 0)
        )

    def _attach(self, cursor: Cursor) -> None:
        """Open the last segment for writing and make what it holds durable."""
        number = cursor.header.number
        if self.fd >= 0 and (self._acked is None or self._acked.segment != number):
            fd, self.fd = self.fd, -1
            self._fs.close(fd)
        if self.fd < 0:
            self.fd = self._fs.open(f"{self._root}/{sg.FOLDER}/{sg.name(number)}", O_RDWR)
            self.synced = 0
        self._extend = extender(cursor.header.algorithm)
        if self._acked is not None and self._acked == cursor.position:
            return
        mark = mk.load(self._fs, self._root, self._clock.boot_id())
        self.epoch = max(self.epoch, mark.epoch if mark else self._last_epoch(cursor))
        if mark is not None and (mark.segment, mark.offset) >= (number, cursor.offset):
            self.synced = cursor.offset
        elif cursor.sealed:
            # The seal may be visible and not durable; its segment gets a successor next.
            durability, self.durability = self.durability, "commit"
            try:
                self._sync(cursor.position)
            finally:
                self.durability = durability
        elif cursor.last_kind == fr.CLOSE:
            # Its promise, not its place: closes are not synced, and one may follow another.
            self.synced = cursor.last_promise
        elif cursor.offset == sg.HEADER_SIZE:
            self.synced = sg.HEADER_SIZE  # the header was synced before it got its name
        else:
            self._sync(cursor.position)
        self._acked = cursor.position

    def _last_epoch(self, cursor: Cursor) -> int:
        """The highest epoch of the last segment: its header's or that of an open frame."""
        epoch = cursor.header.epoch
        scan = Cursor(self._fs, self._root, self._uuid, number=cursor.header.number)
        try:
            frames: list[fr.Frame] = []
            while scan.read(frames) and scan.header.number == cursor.header.number:
                for found in frames:
                    if found.kind == fr.OPEN:
                        epoch = max(epoch, int(found.value()[0]))
                frames.clear()
        finally:
            scan.close()
        return epoch

    # -- writing ------------------------------------------------------------------------------

    def append(self, requests: list[Request]) -> None:
        """Write the requests as consecutive frames with one sync; each gets a result or an error.

        The lock is held. Raises only what concerns the writer as a whole.
        """
        self._check_poison()
        if self._torn:
            self._catch_up()
        cursor = self.cursor
        assert cursor is not None
        sequence = cursor.sequence
        ready: list[Request] = []
        fresh: set[bytes] = set()
        for request in requests:
            if request.expected is not None and request.expected != sequence:
                request.error = Conflict(request.expected, sequence)
                continue
            if request.txid is not None:
                known = sequence if request.txid in fresh else self._recorded(request.txid)
                if known:
                    request.error = DuplicateTransaction(request.txid, known)
                    continue
                fresh.add(request.txid)
            sequence += request.count
            ready.append(request)
        if not ready:
            return
        prelude = list(self._prelude)
        if not self._opened:
            prelude.append(self._open_request())
        frames = prelude + ready
        self._torn = True
        try:
            self._rotate_if_needed(frames)
            self._write(frames)
        except OSError as error:
            if error.errno in FULL:
                text = f"{self._root}: no room for the frame ({error.strerror}); nothing changed"
                failure: BaseException = JournalFull(text)
                failure.__cause__ = error
            else:
                failure = error
            urgent: list[Request] = []
            for request in ready:
                if request.result is None:
                    request.error = failure
                    if request.reserve and isinstance(failure, JournalFull):
                        urgent.append(request)
            self._note(frames)
            self._torn = False
            if urgent and layout.spend_reserve(self._fs, self._root):
                for request in urgent:
                    request.error = None
                self.append(urgent)
            return
        self._note(frames)
        self._torn = False

    def _note(self, frames: list[Request]) -> None:
        """Remember which of the frames owed by this object have been written."""
        self._prelude = [item for item in self._prelude if item.result is None]
        for item in frames:
            if item.result is not None:
                self.wrote = True
                self._opened = self._opened or item.kind == fr.OPEN

    def _open_request(self) -> Request:
        """The open frame: epoch, process, boot, software version, durability."""
        import os

        self.epoch += 1
        body = [self.epoch, os.getpid(), self._clock.boot_id(), VERSION, self.durability]
        return Request(fr.OPEN, encode(body), 0)

    def _write(self, frames: list[Request]) -> None:
        cursor = self.cursor
        assert cursor is not None
        offset, link, sequence = cursor.offset, cursor.chain, cursor.sequence
        seed, number = cursor.header.seed, cursor.header.number
        now = self._clock.time_ns()
        parts: list[bytes] = []
        ends: list[Position] = []
        at = offset
        for request in frames:
            data, link = fr.build(
                self._extend, seed, at, link, kind=request.kind, first_sequence=sequence + 1,
                count=request.count, promise=self.synced, time_ns=now, body=request.body,
            )  # fmt: skip
            at += len(data)
            sequence += request.count
            parts.append(data)
            ends.append(Position(number, at, sequence, link))
        promise = self.synced
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        whole = len(ends)
        failure: OSError | None = None
        self._stale = True
        done = 0
        try:
            while done < len(data):
                step = self._fs.pwrite(self.fd, data[done:] if done else data, offset + done)
                if step <= 0:
                    raise OSError(errno.EIO, "pwrite wrote nothing")
                done += step
        except OSError as error:
            failure = error
            whole = sum(1 for end in ends if end.offset - offset <= done)
            self._cut_back(ends[whole - 1].offset if whole else offset, error)
        if whole:
            if failure is None or self.durability != "none":
                self._sync(ends[whole - 1])
            self._accept(cursor, frames[:whole], ends[:whole], promise)
        self._stale = False
        if failure is not None:
            raise failure

    def _accept(
        self, cursor: Cursor, frames: list[Request], ends: list[Position], promise: int
    ) -> None:
        last = ends[-1]
        before = cursor.sequence
        for request, end in zip(frames, ends, strict=True):
            request.result = Committed(before + 1, end.sequence, end)
            before = end.sequence
            if request.kind == fr.DATA and self._txids is not None and request.txid:
                self._txids[request.txid] = request.result.first_sequence
        cursor.offset, cursor.sequence, cursor.link = last.offset, last.sequence, last.link
        cursor.chain = last.link
        cursor.last_kind = frames[-1].kind
        cursor.last_promise = promise
        cursor.fault = fr.NONE
        self._acked = last
        self._hint[0] = last

    def _cut_back(self, offset: int, cause: OSError) -> None:
        """Remove the part of a frame that could be written; failing that, the writer is dead."""
        try:
            self._fs.ftruncate(self.fd, offset)
            self._fs.fdatasync(self.fd)
        except OSError as error:
            self._die(error)
            raise WriterPoisoned(
                f"{self._root}: a write failed ({cause}) and could not be taken back ({error})"
            ) from error

    def _sync(self, place: Position) -> None:
        """``fdatasync`` up to ``place``; an error is final."""
        if self.durability == "none":
            return
        try:
            self._fs.fdatasync(self.fd)
        except OSError as error:
            self._die(error)
            raise WriterPoisoned(
                f"{self._root}: the sync failed ({error}); whether the last commit is on the disk "
                "is unknown: check the device, then verify"
            ) from error
        self.synced = place.offset
        self._mark.store(place.segment, place.offset, place.sequence, self.epoch)

    def _die(self, error: BaseException) -> None:
        self._poison = error
        try:
            publish(self._fs, self._root, layout.SUSPECT, f"{error}\n".encode())
        except OSError:
            pass

    # -- rotation -----------------------------------------------------------------------------

    def _rotate_if_needed(self, frames: list[Request]) -> None:
        cursor = self.cursor
        assert cursor is not None
        if cursor.sealed:
            self._succeed(cursor)
            return
        size = sum(fr.size_of(len(request.body)) for request in frames)
        if (
            cursor.offset + size > self.segment_bytes
            and cursor.sequence >= cursor.header.first_sequence
        ):
            self.rotate()

    def rotate(self) -> None:
        """Seal the last segment and begin the next one (steps R1 to R4 of the format page)."""
        cursor = self.cursor
        assert cursor is not None
        from journal.merkle import seal_body

        body = seal_body(self._fs, self._root, self._uuid, cursor.position)
        seal = Request(fr.SEAL, body, 0)
        torn, self._torn = self._torn, True
        durability, self.durability = self.durability, "commit"
        try:
            self._write([seal])  # R1: a segment with a successor is durable as a whole
        finally:
            self.durability = durability
        cursor.sealed = True
        try:
            self._fs.chmod(f"{self._root}/{sg.FOLDER}/{sg.name(cursor.header.number)}", 0o444)
        except OSError:
            pass  # the mode is a courtesy; the seal is what counts
        self._succeed(cursor)
        self._torn = torn

    def _succeed(self, cursor: Cursor) -> None:
        """Create and enter the successor of a sealed segment."""
        number = cursor.header.number + 1
        data = sg.build(
            uuid=self._uuid, number=number, first_sequence=cursor.sequence + 1, epoch=self.epoch,
            previous=cursor.chain, time_ns=self._clock.time_ns(), boot_id=self._clock.boot_id(),
            algorithm=cursor.header.algorithm,
        )  # fmt: skip
        folder = f"{self._root}/{sg.FOLDER}"
        try:
            publish(self._fs, folder, sg.name(number), data)  # R2, R3, R4
            fd = self._fs.open(f"{folder}/{sg.name(number)}", O_RDWR)
        except OSError as error:
            if error.errno in FULL:
                raise  # nothing was begun: the next append tries again
            self._die(error)
            raise WriterPoisoned(
                f"{self._root}: segment {number} could not be begun ({error})"
            ) from error
        last, self.fd = self.fd, fd
        if last >= 0:
            self._fs.close(last)
        self.synced = sg.HEADER_SIZE
        cursor._enter(number)
        self._acked = cursor.position
        self._hint[0] = cursor.position

    def _has(self, number: int) -> bool:
        try:
            self._fs.stat(f"{self._root}/{sg.FOLDER}/{sg.name(number)}")
        except FileNotFoundError:
            return False
        return True

    # -- recent transactions ------------------------------------------------------------------

    def _recorded(self, txid: bytes) -> int:
        """First sequence of a recent transaction with this id, 0 if there is none."""
        if self._txids is None:
            self._txids = {}
            cursor = self.cursor
            assert cursor is not None
            begin = max(1, cursor.header.number - RECENT_SEGMENTS + 1)
            while begin < cursor.header.number and not self._has(begin):
                begin += 1
            scan = Cursor(self._fs, self._root, self._uuid, number=begin)
            try:
                frames: list[fr.Frame] = []
                while scan.read(frames):
                    for found in frames:
                        if found.kind == fr.DATA:
                            self._txids[found.transaction().txid] = found.first_sequence
                    frames.clear()
            finally:
                scan.close()
        return self._txids.get(txid, 0)

    # -- the end ------------------------------------------------------------------------------

    def refill(self) -> bool:
        """Allocate the reserve again, if it was spent."""
        return layout.fill_reserve(self._fs, self._root, self.reserve_bytes)

    def finish(self) -> None:
        """Write the close frame if this object wrote (unsynced: its promise is what counts)."""
        if not self.wrote or self._poison is not None or self.durability == "none":
            return
        try:
            self.acquire(0.0)
        except (JournalError, OSError):
            return  # someone else writes: their frames carry the promise on
        try:
            if self.cursor is None or self.cursor.sealed:
                return  # nothing may follow a seal
            durability, self.durability = self.durability, "none"
            try:
                self._write([Request(fr.CLOSE, encode([self.epoch]), 0)])
            finally:
                self.durability = durability
        except (JournalError, OSError):
            pass
        finally:
            self.release()

    def close(self) -> None:
        self._drop()
        self._mark.close()
        self.lock.close()

    def abandon(self) -> None:
        """In a forked child: close the descriptors, touch nothing else."""
        for fd in (self.fd, self._mark.fd, self.lock.fd):
            if fd >= 0:
                try:
                    self._fs.close(fd)
                except OSError:
                    pass
        self.fd = self._mark.fd = self.lock.fd = -1
        self.lock.held = False
