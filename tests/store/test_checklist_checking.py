"""Check and repair: rows 175 to 191 of the checklist (semantics §12.8)."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import time

import pytest
from tars import BASE, CHANGES, OPAQUE, SPECIAL, Member, archive, folder

from cstorage import MapOptions
from cstorage import errors as err
from cstorage import events as ev
from cstorage.model import IDMapEntry
from cstorage.store.checking import CHECK_EVERYTHING, CHECK_MOST, CheckOptions, Report
from tests.store.conftest import root_only
from tests.store.peer import PEER, REASON, Peer
from tests.store.place import Place, diff_of, fill, forge, ids

OLD = CheckOptions(unreferenced_age_max_s=-1.0)


@pytest.fixture
def full(store):
    """layer base, layer top, image img on it, container box: each with blobs."""
    fill(store, id="base", big_data=[("blob", b"layer")])
    fill(store, CHANGES, id="top", parent="base")
    store.create_image("img", layer="top", big_data=[("blob", b"image"), ("manifest", b"{}")])
    store.create_container("img", "box", layer_id="box-layer", big_data=[("blob", b"container")])
    return store


def findings(found: dict[str, list[Exception]]) -> dict[str, list[type]]:
    return {key: [type(error) for error in errors] for key, errors in found.items()}


def blob_path(store, item, name: str):
    (blob,) = [b for b in item.big_data if b.name == name]
    return store._core.content.path(blob.content)


def own(store, layer: str, name: str) -> str:
    """A path in the layer's own tree."""
    return os.path.join(store._core.driver.content_root(layer), name)


def only(report: Report, **expected) -> None:
    """The report has these findings and no others."""
    assert {kind: findings(found) for kind, found in report._asdict().items() if found} == expected


@pytest.mark.parametrize("options", [CHECK_MOST, CHECK_EVERYTHING])
def test_a_healthy_store_has_no_findings(full, options):
    """Row 175. Odd files, opaque directories, mapped layers, writable and mounted ones included."""
    fill(full, SPECIAL, id="special", parent="top")
    fill(full, OPAQUE, id="opaque", parent="special")
    full.create_layer(parent="opaque")
    maps = (IDMapEntry(0, 100000, 65536),)
    fill(full, maps=MapOptions(uids=maps, gids=maps))
    fill(full, b"")
    full.set_image_big_data("img", "odd", b"")
    path = full.mount("box")
    (path / "etc/new").write_bytes(b"x")
    report = full.check(options)
    full.unmount("box")
    assert report == Report({}, {}, {}, {}, {})
    assert full.check(options).healthy


UNLISTED = {
    "file": [Member("d/new", b"1")],
    "deeper": [Member("d/e/f/new", b"1")],
    "replaced": [Member("d/f", b"22")],
    "removed": [Member("d/.wh.f")],
    "emptied": [Member("d/.wh..wh..opq"), Member("d/new", b"1")],
    "removed from nowhere": [Member("q/w/.wh.x")],
    "emptied nowhere": [Member("q/w/.wh..wh..opq")],
    "the root emptied": [Member(".wh..wh..opq"), Member("new", b"1")],
    "a device like a whiteout": [Member("d/f", kind=tarfile.CHRTYPE)],
}


@pytest.mark.parametrize("members", UNLISTED.values(), ids=UNLISTED)
@pytest.mark.parametrize("how", ["child", "second archive"])
def test_what_an_archive_does_to_directories_that_it_does_not_list_is_no_damage(
    store, members, how
):
    """Row 175. The directory gets another time, and in an overlay a new one stands in for it."""
    below = archive([folder("d", mode=0o700, uid=5), folder("d/e"), Member("d/f", b"1")])
    fill(store, below, id="base")
    if how == "child":
        fill(store, archive(members), id="top", parent="base")
    else:
        store.apply_diff("base", io.BytesIO(archive(members)))
    assert store.check(CHECK_EVERYTHING).healthy


def test_a_changed_directory_is_found_where_an_archive_lists_it(store):
    """What the layer above does not list says nothing of the one below."""
    fill(store, archive([folder("d"), Member("d/f", b"1")]), id="base")
    fill(store, archive([Member("d/new", b"1")]), id="top", parent="base")
    os.chmod(own(store, "base", "d"), 0o700)
    assert findings(store.check(CHECK_EVERYTHING).layers) == {"base": [err.LayerContentModified]}


