"""Append to the log: take the lock, adopt the tail, write frames, answer.

Rules of this module (journal format, section 6; docs/recovery.md):

* Under the lock first the tail is adopted (``adoption``), then requests are checked, then all that
  may be written go into one write and one sync (``tail``), after a rotation if one is due.
* Every request gets a result or an error; one that has neither was interrupted, its outcome is
  unknown and the tail is read again.
* The first frame of every writing object is its open frame; the last one, if it wrote, its close
  frame.
"""

from __future__ import annotations

from journal import frame as fr
from journal import layout, rotation
from journal.adoption import adopt
from journal.codec import encode
from journal.errors import (
    Conflict,
    DuplicateTransaction,
    JournalError,
    JournalFull,
)
from journal.fs import FULL, Fs
from journal.plain import TYPE_CHECKING
from journal.recent import Recent
from journal.request import Request
from journal.tail import Tail

if TYPE_CHECKING:
    from journal.clock import Clock
    from journal.lock import WriterLock
    from journal.position import Position

VERSION = 1
"""Of the software, in open frames."""


class Appender:
    """The writing half of one open journal. Callers hold the object's own thread lock."""

    request = Request  # for those who must not import the writing half themselves

    __slots__ = (
        "_fs", "_opened", "_recent", "_root", "lock", "log", "reserve_bytes", "segment_bytes",
        "wrote",
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
        held: WriterLock,
    ) -> None:
        self._fs = fs
        self._root = root
        self.segment_bytes = segment_bytes
        self.reserve_bytes = reserve_bytes
        self.lock = held
        self.log = Tail(fs, clock, root, uuid, durability, hint)
        self._recent = Recent()
        self._opened = False
        self.wrote = False

    # -- the lock and the tail ----------------------------------------------------------------

    @property
    def tail(self) -> Position:
        assert self.log.cursor is not None
        return self.log.cursor.position

    def acquire(self, timeout_s: float) -> None:
        """Take the lock and stand at the end of the log; releases the lock on any error."""
        log = self.log
        if log.poison is not None:
            log.check()
        try:
            self.lock.acquire(timeout_s)
            adopt(log, self._recent)
        except BaseException:
            self.lock.release()
            raise

    def release(self) -> None:
        """Harmless when the lock is not held."""
        self.lock.release()

    # -- writing ------------------------------------------------------------------------------

    def append(self, requests: list[Request]) -> None:
        """Write the requests as consecutive frames with one sync; each gets a result or an error.

        The lock is held. Raises only what concerns the writer as a whole.
        """
        log = self.log
        if log.poison is not None:
            log.check()
        if log.torn:
            adopt(log, self._recent)
        ready = requests
        for request in requests:
            if request.expected is not None or request.txid is not None:
                ready = self._acceptable(requests)
                break
        if not ready:
            return
        frames = ready
        if log.owed or not self._opened:
            frames = [item for item in log.owed if item.result is None]
            if not self._opened:
                frames.append(self._open_request())
            frames += ready
        log.torn = True
        try:
            rotation.make_room(log, frames, self.segment_bytes)
            log.write(frames)
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
            log.torn = False
            if urgent and layout.spend_reserve(self._fs, self._root):
                for request in urgent:
                    request.error = None
                self.append(urgent)
            return
        if frames is not ready or self._recent.known is not None:
            self._note(frames)  # nothing to note of the usual commit
        log.torn = False

    def _acceptable(self, requests: list[Request]) -> list[Request]:
        """The requests whose conditions hold; the others get their error."""
        log = self.log
        assert log.cursor is not None
        sequence = log.cursor.sequence
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
        return ready

    def _recorded(self, txid: bytes) -> int:
        log = self.log
        assert log.cursor is not None
        last = log.cursor.header.number
        return self._recent.find(self._fs, self._root, log.uuid, last, txid)

    def _note(self, frames: list[Request]) -> None:
        """Remember which of the frames owed by this object have been written."""
        log = self.log
        if log.owed:
            log.owed = [item for item in log.owed if item.result is None]
        self._recent.wrote(frames)
        if not self._opened or not self.wrote:
            for item in frames:
                if item.result is not None:
                    self.wrote = True
                    self._opened = self._opened or item.kind == fr.OPEN

    def _open_request(self) -> Request:
        """The open frame: epoch, process, boot, software version, durability."""
        import os

        log = self.log
        log.epoch += 1
        body = [log.epoch, os.getpid(), log.clock.boot_id(), VERSION, log.durability]
        return Request(fr.OPEN, encode(body), 0)

    def rotate(self) -> None:
        """Seal the last segment now, if it holds events."""
        cursor = self.log.cursor
        assert cursor is not None
        if not cursor.sealed and cursor.sequence >= cursor.header.first_sequence:
            rotation.rotate(self.log)

    # -- the end ------------------------------------------------------------------------------

    def refill(self) -> bool:
        """Allocate the reserve again, if it was spent."""
        return layout.fill_reserve(self._fs, self._root, self.reserve_bytes)

    def finish(self) -> None:
        """Write the close frame if this object wrote (unsynced: its promise is what counts)."""
        log = self.log
        if not self.wrote or log.poison is not None or log.durability == "none":
            return
        try:
            self.acquire(0.0)
        except (JournalError, OSError):
            return  # someone else writes: their frames carry the promise on
        try:
            if log.cursor is None or log.cursor.sealed:
                return  # nothing may follow a seal
            durability, log.durability = log.durability, "none"
            try:
                log.write([Request(fr.CLOSE, encode([log.epoch]), 0)])
            finally:
                log.durability = durability
        except (JournalError, OSError):
            pass
        finally:
            self.release()

    def close(self) -> None:
        self.log.drop()
        self.log.mark.close()
        self.lock.close()

    def abandon(self) -> None:
        """In a forked child: close the descriptors, touch nothing else."""
        log = self.log
        for fd in (log.fd, log.mark.fd):
            if fd >= 0:
                try:
                    self._fs.close(fd)
                except OSError:
                    pass
        log.fd = log.mark.fd = -1
        self.lock.abandon()
