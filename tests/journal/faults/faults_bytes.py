"""T1 and T7: every truncation and bit flip, sector fills, misdirected frames, hostile lengths; and
the damage matrix over every kind of file. Damage outside the unsynced tail must always be reported,
torn tails must always be accepted."""

from __future__ import annotations

import itertools
import random
import time
from typing import TYPE_CHECKING, Any

from faults_simfs import Crash, SimClock, SimFs, Violation
from faults_world import ROOT, World, check_order, logs, numbers_of

from journal import Journal, JournalDamaged, JournalError, SnapshotRefused, recovery
from journal import frame as fr
from journal import segment as sg
from journal.checksum import extender
from journal.repair import repair
from journal.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults_crash import Count

HARMLESS = ("clean", "torn-short", "torn-frame", "torn-group", "unfinished-rotation")
PATH = ROOT + "/segments/0000000001.seg"


def history(frames: int = 40, seed: int = 1, close: bool = False) -> World:
    """One segment with frames of many sizes."""
    rng = random.Random(seed)
    world = World(seed)
    from journal import facade

    world.objects["a"] = facade.Journal.open(
        ROOT, "w", create=True, reserve_bytes=0, fs=world.fs, clock=world.clock
    )
    for _ in range(frames):
        world.commit("a", rng.choice((0, 3, 50, 200, 700)), rng.randint(1, 3))
    if close:
        world.open("a").close()
        del world.objects["a"]
    return world


def raw(world: World) -> bytes:
    return logs(world.fs)["0000000001.seg"]


def put(disk: SimFs, path: str, data: bytes) -> None:
    folder, name = disk._split(path)
    file = disk.files[folder.entries[name]]
    file.data = bytearray(data)
    file.durable = bytes(data)
    file.pending = []


def frames_of(data: bytes) -> tuple[sg.SegmentHeader, list[fr.Frame]]:
    header = sg.parse(data[:128])
    assert header is not None
    out: list[fr.Frame] = []
    run = fr.parse(data[128:], 128, header.number, header.seed, extender(header.algorithm),
                   header.first_sequence - 1, header.previous, out)  # fmt: skip
    assert run.fault == fr.NONE
    return header, out


def flips(count: Count, seed: int, deadline: float) -> None:
    """T1: every single-bit flip of a whole segment is noticed at the frame it is in."""
    data = raw(history(60, seed))
    header, frames = frames_of(data)
    extend = extender(header.algorithm)
    for offset in range(128):
        for bit in range(8):
            count.states += 1
            twin = bytearray(data[:128])
            twin[offset] ^= 1 << bit
            try:
                if sg.parse(bytes(twin)) is not None:
                    raise Violation(f"T1 flip in the segment header at {offset} is not noticed")
            except JournalError:
                pass
    for frame in frames:
        piece = bytearray(data[frame.offset : frame.stop])
        sequence = frame.first_sequence - 1
        for offset in range(len(piece)):
            old = piece[offset]
            for bit in range(8):
                piece[offset] = old ^ 1 << bit
                try:
                    run = fr.parse(bytes(piece), frame.offset, 1, header.seed, extend, sequence,
                                   frame.previous, None)  # fmt: skip
                except JournalError:
                    continue
                if run.frames or run.fault == fr.NONE:
                    raise Violation(
                        f"T1 flip of bit {bit} at {frame.offset + offset} is not noticed"
                    )
            count.states += 8
            piece[offset] = old
        if time.monotonic() > deadline:
            return


def judge(disk: SimFs, clock: SimClock) -> str:
    """What a writer decides: the row's verdict, found by opening."""
    before = dict(recovery.hits)
    try:
        journal = Journal.open(ROOT, "w", reserve_bytes=0, fs=disk, clock=clock)
        with journal.writer():
            pass
        refused = False
    except JournalDamaged:
        refused = True
    after = recovery.hits
    row = next((n for n in after if after[n] != before.get(n, 0)), "format")
    if refused == (row in HARMLESS):
        raise Violation(f"the row is {row}, the writer {'refused' if refused else 'went on'}")
    return row


