"""The fault programme: runs the tiers, prints what was explored, ends with 1 on any violation."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faults_mutants

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Part = tuple[str, "Callable[[Any], None]"]


def tiers(full: bool, seed: int, budget: float) -> dict[str, list[Part]]:
    """Tier name -> parts. ``budget`` scales the time limits of the CI size."""
    import faults_bytes as by
    import faults_crash as cr
    import faults_process as pr
    import faults_rules as ru

    def until(seconds: float) -> float:
        return time.monotonic() + (1e9 if full else seconds * budget)

    def flips(count: Any) -> None:
        end = until(22)
        number = 0
        while count.states < (2_000_000 if full else 10**9) and time.monotonic() < end:
            by.flips(count, seed + number, end)
            number += 1

    def rounds(part: Callable[..., None], number: int, seconds: float) -> Callable[[Any], None]:
        def run(count: Any) -> None:
            end = until(seconds)
            for index in range(number if full else 1000):
                part(count, seed + index, end)
                if time.monotonic() > end:
                    return

        return run

    return {
        "T1": [
            ("decision table", by.table),
            ("bit flips", flips),
            ("truncations", lambda n: by.truncations(n, 1 if full else 3, seed, until(8))),
            ("sector fills", rounds(by.fills, 20, 3)),
            ("sector subsets", rounds(by.sectors, 20, 4)),
            ("segment rows", rounds(by.rows, 20, 6)),
            ("lost tails", rounds(by.lost_tails, 40, 2)),
            ("torn groups", rounds(by.torn_groups, 40, 2)),
            ("misplaced frames", rounds(by.misplaced, 10, 3)),
        ],
        "T2": [
            ("crash points", lambda n: cr.crash_points(n, 64 if full else 16, 1.0 if full else 0.4,
                                                       seed, until(45))),
            ("adoption", lambda n: cr.adoption(n, 32 if full else 8)),
            ("closes", lambda n: cr.closes(n, 64 if full else 16)),
        ],
        "T3": [
            ("locks and forks", pr.locks),
            ("kill at every call", lambda n: pr.kill_points(n, 1 if full else 3, until(25))),
            ("error at every call", lambda n: pr.error_points(n, 1 if full else 5, until(30))),
            ("short writes", lambda n: pr.short_writes(n, 1 if full else 5, until(12))),
            ("faults from outside (strace)", lambda n: pr.strace_points(n, 160 if full else 16,
                                                                        until(15))),
        ],
        "T4": [("kill soak", lambda n: pr.soak(n, 2000 if full else 150, seed, until(30)))],
        "T6": [("failed syncs", cr.sync_failures)],
        "T7": [("damage matrix", by.matrix)],
        "T8": [
            ("promises", ru.promises),
            ("durable level", ru.durable_level),
            ("pruning", ru.pruning),
            ("model", lambda n: ru.model(n, 2000 if full else 100)),
        ],
        "T9": [("seeds", lambda n: cr.seeds(n, seed * 1_000_000, 10_000 if full else 1_500,
                                            until(90)))],
        "T10": [("watcher", lambda n: ru.watchers(n, 7, 3 if full else 1))],
    }  # fmt: skip


def quick(name: str) -> None:
    """A small size of one tier, for the planted bugs."""
    import faults_bytes as by
    import faults_crash as cr
    import faults_process as pr
    import faults_rules as ru

    count = cr.Count()
    soon = time.monotonic() + 60
    if name == "T1":
        by.table(count)
        by.truncations(count, 97, 1, soon)
        by.misplaced(count, 1, soon)
        by.sectors(count, 1, soon)
        by.fills(count, 1, soon)
        by.flips(count, 1, time.monotonic() + 3)
    elif name == "T2":
        cr.adoption(count, 8)
        cr.closes(count, 16)
        cr.crash_points(count, 12, 0.02, 1, soon, lengths=2)
        cr.crash_points(count, 12, 0.03, 1, soon)
    elif name == "T3":
        pr.locks(count)
    elif name == "T6":
        cr.sync_failures(count)
    elif name == "T7":
        by.table(count)
        by.matrix(count)
    elif name == "T8":
        ru.promises(count)
        ru.durable_level(count)
        ru.pruning(count)
    elif name == "T9":
        cr.seeds(count, 0, 400, soon)
    elif name == "T10":
        ru.watchers(count, 1)


def planted(name: str) -> int:
    """In a process of its own: 0 if one of the mutant's tiers notices it."""
    mutant = faults_mutants.plant(name)
    from faults_simfs import Violation

    for tier in mutant.tiers:
        try:
            quick(tier)
        except Violation as error:
            print(f"caught by {tier}: {str(error)[:110]}")
            return 0
    print("NOT CAUGHT")
    return 1


