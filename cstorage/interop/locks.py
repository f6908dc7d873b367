"""The locks of containers/storage: ``fcntl`` record locks on whole files, and their change tokens.

Rules (drivers-and-formats §1.11):

* Readers share, writers exclude. These locks belong to the process, and closing *any* descriptor of
  the file drops them: this module keeps one descriptor per file and lets one thread at a time in.
* Waiting is bounded; the error names the process that holds the lock.
* The first 64 bytes of a lock file are the change token: whoever changes what the lock guards
  writes other bytes there.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cstorage.errors import StoreBusy

TOKEN_BYTES = 64
_FLOCK = "hhqqi4x"
_PAUSES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
_threads = threading.RLock()


def _lock_record(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


def _holder(fd: int, kind: int) -> int:
    """Process that keeps us from locking, 0 if there is none (or it is not visible from here)."""
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, _lock_record(kind))
    found = struct.unpack(_FLOCK, answer)
    return int(found[4]) if found[0] != fcntl.F_UNLCK else 0


def acquire(fd: int, path: str, *, shared: bool, timeout_s: float) -> None:
    """Lock the open file. Raises ``StoreBusy`` naming the holder when the time is over."""
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    deadline = time.monotonic() + timeout_s
    attempt = 0
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_SETLK, _lock_record(kind))
            return
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= deadline:
                holder = _holder(fd, kind)
                who = f"process {holder}" if holder > 0 else "another process"
                raise StoreBusy(
                    f"{path} is locked by {who}",
                    hint="wait for the tool that uses the store, or end it",
                ) from None
        time.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
        attempt += 1


@contextmanager
def exclusive(paths: list[str], timeout_s: float) -> Iterator[dict[str, int]]:
    """Hold the lock files (made if missing, mode 0644) exclusively, in order; path → descriptor."""
    with _threads, ExitStack() as stack:
        held: dict[str, int] = {}
        for path in paths:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            stack.callback(os.close, fd)
            acquire(fd, path, shared=False, timeout_s=timeout_s)
            held[path] = fd
        yield held


@contextmanager
def shared(paths: list[str], timeout_s: float) -> Iterator[None]:
    """Hold the lock files shared, in order. Missing files are no locks and are not made."""
    with _threads, ExitStack() as stack:
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                continue
            stack.callback(os.close, fd)
            acquire(fd, path, shared=True, timeout_s=timeout_s)
        yield


def token(path: str) -> bytes:
    """The change token of a lock file, b"" if it was never written."""
    try:
        with open(path, "rb") as file:
            return file.read(TOKEN_BYTES)
    except FileNotFoundError:
        return b""
