"""The snapshots of one journal: writing them, and deciding which one may be trusted.

Rules of this module (docs/journal-format.md, section 7):

* A snapshot is a cache. Any doubt leads to the next older one, then to a full replay.
* Trusted only if the file is whole, has this journal's id, the wanted schema and reducer version,
  the log's link at its position, and a snapshot-ref frame behind that position names its hash.
  Names and times prove nothing.
* Built without the lock. Order: everything up to the position durable, file synced, renamed,
  folder synced, ref frame committed; only then may anything older go.
"""

from __future__ import annotations

from journal import frame as fr
from journal.cursor import Cursor
from journal.errors import (
    InvalidRecord,
    JournalDamaged,
    JournalError,
    SnapshotRefused,
    UnsupportedFormat,
)
from journal.layout import SNAPSHOTS
from journal.plain import TYPE_CHECKING, Any, NamedTuple
from journal.snapshot import Described, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from journal.facade import Journal
    from journal.fs import Fs
    from journal.position import Position

SUFFIX = ".snap"


class Listed(NamedTuple):
    """A file in the snapshot folder, as named."""

    sequence: int
    name: str


def listing(fs: Fs, root: str) -> list[Listed]:
    """Snapshot files by name, newest sequence first (names prove nothing)."""
    found = []
    try:
        entries = fs.listdir(f"{root}/{SNAPSHOTS}")
    except FileNotFoundError:
        return []
    for entry in entries:
        parts = entry.split("-")
        if entry.endswith(SUFFIX) and len(parts) == 3 and parts[1].isdigit():
            found.append(Listed(int(parts[1]), entry))
    return sorted(found, reverse=True)


def newest_sequence(fs: Fs, root: str, uuid: bytes, above: int) -> int:
    """Highest sequence of a whole snapshot of this journal, looking only at names ``above``."""
    for entry in listing(fs, root):
        if entry.sequence <= above:
            break
        try:
            with Snapshot(fs, f"{root}/{SNAPSHOTS}/{entry.name}") as snapshot:
                if snapshot.described.uuid == uuid:
                    return snapshot.position.sequence
        except (JournalError, OSError):
            continue
    return 0


