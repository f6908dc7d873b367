"""The fault programme at a size for every test run (``tools/faults`` runs the real sizes)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "faults"
TOOL = Path(__file__).parents[2] / "tools" / "faults"
sys.path.append(str(FOLDER))

import faults_bytes  # noqa: E402
import faults_crash  # noqa: E402
import faults_mutants  # noqa: E402
import faults_process  # noqa: E402
import faults_rules  # noqa: E402


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


SMALL: dict[str, Any] = {
    "decision table": faults_bytes.table,
    "flips": lambda n: faults_bytes.flips(n, 3, soon(2)),
    "truncations": lambda n: faults_bytes.truncations(n, 41, 3, soon(2)),
    "sector fills": lambda n: faults_bytes.fills(n, 3, soon(2)),
    "sector subsets": lambda n: faults_bytes.sectors(n, 3, soon(2)),
    "misplaced frames": lambda n: faults_bytes.misplaced(n, 3, soon(2)),
    "segment rows": lambda n: faults_bytes.rows(n, 3, soon(2)),
    "damage matrix": faults_bytes.matrix,
    "crash points": lambda n: faults_crash.crash_points(n, 8, 0.01, 3, soon(4)),
    "adoption": lambda n: faults_crash.adoption(n, 2),
    "closes": lambda n: faults_crash.closes(n, 16),
    "failed syncs": faults_crash.sync_failures,
    "seeds": lambda n: faults_crash.seeds(n, 5000, 40, soon(4)),
    "promises": faults_rules.promises,
    "durable level": faults_rules.durable_level,
    "pruning": faults_rules.pruning,
    "watchers": lambda n: faults_rules.watchers(n, 1),
    "locks": faults_process.locks,
    "kills": lambda n: faults_process.kill_points(n, 29, soon(4)),
    "errors": lambda n: faults_process.error_points(n, 67, soon(4)),
    "short writes": lambda n: faults_process.short_writes(n, 61, soon(3)),
    "soak": lambda n: faults_process.soak(n, 15, 3, soon(4)),
}


@pytest.mark.parametrize("part", SMALL)
def test_no_promise_is_broken(part: str) -> None:
    count = faults_crash.Count()
    SMALL[part](count)
    assert count.states > 0


@pytest.mark.parametrize("name", ["ignore expected", "no lock", "no chain"])
def test_a_planted_bug_is_noticed(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--mutant", name],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout[:6]) == (0, "caught"), done.stderr


def test_every_planted_bug_fits_the_source() -> None:
    assert len({m.name for m in faults_mutants.MUTANTS}) == len(faults_mutants.MUTANTS) >= 20
    for mutant in faults_mutants.MUTANTS:
        source = (faults_mutants.PACKAGE / f"{mutant.module}.py").read_text()
        for old in mutant.old.split("\0"):
            assert old in source, mutant.name


@pytest.mark.timeout(1200)
def test_the_fault_programme_finds_no_broken_promise_and_every_planted_bug() -> None:
    done = subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True, check=False)
    broken = [line for line in done.stdout.splitlines() if "VIOLATION" in line or "MISSED" in line]
    assert done.returncode == 0, "\n".join([*broken, done.stderr[-2000:], done.stdout[-300:]])
    assert " 0 violations" in done.stdout.splitlines()[-1]
