"""Every file-system call of the journal, in one injectable object.

Rules of this module:

* No other module of the package touches ``os`` for files: a simulated disk, fault injection and
  call counting need no monkey-patching.
* The methods have the signatures and errors of ``os``; paths are text.
* Names are published by ``rename`` in one directory, then ``sync_directory`` (rename is atomic for
  observers, not durable).
"""

from __future__ import annotations

import errno
import fcntl
import os
from struct import Struct

from journal.plain import TYPE_CHECKING

O_RDONLY = os.O_RDONLY | os.O_CLOEXEC
O_RDWR = os.O_RDWR | os.O_CLOEXEC
O_CREATE = os.O_RDWR | os.O_CLOEXEC | os.O_CREAT
O_EXCLUSIVE = O_CREATE | os.O_EXCL

if TYPE_CHECKING:  # protocols cost a millisecond of every start
    from typing import Any, Protocol

    class StatLike(Protocol):
        """What the journal looks at in a stat result."""

        @property
        def st_size(self) -> int: ...
        @property
        def st_ino(self) -> int: ...
        @property
        def st_nlink(self) -> int: ...
        @property
        def st_mode(self) -> int: ...
        @property
        def st_mtime_ns(self) -> int: ...

    class Fs(Protocol):
        """The calls; ``OsFs`` is the real one."""

        def open(self, path: str, flags: int, mode: int = 0o644, /) -> int: ...
        def close(self, fd: int, /) -> None: ...
        def pread(self, fd: int, size: int, offset: int, /) -> bytes: ...
        def pwrite(self, fd: int, data: Any, offset: int, /) -> int: ...
        def fdatasync(self, fd: int, /) -> None: ...
        def ftruncate(self, fd: int, length: int, /) -> None: ...
        def fstat(self, fd: int, /) -> StatLike: ...
        def stat(self, path: str, /) -> StatLike: ...
        def rename(self, old: str, new: str, /) -> None: ...
        def unlink(self, path: str, /) -> None: ...
        def listdir(self, path: str, /) -> list[str]: ...
        def mkdir(self, path: str, /) -> None: ...
        def chmod(self, path: str, mode: int, /) -> None: ...
        def sync_directory(self, path: str, /) -> None: ...
        def flock(self, fd: int, operation: int, /) -> None: ...
        def locker(self, fd: int, /) -> tuple[int, str]: ...
        def enqueue(self, fd: int, number: int, /) -> bool: ...
        def waiting(self, fd: int, number: int, /) -> bool: ...
        def dequeue(self, fd: int, /) -> None: ...
        def allocate(self, fd: int, size: int, /) -> None: ...
        def map(self, fd: int, size: int, /) -> Any: ...
        def network(self, path: str, /) -> str: ...
else:
    Fs = StatLike = object

_NETWORK_NAMES = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "coda", "lustre", "gpfs",
     "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.cephfs", "ncpfs")
)  # fmt: skip


_FLOCK = Struct("@hhqqi4x")
_TAKEN = -1


def _range(fd: int, command: int, kind: int, start: int, length: int) -> int:
    """A call for an open file's byte locks; the type of lock that was found, ``_TAKEN``, or
    ``F_UNLCK`` where there is no file or its file system has none."""
    if fd < 0:
        return fcntl.F_UNLCK
    try:
        found = fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except OSError as error:
        return _TAKEN if error.errno == errno.EAGAIN else fcntl.F_UNLCK
    return int(_FLOCK.unpack(found)[0])


