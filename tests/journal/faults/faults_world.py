"""A journal on a simulated disk with a list of what was tried and what was acknowledged, and the
checks that every crash must pass."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from faults_simfs import Crash, SimClock, SimFs, Violation

from journal import Journal, JournalError
from journal import frame as fr
from journal.digest import StateDigest
from journal.facade import Writer
from journal.verify import verify

if TYPE_CHECKING:
    from journal.request import Request

ROOT = "/j"
SEGMENT = 4096


class World:
    """One disk, one clock, some journal objects; events are numbered."""

    def __init__(self, seed: int = 0) -> None:
        self.fs = SimFs()
        self.clock = SimClock(seed)
        self.attempted: list[int] = []
        self.acked: list[int] = []
        self.objects: dict[str, Journal] = {}
        self.serial = 0
        self.snapshots = 0

    def open(self, name: str, **options: Any) -> Journal:
        found = self.objects.get(name)
        if found is None:
            found = self.objects[name] = Journal.open(
                ROOT, "w", create=True, segment_bytes=SEGMENT, reserve_bytes=0, lock_timeout_s=0.01,
                fs=self.fs, clock=self.clock, **options,
            )  # fmt: skip
        return found

    def event(self, filler: int) -> list[Any]:
        self.serial += 1
        self.attempted.append(self.serial)
        return ["e", self.serial, "x" * filler]

    def commit(self, name: str = "a", filler: int = 20, count: int = 1) -> None:
        events = [self.event(filler) for _ in range(count)]
        try:
            self.open(name).commit(events)
        except JournalError:
            self.forget(events)
            raise
        self.acked += [e[1] for e in events]

    def forget(self, events: list[list[Any]]) -> None:
        """A refused commit: its events must not appear, unless the outcome is unknown."""

    def pair(self, name: str = "a", filler: int = 300) -> None:
        """Two frames in one group (what two threads would do)."""
        first, second = [self.event(filler)], [self.event(filler)]
        journal = self.open(name)
        with journal.writer() as held:
            requests = [request(journal, first), request(journal, second)]
            appender = Writer._check(held)
            appender.append(requests)
            for item in requests:
                if item.error is not None:
                    raise item.error
        self.acked += [first[0][1], second[0][1]]

    def rotate(self, name: str = "a") -> None:
        with self.open(name).writer() as held:
            held.rotate()

    def snapshot(self, name: str = "a") -> None:
        journal = self.open(name)
        reader = journal.reader()
        numbers = [n for f in reader.read_new() for n in numbers_of(f)]
        items = sorted((b"%08d" % n, b"v") for n in numbers)
        digest = StateDigest()
        for key, value in items:
            digest.add(key, value)
        journal.snapshots.write(
            items, position=reader.position, schema=1, reducer_version=1, digest=digest.value()
        )
        reader.close()
        self.snapshots += 1

    def reopen(self, name: str = "a") -> None:
        self.open(name).close()
        del self.objects[name]
        self.open(name)

    def kill(self, name: str = "a") -> None:
        """The process dies: its descriptors and locks go, the page cache stays."""
        found = self.objects.pop(name, None)
        if found is not None and found._appender is not None:
            found._appender.abandon()


def request(journal: Journal, events: list[list[Any]]) -> Request:
    return journal._request(journal._writing(), events, [], "", None, None, 1, False)


def numbers_of(frame: fr.Frame) -> list[int]:
    if frame.kind != fr.DATA:
        return []
    return [event[1] for event in frame.transaction().events]


def read_all(fs: SimFs, clock: SimClock) -> list[int]:
    journal = Journal.open(ROOT, "r", fs=fs, clock=clock)
    try:
        return [n for f in journal.frames() for n in numbers_of(f)]
    finally:
        journal.close()


def logs(fs: SimFs) -> dict[str, bytes]:
    folder = fs.dirs.get(ROOT + "/segments")
    if folder is None:
        return {}
    return {n: bytes(fs.files[i].data) for n, i in folder.entries.items() if n.endswith(".seg")}


def check_recovery(
    disk: SimFs, clock: SimClock, acked: list[int], attempted: list[int], thorough: bool,
    snapshots: int = 0,
) -> None:  # fmt: skip
    """Recover the disk and prove the promises; ``Violation`` says which one is broken."""
    created = ROOT in disk.dirs and "FORMAT" in disk.dirs[ROOT].entries
    try:
        seen_first = read_all(disk, clock) if created else []
        journal = Journal.open(ROOT, "w", create=True, segment_bytes=SEGMENT, reserve_bytes=0,
                               lock_timeout_s=0.01, fs=disk, clock=clock)  # fmt: skip
        with journal.writer() as held:
            tail = held.tail
        recovered = [n for f in journal.frames() for n in numbers_of(f)]
        before = logs(disk)
        again = Journal.open(ROOT, "w", segment_bytes=SEGMENT, reserve_bytes=0,
                             lock_timeout_s=0.01, fs=disk, clock=clock)  # fmt: skip
        with again.writer() as held:
            if held.tail != tail:
                raise Violation("the second recovery ends elsewhere")
        if logs(disk) != before:
            raise Violation("the second recovery changed the log")
    except (JournalError, OSError, KeyError) as error:
        raise Violation(f"a crash alone made the journal refuse: {error!r}") from error
    missing = [n for n in acked if n not in set(recovered)]
    if missing:
        raise Violation(f"acknowledged events are lost: {missing[:5]}")
    check_order(recovered, attempted)
    if recovered[: len(seen_first)] != seen_first:
        raise Violation("a reader saw something that is not a prefix")
    trusted = 0
    if snapshots or thorough:
        trusted = len(again.snapshots.trusted())
        if trusted < snapshots:
            raise Violation("a recorded snapshot is not usable")
    try:
        done = again.commit([["e", 10**9, ""]])
        if done.first_sequence != len(recovered) + 1:
            raise Violation("the next event gets a wrong number")
        durable = [n for f in again.reader(durable=True).read_new() for n in numbers_of(f)]
        if durable != [*recovered, 10**9]:
            raise Violation("the durable level is wrong after a commit")
        if thorough:
            report = verify(ROOT, "strict", fs=disk, clock=clock)
            if report.exit_code:
                raise Violation(f"verify after recovery: {report.findings}")
    except (JournalError, OSError) as error:
        raise Violation(f"the recovered journal takes no commit: {error!r}") from error


def check_order(recovered: list[int], attempted: list[int]) -> None:
    """What is there is what was written, in the order of writing, nothing invented."""
    known = set(attempted)
    if any(n not in known for n in recovered):
        raise Violation("an event was invented")
    if any(a >= b for a, b in itertools.pairwise(recovered)):
        raise Violation("events are out of order or twice")


__all__ = ["Crash", "SimClock", "SimFs", "Violation", "World"]
