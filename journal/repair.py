"""Repair a damaged journal from what proves itself; nothing is edited in place.

Rules of this module (docs/recovery.md, "Repair"):

* A dry run by default: a list of steps. With ``apply`` the original of every file is set aside with
  its hash, the new one is written beside it and renamed over it.
* Frames whose content still proves itself are restored; lost ones become a gap frame, and only if
  the loss is accepted.
* A torn tail is not repair's business: the next writer cuts it off.
* Under the writer lock. Readers that had the old file open are told to resync.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from journal import checksum, layout, recovery
from journal import clock as clocks
from journal import frame as fr
from journal import fs as filesystems
from journal import mark as mk
from journal import segment as sg
from journal.codec import encode
from journal.cursor import ARCHIVE, Cursor, open_segment
from journal.errors import JournalDamaged, JournalError
from journal.fs import Fs, publish
from journal.lock import WriterLock
from journal.observe import observe
from journal.salvage import Gap, Piece, Salvage, rebuild, salvage

if TYPE_CHECKING:
    from journal.clock import Clock


class Step(NamedTuple):
    """One change: the file, what will be done, events lost by it."""

    file: str
    text: str
    lost: int


class Outcome(NamedTuple):
    """What is to be done or was done. ``lost`` counts sequence numbers; -1 unknown extent."""

    steps: tuple[Step, ...]
    applied: bool
    lost: int
    torn: bool


class _Repair:
    def __init__(self, fs: Fs, clock: Clock, root: str) -> None:
        self.fs = fs
        self.clock = clock
        self.root = root
        self.steps: list[Step] = []
        self.new: list[tuple[int, bytes, bytes | None]] = []  # number, bytes, original
        self.format: bytes | None = None
        self.lost = 0
        self.torn = False

    # -- planning -----------------------------------------------------------------------------

    def plan(self) -> None:
        fs, root = self.fs, self.root
        live = sg.listing(fs, f"{root}/{sg.FOLDER}")
        numbers = sorted(set(live) | set(sg.listing_archive(fs, f"{root}/{ARCHIVE}")))
        if not numbers:
            raise JournalDamaged(f"{root}: no segment is left: restore them from a copy")
        uuid = self._identity(numbers)
        expected: tuple[bytes, int] | None = None
        from journal.verify import verify

        report = verify(root, fs=fs, clock=self.clock) if numbers[0] > 1 else None
        if report is not None and any(
            f.rule == "missing" and f.segment == numbers[0] - 1 for f in report.findings
        ):
            numbers[0] = 1  # no prune frame explains that the beginning is gone
        for number in range(numbers[0], numbers[-1] + 1):
            following = self._header(number + 1, uuid)
            expected = self._segment(uuid, number, expected, following, number == numbers[-1])

    def _bytes(self, number: int) -> bytes | None:
        try:
            handle = open_segment(self.fs, self.root, number)
        except (FileNotFoundError, JournalDamaged):
            return None
        try:
            return handle.read(handle.size(), 0)
        finally:
            handle.close()

    def _header(self, number: int, uuid: bytes) -> sg.SegmentHeader | None:
        header = sg.parse((self._bytes(number) or b"")[: sg.HEADER_SIZE])
        if header is None or header.uuid != uuid or header.number != number:
            return None
        return header

    def _identity(self, numbers: list[int]) -> bytes:
        """The journal's id: from the marker, else from the segments (which must agree)."""
        try:
            found = layout.read_format(self.fs, self.root)
            if found is not None:
                return found.uuid
        except JournalDamaged:
            pass
        ids: dict[bytes, int] = {}
        for number in numbers:
            header = sg.parse((self._bytes(number) or b"")[: sg.HEADER_SIZE])
            if header is not None:
                ids[header.uuid] = header.time_ns if header.number == 1 else 0
        if len(ids) != 1:
            raise JournalDamaged(f"{self.root}: the segments do not tell one journal id")
        (uuid, created) = next(iter(ids.items()))
        text = f"journal 1\nuuid {uuid.hex()}\ncreated {created}\n"
        self.format = text.encode("ascii")
        self.steps.append(Step(layout.FORMAT, "write the marker anew from the segments", 0))
        return uuid

    def _segment(
        self,
        uuid: bytes,
        number: int,
        expected: tuple[bytes, int] | None,
        following: sg.SegmentHeader | None,
        last: bool,
    ) -> tuple[bytes, int]:
        """Plan one segment; the chain state and last sequence behind it."""
        buffer = self._bytes(number)
        raw = (buffer or b"")[: sg.HEADER_SIZE]
        header = sg.parse(raw)
        name = sg.name(number)
        changes: list[str] = []
        lost = 0
        if header is not None and (header.uuid != uuid or header.number != number):
            buffer, header = None, None
            changes.append("the file is another segment's or journal's")
        if header is None or (
            expected is not None
            and (header.previous != expected[0] or header.first_sequence != expected[1] + 1)
        ):
            if (
                last
                and expected is not None
                and (buffer is None or len(buffer) <= sg.HEADER_SIZE)
                and self._known(uuid, expected[1])[:2] <= (number, sg.HEADER_SIZE)
                and self._known(uuid, expected[1])[2] <= expected[1]
            ):
                self.torn = True  # an unfinished rotation: the next writer's business
                return expected
            raw, header = self._new_header(uuid, number, expected, raw)
            changes.append("write the segment header anew")
        seed, extend = header.seed, checksum.extender(header.algorithm)
        stored = int.from_bytes((buffer or b"")[sg.HEADER_SIZE - 4 : sg.HEADER_SIZE], "little")
        found = salvage(
            buffer or b"", sg.HEADER_SIZE, chain_from=header.previous,
            sequence=header.first_sequence - 1, seed=stored or seed, extend=extend,
        )  # fmt: skip
        pieces = list(found.pieces)
        restored = sum(1 for piece in pieces if isinstance(piece, Piece) and piece.restored)
        if restored and not changes:
            changes.append(f"restore {restored} frames whose content is proved")
        gaps = [piece for piece in pieces if isinstance(piece, Gap)]
        state, sequence = found.chain, found.sequence
        if last:
            sequence, extra = self._end(uuid, number, found, bool(changes or gaps))
            if extra is not None and found.sealed:
                if found.rest:
                    changes.append(f"drop {len(found.rest)} bytes behind the seal")
                if extra.last >= extra.first:
                    self._successor(uuid, number + 1, found, extra)
            elif extra is not None:
                pieces.append(extra)
                gaps.append(extra)
        elif found.sealed and found.rest:
            changes.append(f"drop {len(found.rest)} bytes behind the seal")
        elif not found.sealed:
            state, sequence = self._seal(pieces, gaps, found, header, following)
        for gap in gaps:
            lost += max(0, gap.last - gap.first + 1)
            changes.append(
                f"replace {len(gap.lost)} bytes by a gap of events {gap.first} to {gap.last}"
                if gap.last >= gap.first
                else f"replace {len(gap.lost)} bytes that held no known event by a gap"
            )
        if changes:
            data, chained = rebuild(
                pieces, header=raw, seed=seed, extend=extend,
                sequence=header.first_sequence - 1, chain_from=header.previous,
                time_ns=self.clock.time_ns(), reason="repair",
            )  # fmt: skip
            self.new.append((number, data, buffer))
            self.steps.append(Step(name, "; ".join(changes), lost))
            self.lost += lost
            state = chained
        return state, sequence

    def _successor(self, uuid: bytes, number: int, found: Salvage, gap: Gap) -> None:
        """Events known to have followed a sealed segment are lost with their file."""
        gap = gap._replace(lost=b"")
        raw, header = self._new_header(uuid, number, (found.chain, found.sequence), b"")
        data, _ = rebuild(
            [gap], header=raw, seed=header.seed, extend=checksum.extender(header.algorithm),
            sequence=found.sequence, chain_from=found.chain, time_ns=self.clock.time_ns(),
            reason="repair",
        )  # fmt: skip
        lost = gap.last - gap.first + 1
        self.new.append((number, data, None))
        self.steps.append(
            Step(sg.name(number), f"make it anew, events {gap.first} to {gap.last} are a gap", lost)
        )
        self.lost += lost

    def _new_header(
        self, uuid: bytes, number: int, expected: tuple[bytes, int] | None, old: bytes
    ) -> tuple[bytes, sg.SegmentHeader]:
        if expected is None:
            if number != 1:
                raise JournalDamaged(
                    f"{self.root}: the header of the oldest segment is lost: restore it from a copy"
                )
            expected = (sg.genesis(uuid), 0)
        known = sg.parse(old)
        raw = sg.build(
            uuid=uuid, number=number, first_sequence=expected[1] + 1,
            epoch=known.epoch if known else 0, previous=expected[0],
            time_ns=known.time_ns if known else self.clock.time_ns(),
            boot_id=known.boot_id if known else bytes(16),
            algorithm=known.algorithm if known else checksum.preferred(),
        )  # fmt: skip
        header = sg.parse(raw)
        assert header is not None
        return raw, header

    def _seal(
        self,
        pieces: list[Piece | Gap],
        gaps: list[Gap],
        found: Salvage,
        header: sg.SegmentHeader,
        following: sg.SegmentHeader | None,
    ) -> tuple[bytes, int]:
        """A segment with a successor ends with a gap up to it and a seal that leads to it."""
        sequence = found.sequence
        chained = found.chain
        if following is not None:
            sequence, chained = following.first_sequence - 1, following.previous
        if sequence < found.sequence:
            raise JournalDamaged(
                f"{self.root}: segment {header.number} and its successor overlap: "
                "restore one of them from a copy"
            )
        gap = Gap(found.sequence + 1, sequence, found.rest, None, None)
        gaps.append(gap)
        pieces.append(gap)
        body = encode([None, [], sequence, 0, chained])
        length = len(body)
        data, link = fr.build(
            checksum.extender(header.algorithm), 0, 0, bytes(32), kind=fr.SEAL,
            first_sequence=sequence + 1, count=0, promise=0, time_ns=self.clock.time_ns(),
            body=body,
        )  # fmt: skip
        # The gap's link is known only when the segment is built: the seal is taken as stated.
        head = data[8 : fr.HEADER_SIZE]
        gap = gap._replace(following=link)
        gaps[-1] = gap
        pieces[-1] = gap
        pieces.append(Piece(head, body + bytes(-length & 7), link, fr.SEAL, sequence + 1, 0, True))
        return chained, sequence

    def _end(
        self, uuid: bytes, number: int, found: Salvage, rewritten: bool
    ) -> tuple[int, Gap | None]:
        """The last segment's end: torn (left to the writer, or dropped when the file is rewritten
        anyway), or lost durable events."""
        known = self._known(uuid, found.sequence)[2]
        if not rewritten:
            try:
                cursor = Cursor(self.fs, self.root, uuid, number=number)
            except JournalError:
                return found.sequence, None
            try:
                while cursor.read(None):
                    pass
                seen, _ = observe(self.fs, self.clock, self.root, uuid, cursor, None, thorough=True)
            finally:
                cursor.close()
            row = recovery.decide(seen)
            if row.verdict != recovery.REFUSE:
                self.torn = row.verdict != recovery.ADOPT
                return found.sequence, None
        elif known <= found.sequence and not found.rest:
            return found.sequence, None
        last = max(known, found.sequence)
        return last, Gap(found.sequence + 1, last, found.rest, None, None)

    def _known(self, uuid: bytes, above: int) -> tuple[int, int, int]:
        """Segment, offset and sequence somebody knows to have been durable."""
        from journal.snapshots import newest_sequence

        mark = mk.load(self.fs, self.root, self.clock.boot_id())
        known = newest_sequence(self.fs, self.root, uuid, above)
        if mark is None:
            return 0, 0, known
        return mark.segment, mark.offset, max(known, mark.sequence)

    # -- acting -------------------------------------------------------------------------------

    def apply(self) -> None:
        fs, root = self.fs, self.root
        fs.mkdir(f"{root}/{layout.RECOVERED}")
        if self.format is not None:
            publish(fs, root, layout.FORMAT, self.format)
        for number, data, original in self.new:
            if original is not None:
                name = f"{sg.name(number)}.{sha256(original).hexdigest()[:16]}.orig"
                publish(fs, f"{root}/{layout.RECOVERED}", name, original, 0o400)
            publish(fs, f"{root}/{sg.FOLDER}", sg.name(number), data)
            try:
                fs.unlink(f"{root}/{ARCHIVE}/{sg.name(number)}.zst")
                fs.sync_directory(f"{root}/{ARCHIVE}")
            except FileNotFoundError:
                pass
        if self.new:
            try:  # the mark speaks of bytes that are no more
                fd = fs.open(f"{root}/{mk.NAME}", filesystems.O_RDWR)
                try:
                    fs.pwrite(fd, bytes(mk.SIZE), 0)
                finally:
                    fs.close(fd)
            except FileNotFoundError:
                pass


