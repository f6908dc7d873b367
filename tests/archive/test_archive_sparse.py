"""Sparse members in each of the four forms, built by hand so that every field is known.

GNU tar writes them all (``test_archive_dialects.py``); these are small, and some are lies.
"""

from __future__ import annotations

import io
import os
from typing import Any

import pytest

from cstorage.archive.apply import ApplyOptions, Limits, apply_layer
from cstorage.archive.beneath import open_payload_in_root
from cstorage.archive.manifest import read_manifest
from cstorage.archive.recipe import assemble
from cstorage.archive.writer import END, Entry
from cstorage.errors import ArchiveError, ArchiveLimitExceeded, ArchiveTruncated
from tests.archive.dialects import SPARSE, Pairs, old_gnu, pax_sparse

EXPANDED = b"hello" + bytes(1019) + b"w" * 1024 + bytes(952)
"""What the honest ones say: 5 bytes, a hole, 1 KiB, a hole up to 3000 bytes."""
PAIRS = [(0, 5), (1024, 1024)]
STORED = b"hello" + b"w" * 1024


ENTRY = Entry(b"s", ord("0"), 0o644, os.geteuid(), os.getegid())


def built(form: str, pairs: Pairs, logical: int, stored: bytes) -> bytes:
    """An archive with one sparse member called ``s``."""
    return SPARSE[form](ENTRY, pairs, logical, stored) + END


ARCHIVES = {form: built(form, PAIRS, 3000, STORED) for form in SPARSE}


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


@pytest.mark.parametrize("form", SPARSE)
def test_the_forms_say_the_same(root: Any, form: str) -> None:
    """One file in four spellings: same content, same digest, the archive back byte for byte."""
    again, entries = apply(ARCHIVES[form], root)
    assert again == ARCHIVES[form]
    assert (root.path / "s").read_bytes() == EXPANDED
    from cstorage.archive.manifest import best_hasher

    assert entries[0].path == b"s"
    assert (entries[0].size, entries[0].digest) == (3000, best_hasher()[1](EXPANDED).digest())


@pytest.mark.parametrize("form", SPARSE)
def test_a_map_of_many_pairs_is_read_whole(root: Any, form: str) -> None:
    """More pairs than a header or a block holds."""
    pairs = [(number * 10, 3) for number in range(100)]
    data = built(form, pairs, 1000, b"abc" * 100)
    assert apply(data, root)[0] == data
    assert (root.path / "s").read_bytes() == (b"abc" + bytes(7)) * 100


@pytest.mark.parametrize("form", SPARSE)
def test_a_file_that_is_one_hole(root: Any, form: str) -> None:
    """No stored byte at all; a GNU tar writes the end as a pair of length nothing."""
    data = built(form, [(1 << 20, 0)], 1 << 20, b"")
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


@pytest.mark.parametrize("form", SPARSE)
@pytest.mark.parametrize("lie", LIES)
def test_a_map_that_lies_is_refused(root: Any, form: str, lie: str) -> None:
    """Overlap, disorder, and lengths that do not agree."""
    with pytest.raises(ArchiveError):
        apply(built(form, *LIES[lie]), root)


@pytest.mark.parametrize("form", SPARSE)
def test_a_bomb_of_eight_exbibytes_is_refused(root: Any, form: str) -> None:
    """By the limit if there is one, by the file system otherwise; in no time."""
    data = built(form, [(0, 5)], (1 << 63) - 1, b"hello")
    with pytest.raises(ArchiveLimitExceeded, match="sparse"):
        apply(data, root, Limits(max_bytes=1 << 30))
    with pytest.raises(ArchiveError):
        apply(data, root)


@pytest.mark.parametrize("form", SPARSE)
def test_a_sparse_member_cut_anywhere_is_truncated(root: Any, form: str) -> None:
    """In the map, in its continuation, in the content."""
    pairs = [(number * 10, 3) for number in range(30)]
    data = built(form, pairs, 1000, b"abc" * 30)
    end = data.rindex(b"abc") + 3
    for size in range(1, end, 7):
        for path in root.path.iterdir():
            path.unlink()
        with pytest.raises(ArchiveTruncated):
            apply(data[:size], root)


_SIZE = (b"GNU.sparse.size", b"9")
_MAP = (b"GNU.sparse.map", b"0,5")
_VERSION_1 = [
    (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"),
]  # fmt: skip
ODD: dict[str, tuple[list[tuple[bytes, bytes]], bytes]] = {
    "an odd number of values": ([_SIZE, (b"GNU.sparse.map", b"0,5,7")], b"hello"),
    "another number of pairs than said": ([_SIZE, (b"GNU.sparse.numblocks", b"2"), _MAP], b"hello"),
    "lengths before offsets": (
        [_SIZE, (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.numbytes", b"5"),
         (b"GNU.sparse.offset", b"0")], b"hello"),
    "a negative offset": ([_SIZE, (b"GNU.sparse.map", b"-1,5")], b"hello"),
    "no size": ([_MAP], b"hello"),
    "a name with NUL": ([(b"GNU.sparse.name", b"a\0b"), _SIZE, _MAP], b"hello"),
    "an empty name": ([(b"GNU.sparse.name", b""), _SIZE, _MAP], b"hello"),
    "1.0 without a number": (_VERSION_1, b"x" * 1024),
    "1.0 with 999999999 pairs": (_VERSION_1, b"999999999\n".ljust(1024, b"\0")),
    "1.0 with lines that do not end": (_VERSION_1, b"1\n" + b"0" * 5000),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_a_map_that_is_none_is_refused(root: Any, what: str) -> None:
    """Malformed maps, and such that would grow without bound."""
    with pytest.raises(ArchiveError):
        apply(pax_sparse(ENTRY, *ODD[what]) + END, root)


def test_a_map_without_end_is_refused(root: Any) -> None:
    """Blocks that always announce another one end at 1 MiB."""
    with pytest.raises(ArchiveError, match="1 MiB"):
        apply(old_gnu(ENTRY, [], 0, b"", (bytes(504) + b"\1" + bytes(7)) * 2100) + END, root)
