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


def record(store: Store, key: str) -> Path:
    return Path(store._core.content.path(key))


def rewrite(path: Path, data: bytes) -> None:
    os.chmod(path, 0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("compression", list(Compression))
def test_out_comes_what_went_in(store: Store, compression: Compression) -> None:
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


def test_a_changed_recipe_is_not_passed_off_as_the_archive(store: Store) -> None:
    """The recipe is proven by its key, as the files are by the list: a header cannot be changed."""
    layer = fill(store)
    path = record(store, layer.diff.recipe)
    text = gzip.decompress(path.read_bytes())
    changed = text.replace(b"AAAA", b"AAAB", 1)
    assert changed != text
    rewrite(path, gzip.compress(changed))
    with pytest.raises(ContentDamaged, match="recipe of layer"):
        diff_of(store, layer.id)


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
def test_a_changed_file_is_named(store: Store, listed: bool) -> None:
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
