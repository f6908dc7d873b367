"""Sums over the whole state, kept with every event: what ``df`` answers from.

Rules of this module:

* ``#usage`` holds the sums. ``X`` and ``Y`` say for a layer how many images' top layers, and how
  many containers' layers, are it or descend from it. They are kept for missing layers too (an
  image may refer to one), so that events may come in any order: a missing layer passes nothing on
  to its ancestors, and does so when it is created.
* An event costs the depth of the chains it is about, never the size of the store.
* ``#owner`` + UID holds the part of one user: items it created, contents it was the first to bring.
  A content stays its bringer's until nobody refers to it. The parts add up to the whole.
* A layer counts with what its tree was measured to occupy when it was filled; one that was never
  filled from an archive (containers' layers) counts as unmeasured.
"""

from __future__ import annotations

from cstorage.errors import StorageError
from cstorage.model import Kind, Layer
from cstorage.state import keys
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cstorage.model import BigDataItem, DiffSummary, Item
    from cstorage.state import State

BLOCK = 4096
"""Files occupy whole blocks of this size, as on every common file system."""

IMAGES = b"X"
CONTAINERS = b"Y"
_USAGE = keys.counter("usage")
_OWNER = keys.counter("owner")
_ROOT = _OWNER + b"0"
_NUMBER = {Kind.LAYER: 0, Kind.IMAGE: 1, Kind.CONTAINER: 2}
"""Where ``Owned`` counts the items of a kind."""


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


class Owned(NamedTuple):
    """What one user brought into the store. Fields are only appended."""

    layers: int = 0
    """Numbers of items."""
    images: int = 0
    containers: int = 0
    unmeasured: int = 0
    """Number of layers that were never measured."""
    layer_bytes: int = 0
    """Measured layers, in bytes."""
    data: int = 0
    """Contents, in bytes, each once."""
    contents: int = 0
    """Number of different contents."""


def owners(state: State) -> Iterator[tuple[int, Owned]]:
    """Every user of whom the store has something, by UID."""
    found = [(int(key[len(_OWNER) :]), Owned(*value)) for key, value in state.scan(_OWNER)]
    yield from sorted(found)


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
    if which == CONTAINERS and not state.count(Kind.CONTAINER):
        return 0  # told by an entry that is looked at once, not by one for each layer
    found: int | None = state.get(keys.uses(which, layer))
    return found or 0


def _shift(state: State, by: tuple[int, ...]) -> None:
    if any(by):
        old = usage(state)
        state.put(_USAGE, [a + b for a, b in zip(old, by, strict=True)])


def _shift_owner(state: State, uid: int, by: Owned) -> None:
    if any(by):
        key = _OWNER + str(uid).encode()
        old = state.get(key) or Owned()
        new = [a + b for a, b in zip(old, by, strict=True)]
        state.put(key, new if any(new) else None)


def _part(kind: Kind, item: Item, sign: int) -> Owned:
    """What an item is of what its creator brought; contents apart."""
    if isinstance(item, Layer):
        return _weighed(item, sign)._replace(layers=sign)
    return Owned(images=sign) if kind is Kind.IMAGE else Owned(containers=sign)


def _weighed(layer: Layer, sign: int) -> Owned:
    return Owned(layer_bytes=sign * weight(layer), unmeasured=0 if measured(layer) else sign)


def all_are_roots(state: State, kind: Kind) -> bool:
    """Whether UID 0 created every item of the kind: two looks instead of one for each item."""
    root = state.get(_ROOT)
    return bool(root) and root[_NUMBER[kind]] == state.count(kind)


def owner(state: State, kind: Kind, id_: str) -> int:
    """UID that created the item; 0 if that is not known."""
    if all_are_roots(state, kind):
        return 0
    found: int | None = state.get(keys.owner(kind, id_))
    return found or 0


def item_entered(state: State, kind: Kind, item: Item, uid: int) -> None:
    """An item was created by ``uid``."""
    if uid:
        state.put(keys.owner(kind, item.id), uid)
    _shift_owner(state, uid, _part(kind, item, 1))


def item_left(state: State, kind: Kind, item: Item) -> None:
    """An item was deleted, whoever did that."""
    uid = owner(state, kind, item.id)
    if uid:
        state.remove(keys.owner(kind, item.id))
    _shift_owner(state, uid, _part(kind, item, -1))


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
    uid = owner(state, Kind.LAYER, new.id)
    _shift_owner(state, uid, _weighed(old, -1))
    _shift_owner(state, uid, _weighed(new, 1))


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


def content_kept(state: State, contents: Iterable[tuple[str, int]], uid: int) -> None:
    """Contents (key, size) are referred to once more, because of something that ``uid`` did."""
    for content, length in contents:
        count, by = _references(state, content)
        if not count:
            by = uid
            _weigh_content(state, length, 1, by)
        _refer(state, content, count + 1, by)


def content_left(state: State, contents: Iterable[tuple[str, int]]) -> None:
    """Contents (key, size) are referred to once less."""
    for content, length in contents:
        count, by = _references(state, content)
        if count == 1:
            _weigh_content(state, length, -1, by)
        _refer(state, content, count - 1, by)


def _references(state: State, content: str) -> tuple[int, int]:
    """How many there are to the content, and the UID that brought it."""
    found: int | list[int] | None = state.get(keys.content(content))
    if isinstance(found, list):
        return found[0], found[1]
    return found or 0, 0


def _refer(state: State, content: str, count: int, by: int) -> None:
    state.put(keys.content(content), ([count, by] if by else count) if count else None)


def _weigh_content(state: State, length: int, sign: int, uid: int) -> None:
    size = sign * blocks(length)
    _shift(state, (0, 0, 0, 0, 0, size, sign))
    _shift_owner(state, uid, Owned(data=size, contents=sign))


def contents_of(diff: DiffSummary, items: Iterable[BigDataItem]) -> list[tuple[str, int]]:
    """Content keys and sizes that a record refers to."""
    found = [(item.content, item.size) for item in items if item.content]
    if diff.recipe:
        found.append((diff.recipe, diff.recipe_size))
    if diff.manifest:
        found.append((diff.manifest, diff.manifest_size))
    return found
