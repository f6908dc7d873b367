"""Sums over the whole state, kept with every event: what ``df`` answers from.

Rules of this module:

* ``#usage`` holds the sums. ``X`` and ``Y`` say for a layer how many images' top layers, and how
  many containers' layers, are it or descend from it. They are kept for missing layers too (an
  image may refer to one), so that events may come in any order: a missing layer passes nothing on
  to its ancestors, and does so when it is created.
* An event costs the depth of the chains it is about, never the size of the store.
* A layer counts with what its tree was measured to occupy when it was filled; one that was never
  filled from an archive (containers' layers) counts as unmeasured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cstorage.errors import StorageError
from cstorage.state import keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cstorage.model import BigDataItem, DiffSummary, Layer
    from cstorage.state import State

BLOCK = 4096
"""Files occupy whole blocks of this size, as on every common file system."""

IMAGES = b"X"
CONTAINERS = b"Y"
_USAGE = keys.counter("usage")


class ReplayError(StorageError):
    """An event does not fit the state that the events before it built."""


class Usage(NamedTuple):
    """Sums in bytes, except where it says number. Fields are only appended."""

    layers: int = 0
    """All measured layers."""
    unmeasured: int = 0
    """Number of layers that were never measured."""
    unique: int = 0
    """Measured layers that exactly one image needs."""
    shared: int = 0
    """Measured layers that several images need."""
    in_use: int = 0
    """Measured layers that containers need."""
    data: int = 0
    """Big data, recipes and manifests, each content once."""
    contents: int = 0
    """Number of different contents."""

    @property
    def unneeded(self) -> int:
        """Measured layers that no image needs."""
        return self.layers - self.unique - self.shared

    @property
    def reclaimable(self) -> int:
        """Measured layers that would go with all images and layers that no container needs."""
        return self.layers - self.in_use


def usage(state: State) -> Usage:
    """The sums of a state."""
    found = state.get(_USAGE)
    return Usage(*found) if found else Usage()


def blocks(size: int) -> int:
    """Bytes that a file of ``size`` bytes occupies."""
    return -(-size // BLOCK) * BLOCK


def measured(layer: Layer) -> bool:
    """Whether it is known what the layer occupies."""
    return bool(layer.diff.disk_size or layer.diff.uncompressed_digest)


def weight(layer: Layer) -> int:
    """Bytes that the layer's tree occupies; 0 if that was never measured."""
    return layer.diff.disk_size or layer.diff.content_size


def uses(state: State, which: bytes, layer: str) -> int:
    """Images (``IMAGES``) or containers (``CONTAINERS``) that need the layer, one per top layer."""
    found: int | None = state.get(keys.uses(which, layer))
    return found or 0


def _shift(state: State, by: tuple[int, ...]) -> None:
    if any(by):
        old = usage(state)
        state.put(_USAGE, [a + b for a, b in zip(old, by, strict=True)])


def layer_entered(state: State, layer: Layer, sign: int = 1) -> None:
    """A layer appears, or (``sign`` -1) goes, with everything that rests on it."""
    images, containers = uses(state, IMAGES, layer.id), uses(state, CONTAINERS, layer.id)
    _weigh(state, layer, sign, images, containers)
    if layer.parent:
        if images:
            needed(state, IMAGES, layer.parent, sign * images)
        if containers:
            needed(state, CONTAINERS, layer.parent, sign * containers)


def layer_changed(state: State, old: Layer, new: Layer) -> None:
    """What is known of a layer's tree changed."""
    images, containers = uses(state, IMAGES, new.id), uses(state, CONTAINERS, new.id)
    _weigh(state, old, -1, images, containers)
    _weigh(state, new, 1, images, containers)


def _weigh(state: State, layer: Layer, sign: int, images: int, containers: int) -> None:
    size = sign * weight(layer)
    _shift(
        state,
        (
            size,
            0 if measured(layer) else sign,
            size if images == 1 else 0,
            size if images > 1 else 0,
            size if containers else 0,
            0,
            0,
        ),
    )


def needed(state: State, which: bytes, layer: str, by: int) -> None:
    """``by`` more images or containers need the layer and all its ancestors."""
    unique = shared = in_use = 0
    steps, mark = 0, ""
    while layer:
        if layer == mark:
            raise ReplayError(f"layer {layer!r} is its own ancestor")
        steps += 1
        if steps & (steps - 1) == 0:
            mark = layer  # a walk in circles meets it again
        key = keys.uses(which, layer)
        old: int = state.get(key) or 0
        new = old + by
        state.put(key, new or None)
        found = state.layer(layer)
        if found is None:
            break
        size = weight(found)
        if which == IMAGES:
            unique += size * ((new == 1) - (old == 1))
            shared += size * ((new > 1) - (old > 1))
        else:
            in_use += size * ((new > 0) - (old > 0))
        layer = found.parent
    _shift(state, (0, 0, unique, shared, in_use, 0, 0))


def content_kept(state: State, contents: Iterable[tuple[str, int]], sign: int = 1) -> None:
    """Contents (key, size) are referred to once more, or (``sign`` -1) once less."""
    size = number = 0
    for content, length in contents:
        key = keys.content(content)
        old: int = state.get(key) or 0
        new = old + sign
        state.put(key, new or None)
        if not old or not new:
            size += sign * blocks(length)
            number += sign
    _shift(state, (0, 0, 0, 0, 0, size, number))


def contents_of(diff: DiffSummary, items: Iterable[BigDataItem]) -> list[tuple[str, int]]:
    """Content keys and sizes that a record refers to."""
    found = [(item.content, item.size) for item in items if item.content]
    if diff.recipe:
        found.append((diff.recipe, diff.recipe_size))
    if diff.manifest:
        found.append((diff.manifest, diff.manifest_size))
    return found
