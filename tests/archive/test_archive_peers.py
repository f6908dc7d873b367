"""Other projects' tools read what we write, and write what we write."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.beneath import Payloads, open_payload_in_root
from cstorage.archive.produce import write_tree
from cstorage.archive.recipe import assemble
from cstorage.errors import ContentChanged

if TYPE_CHECKING:
    from cstorage.model import DiffSummary

pytestmark = pytest.mark.peer

LIBRARY = Path(os.__file__).parent
"""A real tree that every machine has: part of the running Python's own library."""


def system_archive(tmp_path: Path, scene: Any) -> bytes:
    """Real files as GNU tar writes them, with odd members behind them."""
    archive = tmp_path / "real.tar"
    subprocess.run(
        ["tar", "-C", LIBRARY, "--format=gnu", "-cf", archive, "json", "email", "encodings"],
        check=True,
    )
    odd = (
        scene().dir("odd").file(b"odd/\xff\xfe", b"not utf-8").file("odd/a<b>&c", b"1")
        .file("odd/\u2028", b"2")
        .file('odd/"quoted"\\\t', b"3").file("odd/" + "p" * 200, b"4").link("odd/h", "odd/a<b>&c")
        .file("odd/x", b"5", xattrs=((b"user.a", b"\x00\n"),)).symlink("odd/l", "t" * 200)
        .file("odd/.wh.gone").dir("odd/opq").file("odd/opq/.wh..wh..opq")
    )  # fmt: skip
    real = archive.read_bytes()
    while real.endswith(bytes(512)):
        real = real[:-512]
    return real + bytes(odd)


def apply(data: bytes, root: Any) -> tuple[DiffSummary, bytes]:
    recipe = io.BytesIO()
    summary = apply_layer(io.BytesIO(data), root.fd, ApplyOptions(), recipe=recipe)
    return summary, recipe.getvalue()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="the archive has other owners and whiteouts")
