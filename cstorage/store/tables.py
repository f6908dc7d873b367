"""The state on disk: which tables may be believed, and making new ones (docs/scale.md).

At the bottom lies a snapshot of the journal (``journal/snapshots``, everything), above it a few
*levels* (``index/``, only what changed since the table below). Rules:

* All of it is a cache of the journal. Any doubt leads to an older pile, then to a full replay.
* A pile is believed when its top is whole, of this journal, schema and reducer version; names the
  tables below it by their hashes; stands at a position whose link the journal has; and the journal
  names its hash behind that position. That frame is looked for while the tail is applied, which
  has to be read anyway; a tail without it is thrown away with the pile.
* A new level merges the levels that are less than ``RATIO`` times its size, so there are few and
  an entry is rewritten a logarithmic number of times. When the levels reach a quarter of the
  snapshot a new snapshot replaces all.
* Made by a process of its own (``Helper``), without any lock of the store except for the frame
  that names the new table; one maker at a time. Two piles and two snapshots are kept.
"""

from __future__ import annotations

import os

from cstorage.errors import StoreDamaged
from cstorage.model.stored import SCHEMA
from cstorage.state import State, values
from cstorage.state.levels import Levels, merged
from journal.errors import (
    JournalDamaged,
    JournalError,
    ResyncRequired,
    SnapshotRefused,
    UnsupportedFormat,
)
from journal.frame import SNAPSHOT_REF
from journal.plain import TYPE_CHECKING, Any, NamedTuple
from journal.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from journal import Frame, Journal, Reader

RATIO = 4
"""A level is at least this many times larger than the one above it, or is merged with it."""
LEAST_LEVELS = 20_000
"""Entries that the levels may hold before they are weighed against the snapshot."""
SUFFIX = ".table"


def index_folder(journal_path: str) -> str:
    """Where the levels of the store with this journal are."""
    head, name = os.path.split(journal_path)
    return os.path.join(head, name.removesuffix("journal") + "index")


class Loaded(NamedTuple):
    """A state caught up with the journal, and what that took."""

    state: State
    reader: Reader
    pile: tuple[Snapshot, ...]
    """From the bottom to the top; empty after a full replay."""
    tail_events: int


class _File(NamedTuple):
    """A table file, as named (names prove nothing)."""

    sequence: int
    is_level: bool
    path: str


def _files(folder: str, suffix: str, is_level: bool) -> Iterator[_File]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        if name.endswith(suffix):
            digits = name.removeprefix("snap-").partition("-")[0]
            if digits.isdigit():
                yield _File(int(digits), is_level, os.path.join(folder, name))


def _all_files(journal_path: str) -> list[_File]:
    """Table files, the most promising one first."""
    found = [*_files(os.path.join(journal_path, "snapshots"), ".snap", False)]
    found += _files(index_folder(journal_path), SUFFIX, True)
    return sorted(found, key=lambda file: (-file.sequence, file.is_level, file.path))


def _files_until(journal_path: str, until: int | None) -> list[_File]:
    files = _all_files(journal_path)
    return files if until is None else [file for file in files if file.sequence <= until]


def newest_sequence(journal_path: str) -> int:
    """Event that the newest table stands at, 0 without tables; told from names, so only a hint."""
    return max((file.sequence for file in _all_files(journal_path)), default=0)


def being_made(journal_path: str) -> bool:
    """Whether a process is making a table now."""
    lock = _lock(index_folder(journal_path), wait=False)
    if lock >= 0:
        os.close(lock)
    return lock < 0


def _short(hashed: bytes) -> str:
    return hashed.hex()[:16]


def _open(journal: Journal, path: str) -> Snapshot:
    """The table, whole and made by this version for this journal, else ``SnapshotRefused``."""
    table = Snapshot(journal.fs, path)
    said = table.described
    if (said.uuid, said.schema, said.reducer_version) != (
        journal.uuid,
        SCHEMA,
        values.REDUCER_VERSION,
    ):
        table.close()
        raise SnapshotRefused(f"{path}: of another journal or version")
    return table


