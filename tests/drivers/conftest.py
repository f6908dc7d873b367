"""Fixtures of the driver tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from cstorage.drivers import mountapi
from tests.drivers.stage import FUSE, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, devices and owners need root")

VARIANTS = [
    pytest.param(name, marks=[pytest.mark.root, root_only, *more])
    for name, more in (
        ("vfs", []),
        ("overlay", []),
        ("overlay-legacy", []),
        (
            "overlay-fuse",
            [pytest.mark.skipif(FUSE is None, reason="fuse-overlayfs is not installed")],
        ),
        (
            "btrfs",
            [pytest.mark.skipif(not shutil.which("mkfs.btrfs"), reason="no mkfs.btrfs here")],
        ),
    )
]


@pytest.fixture(params=VARIANTS)
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """Every driver, in every way it can mount; nothing may stay mounted."""
    if request.param == "overlay-legacy":
        monkeypatch.setattr(mountapi, "_appending", False)
    base = tmp_path
    if request.param == "btrfs":
        base = request.getfixturevalue("btrfs_disk") / tmp_path.name
        base.mkdir()
    made = Stage(base, request.param)
    yield made
    assert made.close() == []


@pytest.fixture(scope="session")
def btrfs_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A btrfs file system in a file."""
    folder = tmp_path_factory.mktemp("btrfs")
    image, target = folder / "image", folder / "disk"
    target.mkdir()
    with image.open("wb") as out:
        out.truncate(320 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", str(image), str(target)], check=True)
    yield target
    subprocess.run(["umount", str(target)], check=True)


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    assert made.close() == []


@pytest.fixture
def vfs(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, "vfs")
    yield made
    assert made.close() == []
