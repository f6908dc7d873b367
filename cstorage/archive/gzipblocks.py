"""gzip output, compressed in blocks on several threads (``isal``).

Rules of this module:

* Blocks of ``BLOCK`` bytes are cut here and each is compressed from its own bytes and the 32 KiB in
  front of it. So the output depends on content and level alone, not on the pieces in which the
  content came nor on the number of threads. No time stamp.
* What will not shrink (compressed files, keys, noise) is stored: compressing it takes six times as
  long as finding out. Samples decide, so content that only looks like noise may be stored although
  it could have been made a little smaller, and never more than 0.01 % larger than it is.
* Threads only compress; all writing is done by the caller, in order.
* Memory is about four blocks a thread, of ``_MOST`` threads at most.
"""

from __future__ import annotations

import struct
from queue import Empty, SimpleQueue
from threading import Thread

from isal import isal_zlib

from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 2 << 20
_WINDOW = 1 << 15
_MOST = 8
_AHEAD = 1  # blocks that wait for a thread, so that none waits for a block

_PART = 1 << 16
"""Bytes that are stored or compressed together."""
_SAMPLE = 1 << 9
_LOOK = 16 * _SAMPLE
_NOISE = 1.2
"""How much longer noise gets by the fixed code of level 0 (text: half as long), with a margin."""
_STORED_MAX = 0xFFFF


def packed(
    block: memoryview, window: bytes, level: int, room: memoryview | None = None
) -> bytes | memoryview:
    """``block`` as whole deflate blocks, none of them the last; ``window``: what is before it.

    Much of it may be put into ``room``: pages of memory that are new cost as much as the copy.
    """
    runs = _runs(block)
    if len(runs) == 1 and not runs[0][2]:
        return _compressed(block, window, level)
    out: list[bytes | memoryview] = []
    for start, stop, stored in runs:
        part = block[start:stop]
        if stored:
            for at in range(0, len(part), _STORED_MAX):
                piece = part[at : at + _STORED_MAX]
                out.append(struct.pack("<BHH", 0, len(piece), len(piece) ^ 0xFFFF))
                out.append(piece)
        else:
            if start:
                window = bytes(block[max(0, start - _WINDOW) : start])
            out.append(_compressed(part, window, level))
    if room is None or sum(map(len, out)) > len(room):
        return b"".join(out)
    used = 0
    for made in out:
        room[used : used + len(made)] = made
        used += len(made)
    return room[:used]


def _compressed(data: memoryview, window: bytes, level: int) -> bytes:
    known = (window,) if window else ()
    codec = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15, 8, 0, *known)
    return codec.compress(data) + codec.flush(isal_zlib.Z_SYNC_FLUSH)


def _runs(block: memoryview) -> list[tuple[int, int, bool]]:
    """Where to store and where to compress: (start, stop, stored), together all of the block."""
    size = len(block)
    noise = [
        _looks_like_noise(block[start : start + _PART])
        for start in range(0, size - _PART + 1, _PART)
    ]
    if True not in noise:
        return [(0, size, False)]
    runs = _joined([(at * _PART, (at + 1) * _PART, found) for at, found in enumerate(noise)])
    # The fixed code is bad at more than noise: what looks like it is looked at once more.
    runs = [(at, to, found and _incompressible(block[at:to])) for at, to, found in runs]
    if runs[-1][1] < size:
        runs.append((runs[-1][1], size, False))
    return _joined(runs)


