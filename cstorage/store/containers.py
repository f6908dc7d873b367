"""Making containers: a writable layer on an image's top layer, and a record (semantics §4.10).

If ID maps are asked for that the image's top layer does not have, and the driver cannot shift IDs
when it mounts, a copy of the top layer with those maps is made once and remembered by the image
(semantics §2.10, "mapped top layers"). Copy, layer and container are one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from cstorage import events as ev
from cstorage.errors import DuplicateID, DuplicateName, LayerUnknown, StorageError
from cstorage.model import Container, ContainerID, IDMaps, Image, ImageID, Kind, Layer, LayerID
from cstorage.store import arguments, bigdata, diffs, layers, lookup, userns
from cstorage.store.core import new_id
from cstorage.store.lookup import go_quote
from cstorage.store.mapping import MapOptions, check_overlaps, effective, stored
from cstorage.store.transient import run_mark
from cstorage.store.variants import Copy, choose
from cstorage.store.workspace import Intent
from journal.plain import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cstorage.state import State
    from cstorage.store.catalogue import Catalogue
    from cstorage.store.core import Core

_ATTEMPTS_MAX = 3
"""How often creation starts over when the image's choice of base layer changed meanwhile."""


class ContainerRequest(NamedTuple):
    """Everything that the caller may say about a new container; ``image`` "" bases it on nothing.

    ``mount_options`` ``None`` means "not given", which is not recorded.
    """

    image: str = ""
    id: str = ""
    names: Sequence[str] = ()
    layer_id: str = ""
    metadata: str = ""
    maps: MapOptions = MapOptions()
    flags: Mapping[str, Any] = {}
    big_data: Sequence[bigdata.Blob] = ()
    volatile: bool = False
    storage_options: Mapping[str, str] = {}
    mount_options: Sequence[str] | None = None


class _Plan(NamedTuple):
    """What the container will rest on, decided from one state of the store."""

    image: Image | None
    base: Layer | None
    copy_maps: IDMaps | None
    """Maps of the copy of ``base`` that has to be made first; ``None``: none is needed."""
    layer_maps: IDMaps


def _plan(core: Core, catalogue: Catalogue, request: ContainerRequest) -> _Plan:
    image = catalogue.image(request.image) if request.image else None
    asked = request.maps.requested
    if image is None:
        return _Plan(None, None, None, stored(core, effective(request.maps, core.default_maps)))
    if not image.top_layer:
        return _Plan(image, None, None, stored(core, asked))
    base, copy_maps = choose(core, catalogue, image, request.maps)
    base_maps = base.maps if copy_maps is None else copy_maps
    return _Plan(image, base, copy_maps, stored(core, effective(request.maps, base_maps)))


def _check_layer(state: State, request: ContainerRequest) -> None:
    arguments.item_id(request.id, "container")
    if request.layer_id and state.layer(request.layer_id) is not None:
        raise DuplicateID


def _check(state: State, request: ContainerRequest) -> None:
    if request.id and state.container(request.id) is not None:
        raise DuplicateID
    for name in arguments.names(request.names):
        holder = state.holder(Kind.CONTAINER, name)
        if holder is not None:
            raise DuplicateName(
                f"the container name {go_quote(name)} is already in use by {holder}. You have to "
                "remove that container to be able to reuse that name"
            )
    check_overlaps(request.maps.requested)


def _flags(request: ContainerRequest) -> dict[str, Any]:
    flags = arguments.flags(request.flags)
    process, mount = flags.get("ProcessLabel", ""), flags.get("MountLabel", "")
    if bool(process) != bool(mount):
        raise StorageError("ProcessLabel and Mountlabel must either not be specified or both")
    flags["ProcessLabel"], flags["MountLabel"] = process, mount
    if request.volatile:
        flags["Volatile"] = True
    if request.mount_options is not None:
        flags["MountOpts"] = list(request.mount_options)
    return flags


class _PlanChanged(Exception):
    """Another process changed what the container was to rest on."""


