"""Compressed streams as tools write them: several in a row, padded, with frames to be skipped.

``test_archive_damage.py`` has what is cut and flipped; here everything is legal or refused by name.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import struct
import subprocess
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.compression import Decompressor
from cstorage.errors import ArchiveError, ArchiveTruncated, UnsupportedCompression
from cstorage.model import Compression

if TYPE_CHECKING:
    from pathlib import Path

TEXT = b"".join(b"line %d\n" % number for number in range(3000))


class Dribble(io.BytesIO):
    """A source that never has more than a few bytes at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(3, size) if size and size > 0 else 3)


def decoded(data: bytes, source: type[io.BytesIO] = io.BytesIO, piece: int = 999) -> bytes:
    stream = Decompressor(source(data))
    return b"".join(iter(lambda: stream.read(piece), b""))


def zstd(data: bytes, *options: str) -> bytes:
    return subprocess.run(
        ["zstd", "-q", "-c", *options], input=data, capture_output=True, check=True
    ).stdout


def skippable(size: int, number: int = 0) -> bytes:
    return struct.pack("<II", 0x184D2A50 + number, size) + b"s" * size


def gzip_with_everything(data: bytes, flags: int = 0x1E) -> bytes:
    """A member with extra field, name, comment and header checksum (RFC 1952), as flags say."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\0\x03"
    if flags & 4:
        head += struct.pack("<H", 6) + b"ab\x02\0xy"
    head += b"name\0" if flags & 8 else b""
    head += b"comment\0" if flags & 16 else b""
    if flags & 2:
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    raw = zlib.compressobj(9, wbits=-15)
    body = raw.compress(data) + raw.flush()
    return head + body + struct.pack("<II", zlib.crc32(data), len(data))


def xz(data: bytes, **more: Any) -> bytes:
    return lzma.compress(data, format=lzma.FORMAT_XZ, **more)


HALF = len(TEXT) // 2
STREAMS: dict[str, bytes] = {
    "gzip of several members": gzip.compress(TEXT[:HALF]) + gzip.compress(TEXT[HALF:]),
    "gzip with empty members": (
        gzip.compress(b"") + gzip.compress(TEXT) + gzip.compress(b"") * 2
    ),
    "gzip with all fields": gzip_with_everything(TEXT[:HALF]) + gzip_with_everything(TEXT[HALF:]),
    "gzip stored": gzip.compress(TEXT, 0),
    "a hundred members": b"".join(
        gzip.compress(TEXT[at : at + 1000]) for at in range(0, len(TEXT), 1000)
    ),
    "bzip2 of several streams": bz2.compress(TEXT[:HALF], 1) + bz2.compress(TEXT[HALF:], 9),
    "bzip2 with empty streams": bz2.compress(b"") + bz2.compress(TEXT) + bz2.compress(b""),
    "xz of several streams": xz(TEXT[:HALF], preset=0) + xz(TEXT[HALF:], preset=9),
    "xz padded": bytes(0) + xz(TEXT[:HALF]) + bytes(4) + xz(TEXT[HALF:]) + bytes(1024),
    "xz without a check": xz(TEXT, check=lzma.CHECK_NONE),
    "xz with SHA-256": xz(TEXT, check=lzma.CHECK_SHA256),
}  # fmt: skip


@pytest.mark.parametrize("source", [io.BytesIO, Dribble])
@pytest.mark.parametrize("what", STREAMS)
def test_legal_streams_are_one(what: str, source: type[io.BytesIO]) -> None:
    """Whatever the pieces in which they come and are asked for."""
    assert decoded(STREAMS[what], source) == TEXT
    assert decoded(STREAMS[what], source, piece=1 << 20) == TEXT


@pytest.mark.parametrize("source", [io.BytesIO, Dribble])
@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_frames_of_zstd_are_one(source: type[io.BytesIO]) -> None:
    """With and without checksum, size, content; skippable frames between and behind them."""
    for data in (
        zstd(TEXT[:HALF]) + zstd(TEXT[HALF:], "-19"),
        zstd(TEXT[:HALF], "--no-check") + skippable(0) + skippable(7, 15) + zstd(TEXT[HALF:]),
        zstd(TEXT) + skippable(100_000),
        zstd(TEXT, "--no-content-size", "--no-check"),
        zstd(b"") + zstd(TEXT) + zstd(b""),
        zstd(TEXT, "--fast=9") + zstd(b"", "--no-check"),
    ):
        assert decoded(data, source) == TEXT
        assert decoded(data, source, piece=1 << 20) == TEXT


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_a_skippable_frame_that_is_cut_is_truncated() -> None:
    """Its end counts like any other's; and at the very start nobody takes it for zstd."""
    whole = zstd(TEXT)
    for size in range(1, 20):
        with pytest.raises(ArchiveTruncated):
            decoded(whole + skippable(12)[:size])
    with pytest.raises(UnsupportedCompression, match="skippable"):
        decoded(skippable(12) + whole)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_a_window_beyond_memory_is_refused() -> None:
    """``zstd`` itself allows 128 MiB; a frame that asks for more gets an error, not memory."""
    data = TEXT * 50
    assert decoded(zstd(data, "--long=27"), piece=1 << 20) == data
    for descriptor in range(0x89, 0x100, 3):  # from 144 MiB to 3.75 TiB
        head = b"\x28\xb5\x2f\xfd\x00" + bytes([descriptor])
        with pytest.raises(ArchiveError, match="zstd"):
            decoded(head + b"\x01\x00\x00")


