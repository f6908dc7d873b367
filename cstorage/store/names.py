"""Names and metadata of any item (semantics §2.2, §4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from cstorage import events as ev
from cstorage.errors import LayerUnknown, NotAnID
from cstorage.model import ImageID, Kind
from cstorage.state import keys
from cstorage.store import arguments, lookup, pullup
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.store.core import Core

Change = type[ev.NamesSet] | type[ev.NamesAdded] | type[ev.NamesRemoved]


def of(core: Core, key: str) -> tuple[str, ...]:
    """Names of the layer, image or container that ``key`` stands for. Raises ``LayerUnknown``."""
    found = core.catalogue.any_item(key)
    if found is None:
        raise LayerUnknown
    return found.names


def change(core: Core, how: Change, key: str, names: Sequence[str]) -> tuple[str, ...]:
    """Set, add or remove names; returns the resulting list. Raises ``LayerUnknown``.

    A name that another item of the kind holds moves over; that is never an error. An image of an
    additional store becomes the primary store's own first (semantics §3.2): ``DuplicateName`` if
    one of the names it has is taken there.
    """
    wanted = arguments.names(names)
    catalogue = core.catalogue
    primary = lookup.find_layer(catalogue.primary, key) or lookup.find_image(catalogue.primary, key)
    if primary is None and catalogue.shelves:
        image, shelf = catalogue.locate_image(key) or (None, None)
        if image is not None and shelf is not None:
            pullup.pull_up(core, image, shelf, how(Kind.IMAGE, image.id, wanted))
            return lookup.image(core.state, image.id).names
    with core.transaction() as tx:
        found = lookup.any_item(tx.state, key)
        if found is None:
            raise LayerUnknown
        kind, id_ = found
        if kind is Kind.IMAGE and lookup.image(tx.state, id_).store != core.image_store:
            tx.emit(ev.ImageMoved(ImageID(id_), core.image_store))
        tx.emit(how(kind, id_, wanted))
        result: tuple[str, ...] = tx.state.get(keys.record(kind, id_)).names
    return result


def metadata(core: Core, key: str) -> str:
    """Metadata text of any item. Raises ``NotAnID``."""
    found = core.catalogue.any_item(key)
    if found is None:
        raise NotAnID
    return found.metadata


def set_metadata(core: Core, key: str, text: str) -> None:
    """Replace the metadata text of any item. Raises ``NotAnID``."""
    with core.transaction() as tx:
        found: tuple[Kind, str] | None = lookup.any_item(tx.state, key)
        if found is None:
            raise NotAnID
        if found[0] is Kind.IMAGE and lookup.image(tx.state, found[1]).store != core.image_store:
            raise NotAnID
        tx.emit(ev.MetadataSet(*found, text))
