"""What leaves is proven: by the digests of the import's file list, or by that of the whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from cstorage.archive import assembly
from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.beneath import Payloads
from cstorage.archive.compression import compressing
from cstorage.archive.recipe import assemble, crc64
from cstorage.errors import ArchiveError, ContentChanged
from cstorage.model import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Root, Scene

MIB = 1 << 20
SIZES = (0, 1, 511, 512, 513, MIB - 513, MIB - 512, MIB - 511, MIB, MIB + 1, 3 * MIB + 7)
SAME_CRC = (1 | 1 << 60 | 1 << 61 | 1 << 63 | 1 << 64).to_bytes(9, "little")
"""The polynomial of the recipe's CRC-64 itself: added to a content, it does not change the CRC."""


def content(size: int) -> bytes:
    return hashlib.shake_128(b"%d" % size).digest(min(size, 4096)).ljust(size, b"%d" % (size % 7))


class Exported:
    """An imported archive, and ways to get it out again."""

    def __init__(self, data: bytes, root: Root) -> None:
        self.data = data
        self.root = root
        self.recipe, self.manifest = io.BytesIO(), io.BytesIO()
        self.summary = apply_layer(
            io.BytesIO(data), root.fd, ApplyOptions(), recipe=self.recipe, manifest=self.manifest
        )

    def to(self, sink: Any, *, listed: bool = True, digest: str = "") -> int:
        with Payloads([self.root.fd]) as payloads:
            return assemble(
                io.BytesIO(self.recipe.getvalue()),
                payloads.open,
                sink,
                digest=digest,
                manifest=io.BytesIO(self.manifest.getvalue()) if listed else None,
            )

    def out(self, **more: Any) -> bytes:
        sink = io.BytesIO()
        assert self.to(sink, **more) == len(sink.getvalue())
        return sink.getvalue()


@pytest.fixture
def exported(scene: Callable[[], Scene], root: Root) -> Exported:
    made = scene().dir("d")
    for size in SIZES:
        made.file(f"./d//{size}", content(size))
    made.symlink("link", "d").file("last", b"last")
    return Exported(bytes(made), root)


@pytest.mark.parametrize("proof", ["list", "checksums", "whole"])
@pytest.mark.parametrize("buffer", [512, 1024, 100_000, MIB])
def test_every_size_of_file_fits_every_buffer(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, proof: str, buffer: int
) -> None:
    monkeypatch.setattr(assembly, "_BUFFER", buffer)
    digest = exported.summary.uncompressed_digest if proof == "whole" else ""
    assert exported.out(listed=proof == "list", digest=digest) == exported.data


def test_the_file_list_spares_the_digest_of_the_whole(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(hashlib, "sha256")
    assert exported.out(digest="sha256:" + "0" * 64) == exported.data


@pytest.mark.parametrize("size", [513, MIB, 3 * MIB + 7])
def test_a_change_that_no_checksum_shows_is_found_and_named(exported: Exported, size: int) -> None:
    """The CRC-64 of the recipe can be kept while the content is changed; the digest cannot."""
    path = exported.root.path / "d" / str(size)
    forged = bytearray(path.read_bytes())
    for at, byte in enumerate(SAME_CRC):
        forged[100 + at] ^= byte
    assert crc64(forged) == crc64(path.read_bytes())
    path.write_bytes(forged)
    assert exported.out(listed=False) != exported.data
    with pytest.raises(ContentChanged, match=f'/{size}"'):
        exported.out()
    with pytest.raises(ContentChanged, match="digest"):
        exported.out(listed=False, digest=exported.summary.uncompressed_digest)


def test_nothing_of_a_small_changed_file_leaves(exported: Exported) -> None:
    """Files that fit into one buffer are proven before they leave."""
    (exported.root.path / "d" / "512").write_bytes(b"SECRET".ljust(512))
    sink = io.BytesIO()
    with pytest.raises(ContentChanged):
        exported.to(sink)
    assert b"SECRET" not in sink.getvalue()


@pytest.mark.parametrize("change", ["shorter", "longer", "gone", "directory", "link", "pipe"])
@pytest.mark.parametrize("size", [513, 3 * MIB + 7])
def test_a_file_that_became_something_else_is_named(
    exported: Exported, size: int, change: str
) -> None:
    path = exported.root.path / "d" / str(size)
    if change in ("shorter", "longer"):
        os.truncate(path, size + (1 if change == "longer" else -1))
    else:
        path.unlink()
    if change == "directory":
        path.mkdir()
    elif change == "link":
        path.symlink_to("512")
    elif change == "pipe":
        os.mkfifo(path)
    with pytest.raises(ContentChanged, match=f'/{size}"'):
        exported.out()


def test_a_file_that_the_list_lacks_ends_the_archive(exported: Exported) -> None:
    """A list of another archive proves nothing."""
    from cstorage.archive.manifest import ManifestWriter

    other = io.BytesIO()
    ManifestWriter(other).close()
    exported.manifest = other
    with pytest.raises(ArchiveError, match="not in the layer's file list"):
        exported.out()


def test_a_sink_may_take_a_part_at_a_time(exported: Exported) -> None:
    taken = bytearray()

    class Slow(io.RawIOBase):
        def write(self, data: Any) -> int:
            piece = bytes(data[: max(1, len(data) * 2 // 3)])
            taken.extend(piece)
            return len(piece)

    exported.to(Slow())
    assert taken == exported.data
    taken.clear()
    with compressing(Slow(), Compression.NONE) as sink:
        exported.to(sink)
    assert taken == exported.data


def test_a_sink_may_keep_what_it_was_given(exported: Exported) -> None:
    """Buffers are used again only with sinks that follow the rules of ``io``."""
    kept: list[Any] = []

    class Keeper:
        def write(self, data: bytes) -> None:
            kept.append(data)

    exported.to(Keeper())
    assert b"".join(kept) == exported.data
    kept.clear()
    with compressing(Keeper(), Compression.NONE) as sink:
        exported.to(sink)
    assert b"".join(kept) == exported.data


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP, Compression.ZSTD])
def test_a_sink_that_fails_ends_all_threads(
    exported: Exported, compression: Compression, listed: bool
) -> None:
    before = threading.active_count()

    class Full(io.RawIOBase):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError), compressing(Full(), compression) as sink:
        exported.to(sink, listed=listed, digest=exported.summary.uncompressed_digest)
    assert threading.active_count() == before


@pytest.mark.parametrize("level", [None, 0, 1, 3, 6])
def test_gzip_depends_on_content_and_level_alone(level: int | None) -> None:
    """Not on the pieces in which the content comes, nor on the number of threads."""
    data = content(5 * MIB + 3) + os.urandom(MIB)

    def packed(piece: int, threads: int) -> bytes:
        out = io.BytesIO()
        with compressing(out, Compression.GZIP, level=level, threads=threads) as sink:
            for at in range(0, len(data), piece):
                sink.write(data[at : at + piece])
        return out.getvalue()

    first = packed(len(data), 1)
    assert gzip.decompress(first) == data
    assert packed(MIB + 1, 2) == packed(77_777, 3) == first
