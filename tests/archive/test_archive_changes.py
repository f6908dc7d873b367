"""Changes, sizes and generated archives follow the reference's rules, and are deterministic."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.changes import changes_size, compare_trees, overlay_changes, tree_size
from cstorage.archive.produce import write_changes, write_tree
from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.model import Change, ChangeKind, IDMapEntry, IDMaps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

A, C, D = ChangeKind.ADD, ChangeKind.MODIFY, ChangeKind.DELETE
SECOND = 1_000_000_000


class Pair:
    """Two trees that begin equal (a copy: other inodes, same times)."""

    def __init__(self, base: Path) -> None:
        self.old, self.new = base / "old", base / "new"
        for name in ("d/f", "d/g", "e/s/t", "top"):
            path = self.old / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        (self.old / "l").symlink_to("top")
        shutil.copytree(self.old, self.new, symlinks=True)
        self.reset_times()

    def reset_times(self) -> None:
        """Whole-second times on both sides, so that only what a test does counts."""
        for tree in (self.old, self.new):
            for path in tree.rglob("*"):
                os.utime(path, ns=(SECOND, SECOND), follow_symlinks=False)

    def changes(self) -> list[Change]:
        old, new = os.open(self.old, os.O_RDONLY), os.open(self.new, os.O_RDONLY)
        try:
            return compare_trees(old, new)
        finally:
            os.close(old)
            os.close(new)


def chmod_top(pair: Pair) -> None:
    (pair.new / "top").chmod(0o600)


def same_size(pair: Pair) -> None:
    (pair.new / "top").write_text("TOP")
    os.utime(pair.new / "top", ns=(SECOND, SECOND))


def other_time(pair: Pair) -> None:
    os.utime(pair.new / "top", ns=(0, 2 * SECOND))


def fraction(pair: Pair) -> None:
    os.utime(pair.new / "top", ns=(0, SECOND + 5))


def two_fractions(pair: Pair) -> None:
    os.utime(pair.old / "top", ns=(0, SECOND + 4))
    os.utime(pair.new / "top", ns=(0, SECOND + 5))


def retarget(pair: Pair) -> None:
    (pair.new / "l").unlink()
    (pair.new / "l").symlink_to("etc")  # as long as before
    os.utime(pair.new / "l", ns=(SECOND, SECOND), follow_symlinks=False)
    os.utime(pair.new, ns=(SECOND, SECOND))


def user_xattr(pair: Pair) -> None:
    os.setxattr(pair.new / "top", "user.a", b"b")


def removed_tree(pair: Pair) -> None:
    shutil.rmtree(pair.new / "e")


def removed_inside(pair: Pair) -> None:
    (pair.new / "d" / "f").unlink()
    os.utime(pair.new / "d", ns=(SECOND, SECOND))


def new_tree(pair: Pair) -> None:
    (pair.new / "n" / "m").mkdir(parents=True)


def kind_changed(pair: Pair) -> None:
    shutil.rmtree(pair.new / "e")
    (pair.new / "e").write_text("now a file")


def same_inode(pair: Pair) -> None:
    (pair.new / "top").unlink()
    os.link(pair.old / "top", pair.new / "top")
    (pair.old / "top").chmod(0o600)


CASES: list[tuple[Callable[[Pair], None], list[tuple[bytes, ChangeKind]]]] = [
    (lambda pair: None, []),
    (chmod_top, [(b"/top", C)]),
    (same_size, []),  # content is not compared
    (other_time, [(b"/top", C)]),
    (fraction, []),  # one side has no fraction
    (two_fractions, [(b"/top", C)]),
    (retarget, [(b"/l", C)]),
    (user_xattr, [(b"/top", C)]),
    (removed_tree, [(b"/e", D)]),  # only the top of it
    (removed_inside, [(b"/d", C), (b"/d/f", D)]),
    (new_tree, [(b"/n", A), (b"/n/m", A)]),
    (kind_changed, [(b"/e", C)]),
    (same_inode, []),
]


@pytest.mark.parametrize(("change", "expected"), CASES, ids=[c[0].__name__ for c in CASES])
def test_what_counts_as_a_change(tmp_path: Path, change: Any, expected: Any) -> None:
    """Drivers-and-formats §5.2, one rule at a time."""
    pair = Pair(tmp_path)
    change(pair)
    assert pair.changes() == expected


def test_with_an_empty_parent_everything_is_added(tmp_path: Path) -> None:
    """In order: a directory before its content, bytewise."""
    pair = Pair(tmp_path)
    fd = os.open(pair.new, os.O_RDONLY)
    try:
        changes = compare_trees(None, fd)
        assert overlay_changes(fd, []) == changes
        assert changes_size(fd, changes) == tree_size(fd) == len("d/fd/ge/s/ttoptop")
    finally:
        os.close(fd)
    assert [c.path for c in changes] == [
        b"/d", b"/d/f", b"/d/g", b"/e", b"/e/s", b"/e/s/t", b"/l", b"/top",
    ]  # fmt: skip
    assert {c.kind for c in changes} == {A}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")
def test_owners_are_compared_as_the_container_sees_them(tmp_path: Path) -> None:
    """Two layers with different maps but equal container owners do not differ."""
    pair = Pair(tmp_path)
    for path in pair.new.rglob("*"):
        os.chown(path, 100_000, 100_000, follow_symlinks=False)
    maps = IDMaps((IDMapEntry(0, 100_000, 1000),), (IDMapEntry(0, 100_000, 1000),))
    old, new = os.open(pair.old, os.O_RDONLY), os.open(pair.new, os.O_RDONLY)
    try:
        assert compare_trees(old, new, new_maps=maps) == []
        assert len(compare_trees(old, new)) == 8
    finally:
        os.close(old)
        os.close(new)


def test_a_hard_link_counts_once(tmp_path: Path) -> None:
    """Sizes go by inode."""
    (tmp_path / "a").write_bytes(bytes(100))
    os.link(tmp_path / "a", tmp_path / "b")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert tree_size(fd) == 100
        assert changes_size(fd, [Change(b"/a", A), Change(b"/b", C), Change(b"/x", D)]) == 100
    finally:
        os.close(fd)


def test_applying_the_diff_to_the_old_tree_gives_the_new_one(tmp_path: Path) -> None:
    """Changes out, changes in, and nothing is left to change."""
    pair = Pair(tmp_path)
    chmod_top(pair)
    removed_inside(pair)
    new_tree(pair)
    (pair.new / "e" / "s" / "t").unlink()
    (pair.new / "e" / "s" / "t").symlink_to("nowhere")
    os.link(pair.new / "top", pair.new / "d" / "top-again")
    pair.reset_times()
    old, new = os.open(pair.old, os.O_RDONLY), os.open(pair.new, os.O_RDONLY)
    try:
        changes = compare_trees(old, new)
        first, second = io.BytesIO(), io.BytesIO()
        write_changes(new, changes, first)
        write_changes(new, reversed(changes), second)
        assert first.getvalue() == second.getvalue()
        first.seek(0)
        apply_layer(first, old, ApplyOptions(whiteouts=WhiteoutFormat.REMOVE))
        assert compare_trees(old, new) == []
        assert (pair.old / "d" / "top-again").samefile(pair.old / "top")
        assert not (pair.old / "d" / "f").exists()
    finally:
        os.close(old)
        os.close(new)


def test_a_written_tree_reads_back_as_it_was(tmp_path: Path) -> None:
    """Python's reader sees names, kinds, modes, whole seconds; long names and xattrs need pax."""
    top = tmp_path / "top"
    top.mkdir()
    (top / "f").write_bytes(b"x" * 1000)
    (top / "f").chmod(0o6755)
    os.utime(top / "f", ns=(1, 7 * SECOND + 999_999_999))
    os.link(top / "f", top / "g")
    (top / ("n" * 200)).write_bytes(b"")
    (top / "ü").symlink_to("f" * 150)
    os.mkfifo(top / "pipe")
    os.setxattr(top / "f", "user.a", b"\x00\n=\xff")
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "socket"))
    out = io.BytesIO()
    fd = os.open(top, os.O_RDONLY)
    try:
        write_tree(fd, out)
    finally:
        os.close(fd)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        found = {info.name: info for info in tar}
    assert list(found) == ["f", "g", "n" * 200, "pipe", "ü"]
    assert (found["f"].size, found["f"].mode, found["f"].mtime) == (1000, 0o6755, 7)
    assert (found["g"].type, found["g"].linkname, found["g"].size) == (tarfile.LNKTYPE, "f", 0)
    assert found["ü"].linkname == "f" * 150
    assert found["f"].pax_headers == {
        "SCHILY.xattr.user.a": b"\x00\n=\xff".decode("utf-8", "surrogateescape")
    }
    assert found["f"].uname == ""
    assert len(out.getvalue()) % 512 == 0


