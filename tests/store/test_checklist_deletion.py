"""Deletion and maintenance: rows 127 to 147 of the checklist (semantics §12.5)."""

from __future__ import annotations

import os

import pytest

from cstorage import MapOptions
from cstorage import events as ev
from cstorage.errors import (
    ImageUsedByContainer,
    LayerHasChildren,
    LayerUnknown,
    LayerUsedByContainer,
    LayerUsedByImage,
    NotAContainer,
    NotALayer,
    NotAnImage,
)
from cstorage.model import IDMapEntry
from tests.store.place import fill, forge, ids

SHIFT = MapOptions(uids=(IDMapEntry(0, 100000, 65536),), gids=(IDMapEntry(0, 100000, 65536),))


def chain(store, *names: str) -> None:
    """Empty layers with the given IDs, each on the one before it."""
    parent = ""
    for name in names:
        store.create_layer(name, parent)
        parent = name


def test_deleting_a_layer_that_is_none(store):
    """Row 127."""
    store.create_image("image")
    for key in ("nobody", "image"):
        with pytest.raises(NotALayer):
            store.delete_layer(key)


def test_a_layer_in_use_stays_whatever_it_is_called(store):
    """Rows 128 and 129. By ID or by name; the original checks IDs only (Q-01)."""
    box = store.create_container(layer_id="busy")
    forge(store, ev.NamesSet("l", "busy", ("name",)))
    store.create_image("image", layer="busy")
    forge(
        store,
        ev.LayerCreated("child", (), "busy", "", "", 0, *_nothing()),
    )
    for refusal, undo in (
        (LayerHasChildren, lambda: forge(store, ev.LayerDeleted("child"))),
        (LayerUsedByImage, lambda: store.delete("image")),
        (LayerUsedByContainer, lambda: store.delete_container(box.id)),
    ):
        for key in ("busy", "name", "bus"):
            with pytest.raises(refusal):
                store.delete_layer(key)
        undo()
    assert ids(store.layers()) == []


def _nothing():
    from cstorage.model import DiffSummary, IDMaps

    return DiffSummary(), {}, IDMaps(), (), False, False


def test_of_several_users_the_oldest_is_named(store):
    """Whatever their IDs: scripts remove the users in the order they are told."""
    store.create_layer("layer")
    for image in ("zz", "aa"):
        store.create_image(image, layer="layer")
    with pytest.raises(LayerUsedByImage, match="used by image zz"):
        store.delete_layer("layer")
    for child in ("zz", "aa"):
        store.create_layer(child, "layer")
    with pytest.raises(LayerHasChildren, match="used by layer zz"):
        store.delete_layer("layer")


def test_a_deleted_mapped_copy_leaves_the_images_list(store, unshifted):
    """Row 130. Being a mapped copy protects it only while something rests on it."""
    store.create_image("image", layer=fill(store).id)
    box = store.create_container("image", maps=SHIFT)
    (copy,) = store.image("image").mapped_top_layers
    with pytest.raises(LayerHasChildren):
        store.delete_layer(copy)
    store.delete_container(box.id)
    store.delete_layer(copy)
    assert store.image("image").mapped_top_layers == ()


def test_deleting_an_image_that_is_none(store):
    """Row 131; images of additional stores are in ``test_checklist_several.py``."""
    store.create_layer("layer")
    for key in ("nobody", "layer"):
        for commit in (True, False):
            with pytest.raises(NotAnImage):
                store.delete_image(key, commit)


@pytest.mark.parametrize("commit", [True, False])
def test_an_image_in_use_stays(store, commit):
    """Row 132."""
    store.create_image("image", names=["name"])
    box = store.create_container("image")
    with pytest.raises(ImageUsedByContainer, match=f"image used by {box.id}"):
        store.delete_image("name", commit)
    assert store.image("image")


def test_the_chain_goes_up_to_a_fork(store):
    """Rows 133 and 136."""
    chain(store, "base", "middle", "a1", "a2")
    store.create_layer("b1", "middle")
    store.create_image("a", layer="a2")
    store.create_image("b", layer="b1")
    assert store.delete_image("a") == ["a2", "a1"]
    assert store.delete_image("b") == ["b1", "middle", "base"]
    assert ids(store.layers()) == store.storage_layers() == []


def test_a_shared_top_layer_survives_until_the_last_image(store):
    """Row 134."""
    chain(store, "base", "top")
    store.create_image("a", layer="top")
    store.create_image("b", layer="top")
    assert store.delete_image("a") == []
    assert store.delete_image("b") == ["top", "base"]


def test_another_images_top_layer_stops_the_walk(store):
    """Row 135."""
    chain(store, "base", "middle", "top")
    store.create_image("a", layer="top")
    store.create_image("b", layer="middle")
    assert store.delete_image("a") == ["top"]


def test_a_containers_layer_stops_the_walk(store):
    """§4.6: a container's layer is never removed with an image."""
    store.create_container(layer_id="box-layer")
    store.create_image("a", layer="box-layer")
    assert store.delete_image("a") == []


def test_mapped_copies_go_first(store, unshifted):
    """Row 137."""
    chain(store, "base", "top")
    store.create_image("image", layer="top")
    boxes = [
        store.create_container(
            "image",
            maps=MapOptions(uids=(IDMapEntry(0, n, 9),), gids=(IDMapEntry(0, n, 9),)),
        ).id
        for n in (1000, 2000)
    ]
    copies = store.image("image").mapped_top_layers
    assert len(copies) == 2
    for box in boxes:
        store.delete_container(box)
    assert store.delete_image("image") == [*copies, "top", "base"]
    assert ids(store.layers()) == []


