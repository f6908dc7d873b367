"""Stores for the tests that look from outside, on each driver."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkserver import ForkServer
from mounts import unmount_below
from scene import Scene


@pytest.fixture(params=["vfs", "overlay"])
def scene(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    cstorage_command: list[str],
    clean_environment: dict[str, str],
    forks: ForkServer,
) -> Iterator[Scene]:
    """An empty place for a store, once for each driver."""
    if os.getuid() != 0:
        pytest.skip("not root: layers with owners and mounts")
    programmes = Scene(cstorage_command, clean_environment, forks, request.param)
    yield programmes.at(tmp_path / "store")
    # Some trees are too deep for pytest's own clean-up.
    unmount_below(tmp_path)
    subprocess.run(["rm", "-rf", "--one-file-system", str(tmp_path / "store")], check=False)
