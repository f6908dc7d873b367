"""Reading a tar stream member by member, keeping every byte that is not file content.

Rules of this module:

* One pass, no seeking, memory bounded by one chunk plus 1 MiB per extended header.
* A ``Member`` carries the raw bytes since the previous member's content (``segment``): padding,
  header blocks, extended headers with their data. Segments plus contents are the archive, byte for
  byte, which is what a recipe records (drivers-and-formats §7.3).
* The content of a member must be taken (``views``/``whole``) or skipped before the next
  one; what is left is skipped.
* Two zero blocks end the archive, and so does the end of the stream where a header may begin. A
  stream that ends anywhere else is truncated. What follows the end is handed out by ``trailer``.
* Global headers are members of their own and change nothing else, as in the reference (§6.5).
* Sparse members (old GNU, pax 0.0, 0.1 and 1.0) carry a checked map; their ``size`` is the
  expanded one, ``stored`` the number of bytes in the archive.

Malformed archives raise ``ArchiveError``, cut ones ``ArchiveTruncated``.
"""

from __future__ import annotations

from zlib import adler32

from cstorage.archive import header as tar
from cstorage.archive.header import BLOCK, EXTENDED_MAX, ZERO_BLOCK
from cstorage.errors import ArchiveError, ArchiveTruncated
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_XATTR = "SCHILY.xattr."
_SEGMENT_MAX = 8 * EXTENDED_MAX  # one of each extension, with room; more is an attack on memory
_TEXT_KEYWORDS = frozenset(("path", "linkpath", "uname", "gname"))
_HEADER_ONLY = frozenset(b"123456g")  # types that carry no content whatever their size field says


class Member:
    """One archive member. Times in nanoseconds; ``atime_ns`` is ``None`` if not recorded."""

    __slots__ = (
        "atime_ns", "devmajor", "devminor", "gid", "linkname", "mode", "mtime_ns", "name",
        "segment", "size", "sparse", "sparse_map", "stored", "type", "uid", "xattrs",
    )  # fmt: skip

    name: bytes
    linkname: bytes
    type: int
    mode: int
    uid: int
    gid: int
    size: int
    stored: int
    mtime_ns: int
    atime_ns: int | None
    devmajor: int
    devminor: int
    xattrs: list[tuple[str, bytes]] | None
    sparse: list[tuple[int, int]] | None
    sparse_map: bytes
    """Raw bytes of a pax 1.0 sparse map, which the archive keeps in front of the content."""
    segment: bytes