def _open_pile(journal: Journal, top: _File, files: list[_File]) -> list[Snapshot]:
    """The table ``top`` and those below it, from the bottom to the top."""
    table = _open(journal, top.path)
    if not top.is_level:
        return [table]
    pile = [table]
    try:
        for hashed in reversed(table.described.meta or ()):
            short = _short(hashed)
            path = next((f.path for f in files if short in os.path.basename(f.path)), None)
            if path is None:
                raise SnapshotRefused(f"{top.path}: rests on {short}, which is gone")
            pile.append(_open(journal, path))
            if pile[-1].described.hash != hashed:
                raise SnapshotRefused(f"{path}: is not the table that {top.path} rests on")
        if len(pile) < 2:
            raise SnapshotRefused(f"{top.path}: rests on nothing")
    except BaseException:
        for below in pile:
            below.close()
        raise
    return pile[::-1]


def _set_aside(table: Any, error: Exception) -> None:
    """A damaged table is renamed, so that the next one who opens the store does not use it."""
    if not isinstance(error, SnapshotRefused):
        return
    try:
        os.rename(table.path, f"{table.path}.damaged")
    except OSError:
        raise StoreDamaged(f"{error}; remove it, it is only a cache of the journal") from error
    raise StoreDamaged(f"{error}; it was set aside, run the command again") from error


def load(
    journal: Journal,
    journal_path: str,
    apply: Callable[[State, Frame], int],
    until: int | None = None,
) -> Loaded:
    """The state after everything the journal shows now.

    ``apply`` applies a frame to a state and says how many events it had. Tables that stand behind
    event ``until`` are not used. Errors: the journal's.
    """
    for _ in range(3):
        files = _files_until(journal_path, until)
        for top in files:
            try:
                loaded = _try(journal, top, files, apply)
            except (SnapshotRefused, UnsupportedFormat, StoreDamaged, FileNotFoundError):
                continue
            if loaded is not None:
                return loaded
        if not files or files == _files_until(journal_path, until):
            break  # else: they were replaced while we looked
    state = State()
    reader = journal.reader(None)
    if reader.position.sequence:
        raise JournalDamaged(
            f"{journal_path}: the history before event {reader.position.sequence + 1} was pruned "
            "and no snapshot of it can be used: restore one from a copy"
        )
    events, _ = _replay(state, reader, apply, b"")
    return Loaded(state, reader, (), events)


def _try(
    journal: Journal, top: _File, files: list[_File], apply: Callable[[State, Frame], int]
) -> Loaded | None:
    """The state on the pile below ``top``; ``None`` if the pile may not be believed."""
    pile = _open_pile(journal, top, files)
    last = pile[-1]
    try:
        reader = journal.reader(last.position)
    except (ResyncRequired, FileNotFoundError):
        reader = None
    except JournalError as error:
        raise SnapshotRefused(f"{top.path}: {error}") from error
    if reader is not None:
        state = State(Levels(pile, _set_aside))
        events, named = _replay(state, reader, apply, last.described.hash)
        if named:
            return Loaded(state, reader, tuple(pile), events)
        reader.close()
    for table in pile:
        table.close()
    return None


def _replay(
    state: State, reader: Reader, apply: Callable[[State, Frame], int], hashed: bytes
) -> tuple[int, bool]:
    """Events applied, and whether a frame of the tail names the hash."""
    import gc

    named = False
    events = 0
    collecting = gc.isenabled()
    gc.disable()  # nothing that replay makes is garbage, and looking for some doubles its time
    try:
        for frame in reader.read_new():
            if frame.kind == SNAPSHOT_REF:
                named = named or frame.value()[0] == hashed
            else:
                events += apply(state, frame)
    finally:
        if collecting:
            gc.enable()
    return events, named


# -- making ----------------------------------------------------------------------------------------


