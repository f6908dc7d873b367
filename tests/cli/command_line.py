"""What the tests of the command line share besides fixtures."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


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
