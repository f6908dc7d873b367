"""Fixtures of the driver tests."""

from __future__ import annotations

import os
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
    )
]


@pytest.fixture(params=VARIANTS)
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """Every driver, in every way it can mount; nothing may stay mounted."""
    if request.param == "overlay-legacy":
        monkeypatch.setattr(mountapi, "_appending", False)
    made = Stage(tmp_path, request.param)
    yield made
    assert made.close() == []


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
