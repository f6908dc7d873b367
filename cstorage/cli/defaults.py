"""Where the store is when the command line does not say: configuration and environment.

Rules (cli.md §1.1, §1.2, §1.5): the defaults are loaded only when none of graph root, run root,
driver and driver options was given before the command; flags after the command replace single
values of them; one root given alone takes the other one from the defaults.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cstorage.cli.goflags import Value
    from cstorage.cli.quoting import Json


class Defaults(NamedTuple):
    """The part of the configuration that flags can replace."""

    graph_root: str = ""
    run_root: str = ""
    driver: str = ""
    driver_options: tuple[str, ...] = ()
    image_store: str = ""
    transient: bool = False


def load() -> Defaults:
    """The configured defaults; ``ConfigError`` if a configuration file cannot be understood."""
    if rootless():
        home = os.environ.get("HOME", "/")
        data = os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
        run = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
        found = Defaults(f"{data}/containers/storage", f"{run}/containers")
    else:
        found = Defaults("/var/lib/containers/storage", "/run/containers/storage")
    driver = os.environ.get("STORAGE_DRIVER", "")
    options = os.environ.get("STORAGE_OPTS")
    if driver:
        found = found._replace(driver=driver)
    if options is not None:
        found = found._replace(driver_options=tuple(filter(None, options.split(","))))
    return found


def rootless() -> bool:
    """Whether the process counts as one without real root's powers (cli.md §1.5)."""
    if os.environ.get("_CONTAINERS_USERNS_CONFIGURED"):
        return True
    return os.environ.get("_CONTAINERS_ROOTLESS_UID", "") not in ("", "0") or os.geteuid() != 0


def merged(values: dict[str, Value], found: Defaults) -> dict[str, Value]:
    """Flag values with ``found`` below those that were given."""
    return {
        **values,
        "graph": found.graph_root,
        "run": found.run_root,
        "storage_driver": found.driver,
        "storage_opt": found.driver_options,
        "image_store": values["image_store"] or found.image_store,
        "transient_store": values["transient_store"] or found.transient,
    }


def given(values: dict[str, Value]) -> bool:
    """Whether any of the flags was given that keep the defaults from being loaded."""
    return any(values[key] for key in ("graph", "run", "storage_driver", "storage_opt"))


def document(found: Defaults) -> dict[str, Json]:
    """The configuration as ``config`` prints it: nothing empty except the pull options."""
    fields: dict[str, Json] = {
        "runroot": found.run_root,
        "root": found.graph_root,
        "imagestore": found.image_store,
        "driver": found.driver,
        "driver-options": list(found.driver_options),
        "PullOptions": None,
        "transient_store": found.transient,
    }
    return {key: value for key, value in fields.items() if value or key == "PullOptions"}
