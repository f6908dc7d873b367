"""Content-addressed immutable files: big data, recipes and file manifests by their SHA-256.

Layout below the content root: ``sha256/<first two digits>/<64 digits>``, mode 0600.

Rules:

* "Is stored" is the contract, not "I stored it": putting the same bytes twice is one file.
* A file appears under its final name only by ``rename``, complete and synced, and only while the
  caller holds the store's writer lock, because removal happens under it too (architecture §4).
* Reading verifies: ``read`` compares the digest before it returns, else raises ``ContentDamaged``.
"""

from __future__ import annotations

import errno
import os

from cstorage.errors import StorageError
from journal.checksum import sha256
from journal.plain import TYPE_CHECKING, BinaryIO, Path

if TYPE_CHECKING:
    from collections.abc import Iterable


class ContentDamaged(StorageError):
    """A content file is missing (the cause says so) or its bytes do not have its digest."""

    found_bytes = -1
    """How many bytes were read whose digest is another one."""


class ContentStore:
    """The content folder of one store; makes its directories when first written."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where the bytes with SHA-256 ``key`` (64 hex digits) are or would be."""
        return self.root / "sha256" / key[:2] / key

    def holds(self, key: str) -> bool:
        return self.path(key).exists()

    def open(self, key: str) -> BinaryIO:
        """The file, for streaming; the digest is the reader's to check."""
        try:
            return open(self.path(key), "rb")
        except FileNotFoundError as error:
            raise ContentDamaged(
                f"content {key} is missing at {self.path(key)}; run check"
            ) from error

    def read(self, key: str) -> bytes:
        """All bytes, verified. Raises ``ContentDamaged``."""
        with self.open(key) as file:
            data = file.read()
        got = sha256(data).hexdigest()
        if got != key:
            damaged = ContentDamaged(
                f"content at {self.path(key)} has digest {got}, expected {key}; run check"
            )
            damaged.found_bytes = len(data)
            raise damaged
        return data

    def adopt(self, source: Path, key: str) -> list[str]:
        """Move ``source`` (complete, synced, same file system) to its place; writer lock held.

        Returns the directories that the caller is to sync before anybody relies on it.
        """
        target = os.fspath(self.path(key))
        folder = os.path.dirname(target)
        if os.path.exists(target):
            os.unlink(source)
            # Perhaps of one who died before the directories were synced.
            return [folder, os.path.dirname(folder)]
        changed = [folder]
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
            changed.append(folder)
        for missing in reversed(changed[:-1]):
            try:
                os.mkdir(missing, 0o700)
            except FileExistsError:
                pass
        os.rename(source, target)
        return changed

    def evict(self, key: str, trash: Path) -> None:
        """Move the file into ``trash``; a missing file is fine. Writer lock held."""
        target = os.fspath(self.path(key))
        try:
            os.rename(target, trash / key)
        except FileNotFoundError:
            pass
        try:
            os.rmdir(os.path.dirname(target))
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise


def sync_directory(path: Path | str) -> None:
    """Make the directory entries of ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directories(paths: Iterable[str]) -> None:
    """The same for several. Changed together and then synced together, they are one commit of the
    file system's journal, where each in turn would be one of its own."""
    for path in dict.fromkeys(paths):
        sync_directory(path)


def write_synced(path: Path, data: bytes) -> None:
    """``write_new``, and sync it."""
    write_new(path, data, durable=True)


def write_new(path: Path, data: bytes, *, durable: bool) -> None:
    """Create ``path`` (must not exist) with ``data``, mode 0600."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fdatasync(fd)
    finally:
        os.close(fd)