def truncations(count: Count, step: int, seed: int, deadline: float) -> None:
    """T1: every truncation offset: whole frames stay, nothing is invented; torn when nobody knows
    better, refused when the durability mark does."""
    world = history(25, seed)
    data = raw(world)
    _, frames = frames_of(data)
    ends = [frame.stop for frame in frames]
    for size in range(128, len(data), step):
        for known in (False, True):
            count.states += 1
            disk = world.fs.clone()
            put(disk, PATH, data[:size])
            clock = SimClock(3)
            clock.boot = world.clock.boot + (0 if known else 1)
            row = judge(disk, clock)
            if known != (row in ("known-durable", "lost-tail")):
                raise Violation(f"T1 truncation to {size} (known {known}) is taken as {row}")
            if not known:
                left = len(logs(disk)["0000000001.seg"])
                if left != max([end for end in ends if end <= size], default=128):
                    raise Violation(f"T1 truncation to {size} leaves {left} bytes")
        if time.monotonic() > deadline:
            return


def fills(count: Count, seed: int, deadline: float) -> None:
    """T1: each 512-byte and 4-KiB unit zeroed, set to FF, filled with stale or foreign bytes."""
    world = history(60, seed)
    foreign = raw(history(60, seed + 1))
    data = raw(world)
    _, frames = frames_of(data)
    last = frames[-1]
    for unit in (512, 4096):
        for at in range(0, len(data), unit):
            size = min(unit, len(data) - at)
            for kind, filler in (
                ("zero", bytes(size)),
                ("ff", b"\xff" * size),
                ("stale", data[at // 2 : at // 2 + size]),
                ("foreign", foreign[at : at + size].ljust(size, b"f")),
            ):
                twin = data[:at] + filler + data[at + size :]
                if twin == data:
                    continue
                count.states += 1
                disk = world.fs.clone()
                put(disk, PATH, twin)
                clock = SimClock(4)
                clock.boot = world.clock.boot + 1
                try:
                    row = judge(disk, clock)
                except JournalError as error:
                    row = type(error).__name__
                if at + size <= last.offset and row in ("clean", "torn-short", "torn-frame",
                                                        "torn-group"):  # fmt: skip
                    raise Violation(f"T1 {kind} {unit} at {at}: durable damage taken as {row}")
                if at > last.offset and row not in ("torn-short", "torn-frame", "torn-group"):
                    raise Violation(f"T1 {kind} {unit} at {at}: a tear in the last is {row}")
        if time.monotonic() > deadline:
            return


def sectors(count: Count, seed: int, deadline: float) -> None:
    """T1: all subsets of the dirty sectors (up to 10) of an unsynced group: always recoverable,
    and only from the group's first broken frame on."""
    for group in range(4):
        world = history(6, seed + group)
        base = raw(world)
        world.fs.crash_at = world.fs.steps + 3  # lock note, write; between write and sync
        try:
            world.pair("a", 1900 if group % 2 else 700)
        except BaseException as error:
            if type(error).__name__ != "Crash":
                raise
        full = raw(world)
        first, last = len(base) // 512, (len(full) - 1) // 512
        dirty = list(range(first, last + 1))[:10]
        _, frames = frames_of(full)
        for chosen in itertools.product((False, True), repeat=len(dirty)):
            twin = bytearray(base.ljust(len(full), b"\0"))
            for sector, there in zip(dirty, chosen, strict=True):
                if there:
                    begin, end = max(len(base), sector * 512), min(len(full), sector * 512 + 512)
                    twin[begin:end] = full[begin:end]
            count.states += 1
            disk = world.fs.crashed(0)
            put(disk, PATH, bytes(twin))
            clock = SimClock(5)
            clock.boot = world.clock.boot + 1
            row = judge(disk, clock)
            if row not in ("clean", "torn-short", "torn-frame", "torn-group"):
                raise Violation(f"T1 sectors {chosen}: an unsynced group is taken as {row}")
            left = len(logs(disk)["0000000001.seg"])
            whole = len(base)
            for frame in frames:
                if frame.offset >= len(base) and twin[: frame.stop] == full[: frame.stop]:
                    whole = frame.stop
            if left != whole:
                raise Violation(f"T1 sectors {chosen}: {left} bytes left, {whole} were whole")
        if time.monotonic() > deadline:
            return


def lost_tails(count: Count, seed: int, deadline: float) -> None:
    """T1: a log that ends with a whole frame, but before a place known to be durable, is refused;
    a reboot (nobody knows any more) makes it clean."""
    world = history(30, seed)
    data = raw(world)
    _, frames = frames_of(data)
    for frame, known in itertools.product(frames[:-1], (True, False)):
        count.states += 1
        disk = world.fs.clone()
        put(disk, PATH, data[: frame.stop])
        clock = SimClock(3)
        clock.boot = world.clock.boot + (0 if known else 1)
        row = judge(disk, clock)
        if row != ("lost-tail" if known else "clean"):
            raise Violation(f"T1 cut after {frame.stop} (known {known}) is taken as {row}")
        if time.monotonic() > deadline:
            return


def torn_groups(count: Count, seed: int, deadline: float) -> None:
    """T1: of two frames written together and not synced the second alone reached the disk: the
    group goes, whatever became of the first."""
    rng = random.Random(seed)
    world = history(rng.randint(1, 9), seed)
    base = raw(world)
    world.fs.crash_at = world.fs.steps + 3  # between write and sync
    try:
        world.pair("a", rng.choice((20, 300, 1000)))
    except Crash:
        pass
    full = raw(world)
    _, frames = frames_of(full)
    first = next(frame for frame in frames if frame.offset >= len(base))
    for _ in range(40):
        count.states += 1
        twin = bytearray(full)
        begin = rng.randrange(first.offset, first.stop)
        end = rng.randint(begin + 1, first.stop)
        twin[begin:end] = bytes(end - begin) if rng.random() < 0.5 else rng.randbytes(end - begin)
        if twin == full:
            continue
        disk = world.fs.crashed(0)
        put(disk, PATH, bytes(twin))
        clock = SimClock(5)
        clock.boot = world.clock.boot + 1
        row = judge(disk, clock)
        left = len(logs(disk)["0000000001.seg"])
        if (row, left) != ("torn-group", len(base)):
            raise Violation(f"T1 group with {begin}..{end} torn is taken as {row}, {left} left")
        if time.monotonic() > deadline:
            return


def forge(frame: fr.Frame, header: sg.SegmentHeader, offset: int, **change: Any) -> bytes:
    """A frame with right checksums for its place and other content."""
    fields = {
        "kind": frame.kind, "first_sequence": frame.first_sequence, "count": frame.count,
        "promise": frame.promise, "time_ns": frame.time_ns, "body": frame.body,
    } | change  # fmt: skip
    previous = fields.pop("previous", frame.previous)
    return fr.build(extender(header.algorithm), header.seed, offset, previous, **fields)[0]


def misplaced(count: Count, seed: int, deadline: float) -> None:
    """T1: swapped, duplicated, removed, misdirected, foreign, forged frames and hostile lengths."""
    world = history(30, seed)
    data = raw(world)
    header, frames = frames_of(data)
    other = raw(history(30, seed + 100))
    rng = random.Random(seed)

    def cases() -> Iterator[tuple[str, bytes]]:
        for index in range(len(frames) - 2):
            one, two = frames[index], frames[index + 1]
            yield "swapped", (data[: one.offset] + data[two.offset : two.stop]
                              + data[one.offset : one.stop] + data[two.stop :])  # fmt: skip
            yield "duplicated", data[: one.stop] + data[one.offset :]
            yield "removed", data[: one.offset] + data[one.stop :]
            yield "foreign", data[: one.offset] + other[one.offset : one.stop].ljust(
                one.stop - one.offset, b"\0") + data[one.stop :]  # fmt: skip
            target = frames[rng.randrange(len(frames) - 1)]
            # A piece that covers everything up to the end leaves no evidence: the known limit.
            reach = one.offset + target.stop - target.offset
            if target.offset != one.offset and reach <= frames[-1].offset:
                piece = data[target.offset : target.stop]
                twin = data[: one.offset] + piece + data[one.offset + len(piece) :]
                yield "misdirected", twin[: max(len(data), one.offset + len(piece))]
            yield "forged link", (data[: one.offset] + forge(one, header, one.offset,
                                  previous=bytes(32)) + data[one.stop :])  # fmt: skip
            yield "forged sequence", (data[: one.offset] + forge(one, header, one.offset,
                                      first_sequence=one.first_sequence + 1)
                                      + data[one.stop :])  # fmt: skip
            parts, link = [data[: one.offset]], one.previous
            at = one.offset
            for later in frames[index:]:
                parts.append(forge(later, header, at, previous=link,
                                   first_sequence=later.first_sequence + 1))  # fmt: skip
                link = parts[-1][-32:]
                at += len(parts[-1])
            yield "renumbered", b"".join(parts)
            yield "forged body", (data[: one.offset] + forge(one, header, one.offset,
                                  body=one.body[:-1] + b"\x01") + data[one.stop :])  # fmt: skip

    for name, twin in cases():
        if twin == data:
            continue
        count.states += 1
        disk = world.fs.clone()
        put(disk, PATH, twin)
        clock = SimClock(6)
        clock.boot = world.clock.boot + 1
        row = judge(disk, clock)
        if row in ("clean", "torn-short", "torn-frame", "torn-group"):
            raise Violation(f"T1 {name} frames are taken as {row}")
    # Torn tails that look like something: never taken for damage, never for a frame.
    last = frames[-1]
    for name, tail in (
        ("old frame", data[frames[3].offset : frames[3].stop]),
        ("old frames", data[frames[3].offset : frames[9].stop]),
        ("foreign frame", other[frames[3].offset : frames[5].stop]),
        ("hostile length", fr.MAGIC + b"\xff" * 36),
        ("hostile length", fr.MAGIC + bytes(4) + b"\xff\xff\xff\x7f" + bytes(28)),
        ("zero length", fr.MAGIC + bytes(36)),
        ("magic", fr.MAGIC * 30),
        ("event with a frame in it", b"????" + data[frames[2].offset + 4 : frames[4].stop]),
    ):
        for cut in range(0, len(tail), 13):
            count.states += 1
            disk = world.fs.clone()
            put(disk, PATH, data + tail[: len(tail) - cut])
            clock = SimClock(7)
            clock.boot = world.clock.boot + 1
            row = judge(disk, clock)
            if row not in ("torn-short", "torn-frame"):
                raise Violation(f"T1 torn tail with {name} is taken as {row}")
            if len(logs(disk)["0000000001.seg"]) != last.stop:
                raise Violation(f"T1 torn tail with {name} is cut at the wrong place")
        if time.monotonic() > deadline:
            return


def rows(count: Count, seed: int, deadline: float) -> None:
    """T1: the rows about segments: each is reached by what it describes, and decides as it says."""
    world = World(seed)
    for size in (1500, 1500, 1500, 1500, 1500, 1500, 200):
        world.commit("a", size)
    names = sorted(logs(world.fs))
    last = ROOT + "/segments/" + names[-1]
    data = logs(world.fs)[names[-1]]
    rng = random.Random(seed)

    def ask(wanted: tuple[str, ...], known: bool, change: Callable[[SimFs], None]) -> None:
        count.states += 1
        disk = world.fs.clone()
        change(disk)
        clock = SimClock(3)
        clock.boot = world.clock.boot + (0 if known else 1)
        row = judge(disk, clock)
        if row not in wanted:
            raise Violation(f"T1 segment damage is taken as {row}, not {wanted}")

    for size in range(sg.HEADER_SIZE):
        ask(("unfinished-rotation",), False, lambda d, s=size: put(d, last, data[:s]))
        ask(("segment-header-known",), True, lambda d, s=size: put(d, last, data[:s]))
    for _ in range(60):
        at, bit = rng.randrange(sg.HEADER_SIZE), 1 << rng.randrange(8)
        twin = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
        ask(("segment-header",), rng.random() < 0.5, lambda d, t=twin: put(d, last, t))
        gone = rng.choice(names[1:-1])
        ask(("structure",), rng.random() < 0.5,
            lambda d, g=gone: d.dirs[ROOT + "/segments"].entries.pop(g) and None)  # fmt: skip
        _behind(count, world, rng)
        if time.monotonic() > deadline:
            return


def _behind(count: Count, world: World, rng: random.Random) -> None:
    """A writer that stands in an older segment walks over damage in it."""
    disk = world.fs.clone()
    clock = SimClock(rng.getrandbits(20))
    start = sg.parse(logs(disk)["0000000001.seg"])
    assert start is not None
    journal = Journal.open(ROOT, "w", reserve_bytes=0, fs=disk, clock=clock)
    journal._hint[0] = start.start
    data = logs(disk)["0000000001.seg"]
    at = rng.randrange(sg.HEADER_SIZE, len(data))
    put(disk, ROOT + "/segments/0000000001.seg", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    before = recovery.hits.get("earlier", 0)
    count.states += 1
    try:
        with journal.writer():
            raise Violation("T1 a writer walks over damage in an earlier segment")
    except JournalDamaged:
        pass
    if recovery.hits.get("earlier", 0) == before:
        raise Violation("T1 damage in an earlier segment is not taken as such")


# -- T7 --------------------------------------------------------------------------------------------


def rich(rounds: int = 3) -> World:
    """A journal with everything: segments, snapshots, recovered pieces."""
    world = World(9)
    for _ in range(rounds):
        for size in (10, 200, 700, 1500, 40):
            world.commit("a", size)
        world.snapshot("a")
    world.rotate("a")
    world.commit("a", 50)
    world.commit("a", 60)
    return world


def damages(world: World) -> Iterator[tuple[str, str, Callable[[SimFs], None]]]:
    """(name, what must be said: damage | torn | cache | none, the damage)."""

    def edit(path: str, change: Callable[[bytes], bytes]) -> Callable[[SimFs], None]:
        def act(disk: SimFs) -> None:
            folder, name = disk._split(path)
            put(disk, path, change(bytes(disk.files[folder.entries[name]].data)))

        return act

    def remove(path: str) -> Callable[[SimFs], None]:
        def act(disk: SimFs) -> None:
            folder, name = disk._split(path)
            disk.files[folder.entries.pop(name)].nlink -= 1

        return act

    def swap(one: str, two: str) -> Callable[[SimFs], None]:
        def act(disk: SimFs) -> None:
            folder, a = disk._split(one)
            _, b = disk._split(two)
            folder.entries[a], folder.entries[b] = folder.entries[b], folder.entries[a]

        return act

    names = sorted(logs(world.fs))
    folder = ROOT + "/segments/"
    first, middle, last = folder + names[0], folder + names[1], folder + names[-1]
    for label, path in (("first", first), ("middle", middle), ("last", last)):
        for field, at in (("magic", 0), ("version", 8), ("size", 10), ("checksum id", 12),
                          ("chain id", 13), ("compat", 16), ("incompat", 20), ("uuid", 24),
                          ("number", 40), ("first sequence", 48), ("epoch", 56), ("link", 64),
                          ("time", 96), ("boot id", 104), ("crc", 124)):  # fmt: skip
            yield f"{label} header {field}", "damage", edit(
                path, lambda b, at=at: b[:at] + bytes([b[at] ^ 0x55]) + b[at + 1 :])  # fmt: skip
        yield f"{label} missing", "damage", remove(path)
        yield f"{label} empty", "damage", edit(path, lambda b: b"")
        yield f"{label} cut to the header", "damage", edit(path, lambda b: b[:128])
    for label, path in (("first", first), ("middle", middle)):
        yield f"{label} without seal", "damage", edit(path, lambda b: b[:-80])
        yield f"{label} with bytes behind", "damage", edit(path, lambda b: b + b"junk" * 4)
        yield f"{label} half", "damage", edit(path, lambda b: b[: len(b) // 16 * 8])
        yield f"{label} zeroed", "damage", edit(path, lambda b: b[:128] + bytes(len(b) - 128))
    yield "swapped segments", "damage", swap(first, middle)
    yield "copied segment", "damage", edit(middle, lambda b: logs(world.fs)[names[0]])
    yield "last torn", "torn", edit(last, lambda b: b + b"JFR1" + b"x" * 20)
    yield "last torn zeros", "torn", edit(last, lambda b: b + bytes(100))
    yield "last flipped", "damage", edit(last, lambda b: b[:200] + b"?" + b[201:])
    yield "FORMAT missing", "damage", remove(ROOT + "/FORMAT")
    yield "FORMAT garbage", "damage", edit(ROOT + "/FORMAT", lambda b: b"hello\n")
    yield "FORMAT newer", "unreadable", edit(ROOT + "/FORMAT", lambda b: b"journal 9\n" + b)
    yield (
        "FORMAT uuid",
        "damage",
        edit(
            ROOT + "/FORMAT",
            lambda b: b.replace(b[15:17], b"ff" if b[15:17] != b"ff" else b"00", 1),
        ),
    )
    yield "mark garbage", "none", edit(ROOT + "/durable", lambda b: b"x" * 64)
    yield "mark missing", "none", remove(ROOT + "/durable")
    yield "mark flipped", "none", edit(ROOT + "/durable", lambda b: b[:50] + b"?" + b[51:])
    yield "lock garbage", "none", edit(ROOT + "/lock", lambda b: b"\xff" * 100)
    snaps = sorted(world.fs.dirs[ROOT + "/snapshots"].entries)
    snapshot = ROOT + "/snapshots/" + snaps[-1]
    for at in (0, 8, 16, 40, 60, 110, 130, 200, 300, 1000, -100, -30, -5):
        yield f"snapshot byte {at}", "cache", edit(
            snapshot, lambda b, at=at: b[: at % len(b)] + bytes([b[at % len(b)] ^ 1])
            + b[at % len(b) + 1 :])  # fmt: skip
    yield "snapshot cut", "cache", edit(snapshot, lambda b: b[:-100])
    yield "snapshot empty", "cache", edit(snapshot, lambda b: b"")
    yield "snapshot missing", "none", remove(snapshot)
    yield "snapshots swapped", "none", swap(snapshot, ROOT + "/snapshots/" + snaps[0])


def orphan_snapshot(count: Count) -> None:
    """T7: a whole snapshot file that no frame of the log names is not trusted."""
    world = rich()
    journal = world.open("a")
    from journal import snapshot_writer

    place = journal.position
    items = [(b"wrong", b"state")]
    said = snapshot_writer.write(
        world.fs, ROOT + "/snapshots/.x", items, uuid=journal.uuid, position=place,
        schema=1, reducer_version=1, digest=bytes(32), time_ns=1,
    )  # fmt: skip
    world.fs.rename(
        ROOT + "/snapshots/.x",
        f"{ROOT}/snapshots/snap-{place.sequence:020d}-{said.hash.hex()[:16]}.snap",
    )
    count.states += 1
    found = journal.snapshots.open_trusted(schema=1, reducer_version=1)
    if found is None or found.get(b"wrong") is not None:
        raise Violation("T7 a snapshot is trusted by its name")


def matrix(count: Count, names: list[str] | None = None) -> None:
    """T7: damage × open, read, tail, verify, repair."""
    world = rich()
    whole = [n for f in world.open("a").frames() for n in numbers_of(f)]
    orphan_snapshot(count)
    for name, kind, act in damages(world):
        if names is not None and name not in names:
            continue
        disk = world.fs.clone()
        act(disk)
        clock = SimClock(8)
        clock.boot = world.clock.boot
        try:
            _one_damage(count, kind, disk, clock, whole)
        except Violation as error:
            raise Violation(f"T7 {name}: {error}") from error
        except (KeyError, IndexError, ValueError, TypeError, AssertionError) as error:
            raise Violation(f"T7 {name}: not a clear error: {error!r}") from error


def _one_damage(
    count: Count, kind: str, disk: SimFs, clock: SimClock, whole: list[int]
) -> None:  # fmt: skip
    count.states += 5
    before = logs(disk)
    # read and tail
    seen: list[int] = []
    reported = False
    try:
        journal = Journal.open(ROOT, "r", fs=disk, clock=clock)
        for frame in journal.frames():
            seen += numbers_of(frame)
    except JournalError:
        reported = True
    check_order(seen, whole)
    if kind in ("none", "cache", "torn") and (reported or seen != whole):
        raise Violation("a harmless damage keeps readers from reading")
    # verify
    try:
        code = verify(ROOT, "strict", fs=disk, clock=clock).exit_code
    except JournalError as error:
        code = error.exit_code
    expected = {"damage": (2, 3), "torn": (1,), "cache": (0,), "none": (0,), "unreadable": (3,)}
    if code not in expected[kind]:
        raise Violation(f"verify ends with {code}")
    # open for writing
    twin = disk.clone()
    refused = False
    try:
        journal = Journal.open(ROOT, "w", reserve_bytes=0, fs=twin, clock=clock)
        with journal.writer():
            pass
        after = [n for f in journal.frames() for n in numbers_of(f)]
    except JournalError:
        refused = True
        after = []
    if kind in ("none", "cache", "torn") and (refused or after != whole):
        raise Violation("a harmless damage keeps writers out")
    if kind in ("none", "cache"):
        snapshot = journal.snapshots.open_trusted(schema=1, reducer_version=1)
        if snapshot is not None and snapshot.position.sequence > len(whole):
            raise Violation("a wrong snapshot is trusted")
        if snapshot is not None:
            wanted = {b"%08d" % n: b"v" for n in whole[: snapshot.position.sequence]}
            try:
                if {key: snapshot.get(key) for key in wanted} != wanted or (
                    dict(snapshot.items()) != wanted
                ):
                    raise Violation("a wrong snapshot is trusted")
            except SnapshotRefused:
                pass  # noticed when the block was touched
    if refused and logs(twin) != before:
        raise Violation("a refused journal was changed")
    # repair
    try:
        repair(ROOT, apply=True, accept_loss=True, fs=disk, clock=clock)
        report = verify(ROOT, "strict", fs=disk, clock=clock)
    except JournalError:
        return  # says that a copy is needed; nothing else to prove
    if report.exit_code == 2:
        raise Violation(f"after the repair: {report.findings}")
    journal = Journal.open(ROOT, "w", reserve_bytes=0, fs=disk, clock=clock)
    journal.commit([["e", 10**6, ""]])
    healed = [n for f in journal.frames() for n in numbers_of(f)]
    check_order(healed, [*whole, 10**6])


def table(count: Count) -> None:
    """Every combination of observations hits exactly one row."""
    for seen in itertools.product(recovery.PLACES, recovery.FAULTS, recovery.LATERS,
                                  recovery.KNOWNS):  # fmt: skip
        count.states += 1
        rows = recovery.matching(recovery.Observation(*seen))
        if len(rows) != 1:
            raise Violation(f"{seen} hits {len(rows)} rows")
