"""Making a snapshot file (``snapshot`` says what is in one and reads it).

Rules of this module:

* Records are written as they come; what is gathered for the end of the file are numbers, 24 to 40
  bytes for each record.
* The file has no name that counts until its maker gives it one.
"""

from __future__ import annotations

from array import array

from journal.checksum import extender, preferred, sha256
from journal.codec import encode
from journal.errors import InvalidRecord
from journal.fs import O_CREATE, read_range, write_all
from journal.plain import TYPE_CHECKING, Any
from journal.snapshot import (
    BLOCK,
    BUCKET,
    END,
    FILTER,
    FOOTER,
    HEADER,
    HEADER_SIZE,
    MAGIC,
    OFFSETS,
    PLACE,
    PLACES,
    PREFIX,
    RECORD,
    TAGS,
    VERSION,
    Described,
    hashed,
    marks,
    tag_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from journal.checksum import Extend
    from journal.fs import Fs
    from journal.position import Position

MAX_KEY = 1 << 16
FILL = 8
"""Records for each bucket, on average: of ``PLACES``, so that few buckets overflow."""
PREFIXES = 40
"""Beginnings of keys for each filter: one in a hundred that no key has is thought possible."""


class _Blocks:
    """Writes sequentially and keeps one checksum per block."""

    def __init__(self, fs: Fs, fd: int, extend: Extend) -> None:
        self._fs = fs
        self._fd = fd
        self._extend = extend
        self._pending = bytearray()
        self.offset = 0
        self._flushed = 0
        self.checksums: list[int] = []

    def write(self, data: bytes | bytearray) -> None:
        self._pending += data
        self.offset += len(data)
        while len(self._pending) >= BLOCK:
            self.flush(BLOCK)

    def flush(self, size: int) -> None:
        data = bytes(self._pending[:size])
        del self._pending[:size]
        write_all(self._fs, self._fd, data, self._flushed)
        self._flushed += len(data)
        self.checksums.append(self._extend(0, data))

    def align(self, size: int) -> None:
        self.write(bytes(-self.offset % size))

    def finish(self) -> None:
        """Write what is left of the last block."""
        if self._pending:
            self.flush(BLOCK)


def _buckets(numbers: array[int], offsets: array[int], extend: Extend) -> bytearray:
    """The hash table: for each key's hash where its record begins."""
    count = max(1, -(-len(numbers) // FILL))
    table = bytearray(count * BUCKET)
    filled = bytearray(count)
    for number, offset in zip(numbers, offsets, strict=True):
        bucket = number % count
        while filled[bucket] == PLACES:
            bucket = (bucket + 1) % count
        place = filled[bucket]
        filled[bucket] += 1
        at = bucket * BUCKET + TAGS + 4 * place
        table[at : at + 4] = tag_of(number.to_bytes(8, "little"))
        at = bucket * BUCKET + OFFSETS + PLACE * place
        table[at : at + PLACE] = offset.to_bytes(PLACE, "little")
    _prove(table, BUCKET, extend)
    return table


def _filters(numbers: array[int], extend: Extend) -> bytearray:
    """The filters: which beginnings of keys there are, by their hashes."""
    count = max(1, -(-len(numbers) // PREFIXES))
    table = bytearray(count * FILTER)
    for number in numbers:
        at = number % count * FILTER
        bits = int.from_bytes(table[at + 4 : at + FILTER], "little") | marks(number)
        table[at + 4 : at + FILTER] = bits.to_bytes(FILTER - 4, "little")
    _prove(table, FILTER, extend)
    return table


def _prove(table: bytearray, size: int, extend: Extend) -> None:
    """Put a checksum before each part."""
    for at in range(0, len(table), size):
        checksum = extend(0, bytes(table[at + 4 : at + size]))
        table[at : at + 4] = checksum.to_bytes(4, "little")


def _little(values: array[int]) -> bytes:
    import sys

    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def write(
    fs: Fs,
    path: str,
    items: Iterable[tuple[bytes, bytes]],
    *,
    uuid: bytes,
    position: Position,
    schema: int,
    reducer_version: int,
    digest: bytes,
    time_ns: int,
    meta: Any = None,
) -> Described:
    """Write and sync a snapshot file; ``items`` come in ascending key order, keys unique.

    Raises ``InvalidRecord`` for items out of order or too large.
    """
    algorithm = preferred()
    extend = extender(algorithm)
    fd = fs.open(path, O_CREATE, 0o644)
    try:
        fs.ftruncate(fd, 0)
        blocks = _Blocks(fs, fd, extend)
        blocks.write(bytes(HEADER_SIZE))
        offsets, numbers, prefixes = array("Q"), array("Q"), array("Q")
        last: bytes | None = None
        begins = b""
        for key, value in items:
            if last is not None and key <= last:
                raise InvalidRecord(f"snapshot key {key!r} does not come after {last!r}")
            if len(key) >= MAX_KEY:
                raise InvalidRecord(f"a snapshot key has less than {MAX_KEY} bytes")
            last = key
            body = RECORD.pack(0, len(offsets), len(key), len(value))[4:] + key + value
            offsets.append(blocks.offset)
            numbers.append(int.from_bytes(hashed(key), "little"))
            blocks.write(extend(0, body).to_bytes(4, "little") + body)
            if key[:PREFIX] != begins and len(key) >= PREFIX:
                begins = key[:PREFIX]
                prefixes.append(int.from_bytes(hashed(begins), "little"))
        blocks.align(8)
        count = len(offsets)
        offsets_at = blocks.offset
        blocks.write(_little(offsets))
        blocks.align(BUCKET)
        buckets_at = blocks.offset
        table = _buckets(numbers, offsets, extend)
        blocks.write(table)
        buckets = len(table) // BUCKET
        filters_at = blocks.offset
        table = _filters(prefixes, extend)
        blocks.write(table)
        filters = len(table) // FILTER
        meta_at = blocks.offset
        raw_meta = encode(meta)
        blocks.write(raw_meta)
        blocks.finish()
        checksums_at = blocks.offset
        header = HEADER.pack(
            MAGIC, VERSION, algorithm, BLOCK, uuid, position.segment, position.offset,
            position.sequence, position.link, schema, reducer_version, count, digest, buckets,
            filters, offsets_at, buckets_at, filters_at, meta_at, checksums_at, time_ns,
        ).ljust(HEADER_SIZE, b"\0")  # fmt: skip
        first = read_range(fs, fd, 0, min(BLOCK, checksums_at))
        blocks.checksums[0] = extend(0, header + first[HEADER_SIZE:])
        sums = b"".join(checksum.to_bytes(4, "little") for checksum in blocks.checksums)
        total = checksums_at + len(sums) + FOOTER.size
        hash_ = sha256(header + raw_meta + sums + total.to_bytes(8, "little")).digest()
        write_all(fs, fd, header, 0)
        write_all(fs, fd, sums + FOOTER.pack(checksums_at, total, hash_, END), checksums_at)
        fs.fdatasync(fd)
    finally:
        fs.close(fd)
    return Described(
        uuid, position, schema, reducer_version, count, digest, time_ns, hash_, total, meta
    )
