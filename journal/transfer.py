"""Copy ranges of a log: incremental backup, replica, restore to a point.

Rules of this module (docs/journal-format.md, section 10):

* An export holds the log's own bytes from one position to another, segment headers included, and a
  hash over everything; an import writes them at the same places, after verifying every frame. A
  replica is therefore the same log, byte for byte.
* An import begins exactly where the replica ends (segment, offset, sequence and link equal), or in
  a folder without a journal when the export begins at the start of a segment.
* What is exported is synced first: a replica never has what its original may lose.
* A replica that was written otherwise has diverged: refused, nothing changed.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from journal import frame as fr
from journal import layout
from journal import segment as sg
from journal.checksum import extender
from journal.codec import decode, encode
from journal.cursor import Cursor
from journal.errors import InvalidRecord, JournalError
from journal.facade import Journal
from journal.fs import O_RDWR, publish, settle, write_all
from journal.lock import WriterLock
from journal.position import Position

if TYPE_CHECKING:
    from journal.clock import Clock
    from journal.fs import Fs

MAGIC = b"JRNLEXP\x01"
_LIMIT = 64 << 20


class Moved(NamedTuple):
    """What an export or import covered."""

    start: Position
    end: Position
    frames: int


class _Sink:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = sha256(MAGIC)
        file.write(MAGIC)

    def chunk(self, kind: bytes, data: bytes) -> None:
        raw = kind + len(data).to_bytes(4, "little") + data
        self._hash.update(raw)
        self._file.write(raw)

    def end(self) -> None:
        self._file.write(b"E" + (32).to_bytes(4, "little") + self._hash.digest())


def export(
    journal: Journal,
    file: BinaryIO,
    start: Position | None = None,
    *,
    until_sequence: int | None = None,
) -> Moved:
    """Write the frames after ``start`` (default: all there are) to ``file``.

    ``until_sequence`` ends after the frame that holds this event. Raises ``ResyncRequired`` for a
    start that is not in the history.
    """
    cursor = Cursor(journal.fs, journal.root, journal.uuid, start)
    try:
        begin = cursor.position
        sink = _Sink(file)
        sink.chunk(b"I", encode([journal.uuid, journal.created_ns, list(begin)]))
        number = 0
        count = 0
        done = False
        frames: list[fr.Frame] = []
        end = begin
        while not done and cursor.read(frames):
            handle = cursor.handle
            assert handle is not None
            if cursor.header.number != number:
                number = cursor.header.number
                sink.chunk(b"S", handle.read(sg.HEADER_SIZE, 0))
            if until_sequence is not None:
                keep = [f for f in frames if f.first_sequence <= until_sequence]
                done = len(keep) < len(frames)
                frames = keep
            if frames:
                if handle.fd >= 0:
                    settle(journal.fs, handle.fd)
                at = frames[0].offset
                sink.chunk(b"F", handle.read(frames[-1].stop - at, at))
                end = frames[-1].end
                count += len(frames)
            frames = []
        sink.end()
        return Moved(begin, end, count)
    finally:
        cursor.close()


def _chunks(file: BinaryIO) -> list[tuple[bytes, bytes]]:
    """All chunks, after the hash was proved: nothing of a damaged export is used."""
    if file.read(8) != MAGIC:
        raise InvalidRecord("not a journal export")
    hashed = sha256(MAGIC)
    chunks: list[tuple[bytes, bytes]] = []
    while True:
        head = file.read(5)
        size = int.from_bytes(head[1:], "little")
        if len(head) < 5 or size > _LIMIT:
            raise InvalidRecord("the export is cut off or damaged")
        data = file.read(size)
        if len(data) < size:
            raise InvalidRecord("the export is cut off")
        if head[:1] == b"E":
            if hashed.digest() != data:
                raise InvalidRecord("the export is damaged: its hash does not match")
            if not chunks or chunks[0][0] != b"I":
                raise InvalidRecord("the export has no description")
            return chunks
        hashed.update(head + data)
        chunks.append((head[:1], data))


def load(
    root: str, file: BinaryIO, *, fs: Fs | None = None, clock: Clock | None = None,
    timeout_s: float = 10.0,
) -> Moved:  # fmt: skip
    """Import an export into the journal in ``root`` (created if there is none).

    Raises ``InvalidRecord`` (damaged export), ``JournalError`` (it does not continue this log),
    and what opening for writing raises.
    """
    from journal import clock as clocks
    from journal import fs as filesystems

    fs = fs or filesystems.REAL
    clock = clock or clocks.REAL
    root = os.path.abspath(root)
    chunks = _chunks(file)
    try:
        uuid, created, place = decode(chunks[0][1])
        start = Position(*place)
    except (TypeError, ValueError) as error:
        raise InvalidRecord("the export's description is damaged") from error
    found = layout.read_format(fs, root)
    if found is None:
        _begin(fs, clock, root, uuid, created, start, chunks, timeout_s)
    elif found.uuid != uuid:
        raise JournalError(f"{root} is another journal than the export's")
    with Journal.open(root, "w", fs=fs, clock=clock, lock_timeout_s=timeout_s) as journal:
        with journal.writer() as held:
            if held.tail != start:
                raise JournalError(
                    f"{root} ends at {held.tail.segment}:{held.tail.offset} (sequence "
                    f"{held.tail.sequence}), the export begins at {start.segment}:{start.offset} "
                    f"(sequence {start.sequence}) or the histories differ"
                )
            appender = journal._appender
            assert appender is not None
            appender.log.stale = True  # whatever happens now, the tail is read again
            frames = _append(fs, root, journal.uuid, start, chunks[1:])
        with journal.writer() as held:
            return Moved(start, held.tail, frames)


def _begin(
    fs: Fs, clock: Clock, root: str, uuid: bytes, created: int, start: Position,
    chunks: list[tuple[bytes, bytes]], timeout_s: float,
) -> None:  # fmt: skip
    """A folder for the replica: first segment header and marker, as in the original."""
    header = sg.parse(chunks[1][1]) if len(chunks) > 1 and chunks[1][0] == b"S" else None
    if header is None or header.uuid != uuid or header.start != start:
        raise JournalError(
            f"{root} holds no journal and the export does not begin at the start of a segment"
        )
    layout.prepare(fs, root)
    held = WriterLock(fs, clock, root)
    try:
        held.acquire(timeout_s)
        publish(fs, f"{root}/{sg.FOLDER}", sg.name(header.number), chunks[1][1])
        text = f"journal 1\nuuid {uuid.hex()}\ncreated {created}\n"
        publish(fs, root, layout.FORMAT, text.encode("ascii"))
    finally:
        held.close()


def _append(
    fs: Fs, root: str, uuid: bytes, start: Position, chunks: list[tuple[bytes, bytes]]
) -> int:
    folder = f"{root}/{sg.FOLDER}"
    cursor = Cursor(fs, root, uuid, start)
    place = start
    frames = 0
    fd = -1
    state: Any = cursor.chain
    header = cursor.header
    cursor.close()
    try:
        for kind, data in chunks:
            if kind == b"S":
                following = sg.parse(data)
                if following is None:
                    raise InvalidRecord("the export holds a damaged segment header")
                if following.number == header.number:
                    continue
                if (
                    following.number != header.number + 1
                    or following.uuid != uuid
                    or following.previous != state
                    or following.first_sequence != place.sequence + 1
                ):
                    raise InvalidRecord("the export's segments do not fit together")
                publish(fs, folder, sg.name(following.number), data)
                header, place, state = following, following.start, following.previous
                if fd >= 0:
                    fs.close(fd)
                    fd = -1
            elif kind == b"F":
                run = fr.parse(
                    data, place.offset, header.number, header.seed, extender(header.algorithm),
                    place.sequence, place.link, None, state,
                )  # fmt: skip
                if run.fault != fr.NONE:
                    raise InvalidRecord(
                        f"the export holds an invalid frame at {header.number}:{run.offset}"
                    )
                if fd < 0:
                    fd = fs.open(f"{folder}/{sg.name(header.number)}", O_RDWR)
                write_all(fs, fd, data, place.offset)
                fs.fdatasync(fd)
                place = Position(header.number, run.offset, run.sequence, run.link)
                state = run.chain
                frames += run.frames
    finally:
        if fd >= 0:
            fs.close(fd)
    return frames