def test_a_missing_layer_blob(full):
    """Row 176. The finding is repeated under the images and containers that it concerns."""
    blob_path(full, full.layer("base"), "blob").unlink()
    lost = [err.LayerDataMissing]
    only(full.check(), layers={"base": lost}, images={"img": lost}, containers={"box": lost})


@pytest.mark.parametrize(
    ("kind", "item", "missing", "resized"),
    [
        ("images", "img", err.ImageDataMissing, err.ImageDataIncorrectSize),
        ("containers", "box", err.ContainerDataMissing, err.ContainerDataIncorrectSize),
    ],
)
def test_missing_resized_and_altered_blobs(full, kind, item, missing, resized):
    """Rows 177 and 178. Altered bytes of the right length are found too."""
    record = full.image(item) if kind == "images" else full.container(item)
    path = blob_path(full, record, "blob")
    data = path.read_bytes()
    for damage, finding in ((data + b"x", resized), (data[:-1] + b"?", err.StorageError)):
        path.write_bytes(damage)
        assert findings(getattr(full.check(), kind)) == {item: [finding]}
    path.unlink()
    assert findings(getattr(full.check(), kind)) == {item: [missing]}
    path.write_bytes(data)
    assert full.check().healthy


def test_an_altered_file_of_an_imported_layer(full):
    """Row 179. Same length, same times: the digest tells."""
    path = own(full, "base", "usr/bin/tool")
    info = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"#!/bin/no")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    report = full.check()
    assert list(report.layers) == ["base"]
    assert "tool" in str(report.layers["base"][0])
    assert list(report.images) == ["img"]
    assert list(report.containers) == ["box"]


@pytest.mark.parametrize("damage", ["file", "directory", "mode", "owner", "time"])
def test_what_only_the_full_check_sees(full, damage):
    """Row 180."""
    path = own(full, "base", "etc/passwd")
    info = os.stat(path)
    folder = os.stat(os.path.dirname(path))
    match damage:
        case "file":
            with open(own(full, "base", "etc/added"), "wb") as file:
                file.write(b"x")
        case "directory":
            os.mkdir(own(full, "base", "etc/added"))
        case "mode":
            os.chmod(path, 0o777)
        case "owner":
            os.chown(path, 7, 7)
        case "time":
            os.utime(path, (1, 1))
    if damage in ("file", "directory"):
        os.utime(os.path.dirname(path), ns=(folder.st_atime_ns, folder.st_mtime_ns))
    del info
    assert full.check(CHECK_MOST).healthy
    report = full.check(CHECK_EVERYTHING)
    assert findings(report.layers)["base"] == [err.LayerContentModified]
    expected = {
        "file": "+/etc/added", "directory": "+/etc/added/", "mode": "/etc/passwd(mode:",
        "owner": "/etc/passwd(uid:", "time": "/etc/passwd(mtime:",
    }[damage]  # fmt: skip
    assert expected in str(report.layers["base"][0])


def test_a_removed_file(full):
    """Row 180: missing content is found by the quick check too."""
    os.unlink(own(full, "base", "etc/passwd"))
    assert "base" in full.check(CHECK_MOST).layers


def test_a_missing_parent(full):
    """Row 181. The child is damaged, and so is the image that needs the parent."""
    forge(full, ev.LayerDeleted("base"))
    report = full.check()
    assert err.LayerMissing in findings(report.layers)["top"]
    assert "base" in str(report.layers["top"][-1])
    assert err.ImageLayerMissing in findings(report.images)["img"]


def test_a_missing_top_layer(store):
    """Row 181."""
    store.create_image("img", layer=store.create_layer("top").id)
    forge(store, ev.LayerDeleted("top"))
    only(store.check(), images={"img": [err.ImageLayerMissing]})


def test_a_missing_image(full):
    """Row 182."""
    forge(full, ev.ImageDeleted("img"))
    assert findings(full.check().containers) == {"box": [err.ContainerImageMissing]}


def test_an_unreferenced_layer(full):
    """Row 183. Ancestors of an image's layers and containers' layers are referenced."""
    full.create_layer("lost", "base")
    assert full.check().healthy
    assert findings(full.check(OLD).layers) == {"lost": [err.LayerUnreferenced]}


