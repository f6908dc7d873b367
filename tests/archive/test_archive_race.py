"""Another process plants links into the tree while an archive is applied."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import pytest

from cstorage.archive import beneath
from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.errors import ArchiveError

_ATTACKER = """
import os, sys
root, outside = sys.argv[1:3]
print("ready", flush=True)
n = 0
while True:
    n += 1
    for name in ("d", "d/e"):
        path = os.path.join(root, name)
        try:
            os.rename(path, f"{path}.{n}")
            os.symlink(outside, path)
        except OSError:
            continue
        try:
            os.unlink(path)
            os.rename(f"{path}.{n}", path)
        except OSError:
            pass
"""


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("walker", ["openat2", "fallback"])
def test_planted_links_lead_nowhere(
    root: Any, scene: Any, walker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories swapped for links to the outside, thousands of times: the outside stays as is."""
    if walker == "fallback":
        monkeypatch.setattr(beneath, "_openat2_missing", True)
    (root.outside / "d").mkdir()
    (root.outside / "e").mkdir()
    for number in range(200):
        (root.outside / f"f{number}").write_bytes(b"host")
    before = root.outside_state()
    (root.path / "d" / "e").mkdir(parents=True)
    attacker = subprocess.Popen(
        [sys.executable, "-c", _ATTACKER, str(root.path), str(root.outside)],
        stdout=subprocess.PIPE,
    )
    rounds = refused = 0
    try:
        assert attacker.stdout is not None
        attacker.stdout.readline()
        for round_number in range(30):
            archive = scene()
            for number in range(0, 200, 4):
                archive.dir(f"d/e{round_number}-{number}", mode=0o777)
                archive.file(f"d/f{number}", b"x", mode=0o4777)
                archive.file(f"d/e/f{number}", b"x")
                archive.symlink(f"d/e/f{number + 1}", "x")
                archive.file(f"d/.wh.f{number + 2}")
                archive.link(f"d/f{number + 3}", f"d/e/f{number}")
            rounds += 1
            try:
                apply_layer(io.BytesIO(bytes(archive)), root.fd, ApplyOptions())
            except (ArchiveError, OSError):
                refused += 1
    finally:
        attacker.kill()
        attacker.wait()
    assert root.outside_state() == before
    assert rounds == 30
    assert refused > 0, "the attacker never met the extraction: the test shows nothing"


def test_removing_a_tree_does_not_follow_links(root: Any) -> None:
    """A link inside a removed tree is removed, what it leads to stays."""
    before = root.outside_state()
    (root.path / "d" / "e").mkdir(parents=True)
    (root.path / "d" / "l").symlink_to(root.outside)
    (root.path / "d" / "e" / "l").symlink_to(root.outside / "folder")
    beneath.remove_in(root.fd, b"d")
    assert os.listdir(root.path) == []
    assert root.outside_state() == before


def test_a_tree_deeper_than_the_descriptor_limit_is_removed(root: Any) -> None:
    """1500 levels: more than a process may have descriptors open."""
    fd = os.dup(root.fd)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        child = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(fd)
    beneath.remove_in(root.fd, b"d")
    assert os.listdir(root.path) == []


@pytest.mark.parametrize(
    "path",
    ["", ".", "a", "a/b", "a/b/f", "abs/b/f", "up/a/b/f", "dot/../a/b/f", "../../a/b", "loop/x",
     "a/b/f/x", "none/x", "nowhere", "abs", "a/../../../a/b", "chain/f"],
)  # fmt: skip
def test_the_fallback_walk_resolves_as_the_kernel_does(root: Any, path: str) -> None:
    """Without ``openat2`` the same paths lead to the same files, or to the same error."""
    (root.path / "a" / "b").mkdir(parents=True)
    (root.path / "a" / "b" / "f").write_text("inside")
    (root.path / "dot").mkdir()
    (root.path / "abs").symlink_to("/a")
    (root.path / "up").symlink_to("../../..")
    (root.path / "loop").symlink_to("loop")
    (root.path / "nowhere").symlink_to("/not/here")
    (root.path / "chain").symlink_to("up/abs/b")

    def outcome(opener: Any) -> tuple[int, int] | int | None:
        try:
            fd = opener(root.fd, path.encode(), os.O_RDONLY)
        except OSError as error:
            return error.errno
        info = os.fstat(fd)
        os.close(fd)
        return info.st_dev, info.st_ino

    assert outcome(beneath.walk_in_root) == outcome(beneath.open_in_root)