def _joined(runs: list[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    """Neighbours that are treated the same as one."""
    out = runs[:1]
    for at, to, stored in runs[1:]:
        if stored == out[-1][2]:
            out[-1] = (out[-1][0], to, stored)
        else:
            out.append((at, to, stored))
    return out


def _looks_like_noise(part: memoryview) -> bool:
    """Its beginning, its end and its middle are longer in the fixed code of level 0."""
    for at in (0, _PART - _SAMPLE, (_PART - _SAMPLE) // 2):
        if len(isal_zlib.compress(part[at : at + _SAMPLE], 0, -15)) < _SAMPLE * _NOISE:
            return False
    return True


def _incompressible(data: memoryview) -> bool:
    step = (len(data) - _SAMPLE) // (_LOOK // _SAMPLE - 1)
    look = b"".join(data[at : at + _SAMPLE] for at in range(0, len(data) - _SAMPLE + 1, step))
    return len(isal_zlib.compress(look, 1, -15)) >= len(look)


def _new_room() -> memoryview:
    return memoryview(bytearray(BLOCK + BLOCK // 64))


class GzipBlocks:
    """Takes plain bytes with ``write``; ``finish`` ends the stream, ``abort`` only the threads."""

    def __init__(
        self, put: Callable[[bytes | memoryview], object], level: int, threads: int
    ) -> None:
        self._put = put
        self._level = level
        self._free: list[memoryview] = []
        self._rooms: list[memoryview] = []
        self._block = memoryview(bytearray(BLOCK))
        self._held = 0
        self._window = b""
        self._crc = 0
        self._size = 0
        self._wanted = min(threads, _MOST)
        self._threads: list[Thread] = []
        self._given: SimpleQueue[_Job | None] = SimpleQueue()
        self._jobs: list[_Job] = []
        # Magic, deflate, no flags, no time; the speed as it was asked for; system unknown.
        put(struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 0, 0, 0 if level else 4, 0xFF))

    def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            step = min(len(rest), BLOCK - self._held)
            self._block[self._held : self._held + step] = rest[:step]
            self._held += step
            rest = rest[step:]
            if self._held == BLOCK:
                self._pass_on()

    def exchange(self, buffer: memoryview) -> memoryview:
        """``write`` all of ``buffer``; the caller goes on with the one that is returned.

        Saves the copy where buffers and blocks begin at the same bytes, as in large files.
        """
        if self._held or len(buffer) != BLOCK:
            self.write(buffer)
            return buffer
        spare, self._block = self._block, buffer
        self._pass_on()
        return spare

    def _pass_on(self) -> None:
        """The block to the threads, and to the sink what they have done enough of."""
        if len(self._threads) < self._wanted:
            thread = Thread(target=self._run, name="gzip", daemon=True)
            thread.start()
            self._threads.append(thread)
        job = _Job(self._block, self._window, self._rooms.pop() if self._rooms else _new_room())
        self._window = bytes(self._block[-_WINDOW:])
        self._jobs.append(job)
        self._given.put(job)
        if len(self._jobs) > self._wanted + _AHEAD:
            self._take()
        self._block = self._free.pop() if self._free else memoryview(bytearray(BLOCK))
        self._held = 0

    def _take(self) -> None:
        job = self._jobs.pop(0)
        out, crc = job.result()
        self._free.append(job.block)
        self._add(out, crc, BLOCK)
        self._rooms.append(job.room)

    def _add(self, out: bytes | memoryview, crc: int, size: int) -> None:
        self._crc = isal_zlib.crc32_combine(self._crc, crc, size)
        self._size += size
        self._put(out)

    def _run(self) -> None:
        while (job := self._given.get()) is not None:
            job.run(self._level)

    def finish(self) -> None:
        """All that is pending, and the trailer."""
        try:
            while self._jobs:
                self._take()
            if self._held:
                rest = self._block[: self._held]
                out = packed(rest, self._window, self._level)
                self._add(out, isal_zlib.crc32(rest), self._held)
            # An empty last block with the fixed code.
            self._put(b"\x03\x00" + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))
        finally:
            self.abort()

    def abort(self) -> None:
        """End the threads; what they work on is not waited for longer than that."""
        self._jobs.clear()
        try:
            while True:
                self._given.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._given.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()


class _Job:
    """One block on its way through a thread."""

    def __init__(self, block: memoryview, window: bytes, room: memoryview) -> None:
        self.block = block
        self.room = room
        self._window = window
        self._done: SimpleQueue[Any] = SimpleQueue()

    def run(self, level: int) -> None:
        try:
            out = packed(self.block, self._window, level, self.room)
            self._done.put((out, isal_zlib.crc32(self.block)))
        except BaseException as error:
            self._done.put(error)

    def result(self) -> tuple[bytes | memoryview, int]:
        """What it came to, as soon as it is there."""
        found = self._done.get()
        if isinstance(found, BaseException):
            raise found
        out, crc = found
        return out, crc
