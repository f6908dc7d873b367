"""Work that runs beside the thread that builds the tree: decoding ahead, and digests.

Rules of this module:

* One thread per stage, one bounded queue between two stages, order kept. The library calls inside
  release the interpreter lock, so stages really run side by side.
* A stage that fails hands its exception to whoever waits for it, once, and then only drains.
* They step back: who looks at the store meanwhile does not wait for a processor until one of them
  has used up its turn (docs/decisions/0033-quiet-readers.md).
* ``close`` always ends the threads; a thread that is stuck in a read of its source is left behind
  as a daemon, because nothing can interrupt it.
"""

from __future__ import annotations

import os
from queue import Empty, Full, Queue, SimpleQueue
from threading import Thread, get_native_id

from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_STUCK_S = 1.0
_WORTH_IT = 1 << 19
NICE = 10
"""How far threads step back. With 5 a reader waits as long as for anybody."""


def step_back() -> None:
    """Let others run before this thread; for threads of ours, since it cannot be taken back."""
    thread = get_native_id()
    try:
        if os.getpriority(os.PRIO_PROCESS, thread) < NICE:
            os.setpriority(os.PRIO_PROCESS, thread, NICE)
    except OSError:
        pass  # a system that does not want that


class Producer:
    """Calls ``produce`` ahead of need, at most ``depth`` results; ``b""`` ends the stream."""

    def __init__(self, produce: Callable[[], bytes], depth: int, name: str) -> None:
        self._produce = produce
        self._queue: Queue[bytes | BaseException] = Queue(depth)
        self._stop = False
        self._ended = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        step_back()
        put = self._queue.put
        while not self._stop:
            try:
                item: bytes | BaseException = self._produce()
            except BaseException as error:
                item = error
            put(item)
            if not item or isinstance(item, BaseException):
                return

    def next(self) -> bytes:
        """The next result, or the exception that ended production."""
        if self._ended:
            return b""
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        if not item:
            self._ended = True
        return item

    def close(self) -> None:
        """Stop producing and wait for the thread, unless its source keeps it."""
        self._stop = True
        while True:
            try:
                self._queue.get_nowait()
            except Empty:
                break
        self._thread.join(_STUCK_S)


class Consumer:
    """Hands items to ``consume`` on a thread of its own, in order."""

    def __init__(self, consume: Callable[[Any], object], depth: int, name: str) -> None:
        self._consume = consume
        self._queue: Queue[Any] = Queue(depth)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        step_back()
        get = self._queue.get
        consume = self._consume
        while True:
            item = get()
            if item is None:
                return
            try:
                consume(item)
            except BaseException as error:
                self._error = error
                while get() is not None:
                    pass
                return

    def put(self, item: Any) -> None:
        """Queue one item (not ``None``); waits while the queue is full."""
        self._queue.put(item)

    def finish(self) -> None:
        """Wait until everything queued is done; raises what went wrong on the thread."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the thread whatever its state; errors are dropped, for use after another error."""
        while self._thread.is_alive():
            try:
                self._queue.put(None, timeout=0.05)
            except Full:
                continue
            self._thread.join(_STUCK_S)
            return


class Beside:
    """A digest that is updated on a thread while the caller fetches the next bytes.

    The first update is the caller's own (most contents have one, which is not worth a thread), and
    so are short ones.
    """

    def __init__(self, digest: Any) -> None:
        self._digest = digest
        self._thread: Thread | None = None
        self._updated = False
        self._busy = False
        self._given: SimpleQueue[memoryview | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()

    def update(self, data: memoryview) -> None:
        """``data`` must stay as it is until the next call of any method has returned."""
        self._wait()
        if not self._updated or len(data) < _WORTH_IT:
            self._updated = True
            self._digest.update(data)
            return
        if self._thread is None:
            self._thread = Thread(target=self._run, name="digest", daemon=True)
            self._thread.start()
        self._busy = True
        self._given.put(data)

    def _wait(self) -> None:
        if self._busy:
            self._busy = False
            error = self._done.get()
            if error is not None:
                raise error

    def _run(self) -> None:
        while (data := self._given.get()) is not None:
            try:
                self._digest.update(data)
                self._done.put(None)
            except BaseException as error:
                self._done.put(error)

    def digest(self) -> bytes:
        """Of all that was given."""
        self._wait()
        found: bytes = self._digest.digest()
        return found

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._given.put(None)
            self._thread.join()
