"""Containers: rows 107 to 126 of the checklist (semantics §12.4)."""

from __future__ import annotations

import os

import pytest

from cstorage import MapOptions
from cstorage import events as ev
from cstorage.errors import (
    ContainerUnknown,
    DriverError,
    DuplicateID,
    DuplicateName,
    ImageUnknown,
    InvalidBigDataName,
    InvalidMappings,
    LayerUnknown,
    StorageError,
)
from cstorage.model import IDMapEntry, IDMaps
from tests.store.place import fill, forge, ids


def shift(host: int) -> MapOptions:
    entry = (IDMapEntry(0, host, 65536),)
    return MapOptions(uids=entry, gids=entry)


@pytest.fixture
def image(store):
    """An image with one filled layer."""
    return store.create_image("image", layer=fill(store, id="top", names=["top"]).id)


def test_an_unknown_image_is_refused(store):
    """Row 107."""
    with pytest.raises(ImageUnknown):
        store.create_container("nobody")
    assert ids(store.layers()) == []


@pytest.mark.parametrize("with_image", [False, True])
def test_without_an_image_layer_the_container_starts_empty(store, with_image):
    """Rows 108 and 109."""
    image = store.create_image("bare").id if with_image else ""
    box = store.create_container(image)
    assert box.image == image
    assert store.layer(box.layer).parent == ""


def test_the_containers_layer_rests_on_the_top_layer(store, image):
    """§4.10, steps 5 and 7: a writable layer without names."""
    box = store.create_container("image", names=["b", "a", "b"], layer_id="given")
    layer = store.layer("given")
    assert (box.layer, box.names, box.image) == ("given", ("b", "a"), "image")
    assert (layer.parent, layer.names, layer.writable) == ("top", (), True)


def test_label_flags_are_always_there(store):
    """Row 110. Without SELinux they are empty."""
    flags = store.create_container(flags={"x": [1, "two"]}).flags
    assert flags == {"x": [1, "two"], "ProcessLabel": "", "MountLabel": ""}


@pytest.mark.parametrize("flag", ["ProcessLabel", "MountLabel"])
def test_one_label_alone_is_refused(store, flag):
    """Row 111."""
    with pytest.raises(StorageError, match="must either not be specified or both"):
        store.create_container(flags={flag: "label"})
    assert ids(store.layers()) == []


def test_both_labels_are_recorded_and_the_mount_label_on_the_layer_too(store):
    """§2.11."""
    box = store.create_container(flags={"ProcessLabel": "p", "MountLabel": "m"})
    assert (box.flags["ProcessLabel"], box.flags["MountLabel"]) == ("p", "m")
    assert store.layer(box.layer).mount_label == "m"


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        (((0, 1000, 10), (5, 2000, 10)), "0:1000:10, 5:2000:10"),
        (((0, 1000, 10), (10, 1009, 10)), "0:1000:10, 10:1009:10"),
    ],
    ids=["container side", "host side"],
)
@pytest.mark.parametrize("kind", ["uids", "gids"])
def test_overlapping_ranges_are_refused(store, entries, text, kind):
    """Row 112. The error lists every offending entry."""
    bad = tuple(IDMapEntry(*entry) for entry in entries)
    good = (IDMapEntry(0, 1000, 100),)
    maps = MapOptions(**({"uids": good, "gids": good} | {kind: bad}))
    with pytest.raises(InvalidMappings, match=text):
        store.create_container(maps=maps)
    assert ids(store.layers()) == store.storage_layers() == []


def test_refusals_come_in_the_order_of_the_page(store):
    """§4.10: image, labels, the layer's ID, the driver, then ID, names, maps and blobs."""
    store.create_container("", "box", ["name"], layer_id="layer")
    twice = (IDMapEntry(0, 1000, 10), IDMapEntry(5, 2000, 10))
    wrong = {
        "image": "nobody",
        "flags": {"MountLabel": "alone"},
        "layer_id": "layer",
        "storage_options": {"odd": "1"},
        "id": "box",
        "names": ["name"],
        "maps": MapOptions(uids=twice),
        "big_data": [("", b"")],
    }
    refusals = [
        ImageUnknown, StorageError, DuplicateID, DriverError, DuplicateID, DuplicateName,
        InvalidMappings, InvalidBigDataName,
    ]  # fmt: skip
    found = []
    for part in list(wrong):
        with pytest.raises(StorageError) as caught:
            store.create_container(**wrong)
        found.append(type(caught.value))
        del wrong[part]
    assert found == refusals
    assert ids(store.containers()) == ["box"]
    assert store.storage_layers() == ["layer"]


