"""A second process that makes plain files while this one reads, hashes and records.

Making a small file is work for the interpreter and for the kernel, and threads of one process do
not share the former. So small files, most of what a layer has, are described to another process
(``builder_main``), whose only work is to make them (docs/decisions/0052).

    importer ── contents, in shared memory ─────────────▶ builder
             ── messages: directories, names, owners… ──▶
             ◀── files made, of each message ────────────

Rules of this module:

* It is help, never needed: where it cannot be started, or may do less or more than this process,
  the importer makes all files. It also makes them while the builder has enough to do.
* Nothing waits for the builder but ``drain``, which comes before whatever depends on a file.
* A builder that fails, or dies, leaves what it did not say was made to ``drain``'s caller.
* After ``close`` nothing writes into the tree any more: the process is gone.

A message is ``marshal`` of (groups, numbers of the directories whose descriptors come with it); a
group is (number of its directory, files); a file is (name, mode, (user, group), time in
nanoseconds, where its content is in the memory, size), user and group negative if they are right
already. The answer is how many of its files were made; fewer than all of them is the last answer.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections import deque

from journal.plain import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from cstorage.archive.reader import Member

File: TypeAlias = "tuple[bytes, int, tuple[int, int], int, int, int]"
Job: TypeAlias = "tuple[Member, bytes, File]"
"""A file that was handed over: its member, its path, and what was sent of it.

