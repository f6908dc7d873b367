"""One snapshot file: a sorted table of keys and values that is looked up without being loaded.

Rules of this module (docs/journal-format.md, section 7):

* Parts: header, records in key order, record offsets (sorted), hash slots, meta, block checksums,
  footer. Every part before the checksums is covered by one checksum per 16 KiB block; the file's
  hash covers header, block checksums and footer fields.
* Blocks are read when they are needed and proved whenever they are read; the last ``KEPT`` of them
  are kept, so memory does not grow with the file nor with the look-ups. (A map of the file would:
  whatever is touched counts as the process's memory, and the kernel maps its neighbours with it.)
* A point look-up reads one hash slot (load at most 1/2) and one record. A scan searches the
  offsets: keys are mostly hashes, so it guesses where a key stands and needs few looks.
* Immutable once named. This module proves that a file is whole; whether it may be *trusted* is
  decided in ``snapshots``.
"""

from __future__ import annotations

from array import array
from struct import Struct

from journal.checksum import CRC32C, Extend, blake2b, extender, preferred, sha256
from journal.codec import decode, encode
from journal.errors import InvalidRecord, SnapshotRefused, UnsupportedFormat
from journal.fs import O_CREATE, O_RDONLY, Fs, read_range, write_all
from journal.plain import TYPE_CHECKING, Any, NamedTuple
from journal.position import Position

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAGIC = b"JRNLSNP\x01"
END = b"JRNLEND\x01"
BLOCK = 16 << 10
SHIFT = 14
KEPT = 64
"""Blocks that an open snapshot keeps at most: 1 MiB, which is reused for the next ones."""
GUESSES = 8
"""Looks of a search that guesses before it halves: so much for keys that are no hashes."""
# magic, version, checksum id, block size, uuid, segment, offset, sequence, link, schema,
# reducer version, count, digest, slots, records offset, offsets offset, slots offset, meta offset,
# checksums offset, time
HEADER = Struct("<8sHHI16sQQQ32sIIQ32sQQQQQQQ")
HEADER_SIZE = 256
FOOTER = Struct("<QQ32s8s")  # checksums offset, file length, hash, magic
RECORD = Struct("<II")
MAX_KEY = 1 << 16


class Described(NamedTuple):
    """What a snapshot says about itself."""

    uuid: bytes
    position: Position
    schema: int
    reducer_version: int
    count: int  # type: ignore[assignment]  # hides tuple.count on purpose
    digest: bytes
    time_ns: int
    hash: bytes
    size: int
    meta: Any


