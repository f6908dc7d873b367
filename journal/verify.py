"""Prove that a journal is what it claims to be, in four depths, and report everything found.

Rules of this module (docs/journal-format.md, section 9):

* quick: marker, segment headers, seals and links between segments, the whole last segment.
  full: every frame (checksums, link, sequence), the numbers in the seals, epochs, snapshots.
  strict: also the codec's rules for every body, and the tree in the seals. replay: also the state
  digests.
* Never writes. Goes on after a finding where it can, so that one report names all damage.
* The verdict on the end of the log comes from the decision table, as for a writer.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from journal import codec, recovery
from journal import frame as fr
from journal import segment as sg
from journal.checksum import extender
from journal.clock import REAL as REAL_CLOCK
from journal.clock import Clock
from journal.cursor import ARCHIVE, Cursor, open_segment
from journal.errors import (
    InvalidRecord,
    JournalDamaged,
    JournalError,
    ResyncRequired,
    SnapshotRefused,
)
from journal.fs import REAL, Fs
from journal.layout import FORMAT, require, suspect
from journal.merkle import Tree, peaks_before
from journal.observe import observe
from journal.position import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from journal.frame import Frame

QUICK, FULL, STRICT, REPLAY = "quick", "full", "strict", "replay"
LEVELS = (QUICK, FULL, STRICT, REPLAY)

DAMAGE, TORN, NOTICE = "damage", "torn", "notice"


class Reducer(Protocol):
    """Builds a state from nothing; given by the application for ``replay``."""

    def apply(self, frame: Frame, /) -> None: ...
    def digest(self) -> bytes: ...


class Finding(NamedTuple):
    """One thing to say: ``weight`` is damage, torn or notice."""

    weight: str
    segment: int
    offset: int
    rule: str
    text: str


class Report(NamedTuple):
    """What was proved and what was found. ``tree_root`` is the tree head over ``tree_size``
    frames (empty before strict, and with damage)."""

    level: str
    findings: tuple[Finding, ...]
    segments: int
    frames: int
    events: int
    size: int
    position: Position | None
    tree_size: int
    tree_root: bytes
    snapshots: int
    digest: bytes

    @property
    def exit_code(self) -> int:
        """0 clean, 1 torn tail, 2 damage."""
        weights = {finding.weight for finding in self.findings}
        return 2 if DAMAGE in weights else 1 if TORN in weights else 0

    @property
    def verdict(self) -> str:
        return ("clean", "torn tail", "damaged")[self.exit_code]


class _Walk:
    def __init__(self, fs: Fs, clock: Clock, root: str, level: str) -> None:
        self.fs = fs
        self.clock = clock
        self.root = root
        self.level = level
        self.deep = level in (STRICT, REPLAY)
        self.findings: list[Finding] = []
        self.frames = self.events = self.size = 0
        self.epoch = 0
        self.gapped = False  # whether a repair moved frames of the present segment
        self.first_ns = self.time_ns = 0  # of the frames walked
        self.first: sg.SegmentHeader | None = None  # header of the first segment walked
        self.tree: Tree | None = None  # before strict only its size is kept
        self.expected: Position | None = None  # where the next segment must continue
        self.refs: list[list[Any]] = []
        self.prunes: list[list[Any]] = []

    def say(self, weight: str, segment: int, offset: int, rule: str, text: str) -> None:
        self.findings.append(Finding(weight, segment, offset, rule, text))

    def damage(self, segment: int, offset: int, rule: str, text: str) -> None:
        self.say(DAMAGE, segment, offset, rule, text)

    def add(self, other: _Walk) -> None:
        """Continue with what another process found in the segments that follow."""
        if other.first is not None:
            if self.expected is None or other.first.number == self.expected.segment + 1:
                self._joins(other.first)  # else what lies between was found damaged
            self.first = self.first or other.first
        self.findings += other.findings
        self.frames += other.frames
        self.events += other.events
        self.size += other.size
        self.epoch = max(self.epoch, other.epoch)
        if other.first_ns < self.time_ns and other.first is not None:
            self._back(other.first.number, sg.HEADER_SIZE)
        self.first_ns = self.first_ns or other.first_ns
        self.time_ns = other.time_ns
        self.gapped, self.tree, self.expected = other.gapped, other.tree, other.expected
        self.refs += other.refs
        self.prunes += other.prunes

    # -- one segment --------------------------------------------------------------------------

    def segment(self, uuid: bytes, number: int, last: bool, whole: bool) -> None:
        """Check one segment; ``whole`` walks its frames, otherwise only header and seal."""
        try:
            handle = open_segment(self.fs, self.root, number)
        except FileNotFoundError:
            self.damage(number, 0, "missing", "the segment is missing")
            self.expected = self.tree = None
            return
        except JournalDamaged as error:
            self.damage(number, 0, "archive", str(error))
            self.expected = self.tree = None
            return
        try:
            size = handle.size()
            self.size += size
            header = sg.parse(handle.read(sg.HEADER_SIZE, 0))
            if header is None:
                if not last:
                    self.damage(number, 0, "segment-header", "the segment header is damaged")
                elif self.expected is None:
                    self.damage(number, 0, "segment-header", "the only segment has no header")
                self.expected = None if not last else self.expected
                self.tree = None
                return
            if header.uuid != uuid or header.number != number:
                self.damage(number, 0, "foreign", "of another journal, or another segment's copy")
                self.expected = self.tree = None
                return
            self.first = self.first or header
            self._joins(header)
            if whole:
                self._frames(header, handle.read(size, 0), last)
            else:
                self._seal_only(header, handle.read(min(size, 1 << 16), max(0, size - (1 << 16))),
                                size)  # fmt: skip
        finally:
            handle.close()

    def _joins(self, header: sg.SegmentHeader) -> None:
        """Does the segment continue what was walked before it?"""
        expected = self.expected
        if expected is None:
            if header.number == 1 and header.previous != sg.genesis(header.uuid):
                self.damage(1, 0, "genesis", "the first segment does not begin the chain")
            return
        if header.previous != expected.link or header.first_sequence != expected.sequence + 1:
            self.damage(header.number, 0, "structure", "does not continue the segment before")

    def _seal_only(self, header: sg.SegmentHeader, tail: bytes, size: int) -> None:
        number = header.number
        self.expected = None
        if len(tail) < fr.OVERHEAD:
            self.damage(number, size, "unsealed", "a segment with a successor has no seal")
            return
        _, length, link = fr.TRAILER.unpack(tail[-fr.TRAILER_SIZE :])
        start = len(tail) - fr.size_of(length)
        if start < 0 or tail[start : start + 4] != fr.MAGIC or tail[start + 12] != fr.SEAL:
            self.damage(number, size, "unsealed", "a segment with a successor has no seal")
            return
        head = fr.HEADER.unpack_from(tail, start)
        # The link before the seal is not known here: check everything else of the frame.
        run = fr.search(tail, size - len(tail), start, seed=header.seed,
                        extend=extender(header.algorithm))  # fmt: skip
        if run.frames != 1:
            self.damage(number, size - len(tail) + start, "seal", "the seal is damaged")
            return
        body = tail[start + fr.HEADER_SIZE : start + fr.HEADER_SIZE + length]
        self.expected = Position(number, size, head[6] - 1, fr.resumed(body, fr.SEAL) or link)

    def _frames(self, header: sg.SegmentHeader, buffer: bytes, last: bool) -> None:
        number = header.number
        frames: list[Frame] = []  # before strict the control frames: nobody looks at the others
        back: list[int] = []
        run = fr.parse(
            buffer[sg.HEADER_SIZE :], sg.HEADER_SIZE, number, header.seed,
            extender(header.algorithm), header.first_sequence - 1, header.previous, frames,
            backwards=None if self.deep else back,
        )  # fmt: skip
        tree = self._tree_before(header, buffer)
        self.frames += run.frames
        self.events += run.sequence + 1 - header.first_sequence
        self.epoch = max(self.epoch, header.epoch)
        if run.frames:
            time_ns = fr.HEADER.unpack_from(buffer, sg.HEADER_SIZE)[8]
            if time_ns < self.time_ns:
                self._back(number, sg.HEADER_SIZE)
            if self.deep:
                back += [b.offset for a, b in pairwise(frames) if b.time_ns < a.time_ns]
            for offset in back:
                self._back(number, offset)
            self.first_ns = self.first_ns or time_ns
            self.time_ns = run.time_ns
        self.gapped = False
        for frame in frames:
            if frame.kind == fr.GAP:
                self.gapped = True
                self.events -= frame.last_sequence + 1 - frame.first_sequence
                tree = None  # the lost frames' leaves are lost too; the next seal knows more
        # Whatever looks at the tree is a seal, and that is the last frame.
        sealed = run.kind == fr.SEAL
        self._grow(tree, frames[:-1] if sealed else frames, run.frames - sealed)
        for frame in frames:
            self._body(frame, tree)
        self._grow(tree, frames[-1:] if sealed else [], int(sealed))
        self.tree = tree
        self.expected = Position(number, run.offset, run.sequence, run.chain)
        if not last:
            if run.fault != fr.NONE:
                later = fr.search(buffer, 0, run.offset + 8, seed=header.seed,
                                  extend=extender(header.algorithm))  # fmt: skip
                self.damage(
                    number, run.offset, "earlier",
                    f"invalid ({run.fault}); {later.frames} valid frames follow in the segment",
                )  # fmt: skip
                self.expected = self.tree = None
            elif not sealed:
                self.damage(number, run.offset, "unsealed", "has a successor and no seal")
                self.expected = self.tree = None

    def _grow(self, tree: Tree | None, frames: list[Frame], count: int) -> None:
        """Add the frames to the tree; before strict only their number."""
        if tree is not None and self.deep:
            tree.extend(frame.link for frame in frames)
        elif tree is not None:
            tree.size += count

    def _tree_before(self, header: sg.SegmentHeader, buffer: bytes) -> Tree | None:
        if header.number == 1:
            return Tree()
        if self.tree is not None:
            return self.tree
        if self.findings:
            return None  # damage or a gap before: the tree cannot be followed
        try:
            return peaks_before(self.fs, self.root, header.number, buffer)
        except (JournalError, OSError, LookupError, TypeError):  # nobody has checked that seal yet
            return None

    def _back(self, segment: int, offset: int) -> None:
        self.say(NOTICE, segment, offset, "clock", "the wall clock went back here")

    def _body(self, frame: Frame, tree: Tree | None) -> None:
        kind = frame.kind
        place = (frame.segment, frame.offset)
        try:
            if self.deep:
                codec.strict(frame.body)
            if kind == fr.DATA:
                frame.transaction()
                return
            value = frame.value()
            if kind == fr.OPEN:
                if value[0] <= self.epoch:
                    text = f"epoch {value[0]} after {self.epoch}"
                    self.say(NOTICE, *place, "epoch", f"{text}: harmless, nothing rests on it")
                self.epoch = max(self.epoch, value[0])
            elif kind == fr.SNAPSHOT_REF:
                self.refs.append(value)
            elif kind == fr.PRUNE:
                self.prunes.append(value)
            elif kind == fr.GAP:
                self.say(NOTICE, *place, "gap", f"accepted loss: {value[2]}")
            elif kind == fr.SEAL and (
                value[2] != frame.first_sequence - 1
                or (not self.gapped and value[3] != frame.offset)
                or (tree is not None and value[0] != tree.size)
                or (tree is not None and self.deep and value[1] != tree.peaks)
            ):
                self.damage(*place, "seal", "the seal does not describe its segment")
        except (InvalidRecord, IndexError, TypeError, KeyError) as error:
            self.damage(*place, "codec", f"{frame.kind_name} frame: {error}")


def verify(
    root: str,
    level: str = FULL,
    *,
    reducer: Callable[[], Reducer] | None = None,
    fs: Fs = REAL,
    clock: Clock = REAL_CLOCK,
    processes: int = 1,
) -> Report:
    """Verify the journal in the folder ``root``.

    ``processes``: how many share the segments; more than one only in a program without threads,
    for they are forked.

    Raises ``JournalNotFound``, ``UnsupportedFormat``, ``OSError`` when it cannot be read at all;
    damage is reported, not raised.
    """
    if level not in LEVELS:
        raise ValueError(f"level {level!r} is not one of {', '.join(LEVELS)}")
    import gc

    collecting = gc.isenabled()
    gc.disable()  # frames are no garbage, and looking for some takes a tenth of the time
    try:
        # No lock is held: what a pruning removed under our eyes is not missing.
        for _ in range(PATIENCE):
            oldest = _oldest(fs, root)
            try:
                report = _verify(root, level, reducer, fs, clock, processes)
            except FileNotFoundError:
                if _oldest(fs, root) == oldest:
                    raise
                continue
            if not report.exit_code or _oldest(fs, root) == oldest:
                return report
        return _verify(root, level, reducer, fs, clock, processes)
    finally:
        if collecting:
            gc.enable()


LOOK_AGAIN_S = 0.02
PATIENCE = 5
"""How often what others change is looked at again before it is reported."""


def _oldest(fs: Fs, root: str) -> int:
    """Number of the oldest segment there is."""
    try:
        live = sg.listing(fs, f"{root}/{sg.FOLDER}")
    except OSError:
        return 0
    return min([*live, *sg.listing_archive(fs, f"{root}/{ARCHIVE}")], default=0)


def _verify(
    root: str,
    level: str,
    reducer: Callable[[], Reducer] | None,
    fs: Fs,
    clock: Clock,
    processes: int,
) -> Report:
    walk = _Walk(fs, clock, root, level)
    try:
        found = require(fs, root)
    except JournalDamaged as error:
        walk.damage(0, 0, "format", str(error))
        return _report(walk, [], None, 0, b"")
    if suspect(fs, root):
        walk.damage(0, 0, "suspect", "a sync failed earlier: check the device")
    live = sg.listing(fs, f"{root}/{sg.FOLDER}")
    numbers = sorted(set(live) | set(sg.listing_archive(fs, f"{root}/{ARCHIVE}")))
    if not live:
        walk.damage(0, 0, "missing", f"no segment beside the {FORMAT} file")
        return _report(walk, numbers, None, 0, b"")
    task = _Task(found.uuid, numbers[-1], level)
    everything = range(numbers[0], numbers[-1] + 1)
    if processes > 1 and level != QUICK and len(everything) > 1:
        _shared(walk, task, everything, processes)
    else:
        task.walk(walk, everything)
    if numbers[0] > 1 and level != QUICK:
        explained = [fields for fields in walk.prunes if fields[0] >= numbers[0]]
        if explained and explained[0][0] > numbers[0]:
            text = f"the pruning up to segment {explained[0][0]} was cut short: prune again"
            walk.say(NOTICE, numbers[0], 0, "pruned", text)
        elif explained:
            walk.say(NOTICE, numbers[0], 0, "pruned", f"{explained[0][2]} older frames are pruned")
        else:
            walk.damage(numbers[0] - 1, 0, "missing", "older segments are gone, no prune frame")
    position = _tail(walk, found.uuid, live[-1])
    snapshots = _snapshots(walk, found.uuid) if level != QUICK else 0
    digest = b""
    if level == REPLAY and reducer is not None:
        digest = _replay(walk, found.uuid, reducer())
    return _report(walk, numbers, position, snapshots, digest)


class _Task(NamedTuple):
    """What is the same for all parts of a walk."""

    uuid: bytes
    last: int
    level: str

    def walk(self, walk: _Walk, numbers: Iterable[int]) -> None:
        for number in numbers:
            last = number == self.last
            walk.segment(self.uuid, number, last, self.level != QUICK or last)


def _shared(walk: _Walk, task: _Task, numbers: range, processes: int) -> None:
    """The segments in runs of neighbours, each by a child; a segment's seal and header hold all
    that the next one needs. What a child could not finish is done here."""
    import os
    import pickle

    share = -(-len(numbers) // processes)
    parts = [numbers[at : at + share] for at in range(0, len(numbers), share)]
    children: list[tuple[int, int]] = []
    for part in parts[1:]:
        read_fd, write_fd = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                own = _Walk(walk.fs, walk.clock, walk.root, walk.level)
                task.walk(own, part)
                del own.fs, own.clock
                with open(write_fd, "wb") as file:
                    file.write(pickle.dumps(own))
            finally:
                os._exit(0)
        os.close(write_fd)
        children.append((child, read_fd))
    try:
        task.walk(walk, parts[0])
    finally:
        answers = []
        for child, read_fd in children:
            with open(read_fd, "rb") as file:
                answers.append(file.read())
            os.waitpid(child, 0)
    for part, answer in zip(parts[1:], answers, strict=True):
        if answer:
            walk.add(pickle.loads(answer))
        else:
            task.walk(walk, part)


def _report(
    walk: _Walk, numbers: list[int], position: Position | None, snapshots: int, digest: bytes
) -> Report:
    tree = walk.tree if walk.deep else None
    whole = tree is not None and not any(item.weight == DAMAGE for item in walk.findings)
    return Report(
        walk.level, tuple(walk.findings), len(numbers), walk.frames, walk.events, walk.size,
        position, tree.size if tree and whole else 0, tree.root() if tree and whole else b"",
        snapshots, digest,
    )  # fmt: skip


def _tail(walk: _Walk, uuid: bytes, last: int) -> Position | None:
    """What the decision table says about the end of the log."""
    cursor: Cursor | None = None
    known = walk.expected
    if known is not None and known.segment == last:
        try:
            cursor = Cursor(walk.fs, walk.root, uuid, known)  # what was walked is not walked again
        except (JournalDamaged, ResyncRequired):
            pass
    try:
        cursor = cursor or Cursor(walk.fs, walk.root, uuid, number=last)
    except JournalDamaged:
        try:
            cursor = Cursor(walk.fs, walk.root, uuid, number=last - 1)
        except (JournalError, FileNotFoundError):
            if not any(item.segment == last for item in walk.findings):
                walk.damage(last, 0, "segment-header", "the segment header is damaged")
            return None
    try:
        for _ in range(PATIENCE):
            while cursor.read(None):
                pass
            seen, detail = observe(
                walk.fs, walk.clock, walk.root, uuid, cursor, None, thorough=True
            )
            row = recovery.decide(seen)
            place = cursor.position
            if row.verdict == recovery.ADOPT:
                break
            # A writer may be at it: is the end still there, and the same, a moment later?
            walk.clock.sleep(LOOK_AGAIN_S)
            if not cursor.read(None) and cursor.position == place:
                break
        if row.verdict == recovery.REFUSE:
            walk.damage(cursor.header.number, cursor.offset, row.name, row.reason + detail)
        elif row.verdict != recovery.ADOPT:
            walk.say(TORN, cursor.header.number, cursor.offset, row.name,
                     f"{row.reason}; the next writer cuts it off")  # fmt: skip
        return cursor.position
    finally:
        cursor.close()


def _snapshots(walk: _Walk, uuid: bytes) -> int:
    """Check every snapshot file; an untrusted one is a notice (a snapshot is only a cache)."""
    from journal.layout import SNAPSHOTS
    from journal.snapshot import Snapshot
    from journal.snapshots import listing

    good = 0
    hashes = {fields[0] for fields in walk.refs}
    for entry in listing(walk.fs, walk.root):
        try:
            with Snapshot(walk.fs, f"{walk.root}/{SNAPSHOTS}/{entry.name}") as snapshot:
                if snapshot.described.uuid != uuid:
                    raise SnapshotRefused("of another journal")
                if snapshot.described.hash not in hashes:
                    raise SnapshotRefused("no frame of the log names it")
                snapshot.prove_all()
            good += 1
        except (JournalError, OSError) as error:
            walk.say(NOTICE, 0, 0, "snapshot", f"{entry.name} is not used: {error}")
    return good


def _replay(walk: _Walk, uuid: bytes, state: Reducer) -> bytes:
    """Build the state from nothing; compare with every snapshot's digest on the way."""
    wanted = {(fields[1], fields[2]): fields[4] for fields in walk.refs}
    try:
        cursor = Cursor(walk.fs, walk.root, uuid)
    except JournalError as error:
        walk.damage(0, 0, "replay", str(error))
        return b""
    if cursor.header.number > 1:
        cursor.close()
        text = "the beginning is pruned: no state can be built from nothing"
        walk.say(NOTICE, 0, 0, "replay", text)
        return b""
    try:
        frames: list[Frame] = []
        while cursor.read(frames):
            for frame in frames:
                state.apply(frame)
                expected = wanted.get((frame.segment, frame.stop))
                if expected is not None and state.digest() != expected:
                    walk.damage(
                        frame.segment, frame.stop, "digest",
                        "replay gives another state than the snapshot recorded here",
                    )  # fmt: skip
            frames.clear()
    finally:
        cursor.close()
    return state.digest()
