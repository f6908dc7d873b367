"""``tools/bench commit``: durable commits against raw limits; threads; processes that wait.

    tools/bench commit [--rounds N]                one writer: journal, raw append+fdatasync, SQLite
    tools/bench commit --threads 1,4,16            group commit of one process
    tools/bench commit --crowd SECONDS [--writers 8] [--readers 16]
                                                   processes: rate, waiting, staleness of readers

Rounds of all candidates are interleaved and the median of each is taken. Absolute times belong to
the machine and its disk; the ratios are the result.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

RECORD_BYTES = 256
"""Size of one record, bytes: a layer's event is about this long."""
COMMITS_PER_ROUND = 100


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each candidate; one round of each in turn."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            times[name].append(timed(candidate))
    return {name: statistics.median(values) for name, values in times.items()}


def table(medians: dict[str, float], count: int, reference: str) -> None:
    width = max(len(name) for name in medians)
    for name, seconds in medians.items():
        ratio = medians[reference] / seconds
        print(f"  {name:<{width}}  {seconds / count * 1e6:10.1f} us  {ratio:6.2f} x {reference}")


def one_writer(folder: Path, rounds: int) -> None:
    from journal import Journal

    record = os.urandom(RECORD_BYTES)
    raw = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    journal = Journal.open(folder / "journal", mode="w", create=True)
    database = sqlite3.connect(folder / "database", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE record (number INTEGER PRIMARY KEY, data BLOB)")

    def append() -> None:
        for _ in range(COMMITS_PER_ROUND):
            os.write(raw, record)
            os.fdatasync(raw)

    def commit() -> None:
        for _ in range(COMMITS_PER_ROUND):
            journal.commit([["measured", record]])

    def insert() -> None:
        for _ in range(COMMITS_PER_ROUND):
            database.execute("INSERT INTO record (data) VALUES (?)", (record,))

    medians = interleaved(
        {"append+fdatasync": append, "journal": commit, "SQLite WAL FULL": insert}, rounds
    )
    print(f"durable commits of {RECORD_BYTES} bytes, one writer")
    table(medians, COMMITS_PER_ROUND, "append+fdatasync")
    journal.close()
    database.close()
    os.close(raw)


def threads(folder: Path, counts: list[int], rounds: int) -> None:
    """Commits of several threads of one process: the journal's own, and the store's changes."""
    import cstorage
    from journal import Journal

    record = os.urandom(RECORD_BYTES)
    journal = Journal.open(folder / "journal", mode="w", create=True)
    store = cstorage.open(folder / "graph", folder / "run", driver="vfs")
    for number in range(max(counts)):
        store.create_image(id=f"image{number}")

    def share(count: int, action: Callable[[int, int], object]) -> Callable[[], None]:
        def work(number: int) -> None:
            for step in range(COMMITS_PER_ROUND * 2 // count):
                action(number, step)

        def together() -> None:
            crew = [threading.Thread(target=work, args=(number,)) for number in range(count)]
            for thread in crew:
                thread.start()
            for thread in crew:
                thread.join()

        return together

    for title, action in (
        ("journal", lambda *_: journal.commit([["measured", record]])),
        ("store", lambda number, step: store.set_metadata(f"image{number}", f"text {step}")),
    ):
        candidates: dict[str, Callable[[], object]] = {
            f"{count} threads": share(count, action) for count in counts
        }
        medians = interleaved(candidates, rounds)
        print(f"durable commits of one process, {title}")
        table(medians, COMMITS_PER_ROUND * 2, f"{counts[0]} threads")
    store.close()
    journal.close()


WRITER = """
import json, sys, time
sys.path.insert(0, sys.argv[3])
import cstorage
with cstorage.open(sys.argv[1] + "/graph", sys.argv[1] + "/run", driver="vfs") as store:
    key = store.create_image().id
    waits = []
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        began = time.monotonic()
        store.set_metadata(key, str(time.time_ns()))
        waits.append(time.monotonic() - began)
print(json.dumps(waits))
"""
READER = """
import json, sys, time
sys.path.insert(0, sys.argv[3])
import cstorage
from cstorage.store.history import entries_of
with cstorage.open(sys.argv[1] + "/graph", sys.argv[1] + "/run", driver="vfs", read_only=True) as s:
    late = []
    end = time.monotonic() + float(sys.argv[2])
    reader = s._core.journal.reader(s._core.journal.position)
    while time.monotonic() < end:
        time.sleep(0.01)
        if reader.changed():
            now = time.time_ns()
            s.exists("nothing")
            took = time.time_ns() - now
            frames = [f for f in reader.read_new() if f.kind_name == "data"]
            late += [took / 1e9 for f in frames[-1:]]
print(json.dumps(late))
"""


def crowd(folder: Path, seconds: float, writers: int, readers: int) -> None:
    """Processes that write and read at once."""
    import cstorage

    with cstorage.open(folder / "graph", folder / "run", driver="vfs"):
        pass

    def start(code: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", code, str(folder), str(seconds), str(TOP)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    alone = start(WRITER)
    solo = json.loads(alone.communicate()[0])
    crew = [start(WRITER) for _ in range(writers)]
    audience = [start(READER) for _ in range(readers)]
    waits = [json.loads(process.communicate()[0]) for process in crew]
    late = sorted(x for process in audience for x in json.loads(process.communicate()[0]))
    everything = sorted(x for one in waits for x in one)
    counts = [len(one) for one in waits]
    print(f"{writers} writing and {readers} reading processes, {seconds:g} s")
    print(f"  commits/s {sum(counts) / seconds:.0f}; one writer alone {len(solo) / seconds:.0f}")
    print(f"  commits of one process: least {min(counts)}, most {max(counts)}")
    for title, values in (("wait for a commit", everything), ("catching up and a look", late)):
        if values:
            p50, p99 = values[len(values) // 2], values[int(len(values) * 0.99)]
            print(
                f"  {title}, ms: p50 {p50 * 1e3:.2f} p99 {p99 * 1e3:.2f} max {values[-1] * 1e3:.1f}"
            )


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench commit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", default="")
    parser.add_argument("--crowd", type=float, default=0.0)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=16)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="cstorage-bench-") as folder:
        if given.threads:
            threads(Path(folder), [int(n) for n in given.threads.split(",")], given.rounds)
        elif given.crowd:
            crowd(Path(folder), given.crowd, given.writers, given.readers)
        else:
            one_writer(Path(folder), given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
