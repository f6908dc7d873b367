"""One frame: the bytes of one transaction or one control record (journal format, section 3).

Rules of this module:

* header 40 bytes, body padded with zeros to 8, trailer 40 bytes; the link is always the last 32
  bytes of the frame. Little-endian, every frame starts at a multiple of 8.
* Order of checks: magic, header checksum, length limit, enough bytes, body checksum, trailing
  length, chain link and sequence number. A length is never used before its checksum was right.
* Both checksums are seeded with the segment's seed mixed with the frame's place, so bytes of
  another segment, another journal or another place in the same segment never validate.
* The link hashes stored bytes, never a re-encoding. The body checksum covers the link too: else a
  torn write could leave a frame whose checksums hold and whose link does not, which is damage.
* Pure: bytes in, tuples out.
"""

from __future__ import annotations

from struct import Struct

from journal.checksum import hashing
from journal.codec import decode
from journal.errors import InvalidRecord, UnsupportedFormat
from journal.plain import TYPE_CHECKING, Any, NamedTuple
from journal.position import Position

if TYPE_CHECKING:
    from journal.checksum import Extend

MAGIC = b"JFR1"
HEADER = Struct("<4sIIBBHQQQ")
CONTENT = Struct("<IBBHQQQ")
"""The header without what comes before its checksum's range."""
TRAILER = Struct("<II32s")
HEADER_SIZE = 40
TRAILER_SIZE = 40
OVERHEAD = 80
MAX_BODY = 16 << 20
MAX_EVENTS = 0xFFFF

# Kinds. Numbers are never reassigned.
DATA = 1
OPEN = 2
CLOSE = 3
SEAL = 4
SNAPSHOT_REF = 5
RECOVERY = 6
GAP = 7
PRUNE = 8
KINDS = {
    DATA: "data",
    OPEN: "open",
    CLOSE: "close",
    SEAL: "seal",
    SNAPSHOT_REF: "snapshot-ref",
    RECOVERY: "recovery",
    GAP: "gap",
    PRUNE: "prune",
}

OPTIONAL = 0x01
"""Flag: a reader that does not know the kind may skip the frame."""
INCOMPATIBLE = 0xF0
"""Flags: any of these bits that is not known forbids reading."""

# Why parsing stopped.
NONE = "none"
SHORT = "short"
HEADER_BAD = "header"
BODY_SHORT = "body-short"
BODY_BAD = "body"
CHAIN = "chain"


_new = tuple.__new__


class Transaction(NamedTuple):
    """The decoded body of a data frame."""

    schema: int
    actor: list[Any]
    txid: bytes
    reason: str
    events: list[list[Any]]


class Frame(NamedTuple):
    """One valid frame. ``count`` events, the first numbered ``first_sequence``; control frames
    have count 0 and carry the number the next event will get."""

    kind: int
    flags: int
    count: int  # type: ignore[assignment]  # hides tuple.count on purpose
    first_sequence: int
    promise: int
    time_ns: int
    segment: int
    offset: int
    stop: int
    body: bytes
    link: bytes
    previous: bytes

    @property
    def position(self) -> Position:
        """The place just before the frame."""
        return Position(self.segment, self.offset, self.first_sequence - 1, self.previous)

    @property
    def end(self) -> Position:
        """The place just after the frame: resume here."""
        return Position(self.segment, self.stop, self.last_sequence, self.link)

    @property
    def last_sequence(self) -> int:
        """Number of the last event up to and including this frame."""
        if self.kind == GAP:
            return lost_until(self.body)
        return self.first_sequence + self.count - 1

    @property
    def kind_name(self) -> str:
        return KINDS.get(self.kind, f"kind-{self.kind}")

    def value(self) -> Any:
        """The decoded body."""
        return decode(self.body)

    def transaction(self) -> Transaction:
        """The decoded transaction of a data frame; further fields of later versions are ignored."""
        if self[0] != DATA:
            raise InvalidRecord(f"a {self.kind_name} frame holds no transaction")
        value = decode(self[9])
        try:
            count = len(value[4])
        except (TypeError, LookupError):
            count = -1
        if count != self[2] or type(value) is not list or type(value[4]) is not list:
            raise InvalidRecord(
                f"frame at {self.segment}:{self.offset}: no transaction of {self.count} events"
            )
        return _new(Transaction, value if len(value) == 5 else value[:5])


def seed_at(seed: int, offset: int) -> int:
    """The checksum seed of the frame at ``offset``: the segment's seed mixed with the place."""
    return seed ^ (offset >> 3 & 0xFFFFFFFF)


