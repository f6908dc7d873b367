"""Making images, and what they add up to (semantics §4.8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cstorage import events as ev
from cstorage.errors import DuplicateID, DuplicateName, InvalidDigest, LayerUnknown
from cstorage.model import BigDataItem, Digest, Image, ImageID, Kind, LayerID
from cstorage.store import bigdata, diffs, digests, layers, lookup
from cstorage.store.core import new_id
from cstorage.store.lookup import go_quote
from cstorage.store.workspace import Intent

if TYPE_CHECKING:
    from cstorage.state import State
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


def _check(state: State, request: ImageRequest) -> LayerID:
    """Preconditions in the order of semantics §4.8; returns the full ID of the top layer."""
    top = LayerID("")
    if request.layer:
        found = lookup.find_layer(state, request.layer)
        if found is None:
            raise LayerUnknown
        top = found.id
    if request.id and state.image(request.id) is not None:
        raise DuplicateID(f"an image with ID {go_quote(request.id)} already exists")
    for name in request.names:
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

    Raises ``LayerUnknown``, ``DuplicateID``, ``DuplicateName``, ``InvalidDigest``,
    ``InvalidBigDataName``; nothing is left.
    """
    top = _check(core.state, request)
    id_ = request.id
    while not id_:
        candidate = new_id()
        if core.state.image(candidate) is None:
            id_ = candidate

    def commit(blobs: tuple[BigDataItem, ...]) -> ev.ImageCreated:
        return ev.ImageCreated(
            id=ImageID(id_),
            names=tuple(dict.fromkeys(request.names)),
            names_history=tuple(request.names_history),
            top_layer=top,
            metadata=request.metadata,
            digest=Digest(request.digest),
            created_ns=request.created_ns or tx.now_ns,
            flags=dict(request.flags),
            big_data=blobs,
        )

    if not request.big_data:
        with core.transaction() as tx:
            _check(tx.state, request)
            tx.emit(commit(()))
    else:
        with core.work() as work:
            blobs = bigdata.stage(request.big_data, work, Kind.IMAGE)
            contents = [blob.content for blob in blobs]
            work.declare(Intent(core.driver.name, (), tuple(contents)))
            with core.transaction() as tx:
                _check(tx.state, request)
                layers.adopt_contents(tx, work, contents)
                tx.emit(commit(blobs))
    return lookup.image(core.state, id_)


def layer_ids(state: State, image: Image) -> list[LayerID]:
    """Every layer reachable from the image's top layers, each once.

    Raises ``LayerUnknown`` naming the one that is missing.
    """
    seen: dict[LayerID, None] = {}
    for top in (image.top_layer, *image.mapped_top_layers):
        id_ = top
        while id_ and id_ not in seen:
            layer = state.layer(id_)
            if layer is None:
                raise LayerUnknown(f"locating layer with ID {go_quote(id_)}")
            seen[id_] = None
            id_ = layer.parent
    return list(seen)


def size(core: Core, key: str) -> int:
    """Bytes of all layers of the image (each once) and of its big data.

    A layer counts with its recorded uncompressed size, else with the driver's measure.
    Raises ``ImageUnknown``, ``LayerUnknown``.
    """
    state = core.state
    image = lookup.image(state, key)
    total = sum(blob.size for blob in image.big_data)
    for id_ in layer_ids(state, image):
        layer = lookup.layer(state, id_)
        if layer.diff.uncompressed_digest and layer.diff.uncompressed_size != -1:
            total += layer.diff.uncompressed_size
        else:
            total += diffs.sized(core, layer)
    return total
