"""Sparse members in each of the four forms, built by hand so that every field is known.

GNU tar writes them all (``test_archive_dialects.py``); these are small, and some are lies.
"""

from __future__ import annotations

import io
import os
from typing import Any

import pytest

from cstorage.archive import writer
from cstorage.archive.apply import ApplyOptions, Limits, apply_layer
from cstorage.archive.beneath import open_payload_in_root
from cstorage.archive.manifest import read_manifest
from cstorage.archive.recipe import assemble
from cstorage.archive.writer import END, Entry, encode, padding
from cstorage.errors import ArchiveError, ArchiveLimitExceeded, ArchiveTruncated

UID, GID = os.geteuid(), os.getegid()
EXPANDED = b"hello" + bytes(1019) + b"w" * 1024 + bytes(952)
"""What the honest ones say: 5 bytes, a hole, 1 KiB, a hole up to 3000 bytes."""
PAIRS = [(0, 5), (1024, 1024)]
STORED = b"hello" + b"w" * 1024


def old_gnu(
    pairs: list[tuple[int, int]], logical: int, stored: bytes, *, more: bytes = b""
) -> bytes:
    """Type ``S``: up to four pairs in the header, 21 in each further block."""
    block = bytearray(encode(Entry(b"s", ord("S"), 0o644, UID, GID, len(stored))))
    block[257:265] = b"ustar  \0"
    for number, (offset, length) in enumerate(pairs[:4]):
        at = 386 + 24 * number
        block[at : at + 24] = b"%011o\0%011o\0" % (offset, length)
    block[482] = 1 if more or pairs[4:] else 0
    block[483:495] = logical.to_bytes(12, "big") if logical >> 33 else b"%011o\0" % logical
    if logical >> 33:
        block[483] |= 0x80
    rest = pairs[4:]
    while rest:
        extension = b"".join(b"%011o\0%011o\0" % pair for pair in rest[:21]).ljust(504, b"\0")
        rest = rest[21:]
        more += extension + (b"\1" if rest else b"\0") + bytes(7)
    block[148:156] = b" " * 8
    return writer._with_checksum(bytes(block)) + more + stored + padding(len(stored)) + END


def pax_sparse(records: list[tuple[bytes, bytes]], stored: bytes) -> bytes:
    """An extended header with these records, and a member that holds ``stored``."""
    data = b"".join(writer._record(*record) for record in records)
    return b"".join((
        writer._extended_block(b"s", len(data)), data, padding(len(data)),
        encode(Entry(b"GNUSparseFile.0/s", ord("0"), 0o644, UID, GID, len(stored))),
        stored, padding(len(stored)), END,
    ))  # fmt: skip


def version_0_0(pairs: list[tuple[int, int]], logical: int, stored: bytes) -> bytes:
    records = [(b"GNU.sparse.size", b"%d" % logical), (b"GNU.sparse.numblocks", b"%d" % len(pairs))]
    for offset, length in pairs:
        records.append((b"GNU.sparse.offset", b"%d" % offset))
        records.append((b"GNU.sparse.numbytes", b"%d" % length))
    return pax_sparse([*records, (b"path", b"s")], stored)


def version_0_1(pairs: list[tuple[int, int]], logical: int, stored: bytes) -> bytes:
    listed = b",".join(b"%d,%d" % pair for pair in pairs)
    return pax_sparse(
        [(b"GNU.sparse.name", b"s"), (b"GNU.sparse.size", b"%d" % logical),
         (b"GNU.sparse.numblocks", b"%d" % len(pairs)), (b"GNU.sparse.map", listed)], stored,
    )  # fmt: skip


def version_1_0(pairs: list[tuple[int, int]], logical: int, stored: bytes) -> bytes:
    lines = b"%d\n" % len(pairs) + b"".join(b"%d\n%d\n" % pair for pair in pairs)
    return pax_sparse(
        [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"s"),
         (b"GNU.sparse.realsize", b"%d" % logical)], lines + padding(len(lines)) + stored,
    )  # fmt: skip


FORMS = {"old GNU": old_gnu, "0.0": version_0_0, "0.1": version_0_1, "1.0": version_1_0}
ARCHIVES = {name: build(PAIRS, 3000, STORED) for name, build in FORMS.items()}


def apply(data: bytes, root: Any, limits: Limits = Limits()) -> tuple[bytes, Any]:
    """Apply; what the recipe gives back, and the manifest's entries."""
    recipe, manifest, again = io.BytesIO(), io.BytesIO(), io.BytesIO()
    apply_layer(
        io.BytesIO(data), root.fd, ApplyOptions(limits=limits), recipe=recipe, manifest=manifest
    )
    recipe.seek(0)
    manifest.seek(0)
    assemble(recipe, lambda name: open_payload_in_root(root.fd, name), again)
    return again.getvalue(), list(read_manifest(manifest))


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_say_the_same(root: Any, form: str) -> None:
    """One file in four spellings: same content, same digest, the archive back byte for byte."""
    again, entries = apply(ARCHIVES[form], root)
    assert again == ARCHIVES[form]
    assert (root.path / "s").read_bytes() == EXPANDED
    from cstorage.archive.manifest import best_hasher

    assert entries[0].path == b"s"
    assert (entries[0].size, entries[0].digest) == (3000, best_hasher()[1](EXPANDED).digest())


