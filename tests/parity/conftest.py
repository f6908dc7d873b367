"""The command line on a new vfs store, as in tests/cli."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Program


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
    for name in ("STORAGE_DRIVER", "STORAGE_OPTS", "CONTAINERS_STORAGE_CONF"):
        monkeypatch.delenv(name, raising=False)
    roots = ["--graph", f"{tmp_path}/graph", "--run", f"{tmp_path}/run", "-s", "vfs"]
    return Program(monkeypatch, roots)
