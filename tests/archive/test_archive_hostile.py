"""Hostile archives: whatever they say, nothing outside the layer is read, made, changed or removed.

Every row of ``ROWS`` is one archive and how it ends: refused with the named error, or contained
(applied, all of it inside). The test looks at everything outside the layer first.
"""

from __future__ import annotations

import io
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cstorage.archive.apply import ApplyOptions, Limits, apply_layer
from cstorage.archive.beneath import open_payload_in_root
from cstorage.archive.compression import compressing
from cstorage.archive.recipe import RecipeWriter, assemble
from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.errors import (
    ArchiveBreakout,
    ArchiveError,
    ArchiveLimitExceeded,
    ArchiveTruncated,
    ContentChanged,
)
from cstorage.model import Compression

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTAINED = None
OUT = "../" * 12  # enough to reach the host's root from any test directory

ROWS: list[tuple[str, Callable[[Any, str], Any], type[ArchiveError] | None]] = [
    # what it tries, the archive (scene, outside path), how it ends
    ("doubly absolute name", lambda s, o: s.file(f"//{o}/./secret", b"x"), CONTAINED),
    ("name with newline and escapes", lambda s, o: s.file("a\n\x1b[2J\r", b"x"), CONTAINED),
    ("parent name", lambda s, o: s.file("../secret", b"x"), ArchiveBreakout),
    ("parent name inside", lambda s, o: s.file("a/../../secret", b"x"), ArchiveBreakout),
    ("harmless dot-dot", lambda s, o: s.dir("a").file("a/../b", b"x"), ArchiveBreakout),
    ("dot-dot directory", lambda s, o: s.dir("..", mode=0o777), ArchiveBreakout),
    ("dot-dot as last", lambda s, o: s.dir("a/.."), ArchiveBreakout),
    ("absolute name", lambda s, o: s.file(f"{o}/secret", b"x"), CONTAINED),
    ("name with NUL in pax", lambda s, o: s.raw(pax(b"path", b"a\0b")).file("x"), ArchiveError),
    (
        "file through absolute link",
        lambda s, o: s.symlink("l", o).file("l/secret", b"x"),
        ArchiveError,  # the target directory does not exist inside
    ),
    (
        "file through link to the root",
        lambda s, o: s.symlink("l", "/").file("l/secret", b"x"),
        CONTAINED,
    ),
    (
        "file through dot-dot link",
        lambda s, o: s.symlink("l", "..").file("l/secret", b"x"),
        CONTAINED,
    ),
    (
        "directory through dot-dot link",
        lambda s, o: s.symlink("l", "../folder").dir("l/new"),
        ArchiveError,
    ),
    (
        "link chain",
        lambda s, o: s.symlink("a", "..").symlink("b", "a/..").file("b/secret", b"x"),
        CONTAINED,
    ),
    (
        "link loop",
        lambda s, o: s.symlink("a", "b").symlink("b", "a").file("a/x", b"x"),
        ArchiveError,
    ),
    ("link onto file, then write", lambda s, o: s.symlink("l", f"{o}/secret").file("l", b"x"),
     ArchiveError),
    ("link, then file of that name with slash",
     lambda s, o: s.symlink("l", f"{o}/folder").dir("l/"), ArchiveError),
    ("magic link", lambda s, o: s.symlink("l", "/proc/self/root").file("l/x", b"x"), ArchiveError),
    ("hard link out", lambda s, o: s.link("h", "../secret"), ArchiveBreakout),
    ("hard link absolute", lambda s, o: s.link("h", f"{o}/secret"), ArchiveError),
    (
        "hard link through link",
        lambda s, o: s.symlink("l", "..").link("h", "l/secret"),
        ArchiveError,
    ),
    ("hard link below dot-dot link, then file", lambda s, o: (
        s.symlink("l", OUT + o).link("h", "l").file("h/secret", b"x")), ArchiveError),
    ("hard link to link, then file of its name", lambda s, o: (
        s.symlink("l", f"{o}/secret").link("h", "l").file("./h", b"x")), ArchiveError),
    ("hard link to link, then attributes", lambda s, o: s.symlink("l", f"{o}/secret").link(
        "h", "l", uid=7, gid=7, xattrs=((b"trusted.a", b"b"),)), CONTAINED),
    ("hard links in a circle", lambda s, o: s.link("a", "b").link("b", "a"), ArchiveError),
    ("hard link to below itself", lambda s, o: s.file("a").link("b", "a/b"), ArchiveError),
    ("hard link to a pipe", lambda s, o: s.fifo("p").link("h", "p", mode=0o4777), CONTAINED),
    ("hard link over a directory", lambda s, o: s.file("a").file("d/x").link("d", "a"), CONTAINED),
    ("hard link to AUFS' own", lambda s, o: (
        s.file(".wh..wh.plnk/1.2", b"x").link("h", ".wh..wh.plnk/1.2")), ArchiveError),
    (
        "hard link to link, then chmod",
        lambda s, o: s.symlink("l", f"{o}/secret").link("h", "l", mode=0o777, mtime=5),
        CONTAINED,
    ),
    ("hard link to directory", lambda s, o: s.dir("d").link("h", "d"), ArchiveError),
    ("hard link to the root", lambda s, o: s.link("h", "/"), ArchiveError),
    ("hard link to itself", lambda s, o: s.file("h").link("h", "h"), ArchiveError),
    ("hard link to nothing", lambda s, o: s.link("h", "no"), ArchiveError),
    ("whiteout of nothing", lambda s, o: s.file(".wh."), ArchiveError),
    ("whiteout of dot", lambda s, o: s.file(".wh.."), ArchiveError),
    ("whiteout of dot-dot", lambda s, o: s.file("a/.wh..."), ArchiveError),
    ("whiteout of AUFS' own", lambda s, o: s.dir(".wh..wh.plnk").file(".wh..wh.aufs"), CONTAINED),
    ("AUFS' own, dot-dot", lambda s, o: s.file(".wh..wh.plnk/../../secret", b"x"),
     ArchiveBreakout),
    ("AUFS' own below a link out", lambda s, o: (
        s.symlink("l", "..").file("l/.wh..wh.plnk", b"x")), CONTAINED),
    ("opaque marker of dot-dot", lambda s, o: s.file("../folder/.wh..wh..opq"), ArchiveBreakout),
    ("opaque marker as directory", lambda s, o: s.dir("d/.wh..wh..opq").file("d/.wh..wh..opq/x"),
     ArchiveError),
    ("whiteout of a link's target", lambda s, o: (
        s.symlink("l", f"{o}/folder").file(".wh.l")), CONTAINED),
    ("whiteout through absolute link", lambda s, o: (
        s.symlink("l", f"{o}/folder").file("l/.wh.inner")), ArchiveError),
    ("opaque through absolute link", lambda s, o: (
        s.symlink("l", o).file("l/.wh..wh..opq")), ArchiveError),
    ("opaque through link to the root", lambda s, o: (
        s.symlink("l", "/").file("l/.wh..wh..opq")), CONTAINED),
    ("whiteout below dot-dot", lambda s, o: s.file("../.wh.secret"), ArchiveBreakout),
    (
        "whiteout through link",
        lambda s, o: s.symlink("l", "..").file("l/.wh.secret"),
        CONTAINED,
    ),
    (
        "opaque through link",
        lambda s, o: s.symlink("l", "../folder").file("l/.wh..wh..opq"),
        ArchiveError,
    ),
    ("entry below a whiteout", lambda s, o: s.dir(".wh.d").file(".wh.d/x"), ArchiveError),
    ("same name twice", lambda s, o: s.file("a").file("a"), ArchiveError),
    ("same name spelled twice", lambda s, o: s.file("a").file("./a"), ArchiveError),
    ("directory twice", lambda s, o: s.dir("d/").dir("d"), ArchiveError),
    ("forged opaque", lambda s, o: s.dir("d", xattrs=((b"trusted.overlay.opaque", b"y"),)),
     CONTAINED),
    ("forged redirect", lambda s, o: s.dir("d", xattrs=((b"trusted.overlay.redirect", b"/etc"),)),
     CONTAINED),
    ("forged metacopy", lambda s, o: s.file("f", xattrs=((b"user.overlay.metacopy", b""),)),
     CONTAINED),
    ("forged origin", lambda s, o: s.file("f", xattrs=((b"trusted.overlay.origin", b"x" * 29),)),
     CONTAINED),
    ("forged whiteout", lambda s, o: s.file("f", xattrs=((b"user.overlay.whiteout", b"y"),)),
     CONTAINED),
    ("forged label", lambda s, o: s.file("f", xattrs=((b"security.selinux", b"system_u:x"),)),
     CONTAINED),
    ("capability that is none", lambda s, o: s.file(
        "f", xattrs=((b"security.capability", b"all"),)), ArchiveError),
    ("capability on a link", lambda s, o: s.symlink("l", f"{o}/secret", xattrs=(
        (b"security.capability", b"\1\0\0\2" + bytes(16)),)), CONTAINED),
    ("access list that is none", lambda s, o: s.file(
        "f", xattrs=((b"system.posix_acl_access", b"all"),)), ArchiveError),
    ("attribute of a link's target", lambda s, o: s.symlink(
        "l", f"{o}/secret", xattrs=((b"user.a", b"b"),)), ArchiveError),
    ("attribute beyond 64 KiB", lambda s, o: s.file(
        "f", xattrs=((b"user.a", b"b" * 70_000),)), ArchiveError),
    ("attribute name with NUL", lambda s, o: s.file("f", xattrs=((b"user.a\0b", b"c"),)),
     ArchiveError),
    ("attribute name beyond 255", lambda s, o: s.file(
        "f", xattrs=((b"user." + b"a" * 300, b"c"),)), ArchiveError),
    ("forged owner", lambda s, o: s.file(
        "f", xattrs=((b"user.containers.override_stat", b"0:0:4755:file"),)), CONTAINED),
    ("xattr on fifo", lambda s, o: s.fifo("p", xattrs=((b"user.a", b"b"),)), ArchiveError),
    ("root as file", lambda s, o: s.file("./", b"x"), ArchiveError),
    ("root as link", lambda s, o: s.symlink("/", o), ArchiveError),
    ("root as pipe", lambda s, o: s.fifo("."), ArchiveError),
    ("root as device", lambda s, o: s.char("/./", 1, 1), ArchiveError),
    ("root as hard link", lambda s, o: s.file("a").link("./", "a"), ArchiveError),
    ("root with any mode", lambda s, o: s.dir("/", mode=0o7777), CONTAINED),
    ("pipe, then file of its name", lambda s, o: s.fifo("p").file("p", b"x"), ArchiveError),
    ("pipe as directory", lambda s, o: s.fifo("p").file("p/x", b"x"), ArchiveError),
    ("device, then file of its name", lambda s, o: s.char("n", 1, 3).file("n", b"x"),
     ArchiveError),
    ("device as directory", lambda s, o: s.block("b", 7, 0).file("b/x", b"x"), ArchiveError),
    ("device of the host", lambda s, o: s.block("sda", 8, 0).char("mem", 1, 1), CONTAINED),
    ("whiteout device without a whiteout", lambda s, o: s.char("w", 0, 0), CONTAINED),
    ("set-user-ID for root", lambda s, o: s.file("su", b"#!", mode=0o6755), CONTAINED),
    ("target too long", lambda s, o: s.symlink("l", "t" * 5000), ArchiveError),
    ("target with NUL", lambda s, o: s.raw(pax(b"linkpath", b"a\0b")).symlink("l", "x"),
     ArchiveError),
    ("name of a mebibyte", lambda s, o: s.file("n" * (1 << 20), b"x"), ArchiveError),
    ("extended header of 1 GiB", lambda s, o: s.raw(sized(s, b"x", 1 << 30)), ArchiveError),
    ("global header of 1 GiB", lambda s, o: s.raw(sized(s, b"g", 1 << 30)), ArchiveError),
    ("GNU name of 1 GiB", lambda s, o: s.raw(sized(s, b"L", 1 << 30)), ArchiveError),
    ("GNU target of 8 EiB", lambda s, o: s.raw(sized(s, b"K", (1 << 63) - 1)), ArchiveError),
    ("extended headers without end", lambda s, o: s.raw(pax(b"c", b"c" * 1_000_000) * 12),
     ArchiveError),
    ("file of 8 EiB", lambda s, o: s.raw(sized(s, b"0", (1 << 63) - 1)), ArchiveTruncated),
    ("file of 2^88 bytes", lambda s, o: s.raw(sized(s, b"0", 1 << 87)), ArchiveTruncated),
    ("negative size", lambda s, o: s.raw(sized(s, b"0", -512)), ArchiveError),
    ("name too long", lambda s, o: s.file("n" * 300, b"x"), ArchiveError),
    ("path too long", lambda s, o: s.file("n/" * 3000 + "x"), ArchiveLimitExceeded),
    ("path too deep", lambda s, o: s.file("n/" * 1500 + "x"), ArchiveLimitExceeded),
    ("file below file", lambda s, o: s.file("f", b"x").file("f/x", b"x"), ArchiveError),
    ("link without target", lambda s, o: s.symlink("l", ""), ArchiveError),
    ("device beyond numbers", lambda s, o: s.char("c", 5000, 1), ArchiveError),
    ("contiguous file", lambda s, o: s.raw(retyped(s, ord("7"))), ArchiveError),
    ("unknown type", lambda s, o: s.raw(retyped(s, ord("Z"))), ArchiveError),
    ("extended header of 2 MiB", lambda s, o: s.raw(pax(b"comment", b"c" * (2 << 20))),
     ArchiveError),
    ("nothing after extended header", lambda s, o: s.raw(pax(b"path", b"x")), ArchiveError),
    ("lone zero block inside", lambda s, o: s.file("a").raw(bytes(512)).file("b"), ArchiveError),
    ("owner beyond 32 bits", lambda s, o: s.file("a", uid=1 << 32), ArchiveError),
]  # fmt: skip


