"""Lock files: semantics §7.1 and §7.2, drivers-and-formats §1.11."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time

import pytest

from cstorage.errors import StorageError, StoreIsReadOnly
from cstorage.store.lockfile import LockMisuse, get_lockfile, get_ro_lockfile

OTHER = """
import sys
from cstorage.store.lockfile import get_lockfile, get_ro_lockfile
how, path = sys.argv[1:]
lock = get_ro_lockfile(path) if how == "r" else get_lockfile(path)
print(lock.try_rlock() if how == "r" else lock.try_lock(), flush=True)
if sys.stdin.readline():
    if how == "touch":
        lock.touch()
"""


def other(how: str, path) -> str:
    """What another process gets when it asks for the lock."""
    argv = [sys.executable, "-c", OTHER, how, str(path)]
    return subprocess.run(
        argv, input="go\n", check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder/a.lock"


def test_a_path_has_one_object(path, tmp_path):
    assert get_lockfile(path) is get_lockfile(str(path))
    assert get_lockfile(path) is get_lockfile(tmp_path / "folder/../folder/a.lock")
    assert get_lockfile(path).is_read_write()


def test_a_path_is_read_write_or_read_only(tmp_path):
    assert not get_ro_lockfile(tmp_path / "r").is_read_write()
    with pytest.raises(StorageError, match="read-only"):
        get_lockfile(tmp_path / "r")
    get_lockfile(tmp_path / "w")
    with pytest.raises(StorageError, match="read-write"):
        get_ro_lockfile(tmp_path / "w")


def test_the_file_is_made_when_it_is_first_locked(path):
    lock = get_lockfile(path)
    assert not path.exists()
    with lock.writing():
        assert path.stat().st_size == 0
        assert path.stat().st_mode & 0o777 == 0o644
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.exists()


def test_an_exclusive_lock_keeps_other_processes_out(path):
    lock = get_lockfile(path)
    with lock.writing():
        assert other("w", path) == "False"
        assert other("r", path) == "False"
    assert other("w", path) == "True"


def test_shared_locks_nest_and_keep_writers_out(path):
    lock = get_lockfile(path)
    lock.rlock()
    lock.rlock()
    assert other("r", path) == "True"
    lock.unlock()
    assert other("w", path) == "False"
    lock.unlock()
    assert other("w", path) == "True"


def test_threads_exclude_each_other(path):
    """Record locks do not exclude threads; the object does."""
    lock = get_lockfile(path)
    order = []

    def second() -> None:
        with lock.writing():
            order.append("second")

    with lock.writing():
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.05)
        assert lock.locked()
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    with lock.reading():
        assert lock.try_lock() is False
        assert lock.try_rlock() is True
        lock.unlock()


def test_waiting_for_another_process(path):
    argv = [sys.executable, "-c", OTHER, "w", str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline().strip() == "True"
        lock = get_lockfile(path)
        assert lock.try_lock() is False
        assert not lock.locked()
        threading.Timer(0.1, holder.stdin.close).start()
        begun = time.monotonic()
        with lock.writing():
            assert time.monotonic() - begun > 0.05


def test_misuse_is_refused(path, tmp_path):
    lock = get_lockfile(path)
    with pytest.raises(LockMisuse):
        lock.unlock()
    with pytest.raises(LockMisuse):
        lock.modified()
    with lock.reading(), pytest.raises(LockMisuse):
        lock.touch()
    with pytest.raises(StoreIsReadOnly):
        get_ro_lockfile(tmp_path / "r").lock()


def test_the_token_of_the_last_writer(path):
    lock = get_lockfile(path)
    with lock.writing():
        assert lock.last_write() == b""
        before = time.time_ns()
        token = lock.touch()
        assert lock.touch() != token
    data = path.read_bytes()
    assert len(data) == 64
    written_ns, counter, pid = struct.unpack("<QQI", data[:20])
    assert before <= written_ns <= time.time_ns()
    assert counter > 0
    assert pid == os.getpid()


def test_modified_tells_who_wrote(path):
    lock = get_lockfile(path)
    with lock.writing():
        assert lock.modified() is True, "nothing is known at the first look"
        assert lock.modified() is False
        lock.touch()
        assert lock.modified() is False, "its own write is no news"
        token = lock.last_write()
    assert other("touch", path) == "True"
    with lock.reading():
        now, changed = lock.modified_since(token)
        assert changed
        assert now != token
        assert lock.modified() is True
        assert lock.modified() is False
        assert lock.modified_since(now) == (now, False)


def test_touched_since(path):
    lock = get_lockfile(path)
    assert lock.touched_since(0) is False
    with lock.writing():
        lock.touch()
    assert lock.touched_since(0) is True
    assert lock.touched_since(time.time_ns() + 10**9) is False


@pytest.mark.peer
def test_the_original_waits_for_the_lock(place, driver):
    """Its tool blocks on a lock that we hold, and goes on when we let it go."""
    from tests.store.peer import PEER, REASON, Peer

    if PEER is None:
        pytest.skip(REASON)
    peer = Peer(place.base / "peer", driver)
    peer("create-layer", "--id", "a")
    lock = get_lockfile(peer.graph / f"{driver}-layers/layers.lock")
    roots = ["--graph", str(peer.graph), "--run", str(peer.run_root), "-s", driver]
    with lock.writing():
        assert lock.modified() is True
        tool = subprocess.Popen(
            [PEER, *roots, "create-layer", "--id", "b"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with pytest.raises(subprocess.TimeoutExpired):
            tool.wait(0.3)
    assert tool.wait(30) == 0
    with lock.reading():
        assert lock.modified() is True
