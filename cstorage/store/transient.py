"""Transient stores: containers that live and die with the run root (semantics §3.4).

The run root holds a mark, a random text. A transient container remembers the run root and its mark.
Whoever opens a transient store and finds no mark (the machine was started again, the run root was
lost) deletes the containers of that run root, layers and directories included, and sets a new mark.
Containers of other run roots are somebody else's and stay.
"""

from __future__ import annotations

import os

from cstorage.content import write_synced
from cstorage.model import Container, Kind
from cstorage.store import deletion
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.store.core import Core


def _mark_file(core: Core) -> str:
    return str(core.location.run_root / f"{core.driver.name}-run-mark")


def _read(core: Core) -> str:
    try:
        with open(_mark_file(core), encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def run_mark(core: Core) -> str:
    """What new containers remember; "" if the store is not transient."""
    return f"{core.location.run_root}:{_read(core)}" if core.location.transient else ""


def settle(core: Core) -> list[str]:
    """Delete the containers whose run root was lost and mark the new one; returns their IDs.

    Costs one ``open`` when there is a mark already.
    """
    if not core.location.transient or core.location.read_only or _read(core):
        return []
    run_root = f"{core.location.run_root}:"
    lost: list[Container] = []
    with core.transaction("the run root was lost") as tx:
        if _read(core):
            return []
        for id_ in list(tx.state.ids(Kind.CONTAINER)):
            container = tx.state.container(id_)
            if container is not None and container.run_mark.startswith(run_root):
                deletion.drop_container(tx, container)
                lost.append(container)
        tx.commit()
        from pathlib import Path

        draft = Path(f"{_mark_file(core)}.{os.getpid()}")
        write_synced(draft, os.urandom(16).hex().encode())
        draft.rename(_mark_file(core))
    return [container.id for container in lost]