def _slot(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


class _Blocks:
    """Writes sequentially and keeps one checksum per block."""

    def __init__(self, fs: Fs, fd: int, extend: Extend) -> None:
        self._fs = fs
        self._fd = fd
        self._extend = extend
        self._pending = bytearray()
        self.offset = 0
        self._flushed = 0
        self.checksums = array("I")

    def write(self, data: bytes) -> None:
        self._pending += data
        self.offset += len(data)
        if len(self._pending) >= 1 << 20:
            self._flush(len(self._pending) // BLOCK * BLOCK)

    def _flush(self, size: int) -> None:
        data = bytes(self._pending[:size])
        del self._pending[:size]
        write_all(self._fs, self._fd, data, self._flushed)
        self._flushed += size
        for at in range(0, size, BLOCK):
            self.checksums.append(self._extend(0, data[at : at + BLOCK]))

    def align(self) -> None:
        self.write(bytes(-self.offset & 7))

    def finish(self) -> None:
        """Fill the last block with zeros."""
        self.write(bytes(-self.offset % BLOCK))
        self._flush(len(self._pending))


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
        records = blocks.offset
        offsets = array("Q")
        hashes = array("Q")
        last: bytes | None = None
        for key, value in items:
            if last is not None and key <= last:
                raise InvalidRecord(f"snapshot key {key!r} does not come after {last!r}")
            if len(key) >= MAX_KEY:
                raise InvalidRecord(f"a snapshot key has less than {MAX_KEY} bytes")
            last = key
            offsets.append(blocks.offset)
            hashes.append(_slot(key))
            blocks.write(RECORD.pack(len(key), len(value)) + key + value)
        blocks.align()
        count = len(offsets)
        offsets_at = blocks.offset
        _little(offsets)
        blocks.write(offsets.tobytes())
        slots_at = blocks.offset
        size = 1 << max(1, (count * 2 - 1).bit_length()) if count else 2
        table = array("I", bytes(4 * size))
        mask = size - 1
        for index, number in enumerate(hashes):
            at = number & mask
            while table[at]:
                at = at + 1 & mask
            table[at] = index + 1
        _little(table)
        blocks.write(table.tobytes())
        blocks.align()
        meta_at = blocks.offset
        raw_meta = encode(meta)
        blocks.write(len(raw_meta).to_bytes(8, "little") + raw_meta)
        blocks.finish()
        checksums_at = blocks.offset
        header = HEADER.pack(
            MAGIC, 1, algorithm, BLOCK, uuid, position.segment, position.offset,
            position.sequence, position.link, schema, reducer_version, count, digest, size,
            records, offsets_at, slots_at, meta_at, checksums_at, time_ns,
        ).ljust(HEADER_SIZE, b"\0")  # fmt: skip
        first = fs.pread(fd, BLOCK, 0)
        blocks.checksums[0] = extend(0, header + first[HEADER_SIZE:])
        _little(blocks.checksums)
        sums = blocks.checksums.tobytes()
        total = checksums_at + len(sums) + FOOTER.size
        hashed = sha256(header + sums + total.to_bytes(8, "little")).digest()
        write_all(fs, fd, header, 0)
        write_all(fs, fd, sums + FOOTER.pack(checksums_at, total, hashed, END), checksums_at)
        fs.fdatasync(fd)
    finally:
        fs.close(fd)
    return Described(
        uuid, position, schema, reducer_version, count, digest, time_ns, hashed, total, meta
    )


def _little(values: array[int]) -> None:
    import sys

    if sys.byteorder == "big":
        values.byteswap()


class Snapshot:
    """An open snapshot file, proved whole (not yet trusted); close it after the last look-up."""

    def __init__(self, fs: Fs, path: str) -> None:
        """Map the file. ``SnapshotRefused`` names what is wrong with it."""
        self.path = path
        self._fs = fs
        self._fd = fd = fs.open(path, O_RDONLY)
        self._blocks: dict[int, bytes] = {}
        self._bounds: dict[bytes, tuple[int, int]] = {}
        try:
            size = fs.fstat(fd).st_size
            if size < HEADER_SIZE + FOOTER.size:
                raise SnapshotRefused(f"{path}: too short")
            head = fs.pread(fd, HEADER_SIZE, 0)
            foot = fs.pread(fd, FOOTER.size, size - FOOTER.size)
            fields = HEADER.unpack_from(head)
            checksums_at, total, hashed, end = FOOTER.unpack(foot)
            room = size - FOOTER.size
            if fields[0][:7] != MAGIC[:7] or end != END or total != size or checksums_at > room:
                raise SnapshotRefused(f"{path}: header or footer is not that of a snapshot")
            if fields[0] != MAGIC or fields[1] != 1 or fields[3] != BLOCK:
                raise UnsupportedFormat(f"{path}: needs a newer version")
            sums = fs.pread(fd, room - checksums_at, checksums_at)
            if (
                sha256(head + sums + size.to_bytes(8, "little")).digest() != hashed
                or fields[18] != checksums_at
                or len(sums) * BLOCK != checksums_at * 4
            ):
                raise SnapshotRefused(f"{path}: header or block checksums are damaged")
            self._read_head(fields, sums, hashed, size)
        except BaseException:
            self.close()
            raise

    def _read_head(self, fields: tuple[Any, ...], sums: bytes, hashed: bytes, size: int) -> None:
        (
            _, _, algorithm, _, uuid, segment, offset, sequence, link, schema, reducer_version,
            count, digest, slots, self._records, self._offsets, self._slots, self._meta, _, time_ns,
        ) = fields  # fmt: skip
        self._extend = extender(algorithm if algorithm else CRC32C)
        self._sums = array("I", sums)
        _little(self._sums)
        self._mask = slots - 1
        self._count: int = count
        self.position = Position(segment, offset, sequence, link)
        self.digest: bytes = digest
        length = int.from_bytes(self._bytes(self._meta, 8), "little")
        self.described = Described(
            uuid, self.position, schema, reducer_version, count, digest, time_ns, hashed, size,
            decode(self._bytes(self._meta + 8, length)),
        )  # fmt: skip

    # -- bytes --------------------------------------------------------------------------------

    def _block(self, block: int) -> bytes:
        """A block, proved."""
        found = self._blocks.get(block)
        return self._prove(block) if found is None else found

    def _prove(self, block: int) -> bytes:
        """Read a block, prove it and keep it."""
        if not 0 <= block < len(self._sums):
            raise SnapshotRefused(f"{self.path}: an offset points outside the file")
        data = self._fs.pread(self._fd, BLOCK, block * BLOCK)
        if len(data) < BLOCK:
            data = read_range(self._fs, self._fd, block * BLOCK, BLOCK)
        if self._extend(0, data) != self._sums[block]:
            raise SnapshotRefused(f"{self.path}: block {block} is damaged")
        kept = self._blocks
        if len(kept) >= KEPT:
            for old in tuple(kept)[: KEPT // 4]:
                kept.pop(old, None)  # another thread may have been quicker
        kept[block] = data
        return data

    def _bytes(self, offset: int, size: int) -> bytes:
        block, at = offset >> SHIFT, offset & (BLOCK - 1)
        data = self._block(block)
        if at + size <= BLOCK:
            return data[at : at + size]
        parts = [data[at:]]
        left = size - (BLOCK - at)
        while left > 0:
            block += 1
            parts.append(self._block(block)[:left])
            left -= BLOCK
        return b"".join(parts)

    def _offset(self, index: int) -> int:
        return int.from_bytes(self._bytes(self._offsets + 8 * index, 8), "little")

    def _key(self, index: int) -> bytes:
        at = self._offset(index)
        return self._bytes(at + 8, int.from_bytes(self._bytes(at, 4), "little"))

    def _record(self, index: int) -> tuple[bytes, bytes]:
        at = self._offset(index)
        key, value = RECORD.unpack(self._bytes(at, 8))
        raw = self._bytes(at + 8, key + value)
        return raw[:key], raw[key:]

    # -- looking up ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        """A snapshot of an empty state is one as well."""
        return True

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None. ``SnapshotRefused`` if its block is damaged."""
        mask = self._mask
        slot = int.from_bytes(blake2b(key, digest_size=8).digest(), "little") & mask
        kept = self._blocks
        size = len(key)
        while True:
            at = self._slots + 4 * slot  # neither slots nor offsets lie across two blocks
            data = kept.get(at >> SHIFT) or self._prove(at >> SHIFT)
            index = int.from_bytes(data[(at := at & (BLOCK - 1)) : at + 4], "little")
            if not index:
                return None
            at = self._offsets + 8 * index - 8
            data = kept.get(at >> SHIFT) or self._prove(at >> SHIFT)
            record = int.from_bytes(data[(at := at & (BLOCK - 1)) : at + 8], "little")
            data = kept.get(record >> SHIFT) or self._prove(record >> SHIFT)
            at = record & (BLOCK - 1)
            if at + 8 + size <= BLOCK:
                found, length = RECORD.unpack_from(data, at)
                at += 8
                if found == size and data[at : at + size] == key:
                    at += size
                    if at + length <= BLOCK:
                        return data[at : at + length]
                    return self._bytes(record + 8 + size, length)
            else:
                found, length = RECORD.unpack(self._bytes(record, 8))
                if found == size and self._bytes(record + 8, size) == key:
                    return self._bytes(record + 8 + size, length)
            slot = slot + 1 & mask

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def _bisect(self, key: bytes) -> int:
        """Number of records whose key is smaller."""
        if not key:
            return 0
        low, high = self._among(key[:1])
        wanted = _measure(key)
        if wanted < 0 or high - low < 64:
            return self._halve(key, low, high)
        # Between these two the keys are taken to be spread evenly.
        below, above = 0, 1 << 4 * DIGITS
        for _ in range(GUESSES):
            if high - low < 8:
                break
            share = (wanted - below) * (high - low) // max(above - below, 1)
            middle = min(max(low + share, low), high - 1)
            found = self._key(middle)
            measured = _measure(found)
            if found < key:
                low, below = middle + 1, measured
            else:
                high, above = middle, measured
            if measured < 0 or not below <= wanted <= above:
                break
            # A few places beside the guess is where the key is expected; if it is there, half of
            # what is left goes with one look more.
            reach = max(4, int((high - low) ** 0.5))
            if found < key and low + reach < high:
                probe = self._key(low + reach)
                if probe >= key:
                    high, above = low + reach, max(_measure(probe), wanted)
            elif found >= key and high - reach > low:
                probe = self._key(high - reach)
                if probe < key:
                    low, below = high - reach + 1, min(max(_measure(probe), 0), wanted)
        return self._halve(key, low, high)

    def _halve(self, key: bytes, low: int, high: int) -> int:
        while low < high:
            middle = low + high >> 1
            if self._key(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _among(self, first: bytes) -> tuple[int, int]:
        """Where the records are whose keys begin with this byte; looked for once."""
        found = self._bounds.get(first)
        if found is None:
            above = _after(first)
            start = self._halve(first, 0, self._count)
            end = self._halve(above, start, self._count) if above else self._count
            found = self._bounds[first] = (start, end)
        return found

    def scan(
        self, prefix: bytes = b"", start: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Records whose key begins with ``prefix``, in key order, from ``start`` (a whole key,
        included) on; in reverse order from ``start`` downwards."""
        if reverse:
            if start:
                index = self._bisect(start)
                if index == self._count or self._key(index) != start:
                    index -= 1
            else:
                above = _after(prefix)
                index = (self._bisect(above) if above else self._count) - 1
            while index >= 0:
                record = self._record(index)
                if not record[0].startswith(prefix):
                    return
                yield record
                index -= 1
            return
        index = self._bisect(max(prefix, start))
        while index < self._count:
            record = self._record(index)
            if not record[0].startswith(prefix):
                return
            yield record
            index += 1

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All records in key order."""
        return self.scan()

    def prove_all(self) -> None:
        """Check every block and the digest. ``SnapshotRefused`` says what is wrong."""
        from journal.digest import StateDigest

        for block in range(len(self._sums)):
            self._prove(block)
        digest = StateDigest()
        last: bytes | None = None
        for key, value in self.items():
            if last is not None and key <= last:
                raise SnapshotRefused(f"{self.path}: keys are not in order")
            last = key
            digest.add(key, value)
            if self.get(key) != value:
                raise SnapshotRefused(f"{self.path}: key {key!r} is not found by its hash")
        if digest.value() != self.digest:
            raise SnapshotRefused(f"{self.path}: the records do not have the digest it names")

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        self._blocks.clear()
        if fd >= 0:
            self._fs.close(fd)

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


DIGITS = 12


def _measure(key: bytes) -> int:
    """Where a key whose second byte begins a hash stands among such keys; -1 for other keys."""
    try:
        return int(key[1 : 1 + DIGITS].ljust(DIGITS, b"0"), 16)
    except ValueError:
        return -1


def _after(prefix: bytes) -> bytes:
    """The smallest key above all keys with this prefix; empty if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b""
