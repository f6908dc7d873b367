"""A second process that opens, reads and checks files of an export, ahead of the first.

Rules of this module:

* The first process cuts the recipe's text, hands some cuts over and does others itself; it alone
  puts them in order and writes. What the twin did not do, it does again: so whatever becomes of
  the twin, an export ends as it would without, and only the first process says what was wrong.
* Cuts and what they came to are in memory that both have; a pipe in each direction says where. The
  twin ends when the pipe to it does, so it outlives nobody.
* It resolves names below one directory, the layer's own, as ``beneath`` does, and has no other
  descriptor: not the sink, whose reader would wait for it.
* A process, not a thread: what an export of small files does is done by the interpreter, which one
  thread has at a time. Not a fork: the program may have threads.
"""

from __future__ import annotations

import marshal
import mmap
import os
import struct
from select import POLLIN, poll
from signal import SIGKILL

from cstorage.archive.pieces import Piece, fill
from cstorage.archive.recipe import entries_of
from cstorage.errors import ArchiveError
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cstorage.archive.manifest import Hasher

ENTRIES = 3_000
"""From so many on there is more to do than to start a twin."""
PACKED_AVERAGE = 1 << 13
"""Bytes for an entry: of larger ones, compressing takes the time, and threads do that."""
SLOTS = 6
_WITH_IT = 3
"""Cuts that the twin has at once: one in hand, and enough not to wait for the next."""
_TEXT = 1 << 18
_DATA = 1 << 21
_SLOT = _TEXT + _DATA
_FILLED = 3 << 18
"""Bytes of an archive that a cut should come to, on average."""
_LINES = 1 << 10
"""Bytes of text for an entry, about."""
_PATIENCE_S = 30.0

_REQUEST = struct.Struct("<III")  # slot, bytes of text, algorithm of the file list
_RESULT = struct.Struct("<IIII")  # slot, entries done, bytes of the archive, bytes about files
_ALGORITHMS = ("", "blake3", "sha256")
_HELLO = (1 << 32) - 1
_ALL = (1 << 32) - 1
"""Instead of the number of entries: there are no more in the text."""
_MEMORY, _REQUESTS, _RESULTS, _ROOT = 3, 4, 5, 6
_ABOVE = 10


class Twin:
    """The first process's side. Safe to use whatever the state of the other."""

    def __init__(self, root_fd: int, cut: int) -> None:
        """Start it. Raises ``OSError`` or ``NotImplementedError`` if that cannot be."""
        self.cut = cut
        """Bytes of text that should be handed over at once."""
        self.algorithm = ""
        """Of the file list that is to prove what it does, if there is one."""
        self._ready = False
        self._with_it = 0
        self._results = b""
        fds = []
        try:
            memory = os.memfd_create("export")
            fds.append(memory)
            os.ftruncate(memory, SLOTS * _SLOT)
            self._view = memoryview(mmap.mmap(memory, SLOTS * _SLOT))
            requests = os.pipe()
            fds += requests
            results = os.pipe()
            fds += results
            self._pid = _spawn((memory, requests[0], results[1], root_fd))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        for fd in (memory, requests[0], results[1]):
            os.close(fd)
        self._to, self._from = requests[1], results[0]
        os.set_blocking(self._from, False)
        self._said = poll()
        self._said.register(self._from, POLLIN)
        self._free = list(range(SLOTS))

    def wants(self) -> bool:
        """Whether ``give`` should be called."""
        return self._ready and self._with_it < _WITH_IT and bool(self._free)

    def give(self, text: bytes) -> int:
        """Hand over whole lines of the recipe; the slot where they are, -1 if that did not work."""
        if len(text) > _TEXT:
            return -1
        slot = self._free.pop()
        base = slot * _SLOT
        self._view[base : base + len(text)] = text
        try:
            os.write(self._to, _REQUEST.pack(slot, len(text), _ALGORITHMS.index(self.algorithm)))
        except BrokenPipeError:
            self._lose()
            return -1
        self._with_it += 1
        return slot

    def take(self, *, wait: bool) -> list[Piece]:
        """What it has done since the last call; ``wait``: until it says something, or is lost."""
        if self._from < 0:
            return []
        if wait and not self._said.poll(_PATIENCE_S * 1000):
            self._lose(hung=True)
            return []
        try:
            data = os.read(self._from, 4096)
        except BlockingIOError:
            return []
        if not data:
            self._lose()
            return []
        data = self._results + data
        done = []
        whole = len(data) - len(data) % _RESULT.size
        self._results = data[whole:]
        for slot, entries, used, about in _RESULT.iter_unpack(data[:whole]):
            if slot == _HELLO:
                self._ready = True
                continue
            base = slot * _SLOT
            piece = Piece(self._view[base + _TEXT : base + _SLOT], slot)
            piece.used = used
            piece.entries = -1 if entries == _ALL else entries
            if about:
                piece.found = marshal.loads(self._view[base : base + about])
            self._with_it -= 1
            done.append(piece)
        return done

    @property
    def lost(self) -> bool:
        """Whether nothing will come from it any more."""
        return self._from < 0

    def release(self, slot: int) -> None:
        """The piece in the slot is not needed any more."""
        self._free.append(slot)

    def close(self) -> None:
        """End it. Safe to call twice."""
        self._lose()

    def _lose(self, *, hung: bool = False) -> None:
        """It ended, or is to: nothing of what it has is waited for."""
        self._ready = False
        if self._from < 0:
            return
        os.close(self._to)
        os.close(self._from)
        self._to = self._from = -1
        try:
            # Only what is still a child of ours, or the number could be somebody else's.
            if hung and os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                os.kill(self._pid, SIGKILL)
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # the program collected it


