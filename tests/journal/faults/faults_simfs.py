"""A simulated file system with power loss: what was not synced survives in any subset.

Model: file data is a visible copy plus what is durable plus pending operations since the last sync;
a crash keeps a prefix of the size changes and any subset of the 512-byte sectors written. Names are
durable after ``sync_directory``; before that a crash keeps a prefix (or any subset) of the name
operations of a folder. Locks die with the crash, the boot id changes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
from typing import Any

SECTOR = 512


class Crash(BaseException):
    """The power went."""


class Violation(Exception):
    """A promise of the journal was broken."""


class SimStat:
    __slots__ = ("st_ino", "st_mode", "st_mtime_ns", "st_nlink", "st_size")

    def __init__(self, size: int, ino: int, nlink: int, mode: int) -> None:
        self.st_size = size
        self.st_ino = ino
        self.st_nlink = nlink
        self.st_mode = mode
        self.st_mtime_ns = 0


class SimFile:
    __slots__ = ("data", "durable", "ino", "mode", "nlink", "pending")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.data = bytearray()
        self.durable = b""
        self.pending: list[tuple[int, bytes | None]] = []  # (offset, data) or (size, None)
        self.nlink = 0
        self.mode = 0o644


class SimDir:
    __slots__ = ("durable", "entries", "ino", "pending")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.entries: dict[str, int] = {}
        self.durable: dict[str, int] = {}
        self.pending: list[tuple[str, int]] = []  # (name, inode or 0 = removed)


class SimClock:
    """A clock that moves by itself; randomness from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.now = 10**18
        self.boot = 1

    def time_ns(self) -> int:
        self.now += 1000
        return self.now

    def monotonic(self) -> float:
        self.now += 1000
        return self.now / 1e9

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9) + 1

    def random(self, size: int) -> bytes:
        return self.rng.randbytes(size)

    def boot_id(self) -> bytes:
        return self.boot.to_bytes(16, "big")


