"""TOC digests: of zstd:chunked archives, of staged directories, as given by the caller (§8)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile

import pytest
import zstandard
from tars import BASE

from cstorage.archive.options import ApplyOptions
from cstorage.errors import InvalidDigest, LayerUnknown
from cstorage.model import Compression
from cstorage.store import chunked
from tests.store.place import diff_of, digest, fill, ids

FILES = {"usr/tool": b"#!/bin/sh\n" * 5000, "etc/conf": b"key = 1\n", "empty": b""}


def compressed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=True).compress(data)


def skippable(data: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def toc_entries() -> list[dict]:
    common = {"uid": 5, "gid": 6, "modtime": "2001-09-09T01:46:40Z"}
    found = [{"type": "dir", "name": "usr/", "mode": 0o755, **common}]
    for name, data in FILES.items():
        entry = {"type": "reg", "name": name, "mode": 0o644, "size": len(data), **common}
        if data:
            entry["digest"] = f"sha256:{hashlib.sha256(data).hexdigest()}"
            entry |= {"offset": 10, "endOffset": 20, "chunkSize": 7}
        found.append(entry)
    found.append({"type": "chunk", "name": "usr/tool", "offset": 15, "chunkOffset": 7})
    found.append({"type": "symlink", "name": "link", "linkName": "empty", "mode": 0o777, **common})
    found.append({"type": "hardlink", "name": "hard", "linkName": "empty", "mode": 0o644, **common})
    found.append({"type": "reg", "name": "etc/.wh.gone", "mode": 0o644, **common})
    return found


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in toc_entries():
            if entry["type"] == "chunk":
                continue
            info = tarfile.TarInfo(entry["name"])
            info.mode, info.uid, info.gid, info.mtime = entry["mode"], 5, 6, 10**9
            info.linkname = entry.get("linkName", "")
            kinds = {
                "dir": tarfile.DIRTYPE,
                "symlink": tarfile.SYMTYPE,
                "hardlink": tarfile.LNKTYPE,
            }
            info.type = kinds.get(entry["type"], tarfile.REGTYPE)
            data = FILES.get(entry["name"], b"")
            info.size = len(data) if info.type == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def blob(entries: list[dict], kind: int = 1, shift: int = 0) -> tuple[bytes, str]:
    """A zstd:chunked archive with that table, and its TOC digest."""
    plain = archive()
    body = b"".join(compressed(plain[at : at + 9000]) for at in range(0, len(plain), 9000))
    text = json.dumps({"version": 1, "entries": entries}).encode()
    toc, split = compressed(text), compressed(b"tar-split")
    toc_at = len(body) + 8
    split_at = toc_at + len(toc) + 8
    words = (toc_at + shift, len(toc), len(text), kind, split_at, len(split), 9)
    footer = b"".join(word.to_bytes(8, "little") for word in words) + b"GNUlInUx"
    data = body + skippable(toc) + skippable(split) + skippable(footer)
    return data, f"sha256:{hashlib.sha256(toc).hexdigest()}"


class Dribble:
    """A source that gives a few bytes at a time, as a slow network does."""

    def __init__(self, data: bytes, step: int) -> None:
        self.file = io.BytesIO(data)
        self.step = step

    def read(self, n: int, /) -> bytes:
        return self.file.read(min(n, self.step))


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_chunked_archive_is_imported_and_found_by_its_toc_digest(store, step):
    data, toc = blob(toc_entries())
    layer = store.import_layer(Dribble(data, step))
    assert layer.diff.toc_digest == toc
    assert layer.diff.compression is Compression.ZSTD
    assert layer.diff.compressed_digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert layer.diff.compressed_size == len(data)
    assert ids(store.layers_by_toc_digest(toc)) == [layer.id]
    assert diff_of(store, layer.id, compression=Compression.NONE) == archive()


def forged(change: str) -> tuple[bytes, str]:
    entries = toc_entries()
    match change:
        case "content":
            entries[1]["digest"] = digest("0")
        case "mode":
            entries[1]["mode"] = 0o4755
        case "owner":
            entries[2]["uid"] = 0
        case "missing":
            del entries[2]
        case "more":
            entries.append({"type": "reg", "name": "more", "mode": 0o644})
        case "twice":
            entries.append(entries[1])
        case "target":
            entries[5]["linkName"] = "/etc/shadow"
        case "kind":
            return blob(entries, kind=2)
        case "offset":
            return blob(entries, shift=1)
        case "shape":
            return blob([["no", "entry"]])
    return blob(entries)


@pytest.mark.parametrize(
    "change",
    [
        *("content", "mode", "owner", "missing", "more", "twice", "target", "kind", "offset"),
        "shape",
    ],
)
def test_a_table_that_says_something_else_is_not_believed(store, change):
    """Else a layer could answer to the digest of another one's table."""
    data, toc = forged(change)
    layer = fill(store, data)
    assert layer.diff.toc_digest == ""
    assert layer.diff.uncompressed_digest == f"sha256:{hashlib.sha256(archive()).hexdigest()}"
    with pytest.raises(LayerUnknown):
        store.layers_by_toc_digest(toc)


