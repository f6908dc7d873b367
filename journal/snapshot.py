"""One snapshot file: a sorted table of keys and values that is looked up without being loaded.

Rules of this module (docs/journal-format.md, section 7):

* Parts: header, records in key order, record offsets (sorted), buckets of a hash table, filters,
  meta, block checksums, footer. The file's hash covers header, meta, block checksums and length.
* What a look-up reads is small and proves itself: records, buckets and filters carry checksums of
  their own, an offset is proved by the record's index. So a look costs the same in a file of any
  size, and nothing needs to be kept: memory does not grow with the file nor with the look-ups. (A
  map of the file would grow: whatever is touched counts as the process's memory, and the kernel
  maps its neighbours with it.)
* A point look-up reads one bucket (of one full in twenty the next one, too) and one record. A scan
  asks a filter first whether any key begins like that; then it searches the offsets: keys are
  mostly hashes, so it guesses where a key stands, twice or so, and reads the neighbours together.
* Immutable once named. This module proves that a file is whole; whether it may be *trusted* is
  decided in ``snapshots``. ``snapshot_writer`` makes the files.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from struct import Struct, unpack

from journal.checksum import CRC32C, blake2b, extender, sha256
from journal.codec import decode
from journal.errors import SnapshotRefused, UnsupportedFormat
from journal.fs import O_RDONLY, Fs, read_range
from journal.plain import TYPE_CHECKING, Any, NamedTuple
from journal.position import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAGIC = b"JRNLSNP\x02"
END = b"JRNLEND\x02"
VERSION = 2
BLOCK = 1 << 20
"""What one of the checksums covers that an audit of the whole file proves."""
GUESSES = 8
"""Looks of a search that guesses before it halves: so much for keys that are no hashes."""
NEAR = 32
"""Records so close to each other that they are read together rather than looked at one by one."""
# magic, version, checksum id, block size, uuid, segment, offset, sequence, link, schema,
# reducer version, count, digest, buckets, filters, offsets of: offsets, buckets, filters, meta,
# checksums; time
HEADER = Struct("<8sHHI16sQQQ32sIIQ32sQQQQQQQQ")
HEADER_SIZE = 256
FOOTER = Struct("<QQ32s8s")  # checksums offset, file length, hash, magic
RECORD = Struct("<IIII")  # checksum of what follows, index, lengths of key and value
AT_ONCE = 1 << 10
"""Bytes read where a record begins: all of nearly every one."""
READ_MOST = 256 << 10
"""Bytes that a scan reads at once when it goes on for long."""
CLOSE = 4 << 10
WINDOW = 64 << 10
"""Bytes read at once for many looks whose places are ``CLOSE`` to each other on the average."""

BUCKET = 128
PLACES = 13
"""Places of a bucket: a checksum, so many tags of 4 bytes, so many offsets of 5 bytes."""
TAGS = 4
OFFSETS = TAGS + 4 * PLACES
PLACE = 5
FREE = bytes(4)
FILTER = 64
BITS = 8 * (FILTER - 4)
PREFIX = 9
"""Bytes of a key's beginning that the filters know."""


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


def hashed(data: bytes) -> bytes:
    """Eight bytes that choose a bucket and are the tag in it."""
    digest: bytes = blake2b(data, digest_size=8).digest()
    return digest


def tag_of(digest: bytes) -> bytes:
    """What stands in a bucket for a key; never ``FREE``."""
    tag = digest[4:]
    return tag if tag != FREE else b"\1\0\0\0"


def marks(number: int) -> int:
    """The bits of a filter that say: a key begins with what has this hash."""
    mixed = number * 0x9E3779B97F4A7C15
    return (
        1 << (mixed >> 16 & 0xFFFF) % BITS
        | 1 << (mixed >> 32 & 0xFFFF) % BITS
        | 1 << (mixed >> 48 & 0xFFFF) % BITS
        | 1 << (mixed >> 64 & 0xFFFF) % BITS
    )


