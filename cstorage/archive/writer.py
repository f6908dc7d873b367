"""Writing tar members as the reference writes them (drivers-and-formats §5.4). Pure.

Rules of this module:

* ustar whenever name, link, IDs, size and time fit; otherwise a pax extended header in front, its
  records sorted by keyword, and only records that are needed.
* No names of users, no access or change times, whole seconds: the same input gives the same bytes.
"""

from __future__ import annotations

from cstorage.archive.header import BLOCK, EXTENDED
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_OCTAL_ID_MAX = 0o7777777
_OCTAL_LONG_MAX = 0o77777777777
_NAME = 100
_PREFIX = 155
END = bytes(2 * BLOCK)


class Entry(NamedTuple):
    """What a member says; ``mtime`` in whole seconds, ``name`` as it stands in the archive."""

    name: bytes
    type: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    linkname: bytes = b""
    devmajor: int = 0
    devminor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


def padding(size: int) -> bytes:
    """Zeros that fill the last block of ``size`` bytes of content."""
    return bytes(-size % BLOCK)


def encode(entry: Entry) -> bytes:
    """Header blocks of one member: one block, or an extended header and one block."""
    records: list[tuple[bytes, bytes]] = []
    prefix, name = b"", entry.name
    if len(name) > _NAME or not name.isascii():
        prefix, name = _split(entry.name)
        records.append((b"path", entry.name))
    only_path = bool(name) and bool(prefix)
    if len(entry.linkname) > _NAME or not entry.linkname.isascii():
        records.append((b"linkpath", entry.linkname))
        only_path = False
    for keyword, value, most in (
        (b"uid", entry.uid, _OCTAL_ID_MAX),
        (b"gid", entry.gid, _OCTAL_ID_MAX),
        (b"size", entry.size, _OCTAL_LONG_MAX),
        (b"mtime", entry.mtime, _OCTAL_LONG_MAX),
    ):
        if not 0 <= value <= most:
            records.append((keyword, b"%d" % value))
            only_path = False
    if entry.xattrs:
        records += [(b"SCHILY.xattr." + key, value) for key, value in entry.xattrs]
        only_path = False
    if not records or only_path:
        return _block(entry, name, prefix, entry.linkname)
    data = b"".join(_record(keyword, value) for keyword, value in sorted(records))
    return b"".join((
        _extended_block(entry.name, len(data)), data, padding(len(data)),
        _block(entry, _field_text(entry.name), b"", _field_text(entry.linkname)),
    ))  # fmt: skip


def _split(name: bytes) -> tuple[bytes, bytes]:
    """ustar's (prefix, name) of a long path; empty if it cannot be split."""
    if not name.isascii():
        return b"", b""
    length = len(name)
    if length > _PREFIX + 1:
        length = _PREFIX + 1
    elif name.endswith(b"/"):
        length -= 1
    at = name.rfind(b"/", 0, length)
    rest = len(name) - at - 1
    if at <= 0 or not 0 < rest <= _NAME or at > _PREFIX:
        return b"", b""
    return name[:at], name[at + 1 :]


def _field_text(text: bytes) -> bytes:
    """What stands in a 100-byte field for readers that do not know extended headers."""
    ascii_only = bytes(byte for byte in text if byte < 0x80)
    if len(ascii_only) > _NAME:
        # A cut after a slash would look like a directory to old readers.
        return ascii_only[:_NAME].rstrip(b"/")
    return ascii_only


def _record(keyword: bytes, value: bytes) -> bytes:
    rest = len(keyword) + len(value) + 3  # space, "=" and line feed
    size = rest + len(str(rest))
    if rest + len(str(size)) != size:
        size = rest + len(str(size))
    return b"%d %s=%s\n" % (size, keyword, value)


def _octal(value: int, digits: int, most: int) -> bytes:
    return b"%0*o\0" % (digits, value if 0 <= value <= most else 0)


def _block(entry: Entry, name: bytes, prefix: bytes, linkname: bytes) -> bytes:
    block = b"".join((
        name.ljust(_NAME, b"\0"),
        b"%07o\0" % (entry.mode & 0o7777),
        _octal(entry.uid, 7, _OCTAL_ID_MAX),
        _octal(entry.gid, 7, _OCTAL_ID_MAX),
        _octal(entry.size, 11, _OCTAL_LONG_MAX),
        _octal(entry.mtime, 11, _OCTAL_LONG_MAX),
        b"        ",
        bytes((entry.type,)),
        linkname.ljust(_NAME, b"\0"),
        b"ustar\x0000",
        bytes(64),
        _octal(entry.devmajor, 7, _OCTAL_ID_MAX),
        _octal(entry.devminor, 7, _OCTAL_ID_MAX),
        prefix.ljust(_PREFIX, b"\0"),
        bytes(12),
    ))  # fmt: skip
    return _with_checksum(block)


def _extended_block(name: bytes, size: int) -> bytes:
    directory, _, base = name.rpartition(b"/")
    parts = [part for part in (directory, b"PaxHeaders.0", base) if part]
    own = _field_text(b"/".join(parts))[:_NAME].rstrip(b"/")
    block = b"".join((
        own.ljust(_NAME, b"\0"),
        b"0000000\x00" * 3,
        b"%011o\0" % size,
        b"00000000000\0",
        b"        ",
        bytes((EXTENDED,)),
        bytes(_NAME),
        b"ustar\x0000",
        bytes(BLOCK - 265),
    ))  # fmt: skip
    return _with_checksum(block)


def _with_checksum(block: bytes) -> bytes:
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def sorted_xattrs(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Attributes in the order in which they are written."""
    return tuple(sorted(pairs))
