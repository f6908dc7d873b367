"""Walk a log from a position to its visible end, across segments, checking everything on the way.

Rules of this module:

* Reads big chunks with ``pread``; never maps a live segment (access behind a truncation is fatal).
* Checks every frame completely (checksums, sequence, link) before it is counted.
* Stops at the first byte that is not a valid frame and says why in ``fault``; what that means is
  decided elsewhere (``recovery`` for the writer, ``reader`` for readers).
* After a seal the segment ``number + 1`` is entered; its absence is normal for a while.
* Segments moved to the archive folder are read from there.
"""

from __future__ import annotations

from journal import frame as fr
from journal import segment as sg
from journal.checksum import Extend, extender
from journal.errors import JournalDamaged, ResyncRequired
from journal.fs import O_RDONLY, Fs, read_range
from journal.plain import TYPE_CHECKING
from journal.position import Position

if TYPE_CHECKING:
    from journal.frame import Frame

CHUNK = 1 << 20
ARCHIVE = "archive"
SEGMENT_FAULT = "segment-header"
STRUCTURE_FAULT = "structure"
SHRUNK = "shrunk"


class Handle:
    """An open segment: a descriptor, or the bytes of an archived one."""

    __slots__ = ("_data", "_fs", "fd")

    def __init__(self, fs: Fs, fd: int, data: bytes = b"") -> None:
        self._fs = fs
        self.fd = fd
        self._data = data

    def size(self) -> int:
        return self._fs.fstat(self.fd).st_size if self.fd >= 0 else len(self._data)

    def read(self, size: int, offset: int) -> bytes:
        if self.fd >= 0:
            return read_range(self._fs, self.fd, offset, size)
        return self._data[offset : offset + size]

    def removed(self) -> bool:
        """Whether the file has no name any more (pruned, archived or replaced by a repair)."""
        return self.fd >= 0 and self._fs.fstat(self.fd).st_nlink == 0

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._fs.close(fd)


def open_segment(fs: Fs, root: str, number: int) -> Handle:
    """The segment from ``segments/`` or from the archive; ``FileNotFoundError`` if in neither."""
    try:
        return Handle(fs, fs.open(f"{root}/{sg.FOLDER}/{sg.name(number)}", O_RDONLY))
    except FileNotFoundError:
        try:
            fs.stat(f"{root}/{ARCHIVE}/{sg.name(number)}.zst")
        except OSError:
            pass
        else:
            from journal.archive import load

            return Handle(fs, -1, load(fs, root, number))
        raise


