"""Named blobs of layers, images and containers.

Semantics §2.8 and §4.9: first-write order, an overwritten blob keeps its place, only the empty
name is refused, keys that start with ``manifest`` on images carry a manifest digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cstorage import events as ev
from cstorage.content import ContentDamaged
from cstorage.errors import (
    BigDataUnknown,
    ContainerUnknown,
    DigestUnknown,
    ImageUnknown,
    InvalidBigDataName,
    InvalidDigest,
    LayerUnknown,
    SizeUnknown,
)
from cstorage.interop.names import blob_file
from cstorage.model import BigDataItem, Container, Digest, Image, Item, Kind, Layer
from cstorage.store import digests, lookup
from cstorage.store.lookup import go_quote
from cstorage.store.workspace import Intent, Workspace
from journal.checksum import sha256
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.store.catalogue import Shelf
    from cstorage.store.core import Core

TRIES = 8
"""How often a reader looks anew for data that others replace while it reads."""
Blob = tuple[str, bytes] | tuple[str, bytes, str]
"""Name, bytes and, optionally, the digest to record."""


def stage(blobs: Sequence[Blob], work: Workspace, kind: Kind) -> tuple[BigDataItem, ...]:
    """Write ``blobs`` into ``work``, synced, and describe them; nothing refers to them yet.

    A name that comes twice keeps its first place and its last bytes.
    """
    found: dict[str, BigDataItem] = {}
    for name, data, *rest in blobs:
        if not name:
            raise InvalidBigDataName(f"can't set empty name for {kind.name.lower()} big data item")
        key = sha256(data).hexdigest()
        digest = str(rest[0]) if rest and rest[0] else f"sha256:{key}"
        if kind is Kind.IMAGE and name.startswith("manifest"):
            digests.check(digest)
        work.put(key, data)
        found[name] = BigDataItem(name, len(data), Digest(digest), key)
    return tuple(found.values())


def write(
    core: Core,
    kind: Kind,
    key: str,
    name: str,
    data: bytes,
    digester: Callable[[bytes], str] | None = None,
) -> None:
    """Store or replace one blob of the item that ``key`` stands for."""
    item = _item(core, kind, key)
    is_manifest = kind is Kind.IMAGE and name.startswith("manifest")
    if is_manifest and digester is None:
        raise DigestUnknown(
            f"error digesting manifest {go_quote(name)}: no manifest digest callback provided"
        )
    digest = digester(data) if is_manifest and digester is not None else str(digests.of(data))
    if not name:
        raise InvalidBigDataName(f"can't set empty name for {kind.name.lower()} big data item")
    if is_manifest:
        try:
            digests.check(digest)
        except InvalidDigest as error:
            raise InvalidDigest(f"digesting manifest {go_quote(name)}: {error}") from error
    content = sha256(data).hexdigest()
    blob = BigDataItem(name, len(data), Digest(digest), content)
    if blob in item.big_data:
        return
    with core.work() as work:
        path = work.put(content, data)
        work.declare(Intent(core.driver.name, (), (content,)))
        with core.transaction() as tx:
            current: Item | None = {
                Kind.LAYER: tx.state.layer,
                Kind.IMAGE: tx.state.image,
                Kind.CONTAINER: tx.state.container,
            }[kind](item.id)
            if current is None:
                raise _unknown(kind, key)
            tx.adopt(content, path)
            tx.emit(ev.BigDataSet(kind, item.id, blob))


def _unknown(kind: Kind, key: str) -> LayerUnknown | ImageUnknown | ContainerUnknown:
    if kind is Kind.LAYER:
        return LayerUnknown()
    if kind is Kind.IMAGE:
        return ImageUnknown(f"locating image with ID {go_quote(key)}")
    return ContainerUnknown()


def _item(core: Core, kind: Kind, key: str) -> Item:
    found: Layer | Image | Container | None
    match kind:
        case Kind.LAYER:
            found = lookup.find_layer(core.state, key)
        case Kind.IMAGE:
            found = lookup.find_image(core.state, key)
            if found is not None and found.store != core.image_store:
                found = None
        case Kind.CONTAINER:
            found = lookup.find_container(core.state, key)
    if found is None and kind is Kind.LAYER and core.catalogue.find_layer(key) is not None:
        raise LayerUnknown(f"locating layer with ID {go_quote(key)} to write bigdata")
    if found is None:
        raise _unknown(kind, key)
    return found


def names(core: Core, kind: Kind, key: str) -> list[str]:
    """Names of the item's blobs in the order they were first set."""
    for item, _ in _places(core, kind, key):
        return [blob.name for blob in item.big_data]
    raise _unknown(kind, key)


