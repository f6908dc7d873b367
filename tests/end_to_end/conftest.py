"""Stores for the tests that look from outside, on each driver."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scene import Scene


@pytest.fixture(params=["vfs", "overlay"])
def scene(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    cstorage_command: list[str],
    journal_command: list[str],
    clean_environment: dict[str, str],
) -> Scene:
    """An empty place for a store, once for each driver."""
    if os.getuid() != 0:
        pytest.skip("not root: layers with owners and mounts")
    programmes = Scene(cstorage_command, journal_command, clean_environment, request.param)
    return programmes.at(tmp_path / "store")
