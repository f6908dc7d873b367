"""Opening the files of a layer by the names its archive gave them.

Names come from images, so each is resolved inside a content directory (never through a symbolic
link that leads out of it), must be a regular file, and is opened without waiting for a FIFO's
writer or acquiring a terminal (drivers-and-formats §9.4).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cstorage.errors import ContentChanged

if TYPE_CHECKING:
    from collections.abc import Sequence

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Payloads:
    """Looks names up in content directories, uppermost first."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._paths = list(roots)
        self._roots: list[int] = []

    def __call__(self, name: bytes, /) -> int:
        """An O_RDONLY descriptor of the regular file ``name``. Raises ``ContentChanged``."""
        from cstorage.archive.beneath import open_in_root

        relative = name.lstrip(b"/")
        for index, path in enumerate(self._paths):
            if index == len(self._roots):
                # Lower directories are opened only when something is not found above them.
                self._roots.append(os.open(path, _DIRECTORY))
            try:
                descriptor = open_in_root(self._roots[index], relative, _READ)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise ContentChanged(
                    f"{os.fsdecode(name)}: {error.strerror or error}",
                    hint="the layer's files were changed after it was imported; run check",
                ) from None
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise ContentChanged(f"{os.fsdecode(name)}: is not a regular file any more")
            return descriptor
        raise ContentChanged(f"{os.fsdecode(name)}: no such file in the layer")

    def close(self) -> None:
        """Close the directories. Safe to call twice."""
        while self._roots:
            os.close(self._roots.pop())