def _places(core: Core, kind: Kind, key: str) -> Iterator[tuple[Item, Shelf | None]]:
    """The item in the primary store, then in additional ones: the first that can answer does."""
    catalogue = core.catalogue
    found: Item | None
    if kind is Kind.CONTAINER:
        found = lookup.find_container(catalogue.primary, key)
        if found is not None:
            yield found, None
        return
    if kind is Kind.LAYER:
        for state, shelf in catalogue.layer_states():
            found = lookup.find_layer(state, key)
            if found is not None:
                yield found, shelf
        return
    for state, shelf in catalogue.image_states():
        found = lookup.find_image(state, key)
        if found is not None:
            yield found, shelf


def _first(core: Core, kind: Kind, key: str, name: str) -> BigDataItem | None:
    for item, shelf in _places(core, kind, key):
        blob = _blob(item, name)
        if blob is None or blob.size < 0:
            blob = (shelf.unlisted(kind, item, name) if shelf is not None else None) or blob
        if blob is not None:
            return blob
    return None


def _blob(item: Item, name: str) -> BigDataItem | None:
    return next((blob for blob in item.big_data if blob.name == name), None)


def read(core: Core, kind: Kind, key: str, name: str) -> bytes:
    """The bytes of one blob. Raises ``BigDataUnknown``, ``InvalidBigDataName``, unknown items."""
    for left in reversed(range(TRIES)):
        item, shelf, blob = _holder(core, kind, key, name)
        if shelf is not None:
            return shelf.read(kind, item, blob)
        try:
            return core.content.read(blob.content)
        except ContentDamaged as error:
            # Another process may have replaced it since we looked, once or more: then what is
            # there now counts.
            again = _holder(core, kind, key, name)[2]
            missing = isinstance(error.__cause__, FileNotFoundError)
            if left and (again != blob or (missing and core.content.holds(blob.content))):
                continue
            raise ContentDamaged(
                f"{kind.name.lower()} {item.id} data item {go_quote(name)}: {error}"
            ) from error
    raise AssertionError("the last try returns or raises")


def _holder(core: Core, kind: Kind, key: str, name: str) -> tuple[Item, Shelf | None, BigDataItem]:
    """The item that has the blob, where that is, and the blob's record. Errors of ``read``."""
    item = None
    for found, shelf in _places(core, kind, key):
        item = item or found
        blob = _blob(found, name)
        if blob is None and shelf is not None:
            blob = shelf.unlisted(kind, found, name)
        if blob is not None:
            return found, shelf, blob
    if item is None:
        raise _unknown(kind, key)
    if kind is Kind.CONTAINER and not name:
        raise InvalidBigDataName("can't retrieve container big data value for empty name")
    if kind is Kind.CONTAINER:
        folder = core.location.graph_root / f"{core.driver.name}-containers" / item.id
        raise BigDataUnknown.at(str(folder / blob_file(name)))
    what = f"locating item named {go_quote(name)} for {kind.name.lower()} with ID "
    if kind is Kind.IMAGE:
        what += f"{go_quote(item.id)} (consider removing the image to resolve the issue)"
    else:
        what += go_quote(item.id)
    raise BigDataUnknown(what)


def size(core: Core, kind: Kind, key: str, name: str) -> int:
    """Bytes of one blob of an image or container. Raises ``SizeUnknown`` as semantics §4.9 says."""
    if kind is Kind.CONTAINER:
        item = _item(core, kind, key)
        if not name:
            raise InvalidBigDataName("can't retrieve size of container big data with empty name")
        blob = _blob(item, name)
    else:
        blob = _first(core, kind, key, name)
    if blob is None or blob.size < 0:
        raise SizeUnknown
    return blob.size


def digest(core: Core, kind: Kind, key: str, name: str) -> Digest:
    """Recorded digest of one blob of an image or container. Raises ``DigestUnknown``."""
    if kind is Kind.CONTAINER:
        item = _item(core, kind, key)
        if not name:
            raise InvalidBigDataName(
                "can't retrieve digest of container big data value with empty name"
            )
        blob = _blob(item, name)
    else:
        blob = _first_with_digest(core, kind, key, name)
    if blob is None or not blob.digest:
        raise DigestUnknown
    return blob.digest


def _first_with_digest(core: Core, kind: Kind, key: str, name: str) -> BigDataItem | None:
    """The first blob whose recorded digest is one: any text can be recorded (semantics §2.8)."""
    for item, _ in _places(core, kind, key):
        blob = _blob(item, name)
        try:
            if blob is not None and digests.check(blob.digest):
                return blob
        except InvalidDigest:
            continue
    return None
