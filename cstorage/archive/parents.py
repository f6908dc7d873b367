"""Parent directories of an archive's members: found in-root, made if missing, kept open.

Rules of this module:

* A parent is resolved as if the tree's root were ``/`` (``beneath.open_in_root``), so symbolic
  links of the layer are followed inside it, as the reference does, and never lead out.
* At most ``_HELD_MAX`` descriptors are kept. Whoever removes anything calls ``forget``: what was
  cached may have been below it.
"""

from __future__ import annotations

import os
import stat

from cstorage.archive import beneath
from journal.plain import NamedTuple

_WATCHED_MAX = 1 << 17
_HELD_MAX = 128  # well below the usual limit of 1024 descriptors


class Parent(NamedTuple):
    """An open directory. ``set_group``: new entries take its group instead of the process's."""

    fd: int
    set_group: bool


class Parents:
    """Cache of open directories below ``root_fd`` by clean path (``b""`` is the root)."""

    def __init__(self, root_fd: int) -> None:
        self.root = os.open(b".", beneath.DIRECTORY, dir_fd=root_fd)
        self._held: dict[bytes, Parent] = {}
        self.retired: list[int] = []
        """Dropped descriptors that ``tidy`` is to close."""
        self.used: set[bytes] = set()
        """Directories through which something was created, and those above them."""
        self.aliased = False
        """Whether a directory was found under two paths, or may have been (``watch``)."""
        self._paths: dict[int, int] | None = None  # inode to hash of the path
        self._keep_root()

    def _keep_root(self) -> None:
        self._held[b""] = self._known(b"", self.root)

    def _known(self, path: bytes, fd: int) -> Parent:
        info = os.fstat(fd)
        paths = self._paths
        # The inode says it alone: ``one_mount`` keeps all of them on one file system.
        if paths is not None and (
            paths.setdefault(info.st_ino, hash(path)) != hash(path) or len(paths) > _WATCHED_MAX
        ):
            self.aliased = True
            self._paths = None
        return Parent(fd, bool(info.st_mode & stat.S_ISGID))

    def watch(self) -> None:
        """From now on find out about directories with two paths, until there is one.

        Right as long as nothing is removed. Beyond ``_WATCHED_MAX`` directories it is taken for
        granted that there is one: their numbers would need too much memory.
        """
        self._paths = {}
        self._keep_root()

    def get(self, path: bytes) -> Parent | None:
        """The directory if it is open already."""
        return self._held.get(path)

    def find(self, path: bytes) -> Parent:
        """The directory, opened if need be; raises ``OSError`` as opening it does."""
        return self._held.get(path) or self.keep(
            path, beneath.open_in_root(self.root, path, beneath.DIRECTORY, one_mount=True)
        )

    def keep(self, path: bytes, fd: int) -> Parent:
        """Take over a descriptor of the directory ``path``."""
        if len(self._held) >= _HELD_MAX:
            self.forget()
        self._held[path] = parent = self._known(path, fd)
        return parent

    def note_use(self, path: bytes) -> None:
        """Remember that this archive made something in ``path``."""
        used = self.used
        while path and path not in used:
            used.add(path)
            path = path.rpartition(b"/")[0]

    def mode_changed(self, path: bytes) -> None:
        """The directory's mode was set: its set-group bit may be another."""
        known = self._held.get(path)
        if known is not None:
            self._held[path] = self._known(path, known.fd)

    def forget(self) -> None:
        """Drop all but the root. Descriptors in use stay valid until ``tidy``."""
        self.retired += [parent.fd for path, parent in self._held.items() if path]
        self._held.clear()
        self._keep_root()

    def tidy(self) -> None:
        """Close what was dropped; called between members."""
        for fd in self.retired:
            os.close(fd)
        self.retired.clear()

    def close(self) -> None:
        self.forget()
        self.tidy()
        os.close(self.root)
