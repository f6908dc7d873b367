"""Find everything in the bytes of a damaged segment that still proves itself.

Rules of this module (docs/recovery.md, "Repair"):

* A frame counts if its content gives its stored link, whatever its checksums say; or if its
  checksums hold in its place; or if the frame behind it was chained to it.
* What lies between two such places is a gap with known first and last sequence number.
* Pure: bytes in, pieces out.
"""

from __future__ import annotations

from typing import NamedTuple

from journal import frame as fr
from journal.checksum import Extend, chain
from journal.codec import encode
from journal.errors import JournalError


class Piece(NamedTuple):
    """A frame to keep: header bytes after the checksum, padded body, link."""

    head: bytes
    body: bytes
    link: bytes
    kind: int
    first: int
    events: int
    restored: bool


class Gap(NamedTuple):
    """Lost sequence numbers ``first`` to ``last`` (none if last < first) and the bytes there."""

    first: int
    last: int
    lost: bytes
    resume: bytes | None
    following: bytes | None


class Salvage(NamedTuple):
    """Pieces in order; where the readable part ends; the state there."""

    pieces: list[Piece | Gap]
    rest: bytes
    sequence: int
    chain: bytes
    sealed: bool


class _Bytes:
    def __init__(self, buffer: bytes, seed: int, extend: Extend) -> None:
        self.buffer = buffer
        self.seed = seed
        self.extend = extend

    def at(self, place: int) -> tuple[Piece, int, bool] | None:
        """The frame a header at ``place`` describes, its end, and whether its checksums hold."""
        buffer = self.buffer
        if place + fr.OVERHEAD > len(buffer):
            return None
        magic, crc, length, kind, _, count, first, _, _ = fr.HEADER.unpack_from(buffer, place)
        end = place + fr.size_of(length)
        if length > fr.MAX_BODY or end > len(buffer):
            return None
        head = buffer[place + 8 : place + fr.HEADER_SIZE]
        body = buffer[place + fr.HEADER_SIZE : end - fr.TRAILER_SIZE]
        body_crc, again, link = fr.TRAILER.unpack_from(buffer, end - fr.TRAILER_SIZE)
        holds = (
            magic == fr.MAGIC
            and again == length
            and self.extend(fr.seed_at(self.seed, place), head) == crc
            and self.extend(self.extend(crc, body), link) == body_crc
        )
        return Piece(head, body, link, kind, first, count, not holds), end, holds

    def links(self, piece: Piece, previous: bytes) -> bool:
        return chain(previous, piece.head + piece.body) == piece.link


def salvage(
    buffer: bytes, start: int, *, chain_from: bytes, sequence: int, seed: int, extend: Extend
) -> Salvage:
    """Read the segment from ``start`` on, across damage."""
    raw = _Bytes(buffer, seed, extend)
    pieces: list[Piece | Gap] = []
    place = start
    state = chain_from
    sealed = False
    while place < len(buffer) and not sealed:
        found = raw.at(place)
        piece: Piece | None = None
        end = place
        if found is not None and found[0].first == sequence + 1:
            candidate, end, _ = found
            computed = chain(state, candidate.head + candidate.body)
            if computed == candidate.link or state == b"=" + candidate.link:
                piece = candidate
            else:
                behind = raw.at(end)
                if behind is not None and raw.links(behind[0], computed):
                    piece = candidate._replace(link=computed, restored=True)
        if piece is None:
            again = _resync(raw, place, sequence)
            if again is None:
                break
            target, gap = again
            pieces.append(gap)
            sequence = gap.last
            state = gap.resume if gap.resume is not None else b"=" + (gap.following or b"")
            place = target
            continue
        pieces.append(piece)
        sequence = piece.first + piece.events - 1
        state = piece.link
        if piece.kind in (fr.GAP, fr.SEAL):
            length = int.from_bytes(piece.head[:4], "little")
            body = piece.body[:length]
            state = fr.resumed(body, piece.kind) or state
            if piece.kind == fr.GAP:
                from journal.codec import decode

                sequence = int(decode(body)[1])
            sealed = piece.kind == fr.SEAL
        place = end
    return Salvage(pieces, buffer[place:], sequence, state, sealed)


def _resync(raw: _Bytes, place: int, sequence: int) -> tuple[int, Gap] | None:
    """The next place behind ``place`` where a frame proves itself."""
    at = place
    while True:
        at = raw.buffer.find(fr.MAGIC, at + 1)
        if at < 0:
            return None
        if at & 7:
            continue
        found = raw.at(at)
        if found is None or found[0].first <= sequence or found[0].first > sequence + (1 << 32):
            continue
        piece, end, holds = found
        before = raw.buffer[at - 32 : at]
        resume = before if raw.links(piece, before) else None
        if resume is None and not holds:
            behind = raw.at(end)
            if behind is None or not raw.links(behind[0], piece.link):
                continue
        lost = raw.buffer[place:at]
        return at, Gap(sequence + 1, piece.first - 1, lost, resume,
                       None if resume is not None else piece.link)  # fmt: skip


def gap_body(gap: Gap, reason: str) -> bytes:
    """Body of the gap frame, filled so that what follows does not move towards the front."""
    from hashlib import sha256

    fields = [gap.first, gap.last, reason, gap.resume, gap.following, sha256(gap.lost).digest()]
    body = encode([*fields, b""])
    missing = len(gap.lost) - fr.size_of(len(body))
    if missing > 0:
        body = encode([*fields, bytes(missing)])
    if len(body) > fr.MAX_BODY:
        raise JournalError("the damaged region is larger than a frame: restore from a copy")
    return body


def rebuild(
    pieces: list[Piece | Gap], *, header: bytes, seed: int, extend: Extend, sequence: int,
    chain_from: bytes, time_ns: int, reason: str,
) -> tuple[bytes, bytes]:  # fmt: skip
    """A whole segment from a header and pieces; its bytes and the state of the chain."""
    parts = [header]
    offset = len(header)
    state = chain_from
    for piece in pieces:
        if isinstance(piece, Gap):
            data, _ = fr.build(
                extend, seed, offset, state, kind=fr.GAP, first_sequence=sequence + 1, count=0,
                promise=0, time_ns=time_ns, body=gap_body(piece, reason),
            )  # fmt: skip
            sequence = piece.last
            link = data[-32:]
            if piece.resume is not None:
                state = piece.resume
            elif piece.following is not None:
                state = b"=" + piece.following
            else:
                state = link
        else:
            length = int.from_bytes(piece.head[:4], "little")
            crc = extend(fr.seed_at(seed, offset), piece.head)
            data = (
                fr.MAGIC
                + crc.to_bytes(4, "little")
                + piece.head
                + piece.body
                + fr.TRAILER.pack(extend(extend(crc, piece.body), piece.link), length, piece.link)
            )
            sequence = piece.first + piece.events - 1
            state = piece.link
            if piece.kind in (fr.GAP, fr.SEAL):
                state = fr.resumed(piece.body[:length], piece.kind) or state
        parts.append(data)
        offset += len(data)
    return b"".join(parts), state
