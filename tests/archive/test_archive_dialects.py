"""Archives as real writers make them: read as those writers' own readers read them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.beneath import open_payload_in_root
from cstorage.archive.changes import compare_trees
from cstorage.archive.header import parse_time
from cstorage.archive.manifest import read_manifest
from cstorage.archive.produce import write_tree
from cstorage.archive.reader import TarReader
from cstorage.archive.recipe import assemble
from cstorage.errors import ArchiveError

if TYPE_CHECKING:
    from pathlib import Path

GNU_TAR, BSDTAR = shutil.which("tar"), shutil.which("bsdtar")


def members(data: bytes) -> list[Any]:
    chunks = iter([data[at : at + 700] for at in range(0, len(data), 700)])
    reader = TarReader(lambda: next(chunks, b""))
    return list(iter(reader.next, None))


def apply_and_reassemble(data: bytes, root: Any) -> None:
    """Apply, and check that the recipe gives the very same bytes."""
    recipe, again = io.BytesIO(), io.BytesIO()
    apply_layer(io.BytesIO(data), root.fd, ApplyOptions(), recipe=recipe)
    recipe.seek(0)
    assemble(recipe, lambda name: open_payload_in_root(root.fd, name), again)
    assert again.getvalue() == data


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with everything a file system of a container has."""
    top = tmp_path / "tree"
    (top / "usr" / "share").mkdir(parents=True)
    (top / "usr" / "share" / ("n" * 120)).write_bytes(b"long name")
    deep = top / "usr" / ("p" * 90) / ("q" * 90)
    deep.mkdir(parents=True)
    (deep / ("r" * 60)).write_bytes(b"split name")
    (top / "empty").write_bytes(b"")
    (top / "grün & <b>").write_bytes(b"not ascii")
    (top / "big").write_bytes(os.urandom(300_000))
    os.link(top / "big", top / "usr" / "big-again")
    (top / "soft").symlink_to("/usr/share/" + "t" * 130)
    os.mkfifo(top / "pipe")
    (top / "setuid").write_bytes(b"#!")
    (top / "setuid").chmod(0o4755)
    (top / "sticky").mkdir()
    (top / "sticky").chmod(0o1777)
    with open(top / "holes", "wb") as holes:
        holes.write(b"start")
        holes.seek(1 << 20)
        holes.write(b"middle" * 1000)
        holes.truncate(3 << 20)
    if os.geteuid() == 0:
        os.mknod(top / "null", 0o20666, os.makedev(1, 3))
        os.chown(top / "empty", 3_000_000, 4_000_000_000)
    os.utime(top / "empty", ns=(5, 1_234_567_890_123_456_789))
    return top


GNU_FORMATS = {
    "v7": ["--format=v7"],
    "oldgnu": ["--format=oldgnu"],
    "gnu": ["--format=gnu"],
    "ustar": ["--format=ustar"],
    "pax": ["--format=pax", "--xattrs"],
    "gnu sparse": ["--format=gnu", "--sparse"],
    "pax sparse 0.0": ["--format=pax", "--sparse", "--sparse-version=0.0"],
    "pax sparse 0.1": ["--format=pax", "--sparse", "--sparse-version=0.1"],
    "pax sparse 1.0": ["--format=pax", "--sparse", "--sparse-version=1.0"],
}


