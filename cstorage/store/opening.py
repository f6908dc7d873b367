"""Opening a store: which roots, which driver, which journal (semantics §3.1)."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import journal as journal_api
from cstorage.config import StoreOptions
from cstorage.drivers.options import canonical
from cstorage.drivers.registry import open_driver, select
from cstorage.errors import IncompleteOptions, StorageError, StoreIsReadOnly, StoreNotFound
from cstorage.store.core import Core, Location
from cstorage.store.reading import translated
from cstorage.store.store import Store
from journal.plain import TYPE_CHECKING, Path

if TYPE_CHECKING:
    from cstorage.drivers.contract import GraphDriver
    from cstorage.store.past import Moment


def open_store(
    graph_root: str | os.PathLike[str] = "",
    run_root: str | os.PathLike[str] = "",
    driver: str = "",
    driver_options: Sequence[str] = (),
    *,
    driver_priority: Sequence[str] = (),
    image_store: str = "",
    transient: bool = False,
    read_only: bool = False,
    reason: str = "",
    program: str = "",
    options: StoreOptions | None = None,
    taking_over: bool = False,
    projection: str = "",
    keep_deleted_s: int = 0,
    keep_deleted_bytes: int = 0,
    at: Moment | None = None,
) -> Store:
    """Open the store at ``graph_root``, making it if it does not exist and may be written.

    ``options`` give what the other arguments leave empty, and default maps, automatic namespaces
    and pull options. With nothing given at all they are what the configuration says (semantics
    §3.1). ``taking_over`` makes a store where another tool keeps its own, to adopt that in place.
    ``projection`` "additional" keeps a view for other tools, "off" does not refresh one.
    ``reason`` and ``program`` are recorded with every change made through the result.
    ``keep_deleted_s`` and ``keep_deleted_bytes`` say how many seconds, and up to how many bytes
    together, what is deleted through the result is kept for ``Store.restore``; with neither it goes
    at once.
    ``at`` opens it for reading as it was after that event (``int``) or at that time (``datetime``);
    what that means is said by ``past``.

    A store that this process has open with the same roots, driver, reason, program and retention is
    returned again, whatever else is asked for; close it as often as it was opened. Raises
    ``IncompleteOptions``, ``ConfigError``, ``DriverError``, ``StoreDamaged``, ``StoreIsReadOnly``,
    a plain ``StorageError`` where a root cannot be made; with ``read_only`` or ``at``
    ``StoreNotFound``, with ``at`` ``NotInHistory``.
    """
    base = options or StoreOptions()
    chosen = base._replace(
        graph_root=os.fspath(graph_root) or base.graph_root,
        run_root=os.fspath(run_root) or base.run_root,
        driver=driver or base.driver,
        driver_options=tuple(driver_options) or base.driver_options,
        driver_priority=tuple(driver_priority) or base.driver_priority,
        image_store=image_store or base.image_store,
        transient_store=transient or base.transient_store,
        projection=projection or base.projection,
        keep_deleted_s=keep_deleted_s or base.keep_deleted_s,
        keep_deleted_bytes=keep_deleted_bytes or base.keep_deleted_bytes,
    )
    chosen = _completed(chosen)
    graph, run = Path(os.path.abspath(chosen.graph_root)), Path(os.path.abspath(chosen.run_root))
    if at is not None:
        return _open(
            chosen, graph, run, read_only=True, reason=reason, program=program,
            taking_over=False, at=at,
        )  # fmt: skip
    # Whoever wants to keep what he deletes must not be given a store that does not.
    kept = (chosen.keep_deleted_s, chosen.keep_deleted_bytes)
    key = (os.getpid(), str(graph), str(run), reason, program, read_only, kept)
    with _registry_lock:
        known = _registry.get(key)
        if known is not None and canonical(chosen.driver) in ("", known.driver_name):
            known._users += 1
            return known
        store = _open(
            chosen,
            graph,
            run,
            read_only=read_only,
            reason=reason,
            program=program,
            taking_over=taking_over,
        )
        _registry.setdefault(key, store)
        return store


_registry: dict[tuple[int, str, str, str, str, bool, tuple[int, int]], Store] = {}
_registry_lock = threading.RLock()


def released(store: Store) -> bool:
    """Note that one user of ``store`` is done with it; True if that was the last one."""
    with _registry_lock:
        store._users -= 1
        if store._users > 0:
            return False
        forget(store)
        return True


def forget(store: Store) -> None:
    """Take ``store`` out of the registry. Safe to call twice."""
    with _registry_lock:
        for key in [key for key, known in _registry.items() if known is store]:
            del _registry[key]


def _completed(given: StoreOptions) -> StoreOptions:
    """``given`` with roots from the configuration where it must have some (semantics §3.1)."""
    if not (given.graph_root or given.run_root or given.driver or given.driver_options):
        from cstorage.config import load

        defaults = load()
        return defaults._replace(
            driver_priority=given.driver_priority or defaults.driver_priority,
            image_store=given.image_store or defaults.image_store,
            transient_store=given.transient_store or defaults.transient_store,
            projection=given.projection or defaults.projection,
            keep_deleted_s=given.keep_deleted_s or defaults.keep_deleted_s,
            keep_deleted_bytes=given.keep_deleted_bytes or defaults.keep_deleted_bytes,
        )
    if not (given.graph_root or given.run_root):
        raise IncompleteOptions("no storage runroot or graphroot specified")
    if not (given.graph_root and given.run_root):
        from cstorage.config import load

        defaults = load()
        return given._replace(
            graph_root=given.graph_root or defaults.graph_root,
            run_root=given.run_root or defaults.run_root,
        )
    return given


def _open(
    options: StoreOptions,
    graph: Path,
    run: Path,
    *,
    read_only: bool,
    reason: str,
    program: str,
    taking_over: bool,
    at: Moment | None = None,
) -> Store:
    roots = (graph, run, *([Path(options.image_store)] if options.image_store else []))
    if not options.driver:  # looking for one that works writes into the roots, whose modes are ours
        _make_roots(roots, read_only)
    name = select(
        graph, run, options.driver, options=options.driver_options, priority=options.driver_priority
    )
    graph_driver = open_driver(
        name, graph, run, options=options.driver_options, image_store=options.image_store
    )
    _make_roots(roots, read_only)
    location = Location(
        graph,
        run,
        name,
        options.driver_options,
        options.image_store,
        options.transient_store,
        read_only,
        reason,
        program,
        options,
        options.projection,
    )
    core = _open_core(location, graph_driver, taking_over, at)
    try:
        core.shelves  # noqa: B018  additional stores that contradict themselves: not to be opened
        core.sweep()
        if options.transient_store:
            from cstorage.store.transient import settle

            settle(core)
    except BaseException:
        core.close()
        raise
    return Store(core)


def _make_roots(roots: Sequence[Path], read_only: bool) -> None:
    for root in roots:
        if root.is_dir():
            continue
        if read_only:
            raise StoreNotFound(f"there is no store at {root}")
        _make_root(root)


def _make_root(root: Path) -> None:
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
    except OSError as error:
        place = root
        while not os.path.lexists(place):
            place = place.parent
        if place.is_dir():
            raise StorageError(f"mkdir {error.filename}: {_cause(error)}") from error
        raise StorageError(f"mkdir {place}: not a directory") from error


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def journal_folder(graph_root: Path, driver: str) -> Path:
    """Where the journal of the graph root's ``driver`` store is or would be.

    A graph root can hold one store per driver, as the original's can. The first one has
    ``journal/``, later ones ``<driver>-journal/``.
    """
    first = graph_root / "journal"
    other = graph_root / f"{driver}-journal"
    if other.is_dir() or (first.is_dir() and first_driver(first) not in ("", driver)):
        return other
    return first


def first_driver(folder: Path) -> str:
    """Driver that the journal in ``folder`` was begun with, "" if it has no event yet."""
    try:
        with open(_marker(folder)) as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def _marker(folder: Path) -> str:
    """The file beside a journal that names the driver it was begun with."""
    return f"{folder}.driver"


def as_of(core: Core, moment: Moment) -> Store:
    """The store of ``core`` as it was: an object of its own, for reading, with its own journal."""
    location = core.location._replace(read_only=True)
    return Store(_open_core(location, core.driver, False, moment))


def _open_core(
    location: Location,
    graph_driver: GraphDriver,
    taking_over: bool,
    moment: Moment | None = None,
) -> Core:
    folder = journal_folder(location.graph_root, graph_driver.name)
    exists = (folder / "FORMAT").exists()
    with translated():
        if exists or location.read_only:
            journal = _open_existing(folder, location.read_only)
            if journal.mode != "w":
                location = location._replace(read_only=True)
        else:
            driver_folder = location.graph_root / f"{graph_driver.name}-layers" / "layers.json"
            if driver_folder.exists() and not taking_over:
                raise StoreIsReadOnly(
                    f"{location.graph_root} was written by containers/storage ({driver_folder}) "
                    "and has no journal; take it over with adopt, in place or into a new store"
                )
            with open(_marker(folder), "w") as file:
                file.write(graph_driver.name + "\n")
            for name in ("staging", "trash"):
                os.makedirs(location.graph_root / name, mode=0o700, exist_ok=True)
            journal = journal_api.Journal.open(folder, mode="w", create=True)
    try:
        core = Core(location, journal, graph_driver, folder, moment)
    except BaseException:
        journal.close()
        raise
    if not location.read_only and not core.state.driver:
        from cstorage import events as ev

        with core.transaction() as tx:
            if not tx.state.driver:
                tx.emit(ev.StoreInitialised(graph_driver.name))
    return core


def _open_existing(folder: Path, read_only: bool) -> journal_api.Journal:
    """For writing if that is possible: a medium that refuses writes can still be read."""
    if read_only or not os.access(folder, os.W_OK, effective_ids=True):
        return journal_api.Journal.open(folder, mode="r")
    return journal_api.Journal.open(folder, mode="w")