class TarReader:
    """Members of the archive whose chunks ``next_chunk`` returns (``b""`` at the end)."""

    def __init__(self, next_chunk: Callable[[], bytes]) -> None:
        self._next_chunk = next_chunk
        self.chunk = b""
        self.at = 0
        """What was read of the stream last, and where in it the next byte is."""
        self._ended = False
        self._content = 0  # bytes of the current member's content not yet taken
        self._padding = 0  # bytes of padding after them
        self._member_name = b""
        self._tail: list[bytes] = []
        self._tap: Callable[[memoryview], object] | None = None
        self.consumed = 0
        """Bytes of the stream handed over by ``next_chunk`` so far."""

    # -- bytes ---------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Replace the exhausted chunk by the next one; ``False`` at the end of the stream."""
        if self._ended:
            return False
        chunk = self._next_chunk()
        if not chunk:
            self._ended = True
            self.chunk, self.at = b"", 0
            return False
        self.consumed += len(chunk)
        self.chunk, self.at = chunk, 0
        return True

    def _take(self, count: int) -> bytes:
        """The next ``count`` bytes, fewer only at the end of the stream."""
        at = self.at
        stop = at + count
        if stop <= len(self.chunk):
            self.at = stop
            return self.chunk[at:stop]
        parts = [self.chunk[at:]]
        count -= len(parts[0])
        self.at = len(self.chunk)
        while count and self._fill():
            part = self.chunk[:count]
            self.at = len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _take_exactly(self, count: int, what: str) -> bytes:
        data = self._take(count)
        if len(data) != count:
            raise ArchiveTruncated(f"reading {what} of {_shown(self._member_name)}")
        return data

    # -- content -------------------------------------------------------------------------------

    def whole(self) -> memoryview | None:
        """All of the content left, if the current chunk holds it; otherwise ``None``."""
        at = self.at
        stop = at + self._content
        if stop > len(self.chunk):
            return None
        self.at = stop
        self._content = 0
        return memoryview(self.chunk)[at:stop]

    def views(self, count: int = -1) -> Iterator[memoryview]:
        """The content left (or its next ``count`` bytes) in pieces, without copying."""
        count = self._content if count < 0 else min(count, self._content)
        while count:
            at = self.at
            have = len(self.chunk) - at
            if not have:
                if not self._fill():
                    raise ArchiveTruncated(f"reading the content of {_shown(self._member_name)}")
                continue
            size = min(have, count)
            self.at = at + size
            self._content -= size
            count -= size
            view = memoryview(self.chunk)[at : at + size]
            if self._tap is not None:
                self._tap(view)
            yield view

    def tap(self, listener: Callable[[memoryview], object]) -> None:
        """Show the rest of the current member's content to ``listener`` as it is taken."""
        self._tap = listener

    # -- members -------------------------------------------------------------------------------

    def next(self) -> Member | None:
        """The next member, ``None`` at the end of the archive."""
        if self._content:
            for _ in self.views():
                pass
        self._tap = None
        # The ordinary case first: one whole block in this chunk, no extension in front of it.
        chunk, start = self.chunk, self.at
        at = start + self._padding
        stop = at + BLOCK
        if stop <= len(chunk) and chunk[at + 156] in b"012345" and chunk[at]:
            self.at = stop
            return self._ordinary(tar.fields(chunk[at:stop]), chunk[start:stop])
        padding = b""
        if self._padding:
            padding = self._take(self._padding)
            if len(padding) < self._padding:  # a cut in the last padding loses nothing
                self._tail = [padding]
                return None
            self._padding = 0
        block = self._take(BLOCK)
        if len(block) == BLOCK and block[156] in b"012345" and block != ZERO_BLOCK:
            return self._ordinary(tar.fields(block), padding + block if padding else block)
        return self._extended(padding, block)

    def precedes(self, name: bytes) -> bool:
        """Whether the next block, as far as it is known, begins with ``name``."""
        return self.chunk.startswith(name, self.at + self._padding)

    def alike(self, first: Member) -> Iterator[tuple[bytes, int, int, int, int]]:
        """Plain files right behind ``first``, the present one, that differ from it in name, size
        and time only, as long as the chunk holds all of them.

        Yields (name, size, time, where the segment begins, where the header block begins). The
        content follows that block; it counts as taken when the next one is asked for. A member
        that is not of that kind, or malformed, is left to ``next``.
        """
        head = first.segment[-BLOCK:]
        if (
            self._content
            or head[156] != tar.REGTYPE
            or len(first.segment) >= 2 * BLOCK  # with an extended header
            or not tar.is_plain(head, first.name)
        ):
            return
        chunk, start, padding = self.chunk, self.at, self._padding
        end = len(chunk)
        ids, rest = head[100:124], head[154:]
        # The sum counts the checksum as eight spaces; two bytes behind its digits are in ``rest``.
        known = (adler32(rest[2:]) & 0xFFFF) - 1 + 256
        times: dict[bytes, int] = {}
        while True:
            at = start + padding
            begin = at + BLOCK
            if begin > end or not (chunk.startswith(ids, at + 100) and
                                   chunk.startswith(rest, at + 154)):  # fmt: skip
                return
            digits, total = chunk[at + 124 : at + 135], chunk[at + 148 : at + 154]
            if not (digits.isdigit() and total.isdigit()):
                return
            try:
                size = int(digits, 8)
                # Fewer than 65 521: nothing is lost by the modulus of ``adler32``.
                if (adler32(chunk[at : at + 148]) & 0xFFFF) - 1 + known != int(total, 8):
                    return
            except ValueError:
                return
            stop = begin + size
            last = chunk.find(0, at, at + 100)
            if stop > end or last <= at:
                return
            when = chunk[at + 135 : at + 148]
            mtime = times.get(when)
            if mtime is None:
                try:
                    times[when] = mtime = tar.plain_time(when)
                except ArchiveError:
                    return
            yield chunk[at:last], size, mtime, start, at
            start = self.at = stop
            padding = self._padding = -size & 511

    def _ordinary(self, head: tar.Fields, segment: bytes) -> Member:
        member = Member()
        (
            member.name, member.mode, member.uid, member.gid, member.size, member.mtime_ns,
            kind, member.linkname, member.devmajor, member.devminor, _,
        ) = head  # fmt: skip
        member.type = kind
        member.atime_ns = None
        member.xattrs = None
        member.sparse = None
        member.sparse_map = b""
        member.segment = segment
        self._member_name = member.name
        stored = 0 if kind in _HEADER_ONLY else member.size
        member.stored = stored
        self._content = stored
        self._padding = -stored % BLOCK
        return member

    def _extended(self, padding: bytes, block: bytes) -> Member | None:
        """A member that may have extensions in front, or the end of the archive."""
        parts = [padding] if padding else []
        held = 0
        records: list[tuple[str, bytes]] = []
        longname = longlink = None
        while True:
            if not block:
                if len(parts) > bool(padding):
                    raise ArchiveTruncated("reading the header after an extended header")
                self._tail = parts
                return None
            if len(block) < BLOCK:
                raise ArchiveTruncated("reading a header block")
            parts.append(block)
            if block == ZERO_BLOCK:
                if len(parts) > 1 + bool(padding):
                    raise ArchiveError("the archive ends between an extended header and its entry")
                self._end(parts)
                return None
            head = tar.parse(block)
            kind = head.type
            self._member_name = head.name
            if kind in (tar.EXTENDED, tar.SUN_EXTENDED, tar.GNU_LONGNAME, tar.GNU_LONGLINK,
                        tar.GLOBAL):  # fmt: skip
                if head.size > EXTENDED_MAX:
                    raise ArchiveError(
                        f"extended header of {head.size} bytes; at most {EXTENDED_MAX} are accepted"
                    )
                data = self._take_exactly(head.size, "the extended header")
                parts.append(data)
                if kind == tar.GLOBAL:
                    tar.parse_records(data)
                    member = self._ordinary(head._replace(size=0), b"".join(parts))
                    self._padding = -len(data) % BLOCK
                    return member
                parts.append(self._take_exactly(-len(data) % BLOCK, "the extended header"))
                held += len(data) + 2 * BLOCK
                if held > _SEGMENT_MAX:
                    raise ArchiveError("too many extended headers in front of one entry")
                if kind == tar.GNU_LONGNAME:
                    longname = data.split(b"\0", 1)[0]
                elif kind == tar.GNU_LONGLINK:
                    longlink = data.split(b"\0", 1)[0]
                else:
                    records = tar.parse_records(data)
                block = self._take(BLOCK)
                continue
            return self._finish(head, parts, records, longname, longlink)

    def _finish(
        self,
        head: tar.Header,
        parts: list[bytes],
        records: list[tuple[str, bytes]],
        longname: bytes | None,
        longlink: bytes | None,
    ) -> Member:
        member = self._ordinary(head, b"")
        sparse_records: list[tuple[str, bytes]] = []
        for keyword, value in records:
            if keyword in _TEXT_KEYWORDS and b"\0" in value:
                raise ArchiveError(f"invalid extended header: NUL byte in {keyword}")
            if keyword.startswith(_XATTR):
                if member.xattrs is None:
                    member.xattrs = []
                member.xattrs.append((keyword[len(_XATTR) :], value))
            elif keyword.startswith("GNU.sparse."):
                sparse_records.append((keyword[11:], value))
            elif not value:
                continue  # an empty value withdraws the keyword: the block's own field counts
            elif keyword == "path":
                member.name = value
            elif keyword == "linkpath":
                member.linkname = value
            elif keyword == "size":
                member.size = tar.parse_decimal(value, "size")
            elif keyword == "mtime":
                member.mtime_ns = tar.parse_time(value, "mtime")
            elif keyword == "atime":
                member.atime_ns = tar.parse_time(value, "atime")
            elif keyword == "uid":
                member.uid = tar.parse_id(value, "uid")
            elif keyword == "gid":
                member.gid = tar.parse_id(value, "gid")
        if longname:
            member.name = longname
        if longlink:
            member.linkname = longlink
        self._member_name = member.name
        stored = 0 if head.type in _HEADER_ONLY else member.size
        member.stored = self._content = stored
        self._padding = -stored % BLOCK
        if head.type == tar.AREGTYPE:
            member.type = tar.DIRTYPE if member.name.endswith(b"/") else tar.REGTYPE
        elif head.type == tar.GNU_SPARSE:
            self._old_sparse(member, parts)
        if sparse_records and member.type == tar.REGTYPE:
            self._pax_sparse(member, sparse_records)
        member.segment = b"".join(parts)
        return member

    # -- sparse members ------------------------------------------------------------------------

    def _old_sparse(self, member: Member, parts: list[bytes]) -> None:
        """Old GNU format: map in the header block and in continuation blocks of 21 entries."""
        block = parts[-1]
        if not block.startswith(b"ustar ", 257):
            raise ArchiveError(f"{_shown(member.name)}: unhandled tar header type 'S'")
        logical = tar._number(block, 483, 495, "real size")
        pairs = self._sparse_entries(block, 386, 4)
        more = block[482]
        while more:
            block = self._take_exactly(BLOCK, "the sparse map")
            parts.append(block)
            if len(parts) * BLOCK > EXTENDED_MAX:
                raise ArchiveError(f"{_shown(member.name)}: sparse map of more than 1 MiB")
            pairs += self._sparse_entries(block, 0, 21)
            more = block[504]
        member.type = tar.REGTYPE
        self._set_sparse(member, pairs, logical)

    @staticmethod
    def _sparse_entries(block: bytes, start: int, count: int) -> list[tuple[int, int]]:
        pairs = []
        for at in range(start, start + 24 * count, 24):
            if block[at] == 0:
                break
            pairs.append(
                (
                    tar._number(block, at, at + 12, "sparse offset"),
                    tar._number(block, at + 12, at + 24, "sparse length"),
                )
            )
        return pairs

    def _pax_sparse(self, member: Member, records: list[tuple[str, bytes]]) -> None:
        last = dict(records)
        if "name" in last:
            if b"\0" in last["name"] or not last["name"]:
                raise ArchiveError("invalid extended header: GNU.sparse.name")
            member.name = last["name"]
        if last.get("major") == b"1" and last.get("minor") == b"0":
            logical = tar.parse_decimal(last.get("realsize", b""), "GNU.sparse.realsize")
            self._set_sparse(member, self._leading_map(member), logical)
            return
        if "map" in last:  # 0.1
            numbers = last["map"].split(b",") if last["map"] else []
        elif "numblocks" in last:  # 0.0: the keywords repeat, so their order counts
            numbers = []
            for keyword, value in records:
                if keyword in ("offset", "numbytes"):
                    if (keyword == "offset") != (len(numbers) % 2 == 0):
                        raise ArchiveError(f"{_shown(member.name)}: sparse map out of order")
                    numbers.append(value)
        else:
            return  # a lone GNU.sparse.name or size says nothing about holes
        if len(numbers) % 2:
            raise ArchiveError(f"{_shown(member.name)}: sparse map with an odd number of values")
        values = [tar.parse_decimal(number, "GNU.sparse.map") for number in numbers]
        if "numblocks" in last and tar.parse_decimal(last["numblocks"], "GNU.sparse.numblocks") != (
            len(values) // 2
        ):
            raise ArchiveError(f"{_shown(member.name)}: sparse map of another length than it says")
        logical = tar.parse_decimal(last.get("size", last.get("realsize", b"")), "GNU.sparse.size")
        self._set_sparse(member, list(zip(values[::2], values[1::2], strict=True)), logical)

    def _leading_map(self, member: Member) -> list[tuple[int, int]]:
        """pax 1.0: decimal lines in front of the content, padded to whole blocks."""
        raw = b""
        lines: list[bytes] = []
        wanted = 1
        rest = b""
        while len(lines) < wanted:
            if self._content < BLOCK:
                raise ArchiveError(f"{_shown(member.name)}: sparse map longer than its content")
            block = self._take_exactly(BLOCK, "the sparse map")
            self._content -= BLOCK
            raw += block
            if len(raw) > EXTENDED_MAX:
                raise ArchiveError(f"{_shown(member.name)}: sparse map of more than 1 MiB")
            *complete, rest = (rest + block).split(b"\n")
            if len(rest) > BLOCK:
                raise ArchiveError(f"{_shown(member.name)}: sparse map without line ends")
            if not lines and complete:
                count = tar.parse_decimal(complete[0], "number of sparse regions")
                wanted = 1 + 2 * count
                if wanted > EXTENDED_MAX:
                    raise ArchiveError(f"{_shown(member.name)}: sparse map of more than 1 MiB")
            lines += complete
        values = [tar.parse_decimal(line, "sparse map") for line in lines[1:wanted]]
        member.sparse_map = raw
        return list(zip(values[::2], values[1::2], strict=True))

    def _set_sparse(self, member: Member, pairs: list[tuple[int, int]], logical: int) -> None:
        """Check the map: regions in order, inside the file, and exactly the bytes stored."""
        end = total = 0
        for offset, length in pairs:
            if offset < end or length < 0:
                raise ArchiveError(f"{_shown(member.name)}: sparse map out of order")
            end = offset + length
            total += length
        if end > logical or logical > (1 << 63) - 1:
            raise ArchiveError(f"{_shown(member.name)}: sparse map beyond the file's size")
        if total != self._content:
            raise ArchiveError(
                f"{_shown(member.name)}: sparse map of {total} bytes, archive has {self._content}"
            )
        member.sparse = pairs
        member.size = logical

    # -- the end -------------------------------------------------------------------------------

    def _end(self, parts: list[bytes]) -> None:
        """After one zero block: the second one, or the end of the stream."""
        block = self._take(BLOCK)
        if block:
            if len(block) < BLOCK:
                raise ArchiveTruncated("reading the end of the archive")
            if block != ZERO_BLOCK:
                raise ArchiveError("invalid tar header: a lone zero block inside the archive")
            parts.append(block)
        self._tail = parts

    def trailer(self) -> Iterator[bytes]:
        """After ``next`` returned ``None``: what is left of the stream, in bounded pieces.

        The first piece is the last padding and the end blocks (perhaps empty); each further one is
        at most 1 MiB.
        """
        yield b"".join(self._tail)
        piece = 1 << 20
        while data := self._take(piece):
            yield data


def _shown(name: bytes) -> str:
    """A name for an error message, always printable."""
    text = name.decode("utf-8", "backslashreplace")
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode()
                         for c in text[:300]) + '"'  # fmt: skip


shown = _shown
