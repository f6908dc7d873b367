"""Several stores and processes: rows 56, 131, 156, 160 to 174 of the checklist (semantics §12.7).

Additional stores are tried in both kinds: written by the original's tool, and our own.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import subprocess
import sys

import pytest
from tars import BASE, CHANGES

from cstorage.errors import (
    DuplicateName,
    ImageUnknown,
    LayerUnknown,
    NotALayer,
    NotAnID,
    NotAnImage,
    StoreIsReadOnly,
)
from cstorage.model import Compression
from cstorage.store.workspace import Workspace
from tests.store.peer import PEER, REASON, Peer
from tests.store.place import diff_of, fill, ids


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def written_by_the_original(place):
    peer = Peer(place.base / "shelf", place.driver)
    blob = place.base / "blob"
    peer("import-layer", "--id", "base", "-n", "base-name", stdin=gzip.compress(BASE))
    peer("import-layer", "--id", "top", "base", stdin=CHANGES)
    blob.write_bytes(b"layer blob")
    peer("set-layer-data", "-f", str(blob), "top", "key-1")
    peer("create-image", "--id", "img", "-n", "img-name", "-n", "other-name", "-m", "meta", "top")
    for key, data in (("config", b"configured"), ("manifest", b"{}")):
        blob.write_bytes(data)
        peer("set-image-data", "-f", str(blob), "img", key)
    peer("add-names", "-n", "third-name", "img")
    return peer.graph


def written_by_us(place):
    shelf = place.beside("shelf")
    with shelf.open() as store:
        fill(store, gzip.compress(BASE), id="base", names=["base-name"])
        fill(store, CHANGES, id="top", parent="base", big_data=[("key-1", b"layer blob")])
        store.create_image(
            "img", ["img-name", "other-name"], "top", metadata="meta",
            big_data=[("config", b"configured"), ("manifest", b"{}")],
        )  # fmt: skip
        store.add_names("img", ["third-name"])
        shelf._opened.remove(store)
    return shelf.graph


@pytest.fixture(
    params=[
        pytest.param(
            written_by_the_original,
            marks=[pytest.mark.peer, pytest.mark.skipif(PEER is None, reason=REASON)],
        ),
        written_by_us,
    ],
    ids=["original", "own"],
)
def shelf(request, place):
    """The graph root of an additional store."""
    return request.param(place)


@pytest.fixture
def beside(place, shelf):
    """A store with the additional store beside it."""
    return place.open(driver_options=[f"imagestore={shelf}"])


def test_additional_items_are_listed_flagged_and_found(beside):
    """Row 160."""
    assert [(layer.id, layer.read_only) for layer in beside.layers()] == [
        ("base", True),
        ("top", True),
    ]
    (image,) = beside.images()
    assert (image.id, image.read_only, image.top_layer) == ("img", True, "top")
    assert beside.layer("base-name") == beside.layer("bas") == beside.layer("base")
    assert set(beside.names("img")) == {"img-name", "other-name", "third-name"}
    assert beside.metadata("img") == "meta"
    assert beside.lookup("img-name") == "img"
    assert beside.list_image_big_data("img") == ["config", "manifest"]
    assert beside.image_big_data("img", "config") == b"configured"
    assert beside.image_big_data_size("img", "config") == 10
    assert beside.image_big_data_digest("img", "config") == sha256(b"configured")
    assert beside.list_layer_big_data("top") == ["key-1"]
    assert beside.layer_big_data("top", "key-1") == b"layer blob"
    assert ids(beside.images_by_digest(sha256(b"{}"))) == ["img"]
    assert ids(beside.images_by_top_layer("top")) == ["img"]
    assert ids(beside.layers_by_uncompressed_digest(sha256(BASE))) == ["base"]
    base = beside.layer("base").diff
    assert base.compression is Compression.GZIP
    assert (base.uids, base.gids) == ((0, 1000), (0, 42, 1001))
    assert beside.layer_size("base") == len(BASE)
    assert beside.image_size("img") == len(BASE) + len(CHANGES) + 12
    assert beside.check().healthy


def test_layers_of_additional_stores_are_exported_bit_for_bit(beside):
    """Row 64 for additional stores."""
    assert diff_of(beside, "base", compression=Compression.NONE) == BASE
    assert diff_of(beside, "top") == CHANGES
    assert beside.changes("top")


def test_children_and_containers_rest_on_additional_layers(beside):
    """Row 161."""
    child = beside.create_layer(parent="base-name")
    assert child.parent == "base"
    box = beside.create_container("img-name")
    assert (box.image, beside.layer(box.layer).parent) == ("img", "top")
    for key, present in ((child.id, "etc/shadow"), (box.id, "etc/hosts")):
        path = beside.mount(key)
        assert (path / present).exists()
        (path / "new").write_bytes(b"x")
        beside.unmount(key)
    image = beside.create_image(layer="top")
    assert image.top_layer == "top"
    assert beside.image_size(image.id) == len(BASE) + len(CHANGES)


def test_additional_items_cannot_be_changed(beside):
    """Rows 56, 131, 156 and 162."""
    with pytest.raises(NotAnID):
        beside.set_metadata("img", "new")
    with pytest.raises(NotAnID):
        beside.set_metadata("base", "new")
    with pytest.raises(ImageUnknown):
        beside.set_image_big_data("img", "config", b"new")
    with pytest.raises(LayerUnknown):
        beside.set_layer_big_data("base", "config", b"new")
    with pytest.raises(LayerUnknown):
        beside.apply_diff("base", io.BytesIO(CHANGES))
    with pytest.raises(LayerUnknown):
        beside.add_names("base", ["new"])
    with pytest.raises(NotALayer):
        beside.delete_layer("top")
    with pytest.raises(NotAnImage):
        beside.delete_image("img")
    with pytest.raises(LayerUnknown):
        beside.delete("img")
    with pytest.raises(StoreIsReadOnly, match="mounting read/only store images is not allowed"):
        beside.mount("base")
    for call in (beside.unmount, beside.mounted):
        with pytest.raises(LayerUnknown):
            call("base")
    with pytest.raises(LayerUnknown):
        beside.create_layer(template="base")


def test_images_of_additional_stores_can_be_mounted(beside):
    """Q-17: the original refuses."""
    path = beside.mount_image("img-name")
    assert (path / "etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"
    assert beside.unmount_image("img-name") is False
    assert not os.path.ismount(path)


def test_a_change_of_names_pulls_the_image_up(beside):
    """Row 163."""
    history = beside.image("img").names_history
    beside.add_names("other-name", ["new"])
    assert [(image.id, image.read_only) for image in beside.images()] == [
        ("img", False),
        ("img", True),
    ]
    image = beside.image("img")
    assert image.names[0] == "new"
    assert set(image.names) == {"new", "img-name", "other-name", "third-name"}
    assert set(history) <= set(image.names_history)
    assert (image.top_layer, image.metadata) == ("top", "meta")
    assert beside.image_big_data("img", "config") == b"configured"
    beside.set_image_big_data("img", "config", b"changed")
    assert beside.image_big_data("img", "config") == b"changed"
    assert ids(beside.images_by_digest(sha256(b"{}"))) == ["img", "img"]


def test_a_name_the_copy_dropped_no_longer_finds_the_image(beside):
    """Row 164. Everything but ``image`` still finds the original behind it."""
    beside.remove_names("img", ["other-name"])
    with pytest.raises(ImageUnknown):
        beside.image("other-name")
    assert beside.exists("other-name")
    assert beside.lookup("other-name") == "img"
    assert "other-name" in beside.names("other-name")
    assert beside.create_container("other-name").image == "img"


def test_a_pull_up_needs_the_original_names(beside):
    """Row 165."""
    beside.create_image("mine", ["other-name"])
    with pytest.raises(DuplicateName):
        beside.add_names("img", ["new"])
    assert ids(beside.images()) == ["mine", "img"]


def test_creating_an_image_with_the_id_of_an_additional_one(beside):
    """Row 166. Blobs, names and data are inherited, top layer and flags are not."""
    beside.create_image("mine", ["other-name"])
    made = beside.create_image("img", ["fourth"], "", big_data=[("config", b"own")])
    made = beside.image("img")
    assert (made.top_layer, made.metadata, made.read_only) == ("", "meta", False)
    assert set(made.names) == {"img-name", "other-name", "third-name", "fourth"}
    assert beside.names("mine") == ()
    assert beside.list_image_big_data("img") == ["config", "manifest"]
    assert beside.image_big_data("img", "config") == b"own"
    assert beside.image_big_data("img", "manifest") == b"{}"


def test_the_primary_item_shadows_an_additional_one(beside):
    """§2.1, §3.2: an ID of an additional store may be used again; lookups find the primary one."""
    mine = beside.create_layer("base")
    assert beside.layer("base") == mine
    assert [(x.id, x.read_only) for x in beside.layers()].count(("base", True)) == 1
    assert ids(beside.layers()) == ["base", "base", "top"]


def test_changes_of_an_additional_store_are_seen(beside, shelf, place):
    """Row 170, for the owners of additional stores."""
    assert not beside.exists("late")
    if (shelf / "journal").exists():
        with place.beside("shelf").open(graph_root=shelf) as owner:
            owner.create_layer("late")
            place._opened.remove(owner)
    else:
        Peer(place.base / "shelf", place.driver)("create-layer", "--id", "late")
    assert beside.layer("late").read_only


def test_missing_additional_stores_are_empty(place, tmp_path):
    """§3.2. Nothing is made in them; overlay insists on existing directories."""
    (tmp_path / "empty").mkdir()
    store = place.open(driver_options=[f"imagestore={tmp_path / 'empty'}"])
    assert ids(store.layers()) == []
    assert os.listdir(tmp_path / "empty") == []


def test_split_store_puts_images_aside(place, driver):
    """Row 167. Trees of layers that are not writable go to the image store; records do not."""
    apart = place.base / "apart"
    store = place.open(image_store=str(apart))
    layer = fill(store)
    writable = store.create_layer(writable=True)
    box = store.create_container(store.create_image("img", layer=layer.id).id)
    inner = f"{driver}/dir" if driver == "vfs" else driver
    assert (apart / inner / layer.id).is_dir()
    assert not (place.graph / inner / layer.id).exists()
    for id_ in (writable.id, box.layer):
        assert (place.graph / inner / id_).is_dir()
    assert store.image_store == str(apart)
    path = store.mount(box.id)
    assert (path / "etc/passwd").exists()
    store.unmount(box.id)
    assert diff_of(store, layer.id) == BASE
    store.apply_diff(layer.id, io.BytesIO(CHANGES))
    assert diff_of(store, layer.id) == CHANGES
    assert sorted(store.storage_layers()) == sorted([layer.id, writable.id, box.layer])
    store.delete_container(box.id)
    assert store.delete_image("img") == [layer.id]
    assert not (apart / inner / layer.id).exists()
    assert os.listdir(apart / "trash") == os.listdir(apart / "staging") == []


def test_a_split_store_lists_its_own_layers_before_those_put_aside(place):
    """cli §3.1: regular layers, those of the image store, volatile ones."""
    store = place.open(image_store=str(place.base / "apart"))
    store.create_layer("a1", writable=False)
    store.create_layer("g1")
    box = store.create_container("", volatile=True)
    store.create_layer("a2", writable=False)
    store.create_layer("g2")
    expected = ["g1", "g2", "a1", "a2", box.layer]
    assert ids(store.layers()) == expected
    assert ids(store.multi_list(layers=True).layers) == expected


def test_split_store_with_images_of_the_graph_root(place):
    """Row 168. They are listed and deletable; a change of names moves them over."""
    with place.open() as before:
        before.create_image("old", ["old-name"], layer=fill(before, id="l1").id)
        before.create_image("old2", ["old2-name"])
        place._opened.remove(before)
    store = place.open(image_store=str(place.base / "apart"))
    store.create_image("new")
    assert {image.id for image in store.images()} == {"new", "old", "old2"}
    assert not store.image("old").read_only
    with pytest.raises(NotAnID):
        store.set_metadata("old", "x")
    with pytest.raises(ImageUnknown):
        store.set_image_big_data("old", "config", b"x")
    store.set_metadata("new", "x")
    store.add_names("old2", ["moved"])
    store.set_metadata("old2", "x")
    assert store.delete_image("old") == ["l1"]


def test_transient_containers_vanish_with_the_run_root(place):
    """Row 169. Their layers, trees and directories go at the next opening."""
    store = place.open(transient=True)
    image = store.create_image(layer=fill(store, id="kept").id)
    box = store.create_container(image.id)
    assert box.volatile
    assert box.flags["Volatile"] is True
    folder = store.container_directory(box.id)
    store = place.reopen(store, transient=True)
    assert ids(store.containers()) == [box.id]
    store.close()
    place._opened.remove(store)
    subprocess.run(["rm", "-r", place.run], check=True)
    store = place.open(transient=True)
    assert ids(store.containers()) == []
    assert ids(store.layers()) == store.storage_layers() == ["kept"]
    assert ids(store.images()) == [image.id]
    assert not folder.parent.exists()


def test_transient_containers_of_another_run_root_are_left_alone(place):
    """§3.4, where the original's garbage collection destroys their data."""
    store = place.open(transient=True)
    box = store.create_container()
    other = place.open(transient=True, run_root=place.base / "other")
    other.garbage_collect()
    assert ids(other.containers()) == [box.id]
    assert store.container(box.id) == box


