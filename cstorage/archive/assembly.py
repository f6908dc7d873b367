"""Recipe and files back to the archive.

Rules of this module:

* Every byte handed to the sink is proven by the end, one way or the other: files by the digests of
  the manifest that the import recorded beside the recipe (whoever calls vouches for both), or the
  whole by the archive's own digest. Without either, files are compared by the recipe's CRC-64.
* A file is proven before its last bytes leave. One that changed is named, and ends the archive.
* Only SHA-256 of the whole is worth a thread: all else is done in less time than handing it over
  takes on a busy machine.
* Memory is ``_BUFFERS`` buffers of ``_BUFFER`` bytes whatever the size of the archive.
"""

from __future__ import annotations

import os

from cstorage.archive.compression import taker
from cstorage.archive.names import clean
from cstorage.archive.reader import shown
from cstorage.archive.recipe import crc64, read_recipe
from cstorage.errors import ArchiveChanged, ArchiveError, ContentChanged
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cstorage.archive.compression import ByteSink, ByteSource
    from cstorage.archive.manifest import Hasher

_BUFFERS = 4
_BUFFER = 1 << 20


class _Assembler:
    """Fills a buffer with proven bytes in the order of the recipe; ``_next_buffer`` empties it."""

    def __init__(
        self,
        recipe: ByteSource,
        open_payload: Callable[[bytes], int],
        digests: Iterator[tuple[bytes, int, bytes]] | None,
        hasher: Hasher | None,
    ) -> None:
        self._recipe = recipe
        self._open_payload = open_payload
        self._digests = digests
        self._hasher = hasher
        self._buffer = memoryview(b"")
        self._used = _BUFFER
        self.total = 0

    def _next_buffer(self) -> None:
        raise NotImplementedError

    def _read(self) -> None:
        for data, name, size, crc in read_recipe(self._recipe):
            if data is not None:
                used = self._used
                stop = used + len(data)
                if used < stop <= _BUFFER:
                    self._buffer[used:stop] = data
                    self._used = stop
                else:
                    self._raw(data)
            elif size:
                self._file(name, size, crc)

    def _raw(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if self._used == _BUFFER:
                self._next_buffer()
            used = self._used
            step = min(len(rest), _BUFFER - used)
            self._buffer[used : used + step] = rest[:step]
            self._used = used + step
            rest = rest[step:]

    def _file(self, name: bytes, size: int, crc: bytes) -> None:
        if len(crc) != 8:
            raise ArchiveError(f"damaged recipe: {shown(name)} has no checksum")
        recorded = crc if self._digests is None else self._recorded(name, size)
        try:
            fd = self._open_payload(name)
        except OSError as error:
            raise ContentChanged(
                f"{shown(name)}: content is not there any more: {error.strerror}"
            ) from error
        try:
            used = self._used
            # One byte more than there should be, to see whether there is.
            if used + size < _BUFFER:
                view = self._buffer[used : used + size + 1]
                count = os.readv(fd, (view,))
                if count == size:
                    self._used = used + size
                    self._prove(name, recorded, view[:size])
                    return
                os.lseek(fd, 0, os.SEEK_SET)
            self._long(fd, name, size, recorded)
        finally:
            os.close(fd)

    def _prove(self, name: bytes, recorded: bytes, content: memoryview) -> None:
        if self._hasher is None:
            found = crc64(content).to_bytes(8, "big")
        else:
            found = self._hasher(content).digest()
        if found != recorded:
            raise _changed(name)

    def _long(self, fd: int, name: bytes, size: int, recorded: bytes) -> None:
        """A file that does not fit into the buffer, or came in several pieces."""
        running = None if self._hasher is None else self._hasher()
        crc = done = 0
        while True:
            if self._used == _BUFFER:
                self._next_buffer()
            used = self._used
            view = self._buffer[used : used + size - done + 1]
            count = os.readv(fd, (view,))
            if not count or done + count > size:
                break
            view = view[:count]
            if running is None:
                crc = crc64(view, crc)
            else:
                running.update(view)
            done += count
            self._used = used + count
        if count or done != size:
            raise _changed(name)
        found = crc.to_bytes(8, "big") if running is None else running.digest()
        if found != recorded:
            raise _changed(name)

    def _recorded(self, name: bytes, size: int) -> bytes:
        """The manifest's digest of the recipe's next file; both are in the archive's order."""
        assert self._digests is not None
        usual = name.removeprefix(b"./")
        for path, length, digest in self._digests:
            if length == size and digest and (path == usual or path == clean(name)):
                return digest
        raise ArchiveError(f"{shown(name)} is in the recipe, but not in the layer's file list")


def _changed(name: bytes) -> ContentChanged:
    return ContentChanged(f"file integrity checksum failed for {shown(name)}")


class _Direct(_Assembler):
    """Writes each buffer when it is full."""

    def __init__(self, write: Callable[[memoryview], object], *given: Any) -> None:
        super().__init__(*given)
        self._write = write
        self._buffer = memoryview(bytearray(_BUFFER))
        self._used = 0

    def _next_buffer(self) -> None:
        if self._used:
            self._write(self._buffer[: self._used])
        self.total += self._used
        self._used = 0

    def run(self) -> None:
        self._read()
        self._next_buffer()


class _Ahead(_Assembler):
    """Reads on a thread of its own, for a consumer that has work to do with the bytes."""

    def __init__(self, *given: Any) -> None:
        from queue import SimpleQueue
        from threading import Thread

        super().__init__(*given)
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        self._filled: SimpleQueue[tuple[memoryview, int] | BaseException | None] = SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(memoryview(bytearray(_BUFFER)))
        self._thread = Thread(target=self._run, name="archive-read", daemon=True)
        self._thread.start()

    # -- the caller's side -----------------------------------------------------------------------

    def __iter__(self) -> Iterator[memoryview]:
        """What was read, in pieces that are valid until the next one is asked for."""
        while True:
            filled = self._filled.get()
            if filled is None:
                return
            if isinstance(filled, BaseException):
                raise filled
            buffer, used = filled
            self.total += used
            yield buffer[:used]
            self._free.put(buffer)

    def close(self) -> None:
        """End the thread, whatever its state."""
        self._free.put(None)
        self._thread.join()

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._read()
            if self._buffer:
                self._filled.put((self._buffer, self._used))
            self._filled.put(None)
        except _Stopped:
            pass
        except BaseException as error:
            self._filled.put(error)

    def _next_buffer(self) -> None:
        if self._buffer:
            self._filled.put((self._buffer, self._used))
        buffer = self._free.get()
        if buffer is None:
            raise _Stopped
        self._buffer, self._used = buffer, 0


class _Stopped(Exception):
    """The caller does not want any more."""


def assemble(
    recipe: ByteSource,
    open_payload: Callable[[bytes], int],
    sink: ByteSink,
    *,
    digest: str = "",
    manifest: ByteSource | None = None,
) -> int:
    """See ``recipe.assemble``."""
    write = taker(sink)
    if manifest is not None:
        from cstorage.archive.manifest import ManifestReader, hasher_of

        reader = ManifestReader(manifest)
        hasher = hasher_of(reader.algorithm)
        direct = _Direct(write, recipe, open_payload, reader.contents(), hasher)
        direct.run()
        return direct.total
    if not digest:
        direct = _Direct(write, recipe, open_payload, None, None)
        direct.run()
        return direct.total
    import hashlib

    algorithm, _, expected = digest.partition(":")
    if algorithm != "sha256":
        raise ArchiveError(f"cannot check a digest of kind {algorithm}")
    whole = hashlib.sha256()
    ahead = _Ahead(recipe, open_payload, None, None)
    try:
        for data in ahead:
            whole.update(data)
            write(data)
    finally:
        ahead.close()
    if whole.hexdigest() != expected:
        raise ArchiveChanged(
            f"the reassembled archive has digest sha256:{whole.hexdigest()}, "
            f"recorded was {digest}: the recipe or a file changed"
        )
    return ahead.total
