"""What the store occupies, from the sums that every event keeps up to date (``state.aggregates``).

Nothing is walked but the journal's and the index's own few files. Layers that were never filled
from an archive (those of containers) have no recorded size; they are measured only on demand.
"""

from __future__ import annotations

import os

from cstorage.model import Kind
from cstorage.state import aggregates, keys
from cstorage.store import kept, lookup
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cstorage.model import Image
    from cstorage.state import State
    from cstorage.store.core import Core


class ImageUsage(NamedTuple):
    """Bytes of one image's layers and big data."""

    id: str
    names: tuple[str, ...]
    unique: int
    """Layers that no other image needs: what deleting it would free, and its big data."""
    shared: int
    """Layers that other images need too."""
    containers: int
    """Number of containers made from it."""


class OwnerUsage(NamedTuple):
    """What one user brought into the store: numbers of items, and bytes.

    The bytes of all users are the store's without its journal.
    """

    uid: int
    layers: int
    images: int
    containers: int
    unmeasured_layers: int
    layer_bytes: int
    data_bytes: int
    contents: int


class StoreUsage(NamedTuple):
    """Bytes, except for the numbers of items. See ``aggregates.Usage`` for the layers' parts."""

    layers: int
    images: int
    containers: int
    unmeasured_layers: int
    layer_bytes: int
    unique_bytes: int
    shared_bytes: int
    unneeded_bytes: int
    in_use_bytes: int
    reclaimable_bytes: int
    data_bytes: int
    contents: int
    journal_bytes: int
    measured_bytes: int
    """What the unmeasured layers were found to occupy; 0 unless it was asked for."""
    kept_items: int
    """Deleted items that can be restored."""
    kept_bytes: int
    """What they occupy. Data that others have too counts here and there."""

    @property
    def total_bytes(self) -> int:
        return (
            self.layer_bytes
            + self.data_bytes
            + self.journal_bytes
            + self.measured_bytes
            + self.kept_bytes
        )


def of_store(core: Core, measure: bool = False) -> StoreUsage:
    """Sums of the whole store; with ``measure`` unmeasured layers' trees are walked."""
    state = core.state
    sums = aggregates.usage(state)
    walked = 0
    if measure and sums.unmeasured:
        walked = sum(_occupied(core, id_) for id_ in _unmeasured(state))
    kept_items, kept_bytes = kept.totals(core)
    return StoreUsage(
        layers=state.count(Kind.LAYER),
        images=state.count(Kind.IMAGE),
        containers=state.count(Kind.CONTAINER),
        unmeasured_layers=sums.unmeasured,
        layer_bytes=sums.layers,
        unique_bytes=sums.unique,
        shared_bytes=sums.shared,
        unneeded_bytes=sums.unneeded,
        in_use_bytes=sums.in_use,
        reclaimable_bytes=sums.reclaimable,
        data_bytes=sums.data,
        contents=sums.contents,
        journal_bytes=_journal_bytes(core),
        measured_bytes=walked,
        kept_items=kept_items,
        kept_bytes=kept_bytes,
    )


def of_owners(core: Core) -> Iterator[OwnerUsage]:
    """What every user brought who still has something in the store, by UID.

    An item is of the user whose process created it, a content of the one who brought it first.
    """
    for uid, own in aggregates.owners(core.state):
        yield OwnerUsage(
            uid,
            own.layers,
            own.images,
            own.containers,
            own.unmeasured,
            own.layer_bytes,
            own.data,
            own.contents,
        )


def of_image(core: Core, key: str) -> ImageUsage:
    """What one image adds to the store. Raises ``ImageUnknown``."""
    state = core.state
    return _image_usage(state, lookup.image(state, key))


def of_images(core: Core) -> Iterator[ImageUsage]:
    """The same for every image; costs the number of images times their depth."""
    state = core.state
    for id_ in state.ids(Kind.IMAGE):
        image = state.image(id_)
        if image is not None:
            yield _image_usage(state, image)


def _image_usage(state: State, image: Image) -> ImageUsage:
    own: dict[str, int] = {}
    for top in (image.top_layer, *image.mapped_top_layers):
        id_: str = top
        while id_:
            own[id_] = own.get(id_, 0) + 1
            layer = state.layer(id_)
            id_ = layer.parent if layer is not None else ""
    unique = sum(aggregates.blocks(blob.size) for blob in image.big_data)
    shared = 0
    for id_, times in own.items():
        layer = state.layer(id_)
        if layer is None:
            continue
        if aggregates.uses(state, aggregates.IMAGES, id_) > times:
            shared += aggregates.weight(layer)
        else:
            unique += aggregates.weight(layer)
    users = sum(1 for _ in state.containers_of_image(image.id))
    return ImageUsage(image.id, image.names, unique, shared, users)


def _unmeasured(state: State) -> Iterator[str]:
    for key, layer in state.scan(keys.RECORD[Kind.LAYER]):
        if not aggregates.measured(layer):
            yield keys.text_after(key, keys.RECORD[Kind.LAYER])


def _occupied(core: Core, layer: str) -> int:
    from cstorage.archive.occupied import occupied

    path = core.driver.content_root(layer)
    if not path or core.driver.linked_entry(layer):
        return 0
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return occupied(fd)
    finally:
        os.close(fd)


def _journal_bytes(core: Core) -> int:
    from cstorage.store.tables import index_folder

    total = 0
    for top in (str(core.journal_path), index_folder(str(core.journal_path))):
        for folder, _, files in os.walk(top):
            for name in ("", *files):
                try:
                    total += os.stat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
    return total
