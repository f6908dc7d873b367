"""Names of archive members as paths inside a layer. Pure.

Rules of this module:

* Leading slashes, empty and ``.`` components mean nothing and are dropped.
* ``..`` is refused, not clamped (drivers-and-formats §9.2): where it leads depends on symbolic
  links, and a layer whose members were moved could not be exported again.
"""

from __future__ import annotations

import re

from cstorage.archive.reader import shown
from cstorage.errors import ArchiveBreakout, ArchiveError

_UNCLEAN = re.compile(rb"(?:^|/)\.{0,2}(?:/|$)|\0")
"""Finds empty, ``.`` and ``..`` components and NUL bytes: names without a match are clean."""

_SUSPECT = (b".", b"/")


def clean(name: bytes) -> bytes:
    """A member's name as a relative path without empty and ``.`` components; ``b""`` is the root.

    Raises ``ArchiveBreakout`` for a name with a ``..`` component, ``ArchiveError`` for a NUL byte.
    """
    if name.startswith(b"./"):
        name = name[2:]
    if name.endswith(b"/"):
        name = name[:-1]
    # Most names show in a fraction of the expression's time that there is nothing to find.
    if (
        (b"/." not in name and b"//" not in name and b"\0" not in name)
        and not (name.startswith(_SUSPECT) or name.endswith(b"/"))
    ) or _UNCLEAN.search(name) is None:
        return name
    if b"\0" in name:
        raise ArchiveError(f"{shown(name)}: name contains a NUL byte")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ArchiveBreakout(
            f'{shown(name)}: name contains "..": refused, because it could leave the layer'
        )
    return b"/".join(parts)
