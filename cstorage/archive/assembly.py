"""Recipe and files back to the archive.

Rules of this module:

* Every byte handed to the sink is proven by the end, one way or the other: files by the digests of
  the manifest that the import recorded beside the recipe (whoever calls vouches for both), or the
  whole by the archive's own digest. Without a manifest, files are compared by the recipe's CRC-64,
  so that one that changed can be named.
* A file is proven before its last bytes leave, one that fits into a buffer before its first. One
  that changed is named, and ends the archive.
* The last buffer is held back until all is proven: who reads along sees an archive that is cut
  short, not a whole one that is wrong.
* Most is done by ``pieces.fill``, here or by the twin, which knows no errors: what it cannot put
  into the buffer, whatever the reason, is left to ``_Assembler``, which can, or says why not.
* Memory is ``_TASKS`` buffers of ``_BUFFER`` bytes and the twin's, whatever the archive's size.
"""

from __future__ import annotations

import os
from collections import deque
from itertools import chain, islice

from cstorage.archive.compression import CompressingSink, taker
from cstorage.archive.pieces import Content, Piece, fill
from cstorage.archive.recipe import NEXT, crc64, entries_of, read_text
from cstorage.archive.threads import Beside
from cstorage.errors import ArchiveChanged, ArchiveError, ContentChanged
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cstorage.archive.compression import ByteSink, ByteSource
    from cstorage.archive.manifest import Hasher
    from cstorage.archive.recipe import RecipeEntry
    from cstorage.archive.twin import Twin

_BUFFER = 2 << 20
_TASKS = 8
"""Cuts under way at once: the twin's, and what is done meanwhile until they are there."""


class _Out:
    """Proves pieces and hands them to the sink; the last one only when asked to."""

    def __init__(
        self,
        sink: ByteSink,
        contents: Iterator[Content] | None,
        digest: str,
    ) -> None:
        self._write = taker(sink)
        self._exchange = sink.exchange if isinstance(sink, CompressingSink) else None
        self._contents = contents
        self._expected = ""
        self._whole: Beside | None = None
        if digest:
            import hashlib

            algorithm, _, self._expected = digest.partition(":")
            if algorithm != "sha256":
                raise ArchiveError(f"cannot check a digest of kind {algorithm}")
            self._whole = Beside(hashlib.sha256())
        self._held: Piece | None = None
        self.total = 0

    def put(self, piece: Piece) -> Piece | None:
        """Take a piece in its turn; returns one that is not needed any more."""
        if piece.found:
            self.prove(piece.found)
        whole = self._whole
        if whole is not None:
            whole.update(piece.buffer[: piece.used])
        self.total += piece.used
        left, self._held = self._held, piece
        if left is not None:
            if self._exchange is not None and left.slot < 0 and left.used == len(left.buffer):
                left.buffer = self._exchange(left.buffer)
            else:
                self._write(left.buffer[: left.used])
        return left

    def prove(self, found: list[Content]) -> None:
        """Compare files with the list; both are in the archive's order."""
        assert self._contents is not None
        for name, size, digest in found:
            usual = name.removeprefix(b"./")
            for path, length, recorded in self._contents:
                if length == size and recorded and (path == usual or path == _clean(name)):
                    break
            else:
                raise ArchiveError(
                    f"{_shown(name)} is in the recipe, but not in the layer's file list"
                )
            if recorded != digest:
                raise _changed(name)
        found.clear()

    def close(self, confirm: Callable[[int], object] | None) -> None:
        """Let go of the last piece, if all before and in it is proven."""
        if self._whole is not None:
            found = self._whole.digest().hex()
            if found != self._expected:
                raise ArchiveChanged(
                    f"the reassembled archive has digest sha256:{found}, recorded was "
                    f"sha256:{self._expected}: the recipe or a file changed"
                )
        if confirm is not None:
            confirm(self.total)
        if self._held is not None:
            self._write(self._held.buffer[: self._held.used])

    def abort(self) -> None:
        """End the thread, whatever its state."""
        if self._whole is not None:
            self._whole.close()


class _Task:
    """A cut of the recipe in its turn, and what was done of it ahead of that, by whomever."""

    def __init__(self, text: bytes, slot: int = -1) -> None:
        self.text = text
        self.slot = slot
        """Where the twin is to put it; -1 if it has nothing to do with it, or is done."""
        self.piece: Piece | None = None
        self.left: RecipeEntry | None = None
        self.rest: Iterator[RecipeEntry] | None = None
        """Behind ``left`` and not in the piece; ``None``: what ``piece.entries`` does not count."""


