"""Whom a writer names that waited in vain."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from journal import Journal, LockTimeout
from journal.clock import Clock
from journal.fs import OsFs


class _Mute(OsFs):
    """A kernel that does not say who has a lock."""

    def locker(self, fd: int, /) -> tuple[int, str]:
        return 0, ""


def _refused(root: Path, fs: OsFs | None = None) -> str:
    """What the error says while this process has the lock and the file names another."""
    with Journal.open(root, "w", create=True) as log, log.writer():
        (root / "lock").write_bytes(b"pid 1 uid 0 host h program other".ljust(255) + b"\n")
        with Journal.open(root, "w", fs=fs) as other, pytest.raises(LockTimeout) as refused:
            other.commit([["no"]], timeout_s=0.02)
    return str(refused.value.holder)


def test_the_kernel_knows_better_than_the_file(tmp_path: Path) -> None:
    program = Path("/proc/self/comm").read_text().strip()
    assert _refused(tmp_path / "log") == f"pid {os.getpid()} program {program}"


def test_the_file_is_believed_where_the_kernel_is_silent(tmp_path: Path) -> None:
    assert _refused(tmp_path / "log", _Mute()) == "pid 1 uid 0 host h program other"


def test_the_holder_signs_once_a_turn(tmp_path: Path) -> None:
    signed: list[int] = []

    class Counting(OsFs):
        def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:  # type: ignore[override]
            if data.startswith(b"pid "):
                signed.append(fd)
            return os.pwrite(fd, data, offset)

    class Standing(Clock):
        __slots__ = ("at",)

        def __init__(self) -> None:
            self.at = 100.0

        def monotonic(self) -> float:
            return self.at

    clock = Standing()
    with Journal.open(tmp_path / "log", "w", create=True, fs=Counting(), clock=clock) as log:
        for _ in range(5):
            log.commit([["first turn"]])
        assert len(signed) == 1
        clock.at += 1.0
        for _ in range(5):
            log.commit([["second turn"]])
        assert len(signed) == 2
        assert (tmp_path / "log/lock").read_text().startswith(f"pid {os.getpid()} ")
