"""Per-file manifests: what an archive said about each entry, with the digest of its content.

Format (version 1): a zstd stream of a CBOR sequence (RFC 8742). The first item is the header
``["cstorage-manifest", 1, digest algorithm]``; the algorithm is ``blake3`` (ten times as fast as
SHA-256 on machines without its instructions), or ``sha256`` where that library is missing. Each
further item describes an entry:

    [mark, path, type, mode, uid, gid, size, mtime_ns, linkname, rdev major, rdev minor, xattrs,
     digest]

``mark`` is 0 for an entry, 1 for "this path of the lower layers is gone", 2 for "everything of the
lower layers below this path is gone". ``path`` is the cleaned path, raw bytes, without leading
slash (the root is ``b""``). ``type`` is the tar type letter. IDs are those of the archive, not
mapped. ``xattrs`` is a list of pairs in archive order; a name that is not UTF-8 is a byte string.
``digest`` is empty except for regular
files, and for sparse files beyond 4 GiB of holes in one archive. Entries stand in archive order; a
path occurs at most once with each mark.

The same archive always gives the same manifest, byte for byte, with the same library versions.
"""

from __future__ import annotations

import io
from enum import IntEnum

from cstorage.archive.compression import ByteSink, ByteSource, Decompressor
from cstorage.errors import ArchiveError
from journal.plain import TYPE_CHECKING, Any, NamedTuple, compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

MAGIC = "cstorage-manifest"
VERSION = 1
_BATCH = 512  # records encoded at once
_READ = 1 << 17
_REGULAR = ord("0")
_FIELDS = 13
_ALIKE_HEADS = [b"\x8d\0" + (b"%c" % (0x40 + n) if n < 24 else b"\x58%c" % n) for n in range(256)]
"""What is in front of a path of each length: an array of 13, mark 0, a byte string."""


Hasher: TypeAlias = "Callable[..., Any]"
"""Makes a running digest (``update``, ``digest``), of the bytes given if any."""


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


def best_hasher() -> tuple[str, Hasher]:
    """Name and maker of the digest that new manifests carry."""
    try:
        from blake3 import blake3

        return "blake3", blake3
    except ImportError:
        import hashlib

        return "sha256", hashlib.sha256


def hasher_of(algorithm: str) -> Hasher:
    """The maker of a manifest's digests. Raises ``ArchiveError`` if it is not to be had."""
    if algorithm == "sha256":
        import hashlib

        return hashlib.sha256
    name, hasher = best_hasher()
    if name != algorithm:
        raise ArchiveError(f"manifest with {algorithm} digests, which this installation lacks")
    return hasher


class ManifestWriter:
    """Writes records to ``sink``; ``close`` ends the zstd stream (the sink stays open).

    ``hasher`` makes the digests that the records are to carry.
    """

    def __init__(self, sink: ByteSink, algorithm: str = "") -> None:
        """``algorithm``: of digests that exist already; otherwise the best one."""
        if algorithm:
            self.hasher = hasher_of(algorithm)
        else:
            algorithm, self.hasher = best_hasher()
        self._encode = compiled("cbor2", "_cbor2").dumps
        zstd = compiled("zstandard", "backend_c")
        self._codec: Any = zstd.ZstdCompressor(level=1, write_checksum=True).compressobj()
        self._sink = sink
        self._records: list[tuple[Any, ...]] = [(MAGIC, VERSION, algorithm)]
        self._encoded: list[bytes] = []  # in front of ``_records``
        self._count = 1
        # Parts of ``alike`` records.
        self._owners: dict[tuple[int, int, int], bytes] = {}
        self._owner = self._rest = b""
        self._times: dict[int, bytes] = {}

    def add(self, record: tuple[Any, ...]) -> None:
        """One record, its fields in the order of ``ManifestEntry``."""
        xattrs = record[11]
        if xattrs:
            record = (*record[:11], [(_stored(key), value) for key, value in xattrs], *record[12:])
        self._records.append(record)
        self._count += 1
        if self._count >= _BATCH or xattrs:  # attributes may be as large as 1 MiB
            self._flush()

    def begin_alike(self, mode: int, uid: int, gid: int) -> None:
        """``alike`` records follow: plain files with these attributes."""
        self._encode_records()
        encode = self._encode
        if not self._rest:
            size = self.hasher().digest_size
            self._rest = b"".join((*map(encode, (b"", 0, 0, ())), encode(bytes(size))[:-size]))
        owner = self._owners.get((mode, uid, gid))
        if owner is None:
            if len(self._owners) >= _BATCH:
                self._owners.clear()
            owner = b"".join(map(encode, (_REGULAR, mode, uid, gid)))
            self._owners[mode, uid, gid] = owner
        self._owner = owner

    def alike(self, path: bytes, size: int, mtime_ns: int, digest: bytes) -> None:
        """The record of one, encoded here, which takes less time; a path of 255 bytes at most."""
        time = self._times.get(mtime_ns)
        encode = self._encode
        if time is None:
            if len(self._times) >= _BATCH:
                self._times.clear()
            self._times[mtime_ns] = time = encode(mtime_ns)
        self._encoded += (
            _ALIKE_HEADS[len(path)], path, self._owner, encode(size), time, self._rest, digest,
        )  # fmt: skip
        self._count += 1
        if self._count >= _BATCH:
            self._flush()

    def _encode_records(self) -> None:
        # An array is its head and its items in a row; without the head it is a sequence of them.
        # One call for many records is several times as fast as a call for each.
        if count := len(self._records):
            head = 1 if count < 24 else 2 if count < 256 else 3
            self._encoded.append(self._encode(self._records)[head:])
            self._records.clear()

    def _flush(self) -> None:
        self._encode_records()
        if out := self._codec.compress(b"".join(self._encoded)):
            self._sink.write(out)
        self._encoded.clear()
        self._count = 0

    def close(self) -> None:
        self._flush()
        self._sink.write(self._codec.flush())


