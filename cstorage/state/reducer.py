"""``apply``: what each event does to the state. Deterministic, total over the union of events.

An event that names an item which the state does not have means that the journal and this reducer
disagree; that is ``ReplayError``, never a silent skip.
"""

from __future__ import annotations

from typing import assert_never

from cstorage import events as ev
from cstorage.model import BigDataItem, Container, DiffSummary, Image, Item, Kind, Layer, Pin
from cstorage.state import State, aggregates, keys
from cstorage.state.aggregates import ReplayError


def apply(state: State, event: ev.Event, sequence: int) -> None:
    """Change ``state`` by ``event``, the ``sequence``-th of the journal."""
    match event:
        case ev.StoreInitialised():
            state.put(keys.fact("driver"), event.driver)
        case ev.LayerCreated():
            _create_layer(state, event, sequence)
        case ev.LayerDiffApplied():
            old = _layer(state, event.id)
            _index_diff(state, old, add=False)
            layer = old._replace(diff=event.diff)
            _index_diff(state, layer, add=True)
            _store(state, Kind.LAYER, layer)
            aggregates.layer_changed(state, old, layer)
        case ev.LayerDeleted():
            _delete_layer(state, event.id)
        case ev.ImageCreated():
            _create_image(state, event, sequence)
        case ev.ImageMappedLayerAdded():
            image = _image(state, event.id)
            _store(
                state,
                Kind.IMAGE,
                image._replace(mapped_top_layers=(*image.mapped_top_layers, event.layer)),
            )
            state.put(keys.under(keys.image_of_layer_prefix(event.layer), event.id), "")
            aggregates.needed(state, aggregates.IMAGES, event.layer, 1)
        case ev.ImageMappedLayerRemoved():
            image = _image(state, event.id)
            left = tuple(x for x in image.mapped_top_layers if x != event.layer)
            _store(state, Kind.IMAGE, image._replace(mapped_top_layers=left))
            gone = len(image.mapped_top_layers) - len(left)
            if gone:
                aggregates.needed(state, aggregates.IMAGES, event.layer, -gone)
            if event.layer != image.top_layer:
                state.remove(keys.under(keys.image_of_layer_prefix(event.layer), event.id))
        case ev.ImageDeleted():
            _delete_image(state, event.id)
        case ev.ImageMoved():
            image = _image(state, event.id)
            _store(state, Kind.IMAGE, image._replace(store=event.store))
        case ev.ContainerCreated():
            _create_container(state, event, sequence)
        case ev.ContainerDeleted():
            _delete_container(state, event.id)
        case ev.NamesSet():
            _rename(state, event.kind, event.id, _unique(event.names))
        case ev.NamesAdded():
            item = _item(state, event.kind, event.id)
            _rename(state, event.kind, event.id, _unique((*event.names, *item.names)))
        case ev.NamesRemoved():
            item = _item(state, event.kind, event.id)
            taken = set(event.names)
            _rename(state, event.kind, event.id, tuple(n for n in item.names if n not in taken))
        case ev.MetadataSet():
            item = _item(state, event.kind, event.id)
            _store(state, event.kind, item._replace(metadata=event.metadata))
        case ev.BigDataSet():
            _set_big_data(state, event.kind, event.id, event.item)
        case ev.FlagsSet():
            item = _item(state, event.kind, event.id)
            _store(state, event.kind, item._replace(flags=event.flags))
        case ev.Pinned():
            _item(state, event.kind, event.id)
            _set_pin(state, Pin(*event))
        case ev.Unpinned():
            _drop_pin(state, event.kind, event.id, event.by)
        case _:
            assert_never(event)


__all__ = ["ReplayError", "apply"]

_NO_DIFF = DiffSummary()

# -- parts ---------------------------------------------------------------------------------------


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _item(state: State, kind: Kind, id_: str) -> Item:
    item: Item | None = state.get(keys.record(kind, id_))
    if item is None:
        raise ReplayError(f"{kind.name.lower()} {id_!r} is changed but does not exist")
    return item


def _layer(state: State, id_: str) -> Layer:
    item = _item(state, Kind.LAYER, id_)
    assert isinstance(item, Layer)
    return item


def _image(state: State, id_: str) -> Image:
    item = _item(state, Kind.IMAGE, id_)
    assert isinstance(item, Image)
    return item


