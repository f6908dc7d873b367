"""T2, T6, T9: crashes, failed syncs and whole seeded histories on the simulated disk."""

from __future__ import annotations

import errno
import itertools
import random
import time
from typing import TYPE_CHECKING

from faults_simfs import Crash, Violation
from faults_world import World, check_order, check_recovery, numbers_of

from journal import Journal, JournalError, WriterPoisoned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPERATIONS: dict[str, Callable[[World], None]] = {
    "small": lambda w: w.commit("a", 10),
    "big": lambda w: w.commit("a", 1500),
    "multi": lambda w: w.commit("a", 90, 3),
    "pair": lambda w: w.pair("a"),
    "rotate": lambda w: w.rotate("a"),
    "snapshot": lambda w: w.snapshot("a"),
    "reopen": lambda w: w.reopen("a"),
    "other": lambda w: w.commit("b", 40),
}


class Count:
    """What a tier explored."""

    def __init__(self) -> None:
        self.states = 0
        self.distinct = 0

    def __str__(self) -> str:
        return f"{self.states} states" + (f", {self.distinct} distinct" if self.distinct else "")


def sequences() -> Iterator[tuple[str, ...]]:
    names = list(OPERATIONS)
    for length in (1, 2, 3):
        yield from itertools.product(names, repeat=length)


def run_until(words: tuple[str, ...], crash_at: int, killed: bool = False) -> World | None:
    """A fresh world in which the power goes at the given file-system call; None if the history
    ends before it. ``killed``: the process dies there first, and another one goes on."""
    world = World()
    world.fs.crash_at = crash_at
    try:
        world.open("a")
        for word in words:
            OPERATIONS[word](world)
    except Crash:
        return world
    return None


def crash_points(
    count: Count, variants: int, share: float, seed: int, deadline: float, lengths: int = 3
) -> None:
    """T2: every sequence of operations × every call × persistence variants."""
    rng = random.Random(seed)
    done: set[tuple[int, int, int]] = set()
    for words in sequences():
        if len(words) > lengths or (len(words) == 3 and rng.random() > share):
            continue
        point = 0
        while True:
            point += 1
            world = run_until(words, point)
            if world is None:
                break
            for variant in range(variants):
                count.states += 1
                number = variant if variant < 4 else rng.randrange(4, 1 << 30)
                disk = world.fs.crashed(number)
                key = (disk.fingerprint(), len(world.acked), world.snapshots)
                if key in done:
                    continue
                done.add(key)
                count.distinct += 1
                world.clock.boot += 1
                try:
                    check_recovery(
                        disk, world.clock, world.acked, world.attempted,
                        thorough=count.distinct % 17 == 0, snapshots=world.snapshots,
                    )  # fmt: skip
                except Violation as error:
                    raise Violation(
                        f"T2 {' '.join(words)} call {point} ({world.fs.calls[-1]}) "
                        f"variant {number}: {error}"
                    ) from error
            if time.monotonic() > deadline:
                return


def adoption(count: Count, variants: int) -> None:
    """T2: a process dies between write and sync, another adopts, the power goes in its commit."""
    for filler in (10, 400, 1500):
        for stop in range(1, 60):
            world = World()
            world.open("a")
            world.commit("a", 10)
            world.commit("b", 10)
            base = world.fs.steps
            world.fs.crash_at = base + stop
            try:
                world.commit("a", filler)
                break
            except Crash:
                pass
            world.fs.dead = False
            world.fs.crash_at = -1
            world.kill("a")
            middle = world.fs.steps
            for later in range(1, 60):
                twin = World()  # the same history again, with a second stop
                twin.open("a")
                twin.commit("a", 10)
                twin.commit("b", 10)
                twin.fs.crash_at = base + stop
                try:
                    twin.commit("a", filler)
                except Crash:
                    pass
                twin.fs.dead = False
                twin.kill("a")
                twin.fs.crash_at = middle + later
                try:
                    twin.commit("b", 700)
                    twin.commit("b", 10)
                except Crash:
                    pass
                else:
                    break
                for variant in range(variants):
                    count.states += 1
                    disk = twin.fs.crashed(variant if variant < 2 else variant * 7919 + later)
                    twin.clock.boot += 1
                    try:
                        check_recovery(disk, twin.clock, twin.acked, twin.attempted, False)
                    except Violation as error:
                        raise Violation(
                            f"T2 adoption filler {filler} stop {stop} later {later} "
                            f"variant {variant}: {error}"
                        ) from error


def closes(count: Count, variants: int) -> None:
    """T2: writers close one after another without a sync between, then one commits."""

    def history(world: World) -> None:
        for name in ("a", "b", "c"):
            world.open(name)
            world.commit(name, 10)
        world.rotate("a")
        for name in ("a", "b", "c"):
            world.reopen(name)
        world.commit("b", 1400)

    point = 0
    while True:
        point += 1
        for variant in range(variants):
            count.states += 1
            world = World()
            world.fs.crash_at = point
            try:
                history(world)
            except Crash:
                pass
            else:
                return
            disk = world.fs.crashed(variant)
            world.clock.boot += 1
            try:
                check_recovery(disk, world.clock, world.acked, world.attempted, False)
            except Violation as error:
                raise Violation(f"T2 closes call {point} variant {variant}: {error}") from error


