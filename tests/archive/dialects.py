"""Members in the words of other writers, made here so that every byte is known.

The project writes one dialect (``cstorage.archive.writer``); these are the others, as the manuals
of GNU tar and the pax standard describe them. Nothing here asks the code under test for numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from cstorage.archive.writer import Entry

DIALECTS = ("v7", "ustar", "gnu", "pax", "star")


class More(NamedTuple):
    """What only some dialects can say; the others leave it out."""

    nanoseconds: int = 0
    atime: int | None = None
    comment: bytes = b""


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def octal(value: int, width: int, *, spaces: bool = False) -> bytes:
    """Octal digits with a NUL behind, or with a space before it, as V7 had it."""
    if spaces:
        return (b"%*o " % (width - 2, value)).ljust(width, b"\0")
    return b"%0*o\0" % (width - 1, value)


def number(value: int, width: int) -> bytes:
    """Octal where it fits, else base 256 with the top bit set (two's complement)."""
    if 0 <= value < 8 ** (width - 1):
        return octal(value, width)
    raw = (value % (1 << 8 * width)).to_bytes(width, "big")
    return bytes([raw[0] | 0x80]) + raw[1:]


def record(keyword: bytes, value: bytes) -> bytes:
    """One record of an extended header: its length counts itself."""
    size = len(keyword) + len(value) + 3
    while len(b"%d" % size) + len(keyword) + len(value) + 3 != size:
        size += 1
    return b"%d %s=%s\n" % (size, keyword, value)


def header(
    name: bytes,
    kind: int,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    linkname: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: int = 0,
    minor: int = 0,
    tail: bytes = b"",
    spaces: bool = False,
) -> bytes:
    """One block; ``tail`` is what stands from byte 345 on."""
    block = b"".join((
        name[:100].ljust(100, b"\0"), octal(mode, 8, spaces=spaces), number(uid, 8), number(gid, 8),
        number(size, 12), number(mtime, 12), b" " * 8, bytes((kind,)),
        linkname[:100].ljust(100, b"\0"), magic.ljust(8, b"\0"), bytes(64),
        number(major, 8) if magic else bytes(8), number(minor, 8) if magic else bytes(8), tail,
    )).ljust(512, b"\0")  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def extended(records: list[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """An extended (``x``) or global (``g``) header with these records."""
    data = b"".join(record(*item) for item in records)
    return header(b"PaxHeaders/x", kind[0], size=len(data)) + pad(data)


def long_text(kind: bytes, text: bytes) -> bytes:
    """GNU's member in front of one whose name (``L``) or target (``K``) is too long."""
    return header(b"././@LongLink", kind[0], size=len(text) + 1, magic=b"ustar  \0") + pad(
        text + b"\0"
    )


def _fields(entry: Entry) -> dict[str, int]:
    return {
        "mode": entry.mode, "uid": entry.uid, "gid": entry.gid, "size": entry.size,
        "mtime": entry.mtime, "major": entry.devmajor, "minor": entry.devminor,
    }  # fmt: skip


def fits(entry: Entry, dialect: str) -> bool:
    """Whether the dialect can say all that matters of the entry."""
    short = len(entry.name) <= 100 and len(entry.linkname) <= 100 and not entry.xattrs
    small = (
        max(entry.uid, entry.gid) < 8**7 and min(entry.uid, entry.gid, entry.mtime) >= 0
        and entry.mtime < 8**11
    )  # fmt: skip
    match dialect:
        case "v7":
            return short and small and entry.type in b"0125"
        case "ustar":
            at = entry.name.rfind(b"/", 0, 156)
            split = len(entry.name) <= 100 or (at > 0 and 0 < len(entry.name) - at - 1 <= 100)
            return split and len(entry.linkname) <= 100 and small and not entry.xattrs
        case "star":
            return short and small
        case "gnu":
            return not entry.xattrs
    return True


def encode_as(dialect: str, entry: Entry, more: More = More()) -> bytes:
    """Header blocks of one member; what the dialect cannot say is said in pax."""
    if not fits(entry, dialect):
        dialect = "pax"
    name, fields = entry.name, _fields(entry)
    match dialect:
        case "v7":  # no magic; directories are told by their slash, files by no type at all
            kind = entry.type
            if kind == ord("5"):
                kind, name = 0, name.rstrip(b"/") + b"/"
            elif kind == ord("0"):
                kind = 0
            if len(name) > 100:
                return encode_as("pax", entry, more)
            return header(name, kind, linkname=entry.linkname, magic=b"", spaces=True, **fields)
        case "ustar":
            tail = b""
            if len(name) > 100:
                at = name.rfind(b"/", 0, 156)
                tail, name = name[:at], name[at + 1 :]
            return header(name, entry.type, linkname=entry.linkname, tail=tail, **fields)
        case "star":  # times in the last bytes of the prefix, a mark at the very end
            tail = (
                bytes(131) + octal(entry.mtime, 12) + octal(entry.mtime, 12) + bytes(8) + b"tar\0"
            )
            return header(name, entry.type, linkname=entry.linkname, tail=tail, **fields)
        case "gnu":
            front = b""
            if len(name) > 100:
                front += long_text(b"L", name)
            if len(entry.linkname) > 100:
                front += long_text(b"K", entry.linkname)
            return front + header(
                name, entry.type, linkname=entry.linkname, magic=b"ustar  \0", **fields
            )
    records = [(b"path", name)]
    if entry.linkname:
        records.append((b"linkpath", entry.linkname))
    for keyword, value in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if value >= 8**7:
            records.append((keyword, b"%d" % value))
            fields[keyword.decode()] = 0
    if more.nanoseconds or not 0 <= entry.mtime < 8**11:
        records.append((b"mtime", b"%d.%09d" % (entry.mtime, more.nanoseconds)))
        fields["mtime"] = 0
    if more.atime is not None:
        records.append((b"atime", b"%d" % more.atime))
    if more.comment:
        records.append((b"comment", more.comment))
    records += [(b"SCHILY.xattr." + key, value) for key, value in entry.xattrs]
    return extended(records) + header(b"short", entry.type, linkname=b"short", **fields)


# -- sparse files ----------------------------------------------------------------------------------

Pairs = list[tuple[int, int]]


def old_gnu(entry: Entry, pairs: Pairs, logical: int, stored: bytes, more: bytes = b"") -> bytes:
    """Type ``S``: up to four pairs in the header, 21 in each further block."""
    tail = bytes(41) + b"".join(octal(o, 12) + octal(n, 12) for o, n in pairs[:4]).ljust(96, b"\0")
    tail += (b"\1" if more or pairs[4:] else b"\0") + number(logical, 12)
    rest = pairs[4:]
    while rest:
        block = b"".join(octal(o, 12) + octal(n, 12) for o, n in rest[:21]).ljust(504, b"\0")
        rest = rest[21:]
        more += block + (b"\1" if rest else b"\0") + bytes(7)
    fields = _fields(entry) | {"size": len(stored)}
    front = long_text(b"L", entry.name) if len(entry.name) > 100 else b""
    head = header(entry.name, ord("S"), magic=b"ustar  \0", tail=tail, **fields)
    return front + head + more + pad(stored)


def pax_sparse(entry: Entry, records: list[tuple[bytes, bytes]], stored: bytes) -> bytes:
    """An extended header with these records, and a member that holds ``stored``."""
    fields = _fields(entry) | {"size": len(stored)}
    return extended(records) + header(b"GNUSparseFile.0/x", ord("0"), **fields) + pad(stored)


def version_0_0(entry: Entry, pairs: Pairs, logical: int, stored: bytes) -> bytes:
    records = [(b"GNU.sparse.size", b"%d" % logical), (b"GNU.sparse.numblocks", b"%d" % len(pairs))]
    for offset, length in pairs:
        records.append((b"GNU.sparse.offset", b"%d" % offset))
        records.append((b"GNU.sparse.numbytes", b"%d" % length))
    return pax_sparse(entry, [*records, (b"path", entry.name)], stored)


def version_0_1(entry: Entry, pairs: Pairs, logical: int, stored: bytes) -> bytes:
    listed = b",".join(b"%d,%d" % pair for pair in pairs)
    return pax_sparse(
        entry,
        [(b"GNU.sparse.name", entry.name), (b"GNU.sparse.size", b"%d" % logical),
         (b"GNU.sparse.numblocks", b"%d" % len(pairs)), (b"GNU.sparse.map", listed)],
        stored,
    )  # fmt: skip


def version_1_0(entry: Entry, pairs: Pairs, logical: int, stored: bytes) -> bytes:
    lines = b"%d\n" % len(pairs) + b"".join(b"%d\n%d\n" % pair for pair in pairs)
    return pax_sparse(
        entry,
        [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", entry.name),
         (b"GNU.sparse.realsize", b"%d" % logical)],
        pad(lines) + stored,
    )  # fmt: skip


SPARSE = {"old GNU": old_gnu, "0.0": version_0_0, "0.1": version_0_1, "1.0": version_1_0}