def pax(keyword: bytes, value: bytes) -> bytes:
    """A lone extended header with one record, whatever is in it."""
    from cstorage.archive import writer

    record = writer._record(keyword, value)
    return writer._extended_block(b"x", len(record)) + record + writer.padding(len(record))


def sized(scene: Any, kind: bytes, size: int) -> bytes:
    """A header block that says it has ``size`` bytes of content, and none of them."""
    block = bytearray(retyped(scene, kind[0]))
    block[124:136] = (size if size >= 0 else size + (1 << 96)).to_bytes(12, "big")
    block[124] |= 0x80
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def retyped(scene: Any, kind: int) -> bytes:
    """A header block of a type that writers do not make."""
    from cstorage.archive.writer import Entry, encode

    return encode(Entry(b"odd", kind, 0o644, os.geteuid(), os.getegid()))


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("whiteouts", list(WhiteoutFormat))
@pytest.mark.parametrize(("what", "build", "end"), ROWS, ids=[row[0] for row in ROWS])
def test_nothing_outside_the_layer_is_touched(
    root: Any, scene: Any, what: str, build: Any, end: type[ArchiveError] | None, whiteouts: Any
) -> None:
    """The outside is as before, and the archive ends as the table says."""
    before = root.outside_state()
    archive = bytes(build(scene(), str(root.outside)))
    error: Exception | None = None
    try:
        apply_layer(
            io.BytesIO(archive), root.fd, ApplyOptions(whiteouts=whiteouts),
            recipe=io.BytesIO(), manifest=io.BytesIO(),
        )  # fmt: skip
    except Exception as caught:
        error = caught
    assert root.outside_state() == before
    if end is None:
        assert error is None
    else:
        assert type(error) is end, error
        assert str(error)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="trusted.* needs root")