class _Assembler:
    """Cuts in the order of the recipe; what does not fit into one piece; and errors."""

    def __init__(
        self,
        out: _Out,
        open_payload: Callable[[bytes], int],
        hasher: Hasher | None,
        twin: Twin | None,
    ) -> None:
        self._out = out
        self._open_payload = open_payload
        self._hasher = hasher
        self._twin = twin
        self._tasks: deque[_Task] = deque()
        self._pieces: list[Piece] = []
        self._piece = self._new_piece()

    def run(self, texts: Iterator[bytes]) -> None:
        tasks, twin = self._tasks, self._twin
        while True:
            if twin is not None:
                self._collect(twin, wait=False)
                while twin.wants() and (text := next(texts, None)) is not None:
                    tasks.append(_Task(text, twin.give(text)))
            if tasks and tasks[0].slot < 0:
                self._finish(tasks.popleft())
            elif len(tasks) < _TASKS and (text := next(texts, None)) is not None:
                if tasks:
                    tasks.append(self._begun(text))
                else:
                    self._finish(_Task(text))
            elif tasks:
                assert twin is not None
                self._collect(twin, wait=True)
            else:
                break
        self._flush()

    def _collect(self, twin: Twin, *, wait: bool) -> None:
        for piece in twin.take(wait=wait):
            for task in self._tasks:
                if task.slot == piece.slot:
                    task.slot, task.piece = -1, piece
        if twin.lost:
            for task in self._tasks:
                task.slot = -1

    def _begun(self, text: bytes) -> _Task:
        task = _Task(text)
        task.piece = self._new_piece()
        entries = entries_of(text)
        task.left = fill(task.piece, entries, self._open_payload, self._hasher)
        task.rest = entries
        return task

    def _finish(self, task: _Task) -> None:
        piece, left, entries = task.piece, task.left, task.rest
        if piece is not None:
            self._flush()
            self._put(piece)
        if entries is None:
            if piece is not None and piece.entries < 0:
                return
            entries = islice(entries_of(task.text), piece.entries if piece else 0, None)
        rest = entries if left is None else chain((left,), entries)
        while (left := fill(self._piece, rest, self._open_payload, self._hasher)) is not None:
            if self._piece.used:
                self._flush()
                rest = chain((left,), entries)
            else:
                self._stream(left)
                rest = entries

    def _flush(self) -> None:
        if self._piece.used:
            full, self._piece = self._piece, self._new_piece()
            self._put(full)

    def _put(self, piece: Piece) -> None:
        # An empty one must not take the place of the one that is held back.
        left = self._out.put(piece) if piece.used else piece
        if left is None:
            return
        if left.slot < 0:
            self._pieces.append(left.clear())
        elif self._twin is not None:
            self._twin.release(left.slot)

    def _new_piece(self) -> Piece:
        return self._pieces.pop() if self._pieces else Piece(memoryview(bytearray(_BUFFER)))

    def _stream(self, entry: RecipeEntry) -> None:
        data, name, size, crc = entry
        rest = memoryview(data)
        while rest:
            view = self._free(len(rest))
            view[:] = rest[: len(view)]
            self._piece.used += len(view)
            rest = rest[len(view) :]
        if size:
            self._file(name, size, crc)

    def _free(self, most: int) -> memoryview:
        """What is free of the buffer, or the next one; at least a byte, ``most`` at most."""
        if self._piece.used == len(self._piece.buffer):
            self._flush()
        used = self._piece.used
        return self._piece.buffer[used : used + most]

    def _file(self, name: bytes, size: int, crc: bytes) -> None:
        if len(crc) != 8:
            raise ArchiveError(f"damaged recipe: {_shown(name)} has no checksum")
        try:
            fd = self._open_payload(name)
        except OSError as error:
            raise ContentChanged(
                f"{_shown(name)}: content is not there any more: {error.strerror}"
            ) from error
        running = None if self._hasher is None else Beside(self._hasher())
        try:
            self._read(fd, name, size, crc, running)
        finally:
            os.close(fd)
            if running is not None:
                running.close()

    def _read(
        self, fd: int, name: bytes, size: int, recorded: bytes, running: Beside | None
    ) -> None:
        crc = done = 0
        while True:
            # One byte more than there should be, to see whether there is.
            view = self._free(size - done + 1)
            count = os.readv(fd, (view,))
            if not count or done + count > size:
                break
            view = view[:count]
            if running is None:
                crc = crc64(view, crc)
            else:
                running.update(view)
            done += count
            self._piece.used += count
        if count or done != size:
            raise _changed(name)
        if running is not None:
            self._out.prove([*self._piece.found, (name, size, running.digest())])
            self._piece.found.clear()
        elif crc.to_bytes(8, "big") != recorded:
            raise _changed(name)


# What only odd names and errors need is imported for them.


def _clean(name: bytes) -> bytes:
    from cstorage.archive.names import clean

    return clean(name)


def _shown(name: bytes) -> str:
    from cstorage.archive.reader import shown

    return shown(name)


def _changed(name: bytes) -> ContentChanged:
    return ContentChanged(f"file integrity checksum failed for {_shown(name)}")


def assemble(
    recipe: ByteSource,
    open_payload: Callable[[bytes], int],
    sink: ByteSink,
    *,
    digest: str = "",
    manifest: ByteSource | None = None,
    confirm: Callable[[int], object] | None = None,
    twin: Twin | None = None,
) -> int:
    """See ``recipe.assemble``."""
    contents = hasher = None
    if manifest is not None:
        from cstorage.archive.manifest import ManifestReader, hasher_of

        reader = ManifestReader(manifest)
        hasher, contents = hasher_of(reader.algorithm), reader.contents()
        if twin is not None:
            twin.algorithm = reader.algorithm
    out = _Out(sink, contents, "" if manifest is not None else digest)
    texts = read_text(recipe)
    if twin is not None:
        texts = _cuts(texts, twin.cut)
    try:
        _Assembler(out, open_payload, hasher, twin).run(texts)
        out.close(confirm)
    finally:
        out.abort()
    return out.total


def _cuts(texts: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Parts of about ``size`` bytes, or one line; a file stays with what is in front of it."""
    for text in texts:
        at, end = 0, len(text)
        while at < end:
            stop = text.find(NEXT, at + size) + 1 or end
            yield text[at:stop]
            at = stop