def _store(state: State, kind: Kind, item: Item) -> None:
    state.put(keys.record(kind, item.id), item)


def _count(state: State, kind: Kind, by: int) -> None:
    key = keys.counter(kind.value)
    state.put(key, (state.get(key) or 0) + by)


def _enter(state: State, kind: Kind, item: Item, volatile: bool) -> None:
    """Record, names, listing order, content references and count of a new item."""
    if state.get(keys.record(kind, item.id)) is not None:
        raise ReplayError(f"{kind.name.lower()} {item.id!r} is created twice")
    _store(state, kind, item)
    for name in item.names:
        # A name that is given twice is the later item's, as it is after a change of names.
        _take_name(state, kind, name, item.id)
        state.put(keys.name(kind, name), item.id)
    state.put(keys.order(kind, volatile, item.sequence), item.id)
    if item.big_data:
        aggregates.content_kept(state, aggregates.contents_of(_NO_DIFF, item.big_data))
    _count(state, kind, 1)


def _leave(state: State, kind: Kind, item: Item, volatile: bool) -> None:
    state.remove(keys.record(kind, item.id))
    for name in item.names:
        state.remove(keys.name(kind, name))
    state.remove(keys.order(kind, volatile, item.sequence))
    if item.big_data:
        aggregates.content_kept(state, aggregates.contents_of(_NO_DIFF, item.big_data), -1)
    _count(state, kind, -1)
    for pin in state.pins(kind, item.id):
        _drop_pin(state, kind, item.id, pin.by)


def _set_pin(state: State, pin: Pin) -> None:
    key = keys.under(keys.pin_prefix(pin.kind, pin.id), pin.by)
    if state.get(key) is None:
        _count_pins(state, 1)
    state.put(key, pin)


def _drop_pin(state: State, kind: Kind, id_: str, by: str) -> None:
    key = keys.under(keys.pin_prefix(kind, id_), by)
    if state.get(key) is None:
        raise ReplayError(f"{kind.name.lower()} {id_!r} is not pinned by {by!r}")
    state.remove(key)
    _count_pins(state, -1)


def _count_pins(state: State, by: int) -> None:
    key = keys.counter("pins")
    state.put(key, ((state.get(key) or 0) + by) or None)


def _index_diff(state: State, layer: Layer, *, add: bool) -> None:
    diff = layer.diff
    for which, digest in (
        ("c", diff.compressed_digest),
        ("u", diff.uncompressed_digest),
        ("t", diff.toc_digest),
    ):
        if digest:
            key = keys.sequenced(keys.layer_digest_prefix(which, digest), layer.sequence)
            state.put(key, layer.id if add else None)
    if diff.recipe or diff.manifest:
        aggregates.content_kept(state, aggregates.contents_of(diff, ()), 1 if add else -1)


def _create_layer(state: State, event: ev.LayerCreated, sequence: int) -> None:
    layer = Layer(
        id=event.id,
        names=_unique(event.names),
        parent=event.parent,
        metadata=event.metadata,
        mount_label=event.mount_label,
        created_ns=event.created_ns,
        diff=event.diff,
        flags=event.flags,
        maps=event.maps,
        big_data=event.big_data,
        writable=event.writable,
        volatile=event.volatile,
        sequence=sequence,
    )
    _enter(state, Kind.LAYER, layer, layer.volatile)
    if layer.parent:
        state.put(keys.under(keys.child_prefix(layer.parent), layer.id), "")
    _index_diff(state, layer, add=True)
    aggregates.layer_entered(state, layer)


def _delete_layer(state: State, id_: str) -> None:
    layer = _layer(state, id_)
    _leave(state, Kind.LAYER, layer, layer.volatile)
    if layer.parent:
        state.remove(keys.under(keys.child_prefix(layer.parent), id_))
    _index_diff(state, layer, add=False)
    aggregates.layer_entered(state, layer, -1)


def _index_image_digests(state: State, image: Image, *, add: bool) -> None:
    for digest in image.digests:
        key = keys.sequenced(keys.image_digest_prefix(digest), image.sequence)
        state.put(key, image.id if add else None)


