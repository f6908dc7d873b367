"""T3 and T4 on a real file system with real processes: kill and error at every system call, short
writes at every byte, and a soak with several writers and readers that are killed and stopped."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults_simfs import Violation
from faults_world import check_order, numbers_of

from journal import Journal, JournalError
from journal.fs import OsFs
from journal.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults_crash import Count

CALLS = ("open", "pwrite", "fdatasync", "ftruncate", "rename", "unlink", "mkdir", "chmod",
         "sync_directory", "flock", "allocate", "pread", "fstat", "stat", "listdir")  # fmt: skip


class FaultFs(OsFs):
    """The real calls; at the k-th one the process dies, or the call fails."""

    def __init__(self, at: int, action: Callable[[str], Any]) -> None:
        self.at = at
        self.action = action
        self.number = 0
        for name in CALLS:
            setattr(self, name, self._wrap(name, getattr(OsFs, name)))

    def _wrap(self, name: str, call: Any) -> Any:
        bound = call.__get__(self) if name in ("mkdir", "sync_directory", "allocate") else call

        def run(*args: Any) -> Any:
            self.number += 1
            if self.number == self.at:
                self.action(name)
            return bound(*args)

        return run

    __slots__ = ("__dict__",)


def place() -> str:
    """A folder in memory: syncs cost nothing there, and a killed process loses no page cache."""
    where = "/dev/shm" if os.path.isdir("/dev/shm") else None
    return tempfile.mkdtemp(prefix="journal-faults-", dir=where)


def history(root: str, fs: Any, ack: Callable[[int], None]) -> None:
    """What a victim does: commits of several sizes, rotation, a snapshot, reopening."""
    number = 0
    for _ in range(2):
        with Journal.open(root, "w", create=True, segment_bytes=4096, reserve_bytes=8192, fs=fs,
                          lock_timeout_s=0.2) as journal:  # fmt: skip
            for size in (10, 1500, 5000, 40):
                number = journal.position.sequence + 1
                journal.commit([["e", number, "x" * size]])
                ack(number)
            reader = journal.reader()
            items = [(b"%08d" % n, b"v") for f in reader.read_new() for n in numbers_of(f)]
            journal.snapshots.write(items, position=reader.position, schema=1, reducer_version=1,
                                    digest=bytes(32))  # fmt: skip


def check(root: str, acked: list[int], where: str) -> None:
    try:
        if not os.path.exists(f"{root}/FORMAT") and acked:
            raise Violation(f"{where}: the journal is gone")
        with Journal.open(root, "w", create=True, segment_bytes=4096, reserve_bytes=8192,
                          lock_timeout_s=2.0) as journal:  # fmt: skip
            if os.path.exists(f"{root}/SUSPECT"):
                from journal.repair import clear_suspect

                clear_suspect(root)
            with journal.writer():
                pass
            found = [n for f in journal.frames() for n in numbers_of(f)]
            if any(n not in found for n in acked):
                raise Violation(f"{where}: acknowledged events are lost")
            if found != list(range(1, len(found) + 1)):
                raise Violation(f"{where}: events are invented or out of order: {found}")
            journal.commit([["e", len(found) + 1, ""]])
        report = verify(root, "strict")
        if report.exit_code:
            raise Violation(f"{where}: verify says {report.findings}")
    except (JournalError, OSError) as error:
        raise Violation(f"{where}: the journal does not open: {error!r}") from error


def victim(root: str, at: int, action: Callable[[str], Any]) -> tuple[list[int], int, bool]:
    """Run the history in a child; acknowledged numbers, how it ended, whether the fault came."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.close(read)
            fs = FaultFs(at, action)
            try:
                history(root, fs, lambda n: os.write(write, struct.pack("<I", n)) and None)
            except (JournalError, OSError):
                code = 3
            if fs.number < at:
                code = 9
        except BaseException:
            code = 4
        finally:
            os._exit(code)
    os.close(write)
    data = b""
    while piece := os.read(read, 65536):
        data += piece
    os.close(read)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    acked = [n for (n,) in struct.iter_unpack("<I", data[: len(data) // 4 * 4])]
    return acked, status, status != 9


def kill_points(count: Count, step: int, deadline: float) -> None:
    """T3: SIGKILL before every k-th call."""

    def die(name: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    at = 1
    while time.monotonic() < deadline:
        root = place()
        try:
            acked, status, came = victim(f"{root}/j", at, die)
            if not came:
                return
            count.states += 1
            if status != -signal.SIGKILL:
                raise Violation(f"T3 kill at call {at}: the victim ended with {status}")
            check(f"{root}/j", acked, f"T3 kill at call {at}")
        finally:
            shutil.rmtree(root, ignore_errors=True)
        at += step


def error_points(count: Count, step: int, deadline: float, codes: tuple[int, ...] = ()) -> None:
    """T3: EIO, ENOSPC, EDQUOT, EINTR-as-an-error at every k-th call that changes something."""
    for code in codes or (errno.EIO, errno.ENOSPC, errno.EDQUOT):
        at = 1
        while time.monotonic() < deadline:
            root = place()

            def fail(name: str, code: int = code) -> None:
                if name not in ("fstat", "stat", "listdir", "pread", "flock"):
                    raise OSError(code, os.strerror(code))

            try:
                acked, status, came = victim(f"{root}/j", at, fail)
                if not came:
                    break
                count.states += 1
                if status not in (0, 3):
                    raise Violation(
                        f"T3 {errno.errorcode[code]} at call {at}: the victim ended with {status}"
                    )
                check(f"{root}/j", acked, f"T3 {errno.errorcode[code]} at call {at}")
            finally:
                shutil.rmtree(root, ignore_errors=True)
            at += step


def short_writes(count: Count, step: int, deadline: float) -> None:
    """T3: RLIMIT_FSIZE ends a write after every byte of a frame; the journal is as before."""
    root = place()
    try:
        base = f"{root}/j"
        with Journal.open(base, "w", create=True, reserve_bytes=0) as journal:
            journal.commit([["e", 1, "x" * 100]])
        size = os.path.getsize(f"{base}/segments/0000000001.seg")
        for limit in range(size, size + 460, step):
            if time.monotonic() > deadline:
                return
            copy = f"{root}/{limit}"
            shutil.copytree(base, copy)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
                    journal = Journal.open(copy, "w", reserve_bytes=0)
                    # the open frame fits or not, the event frame does not
                    try:
                        journal.commit([["e", 2, "y" * 300]])
                        code = 5
                    except JournalError as error:
                        left = os.path.getsize(f"{copy}/segments/0000000001.seg")
                        frames = [n for f in journal.frames() for n in numbers_of(f)]
                        clean = verify(copy).exit_code == 0
                        good = "room" in str(error) and frames == [1] and left <= limit and clean
                        code = 0 if good else 6
                except BaseException as error:
                    os.write(2, f"{error!r}\n".encode())
                finally:
                    os._exit(code)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            count.states += 1
            if status:
                raise Violation(f"T3 short write at byte {limit - size}: {status}")
            check(copy, [1], f"T3 short write at byte {limit - size}")
            shutil.rmtree(copy)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def strace_points(count: Count, runs: int, deadline: float) -> None:
    """T3: the same from outside with strace, which also proves that no call goes past ``Fs``."""
    if not shutil.which("strace"):
        print("T3: strace is not installed, faults from outside are left out")
        return
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]; import faults_process as p; "
        "from journal.fs import REAL; "
        "p.history(sys.argv[1], REAL, lambda n: print(n, flush=True))"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
    kinds = ("pwrite64:signal=KILL", "fdatasync:signal=KILL", "fsync:signal=KILL",
             "rename:signal=KILL", "fdatasync:error=EIO", "pwrite64:error=ENOSPC",
             "rename:error=EIO", "fsync:error=EIO")  # fmt: skip
    for run in range(runs):
        if time.monotonic() > deadline:
            return
        root = place()
        kind = kinds[run % len(kinds)]
        call = kind.split(":")[0]
        when = 1 + run // len(kinds)
        try:
            done = subprocess.run(
                ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                 f"inject={kind}:when={when}", sys.executable, "-c", script, f"{root}/j", *paths],
                capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            acked = [int(word) for word in done.stdout.split()]
            count.states += 1
            check(f"{root}/j", acked, f"T3 strace {kind} when {when}")
        finally:
            shutil.rmtree(root, ignore_errors=True)


# -- T4 --------------------------------------------------------------------------------------------


def _writer(root: str, name: int, log: str) -> None:
    rng = random.Random(os.getpid())
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    while True:
        with Journal.open(root, "w", segment_bytes=64 << 10, reserve_bytes=0,
                          lock_timeout_s=30.0) as journal:  # fmt: skip
            for _ in range(rng.randint(1, 30)):
                number = name << 32 | rng.getrandbits(31)
                size = rng.choice((10, 300, 4000, 9000))
                done = journal.commit([["e", number, "x" * size]])
                os.write(out, struct.pack("<QQ", done.first_sequence, number))


def _reader(root: str, log: str) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with Journal.open(root) as journal:
        reader = journal.reader()
        while True:
            for frame in reader.read_new():
                for index, number in enumerate(numbers_of(frame)):
                    os.write(out, struct.pack("<QQ", frame.first_sequence + index, number))
            while not reader.changed():
                time.sleep(0.001)


def soak(count: Count, kills: int, seed: int, deadline: float) -> None:
    """T4: 4 writers and 4 readers, SIGKILL and SIGSTOP at random; acknowledged events are there,
    readers saw exactly the log."""
    rng = random.Random(seed)
    root = place()
    children: dict[int, tuple[str, int]] = {}
    try:
        base = f"{root}/j"
        Journal.open(base, "w", create=True, reserve_bytes=0).close()
        serial = 0

        def start(kind: str) -> None:
            nonlocal serial
            serial += 1
            child = os.fork()
            if child == 0:
                try:
                    if kind == "writer":
                        _writer(base, serial, f"{root}/acks.{serial}")
                    else:
                        _reader(base, f"{root}/seen.{serial}")
                except BaseException as error:
                    Path(f"{root}/failed.{serial}").write_text(repr(error))
                finally:
                    os._exit(1)
            children[child] = (kind, serial)

        for _ in range(4):
            start("writer")
            start("reader")
        while count.states < kills and time.monotonic() < deadline:
            time.sleep(rng.random() * 0.02)
            child = rng.choice(list(children))
            kind, _ = children[child]
            if rng.random() < 0.2:
                os.kill(child, signal.SIGSTOP)
                time.sleep(rng.random() * 0.005)
                os.kill(child, signal.SIGCONT)
                continue
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            del children[child]
            count.states += 1
            start(kind)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    try:
        failed = sorted(Path(root).glob("failed.*"))
        if failed:
            raise Violation(f"T4 a process failed: {failed[0].read_text()}")
        with Journal.open(f"{root}/j", "w", reserve_bytes=0) as journal:
            with journal.writer():
                pass
            log = {f.first_sequence: n for f in journal.frames() for n in numbers_of(f)}
        for path in [*Path(root).glob("acks.*"), *Path(root).glob("seen.*")]:
            data = path.read_bytes()
            last = 0
            for sequence, number in struct.iter_unpack("<QQ", data[: len(data) // 16 * 16]):
                if log.get(sequence) != number:
                    raise Violation(f"T4 {path.name}: event {sequence} is lost or another one")
                if path.name.startswith("seen") and sequence != last + 1:
                    raise Violation(f"T4 {path.name}: event {sequence} after {last}")
                last = sequence
        if sorted(log) != list(range(1, len(log) + 1)):
            raise Violation("T4 sequence numbers have holes")
        report = verify(f"{root}/j", "strict")
        if report.exit_code:
            raise Violation(f"T4 verify says {report.findings}")
        check_order([1], [1])
    finally:
        shutil.rmtree(root, ignore_errors=True)


def locks(count: Count) -> None:
    """T3: two objects of one process exclude each other, whatever else opens and closes the lock
    file; a forked child frees nothing and writes nothing."""
    root = place()
    try:
        base = f"{root}/j"
        one = Journal.open(base, "w", create=True, reserve_bytes=0)
        two = Journal.open(base, "w", lock_timeout_s=0.01)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                one.commit([["e", 1, ""]])
            except JournalError:
                code = 0
            finally:
                os._exit(code)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise Violation("T3 a forked child writes")
        with one.writer():
            Journal.open(base, "w").close()
            os.close(os.open(f"{base}/lock", os.O_RDONLY))
            count.states += 1
            try:
                with two.writer():
                    raise Violation("T3 two writers hold the lock")
            except JournalError:
                pass
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    one.commit([["e", 1, ""]])
                except JournalError:
                    code = 0
                finally:
                    os._exit(code)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                raise Violation("T3 a forked child writes")
            try:
                with two.writer():
                    raise Violation("T3 the fork freed the lock")
            except JournalError:
                pass
    finally:
        shutil.rmtree(root, ignore_errors=True)
