"""How configuration and flags come together.

Rules (cli.md §1.1, §1.2): the configuration is read only when none of graph root, run root, driver
and driver options was given before the command; flags after the command replace single values of
it. A file that the environment names has to be there and readable all the same. Unlike the
original, an image store or transience given before the command is never lost.
"""

from __future__ import annotations

import os

from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.cli.goflags import Value
    from cstorage.config import StoreOptions


def rootless() -> bool:
    """Whether the process counts as one without real root's powers (cli.md §1.5)."""
    environ = os.environ
    if environ.get("_CONTAINERS_USERNS_CONFIGURED"):
        return True
    return environ.get("_CONTAINERS_ROOTLESS_UID", "") not in ("", "0") or os.geteuid() != 0


def given(values: dict[str, Value]) -> bool:
    """Whether any of the flags was given that keep the configuration from being read."""
    return any(values[key] for key in ("graph", "run", "storage_driver", "storage_opt"))


def check_named() -> None:
    """Read the files that the environment names, if it names any. Raises ``ConfigError``.

    Who names a file wants it read: a mistake in it, or in the name, is told even where the flags
    leave nothing to take from it.
    """
    if any(map(os.environ.get, ("CONTAINERS_STORAGE_CONF", "CONTAINERS_STORAGE_CONF_OVERRIDE"))):
        from cstorage.config import load

        load()


def configured(values: dict[str, Value]) -> tuple[dict[str, Value], StoreOptions]:
    """``values`` with the configuration below those that were given; and what has no flag.

    Raises ``ConfigError``.
    """
    from cstorage.config import StoreOptions, load

    found = load()
    rest = StoreOptions(
        driver_priority=found.driver_priority,
        root_auto_userns_user=found.root_auto_userns_user,
        auto_userns_min_size=found.auto_userns_min_size,
        auto_userns_max_size=found.auto_userns_max_size,
        pull_options=found.pull_options,
        disable_volatile=found.disable_volatile,
        keep_deleted_s=found.keep_deleted_s,
        keep_deleted_bytes=found.keep_deleted_bytes,
        notes=found.notes,
    )
    return {
        **values,
        "graph": found.graph_root,
        "run": found.run_root,
        "storage_driver": found.driver,
        "storage_opt": found.driver_options,
        "image_store": values["image_store"] or found.image_store,
        "projection": found.projection,
        "transient_store": values["transient_store"] or found.transient_store,
    }, rest
