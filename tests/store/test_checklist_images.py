"""Images and blobs: rows 76 to 106 of the checklist (semantics §12.3).

Row 90 is about a file of the original and stands in ``test_checklist_foreign.py``.
"""

from __future__ import annotations

import hashlib
import time

import pytest
from tars import BASE

from cstorage import MapOptions
from cstorage import events as ev
from cstorage.errors import (
    ContainerUnknown,
    DigestUnknown,
    ImageUnknown,
    InvalidBigDataName,
    InvalidDigest,
    LayerUnknown,
    NotAnID,
    SizeUnknown,
    StorageError,
)
from cstorage.interop.names import blob_file
from cstorage.model import IDMapEntry
from tests.store.place import digest, fill, forge, ids

SHIFT = MapOptions(uids=(IDMapEntry(0, 100000, 65536),), gids=(IDMapEntry(0, 100000, 65536),))
ITEMS = ("layer", "image", "container")


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_an_unknown_top_layer_is_refused(store):
    """Row 76."""
    with pytest.raises(LayerUnknown):
        store.create_image("new", layer="nobody")
    assert ids(store.images()) == []


def test_the_top_layer_is_recorded_by_its_id(store):
    """Row 77. A container's layer is accepted."""
    layer = store.create_layer("0123456789", names=["base"])
    assert store.create_image(layer="base").top_layer == layer.id
    assert store.create_image(layer="0123").top_layer == layer.id
    store.create_container(layer_id="box-layer")
    assert store.create_image(layer="box-layer").top_layer == "box-layer"


def test_an_image_without_layers_weighs_its_blobs(store):
    """Row 78."""
    image = store.create_image(big_data=[("a", b"12345"), ("b", b"678")])
    assert image.top_layer == ""
    assert store.image_size(image.id) == 8


def test_a_given_digest_is_searchable(store):
    """Row 79."""
    image = store.create_image(digest=digest("a"))
    assert image.digest == digest("a")
    assert ids(store.images_by_digest(digest("a"))) == [image.id]


@pytest.mark.parametrize("bad", ["nonsense", "sha256:abc", "md5:" + "a" * 32, "sha256:" + "G" * 64])
def test_a_malformed_digest_is_refused(store, bad):
    """Row 80."""
    with pytest.raises(InvalidDigest, match="validating digests"):
        store.create_image("new", digest=bad)
    with pytest.raises(InvalidDigest):
        store.create_image("new", big_data=[("manifest", b"{}", bad)])
    assert ids(store.images()) == []


def test_a_digest_nobody_has_finds_nothing(store):
    """Row 81."""
    store.create_image(digest=digest("a"))
    assert store.images_by_digest(digest("b")) == []
    assert store.images_by_digest("nonsense") == []


def test_the_first_manifests_digest_sticks(store):
    """Row 82."""
    image = store.create_image().id
    for data in (b"one", b"two"):
        store.set_image_big_data(image, "manifest", data, sha256)
    found = store.image(image)
    assert found.digest == sha256(b"one")
    assert found.digests == (sha256(b"one"), sha256(b"two"))
    for data in (b"one", b"two"):
        assert ids(store.images_by_digest(sha256(data))) == [image]


@pytest.mark.parametrize("key", ["manifest", "manifest-x", "manifests", "manifest.json"])
def test_keys_that_begin_with_manifest_are_manifests(store, key):
    """Row 83."""
    image = store.create_image(big_data=[(key, b"{}")])
    assert ids(store.images_by_digest(sha256(b"{}"))) == [image.id]


@pytest.mark.parametrize("key", ["config", "Manifest", "amanifest", "manifes"])
def test_other_keys_are_no_manifests(store, key):
    """Row 83."""
    image = store.create_image(big_data=[(key, b"{}")])
    assert store.images_by_digest(sha256(b"{}")) == []
    assert image.digest == ""


def test_a_digest_is_listed_once(store):
    """Row 84."""
    image = store.create_image(big_data=[("manifest", b"{}"), ("manifest-2", b"{}")])
    assert image.digests == (sha256(b"{}"),)
    assert ids(store.images_by_digest(sha256(b"{}"))) == [image.id]


def test_writing_a_manifest_needs_a_digester(store):
    """Rows 85 to 87."""
    image = store.create_image().id
    with pytest.raises(DigestUnknown):
        store.set_image_big_data(image, "manifest", b"{}")

    def fails(data: bytes) -> str:
        raise KeyError("no digest today")

    with pytest.raises(KeyError, match="no digest today"):
        store.set_image_big_data(image, "manifest", b"{}", fails)
    with pytest.raises(InvalidDigest):
        store.set_image_big_data(image, "manifest", b"{}", lambda data: "nonsense")
    assert store.list_image_big_data(image) == []
    store.set_image_big_data(image, "manifest", b"{}", lambda data: digest("c"))
    assert store.image_big_data_digest(image, "manifest") == digest("c")
    assert ids(store.images_by_digest(digest("c"))) == [image]