def sync_failures(count: Count) -> None:
    """T6: every sync point fails, in each model of what the cache shows afterwards, with and
    without a crash after it."""
    history = ("small", "big", "rotate", "multi", "pair", "big", "big", "snapshot", "reopen",
               "small", "rotate", "other", "big")  # fmt: skip
    plain = World()
    plain.open("a")
    for word in history:
        OPERATIONS[word](plain)
    points = [i + 1 for i, c in enumerate(plain.fs.calls) if c in ("fdatasync", "syncdir")]
    for point, mode, code, crash in itertools.product(
        points, ("clean", "old", "dirty"), (errno.EIO, errno.ENOSPC), (False, True)
    ):
        count.states += 1
        world = World()
        world.fs.fail = {point: code}
        world.fs.fail_mode = mode
        where = f"T6 sync {point} ({plain.fs.calls[point - 1]}) model {mode} error {code}"
        failed = False
        name = "a"
        dead = ""
        try:
            world.open("a")
            for word in history:
                name = "b" if word == "other" else "a"
                OPERATIONS[word](world)
        except (JournalError, OSError) as error:
            failed = True
            dead = name if isinstance(error, WriterPoisoned) else ""
        if not failed and world.fs.steps >= point and word_matters(plain, point):
            raise Violation(f"{where}: the failure was not reported")
        if dead:
            try:
                world.objects[dead].commit([world.event(5)])
            except WriterPoisoned:
                pass
            except JournalError as error:  # the marker stops it too, and can be cleared
                raise Violation(f"{where}: a dead writer would write again") from error
            else:
                raise Violation(f"{where}: a dead writer wrote again")
            if "SUSPECT" not in world.fs.dirs["/j"].entries:
                raise Violation(f"{where}: no SUSPECT marker")
        if crash:
            disk = world.fs.crashed(0)
            disk.dirs["/j"].entries.pop("SUSPECT", None) if "/j" in disk.dirs else None
            world.clock.boot += 1
            try:
                check_recovery(disk, world.clock, world.acked, world.attempted, False)
            except Violation as error:
                raise Violation(f"{where}: {error}") from error


def word_matters(world: World, point: int) -> bool:
    """Whether a failure of this sync must surface (all do)."""
    return point <= len(world.fs.calls)


def simulate(seed: int) -> None:
    """T9: one seeded history: writers, readers inside the writers' calls, snapshots, pruning,
    short writes, full disk, kills, power losses."""
    rng = random.Random(seed)
    world = World(seed)
    if rng.random() < 0.5:
        world.fs.short = random.Random(seed + 1)
    readers: dict[str, tuple[object, list[int]]] = {}
    for _ in range(rng.randint(1, 4)):
        try:
            _live(world, rng, readers)
        except Crash:
            pass
        # power loss: everything in memory is gone
        disk = world.fs.crashed(rng.randrange(1 << 30))
        world.clock.boot += 1
        twin = disk.clone()
        check_recovery(twin, world.clock, world.acked, world.attempted, seed % 7 == 0)
        world.fs = disk
        world.objects = {}
        world.fs.short = random.Random(seed + 2) if rng.random() < 0.3 else None
        readers.clear()


def _live(world: World, rng: random.Random, readers: dict) -> None:  # type: ignore[type-arg]
    names = ["a", "b", "c"]
    seen: list[list[int]] = []
    followers: list[object] = []

    def look() -> None:
        if followers and rng.random() < 0.2:
            index = rng.randrange(len(followers))
            reader = followers[index]
            for frame in reader.read_new():  # type: ignore[attr-defined]
                seen[index] += numbers_of(frame)

    world.open("a")
    for _ in range(rng.randint(0, 2)):
        followers.append(follower(world))
        seen.append([])
    world.fs.hook = look
    world.fs.crash_at = world.fs.steps + rng.randint(5, 200)
    while True:
        name = rng.choice(names)
        action = rng.random()
        try:
            if action < 0.5:
                world.commit(name, rng.choice((5, 40, 200, 600, 1400)), rng.randint(1, 3))
            elif action < 0.6:
                world.pair(name, rng.choice((10, 300)))
            elif action < 0.66:
                world.rotate(name)
            elif action < 0.72:
                world.snapshot(name)
            elif action < 0.75:
                _prune(world, name)
            elif action < 0.85:
                world.reopen(name)
            elif action < 0.92:
                world.fs.in_hook = False
                world.kill(name)
            elif action < 0.96:
                world.fs.room = rng.randint(0, 900)
            else:
                world.fs.room = -1
        except (JournalError, OSError) as error:
            full = isinstance(error, JournalError) and "room" in str(error)
            full = full or getattr(error, "errno", 0) == errno.ENOSPC
            if not full:
                raise Violation(f"refused without damage: {error!r}") from error
        for numbers in seen:
            check_order(numbers, world.attempted)


def follower(world: World) -> object:
    return Journal.open("/j", "r", fs=world.fs, clock=world.clock).reader()


def _prune(world: World, name: str) -> None:
    from journal.archive import prune

    journal: Journal = world.open(name)
    if len(journal.snapshots.trusted()) >= 2:
        return  # the checks compare whole histories; pruning has its own tier (T7)
    try:
        prune(journal)
    except JournalError as error:
        if "two verified" not in str(error):
            raise


def seeds(count: Count, first: int, number: int, deadline: float) -> None:
    """T9 over many seeds; a failure names the seed."""
    for seed in range(first, first + number):
        count.states += 1
        try:
            simulate(seed)
        except Violation as error:
            raise Violation(f"T9 seed {seed}: {error}") from error
        if time.monotonic() > deadline:
            return
