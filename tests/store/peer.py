"""Stores that the original's own tool writes, and their record files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PEER = shutil.which("containers-storage")
REASON = "Debian's containers-storage is not installed"


class Peer:
    """One graph root of containers/storage."""

    def __init__(self, base: Path, driver: str) -> None:
        self.graph = base / "graph"
        self.run_root = base / "run"
        self.driver = driver

    def __call__(self, *args: str, stdin: bytes = b"") -> str:
        roots = ["--graph", str(self.graph), "--run", str(self.run_root), "-s", self.driver]
        assert PEER is not None
        done = subprocess.run(
            [PEER, *roots, *args], input=stdin, capture_output=True, check=False, timeout=30
        )
        assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done.stdout.decode()

    def file(self, kind: str) -> Path:
        """``layers.json`` or ``images.json``."""
        return self.graph / f"{self.driver}-{kind}" / f"{kind}.json"

    def edit(self, kind: str, change: Any) -> None:
        """Let ``change`` alter the list of records in a record file."""
        path = self.file(kind)
        records = json.loads(path.read_text()) if path.exists() else []
        change(records)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(records))
        os.rename(draft, path)
