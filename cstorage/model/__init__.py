"""Layer, Image, Container and the value types they are made of.

Records are ``NamedTuple``s: frozen, ordered (their field order is the order of their stored form,
so fields are only ever appended), and cheap to define, which keeps the command line's start-up
inside its budget (``docs/decisions/0001-named-tuples.md``). Times are integers, nanoseconds since
the Unix epoch, 0 meaning "unknown". Sizes are bytes. Digests are strings ``algorithm:hex``.

Rules of the fields: semantics §2.4 (layers), §2.5 (images), §2.6 (containers) of the reference.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from journal.plain import TYPE_CHECKING, Any, NamedTuple, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping

LayerID = NewType("LayerID", str)
ImageID = NewType("ImageID", str)
ContainerID = NewType("ContainerID", str)
Digest = NewType("Digest", str)


class Kind(StrEnum):
    """The three kinds of item; the value is the letter that stands for it in keys and events."""

    LAYER = "l"
    IMAGE = "i"
    CONTAINER = "c"

    __hash__ = str.__hash__  # the one of enumerations is a function of its own, in every look-up


class Compression(IntEnum):
    """Compression of a layer archive, numbered as containers/storage records it."""

    NONE = 0
    BZIP2 = 1
    GZIP = 2
    XZ = 3
    ZSTD = 4


class ChangeKind(IntEnum):
    """Kind of a file system change, numbered as the original's JSON shows it."""

    MODIFY = 0
    ADD = 1
    DELETE = 2


class Change(NamedTuple):
    """One changed path of a layer; ``path`` is absolute within the layer, raw bytes."""

    path: bytes
    kind: ChangeKind


class IDMapEntry(NamedTuple):
    """``size`` consecutive IDs: ``container_id``… inside correspond to ``host_id``… outside."""

    container_id: int
    host_id: int
    size: int


IDMap = tuple[IDMapEntry, ...]


class IDMaps(NamedTuple):
    """UID and GID map of a layer or container; empty means "host IDs"."""

    uids: IDMap = ()
    gids: IDMap = ()

    def __bool__(self) -> bool:
        return bool(self.uids or self.gids)


class BigDataItem(NamedTuple):
    """One named blob: where its bytes are and what the record says of them.

    ``content`` is the SHA-256 (hex) under which ``cstorage.content`` holds the bytes; ``digest`` is
    what lookups use, which differs for signed manifests (semantics §2.8).
    """

    name: str
    size: int
    digest: Digest
    content: str


class DiffSummary(NamedTuple):
    """What is recorded about the archive a layer was filled from (semantics §2.9).

    ``recipe`` and ``manifest`` are content keys (SHA-256 hex) of the tar-split recipe (gzip) and of
    the per-file manifest, "" if there is none.
    """

    compressed_digest: Digest = Digest("")
    compressed_size: int = 0
    uncompressed_digest: Digest = Digest("")
    uncompressed_size: int = 0
    toc_digest: Digest = Digest("")
    compression: Compression = Compression.NONE
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    recipe: str = ""
    manifest: str = ""
    entries: int = 0
    content_size: int = 0
    disk_size: int = 0
    """Bytes that the extracted tree occupies, as ``du`` counts; 0 if that was not measured."""
    recipe_size: int = 0
    manifest_size: int = 0


class Layer(NamedTuple):
    """A copy-on-write file system: changes relative to at most one parent."""

    id: LayerID
    names: tuple[str, ...] = ()
    parent: LayerID = LayerID("")
    metadata: str = ""
    mount_label: str = ""
    created_ns: int = 0
    diff: DiffSummary = DiffSummary()
    flags: Mapping[str, Any] = {}
    maps: IDMaps = IDMaps()
    big_data: tuple[BigDataItem, ...] = ()
    writable: bool = False
    volatile: bool = False
    sequence: int = 0
    """Journal sequence of its creation: the listing order."""
    read_only: bool = False
    """True only for layers of an additional store; never stored."""


class Image(NamedTuple):
    """A reference to a top layer, plus names and data."""

    id: ImageID
    digest: Digest = Digest("")
    names: tuple[str, ...] = ()
    names_history: tuple[str, ...] = ()
    top_layer: LayerID = LayerID("")
    mapped_top_layers: tuple[LayerID, ...] = ()
    metadata: str = ""
    big_data: tuple[BigDataItem, ...] = ()
    created_ns: int = 0
    flags: Mapping[str, Any] = {}
    sequence: int = 0
    read_only: bool = False
    store: str = ""
    """Path of the image store it was made in, "" for the graph root."""

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Every digest the image answers to: its own, then those of its manifests."""
        found = dict.fromkeys([self.digest] if self.digest else [])
        for item in self.big_data:
            if item.name.startswith("manifest"):
                found.setdefault(item.digest)
        return tuple(found)


class Container(NamedTuple):
    """A read-write layer on top of an image's top layer, plus names and data."""

    id: ContainerID
    names: tuple[str, ...] = ()
    image: ImageID = ImageID("")
    layer: LayerID = LayerID("")
    metadata: str = ""
    big_data: tuple[BigDataItem, ...] = ()
    created_ns: int = 0
    maps: IDMaps = IDMaps()
    flags: Mapping[str, Any] = {}
    volatile: bool = False
    sequence: int = 0
    run_mark: str = ""
    """Path and mark of the run root that it lives and dies with (transient stores only)."""


Item = Layer | Image | Container


class Pin(NamedTuple):
    """A promise not to delete an item: who asked for it, why and when. One per item and asker."""

    kind: Kind
    id: str
    by: str
    why: str = ""
    since_ns: int = 0