class OsFs:
    """The operating system's calls, with nothing in between where nothing is needed."""

    __slots__ = ()

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    pread = staticmethod(os.pread)
    pwrite = staticmethod(os.pwrite)
    fdatasync = staticmethod(os.fdatasync)
    ftruncate = staticmethod(os.ftruncate)
    fstat = staticmethod(os.fstat)
    stat = staticmethod(os.stat)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    listdir = staticmethod(os.listdir)
    chmod = staticmethod(os.chmod)
    flock = staticmethod(fcntl.flock)

    def locker(self, fd: int, /) -> tuple[int, str]:
        """The process that has the ``flock`` of this open file and its program's name, as the
        kernel says; (0, "") where it does not say (another container's process, no ``/proc``)."""
        try:
            stat = os.fstat(fd)
            device = stat.st_dev
            wanted = f"{os.major(device):02x}:{os.minor(device):02x}:{stat.st_ino}"
            with open("/proc/locks", encoding="ascii", errors="replace") as table:
                for line in table:
                    fields = line.split()
                    if fields[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and fields[5] == wanted:
                        with open(f"/proc/{fields[4]}/comm", encoding="utf-8") as file:
                            return int(fields[4]), file.read().strip()
        except (OSError, ValueError, IndexError):
            pass
        return 0, ""

    # A queue of numbers, each a locked byte of a file. The locks belong to the open file, not to
    # the process, and the kernel frees them with it. Where there are none, nobody ever waits.

    def enqueue(self, fd: int, number: int, /) -> bool:
        """Lock the byte ``number``; False if somebody else has it."""
        return _range(fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, number, 1) != _TAKEN

    def waiting(self, fd: int, number: int, /) -> bool:
        """Whether somebody else has a byte before ``number`` (0: any byte)."""
        found = _range(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, 0, number)
        return found == fcntl.F_WRLCK

    def dequeue(self, fd: int, /) -> None:
        """Unlock all bytes of this open file."""
        _range(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0, 0)

    def mkdir(self, path: str, /) -> None:
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            if not os.path.isdir(path):
                raise

    def sync_directory(self, path: str, /) -> None:
        """Make the names in ``path`` durable; an I/O error is never swallowed."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def allocate(self, fd: int, size: int, /) -> None:
        """Back ``size`` bytes with blocks; raises ENOSPC rather than leaving a hole."""
        os.posix_fallocate(fd, 0, size)

    def map(self, fd: int, size: int, /) -> Any:
        """A read-only map with random-access advice (a cold look-up reads one page, not 32)."""
        import mmap

        if size == 0:
            return b""
        view = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        view.madvise(mmap.MADV_RANDOM)
        return view

    def network(self, path: str, /) -> str:
        """Name of the network file system that holds ``path``, or "" for a local one.

        Taken from the mount table: the last mount whose point is a parent of ``path``.
        """
        real = os.path.realpath(path)
        best, kind = -1, ""
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
                for line in table:
                    fields = line.split(" ")
                    point = fields[4].replace("\\040", " ")
                    if len(point) >= best and (
                        real == point or real.startswith(point.rstrip("/") + "/")
                    ):
                        best, kind = len(point), fields[fields.index("-") + 1]
        except (OSError, ValueError):
            return ""
        return kind if kind in _NETWORK_NAMES else ""


REAL = OsFs()

FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""Errors that mean "no room": the frame is cut back and the writer may go on."""


def write_all(fs: Fs, fd: int, data: bytes, offset: int) -> None:
    """``pwrite`` until everything is written; short writes are normal near a limit."""
    done = fs.pwrite(fd, data, offset)
    while done < len(data):
        step = fs.pwrite(fd, data[done:], offset + done)
        if step <= 0:
            raise OSError(errno.EIO, "pwrite wrote nothing")
        done += step


def read_file(fs: Fs, path: str, limit: int = 1 << 30) -> bytes:
    """The whole file, at most ``limit`` bytes."""
    fd = fs.open(path, O_RDONLY)
    try:
        return read_range(fs, fd, 0, min(limit, fs.fstat(fd).st_size))
    finally:
        fs.close(fd)


def read_range(fs: Fs, fd: int, offset: int, size: int) -> bytes:
    """``size`` bytes at ``offset``, fewer only where the file ends."""
    data = fs.pread(fd, size, offset)
    if len(data) == size or not data:
        return data
    parts = [data]
    have = len(data)
    while have < size:
        data = fs.pread(fd, size - have, offset + have)
        if not data:
            break
        parts.append(data)
        have += len(data)
    return b"".join(parts)


def settle(fs: Fs, fd: int) -> None:
    """Make what is visible of an open file durable, also through a descriptor that only reads;
    a medium that cannot be written holds nothing else."""
    try:
        fs.fdatasync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):
            raise


def publish(fs: Fs, directory: str, name: str, data: bytes, mode: int = 0o644) -> None:
    """Write ``name`` so that it is either absent or complete and durable: temporary file, data
    sync, rename, directory sync, in this order."""
    temporary = f"{directory}/.{name}.tmp"
    try:
        fd = fs.open(temporary, O_CREATE, mode)
    except PermissionError:  # left by a crash, with a mode that forbids writing
        fs.unlink(temporary)
        fd = fs.open(temporary, O_CREATE, mode)
    try:
        fs.ftruncate(fd, 0)
        write_all(fs, fd, data, 0)
        fs.fdatasync(fd)
    finally:
        fs.close(fd)
    fs.rename(temporary, f"{directory}/{name}")
    fs.sync_directory(directory)
