"""``tools/bench journal``: every speed the journal promises, beside its peer, in one run.

    tools/bench journal [--rounds N] [--records N] [--items N] [--only WORD,…]

Candidates alternate in short blocks and the median of the ratios of neighbouring blocks is
printed, so that another program on the machine slows both sides of a ratio alike. Where a budget
is an absolute time of computing, the best round's processor time counts, which is what the clock
says on a machine that does nothing else; the clock's figure stands beside it in brackets. A line
says ``met`` or ``MISSED``; the exit status is 1 if any was missed.

Peers: raw append and fdatasync of the same bytes, SQLite in WAL mode with synchronous=FULL, a
commit's steps in one function without any care, the bare checksums and hashes that the format
demands, the bare decoder, a bare interpreter.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tools")]

from bench_commit import RECORD_BYTES, committing, together  # noqa: E402

if TYPE_CHECKING:
    from journal import Frame

BLOCK_COMMITS = 50
THREADS = 16
TAIL_RECORDS = 50_000
COUNTED = ("commit", "threads", "verify", "replay", "open", "watch", "import")
_missed: list[str] = []


def line(what: str, value: str, budget: str, met: bool | None) -> None:
    """One result; ``met`` is None for what has no budget."""
    said = "" if met is None else "met" if met else "MISSED"
    if met is False:
        _missed.append(what)
    print(f"  {what:<46} {value:>24}   {budget:<22} {said}".rstrip(), flush=True)


def ratios(one: list[float], other: list[float]) -> float:
    """Median of the ratios of neighbouring blocks."""
    return statistics.median(b / a for a, b in zip(one, other, strict=True))


def alternate(
    actions: list[Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each action; the order turns with every round, so none is always first."""
    times: list[list[float]] = [[] for _ in actions]
    for number in range(rounds):
        for step in range(len(actions)):
            index = (number + step) % len(actions)
            began = clock()
            actions[index]()
            times[index].append(clock() - began)
    return times


def spent() -> float:
    """Processor seconds of this process and of those it has waited for."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, who))


class Both:
    """Processor seconds and, of the same calls, seconds of the clock."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self.clock: list[float] = []

    def __call__(self) -> None:
        began = time.perf_counter()
        self._action()
        self.clock.append(time.perf_counter() - began)


# -- commits ---------------------------------------------------------------------------------------


def commits(folder: Path, rounds: int) -> None:
    with committing(folder, BLOCK_COMMITS, same_bytes=True) as actions:
        used = {name: min(_used(action) for _ in range(10)) for name, action in actions.items()}
        raw, ours, database, steps = alternate(list(actions.values()), rounds)
    extra, least = (
        (used[name] - used["append+fdatasync"]) / BLOCK_COMMITS
        for name in ("journal", "bare steps")
    )
    rate = BLOCK_COMMITS / statistics.median(ours)
    to_raw = ratios(ours, raw)
    to_database = ratios(ours, database)
    line("one writer, commits", f"{rate:.0f}/s", "", None)
    line("one writer, processor time beyond raw", f"{extra * 1e6:.0f} us", "", None)
    line("  of the bare steps of a commit", f"{least * 1e6:.0f} us", "", None)
    line("one writer : raw append+fdatasync", f"{to_raw:.2f} x", ">= 0.90", to_raw >= 0.90)
    line("one writer : SQLite WAL FULL", f"{to_database:.2f} x", ">= 1", to_database >= 1)
    line("  bare steps : raw append+fdatasync", f"{ratios(steps, raw):.2f} x", "", None)