Members that differ in name, size and time share an object: those are the file's.
"""

AFTER = 256
"""Files before the process is started: small layers are done before it would be ready."""

START_WAIT_S = 0.0
"""How long the start may keep the importer waiting."""

_MESSAGE_MAX = 1 << 15  # bytes of one message
_FILES_MAX = 64  # files in one message, and so directories
_DIRECTORIES = 128  # that the builder keeps open; their numbers are used again in turn
_SLOT = 2 << 20  # bytes of a piece of the stream
_SLOTS = 4
# Files that wait for it before it is taken to have enough to do; messages of more may not fit into
# the channel's buffer, and then the importer waits.
_BACKLOG = 16 * _FILES_MAX
_REST = 4 * _FILES_MAX  # files that the importer makes itself after it waited for few


class _Batch(NamedTuple):
    number: int
    jobs: list[Job]


class Builder:
    """Hands files to the process; ``guards`` are descriptors that it keeps open while it runs."""

    def __init__(self, guards: Sequence[int]) -> None:
        self._guards = tuple(guards)
        self._seen = 0
        self._channel: Any = None
        self._memory: Any = None
        self._pid = 0
        self._ready = False
        self._off = False
        # What is being put together.
        self._begin(1)
        self._groups: list[tuple[int, list[Any]]] = []
        self._files: list[Any] = []
        self._directory: bytes | None = None
        self._fds: list[int] = []
        self._new: list[int] = []
        self._numbers: dict[bytes, int] = {}
        self._paths: list[bytes | None] = [None] * _DIRECTORIES
        self._next_number = 0
        # What was sent and not yet answered.
        self._sent: deque[_Batch] = deque()
        self._waiting = 0
        self._answered = 0
        # Which memory is in use, by the last batch with a file in it.
        self._slot = 0
        self._used = [0] * _SLOTS
        self.chunk: bytes | None = None
        """What was put into the memory last (``load``), at ``base``."""
        self.base = 0
        self.room = 0
        """Files that may be handed over before ``takes`` looks again."""
        self._rest = 0  # files that are made here before ``takes`` looks again

    def _begin(self, number: int) -> None:
        self._batch = _Batch(number, [])
        self._jobs = self._batch.jobs
        self._names: set[bytes] = set()  # of all that is perhaps not there yet,
        self._named = -1  # when there were that many in the batch

    # -- the process ---------------------------------------------------------------------------

    def _start(self) -> None:
        """Start it; afterwards it is on its way, or ``_off``."""
        self._off = True
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "builder_main.py")
        if (
            len(os.sched_getaffinity(0)) < 2
            or getattr(sys, "frozen", False)
            or not os.path.basename(sys.executable or "").startswith("python")
            or not os.path.isfile(program)
        ):
            return
        limits = (_MESSAGE_MAX, _FILES_MAX, _DIRECTORIES)
        theirs: Any = None
        fd = -1
        try:
            import mmap
            from _socket import (
                AF_UNIX,
                MSG_NOSIGNAL,
                SCM_RIGHTS,
                SOCK_SEQPACKET,
                SOL_SOCKET,
                socketpair,
            )

            self._channel, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET, 0)
            fd = os.memfd_create("cstorage-import", os.MFD_CLOEXEC)
            os.ftruncate(fd, _SLOTS * _SLOT)
            self._memory = mmap.mmap(fd, _SLOTS * _SLOT)
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-B", program, *map(str, limits)],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setpgroup=0,  # what a terminal sends is for the importer
            )
            raw = b"".join(n.to_bytes(4, sys.byteorder) for n in (fd, *self._guards))
            self._channel.sendmsg([b"\0"], [(SOL_SOCKET, SCM_RIGHTS, raw)], MSG_NOSIGNAL)
            self._off = False
        except (OSError, NotImplementedError, ImportError, AttributeError):
            self.end()
        finally:
            if theirs is not None:
                theirs.close()
            if fd >= 0:
                os.close(fd)

    def _await_ready(self) -> None:
        if START_WAIT_S:
            self._channel.settimeout(START_WAIT_S)
        said = self._receive(wait=bool(START_WAIT_S))
        if START_WAIT_S:
            self._channel.settimeout(None)
        if said is None:
            return
        from cstorage.archive.builder_main import standing

        # Whoever may not do the same would meet other errors.
        if said and said == standing():
            self._ready = True
        else:
            self.end()

    def _receive(self, *, wait: bool) -> bytes | None:
        """A message, ``b""`` if the process is gone, ``None`` if there is none yet."""
        from _socket import MSG_DONTWAIT

        try:
            said: bytes = self._channel.recv(_MESSAGE_MAX, 0 if wait else MSG_DONTWAIT)
        except (BlockingIOError, TimeoutError):
            return None
        except OSError:
            return b""
        return said

    def end(self) -> None:
        """Wait until the process is gone; it may still make what it was sent."""
        self._off = True
        self._ready = False
        self.room = self._rest = 0
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._pid:
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                pass  # the program collects whatever ends
            self._pid = 0

    def close(self) -> None:
        """End it, and give up the memory."""
        self.end()
        if self._memory is not None:
            try:
                self._memory.close()
            except BufferError:
                pass  # an error's traceback still has a view of it
            self._memory = None

    # -- files ---------------------------------------------------------------------------------

    def takes(self) -> bool:
        """Whether the next file should be handed over."""
        if self.room:
            return True
        if self._rest:  # it has enough to do, or the importer waits often
            self._rest -= 1
            return False
        if self._ready:
            self._poll()
            if not self._ready:
                return False
            if self._waiting + len(self._jobs) < _BACKLOG:
                self.room = _FILES_MAX
                return True
            self._rest = _FILES_MAX - 1
            return False
        if self._off:
            return False
        self._seen += 1
        if self._seen < AFTER:
            return False
        if self._channel is None:
            self._start()
        if not self._off and (START_WAIT_S or not self._seen & 15):
            self._await_ready()
        self.room = _FILES_MAX if self._ready else 0
        return self._ready

    def load(self, chunk: bytes) -> bool:
        """Put ``chunk``, which holds contents, into the memory; False if there is no room now."""
        slot = (self._slot + 1) % _SLOTS
        if self._used[slot] > self._answered or len(chunk) > _SLOT:
            self.room -= self.room > 0
            return False
        self._used[self._slot] = self._batch.number
        self.base = slot * _SLOT
        self._memory[self.base : self.base + len(chunk)] = chunk
        self._slot = slot
        self.chunk = chunk
        return True

    def take(
        self,
        member: Member,
        name: bytes,
        directory: bytes,
        base: bytes,
        fd: int,
        owner: tuple[int, int],
        start: int,
    ) -> bool:
        """Hand over one file; its directory's ``fd`` must stay open until ``flush``.

        Returns whether there are files that the process will not make.
        """
        self.room -= 1
        if directory != self._directory:
            self._enter(directory, fd)
        file = (base, member.mode & 0o7777, owner, member.mtime_ns, start, member.size)
        self._files.append(file)
        jobs = self._jobs
        jobs.append((member, name, file))
        if len(jobs) >= _FILES_MAX:
            self.flush()
            return self._off
        return False

    def _enter(self, directory: bytes, fd: int) -> None:
        number = self._numbers.get(directory)
        if number is None:
            number = self._next_number
            # Descriptors come before the files: what is not sent yet keeps its numbers.
            taken = {group[0] for group in self._groups}
            while number in taken:
                number = (number + 1) % _DIRECTORIES
            self._next_number = (number + 1) % _DIRECTORIES
            before = self._paths[number]
            if before is not None:
                del self._numbers[before]
            self._paths[number] = directory
            self._numbers[directory] = number
            self._new.append(number)
            self._fds.append(fd)
        self._files = []
        self._groups.append((number, self._files))
        self._directory = directory

    def flush(self) -> None:
        """Send what was handed over."""
        batch = self._batch
        if not batch.jobs:
            return
        from _socket import MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET

        message = marshal.dumps((self._groups, self._new))
        fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in self._fds)
        self._sent.append(batch)
        self._waiting += len(batch.jobs)
        self._used[self._slot] = batch.number
        self._begin(batch.number + 1)
        self._groups, self._files, self._new, self._fds = [], [], [], []
        self._directory = None
        try:
            if len(message) > _MESSAGE_MAX:
                self.end()
            elif self._channel is not None:
                self._channel.sendmsg(
                    [message], [(SOL_SOCKET, SCM_RIGHTS, fds)] if fds else (), MSG_NOSIGNAL
                )
        except OSError:
            self.end()

    def _poll(self, *, wait: bool = False) -> None:
        """Take note of what was made; with ``wait``, of all that was sent."""
        while self._sent and self._channel is not None:
            said = self._receive(wait=wait)
            if said is None:
                return
            batch = self._sent[0]
            made = int(said or b"0")
            self._waiting -= made
            if made < len(batch.jobs):
                del batch.jobs[:made]
                self.end()
                return
            self._answered = batch.number
            self._sent.popleft()

    def holds(self, name: bytes) -> bool:
        """Whether ``name``, or a directory above it, is a file that is perhaps not there yet."""
        if not self._sent and not self._batch.jobs:
            return False
        # Asked often only while nothing is handed over, as among hard links.
        if self._named != len(self._jobs):
            self._named = len(self._jobs)
            self._names = {job[1] for batch in (*self._sent, self._batch) for job in batch.jobs}
        while name:
            if name in self._names:
                return True
            name = name.rpartition(b"/")[0]
        return False

    def drain(self) -> list[Job]:
        """Wait for all files; returns those that are left to the caller, in order."""
        count = self._waiting + len(self._batch.jobs)
        if not count:
            return []
        self.flush()
        self._poll(wait=True)
        if count < _FILES_MAX:
            self.room, self._rest = 0, _REST
        left = [job for batch in self._sent for job in batch.jobs]
        self._sent.clear()
        self._waiting = 0
        return left

    def content(self, job: Job) -> memoryview:
        """The content of a job that ``drain`` returned."""
        *_, start, size = job[2]
        return memoryview(self._memory)[start : start + size]


__all__ = ["Builder", "Job"]