def test_other_blobs_have_the_digest_of_their_bytes(store):
    """Row 88. At creation any text is accepted as the digest of a blob that is no manifest."""
    image = store.create_image(big_data=[("odd", b"1", "anything")]).id
    store.set_image_big_data(image, "config", b"{}")
    assert store.image_big_data_digest(image, "config") == sha256(b"{}")
    assert store.image(image).big_data[0].digest == "anything"
    with pytest.raises(DigestUnknown):  # §4.9: what is no digest counts as unknown
        store.image_big_data_digest(image, "odd")


def test_digests_follow_from_digest_and_manifests_alone(store):
    """Row 89. There is no way to give a list of digests."""
    image = store.create_image(digest=digest("a"), big_data=[("manifest", b"{}")])
    assert image.digests == (digest("a"), sha256(b"{}"))
    with pytest.raises(TypeError):
        store.create_image(digests=[digest("b")])


@pytest.mark.parametrize("kind", ITEMS)
def test_blobs_keep_the_order_of_their_first_write(store, kind):
    """Row 91."""
    item = make(store, kind)
    put = getattr(store, f"set_{kind}_big_data")
    for key, data in (("b", b"1"), ("a", b"2"), ("b", b"333")):
        put(item, key, data)
    assert getattr(store, f"list_{kind}_big_data")(item) == ["b", "a"]
    assert getattr(store, f"{kind}_big_data")(item, "b") == b"333"
    if kind != "layer":
        assert getattr(store, f"{kind}_big_data_size")(item, "b") == 3
        assert getattr(store, f"{kind}_big_data_digest")(item, "b") == sha256(b"333")


def make(store, kind: str, **more) -> str:
    return {
        "layer": store.create_layer,
        "image": store.create_image,
        "container": store.create_container,
    }[kind](**more).id


@pytest.mark.parametrize("kind", ITEMS)
def test_an_empty_blob_name_is_refused(store, kind):
    """Row 92."""
    item = make(store, kind)
    with pytest.raises(InvalidBigDataName):
        getattr(store, f"set_{kind}_big_data")(item, "", b"1")
    with pytest.raises(InvalidBigDataName):
        make(store, kind, big_data=[("", b"1")])
    assert getattr(store, f"list_{kind}_big_data")(item) == []


@pytest.mark.parametrize("kind", ITEMS)
def test_reading_a_blob_that_is_not_there(store, kind):
    """Rows 93 and 94. Empty names are told apart for containers only (Q-26)."""
    item = make(store, kind)
    read = getattr(store, f"{kind}_big_data")
    with pytest.raises(FileNotFoundError):
        read(item, "absent")
    with pytest.raises(InvalidBigDataName if kind == "container" else FileNotFoundError):
        read(item, "")


def test_sizes_and_digests_of_what_is_not_there(store):
    """Rows 95 and 96."""
    image, box = store.create_image().id, store.create_container().id
    for item, key in ((image, "absent"), (image, ""), ("nobody", "a")):
        with pytest.raises(SizeUnknown):
            store.image_big_data_size(item, key)
        with pytest.raises(DigestUnknown):
            store.image_big_data_digest(item, key)
    with pytest.raises(SizeUnknown):
        store.container_big_data_size(box, "absent")
    with pytest.raises(DigestUnknown):
        store.container_big_data_digest(box, "absent")
    with pytest.raises(InvalidBigDataName):
        store.container_big_data_size(box, "")
    with pytest.raises(InvalidBigDataName):
        store.container_big_data_digest(box, "")


def test_blobs_of_unknown_containers(store):
    """Row 97."""
    calls = (
        lambda: store.list_container_big_data("nobody"),
        lambda: store.container_big_data("nobody", "a"),
        lambda: store.container_big_data_size("nobody", "a"),
        lambda: store.container_big_data_digest("nobody", "a"),
        lambda: store.set_container_big_data("nobody", "a", b"1"),
    )
    for call in calls:
        with pytest.raises(ContainerUnknown):
            call()


def test_blobs_of_unknown_layers_and_images(store):
    """Row 98."""
    for call in (
        lambda: store.list_layer_big_data("nobody"),
        lambda: store.layer_big_data("nobody", "a"),
        lambda: store.set_layer_big_data("nobody", "a", b"1"),
    ):
        with pytest.raises(LayerUnknown):
            call()
    for call in (
        lambda: store.list_image_big_data("nobody"),
        lambda: store.image_big_data("nobody", "a"),
        lambda: store.set_image_big_data("nobody", "a", b"1"),
    ):
        with pytest.raises(ImageUnknown):
            call()