def test_a_mapped_copy_with_children_of_its_own_stays(store, unshifted):
    """Q-14, where the original leaves the child without a parent.

    The top layer stays with it (§4.6): an overlay's mapped copy rests on it.
    """
    store.create_image("image", layer=fill(store, id="top").id)
    box = store.create_container("image", maps=SHIFT)
    (copy,) = store.image("image").mapped_top_layers
    store.delete_container(box.id)
    store.create_layer("child", copy)
    shown = sorted(os.listdir(store.mount("child")))
    store.unmount("child")
    assert store.delete_image("image") == []
    assert ids(store.layers()) == ["top", copy, "child"]
    assert sorted(os.listdir(store.mount("child"))) == shown != []


def test_a_dry_run_says_the_same_and_changes_nothing(store):
    """Row 138."""
    chain(store, "base", "top")
    store.create_image("image", layer="top")
    before = store.sequence
    assert store.delete_image("image", commit=False) == ["top", "base"]
    assert store.sequence == before
    assert store.delete_image("image") == ["top", "base"]


def test_a_missing_top_layer_is_reported_after_the_record_went(store):
    """Row 139 (Q-13, the error is kept)."""
    store.create_image("image", layer=store.create_layer("top").id)
    forge(store, ev.LayerDeleted("top"))
    with pytest.raises(LayerUnknown):
        store.delete_image("image")
    assert not store.exists("image")


def test_a_missing_layer_of_another_image_is_not_asked_for(store):
    """As in the original, whose walk ends at a layer that another image names, there or not."""
    chain(store, "base", "top")
    store.create_image("image", layer="top")
    store.create_image("other", layer="base")
    forge(store, ev.LayerDeleted("base"))
    assert store.delete_image("image") == ["top"]


def test_deleting_a_container_that_is_none(store):
    """Row 140."""
    store.create_image("image")
    for key in ("nobody", "image"):
        with pytest.raises(NotAContainer):
            store.delete_container(key)


def test_a_container_without_its_layer(store):
    """Row 141."""
    box = store.create_container("", "box")
    forge(store, ev.LayerDeleted(box.layer))
    with pytest.raises(NotALayer):
        store.delete("box")
    store.delete_container("box")
    assert not store.exists("box")


@pytest.mark.parametrize("how", ["delete", "delete_container"])
def test_the_containers_directories_go_with_it(store, how):
    """Row 142. All of them, where the original leaves an empty directory after ``delete``."""
    store.create_container("", "box")
    folders = store.container_directory("box"), store.container_run_directory("box")
    store.set_container_directory_file("box", "a/b", b"1")
    getattr(store, how)("box")
    assert [folder.parent.exists() for folder in folders] == [False, False]


def test_delete_prefers_containers_then_images_then_layers(store):
    """Row 143. Without safety checks."""
    store.create_layer("shared")
    store.create_layer("child", "shared")
    store.create_image("shared", layer="shared")
    store.create_container("shared", "shared")
    store.delete("shared")
    assert ids(store.containers()) == []
    store.delete("shared")
    assert ids(store.images()) == []
    store.delete("shared")
    assert ids(store.layers()) == ["child"]


def test_delete_of_what_is_unknown(store):
    """Row 144."""
    with pytest.raises(LayerUnknown):
        store.delete("nobody")


def test_a_mounted_layer_is_unmounted_and_deleted(store):
    """Row 145."""
    layer = fill(store)
    for _ in range(3):
        path = store.mount(layer.id)
    store.delete_layer(layer.id)
    assert not path.exists()
    assert store.storage_layers() == []
    store.create_layer(layer.id)
    assert store.mounted(layer.id) == 0


def test_wipe_leaves_nothing(store, place, driver):
    """Row 146. Trees that no record knows and mounted layers included."""
    chain(store, "base", "top")
    store.create_image("image", layer="top", big_data=[("a", b"1")])
    box = store.create_container("image", big_data=[("a", b"2")])
    store.container_directory(box.id)
    store.mount(box.id)
    assert store.create_storage_layer("stray", "base") == "stray"
    store.wipe()
    assert ids(store.layers()) == ids(store.images()) == ids(store.containers()) == []
    assert store.storage_layers() == []
    assert [p for p in (place.graph / "content").rglob("*") if p.is_file()] == []
    for kind in ("containers", "images"):
        folder = place.graph / f"{driver}-{kind}"
        assert not folder.exists() or os.listdir(folder) == []


def test_garbage_collection(store, place, driver):
    """Row 147. Unknown trees of any name, data directories with 64 hex digits, lost content.

    Of layers, recipes in the original's place as well.
    """
    fill(store, id="kept", big_data=[("a", b"1")])
    image, box = store.create_image().id, store.create_container().id
    kept = [store.image_directory(image), store.container_directory(box)]
    planted = []
    for kind in ("layers", "images", "containers"):
        for name, goes in (("f" * 64, True), ("F" * 64, False), ("short", False)):
            folder = place.graph / f"{driver}-{kind}/{name}"
            folder.mkdir(parents=True)
            planted.append((folder, goes))
    for name, goes in (("f" * 63 + "0", True), ("short", False)):
        recipe = place.graph / f"{driver}-layers/{name}.tar-split.gz"
        recipe.touch()
        planted.append((recipe, goes))
    trees = store.storage_layers()
    for name in ("stray", "e" * 64):
        store.create_storage_layer(name)
    lost = place.graph / "content/sha256/00" / ("0" * 64)
    lost.parent.mkdir(exist_ok=True)
    lost.write_bytes(b"lost")
    store.garbage_collect()
    assert store.storage_layers() == trees
    assert [folder.exists() for folder, _ in planted] == [not goes for _, goes in planted]
    assert all(folder.is_dir() for folder in kept)
    assert not lost.exists()
    assert store.layer_big_data("kept", "a") == b"1"
    assert store.check().healthy
