"""Running the command line: in this process, or as a process of its own."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

# Helper modules stand beside the tests that use them.
sys.path.append(str(Path(__file__).resolve().parent))

from cstorage.cli.main import main


class Result(NamedTuple):
    status: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "surrogateescape")

    @property
    def errors(self) -> str:
        return self.err.decode("utf-8", "surrogateescape")


class Program:
    """The command line in this process; ``roots`` stand before every command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, roots: list[str]) -> None:
        self.monkeypatch = monkeypatch
        self.roots = roots
        self.argv0 = "cstorage"

    def bare(self, *words: str, stdin: bytes = b"") -> Result:
        """Run exactly these words."""
        out, err = io.BytesIO(), io.BytesIO()
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out))
            patch.setattr(sys, "stderr", io.TextIOWrapper(err))
            status = main([self.argv0, *words])
            return Result(status, out.getvalue(), err.getvalue())

    def __call__(self, *words: str, stdin: bytes = b"") -> Result:
        """Run a command on the test's store."""
        return self.bare(*self.roots, *words, stdin=stdin)

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        """Run a command that has to succeed; what it printed."""
        result = self(*words, stdin=stdin)
        assert result.status == 0, (words, result)
        return result.text


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
    """The command line on a new store with the vfs driver."""
    for name in ("STORAGE_DRIVER", "STORAGE_OPTS", "CONTAINERS_STORAGE_CONF"):
        monkeypatch.delenv(name, raising=False)
    roots = ["--graph", f"{tmp_path}/graph", "--run", f"{tmp_path}/run", "-s", "vfs"]
    return Program(monkeypatch, roots)
