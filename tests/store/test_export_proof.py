"""An export is what was imported, or it says which record or file is not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tars import BASE

from cstorage.content import ContentDamaged
from cstorage.errors import ContentChanged, UnsupportedCompression
from cstorage.model import Compression
from tests.store.place import diff_of, fill

if TYPE_CHECKING:
    from cstorage.store.store import Store

SAME_CRC = (1 | 1 << 60 | 1 << 61 | 1 << 63 | 1 << 64).to_bytes(9, "little")
"""The polynomial of the recipe's CRC-64 itself: added to a content, it does not change the CRC."""


@pytest.fixture(params=["whole", "list"])
def proof(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both proofs, whichever costs less here."""
    from cstorage.archive import proof as room

    chosen = str(request.param)
    monkeypatch.setattr(room, "whole_is_cheaper", lambda *_: chosen == "whole")
    return chosen


def record(store: Store, key: str) -> Path:
    return Path(store._core.content.path(key))


def rewrite(path: Path, data: bytes) -> None:
    os.chmod(path, 0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("compression", list(Compression))
def test_out_comes_what_went_in(store: Store, proof: str, compression: Compression) -> None:
    from cstorage.archive.compression import Decompressor

    layer = fill(store)
    out = io.BytesIO(diff_of(store, layer.id, compression=compression))
    plain = Decompressor(out)
    assert plain.compression is compression
    assert b"".join(iter(lambda: plain.read(1 << 20), b"")) == BASE


@pytest.mark.parametrize("compression", [Compression.BZIP2, Compression.XZ])
def test_slow_compressions_have_to_be_asked_for(store: Store, compression: Compression) -> None:
    """Semantics §4.5: one that is only recorded is refused, and so is any by the command."""
    packed = {Compression.BZIP2: bz2.compress, Compression.XZ: lzma.compress}[compression](BASE)
    layer = store.import_layer(io.BytesIO(packed))
    assert layer.diff.compression is compression
    out = io.BytesIO()
    with pytest.raises(UnsupportedCompression, match="unsupported compression format tar"):
        store.diff(layer.id, out)
    with pytest.raises(UnsupportedCompression, match="unsupported compression format tar"):
        store.diff(layer.id, out, compression=compression, slow=False)
    assert out.getvalue() == b""


def test_a_changed_recipe_is_not_passed_off_as_the_archive(store: Store, proof: str) -> None:
    """The recipe is proven by its key, as the files are by the list: a header cannot be changed."""
    layer = fill(store)
    path = record(store, layer.diff.recipe)
    text = gzip.decompress(path.read_bytes())
    changed = text.replace(b"AAAA", b"AAAB", 1)
    assert changed != text
    rewrite(path, gzip.compress(changed))
    out = io.BytesIO()
    with pytest.raises(ContentDamaged, match="recipe of layer"):
        store.diff(layer.id, out, compression=Compression.NONE)
    assert out.getvalue() == b"", "nothing of so short an archive leaves before the proof"


def test_a_change_that_no_checksum_shows_is_named_and_keeps_the_end_back(
    store: Store, proof: str
) -> None:
    """The list names what the digest of the whole only finds."""
    content = bytes(1000)
    layer = store.import_layer(io.BytesIO(archive_of(content)))
    forged = bytearray(content)
    for at, byte in enumerate(SAME_CRC):
        forged[100 + at] ^= byte
    (Path(store._core.driver.content_root(layer.id)) / "f").write_bytes(forged)
    for compression in (Compression.NONE, Compression.GZIP):
        out = io.BytesIO()
        with pytest.raises(ContentChanged, match='for "f"'):
            store.diff(layer.id, out, compression=compression)
        if compression is Compression.NONE:
            assert out.getvalue() == b""
        else:
            with pytest.raises(EOFError):
                gzip.decompress(out.getvalue())


def archive_of(content: bytes) -> bytes:
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo("f")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def test_many_files_are_read_by_two_processes(
    store: Store, proof: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of them is left."""
    from cstorage.archive import twin

    layer = fill(store)
    begun = []

    class Watched(twin.Twin):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            while not self.wants():
                self.take(wait=True)
            begun.append(self)

    monkeypatch.setattr(twin, "Twin", Watched)
    monkeypatch.setattr(twin, "ENTRIES", 1)
    monkeypatch.setattr(twin, "_running", lambda: 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert diff_of(store, layer.id) == BASE
    assert [made.lost for made in begun] == [True]


def test_a_changed_file_list_proves_nothing_and_stops_nothing(store: Store) -> None:
    """Its digest is its key: the digest of the whole decides then, for good files and for bad."""
    layer = fill(store)
    path = record(store, layer.diff.manifest)
    rewrite(path, path.read_bytes() + b"\x50\x2a\x4d\x18\x00\x00\x00\x00")  # an empty frame
    assert diff_of(store, layer.id) == BASE
    tool = Path(store._core.driver.content_root(layer.id)) / "usr/bin/tool"
    tool.write_bytes(bytes(byte ^ 1 for byte in tool.read_bytes()))
    with pytest.raises(ContentChanged, match="tool"):
        diff_of(store, layer.id)


def test_without_the_file_list_the_digest_of_the_whole_proves(store: Store) -> None:
    layer = fill(store)
    record(store, layer.diff.manifest).unlink()
    assert diff_of(store, layer.id) == BASE


@pytest.mark.parametrize("listed", [True, False])
def test_a_changed_file_is_named(store: Store, proof: str, listed: bool) -> None:
    layer = fill(store)
    if not listed:
        record(store, layer.diff.manifest).unlink()
    root: Any = Path(store._core.driver.content_root(layer.id))
    victim = next(path for path in sorted(root.rglob("*")) if path.is_file() and not
                  path.is_symlink() and path.stat().st_size)  # fmt: skip
    content = victim.read_bytes()
    victim.write_bytes(bytes(byte ^ 1 for byte in content))
    with pytest.raises(ContentChanged, match=victim.name):
        diff_of(store, layer.id)
