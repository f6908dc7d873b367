"""Whiteouts mean the same whatever the driver: what a mounted overlay shows, vfs has."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.changes import overlay_changes
from cstorage.archive.manifest import Mark, read_manifest
from cstorage.archive.produce import write_overlay_diff
from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.model import ChangeKind

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.usefixtures("both_ways"),
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="overlay mounts and devices need root"),
]


class Layers:
    """A lower tree and two ways to apply a layer on it: beside (overlay) and on a copy (vfs)."""

    def __init__(self, base: Path) -> None:
        self.lower, self.upper, self.copy = base / "lower", base / "upper", base / "copy"
        self.merged = base / "merged"
        for path in (self.lower, self.upper, self.merged):
            path.mkdir()
        for name in ("d/old", "d/sub/deep", "e/old", "f", "k/keep"):
            path = self.lower / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"lower {name}")

    def apply(self, archive: bytes) -> tuple[dict[str, str], dict[str, str]]:
        """What each way shows: path → content (of directories and devices: their kind)."""
        shutil.copytree(self.lower, self.copy, symlinks=True)
        for tree, how in (
            (self.upper, WhiteoutFormat.OVERLAY), (self.copy, WhiteoutFormat.REMOVE),
        ):  # fmt: skip
            fd = os.open(tree, os.O_RDONLY)
            try:
                apply_layer(io.BytesIO(archive), fd, ApplyOptions(whiteouts=how))
            finally:
                os.close(fd)
        options = f"lowerdir={self.upper}:{self.lower}"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, self.merged], check=True
        )
        try:
            return _shown(self.merged), _shown(self.copy)
        finally:
            subprocess.run(["umount", self.merged], check=True)


def _shown(top: Path) -> dict[str, str]:
    return {
        str(path.relative_to(top)): path.read_text() if path.is_file() else "dir"
        for path in sorted(top.rglob("*"))
        if os.path.lexists(path)  # the kernel lists whiteouts of unmerged directories, no more
    }


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(tmp_path)


CASES: dict[str, Any] = {
    "file removed": lambda s: s.file(".wh.f"),
    "directory removed": lambda s: s.file(".wh.d"),
    "removed below a directory": lambda s: s.dir("d").file("d/.wh.old"),
    "removed below an unmentioned directory": lambda s: s.file("d/.wh.old"),
    "removed what was never there": lambda s: s.file("x/y/.wh.z"),
    "removed, then made again as file": lambda s: s.file(".wh.d").file("d", b"new"),
    "removed, then made again as directory": lambda s: s.file(".wh.d").dir("d").file("d/new"),
    "removed, then filled without a directory entry": lambda s: s.file(".wh.d").file("d/new"),
    "made, then removed": lambda s: s.dir("d").file("d/new", b"1").file(".wh.d"),
    "file made, then removed": lambda s: s.file("f", b"new").file(".wh.f"),
    "implied directory, then removed": lambda s: s.file("d/new", b"1").file(".wh.d"),
    "removed, then removed below": lambda s: s.file(".wh.d").file("d/.wh.old"),
    "removed, then removed deep below": lambda s: s.file(".wh.d").file("d/sub/.wh.deep"),
    "opaque before the new content": lambda s: s.dir("d").file("d/.wh..wh..opq").file("d/new"),
    "opaque after the new content": lambda s: s.dir("d").file("d/new").file("d/.wh..wh..opq"),
    "opaque without a directory entry": lambda s: s.file("d/.wh..wh..opq"),
    "opaque where nothing was": lambda s: s.file("new/.wh..wh..opq"),
    "opaque above kept content": lambda s: (
        s.dir("d").dir("d/sub").file("d/sub/new").file("d/.wh..wh..opq")
    ),
    "removed and opaque": lambda s: s.file(".wh.d").file("d/.wh..wh..opq").file("d/new"),
    "file over directory": lambda s: s.file("d", b"now a file"),
    "directory over file": lambda s: s.dir("f").file("f/new"),
    "whiteout that is a directory entry": lambda s: s.dir(".wh.d"),
    "whiteout that is a hard link": lambda s: s.file("t").link(".wh.f", "t"),
    "file over directory, then removed below": lambda s: s.file("d", b"1").file("d/.wh.old"),
    "file over directory, then removed deep below": lambda s: s.file("d", b"1").file(
        "d/sub/.wh.deep"
    ),
    "file over directory, then opaque": lambda s: s.file("d", b"1").file("d/.wh..wh..opq"),
    "removed below, then file over directory": lambda s: s.file("d/.wh.old").file("d", b"1"),
    "book-keeping of AUFS": lambda s: (
        s.file(".wh..wh.aufs")
        .dir(".wh..wh.plnk")
        .file(".wh..wh.plnk/1.2", b"x")
        .file("d/.wh..wh.x")
    ),
}


@pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())
def test_a_mounted_overlay_shows_what_vfs_has(layers: Layers, scene: Any, build: Any) -> None:
    """One archive, two drivers, one result."""
    merged, copied = layers.apply(bytes(build(scene())))
    assert merged == copied
    assert merged["k/keep"] == "lower k/keep"


def test_an_opaque_root_empties_only_the_copy(layers: Layers, scene: Any) -> None:
    """The kernel ignores the mark on a layer's root; the reference behaves the same (§3.7)."""
    merged, copied = layers.apply(bytes(scene().file(".wh..wh..opq").file("new", b"1")))
    assert copied == {"new": "1"}
    assert merged["k/keep"] == "lower k/keep"
    assert os.getxattr(layers.upper, "trusted.overlay.opaque") == b"y"


