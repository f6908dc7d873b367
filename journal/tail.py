"""The end of the log, open for writing: frames go in, are synced, and the end moves.

Rules of this module (journal format, section 6; docs/recovery.md):

* No room (ENOSPC, EDQUOT, EFBIG) or a short write: keep the whole frames, cut the rest back and
  sync; if that fails too, the writer is dead.
* A failed sync kills the writer for good: no retry, no truncation, no acknowledgement, a
  ``SUSPECT`` marker for the next one.
* ``stale``: the end must be read again before anything is built on it. ``torn``: besides, what is
  known of it may be half new. Both are set before the first byte is written and cleared after the
  last step, so an interruption anywhere leaves them set.
"""

from __future__ import annotations

import errno

from journal import frame as fr
from journal import layout
from journal import mark as mk
from journal.checksum import Extend, extender, preferred
from journal.errors import WriterPoisoned
from journal.fs import Fs
from journal.plain import TYPE_CHECKING
from journal.position import Position
from journal.request import Committed, Request

if TYPE_CHECKING:
    from journal.clock import Clock
    from journal.cursor import Cursor


class Tail:
    """State of the last segment as this process knows it."""

    __slots__ = (
        "acked", "clock", "cursor", "durability", "epoch", "extend", "fd", "fs", "fstat", "hint",
        "mark", "now", "owed", "poison", "pwrite", "root", "stale", "synced", "torn", "uuid",
    )  # fmt: skip

    def __init__(
        self, fs: Fs, clock: Clock, root: str, uuid: bytes, durability: str, hint: list[Position]
    ) -> None:
        self.fs = fs
        self.fstat = fs.fstat
        self.pwrite = fs.pwrite
        self.clock = clock
        self.now = clock.time_ns
        self.root = root
        self.uuid = uuid
        self.hint = hint
        self.durability = durability
        self.mark = mk.MarkFile(fs, root, clock.boot_id())
        self.cursor: Cursor | None = None
        self.fd = -1
        self.epoch = 0
        self.synced = 0  # bytes of the current segment known to be durable
        self.acked: Position | None = None  # the end this object left behind
        self.stale = True
        self.torn = False
        self.poison: BaseException | None = None
        self.owed: list[Request] = []  # recovery frames that go before the next frame
        self.extend: Extend = extender(preferred())

    def check(self) -> None:
        """``WriterPoisoned`` once a sync has failed."""
        if self.poison is not None:
            raise WriterPoisoned(
                f"{self.root}: an earlier sync failed ({self.poison}); what the disk holds is "
                "unknown: check the device, then verify"
            ) from self.poison

    # -- writing ------------------------------------------------------------------------------

    def write(self, frames: list[Request]) -> None:
        """Append the frames with one write and one sync; each gets its result.

        On an error those that are whole on the disk have one, the others are cut off.
        """
        cursor = self.cursor
        assert cursor is not None
        offset, link, sequence = cursor.offset, cursor.chain, cursor.sequence
        header = cursor.header
        seed, number = header.seed, header.number
        promise = self.synced
        now = self.now()
        extend = self.extend
        parts: list[bytes] = []
        ends: list[Position] = []
        new = tuple.__new__
        at = offset
        for request in frames:
            data, link = fr.build(
                extend, seed, at, link, kind=request.kind, first_sequence=sequence + 1,
                count=request.count, promise=promise, time_ns=now, body=request.body,
            )  # fmt: skip
            at += len(data)
            sequence += request.count
            parts.append(data)
            ends.append(new(Position, (number, at, sequence, link)))
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        size, whole = len(data), len(ends)
        failure: OSError | None = None
        self.stale = True
        done = 0
        try:
            while done < size:
                step = self.pwrite(self.fd, data[done:] if done else data, offset + done)
                if step <= 0:
                    raise OSError(errno.EIO, "pwrite wrote nothing")
                done += step
        except OSError as error:
            failure = error
            whole = sum(1 for end in ends if end.offset - offset <= done)
            self._cut_back(ends[whole - 1].offset if whole else offset, error)
        if whole:
            if failure is None or self.durability != "none":
                self.sync(ends[whole - 1])
            if whole < len(ends):
                frames, ends = frames[:whole], ends[:whole]
            self._accept(cursor, frames, ends, promise)
        self.stale = False
        if failure is not None:
            raise failure

    def _accept(
        self, cursor: Cursor, frames: list[Request], ends: list[Position], promise: int
    ) -> None:
        last = ends[-1]
        new = tuple.__new__
        before = cursor.sequence
        for request, end in zip(frames, ends, strict=True):
            sequence = end[2]
            request.result = new(Committed, (before + 1, sequence, end))
            before = sequence
        _, cursor.offset, cursor.sequence, cursor.link = last
        cursor.chain = last.link
        cursor.last_kind = frames[-1].kind
        cursor.last_promise = promise
        cursor.fault = fr.NONE
        self.acked = last
        self.hint[0] = last

    def _cut_back(self, offset: int, cause: OSError) -> None:
        """Remove the part of a frame that could be written; failing that, the writer is dead."""
        try:
            self.fs.ftruncate(self.fd, offset)
            self.fs.fdatasync(self.fd)
        except OSError as error:
            self.die(error)
            raise WriterPoisoned(
                f"{self.root}: a write failed ({cause}) and could not be taken back ({error})"
            ) from error

    def sync(self, place: Position) -> None:
        """``fdatasync`` up to ``place``; an error is final."""
        if self.durability == "none":
            return
        try:
            self.fs.fdatasync(self.fd)
        except OSError as error:
            self.die(error)
            raise WriterPoisoned(
                f"{self.root}: the sync failed ({error}); whether the last commit is on the disk "
                "is unknown: check the device, then verify"
            ) from error
        self.synced = place.offset
        self.mark.store(place.segment, place.offset, place.sequence, self.epoch)

    def surely(self, frames: list[Request] | None = None) -> None:
        """Write (or only sync what is there) durably, whatever the durability of commits is."""
        durability, self.durability = self.durability, "commit"
        try:
            if frames is not None:
                self.write(frames)
            else:
                assert self.cursor is not None
                self.sync(self.cursor.position)
        finally:
            self.durability = durability

    def die(self, error: BaseException) -> None:
        """Nothing is written any more, here or (until verified) by anybody else."""
        self.poison = error
        layout.leave_suspect(self.fs, self.root, str(error))

    # -- the end ------------------------------------------------------------------------------

    def drop(self) -> None:
        """Close the files; the end has to be found again."""
        if self.cursor is not None:
            cursor, self.cursor = self.cursor, None
            cursor.close()
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self.fs.close(fd)