class Snapshots:
    """Use it as ``journal.snapshots``."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.folder = f"{journal.root}/{SNAPSHOTS}"

    # -- trust --------------------------------------------------------------------------------

    def open_trusted(self, *, schema: int, reducer_version: int) -> Snapshot | None:
        """The newest snapshot that may be trusted, None if there is none: replay everything.

        ``JournalDamaged`` if there is none and not everything is left to be replayed.
        """
        fs, root = self._journal.fs, self._journal.root
        before: list[Listed] | None = None
        while True:
            found = listing(fs, root)
            for entry in found:
                try:
                    return self.open_one(entry.name, schema=schema, reducer_version=reducer_version)
                except (SnapshotRefused, UnsupportedFormat, InvalidRecord, OSError):
                    continue
            if found == before:
                break  # else: they were replaced while we looked
            before = found
        with self._journal.reader() as reader:
            first = reader.position
        if first.segment > 1:
            raise JournalDamaged(
                f"{root}: the history before event {first.sequence + 1} is gone and no snapshot "
                f"of schema {schema} and reducer version {reducer_version} may be trusted: restore "
                "one from a copy"
            )
        return None

    def open_one(
        self, name: str, *, schema: int | None = None, reducer_version: int | None = None
    ) -> Snapshot:
        """The snapshot file ``name``, if it may be trusted; ``SnapshotRefused`` names the rule."""
        snapshot = Snapshot(self._journal.fs, f"{self.folder}/{name}")
        try:
            said = snapshot.described
            if said.uuid != self._journal.uuid:
                raise SnapshotRefused(f"{name}: of another journal")
            if schema is not None and said.schema != schema:
                raise SnapshotRefused(f"{name}: schema {said.schema}, not {schema}")
            if reducer_version is not None and said.reducer_version != reducer_version:
                raise SnapshotRefused(
                    f"{name}: reducer version {said.reducer_version}, not {reducer_version}"
                )
            self._find_reference(name, said)
        except BaseException:
            snapshot.close()
            raise
        return snapshot

    def _find_reference(self, name: str, said: Described) -> None:
        """Walk from the snapshot's position (which proves its link) to the frame that names it."""
        journal = self._journal
        try:
            cursor = Cursor(journal.fs, journal.root, journal.uuid, said.position)
        except FileNotFoundError as error:
            raise SnapshotRefused(f"{name}: its segment is gone") from error
        except JournalError as error:
            raise SnapshotRefused(f"{name}: {error}") from error
        try:
            if cursor.sequence != said.position.sequence:
                raise SnapshotRefused(f"{name}: its sequence is not that of its position")
            frames: list[fr.Frame] = []
            cursor.chunk = 8 << 10  # the frame usually follows soon: do not read the whole tail
            while cursor.read(frames):
                cursor.chunk = min(cursor.chunk * 2, 1 << 20)
                for frame in frames:
                    if frame.kind == fr.SNAPSHOT_REF and frame.value()[0] == said.hash:
                        return
                frames.clear()
        finally:
            cursor.close()
        raise SnapshotRefused(f"{name}: no frame of the log names it")

    # -- writing ------------------------------------------------------------------------------

    def write(
        self,
        items: Iterable[tuple[bytes, bytes]],
        *,
        position: Position,
        schema: int,
        reducer_version: int,
        digest: bytes,
        meta: Any = None,
    ) -> Described:
        """Build a snapshot of the state after ``position`` from ``items`` (sorted by key, unique)
        and record it in the log. Errors: ``InvalidRecord`` (order), ``JournalReadOnly``,
        ``LockTimeout``, ``OSError``; a half-built file is removed."""
        from journal.snapshot_writer import write

        journal = self._journal
        with journal.writer() as held:  # adopts the tail: everything up to it is durable now
            if position[:2] > held.tail[:2]:
                raise JournalError("a snapshot cannot be ahead of the log")
        cursor = Cursor(journal.fs, journal.root, journal.uuid, position)
        cursor.close()  # proved that the position is part of the history
        journal.fs.mkdir(self.folder)
        temporary = f"{self.folder}/.new-{journal.clock.random(8).hex()}.tmp"
        try:
            said = write(
                journal.fs, temporary, items, uuid=journal.uuid, position=position, schema=schema,
                reducer_version=reducer_version, digest=digest, time_ns=journal.clock.time_ns(),
                meta=meta,
            )  # fmt: skip
            name = f"snap-{position.sequence:020d}-{said.hash.hex()[:16]}{SUFFIX}"
            journal.fs.rename(temporary, f"{self.folder}/{name}")
        except BaseException:
            try:
                journal.fs.unlink(temporary)
            except OSError:
                pass
            raise
        journal.fs.sync_directory(self.folder)
        journal.control(
            fr.SNAPSHOT_REF,
            [said.hash, position.segment, position.offset, position.sequence, said.digest,
             schema, reducer_version, said.count],
        )  # fmt: skip
        return said

    # -- keeping ------------------------------------------------------------------------------

    def trusted(self) -> list[str]:
        """Names of all snapshots that may be trusted, newest first."""
        names = []
        for entry in listing(self._journal.fs, self._journal.root):
            try:
                self.open_one(entry.name).close()
            except (SnapshotRefused, UnsupportedFormat, InvalidRecord, FileNotFoundError):
                continue
            names.append(entry.name)
        return names

    def maintain(self, keep: int = 2) -> list[str]:
        """Remove what nobody may trust, temporaries too, once it is an hour old, and all but the
        newest ``keep`` trusted snapshots; the names removed. Takes the writer lock."""
        journal = self._journal
        removed = []
        with journal.writer():
            trusted = self.trusted()
            good = trusted[: max(1, keep)]
            for entry in journal.fs.listdir(self.folder):
                if entry in good:
                    continue
                # Somebody may be writing it, or be about to record it in the log.
                if entry not in trusted and not self._old(entry):
                    continue
                journal.fs.unlink(f"{self.folder}/{entry}")
                removed.append(entry)
            if removed:
                journal.fs.sync_directory(self.folder)
        return removed

    def _old(self, entry: str) -> bool:
        """What nobody has touched for an hour was left by a crash."""
        try:
            age = (
                self._journal.clock.time_ns()
                - self._journal.fs.stat(f"{self.folder}/{entry}").st_mtime_ns
            )
        except OSError:
            return False
        return age > 3600 * 10**9
