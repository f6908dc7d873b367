"""A closed store leaves nothing open behind."""

from __future__ import annotations

import os
from pathlib import Path

import cstorage


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def use(root: Path) -> None:
    with cstorage.open(root / "graph", root / "run", driver="vfs") as store:
        layer = store.create_layer()
        store.mount(layer.id)
        store.unmount(layer.id)
        assert [found.id for found in store.layers()] == [layer.id]
        assert list(store.history())
        store.delete_layer(layer.id)


def test_opening_and_closing_again_and_again_keeps_no_descriptor(tmp_path: Path) -> None:
    use(tmp_path)
    before = descriptors()
    for _ in range(5):
        use(tmp_path)
    assert descriptors() == before
