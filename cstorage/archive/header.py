"""One tar header block: parsing in every dialect met in practice. Pure; no I/O.

Rules of this module:

* A block is 512 bytes. Its dialect is told by ``magic``/``version`` (POSIX.1-1988 ustar, GNU) and
  by the trailer of Schilling's star; everything else is v7, which has no device numbers and no
  prefix. Unknown magic is not an error as long as the checksum is right.
* Numbers are octal text, or base-256 when the first byte has its top bit set (GNU; two's
  complement, so negative values exist). Size and device numbers must not be negative.
* Times are integers, nanoseconds since the epoch; they may be negative and may exceed 64 bits.
* Names stay raw bytes.
* Extended header records (POSIX.1-2001 "pax") are ``length SP keyword=value LF``.

Everything malformed raises ``ArchiveError`` naming the field.
"""

from __future__ import annotations

import re
from zlib import adler32

from cstorage.errors import ArchiveError
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import TypeAlias

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
EXTENDED_MAX = 1 << 20
"""Most bytes of one extended header, long name or sparse map (the reference's bound, §9.8)."""

AREGTYPE, REGTYPE, LNKTYPE, SYMTYPE, CHRTYPE, BLKTYPE, DIRTYPE, FIFOTYPE = b"\x000123456"
GLOBAL, EXTENDED, GNU_LONGNAME, GNU_LONGLINK, GNU_SPARSE = b"gxLKS"
SUN_EXTENDED = ord("X")

_SECOND = 1_000_000_000

_ORDINARY = re.compile(
    rb"([0-7]{7}\0[0-7]{7}\0[0-7]{7})\0([0-7]{11})[\0 ]([0-7]{11})[\0 ]([0-7]{6})\0 "
)
"""mode with uid and gid, size, mtime, checksum as every common writer spells them (offset 100)."""

_known_ids: dict[bytes, tuple[int, int, int]] = {}
"""Modes and owners decoded before: an archive has few different ones."""

_KNOWN_MAX = 4096
_NO_LINK = bytes(100)
_NO_PREFIX = bytes(167)

_OCTAL = re.compile(rb"[0-7]+")


Fields: TypeAlias = "tuple[bytes, int, int, int, int, int, int, bytes, int, int, bool]"


