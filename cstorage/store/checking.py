"""Check, repair and garbage collection (semantics §4.11, §6).

``check`` only looks; it returns a ``Report`` of findings per item, errors of layers repeated under
the images that use them and those of images under their containers. ``repair`` deletes damaged
items that nothing healthy rests on. ``collect`` removes what no record owns.
"""

from __future__ import annotations

import os
import re
import time

from cstorage import errors as err
from cstorage.content import ContentDamaged
from cstorage.model import Container, Image, Item, Kind, Layer
from cstorage.store import bigdata, deletion, integrity, lookup
from cstorage.store.integrity import called
from cstorage.store.lookup import go_quote
from cstorage.store.workspace import Intent, Workspace, remove_tree
from journal.plain import TYPE_CHECKING, NamedTuple, Path, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cstorage.state import State
    from cstorage.store.catalogue import Catalogue
    from cstorage.store.core import Core
    from cstorage.store.mounts import MountTable
    from journal import Position

_LOOKS_LIKE_ID = re.compile("[a-f0-9]{64}")
_RECIPE = ".tar-split.gz"
_KINDS: dict[type, Kind] = {Layer: Kind.LAYER, Image: Kind.IMAGE, Container: Kind.CONTAINER}
_T = TypeVar("_T", Layer, Image)
_MORE_LOOKS = 3
"""Of a check that finds something while others work: what is only on its way is not found again."""


class CheckOptions(NamedTuple):
    """What to look at. Ages are seconds; layers younger than the maximum may be unreferenced."""

    unreferenced_age_max_s: float = 24 * 3600.0
    layer_digests: bool = True
    layer_mountable: bool = True
    layer_contents: bool = True
    layer_data: bool = True
    image_data: bool = True
    container_data: bool = True


CHECK_MOST = CheckOptions(layer_contents=False)
CHECK_EVERYTHING = CheckOptions()


class Report(NamedTuple):
    """Findings by item ID; items without findings are absent. All empty: the store is healthy."""

    layers: dict[str, list[Exception]]
    read_only_layers: dict[str, list[Exception]]
    images: dict[str, list[Exception]]
    read_only_images: dict[str, list[Exception]]
    containers: dict[str, list[Exception]]

    @property
    def healthy(self) -> bool:
        return not any(self)


def _age_s(layer: Layer) -> float:
    return (time.time_ns() - layer.created_ns) / 1e9 if layer.created_ns else float("inf")


def check(core: Core, options: CheckOptions = CHECK_MOST) -> Report:
    """Look at everything that ``options`` name. A store in use may be checked.

    No lock is held while anything is read. What others had in their hands meanwhile (a tree that
    has its place before its event, content on its way out) looks like damage; so whoever has
    findings lets the others finish, and reports only what is found again.
    """
    report, seen = _look(core, options, None)
    for _ in range(_MORE_LOOKS):
        if report.healthy or not _let_finish(core):
            break
        before = seen
        again, seen = _look(core, options, {x for found in report for x in found})
        report = Report._make(
            {x: found for x, found in second.items() if x in first}
            for first, second in zip(report, again, strict=True)
        )
        if seen == before:
            break  # nothing happened between the two looks but what was waited for
    return report


def _let_finish(core: Core) -> bool:
    """Settle what the dead have left, wait for the change that is being made; False if in vain."""
    try:
        core.sweep()
        with core.transaction():
            return True
    except err.StorageError:
        return False  # read-only, damaged, or a writer that does not end: what was seen must do


