"""The writer lock: one ``flock`` on a file that is never deleted or replaced, and its queue.

Rules of this module:

* ``flock``, not ``lockf``: POSIX record locks vanish when the process closes any descriptor of the
  file. The kernel frees a ``flock`` when its holder dies; nobody ever breaks a lock.
* Tried without blocking until a deadline: a blocking call could be ended in time only by signals or
  threads.
* Fair by turns. Who waits draws a number, the clock's, and locks the byte of that number in the
  ``queue`` file (which stays empty); who has no locked byte before its own is first and tries for
  the lock. The kernel frees the bytes of the dead, so the queue is always true.
* A turn is ``TURN_S`` long, so that handing over does not cost more than the work: within its turn
  a process takes the lock again without looking at the queue, afterwards it stands behind it.
* One who waits takes the lock out of turn when it finds it free after ``PATIENCE_S``: then the
  first in the queue must be stopped.
* The holder's description inside the file is for people; no decision rests on it. It is written
  once a turn, not at every acquisition; who waited in vain asks the kernel whether it is true.
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
QUEUE = "queue"
TURN_S = 0.01
PATIENCE_S = 0.1
FIRST_PAUSE_S = 0.0005
"""Between two tries of the first in the queue."""
PAUSE_S = 0.004
"""Between two looks of the others: less than a turn."""
_LOCK_NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
_UNLOCK = fcntl.LOCK_UN
_BUSY = frozenset((errno.EWOULDBLOCK, errno.EACCES, errno.EINTR))
_INFO_SIZE = 256


def describe_self() -> bytes:
    """What a waiting process shows about this one."""
    program = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else "python"
    text = f"pid {os.getpid()} uid {os.getuid()} host {os.uname().nodename} program {program}"
    return text.encode("utf-8", "replace")[: _INFO_SIZE - 1].ljust(_INFO_SIZE - 1) + b"\n"


class WriterLock:
    """The lock file of one journal, open in one process."""

    __slots__ = (
        "_clock",
        "_flock",
        "_fs",
        "_info",
        "_now",
        "_queue",
        "_turn",
        "fd",
        "held",
        "path",
    )

    def __init__(self, fs: Fs, clock: Clock, root: str) -> None:
        self._fs = fs
        self._flock = fs.flock
        self._clock = clock
        self._now = clock.monotonic
        self.path = f"{root}/{NAME}"
        self.fd = fs.open(self.path, O_CREATE, 0o660)
        try:
            self._queue = fs.open(f"{root}/{QUEUE}", O_CREATE, 0o660)
        except OSError:
            self._queue = -1  # a full disk must not keep a writer out: it waits without a number
        self._turn = 0.0  # end of this process's turn
        self.held = False
        self._info = b""

    def acquire(self, timeout_s: float) -> None:
        """Take the lock or raise ``LockTimeout`` after ``timeout_s`` seconds (0 tries once)."""
        try:
            now = self._now()
            turn = self._turn
            if now < turn or timeout_s <= 0 or not self._fs.waiting(self._queue, 0):
                if self._try():
                    if now >= turn:
                        self._turn = now + TURN_S
                else:
                    self._wait(now, timeout_s)
            else:
                self._wait(now, timeout_s)
            self.held = True
            if self._turn != turn:
                self._sign()
        except BaseException:
            self.held = True  # whatever was interrupted: it is not held afterwards
            self.release()
            raise

    def _sign(self) -> None:
        """Write down who has the lock."""
        if not self._info:
            self._info = describe_self()
        try:
            self._fs.pwrite(self.fd, self._info, 0)
        except OSError:
            pass  # information only; a full disk must not keep a writer out

    def _try(self) -> bool:
        try:
            self._flock(self.fd, _LOCK_NOW)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            return False
        return True

    def _wait(self, now: float, timeout_s: float) -> None:
        """Queue for the lock."""
        fs, clock, queue = self._fs, self._clock, self._queue
        deadline = now + timeout_s
        number = int(now * 1e9) or 1
        try:
            while timeout_s > 0 and not fs.enqueue(queue, number):
                number += 1
            looked = now
            while True:
                first = not fs.waiting(queue, number)
                late = now >= deadline
                if (first or late or now - looked > PATIENCE_S) and self._try():
                    self._turn = clock.monotonic() + TURN_S
                    return
                if late:
                    holder = self.holder()
                    raise LockTimeout(
                        f"{self.path}: locked for more than {timeout_s:g} s by {holder}", holder
                    )
                if now - looked > PATIENCE_S:
                    looked = now
                clock.sleep(min(FIRST_PAUSE_S if first else PAUSE_S, max(0.0, deadline - now)))
                now = clock.monotonic()
        finally:
            fs.dequeue(queue)

    def holder(self) -> str:
        """Who has the lock, as text for people: what the file says, unless the kernel knows that
        another process has it."""
        try:
            text = self._fs.pread(self.fd, _INFO_SIZE, 0).decode("utf-8", "replace").strip()
        except OSError:
            text = ""
        process, program = self._fs.locker(self.fd)
        if process and not text.startswith(f"pid {process} "):
            return f"pid {process} program {program}"
        return text or "an unknown process"

    def release(self) -> None:
        if self.held:
            self.held = False
            if self.fd >= 0:
                self._flock(self.fd, _UNLOCK)

    def close(self) -> None:
        if self.fd >= 0:
            self.release()
            fd, self.fd = self.fd, -1
            self._fs.close(fd)
            if self._queue >= 0:
                self._fs.close(self._queue)

    def abandon(self) -> None:
        """In a forked child: close the descriptors, leave the lock to the parent."""
        fds = (self.fd, self._queue) if self.fd >= 0 else ()
        self.fd = self._queue = -1
        self.held = False
        for fd in fds:
            if fd >= 0:
                try:
                    self._fs.close(fd)
                except OSError:
                    pass