class SimFs:
    def __init__(self) -> None:
        self.files: dict[int, SimFile] = {}
        self.dirs: dict[str, SimDir] = {"/": SimDir(1)}
        self.fds: dict[int, int] = {}
        self.locks: dict[int, int] = {}
        self.next_ino = 2
        self.next_fd = 1000
        self.steps = 0
        self.crash_at = -1
        self.dead = False
        self.calls: list[str] = []
        self.fail: dict[int, int] = {}  # step -> errno
        self.fail_mode = "clean"
        self.room = -1  # bytes that may still be written, -1 = no limit
        self.short: random.Random | None = None
        self.hook: Any = None
        self.in_hook = False

    # -- faults -------------------------------------------------------------------------------

    def _step(self, what: str) -> int:
        if self.dead:
            raise Crash
        if self.in_hook:
            return -1
        self.steps += 1
        self.calls.append(what)
        if self.steps == self.crash_at:
            self.dead = True
            raise Crash
        if self.hook is not None:
            self.in_hook = True
            try:
                self.hook()
            finally:
                self.in_hook = False
        code = self.fail.get(self.steps, 0)
        if code and what not in ("fdatasync", "syncdir"):
            raise OSError(code, os.strerror(code))
        return code

    # -- calls --------------------------------------------------------------------------------

    def _split(self, path: str) -> tuple[SimDir, str]:
        folder, _, name = path.rpartition("/")
        found = self.dirs.get(folder or "/")
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        return found, name

    def open(self, path: str, flags: int, mode: int = 0o644, /) -> int:
        folder, name = self._split(path)
        ino = folder.entries.get(name)
        if ino is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            self._step("create")
            ino = self._new()
            self.files[ino].mode = mode
            self.files[ino].nlink = 1
            folder.entries[name] = ino
            folder.pending.append((name, ino))
        elif flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, "exists", path)
        self.next_fd += 1
        self.fds[self.next_fd] = ino
        return self.next_fd

    def _new(self) -> int:
        self.next_ino += 1
        self.files[self.next_ino] = SimFile(self.next_ino)
        return self.next_ino

    def close(self, fd: int, /) -> None:
        ino = self.fds.pop(fd, 0)
        if self.locks.get(ino) == fd:
            del self.locks[ino]

    def pread(self, fd: int, size: int, offset: int, /) -> bytes:
        return bytes(self.files[self.fds[fd]].data[offset : offset + size])

    def pwrite(self, fd: int, data: Any, offset: int, /) -> int:
        self._step("pwrite")
        data = bytes(data)
        if self.room >= 0:
            grow = max(0, offset + len(data) - len(self.files[self.fds[fd]].data))
            if grow > self.room:
                keep = len(data) - (grow - self.room)
                if keep <= 0:
                    raise OSError(errno.ENOSPC, "no space")
                data = data[:keep]
                grow = self.room
            self.room -= grow
        if self.short is not None and len(data) > 1 and self.short.random() < 0.3:
            data = data[: self.short.randrange(1, len(data))]
        file = self.files[self.fds[fd]]
        if len(file.data) < offset:
            file.data.extend(bytes(offset - len(file.data)))
        file.data[offset : offset + len(data)] = data
        file.pending.append((offset, data))
        return len(data)

    def fdatasync(self, fd: int, /) -> None:
        code = self._step("fdatasync")
        file = self.files[self.fds[fd]]
        if code > 0:
            # "clean": the failed pages are marked clean, the cache keeps the new bytes, the disk
            # has the old ones, later syncs say nothing. "old": the cache shows the old bytes.
            # "dirty": the pages stay dirty, a later sync would write them.
            if self.fail_mode == "old":
                file.data = bytearray(file.durable)
            if self.fail_mode != "dirty":
                file.pending = []
            raise OSError(code, os.strerror(code))
        self._settle(file)

    def _settle(self, file: SimFile) -> None:
        if file.pending:
            image = bytearray(file.durable)
            for offset, data in file.pending:
                if data is None:
                    if offset <= len(image):
                        del image[offset:]
                    else:
                        image.extend(bytes(offset - len(image)))
                else:
                    if len(image) < offset:
                        image.extend(bytes(offset - len(image)))
                    image[offset : offset + len(data)] = data
            file.durable = bytes(image)
            file.pending = []

    def ftruncate(self, fd: int, length: int, /) -> None:
        self._step("ftruncate")
        file = self.files[self.fds[fd]]
        if length == len(file.data):
            return
        if length < len(file.data):
            del file.data[length:]
        else:
            file.data.extend(bytes(length - len(file.data)))
        file.pending.append((length, None))

    def _stat(self, file: SimFile) -> SimStat:
        return SimStat(len(file.data), file.ino, file.nlink, file.mode)

    def fstat(self, fd: int, /) -> SimStat:
        return self._stat(self.files[self.fds[fd]])

    def stat(self, path: str, /) -> SimStat:
        if path in self.dirs:
            return SimStat(0, self.dirs[path].ino, 2, 0o755)
        folder, name = self._split(path)
        if name not in folder.entries:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self._stat(self.files[folder.entries[name]])

    def rename(self, old: str, new: str, /) -> None:
        self._step("rename")
        source, name = self._split(old)
        target, other = self._split(new)
        ino = source.entries.pop(name)
        if other in target.entries:
            self.files[target.entries[other]].nlink -= 1
        target.entries[other] = ino
        if source is target:
            # One operation in one folder is atomic: both names or none.
            source.pending.append((f"{name}\0{other}", ino))
        else:
            target.pending.append((other, ino))
            source.pending.append((name, 0))

    def unlink(self, path: str, /) -> None:
        folder, name = self._split(path)
        if name not in folder.entries:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        self._step("unlink")
        self.files[folder.entries.pop(name)].nlink -= 1
        folder.pending.append((name, 0))

    def listdir(self, path: str, /) -> list[str]:
        if path not in self.dirs:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        prefix = path.rstrip("/") + "/"
        inner = [p[len(prefix) :] for p in self.dirs if p.startswith(prefix) and p != path]
        return list(self.dirs[path].entries) + [p for p in inner if p and "/" not in p]

    def mkdir(self, path: str, /) -> None:
        if path in self.dirs:
            return
        parent = path.rpartition("/")[0] or "/"
        if parent not in self.dirs:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        self.next_ino += 1
        self.dirs[path] = SimDir(self.next_ino)  # folders themselves are taken as durable

    def chmod(self, path: str, mode: int, /) -> None:
        folder, name = self._split(path)
        self.files[folder.entries[name]].mode = mode

    def sync_directory(self, path: str, /) -> None:
        code = self._step("syncdir")
        if code > 0:
            raise OSError(code, os.strerror(code))
        folder = self.dirs[path]
        folder.durable = dict(folder.entries)
        folder.pending = []

    def flock(self, fd: int, operation: int, /) -> None:
        ino = self.fds[fd]
        if operation & fcntl.LOCK_UN:
            if self.locks.get(ino) == fd:
                del self.locks[ino]
            return
        if self.locks.get(ino, fd) != fd:
            raise OSError(errno.EWOULDBLOCK, "locked")
        self.locks[ino] = fd

    def locker(self, fd: int, /) -> tuple[int, str]:
        return 0, ""

    def enqueue(self, fd: int, number: int, /) -> bool:
        return True  # one thread: whoever finds the lock taken never gets it

    def waiting(self, fd: int, number: int, /) -> bool:
        return False

    def dequeue(self, fd: int, /) -> None:
        pass

    def allocate(self, fd: int, size: int, /) -> None:
        self._step("allocate")

    def map(self, fd: int, size: int, /) -> Any:
        return bytes(self.files[self.fds[fd]].data[:size])

    def network(self, path: str, /) -> str:
        return ""

    # -- the crash ----------------------------------------------------------------------------

    def crashed(self, variant: int) -> SimFs:
        """The disk after a power loss. 0: nothing pending survives, 1: everything, 2: all data and
        no names, 3: all names and no data; others at random."""
        rng = random.Random(variant)
        disk = SimFs()
        disk.next_ino = self.next_ino
        for path, folder in self.dirs.items():
            copy = SimDir(folder.ino)
            copy.entries = dict(folder.durable)
            pending = folder.pending
            if variant in (0, 2):
                kept = []
            elif variant in (1, 3):
                kept = list(pending)
            elif variant % 2:
                kept = pending[: rng.randint(0, len(pending))]
            else:
                kept = [item for item in pending if rng.random() < 0.5]
            for name, ino in kept:
                if "\0" in name:
                    old, new = name.split("\0")
                    copy.entries.pop(old, None)
                    copy.entries[new] = ino
                elif ino:
                    copy.entries[name] = ino
                else:
                    copy.entries.pop(name, None)
            copy.durable = dict(copy.entries)
            disk.dirs[path] = copy
        names: dict[int, int] = {}
        for folder in disk.dirs.values():
            for ino in folder.entries.values():
                names[ino] = names.get(ino, 0) + 1
        for ino, count in names.items():
            file = self.files[ino]
            copy_file = SimFile(ino)
            copy_file.mode = file.mode
            copy_file.nlink = count
            image = self._persisted(file, variant, rng)
            copy_file.data = bytearray(image)
            copy_file.durable = bytes(image)
            disk.files[ino] = copy_file
        return disk

    def _persisted(self, file: SimFile, variant: int, rng: random.Random) -> bytes:
        pending = file.pending
        if not pending or variant in (0, 3):
            return file.durable
        everything = variant in (1, 2)
        sizes = len(pending) if everything else rng.randint(0, len(pending))
        if not everything and variant % 3 == 0:
            sizes = len(pending)
        image = bytearray(file.durable)
        for index, (offset, data) in enumerate(pending):
            if data is None:
                if index < sizes:
                    if offset <= len(image):
                        del image[offset:]
                    else:
                        image.extend(bytes(offset - len(image)))
                continue
            end = offset + len(data)
            if index < sizes and len(image) < end:
                image.extend(bytes(end - len(image)))
            at = offset
            while at < end:
                stop = min(end, (at // SECTOR + 1) * SECTOR)
                if at < len(image) and (everything or rng.random() < 0.6):
                    limit = min(stop, len(image))
                    image[at:limit] = data[at - offset : limit - offset]
                at = stop
        return bytes(image)

    def fingerprint(self) -> int:
        """Of everything durable."""
        return hash(
            tuple(
                (path, tuple(sorted((n, bytes(self.files[i].data)) for n, i in d.entries.items())))
                for path, d in sorted(self.dirs.items())
            )
        )

    def clone(self) -> SimFs:
        """The same disk once more (everything durable)."""
        copy = SimFs()
        copy.next_ino = self.next_ino
        for path, folder in self.dirs.items():
            twin = SimDir(folder.ino)
            twin.entries = dict(folder.entries)
            twin.durable = dict(folder.entries)
            copy.dirs[path] = twin
        for ino, file in self.files.items():
            if file.nlink:
                other = SimFile(ino)
                other.data = bytearray(file.data)
                other.durable = bytes(file.data)
                other.nlink = file.nlink
                other.mode = file.mode
                copy.files[ino] = other
        return copy
