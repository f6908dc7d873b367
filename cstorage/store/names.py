"""Names and metadata of any item (semantics §2.2, §4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cstorage import events as ev
from cstorage.errors import LayerUnknown, NotAnID
from cstorage.model import Kind
from cstorage.state import keys
from cstorage.store import lookup

if TYPE_CHECKING:
    from cstorage.store.core import Core

Change = type[ev.NamesSet] | type[ev.NamesAdded] | type[ev.NamesRemoved]


def of(core: Core, key: str) -> tuple[str, ...]:
    """Names of the layer, image or container that ``key`` stands for. Raises ``LayerUnknown``."""
    state = core.state
    found = lookup.any_item(state, key)
    if found is None:
        raise LayerUnknown
    names: tuple[str, ...] = state.get(keys.record(*found)).names
    return names


def change(core: Core, how: Change, key: str, names: Sequence[str]) -> tuple[str, ...]:
    """Set, add or remove names; returns the resulting list. Raises ``LayerUnknown``.

    A name that another item of the kind holds moves over; that is never an error.
    """
    with core.transaction() as tx:
        found = lookup.any_item(tx.state, key)
        if found is None:
            raise LayerUnknown
        kind, id_ = found
        tx.emit(how(kind, id_, tuple(dict.fromkeys(names))))
        result: tuple[str, ...] = tx.state.get(keys.record(kind, id_)).names
    return result


def metadata(core: Core, key: str) -> str:
    """Metadata text of any item. Raises ``NotAnID``."""
    state = core.state
    found = lookup.any_item(state, key)
    if found is None:
        raise NotAnID
    text: str = state.get(keys.record(*found)).metadata
    return text


def set_metadata(core: Core, key: str, text: str) -> None:
    """Replace the metadata text of any item. Raises ``NotAnID``."""
    with core.transaction() as tx:
        found: tuple[Kind, str] | None = lookup.any_item(tx.state, key)
        if found is None:
            raise NotAnID
        tx.emit(ev.MetadataSet(*found, text))
