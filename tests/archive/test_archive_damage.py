"""Damaged archives end in the documented errors and in nothing else."""

from __future__ import annotations

import gc
import io
import os
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cstorage.archive.apply import ApplyOptions, Limits, apply_layer
from cstorage.archive.compression import Decompressor, compressing, detect
from cstorage.archive.manifest import read_manifest
from cstorage.archive.reader import TarReader
from cstorage.archive.recipe import RecipeWriter, assemble, read_recipe
from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.errors import ArchiveError, ArchiveTruncated, ContentChanged, UnsupportedCompression
from cstorage.model import Compression

if TYPE_CHECKING:
    from pathlib import Path

PACKED = [kind for kind in Compression if kind != Compression.NONE]


def pack(data: bytes, compression: Compression) -> bytes:
    out = io.BytesIO()
    with compressing(out, compression, threads=1) as sink:
        sink.write(data)
    return out.getvalue()


def small(scene: Any) -> bytes:
    return bytes(
        scene()
        .dir("d")
        .file("d/f", b"content" * 40)
        .file("d/" + "long" * 40, b"c", xattrs=((b"user.a", b"b"),))
        .symlink("d/l", "f")
        .link("h", "d/f")
        .file("d/.wh.gone")
    )


def try_apply(data: bytes, options: ApplyOptions = ApplyOptions()) -> Exception | None:
    """Apply to a fresh directory on memory; the error it ended with, if any."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    path = tempfile.mkdtemp(dir=base)
    fd = os.open(path, os.O_RDONLY)
    try:
        apply_layer(io.BytesIO(data), fd, options, recipe=io.BytesIO(), manifest=io.BytesIO())
    except (ArchiveError, OSError) as error:
        return error
    finally:
        os.close(fd)
        shutil.rmtree(path, ignore_errors=True)
    return None


def test_an_archive_cut_anywhere_is_truncated_or_complete(scene: Any) -> None:
    """Only a cut between members (or in padding, or in the end blocks) leaves a whole archive."""
    data = small(scene)
    inside: set[int] = set()  # cuts that lose a part of some member
    chunks = iter([data])
    reader = TarReader(lambda: next(chunks, b""))
    at = pad = 0
    while (member := reader.next()) is not None:
        end = at + len(member.segment) + member.stored
        inside |= set(range(at + pad + 1, end))
        at, pad = end, -member.stored % 512
    inside |= set(range(at + pad + 1, at + pad + 512)) | set(range(at + pad + 513, at + pad + 1024))
    for size in range(0, len(data), 5):
        error = try_apply(data[:size])
        assert (size in inside) == (error is not None), size
        assert error is None or isinstance(error, ArchiveTruncated), (size, error)


@pytest.mark.parametrize("compression", PACKED)
def test_a_compressed_stream_cut_anywhere_is_truncated(
    scene: Any, compression: Compression
) -> None:
    """No cut of a compressed stream is taken for its end."""
    data = pack(small(scene), compression)
    assert try_apply(data) is None
    for size in range(7, len(data)):
        error = try_apply(data[:size]) if size % 7 == 0 else drain(data[:size])
        assert isinstance(error, ArchiveTruncated), (size, error)


def read_all(stream: Decompressor) -> bytes:
    return b"".join(iter(lambda: stream.read(4096), b""))


def drain(data: bytes) -> Exception | None:
    try:
        stream = Decompressor(io.BytesIO(data))
        while stream.read(1000):
            pass
    except ArchiveError as error:
        return error
    return None


@pytest.mark.parametrize("compression", PACKED)
def test_streams_in_a_row_are_one_and_garbage_is_refused(compression: Compression) -> None:
    """Members, frames or streams follow each other; anything else after them is an error."""
    one, two = pack(b"first", compression), pack(b"second", compression)
    stream = Decompressor(io.BytesIO(one + two))
    assert b"".join(iter(lambda: stream.read(3), b"")) == b"firstsecond"
    for garbage in (b"garbage", b"g", b"garbage" * 100_000):
        assert isinstance(drain(one + garbage), ArchiveError)


@pytest.mark.parametrize("compression", PACKED)
def test_a_flipped_bit_of_a_compressed_stream_never_passes_unseen(
    scene: Any, compression: Compression
) -> None:
    """Either the stream is refused or it decodes to the same bytes."""
    plain = small(scene)
    data = bytearray(pack(plain, compression))
    for position in range(0, len(data)):
        data[position] ^= 0x10
        try:
            stream = Decompressor(io.BytesIO(bytes(data)))
            out = read_all(stream)
            if stream.compression == compression:
                assert out == plain, position
        except ArchiveError:
            pass
        data[position] ^= 0x10


@pytest.mark.parametrize(
    ("magic", "name"),
    [
        (b"\x04\x22\x4d\x18rest", "lz4"),
        (b"\x1f\x9d\x90rest", "compress"),
        (b"LZIP\x01rest", "lzip"),
        (b"\x50\x2a\x4d\x18\x04\0\0\0", "skippable"),
    ],
)
def test_compressions_that_are_not_offered_are_refused_by_name(magic: bytes, name: str) -> None:
    """The error says which compression it is."""
    with pytest.raises(UnsupportedCompression, match=name):
        detect(magic)


def test_a_bomb_is_bounded_in_memory(tmp_path: Path) -> None:
    """A reader gets no more than it asks for, however far the data expands."""
    for compression in PACKED:
        stream = Decompressor(io.BytesIO(pack(bytes(8 << 20), compression)))
        assert max(len(piece) for piece in iter(lambda: stream.read(1 << 16), b"")) <= 1 << 16


@pytest.mark.parametrize("compression", list(Compression))
def test_a_decoder_is_freed_with_its_last_user(compression: Compression) -> None:
    """At once and without the garbage collector, which cannot see the circle a library made."""

    class Source(io.BytesIO):
        """Something that can be watched."""

    source = Source(pack(b"content" * 1000, compression))
    watched = weakref.ref(source)
    stream = Decompressor(source)
    del source
    gc.disable()
    try:
        assert stream.read(100)
        del stream
        assert watched() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("compression", list(Compression))
def test_imports_leave_no_memory_behind(scene: Any, compression: Compression) -> None:
    """After a collection nothing of an import is left but what every process keeps."""

    class Source(io.BytesIO):
        """Something that can be watched."""

    watched = []
    for _ in range(3):
        path = tempfile.mkdtemp()
        fd = os.open(path, os.O_RDONLY)
        source = Source(pack(small(scene), compression))
        watched.append(weakref.ref(source))
        manifest = Source()
        watched.append(weakref.ref(manifest))
        apply_layer(source, fd, ApplyOptions(whiteouts=WhiteoutFormat.REMOVE), manifest=manifest)
        manifest.seek(0)
        assert len(list(read_manifest(manifest))) == 6
        del source, manifest
        os.close(fd)
        shutil.rmtree(path)
    gc.collect()
    assert [found() for found in watched] == [None] * 6


mutations = st.lists(
    st.tuples(st.integers(0, 6000), st.integers(0, 255), st.sampled_from(["set", "cut", "insert"])),
    min_size=1,
    max_size=6,
)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=mutations, fix_checksums=st.booleans())
def test_mutated_archives_raise_only_documented_errors(
    scene: Any, changes: list[tuple[int, int, str]], fix_checksums: bool
) -> None:
    """Bytes set, cut and inserted anywhere: ``ArchiveError`` and its family, or success."""
    data = bytearray(small(scene))
    for position, value, how in changes:
        at = position % len(data)
        if how == "set":
            data[at] = value
        elif how == "cut":
            del data[at : at + value]
        else:
            data[at:at] = bytes([value]) * (value % 7)
        if not data:
            data = bytearray(512)
    if fix_checksums:  # so that damage behind the checksum is reached
        for at in range(0, len(data) - 511, 512):
            block = data[at : at + 512]
            if block[257:262] == b"ustar":
                block[148:156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    limits = Limits(max_bytes=1 << 24, max_entries=1000)
    for whiteouts in WhiteoutFormat:
        error = try_apply(bytes(data), ApplyOptions(whiteouts=whiteouts, limits=limits))
        assert error is None or isinstance(error, ArchiveError), repr(error)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=2000))
def test_noise_raises_only_documented_errors(data: bytes) -> None:
    """Any bytes as archive, recipe and manifest."""
    for prefix in (b"", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0"):
        error = try_apply(prefix + data, ApplyOptions(limits=Limits(max_bytes=1 << 24)))
        assert error is None or isinstance(error, ArchiveError), repr(error)
    for reader in (read_recipe, read_manifest):
        for compression in (Compression.NONE, Compression.GZIP):
            try:
                for _ in reader(io.BytesIO(pack(data, compression))):
                    pass
            except ArchiveError:
                pass


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 4000), value=st.integers(0, 255))
def test_damaged_recipes_raise_only_documented_errors(position: int, value: int) -> None:
    """One byte of the recipe's text changed."""
    recipe = io.BytesIO()
    writer = RecipeWriter(recipe)
    for number in range(10):
        writer.segment(bytes(range(64)))
        writer.file(b"f%d" % number, number)
    writer.close()
    recipe.seek(0)
    stream = Decompressor(recipe)
    text = bytearray(b"".join(iter(lambda: stream.read(1 << 16), b"")))
    text[position % len(text)] = value

    def missing(name: bytes) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    try:
        assemble(io.BytesIO(pack(bytes(text), Compression.GZIP)), missing, io.BytesIO())
    except (ArchiveError, ContentChanged):
        pass
