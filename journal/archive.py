"""Sealed segments outside the log folder: compressed, still readable; and pruning.

Rules of this module (docs/journal-format.md, section 8):

* Only sealed segments with a successor move; the archive file is complete, durable and read back
  before the segment's name goes, so one of the two always exists.
* The archive file is one zstd frame with content size; what it holds is verified like any segment.
* Pruning happens only below two verified snapshots, oldest first, after a prune frame with the last
  link and the tree over what goes; so what remains is always a contiguous suffix that explains
  itself. A pruning cut short is finished by the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal import frame as fr
from journal import segment as sg
from journal.cursor import ARCHIVE, Cursor, open_segment
from journal.errors import JournalDamaged, JournalError, SnapshotRefused, UnsupportedFormat
from journal.fs import Fs, publish, read_file
from journal.merkle import last_frame, peaks_before

if TYPE_CHECKING:
    from journal.facade import Journal

_LIMIT = 1 << 30


def load(fs: Fs, root: str, number: int) -> bytes:
    """The bytes of an archived segment. ``JournalDamaged`` if they cannot be unpacked."""
    try:
        import zstandard
    except ImportError as error:
        raise UnsupportedFormat("archived segments need the zstandard package") from error
    path = f"{root}/{ARCHIVE}/{sg.name(number)}.zst"
    raw = read_file(fs, path)
    try:
        size = zstandard.frame_content_size(raw)
        if not 0 < size <= _LIMIT:
            raise JournalDamaged(f"{path}: does not state a sane size", segment=number)
        data: bytes = zstandard.ZstdDecompressor().decompress(raw)
    except zstandard.ZstdError as error:
        raise JournalDamaged(f"{path}: {error}", segment=number) from error
    return data


def _sealed(journal: Journal) -> list[int]:
    """Numbers of the live segments that have a successor."""
    return sg.listing(journal.fs, f"{journal.root}/{sg.FOLDER}")[:-1]


def archive(journal: Journal, *, keep: int = 1) -> list[int]:
    """Move all sealed segments but the newest ``keep`` to the archive; their numbers.

    Errors: ``JournalReadOnly``, ``LockTimeout``, ``JournalDamaged`` (a segment that does not
    verify stays where it is), ``OSError``.
    """
    import zstandard

    fs, root = journal.fs, journal.root
    moved = []
    with journal.writer():
        numbers = _sealed(journal)
        for number in numbers[: max(0, len(numbers) - keep)]:
            _prove(journal, number)
            data = read_file(fs, f"{root}/{sg.FOLDER}/{sg.name(number)}")
            fs.mkdir(f"{root}/{ARCHIVE}")
            packed = zstandard.ZstdCompressor(level=10, write_checksum=True).compress(data)
            publish(fs, f"{root}/{ARCHIVE}", f"{sg.name(number)}.zst", packed, 0o444)
            if load(fs, root, number) != data:
                raise JournalDamaged(f"the archive copy of segment {number} reads back wrong")
            fs.sync_directory(root)
            fs.unlink(f"{root}/{sg.FOLDER}/{sg.name(number)}")
            moved.append(number)
        if moved:
            fs.sync_directory(f"{root}/{sg.FOLDER}")
    return moved


def _prove(journal: Journal, number: int) -> None:
    """Walk a sealed segment to its seal."""
    cursor = Cursor(journal.fs, journal.root, journal.uuid, number=number)
    try:
        while not cursor.sealed and cursor.read(None):
            pass
        if cursor.header.number == number and (not cursor.sealed or cursor.fault != fr.NONE):
            raise JournalDamaged(
                f"segment {number} does not verify at offset {cursor.offset}: it stays",
                segment=number,
                offset=cursor.offset,
            )
    finally:
        cursor.close()


def prune(journal: Journal, *, before_sequence: int | None = None) -> list[int]:
    """Remove sealed segments, live or archived, whose events two verified snapshots both cover
    (and, if given, that end before ``before_sequence``); their numbers.

    Raises ``JournalError`` when there are not two such snapshots.
    """
    fs, root = journal.fs, journal.root
    with journal.writer() as held:
        good = []
        for name in journal.snapshots.trusted():
            with journal.snapshots.open_one(name) as snapshot:
                try:
                    snapshot.prove_all()
                except SnapshotRefused:
                    continue
                good.append(snapshot.position)
        if len(good) < 2:
            raise JournalError(
                f"{root}: pruning needs two verified snapshots, there are {len(good)}: "
                "write snapshots first"
            )
        limit = sorted(good, reverse=True)[1]
        live = _sealed(journal)
        archived = sg.listing_archive(fs, f"{root}/{ARCHIVE}")
        numbers = sorted(set(live) | set(archived))
        going = []
        for number in numbers:
            if number >= limit.segment:
                break
            following = _header(fs, root, number + 1)
            if before_sequence is not None and following.first_sequence > before_sequence:
                break
            going.append(number)
        if going:
            _record(journal, held.control, going[-1])
            for number in going:
                for path in (
                    f"{root}/{sg.FOLDER}/{sg.name(number)}",
                    f"{root}/{ARCHIVE}/{sg.name(number)}.zst",
                ):
                    try:
                        fs.unlink(path)
                    except FileNotFoundError:
                        continue
                    fs.sync_directory(path.rpartition("/")[0])
    return going


def _header(fs: Fs, root: str, number: int) -> sg.SegmentHeader:
    handle = open_segment(fs, root, number)
    try:
        header = sg.parse(handle.read(sg.HEADER_SIZE, 0))
    finally:
        handle.close()
    if header is None:
        raise JournalDamaged(f"segment {number}: the header is damaged", segment=number)
    return header


def _record(journal: Journal, control: object, last: int) -> None:
    """The prune frame: [first segment kept, last link removed, frames removed, tree peaks]."""
    fs, root = journal.fs, journal.root
    handle = open_segment(fs, root, last + 1)
    try:
        buffer = handle.read(handle.size(), 0)
    finally:
        handle.close()
    tree = peaks_before(fs, root, last + 1, buffer)
    _, _, link = last_frame(fs, root, last)
    assert callable(control)
    control(fr.PRUNE, [last + 1, link, tree.size, tree.peaks])