@pytest.mark.peer
@pytest.mark.skipif(GNU_TAR is None, reason="GNU tar is not installed")
@pytest.mark.parametrize("options", GNU_FORMATS.values(), ids=GNU_FORMATS.keys())
def test_what_gnu_tar_wrote_is_extracted_as_gnu_tar_does(
    tree: Path, root: Any, tmp_path: Path, options: list[str]
) -> None:
    """Every format and every sparse format; the recipe gives the same archive back."""
    archive = tmp_path / "a.tar"
    # Formats without long names or large owners leave those members out and say so.
    subprocess.run(
        ["tar", "-C", tree, *options, "-cf", archive, "."], check=False, capture_output=True
    )
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run(["tar", "-C", theirs, "-xpf", archive], check=True, timeout=60)
    apply_and_reassemble(archive.read_bytes(), root)
    ours = os.open(theirs, os.O_RDONLY)
    try:
        assert compare_trees(ours, root.fd) == []
    finally:
        os.close(ours)
    for path in theirs.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert (root.path / path.relative_to(theirs)).read_bytes() == path.read_bytes()
    assert len(list(root.path.rglob("*"))) == len(list(theirs.rglob("*"))) > 8


@pytest.mark.peer
@pytest.mark.skipif(BSDTAR is None, reason="bsdtar is not installed")
@pytest.mark.parametrize("kind", ["ustar", "pax", "gnutar", "v7"])
def test_what_bsdtar_wrote_is_extracted_as_bsdtar_does(
    tree: Path, root: Any, tmp_path: Path, kind: str
) -> None:
    """libarchive's formats, whose pax headers carry more than GNU tar's."""
    archive = tmp_path / "a.tar"
    subprocess.run(
        ["bsdtar", "--format", kind, "-C", tree, "-cf", archive, "."],
        check=False, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run(["bsdtar", "-C", theirs, "-xpf", archive], check=True, timeout=60)
    apply_and_reassemble(archive.read_bytes(), root)
    ours = os.open(theirs, os.O_RDONLY)
    try:
        assert compare_trees(ours, root.fd) == []
    finally:
        os.close(ours)
    assert len(list(root.path.rglob("*"))) == len(list(theirs.rglob("*"))) > 8


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_as_python_reads_them(tree: Path, kind: int) -> None:
    """Names, links, sizes, owners, modes, times and devices agree."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for path in sorted(tree.rglob("*")):
            try:
                tar.add(path, str(path.relative_to(tree)), recursive=False)
            except ValueError:  # ustar has no room for it
                continue
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        expected = [
            (info.name, info.linkname, info.type, info.size, info.uid, info.gid, info.mode,
             info.devmajor if info.isdev() else 0, int(info.mtime))
            for info in tar
        ]  # fmt: skip
    found = [
        (m.name.decode().rstrip("/"), m.linkname.decode(), bytes((m.type,)), m.size, m.uid, m.gid,
         m.mode, m.devmajor if m.type in b"346" else 0, m.mtime_ns // 1_000_000_000)
        for m in members(out.getvalue())
    ]  # fmt: skip
    assert found == expected
    assert len(found) > 10


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"0", 0), (b"1.5", 1_500_000_000), (b"-1.5", -1_500_000_000), (b"1.", 1_000_000_000),
        (b"1.0000000019", 1_000_000_001), (b"-1.0000000019", -1_000_000_002),
        (b"99999999999999999999", 99999999999999999999 * 10**9),
    ],
)  # fmt: skip
def test_times_are_exact(text: bytes, ns: int) -> None:
    """Decimal seconds become nanoseconds, finer parts go toward the past."""
    assert parse_time(text, "mtime") == ns


@pytest.mark.parametrize("text", [b"", b"x", b"1e5", b"--1", b"1.5.5", b".5", b"9" * 40])
def test_what_is_not_a_time_is_refused(text: bytes) -> None:
    """No guessing."""
    with pytest.raises(ArchiveError):
        parse_time(text, "mtime")


def test_odd_times_become_what_the_disk_can_hold(root: Any, scene: Any) -> None:
    """Before 1970 and beyond the file system: the epoch on disk, the truth in the manifest."""
    manifest = io.BytesIO()
    archive = scene().file("old", mtime=-5).file("far", mtime=1 << 40).file("now", mtime=1 << 31)
    apply_layer(io.BytesIO(bytes(archive)), root.fd, ApplyOptions(), manifest=manifest)
    assert [(root.path / n).stat().st_mtime for n in ("old", "far", "now")] == [0, 0, 1 << 31]
    manifest.seek(0)
    assert [e.mtime_ns // 10**9 for e in read_manifest(manifest)] == [-5, 1 << 40, 1 << 31]


def test_base_256_numbers_are_understood(root: Any) -> None:
    """Large owners as GNU tar writes them, and sizes beyond octal are not cut."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("f")
        info.uid, info.gid, info.size, info.mtime = 3_000_000, 4_000_000_000, 1 << 40, -7
        tar.addfile(info)  # no content: the header alone matters here
    chunks = iter([out.getvalue()])
    member = TarReader(lambda: next(chunks, b"")).next()
    assert member is not None
    assert (member.uid, member.gid) == (3_000_000, 4_000_000_000)
    assert (member.size, member.mtime_ns) == (1 << 40, -7 * 10**9)


def test_attribute_names_that_are_not_utf8_are_kept(root: Any, scene: Any) -> None:
    """In the recipe, on the disk, in the manifest, and in an archive made from the tree."""
    name = b"user.\xff\xed\xa0\x80\xc3\xa9"
    pairs = ((b"nobodys.\x96", b"1"), (name, b"2"))
    archive = bytes(scene().file("f", b"x", xattrs=pairs).dir("d", xattrs=pairs))
    apply_and_reassemble(archive, root)
    assert os.getxattr(root.path / "f", name) == b"2"
    out = io.BytesIO()
    write_tree(root.fd, out)
    assert [dict(m.xattrs) for m in members(out.getvalue())] == [
        {name.decode("utf-8", "surrogateescape"): b"2"}
    ] * 2
    manifest = io.BytesIO()
    for path in root.path.iterdir():
        path.unlink() if path.is_file() else path.rmdir()
    apply_layer(io.BytesIO(archive), root.fd, ApplyOptions(), manifest=manifest)
    manifest.seek(0)
    for entry in read_manifest(manifest):
        assert [(os.fsencode(key), value) for key, value in entry.xattrs] == list(pairs)


def test_a_hard_link_with_a_size_has_no_content(root: Any, scene: Any) -> None:
    """Its size field means nothing, and the archive still comes back byte for byte."""
    archive = bytes(scene().file("a", b"content").link("b", "a", size=5).file("c", b"next"))
    apply_and_reassemble(archive, root)
    assert (root.path / "b").samefile(root.path / "a")
    assert (root.path / "c").read_bytes() == b"next"


def test_odd_endings_come_back_byte_for_byte(root: Any, scene: Any) -> None:
    """No end blocks, one of them, junk after them, non-zero padding, nothing at all."""
    whole = bytes(scene().file("a", b"content"))
    for name, data in {
        "no end": whole[:-1024], "one block": whole[:-512], "junk": whole + b"junk" * 999,
        "zeros": bytes(10_000), "empty": b"", "cut padding": whole[:-1024 - 100],
        "padding": whole[:600] + b"\x01" * 400 + whole[1000:],
    }.items():  # fmt: skip
        for path in root.path.iterdir():
            path.unlink()
        apply_and_reassemble(data, root)
        assert (root.path / "a").exists() == (name not in ("zeros", "empty"))


def test_a_global_header_is_a_member_that_changes_nothing(root: Any, scene: Any) -> None:
    """git archives begin with one; its records do not leak into entries."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"mtime": "5", "comment": "x"}
    ) as tar:
        tar.addfile(tarfile.TarInfo("f"))
    archive = out.getvalue()
    kinds = [m.type for m in members(archive)]
    assert kinds == [ord("g"), ord("0")]
    apply_and_reassemble(archive, root)
    assert os.listdir(root.path) == ["f"]
    (root.path / "f").unlink()
    apply_and_reassemble(archive[:1024] + archive, root)  # two of one name are no duplicate
    assert os.listdir(root.path) == ["f"]