def size_of(body: int) -> int:
    """Bytes of a frame whose body has ``body`` bytes."""
    return OVERHEAD + (body + 7 & -8)


def build(
    extend: Extend,
    seed: int,
    offset: int,
    previous: bytes,
    *,
    kind: int,
    first_sequence: int,
    count: int,
    promise: int,
    time_ns: int,
    body: bytes,
    flags: int = 0,
) -> tuple[bytes, bytes]:
    """The frame's bytes and its link."""
    length = len(body)
    content = CONTENT.pack(length, kind, flags, count, first_sequence, promise, time_ns)
    here = seed ^ (offset >> 3 & 0xFFFFFFFF)
    crc = extend(here, content)
    content = content + body + bytes(-length & 7) if length & 7 else content + body
    link = hashing(length)(previous + content).digest()
    # Going on from the seed with header and body is going on from the header's checksum.
    trailer = TRAILER.pack(extend(extend(here, content), link), length, link)
    return MAGIC + crc.to_bytes(4, "little") + content + trailer, link


class Run(NamedTuple):
    """Where a parse ended: offset in the file, last event sequence, last link, why, kind and
    promise of the last frame (0 if none was parsed), number of frames, what the next frame's
    link is computed from (the last link, except after a repair; ``resumed``), and the time of the
    last frame."""

    offset: int
    sequence: int
    link: bytes
    fault: str
    kind: int
    promise: int
    frames: int
    chain: bytes
    time_ns: int


def lost_until(body: bytes) -> int:
    """The number of the last event that a gap frame says is lost."""
    value = decode(body)
    if not isinstance(value, list) or len(value) < 2 or type(value[1]) is not int:
        raise InvalidRecord("a gap frame that does not say which events are lost")
    return value[1]


def resumed(body: bytes, kind: int) -> bytes | None:
    """What the chain goes on from after a gap or a seal that a repair wrote, None if it does not
    say. Gap: [first lost, last lost, reason, link to go on from, link of the next frame, …]; where
    the former was lost too, the next frame's link is taken as stated ("=" before it)."""
    value = decode(body)
    if not isinstance(value, list):
        raise InvalidRecord(f"a {KINDS[kind]} frame whose body is not a list")
    try:
        given = value[4] if len(value) > 4 else None
        if kind == GAP and value[3] is None:
            return b"=" + given if given is not None else None
        if kind == GAP:
            given = value[3]
        return b"" + given if given is not None else None
    except (TypeError, LookupError) as error:
        raise InvalidRecord(f"a {KINDS[kind]} frame with the body of another: {error}") from error


def parse(
    buffer: bytes,
    base: int,
    segment: int,
    seed: int,
    extend: Extend,
    sequence: int,
    link: bytes,
    out: list[Frame] | None,
    chain: bytes | None = None,
    backwards: list[int] | None = None,
) -> Run:
    """Parse whole valid frames from the start of ``buffer``, which begins at file offset ``base``.

    Appends them to ``out`` (if given) and stops at the first byte that is not one, or after a
    seal. ``chain`` is given where it is not ``link``. ``backwards``, where given, gets the offsets
    of frames that are older than the one before, and ``out`` control frames alone.
    ``UnsupportedFormat`` for a valid frame of an unknown kind that is not optional.
    """
    # Every frame of every replay comes through here, hence the local names and the few calls.
    position = 0
    size = len(buffer)
    unpack = HEADER.unpack_from
    unpack_trailer = TRAILER.unpack_from
    new = _new
    hasher = hashing(size)
    every = out is not None and backwards is None
    following = sequence + 1
    chain = chain or link
    kind, promised, frames, time_ns = 0, 0, 0, 0
    fault = NONE
    while position < size:
        body_at = position + 40
        if body_at > size:
            fault = SHORT
            break
        magic, crc, length, kind_, flags, count, first, promise, now = unpack(buffer, position)
        offset = base + position
        here = seed ^ (offset >> 3 & 0xFFFFFFFF)
        if (
            magic != MAGIC
            or extend(here, buffer[position + 8 : body_at]) != crc
            or length > MAX_BODY
        ):
            fault = HEADER_BAD
            break
        end = body_at + (length + 7 & -8)
        stop = end + 40
        if stop > size:
            fault = BODY_SHORT
            break
        content = buffer[position + 8 : end]
        body_crc, again, stored = unpack_trailer(buffer, end)
        # The header's checksum was right, so going on from the seed is going on from it.
        if again != length or extend(extend(here, content), stored) != body_crc:
            fault = BODY_BAD
            break
        if (
            first != following
            or (hasher(chain + content).digest() != stored and chain != b"=" + stored)
            or promise > offset
            or (not count if kind_ == DATA else count)
        ):
            fault = CHAIN
            break
        if kind_ == DATA and not flags:
            wanted = every
        elif flags & INCOMPATIBLE or (not 0 < kind_ <= PRUNE and not flags & OPTIONAL):
            raise UnsupportedFormat(
                f"segment {segment} offset {offset}: frame kind {kind_} with flags {flags:#x} "
                "needs a newer version"
            )
        else:
            wanted = out is not None and (every or kind_ != DATA)
        if wanted:
            out.append(  # type: ignore[union-attr]
                new(
                    Frame,
                    (
                        kind_, flags, count, first, promise, now, segment, offset,
                        base + stop, buffer[body_at : body_at + length], stored, link,
                    ),
                )
            )  # fmt: skip
        if now < time_ns and backwards is not None:
            backwards.append(offset)
        following = first + count
        link = chain = stored
        kind, promised, time_ns = kind_, promise, now
        frames += 1
        position = stop
        if kind_ in (SEAL, GAP):
            body = buffer[body_at : body_at + length]
            chain = resumed(body, kind_) or stored
            if kind_ == SEAL:
                if position < size:
                    fault = CHAIN
                break
            following = lost_until(body) + 1
    return Run(base + position, following - 1, link, fault, kind, promised, frames, chain, time_ns)