def test_a_layer_of_unknown_age_counts_as_old(store):
    """Row 184."""
    layer = store.create_layer("young")
    fields = {name: getattr(layer, name) for name in ev.LayerCreated._fields}
    trees = store.storage_layers()
    forge(store, ev.LayerCreated(**(fields | {"id": "ageless", "created_ns": 0})))
    store.create_storage_layer("ageless")
    assert store.storage_layers() != trees
    assert findings(store.check().layers) == {"ageless": [err.LayerUnreferenced]}


def test_a_tree_without_a_record(full):
    """Row 185."""
    full.create_storage_layer("stray", "base")
    only(full.check(), layers={"stray": [err.LayerUnaccounted]})


def test_a_record_without_a_tree(full):
    """§8.4: mounts and diffs fail, so the check does."""
    work = full._core.driver.content_root("base")
    os.rename(work, f"{work}.gone")
    report = full.check()
    os.rename(f"{work}.gone", work)
    assert "base" in report.layers
    assert "img" in report.images


def test_a_missing_container_layer_is_found(full):
    """Row 186, where the original finds nothing: the container cannot be used."""
    forge(full, ev.LayerDeleted("box-layer"))
    assert findings(full.check().containers) == {"box": [err.LayerMissing]}


def test_a_missing_recipe(full):
    """The archive cannot be made again as it was; the content is still there."""
    full._core.content.path(full.layer("base").diff.recipe).unlink()
    assert findings(full.check().layers) == {"base": [err.LayerIncorrectContentDigest]}


@pytest.fixture
def beside(place):
    """A store with a damaged additional store of the original beside it."""
    if PEER is None:
        pytest.skip(REASON)
    peer = Peer(place.base / "shelf", place.driver)
    peer("import-layer", "--id", "far", stdin=BASE)
    blob = place.base / "blob"
    blob.write_bytes(b"blob")
    peer("create-image", "--id", "far-image", "far")
    peer("set-image-data", "-f", str(blob), "far-image", "key")
    (peer.graph / f"{place.driver}-images/far-image/key").write_bytes(b"longer blob")
    tree = "diff" if place.driver == "overlay" else ""
    inner = "" if place.driver == "overlay" else "dir"
    target = peer.graph / place.driver / inner / "far" / tree / "usr/bin/tool"
    target.write_bytes(b"#!/bin/no\n" * 50)
    return place.open(driver_options=[f"imagestore={peer.graph}"])


@pytest.mark.peer
def test_damage_of_additional_stores_is_reported_and_never_repaired(beside, place):
    """Row 188."""
    box = beside.create_container("far-image")
    report = beside.check()
    assert report.layers == report.images == {}
    assert list(report.read_only_layers) == ["far"]
    assert findings(report.read_only_images)["far-image"][0] is err.ImageDataIncorrectSize
    assert list(report.containers) == [box.id]
    assert beside.repair(report, remove_containers=False) == []
    assert list(beside.check().read_only_layers) == ["far"]
    assert (place.base / "shelf/graph").is_dir()


@pytest.mark.peer
def test_only_the_first_item_of_an_id_is_examined(beside):
    """Row 187, and Q-20: a parent in an additional store is not missing."""
    fill(beside, id="far")
    beside.create_image("far-image", layer="far")
    report = beside.check()
    assert report.healthy
    beside.create_layer("child", "far")
    assert beside.check().healthy


def test_repair_keeps_an_image_in_use(full):
    """Row 189."""
    blob_path(full, full.image("img"), "blob").unlink()
    refusals = full.repair(full.check(), remove_containers=False)
    (refusal,) = [x for x in refusals if isinstance(x, err.ImageUsedByContainer)]
    assert str(refusal) == "deleting image img: image used by box: image is in use by a container"
    assert full.exists("img")
    assert full.exists("box")
    assert full.repair(full.check()) == []
    assert ids(full.images()) == ids(full.containers()) == []
    assert full.check().healthy


def test_repair_removes_generations_child_first(store):
    """Row 190. One of them is mounted."""
    fill(store, id="a")
    store.create_layer("b", "a")
    store.create_layer("c", "b")
    store.create_layer("d", "c")
    store.mount("d")
    assert store.repair(store.check(OLD)) == []
    assert ids(store.layers()) == store.storage_layers() == []


def test_a_damaged_layer_with_a_healthy_child_stays(store):
    """Row 191."""
    fill(store, id="base", big_data=[("blob", b"x")])
    store.create_layer("child", "base")
    blob_path(store, store.layer("base"), "blob").unlink()
    (refusal,) = store.repair(store.check())
    assert isinstance(refusal, err.LayerHasChildren)
    assert str(refusal) == "deleting layer base: used by layer child: layer has children"
    assert ids(store.layers()) == ["base", "child"]


