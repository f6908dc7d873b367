"""``apply``: what each event does to the state. Deterministic, total over the union of events.

An event that names an item which the state does not have means that the journal and this reducer
disagree; that is ``ReplayError``, never a silent skip.
"""

from __future__ import annotations

from cstorage import events as ev
from cstorage.model import BigDataItem, Container, DiffSummary, Image, Item, Kind, Layer, Pin
from cstorage.state import State, aggregates, groups, keys
from cstorage.state.aggregates import ReplayError
from journal.plain import assert_never


def apply(state: State, event: ev.Event, sequence: int, uid: int = 0) -> None:
    """Change ``state`` by ``event``, the ``sequence``-th of the journal, which ``uid`` caused."""
    match event:
        case ev.StoreInitialised():
            state.put(keys.fact("driver"), event.driver)
        case ev.LayerCreated():
            _create_layer(state, event, sequence, uid)
        case ev.LayerDiffApplied():
            old = _layer(state, event.id)
            _index_diff(state, old, add=False)
            layer = old._replace(diff=event.diff)
            _index_diff(state, layer, add=True, uid=uid)
            _store(state, Kind.LAYER, layer)
            aggregates.layer_changed(state, old, layer)
        case ev.LayerDeleted():
            _delete_layer(state, event.id)
        case ev.ImageCreated():
            _create_image(state, event, sequence, uid)
        case ev.ImageMappedLayerAdded():
            image = _image(state, event.id)
            _store(
                state,
                Kind.IMAGE,
                image._replace(mapped_top_layers=(*image.mapped_top_layers, event.layer)),
            )
            groups.add(state, keys.images_of_layer(event.layer), event.id, keys.text)
            aggregates.needed(state, aggregates.IMAGES, event.layer, 1)
        case ev.ImageMappedLayerRemoved():
            image = _image(state, event.id)
            left = tuple(x for x in image.mapped_top_layers if x != event.layer)
            _store(state, Kind.IMAGE, image._replace(mapped_top_layers=left))
            gone = len(image.mapped_top_layers) - len(left)
            if gone:
                aggregates.needed(state, aggregates.IMAGES, event.layer, -gone)
            if event.layer != image.top_layer:
                groups.remove(state, keys.images_of_layer(event.layer), event.id, keys.text)
        case ev.ImageDeleted():
            _delete_image(state, event.id)
        case ev.ImageMoved():
            image = _image(state, event.id)
            _store(state, Kind.IMAGE, image._replace(store=event.store))
        case ev.ContainerCreated():
            _create_container(state, event, sequence, uid)
        case ev.ContainerDeleted():
            _delete_container(state, event.id)
        case ev.NamesSet():
            _rename(state, event.kind, event.id, _unique(event.names))
        case ev.NamesAdded():
            _add_names(state, event.kind, event.id, _unique(event.names))
        case ev.NamesRemoved():
            item = _item(state, event.kind, event.id)
            taken = set(event.names)
            _rename(state, event.kind, event.id, tuple(n for n in item.names if n not in taken))
        case ev.MetadataSet():
            item = _item(state, event.kind, event.id)
            _store(state, event.kind, item._replace(metadata=event.metadata))
        case ev.BigDataSet():
            _set_big_data(state, event.kind, event.id, event.item, uid)
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
    key = keys.counter(kind)
    state.put(key, (state.get(key) or 0) + by)


def _enter(state: State, kind: Kind, item: Item, volatile: bool, uid: int) -> None:
    """Record, names, listing order, content references, owner and count of a new item."""
    if state.get(keys.record(kind, item.id)) is not None:
        raise ReplayError(f"{kind.name.lower()} {item.id!r} is created twice")
    _store(state, kind, item)
    for name in item.names:
        # A name that is given twice is the later item's, as it is after a change of names.
        _take_name(state, kind, name, item.id)
        state.put(keys.name(kind, name), item.id)
    state.put(keys.order(kind, volatile, item.sequence), item.id)
    if item.big_data:
        aggregates.content_kept(state, aggregates.contents_of(_NO_DIFF, item.big_data), uid)
    aggregates.item_entered(state, kind, item, uid)
    _count(state, kind, 1)


