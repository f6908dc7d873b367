"""Opening the files of a layer by the names its archive gave them.

Names come from images, so each is resolved inside a content directory (never through a symbolic
link that leads out of it), must be a regular file, and is opened without waiting for a FIFO's
writer or acquiring a terminal (drivers-and-formats §9.4).
"""

from __future__ import annotations

import os

from cstorage.errors import ContentChanged
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cstorage.archive import beneath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Payloads:
    """Looks names up in content directories, uppermost first.

    A layer's files are nearly always in its own directory, so the lower ones are opened only when
    something was not found there.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        self._paths = list(roots)
        self._roots: list[int] = []
        self._finders: dict[int, beneath.Payloads] = {}
        self._own: Callable[[bytes], int] = self._first

    def __call__(self, name: bytes, /) -> int:
        """An O_RDONLY descriptor of the regular file ``name``. Raises ``ContentChanged``."""
        try:
            try:
                return self._own(name)
            except FileNotFoundError:
                return self._finder(1).open(name)
        except FileNotFoundError:
            place = os.path.normpath(os.path.join(self._paths[0], os.fsdecode(name)))
            raise ContentChanged(f"open {place}: no such file or directory") from None
        except OSError as error:
            raise ContentChanged(
                f"{os.fsdecode(name)}: {error.strerror or error}",
                hint="the layer's files were changed after it was imported; run check",
            ) from None

    def _first(self, name: bytes) -> int:
        self._own = self._finder(0).open
        return self._own(name)

    def directory(self) -> int:
        """The layer's own directory, where nearly all of its files are; open until ``close``."""
        self._finder(0)
        return self._roots[0]

    def _finder(self, index: int) -> beneath.Payloads:
        """The finder of the layer's own directory (0), or that of the directories below it (1)."""
        if index not in self._finders:
            from cstorage.archive import beneath

            paths = self._paths[1:] if index else self._paths[:1]
            first = len(self._roots)
            for path in paths:
                self._roots.append(os.open(path, _DIRECTORY))
            self._finders[index] = beneath.Payloads(self._roots[first:])
        return self._finders[index]

    def close(self) -> None:
        """Close the directories. Safe to call twice."""
        self._own = self._first
        while self._finders:
            self._finders.popitem()[1].close()
        while self._roots:
            os.close(self._roots.pop())