def test_repair_removes_trees_without_records(full):
    """§6.4: unaccounted trees go, everything else stays."""
    before = ids(full.layers()), ids(full.images()), ids(full.containers())
    full.create_storage_layer("stray")
    assert full.repair(full.check()) == []
    assert (ids(full.layers()), ids(full.images()), ids(full.containers())) == before
    assert full.check().healthy


def test_repair_of_what_vanished_meanwhile(full):
    """§6.4: items that are gone already are no failure."""
    blob_path(full, full.layer("base"), "blob").unlink()
    report = full.check()
    full.wipe()
    assert full.repair(report) == []


@pytest.mark.parametrize("damage", ["file", "mode", "owner", "time"])
def test_repair_mends_a_tree_whose_content_is_intact(full, damage):
    """What can be kept is kept: the original would delete layer, image and container."""
    path = own(full, "base", "etc/passwd")
    before = os.stat(path)
    match damage:
        case "file":
            with open(own(full, "base", "etc/added"), "wb") as file:
                file.write(b"x")
        case "mode":
            os.chmod(path, 0o777)
        case "owner":
            os.chown(path, 7, 7)
        case "time":
            os.utime(path, (1, 1))
    report = full.check(CHECK_EVERYTHING)
    assert "base" in report.layers
    assert full.repair(report) == []
    assert full.check(CHECK_EVERYTHING).healthy
    assert full.exists("box")
    after = os.stat(path)
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
    )
    assert not os.path.exists(own(full, "base", "etc/added"))
    assert diff_of(full, "base") == BASE


def test_a_damaged_journal_is_reported_by_opening_and_nothing_is_lost(full, place):
    """A bit flipped in a committed frame: the store refuses writes and names what to run."""
    full.close()
    place._opened.remove(full)
    segment = max((place.graph / "journal").rglob("*.seg"), default=None) or max(
        path for path in (place.graph / "journal/segments").iterdir()
    )
    data = bytearray(segment.read_bytes())
    at = data.find(b"box-layer")
    assert at > 0
    data[at] ^= 1
    segment.write_bytes(data)
    with pytest.raises(err.StorageError, match="verify"):
        place.open()
    assert segment.read_bytes() == bytes(data)


def test_ages_are_measured_from_creation(store):
    """Row 183: a layer exactly at the limit is young."""
    store.create_layer("layer")
    time.sleep(0.02)
    assert store.check(CheckOptions(unreferenced_age_max_s=60)).healthy
    assert "layer" in store.check(CheckOptions(unreferenced_age_max_s=0.01)).layers
    assert json.dumps(ids(store.layers())) == '["layer"]'


def test_every_changed_file_is_named_and_the_finding_is_the_originals(full):
    """Row 179: each file that is not what was imported, and where the archive breaks off."""
    for name, text in (("usr/bin/tool", b"#!/bin/no"), ("etc/passwd", b"longer than before" * 9)):
        with open(own(full, "base", name), "r+b") as file:
            file.write(text)
    os.unlink(own(full, "base", "home/user/note"))
    found = full.check().layers["base"]
    assert [type(error) for error in found] == [err.LayerFileChanged] * 4
    assert all(isinstance(error, err.LayerIncorrectContentDigest) for error in found)
    assert [str(error) for error in found] == [
        f"layer base: {what}"
        for what in (
            'file integrity checksum failed for "etc/passwd"',
            "consume any trailer after the EOF marker: "
            'file integrity checksum failed for "etc/passwd"',
            f"open {own(full, 'base', 'home/user/note')}: no such file or directory",
            'file integrity checksum failed for "usr/bin/tool"',
        )
    ]