class Later(NamedTuple):
    """What a search behind an invalid byte found."""

    frames: int
    promised: int
    """Largest promise of any frame header that verifies."""
    offsets: list[int]


_places: dict[int, list[tuple[int, int]]] = {}


def _place_of(extend: Extend, seed: int, head: bytes, crc: int) -> int:
    """The offset for which ``head`` has this checksum.

    A checksum is linear in its seed: the difference to the checksum for offset 0 is a linear map
    of the place, which is inverted here (elimination over 32 bits, once per algorithm). Bytes
    that were shifted inside their segment are recognised by it.
    """
    rows = _places.get(id(extend))
    if rows is None:
        zeros = bytes(HEADER_SIZE - 8)
        base = extend(0, zeros)
        rows = []
        for bit in range(32):
            image, source = extend(1 << bit, zeros) ^ base, 1 << bit
            for other, origin in rows:
                if image ^ other < image:
                    image, source = image ^ other, source ^ origin
            rows.append((image, source))
            rows.sort(reverse=True)
        _places[id(extend)] = rows
    difference = extend(seed, head) ^ crc
    place = 0
    for image, source in rows:
        if difference ^ image < difference:
            difference, place = difference ^ image, place ^ source
    return place << 3


def search(
    buffer: bytes, base: int, start: int, *, seed: int, extend: Extend, sequence: int = 0
) -> Later:
    """Look for frames anywhere at or after ``start`` (offset in ``buffer``): evidence for or
    against damage. A header that verifies is enough for its promise; its body must verify too to
    count as a frame. A frame of this segment that was shifted counts if its events are newer than
    ``sequence`` (older ones may be stale bytes behind a torn append)."""
    frames = promised = 0
    offsets: list[int] = []
    at = start
    while len(offsets) < 1 << 16:
        at = buffer.find(MAGIC, at)
        if at < 0 or at + HEADER_SIZE > len(buffer):
            break
        offset = base + at
        _, crc, length, _, _, _, first, promise, _ = HEADER.unpack_from(buffer, at)
        head = buffer[at + 8 : at + HEADER_SIZE]
        shifted = bool(offset & 7) or extend(seed_at(seed, offset), head) != crc
        if shifted:
            place = _place_of(extend, seed, head, crc)
            if place > 1 << 31 or first <= sequence or promise > place:
                at += 1
                continue
        if length > MAX_BODY or (promise > offset and not shifted):
            at += 1
            continue
        if not shifted:
            promised = max(promised, promise)
        end = at + HEADER_SIZE + (length + 7 & -8)
        if end + TRAILER_SIZE <= len(buffer):
            body_crc, again, link = TRAILER.unpack_from(buffer, end)
            body = buffer[at + HEADER_SIZE : end]
            if again == length and extend(extend(crc, body), link) == body_crc:
                frames += 1
                promised = max(promised, promise)
                offsets.append(offset)
                at = end + TRAILER_SIZE
                continue
        at += 1
    return Later(frames, promised, offsets)
