"""Deleting: what may go, what goes with it, in one transaction (semantics §4.6).

What is pinned stays, and what it rests on (``pins``), whichever way is taken.

The checks work on resolved IDs; the original compares the caller's text, so that deleting by name
or prefix skips them (quirk Q-01, a defect).
"""

from __future__ import annotations

from cstorage import events as ev
from cstorage.errors import (
    ImageUsedByContainer,
    LayerHasChildren,
    LayerUnknown,
    LayerUsedByContainer,
    LayerUsedByImage,
    NotAContainer,
    NotALayer,
    NotAnImage,
)
from cstorage.model import Container, Image, Kind, Layer, LayerID
from cstorage.state import aggregates, ahead
from cstorage.store import lookup, pins
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.state import State
    from cstorage.store.commit import Transaction
    from cstorage.store.core import Core


def drop_layer(tx: Transaction, id_: LayerID) -> None:
    """The layer goes; images that have it as a mapped top layer forget it."""
    if aggregates.uses(tx.state, aggregates.IMAGES, id_):  # else no image has it on top
        for image_id in list(tx.state.images_of_layer(id_)):
            image = tx.state.image(image_id)
            if image is not None and id_ in image.mapped_top_layers:
                tx.emit(ev.ImageMappedLayerRemoved(image.id, id_))
    tx.emit(ev.LayerDeleted(id_))


def layer(core: Core, key: str) -> None:
    """Delete a layer that nothing rests on.

    Raises ``NotALayer``, ``LayerHasChildren``, ``LayerUsedByImage``, ``LayerUsedByContainer``,
    ``ItemPinned``, in this order of precedence.
    """
    with core.transaction() as tx:
        found = lookup.find_layer(tx.state, key)
        if found is None:
            raise NotALayer
        # Of several users the one that was made first is named, as in the original.
        children = [tx.state.layer(child) for child in tx.state.children(found.id)]
        if child := min((layer for layer in children if layer), key=_age, default=None):
            raise LayerHasChildren(f"used by layer {child.id}")
        images = [tx.state.image(image_id) for image_id in tx.state.images_of_layer(found.id)]
        users = (image for image in images if image and image.top_layer == found.id)
        if user := min(users, key=_age, default=None):
            raise LayerUsedByImage(f"layer {found.id} used by image {user.id}")
        container = tx.state.container_of_layer(found.id)
        if container is not None:
            raise LayerUsedByContainer(f"layer {found.id} used by container {container}")
        pins.check(tx.state, Kind.LAYER, found.id)
        drop_layer(tx, found.id)


def _age(item: Layer | Image) -> int:
    return item.sequence


def _removable(state: State, image: Image) -> list[LayerID]:
    """Layers that go with the image, in removal order.

    Mapped top layers first (those with children of their own stay, unlike in the original, whose
    children would lose their parent: quirk Q-14), then from the top layer down until a layer is
    used by a container, by another image, pinned, or has children that are not going. Mapped top
    layers that stay count as children of the top layer: their trees can rest on its.
    """
    gone: dict[LayerID, None] = {}
    staying = False
    for mapped in image.mapped_top_layers:
        if state.layer(mapped) is None or mapped in gone:
            continue
        if (
            any(True for _ in state.children(mapped))
            or state.container_of_layer(mapped) is not None
            or state.pins(Kind.LAYER, mapped)
        ):
            staying = True
        else:
            gone[mapped] = None
    id_ = image.top_layer
    while id_ and not staying:
        found = state.layer(id_)
        if state.container_of_layer(id_) is not None or state.pins(Kind.LAYER, id_):
            break
        # Needed once is needed by this image; only otherwise is it worth asking by whom. Of a
        # layer that is missing nobody counts the users.
        if (found is None or aggregates.uses(state, aggregates.IMAGES, id_) > 1) and any(
            other != image.id for other in state.images_of_layer(id_)
        ):
            break
        if any(child not in gone for child in state.children(id_)):
            break
        gone[id_] = None
        id_ = found.parent if found is not None else LayerID("")
    return list(gone)


