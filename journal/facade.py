"""``Journal``: one open journal, for reading, writing, watching and snapshots.

Rules of this module:

* ``mode="r"`` never writes and works on a read-only file system; ``mode="w"`` may write, and takes
  the writer lock only inside ``commit`` and ``writer``.
* Threads share one object: commits of several threads become one write and one sync (the first
  waiting thread leads, the others follow).
* After ``fork`` the child's object is dead and its descriptors are closed.
* Nothing rests on ``__del__`` or ``atexit``; closing only adds the close frame.
"""

from __future__ import annotations

import os
from _thread import LockType, RLock, allocate_lock
from weakref import WeakSet

from journal import clock as clocks
from journal import frame as fr
from journal import fs as filesystems
from journal import layout
from journal.codec import encode
from journal.errors import (
    InvalidRecord,
    JournalClosed,
    JournalError,
    JournalReadOnly,
    LockTimeout,
)
from journal.plain import TYPE_CHECKING, Any
from journal.position import Position
from journal.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from journal.clock import Clock
    from journal.frame import Frame
    from journal.fs import Fs
    from journal.request import Committed, Request
    from journal.snapshots import Snapshots
    from journal.watcher import Watcher
    from journal.writer import Appender

WAIT_MAX_S = 1e8
"""Threads cannot wait longer (three years); ``inf`` means this."""
DURABILITIES = ("commit", "group", "none")
GROUP_COUNT = 1024
GROUP_BYTES = 4 << 20
GROUP_WAIT_S = 0.002
_IDS = 64
_open_journals: WeakSet[Journal] = WeakSet()


def _after_fork() -> None:
    for journal in list(_open_journals):
        journal._abandon()


os.register_at_fork(after_in_child=_after_fork)


class _Waiting:
    """A thread waiting in the group commit."""

    __slots__ = ("done", "request", "wake")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.wake: LockType = allocate_lock()
        self.wake.acquire()
        self.done = False