def _look(core: Core, options: CheckOptions, only: set[str] | None) -> tuple[Report, Position]:
    """One look at all items, or at those of ``only``, and the place in the journal it is of.

    The trees are listed before the records are taken: one that got its record in between has one.
    """
    report = Report({}, {}, {}, {}, {})
    trees = [x for x in core.driver.layers() if only is None or x in only]
    with core.mutex:
        catalogue, at = core.view, core.position
    state = catalogue.primary
    referenced = {
        id_
        for image in _first_of_each(catalogue.images())
        for id_, layer in _chain(catalogue, image)
        if layer is not None
    }
    for layer in _first_of_each(catalogue.layers()):
        if only is not None and layer.id not in only:
            continue
        found: list[Exception] = []
        try:
            found += _check_layer(core, state, layer, options)
        except (err.StorageError, OSError) as error:  # deleted meanwhile, or past all reading
            found.append(err.CheckError(f"{called(layer)}: {error}"))
        # Compared after all stores are known: a parent in an additional store is no finding.
        if layer.parent and catalogue.layer_by_id(layer.parent) is None:
            found.append(err.LayerMissing(called(layer._replace(id=layer.parent))))
        if not layer.read_only:
            unused = layer.id not in referenced and state.container_of_layer(layer.id) is None
            if unused and _age_s(layer) > options.unreferenced_age_max_s:
                found.append(err.LayerUnreferenced(f"layer {layer.id}"))
        if found:
            (report.read_only_layers if layer.read_only else report.layers)[layer.id] = found
    _check_images(core, catalogue, options, report, only)
    for tree in sorted(trees):
        if state.layer(tree) is None and state.container_of_layer(tree) is None:
            report.layers[tree] = [err.LayerUnaccounted(f"layer {tree}")]
    _check_containers(core, catalogue, options, report)
    return report, at


def _first_of_each(items: Iterator[_T]) -> Iterator[_T]:
    """Items whose ID no earlier store has: those that lookups by ID find."""
    seen: set[str] = set()
    for item in items:
        if item.id not in seen:
            seen.add(item.id)
            yield item


def _blob_findings(
    core: Core,
    item: Item,
    missing: Callable[[str], Exception],
    wrong_size: Callable[[str], Exception],
) -> Iterator[Exception]:
    kind = _KINDS[type(item)]
    for blob in item.big_data:
        where = f"{called(item)}: data item {go_quote(blob.name)}"
        if not getattr(item, "read_only", False):
            # The size first: damage of a blob is best told apart before all of it was read.
            try:
                size = core.content.path(blob.content).stat().st_size
            except FileNotFoundError:
                yield missing(where)
                continue
            if size != blob.size:
                yield wrong_size(where)
                continue
        try:
            data = bigdata.read(core, kind, item.id, blob.name)
        except (FileNotFoundError, err.UnknownItemError):  # the latter: deleted meanwhile
            yield missing(where)
        except (ContentDamaged, OSError) as error:
            size = getattr(error, "found_bytes", -1)
            if isinstance(error.__cause__, FileNotFoundError):
                yield missing(where)
            elif size not in (-1, blob.size):
                yield wrong_size(where)
            else:
                yield err.StorageError(f"{where}: {error}")
        else:
            if blob.size not in (-1, len(data)):
                yield wrong_size(where)


def _check_images(
    core: Core,
    catalogue: Catalogue,
    options: CheckOptions,
    report: Report,
    only: set[str] | None,
) -> None:
    """Findings of images' own, then those of the layers that they rest on, from the top down."""
    for image in _first_of_each(catalogue.images()):
        found: list[Exception] = []
        if options.image_data and (only is None or image.id in only):
            found += _blob_findings(core, image, err.ImageDataMissing, err.ImageDataIncorrectSize)
        for id_, layer in _chain(catalogue, image):
            if layer is None:
                found.append(err.ImageLayerMissing(f"{called(image)}: layer {id_}"))
            found += report.layers.get(id_, ())
            found += report.read_only_layers.get(id_, ())
        if found:
            (report.read_only_images if image.read_only else report.images)[image.id] = found


def _chain(catalogue: Catalogue, image: Image) -> Iterator[tuple[str, Layer | None]]:
    """IDs of the image's top layers and their ancestors, each once, with what they stand for."""
    seen: set[str] = set()
    for top in (image.top_layer, *image.mapped_top_layers):
        id_: str = top
        while id_ and id_ not in seen:
            seen.add(id_)
            layer = catalogue.layer_by_id(id_)
            yield id_, layer
            id_ = layer.parent if layer is not None else ""