class Snapshot:
    """An open snapshot file, proved whole (not yet trusted); close it after the last look-up.

    Safe to use from several threads.
    """

    def __init__(self, fs: Fs, path: str) -> None:
        """Open the file. ``SnapshotRefused`` names what is wrong with it."""
        self.path = path
        self._fs = fs
        self._pread = fs.pread
        self._fd = fd = fs.open(path, O_RDONLY)
        self._bounds: dict[bytes, tuple[int, int]] = {}
        try:
            size = fs.fstat(fd).st_size
            if size < HEADER_SIZE + FOOTER.size:
                raise SnapshotRefused(f"{path}: too short")
            head = read_range(fs, fd, 0, HEADER_SIZE)
            foot = read_range(fs, fd, size - FOOTER.size, FOOTER.size)
            fields = HEADER.unpack_from(head)
            checksums_at, total, hash_, end = FOOTER.unpack(foot)
            room = size - FOOTER.size
            if fields[0][:7] == MAGIC[:7] and fields[0] != MAGIC:
                raise UnsupportedFormat(f"{path}: of another version of the format")
            meta_at = fields[18]
            if (
                (fields[0], fields[1], fields[3]) != (MAGIC, VERSION, BLOCK)
                or (total, end) != (size, END)
                or not HEADER_SIZE <= meta_at <= checksums_at <= room
            ):
                raise SnapshotRefused(f"{path}: header or footer is not that of a snapshot")
            sums = read_range(fs, fd, checksums_at, room - checksums_at)
            raw = read_range(fs, fd, meta_at, checksums_at - meta_at)
            if (
                sha256(head + raw + sums + size.to_bytes(8, "little")).digest() != hash_
                or fields[19] != checksums_at
                or len(sums) != 4 * -(-checksums_at // BLOCK)
            ):
                raise SnapshotRefused(f"{path}: header, meta or block checksums are damaged")
            self._read_head(fields, sums, hash_, size, raw)
        except BaseException:
            self.close()
            raise

    def _read_head(
        self, fields: tuple[Any, ...], sums: bytes, hash_: bytes, size: int, meta: bytes
    ) -> None:
        (
            _, _, algorithm, _, uuid, segment, offset, sequence, link, schema, reducer_version,
            count, digest, self._buckets, self._filters, self._offsets_at, self._buckets_at,
            self._filters_at, meta_at, self._end, time_ns,
        ) = fields  # fmt: skip
        if not (
            self._buckets > 0 < self._filters
            and HEADER_SIZE <= self._offsets_at <= self._buckets_at - 8 * count
            and self._buckets_at <= self._filters_at - BUCKET * self._buckets
            and self._filters_at <= meta_at - FILTER * self._filters
        ):
            raise SnapshotRefused(f"{self.path}: the parts are not where they can be")
        self._extend = extender(algorithm if algorithm else CRC32C)
        self._sums = sums
        self._count: int = count
        self.position = Position(segment, offset, sequence, link)
        self.digest: bytes = digest
        self.described = Described(
            uuid, self.position, schema, reducer_version, count, digest, time_ns, hash_, size,
            decode(meta),
        )  # fmt: skip

    # -- bytes --------------------------------------------------------------------------------

    def _refuse(self, what: str) -> SnapshotRefused:
        return SnapshotRefused(f"{self.path}: {what} is damaged")

    def _proved(self, what: str, offset: int, size: int) -> bytes:
        """A bucket or a filter: its checksum stands before it."""
        data = self._pread(self._fd, size, offset)
        if len(data) < size:
            data = read_range(self._fs, self._fd, offset, size)
        if self._extend(0, data[4:]) != int.from_bytes(data[:4], "little") or len(data) < size:
            raise self._refuse(f"the {what} at {offset}")
        return data

    def _at(self, offset: int) -> tuple[int, bytes, bytes]:
        """Index, key and value of the record that begins there."""
        data = self._pread(self._fd, AT_ONCE, offset)
        if len(data) < RECORD.size:
            data = read_range(self._fs, self._fd, offset, RECORD.size)
        if len(data) >= RECORD.size:
            checksum, index, key, value = RECORD.unpack_from(data)
            key += RECORD.size
            end = key + value
            if len(data) < end <= self._offsets_at - offset:
                data = read_range(self._fs, self._fd, offset, end)
            if self._extend(0, data[4:end]) == checksum and len(data) >= end:
                return index, data[RECORD.size : key], data[key:end]
        raise self._refuse(f"the record at {offset}")

    def _offset(self, index: int) -> int:
        """Where a record begins, if that is undamaged: the record's index will tell."""
        raw = read_range(self._fs, self._fd, self._offsets_at + 8 * index, 8)
        offset = int.from_bytes(raw, "little")
        if offset > self._offsets_at:
            raise self._refuse(f"the offset of record {index}")
        return offset

    def _key(self, index: int) -> bytes:
        found, key, _ = self._at(self._offset(index))
        if found != index:
            raise self._refuse(f"the offset of record {index}")
        return key

    # -- looking up ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        """A snapshot of an empty state is one as well."""
        return True

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None. ``SnapshotRefused`` if what it reads is damaged."""
        digest = hashed(key)
        tag = tag_of(digest)
        bucket = int.from_bytes(digest, "little") % self._buckets
        for _ in range(self._buckets):
            data = self._proved("bucket", self._buckets_at + BUCKET * bucket, BUCKET)
            at = data.find(tag, TAGS, OFFSETS)
            while at >= 0:
                if not at & 3:
                    place = OFFSETS + (at - TAGS >> 2) * PLACE
                    offset = int.from_bytes(data[place : place + PLACE], "little")
                    _, found, value = self._at(offset)
                    if found == key:
                        return value
                at = data.find(tag, at + 1, OFFSETS)
            if data[OFFSETS - 4 : OFFSETS] == FREE:
                return None
            bucket = (bucket + 1) % self._buckets
        return None

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are there; ``SnapshotRefused`` if what it reads is damaged.

        For a few hundred keys and more: looks lie in the file's order, and where they lie close to
        each other one read serves many.
        """
        looks: list[tuple[int, bytes, bytes]] = []
        for key in keys:
            digest = hashed(key)
            bucket = int.from_bytes(digest, "little") % self._buckets
            looks.append((self._buckets_at + BUCKET * bucket, tag_of(digest), key))
        looks.sort()
        extend, found = self._extend, {}
        places: list[tuple[int, bytes]] = []
        window = self._window([at for at, _, _ in looks], BUCKET)
        last, data = -1, b""
        for at, tag, key in looks:
            if at != last:
                data, last = window(at), at
                if extend(0, data[4:]) != int.from_bytes(data[:4], "little") or len(data) < BUCKET:
                    raise self._refuse(f"the bucket at {at}")
            tagged = data.find(tag, TAGS, OFFSETS)
            if tagged >= 0 and not tagged & 3 and data.find(tag, tagged + 1, OFFSETS) < 0:
                place = OFFSETS + (tagged - TAGS >> 2) * PLACE
                places.append((int.from_bytes(data[place : place + PLACE], "little"), key))
            elif (tagged >= 0 or data[OFFSETS - 4 : OFFSETS] != FREE) and (
                value := self.get(key)
            ) is not None:
                found[key] = value  # in the next bucket, or beside one that has the same tag
        places.sort()
        window = self._window([at for at, _ in places], AT_ONCE)
        for at, key in places:
            data = window(at)
            if len(data) >= RECORD.size:
                checksum, _, middle, end = RECORD.unpack_from(data)
                middle += RECORD.size
                end += middle
                if (
                    data[RECORD.size : middle] == key
                    and len(data) >= end
                    and extend(0, data[4:end]) == checksum
                ):
                    found[key] = data[middle:end]
                    continue
            # Longer than one read, of a key with the same tag, or damaged.
            if (value := self.get(key)) is not None:
                found[key] = value
        return found

    def _window(self, places: list[int], size: int) -> Callable[[int], bytes]:
        """Reads ``size`` bytes (fewer at the end of the file) at each of the ``places``, in order.

        Pieces that lie close enough are read as one: a call costs as much as copying some KiB.
        """
        pread, fd = self._pread, self._fd
        if len(places) < 2 or (places[-1] - places[0]) // len(places) > CLOSE:
            return partial(pread, fd, size)
        start, stop, data = 0, 0, b""

        def piece(at: int) -> bytes:
            nonlocal start, stop, data
            if at + size > stop:
                data = pread(fd, WINDOW, at)
                start, stop = at, at + len(data)
            return data[at - start : at - start + size]

        return piece

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def _may_begin(self, prefix: bytes) -> bool:
        """Whether a key may begin with ``prefix``; False is certain."""
        if len(prefix) < PREFIX:
            return True
        number = int.from_bytes(hashed(prefix[:PREFIX]), "little")
        at = self._filters_at + FILTER * (number % self._filters)
        bits = int.from_bytes(self._proved("filter", at, FILTER)[4:], "little")
        wanted = marks(number)
        return bits & wanted == wanted

    def _bisect(self, key: bytes) -> int:
        """Number of records whose key is smaller."""
        if not key:
            return 0
        low, high = self._among(key[:1])
        wanted = _measure(key)
        # Between these two the keys are taken to be spread evenly.
        below, above = 0, 1 << 4 * DIGITS
        for _ in range(GUESSES if wanted >= 0 else 0):
            if high - low <= NEAR:
                break
            share = (wanted - below) * (high - low) // max(above - below, 1)
            middle = min(max(low + share, low), high - 1)
            # Of so many that lie before it, their root more or fewer may have come in between.
            spread = 2 + int(2 * min(middle - low, high - middle) ** 0.5)
            if 2 * spread <= NEAR:
                first, last = max(low, middle - spread), min(high, middle + spread)
                at = self._halve(key, first, last)
                if not (at == first > low or at == last < high):
                    return at
                middle = at if at == first else at - 1  # it stands further off
            found = self._key(middle)
            measured = _measure(found)
            if found < key:
                low, below = middle + 1, measured
            else:
                high, above = middle, measured
            if measured < 0 or not below <= wanted <= above:
                break
        return self._halve(key, low, high)

    def _halve(self, key: bytes, low: int, high: int) -> int:
        """The same, where it is known to be one of ``low`` to ``high``."""
        while high - low > NEAR:
            middle = low + high >> 1
            if self._key(middle) < key:
                low = middle + 1
            else:
                high = middle
        key_of = self._neighbours(low, high)
        while low < high:
            middle = low + high >> 1
            if key_of(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _neighbours(self, low: int, high: int) -> Callable[[int], bytes]:
        """Keys of the records from ``low`` up to ``high``; two reads get them if they are short."""
        if high - low < 2:
            return self._key
        end = min(high + 1, self._count)
        raw = read_range(self._fs, self._fd, self._offsets_at + 8 * low, 8 * (end - low))
        places = [*unpack(f"<{len(raw) // 8}Q", raw)]
        if end == high:
            places.append(self._offsets_at)
        start, size = places[0], places[-1] - places[0]
        if len(places) <= high - low or not 0 < size <= WINDOW or start + size > self._offsets_at:
            return self._key
        data = read_range(self._fs, self._fd, start, size)

        def key_of(index: int) -> bytes:
            at = places[index - low] - start
            if 0 <= at <= len(data) - RECORD.size:
                checksum, found, middle, end = RECORD.unpack_from(data, at)
                middle += at + RECORD.size
                end += middle
                proved = end <= len(data) and self._extend(0, data[at + 4 : end]) == checksum
                if found == index and proved:
                    return data[at + RECORD.size : middle]
            raise self._refuse(f"the offset of record {index}")

        return key_of

    def _among(self, first: bytes) -> tuple[int, int]:
        """Where the records are whose keys begin with this byte; looked for once."""
        found = self._bounds.get(first)
        if found is None:
            above = _after(first)
            start = self._halve(first, 0, self._count)
            end = self._halve(above, start, self._count) if above else self._count
            found = self._bounds[first] = (start, end)
        return found

    def _forward(self, index: int) -> Iterator[tuple[bytes, bytes]]:
        """Records from ``index`` on, one behind the other as they lie in the file."""
        if index >= self._count:
            return
        data = b""
        at, size, offset = 0, 4 << 10, self._offset(index)
        while index < self._count:
            checksum, found, middle, end = 0, -1, 0, at + RECORD.size
            if end <= len(data):
                checksum, found, middle, end = RECORD.unpack_from(data, at)
                middle += at + RECORD.size
                end += middle
            if end > len(data):
                offset += at
                end -= at
                left = self._offsets_at - offset
                data = b"" if end > left else read_range(
                    self._fs, self._fd, offset, min(max(end, size), left)
                )  # fmt: skip
                if len(data) < end:
                    raise self._refuse(f"the record at {offset}")
                at, size = 0, min(2 * size, READ_MOST)
                continue
            if found != index or self._extend(0, data[at + 4 : end]) != checksum:
                raise self._refuse(f"record {index}")
            yield data[at + RECORD.size : middle], data[middle:end]
            at = end
            index += 1

    def _backward(self, index: int) -> Iterator[tuple[bytes, bytes]]:
        """Records from ``index`` down."""
        step = 8
        while index >= 0:
            first = max(0, index + 1 - step)
            yield from reversed(list(islice(self._forward(first), index + 1 - first)))
            index, step = first - 1, 128

    def scan(
        self, prefix: bytes = b"", start: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Records whose key begins with ``prefix``, in key order, from ``start`` (a whole key,
        included) on; in reverse order from ``start`` downwards."""
        if not self._may_begin(prefix):
            return
        if not reverse:
            records = self._forward(self._bisect(max(prefix, start)))
        elif start:
            index = self._bisect(start)
            if index == self._count or self._key(index) != start:
                index -= 1
            records = self._backward(index)
        else:
            above = _after(prefix)
            records = self._backward((self._bisect(above) if above else self._count) - 1)
        for record in records:
            if not record[0].startswith(prefix):
                return
            yield record

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All records in key order."""
        return self.scan()

    def prove_all(self) -> None:
        """Check every block and the digest. ``SnapshotRefused`` says what is wrong."""
        from journal.digest import StateDigest

        for block in range(len(self._sums) // 4):
            at = block * BLOCK
            data = read_range(self._fs, self._fd, at, min(BLOCK, self._end - at))
            said = self._sums[4 * block : 4 * block + 4]
            if self._extend(0, data) != int.from_bytes(said, "little"):
                raise self._refuse(f"block {block}")
        digest = StateDigest()
        last: bytes | None = None
        for key, value in self.items():
            if last is not None and key <= last:
                raise SnapshotRefused(f"{self.path}: keys are not in order")
            last = key
            digest.add(key, value)
            if self.get(key) != value:
                raise SnapshotRefused(f"{self.path}: key {key!r} is not found by its hash")
            if not self._may_begin(key):
                raise SnapshotRefused(f"{self.path}: no filter knows how {key!r} begins")
        if digest.value() != self.digest:
            raise SnapshotRefused(f"{self.path}: the records do not have the digest it names")

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._fs.close(fd)

    def __del__(self) -> None:
        """Views may outlive the state that a process has gone over from: the last one closes."""
        if getattr(self, "_fd", -1) >= 0:
            self.close()

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