def test_a_changed_file_is_named_as_its_archive_spells_it(store, tmp_path):
    """Scripts look for the original's words: ``file integrity checksum failed for "./file"``."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_bytes(b"one")
    made = subprocess.run(["tar", "-C", tree, "-c", "."], stdout=subprocess.PIPE, check=True)
    fill(store, made.stdout, id="base")
    store.create_image("img", layer="base")
    with open(own(store, "base", "sub/file"), "r+b") as file:
        file.write(b"two")
    finding, *_ = store.check().layers["base"]
    assert str(finding) == 'layer base: file integrity checksum failed for "./sub/file"'


def test_without_a_manifest_the_first_changed_file_is_named(full):
    full._core.content.path(full.layer("base").diff.manifest).unlink()
    with open(own(full, "base", "usr/bin/tool"), "r+b") as file:
        file.write(b"#!/bin/no")
    finding, _, list_gone = full.check().layers["base"]
    assert type(finding) is err.LayerFileChanged
    assert "usr/bin/tool" in str(finding)
    assert type(list_gone) is err.LayerFileListDamaged


@pytest.mark.parametrize("layer", ["box-layer", "loose"])
def test_a_layer_whose_tree_is_gone_goes_with_its_container(full, layer):
    """§6.4: what ails a container's layer ails the container, and repair begins with it."""
    if layer == "loose":
        full.create_container(id="bare", layer_id="loose")
    tree = full._core.driver.content_root(layer)
    tree = os.path.dirname(tree) if full.driver_name == "overlay" else tree
    os.rename(tree, f"{full.run_root}/x")
    box = "bare" if layer == "loose" else "box"
    report = full.check()
    assert list(report.containers) == [box]
    assert list(report.layers) == [layer]
    assert report.containers[box] == report.layers[layer]
    kept = full.repair(report, remove_containers=False)
    assert any(isinstance(error, err.StorageError) for error in kept)
    assert full.exists(box)
    assert full.repair(full.check()) == []
    assert not full.exists(box)
    assert full.check().healthy


@pytest.mark.parametrize("damage", ["gone", "cut", "altered"])
def test_a_damaged_file_list_is_found_and_made_again(full, damage):
    """The archive is whole, so nothing has to go. The rest of the store is looked at as ever."""
    layer = full.layer("base")
    path = full._core.content.path(layer.diff.manifest)
    data = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(data[:30])
        case "altered":
            path.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    blob_path(full, full.container("box"), "blob").unlink()
    report = full.check(CHECK_EVERYTHING)
    assert findings(report.layers) == {"base": [err.LayerFileListDamaged]}
    assert err.ContainerDataMissing in findings(report.containers)["box"]
    assert full.repair(report) == []
    assert full.check(CHECK_EVERYTHING).healthy
    assert path.read_bytes() == data
    assert full.layer("base") == layer
    assert full.exists("img")
    assert not full.exists("box")
    assert [found.path for found in full.files("base").walk(full.files("base").find("etc"))]


def test_a_missing_layer_directory_ends_no_check(full):
    """What rests on it cannot be mounted; all that is a finding."""
    root = full._core.driver.content_root("base")
    shutil.rmtree(os.path.dirname(root) if full.driver_name == "overlay" else root)
    blob_path(full, full.image("img"), "blob").unlink()
    report = full.check(CHECK_EVERYTHING)
    assert {"base"} <= report.layers.keys()
    assert err.ImageDataMissing in findings(report.images)["img"]
    assert full.repair(report) == []
    assert full.check(CHECK_EVERYTHING).healthy


@pytest.fixture
def overlaid(tmp_path):
    place = Place(tmp_path, "overlay")
    store = place.open()
    fill(store, id="base")
    fill(store, CHANGES, id="top", parent="base")
    store.create_image("img", layer="top")
    store.create_container("img", "box", layer_id="box-layer")
    yield store
    place.close()


@pytest.mark.root
@root_only
@pytest.mark.parametrize("damage", ["link", "lower", "both", "links", "short name"])
def test_the_overlay_drivers_own_files_are_made_again(overlaid, damage):
    home = overlaid.graph_root / "overlay"
    lower = (home / "top/lower").read_text()
    match damage:
        case "link" | "lower":
            (home / "top" / damage).unlink()
        case "both":
            (home / "top/link").unlink()
            (home / "top/lower").write_text("l/../../x")
        case "links":
            shutil.rmtree(home / "l")
        case "short name":
            (home / "l" / (home / "base/link").read_text()).unlink()
    report = overlaid.check(CHECK_EVERYTHING)
    if damage in ("link", "lower", "both"):
        assert err.LayerDirectoryDamaged in findings(report.layers)["top"]
    else:
        assert report.healthy  # lost links are made again when they are needed
    assert overlaid.repair(report) == []
    assert overlaid.check(CHECK_EVERYTHING).healthy
    assert overlaid.exists("box")
    assert (home / "top/lower").read_text() == lower
    child = overlaid.create_layer(parent="top")
    assert (overlaid.mount(child.id) / "usr/bin").is_dir()
    overlaid.unmount(child.id)
