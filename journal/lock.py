"""The writer lock: one ``flock`` on a file that is never deleted or replaced.

Rules of this module:

* ``flock``, not ``lockf``: POSIX record locks vanish when the process closes any descriptor of the
  file. The kernel frees a ``flock`` when its holder dies; nobody ever breaks a lock.
* Tried without blocking, with growing jittered pauses, until a deadline (``flock`` is not fair).
* The holder's description inside the file is for people; no decision rests on it.
* Released with an explicit ``LOCK_UN``: a forked child shares the lock and would keep it alive.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from journal.errors import LockTimeout
from journal.fs import O_CREATE, Fs
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from journal.clock import Clock

NAME = "lock"
_LOCK_NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
_INFO_SIZE = 256


def describe_self() -> bytes:
    """What a waiting process shows about this one."""
    program = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else "python"
    text = f"pid {os.getpid()} uid {os.getuid()} host {os.uname().nodename} program {program}"
    return text.encode("utf-8", "replace")[: _INFO_SIZE - 1].ljust(_INFO_SIZE - 1) + b"\n"


class WriterLock:
    """The lock file of one journal, open in one process."""

    __slots__ = ("_clock", "_fs", "_info", "fd", "held", "path")

    def __init__(self, fs: Fs, clock: Clock, root: str) -> None:
        self._fs = fs
        self._clock = clock
        self.path = f"{root}/{NAME}"
        self.fd = fs.open(self.path, O_CREATE, 0o660)
        self.held = False
        self._info = b""

    def acquire(self, timeout_s: float) -> None:
        """Take the lock or raise ``LockTimeout`` after ``timeout_s`` seconds (0 tries once)."""
        deadline = 0.0
        pause = 0.0005
        while True:
            try:
                self._fs.flock(self.fd, _LOCK_NOW)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                    raise
            now = self._clock.monotonic()
            if not deadline:
                deadline = now + timeout_s
            if now >= deadline:
                holder = self.holder()
                raise LockTimeout(
                    f"{self.path}: locked for more than {timeout_s:g} s by {holder}", holder
                )
            jitter = (self._clock.random(1)[0] + 128) / 256
            self._clock.sleep(min(pause * jitter, max(0.0, deadline - now)))
            pause = min(pause * 1.5, 0.02)
        self.held = True
        if not self._info:
            self._info = describe_self()
        try:
            self._fs.pwrite(self.fd, self._info, 0)
        except OSError:
            pass  # information only; a full disk must not keep a writer out

    def holder(self) -> str:
        """Who wrote the file last, as text for people."""
        try:
            text = self._fs.pread(self.fd, _INFO_SIZE, 0).decode("utf-8", "replace").strip()
        except OSError:
            text = ""
        return text or "an unknown process"

    def release(self) -> None:
        if self.held:
            self.held = False
            self._fs.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        if self.fd >= 0:
            self.release()
            fd, self.fd = self.fd, -1
            self._fs.close(fd)
