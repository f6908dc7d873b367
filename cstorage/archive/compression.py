"""Compressions of layer archives: detection, and streams in both directions.

Rules of this module:

* Detection goes by magic, the first six bytes (drivers-and-formats §6.1). What is recognised but
  not offered is refused by name; what is not recognised is taken as uncompressed.
* Everything is decoded in this process; no program is ever run (§9.3, §9.7).
* Several members, frames or streams in a row are one stream. Anything else after the last one is
  refused: two readers could otherwise disagree about the archive.
* A decoder never returns more than asked for, so a bomb is bounded by whoever reads.
* Heavy modules are imported by the codec that needs them.

Errors: ``ArchiveTruncated`` for a stream that ends early, ``ArchiveError`` for a damaged one,
``UnsupportedCompression`` for one that is not offered.
"""

from __future__ import annotations

import io

from cstorage.archive.header import BLOCK, parse
from cstorage.archive.zstdframes import FrameWalker
from cstorage.errors import ArchiveError, ArchiveTruncated, UnsupportedCompression
from cstorage.model import Compression
from journal.plain import TYPE_CHECKING, Any, Protocol, cast, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 18
"""Compressed bytes read at a time."""

_GZIP_HEADER_MAX = (1 << 20) + CHUNK  # its texts may be of any length
_XZ_MEMORY_MAX = 192 << 20  # ``xz -9`` needs 65 MiB; more is refused rather than allocated

_MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"BZh", Compression.BZIP2),
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
)
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4 (legacy frame)"),
    (b"\x1f\x9d", "compress (.Z)"),
    (b"LZIP", "lzip"),
    (b"\x89LZO\x00\x0d", "lzop"),
)


class ByteSource(Protocol):
    """Anything that can be read from: returns ``b""`` only at the end."""

    def read(self, n: int, /) -> bytes: ...


class ByteSink(Protocol):
    """Anything that can be written to."""

    def write(self, data: bytes, /) -> int | None: ...


def taker(sink: ByteSink) -> Callable[[bytes | memoryview], None]:
    """Writes everything to ``sink``, which may take a part at a time.

    The caller may use a buffer again as soon as it was written: sinks that follow the rules of
    ``io`` do not look at it any more, all others are given a copy.
    """
    put: Any = sink.write
    if isinstance(sink, CompressingSink):
        return put  # type: ignore[no-any-return]
    if not isinstance(sink, io.IOBase):

        def copied(data: bytes | memoryview) -> None:
            put(bytes(data))

        return copied

    def write(data: bytes | memoryview) -> None:
        taken = put(data)
        while taken is not None and taken < len(data):
            data = memoryview(data)[taken:]
            taken = put(data)

    return write


def detect(prefix: bytes) -> Compression:
    """The compression of a stream that begins with ``prefix`` (6 bytes suffice, 512 are better).

    Raises ``UnsupportedCompression`` for formats that are known but not offered, unless the first
    512 bytes are a tar header: a first member called ``LZIP.txt`` is no reason to refuse.
    """
    for magic, compression in _MAGIC:
        if prefix.startswith(magic):
            return compression
    refused = next((name for magic, name in _REFUSED if prefix.startswith(magic)), "")
    # Skippable zstd frames: 0x184D2A50…5F, little endian. Nobody else recognises them either.
    if len(prefix) >= 4 and prefix[1:4] == b"\x2a\x4d\x18" and prefix[0] & 0xF0 == 0x50:
        refused = "zstd beginning with a skippable frame"
    if refused and not _is_header(prefix[:BLOCK]):
        raise UnsupportedCompression(
            f"the archive is compressed with {refused}, which is not supported",
            hint="recompress it with gzip, zstd, xz or bzip2",
        )
    return Compression.NONE


def _is_header(block: bytes) -> bool:
    try:
        return len(block) == BLOCK and parse(block) is not None
    except ArchiveError:
        return False


# -- in --------------------------------------------------------------------------------------------