class Header(NamedTuple):
    """The fields of one block. ``name`` already has the ustar prefix in front."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    type: int
    linkname: bytes
    devmajor: int
    devminor: int
    gnu: bool


def parse(block: bytes) -> Header:
    """Decode one 512-byte block. Raises ``ArchiveError`` if it is not a header."""
    return Header(*fields(block))


def fields(block: bytes) -> Fields:
    """What ``parse`` finds, without names for it: there are as many blocks as files."""
    ordinary = _ORDINARY.match(block, 100)
    if ordinary is not None:
        ids, size_text, mtime_text, sum_text = ordinary.groups()
        known = _known_ids.get(ids)
        if known is None:
            known = _remember(ids)
        mode, uid, gid = known
        size = int(size_text, 8)
        mtime = int(mtime_text, 8)
        checksum = int(sum_text, 8)
    else:
        checksum = _number(block, 148, 156, "checksum")
        mode = uid = gid = size = mtime = -1
    # Without link and prefix there are more than 256 zero bytes: see ``_checksum_agrees``.
    if not (
        block.endswith(_NO_PREFIX)
        and block.startswith(_NO_LINK, 157)
        and (adler32(block) & 0xFFFF) - (adler32(block[148:156]) & 0xFFFF) + 256 == checksum
    ) and not _checksum_agrees(block, checksum):
        raise ArchiveError("invalid tar header: the checksum does not agree with the block")
    if ordinary is None:
        mode = _number(block, 100, 108, "mode")
        uid = _number(block, 108, 116, "uid")
        gid = _number(block, 116, 124, "gid")
        size = _number(block, 124, 136, "size")
        mtime = _number(block, 136, 148, "mtime")
        if size < 0:
            raise ArchiveError("invalid tar header: negative size")
    name = block[0 : _end(block, 0, 100)]
    linkname = b"" if block[157] == 0 else block[157 : _end(block, 157, 257)]
    major = minor = 0
    magic = block[257:265]
    gnu = magic == b"ustar  \0"
    kind = block[156]
    if magic[:5] == b"ustar":
        if kind in (CHRTYPE, BLKTYPE):
            major = _number(block, 329, 337, "devmajor")
            minor = _number(block, 337, 345, "devminor")
            if major < 0 or minor < 0:
                raise ArchiveError("invalid tar header: negative device number")
        if not gnu and block[345]:
            # Schilling's star keeps access and change time in the last 24 bytes of the prefix.
            stop = 476 if block[508:512] == b"tar\0" else 500
            prefix = block[345 : _end(block, 345, stop)]
            name = prefix + b"/" + name
    return name, mode, uid, gid, size, mtime * _SECOND, kind, linkname, major, minor, gnu


def is_plain(block: bytes, name: bytes) -> bool:
    """Whether numbers are spelled as every common writer does, and ``name`` is in one place.

    No other file is named: so the type and what is behind it have fewer than 257 bytes that are
    not zero, and ``adler32`` has their sum.
    """
    return (
        block[0 : _end(block, 0, 100)] == name
        and block.startswith(_NO_LINK, 157)
        and block[345] == 0
        and _ORDINARY.match(block, 100) is not None
    )


_PLAIN_TIME = re.compile(rb"[\0 ]([0-7]{11})[\0 ]")


def plain_time(text: bytes) -> int:
    """The time between the end of the size and that of its own. Raises ``ArchiveError``."""
    match = _PLAIN_TIME.fullmatch(text)
    if match is None:
        raise ArchiveError("invalid tar header: mtime is not an octal number")
    return int(match[1], 8) * _SECOND


def _remember(ids: bytes) -> tuple[int, int, int]:
    mode, uid, gid = ids.split(b"\0")
    if len(_known_ids) >= _KNOWN_MAX:
        _known_ids.clear()
    _known_ids[ids] = known = int(mode, 8), int(uid, 8), int(gid, 8)
    return known


def _end(block: bytes, start: int, stop: int) -> int:
    end = block.find(0, start, stop)
    return stop if end < 0 else end


def _checksum_agrees(block: bytes, stored: int) -> bool:
    """The stored sum counts the checksum field as eight spaces, bytes unsigned (or, old, signed).

    ``adler32`` holds the sum of all bytes plus one, modulo 65521, and is far quicker than adding
    them here; with at least 256 zero bytes the sum is at most 65280, so nothing is lost.
    """
    total = (adler32(block) & 0xFFFF) - 1 if block.count(0) >= 256 else sum(block)
    if total - sum(block[148:156]) + 256 == stored:
        return True
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:])
    return signed + 256 == stored


def _number(block: bytes, start: int, stop: int, field: str) -> int:
    first = block[start]
    if first & 0x80:
        if first in (0x80, 0xFF):
            value = int.from_bytes(block[start + 1 : stop], "big")
            if first == 0xFF:
                value -= 1 << (8 * (stop - start - 1))
            return value
        value = int.from_bytes(block[start:stop], "big") & ~(0x80 << (8 * (stop - start - 1)))
        if first & 0x40:
            value -= 1 << (8 * (stop - start) - 1)
        return value
    text = block[start:stop].split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    if _OCTAL.fullmatch(text) is None:
        raise ArchiveError(f"invalid tar header: {field} is not an octal number")
    return int(text, 8)


def parse_records(data: bytes) -> list[tuple[str, bytes]]:
    """Records of an extended header, in order: (keyword, value).

    Raises ``ArchiveError`` on a record whose length is wrong. Keywords that are not UTF-8 keep
    their bytes through ``surrogateescape``.
    """
    records: list[tuple[str, bytes]] = []
    position, end = 0, len(data)
    while position < end:
        if data[position] == 0:  # some writers pad the data itself with zeros
            break
        space = data.find(b" ", position, position + 21)
        digits = data[position:space] if space > position else b""
        if not digits.isdigit():
            raise ArchiveError("invalid extended header: a record does not begin with its length")
        stop = position + int(digits)
        if stop > end or stop <= space or data[stop - 1] != 0x0A:
            raise ArchiveError("invalid extended header: a record does not have the length it says")
        keyword, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals or not keyword:
            raise ArchiveError("invalid extended header: a record has no keyword")
        records.append((keyword.decode("utf-8", "surrogateescape"), value))
        position = stop
    return records


_TIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")


def parse_time(value: bytes, keyword: str) -> int:
    """A time of an extended header, decimal seconds, as nanoseconds (rounded toward the past)."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise ArchiveError(f"invalid extended header: {keyword} is not a time: {value[:40]!r}")
    sign, seconds, fraction = match.groups()
    fraction = fraction or b""
    ns = int(seconds) * _SECOND + int((fraction[:9] + b"000000000")[:9])
    if sign:
        ns = -ns
        if fraction[9:].strip(b"0"):
            ns -= 1
    return ns


def parse_decimal(value: bytes, keyword: str) -> int:
    """A non-negative decimal number of an extended header."""
    if not value.isdigit() or len(value) > 20:
        raise ArchiveError(f"invalid extended header: {keyword} is not a number: {value[:40]!r}")
    return int(value)


def parse_id(value: bytes, keyword: str) -> int:
    """A user or group ID of an extended header; negative ones occur and are kept."""
    if value[:1] == b"-":
        return -parse_decimal(value[1:], keyword)
    return parse_decimal(value, keyword)
