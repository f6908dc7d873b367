"""Additional layer stores (semantics §3.5, drivers-and-formats §3.12)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import shutil

import pytest
from tars import BASE, CHANGES

from cstorage import MapOptions
from cstorage.errors import (
    ArchiveError,
    ContentChanged,
    DriverError,
    DuplicateID,
    DuplicateName,
    LayerIncorrectContentDigest,
    LayerUnknown,
    StorageError,
)
from cstorage.model import Compression, IDMapEntry
from cstorage.store.checking import CHECK_EVERYTHING
from tests.store.conftest import root_only
from tests.store.place import diff_of, digest, ids

TOC = digest("7")
INFO = {
    "names": ["theirs"],
    "diff-digest": "sha256:" + hashlib.sha256(CHANGES).hexdigest(),
    "compressed-size": 77,
    "flags": {"expected-layer-diffid": "x"},
    "metadata": "text",
}


pytestmark = [pytest.mark.root, root_only]


@pytest.fixture
def beside(place):
    """A store with an additional layer store beside it, which has one entry."""
    return with_entry(place, place.base / "layers", "", gzip.compress(CHANGES))


def with_entry(place, root, reference, blob, info=INFO):
    folder = root / reference / TOC
    (folder / "diff").mkdir(parents=True)
    (folder / "blob").write_bytes(blob)
    (folder / "info").write_text(json.dumps(info) if isinstance(info, dict) else info)
    option = f"overlay.additionallayerstore={root}{':ref' if reference else ''}"
    return place.open(driver_options=[option])


@pytest.fixture
def driver():
    """Only overlay has additional layer stores."""
    return "overlay"


@pytest.mark.parametrize("copy", [False, True])
def test_a_layer_is_taken_over_with_what_is_known_of_it(beside, place, copy):
    """The record lasts, unlike the original's (Q-09), and the requested names are in it."""
    base = beside.create_layer("base")
    with beside.lookup_additional_layer(TOC) as found:
        assert (found.toc_digest, found.compressed_size) == (TOC, 77)
        layer = found.put_as("mine", "base", ["ours"], copy=copy)
    assert (layer.id, layer.parent, layer.names) == ("mine", base.id, ("theirs", "ours"))
    assert layer.flags == {"expected-layer-diffid": "x"}
    assert layer.metadata == "text"
    assert layer.diff.toc_digest == TOC
    assert ids(beside.layers_by_toc_digest(TOC)) == ["mine"]
    assert diff_of(beside, "mine", compression=Compression.NONE) == CHANGES
    assert place.reopen(beside).layer("ours") == layer


@pytest.mark.parametrize("copy", [False, True])
def test_a_mount_label_is_taken_over(place, copy):
    info = INFO | {"mountlabel": "label"}
    store = with_entry(place, place.base / "layers", "", gzip.compress(CHANGES), info)
    assert store.lookup_additional_layer(TOC).put_as("mine", copy=copy).mount_label == "label"


def test_entries_below_an_image_reference(place):
    reference = base64.b64encode(b"example/image:1").decode()
    store = with_entry(place, place.base / "layers", reference, CHANGES)
    assert store.lookup_additional_layer(TOC, "example/image:1").put_as().diff.toc_digest == TOC
    with pytest.raises(LayerUnknown):
        store.lookup_additional_layer(TOC, "example/image:2")


@pytest.mark.parametrize("toc", [digest("8"), "", "..", "../layers"])
def test_what_no_store_has(beside, toc):
    with pytest.raises(LayerUnknown):
        beside.lookup_additional_layer(toc)


def test_refusals(beside):
    beside.create_layer("taken", names=["name"])
    found = beside.lookup_additional_layer(TOC)
    with pytest.raises(LayerUnknown):
        found.put_as("new", "nobody")
    with pytest.raises(DuplicateID):
        found.put_as("taken")
    with pytest.raises(DuplicateName):
        found.put_as("new", names=["name"])
    assert ids(beside.layers()) == ["taken"]


@pytest.mark.parametrize("blob", [BASE, b"no archive" * 100])
def test_a_blob_that_is_not_what_the_store_says(place, blob):
    store = with_entry(place, place.base / "layers", "", blob)
    with pytest.raises(ArchiveError):
        store.lookup_additional_layer(TOC).put_as("new", copy=True)
    assert ids(store.layers()) == store.storage_layers() == []