class _Decoder(Protocol):
    """One member of a compressed stream, as ``bz2`` and ``lzma`` define the interface."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _ZlibGzip:
    """``zlib`` behind the decoder interface, for machines without ``isal``."""

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(wbits=31)
        self._held = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._held and not self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._inner.decompress(self._held + data, max(max_length, 0))
        self._held = self._inner.unconsumed_tail
        return out


def _gzip_decoder() -> tuple[Callable[[], _Decoder], tuple[type[Exception], ...]]:
    import zlib

    try:
        from isal import igzip_lib
    except ImportError:
        return _ZlibGzip, (zlib.error,)

    def make() -> _Decoder:
        decoder: _Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return decoder

    isal_error = cast("type[Exception]", igzip_lib.IsalError)
    errors: tuple[type[Exception], ...] = (zlib.error, isal_error, EOFError)
    return make, errors


def _decoder(
    compression: Compression,
) -> tuple[Callable[[], _Decoder], tuple[type[Exception], ...]]:
    """A maker of decoders for one member, and the errors by which they report damage."""
    match compression:
        case Compression.GZIP:
            return _gzip_decoder()
        case Compression.BZIP2:
            import bz2

            return bz2.BZ2Decompressor, (OSError, ValueError)
        case Compression.XZ:
            import lzma

            def make() -> _Decoder:
                return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_MAX)

            return make, (lzma.LZMAError,)
        case _:
            raise UnsupportedCompression(f"no decoder for {compression.name.lower()}")


def _has_gzip_header(data: bytes) -> bool:
    """Whether ``data`` has all of the member's header that it begins with (RFC 1952 §2.3)."""
    if len(data) < 10:
        return False
    flags = data[3]
    at = 10
    if flags & 4:
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for text in (8, 16):
        if flags & text:
            at = data.find(b"\0", at) + 1
            if not at:
                return False
    return len(data) >= at + (flags & 2)


class _Input:
    """The raw bytes of a stream: counted, shown to ``on_raw``, and the first ones read ahead.

    The zstd library's reader pulls from it through ``read``. That reader is invisible to the
    garbage collector, so nothing here may lead back to whoever holds it.
    """

    def __init__(self, source: ByteSource, on_raw: Callable[[bytes], object] | None) -> None:
        self._source = source
        self._on_raw = on_raw
        self.size = 0
        self.head = b""
        self.frames: FrameWalker | None = None

    def fresh(self, size: int) -> bytes:
        """Bytes that nobody has seen yet."""
        data = self._source.read(size)
        if data:
            self.size += len(data)
            if self._on_raw is not None:
                self._on_raw(data)
        return data

    def take(self, size: int) -> bytes:
        """What was read ahead, then fresh bytes."""
        if self.head:
            head, self.head = self.head, b""
            return head
        return self.fresh(size)

    def read(self, size: int = -1, /) -> bytes:
        data = self.take(size)
        if self.frames is not None:
            self.frames.feed(data)
        return data


class Decompressor:
    """Pull decoder: ``read`` returns decoded bytes; ``on_raw`` sees every raw byte once, in order.

    ``compression`` is known once constructed; ``raw_size`` counts the bytes taken from the source.
    ``on_raw`` must not lead back to this object (``_Input`` says why). ``ahead`` is how many bytes
    are taken from the source at a time.
    """

    def __init__(
        self,
        source: ByteSource,
        on_raw: Callable[[bytes], object] | None = None,
        *,
        ahead: int = CHUNK,
    ) -> None:
        self._ahead = ahead
        self._input = _Input(source, on_raw)
        head = self._input.fresh(self._ahead)
        while 0 < len(head) < BLOCK and (more := self._input.fresh(self._ahead)):
            head += more
        self.compression = detect(head)
        self._input.head = head
        self._name = self.compression.name.lower()
        self._decoder: _Decoder | None = None
        self._zstd: Any = None
        self._errors: tuple[type[Exception], ...] = ()
        self._at_header = False
        if self.compression == Compression.ZSTD:
            self._open_zstd()
        elif self.compression != Compression.NONE:
            self._make, self._errors = _decoder(self.compression)
            self._next_member()

    @property
    def raw_size(self) -> int:
        """Bytes taken from the source so far."""
        return self._input.size

    def read(self, size: int) -> bytes:
        """At most ``size`` decoded bytes; ``b""`` only at the end."""
        if self._zstd is not None:
            return self._read_zstd(size)
        if self._decoder is None:
            return self._input.take(size)
        return self._read_members(size)

    def _read_members(self, size: int) -> bytes:
        data = b""
        while True:
            decoder = self._decoder
            assert decoder is not None
            if decoder.eof:
                rest = decoder.unused_data or self._input.fresh(self._ahead)
                if self.compression == Compression.XZ:
                    rest = self._skip_xz_padding(rest)
                if not rest:
                    return b""
                while len(rest) < 6 and (more := self._input.fresh(self._ahead)):
                    rest += more
                magic = next(m for m, c in _MAGIC if c == self.compression)
                if not rest.startswith(magic):
                    raise ArchiveError(
                        f"{len(rest)} or more bytes of garbage after the {self._name} stream"
                    )
                decoder = self._next_member()
                data = rest
            elif decoder.needs_input:
                data = self._input.take(self._ahead)
                if not data:
                    raise ArchiveTruncated(f"reading the {self._name} stream")
            if self._at_header:
                data = self._with_whole_header(data)
            try:
                out = decoder.decompress(data, size)
            except self._errors as error:
                raise ArchiveError(f"damaged {self._name} stream: {error}") from error
            data = b""
            if out:
                return out

    def _next_member(self) -> _Decoder:
        self._decoder = made = self._make()
        self._at_header = self.compression == Compression.GZIP
        return made

    def _with_whole_header(self, data: bytes) -> bytes:
        """``data`` and what is missing of the gzip header it begins with.

        ``isal`` takes a header that comes in two pieces for a damaged one if it has a checksum, or
        extra data and more.
        """
        while not _has_gzip_header(data) and (more := self._input.take(self._ahead)):
            data += more
            if len(data) > _GZIP_HEADER_MAX:
                raise ArchiveError("damaged gzip stream: its header has no end")
        self._at_header = False
        return data

    def _skip_xz_padding(self, rest: bytes) -> bytes:
        """Between and after xz streams, zeros in groups of four are legal."""
        zeros = 0
        while True:
            stripped = rest.lstrip(b"\0")
            zeros += len(rest) - len(stripped)
            if stripped or not rest:
                if zeros % 4:
                    raise ArchiveError("damaged xz stream: padding is not a multiple of four")
                return stripped
            rest = self._input.fresh(self._ahead)

    def _open_zstd(self) -> None:
        zstandard = compiled("zstandard", "backend_c")
        self._errors = (zstandard.ZstdError,)
        self._zstd = zstandard.ZstdDecompressor().stream_reader(
            cast("Any", self._input), read_size=self._ahead, read_across_frames=True
        )
        self._input.frames = self._frames = FrameWalker()

    def _read_zstd(self, size: int) -> bytes:
        try:
            out: bytes = self._zstd.read(size)
        except self._errors as error:
            raise ArchiveError(f"damaged zstd stream: {error}") from error
        if not out and not self._frames.at_boundary:
            raise ArchiveTruncated("reading the zstd stream")
        return out