def test_adjacent_ranges_are_fine(store):
    """Row 113."""
    entries = (IDMapEntry(0, 1000, 10), IDMapEntry(10, 1010, 10))
    assert store.create_container(maps=MapOptions(uids=entries, gids=entries)).maps == IDMaps(
        entries, entries
    )


def test_a_refused_container_leaves_nothing_at_all(store, image, unshifted):
    """Row 114. Not even the mapped copy that the original leaves on the image (Q-07)."""
    overlapping = (IDMapEntry(0, 1000, 100), IDMapEntry(50, 2000, 100))
    before = ids(store.layers()), store.storage_layers(), store.image("image")
    with pytest.raises(InvalidMappings):
        store.create_container("image", maps=MapOptions(uids=overlapping, gids=overlapping))
    with pytest.raises(InvalidBigDataName):
        store.create_container("image", maps=shift(100000), big_data=[("", b"")])
    assert (ids(store.layers()), store.storage_layers(), store.image("image")) == before


def test_containers_with_equal_maps_share_one_mapped_copy(store, image, unshifted):
    """Rows 115, 116 and 119."""
    first = store.create_container("image", maps=shift(100000))
    second = store.create_container("image", maps=shift(100000))
    (copy,) = store.image("image").mapped_top_layers
    assert store.layer(first.layer).parent == store.layer(second.layer).parent == copy
    third = store.create_container("image", maps=shift(200000))
    assert store.image("image").mapped_top_layers == (copy, store.layer(third.layer).parent)
    top, mapped = store.layer("top"), store.layer(copy)
    assert mapped.parent == top.parent
    assert mapped.diff == top.diff
    assert mapped.maps == IDMaps(shift(100000).uids, shift(100000).gids)
    path = store.mount(first.id)
    info = os.stat(path / "home/user/note")
    store.unmount(first.id)
    assert (info.st_uid, info.st_gid) == (101000, 101001)


def test_a_container_without_maps_gets_an_unmapped_copy(store, unshifted):
    """Row 117."""
    layer = fill(store, maps=shift(100000))
    store.create_image("mapped", layer=layer.id)
    host = MapOptions(host_uids=True, host_gids=True)
    box = store.create_container("mapped", maps=host)
    (copy,) = store.image("mapped").mapped_top_layers
    assert store.layer(box.layer).parent == copy
    assert not store.layer(copy).maps
    path = store.mount(box.id)
    info = os.stat(path / "home/user/note")
    store.unmount(box.id)
    assert (info.st_uid, info.st_gid) == (1000, 1001)


def test_a_shifting_driver_needs_no_mapped_copies(store, image):
    """Row 118."""
    if not store._core.driver.can_shift_ids:
        pytest.skip("this driver stores the IDs that its mounts show")
    box = store.create_container("image", maps=shift(100000))
    assert store.image("image").mapped_top_layers == ()
    assert not store.layer(box.layer).maps
    assert box.maps == IDMaps(shift(100000).uids, shift(100000).gids)
    path = store.mount(box.id)
    info = os.stat(path / "home/user/note")
    store.unmount(box.id)
    assert (info.st_uid, info.st_gid) == (101000, 101001)


def test_inherited_maps_are_not_recorded_on_the_container(store, unshifted):
    """Row 119."""
    layer = fill(store, maps=shift(100000))
    store.create_image("mapped", layer=layer.id)
    store.create_container("mapped", maps=shift(100000))
    only_uids = MapOptions(uids=shift(100000).uids)
    box = store.create_container("mapped", maps=only_uids)
    assert box.maps == IDMaps(shift(100000).uids, ())


def test_a_volatile_container_and_its_layer_are_marked_and_listed_last(store):
    """Row 120. They are records of the same journal; the flag says what they are."""
    box = store.create_container(id="volatile", volatile=True)
    other = store.create_container(id="stable")
    assert box.volatile
    assert box.flags["Volatile"] is True
    assert store.layer(box.layer).volatile
    assert "Volatile" not in other.flags
    assert ids(store.containers()) == ["stable", "volatile"]
    assert ids(store.layers()) == [other.layer, box.layer]