class Journal:
    """An open journal. Make it with ``Journal.open``; use it as a context manager."""

    def __init__(
        self,
        *,
        fs: Fs,
        clock: Clock,
        root: str,
        found: layout.Format,
        mode: str,
        appender: Appender | None,
        hint: list[Position],
        lock_timeout_s: float,
        actor: list[Any],
    ) -> None:
        self.fs = fs
        self.clock = clock
        self.root = root
        self.uuid = found.uuid
        self.created_ns = found.created_ns
        self.mode = mode
        self.actor = actor
        self.lock_timeout_s = lock_timeout_s
        self._appender = appender
        self._hint = hint
        self._alive = [True]
        self._gate = RLock()  # one writing thread at a time; knows whose it is, see ``Writer``
        # Whether this thread is the one that writes (``threading.Condition`` asks the same).
        self._mine: Callable[[], bool] = self._gate._is_owned  # type: ignore[attr-defined]
        self._queue_lock = allocate_lock()
        self._queue: list[_Waiting] = []
        self._leader: Request | None = None  # whose thread writes for all that wait
        self._look: Reader | None = None
        self._look_lock = allocate_lock()
        self._readers: WeakSet[Reader] = WeakSet()  # closed with the journal, if not before
        self._snapshots: Snapshots | None = None
        self._ids: list[bytes] = []  # random; a forked child never commits with this object
        _open_journals.add(self)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: str = "r",
        *,
        create: bool = False,
        durability: str = "commit",
        segment_bytes: int = 16 << 20,
        lock_timeout_s: float = 10.0,
        force_network_fs: bool = False,
        actor: Sequence[Any] = (),
        reserve_bytes: int = layout.RESERVE_BYTES,
        fs: Fs | None = None,
        clock: Clock | None = None,
    ) -> Journal:
        """Open the journal in the folder ``path``.

        ``durability``: "commit" acknowledges after the sync; "group" waits 2 ms for other threads
        first; "none" never syncs (tests). ``actor`` is the default of ``commit``.

        Raises ``JournalNotFound`` (and says how to create one), ``JournalExists``,
        ``UnsupportedFormat``, ``JournalDamaged``, ``LockTimeout`` (creation), ``JournalError`` for
        a network file system unless forced, ``OSError``.
        """
        if mode not in ("r", "w"):
            raise ValueError(f"mode {mode!r} is not 'r' or 'w'")
        if durability not in DURABILITIES:
            raise ValueError(f"durability {durability!r} is not one of {', '.join(DURABILITIES)}")
        if segment_bytes < 4096:
            raise ValueError("segment_bytes must be at least 4096")
        fs = fs or filesystems.REAL
        clock = clock or clocks.REAL
        root = os.path.abspath(os.fspath(path))
        found = layout.read_format(fs, root)
        if found is None and not (create and mode == "w"):
            found = layout.require(fs, root)  # says what is there instead
        hint = [Position(0, 0, 0, b"")]
        appender: Appender | None = None
        if mode == "w":
            from journal.lock import WriterLock
            from journal.writer import Appender  # readers start without the writing half

            if not force_network_fs:
                # A read-only look needs no lock and is allowed anywhere.
                where = fs.network(root if found else os.path.dirname(root))
                if where:
                    raise JournalError(
                        f"{root} is on {where}: its locks and appends are not reliable between "
                        "hosts; put the journal on a local disk, or force it"
                    )
            if found is None:
                layout.prepare(fs, root)
            held = WriterLock(fs, clock, root)
            try:
                if found is None:
                    held.acquire(lock_timeout_s)
                    try:
                        found = layout.create(fs, clock, root)
                        layout.fill_reserve(fs, root, reserve_bytes)
                    finally:
                        held.release()
                appender = Appender(
                    fs, clock, root, found.uuid, durability=durability,
                    segment_bytes=segment_bytes, reserve_bytes=reserve_bytes, hint=hint, held=held,
                )  # fmt: skip
            except BaseException:
                held.close()
                raise
        assert found is not None
        return cls(
            fs=fs, clock=clock, root=root, found=found, mode=mode, appender=appender, hint=hint,
            lock_timeout_s=lock_timeout_s, actor=list(actor),
        )  # fmt: skip

    # -- state --------------------------------------------------------------------------------

    def _check(self) -> None:
        if not self._alive[0]:
            raise JournalClosed(f"{self.root}: the journal was closed, or opened before a fork")

    def _writing(self) -> Appender:
        self._check()
        if self._appender is None:
            raise JournalReadOnly(f"{self.root} is open for reading: open it with mode 'w'")
        return self._appender

    @property
    def position(self) -> Position:
        """The end of the log as visible now (reads what is new since the last look)."""
        self._check()
        with self._look_lock:  # a reader serves one thread at a time
            if self._look is None:
                start = self._hint[0] if self._hint[0].segment else self._last_start()
                self._look = self.reader(start)
            while self._look.read_batch():
                pass
            return self._look.position

    def _last_start(self) -> Position | None:
        """Start of the last segment whose header is valid: where looking for the end begins."""
        from journal import segment as sg

        folder = f"{self.root}/{sg.FOLDER}"
        for number in reversed(sg.listing(self.fs, folder)):
            raw = filesystems.read_file(self.fs, f"{folder}/{sg.name(number)}", sg.HEADER_SIZE)
            header = sg.parse(raw)
            if header is not None and header.uuid == self.uuid:
                return header.start
        return None

    # -- reading ------------------------------------------------------------------------------

    def reader(self, start: Position | None = None, *, durable: bool = False) -> Reader:
        """A lock-free reader after ``start`` (None: from the oldest frame there is).

        It is closed with the journal; whoever needs it for less long closes it, or uses ``with``.

        Raises ``ResyncRequired`` if ``start`` is not part of the history any more.
        """
        self._check()
        reader = Reader(
            self.fs, self.clock, self.root, self.uuid, start, durable=durable, alive=self._alive,
            publish=self._hint if self._appender is not None else None,
        )  # fmt: skip
        self._readers.add(reader)
        return reader

    def frames(self, start: Position | None = None) -> Iterator[Frame]:
        """All frames visible now, oldest first."""
        with self.reader(start) as reader:
            yield from reader.read_new()

    def watch(
        self,
        start: Position | None = None,
        *,
        durable: bool = False,
        heartbeat_s: float = 0.5,
        hints: bool = True,
    ) -> Watcher:
        """Follow the log: iterate (blocking), ``async for``, or ``.run(callback)``."""
        self._check()
        from journal.watcher import Watcher

        return Watcher(self, start, durable=durable, heartbeat_s=heartbeat_s, hints=hints)

    @property
    def snapshots(self) -> Snapshots:
        """Snapshots of states built from this journal."""
        self._check()
        if self._snapshots is None:
            from journal.snapshots import Snapshots

            self._snapshots = Snapshots(self)
        return self._snapshots

    # -- writing ------------------------------------------------------------------------------

    def writer(self, timeout_s: float | None = None) -> Writer:
        """``with journal.writer() as w``: hold the writer lock, stand at the end of the log.

        Entering raises ``LockTimeout``, ``JournalDamaged``, ``JournalSuspect``,
        ``WriterPoisoned``, ``JournalReadOnly``.
        """
        self._writing()
        return Writer(self, self._limit(timeout_s))

    def _limit(self, timeout_s: float | None) -> float:
        return min(self.lock_timeout_s if timeout_s is None else timeout_s, WAIT_MAX_S)

    def commit(
        self,
        events: Sequence[Sequence[Any]],
        *,
        actor: Sequence[Any] | None = None,
        reason: str = "",
        txid: bytes | None = None,
        expected: int | None = None,
        schema: int = 1,
        use_reserve: bool = False,
        timeout_s: float | None = None,
    ) -> Committed:
        """Append one transaction and return when it is durable.

        ``expected``: the sequence number the journal must end with (``Conflict`` otherwise).
        ``txid``: 16 bytes; a given one is refused if a recent transaction has it
        (``DuplicateTransaction``), so a retry after an unknown outcome is safe. ``use_reserve``:
        may use the reserved space of a full disk. Other errors: ``InvalidRecord``,
        ``JournalFull``, ``LockTimeout``, ``JournalDamaged``, ``WriterPoisoned``, ``OSError``.
        """
        appender = self._appender
        if appender is None or not self._alive[0]:
            appender = self._writing()  # says why not
        request = self._request(
            appender, events, actor, reason, txid, expected, schema, use_reserve
        )
        if self._mine():
            raise JournalError("commit on the journal inside its writer block: use the writer's")
        limit_s = given_s = self._limit(timeout_s)
        waiting: _Waiting | None = None
        try:
            with self._queue_lock:
                if self._leader is None:
                    self._leader = request
                else:
                    waiting = _Waiting(request)
                    self._queue.append(waiting)
            if waiting is not None:
                begun = self.clock.monotonic()
                waiting.wake.acquire()
                # Those before may have waited for the lock in vain: our time has run as well.
                limit_s = max(0.0, given_s - (self.clock.monotonic() - begun))
            if self._leader is request:
                self._lead(appender, request, limit_s)
        finally:  # also after an interrupt anywhere above
            self._free(appender)
            if self._leader is request or (waiting is not None and not waiting.done):
                self._pass_on(request, waiting)
        if request.error is not None:
            if waiting is not None and isinstance(request.error, LockTimeout):
                holder = request.error.holder  # the rest of our time says nothing to anybody
                text = f"{self.root}: no turn within {given_s:g} s, locked by {holder}"
                raise LockTimeout(text, holder) from request.error
            raise request.error
        if request.result is None:
            raise JournalError(
                "the commit was interrupted, its outcome is unknown: retry with its txid"
            )
        return request.result

    def _lead(self, appender: Appender, own: Request, timeout_s: float) -> None:
        """Commit our own request and those that wait for one write and one sync."""
        others: list[_Waiting] = []
        try:
            if not self._gate.acquire(True, timeout_s if timeout_s > 0 else 0.001):
                raise self._busy(timeout_s)
            if not self._alive[0]:
                self._check()
            appender.acquire(timeout_s)
            if appender.log.durability == "group" and not self._queue:
                self.clock.sleep(GROUP_WAIT_S)
            requests = [own]
            if self._queue:
                with self._queue_lock:
                    others = self._take(len(own.body))
                requests += [item.request for item in others]
            appender.append(requests)
        except BaseException as error:
            for request in (own, *(item.request for item in others)):
                undecided = request.result is None and request.error is None
                if undecided and (request is own or isinstance(error, Exception)):
                    request.error = error
            if not isinstance(error, Exception):
                raise  # the others' outcome is unknown, ours may be good: an interrupt goes first
        finally:
            self._free(appender)
            for item in others:
                item.done = True
                item.wake.release()

    def _pass_on(self, own: Request, waiting: _Waiting | None) -> None:
        """Let the next one lead, or leave the queue after an interrupt."""
        with self._queue_lock:
            if waiting is not None and waiting in self._queue:
                self._queue.remove(waiting)
            if self._leader is own:
                if self._queue:
                    following = self._queue.pop(0)
                    self._leader = following.request
                    following.wake.release()
                else:
                    self._leader = None

    def _free(self, appender: Appender) -> None:
        """Give back what this thread may hold, whether it saw that it got it or not."""
        if self._mine():
            try:
                appender.lock.release()
            finally:
                self._gate.release()

    def _busy(self, timeout_s: float) -> JournalError:
        who = "another thread of this process"
        return LockTimeout(f"{self.root}: {who} has been writing for {timeout_s:g} s", who)

    def _take(self, size: int) -> list[_Waiting]:
        """Those of the queue that fit beside ``size`` bytes."""
        count = 0
        for item in self._queue:
            size += len(item.request.body)
            if count + 1 >= GROUP_COUNT or size > GROUP_BYTES:
                break
            count += 1
        batch = self._queue[:count]
        del self._queue[:count]
        return batch

    def _request(
        self,
        appender: Appender,
        events: Sequence[Sequence[Any]],
        actor: Sequence[Any] | None,
        reason: str,
        txid: bytes | None,
        expected: int | None,
        schema: int,
        use_reserve: bool,
    ) -> Request:
        count = len(events)
        if not 0 < count <= fr.MAX_EVENTS:
            raise InvalidRecord(f"a transaction has 1 to {fr.MAX_EVENTS} events, not {count}")
        if txid is not None and (type(txid) is not bytes or len(txid) != 16):
            raise InvalidRecord("a transaction id is 16 bytes")
        if type(reason) is not str or type(schema) is not int or schema < 0:
            raise InvalidRecord("reason is text, schema a number from 0")
        for event in events:
            if type(event) is not list and not isinstance(event, (list, tuple)):
                raise InvalidRecord("an event is a list")
        body = encode(
            [
                schema,
                list(self.actor if actor is None else actor),
                self._transaction_id() if txid is None else txid,
                reason,
                events if type(events) is list else list(events),
            ]
        )
        return appender.request(fr.DATA, body, count, expected, txid, use_reserve)

    def _transaction_id(self) -> bytes:
        """16 random bytes. Asking the kernel for each would let other threads in between."""
        try:
            return self._ids.pop()
        except IndexError:
            some = self.clock.random(16 * _IDS)
            self._ids += [some[at : at + 16] for at in range(16, 16 * _IDS, 16)]
            return some[:16]

    def control(self, kind: int, value: Any, timeout_s: float | None = None) -> Committed:
        """Append a control frame (used by snapshots, pruning and archiving)."""
        with self.writer(timeout_s) as held:
            return held.control(kind, value)

    # -- the end ------------------------------------------------------------------------------

    def _abandon(self) -> None:
        self._alive[0] = False
        if self._appender is not None:
            self._appender.abandon()

    def close(self) -> None:
        """Close; writes the close frame if this object wrote. Harmless when repeated."""
        if not self._alive[0]:
            return
        appender = self._appender
        if appender is not None:
            if self._mine():
                raise JournalError("close inside a writer block")
            with self._gate:
                try:
                    appender.finish()
                finally:
                    self._alive[0] = False
                    appender.close()
        self._alive[0] = False
        for reader in list(self._readers):
            reader.close()
        _open_journals.discard(self)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Writer:
    """The writer lock, held. ``tail`` is the end of the log; ``commit`` appends to it."""

    __slots__ = ("_journal", "_timeout_s", "held")

    def __init__(self, journal: Journal, timeout_s: float) -> None:
        self._journal = journal
        self._timeout_s = timeout_s
        self.held = False

    def __enter__(self) -> Writer:
        # An interrupt may come after any call, also before its result is seen. So nothing here
        # rests on a result: the gate knows its owner, and releasing the lock twice does no harm.
        # After the last line nothing is called before the block begins.
        journal = self._journal
        appender = journal._writing()
        if journal._mine():
            raise JournalError("a writer block inside a writer block")
        try:
            if not journal._gate.acquire(True, max(self._timeout_s, 0.001)):
                raise journal._busy(self._timeout_s)
            journal._check()
            appender.acquire(self._timeout_s)
            self.held = True
            return self
        except BaseException:
            journal._free(appender)
            raise

    def __exit__(self, *_: object) -> None:
        self.held = False
        journal = self._journal
        if journal._alive[0] and journal._appender is not None:  # else forked inside the block
            journal._free(journal._appender)

    def __del__(self) -> None:
        # Only after an interrupt on the first instruction of ``__exit__``.
        if getattr(self, "held", False):
            self.__exit__()

    def _check(self) -> Appender:
        if not self.held:
            raise JournalError("the writer block has ended")
        return self._journal._writing()

    @property
    def tail(self) -> Position:
        """The end of the log; nobody else can move it while the block lasts."""
        return self._check().tail

    def commit(
        self,
        events: Sequence[Sequence[Any]],
        *,
        actor: Sequence[Any] | None = None,
        reason: str = "",
        txid: bytes | None = None,
        expected: int | None = None,
        schema: int = 1,
        use_reserve: bool = False,
    ) -> Committed:
        """As ``Journal.commit``, under the lock already held."""
        appender = self._check()
        request = self._journal._request(
            appender, events, actor, reason, txid, expected, schema, use_reserve
        )
        return self._append(appender, request)

    def control(self, kind: int, value: Any) -> Committed:
        """Append a control frame (used by snapshots, pruning and archiving)."""
        appender = self._check()
        return self._append(appender, appender.request(kind, encode(value), 0))

    def rotate(self) -> None:
        """Seal the last segment now, if it holds events."""
        self._check().rotate()

    def spend_reserve(self) -> bool:
        """Give the reserve to whoever needs room to remove something; False if there is none."""
        self._check()
        return layout.spend_reserve(self._journal.fs, self._journal.root)

    def refill_reserve(self) -> bool:
        """Allocate the reserve again; False if there is no room for it."""
        return self._check().refill()

    def _append(self, appender: Appender, request: Request) -> Committed:
        appender.append([request])
        if request.error is not None:
            raise request.error
        assert request.result is not None
        return request.result
