"""Trees of the driver that no record speaks of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cstorage
from cstorage.errors import DuplicateName


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_a_layer_takes_the_place_of_a_bare_tree_of_its_id(tmp_path: Path, driver: str) -> None:
    if os.getuid() != 0:
        pytest.skip("not root: layers with owners")
    with cstorage.open(tmp_path / "graph", tmp_path / "run", driver=driver) as store:
        store.create_layer(id="other", names=["taken"])
        store.create_storage_layer(id="tree")
        with pytest.raises(DuplicateName):
            store.create_layer(id="tree", names=["taken"])
        assert store.storage_layers() == ["other", "tree"]
        store.create_layer(id="tree")
        assert [layer.id for layer in store.layers()] == ["other", "tree"]
        assert store.storage_layers() == ["other", "tree"]
        assert os.listdir(tmp_path / "graph" / "trash") == []