# -- out -------------------------------------------------------------------------------------------


class CompressingSink:
    """Write plain bytes, ``close`` to end the stream; the inner sink is not closed."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        finish: Callable[[], object],
        abort: Callable[[], object] | None = None,
        packs: bool = True,
        exchange: Callable[[memoryview], memoryview] | None = None,
    ) -> None:
        self.packs = packs
        """Whether it compresses at all."""
        self.exchange = exchange
        """Writes a whole buffer, keeps it, and returns another of the same size; not all can."""
        self._write = write
        self._finish = finish
        self._abort = abort
        self._closed = False

    def write(self, data: bytes, /) -> int:
        self._write(data)
        return len(data)

    def close(self) -> None:
        """Write what is pending and the trailer. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._finish()

    def __enter__(self) -> CompressingSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif not self._closed:  # after an error there is nothing worth ending properly
            self._closed = True
            if self._abort is not None:
                self._abort()


def compressing(
    sink: ByteSink, compression: Compression, *, level: int | None = None, threads: int = 0
) -> CompressingSink:
    """A sink that compresses what it is given into ``sink``.

    ``level`` is the format's own (``None``: its usual one). ``threads`` is how many may compress
    at once where the library offers it (gzip up to level 3, zstd); 0 means one per processor. The
    output depends on content, format, level and, with zstd, threads alone, never on the time.
    """
    if threads <= 0:
        import os

        threads = os.cpu_count() or 1
    put = taker(sink)
    match compression:
        case Compression.NONE:
            return CompressingSink(put, lambda: None, packs=False)
        case Compression.GZIP:
            if level is None or level <= 3:
                try:
                    from cstorage.archive.gzipblocks import GzipBlocks
                except ImportError:
                    pass
                else:
                    blocks = GzipBlocks(put, 2 if level is None else level, threads)
                    return CompressingSink(
                        blocks.write, blocks.finish, blocks.abort, exchange=blocks.exchange
                    )
            import zlib

            return _from_object(put, zlib.compressobj(6 if level is None else level, wbits=31))
        case Compression.ZSTD:
            zstandard = compiled("zstandard", "backend_c")
            codec = zstandard.ZstdCompressor(
                level=3 if level is None else level, threads=threads, write_checksum=True
            )
            return _from_object(put, codec.compressobj())
        case Compression.XZ:
            import lzma

            return _from_object(
                put, lzma.LZMACompressor(preset=lzma.PRESET_DEFAULT if level is None else level)
            )
        case Compression.BZIP2:
            import bz2

            return _from_object(put, bz2.BZ2Compressor(9 if level is None else level))


def _from_object(put: Callable[[bytes], None], codec: Any) -> CompressingSink:
    def write(data: bytes) -> None:
        if out := codec.compress(data):
            put(out)

    def finish() -> None:
        if out := codec.flush():
            put(out)

    return CompressingSink(write, finish)
