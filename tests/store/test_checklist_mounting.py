"""Mounting and shutdown: rows 148 to 159 of the checklist (semantics §12.6).

Row 156 needs an additional store and stands in ``test_checklist_several.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cstorage import MapOptions
from cstorage.errors import ImageUnknown, LayerUnknown, LayerUsedByContainer, StorageError
from cstorage.model import IDMapEntry
from tests.store.place import fill, ids

SHIFT = MapOptions(uids=(IDMapEntry(0, 100000, 65536),), gids=(IDMapEntry(0, 100000, 65536),))


def test_mounts_are_counted(store, driver):
    """Row 148. A container's layer and the container share the count."""
    box = store.create_container()
    path = store.mount(box.id)
    assert [store.mount(box.layer), store.mount(box.id)] == [path, path]
    assert store.mounted(box.id) == store.mounted(box.layer) == 3
    assert os.path.ismount(path) is (driver == "overlay")
    assert [store.unmount(box.id) for _ in range(3)] == [True, True, False]
    assert store.mounted(box.id) == 0
    assert not os.path.ismount(path)


def test_counts_are_shared_by_processes(store, place):
    """Row 148, from another process."""
    layer = store.create_layer()
    script = (
        "import sys, cstorage\n"
        "with cstorage.open(*sys.argv[1:4]) as store:\n"
        "    print(store.mount(sys.argv[4]))"
    )
    argv = [sys.executable, "-c", script, place.graph, place.run, place.driver, layer.id]
    out = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    assert str(store.mount(layer.id)) == out.strip()
    assert store.mounted(layer.id) == 2
    assert store.unmount(layer.id) is True
    assert store.unmount(layer.id) is False


def test_counts_that_another_process_is_about_to_begin_are_none(store, place):
    """The table's folder is there before its journal is."""
    layer = store.create_layer()
    (place.run / f"{place.driver}-mounts/segments").mkdir(parents=True)
    assert store.mounted(layer.id) == 0
    assert store.mount_path(layer.id) == ""
    store.mount(layer.id)
    assert store.mounted(layer.id) == 1
    store.unmount(layer.id)


def test_a_forced_unmount_ignores_the_count(store):
    """Row 149."""
    layer = store.create_layer()
    for _ in range(3):
        path = store.mount(layer.id)
    assert store.unmount(layer.id, force=True) is False
    assert store.mounted(layer.id) == 0
    assert not os.path.ismount(path)


def test_unmounting_what_is_not_mounted(store):
    """Row 150."""
    layer = store.create_layer()
    assert store.unmount(layer.id) is False
    assert store.unmount(layer.id, force=True) is False
    assert store.mounted(layer.id) == 0


def test_mounting_what_is_unknown(store):
    """Rows 151 and 152. An image is mounted with ``mount_image`` only."""
    store.create_image("image")
    for key in ("nobody", "image"):
        for call in (store.mount, store.unmount, store.mounted):
            with pytest.raises(LayerUnknown):
                call(key)


def test_a_layers_name_serves_to_mount_it(store):
    """Q-16: the original hands the name to the driver, which knows IDs only."""
    layer = store.create_layer(names=["name"])
    path = store.mount("name")
    assert store.mounted(layer.id) == 1
    assert store.unmount("name") is False
    assert not os.path.ismount(path)


def test_images_are_mounted_read_only(store):
    """Rows 153 and 154. Option ``rw`` is refused before the image is looked at."""
    with pytest.raises(StorageError, match="rw"):
        store.mount_image("nobody", options=["rw"])
    for call in (store.mount_image, store.unmount_image):
        with pytest.raises(ImageUnknown):
            call("nobody")
    store.create_image("bare")
    for call in (store.mount_image, store.unmount_image):
        with pytest.raises(LayerUnknown):
            call("bare")


def test_an_image_mount_shows_the_image_and_takes_no_writes(store, driver):
    """§4.7. On overlay the kernel refuses; vfs hands out the layer's own directory."""
    store.create_image("image", layer=fill(store).id)
    path = store.mount_image("image")
    assert (path / "etc/passwd").read_bytes() == b"root:x:0:0::/:/bin/sh\n"
    if driver == "overlay":
        with pytest.raises(OSError, match="Read-only"):
            (path / "new").write_bytes(b"")
    assert store.unmount_image("image") is False


def test_a_mapped_image_is_mounted_through_an_unmapped_copy(store, unshifted):
    """Row 155."""
    layer = fill(store, maps=SHIFT)
    store.create_image("mapped", layer=layer.id)
    path = store.mount_image("mapped")
    (copy,) = store.image("mapped").mapped_top_layers
    assert copy in str(path)
    info = os.stat(path / "home/user/note")
    assert (info.st_uid, info.st_gid) == (1000, 1001)
    assert store.mount_image("mapped") == path
    assert store.unmount_image("mapped") is True
    assert store.unmount_image("mapped") is False
    assert store.image("mapped").mapped_top_layers == (copy,)


def test_counts_vanish_with_the_run_root(store, place):
    """Row 157."""
    layer = store.create_layer()
    store.mount(layer.id)
    fresh = place.reopen(store, run_root=place.base / "fresh")
    assert fresh.mounted(layer.id) == 0


def test_a_stale_count_starts_again_at_one(store, place):
    """Q-15: what the kernel does not know as mounted has no users (the original adds to them)."""
    if place.driver == "vfs":
        pytest.skip("vfs has no mounts that could be stale")
    layer = store.create_layer()
    path = store.mount(layer.id)
    store.mount(layer.id)
    subprocess.run(["umount", path], check=True)
    assert store.mounted(layer.id) == 0
    store.mount(layer.id)
    assert store.mounted(layer.id) == 1
    assert store.unmount(layer.id) is False


def test_shutdown_with_something_mounted(store):
    """Row 158 (Q-18, kept). The second forced one succeeds."""
    layer = store.create_layer()
    path = store.mount(layer.id)
    with pytest.raises(LayerUsedByContainer):
        store.shutdown()
    assert store.mounted(layer.id) == 1
    with pytest.raises(LayerUsedByContainer):
        store.shutdown(force=True)
    assert store.mounted(layer.id) == 0
    assert not os.path.ismount(path)
    assert store.shutdown(force=True) == store.shutdown() == []


def test_the_store_is_usable_after_shutdown(store):
    """Row 159."""
    layer = store.create_layer()
    store.shutdown()
    assert ids(store.layers()) == [layer.id]
    store.mount(layer.id)
    assert store.unmount(layer.id) is False