def _check_layer(
    core: Core, state: State, layer: Layer, options: CheckOptions
) -> Iterator[Exception]:
    if options.layer_data:
        yield from _blob_findings(core, layer, err.LayerDataMissing, err.LayerDataMissing)
    broken = [] if layer.read_only else core.driver.damage(layer.id, layer.parent)
    if broken and options.layer_mountable:
        # The layer cannot be read as it was meant before this is put right.
        where = called(layer)
        yield from (err.LayerDirectoryDamaged(f"{where}: {text}") for text in broken)
        return
    whole = True
    if options.layer_digests and layer.diff.uncompressed_digest:
        found = list(integrity.findings(core, layer))
        whole = not found
        yield from found
    if layer.read_only:
        return
    if options.layer_data:
        damaged = integrity.damaged_list(core, layer)
        if damaged:
            yield err.LayerFileListDamaged(f"layer {layer.id}: {damaged}")
    if options.layer_mountable:
        unmountable = list(_check_mountable(core, layer))
        whole = whole and not unmountable
        yield from unmountable
    if options.layer_contents and whole and layer.diff.manifest:
        yield from _check_contents(core, state, layer)


def _check_mountable(core: Core, layer: Layer) -> Iterator[Exception]:
    from cstorage.drivers.contract import MountOptions

    if core.driver.is_mounted(layer.id):
        return
    try:
        with core.mounts.held():
            if core.state.layer(layer.id) is None or core.driver.is_mounted(layer.id):
                return
            core.driver.mount(
                layer.id,
                MountOptions(label=layer.mount_label, read_only=True, layer_maps=layer.maps),
            )
            core.driver.unmount(layer.id)
    except (err.StorageError, OSError) as error:
        yield err.CheckError(f"layer {layer.id}: {error}")


def _check_contents(core: Core, state: State, layer: Layer) -> Iterator[Exception]:
    from cstorage.store.contents import differences

    try:
        for difference in differences(core, state, layer):
            yield err.LayerContentModified(f"layer {layer.id}: {difference}")
    except (ContentDamaged, err.ArchiveError):
        return  # a file list of the chain is damaged, which is a finding of the layer it is of
    except (err.StorageError, OSError) as error:
        yield err.CheckError(f"layer {layer.id}: {error}")


def _check_containers(
    core: Core, catalogue: Catalogue, options: CheckOptions, report: Report
) -> None:
    state = catalogue.primary
    for id_ in state.ids(Kind.CONTAINER):
        container = lookup.container(state, id_)
        found: list[Exception] = []
        if options.container_data:
            found += _blob_findings(
                core, container, err.ContainerDataMissing, err.ContainerDataIncorrectSize
            )
        if container.image and catalogue.find_image(container.image) is None:
            found.append(err.ContainerImageMissing(f"image {container.image}"))
        found += report.images.get(container.image, ())
        if container.image not in report.images:
            found += report.read_only_images.get(container.image, ())
        # What ails its layer ails the container: repair has to start with it. The original does not
        # say so, and the words of what it does say stay as they are.
        found += report.layers.get(container.layer, ()) if not found else ()
        # The original does not notice this one (semantics §6.3, C4); an operator wants to know.
        if state.layer(container.layer) is None:
            found.append(err.LayerMissing(f"layer {container.layer}"))
        if found:
            report.containers[id_] = found


# -- repair --------------------------------------------------------------------------------------


def repair(core: Core, report: Report, remove_containers: bool = True) -> list[Exception]:
    """Mend or delete what ``report`` found damaged; returns the refusals, empty if all went well.

    Trees that only stray from their record are mended (``mending``) and stay, with what uses them.
    Read-only findings are left alone. A damaged layer that a healthy one rests on, and a damaged
    image that a container uses, stay and are reported. Raises ``StoreIsReadOnly``.
    """
    core.check_writable()
    from cstorage.store.mending import mend

    refusals: list[Exception] = []
    mended = mend(core, report.layers)
    settled = {id(error) for layer in mended for error in report.layers[layer]}

    def broken(found: dict[str, list[Exception]]) -> list[str]:
        return [x for x, errors in found.items() if any(id(e) not in settled for e in errors)]

    if remove_containers:
        layers = set(broken(report.layers))
        rest = (lookup.container(core.state, x) for x in core.state.ids(Kind.CONTAINER))
        above = [x.id for x in rest if x.layer in layers]
        for id_ in dict.fromkeys((*broken(report.containers), *above)):
            try:
                deletion.container(core, id_)
            except (err.ContainerUnknown, err.NotAContainer):
                pass
            except err.StorageError as error:
                refusals.append(_about(f"deleting container {id_}", error))
    gone: set[str] = set()
    for id_ in broken(report.images):
        try:
            gone.update(deletion.image(core, id_))
        except (err.ImageUnknown, err.NotAnImage, err.LayerUnknown):
            pass
        except err.StorageError as error:
            refusals.append(_about(f"deleting image {id_}", error))
    known = [x for x in broken(report.layers) if core.state.layer(x) is not None]
    for id_ in sorted(known, key=lambda x: -_depth(core.state, x)):
        if id_ in gone:
            continue
        try:
            deletion.layer(core, id_)
        except (err.LayerUnknown, err.NotALayer):
            pass
        except err.StorageError as error:
            # Once for each finding: the original tries to delete the layer anew for every one.
            refusals += [_about(f"deleting layer {id_}", error)] * len(report.layers[id_])
    _withdraw_unknown(core, [x for x in report.layers if core.state.layer(x) is None])
    return refusals