@pytest.mark.parametrize("form", FORMS)
def test_a_map_of_many_pairs_is_read_whole(root: Any, form: str) -> None:
    """More pairs than a header or a block holds."""
    pairs = [(number * 10, 3) for number in range(100)]
    data = FORMS[form](pairs, 1000, b"abc" * 100)
    assert apply(data, root)[0] == data
    assert (root.path / "s").read_bytes() == (b"abc" + bytes(7)) * 100


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_one_hole(root: Any, form: str) -> None:
    """No stored byte at all; a GNU tar writes the end as a pair of length nothing."""
    data = FORMS[form]([(1 << 20, 0)], 1 << 20, b"")
    assert apply(data, root)[0] == data
    assert (root.path / "s").stat().st_size == 1 << 20
    assert (root.path / "s").stat().st_blocks == 0


LIES: dict[str, tuple[list[tuple[int, int]], int, bytes]] = {
    "regions overlap": ([(0, 5), (3, 5)], 100, b"x" * 10),
    "regions out of order": ([(50, 5), (0, 5)], 100, b"x" * 10),
    "region beyond the end": ([(98, 5)], 100, b"x" * 5),
    "less stored than mapped": ([(0, 50)], 100, b"x" * 5),
    "more stored than mapped": ([(0, 5)], 100, b"x" * 50),
    "size beyond 63 bits": ([(0, 5)], 1 << 63, b"x" * 5),
    "offset beyond 63 bits": ([(1 << 32, 5)], 100, b"x" * 5),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lie", LIES)
def test_a_map_that_lies_is_refused(root: Any, form: str, lie: str) -> None:
    """Overlap, disorder, and lengths that do not agree."""
    with pytest.raises(ArchiveError):
        apply(FORMS[form](*LIES[lie]), root)


@pytest.mark.parametrize("form", FORMS)
def test_a_bomb_of_eight_exbibytes_is_refused(root: Any, form: str) -> None:
    """By the limit if there is one, by the file system otherwise; in no time."""
    data = FORMS[form]([(0, 5)], (1 << 63) - 1, b"hello")
    with pytest.raises(ArchiveLimitExceeded, match="sparse"):
        apply(data, root, Limits(max_bytes=1 << 30))
    with pytest.raises(ArchiveError):
        apply(data, root)


@pytest.mark.parametrize("form", FORMS)
def test_a_sparse_member_cut_anywhere_is_truncated(root: Any, form: str) -> None:
    """In the map, in its continuation, in the content."""
    pairs = [(number * 10, 3) for number in range(30)]
    data = FORMS[form](pairs, 1000, b"abc" * 30)
    end = data.rindex(b"abc") + 3
    for size in range(1, end, 7):
        for path in root.path.iterdir():
            path.unlink()
        with pytest.raises(ArchiveTruncated):
            apply(data[:size], root)


ODD: dict[str, bytes] = {
    "map without end": old_gnu([], 0, b"", more=(bytes(504) + b"\1" + bytes(7)) * 2100),
    "map of an odd number of values": pax_sparse(
        [(b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,5,7")], b"hello"),
    "another number of pairs than said": pax_sparse(
        [(b"GNU.sparse.size", b"9"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.map", b"0,5")],
        b"hello"),
    "lengths without offsets": pax_sparse(
        [(b"GNU.sparse.size", b"9"), (b"GNU.sparse.numblocks", b"1"),
         (b"GNU.sparse.numbytes", b"5"), (b"GNU.sparse.offset", b"0")], b"hello"),
    "negative offset": pax_sparse(
        [(b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"-1,5")], b"hello"),
    "no size": pax_sparse([(b"GNU.sparse.map", b"0,5")], b"hello"),
    "name with NUL": pax_sparse(
        [(b"GNU.sparse.name", b"a\0b"), (b"GNU.sparse.size", b"5"), (b"GNU.sparse.map", b"0,5")],
        b"hello"),
    "1.0 without a number": pax_sparse(
        [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")],
        b"x" * 1024),
    "1.0 with 9 digits of pairs": pax_sparse(
        [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")],
        b"999999999\n".ljust(1024, b"\0")),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_a_map_that_is_none_is_refused(root: Any, what: str) -> None:
    """Malformed maps, and such that would grow without bound."""
    with pytest.raises(ArchiveError):
        apply(ODD[what], root)