def test_ordinary_zstd_has_no_table(store):
    for data in (compressed(BASE), compressed(BASE) + skippable(b"x" * 64)):
        assert fill(store, data).diff.toc_digest == ""


def test_a_digest_from_an_annotation_is_recorded(store):
    assert chunked.ANNOTATION.endswith("zstd-chunked.manifest-checksum")
    options = ApplyOptions(toc_digest=digest("7"))
    layer = fill(store, options=options)
    assert ids(store.layers_by_toc_digest(digest("7"))) == [layer.id]
    with pytest.raises(InvalidDigest):
        fill(store, options=ApplyOptions(toc_digest="sha256:short"))
    assert ids(store.layers()) == [layer.id]
    store.delete_layer(layer.id)
    with pytest.raises(LayerUnknown):
        store.layers_by_toc_digest(digest("7"))


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_bytes(b"staged")
    (folder / "odd\udcff").symlink_to("sub/file")
    os.setxattr(folder / "sub/file", "user.key", b"value")
    return folder


def test_a_staged_directory_gets_a_table(place, driver, source):
    """§8.5: TOC digest and data items of the layer; made again over a layer that exists."""
    if driver != "overlay":
        pytest.skip("vfs refuses staged layers: see row 75 of the checklist")
    store = place.open()
    with store.prepare_staged_layer(source) as staged:
        layer = store.apply_staged_layer(staged, "new")
    diff = layer.diff
    assert diff.toc_digest.startswith("sha256:")
    assert (diff.compressed_digest, diff.compressed_size) == ("", 0)
    assert diff.uncompressed_digest
    assert store.list_layer_big_data("new") == [chunked.MANIFEST_ITEM, chunked.LAYER_DATA_ITEM]
    assert store.layer_big_data("new", chunked.LAYER_DATA_ITEM) == b'{"format":0}'
    table = json.loads(store.layer_big_data("new", chunked.MANIFEST_ITEM))
    assert table["version"] == 1
    (entry,) = [e for e in table["entries"] if e["name"].endswith("file") and e["type"] == "reg"]
    assert entry["digest"] == f"sha256:{hashlib.sha256(b'staged').hexdigest()}"
    assert (entry["size"], entry["xattrs"]) == (6, {"user.key": "dmFsdWU="})
    assert ids(store.layers_by_toc_digest(diff.toc_digest)) == ["new"]
    (source / "sub/file").write_bytes(b"changed")
    with store.prepare_staged_layer(source) as staged:
        again = store.apply_staged_layer(staged, "new")
    assert again.diff.toc_digest != diff.toc_digest
    assert b"changed" not in store.layer_big_data("new", chunked.MANIFEST_ITEM)
    assert store.list_layer_big_data("new") == [chunked.MANIFEST_ITEM, chunked.LAYER_DATA_ITEM]


def test_a_staged_archive_keeps_the_digest_that_it_has(place, driver):
    if driver != "overlay":
        pytest.skip("vfs refuses staged layers: see row 75 of the checklist")
    store = place.open()
    data, toc = blob(toc_entries())
    for options, expected in ((None, toc), (ApplyOptions(toc_digest=digest("6")), digest("6"))):
        with store.prepare_staged_layer(io.BytesIO(data), options) as staged:
            layer = store.apply_staged_layer(staged)
        assert layer.diff.toc_digest == expected