def test_forged_attributes_do_not_reach_the_disk(root: Any, scene: Any) -> None:
    """Attributes of overlay and of stores are dropped, others are kept."""
    archive = bytes(scene().file("f", xattrs=(
        (b"trusted.overlay.opaque", b"y"), (b"user.overlay.metacopy", b""),
        (b"user.containers.override_stat", b"0:0:4755:file"), (b"trusted.mine", b"1"),
        (b"user.kept", b"\x00\xff"), (b"security.selinux", b"x"), (b"nons.foo", b"1"),
    )))  # fmt: skip
    apply_layer(io.BytesIO(archive), root.fd, ApplyOptions())
    assert sorted(os.listxattr(root.path / "f")) == ["trusted.mine", "user.kept"]
    assert os.getxattr(root.path / "f", "user.kept") == b"\x00\xff"


def test_a_recipe_cannot_read_files_of_the_host(root: Any) -> None:
    """A layer whose own link leads to a host path gets the layer's file or nothing (§9.4)."""
    (root.path / "s").symlink_to(root.outside)
    recipe, out = io.BytesIO(), io.BytesIO()
    writer = RecipeWriter(recipe)
    writer.file(b"s/secret", len(b"host file\n"), 1)
    writer.close()
    recipe.seek(0)
    with pytest.raises(ContentChanged, match="secret"):
        assemble(recipe, lambda name: open_payload_in_root(root.fd, name), out)
    assert b"host" not in out.getvalue()


