"""The journal folder: which files it has, how it is created and recognised.

Rules of this module:

* ``FORMAT`` is written last; a folder without it is an unfinished creation as long as its first
  segment holds no frame.
* Creation is repeatable after a crash at any point.
* The reserve is a file of allocated blocks: giving it up makes room for the few frames (deletions)
  that must still be possible on a full disk (docs/decisions/0011).
"""

from __future__ import annotations

import errno

from journal import checksum
from journal import segment as sg
from journal.checksum import sha256
from journal.errors import JournalDamaged, JournalExists, JournalNotFound, UnsupportedFormat
from journal.fs import FULL, O_CREATE, Fs, publish, read_file
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from journal.clock import Clock

FORMAT = "FORMAT"
SNAPSHOTS = "snapshots"
RECOVERED = "recovered"
RESERVE = "reserve"
SUSPECT = "SUSPECT"
RESERVE_BYTES = 1 << 20
_FIRST_LINE = "journal 1"


class Format(NamedTuple):
    """The marker's content."""

    uuid: bytes
    created_ns: int


def read_format(fs: Fs, root: str) -> Format | None:
    """The marker, None if there is none; ``JournalDamaged`` if it is not readable as one."""
    try:
        text = read_file(fs, f"{root}/{FORMAT}", 4096).decode("ascii", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    lines = text.splitlines()
    if lines and lines[0].startswith("journal ") and lines[0] != _FIRST_LINE:
        raise UnsupportedFormat(f"{root}: format {lines[0]!r} needs a newer version")
    try:
        fields = dict(line.split(" ", 1) for line in lines)
        uuid = bytes.fromhex(fields["uuid"])
        created = int(fields["created"])
    except (ValueError, KeyError):
        uuid, created = b"", 0
    if len(uuid) != 16 or lines[0] != _FIRST_LINE:
        raise JournalDamaged(
            f"{root}/{FORMAT} is damaged: `repair` writes it anew from the segments",
            rule="format",
        )
    return Format(uuid, created)


def require(fs: Fs, root: str) -> Format:
    """The marker of an existing journal; ``JournalNotFound`` says how to make one."""
    found = read_format(fs, root)
    if found is None:
        if holds_segments(fs, root):
            raise JournalDamaged(lost_marker(root), rule="format")
        raise JournalNotFound(
            f"{root} holds no journal (no {FORMAT} file): create one with mode 'w' and create=True"
        )
    return found


def holds_segments(fs: Fs, root: str) -> bool:
    """Whether there is more than an unfinished creation leaves."""
    folder = f"{root}/{sg.FOLDER}"
    try:
        numbers = sg.listing(fs, folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return bool(numbers) and (
        numbers != [1] or fs.stat(f"{folder}/{sg.name(1)}").st_size > sg.HEADER_SIZE
    )


def lost_marker(root: str) -> str:
    return f"{root} holds segments and no {FORMAT} file: `repair` writes it anew"


def prepare(fs: Fs, root: str) -> None:
    """Make the folder so that the lock file can be opened; refuses a folder of something else."""
    known = {FORMAT, sg.FOLDER, SNAPSHOTS, RECOVERED, RESERVE, SUSPECT, "lock", "queue", "durable",
             "archive", f".{FORMAT}.tmp"}  # fmt: skip
    try:
        entries = fs.listdir(root)
    except FileNotFoundError:
        _make_parents(fs, root)
        entries = []
    except NotADirectoryError:
        raise JournalExists(f"{root} is a file, not a folder") from None
    strange = sorted(set(entries) - known)
    if strange:
        raise JournalExists(f"{root} holds something else ({strange[0]}): name an empty folder")
    for folder in (sg.FOLDER, SNAPSHOTS, RECOVERED):
        fs.mkdir(f"{root}/{folder}")


def _make_parents(fs: Fs, path: str) -> None:
    try:
        fs.mkdir(path)
    except FileNotFoundError:
        parent = path.rpartition("/")[0]
        if not parent:
            raise
        _make_parents(fs, parent)
        fs.mkdir(path)
    parent = path.rpartition("/")[0] or "/"
    fs.sync_directory(parent)


def create(fs: Fs, clock: Clock, root: str) -> Format:
    """Write the first segment and the marker. Under the writer lock; harmless if done already."""
    found = read_format(fs, root)
    if found is not None:
        return found
    folder = f"{root}/{sg.FOLDER}"
    if holds_segments(fs, root):
        raise JournalDamaged(lost_marker(root), rule="format")
    uuid = clock.random(16)
    now = clock.time_ns()
    publish(
        fs, folder, sg.name(1),
        sg.build(
            uuid=uuid, number=1, first_sequence=1, epoch=0, previous=sg.genesis(uuid),
            time_ns=now, boot_id=clock.boot_id(), algorithm=checksum.preferred(),
        ),
    )  # fmt: skip
    text = f"{_FIRST_LINE}\nuuid {uuid.hex()}\ncreated {now}\n"
    publish(fs, root, FORMAT, text.encode("ascii"))
    return Format(uuid, now)


def fill_reserve(fs: Fs, root: str, size: int) -> bool:
    """Allocate the reserve if it is not there; False (and no file left behind) without room."""
    path = f"{root}/{RESERVE}"
    try:
        if size <= 0 or fs.stat(path).st_size >= size:
            return True
    except FileNotFoundError:
        pass
    try:
        fd = fs.open(path, O_CREATE, 0o600)
        try:
            fs.allocate(fd, size)
        except OSError:
            fs.ftruncate(fd, 0)
            raise
        finally:
            fs.close(fd)
    except OSError as error:
        if error.errno in FULL or error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    return True


def spend_reserve(fs: Fs, root: str) -> bool:
    """Give the reserved blocks back to the file system; False if there are none."""
    path = f"{root}/{RESERVE}"
    try:
        if not fs.stat(path).st_size:
            return False
        fs.unlink(path)
    except OSError:
        return False
    return True


def suspect(fs: Fs, root: str) -> bool:
    """Whether an earlier writer saw a failed sync."""
    try:
        fs.stat(f"{root}/{SUSPECT}")
    except FileNotFoundError:
        return False
    return True


def leave_suspect(fs: Fs, root: str, text: str) -> None:
    """Tell all others that a sync failed. The name comes first: a device that refuses syncs will
    refuse the marker's too, and other processes see it all the same."""
    try:
        fd = fs.open(f"{root}/{SUSPECT}", O_CREATE, 0o644)
    except OSError:
        return
    try:
        fs.pwrite(fd, f"{text}\n".encode(), 0)
        fs.fdatasync(fd)
        fs.sync_directory(root)
    except OSError:
        pass
    finally:
        fs.close(fd)


def save_cut(fs: Fs, root: str, number: int, offset: int, data: bytes) -> tuple[bytes, bool]:
    """Keep a copy of bytes about to be cut off; their SHA-256 and whether the copy could be made
    (a full disk must not stop a recovery)."""
    digest = sha256(data).digest()
    name = f"{number:010d}-{offset}-{digest.hex()[:16]}.cut"
    try:
        publish(fs, f"{root}/{RECOVERED}", name, data, 0o600)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return digest, False
    return digest, True
