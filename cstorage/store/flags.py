"""Flags of items: small JSON values by name (semantics §2.7).

The original sets them at creation only; here they can be changed, each change an event.
"""

from __future__ import annotations

from collections.abc import Mapping

from cstorage import events as ev
from cstorage.errors import NotAnID
from cstorage.model import Kind
from cstorage.state import keys
from cstorage.store import arguments, lookup
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cstorage.store.core import Core


def of(core: Core, key: str) -> Mapping[str, Any]:
    """Flags of the layer, image or container that ``key`` stands for. Raises ``NotAnID``."""
    found = core.catalogue.any_item(key)
    if found is None:
        raise NotAnID
    return dict(found.flags)


def change(core: Core, key: str, put: Mapping[str, Any], drop: frozenset[str]) -> None:
    """Set some flags and clear others. Raises ``NotAnID``, ``StorageError`` for what is no JSON."""
    put = arguments.flags(put)
    with core.transaction() as tx:
        found: tuple[Kind, str] | None = lookup.any_item(tx.state, key)
        if found is None:
            raise NotAnID
        before = tx.state.get(keys.record(*found)).flags
        after = {k: v for k, v in {**before, **put}.items() if k not in drop}
        if after != before:
            tx.emit(ev.FlagsSet(*found, after))
