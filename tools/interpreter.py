"""The interpreter of the project for programmes of this folder.

A programme that anybody's ``python3`` started goes on in the project's own environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

OWN = Path(__file__).resolve().parents[1] / ".venv"


def ensure() -> None:
    """Return if the dependencies are there, else run the same programme in ``.venv``, else exit."""
    try:
        import cbor2  # noqa: F401
    except ImportError:
        python = OWN / "bin" / "python"
        if not python.exists() or os.path.samefile(sys.prefix, OWN):
            sys.exit("the dependencies are missing: run tools/test once, it makes .venv")
        os.execv(python, [str(python), *sys.argv])