def test_a_fifo_in_place_of_content_does_not_block(root: Any) -> None:
    """Content is only ever read from regular files."""
    os.mkfifo(root.path / "f")
    recipe = io.BytesIO()
    writer = RecipeWriter(recipe)
    writer.file(b"f", 4, 1)
    writer.close()
    recipe.seek(0)
    with pytest.raises(ContentChanged):
        assemble(recipe, lambda name: open_payload_in_root(root.fd, name), io.BytesIO())


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and device nodes need root")


@pytest.mark.root
@root_only
@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_a_store_keeps_nothing_of_a_refused_archive(
    tmp_path: Path, scene: Any, driver: str
) -> None:
    """Every row as a layer of a store: refused or deleted again, no file of it stays anywhere."""
    import cstorage

    (tmp_path / "secret").write_text("host")
    graph = tmp_path / "graph"
    with cstorage.open(graph_root=graph, run_root=tmp_path / "run", driver=driver) as store:
        store.import_layer(io.BytesIO(bytes(scene().dir("d").file("d/f", b"below"))), id="base")

        def state() -> dict[Path, int]:
            return {
                path: path.lstat().st_size if path.is_file() else 0
                for folder in (graph, tmp_path / "run")
                for path in folder.rglob("*")
                if "journal" not in path.relative_to(tmp_path).parts
            }

        # What the store makes at its first deletion stays.
        store.delete_layer(store.create_layer(parent="base").id)
        before = state()
        for what, build, end in ROWS:
            archive = io.BytesIO(bytes(build(scene(), str(tmp_path))))
            if end is None:
                store.delete_layer(store.import_layer(archive, parent="base").id)
            else:
                with pytest.raises(end):
                    store.import_layer(archive, parent="base")
            assert state() == before, what
            assert store.storage_layers() == ["base"], what
        assert (tmp_path / "secret").read_text() == "host"
        assert store.check().healthy


