"""Per-file manifests: what an archive said about each entry, with the digest of its content.

Format (version 1): a zstd stream of a CBOR sequence (RFC 8742). The first item is the header
``["cstorage-manifest", 1, digest algorithm]``; each further one describes an entry:

    [mark, path, type, mode, uid, gid, size, mtime_ns, linkname, rdev major, rdev minor, xattrs,
     digest]

``mark`` is 0 for an entry, 1 for "this path of the lower layers is gone", 2 for "everything of the
lower layers below this path is gone". ``path`` is the cleaned path, raw bytes, without leading
slash (the root is ``b""``). ``type`` is the tar type letter. IDs are those of the archive, not
mapped. ``xattrs`` is a list of pairs in archive order. ``digest`` is empty except for regular
files. Entries stand in archive order; a path occurs once.

The same archive always gives the same manifest, byte for byte, with the same library versions.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from cstorage.archive.compression import ByteSink, Decompressor
from cstorage.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = "cstorage-manifest"
VERSION = 1
_BATCH = 1 << 17


class Mark(IntEnum):
    """What a record says of its path."""

    PRESENT = 0
    WHITEOUT = 1
    OPAQUE = 2


class ManifestEntry(NamedTuple):
    """One record; see the format in the module's docstring."""

    mark: Mark
    path: bytes
    type: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: bytes = b""
    devmajor: int = 0
    devminor: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    digest: bytes = b""


class ManifestWriter:
    """Writes records to ``sink``; ``close`` ends the zstd stream (the sink stays open)."""

    def __init__(self, sink: ByteSink, algorithm: str = "sha256") -> None:
        import cbor2
        import zstandard

        self._encode = cbor2.dumps
        self._codec: Any = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
        self._sink = sink
        self._items: list[bytes] = [cbor2.dumps([MAGIC, VERSION, algorithm])]
        self._held = 0

    def add(self, record: tuple[Any, ...]) -> None:
        """One record, its fields in the order of ``ManifestEntry``."""
        item = self._encode(record)
        self._items.append(item)
        self._held += len(item)
        if self._held >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if out := self._codec.compress(b"".join(self._items)):
            self._sink.write(out)
        self._items.clear()
        self._held = 0

    def close(self) -> None:
        self._flush()
        self._sink.write(self._codec.flush())


def _raw_reader(stream: Decompressor) -> BinaryIO:
    import io

    class Raw(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            data = stream.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)

    return io.BufferedReader(Raw(), _BATCH)


def read_manifest(source: BinaryIO) -> Iterator[ManifestEntry]:
    """Records of a manifest, in order, in bounded memory.

    Raises ``ArchiveError`` if it is damaged or of a version this code does not know.
    """
    import cbor2

    reader: Any = _raw_reader(Decompressor(source))
    decoder = cbor2.CBORDecoder(reader)
    errors = (
        cbor2.CBORDecodeError,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
        IndexError,
    )
    try:
        head = decoder.decode()
    except errors as error:
        raise ArchiveError(f"damaged manifest: {error}") from error
    if not isinstance(head, list) or head[:1] != [MAGIC]:
        raise ArchiveError("damaged manifest: not a manifest")
    if head[1] != VERSION:
        raise ArchiveError(f"manifest of version {head[1]}; this version reads {VERSION}")
    while reader.peek(1):
        try:
            item = decoder.decode()
            item[0] = Mark(item[0])
            item[11] = tuple((key, value) for key, value in item[11])
            yield ManifestEntry(*item)
        except errors as error:
            raise ArchiveError(f"damaged manifest: {error}") from error
