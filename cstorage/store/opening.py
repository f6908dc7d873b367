"""Opening a store: which roots, which driver, which journal (semantics §3.1)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import journal as journal_api
from cstorage import events as ev
from cstorage.drivers.registry import open_driver, select
from cstorage.errors import IncompleteOptions, StoreIsReadOnly, UnknownItemError
from cstorage.store.core import Core, Location
from cstorage.store.reading import translated
from cstorage.store.store import Store


class StoreNotFound(UnknownItemError):
    """There is no store at the graph root, and none was to be made."""


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
    taking_over: bool = False,
) -> Store:
    """Open the store at ``graph_root``, making it if it does not exist and may be written.

    ``taking_over`` makes one where another tool keeps its own, to adopt that in place.
    ``reason`` and ``program`` are recorded with every change made through the result. Raises
    ``IncompleteOptions``, ``ConfigError``, ``DriverError``, ``StoreDamaged``, ``StoreIsReadOnly``.
    """
    if not (graph_root or run_root or driver or driver_options):
        from cstorage.config import load

        defaults = load()
        graph_root, run_root = defaults.graph_root, defaults.run_root
        driver, driver_options = defaults.driver, defaults.driver_options
        driver_priority = driver_priority or defaults.driver_priority
        image_store = image_store or defaults.image_store
        transient = transient or defaults.transient_store
    elif not (graph_root or run_root):
        raise IncompleteOptions("no storage runroot or graphroot specified")
    elif not (graph_root and run_root):
        from cstorage.config import load

        defaults = load()
        graph_root = graph_root or defaults.graph_root
        run_root = run_root or defaults.run_root
    graph, run = Path(os.path.abspath(graph_root)), Path(os.path.abspath(run_root))
    name = select(graph, run, driver, options=driver_options, priority=driver_priority)
    graph_driver = open_driver(name, graph, run, options=driver_options, image_store=image_store)
    for root in (graph, run):
        if not root.is_dir():
            _make_root(root, read_only)
    location = Location(
        graph, run, name, tuple(driver_options), image_store, transient, read_only, reason, program
    )
    core = _open_core(location, graph_driver, taking_over)
    try:
        core.shelves  # noqa: B018  additional stores that contradict themselves: not to be opened
        core.sweep()
        if transient:
            from cstorage.store.transient import settle

            settle(core)
    except BaseException:
        core.close()
        raise
    return Store(core)


def _make_root(root: Path, read_only: bool) -> None:
    if read_only:
        raise StoreNotFound(f"there is no store at {root}")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)


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
    marker = folder.with_suffix(".driver")
    try:
        return marker.read_text().strip()
    except FileNotFoundError:
        return ""


def _open_core(location: Location, driver: object, taking_over: bool) -> Core:
    from typing import cast

    from cstorage.drivers.contract import GraphDriver

    graph_driver = cast("GraphDriver", driver)
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
            folder.with_suffix(".driver").write_text(graph_driver.name + "\n")
            for name in ("staging", "trash"):
                (location.graph_root / name).mkdir(mode=0o700, exist_ok=True)
            journal = journal_api.Journal.open(folder, mode="w", create=True)
    core = Core(location, journal, graph_driver, folder)
    if not location.read_only and not core.state.driver:
        with core.transaction() as tx:
            if not tx.state.driver:
                tx.emit(ev.StoreInitialised(graph_driver.name))
    return core


def _open_existing(folder: Path, read_only: bool) -> journal_api.Journal:
    """For writing if that is possible: a medium that refuses writes can still be read."""
    if read_only or not os.access(folder, os.W_OK):
        return journal_api.Journal.open(folder, mode="r")
    return journal_api.Journal.open(folder, mode="w")