def mutants(names: Sequence[str]) -> int:
    """All planted bugs, two at a time; the number not caught."""

    def one(name: str) -> tuple[str, int, str]:
        done = subprocess.run(
            [sys.executable, __file__, "--mutant", name],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        words = (done.stdout.strip() or done.stderr.strip()).splitlines()
        return name, done.returncode, words[-1] if words else ""

    missed = 0
    with ThreadPoolExecutor(2) as pool:
        for name, code, text in pool.map(one, names):
            missed += code != 0
            print(f"  {'caught' if code == 0 else 'MISSED'}  {name}: {text}", flush=True)
    return missed


def load() -> int:
    """The store under load at full size: 32 processes with 100 000 random operations, judged, and
    64 processes with 1 000 names each. 1 if anything was lost or seen that never was."""
    soak = Path(__file__).parents[3] / "tools" / "soak"
    sizes = (["--processes", "32", "--operations", "100000"], ["--names"])
    ends = [subprocess.run([sys.executable, soak, *size], check=False) for size in sizes]
    return int(any(end.returncode for end in ends))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools/faults", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the nightly size (hours)")
    parser.add_argument("--seed", type=int, default=1, help="first seed (printed with failures)")
    parser.add_argument("--tier", action="append", help="only this tier (repeatable)")
    parser.add_argument("--budget", type=float, default=1.0, help="scale of the time limits")
    parser.add_argument("--mutant", help=argparse.SUPPRESS)
    parser.add_argument("--load", action="store_true", help="many processes on one store (an hour)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one seed of T9")
    given = parser.parse_args(arguments)
    if given.mutant:
        return planted(given.mutant)
    if given.load:
        return load()
    from faults_crash import Count, simulate
    from faults_simfs import Violation

    from journal import recovery

    if given.replay is not None:
        simulate(given.replay)
        print(f"seed {given.replay} is clean")
        return 0
    failed = 0
    begin = time.monotonic()
    print(f"size {'full' if given.full else 'CI'}, seed {given.seed}")
    for name, parts in tiers(given.full, given.seed, given.budget).items():
        if given.tier and name not in given.tier:
            continue
        for label, part in parts:
            count = Count()
            start = time.monotonic()
            verdict = "clean"
            try:
                part(count)
            except Violation as error:
                failed += 1
                verdict = f"VIOLATION: {error}"
            except Exception as error:
                failed += 1
                verdict = f"VIOLATION: unclear error {error!r}"
            took = time.monotonic() - start
            print(f"{name} {label}: {count}, {took:.1f} s, {verdict}", flush=True)
    if not given.tier or "T11" in given.tier:
        names = [mutant.name for mutant in faults_mutants.MUTANTS]
        start = time.monotonic()
        missed = mutants(names)
        failed += missed
        print(f"T11 planted bugs: {len(names) - missed}/{len(names)} caught, "
              f"{time.monotonic() - start:.1f} s")  # fmt: skip
    print("hits per row of the recovery table (this process):")
    for row in recovery.TABLE:
        print(f"  {row.name:22} {recovery.hits.get(row.name, 0)}")
    print(f"{'FAILED' if failed else 'OK'}: {failed} violations, "
          f"{time.monotonic() - begin:.0f} s")  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
    sys.exit(main())
