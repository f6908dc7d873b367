"""Work folders below ``staging/`` and ``trash/``: what is not yet, or no longer, part of the store.

A work folder is a pair ``<name>.lock`` and ``<name>/``. The owner holds an exclusive ``flock`` on
the lock file for as long as the folder is in use; the kernel frees it when the owner dies, and with
it whatever process it had write there (``guards``), so a folder whose lock can be had is left over.

Inside, ``=intent`` lists what the owner was about to put into the store or take out of it (layer
IDs and content keys). It is durable before the first of these moves. Whoever finds a left-over
folder settles each listed thing by the only truth there is: what the journal's state does not know
is removed, what it knows stays. The same rule serves an interrupted creation (moved in, event
never written) and an interrupted deletion (event written, not yet moved out).

Layer trees are in it under their IDs. All else has a name that begins with ``=``, as no layer ID
may, or is named ``content-`` and a digest.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator

from cstorage.content import sync_directory, write_new, write_synced
from journal.codec import decode, encode
from journal.errors import InvalidRecord
from journal.plain import Any, NamedTuple, Path

_INTENT = "=intent"
DELETED = "=deleted"
"""What ``kept`` writes of deleted items."""


class Swap(NamedTuple):
    """A layer's tree that is to change places with the folder ``=tree`` of the work folder.

    ``inode`` is that of the new tree, ``recipe`` what the layer's record says when it is in place.
    """

    layer: str
    inode: int
    recipe: str


class Folder(NamedTuple):
    """The directories that callers have for an image or a container (``directories``)."""

    kind: str
    id: str


class Intent(NamedTuple):
    """Layer IDs (of one driver) and content keys that are about to move in or out, and swaps.

    ``folders`` are about to be removed. ``annex`` is a folder for what is on another file system
    than the work folder; it goes with that.
    """

    driver: str = ""
    layers: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()
    swaps: tuple[Swap, ...] = ()
    folders: tuple[Folder, ...] = ()
    annex: str = ""

    @property
    def moves(self) -> bool:
        """Whether it lists anything."""
        return any((self.layers, self.contents, self.swaps, self.folders))


class Workspace:
    """One work folder, owned by this process until ``discard`` or ``abandon``."""

    def __init__(self, path: Path, lock_fd: int, intent: Intent | None = None) -> None:
        self.path = path
        self.intent = intent or Intent()
        self._lock_fd = lock_fd

    @classmethod
    def create(cls, parent: Path, name: str = "") -> Workspace:
        """A new, empty, locked folder below ``parent`` (made if missing)."""
        os.makedirs(parent, mode=0o700, exist_ok=True)
        while True:
            path = parent / (name or os.urandom(8).hex())
            lock = f"{path}.lock"
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A sweeper may have taken the unlocked file for a left-over and removed it.
                if os.fstat(fd).st_nlink:
                    os.mkdir(path, mode=0o700)
                    return cls(path, fd)
            except BlockingIOError:
                pass
            except BaseException:
                _forget(lock)
                os.close(fd)
                raise
            os.close(fd)

    @classmethod
    def claim(cls, path: Path) -> Workspace | None:
        """The folder at ``path``, locked; ``None`` if it is gone or somebody else has it."""
        try:
            fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        found = cls(path, fd, _read_intent(path))
        if os.fstat(fd).st_nlink:
            return found
        found.abandon()
        return None

    @property
    def guards(self) -> tuple[int, ...]:
        """Descriptors: as long as any process has one of them open, the folder is not swept."""
        return (self._lock_fd,) if self._lock_fd >= 0 else ()

    def declare(self, intent: Intent, *, durable: bool = True) -> None:
        """Write down what is about to move between this folder and the store.

        Unless it is ``durable``, the caller syncs the file system before anything moves.
        """
        self.intent = intent
        os.utime(self._lock_fd)  # from now on a sweep has to look at the folder
        draft = self.path / f"{_INTENT}.new"
        write_new(draft, _packed(intent), durable=durable)
        os.rename(draft, self.path / _INTENT)
        if durable:
            sync_directory(self.path)
            sync_directory(self.path.parent)

    def settle(self) -> None:
        """Forget the intent: what it listed is where it belongs."""
        self.intent = Intent()
        (self.path / _INTENT).unlink(missing_ok=True)

    def put(self, key: str, data: bytes) -> Path:
        """Write and sync a content file named ``key`` into the folder."""
        path = self.path / f"content-{key}"
        if not path.exists():
            write_synced(path, data)
        return path

    def keep(self, seconds: float) -> None:
        """Leave the folder for that long to whoever still uses what is in it; sweeps respect it."""
        if seconds > 0 and self._lock_fd >= 0:
            self._discard_annex()
            self.settle()
            until = int(time.time() + seconds)
            (self.path / "keep-until").write_text(str(until))
            # Sweeps look at this first, and open nothing of what need not be looked at yet.
            os.utime(f"{self.path}.lock", (until, until))
            self.abandon()

    @property
    def has_time(self) -> bool:
        """Whether it was left to somebody, be the time over or not."""
        return (self.path / "keep-until").exists()

    def kept(self) -> bool:
        """Whether its time has not come yet."""
        try:
            return time.time() < int((self.path / "keep-until").read_text())
        except (FileNotFoundError, ValueError):
            return False

    def put_file(self, key: str, source: Path) -> None:
        """Take over a synced content file, from another file system if need be."""
        import errno

        path = self.path / f"content-{key}"
        try:
            source.rename(path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            write_synced(path, source.read_bytes())

    def discard(self) -> None:
        """Delete the folder and everything in it, then give up the lock."""
        if self._lock_fd < 0:
            return
        self._discard_annex()
        remove_tree(self.path)
        _forget(f"{self.path}.lock")
        self.abandon()

    def _discard_annex(self) -> None:
        if self.intent.annex:
            remove_tree(Path(self.intent.annex))

    def abandon(self) -> None:
        """Give up the lock and leave the folder to the next sweep."""
        if self._lock_fd >= 0:
            fd, self._lock_fd = self._lock_fd, -1
            # Explicitly, because a forked child may share the open file description.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def declare(work: Workspace, tree_work: Workspace, intent: Intent, *, durable: bool = True) -> None:
    """Write down what moves from two folders, which may be one: trees are in ``tree_work``."""
    if tree_work is work:
        work.declare(intent, durable=durable)
    else:
        work.declare(intent._replace(layers=(), swaps=()), durable=durable)
        tree_work.declare(intent._replace(contents=()), durable=durable)


def _forget(lock: str) -> None:
    try:
        os.unlink(lock)
    except FileNotFoundError:
        pass


def left_over(parent: Path) -> Iterator[Workspace]:
    """Work folders below ``parent`` that nobody owns; each is locked while it is looked at.

    Those whose time has not come are left out.
    """
    now = time.time()
    names: set[str] = set()
    kept: set[str] = set()
    try:
        with os.scandir(parent) as entries:
            for entry in entries:
                name = entry.name.removesuffix(".lock")
                names.add(name)
                try:
                    if name != entry.name and entry.stat().st_mtime > now:
                        kept.add(name)
                except FileNotFoundError:
                    continue
    except FileNotFoundError:
        return
    names -= kept
    for name in sorted(names):
        path = parent / name
        try:
            fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        found = Workspace(path, fd, _read_intent(path))
        if not os.fstat(fd).st_nlink:
            found.abandon()
            continue
        yield found


def any_entries(*parents: Path) -> bool:
    """Whether any of the folders has an entry: one ``scandir`` each, for the quick path at open."""
    for parent in parents:
        try:
            with os.scandir(parent) as entries:
                if next(entries, None) is not None:
                    return True
        except FileNotFoundError:
            continue
    return False


def _packed(intent: Intent) -> bytes:
    """The intent as CBOR; the names are bytes, since IDs may be any text."""
    return encode(
        [
            intent.driver,
            [os.fsencode(layer) for layer in intent.layers],
            [os.fsencode(content) for content in intent.contents],
            [[os.fsencode(s.layer), s.inode, os.fsencode(s.recipe)] for s in intent.swaps],
            [[str(f.kind), os.fsencode(f.id)] for f in intent.folders],
            os.fsencode(intent.annex),
        ]
    )


def _read_intent(path: Path) -> Intent:
    try:
        raw: Any = decode((path / _INTENT).read_bytes())
        raw += [[], ""][len(raw) - 4 :]  # what earlier versions did not write
        return Intent(
            str(raw[0]),
            tuple(map(os.fsdecode, raw[1])),
            tuple(map(os.fsdecode, raw[2])),
            tuple(Swap(os.fsdecode(s[0]), s[1], os.fsdecode(s[2])) for s in raw[3]),
            tuple(Folder(str(f[0]), os.fsdecode(f[1])) for f in raw[4]),
            os.fsdecode(raw[5]),
        )
    except FileNotFoundError:
        return Intent()
    except (InvalidRecord, IndexError, TypeError):
        # On the disk before anything that it lists moves: so nothing has moved yet, or the
        # medium is damaged, and the full sweep of ``gc`` finds the things.
        return Intent()


def remove_tree(path: Path) -> None:
    """Delete ``path`` with everything below it, at any depth; a missing one is fine."""
    from cstorage.drivers import removal

    try:
        removal.remove_tree(os.fspath(path))
    except FileNotFoundError:
        pass  # not even its parent is there