@pytest.mark.parametrize("info", ["[]", "{", '{"diff-digest": "nonsense"}'])
def test_a_record_that_is_none(place, info):
    store = with_entry(place, place.base / "layers", "", CHANGES, info)
    with pytest.raises(StorageError, match="info"):
        store.lookup_additional_layer(TOC)


@pytest.fixture
def linked(place):
    """A store with a layer "mine" that is linked to an entry; its tree has one file."""
    root = place.base / "layers"
    store = with_entry(place, root, "", gzip.compress(CHANGES))
    (root / TOC / "diff/lazy").write_text("content")
    os.chown(root / TOC / "diff/lazy", 7, 7)
    with store.lookup_additional_layer(TOC) as found:
        layer = found.put_as("mine", store.create_layer("base").id)
    assert layer.diff.recipe == layer.diff.manifest == ""
    return store


def test_a_linked_layer_is_used_without_copying(linked, place):
    """§3.12: ``diff`` is an absolute link to the entry's, ``additionallayer`` names the entry."""
    entry = place.base / "layers" / TOC
    home = place.graph / "overlay/mine"
    assert os.readlink(home / "diff") == str(entry / "diff")
    assert (home / "additionallayer").read_text() == str(entry)
    linked.create_image("image", layer="mine")
    box = linked.create_container("image")
    path = linked.mount(box.id)
    assert (path / "lazy").read_text() == "content"
    (path / "lazy").write_text("changed")
    linked.unmount(box.id)
    assert (entry / "diff/lazy").read_text() == "content"
    store = place.reopen(linked)
    assert diff_of(store, box.layer)
    assert [change.path for change in store.changes("mine")] == [b"/lazy"]
    assert store.diff_size("mine") == 7
    assert store.layer_size("mine") == store.layer("mine").diff.uncompressed_size
    image = store.mount_image("image")
    assert (image / "lazy").read_text() == "content"
    store.unmount_image("image")
    assert store.dedup() == 0
    assert store.check(CHECK_EVERYTHING).healthy


def test_mounts_show_a_linked_layer_with_mapped_owners(linked):
    if not linked.graph_driver.can_shift_ids:
        pytest.skip("this kernel or file system has no ID-mapped lower directories")
    linked.create_image("image", layer="mine")
    maps = (IDMapEntry(0, 100000, 65536),)
    box = linked.create_container("image", maps=MapOptions(uids=maps, gids=maps))
    path = linked.mount(box.id)
    assert (path / "lazy").stat().st_uid == 100007
    linked.unmount(box.id)


def test_a_linked_layer_cannot_be_written_to(linked, place):
    with pytest.raises(DriverError, match="additional layer store"):
        linked.apply_diff("mine", io.BytesIO(CHANGES))
    with (
        linked.prepare_staged_layer(io.BytesIO(CHANGES)) as staged,
        pytest.raises(DriverError, match="additional layer store"),
    ):
        linked.apply_staged_layer(staged, "mine")
    path = linked.mount("mine")
    with pytest.raises(OSError, match="Read-only"):
        (path / "new").touch()
    linked.unmount("mine")
    assert os.listdir(place.base / "layers" / TOC / "diff") == ["lazy"]


def test_a_linked_layer_whose_blob_or_tree_is_gone_is_found(linked, place):
    entry = place.base / "layers" / TOC
    (entry / "blob").write_bytes(gzip.compress(BASE))
    with pytest.raises(ContentChanged, match="recorded was"):
        diff_of(linked, "mine", compression=Compression.NONE)
    (finding,) = linked.check().layers["mine"]
    assert type(finding) is LayerIncorrectContentDigest
    (entry / "blob").unlink()
    shutil.rmtree(entry / "diff")
    assert linked.check().layers["mine"]
    linked.delete_layer("mine")
    assert linked.check().healthy


def test_a_deleted_linked_layer_releases_its_entry(linked, place):
    """``rmdir`` of the entry is the message; a store that counts takes it away."""
    entry = place.base / "layers" / TOC
    linked.delete_layer("mine")
    assert sorted(os.listdir(entry)) == ["blob", "diff", "info", "use"]
    assert (entry / "diff/lazy").read_text() == "content"
    assert linked.storage_layers() == ["base"]
