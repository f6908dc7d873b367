"""Writers of several processes: turns, the dead and the stopped in the queue, the epoch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from journal import DuplicateTransaction, Journal, JournalDamaged, LockTimeout
from journal.fs import O_CREATE, REAL
from journal.verify import verify


@contextmanager
def child(work: Callable[[], None]) -> Iterator[int]:
    """A forked process that does ``work``; killed at the end of the block."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen within 10 s"
        time.sleep(0.001)


def waiting(root: Path) -> bool:
    """Whether a process is in the queue."""
    fd = REAL.open(f"{root}/queue", O_CREATE)
    try:
        return REAL.waiting(fd, 0)
    finally:
        os.close(fd)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Journal.open(tmp_path / "log", "w", create=True, reserve_bytes=0).close()
    return tmp_path / "log"


def test_each_of_several_busy_writers_gets_turns(root: Path, tmp_path: Path) -> None:
    """Nobody is kept out by those who come again and again: every process commits all the time."""
    end = time.monotonic() + 2.0

    def work(name: int) -> Callable[[], None]:
        def commit() -> None:
            count = 0
            with Journal.open(root, "w", durability="none") as log:
                while time.monotonic() < end:
                    log.commit([["from", name]])
                    count += 1
            (tmp_path / f"count.{name}").write_text(str(count))
            time.sleep(60)

        return commit

    with child(work(0)), child(work(1)), child(work(2)), child(work(3)):
        files = [tmp_path / f"count.{name}" for name in range(4)]
        wait_for(lambda: all(file.exists() and file.read_text() for file in files))
    counts = [int(file.read_text()) for file in files]
    assert min(counts) > sum(counts) / 4 / 5, counts
    assert verify(str(root)).exit_code == 0


def hold(root: Path) -> Callable[[], None]:
    def work() -> None:
        with Journal.open(root, "w") as log, log.writer():
            (root.parent / "held").touch()
            time.sleep(60)

    return work


def queue_up(root: Path) -> Callable[[], None]:
    def work() -> None:
        with Journal.open(root, "w") as log:
            log.commit([["late"]], timeout_s=60.0)

    return work


def test_a_killed_waiter_leaves_the_queue(root: Path) -> None:
    with child(hold(root)) as holder:
        wait_for((root.parent / "held").exists)
        with child(queue_up(root)):
            wait_for(lambda: waiting(root))
        wait_for(lambda: not waiting(root))
        with Journal.open(root, "w") as log, pytest.raises(LockTimeout, match=f"pid {holder} "):
            log.commit([["no"]], timeout_s=0.05)
        assert not waiting(root)


@contextmanager
def stopped_first(root: Path) -> Iterator[None]:
    """The lock is free, and the first in the queue does not run."""
    with ExitStack() as held:
        held.enter_context(child(hold(root)))
        wait_for((root.parent / "held").exists)
        with child(queue_up(root)) as first:
            wait_for(lambda: waiting(root))
            os.kill(first, signal.SIGSTOP)
            held.close()
            yield


def test_a_stopped_waiter_does_not_keep_the_others_out(root: Path) -> None:
    with stopped_first(root), Journal.open(root, "w") as log:
        began = time.monotonic()
        log.commit([["after"]])
        assert time.monotonic() - began < 5.0
        assert waiting(root)  # the stopped one is still the first in the queue


def test_a_timeout_shorter_than_patience_still_tries(root: Path) -> None:
    """A lock that is free is taken before the time is over, whoever stands in the queue."""
    with stopped_first(root), Journal.open(root, "w") as log:
        log.commit([["after"]], timeout_s=0.02)


def test_an_epoch_is_used_once_though_the_mark_is_behind(root: Path) -> None:
    """A writer killed between its sync and the mark has taken a number that the mark lacks."""
    with Journal.open(root, "w") as log:
        log.commit([["one"]])
        mark = (root / "durable").read_bytes()
    with Journal.open(root, "w") as log:
        log.commit([["two"]])
        log._abandon()  # as if killed: no close frame
    (root / "durable").write_bytes(mark)
    with Journal.open(root, "w") as log:
        log.commit([["three"]])
    report = verify(str(root))
    assert report.findings == ()


def test_a_second_attempt_does_not_accept_what_the_first_refused(root: Path) -> None:
    """A log that ends before a place known to be durable stays refused, by the same object too."""
    with Journal.open(root, "w") as log:
        log.commit([["one"]])
        end = log.position.offset
        log.commit([["two"]])
    os.truncate(root / "segments/0000000001.seg", end)
    with Journal.open(root, "w") as log:
        for _ in range(3):
            with pytest.raises(JournalDamaged, match="known to have been durable"):
                log.commit([["three"]])


def test_a_transaction_that_only_a_reader_has_seen_is_not_recorded_twice(root: Path) -> None:
    txid = bytes(range(16))
    with Journal.open(root, "w") as log, Journal.open(root, "w") as other:
        log.commit([["known"]], txid=bytes(16))  # from here on the ids are kept in mind
        other.commit([["first"]], txid=txid)
        with log.reader() as reader:
            assert len(list(reader.read_new())) > 2  # the reader leads the writer past it
        with pytest.raises(DuplicateTransaction):
            log.commit([["again"]], txid=txid)


def test_verification_by_several_processes_finds_the_same(tmp_path: Path) -> None:
    root = tmp_path / "log"
    with Journal.open(root, "w", create=True, segment_bytes=4096, durability="none") as log:
        for number in range(100):
            log.commit([["e", number, "x" * 300]])
    path = root / "segments/0000000004.seg"
    for damaged in (False, True):
        if damaged:
            raw = bytearray(path.read_bytes())
            raw[1000] ^= 1
            os.chmod(path, 0o644)
            path.write_bytes(raw)
        one = verify(str(root), "strict")
        assert (one.exit_code, one.segments) == (2 if damaged else 0, 12)
        for processes in (2, 3, 8):
            several = verify(str(root), "strict", processes=processes)
            assert several._replace(tree_size=0, tree_root=b"") == one._replace(
                tree_size=0, tree_root=b""
            )
            assert damaged or several.tree_root == one.tree_root
