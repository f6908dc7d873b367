"""The two sides, and the report on rows of docs/differences.md that no test needed."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from duo import PEER, Duo, DuoMaker, Side
from rules import RULES, documented
from tally import Tally

if TYPE_CHECKING:
    from pathlib import Path

_USED: set[str] = set()
_COMPARED: set[str] = set()
_TALLY = Tally()


@pytest.fixture
def duo_of(tmp_path: Path, clean_environment: dict[str, str]) -> DuoMaker:
    """Makes a ``Duo``: a driver's name, and the command of each side."""
    if shutil.which(PEER) is None:
        pytest.skip(f"{PEER} is not installed (Debian: apt install {PEER})")
    if os.getuid() != 0:
        pytest.skip("not root: the layers of both programmes need owners and mounts")

    def make(driver: str, ours: list[str], theirs: list[str] | None = None, label: str = "") -> Duo:
        base = tmp_path / (label or driver)
        host = base / "host"
        host.mkdir(parents=True)
        known = documented()
        return Duo(
            Side("ours", ours, base, driver, clean_environment),
            Side("theirs", theirs or [PEER], base, driver, clean_environment),
            {name: rule for name, rule in RULES.items() if name in known},
            _USED,
            host,
            Tally(),
        )

    return make


@pytest.fixture
def compared() -> set[str]:
    """Where the tests note which sequences ran, for the report at the end."""
    return _COMPARED


@pytest.fixture
def tally() -> Tally:
    """What the generated sequences ran, for the report at the end."""
    return _TALLY


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    from sequences import SEQUENCES

    lines = _TALLY.report()
    if not config.getoption("--conformance-examples"):
        lines = [line for line in lines if not line.startswith(" ")]
    for line in lines:
        terminalreporter.write_line(line)

    if set(SEQUENCES) <= _COMPARED and (unused := sorted(set(documented()) - _USED)):
        terminalreporter.write_line(
            f"docs/differences.md: rows that no comparison needed: {', '.join(unused)}"
        )