def settle(
    journal: Journal,
    journal_path: str,
    apply: Callable[[State, Frame], int],
    *,
    full: bool = False,
    least: int = 1,
) -> bool:
    """Write what the tail changed as a table; whether one was written.

    ``full`` writes everything as a new snapshot. Nothing is done for fewer than ``least`` events,
    or while another process is at it.
    """
    folder = index_folder(journal_path)
    lock = _lock(folder, wait=full)
    if lock < 0:
        return False
    try:
        loaded = load(journal, journal_path, apply)
        if loaded.tail_events < least and not (full and loaded.reader.position.sequence):
            return False
        pile = loaded.pile
        levels = list(pile[1:])
        size = loaded.state.changes
        weight = size + sum(len(table) for table in levels)
        if full or not pile or weight > max(LEAST_LEVELS, len(pile[0]) // RATIO):
            journal.snapshots.write(
                loaded.state.entries(),
                position=loaded.reader.position,
                schema=SCHEMA,
                reducer_version=values.REDUCER_VERSION,
                digest=loaded.state.digest(),
            )
            journal.snapshots.maintain(2)
            _tidy(journal, journal_path)
            return True
        joined: list[Snapshot] = []
        while levels and len(levels[-1]) < RATIO * size:
            size += len(levels[-1])
            joined.insert(0, levels.pop())
        _write_level(journal, folder, loaded, [pile[0], *levels], joined)
        _tidy(journal, journal_path)
        return True
    finally:
        os.close(lock)


def _lock(folder: str, wait: bool) -> int:
    """Descriptor of the makers' lock, -1 if another process has it."""
    import fcntl

    os.makedirs(folder, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(fd)
        return -1
    return fd


def _write_level(
    journal: Journal, folder: str, loaded: Loaded, below: list[Snapshot], joined: list[Snapshot]
) -> None:
    """Write the tail, merged with the levels ``joined``, as a level on the tables ``below``."""
    from journal.snapshot_writer import write

    position = loaded.reader.position
    with journal.writer() as held:  # adopts the tail: what the table says is durable from here on
        if position[:2] > held.tail[:2]:
            raise JournalError("a table cannot be ahead of the journal")
    base = Levels(below)

    def items() -> Iterator[tuple[bytes, bytes]]:
        scans = [table.scan(b"") for table in joined]
        for key, value in merged([*scans, loaded.state.changed()]):
            # Where the levels in between are merged away, "gone" may have nothing left to hide.
            if value or base.get(key) is not None:
                yield key, value

    temporary = os.path.join(folder, f".new-{os.urandom(8).hex()}")
    try:
        said = write(
            journal.fs,
            temporary,
            items(),
            uuid=journal.uuid,
            position=position,
            schema=SCHEMA,
            reducer_version=values.REDUCER_VERSION,
            digest=loaded.state.digest(),
            time_ns=journal.clock.time_ns(),
            meta=[table.described.hash for table in below],
        )
        name = f"{position.sequence:020d}-{_short(said.hash)}{SUFFIX}"
        os.rename(temporary, os.path.join(folder, name))
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    journal.fs.sync_directory(folder)
    journal.control(
        SNAPSHOT_REF,
        [said.hash, position.segment, position.offset, position.sequence, said.digest,
         SCHEMA, values.REDUCER_VERSION, said.count],
    )  # fmt: skip


def _tidy(journal: Journal, journal_path: str) -> None:
    """Remove the levels that none of the two newest piles needs; the maker's lock is held."""
    files = _all_files(journal_path)
    needed: set[str] = set()
    piles = 0
    for top in files:
        if piles == 2:
            break
        try:
            pile = _open_pile(journal, top, files)
        except (SnapshotRefused, UnsupportedFormat, FileNotFoundError):
            continue
        piles += 1
        for table in pile:
            needed.add(table.path)
            table.close()
    folder = index_folder(journal_path)
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name != "lock" and path not in needed:
            os.unlink(path)


# -- by a process of its own -----------------------------------------------------------------------


def step_back() -> None:
    """Let everybody run before this process, which leads a session of its own."""
    os.nice(10)
    try:
        # Where sessions share the processors evenly, a nice value counts within one only.
        with open("/proc/self/autogroup", "w") as file:
            file.write("10")
    except OSError:
        pass  # here they do not


class Helper:
    """Starts the maker in the background and notices when it has finished."""

    def __init__(self, journal_path: str) -> None:
        self._path = journal_path
        self._pid = 0
        self._started = 0.0

    def start(self, pause_s: float = 0.0) -> bool:
        """Start it, unless one of ours runs or the last start is less than ``pause_s`` ago."""
        import sys
        from time import monotonic

        now = monotonic()
        if self._pid or (self._started and now - self._started < pause_s) or not sys.executable:
            return False
        self._started = now
        top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = (
            "import os, sys; os.chdir('/'); sys.path.insert(0, sys.argv[2]); "
            "from cstorage.store import reading, tables; tables.step_back(); "
            "reading.settle_tables(sys.argv[1])"
        )
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-c", code, self._path, top],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)
                ],
                setsid=True,
            )
        except (OSError, NotImplementedError):
            return False  # it would only have made the next opening quicker
        return True

    def finished(self) -> bool:
        """Whether a helper of ours has ended since the last call."""
        if not self._pid:
            return False
        try:
            pid, _ = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:  # the program collected it
            pid = self._pid
        if pid:
            self._pid = 0
        return bool(pid)
