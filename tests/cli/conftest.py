"""Running the command line: in this process, or as a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from cstorage.cli.main import main

PROJECT = Path(__file__).resolve().parents[2]


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
    roots = ["--graph", f"{tmp_path}/root", "--run", f"{tmp_path}/run", "-s", "vfs"]
    return Program(monkeypatch, roots)


def process(*words: str, **options: object) -> subprocess.Popen[bytes]:
    """The command line as a process of its own."""
    code = "import sys; from cstorage.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, "cstorage", *words], env=environment, **options
    )


def archive(*members: tuple[str, bytes]) -> bytes:
    """A tar archive of regular files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1_600_000_000
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()
