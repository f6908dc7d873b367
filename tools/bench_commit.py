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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

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


def bare_steps(folder: Path, record: bytes) -> Callable[[], None]:
    """A commit's steps as the format has them, in one function that copes with nothing: encode,
    lock, look at the tail, checksums and hash, write, sync, durability mark, unlock."""
    import fcntl
    from hashlib import sha256

    import cbor2

    from journal import frame as fr
    from journal.checksum import extender, preferred

    flags = os.O_RDWR | os.O_CREAT
    lock, log, mark = (os.open(folder / name, flags, 0o600) for name in ("lock", "log", "mark"))
    extend = extender(preferred())
    offset, link, sequence = 0, bytes(32), 1

    def commit() -> None:
        nonlocal offset, link, sequence
        body = cbor2.dumps([1, [], os.urandom(16), "", [["measured", record]]], canonical=True)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert os.fstat(log).st_size == offset
        size = len(body)
        content = fr.CONTENT.pack(size, fr.DATA, 0, 1, sequence, offset, time.time_ns())
        checksum = extend(offset, content).to_bytes(4, "little")
        content += body + bytes(-size & 7)
        link = sha256(link + content).digest()
        trailer = fr.TRAILER.pack(extend(extend(offset, content), link), size, link)
        os.pwrite(log, fr.MAGIC + checksum + content + trailer, offset)
        os.fdatasync(log)
        offset += len(content) + 48
        sequence += 1
        note = bytes(28) + offset.to_bytes(8, "little") + sequence.to_bytes(8, "little") + bytes(16)
        os.pwrite(mark, note + crc32(note).to_bytes(4, "little"), 0)
        fcntl.flock(lock, fcntl.LOCK_UN)

    return commit