def test_an_unmapped_owner_is_refused(tmp_path: Path) -> None:
    """Exporting a file whose owner the map does not know would invent an owner."""
    from cstorage.errors import ArchiveError

    (tmp_path / "f").write_bytes(b"")
    maps = IDMaps((IDMapEntry(0, 100_000, 10),), (IDMapEntry(0, 100_000, 10),))
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ArchiveError, match="cannot be mapped"):
            write_tree(fd, io.BytesIO(), maps=maps)
    finally:
        os.close(fd)


def test_a_tree_deeper_than_stack_and_descriptors_is_walked(tmp_path: Path) -> None:
    """1200 levels: counted, compared, exported."""
    fd = os.open(tmp_path, os.O_RDONLY)
    top = fd
    for _ in range(1200):
        os.mkdir("d", dir_fd=fd)
        child = os.open("d", os.O_RDONLY, dir_fd=fd)
        if fd != top:
            os.close(fd)
        fd = child
    os.close(fd)
    try:
        assert tree_size(top) == 0
        assert len(compare_trees(None, top)) == 1200
        out = io.BytesIO()
        write_tree(top, out)
        assert out.getvalue().count(b"ustar\x0000") >= 1200
    finally:
        from cstorage.archive.beneath import remove_in

        remove_in(top, b"d")
        os.close(top)


def test_what_a_directory_no_longer_has_comes_after_what_it_has(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    for name in ("f", "g"):
        (pair.new / "d" / name).unlink()
    (pair.new / "d" / "m").touch()
    (pair.new / "top").unlink()
    (pair.new / "z").touch()
    pair.reset_times()
    assert pair.changes() == [
        Change(b"/d", C), Change(b"/d/m", A), Change(b"/d/f", D), Change(b"/d/g", D),
        Change(b"/z", A), Change(b"/top", D),
    ]  # fmt: skip
