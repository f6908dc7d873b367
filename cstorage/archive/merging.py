"""The file list of a tree onto which another archive was extracted.

Rules of this module:

* The result is what is still true of the older list, then the newer list as it is: the newer one's
  records stay in their archive's order, which is what a proof of that archive needs.
* Still true is what the newer archive does not speak of and what is on disk as that kind of thing.
  What lower layers lost stays lost. A directory into which the newer archive put something without
  listing it has the time that it has on disk.
* A file of which only hard links are left is described by the first of these.
* Memory is one number per path of the newer archive, and what hard links point to.
"""

from __future__ import annotations

import os
import stat

from cstorage.archive import beneath
from cstorage.archive import header as tar
from cstorage.archive.manifest import ManifestReader, ManifestWriter, Mark
from cstorage.archive.names import clean
from cstorage.errors import ArchiveError
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cstorage.archive.compression import ByteSink, ByteSource

_KINDS = {tar.DIRTYPE: stat.S_ISDIR, tar.SYMTYPE: stat.S_ISLNK, tar.REGTYPE: stat.S_ISREG}
_PATH, _TYPE, _SIZE, _MTIME, _LINK, _DIGEST = 1, 2, 6, 7, 8, 12


def merge(
    older: Callable[[], ByteSource], newer: Callable[[], ByteSource], root_fd: int, sink: ByteSink
) -> None:
    """Write the list of the tree ``root_fd`` to ``sink``; each call of the others opens anew.

    Raises ``ArchiveError`` for damaged lists, ``OSError``.
    """
    spoken: set[int] = set()
    entered: set[int] = set()
    hidden: set[tuple[int, bytes]] = set()
    reader = ManifestReader(newer())
    algorithm = reader.algorithm
    for record in reader.records():
        directory = record[_PATH].rpartition(b"/")[0]
        while directory and hash(directory) not in entered:  # what it implies is in one, too
            entered.add(hash(directory))
            directory = directory.rpartition(b"/")[0]
        if record[0] == Mark.PRESENT:
            spoken.add(hash(record[_PATH]))
        else:
            hidden.add((record[0], record[_PATH]))
    writer = ManifestWriter(sink, algorithm)
    tree = _Tree(root_fd)
    try:
        for kept in _still_true(older, spoken, entered, hidden, tree, algorithm):
            writer.add(kept)
    finally:
        tree.close()
    for record in ManifestReader(newer()).records():
        writer.add(tuple(record))
    writer.close()


def _still_true(
    older: Callable[[], ByteSource],
    spoken: set[int],
    entered: set[int],
    hidden: set[tuple[int, bytes]],
    tree: _Tree,
    algorithm: str,
) -> Iterator[tuple[Any, ...]]:
    targets = {_target(record) for record in ManifestReader(older()).records() if _is_link(record)}
    gone: dict[bytes, list[Any]] = {}  # what hard links point to and is not there any more
    moved: dict[bytes, bytes] = {}  # the name under which it is described instead
    reader = ManifestReader(older())
    comparable = reader.algorithm == algorithm
    for record in reader.records():
        mark, path = record[0], record[_PATH]
        if mark != Mark.PRESENT:
            kept = (mark, path) not in hidden and (
                mark == Mark.WHITEOUT or tree.has_directory(path)
            )
            if kept:
                yield tuple(record)
            continue
        if not comparable:
            record[_DIGEST] = b""
        if hash(path) in spoken or not tree.has(path, record[_TYPE]):
            if path in targets:
                gone[path] = record
            continue
        if _is_link(record):
            target = _target(record)
            if target in moved:
                record[_LINK] = moved[target]
            elif target in gone:
                lost = gone[target]
                moved[target] = path
                for field in (_TYPE, _SIZE, _LINK, _DIGEST):
                    record[field] = lost[field]
        if record[_TYPE] == tar.DIRTYPE and hash(path) in entered:
            record[_MTIME] = tree.mtime_ns(path)
        yield tuple(record)


def _is_link(record: list[Any]) -> bool:
    return bool(record[0] == Mark.PRESENT and record[_TYPE] == tar.LNKTYPE)


def _target(record: list[Any]) -> bytes:
    try:
        return clean(record[_LINK])
    except ArchiveError:
        return b""


class _Tree:
    """Looks records up in a tree; they come directory by directory."""

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._directory: bytes | None = None
        self._fd = -1

    def _stat(self, path: bytes) -> os.stat_result | None:
        directory, _, base = path.rpartition(b"/")
        if directory != self._directory:
            self.close()
            try:
                self._fd = beneath.open_in_root(self._root, directory, beneath.DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                self._fd = -1
            self._directory = directory
        if self._fd < 0:
            return None
        return beneath.stat_in(self._fd, base or b".")

    def _mode(self, path: bytes) -> int:
        """0 if there is nothing."""
        info = self._stat(path)
        return info.st_mode if info is not None else 0

    def mtime_ns(self, path: bytes) -> int:
        """Of what is there."""
        info = self._stat(path)
        return info.st_mtime_ns if info is not None else 0

    def has(self, path: bytes, kind: int) -> bool:
        """Whether ``path`` is what a record of tar type ``kind`` describes."""
        mode = self._mode(path)
        fits = _KINDS.get(kind)
        return bool(mode) and (fits(mode) if fits is not None else not stat.S_ISDIR(mode))

    def has_directory(self, path: bytes) -> bool:
        return stat.S_ISDIR(self._mode(path))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._directory = -1, None
