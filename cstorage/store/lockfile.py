"""Lock files as containers/storage uses them: to work beside its tools, and for callers' own use.

Rules (semantics §7.1, §7.2; drivers-and-formats §1.11):

* A lock is a POSIX record lock on the whole file, shared for readers, exclusive for a writer. These
  belong to the process, so every path has exactly one object per process (``get_lockfile`` and
  ``get_ro_lockfile`` hand it out), with a lock among threads inside. Shared locks nest by counting.
* The file is opened at the first acquisition and closed at the last release; it and its directory
  (0700) are made if missing. A path is either read-write or read-only in a process.
* The first 64 bytes are the token of the last writer: time in ns (8 bytes, little endian), counter
  (8), process ID (4), random (44). An empty file is the token "never written".

Misuse (unlocking twice, touching without the exclusive lock) raises ``LockMisuse``.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import contextmanager

from cstorage.errors import StorageError, StoreIsReadOnly
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN_BYTES = 64

_known: dict[tuple[int, str], LockFile] = {}
_registry = threading.Lock()
_writes = 0


class LockMisuse(StorageError):
    """A lock was released, or used, that is not held that way."""


def get_lockfile(path: str | os.PathLike[str]) -> LockFile:
    """The lock object of ``path`` for readers and writers; one per path and process.

    Raises ``StorageError`` if the path is in use as a read-only lock.
    """
    return _get(path, read_only=False)


def get_ro_lockfile(path: str | os.PathLike[str]) -> LockFile:
    """The lock object of ``path`` for readers only.

    Raises ``StorageError`` if the path is in use as a read-write lock.
    """
    return _get(path, read_only=True)


def _get(path: str | os.PathLike[str], *, read_only: bool) -> LockFile:
    absolute = os.path.abspath(os.fspath(path))
    with _registry:
        key = (os.getpid(), absolute)  # a forked child has none of its parent's locks
        found = _known.get(key)
        if found is None:
            found = _known[key] = LockFile(absolute, read_only=read_only)
    if found.read_only != read_only:
        have, want = ("read-only", "read-write") if found.read_only else ("read-write", "read-only")
        raise StorageError(f"lock {absolute!r} is in use as {have} in this process, not {want}")
    return found


class LockFile:
    """One lock file. Made by ``get_lockfile`` and ``get_ro_lockfile``."""

    def __init__(self, path: str, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self._changed = threading.Condition()
        self._fd = -1
        self._readers = 0
        self._writing = False
        self._acquiring = False
        self._token: bytes | None = None

    # -- acquiring and releasing -----------------------------------------------------------------

    def lock(self) -> None:
        """Wait for the exclusive lock. Raises ``StoreIsReadOnly`` on a read-only lock."""
        self._acquire(exclusive=True, wait=True)

    def rlock(self) -> None:
        """Wait for a shared lock."""
        self._acquire(exclusive=False, wait=True)

    def try_lock(self) -> bool:
        """Take the exclusive lock if that is possible at once."""
        return self._acquire(exclusive=True, wait=False)

    def try_rlock(self) -> bool:
        """Take a shared lock if that is possible at once."""
        return self._acquire(exclusive=False, wait=False)

    def _acquire(self, *, exclusive: bool, wait: bool) -> bool:
        if exclusive and self.read_only:
            raise StoreIsReadOnly(f"lock {self.path!r} is read-only")
        with self._changed:
            while self._acquiring or self._writing or (exclusive and self._readers):
                if not wait:
                    return False
                self._changed.wait()
            if self._readers:
                self._readers += 1
                return True
            # The kernel is asked without the condition, so that nobody waits for a waiter.
            self._acquiring = True
        fd = -1
        try:
            fd = self._open()
            operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
            fcntl.lockf(fd, operation if wait else operation | fcntl.LOCK_NB)
        except BaseException as error:
            with self._changed:
                if fd >= 0:
                    os.close(fd)
                self._acquiring = False
                self._changed.notify_all()
            if isinstance(error, BlockingIOError | PermissionError) and fd >= 0 and not wait:
                return False
            raise
        with self._changed:
            self._fd = fd
            self._acquiring = False
            self._writing, self._readers = exclusive, 0 if exclusive else 1
            self._changed.notify_all()
        return True

    def _open(self) -> int:
        access = os.O_RDONLY if self.read_only else os.O_RDWR
        flags = access | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(self.path, flags, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            return os.open(self.path, flags, 0o644)

    def unlock(self) -> None:
        """Release the exclusive lock, or one of the shared ones. Raises ``LockMisuse``."""
        with self._changed:
            if self._writing:
                self._writing = False
            elif self._readers:
                self._readers -= 1
            else:
                raise LockMisuse(f"lock {self.path!r} is not held")
            if not self._readers:
                fd, self._fd = self._fd, -1
                os.close(fd)  # releases the record lock
            self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[LockFile]:
        """The exclusive lock for a block."""
        self.lock()
        try:
            yield self
        finally:
            self.unlock()

    @contextmanager
    def reading(self) -> Iterator[LockFile]:
        """A shared lock for a block."""
        self.rlock()
        try:
            yield self
        finally:
            self.unlock()

    # -- looking ---------------------------------------------------------------------------------

    def is_read_write(self) -> bool:
        """Whether this object can be locked for writing at all."""
        return not self.read_only

    def locked(self) -> bool:
        """Whether this process holds it, shared or exclusively."""
        return self._writing or self._readers > 0

    def assert_locked(self) -> None:
        """Raise ``LockMisuse`` if it is not held."""
        if not self.locked():
            raise LockMisuse(f"lock {self.path!r} is not held")

    def assert_locked_for_writing(self) -> None:
        """Raise ``LockMisuse`` if it is not held exclusively."""
        if not self._writing:
            raise LockMisuse(f"lock {self.path!r} is not held for writing")

    # -- the last writer -------------------------------------------------------------------------

    def last_write(self) -> bytes:
        """The token in the file, b"" if nobody wrote yet. The lock must be held."""
        self.assert_locked()
        return os.pread(self._fd, TOKEN_BYTES, 0)

    def touch(self) -> bytes:
        """Say that something protected by the lock is about to change; returns the new token."""
        global _writes  # noqa: PLW0603
        self.assert_locked_for_writing()
        with _registry:
            _writes += 1
            number = _writes
        head = time.time_ns().to_bytes(8, "little") + number.to_bytes(8, "little")
        token = head + os.getpid().to_bytes(4, "little") + os.urandom(44)
        os.pwrite(self._fd, token, 0)
        self._token = token
        return token

    def modified(self) -> bool:
        """Whether somebody else wrote since this object last looked or wrote. Looks at it now.

        True at the first look: what was there before is not known.
        """
        now = self.last_write()
        before, self._token = self._token, now
        return before != now

    def modified_since(self, token: bytes | None) -> tuple[bytes, bool]:
        """The present token, and whether it differs from ``token`` (``None``: always)."""
        now = self.last_write()
        return now, now != token

    def touched_since(self, time_ns: int) -> bool:
        """Whether the file was written after ``time_ns`` (nanoseconds since 1970)."""
        try:
            return os.stat(self.path).st_mtime_ns > time_ns
        except FileNotFoundError:
            return False
