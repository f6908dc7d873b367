"""A graph root and a run root, and the stores that a test opens on them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from tars import BASE

import cstorage
from cstorage import events as ev

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage.model import Layer
    from cstorage.store.store import Store


class Place:
    """Where stores of one test live; everything it opened is closed by ``close``."""

    def __init__(self, base: Path, driver: str) -> None:
        self.base = base
        self.driver = driver
        self.graph = base / "graph"
        self.run = base / "run"
        self._opened: list[Store] = []

    def open(self, **more: Any) -> Store:
        """The store of this place; keyword arguments are those of ``cstorage.open``."""
        given: dict[str, Any] = {
            "graph_root": self.graph,
            "run_root": self.run,
            "driver": self.driver,
        }
        store = cstorage.open(**(given | more))
        self._opened.append(store)
        return store

    def reopen(self, store: Store, **more: Any) -> Store:
        """Close ``store`` and open it anew, as a new process would."""
        store.close()
        self._opened.remove(store)
        return self.open(**more)

    def beside(self, name: str) -> Place:
        """Another place of the same driver below the same folder."""
        other = Place(self.base / name, self.driver)
        self._opened_by(other)
        return other

    def _opened_by(self, other: Place) -> None:
        other._opened = self._opened

    def close(self) -> None:
        for store in reversed(self._opened):
            store.close()
        self._opened.clear()


def fill(store: Store, data: bytes = BASE, **more: Any) -> Layer:
    """A layer imported from an archive."""
    return store.import_layer(io.BytesIO(data), **more)


def forge(store: Store, *events: ev.Event) -> None:
    """Commit events that no method would: damage, or what an older version wrote."""
    with store._core.transaction("damage planted by a test") as tx:
        for event in events:
            tx.emit(event)


def ids(items: Any) -> list[str]:
    return [item.id for item in items]


def diff_of(store: Store, key: str, **more: Any) -> bytes:
    out = io.BytesIO()
    store.diff(key, out, **more)
    return out.getvalue()


def digest(letter: str) -> str:
    """A well-formed digest that nothing has."""
    return "sha256:" + letter * 64