def _create_image(state: State, event: ev.ImageCreated, sequence: int) -> None:
    image = _settle_digest(
        Image(
            id=event.id,
            digest=event.digest,
            names=_unique(event.names),
            names_history=event.names_history,
            top_layer=event.top_layer,
            metadata=event.metadata,
            big_data=event.big_data,
            created_ns=event.created_ns,
            flags=event.flags,
            sequence=sequence,
            store=event.store,
        )
    )
    _enter(state, Kind.IMAGE, image, False)
    if image.top_layer:
        state.put(keys.under(keys.image_of_layer_prefix(image.top_layer), image.id), "")
        aggregates.needed(state, aggregates.IMAGES, image.top_layer, 1)
    _index_image_digests(state, image, add=True)


def _settle_digest(image: Image) -> Image:
    """An image without a digest takes that of its first manifest and keeps it (semantics §2.8)."""
    if image.digest or not image.digests:
        return image
    return image._replace(digest=image.digests[0])


def _delete_image(state: State, id_: str) -> None:
    image = _image(state, id_)
    _leave(state, Kind.IMAGE, image, False)
    for layer in (image.top_layer, *image.mapped_top_layers):
        if layer:
            state.remove(keys.under(keys.image_of_layer_prefix(layer), id_))
            aggregates.needed(state, aggregates.IMAGES, layer, -1)
    _index_image_digests(state, image, add=False)


def _create_container(state: State, event: ev.ContainerCreated, sequence: int) -> None:
    container = Container(
        id=event.id,
        names=_unique(event.names),
        image=event.image,
        layer=event.layer,
        metadata=event.metadata,
        big_data=event.big_data,
        created_ns=event.created_ns,
        maps=event.maps,
        flags=event.flags,
        volatile=event.volatile,
        sequence=sequence,
        run_mark=event.run_mark,
    )
    _enter(state, Kind.CONTAINER, container, container.volatile)
    state.put(keys.under(keys.container_of_layer_prefix(container.layer), container.id), "")
    aggregates.needed(state, aggregates.CONTAINERS, container.layer, 1)
    if container.image:
        state.put(keys.under(keys.container_of_image_prefix(container.image), container.id), "")


def _delete_container(state: State, id_: str) -> None:
    item = _item(state, Kind.CONTAINER, id_)
    assert isinstance(item, Container)
    _leave(state, Kind.CONTAINER, item, item.volatile)
    state.remove(keys.under(keys.container_of_layer_prefix(item.layer), id_))
    aggregates.needed(state, aggregates.CONTAINERS, item.layer, -1)
    if item.image:
        state.remove(keys.under(keys.container_of_image_prefix(item.image), id_))


def _rename(state: State, kind: Kind, id_: str, names: tuple[str, ...]) -> None:
    """Give ``names`` to the item; other holders of the kind lose them (semantics §2.2)."""
    item = _item(state, kind, id_)
    for name in item.names:
        if name not in names:
            state.remove(keys.name(kind, name))
    for name in names:
        _take_name(state, kind, name, id_)
        state.put(keys.name(kind, name), id_)
    if isinstance(item, Image):
        history = item.names_history
        for name in names:
            history = (name, *(n for n in history if n != name))
        item = item._replace(names_history=history)
    _store(state, kind, item._replace(names=names))


def _take_name(state: State, kind: Kind, name: str, taker: str) -> None:
    holder = state.holder(kind, name)
    if holder is not None and holder != taker:
        other = _item(state, kind, holder)
        left = tuple(n for n in other.names if n != name)
        _store(state, kind, other._replace(names=left))


def _set_big_data(state: State, kind: Kind, id_: str, data: BigDataItem) -> None:
    item = _item(state, kind, id_)
    if isinstance(item, Image):
        _index_image_digests(state, item, add=False)
    kept = [d for d in item.big_data if d.name == data.name]
    aggregates.content_kept(state, aggregates.contents_of(_NO_DIFF, kept), -1)
    if kept:
        blobs = tuple(data if d.name == data.name else d for d in item.big_data)
    else:
        blobs = (*item.big_data, data)
    item = item._replace(big_data=blobs)
    if isinstance(item, Image):
        item = _settle_digest(item)
        _index_image_digests(state, item, add=True)
    aggregates.content_kept(state, aggregates.contents_of(_NO_DIFF, (data,)))
    _store(state, kind, item)
