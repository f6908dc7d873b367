"""Small rules that only a wrong writer or watcher breaks: expected, transaction ids, full disk,
durable level, pruning, and T10, the watcher's guarantees."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

from faults_bytes import rich
from faults_process import place
from faults_simfs import Crash, Violation
from faults_world import ROOT, World, logs, numbers_of

from journal import Conflict, DuplicateTransaction, Journal, JournalError, ResyncRequired
from journal import watcher as watching
from journal.archive import prune
from journal.digest import StateDigest

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults_crash import Count


def promises(count: Count) -> None:
    """T8 in small: what commit promises about expected, txid, a full disk."""
    world = World()
    journal = world.open("a")
    world.commit("a")
    for wrong in (0, 2, 99):
        count.states += 1
        try:
            journal.commit([["e", 0, ""]], expected=wrong)
        except Conflict:
            continue
        raise Violation("a wrong expected sequence is accepted")
    journal.commit([["e", 50, ""]], txid=b"t" * 16)
    for name in ("a", "b"):
        count.states += 1
        try:
            world.open(name).commit([["e", 51, ""]], txid=b"t" * 16)
        except DuplicateTransaction:
            continue
        raise Violation("a transaction id is accepted twice")
    for room in (0, 1, 79, 80, 100, 150, 199, 200, 300):
        for filler in (5, 600):
            count.states += 1
            before = logs(world.fs)
            world.fs.room = room
            try:
                journal.commit([["e", 60, "x" * filler]])
            except JournalError:
                if logs(world.fs) != before:
                    raise Violation("a refused commit left bytes behind") from None
            world.fs.room = -1
    followers(count)


def followers(count: Count) -> None:
    """Group commit: every thread gets its own outcome, also when the disk is full."""
    world = World()
    journal = world.open("a")
    outcomes: list[bool] = []

    def work(number: int) -> None:
        try:
            journal.commit([["e", number, "x" * 30]])
            outcomes.append(True)
        except JournalError:
            outcomes.append(False)

    world.commit("a")
    world.fs.room = 700
    threads = [threading.Thread(target=work, args=(1000 + n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    world.fs.room = -1
    count.states += 1
    found = [n for f in journal.frames() for n in numbers_of(f) if n >= 1000]
    if len(outcomes) != 16 or sum(outcomes) != len(found):
        raise Violation(f"{sum(outcomes)} commits were acknowledged, {len(found)} are there")


def durable_level(count: Count) -> None:
    """A durable reader never sees what a crash at this moment would lose."""
    for at in range(1, 60):
        world = World()
        world.open("a")
        world.commit("a", 10)
        world.commit("a", 10)
        world.fs.crash_at = world.fs.steps + at
        try:
            world.commit("a", 300)
            world.pair("a", 400)
            world.rotate("a")
            world.commit("a", 300)
            return
        except Crash:
            pass
        world.fs.dead = False
        reader = Journal.open(ROOT, fs=world.fs, clock=world.clock).reader(durable=True)
        seen = [n for f in reader.read_new() for n in numbers_of(f)]
        left = World()
        left.fs = world.fs.crashed(0)
        world.clock.boot += 1
        count.states += 1
        kept = [
            n
            for f in Journal.open(ROOT, fs=left.fs, clock=world.clock).frames()
            for n in numbers_of(f)
        ]
        if any(n not in kept for n in seen):
            raise Violation(f"a durable reader saw {seen}, the disk has {kept}")


def pruning(count: Count) -> None:
    """History goes only below two verified snapshots, and says so; crash points inside."""
    plain = rich(6)
    start = plain.fs.steps
    journal = plain.open("a")
    second = sorted((s.sequence for s in listing(plain)), reverse=True)[1]
    gone = prune(journal)
    calls = plain.fs.steps - start
    first = next(journal.frames())
    if not gone or first.position.sequence > second:
        raise Violation("pruning removed more than the second snapshot covers")
    old = rich(6).open("a").reader().position
    try:
        journal.reader(old)
        raise Violation("a reader goes on over pruned history")
    except ResyncRequired:
        pass
    for at in range(1, calls + 1):
        world = rich(6)
        world.fs.crash_at = world.fs.steps + at
        try:
            prune(world.open("a"))
        except Crash:
            pass
        for variant in range(8):
            count.states += 1
            disk = world.fs.crashed(variant)
            world.clock.boot += 1
            try:
                again = Journal.open(ROOT, "w", reserve_bytes=0, fs=disk, clock=world.clock)
                snapshot = again.snapshots.open_trusted(schema=1, reducer_version=1)
                if snapshot is None:
                    raise Violation("after a crash in pruning no snapshot is left")
                rest = [n for f in again.frames(snapshot.position) for n in numbers_of(f)]
                if len(snapshot) + len(rest) != len(world.acked):
                    raise Violation("after a crash in pruning events are missing")
                again.commit([["e", 10**6, ""]])
                prune(again)
                from journal.verify import verify

                if verify(ROOT, fs=disk, clock=world.clock).exit_code:
                    raise Violation("after a crash in pruning verify finds damage")
            except (JournalError, OSError) as error:
                raise Violation(f"after a crash in pruning (call {at}): {error!r}") from error


def model(count: Count, runs: int) -> None:
    """T8: the Hypothesis machine of the tests (two writers, one reader, a list as the model)."""
    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test
    from test_journal_model import JournalMachine, TestJournalModel

    count.states += runs
    try:
        run_state_machine_as_test(
            JournalMachine, settings=settings(TestJournalModel.settings, max_examples=runs,
                                              database=None, print_blob=True),
        )  # fmt: skip
    except Exception as error:
        notes = " ".join(getattr(error, "__notes__", ()))
        raise Violation(f"T8 model: {error!r} {notes}") from error


def listing(world: World) -> list[Any]:
    from journal.snapshots import listing as found

    return found(world.fs, ROOT)


# -- T10 -------------------------------------------------------------------------------------------


WATCHED = ("commit", "rotate", "another process", "burst", "repair", "prune", "resume")


class DeadHints:
    """Hints that never come (overflow, lost events)."""

    def __init__(self, folder: str) -> None:
        self.read_fd, self._write_fd = os.pipe()

    def wait(self, timeout_s: float) -> bool:
        time.sleep(timeout_s)
        return False

    def wake(self) -> None:
        pass

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self._write_fd)


class NoHints:
    def __init__(self, folder: str) -> None:
        raise OSError(errno.EMFILE, "too many inotify instances")


def watchers(count: Count, cases: int, rounds: int = 1) -> None:
    """T10: everything arrives once, in order, within a heartbeat, whatever happens to the hints."""
    kinds: list[tuple[str, Any, float]] = [
        ("hints", watching._Hints, 1.0),
        ("lost hints", DeadHints, 0.8),
        ("no inotify", NoHints, 1.0),
    ]
    saved = watching._Hints
    for name, hints, limit in kinds:
        for case in WATCHED[:cases] * rounds:
            count.states += 1
            watching._Hints = hints  # type: ignore[misc]
            root = place()
            try:
                _watch_case(f"{root}/j", case, name, limit)
            finally:
                watching._Hints = saved  # type: ignore[misc]
                shutil.rmtree(root, ignore_errors=True)


def _wait(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.005)


def _prune(journal: Journal, send: Callable[[int], None]) -> list[int]:
    for number in (100, 101):
        place = journal.position
        journal.snapshots.write([], position=place, schema=1, reducer_version=1,
                                digest=StateDigest().value())  # fmt: skip
        send(number)
    return prune(journal)


def _watch_case(root: str, case: str, kind: str, limit: float) -> None:
    where = f"T10 {kind}, {case}"
    journal = Journal.open(root, "w", create=True, segment_bytes=4096, reserve_bytes=0)
    journal.commit([["e", 0, ""]])
    watcher = journal.watch(journal.position if case == "resume" else None, heartbeat_s=0.3)
    expected = {"hints": "hints", "lost hints": "hints"}.get(kind, "polling")
    if watcher.mode != expected:
        raise Violation(f"{where}: mode is {watcher.mode} ({watcher.reason})")
    stamps: list[tuple[int, float]] = []
    problem: list[BaseException] = []

    def follow() -> None:
        try:
            for frame in watcher:
                for number in numbers_of(frame):
                    stamps.append((number, time.monotonic()))
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    time.sleep(0.02)
    sent: list[tuple[int, float]] = []

    def send(number: int, size: int = 10) -> None:
        journal.commit([["e", number, "x" * size]])
        sent.append((number, time.monotonic()))

    if case == "another process":
        child = os.fork()
        if child == 0:
            try:
                with Journal.open(root, "w", segment_bytes=4096, reserve_bytes=0) as other:
                    other.commit([["e", 1, ""]])
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        sent.append((1, time.monotonic()))
    elif case == "rotate":
        for number in range(1, 30):
            send(number, 400)
    elif case == "burst":
        for number in range(1, 300):
            send(number)
    elif case == "repair":
        from journal.repair import repair

        send(1)
        time.sleep(limit)
        path = f"{root}/segments/0000000001.seg"
        with open(path, "r+b") as file:
            file.seek(140)
            byte = file.read(1)
            file.seek(140)
            file.write(bytes([byte[0] ^ 255]))
        repair(root, apply=True, accept_loss=True)
    elif case == "prune":
        old = journal.position
        for number in range(1, 30):
            send(number, 400)
        _wait(lambda: len(stamps) > 29, limit)
        if not _prune(journal, send):
            raise Violation(f"{where}: nothing was pruned")
        for number in range(102, 105):
            send(number)
        try:
            journal.watch(old, heartbeat_s=0.3).close()
        except ResyncRequired:
            pass
        else:
            raise Violation(f"{where}: watching from a pruned place is not refused")
    else:
        for number in range(1, 5):
            send(number)
            time.sleep(0.01)
    due = 10**9 if case == "repair" else len(sent) + (case != "resume")
    _wait(lambda: bool(problem) or len(stamps) >= due, limit + 1.0)
    watcher.close()
    thread.join(2.0)
    if case == "repair":
        if not problem or not isinstance(problem[0], ResyncRequired):
            raise Violation(f"{where}: not told to resync: {problem}")
        return
    if problem:
        raise Violation(f"{where}: {problem[0]!r}")
    numbers = [number for number, _ in stamps]
    wanted = [number for number, _ in sent]
    if numbers != (wanted if case == "resume" else [0, *wanted]):
        raise Violation(f"{where}: saw {numbers[:10]}… instead of {wanted[:10]}…")
    arrived = dict(stamps)
    late = max(arrived[number] - when for number, when in sent)
    if late > limit:
        raise Violation(f"{where}: {late:.2f} s late")
    if thread.is_alive():
        raise Violation(f"{where}: close does not end the iteration")
    journal.close()