def _leave(state: State, kind: Kind, item: Item, volatile: bool) -> None:
    """The opposite; whatever else is kept about the item has to be gone before."""
    state.remove(keys.record(kind, item.id))
    for name in item.names:
        state.remove(keys.name(kind, name))
    state.remove(keys.order(kind, volatile, item.sequence))
    if item.big_data:
        aggregates.content_left(state, aggregates.contents_of(_NO_DIFF, item.big_data))
    aggregates.item_left(state, kind, item)
    _count(state, kind, -1)
    for pin in state.pins(kind, item.id):
        _drop_pin(state, kind, item.id, pin.by)


def _set_pin(state: State, pin: Pin) -> None:
    key = keys.pin_prefix(pin.kind, pin.id) + keys.text(pin.by)
    if state.get(key) is None:
        _count_pins(state, 1)
    state.put(key, pin)


def _drop_pin(state: State, kind: Kind, id_: str, by: str) -> None:
    key = keys.pin_prefix(kind, id_) + keys.text(by)
    if state.get(key) is None:
        raise ReplayError(f"{kind.name.lower()} {id_!r} is not pinned by {by!r}")
    state.remove(key)
    _count_pins(state, -1)


def _count_pins(state: State, by: int) -> None:
    key = keys.counter("pins")
    state.put(key, ((state.get(key) or 0) + by) or None)


def _by_age(state: State, kind: Kind) -> groups.Place:
    """The place of an item in a group that is ordered by creation."""
    return lambda id_: _item(state, kind, id_).sequence.to_bytes(8, "big")


def _index_diff(state: State, layer: Layer, *, add: bool, uid: int = 0) -> None:
    diff = layer.diff
    for which, digest in (
        ("c", diff.compressed_digest),
        ("u", diff.uncompressed_digest),
        ("t", diff.toc_digest),
    ):
        if digest:
            change = groups.add if add else groups.remove
            group = keys.layers_with_digest(which, digest)
            change(state, group, layer.id, _by_age(state, Kind.LAYER))
    if diff.recipe or diff.manifest:
        contents = aggregates.contents_of(diff, ())
        if add:
            aggregates.content_kept(state, contents, uid)
        else:
            aggregates.content_left(state, contents)


def _create_layer(state: State, event: ev.LayerCreated, sequence: int, uid: int) -> None:
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
    _enter(state, Kind.LAYER, layer, layer.volatile, uid)
    if layer.parent:
        groups.add(state, keys.children(layer.parent), layer.id, keys.text)
    _index_diff(state, layer, add=True, uid=uid)
    aggregates.layer_entered(state, layer)


def _delete_layer(state: State, id_: str) -> None:
    layer = _layer(state, id_)
    if layer.parent:
        groups.remove(state, keys.children(layer.parent), id_, keys.text)
    _index_diff(state, layer, add=False)
    aggregates.layer_entered(state, layer, -1)
    _leave(state, Kind.LAYER, layer, layer.volatile)


def _index_image_digests(state: State, image: Image, *, add: bool) -> None:
    change = groups.add if add else groups.remove
    for digest in image.digests:
        group = keys.images_with_digest(digest)
        change(state, group, image.id, _by_age(state, Kind.IMAGE))


def _create_image(state: State, event: ev.ImageCreated, sequence: int, uid: int) -> None:
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
    _enter(state, Kind.IMAGE, image, False, uid)
    if image.top_layer:
        groups.add(state, keys.images_of_layer(image.top_layer), image.id, keys.text)
        aggregates.needed(state, aggregates.IMAGES, image.top_layer, 1)
    _index_image_digests(state, image, add=True)


def _settle_digest(image: Image) -> Image:
    """An image without a digest takes that of its first manifest and keeps it (semantics §2.8)."""
    if image.digest or not image.digests:
        return image
    return image._replace(digest=image.digests[0])


