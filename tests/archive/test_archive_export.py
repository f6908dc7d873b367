"""What leaves is proven: by the digests of the import's file list, or by that of the whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cstorage.archive import assembly
from cstorage.archive.beneath import Payloads
from cstorage.archive.compression import compressing
from cstorage.archive.gzipblocks import BLOCK
from cstorage.archive.recipe import RecipeWriter, assemble, crc64, read_recipe
from cstorage.archive.threads import Beside
from cstorage.errors import ArchiveError, ContentChanged
from cstorage.model import Compression

from .conftest import Imported

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Root, Scene

MIB = 1 << 20
SIZES = (
    0,
    1,
    511,
    512,
    513,
    BLOCK - 513,
    BLOCK - 512,
    BLOCK - 511,
    BLOCK,
    BLOCK + 1,
    3 * BLOCK + 7,
)
SAME_CRC = (1 | 1 << 60 | 1 << 61 | 1 << 63 | 1 << 64).to_bytes(9, "little")
"""The polynomial of the recipe's CRC-64 itself: added to a content, it does not change the CRC."""


def content(size: int) -> bytes:
    return hashlib.shake_128(b"%d" % size).digest(min(size, 4096)).ljust(size, b"%d" % (size % 7))


class Exported(Imported):
    """An imported archive, and ways to get it out again."""

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
@pytest.mark.parametrize("buffer", [512, 1024, 100_000, MIB, BLOCK])
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


@pytest.mark.parametrize("size", [513, BLOCK, 3 * BLOCK + 7])
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
@pytest.mark.parametrize("size", [513, 3 * BLOCK + 7])
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
    assert packed(MIB + 1, 2) == packed(BLOCK, 2) == packed(77_777, 3) == first


NOISE = hashlib.shake_128(b"noise").digest(3 * MIB)


