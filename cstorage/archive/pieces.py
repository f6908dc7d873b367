"""Buffers, and what puts the entries of a recipe into them.

``fill`` knows no errors: what it cannot put into a buffer, whatever the reason, is left to its
caller, who has other ways, or says why not. So a process that is nobody's to talk to can use it.
"""

from __future__ import annotations

import os

from cstorage.archive.recipe import crc64
from cstorage.errors import ContentChanged
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from cstorage.archive.manifest import Hasher
    from cstorage.archive.recipe import RecipeEntry

Content: TypeAlias = "tuple[bytes, int, bytes]"
"""Name, size and digest of a file."""


class Piece:
    """A buffer; how much of it is used, by how many entries; and what a list is to prove of it."""

    def __init__(self, buffer: memoryview, slot: int = -1) -> None:
        self.buffer = buffer
        self.slot = slot
        """Of the twin, whose memory it is in; -1 for one of this process."""
        self.used = 0
        self.entries = 0
        """That are in it; -1 if those are all that there were."""
        self.found: list[Content] = []

    def clear(self) -> Piece:
        """Itself, empty."""
        self.used = self.entries = 0
        self.found.clear()
        return self


def fill(
    piece: Piece,
    entries: Iterable[RecipeEntry],
    open_payload: Callable[[bytes], int],
    hasher: Hasher | None,
) -> RecipeEntry | None:
    """Put entries into the piece; the first one that it did not put there, ``None`` if all are.

    An entry is not put there if it does not fit, or if its file cannot be opened, has another size
    or, without ``hasher``, another CRC-64. With ``hasher`` it is for the caller to prove what is in
    ``piece.found``.
    """
    buffer = piece.buffer
    limit = len(buffer)
    read, close = os.readv, os.close
    used, count = piece.used, 0
    try:
        for entry in entries:
            data, name, size, crc = entry
            at = used + len(data)
            stop = at + size
            if stop >= limit:
                break
            buffer[used:at] = data
            if size:
                try:
                    fd = open_payload(name)
                except (OSError, ContentChanged):
                    break
                try:
                    # One byte more than there should be, to see whether there is.
                    if read(fd, (buffer[at : stop + 1],)) != size:
                        break
                except OSError:
                    break
                finally:
                    close(fd)
                if hasher is not None:
                    piece.found.append((name, size, hasher(buffer[at:stop]).digest()))
                elif crc64(buffer[at:stop]).to_bytes(8, "big") != crc:
                    break
            used = stop
            count += 1
        else:
            return None
    finally:
        piece.used = used
        piece.entries += count
    return entry