def threads(folder: Path, rounds: int) -> None:
    from journal import Journal

    record = os.urandom(RECORD_BYTES)
    count = THREADS * 25
    with Journal.open(folder / "threads", "w", create=True) as journal:

        def one() -> None:
            for _ in range(count // 4):
                journal.commit([["measured", record]])

        many = together(THREADS, count, lambda *_: journal.commit([["measured", record]]))
        one()
        alone, crowd = alternate([one, many], rounds)
    gain = statistics.median(4 * a / b for a, b in zip(alone, crowd, strict=True))
    line(f"{THREADS} threads : one", f"{gain:.1f} x", ">= 4", gain >= 4)


# -- reading ---------------------------------------------------------------------------------------


def record_of(number: int) -> list[Any]:
    """An event as long as that of a layer's change."""
    return ["metadata-set", f"{number:064x}", number, "text of the metadata of a layer" * 2]


def filled(path: Path, records: int) -> None:
    """A journal of one-event frames, written without syncing."""
    from journal import Journal

    with (
        Journal.open(path, "w", create=True, durability="none") as journal,
        journal.writer() as writer,
    ):
        for number in range(records):
            writer.commit([record_of(number)])


def bare(path: Path) -> int:
    """What the format demands of a verification and nothing else: two checksums and three hashes
    of every frame (link, leaf and node of the tree), without a look at the results."""
    from journal import frame as fr
    from journal.checksum import extender, preferred

    extend = extender(preferred())
    unpack = fr.HEADER.unpack_from
    frames = 0
    for segment in sorted((path / "segments").iterdir()):
        data = segment.read_bytes()
        at = 128
        link = bytes(32)
        size = len(data)
        while at < size:
            end = at + 40 + (unpack(data, at)[2] + 7 & -8)
            extend(0, data[at + 8 : at + 40])
            extend(0, data[at + 40 : end])
            link = sha256(link + data[at + 8 : end]).digest()
            sha256(b"\0" + link).digest()
            sha256(b"\1" + link + link).digest()
            at = end + 40
            frames += 1
    return frames


def verification(path: Path, records: int, rounds: int) -> None:
    from journal.verify import verify

    processes = os.cpu_count() or 1

    def check(count: int) -> None:
        report = verify(str(path), processes=count)
        assert (report.exit_code, report.events) == (0, records), report

    one, shared = Both(lambda: check(1)), Both(lambda: check(processes))
    single, several, floor = alternate([one, shared, lambda: bare(path)], rounds, spent)
    rated("verify, one process", records, single, one, None)
    # On free processors the helpers run beside each other.
    rated(f"verify, {processes} processes", records, [x / processes for x in several], shared, 0.8)
    line("verify : bare sums and hashes", f"{ratios(single, floor):.2f} x", "", None)


def rated(what: str, count: int, used: list[float], ran: Both, least: float | None) -> None:
    """A line of millions a second, by processor time and by the clock."""
    rate, real = count / min(used) / 1e6, count / min(ran.clock) / 1e6
    budget = "" if least is None else f">= {least} M/s"
    met = None if least is None else rate >= least
    line(what, f"{rate:.3f} ({real:.3f}) M/s", budget, met)


def lazily(frames: Iterator[list[Frame]]) -> dict[str, list[Any]]:
    """A state whose records stay as they came out of the decoder until somebody asks."""
    state: dict[str, list[Any]] = {}
    for batch in frames:
        for frame in batch:
            if frame.kind == 1:
                for event in frame.transaction().events:
                    state[event[1]] = event
    return state


def batches(reader: Any) -> Iterator[list[Frame]]:
    while batch := reader.read_batch():
        yield batch


def replays(path: Path, folder: Path, records: int, rounds: int) -> None:
    import gc

    import cbor2
    import synthetic

    from cstorage.state import State
    from cstorage.store.reading import apply_frame
    from journal import Journal

    gc.disable()
    with Journal.open(path) as journal:
        bodies = [frame.body for frame in journal.frames() if frame.kind == 1]

        def ours() -> None:
            with journal.reader() as reader:
                assert len(lazily(batches(reader))) == records

        def decoding() -> None:
            loads = cbor2.loads
            for body in bodies:
                loads(body)

        both = Both(ours)
        mine, decoder = alternate([both, decoding], rounds, spent)
    rated("replay to records, journal", records, mine, both, 0.35)
    line("replay : decoding the bodies alone", f"{ratios(mine, decoder):.2f} x", "", None)
    layers = max(1000, records // 10)
    synthetic.ours(folder / "store", layers, tables=False)
    done: list[int] = []

    def store() -> None:
        state = State()
        with Journal.open(folder / "store" / "graph" / "journal") as journal:
            done.append(sum(apply_frame(state, frame) for frame in journal.frames()))

    both = Both(store)
    (used,) = alternate([both], min(3, rounds), spent)
    gc.enable()
    rated("replay to a store's state (all indexes)", done[0], used, both, 0.35)


# -- opening ---------------------------------------------------------------------------------------

OPENING = """
import sys, time
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tools"]
from journal import Journal
from bench_journal import batches, lazily
with Journal.open(sys.argv[1]) as journal:
    import gc
    gc.disable()
    began, used = time.perf_counter(), time.process_time()
    with journal.snapshots.open_trusted(schema=1, reducer_version=1) as snapshot:
        with journal.reader(snapshot.position) as reader:
            tail = lazily(batches(reader))
        took, used = time.perf_counter() - began, time.process_time() - used
        assert len(snapshot) == int(sys.argv[3]) and len(tail) == int(sys.argv[4])
        assert snapshot.get(b"%064x" % 1) is not None
    status = dict(x.split(":", 1) for x in open("/proc/self/status") if ":" in x)
    print(used, took, *(int(status[name].split()[0]) for name in ("VmRSS", "RssFile")))
"""


def opening(folder: Path, items: int, rounds: int) -> None:
    from journal import Journal
    from journal.digest import StateDigest

    path = folder / "opening"
    with Journal.open(path, "w", create=True, durability="none") as journal:
        journal.commit([record_of(0)])
        value = bytes(100)
        journal.snapshots.write(
            ((b"%064x" % number, value) for number in range(items)),
            position=journal.position, schema=1, reducer_version=1, digest=StateDigest().value(),
        )  # fmt: skip
        with journal.writer() as writer:
            for number in range(TAIL_RECORDS):
                writer.commit([record_of(items + number)])
    seconds, real, memory, owned = [], [], [], []
    words = [sys.executable, "-c", OPENING, str(path), str(TOP), str(items), str(TAIL_RECORDS)]
    for _ in range(max(3, rounds // 2)):
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        seconds.append(float(said[0]))
        real.append(float(said[1]))
        memory.append(int(said[2]) / 1e3)
        owned.append((int(said[2]) - int(said[3])) / 1e3)
    took, most, own = min(seconds), max(memory), max(owned)
    what = f"open, {items:,} items + {TAIL_RECORDS:,} records"
    line(what, f"{took:.3f} ({min(real):.3f}) s", "<= 0.3 s", took <= 0.3)
    line("  memory of that process", f"{most:.0f} MB", "<= 80 MB", most <= 80)
    line("  the same without mapped file pages", f"{own:.0f} MB", "", None)


# -- watching --------------------------------------------------------------------------------------

COMMITTING = """
import sys, time
sys.path.insert(0, sys.argv[2])
from journal import Journal
with Journal.open(sys.argv[1], "w") as journal:
    for number in range(int(sys.argv[3])):
        time.sleep(0.005)
        journal.commit([["seen", number]])
"""


def watching(folder: Path, count: int) -> None:
    """From the moment a frame gets its time, before it is written, to its arrival here."""
    from journal import Journal

    path = folder / "watching"
    Journal.open(path, "w", create=True).close()
    late: list[float] = []
    with Journal.open(path) as journal, journal.watch() as watcher:
        mode = watcher.mode
        words = [sys.executable, "-c", COMMITTING, str(path), str(TOP), str(count)]
        other = subprocess.Popen(words)
        try:
            for frame in watcher.follow(20.0):
                if frame.kind == 1:
                    late.append((time.time_ns() - frame.time_ns) / 1e6)
                    if len(late) == count:
                        break
        finally:
            other.wait()
    late.sort()
    p50, p99 = late[len(late) // 2], late[int(len(late) * 0.99)]
    line(f"watch ({mode}), p50", f"{p50:.2f} ms", "<= 1 ms", p50 <= 1)
    line(f"watch ({mode}), p99", f"{p99:.2f} ms", "<= 10 ms", p99 <= 10)


# -- starting --------------------------------------------------------------------------------------


def starting(rounds: int) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(TOP)

    def run(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], env=environment, check=True)

    run("import journal")()
    bare_start, whole = Both(run("pass")), Both(run("import journal"))
    nothing, journal = alternate([bare_start, whole], rounds, spent)
    pairs = zip(bare_start.clock, whole.clock, strict=True)
    real = statistics.median(b - a for a, b in pairs) * 1e3
    added = statistics.median(b - a for a, b in zip(nothing, journal, strict=True)) * 1e3
    line("import journal, added to a bare start", f"{added:.1f} ({real:.1f}) ms", "<= 15 ms",
         added <= 15)  # fmt: skip
    line("  the bare start", f"{statistics.median(nothing) * 1e3:.1f} ms", "", None)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench journal", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the slow measurements")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--only", default="", help=",".join(COUNTED))
    given = parser.parse_args(words)
    wanted = given.only.split(",") if given.only else COUNTED
    with tempfile.TemporaryDirectory(prefix="journal-bench-") as name:
        folder = Path(name)
        speed = min(
            _seconds(lambda: [sha256(bytes(256)).digest() for _ in range(2000)]) for _ in range(20)
        )
        print("seconds of the processor, in brackets of the clock")
        print(f"SHA-256 of 256 bytes: {speed / 2000 * 1e9:.0f} ns; load {os.getloadavg()[0]:.1f}")
        if "commit" in wanted:
            commits(folder, given.rounds * 8)
        if "threads" in wanted:
            threads(folder, given.rounds * 2)
        if "verify" in wanted or "replay" in wanted:
            filled(folder / "filled", given.records)
        if "verify" in wanted:
            verification(folder / "filled", given.records, given.rounds)
        if "replay" in wanted:
            replays(folder / "filled", folder, given.records, given.rounds)
        if "open" in wanted:
            opening(folder, given.items, given.rounds)
        if "watch" in wanted:
            watching(folder, 60 * given.rounds)
        if "import" in wanted:
            starting(given.rounds * 4)
        print(f"{len(_missed)} budgets missed; load {os.getloadavg()[0]:.1f}")
    return 1 if _missed else 0


def _used(action: Callable[[], object]) -> float:
    """Processor seconds of this process."""
    began = time.process_time()
    action()
    return time.process_time() - began


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
