"""Making images, and what they add up to (semantics §4.8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cstorage import events as ev
from cstorage.errors import DuplicateID, DuplicateName, InvalidDigest, LayerUnknown
from cstorage.model import BigDataItem, Digest, Image, ImageID, Kind, LayerID
from cstorage.store import arguments, bigdata, diffs, digests, layers, lookup
from cstorage.store.core import new_id
from cstorage.store.lookup import go_quote
from cstorage.store.workspace import Intent
from journal.plain import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cstorage.store.catalogue import Catalogue
    from cstorage.store.core import Core


class ImageRequest(NamedTuple):
    """Everything that the caller may say about a new image; ``created_ns`` 0 means now."""

    id: str = ""
    names: Sequence[str] = ()
    layer: str = ""
    metadata: str = ""
    digest: str = ""
    created_ns: int = 0
    big_data: Sequence[bigdata.Blob] = ()
    flags: Mapping[str, Any] = {}
    names_history: Sequence[str] = ()


def _check(catalogue: Catalogue, request: ImageRequest, *, merging: bool = False) -> LayerID:
    """Preconditions in the order of semantics §4.8; returns the full ID of the top layer.

    ``merging``: the names are taken from whoever has them.
    """
    state = catalogue.primary
    top = LayerID("")
    arguments.item_id(request.id, "image")
    if request.layer:
        top = catalogue.layer(request.layer).id
    if request.id and state.image(request.id) is not None:
        raise DuplicateID(f"an image with ID {go_quote(request.id)} already exists")
    for name in () if merging else arguments.names(request.names):
        holder = state.holder(Kind.IMAGE, name)
        if holder is not None:
            raise DuplicateName(
                f"image name {go_quote(name)} is already associated with image {go_quote(holder)}"
            )
    if request.digest:
        try:
            digests.check(request.digest)
        except InvalidDigest as error:
            raise InvalidDigest(
                "validating digests for new image: validating image digest "
                f"{go_quote(request.digest)}: {error}"
            ) from error
    return top


def create(core: Core, request: ImageRequest) -> Image:
    """Create an image in one transaction.

    The ID of an image of an additional store makes the new image inherit what that one has:
    metadata, date, digest, history and blobs, each overridden by the request, and its names, which
    are taken from whoever holds them (semantics §3.2).

    Raises ``LayerUnknown``, ``DuplicateID``, ``DuplicateName``, ``InvalidDigest``,
    ``InvalidBigDataName``; nothing is left.
    """
    catalogue = core.catalogue
    merged = _merged(catalogue, request)
    merging = merged is not None
    request = merged or request
    top = _check(catalogue, request, merging=merging)
    id_ = request.id
    while not id_:
        candidate = new_id()
        if core.state.image(candidate) is None:
            id_ = candidate

    def commit(blobs: tuple[BigDataItem, ...]) -> ev.ImageCreated:
        return ev.ImageCreated(
            id=ImageID(id_),
            names=() if merging else arguments.names(request.names),
            names_history=tuple(request.names_history),
            top_layer=top,
            metadata=request.metadata,
            digest=Digest(request.digest),
            created_ns=request.created_ns or tx.now_ns,
            flags=arguments.flags(request.flags),
            big_data=blobs,
            store=core.image_store,
        )

    if not request.big_data:
        with core.transaction() as tx:
            _check(tx.catalogue, request, merging=merging)
            tx.emit(commit(()))
            if merging:
                tx.emit(ev.NamesAdded(Kind.IMAGE, id_, arguments.names(request.names)))
    else:
        with core.work() as work:
            blobs = bigdata.stage(request.big_data, work, Kind.IMAGE)
            contents = [blob.content for blob in blobs]
            work.declare(Intent(core.driver.name, (), tuple(contents)))
            with core.transaction() as tx:
                _check(tx.catalogue, request, merging=merging)
                layers.adopt_contents(tx, work, contents)
                tx.emit(commit(blobs))
                if merging:
                    tx.emit(ev.NamesAdded(Kind.IMAGE, id_, arguments.names(request.names)))
    return lookup.image(core.state, id_)


def _merged(catalogue: Catalogue, request: ImageRequest) -> ImageRequest | None:
    """The request completed by the image of an additional store with its ID, if there is one."""
    if not request.id or catalogue.primary.image(request.id) is not None:
        return None
    for shelf in catalogue.shelves:
        found = shelf.images.image(request.id)
        if found is not None:
            from cstorage.store.pullup import blobs_of

            return request._replace(
                names=(*found.names, *request.names),
                metadata=request.metadata or found.metadata,
                digest=request.digest or found.digest,
                created_ns=request.created_ns or found.created_ns,
                big_data=(*blobs_of(found, shelf), *request.big_data),
                names_history=(*found.names_history, *request.names_history),
            )
    return None


def layer_ids(catalogue: Catalogue, image: Image) -> list[LayerID]:
    """Every layer reachable from the image's top layers, each once.

    Raises ``LayerUnknown`` naming the one that is missing.
    """
    return list(_walk(catalogue, image))


def _walk(catalogue: Catalogue, image: Image) -> Iterator[LayerID]:
    seen: dict[LayerID, None] = {}
    for top in (image.top_layer, *image.mapped_top_layers):
        id_ = top
        while id_ and id_ not in seen:
            layer = catalogue.layer_by_id(id_)
            if layer is None:
                raise LayerUnknown(f"locating layer with ID {go_quote(id_)}")
            seen[id_] = None
            yield id_
            id_ = layer.parent


def size(core: Core, key: str) -> int:
    """Bytes of all layers of the image (each once) and of its big data.

    A layer counts with its recorded uncompressed size, else with the driver's measure.
    Raises ``ImageUnknown``, ``LayerUnknown``.
    """
    catalogue = core.catalogue
    image = catalogue.image(key)
    total = 0
    for blob in image.big_data:
        total += (
            blob.size if blob.size >= 0 else len(bigdata.read(core, Kind.IMAGE, key, blob.name))
        )
    # From the top down, as in the original: what is named is the first layer that has no size.
    for id_ in _walk(catalogue, image):
        layer = catalogue.layer(id_)
        if layer.diff.uncompressed_digest and layer.diff.uncompressed_size != -1:
            total += layer.diff.uncompressed_size
        else:
            total += diffs.sized(core, layer)
    return total
