"""Read the log without a lock, from any position, and learn cheaply whether it grew.

Rules of this module:

* An incomplete or invalid frame at the end means "not yet". It becomes damage only with evidence: a
  successor segment, a later frame that promises the place had been durable, or a whole frame that
  does not continue the log.
* Two levels: *visible* (everything a running kernel shows) and *durable* (known to be on disk;
  needed before anything leaves the host).
* History that is gone raises ``ResyncRequired``; a reader never yields an invented frame, half a
  frame, or a frame twice.
"""

from __future__ import annotations

from journal import frame as fr
from journal import mark as mk
from journal import segment as sg
from journal.cursor import SEGMENT_FAULT, SHRUNK, STRUCTURE_FAULT, Cursor
from journal.errors import JournalClosed, JournalDamaged, ResyncRequired
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from journal.clock import Clock
    from journal.frame import Frame
    from journal.fs import Fs
    from journal.position import Position


class Reader:
    """A resumable cursor for one consumer (not shared between threads)."""

    __slots__ = (
        "__weakref__",
        "_alive",
        "_bad",
        "_batch",
        "_clock",
        "_cursor",
        "_fd",
        "_fs",
        "_fstat",
        "_index",
        "_publish",
        "_root",
        "_seen",
        "durable",
    )  # fmt: skip

    def __init__(
        self,
        fs: Fs,
        clock: Clock,
        root: str,
        uuid: bytes,
        start: Position | None = None,
        *,
        durable: bool = False,
        alive: list[bool] | None = None,
        publish: list[Position] | None = None,
    ) -> None:
        self._fs = fs
        self._clock = clock
        self._root = root
        self._cursor = Cursor(fs, root, uuid, start)
        self._alive = alive if alive is not None else [True]
        self._publish = publish
        self._batch: list[Frame] = []
        self._index = 0
        self._fstat = fs.fstat
        self._fd = -1
        self._seen = -1
        self._bad = ("", -1, -1)
        self.durable = durable

    @property
    def position(self) -> Position:
        """The place after the last frame that was handed out."""
        if self._index < len(self._batch):
            return self._batch[self._index].position
        return self._cursor.position

    def changed(self) -> bool:
        """Whether ``read_new`` may have something: one ``fstat``."""
        if self._fd < 0 or not self._alive[0]:
            return True
        try:
            stat = self._fstat(self._fd)
        except OSError:
            return True  # closed by another thread: reading will say so
        return stat.st_size != self._seen or stat.st_nlink == 0

    def read_new(self) -> Iterator[Frame]:
        """Frames after ``position`` up to the end visible now; may be abandoned and resumed."""
        while True:
            if self._index >= len(self._batch) and not self._fill():
                return
            batch = self._batch
            limit = len(batch) if not self.durable else self._durable_count()
            if self._index >= limit:
                return
            while self._index < limit:
                frame = batch[self._index]
                self._index += 1
                yield frame

    def read_batch(self) -> list[Frame]:
        """The next frames as a list, empty at the visible end."""
        if self.durable:
            return list(self.read_new())
        if self._index >= len(self._batch) and not self._fill():
            return []
        batch = self._batch[self._index :] if self._index else self._batch
        self._index = len(self._batch)
        return batch

    # -- inside -------------------------------------------------------------------------------

    def _fill(self) -> bool:
        if not self._alive[0]:
            raise JournalClosed("the reader's journal was closed, or is the parent process's")
        try:
            return self._look()
        except (OSError, AssertionError):
            if self._alive[0]:
                raise
            raise JournalClosed("the reader's journal was closed by another thread") from None

    def _look(self) -> bool:
        self._batch = []
        self._index = 0
        cursor = self._cursor
        if cursor.read(self._batch):
            if self._publish is not None and cursor.position[:2] > self._publish[0][:2]:
                self._publish[0] = cursor.position
            return True
        if cursor.fault == fr.NONE and not cursor.sealed:
            handle = cursor.handle
            assert handle is not None
            self._fd = handle.fd
            self._seen = cursor.offset
            if handle.removed():
                self._gone()
            return False
        self._fd = -1
        if cursor.sealed and cursor.fault == fr.NONE:
            self._at_seal()
        else:
            self._judge()
        return bool(self._batch)

    def _at_seal(self) -> None:
        """No successor yet. Watch the seal's own file: rotation changes nothing there, so ask for
        the successor by name (``changed`` stays true)."""
        folder = f"{self._root}/{sg.FOLDER}"
        numbers = sg.listing(self._fs, folder)
        following = self._cursor.header.number + 1
        if numbers and numbers[-1] >= following and following not in numbers:
            if numbers[0] > following:
                raise ResyncRequired(
                    f"segments up to {numbers[0] - 1} were pruned: start from a snapshot"
                )
            raise JournalDamaged(f"{folder}/{sg.name(following)} is missing", segment=following)

    def _gone(self) -> None:
        """Our file lost its name while not sealed: it was replaced by a repair, or removed."""
        raise ResyncRequired(
            f"segment {self._cursor.header.number} was replaced: start from a snapshot"
        )

    def _judge(self) -> None:
        """Something invalid is at the end: wait or report?"""
        cursor = self._cursor
        fault = cursor.fault
        number, offset = cursor.header.number, cursor.offset
        if fault == SHRUNK:
            raise ResyncRequired(
                f"segment {number} ends before offset {offset}, which had been read: "
                "start from a snapshot"
            )
        seen = (fault, offset, cursor.size)
        if seen == self._bad:
            return  # judged before, nothing grew
        text = ""
        if fault in (SEGMENT_FAULT, STRUCTURE_FAULT):
            text = f"segment {number + 1} does not continue segment {number}"
        elif self._successor(number):
            text = f"segment {number} has a successor and is invalid at offset {offset}"
        elif fault in (fr.HEADER_BAD, fr.BODY_BAD, fr.CHAIN):
            if cursor.read(self._batch):  # a racing append is complete now
                return
            if cursor.fault == fault and cursor.offset == offset:
                if fault == fr.CHAIN:
                    text = f"the frame at {number}:{offset} does not continue the log"
                elif cursor.later().promised > offset:
                    text = f"{number}:{offset} is invalid ({fault}) and had been durable"
        if text:
            raise JournalDamaged(f"{self._root}: {text}", segment=number, offset=offset)
        self._bad = seen

    def _successor(self, number: int) -> bool:
        try:
            self._fs.stat(f"{self._root}/{sg.FOLDER}/{sg.name(number + 1)}")
        except OSError:
            return False
        # The seal may have been written between our read and this look.
        return not self._cursor.read(self._batch) and not self._cursor.sealed

    def _durable_count(self) -> int:
        """How many frames of the batch are known to be durable."""
        batch = self._batch
        cursor = self._cursor
        number = cursor.header.number
        bound = 0
        if cursor.sealed and self._successor_exists(number):
            bound = cursor.offset
        mark = mk.load(self._fs, self._root, self._clock.boot_id())
        if mark is not None:
            if mark.segment > number:
                return len(batch)
            if mark.segment == number:
                bound = max(bound, mark.offset)
        if batch:
            bound = max(bound, *(item.promise for item in batch if item.segment == number))
        count = len(batch)
        while count and batch[count - 1].segment == number and batch[count - 1].stop > bound:
            count -= 1
        return count

    def _successor_exists(self, number: int) -> bool:
        try:
            self._fs.stat(f"{self._root}/{sg.FOLDER}/{sg.name(number + 1)}")
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Free the file; harmless when repeated."""
        self._fd = -1
        self._cursor.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
