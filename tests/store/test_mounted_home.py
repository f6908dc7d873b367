"""Overlay's home mounted on itself, as podman and containers/storage leave it."""

from __future__ import annotations

import errno
import io
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tars import BASE, CHANGES

import cstorage
from cstorage.drivers import publication
from cstorage.store.checking import CHECK_EVERYTHING
from cstorage.store.exchange import exchange
from tests.store.conftest import root_only
from tests.store.place import fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder with another one in it that is mounted on itself."""
    inner = tmp_path / "graph" / "overlay"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "--bind", inner, inner], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", inner], check=True)


@root_only
def test_layers_come_change_and_go(mounted: Path) -> None:
    roots = (mounted / "graph", mounted / "run")
    with cstorage.open(*roots, driver="overlay", keep_deleted_s=3600) as store:
        fill(store, id="base")
        fill(store, CHANGES, id="top", parent="base")
        store.apply_diff("top", io.BytesIO(BASE))
        store.create_image("img", layer="top")
        box = store.create_container("img", "box")
        (store.mount("box") / "note").write_text("mine")
        store.unmount("box")
        assert store.check(CHECK_EVERYTHING).healthy
        store.delete_container("box")
        assert store.delete_image("img") == ["top", "base"]
        assert sorted(os.listdir(mounted / "graph/overlay")) == ["l"]
        store.restore("box")
        assert store.check(CHECK_EVERYTHING).healthy
        assert (store.mount(box.id) / "note").read_text() == "mine"
        store.unmount("box")


@root_only
def test_what_is_mounted_there_is_not_gone_round(tmp_path: Path) -> None:
    """A file system of its own hides a folder: nothing may end up in that."""
    inner = tmp_path / "inner"
    for folder in (inner, tmp_path / "one"):
        folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", inner], check=True)
    try:
        (inner / "two").mkdir()
        for move in (publication.rename, exchange):
            with pytest.raises(OSError, match="cross-device") as caught:
                move(str(tmp_path / "one"), str(inner / "two"))
            assert caught.value.errno == errno.EXDEV
        assert os.listdir(inner) == ["two"]
    finally:
        subprocess.run(["umount", inner], check=True)
    assert os.listdir(inner) == []
