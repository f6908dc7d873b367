"""Which drivers there are, and which one a store uses.

Built-in drivers are found by name without any look-up cost; others register under the entry point
group ``cstorage.drivers`` (name = driver name, object = a class that takes ``DriverOptions``).

Choice (semantics §3.1): a given name is used or opening fails. Otherwise prior state decides: the
first driver of the priority list whose directory is in the graph root, and it must be the only one.
Otherwise the first driver of the list that works here.
"""

from __future__ import annotations

import os

from cstorage.drivers.contract import DriverOptions, StrPath
from cstorage.drivers.options import KNOWN_DRIVERS, additional_stores, canonical
from cstorage.errors import DriverError, DriverNotSupported
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cstorage.drivers.contract import GraphDriver

ENTRY_POINTS = "cstorage.drivers"
BUILT_IN = ("overlay", "btrfs", "vfs")
PRIORITY = ("overlay", "btrfs", "zfs", "vfs")


def driver_class(name: str, graph_root: StrPath = "") -> Any:
    """The class behind a driver name. Raises ``DriverNotSupported`` for names nobody provides."""
    if name == "overlay":
        from cstorage.drivers.overlay import OverlayDriver

        return OverlayDriver
    if name == "vfs":
        from cstorage.drivers.vfs import VfsDriver

        return VfsDriver
    if name == "btrfs":
        from cstorage.drivers.btrfs import BtrfsDriver

        return BtrfsDriver
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS, name=name):
        return point.load()
    raise DriverNotSupported(f"failed to GetDriver graph {name} {os.fspath(graph_root)}")


def prior_drivers(graph_root: StrPath) -> list[str]:
    """Known drivers that have a directory in the graph root."""
    found = []
    for name in KNOWN_DRIVERS:
        if canonical(name) == name and os.path.isdir(os.path.join(graph_root, name)):
            found.append(name)
    return found


def select(
    graph_root: StrPath,
    run_root: StrPath,
    name: str = "",
    *,
    options: Sequence[str] = (),
    priority: Sequence[str] = (),
) -> str:
    """The name of the driver to use. Probes only if nothing was named and there is no state yet."""
    if name:
        return canonical(name)
    candidates = [canonical(entry) for entry in priority] or list(PRIORITY)
    prior = prior_drivers(graph_root)
    for candidate in candidates:
        if candidate in prior and (candidate != "vfs" or priority):
            if len(prior) > 1:
                raise DriverError(
                    f"{os.fspath(graph_root)} contains several valid graphdrivers: "
                    f"{', '.join(sorted(prior))}; "
                    "Please cleanup or explicitly choose storage driver (-s <DRIVER>)"
                )
            return candidate
    for candidate in dict.fromkeys((*candidates, *BUILT_IN)):
        try:
            created = open_driver(candidate, graph_root, run_root, options=options)
            check = getattr(created, "check_supported", None)
            if check is not None:
                check()
        except DriverNotSupported:
            continue
        return candidate
    raise DriverNotSupported(f"no graph driver of {', '.join(candidates)} works here")


def open_driver(
    name: str,
    graph_root: StrPath,
    run_root: StrPath,
    *,
    options: Sequence[str] = (),
    image_store: StrPath = "",
) -> GraphDriver:
    """The driver ``name`` for a store. No I/O beyond checking paths named in ``options``."""
    name = canonical(name)
    factory = driver_class(name, graph_root)
    driver: GraphDriver = factory(
        DriverOptions(
            home=os.path.join(graph_root, name),
            run_home=os.path.join(run_root, name),
            options=tuple(options),
            additional_homes=tuple(
                os.path.join(store, name) for store in additional_stores(name, options)
            ),
            image_home=os.path.join(image_store, name) if os.fspath(image_store) else "",
        )
    )
    return driver
