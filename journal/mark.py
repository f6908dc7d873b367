"""The durability mark: a 64-byte note of how far the log is known to be on disk.

Rules of this module:

* Written after every sync, never synced itself: it speaks only for the boot and the folder (inode)
  it was written in. Otherwise, or if its checksum is wrong, it says nothing.
* It spares the next writer a sync of bytes that are durable already, gives readers the durable
  level, and is evidence of damage when the log ends before it.
* Losing it costs one sync and nothing else.
"""

from __future__ import annotations

from struct import Struct
from zlib import crc32

from journal.fs import O_CREATE, O_RDONLY, Fs
from journal.plain import NamedTuple

NAME = "durable"
_LAYOUT = Struct("<4s16sQQQQQ")
_BEGIN = Struct("<4s16sQ")
_PLACE = Struct("<QQQQ")
_MAGIC = b"JDM1"
SIZE = 64


class Mark(NamedTuple):
    """Everything up to ``offset`` of ``segment`` (last event ``sequence``) is durable."""

    boot_id: bytes
    folder: int
    segment: int
    offset: int
    sequence: int
    epoch: int


def unpack(raw: bytes, boot_id: bytes, folder: int) -> Mark | None:
    """The mark if it is whole and speaks for this boot and folder."""
    if len(raw) != SIZE or crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
        return None
    magic, *fields = _LAYOUT.unpack_from(raw)
    mark = Mark(*fields)
    if magic != _MAGIC or mark.boot_id != boot_id or boot_id == bytes(16):
        return None
    return mark if mark.folder == folder else None


def load(fs: Fs, root: str, boot_id: bytes) -> Mark | None:
    """Read the mark of the journal at ``root``."""
    try:
        fd = fs.open(f"{root}/{NAME}", O_RDONLY)
    except OSError:
        return None
    try:
        return unpack(fs.pread(fd, SIZE, 0), boot_id, fs.stat(root).st_ino)
    except OSError:
        return None
    finally:
        fs.close(fd)


class MarkFile:
    """The writer's side: one descriptor, one ``pwrite`` per sync; errors are of no consequence."""

    __slots__ = ("_begin", "_boot_id", "_fs", "_root", "fd", "folder")

    def __init__(self, fs: Fs, root: str, boot_id: bytes) -> None:
        self._fs = fs
        self._root = root
        self._boot_id = boot_id
        self.fd = -1
        self.folder = 0
        self._begin = b""

    def load(self) -> Mark | None:
        """What the file says now."""
        if self.fd < 0:
            return load(self._fs, self._root, self._boot_id)
        try:
            return unpack(self._fs.pread(self.fd, SIZE, 0), self._boot_id, self.folder)
        except OSError:
            return None

    def store(self, segment: int, offset: int, sequence: int, epoch: int) -> None:
        try:
            if self.fd < 0:
                self.folder = self._fs.stat(self._root).st_ino
                self.fd = self._fs.open(f"{self._root}/{NAME}", O_CREATE, 0o644)
                self._begin = _BEGIN.pack(_MAGIC, self._boot_id, self.folder)
            raw = self._begin + _PLACE.pack(segment, offset, sequence, epoch)
            self._fs.pwrite(self.fd, raw + crc32(raw).to_bytes(4, "little"), 0)
        except OSError:
            pass

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._fs.close(fd)
