"""An interrupt (Ctrl-C) at any line of an append: the same writer goes on without harm."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import journal.adoption
import journal.facade
import journal.lock
import journal.rotation
import journal.tail
import journal.writer
from journal import Journal
from journal.frame import DATA

_WRITING = (journal.writer, journal.tail, journal.adoption, journal.rotation)
_APPENDING = {module.__file__ for module in _WRITING}
_TAKING = _APPENDING | {journal.facade.__file__, journal.lock.__file__}


class _Interrupter:
    """Raises ``KeyboardInterrupt`` at the n-th line of the modules that runs."""

    def __init__(self, at: int, sources: set[str | None], but: tuple[str, ...] = ()) -> None:
        self.left = at
        self._sources = sources
        self._but = but

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code.co_filename not in self._sources or code.co_name in self._but:
            return None
        # Leaving a block is a line event too, but no interrupt comes between block and exit.
        text = linecache.getline(code.co_filename, frame.f_lineno)
        if event == "line" and not text.lstrip().startswith("with "):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("rotating", [False, True])
def test_the_next_commit_continues_the_log_whatever_line_was_interrupted(
    tmp_path: Path, rotating: bool
) -> None:
    at = 0
    while True:
        at += 3
        root = tmp_path / str(at)
        interrupter = _Interrupter(at, _APPENDING, ("acquire", "release"))
        with Journal.open(root, mode="w", create=True, segment_bytes=4096) as log:
            log.commit([["before"]])
            if rotating:
                log.commit([["filling", b"x" * 3600]])
            first = log.position.sequence
            with log.writer() as writer:
                sys.settrace(interrupter)
                try:
                    writer.commit([["interrupted", b"y" * 300]])
                except KeyboardInterrupt:
                    pass
                finally:
                    sys.settrace(None)
            after = log.commit([["after"]])
            log.commit([["last"]])
        with Journal.open(root) as log:
            kinds = [
                event[0]
                for frame in log.frames()
                if frame.kind == DATA
                for event in frame.transaction().events
            ]
        written = after.first_sequence - first - 1
        assert written in (0, 1), at
        assert kinds[first:] == [*(["interrupted"] * written), "after", "last"], at
        if interrupter.left > 0:
            assert written == 1
            return


_CLEANING = ("release", "_leave", "_free", "_pass_on", "__exit__", "__del__", "_mine", "drop")


@pytest.mark.parametrize("block", [False, True])
def test_an_interrupt_keeps_no_lock(tmp_path: Path, block: bool) -> None:
    """Wherever taking the lock or committing is interrupted (but not the very lines that free it),
    other objects and threads can write at once."""
    at = 0
    while True:
        at += 2
        interrupter = _Interrupter(at, _TAKING, _CLEANING)
        root = tmp_path / str(at // 40)  # short logs: they are walked at every opening
        how = {"mode": "w", "create": True, "durability": "none", "reserve_bytes": 0}
        with (
            Journal.open(root, lock_timeout_s=0.5, **how) as log,
            Journal.open(root, lock_timeout_s=0.0, **how) as other,
        ):
            sys.settrace(interrupter)
            try:
                if block:
                    with log.writer():
                        pass
                else:
                    log.commit([["interrupted"]])
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            other.commit([["other"]])
            log.commit([["same"]])
            with log.writer() as writer:
                writer.commit([["same"]])
        if interrupter.left > 0:
            return