def begun(root_fd: int, entries: int, size: int, *, packed: bool) -> Twin | None:
    """A twin for an export of so many entries and bytes, ``None`` if one is of no use.

    ``root_fd``: where most of the layer's files are. ``packed``: threads will compress it.
    """
    if entries < ENTRIES or (packed and size > entries * PACKED_AVERAGE):
        return None
    processors = len(os.sched_getaffinity(0))
    if processors < 2 or _running() > processors:
        return None
    cut = min(max(_FILLED * entries // max(size, 1) * _LINES, 1 << 14), _TEXT * 3 // 4)
    try:
        return Twin(root_fd, cut)
    except (OSError, NotImplementedError):
        return None


def _running() -> int:
    """Processes and threads that run or want to now; 0 if the system does not tell."""
    try:
        with open("/proc/loadavg", "rb", buffering=0) as file:
            return int(file.read(128).split()[3].partition(b"/")[0])
    except (OSError, ValueError, IndexError):
        return 0


def _spawn(fds: tuple[int, int, int, int]) -> int:
    import fcntl
    import sys

    if not sys.executable:
        raise NotImplementedError
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; from cstorage.archive.twin import serve; serve()"
    )
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)
    ]
    high: list[int] = []
    try:
        # Where they are to go, others of them may be.
        for target, fd in enumerate(fds, _MEMORY):
            high.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE))
            actions.append((os.POSIX_SPAWN_DUP2, high[-1], target))
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-B", "-c", code, top, *filter(None, sys.path)],
            os.environ,
            file_actions=actions,
        )
    finally:
        for fd in high:
            os.close(fd)


def serve() -> None:
    """The second process. Its descriptors are ``_MEMORY`` to ``_ROOT``; it never returns."""
    try:
        _serve()
    finally:
        os._exit(0)  # nobody reads what it says, and nothing of it is to be kept


def _serve() -> None:
    from cstorage.archive.beneath import Payloads

    # What the program left open for every process that it starts is not for this one.
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _ROOT:
            try:
                os.close(int(name))
            except OSError:
                pass  # that of the listing itself
    view = memoryview(mmap.mmap(_MEMORY, SLOTS * _SLOT))
    payloads = Payloads([_ROOT])
    hashers: dict[int, Hasher | None] = {0: None}
    os.write(_RESULTS, _RESULT.pack(_HELLO, 0, 0, 0))
    while request := os.read(_REQUESTS, _REQUEST.size):
        slot, length, algorithm = _REQUEST.unpack(request)
        if algorithm not in hashers:
            from cstorage.archive.manifest import hasher_of

            hashers[algorithm] = hasher_of(_ALGORITHMS[algorithm])
        base = slot * _SLOT
        text = bytes(view[base : base + length])
        piece = Piece(view[base + _TEXT : base + _SLOT], slot)
        try:
            left = fill(piece, entries_of(text), payloads.open, hashers[algorithm])
            done = _ALL if left is None else piece.entries
        except ArchiveError:
            done, piece.used = 0, 0
            piece.found.clear()
        about = marshal.dumps(piece.found) if piece.found else b""
        if len(about) > _TEXT:  # of names alone: nobody makes such a layer
            raise ValueError
        view[base : base + len(about)] = about
        os.write(_RESULTS, _RESULT.pack(slot, done, piece.used, len(about)))