def test_mount_options_are_recorded(store, driver):
    """Row 121. vfs refuses them when it mounts."""
    assert "MountOpts" not in store.create_container().flags
    box = store.create_container(mount_options=["nodev"])
    assert box.flags["MountOpts"] == ["nodev"]
    if driver == "vfs":
        with pytest.raises(DriverError, match="does not support mount options"):
            store.mount(box.id)
    else:
        path = store.mount(box.id)
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            (line,) = [row for row in table if f" {path} " in row]
        store.unmount(box.id)
        assert "nodev" in line.split()[5].split(",")


def test_any_key_leads_to_the_containers_directories(store, place, driver):
    """Row 122."""
    store.create_container(id="container-id", layer_id="layer-id", names=["name"])
    for key in ("container-id", "layer-id", "name", "contain"):
        assert store.container_directory(key) == (
            place.graph / f"{driver}-containers/container-id/userdata"
        )
        assert store.container_run_directory(key) == (
            place.run / f"{driver}-containers/container-id/userdata"
        )
    assert store.container_directory("name").stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("where", ["directory", "run_directory"])
def test_files_of_the_containers_directories(store, where):
    """Row 123."""
    store.create_container(names=["box"])
    write = getattr(store, f"set_container_{where}_file")
    read = getattr(store, f"from_container_{where}")
    write("box", "sub/deep/file", b"one")
    write("box", "sub/deep/file", b"two")
    assert read("box", "sub/deep/file") == b"two"
    path = getattr(store, f"container_{where}")("box") / "sub/deep/file"
    assert path.stat().st_mode & 0o7777 == 0o600
    for folder in list(path.parents)[:5]:  # up to the one of all containers
        assert folder.stat().st_mode & 0o7777 == 0o700, folder
    assert os.listdir(path.parent) == ["file"]
    with pytest.raises(FileNotFoundError):
        read("box", "absent")
    with pytest.raises(StorageError):
        write("box", "../../outside", b"x")


def test_directories_of_unknown_containers(store):
    """Row 124."""
    for call in (
        lambda: store.container_directory("nobody"),
        lambda: store.container_run_directory("nobody"),
        lambda: store.set_container_directory_file("nobody", "a", b""),
        lambda: store.set_container_run_directory_file("nobody", "a", b""),
        lambda: store.from_container_directory("nobody", "a"),
        lambda: store.from_container_run_directory("nobody", "a"),
        lambda: store.container_size("nobody"),
        lambda: store.container_parent_owners("nobody"),
    ):
        with pytest.raises(ContainerUnknown):
            call()


def test_container_size_adds_up(store, image):
    """Row 125. Files of the layer (overlay: as its directory weighs), blobs and directories."""
    box = store.create_container("image", big_data=[("a", b"12345")])
    empty = store.container_size(box.id)
    store.set_container_directory_file(box.id, "one", b"x" * 100)
    linked = store.container_directory(box.id)
    os.link(linked / "one", linked / "same")
    store.set_container_run_directory_file(box.id, "two", b"y" * 1000)
    assert store.container_size(box.id) == empty + 1100
    path = store.mount(box.id)
    (path / "new").write_bytes(b"z" * 5000)
    store.unmount(box.id)
    assert store.container_size(box.id) == empty + 1100 + 5000
    assert store.diff_size(box.layer) + 5 + 1100 == store.container_size(box.id)


def test_container_size_with_a_missing_layer(store):
    """§4.10."""
    box = store.create_container()
    forge(store, ev.LayerDeleted(box.layer))
    with pytest.raises(LayerUnknown):
        store.container_size(box.id)


def test_container_by_layer(store):
    """Row 126."""
    box = store.create_container(layer_id="its-layer")
    store.set_names("its-layer", ["layer name"])
    assert store.container_by_layer("layer name") == box
    assert store.container_by_layer("its-") == box
    with pytest.raises(ContainerUnknown):
        store.container_by_layer(store.create_layer().id)
    with pytest.raises(LayerUnknown):
        store.container_by_layer("nobody")