def _delete_image(state: State, id_: str) -> None:
    image = _image(state, id_)
    for layer in (image.top_layer, *image.mapped_top_layers):
        if layer:
            groups.remove(state, keys.images_of_layer(layer), id_, keys.text)
            aggregates.needed(state, aggregates.IMAGES, layer, -1)
    _index_image_digests(state, image, add=False)
    _leave(state, Kind.IMAGE, image, False)


def _create_container(state: State, event: ev.ContainerCreated, sequence: int, uid: int) -> None:
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
    _enter(state, Kind.CONTAINER, container, container.volatile, uid)
    groups.add(state, keys.containers_of_layer(container.layer), container.id, keys.text)
    aggregates.needed(state, aggregates.CONTAINERS, container.layer, 1)
    if container.image:
        groups.add(state, keys.containers_of_image(container.image), container.id, keys.text)


def _delete_container(state: State, id_: str) -> None:
    item = _item(state, Kind.CONTAINER, id_)
    assert isinstance(item, Container)
    groups.remove(state, keys.containers_of_layer(item.layer), id_, keys.text)
    aggregates.needed(state, aggregates.CONTAINERS, item.layer, -1)
    if item.image:
        groups.remove(state, keys.containers_of_image(item.image), id_, keys.text)
    _leave(state, Kind.CONTAINER, item, item.volatile)


def _add_names(state: State, kind: Kind, id_: str, names: tuple[str, ...]) -> None:
    """What ``_rename`` does with these names before those that there are.

    Where all are new, as nearly always, nothing is done for each of the others: an item may have
    thousands.
    """
    item = _item(state, kind, id_)
    others = item.names
    known = others[::-1]
    new = not any(name in others for name in names)
    if not new or (isinstance(item, Image) and item.names_history[: len(known)] != known):
        _rename(state, kind, id_, _unique((*names, *others)))
        return
    for name in names:
        _take_name(state, kind, name, id_)
        state.put(keys.name(kind, name), id_)
    if isinstance(item, Image):
        older = tuple(n for n in item.names_history[len(known) :] if n not in names)
        item = item._replace(names_history=known + names[::-1] + older)
    _store(state, kind, item._replace(names=names + others))


def _rename(state: State, kind: Kind, id_: str, names: tuple[str, ...]) -> None:
    """Give ``names`` to the item; other holders of the kind lose them (semantics §2.2)."""
    item = _item(state, kind, id_)
    kept, held = set(names), set(item.names)
    # Sets do it in a step each: an item may have thousands of names.
    for name in sorted(held - kept):
        state.remove(keys.name(kind, name))
    for name in sorted(kept - held):
        _take_name(state, kind, name, id_)
        state.put(keys.name(kind, name), id_)
    if isinstance(item, Image):
        # One after the other they come to the front.
        history = item.names_history
        older = () if kept.issuperset(history) else tuple(n for n in history if n not in kept)
        item = item._replace(names_history=names[::-1] + older)
    _store(state, kind, item._replace(names=names))


def _take_name(state: State, kind: Kind, name: str, taker: str) -> None:
    holder = state.holder(kind, name)
    if holder is not None and holder != taker:
        other = _item(state, kind, holder)
        left = tuple(n for n in other.names if n != name)
        _store(state, kind, other._replace(names=left))


def _set_big_data(state: State, kind: Kind, id_: str, data: BigDataItem, uid: int) -> None:
    item = _item(state, kind, id_)
    if isinstance(item, Image):
        _index_image_digests(state, item, add=False)
    kept = [d for d in item.big_data if d.name == data.name]
    aggregates.content_left(state, aggregates.contents_of(_NO_DIFF, kept))
    if kept:
        blobs = tuple(data if d.name == data.name else d for d in item.big_data)
    else:
        blobs = (*item.big_data, data)
    item = item._replace(big_data=blobs)
    if isinstance(item, Image):
        item = _settle_digest(item)
        _index_image_digests(state, item, add=True)
    aggregates.content_kept(state, aggregates.contents_of(_NO_DIFF, (data,)), uid)
    _store(state, kind, item)