def _require(fs: Fs, root: str) -> None:
    """``JournalNotFound`` for a folder of something else, before a lock file is left in it."""
    if not layout.holds_segments(fs, root):
        layout.require(fs, root)


def repair(
    root: str,
    *,
    apply: bool = False,
    accept_loss: bool = False,
    fs: Fs | None = None,
    clock: Clock | None = None,
    timeout_s: float = 10.0,
) -> Outcome:
    """Plan, and with ``apply`` carry out, the repair of the journal in ``root``.

    Raises ``JournalError`` when events would be lost and ``accept_loss`` was not given (nothing is
    changed then), ``JournalDamaged`` when a copy is needed, ``LockTimeout``.
    """
    fs = fs or filesystems.REAL
    clock = clock or clocks.REAL
    _require(fs, root)
    task = _Repair(fs, clock, root)
    if not apply:
        task.plan()
        return Outcome(tuple(task.steps), False, task.lost, task.torn)
    held = WriterLock(fs, clock, root)
    try:
        held.acquire(timeout_s)
        task.plan()
        gaps = any("gap" in step.text for step in task.steps)
        if gaps and not accept_loss:
            raise JournalError(
                f"{root}: the repair loses {task.lost} events; look for a copy first, or accept "
                "the loss (--accept-loss)"
            )
        task.apply()
    finally:
        held.close()
    return Outcome(tuple(task.steps), True, task.lost, task.torn)


def clear_suspect(root: str, *, fs: Fs | None = None, clock: Clock | None = None) -> None:
    """Allow writing again after a failed sync, if a full verification finds no damage."""
    from journal.verify import verify

    fs = fs or filesystems.REAL
    clock = clock or clocks.REAL
    _require(fs, root)
    held = WriterLock(fs, clock, root)
    try:
        held.acquire(10.0)
        report = verify(root, fs=fs, clock=clock)
        bad = [f for f in report.findings if f.weight == "damage" and f.rule != "suspect"]
        if bad:
            raise JournalDamaged(f"{root}: {bad[0].text} ({bad[0].rule}): repair it first")
        try:
            fs.unlink(f"{root}/{layout.SUSPECT}")
        except FileNotFoundError:
            return
        fs.sync_directory(root)
    finally:
        held.close()