def image(core: Core, key: str, commit: bool = True) -> list[LayerID]:
    """Delete an image and the layers that only it needs; returns the layers, in removal order.

    ``commit=False`` only returns them. Raises ``NotAnImage``, ``ImageUsedByContainer``; if a layer
    of the chain is missing already, the image goes and ``LayerUnknown`` says so (quirk Q-13, kept).
    """
    if not commit:
        return _image_plan(core.state, key)[1]
    with core.transaction() as tx:
        found, gone = _image_plan(tx.state, key)
        tx.emit(ev.ImageDeleted(found.id))
        present = [id_ for id_ in gone if tx.state.layer(id_) is not None]
        if len(present) >= ahead.LEAST:
            ahead.look(tx.state, [ev.LayerDeleted(id_) for id_ in present])
        for id_ in present:
            drop_layer(tx, id_)
    if len(present) != len(gone):
        raise LayerUnknown
    return gone


def _image_plan(state: State, key: str) -> tuple[Image, list[LayerID]]:
    found = lookup.find_image(state, key)
    if found is None:
        raise NotAnImage
    users = list(state.containers_of_image(found.id))
    if users:
        newest = max(users, key=lambda c: getattr(state.container(c), "sequence", 0))
        raise ImageUsedByContainer(f"image used by {newest}")
    pins.check(state, Kind.IMAGE, found.id)
    return found, _removable(state, found)


def drop_container(tx: Transaction, found: Container) -> None:
    """The container goes, and its layer with it if that still exists."""
    if tx.state.layer(found.layer) is not None:
        drop_layer(tx, found.layer)
    tx.emit(ev.ContainerDeleted(found.id))


def container(core: Core, key: str) -> None:
    """Delete a container, its layer and its directories. Raises ``NotAContainer``."""
    with core.transaction() as tx:
        found = lookup.find_container(tx.state, key)
        if found is None:
            raise NotAContainer
        drop_container(tx, found)


def anything(core: Core, key: str) -> None:
    """Delete the container, else the image record, else the layer that ``key`` stands for.

    No safety checks beyond pins (semantics §4.6). Raises ``ItemPinned``, ``LayerUnknown`` if
    nothing matches and ``NotALayer`` if a container's layer is missing.
    """
    with core.transaction() as tx:
        found_container = lookup.find_container(tx.state, key)
        found_image = None if found_container else lookup.find_image(tx.state, key)
        if found_container is not None:
            if tx.state.layer(found_container.layer) is None:
                raise NotALayer
            drop_container(tx, found_container)
        elif found_image is not None:
            pins.check(tx.state, Kind.IMAGE, found_image.id)
            tx.emit(ev.ImageDeleted(found_image.id))
        else:
            found_layer = lookup.find_layer(tx.state, key)
            if found_layer is None:
                raise LayerUnknown
            pins.check_beneath(tx.state, found_layer.id)
            drop_layer(tx, found_layer.id)


def everything(core: Core) -> None:
    """Delete all containers, images and layers, then every tree that the driver still has.

    Raises ``ItemPinned``, and deletes nothing, if anything is pinned.
    """
    with core.transaction() as tx:
        pins.check_all(tx.state)
        for id_ in list(tx.state.ids(Kind.CONTAINER)):
            found = tx.state.container(id_)
            assert found is not None
            drop_container(tx, found)
        for id_ in list(tx.state.ids(Kind.IMAGE)):
            tx.emit(ev.ImageDeleted(lookup.image(tx.state, id_).id))
        for id_ in reversed(list(tx.state.ids(Kind.LAYER))):
            tx.emit(ev.LayerDeleted(LayerID(id_)))
        for id_ in core.driver.layers():
            tx.withdraw(id_)