class Cursor:
    """State of a walk. ``offset``, ``sequence`` and ``link`` belong to ``header.number``."""

    __slots__ = (
        "_extend", "_fs", "_root", "_uuid", "chain", "chunk", "fault", "handle", "header",
        "last_kind", "last_promise", "link", "offset", "sealed", "sequence", "size",
    )  # fmt: skip

    def __init__(
        self, fs: Fs, root: str, uuid: bytes, start: Position | None = None, *, number: int = 0
    ) -> None:
        """Begin at ``start``, or at segment ``number``, or at the oldest segment there is.

        ``ResyncRequired`` if ``start`` is not a place of this history any more; ``JournalDamaged``
        if the segment's header is not valid.
        """
        self._fs = fs
        self._root = root
        self._uuid = uuid
        self.chunk = CHUNK
        self.handle: Handle | None = None
        self.fault = fr.NONE
        self.sealed = False
        self.last_kind = 0
        self.last_promise = 0
        self.size = 0
        if number:
            self.enter(number)
        elif start is None:
            self._enter_oldest()
        else:
            self.seek(start)

    # -- place --------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        return Position(self.header.number, self.offset, self.sequence, self.link)

    def _enter_oldest(self) -> None:
        fs, root = self._fs, self._root
        before: list[int] = []
        while True:
            numbers = sg.listing(fs, f"{root}/{sg.FOLDER}")
            archived = sg.listing_archive(fs, f"{root}/{ARCHIVE}")
            while archived and numbers and archived[-1] >= numbers[0]:
                archived.pop()
            while archived and numbers and archived[-1] == numbers[0] - 1:
                numbers.insert(0, archived.pop())
            if not numbers:
                raise JournalDamaged(f"{root}: no segment is left: restore them from a copy")
            try:
                self.enter(numbers[0])
            except FileNotFoundError:
                if numbers == before:
                    raise
                before = numbers  # pruned while we looked
            else:
                return

    def enter(self, number: int) -> None:
        handle = open_segment(self._fs, self._root, number)
        try:
            header = sg.parse(handle.read(sg.HEADER_SIZE, 0))
            if header is None or header.number != number or header.uuid != self._uuid:
                raise JournalDamaged(
                    f"{self._root}/{sg.FOLDER}/{sg.name(number)}: the segment header is "
                    + ("damaged" if header is None else "of another journal or segment"),
                    segment=number,
                )
        except BaseException:
            handle.close()
            raise
        self._adopt(handle, header)

    def _adopt(self, handle: Handle, header: sg.SegmentHeader) -> None:
        if self.handle is not None:
            self.handle.close()
        self.handle = handle
        self.header: sg.SegmentHeader = header
        self._extend: Extend = extender(header.algorithm)
        self.offset = sg.HEADER_SIZE
        self.sequence = header.first_sequence - 1
        self.link = self.chain = header.previous
        self.sealed = False
        self.fault = fr.NONE
        self.last_kind = 0
        self.last_promise = 0

    def seek(self, place: Position) -> None:
        """Go to a position obtained earlier, after proving that its link is in this history."""
        try:
            self.enter(place.segment)
        except FileNotFoundError:
            raise ResyncRequired(
                f"segment {place.segment} is gone: start from a snapshot"
            ) from None
        assert self.handle is not None
        if place.offset > sg.HEADER_SIZE:
            if self.handle.read(32, place.offset - 32) != place.link:
                raise ResyncRequired(
                    f"position {place.segment}:{place.offset} is not part of this history: "
                    "start from a snapshot"
                )
            self.offset, self.sequence, self.link = place.offset, place.sequence, place.link
            self.chain = place.link
            self._look_back()
        elif place != self.header.start:
            raise ResyncRequired(
                f"position {place.segment}:{place.offset} is not part of this history"
            )

    def _look_back(self) -> None:
        """After a jump: is the frame before the place (its trailer has its length) one that
        changes how to go on, a seal or a gap?"""
        assert self.handle is not None
        tail = self.handle.read(fr.TRAILER_SIZE, self.offset - fr.TRAILER_SIZE)
        length = fr.TRAILER.unpack(tail)[1]
        start = self.offset - fr.size_of(length)
        if start >= sg.HEADER_SIZE:
            head = self.handle.read(fr.HEADER_SIZE, start)
            self.last_kind = head[12]
            self.last_promise = fr.HEADER.unpack(head)[7]
            if head[:4] == fr.MAGIC and head[12] in (fr.SEAL, fr.GAP):
                self.sealed = head[12] == fr.SEAL
                body = self.handle.read(length, start + fr.HEADER_SIZE)
                self.chain = fr.resumed(body, head[12]) or self.link

    # -- reading ------------------------------------------------------------------------------

    def read(self, out: list[Frame] | None) -> int:
        """Parse the next chunk; the number of frames found. 0 means: at the visible end, and
        ``fault`` says whether something invalid is there."""
        while self.sealed:
            if self.fault != fr.NONE or not self._next():
                return 0
        handle = self.handle
        assert handle is not None
        self.size = size = handle.size()
        room = size - self.offset
        if room <= 0:
            self.fault = fr.NONE if room == 0 else SHRUNK
            return 0
        buffer = handle.read(min(room, self.chunk), self.offset)
        run = self._parse(buffer, out)
        if not run.frames and run.fault == fr.BODY_SHORT and room > len(buffer):
            need = fr.size_of(fr.HEADER.unpack_from(buffer)[2])
            run = self._parse(handle.read(min(room, need), self.offset), out)
        self.fault = run.fault
        if run.frames:
            self.offset, self.sequence, self.link = run.offset, run.sequence, run.link
            self.chain = run.chain
            self.last_kind, self.last_promise = run.kind, run.promise
            self.sealed = run.kind == fr.SEAL
            if not self.sealed:
                self.fault = fr.NONE
        return run.frames

    def _parse(self, buffer: bytes, out: list[Frame] | None) -> fr.Run:
        header = self.header
        return fr.parse(
            buffer, self.offset, header.number, header.seed, self._extend, self.sequence,
            self.link, out, self.chain,
        )  # fmt: skip

    def _next(self) -> bool:
        """Enter the successor of a sealed segment; False if there is none (yet)."""
        number = self.header.number + 1
        try:
            handle = open_segment(self._fs, self._root, number)
        except FileNotFoundError:
            return False
        header = sg.parse(handle.read(sg.HEADER_SIZE, 0))
        if header is None:
            self.fault = SEGMENT_FAULT
        elif (
            header.uuid != self._uuid
            or header.number != number
            or header.first_sequence != self.sequence + 1
            or header.previous != self.chain
        ):
            self.fault = STRUCTURE_FAULT
        else:
            self._adopt(handle, header)
            return True
        handle.close()
        return False

    def rest(self) -> bytes:
        """The bytes from the current place to the end of the segment."""
        assert self.handle is not None
        return self.handle.read(max(0, self.handle.size() - self.offset), self.offset)

    def later(self) -> fr.Later:
        """Search behind the current place for frames of this segment."""
        return fr.search(
            self.rest(), self.offset, 1, seed=self.header.seed, extend=self._extend,
            sequence=self.sequence,
        )  # fmt: skip

    def close(self) -> None:
        if self.handle is not None:
            handle, self.handle = self.handle, None
            handle.close()
