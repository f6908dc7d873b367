"""Making layers: empty, from an archive, as a copy of a template; applying archives to them.

Order of checks and errors: semantics §4.3. Content is prepared in a work folder without any lock;
under the writer lock the checks are made (again), the finished directory is renamed into place and
one ``LayerCreated`` event says all there is to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from cstorage import events as ev
from cstorage.content import sync_directories
from cstorage.errors import (
    ContentChanged,
    DriverError,
    DuplicateID,
    DuplicateName,
    InvalidID,
    NotSupported,
    ParentIsContainer,
    StorageError,
)
from cstorage.model import BigDataItem, DiffSummary, Digest, IDMaps, Kind, Layer, LayerID
from cstorage.store import arguments, bigdata, chunked, lookup
from cstorage.store.catalogue import Catalogue
from cstorage.store.core import new_id
from cstorage.store.filling import copy_content, copy_finished, extract, marked
from cstorage.store.lookup import go_quote
from cstorage.store.mapping import MapOptions, effective, stored
from cstorage.store.workspace import Intent, Workspace, declare
from journal.plain import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage.archive.apply import ApplyOptions
    from cstorage.archive.compression import ByteSource
    from cstorage.drivers.contract import LayerPlan, Prepared
    from cstorage.state import State
    from cstorage.store.commit import Transaction
    from cstorage.store.core import Core
    from cstorage.store.flights import Repeatable


class LayerRequest(NamedTuple):
    """Everything that the caller may say about a new layer."""

    id: str = ""
    parent: str = ""
    names: Sequence[str] = ()
    mount_label: str = ""
    writable: bool = True
    maps: MapOptions = MapOptions()
    flags: Mapping[str, Any] = {}
    template: str = ""
    big_data: Sequence[bigdata.Blob] = ()
    volatile: bool = False
    storage_options: Mapping[str, str] = {}
    metadata: str = ""


class Base(NamedTuple):
    """What a new layer is put on: its parent, its template and the maps that follow from them."""

    parent: LayerID
    template: Layer | None
    maps: IDMaps
    base_maps: IDMaps

    @property
    def diff(self) -> DiffSummary:
        """What a copy inherits: the template's digests, sizes and recipe (semantics §2.10)."""
        return self.template.diff if self.template else DiffSummary()


def new_layer_id(state: State) -> LayerID:
    """A generated ID that no layer has."""
    while True:
        candidate = new_id()
        if state.layer(candidate) is None:
            return LayerID(candidate)


def _check_free(state: State, request: LayerRequest) -> None:
    if request.id and state.layer(request.id) is not None:
        raise DuplicateID
    for name in arguments.names(request.names):
        if state.holder(Kind.LAYER, name) is not None:
            raise DuplicateName


def _find_parent(catalogue: Catalogue, request: LayerRequest) -> Layer | None:
    if not request.parent:
        return None
    parent = catalogue.layer(request.parent)
    if catalogue.primary.container_of_layer(parent.id) is not None:
        raise ParentIsContainer
    return parent


def _base(core: Core, catalogue: Catalogue, request: LayerRequest, parent: Layer | None) -> Base:
    template: Layer | None = None
    if request.template:
        template = lookup.layer(catalogue.primary, request.template)
    inherited = parent.maps if parent is not None else core.default_maps
    wanted = stored(core, effective(request.maps, inherited))
    base = template or parent
    return Base(
        parent.id if parent else LayerID(""), template, wanted, base.maps if base else IDMaps()
    )


def check(core: Core, catalogue: Catalogue, request: LayerRequest, staged: bool) -> Base:
    """All preconditions, in the order of semantics §4.3; staged imports check IDs first."""
    if staged:
        _check_free(catalogue.primary, request)
    parent = _find_parent(catalogue, request)
    if not staged:
        _check_free(catalogue.primary, request)
    return _base(core, catalogue, request, parent)


def prepare(
    core: Core,
    base: Base,
    id_: LayerID,
    request: LayerRequest,
    work: Workspace,
    parent: Prepared | None = None,
) -> Prepared:
    """The layer's directory, complete but for an archive's content, below ``work``.

    ``parent`` stands for the parent while that is itself unpublished.
    """
    plan = _plan(base, id_, request)
    content = _content_to_copy(core, base)
    if base.template is not None and content:
        plan = plan._replace(template=LayerID(""), parent=base.template.parent)
    with _said_of(base, id_, request):
        prepared = core.driver.prepare(plan, work.path, parent)
    prepared.guards = work.guards
    if content:
        try:
            copy_content(content, prepared)
        except BaseException:
            prepared.close()
            raise
    return prepared


def check_plan(core: Core, base: Base, id_: LayerID, request: LayerRequest) -> None:
    """Raise what ``prepare`` would raise for what the driver refuses in any case."""
    with _said_of(base, id_, request):
        core.driver.check_plan(_plan(base, id_, request))


