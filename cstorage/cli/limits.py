"""The flags that bound an import: ``--max-bytes``, ``--max-entries``, ``--max-ratio``.

A bound is a whole number of decimal digits, 0 for none; bytes may end in ``k``, ``m``, ``g``
(powers of 1024, either case). Anything else is refused before a byte is read.
"""

from __future__ import annotations

from cstorage.cli.quoting import go_quote
from cstorage.errors import StorageError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.archive.options import ApplyOptions
    from cstorage.cli.invocation import Invocation

_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30}


class BoundRefused(StorageError):
    """A text that is no bound."""


def bound(inv: Invocation, key: str, *, units: bool = False) -> int:
    """The value of a bound, 0 where it was not given. Raises ``BoundRefused``."""
    text = inv.text(key)
    if not text:
        return 0
    import re

    parts = re.fullmatch(r"([0-9]{1,18})([kmg]?)", text, re.IGNORECASE | re.ASCII)
    if parts is None or (parts[2] and not units):
        flag = "--" + key.replace("_", "-")
        ending = ", which may end in k, m or g" if units else ""
        raise BoundRefused(f"{flag} {go_quote(text)}: give a whole number{ending}")
    return int(parts[1]) << _SHIFTS[parts[2].lower()]


def apply_options(inv: Invocation) -> ApplyOptions | None:
    """Options with the bounds asked for, ``None`` if there are none. Raises ``BoundRefused``."""
    bounds = (
        bound(inv, "max_bytes", units=True),
        bound(inv, "max_entries"),
        bound(inv, "max_ratio"),
    )
    if not any(bounds):
        return None
    from cstorage.archive.options import ApplyOptions, Limits

    return ApplyOptions(limits=Limits(*bounds))