def _about(what: str, error: err.StorageError) -> err.StorageError:
    """The same refusal, of its class, that says what it was a refusal of."""
    text = f"{what}: {error.context}" if error.context else what
    return type(error)(text, hint=error.hint)


def _depth(state: State, id_: str) -> int:
    depth = 0
    layer = state.layer(id_)
    while layer is not None and layer.parent:
        depth += 1
        layer = state.layer(layer.parent)
    return depth


# -- garbage -------------------------------------------------------------------------------------


def _withdraw_unknown(core: Core, trees: list[str]) -> None:
    """Remove driver trees without a record, whatever their names are."""
    if not trees:
        return
    with core.transaction("garbage collection") as tx:
        for tree in trees:
            if tx.state.layer(tree) is None:
                tx.withdraw(tree)


def collect(core: Core) -> None:
    """Remove driver trees, content files and data directories that no record owns.

    Raises ``StoreIsReadOnly``: above all a store of the past would miss what is younger.
    """
    core.check_writable()
    core.sweep()
    state = core.state
    _withdraw_unknown(core, [x for x in core.driver.layers() if state.layer(x) is None])
    _collect_content(core)
    found = list(_data_without_record(core, core.state))
    if found:
        with core.transaction("garbage collection") as tx:
            # Again: what was put there after the first look has its record now.
            for entry in _data_without_record(core, tx.state):
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(Path(entry.path))
                else:
                    os.unlink(entry.path)


def _data_without_record(core: Core, state: State) -> Iterator[os.DirEntry[str]]:
    """Data directories, and recipes of layers, of IDs that no record has.

    What has another name than the original gives its own is somebody else's.
    """
    from cstorage.state import keys

    for kind in Kind:
        folder = f"{core.location.graph_root}/{core.driver.name}-{kind.name.lower()}s"
        if not os.path.isdir(folder):
            continue
        for entry in list(os.scandir(folder)):
            recipe = kind is Kind.LAYER and entry.name.endswith(_RECIPE)
            id_ = entry.name.removesuffix(_RECIPE) if recipe else entry.name
            if not _LOOKS_LIKE_ID.fullmatch(id_) or state.get(keys.record(kind, id_)) is not None:
                continue
            if entry.is_dir(follow_symlinks=False) != recipe:
                yield entry


def _collect_content(core: Core) -> None:
    """Content files that nothing refers to: decided and moved out under the writer lock."""
    root = core.content.root / "sha256"
    if not root.is_dir():
        return
    found = [file.name for folder in root.iterdir() for file in folder.iterdir()]
    orphans = [key for key in found if not core.state.refers_to_content(key)]
    if not orphans:
        return
    trash = Workspace.create(core.trash)
    try:
        trash.declare(Intent(core.driver.name, (), tuple(orphans)))
        with core.transaction("garbage collection") as tx:
            for key in orphans:
                if not tx.state.refers_to_content(key):
                    core.content.evict(key, trash.path)
    finally:
        trash.discard()


def check_then_shut_down(core: Core, table: MountTable) -> None:
    """What the original does after ``check`` and ``gc``: unmount everything that is mounted."""
    from cstorage.store import mounts

    mounts.shutdown(core, table, force=True)