@contextmanager
def _said_of(base: Base, id_: LayerID, request: LayerRequest) -> Iterator[None]:
    """Refusals of the driver say what was being made."""
    try:
        yield
    except StorageError as error:  # of the driver, or of maps that have no root
        if isinstance(error, InvalidID):
            raise
        what = "read-write layer" if request.writable else "read-only layer"
        if base.template is not None:
            what = f"copy of template layer {go_quote(base.template.id)}"
        text = f"creating {what} with ID {go_quote(id_)}: {error}"
        raise DriverError(text, hint=error.hint) from error


def _content_to_copy(core: Core, base: Base) -> str:
    """The template's content root if its copy is to have a content of its own, else "".

    Overlay would put the copy on top of the template, which may be deleted before it. Where owners
    change it does: they are changed through that mount, and the image that the copy is made for
    keeps its top layer as long as the copy.
    """
    template = base.template
    if template is None or base.maps or template.maps or not core.driver.stages_content:
        return ""
    root = core.driver.content_root(template.id)
    if not root or core.driver.linked_entry(template.id) or marked(root):
        return ""
    return root


def _plan(base: Base, id_: LayerID, request: LayerRequest) -> LayerPlan:
    from cstorage.drivers.contract import LayerPlan

    return LayerPlan(
        id=id_,
        parent=base.parent,
        writable=request.writable,
        template=base.template.id if base.template else LayerID(""),
        mount_label=request.mount_label,
        storage_options=request.storage_options,
        maps=base.maps,
        parent_maps=base.base_maps,
    )


def create(
    core: Core,
    request: LayerRequest,
    source: ByteSource | None = None,
    options: ApplyOptions | None = None,
    *,
    toc_digest: str = "",
    expected: str = "",
) -> Layer:
    """Create a layer, filled from ``source`` if given, in one transaction.

    ``toc_digest`` is recorded with the archive; its content must have the digest ``expected``.

    Raises ``LayerUnknown`` (parent, template), ``ParentIsContainer``, ``DuplicateID``,
    ``DuplicateName``, ``InvalidBigDataName``, ``ArchiveError``, ``DriverError``; nothing is left.
    """
    if source is None or core.joint is not None:
        return _make(core, request, source, options, toc_digest, expected)
    from cstorage.store import flights

    same = flights.repeatable(source)
    if same is None:
        return _make(core, request, source, options, toc_digest, expected)
    _early_check(core, request, True)  # what is refused anyway is refused before any wait
    if not request.id:
        return _shared(core, request, source, same, options, toc_digest, expected)
    with flights.Flight(core, "id", request.id) as flight:
        layer = _shared(core, request, source, same, options, toc_digest, expected)
        flight.tell(layer.id)
        return layer


def _early_check(core: Core, request: LayerRequest, filled: bool) -> tuple[Base, bool]:
    """The base by the checks in their order, and whether the layer counts as staged."""
    staged = filled and core.driver.stages_content and not request.mount_label
    return check(core, Catalogue(core.state, core.shelves), request, staged), staged


def _shared(
    core: Core,
    request: LayerRequest,
    source: ByteSource,
    same: Repeatable,
    options: ApplyOptions | None,
    toc_digest: str,
    expected: str,
) -> Layer:
    """A layer filled from ``source``, or copied from one that was just filled from the same."""
    from cstorage.store import flights

    if not flights.may_share(request, options):
        return _make(core, request, source, options, toc_digest, expected)
    base, _ = _early_check(core, request, True)
    place = (base.parent, repr((base.maps, base.base_maps, core.location.driver_options)))
    with flights.Flight(core, "content", same.ends(), *place) as flight:
        if flight.result:
            twin = flights.finished(core, flight.result, same, base.parent)
            if twin is not None:
                try:
                    return _make(core, request, source, options, toc_digest, expected, twin)
                except (OSError, StorageError):
                    pass  # deleted meanwhile, say; what is wrong with the request shows again
        layer = _make(core, request, source, options, toc_digest, expected)
        flight.tell(layer.id)
        return layer