def _stored(key: str) -> str | bytes:
    """An attribute's name as the format has it: bytes if they are not UTF-8."""
    try:
        key.encode()
        return key
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogateescape")


def _read_name(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode("utf-8", "surrogateescape")


class _Raw(io.RawIOBase):
    """A decoder as a file. A class made for each stream would keep it until a collection."""

    def __init__(self, stream: Decompressor) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class ManifestReader:
    """Records of a manifest, in order, in bounded memory; ``algorithm`` names its digests.

    Raises ``ArchiveError`` if it is damaged or of a version this code does not know.
    """

    def __init__(self, source: ByteSource) -> None:
        cbor2 = compiled("cbor2", "_cbor2")
        self._reader: Any = io.BufferedReader(_Raw(Decompressor(source)), _READ)
        self._decode = cbor2.CBORDecoder(self._reader).decode
        self._end = cbor2.CBORDecodeEOF
        self._errors = (cbor2.CBORDecodeError, ValueError, TypeError, ArithmeticError, LookupError,
                        AttributeError)  # fmt: skip
        try:
            magic, version, algorithm = self._decode()
        except self._errors as error:
            raise ArchiveError(f"damaged manifest: {error}") from error
        if magic != MAGIC:
            raise ArchiveError("damaged manifest: not a manifest")
        if version != VERSION:
            raise ArchiveError(f"manifest of version {version}; this program reads {VERSION}")
        self.algorithm: str = algorithm

    def records(self) -> Iterator[list[Any]]:
        """Each record's fields as they are stored: a third of the time of making entries."""
        decode = self._decode
        try:
            while True:
                record = decode()
                if len(record) != _FIELDS:
                    raise ValueError(f"a record of {len(record)} fields")
                yield record
        except self._end:
            return  # to look for the end in front of each record costs more than the record
        except self._errors as error:
            raise ArchiveError(f"damaged manifest: {error}") from error

    def contents(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(path, size, digest) of the regular files, in order."""
        for mark, path, kind, _, _, _, size, _, _, _, _, _, digest in self.records():
            if kind == _REGULAR and mark == 0:
                yield path, size, digest

    def entry(self, record: list[Any]) -> ManifestEntry:
        """A record of ``records`` with its fields named. Raises ``ArchiveError``."""
        try:
            mark, *rest = record
            rest[10] = tuple((_read_name(key), value) for key, value in rest[10])
            return ManifestEntry(Mark(mark), *rest)
        except self._errors as error:
            raise ArchiveError(f"damaged manifest: {error}") from error

    def __iter__(self) -> Iterator[ManifestEntry]:
        while self._reader.peek(1):
            try:
                record = self._decode()
            except self._errors as error:
                raise ArchiveError(f"damaged manifest: {error}") from error
            yield self.entry(record)


def read_manifest(source: ByteSource) -> Iterator[ManifestEntry]:
    """The records of a manifest; see ``ManifestReader``."""
    return iter(ManifestReader(source))
