"""Which entries an event will look at, so that those of many events are looked up together.

Rules of this module:

* Nothing depends on it but time: what is not named here, or is gone from memory when it is needed,
  is looked up by whoever needs it. So events are applied one by one in any case.
* An event's item is known from the event; what is indexed about the item only from the item. That
  makes two rounds, each of them one pass over the tables.
"""

from __future__ import annotations

from cstorage import events as ev
from cstorage.model import Container, Image, Kind, Layer
from cstorage.state import aggregates, keys
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cstorage.state import State

LEAST = 16
"""Events for which it is worth its while."""
PART = 512
"""Events whose entries are looked up together: few enough for a state to keep them."""
EACH = 6
"""Entries of nearly every event besides its item's record."""


def look(state: State, events: Sequence[ev.Event]) -> None:
    """Let ``state`` know what applying ``events``, at most ``PART`` of them, will ask it for."""
    if not state.has_table:
        return
    subjects = {ev.subject(event) for event in events}
    records = {keys.record(kind, id_): kind for kind, id_ in subjects if kind is not None}
    state.look_ahead(records, more=EACH * len(events))
    containers = state.count(Kind.CONTAINER) > 0
    owned = {kind for kind in Kind if not aggregates.all_are_roots(state, kind)}
    related: list[bytes] = []
    for event in events:
        match event:
            case ev.LayerCreated():
                related += _of_layer(event, containers)
            case ev.ImageCreated():
                related += _of_image(event)
            case _:
                pass
    for key, kind in records.items():
        item = state.get(key)
        match item:
            case Layer():
                related += _of_layer(item, containers)
            case Image():
                related += _of_image(item)
                related += map(keys.images_with_digest, item.digests)
            case Container():
                related.append(keys.containers_of_layer(item.layer))
                related.append(keys.containers_of_image(item.image))
                related.append(keys.uses(aggregates.CONTAINERS, item.layer))
            case _:
                continue
        if kind in owned:
            related.append(keys.owner(kind, item.id))
    state.look_ahead(related)


def _of_layer(layer: Layer | ev.LayerCreated, containers: bool) -> Iterator[bytes]:
    diff = layer.diff
    yield keys.uses(aggregates.IMAGES, layer.id)
    if containers:
        yield keys.uses(aggregates.CONTAINERS, layer.id)
    if layer.parent:
        yield keys.children(layer.parent)
    for which, digest in (
        ("c", diff.compressed_digest),
        ("u", diff.uncompressed_digest),
        ("t", diff.toc_digest),
    ):
        if digest:
            yield keys.layers_with_digest(which, digest)
    for content in (diff.recipe, diff.manifest, *(item.content for item in layer.big_data)):
        if content:
            yield keys.content(content)


def _of_image(image: Image | ev.ImageCreated) -> Iterator[bytes]:
    if image.top_layer:
        yield keys.images_of_layer(image.top_layer)
        yield keys.uses(aggregates.IMAGES, image.top_layer)
    for item in image.big_data:
        if item.content:
            yield keys.content(item.content)