def create(core: Core, request: ContainerRequest) -> Container:
    """Create a container and its layer in one transaction.

    Raises ``ImageUnknown``, ``LayerUnknown``, ``DuplicateID``, ``DuplicateName``,
    ``InvalidMappings``, ``NoAvailableIDs``, ``InvalidBigDataName``, ``DriverError``; nothing is
    left.
    """
    if core.location.transient:
        request = request._replace(volatile=True)
    asked = request.maps
    with userns.lock(core, asked.auto is not None):
        for _ in range(_ATTEMPTS_MAX):
            if asked.auto is not None:
                catalogue = core.catalogue
                image = catalogue.image(request.image) if request.image else None
                maps = userns.allocate(core, catalogue, image, asked.auto)
                request = request._replace(maps=MapOptions(uids=maps.uids, gids=maps.gids))
            try:
                return _create_once(core, request)
            except _PlanChanged:
                continue
    raise StorageError(
        f"image {request.image} kept changing while a container was made on it; try again"
    )


def _create_once(core: Core, request: ContainerRequest) -> Container:
    catalogue = core.catalogue
    state = catalogue.primary
    plan = _plan(core, catalogue, request)
    flags = _flags(request)
    _check_layer(state, request)
    layer_id = LayerID(request.layer_id) if request.layer_id else layers.new_layer_id(state)
    layer_request = layers.LayerRequest(
        mount_label=str(flags["MountLabel"]),
        volatile=request.volatile,
        storage_options=request.storage_options,
    )
    # The original makes the layer first: what the driver refuses of it comes before what is wrong
    # with the record (semantics §4.10, steps 7 and 8).
    layers.check_plan(
        core, layers.Base(LayerID(""), None, plan.layer_maps, IDMaps()), layer_id, layer_request
    )
    _check(state, request)
    id_ = request.id
    while not id_:
        candidate = new_id()
        if state.container(candidate) is None:
            id_ = candidate
    with core.work() as work, ExitStack() as stack:
        blobs = bigdata.stage(request.big_data, work, Kind.CONTAINER)
        copy = None
        prepared_copy = None
        if plan.image is not None and plan.base is not None and plan.copy_maps is not None:
            copy = Copy(core, plan.image, plan.base, plan.copy_maps)
            copy_work = stack.enter_context(core.work(image=True))
            prepared_copy = stack.enter_context(copy.prepare(copy_work))
            copy_work.declare(Intent(core.driver.name, (copy.id,), ()))
        copy_id = copy.id if copy is not None else LayerID("")
        parent = copy_id or (plan.base.id if plan.base else LayerID(""))
        parent_maps = (
            plan.copy_maps
            if plan.copy_maps is not None
            else plan.base.maps
            if plan.base
            else IDMaps()
        )
        base = layers.Base(parent, None, plan.layer_maps, parent_maps)
        prepared = stack.enter_context(
            layers.prepare(core, base, layer_id, layer_request, work, prepared_copy)
        )
        core.driver.make_durable(prepared)
        contents = [blob.content for blob in blobs]
        work.declare(Intent(core.driver.name, (layer_id,), tuple(contents)))
        with core.transaction() as tx:
            if _plan(core, tx.catalogue, request) != plan:
                raise _PlanChanged
            _check_layer(tx.state, request)
            _check(tx.state, request)
            if copy is not None and prepared_copy is not None:
                copy.enter(tx, prepared_copy)
            tx.publish(prepared)
            tx.emit(layers.created(tx, base, layer_id, layer_request, base.diff))
            layers.adopt_contents(tx, work, contents)
            tx.emit(
                ev.ContainerCreated(
                    id=ContainerID(id_),
                    names=arguments.names(request.names),
                    image=plan.image.id if plan.image else ImageID(""),
                    layer=layer_id,
                    metadata=request.metadata,
                    created_ns=tx.now_ns,
                    maps=request.maps.requested,
                    flags=flags,
                    big_data=blobs,
                    volatile=request.volatile,
                    run_mark=run_mark(core),
                )
            )
    return lookup.container(core.state, id_)


def size(core: Core, key: str) -> int:
    """Bytes of the container's layer, its big data and its two private directories.

    Creates the directories, as the original does. Raises ``ContainerUnknown``, ``LayerUnknown``.
    """
    from cstorage.store import directories

    state = core.state
    container = lookup.container(state, key)
    layer = state.layer(container.layer)
    if layer is None:
        raise LayerUnknown(f"determining size of layer with ID {go_quote(container.layer)}")
    try:
        total = diffs.size(core, layer.id)
    except (StorageError, OSError) as error:
        raise StorageError(
            f"determining size of layer with ID {go_quote(layer.id)}: {error}"
        ) from error
    total += sum(blob.size for blob in container.big_data)
    for folder in (
        directories.container_directory(core, key),
        directories.container_run_directory(core, key),
    ):
        total += directories.tree_bytes(folder)
    return total
