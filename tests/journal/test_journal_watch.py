"""Following a log: asyncio, callbacks, resuming, polling; the fault programme adds lost hints."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from journal import Frame, Journal
from journal import frame as fr


@pytest.fixture
def opened(tmp_path: Path) -> Journal:
    return Journal.open(
        tmp_path / "j", "w", create=True, reserve_bytes=0, segment_bytes=4096, durability="none"
    )


@pytest.mark.parametrize("hints", [True, False])
def test_async_iteration_sees_what_comes(opened: Journal, hints: bool) -> None:
    async def follow() -> list[int]:
        seen: list[int] = []
        with opened.watch(hints=hints, heartbeat_s=0.3) as watcher:
            task = asyncio.get_running_loop().run_in_executor(None, feed)
            async for frame in watcher:
                if frame.kind == fr.DATA:
                    seen.append(frame.transaction().events[0][0])
                if len(seen) == 30:
                    break
            await task
        return seen

    def feed() -> None:
        for i in range(30):
            opened.commit([[i, "x" * 300]])

    assert asyncio.run(follow()) == list(range(30))


def test_callback_form_ends_when_told(opened: Journal) -> None:
    for i in range(5):
        opened.commit([[i]])
    seen: list[int] = []

    def look(frame: Frame) -> bool:
        seen.append(frame.kind)
        return len(seen) < 3

    with opened.watch() as watcher:
        watcher.run(look, timeout_s=1.0)
        place = watcher.position
    assert len(seen) == 3
    rest = list(opened.frames(place))
    assert len(rest) == 3


def test_polling_says_why_and_is_quick(opened: Journal) -> None:
    with opened.watch(hints=False) as watcher:
        assert (watcher.mode, watcher.reason) == ("polling", "hints were not wanted")
        sent: list[float] = []

        def later() -> None:
            time.sleep(0.05)
            opened.commit([["x"]])
            sent.append(time.monotonic())

        thread = threading.Thread(target=later)
        thread.start()
        frames = watcher.follow(2.0)
        while next(frames).kind != fr.DATA:
            pass
        thread.join()
        assert time.monotonic() - sent[0] < 0.5


def test_durable_watch_lags_never_leads(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "d", "w", create=True, reserve_bytes=0) as j:
        j.commit([["a"]])
        with j.watch(durable=True) as watcher:
            assert [f.kind_name for f in watcher.follow(0.05)] == ["open", "data"]


def test_what_watchdog_notices_is_not_printed(opened: Journal) -> None:
    """Stopped in the middle of an event it warns; a program that sets up no logging would print."""
    code = (
        "import logging, sys; from journal import Journal\n"
        "with Journal.open(sys.argv[1]) as j, j.watch() as w:\n"
        "    assert w.mode == 'hints'\n"
        "logging.getLogger('watchdog.observers.inotify').warning('inactive')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, opened.root],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