def test_how_a_store_is_opened_hides_no_containers(place):
    """§3.4, where those of the other mode are invisible and garbage to the original."""
    store = place.open(transient=True)
    store.create_container("", "passing")
    store = place.reopen(store)
    store.create_container("", "lasting")
    store.garbage_collect()
    store = place.reopen(store, transient=True)
    store.garbage_collect()
    assert ids(store.containers()) == ["lasting", "passing"]
    assert store.check().healthy


@pytest.mark.parametrize("how", ["delete", "wipe"])
def test_images_of_the_graph_root_go_when_the_store_is_split(place, how):
    """§3.3, where the original does not find them."""
    store = place.open()
    store.create_image("old", layer=fill(store).id)
    store = place.reopen(store, image_store=str(place.base / "images"))
    store.create_image("new")
    if how == "delete":
        store.delete("old")
        assert ids(store.images()) == ["new"]
    else:
        store.wipe()
        assert ids(store.images()) == ids(store.layers()) == store.storage_layers() == []


def test_another_process_sees_changes_at_its_next_call(store, place):
    """Row 170."""
    script = (
        "import sys, cstorage\n"
        "with cstorage.open(*sys.argv[1:4]) as store:\n"
        "    for line in sys.stdin:\n"
        "        print(store.exists(line.strip()), flush=True)"
    )
    argv = [sys.executable, "-c", script, place.graph, place.run, place.driver]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        answers = []
        for step in (lambda: None, lambda: store.create_layer("new"), store.wipe):
            step()
            other.stdin.write("new\n")
            other.stdin.flush()
            answers.append(other.stdout.readline().strip())
        other.stdin.close()
    assert answers == ["False", "True", "False"]