@pytest.mark.skipif(shutil.which("tar-split") is None, reason="tar-split is not installed")
def test_tar_split_reassembles_our_recipe(tmp_path: Path, root: Any, scene: Any) -> None:
    """The reference's own tool makes the original archive from our recipe and our tree."""
    data = system_archive(tmp_path, scene)
    _, recipe = apply(data, root)
    (tmp_path / "recipe.gz").write_bytes(recipe)
    subprocess.run(
        ["tar-split", "asm", "--input", tmp_path / "recipe.gz", "--path", root.path,
         "--output", tmp_path / "again.tar"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (tmp_path / "again.tar").read_bytes() == data


@pytest.mark.skipif(shutil.which("tar-split") is None, reason="tar-split is not installed")
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="the archive has other owners and whiteouts")
def test_our_recipe_is_the_one_tar_split_writes(tmp_path: Path, root: Any, scene: Any) -> None:
    """Line by line, but for the empty segment that older encoders put at the end."""
    data = system_archive(tmp_path, scene)
    _, recipe = apply(data, root)
    (tmp_path / "a.tar").write_bytes(data)
    subprocess.run(
        ["tar-split", "disasm", "--no-stdout", "--output", tmp_path / "theirs.gz",
         tmp_path / "a.tar"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    theirs = gzip.decompress((tmp_path / "theirs.gz").read_bytes()).splitlines()
    assert json.loads(theirs[-1])["payload"] == ""
    assert gzip.decompress(recipe).splitlines() == theirs[:-1]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="overlay layers need root")
@pytest.mark.skipif(
    shutil.which("containers-storage") is None, reason="containers-storage is not installed"
)
def test_containers_storage_records_what_we_record(tmp_path: Path, root: Any, scene: Any) -> None:
    """Recipe, digests, sizes and ID sets of one layer agree, and so do the files."""
    data = system_archive(tmp_path, scene)
    summary, recipe = apply(data, root)
    (tmp_path / "a.tar").write_bytes(data)
    graph, run = tmp_path / "g", tmp_path / "r"
    tool: list[str | Path] = [
        "containers-storage",
        "--graph",
        graph,
        "--run",
        run,
        "--storage-driver",
        "overlay",
    ]
    try:
        done = subprocess.run(
            [*tool, "import-layer", "-f", tmp_path / "a.tar"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        layer = json.loads((graph / "overlay-layers" / "layers.json").read_text())[0]
        key = layer["id"]
        theirs = gzip.decompress(
            (graph / "overlay-layers" / f"{key}.tar-split.gz").read_bytes()
        ).splitlines()
        assert gzip.decompress(recipe).splitlines() == theirs[:-1]
        assert summary.uncompressed_digest == layer["diff-digest"]
        assert summary.compressed_digest == layer["compressed-diff-digest"]
        assert summary.uncompressed_size == layer["diff-size"]
        assert list(summary.uids) == layer["uidset"]
        assert list(summary.gids) == layer["gidset"]
        tree = graph / "overlay" / key / "diff"
        assert {p: describe(tree / p) for p in names(tree)} == {
            p: describe(root.path / p) for p in names(root.path)
        }
        exported = subprocess.run(
            [*tool, "diff", "-u", key], capture_output=True, timeout=60, check=True
        )
        assert hashlib.sha256(exported.stdout).digest() == hashlib.sha256(data).digest()
    finally:
        subprocess.run(["umount", "-l", graph / "overlay"], check=False, capture_output=True)


def names(top: Path) -> list[Path]:
    return sorted(path.relative_to(top) for path in top.rglob("*"))


def describe(path: Path) -> tuple[object, ...]:
    info = path.lstat()
    folder = path.is_dir() and not path.is_symlink()
    attributes = {} if path.is_symlink() else {
        key: os.getxattr(path, key) for key in os.listxattr(path)
    }  # fmt: skip
    return (
        info.st_mode, info.st_uid, info.st_gid, info.st_rdev, 0 if folder else info.st_size,
        0 if path.name == "gone" else info.st_mtime_ns, info.st_nlink, attributes,
        os.readlink(path) if path.is_symlink() else b"",
        path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
    )  # fmt: skip


@pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar is not installed")
def test_gnu_tar_finds_no_difference_to_a_written_tree(tmp_path: Path) -> None:
    """``tar --compare`` of a generated archive against the tree it was made from."""
    fd = os.open(LIBRARY / "email", os.O_RDONLY)
    try:
        with open(tmp_path / "out.tar", "wb") as out:
            write_tree(fd, out)
    finally:
        os.close(fd)
    done = subprocess.run(
        ["tar", "-C", LIBRARY / "email", "-df", tmp_path / "out.tar"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    differences = [
        line for line in done.stdout.splitlines() if "__pycache__" not in line
    ]  # the running tests write there
    assert differences == []


def test_a_changed_file_is_reported_and_named(root: Any, scene: Any) -> None:
    """Longer, shorter, other bytes, gone: the export ends and says which file."""
    data = bytes(scene().file("keep", b"same").file("victim", b"x" * 400_000))
    _, recipe = apply(data, root)
    victim = root.path / "victim"

    def export() -> bytes:
        out = io.BytesIO()
        assemble(io.BytesIO(recipe), lambda name: open_payload_in_root(root.fd, name), out)
        return out.getvalue()

    assert export() == data
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    with Payloads([root.fd]) as payloads:
        assert assemble(io.BytesIO(recipe), payloads.open, io.BytesIO(), digest=digest) == len(data)
        with pytest.raises(ContentChanged, match="digest"):
            assemble(io.BytesIO(recipe), payloads.open, io.BytesIO(), digest="sha256:" + "0" * 64)
    for change in (b"x" * 399_999 + b"y", b"x" * 400_001, b"x" * 399_999, b"", None):
        victim.unlink()
        if change is not None:
            victim.write_bytes(change)
        with pytest.raises(ContentChanged, match="victim"):
            export()
        victim.write_bytes(b"")
