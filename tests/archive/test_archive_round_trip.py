"""A layer goes in and comes out byte for byte, whatever it was compressed with."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.beneath import open_payload_in_root
from cstorage.archive.compression import compressing
from cstorage.archive.manifest import read_manifest
from cstorage.archive.recipe import assemble
from cstorage.model import Compression

if TYPE_CHECKING:
    from pathlib import Path


def sample() -> bytes:
    """Directories, files, both kinds of links, a long name and padding at the end."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, content in [
            ("etc/", tarfile.DIRTYPE, b""),
            ("etc/hostname", tarfile.REGTYPE, b"here\n"),
            ("etc/" + "n" * 150, tarfile.REGTYPE, b"long" * 5000),
            ("etc/empty", tarfile.REGTYPE, b""),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mtime = kind, len(content), 1_700_000_000
            info.uid, info.gid = os.geteuid(), os.getegid()
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o640
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("etc/again")
        link.type, link.linkname, link.mode = tarfile.LNKTYPE, "etc/hostname", 0o640
        link.uid, link.gid = os.geteuid(), os.getegid()
        tar.addfile(link)
        soft = tarfile.TarInfo("soft")
        soft.type, soft.linkname = tarfile.SYMTYPE, "/etc/hostname"
        soft.uid, soft.gid = os.geteuid(), os.getegid()
        tar.addfile(soft)
    return out.getvalue()


@pytest.mark.parametrize("compression", list(Compression))
def test_the_recipe_reproduces_the_archive(tmp_path: Path, compression: Compression) -> None:
    """Applying and assembling give the original bytes and their digests, in one pass each."""
    plain = sample()
    packed = io.BytesIO()
    with compressing(packed, compression) as sink:
        sink.write(plain)
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        recipe, manifest, again = io.BytesIO(), io.BytesIO(), io.BytesIO()
        packed.seek(0)
        summary = apply_layer(packed, root, ApplyOptions(), recipe=recipe, manifest=manifest)
        recipe.seek(0)
        manifest.seek(0)
        size = assemble(recipe, lambda name: open_payload_in_root(root, name), again)
    finally:
        os.close(root)
    assert again.getvalue() == plain
    assert size == len(plain) == summary.uncompressed_size
    assert summary.uncompressed_digest == "sha256:" + hashlib.sha256(plain).hexdigest()
    assert summary.compressed_digest == "sha256:" + hashlib.sha256(packed.getvalue()).hexdigest()
    assert summary.compression == compression
    assert [entry.path for entry in read_manifest(manifest)][:2] == [b"etc", b"etc/hostname"]
    assert (tmp_path / "etc" / "hostname").read_bytes() == b"here\n"
    assert (tmp_path / "etc" / "again").samefile(tmp_path / "etc" / "hostname")
    assert (tmp_path / "etc").stat().st_mtime == 1_700_000_000
