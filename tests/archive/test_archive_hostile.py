"""Hostile archives: whatever they say, nothing outside the layer is read, made, changed or removed.

Every row of ``ROWS`` is one archive and how it ends: refused with the named error, or contained
(applied, all of it inside). The test looks at everything outside the layer first.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import pytest

from cstorage.archive.apply import ApplyOptions, Limits, apply_layer
from cstorage.archive.beneath import open_payload_in_root
from cstorage.archive.recipe import RecipeWriter, assemble
from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.errors import ArchiveBreakout, ArchiveError, ArchiveLimitExceeded, ContentChanged

if TYPE_CHECKING:
    from collections.abc import Callable

CONTAINED = None
OUT = "../" * 12  # enough to reach the host's root from any test directory

ROWS: list[tuple[str, Callable[[Any, str], Any], type[ArchiveError] | None]] = [
    # what it tries, the archive (scene, outside path), how it ends
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
    ("forged owner", lambda s, o: s.file(
        "f", xattrs=((b"user.containers.override_stat", b"0:0:4755:file"),)), CONTAINED),
    ("xattr on fifo", lambda s, o: s.fifo("p", xattrs=((b"user.a", b"b"),)), ArchiveError),
    ("root as file", lambda s, o: s.file("./", b"x"), ArchiveError),
    ("root as link", lambda s, o: s.symlink("/", o), ArchiveError),
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


def retyped(scene: Any, kind: int) -> bytes:
    """A header block of a type that writers do not make."""
    from cstorage.archive.writer import Entry, encode

    return encode(Entry(b"odd", kind, 0o644, os.geteuid(), os.getegid()))


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
    from cstorage.archive.compression import compressing
    from cstorage.model import Compression

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