@pytest.mark.parametrize("first", [b"", b"x"], ids=["aligned", "not aligned"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_buffers_that_change_hands_are_compressed_as_they_were(first: bytes, threads: int) -> None:
    """The one that comes back is written to at once, as its owner may."""
    data = first + b"".join((NOISE, content(4 * MIB), NOISE[: MIB // 2], content(5 * MIB)))
    out = io.BytesIO()
    buffer = memoryview(bytearray(BLOCK))
    with compressing(out, Compression.GZIP, threads=threads) as sink:
        assert sink.exchange is not None
        sink.write(first)
        for at in range(len(first), len(data), BLOCK):
            piece = data[at : at + BLOCK]
            buffer[: len(piece)] = piece
            if len(piece) < BLOCK:
                sink.write(bytes(buffer[: len(piece)]))
                break
            buffer = sink.exchange(buffer)
            buffer[:] = b"?" * BLOCK
    assert gzip.decompress(out.getvalue()) == data
    assert out.getvalue() == gzipped(data, len(data), 1)


def gzipped(data: bytes, piece: int, threads: int, level: int | None = None) -> bytes:
    out = io.BytesIO()
    with compressing(out, Compression.GZIP, level=level, threads=threads) as sink:
        for at in range(0, len(data), piece):
            sink.write(data[at : at + piece])
    return out.getvalue()


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_what_does_not_shrink_is_stored_and_the_rest_is_not(
    level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the pieces and threads, and not larger than if all were compressed."""
    from cstorage.archive import gzipblocks

    text = b"".join(b"line %d of a text\n" % number for number in range(60_000))[:MIB]
    data = text[:300_000] + NOISE[: MIB + 77] + text + NOISE[MIB:] + text[:5]
    packed = gzipped(data, 100_003, 1, level)
    assert gzip.decompress(packed) == data
    assert packed == gzipped(data, MIB, 2, level) == gzipped(data, len(data), 5, level)
    assert packed.find(NOISE[2 * MIB : 2 * MIB + 9000]) > 0, "it is there as it was"
    monkeypatch.setattr(gzipblocks, "_runs", lambda block: [(0, len(block), False)])
    assert len(packed) < len(gzipped(data, MIB, 1, level)) * 1.0005


@pytest.mark.parametrize("kind", ["twice", "hex", "bytes", "halves"])
def test_what_only_looks_like_noise_is_compressed(kind: str) -> None:
    """What the fixed code of a sample is bad at is looked at again."""
    data = {
        "twice": NOISE[:8192] * 128,
        "hex": NOISE[: MIB // 2].hex().encode(),
        "bytes": bytes(200 + byte % 50 for byte in NOISE[:MIB]),
        "halves": b"".join(
            NOISE[at : at + 32768] + bytes(32768) for at in range(0, MIB // 2, 32768)
        ),
    }[kind]
    packed = gzipped(data, MIB, 2)
    assert gzip.decompress(packed) == data
    # "twice" repeats what is farther apart than a sample: that is the price of samples.
    assert len(packed) < len(data) * (1.0002 if kind == "twice" else 0.8)


def test_an_error_of_a_thread_is_the_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    from cstorage.archive import gzipblocks

    def failing(*_: object) -> bytes:
        raise MemoryError("no block")

    before = threading.active_count()
    monkeypatch.setattr(gzipblocks, "packed", failing)
    with pytest.raises(MemoryError, match="no block"):
        gzipped(bytes(9 * MIB), MIB, 2)
    assert threading.active_count() == before


def test_the_end_waits_for_whoever_confirms(exported: Exported) -> None:
    sink = io.BytesIO()
    seen: list[tuple[int, int]] = []
    with Payloads([exported.root.fd]) as payloads:
        assemble(
            io.BytesIO(exported.recipe.getvalue()),
            payloads.open,
            sink,
            confirm=lambda size: seen.append((size, len(sink.getvalue()))),
        )
    assert sink.getvalue() == exported.data
    [(size, gone)] = seen
    assert size == len(exported.data) > gone


def test_the_cheaper_proof_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    from cstorage.archive import proof

    speed = 0.55
    monkeypatch.setattr(proof, "_sha256_byte", lambda: speed)
    assert proof.whole_is_cheaper(50_000, 105 << 20)
    assert not proof.whole_is_cheaper(6_768, 204 << 20)
    assert not proof.whole_is_cheaper(4, 384 << 20)
    speed = 3.0
    assert not proof.whole_is_cheaper(50_000, 105 << 20)
    assert proof.whole_is_cheaper(50_000, 30 << 20)
    monkeypatch.undo()
    assert 0.1 < proof._sha256_byte() < 100


SEGMENTS = st.lists(
    st.tuples(
        st.integers(0, 511),
        st.sampled_from([b"", b"x", bytes(345), b"h" * 157 + bytes(355), b"i" * 160 + b"o" * 352]),
        st.integers(0, 3),
        st.one_of(st.just(0), st.integers(1, 5000)),
        st.sampled_from([b"f", "\u00e9\u2028<".encode(), b"\xff", b'"\\']),
    ),
    max_size=30,
)


@given(SEGMENTS)
def test_a_recipe_is_read_as_it_was_written(
    segments: list[tuple[int, bytes, int, int, bytes]],
) -> None:
    """Where zeros are skipped and repeated halves of headers are known, too."""
    out = io.BytesIO()
    writer = RecipeWriter(out)
    wanted: list[Any] = []
    for zeros, middle, more, size, name in segments:
        data = bytes(zeros) + middle + bytes(more)
        writer.member(data, name, size, size << 40)
        wanted.append(data)
        if size:
            wanted.append((name, size, (size << 40).to_bytes(8, "big")))
    writer.close()
    found: list[Any] = []
    for data, name, size, crc in read_recipe(io.BytesIO(out.getvalue())):
        if data or not size:
            found.append(data)
        if size:
            found.append((name, size, crc))
    assert [item for item in found if item] == [item for item in wanted if item]


def test_a_digest_beside_is_that_of_all_pieces() -> None:
    """However slow its thread is; an error of the thread is the caller's."""

    class Slow:
        def __init__(self) -> None:
            self.seen = bytearray()

        def update(self, data: memoryview) -> None:
            time.sleep(0.02)
            if data[0] == 9:
                raise MemoryError("digest")
            self.seen += data

        def digest(self) -> bytes:
            return bytes(self.seen)

    pieces = [bytes([number]) * size for number, size in enumerate((5, MIB, 7, MIB, MIB), 1)]
    before = threading.active_count()
    beside = Beside(Slow())
    for piece in pieces:
        beside.update(memoryview(piece))
    assert threading.active_count() == before + 1
    assert beside.digest() == b"".join(pieces)
    beside.update(memoryview(bytes([9]) * MIB))
    with pytest.raises(MemoryError, match="digest"):
        beside.digest()
    beside.close()
    assert threading.active_count() == before