@pytest.mark.root
@root_only
@pytest.mark.parametrize("whiteouts", list(WhiteoutFormat))
@pytest.mark.parametrize("walker", ["openat2", "fallback"])
def test_what_lies_in_the_tree_already_is_not_written_through(
    root: Any, scene: Any, whiteouts: Any, walker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links out, pipes, devices and shared files of a lower layer are replaced, never opened."""
    from cstorage.archive import beneath

    monkeypatch.setattr(beneath, "_openat2_missing", walker == "fallback")
    before = root.outside_state()
    for number, name in enumerate(("file", "dir", "fifo", "link", "gone")):
        (root.path / f"{name}-on-link").symlink_to(root.outside / "secret")
        (root.path / f"{name}-on-folder").symlink_to(root.outside / "folder")
        os.mkfifo(root.path / f"{name}-on-pipe")
        os.mknod(root.path / f"{name}-on-null", 0o20666, os.makedev(1, 3))
        os.link(root.outside / "secret", root.path / f"{name}-on-shared")
    archive = scene().file("target", b"inside", mode=0o640)
    things = ("link", "folder", "pipe", "null", "shared")
    for thing in things:
        archive.file(f"file-on-{thing}", b"x" * 100, mode=0o4777, uid=7)
        archive.dir(f"dir-on-{thing}", mode=0o700).file(f"dir-on-{thing}/f", b"x")
        archive.fifo(f"fifo-on-{thing}", mode=0o777, uid=7)
        archive.link(f"link-on-{thing}", "target", mode=0o640)
        archive.file(f".wh.gone-on-{thing}")
    apply_layer(io.BytesIO(bytes(archive)), root.fd, ApplyOptions(whiteouts=whiteouts))
    assert root.outside_state() == before
    assert (root.outside / "secret").stat().st_nlink == 1
    for thing in things:
        assert (root.path / f"file-on-{thing}").lstat().st_size == 100
        assert (root.path / f"dir-on-{thing}" / "f").read_bytes() == b"x"
        assert (root.path / f"fifo-on-{thing}").is_fifo()
        assert (root.path / f"link-on-{thing}").read_bytes() == b"inside"


@pytest.mark.root
@root_only
@pytest.mark.parametrize("whiteouts", list(WhiteoutFormat))
@pytest.mark.parametrize(
    "build",
    [
        lambda s: s.file("m/inner", b"x"),
        lambda s: s.file("m/sub/new", b"x"),
        lambda s: s.dir("m", mode=0o777),
        lambda s: s.file("m/.wh.inner"),
        lambda s: s.file("m/.wh..wh..opq"),
        lambda s: s.symlink("l", "m").file("l/inner", b"x"),
        lambda s: s.link("h", "m/inner", mode=0o777),
        lambda s: s.file("up", b"x").file("up/x"),
        lambda s: s.file(".wh.up"),
        lambda s: s.file("up", b"x"),
        lambda s: s.symlink("up", "x"),
        lambda s: s.file("one", b"x"),
        lambda s: s.file(".wh.one"),
        lambda s: s.link("h", "one", mode=0o777),
    ],
)
def test_what_is_mounted_in_the_tree_is_left_alone(
    root: Any, scene: Any, whiteouts: Any, build: Any
) -> None:
    """A folder and a file of the host bound into the tree: no archive gets into them."""
    (root.path / "up" / "m").mkdir(parents=True)
    (root.path / "m").mkdir()
    (root.path / "one").write_bytes(b"")
    before = root.outside_state()
    mounts = [("folder", "m"), ("folder", "up/m"), ("secret", "one")]
    for source, place in mounts:
        subprocess.run(["mount", "--bind", root.outside / source, root.path / place], check=True)
    try:
        with pytest.raises((ArchiveError, OSError)):
            apply_layer(
                io.BytesIO(bytes(build(scene()))), root.fd, ApplyOptions(whiteouts=whiteouts)
            )
    finally:
        for _, place in reversed(mounts):
            subprocess.run(["umount", root.path / place], check=True)
    assert root.outside_state() == before


def test_a_tree_of_ten_thousand_levels_comes_and_goes(root: Any, scene: Any) -> None:
    """A path has at most 1024 components, but links make any depth: it is counted and removed."""
    from cstorage.archive.beneath import remove_in
    from cstorage.archive.changes import tree_size

    deep = "/".join("d" * 1000)
    archive = scene()
    archive.dir(deep)
    for hop in range(9):
        # each link leads to the deepest directory so far, through the link before it
        archive.symlink(f"l{hop}", f"l{hop - 1}/{deep}" if hop else deep)
        archive.dir(f"l{hop}/{deep}")
    archive.file("l8/" + "d/" * 999 + "d/f", b"deepest")
    data = bytes(archive)
    apply_layer(io.BytesIO(data), root.fd, ApplyOptions(whiteouts=WhiteoutFormat.REMOVE))
    assert tree_size(root.fd) >= len(b"deepest")
    for name in os.listdir(root.path):
        remove_in(root.fd, os.fsencode(name))
    assert os.listdir(root.path) == []


@pytest.mark.parametrize("compression", [kind for kind in Compression if kind != Compression.NONE])
def test_a_bomb_is_refused_while_it_expands(root: Any, scene: Any, compression: Any) -> None:
    """64 MiB of zeros in a few KiB end soon after 16 MiB, by ratio and by size alike."""
    packed = io.BytesIO()
    with compressing(packed, compression, threads=1) as sink:
        sink.write(bytes(scene().file("a", bytes(64 << 20))))
    for limits in (Limits(max_ratio=200), Limits(max_bytes=17 << 20)):
        packed.seek(0)
        with pytest.raises(ArchiveLimitExceeded):
            apply_layer(packed, root.fd, ApplyOptions(limits=limits))
        assert (root.path / "a").stat().st_size <= 17 << 20
        (root.path / "a").unlink()


@pytest.mark.parametrize(
    ("limits", "archive"),
    [
        (Limits(max_entries=3), lambda s: s.file("a").file("b").file("c").file("d")),
        (Limits(max_bytes=5000), lambda s: s.file("a", b"x" * 10_000)),
        (Limits(max_ratio=100), lambda s: s.file("a", bytes(40 << 20))),
        (Limits(max_name=10), lambda s: s.file("eleven-long")),
        (Limits(max_depth=2), lambda s: s.file("a/b/c")),
    ],
    ids=["entries", "bytes", "ratio", "name", "depth"],
)
def test_limits_end_the_import(root: Any, scene: Any, limits: Limits, archive: Any) -> None:
    """More than allowed is refused with its own error."""
    packed = io.BytesIO()
    kind = Compression.GZIP if limits.max_ratio else Compression.NONE
    with compressing(packed, kind) as sink:
        sink.write(bytes(archive(scene())))
    packed.seek(0)
    with pytest.raises(ArchiveLimitExceeded):
        apply_layer(packed, root.fd, ApplyOptions(limits=limits))


def test_a_sparse_file_counts_with_its_expanded_size(root: Any) -> None:
    """A map of a huge hole is bounded by ``max_bytes`` although the archive is tiny."""
    from cstorage.archive.writer import END, Entry, encode

    head = encode(Entry(b"x", ord("0"), 0o644, os.geteuid(), os.getegid()))
    records = b"".join(
        b"%d %s\n" % (len(r) + 4, r)
        for r in (b"GNU.sparse.size=1099511627776", b"GNU.sparse.numblocks=0", b"GNU.sparse.map=")
    )
    from cstorage.archive import writer

    archive = (
        writer._extended_block(b"x", len(records)) + records + writer.padding(len(records))
        + head + END
    )  # fmt: skip
    with pytest.raises(ArchiveLimitExceeded):
        apply_layer(
            io.BytesIO(archive), root.fd, ApplyOptions(limits=Limits(max_bytes=1 << 30)),
            manifest=io.BytesIO(),
        )  # fmt: skip
