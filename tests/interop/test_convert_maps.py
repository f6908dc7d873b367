"""Containers in user namespaces keep their owners when they change the driver."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers
import pytest

import cstorage
from cstorage.model import IDMapEntry
from cstorage.store.mapping import MapOptions

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="not root: layers with owners"),
]

MAPS = MapOptions(uids=(IDMapEntry(0, 100_000, 65536),), gids=(IDMapEntry(0, 200_000, 65536),))


@pytest.mark.parametrize(("driver", "to"), [("overlay", "vfs"), ("vfs", "overlay")])
def test_a_container_shows_the_same_owners_with_the_other_driver(
    open_store: Callable[..., Any], layout: Path, tmp_path: Path, driver: str, to: str
) -> None:
    with open_store(driver) as store:
        peers.load(store, layout, "localhost/test:1")
        container = store.create_container("localhost/test:1", names=["c"], maps=MAPS)
        shifting = store._core.driver.can_shift_ids
        if driver == "overlay" and not shifting:
            pytest.skip("this kernel has no ID-mapped mounts on overlay's file system")
        assert bool(store.layer(container.layer).maps) != shifting
        point = store.mount("c")
        (point / "etc" / "two").write_text("made in it")
        os.chown(point / "etc" / "two", 100_005, 200_006)
        (point / "etc" / "three").unlink()
        seen = peers.listing(point)
        store.unmount("c")
        assert seen["etc/mine"][1:3] == (100_007, 200_008)
        done = store.convert(tmp_path / "copy", to)
        assert done.left_out == ()
    with cstorage.open(tmp_path / "copy", tmp_path / "run", to) as copy:
        assert copy.container("c").maps == container.maps
        assert peers.listing(copy.mount("c")) == seen
        copy.unmount("c")
