"""Each field in each dialect: what a header says is what the reader gives, and what the disk has.

Python's ``tarfile`` reads the same archives; where it gives something else, the row says why.
"""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from typing import Any

import pytest

from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.beneath import open_payload_in_root
from cstorage.archive.header import DIRTYPE, REGTYPE, SYMTYPE
from cstorage.archive.manifest import read_manifest
from cstorage.archive.names import clean
from cstorage.archive.reader import TarReader
from cstorage.archive.recipe import assemble
from cstorage.archive.writer import END
from cstorage.errors import ArchiveError, ArchiveTruncated
from tests.archive.dialects import extended, header, long_text, octal, pad

S = 10**9
UID, GID = os.geteuid(), os.getegid()
V7, USTAR, GNU = b"", b"ustar\x0000", b"ustar  \0"

Row = tuple[bytes, dict[str, Any], str]
"""The archive's members, fields of the last one, and why Python disagrees (if it does)."""

ROWS: dict[str, Row] = {
    "V7 file": (header(b"f", 0, magic=V7, mtime=5), {"type": REGTYPE, "mtime_ns": 5 * S}, ""),
    "V7 directory": (header(b"d/", 0, magic=V7), {"type": DIRTYPE, "name": b"d/"}, ""),
    "V7 spaces": (header(b"f", 0, magic=V7, mode=0o4755, spaces=True), {"mode": 0o4755}, ""),
    "V7 has no prefix": (header(b"f", 0, magic=V7, tail=b"not a prefix"), {"name": b"f"},
                         "Python joins it"),
    "V7 has no devices": (
        header(b"f", ord("3"), magic=V7, major=1, minor=3), {"devmajor": 0, "devminor": 0}, ""),
    "name of 100 bytes": (header(b"n" * 100, REGTYPE), {"name": b"n" * 100}, ""),
    "target of 100 bytes": (header(b"l", SYMTYPE, linkname=b"t" * 100), {"linkname": b"t" * 100},
                            ""),
    "ustar prefix": (header(b"n" * 100, REGTYPE, tail=b"p" * 155),
                     {"name": b"p" * 155 + b"/" + b"n" * 100}, ""),
    "star's times are no prefix": (
        header(b"n", REGTYPE, tail=(b"p" * 131 + octal(7, 12) * 2 + bytes(8) + b"tar\0")),
        {"name": b"p" * 131 + b"/n"}, "Python joins them, too"),
    "GNU's times are no prefix": (
        header(b"n", REGTYPE, magic=GNU, tail=octal(7, 12) + octal(7, 12)), {"name": b"n"},
        "Python takes them for one"),
    "GNU name": (long_text(b"L", b"n" * 500) + header(b"short", REGTYPE, magic=GNU),
                 {"name": b"n" * 500}, ""),
    "GNU target": (long_text(b"K", b"t" * 500) + header(b"l", SYMTYPE, magic=GNU),
                   {"linkname": b"t" * 500, "name": b"l"}, ""),
    "GNU target, then name": (
        long_text(b"K", b"t" * 500) + long_text(b"L", b"n" * 500)
        + header(b"l", SYMTYPE, magic=GNU), {"linkname": b"t" * 500, "name": b"n" * 500}, ""),
    "GNU name of no text": (long_text(b"L", b"") + header(b"n", REGTYPE, magic=GNU),
                            {"name": b"n"}, "Python takes the empty one"),
    "the later of two GNU names": (
        long_text(b"L", b"first") + long_text(b"L", b"second") + header(b"n", REGTYPE, magic=GNU),
        {"name": b"second"}, "Python takes the first"),
    "base 256, large": (header(b"f", REGTYPE, uid=(1 << 32) - 2, gid=1 << 31, mtime=1 << 40),
                        {"uid": (1 << 32) - 2, "gid": 1 << 31, "mtime_ns": (1 << 40) * S}, ""),
    "base 256, negative": (header(b"f", REGTYPE, mtime=-5), {"mtime_ns": -5 * S}, ""),
    "base 256, content beyond 8 GiB": (header(b"f", REGTYPE, size=1 << 40), {"size": 1 << 40}, ""),
    "devices": (header(b"c", ord("3"), major=4095, minor=1048575),
                {"devmajor": 4095, "devminor": 1048575}, ""),
    "all mode bits": (header(b"f", REGTYPE, mode=0o7777), {"mode": 0o7777}, ""),
    "file type in the mode": (header(b"f", REGTYPE, mode=0o100644), {"mode": 0o100644}, ""),
    "pax path": (extended([(b"path", "ü".encode() * 200)]) + header(b"x", REGTYPE),
                 {"name": "ü".encode() * 200}, ""),
    "pax path, not UTF-8": (extended([(b"path", b"\xff\xfe")]) + header(b"x", REGTYPE),
                            {"name": b"\xff\xfe"}, ""),
    "pax path, said to be binary": (
        extended([(b"hdrcharset", b"BINARY"), (b"path", b"\xff")]) + header(b"x", REGTYPE),
        {"name": b"\xff"}, ""),
    "pax link": (extended([(b"linkpath", b"t" * 300)]) + header(b"x", SYMTYPE),
                 {"linkname": b"t" * 300}, ""),
    "pax times": (extended([(b"mtime", b"1.000000001"), (b"atime", b"2.5")])
                  + header(b"x", REGTYPE), {"mtime_ns": S + 1, "atime_ns": 5 * S // 2},
                  "Python's times are floats"),
    "pax time before 1970": (extended([(b"mtime", b"-0.25")]) + header(b"x", REGTYPE),
                             {"mtime_ns": -S // 4}, "Python's times are floats"),
    "pax owner": (extended([(b"uid", b"4294967294"), (b"gid", b"3000000")]) + header(b"x", REGTYPE),
                  {"uid": 4294967294, "gid": 3000000}, ""),
    "pax size": (extended([(b"size", b"5")]) + header(b"x", REGTYPE, size=0) + pad(b"hello"),
                 {"size": 5}, ""),
    "pax, withdrawn": (extended([(b"path", b""), (b"mtime", b"")]) + header(b"x", REGTYPE, mtime=7),
                       {"name": b"x", "mtime_ns": 7 * S}, "Python takes the empty name"),
    "pax, the later counts": (
        extended([(b"path", b"a"), (b"path", b"b")]) + header(b"x", REGTYPE), {"name": b"b"}, ""),
    "pax, unknown": (
        extended([(b"VENDOR.x", b"\0\n="), (b"SCHILY.dev", b"5"), (b"LIBARCHIVE.xattr.a", b"")])
        + header(b"x", REGTYPE), {"name": b"x", "xattrs": None}, ""),
    "pax attributes": (
        extended([(b"SCHILY.xattr.user.a", b"\0\n=\xff"), (b"SCHILY.xattr.user.b=c", b"")])
        + header(b"x", REGTYPE),
        {"xattrs": [("user.a", b"\0\n=\xff"), ("user.b", b"c=")]}, ""),
    "pax of Solaris": (extended([(b"path", b"n")], b"X") + header(b"x", REGTYPE),
                       {"name": b"n"}, ""),
    "pax global, then own": (
        extended([(b"mtime", b"9")], b"g") + extended([(b"path", b"n")]) + header(b"x", REGTYPE),
        {"name": b"n", "mtime_ns": 0}, "Python applies global ones"),
    "pax of two headers": (
        extended([(b"path", b"n")]) + extended([(b"mtime", b"5")]) + header(b"x", REGTYPE),
        {"name": b"x", "mtime_ns": 5 * S}, "Python keeps both"),
    "pax and GNU name": (
        extended([(b"path", b"pax")]) + long_text(b"L", b"gnu") + header(b"x", REGTYPE),
        {"name": b"gnu"}, "Python's order is another"),
    "a hard link has no content": (header(b"h", ord("1"), linkname=b"t", size=99),
                                   {"size": 99, "stored": 0}, "Python keeps none of the size"),
    "a directory has no content": (header(b"d/", ord("5"), size=99), {"stored": 0},
                                   "Python skips 99 bytes"),
}  # fmt: skip


def members(data: bytes, piece: int) -> list[Any]:
    chunks = iter([data[at : at + piece] for at in range(0, len(data), piece)])
    reader = TarReader(lambda: next(chunks, b""))
    found: list[Any] = []
    try:
        while (member := reader.next()) is not None:
            found.append(member)
    except ArchiveTruncated:
        pass  # the headers with sizes of terabytes have no content here
    return found


@pytest.mark.parametrize("what", ROWS)
def test_fields_are_read(what: str) -> None:
    """Whole archive at once, and in pieces of a few bytes."""
    data, expected, _ = ROWS[what]
    for piece in (1 << 20, 512, 7):
        member = members(data + END, piece)[-1]
        assert {key: getattr(member, key) for key in expected} == expected


@pytest.mark.parametrize("what", [name for name, row in ROWS.items() if not row[2]])
def test_python_reads_the_same_fields(what: str) -> None:
    """The names, kinds, sizes, owners and modes that ``tarfile`` finds in the same bytes."""
    data, _, _ = ROWS[what]
    with tarfile.open(fileobj=io.BytesIO(data + END), errors="surrogateescape") as tar:
        info = tar.next()
    assert info is not None
    member = members(data + END, 512)[-1]
    theirs = (info.name, info.linkname, info.type, info.size, info.uid, info.gid, info.mode)
    kind = b"0" if info.type == b"\0" else info.type
    assert theirs[:2] == (
        os.fsdecode(member.name).rstrip("/"), os.fsdecode(member.linkname)
    )  # fmt: skip
    assert (kind, *theirs[3:6]) == (
        bytes((member.type,)), member.size, member.uid, member.gid
    )  # fmt: skip
    assert info.mode & 0o7777 == member.mode & 0o7777
    assert int(info.mtime) == member.mtime_ns // S


ARCHIVED = {
    name: row[0] for name, row in ROWS.items() if name not in {
        "base 256, content beyond 8 GiB", "a hard link has no content", "V7 has no devices",
        "devices", "GNU name", "the later of two GNU names", "GNU target, then name",
        "ustar prefix", "pax path", "base 256, large", "pax owner",
    }
}  # fmt: skip
"""Those that any file system and any user can take."""


@pytest.mark.skipif(UID != 0, reason="the headers name user 0 as owner")
@pytest.mark.root
@pytest.mark.parametrize("what", ARCHIVED)
def test_the_archive_comes_back_whatever_was_in_its_headers(what: str, root: Any) -> None:
    """Every field that was skipped or withdrawn is in the recipe."""
    data = ARCHIVED[what] + header(b"next", REGTYPE, size=3) + pad(b"abc") + END
    recipe, manifest, again = io.BytesIO(), io.BytesIO(), io.BytesIO()
    apply_layer(io.BytesIO(data), root.fd, ApplyOptions(), recipe=recipe, manifest=manifest)
    recipe.seek(0)
    manifest.seek(0)
    assemble(recipe, lambda name: open_payload_in_root(root.fd, name), again)
    assert again.getvalue() == data
    assert [entry.path for entry in read_manifest(manifest)][-1] == b"next"
    assert (root.path / "next").read_bytes() == b"abc"


def test_times_below_a_second_reach_the_disk(root: Any) -> None:
    """To the nanosecond, for files, directories and links."""
    archive = b"".join(
        extended([(b"mtime", b"1600000000.123456789"), (b"atime", b"1600000001.5")])
        + header(name, kind, linkname=b"t", uid=UID, gid=GID, mode=0o755)
        for name, kind in ((b"d", DIRTYPE), (b"d/f", REGTYPE), (b"d/l", SYMTYPE))
    )
    apply_layer(io.BytesIO(archive + END), root.fd, ApplyOptions())
    for name in ("d", "d/f", "d/l"):
        info = (root.path / name).lstat()
        assert info.st_mtime_ns == 1_600_000_000_123_456_789
    assert (root.path / "d" / "f").lstat().st_atime_ns == 1_600_000_001_500_000_000


REFUSED: dict[str, bytes] = {
    "checksum": header(b"f", REGTYPE)[:148] + b"000001\0 " + header(b"f", REGTYPE)[156:],
    "digits beyond octal": header(b"f", REGTYPE)[:100] + b"0000999\0" + header(b"f", REGTYPE)[108:],
    "record too long": header(b"x", ord("x"), size=8) + pad(b"99 a=b\n\n") + header(b"f", REGTYPE),
    "record without length": header(b"x", ord("x"), size=6) + pad(b" a=b\n\n"),
    "record without keyword": header(b"x", ord("x"), size=5) + pad(b"5 =b\n"),
    "record without equals": header(b"x", ord("x"), size=5) + pad(b"5 ab\n"),
    "record of its own length": header(b"x", ord("x"), size=4) + pad(b"2 a="),
    "size that is none": extended([(b"size", b"5x")]) + header(b"f", REGTYPE),
    "negative size": extended([(b"size", b"-5")]) + header(b"f", REGTYPE),
    "size of 21 digits": extended([(b"size", b"1" * 21)]) + header(b"f", REGTYPE),
    "owner that is none": extended([(b"uid", b"root")]) + header(b"f", REGTYPE),
    "time that is none": extended([(b"mtime", b"now")]) + header(b"f", REGTYPE),
    "path with NUL": extended([(b"path", b"a\0b")]) + header(b"f", REGTYPE),
    "volume label of GNU": header(b"label", ord("V"), magic=GNU),
    "continued file of GNU": header(b"f", ord("M"), magic=GNU),
    "directory list of GNU": header(b"d", ord("D"), magic=GNU, size=3) + pad(b"Yf\0"),
    "negative device": header(b"c", ord("3"), major=-1),
    "sparse without GNU": header(b"s", ord("S")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_header_is_refused(what: str, root: Any) -> None:
    """And the error says what it met."""
    with pytest.raises(ArchiveError) as refused:
        apply_layer(io.BytesIO(REFUSED[what] + END), root.fd, ApplyOptions())
    assert len(str(refused.value)) > 10


def test_a_reader_tells_a_cut_at_every_byte(scene: Any) -> None:
    """One archive of all kinds, each length of it: whole only where a member may begin."""
    data = bytes(
        scene().dir("d").file("d/f", b"x" * 700).file("n" * 120, b"y", xattrs=((b"user.a", b"b"),))
        .raw(long_text(b"L", b"g" * 150) + header(b"g", REGTYPE, size=9, magic=GNU) + pad(b"9" * 9))
        .raw(extended([(b"comment", b"c")], b"g")).symlink("l", "t")
    )  # fmt: skip
    ends = [0]
    chunks = iter([data])
    reader = TarReader(lambda: next(chunks, b""))
    whole = set()
    while (member := reader.next()) is not None:
        end = ends[-1] + len(member.segment) + member.stored
        ends.append(end)
        whole |= set(range(end, end + -end % 512 + 1))
    whole |= {ends[-1] + 512, len(data), 0}
    for size in range(len(data) + 1):
        pieces = iter([data[:size]])
        reader = TarReader(lambda pieces=pieces: next(pieces, b""))  # type: ignore[misc]
        try:
            while reader.next() is not None:
                pass
        except ArchiveTruncated:
            assert size not in whole, size
        else:
            assert size in whole, size


def test_names_are_cleaned_as_the_rules_say() -> None:
    """Every short name of the characters that mean something, against the rules word by word."""
    for length in range(7):
        for letters in itertools.product(b"a./\0", repeat=length):
            name = bytes(letters)
            parts = [part for part in name.split(b"/") if part not in (b"", b".")]
            if b"\0" in name or b".." in parts:
                with pytest.raises(ArchiveError):
                    clean(name)
            else:
                assert clean(name) == b"/".join(parts), name
