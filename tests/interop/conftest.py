"""Stores and images for the tests with the tools of others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.append(str(Path(__file__).parent))

import peers

import cstorage

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with an image of three layers."""
    folder = tmp_path_factory.mktemp("layout")
    peers.oci_layout(folder, peers.layers())
    return folder


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[..., object]:
    """Opens the store ``name`` below the test's folder."""

    @contextmanager
    def opened(driver: str, name: str = "ours", **how: object) -> Iterator[cstorage.Store]:
        base = tmp_path / name
        with cstorage.open(base / "graph", base / "run", driver, **how) as store:
            yield store

    return opened