@pytest.mark.parametrize("key", ["manifest", "a-b", "..", "x/y", "fooX", "Foo", "é", "=x", "a\0b"])
def test_any_name_but_the_empty_one_is_a_blob_name(store, key):
    """Row 99 in our store: names are no file names, so none of them can leave it."""
    layer = store.create_layer(big_data=[(key, b"at creation")]).id
    store.set_layer_big_data(layer, key + "2", b"later")
    assert store.list_layer_big_data(layer) == [key, key + "2"]
    assert store.layer_big_data(layer, key) == b"at creation"


def test_file_names_of_the_original():
    """Row 99: where the original keeps a blob, for its own stores and for error texts."""
    names = {
        "manifest": "manifest", "manifest-foo": "=bWFuaWZlc3QtZm9v", "fooX": "fooX",
        "Foo": "=Rm9v", "a-b": "=YS1i", "sha256:00": "=c2hhMjU2OjAw", "x?y": "=eD95",
        "=x": "=PXg=", "abc-": "abc-", "A": "A", "é": "é", "..": "..",
    }  # fmt: skip
    assert {key: blob_file(key) for key in names} == names


def test_the_creation_date(store):
    """Row 100."""
    assert store.create_image(created_ns=1_500_000_000_123_456_789).created_ns == (
        1_500_000_000_123_456_789
    )
    before = time.time_ns()
    assert before <= store.create_image().created_ns <= time.time_ns()


def test_metadata_of_any_item(store):
    """Rows 101 and 102. There is one metadata argument, so nothing can contradict it."""
    for kind in ITEMS:
        item = make(store, kind, **({} if kind == "layer" else {"metadata": "first"}))
        assert store.metadata(item) == ("" if kind == "layer" else "first")
        store.set_metadata(item, '{"a": "\u00fc\\n"}')
        assert store.metadata(item) == '{"a": "\u00fc\\n"}'
        store.set_metadata(item, "")
        assert store.metadata(item) == ""
    with pytest.raises(NotAnID):
        store.metadata("nobody")
    with pytest.raises(NotAnID):
        store.set_metadata("nobody", "x")


def test_image_size_counts_each_layer_once_and_mapped_copies_too(store, unshifted):
    """Row 103."""
    base = fill(store)
    top = fill(store, parent=base.id)
    image = store.create_image(layer=top.id, big_data=[("config", b"12345")]).id
    assert store.image_size(image) == 2 * len(BASE) + 5
    store.create_container(image, maps=SHIFT)
    assert len(store.image(image).mapped_top_layers) == 1
    assert store.image_size(image) == 3 * len(BASE) + 5


def test_image_size_with_a_missing_layer(store):
    """Row 104."""
    layer = fill(store)
    image = store.create_image(layer=layer.id).id
    forge(store, ev.LayerDeleted(layer.id))
    with pytest.raises(LayerUnknown, match="locating layer"):
        store.image_size(image)
    with pytest.raises(ImageUnknown):
        store.image_size("nobody")


def test_the_first_layer_without_a_size_is_named(store):
    """From the top down: a layer that cannot be measured comes before its missing parent."""
    store.create_layer("base")
    store.create_layer("top", "base")
    store.create_image("image", layer="top")
    store.delete("base")
    with pytest.raises(StorageError, match='layer with ID "top" could not be calculated'):
        store.image_size("image")


def test_images_by_top_layer(store, unshifted):
    """Row 105."""
    layer = fill(store, names=["top"])
    first, second = (store.create_image(layer=layer.id).id for _ in range(2))
    store.create_image()
    assert ids(store.images_by_top_layer("top")) == [first, second]
    store.create_container(first, maps=SHIFT)
    (copy,) = store.image(first).mapped_top_layers
    assert ids(store.images_by_top_layer(copy)) == [first]
    assert store.images_by_top_layer(store.create_layer().id) == []
    with pytest.raises(LayerUnknown):
        store.images_by_top_layer("nobody")


def test_image_directories_are_made_for_any_key(store, place, driver):
    """Row 106 (Q-19, kept)."""
    path = store.image_directory("nobody")
    assert path == place.graph / f"{driver}-images/nobody/userdata"
    assert path.is_dir()
    assert path.stat().st_mode & 0o7777 == 0o700
    run = store.image_run_directory("nobody")
    assert run == place.run / f"{driver}-images/nobody/userdata"
    assert run.is_dir()