@pytest.mark.parametrize("flags", range(0, 32, 2))
def test_a_gzip_header_may_come_in_any_pieces(flags: int) -> None:
    """Every combination of fields, cut at every byte of the header; of the second member, too."""
    member = gzip_with_everything(b"hello" * 200, flags)
    for cut in range(1, 40):
        for at in (0, len(member)):

            class Pieces(io.BytesIO):
                ends = (at + cut, 2 * len(member))

                def read(self, size: int | None = -1, /) -> bytes:
                    end = next((e for e in self.ends if e > self.tell()), self.tell())
                    return super().read(end - self.tell())

            assert decoded(member * 2, Pieces) == b"hello" * 400


def test_a_gzip_header_without_end_is_refused() -> None:
    """A name that never ends is not collected for ever."""
    with pytest.raises(ArchiveError, match="header"):
        decoded(b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (4 << 20))


@pytest.mark.parametrize(
    "damaged",
    [
        xz(TEXT) + bytes(3),
        xz(TEXT) + bytes(2) + xz(TEXT),
        gzip.compress(TEXT) + bytes(512),
        bz2.compress(TEXT) + b"BZ",
        gzip.compress(TEXT) + b"\x1f\x8b",
        gzip.compress(TEXT) + bz2.compress(TEXT),
        gzip.compress(TEXT)[:-4] + bytes(4),
        gzip.compress(TEXT)[:-8] + bytes(4) + gzip.compress(TEXT)[-4:],
        gzip.compress(TEXT)[:-4] + gzip.compress(TEXT),
    ],
    ids=["xz, odd padding", "xz, odd padding between", "gzip, zeros", "bzip2, half a magic",
         "gzip, half a magic", "gzip, then bzip2", "gzip, length", "gzip, checksum",
         "gzip, cut, then another"],
)  # fmt: skip
@pytest.mark.parametrize("source", [io.BytesIO, Dribble])
def test_what_is_no_stream_is_refused(damaged: bytes, source: type[io.BytesIO]) -> None:
    """Two readers could take it for different archives."""
    with pytest.raises(ArchiveError):
        decoded(damaged, source)


TOOLS = {
    "gzip -1": ["gzip", "-1", "-c"],
    "gzip -9n": ["gzip", "-9n", "-c"],
    "pigz": ["pigz", "-p2", "-b128", "-c"],
    "zstd": ["zstd", "-q", "-c"],
    "zstd -19 --long": ["zstd", "-19", "--long=27", "-q", "-c"],
    "zstd threads": ["zstd", "-T2", "-q", "-c"],
    "pzstd": ["pzstd", "-p2", "-q", "-c"],
    "xz -0": ["xz", "-0", "-c"],
    "xz -9e": ["xz", "-9e", "-c"],
    "xz blocks": ["xz", "-T2", "--block-size=65536", "-c"],
    "bzip2": ["bzip2", "-c"],
}


@pytest.mark.peer
@pytest.mark.parametrize("tool", TOOLS)
def test_what_the_usual_tools_compress_is_imported(
    tool: str, root: Any, scene: Any, tmp_path: Path
) -> None:
    """A layer through each programme; the digests are of the plain and of the packed bytes."""
    command = TOOLS[tool]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    plain = bytes(scene().file("f", TEXT * 20).dir("d").file("d/g", b"x" * 100_000))
    packed = subprocess.run(command, input=plain, capture_output=True, check=True).stdout
    if tool == "pzstd":  # begins with a skippable frame, which containers/storage refuses as well
        with pytest.raises(UnsupportedCompression, match="skippable"):
            apply_layer(io.BytesIO(packed), root.fd, ApplyOptions())
        return
    summary = apply_layer(io.BytesIO(packed), root.fd, ApplyOptions())
    assert (root.path / "f").read_bytes() == TEXT * 20
    assert (summary.uncompressed_size, summary.compressed_size) == (len(plain), len(packed))
    assert (
        summary.compression
        == Compression[{"pigz": "GZIP", "gzip": "GZIP"}.get(command[0], command[0].upper())]
    )


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("lz4") is None, reason="lz4 is not installed")
@pytest.mark.parametrize("options", [[], ["-l"]])
def test_lz4_is_refused_by_its_name(options: list[str], root: Any, scene: Any) -> None:
    """Both of its formats; the error says what would do."""
    plain = bytes(scene().file("f", TEXT))
    packed = subprocess.run(
        ["lz4", "-c", *options], input=plain, capture_output=True, check=True
    ).stdout
    with pytest.raises(UnsupportedCompression, match="lz4") as refused:
        apply_layer(io.BytesIO(packed), root.fd, ApplyOptions())
    assert "gzip" in refused.value.hint
    assert list(root.path.iterdir()) == []