def test_an_unfinished_layer_is_gone_at_the_next_opening(store, place):
    """Row 171. There is no flag: a layer exists when its event does, a tree without one goes."""
    work = Workspace.create(place.graph / "staging")
    from cstorage.store.workspace import Intent

    work.declare(Intent(place.driver, ("unfinished",), ()))
    store.create_storage_layer("unfinished")
    work.abandon()
    store = place.reopen(store)
    assert store.storage_layers() == []


def test_left_over_work_is_removed_and_work_in_progress_kept(store, place):
    """Row 173."""
    held = Workspace.create(place.graph / "staging")
    dead = Workspace.create(place.graph / "staging")
    (dead.path / "file").write_bytes(b"x")
    dead.abandon()
    (place.graph / "staging/lockless").mkdir()
    place.reopen(store)
    assert sorted(os.listdir(place.graph / "staging")) == sorted(
        [held.path.name, f"{held.path.name}.lock"]
    )
    held.discard()


def test_a_killed_exchange_is_settled(store, place):
    """An archive applied to a layer: whatever moment the process dies, tree and record agree."""
    from cstorage.store import exchange
    from cstorage.store.workspace import Intent, Swap

    layer = fill(store)
    root = store._core.driver.content_root(layer.id)
    for recipe, stays in ((layer.diff.recipe, False), ("0" * 64, True)):
        work = Workspace.create(place.graph / "staging")
        tree = work.path / "=tree"
        subprocess.run(["cp", "-a", root, tree], check=True)
        marker = os.stat(root).st_ino
        swap = Swap(layer.id, os.stat(tree).st_ino, recipe)
        work.declare(Intent(place.driver, (), (), (swap,)))
        if stays:
            exchange.exchange(root, str(tree))
        fcntl.flock(work._lock_fd, fcntl.LOCK_UN)
        store = place.reopen(store)
        assert (os.stat(root).st_ino == marker) is stays
        assert diff_of(store, layer.id) == BASE


def test_without_an_additional_layer_store(store):
    """§3.5: no such layer, also for drivers that have no such stores."""
    with pytest.raises(LayerUnknown):
        store.lookup_additional_layer("sha256:" + "7" * 64)