def _make(
    core: Core,
    request: LayerRequest,
    source: ByteSource | None,
    options: ApplyOptions | None,
    toc_digest: str,
    expected: str,
    twin: Layer | None = None,
) -> Layer:
    """``create`` without regard to others; ``twin`` has the content that ``source`` would give."""
    base, staged = _early_check(core, request, source is not None)
    id_ = LayerID(request.id) if request.id else new_layer_id(core.state)
    request = request._replace(id=id_, parent=base.parent)
    image = not request.writable
    with core.work() as work, core.tree_work(work, image=image) as tree_work:
        # A tree that was filled is made durable with all of its file system.
        whole = source is not None and tree_work is work
        blobs = bigdata.stage(request.big_data, work, Kind.LAYER)
        with prepare(core, base, id_, request, tree_work) as prepared:
            diff = base.diff
            if source is not None:
                if twin is not None:
                    diff = copy_finished(core, prepared, twin, work)
                    toc: str = twin.diff.toc_digest
                else:
                    archive = chunked.TableReader(source)
                    diff = extract(core, prepared, archive, options, work, durable=not whole)
                    manifest = work.path / f"content-{diff.manifest}"
                    toc = chunked.digest_of(archive, options, manifest, prepared.root_fd)
                if expected and diff.uncompressed_digest != expected:
                    raise ContentChanged(
                        f"the archive has digest {diff.uncompressed_digest}, expected {expected}"
                    )
                diff = diff._replace(toc_digest=Digest(toc_digest or toc))
            contents = staged_contents(diff if source is not None else DiffSummary(), blobs)
            intent = Intent(core.driver.name, (id_,), tuple(contents))
            declare(work, tree_work, intent, durable=not whole)
            core.driver.make_durable(prepared)
            with core.transaction() as tx:
                again = check(core, tx.catalogue, request, staged)
                if again.maps != base.maps or again.base_maps != base.base_maps:
                    raise StorageError(
                        f"the ID maps of the parent of layer {id_} changed meanwhile; try again"
                    )
                if again.diff != base.diff:
                    raise StorageError(f"the template of layer {id_} changed meanwhile; try again")
                tx.publish(prepared)
                adopt_contents(tx, work, contents)
                tx.emit(created(tx, base, id_, request, diff, blobs))
    return lookup.layer(core.state, id_)


def create_linked(core: Core, request: LayerRequest, entry: Path, diff: DiffSummary) -> Layer:
    """Create a layer whose content is that of an additional layer store's entry.

    ``diff`` is recorded as it is. Raises ``LayerUnknown`` (parent), ``ParentIsContainer``,
    ``DuplicateID``, ``DuplicateName``, ``DriverError``, ``NotSupported``; nothing is left.
    """
    base = check(core, core.catalogue, request, staged=True)
    id_ = LayerID(request.id) if request.id else new_layer_id(core.state)
    request = request._replace(id=id_, parent=base.parent)
    if base.maps:
        raise NotSupported("the parent's ID maps would have to be applied to linked content")
    with core.work(image=True) as work, prepare(core, base, id_, request, work) as prepared:
        core.driver.link(prepared, entry)
        core.driver.make_durable(prepared)
        work.declare(Intent(core.driver.name, (id_,), ()))
        with core.transaction() as tx:
            check(core, tx.catalogue, request, staged=True)
            tx.publish(prepared)
            tx.emit(created(tx, base, id_, request, diff))
    return lookup.layer(core.state, id_)


def create_tree(core: Core, request: LayerRequest) -> str:
    """A driver tree without a record, as ``create-storage-layer`` makes; an existing one is kept.

    Raises ``DriverError`` if the parent's tree does not exist, ``InvalidID``.
    """
    id_ = LayerID(request.id) if request.id else new_layer_id(core.state)
    if core.driver.exists(id_):
        return id_
    maps = stored(core, effective(request.maps, IDMaps()))
    base = Base(LayerID(request.parent), None, maps, IDMaps())
    with (
        core.work(image=not request.writable) as work,
        core.driver.prepare(_plan(base, id_, request), work.path, None) as prepared,
    ):
        core.driver.make_durable(prepared)
        work.declare(Intent(core.driver.name, (id_,), ()))
        with core.transaction() as tx:
            sync_directories(core.driver.publish(prepared))
            del tx
        # The tree has no record by intention: the intent must not outlive its publication.
        work.settle()
    return id_


def created(
    tx: Transaction,
    base: Base,
    id_: LayerID,
    request: LayerRequest,
    diff: DiffSummary,
    blobs: tuple[BigDataItem, ...] = (),
) -> ev.LayerCreated:
    """The event that says all there is to say about the new layer."""
    return ev.LayerCreated(
        id=id_,
        names=arguments.names(request.names),
        parent=base.parent,
        metadata=base.template.metadata if base.template else request.metadata,
        mount_label=request.mount_label,
        created_ns=tx.now_ns,
        diff=diff,
        flags=arguments.flags(request.flags),
        maps=base.maps,
        big_data=blobs,
        writable=request.writable,
        volatile=request.volatile,
    )


def staged_contents(diff: DiffSummary, blobs: Sequence[BigDataItem]) -> list[str]:
    """Content keys that are about to move from a work folder into the store."""
    found = [diff.recipe, diff.manifest, *(blob.content for blob in blobs)]
    return list(dict.fromkeys(key for key in found if key))


def adopt_contents(tx: Transaction, work: Workspace, contents: Sequence[str]) -> None:
    for key in contents:
        tx.adopt(key, work.path / f"content-{key}")
