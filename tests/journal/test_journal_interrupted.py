"""An interrupt (Ctrl-C) at any line of an append: the same writer goes on without harm."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import journal.writer
from journal import Journal
from journal.frame import DATA

_SOURCE = journal.writer.__file__


class _Interrupter:
    """Raises ``KeyboardInterrupt`` at the n-th line of the writer's module that runs."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != _SOURCE or frame.f_code.co_name in ("acquire", "release"):
            return self
        if event == "line":
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
        interrupter = _Interrupter(at)
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
