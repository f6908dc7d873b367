"""Looking in the primary store first and then in the additional ones, in order (semantics §3.2).

A ``Shelf`` is an additional, read-only store of images and their layers. Whatever comes from one is
marked ``read_only``. The first store that knows a key decides; an item of a shelf whose ID the
primary store has too is hidden from lookups by that ID, not from lookups by name.
"""

from __future__ import annotations

from collections.abc import Iterator

from cstorage.errors import ImageUnknown, LayerUnknown
from cstorage.model import BigDataItem, Image, Item, Kind, Layer
from cstorage.state import State
from cstorage.store import lookup
from cstorage.store.lookup import go_quote
from journal.plain import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Shelf(Protocol):
    """An additional store. Reading never takes a lock that could keep its owner waiting."""

    root: Path

    @property
    def layers(self) -> State: ...

    @property
    def images(self) -> State: ...

    def read(self, kind: Kind, item: Item, blob: BigDataItem) -> bytes:
        """A blob's bytes. Raises ``OSError`` or ``ContentDamaged``."""

    def unlisted(self, kind: Kind, item: Item, name: str) -> BigDataItem | None:
        """A blob that is there without being in the item's record, without a digest."""

    def recipe(self, layer: Layer) -> BinaryIO | None:
        """The recipe of a layer's archive, if it was kept."""

    def close(self) -> None: ...


class Catalogue(NamedTuple):
    """One moment's view of the primary state and the shelves beside it."""

    primary: State
    shelves: tuple[Shelf, ...] = ()

    def layer_states(self) -> Iterator[tuple[State, Shelf | None]]:
        yield self.primary, None
        for shelf in self.shelves:
            yield shelf.layers, shelf

    def image_states(self) -> Iterator[tuple[State, Shelf | None]]:
        yield self.primary, None
        for shelf in self.shelves:
            yield shelf.images, shelf

    # -- layers ----------------------------------------------------------------------------------

    def locate_layer(self, key: str) -> tuple[Layer, State, Shelf | None] | None:
        """The layer that ``key`` stands for, the state it is in, and the shelf that is of."""
        for state, shelf in self.layer_states():
            found = lookup.find_layer(state, key)
            if found is not None:
                return found._replace(read_only=shelf is not None), state, shelf
        return None

    def find_layer(self, key: str) -> Layer | None:
        found = self.locate_layer(key)
        return found[0] if found else None

    def layer(self, key: str) -> Layer:
        """Raises ``LayerUnknown``."""
        found = self.find_layer(key)
        if found is None:
            raise LayerUnknown
        return found

    def layer_by_id(self, id_: str) -> Layer | None:
        """The layer with exactly this ID."""
        for state, shelf in self.layer_states():
            found = state.layer(id_)
            if found is not None:
                return found._replace(read_only=shelf is not None)
        return None

    def layers(self) -> Iterator[Layer]:
        """All layers of all stores; an ID that two stores have comes twice."""
        for state, shelf in self.layer_states():
            for id_ in state.ids(Kind.LAYER):
                found = state.layer(id_)
                if found is not None:
                    yield found._replace(read_only=shelf is not None)

    def layers_by_digest(self, which: str, digest: str) -> Iterator[Layer]:
        for state, shelf in self.layer_states():
            for id_ in state.layers_by_digest(which, digest):
                yield lookup.layer(state, id_)._replace(read_only=shelf is not None)

    # -- images ----------------------------------------------------------------------------------

    def locate_image(self, key: str) -> tuple[Image, Shelf | None] | None:
        for state, shelf in self.image_states():
            found = lookup.find_image(state, key)
            if found is not None:
                return found._replace(read_only=shelf is not None), shelf
        return None

    def find_image(self, key: str) -> Image | None:
        found = self.locate_image(key)
        return found[0] if found else None

    def image(self, key: str) -> Image:
        """Raises ``ImageUnknown`` naming the key."""
        found = self.find_image(key)
        if found is None:
            raise ImageUnknown(f"locating image with ID {go_quote(key)}")
        return found

    def unhidden_image(self, key: str) -> Image:
        """As ``image``, but an image of a shelf whose ID the primary store has is not found."""
        for state, shelf in self.image_states():
            found = lookup.find_image(state, key)
            if found is None:
                continue
            if shelf is not None and self.primary.image(found.id) is not None:
                continue
            return found._replace(read_only=shelf is not None)
        raise ImageUnknown(f"locating image with ID {go_quote(key)}")

    def images(self) -> Iterator[Image]:
        """All images of all stores; an ID that two stores have comes twice."""
        for state, shelf in self.image_states():
            for id_ in state.ids(Kind.IMAGE):
                found = state.image(id_)
                if found is not None:
                    yield found._replace(read_only=shelf is not None)

    def images_by_digest(self, digest: str) -> Iterator[Image]:
        for state, shelf in self.image_states():
            for id_ in state.images_by_digest(digest):
                yield lookup.image(state, id_)._replace(read_only=shelf is not None)

    def images_of_layer(self, layer: str) -> Iterator[Image]:
        for state, shelf in self.image_states():
            found = [lookup.image(state, id_) for id_ in state.images_of_layer(layer)]
            for image in sorted(found, key=lambda image: image.sequence):
                yield image._replace(read_only=shelf is not None)

    # -- any kind --------------------------------------------------------------------------------

    def any_item(self, key: str) -> Item | None:
        """The first layer, image or container that answers to ``key`` (semantics §4.2)."""
        return (
            self.find_layer(key) or self.find_image(key) or lookup.find_container(self.primary, key)
        )
