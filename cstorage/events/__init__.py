"""Everything that can happen to the store, as frozen past-tense events and their stored form.

Rules of this module:

* ``Event`` is a closed union; ``cstorage.state.apply`` matches it exhaustively.
* The stored form of an event is an array ``[number, field, …]`` (docs/events.md). Numbers are
  never reused, fields are only ever appended: a reader fills missing trailing fields from the
  defaults and ignores surplus ones.
* Events hold results, never wishes: times, generated IDs and digests are decided before the event
  exists, so that replaying needs no clock, no randomness and no file system.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cstorage.model import (
    BigDataItem,
    ContainerID,
    DiffSummary,
    Digest,
    IDMaps,
    ImageID,
    Kind,
    LayerID,
)
from cstorage.model.stored import SCHEMA as SCHEMA
from journal.plain import Any, NamedTuple


class StoreInitialised(NamedTuple):
    """The first event of every journal of a store."""

    driver: str


class LayerCreated(NamedTuple):
    """A layer exists from here on, complete with its content."""

    id: LayerID
    names: tuple[str, ...]
    parent: LayerID
    metadata: str
    mount_label: str
    created_ns: int
    diff: DiffSummary
    flags: Mapping[str, Any]
    maps: IDMaps
    big_data: tuple[BigDataItem, ...]
    writable: bool
    volatile: bool


class LayerDiffApplied(NamedTuple):
    """An archive was extracted over an existing layer; ``diff`` replaces what was recorded."""

    id: LayerID
    diff: DiffSummary


class LayerDeleted(NamedTuple):
    """The layer, its names and its blobs are gone."""

    id: LayerID


class ImageCreated(NamedTuple):
    """An image exists from here on; ``top_layer`` may be empty."""

    id: ImageID
    names: tuple[str, ...]
    names_history: tuple[str, ...]
    top_layer: LayerID
    metadata: str
    digest: Digest
    created_ns: int
    flags: Mapping[str, Any]
    big_data: tuple[BigDataItem, ...]
    store: str = ""


class ImageMoved(NamedTuple):
    """The image belongs to another image store of the graph root from here on ("" = none)."""

    id: ImageID
    store: str


class ImageMappedLayerAdded(NamedTuple):
    """A copy of the image's top layer with other ID maps was recorded."""

    id: ImageID
    layer: LayerID


class ImageMappedLayerRemoved(NamedTuple):
    """The image's copy with other ID maps is no longer recorded with it."""

    id: ImageID
    layer: LayerID


class ImageDeleted(NamedTuple):
    """The image, its names and its blobs are gone; layers that go too have events of their own."""

    id: ImageID


class ContainerCreated(NamedTuple):
    """A container exists from here on; its layer has an event of its own before this one."""

    id: ContainerID
    names: tuple[str, ...]
    image: ImageID
    layer: LayerID
    metadata: str
    created_ns: int
    maps: IDMaps
    flags: Mapping[str, Any]
    big_data: tuple[BigDataItem, ...]
    volatile: bool
    run_mark: str = ""


class ContainerDeleted(NamedTuple):
    """The container, its names and its blobs are gone; its layer has an event of its own."""

    id: ContainerID


class NamesSet(NamedTuple):
    """``names`` replaced the item's names; holders of the same kind lost them."""

    kind: Kind
    id: str
    names: tuple[str, ...]


class NamesAdded(NamedTuple):
    """``names`` were put before the item's names; holders of the same kind lost them."""

    kind: Kind
    id: str
    names: tuple[str, ...]


class NamesRemoved(NamedTuple):
    """The item lost ``names``."""

    kind: Kind
    id: str
    names: tuple[str, ...]


class MetadataSet(NamedTuple):
    """``metadata`` replaced the item's opaque text."""

    kind: Kind
    id: str
    metadata: str


class BigDataSet(NamedTuple):
    """A named blob was stored or replaced; its bytes are in ``cstorage.content``."""

    kind: Kind
    id: str
    item: BigDataItem


class FlagsSet(NamedTuple):
    """``flags`` replaced the item's flags."""

    kind: Kind
    id: str
    flags: Mapping[str, Any]


class Pinned(NamedTuple):
    """The item must not be deleted from here on, until ``by`` takes that back."""

    kind: Kind
    id: str
    by: str
    why: str
    since_ns: int


class Unpinned(NamedTuple):
    """``by`` needs the item no longer."""

    kind: Kind
    id: str
    by: str


Event = (
    StoreInitialised
    | LayerCreated
    | LayerDiffApplied
    | LayerDeleted
    | ImageCreated
    | ImageMappedLayerAdded
    | ImageMappedLayerRemoved
    | ImageDeleted
    | ImageMoved
    | ContainerCreated
    | ContainerDeleted
    | NamesSet
    | NamesAdded
    | NamesRemoved
    | MetadataSet
    | BigDataSet
    | FlagsSet
    | Pinned
    | Unpinned
)


class Actor(NamedTuple):
    """Who did it: recorded with every transaction."""

    uid: int
    pid: int
    program: str
    host: str
    boot_id: str


class HistoryEntry(NamedTuple):
    """One event with its place in the journal and its circumstances."""

    sequence: int
    time_ns: int
    actor: Actor
    reason: str
    event: Event


def subject(event: Event) -> tuple[Kind | None, str]:
    """Kind and ID of the item that ``event`` is about; ``(None, "")`` for the store itself."""
    match event:
        case StoreInitialised():
            return None, ""
        case LayerCreated() | LayerDiffApplied() | LayerDeleted():
            return Kind.LAYER, event.id
        case ImageCreated() | ImageMappedLayerAdded() | ImageMappedLayerRemoved():
            return Kind.IMAGE, event.id
        case ImageDeleted() | ImageMoved():
            return Kind.IMAGE, event.id
        case ContainerCreated() | ContainerDeleted():
            return Kind.CONTAINER, event.id
        case _:
            return event.kind, event.id


def texts(values: Sequence[Any]) -> tuple[str, ...]:
    """A tuple of strings from a decoded array."""
    return tuple(str(value) for value in values)