def test_expected_contents_of_the_main_cases(layers: Layers, scene: Any) -> None:
    """Whiteouts hide what is below and never what the archive itself has."""
    archive = scene().file(".wh.d").dir("d").file("d/new", b"1").file("f", b"2").file(".wh.f")
    merged, _ = layers.apply(bytes(archive.file("e/.wh..wh..opq").file("e/new", b"3")))
    assert merged == {
        "d": "dir", "d/new": "1", "e": "dir", "e/new": "3", "f": "2",
        "k": "dir", "k/keep": "lower k/keep",
    }  # fmt: skip


def test_markers_go_out_as_they_came_in(root: Any, tmp_path: Path, scene: Any) -> None:
    """Device and opaque mark become whiteouts again, and changes name them as deletions."""
    lower = tmp_path / "lower"
    (lower / "e").mkdir(parents=True)
    (lower / "gone").write_text("x")
    archive = bytes(
        scene().file(".wh.gone", mode=0).dir("e").file("e/.wh..wh..opq", mode=0o755, mtime=0)
        .file("e/z", b"z")
    )  # fmt: skip
    apply_layer(io.BytesIO(archive), root.fd, ApplyOptions())
    device = (root.path / "gone").lstat()
    assert stat.S_ISCHR(device.st_mode)
    assert device.st_rdev == 0
    os.utime(root.path / "gone", ns=(0, 1_600_000_000 * 10**9), follow_symlinks=False)
    out = io.BytesIO()
    fd = os.open(lower, os.O_RDONLY)
    try:
        write_overlay_diff(root.fd, [fd], out)
        changes = overlay_changes(root.fd, [fd])
    finally:
        os.close(fd)
    expected = bytes(
        scene().dir("e/").file("e/.wh..wh..opq", mode=0o755, mtime=0).file("e/z", b"z")
        .file(".wh.gone", mode=0)
    )  # fmt: skip
    assert out.getvalue() == expected
    assert changes == [
        (b"/e", ChangeKind.DELETE), (b"/e/z", ChangeKind.ADD), (b"/gone", ChangeKind.DELETE),
    ]  # fmt: skip


def test_manifests_name_whiteouts_by_what_they_hide(root: Any, scene: Any) -> None:
    """Mark and path, so that listings of a stack of layers need nothing else."""
    manifest = io.BytesIO()
    archive = scene().dir("d").file("d/.wh.x").file("d/.wh..wh..opq").file("y", b"1")
    apply_layer(io.BytesIO(bytes(archive)), root.fd, ApplyOptions(), manifest=manifest)
    manifest.seek(0)
    assert [(e.mark, e.path) for e in read_manifest(manifest)] == [
        (Mark.PRESENT, b"d"), (Mark.WHITEOUT, b"d/x"), (Mark.OPAQUE, b"d"), (Mark.PRESENT, b"y"),
    ]  # fmt: skip
