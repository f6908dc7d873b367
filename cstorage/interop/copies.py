"""Files of a view that are copies of content files.

The modification time of a copy says which content it was made from, so one ``stat`` tells whether
it is still that copy: whoever writes to it changes its time. Copies share extents with the content
where the file system can, but never the inode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable

from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.content import ContentStore

_FICLONE = 0x40049409
_CHUNK = 1 << 20


def _time_ns(key: str) -> int:
    """The modification time of copies of the content ``key``: some moment of 1970 to 2038."""
    return (int(key[:8], 16) & 0x7FFFFFFF) * 10**9 + int(key[8:16], 16) % 10**9


def is_copy(path: str, key: str, content: ContentStore, *, verify: bool) -> bool:
    """Whether ``path`` is a copy of the content ``key``; ``verify`` reads it all."""
    try:
        info = os.lstat(path)
        size = os.stat(content.path(key)).st_size
    except FileNotFoundError:
        return False
    if not (
        stat.S_ISREG(info.st_mode)
        and info.st_size == size
        and info.st_mtime_ns == _time_ns(key)
        and info.st_nlink == 1
    ):
        return False
    if verify:
        import hashlib

        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == key
    return True


def make(path: str, key: str, content: ContentStore, draft: str) -> None:
    """Copy the content to ``path`` by way of ``draft``. Raises ``ContentDamaged`` if missing."""
    remove(draft)
    with content.open(key) as source:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _copy(source.fileno(), fd)
            os.utime(fd, ns=(_time_ns(key), _time_ns(key)))
        except BaseException:
            remove(draft)
            raise
        finally:
            os.close(fd)
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    os.rename(draft, path)


def _copy(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError:
        pass
    while True:
        try:
            if not os.copy_file_range(source, target, 1 << 30):
                break
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            break
    while data := os.read(source, _CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]


def sync(path: str) -> None:
    """Make a copy's bytes durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


def write(path: str, pieces: Iterable[memoryview], *, durable: bool = True) -> None:
    """Write a new file of these pieces, mode 0600, over one of that name left by a dead process."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        batch: list[memoryview] = []
        for piece in pieces:
            batch.append(piece)
            if len(batch) == 512:
                _write_all(fd, batch)
                batch = []
        _write_all(fd, batch)
        if durable:
            os.fdatasync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, pieces: list[memoryview]) -> None:
    while pieces:
        count = os.writev(fd, pieces)
        while pieces and count >= len(pieces[0]):
            count -= len(pieces.pop(0))
        if pieces and count:
            pieces[0] = pieces[0][count:]


def write_once(path: str, data: bytes, mode: int) -> None:
    """Make the file unless there is one already."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        return
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        pass


def drop_others(folder: str, wanted: set[str]) -> int:
    """Remove the plain files of a folder that are not ``wanted``; returns how many."""
    try:
        with os.scandir(folder) as entries:
            others = [
                entry.path
                for entry in entries
                if entry.name not in wanted and not entry.is_dir(follow_symlinks=False)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    for path in others:
        remove(path)
    return len(others)


def remove_folder(path: str) -> bool:
    """Remove a folder if it is empty."""
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.ENOTDIR, errno.EEXIST):
            raise
        return False
    return True