@contextmanager
def committing(
    folder: Path, count: int, *, same_bytes: bool = False
) -> Iterator[dict[str, Callable[[], object]]]:
    """Blocks of ``count`` durable commits by name: raw, journal, SQLite.

    ``same_bytes``: the raw file gets as many bytes as the journal's frame has, not the payload.
    """
    from journal import Journal

    record = os.urandom(RECORD_BYTES)
    raw = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    journal = Journal.open(folder / "journal", mode="w", create=True)
    database = sqlite3.connect(folder / "database", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE record (number INTEGER PRIMARY KEY, data BLOB)")
    done = journal.commit([["measured", record]]).position
    frame = journal.commit([["measured", record]]).position.offset - done.offset
    appended = os.urandom(frame) if same_bytes else record

    def append() -> None:
        for _ in range(count):
            os.write(raw, appended)
            os.fdatasync(raw)

    def commit() -> None:
        for _ in range(count):
            journal.commit([["measured", record]])

    def insert() -> None:
        for _ in range(count):
            database.execute("INSERT INTO record (data) VALUES (?)", (record,))

    step = bare_steps(folder, record)

    def steps() -> None:
        for _ in range(count):
            step()

    try:
        yield {
            "append+fdatasync": append,
            "journal": commit,
            "SQLite WAL FULL": insert,
            "bare steps": steps,
        }
    finally:
        journal.close()
        database.close()
        os.close(raw)


def one_writer(folder: Path, rounds: int) -> None:
    with committing(folder, COMMITS_PER_ROUND) as candidates:
        medians = interleaved(candidates, rounds)
    print(f"durable commits of {RECORD_BYTES} bytes, one writer")
    table(medians, COMMITS_PER_ROUND, "append+fdatasync")


def together(count: int, total: int, action: Callable[[int, int], object]) -> Callable[[], None]:
    """``count`` threads that share ``total`` calls of ``action(thread, step)``."""

    def work(number: int) -> None:
        for step in range(total // count):
            action(number, step)

    def run() -> None:
        crew = [threading.Thread(target=work, args=(number,)) for number in range(count)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()

    return run


def threads(folder: Path, counts: list[int], rounds: int) -> None:
    """Commits of several threads of one process: the journal's own, and the store's changes."""
    import cstorage
    from journal import Journal

    record = os.urandom(RECORD_BYTES)
    journal = Journal.open(folder / "journal", mode="w", create=True)
    store = cstorage.open(folder / "graph", folder / "run", driver="vfs")
    for number in range(max(counts)):
        store.create_image(id=f"image{number}")
    for title, action in (
        ("journal", lambda *_: journal.commit([["measured", record]])),
        ("store", lambda number, step: store.set_metadata(f"image{number}", f"text {step}")),
    ):
        candidates: dict[str, Callable[[], object]] = {
            f"{count} threads": together(count, COMMITS_PER_ROUND * 2, action) for count in counts
        }
        medians = interleaved(candidates, rounds)
        print(f"durable commits of one process, {title}")
        table(medians, COMMITS_PER_ROUND * 2, f"{counts[0]} threads")
    store.close()
    journal.close()


# Everybody says when it is ready and is told the common end: who is kept waiting while it starts
# must not measure another stretch of time than the others.
WRITER = """
import json, sys, time
sys.path.insert(0, sys.argv[2])
import cstorage
with cstorage.open(sys.argv[1] + "/graph", sys.argv[1] + "/run", driver="vfs") as store:
    key = store.create_image().id
    print(flush=True)
    waits = []
    end = float(sys.stdin.readline())
    began = time.monotonic()
    while began < end:
        store.set_metadata(key, str(time.time_ns()))
        now = time.monotonic()
        waits.append((now - began, now <= end))
        began = now
print(json.dumps(waits))
"""
READER = """
import json, sys, time
sys.path.insert(0, sys.argv[2])
import cstorage
with cstorage.open(sys.argv[1] + "/graph", sys.argv[1] + "/run", driver="vfs", read_only=True) as s:
    print(flush=True)
    looks = []
    end = float(sys.stdin.readline())
    reader = s._core.journal.reader(s._core.journal.position)
    while time.monotonic() < end:
        time.sleep(0.01)
        if reader.changed():
            began = time.time_ns()
            s.exists("nothing")
            answered = time.time_ns()
            known = s._core.position.sequence
            # How long ago the first commit was that the answer does not know of.
            later = [f.time_ns for f in reader.read_new()
                     if f.kind_name == "data" and f.first_sequence > known]
            stale = max(0, answered - later[0]) if later else 0
            looks.append(((answered - began) / 1e9, stale / 1e9))
print(json.dumps(looks))
"""


class Crowd(NamedTuple):
    """What processes got done in a common stretch of time."""

    rate: float
    """Commits of all per second."""
    counts: list[int]
    """Commits of each writer."""
    waits: list[float]
    """Seconds of every commit, in order of length."""
    late: list[float]
    """Seconds of every look of a reader that had something to catch up with, in the same order."""
    stale: list[float]
    """Seconds since the first commit, when it was answered, that the answer lacks."""


def crew(folder: Path, seconds: float, writers: int, readers: int, top: Path = TOP) -> Crowd:
    """Processes that write and read the store in ``folder``, with the code in ``top``."""

    def start(code: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", code, str(folder), str(top)]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)

    processes = [start(WRITER) for _ in range(writers)] + [start(READER) for _ in range(readers)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    end = time.monotonic() + seconds
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{end}\n")
        process.stdin.flush()
    said = [json.loads(process.communicate()[0]) for process in processes]
    counts = [sum(within for _, within in one) for one in said[:writers]]
    waits = sorted(wait for one in said[:writers] for wait, _ in one)
    late = sorted(took for one in said[writers:] for took, _ in one)
    stale = sorted(age for one in said[writers:] for _, age in one)
    return Crowd(sum(counts) / seconds, counts, waits, late, stale)


def crowd(folder: Path, seconds: float, writers: int, readers: int) -> None:
    """Processes that write and read at once."""
    import cstorage

    with cstorage.open(folder / "graph", folder / "run", driver="vfs"):
        pass
    solo = crew(folder, seconds, 1, 0)
    many = crew(folder, seconds, writers, readers)
    print(f"{writers} writing and {readers} reading processes, {seconds:g} s")
    print(f"  commits/s {many.rate:.0f}; one writer alone {solo.rate:.0f}")
    print(f"  commits of one process: least {min(many.counts)}, most {max(many.counts)}")
    for title, values in (
        ("wait for a commit", many.waits),
        ("catching up and a look", many.late),
        ("staleness of its answer", many.stale),
    ):
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
    with tempfile.TemporaryDirectory(
        prefix="cstorage-bench-", ignore_cleanup_errors=True
    ) as folder:  # a helper of a store may still write there
        if given.threads:
            threads(Path(folder), [int(n) for n in given.threads.split(",")], given.rounds)
        elif given.crowd:
            crowd(Path(folder), given.crowd, given.writers, given.readers)
        else:
            one_writer(Path(folder), given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
