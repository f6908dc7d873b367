"""Follow a log: hints from the kernel, a heartbeat as the guarantee, polling where hints fail.

Rules of this module:

* Events are hints. The one thing that reads is ``_catch_up``; it runs after every hint, and at
  least every ``heartbeat_s`` seconds whatever the hints say.
* The folder is watched, not the file (a file watch goes silent after a rename), and the watch is
  set before the first scan.
* Without inotify (instances exhausted, network file system, no watchdog) the log is polled with
  pauses that grow from 1 to 50 ms while nothing happens.
* Three forms over one object: blocking iterator, callback, asyncio.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from journal.segment import FOLDER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from journal.facade import Journal
    from journal.frame import Frame
    from journal.position import Position

POLL_FIRST_S = 0.001
POLL_LAST_S = 0.05


class _Hints:
    """watchdog on the segment folder; its thread only writes one byte into a pipe."""

    def __init__(self, folder: str) -> None:
        """Raises ``OSError`` or ``ImportError`` where it cannot work."""
        import logging

        from watchdog.events import (
            FileCreatedEvent,
            FileModifiedEvent,
            FileMovedEvent,
            FileSystemEvent,
            FileSystemEventHandler,
        )
        from watchdog.observers.inotify import InotifyObserver

        # Without this what it notices while it is stopped would be printed.
        quiet = logging.getLogger("watchdog")
        if not quiet.handlers:
            quiet.addHandler(logging.NullHandler())
        self.read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        write_fd = self._write_fd

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:  # noqa: ARG002
                try:
                    os.write(write_fd, b"x")
                except OSError:
                    pass  # full: a wake-up is pending already

        self._observer: Any = InotifyObserver()
        try:
            self._observer.schedule(
                Handler(), folder,
                event_filter=[FileModifiedEvent, FileCreatedEvent, FileMovedEvent],
            )  # fmt: skip
            self._observer.start()
        except BaseException:
            os.close(self.read_fd)
            os.close(self._write_fd)
            raise

    def wake(self) -> None:
        """End a ``wait`` in another thread."""
        try:
            os.write(self._write_fd, b"x")
        except OSError:
            pass

    def wait(self, timeout_s: float) -> bool:
        """True after a hint, False after the time."""
        import select

        # poll, because select refuses descriptors above 1023
        hints = select.poll()
        hints.register(self.read_fd, select.POLLIN)
        ready = hints.poll(timeout_s * 1000)
        if ready:
            try:
                os.read(self.read_fd, 65536)
            except BlockingIOError:
                pass
        return bool(ready)

    def close(self) -> None:
        self._observer.stop()
        self._observer.join(2.0)
        if self._observer.is_alive():
            return  # it may still write: its descriptor must not become that of another file
        os.close(self.read_fd)
        os.close(self._write_fd)


class Watcher:
    """Yields every frame after ``start`` once, in order, and waits for more.

    ``mode`` is "hints" or "polling", ``reason`` says why it polls. ``close`` ends the iteration
    (also from another thread, within one heartbeat).
    """

    def __init__(
        self,
        journal: Journal,
        start: Position | None,
        *,
        durable: bool = False,
        heartbeat_s: float = 0.5,
        hints: bool = True,
    ) -> None:
        self._journal = journal
        self._closed = False
        self._iterating = False
        self.heartbeat_s = heartbeat_s
        self.reason = "hints were not wanted"
        self._hints: _Hints | None = None
        if hints:
            try:
                self._hints = _Hints(f"{journal.root}/{FOLDER}")
                self.reason = ""
            except (OSError, ImportError) as error:
                self.reason = f"no hints from the kernel: {error}"
        try:
            # After the watch is set, so that nothing falls between the scan and the first hint.
            self._reader = journal.reader(start, durable=durable)
        except BaseException:
            self.close()
            raise
        self._pause = POLL_FIRST_S

    @property
    def mode(self) -> str:
        return "hints" if self._hints is not None else "polling"

    @property
    def position(self) -> Position:
        """Resume here: the place after the last frame handed out."""
        return self._reader.position

    def _catch_up(self) -> Iterator[Frame]:
        return self._reader.read_new()

    def wait(self, timeout_s: float) -> bool:
        """Wait for something that may be new, at most ``timeout_s`` and one heartbeat."""
        limit = min(timeout_s, self.heartbeat_s)
        if self._hints is not None:
            return self._hints.wait(limit)
        clock = self._journal.clock
        deadline = clock.monotonic() + limit
        while not self._closed:
            if self._reader.durable or self._reader.changed():
                self._pause = POLL_FIRST_S
                clock.sleep(0.0005 if self._reader.durable else 0.0)
                return True
            left = deadline - clock.monotonic()
            if left <= 0:
                return False
            clock.sleep(min(self._pause, left))
            self._pause = min(self._pause * 1.3, POLL_LAST_S)
        return False

    def follow(self, timeout_s: float | None = None) -> Iterator[Frame]:
        """Frames as they come; ends after ``timeout_s`` without any, or after ``close``."""
        self._iterating = True
        try:
            yield from self._follow(timeout_s)
        finally:
            self._iterating = False
            if self._closed:
                self._release()

    def _follow(self, timeout_s: float | None) -> Iterator[Frame]:
        clock = self._journal.clock
        deadline = clock.monotonic() + (timeout_s or 0.0)
        while not self._closed:
            found = False
            for frame in self._catch_up():
                found = True
                yield frame
                if self._closed:
                    return
            if timeout_s is None:
                self.wait(self.heartbeat_s)
                continue
            if found:
                deadline = clock.monotonic() + timeout_s
            left = deadline - clock.monotonic()
            if left <= 0:
                return
            self.wait(left)

    def __iter__(self) -> Iterator[Frame]:
        return self.follow()

    def run(self, callback: Callable[[Frame], object], timeout_s: float | None = None) -> None:
        """Call ``callback`` with every frame until it returns False (not None), or ``close``."""
        for frame in self.follow(timeout_s):
            if callback(frame) is False:
                return

    async def __aiter__(self) -> AsyncIterator[Frame]:
        """Frames in an asyncio program: the pipe wakes the loop, no thread blocks it."""
        import asyncio

        self._iterating = True
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        hints = self._hints
        if hints is not None:

            def drain() -> None:
                assert hints is not None
                hints.wait(0.0)
                woken.set()

            loop.add_reader(hints.read_fd, drain)
        try:
            pause = POLL_FIRST_S
            while not self._closed:
                woken.clear()
                for frame in self._catch_up():
                    pause = POLL_FIRST_S
                    yield frame
                if hints is None:
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.3, POLL_LAST_S)
                    continue
                try:
                    await asyncio.wait_for(woken.wait(), self.heartbeat_s)
                except TimeoutError:
                    pass
        finally:
            if hints is not None:
                loop.remove_reader(hints.read_fd)
            self._iterating = False
            if self._closed:
                self._release()

    def close(self) -> None:
        """End the iteration, here or in another thread, and free the watch."""
        self._closed = True
        if self._hints is not None:
            self._hints.wake()
        if not self._iterating:
            self._release()

    def _release(self) -> None:
        hints, self._hints = self._hints, None
        if hints is not None:
            hints.close()
        reader = getattr(self, "_reader", None)
        if reader is not None:
            reader.close()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
