"""What callers give, judged where it comes in, so that nothing odd gets into the journal.

Texts are told from lists of texts, flags from what is no JSON, and IDs that are used as names of
directories from those that would lead elsewhere. Plain types are checked with the event
(``codec.check``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from cstorage.errors import InvalidID, StorageError
from journal.plain import Any

_ID_BYTES_MAX = 200
"""As of layers (``drivers.contract``): suffixes are appended, and NAME_MAX is 255."""


def names(given: Iterable[str]) -> tuple[str, ...]:
    """The names, each once. Raises ``TypeError`` for one text, whose letters would be names."""
    if isinstance(given, str | bytes):
        raise TypeError(f"names are a list of texts, not one text: [{given!r}]")
    return tuple(dict.fromkeys(given))


def flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags as JSON reads them back. Raises ``StorageError`` for what is no JSON."""
    if not given:
        return {}
    import json

    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(given), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StorageError(f"flag value is no JSON: {error}") from error
    return found


def item_id(id_: str, kind: str) -> None:
    """Raises ``InvalidID`` unless the ID is one component of a path, or "" for a generated one."""
    if id_ in (".", "..") or "/" in id_ or "\0" in id_ or len(os.fsencode(id_)) > _ID_BYTES_MAX:
        raise InvalidID(
            f"invalid {kind} ID {id_[:64]!r}",
            hint=f"an ID is one path component of at most {_ID_BYTES_MAX} bytes",
        )
