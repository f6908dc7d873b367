"""Additional layer stores (semantics §3.5, drivers-and-formats §3.12)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json

import pytest
from tars import BASE, CHANGES

from cstorage.errors import (
    ArchiveError,
    DuplicateID,
    DuplicateName,
    LayerUnknown,
    StorageError,
)
from cstorage.model import Compression
from tests.store.place import diff_of, digest, ids

TOC = digest("7")
INFO = {
    "names": ["theirs"],
    "diff-digest": "sha256:" + hashlib.sha256(CHANGES).hexdigest(),
    "compressed-size": 77,
    "flags": {"expected-layer-diffid": "x"},
}


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


@pytest.fixture(autouse=True)
def _overlay_only(driver):
    if driver != "overlay":
        pytest.skip("only overlay has additional layer stores")


def test_a_layer_is_taken_over_with_what_is_known_of_it(beside, place):
    """The record lasts, unlike the original's (Q-09), and the requested names are in it."""
    base = beside.create_layer("base")
    with beside.lookup_additional_layer(TOC) as found:
        assert (found.toc_digest, found.compressed_size) == (TOC, 77)
        layer = found.put_as("mine", "base", ["ours"])
    assert (layer.id, layer.parent, layer.names) == ("mine", base.id, ("theirs", "ours"))
    assert layer.flags == {"expected-layer-diffid": "x"}
    assert layer.diff.toc_digest == TOC
    assert ids(beside.layers_by_toc_digest(TOC)) == ["mine"]
    assert diff_of(beside, "mine", compression=Compression.NONE) == CHANGES
    assert place.reopen(beside).layer("ours") == layer


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
        store.lookup_additional_layer(TOC).put_as("new")
    assert ids(store.layers()) == store.storage_layers() == []


@pytest.mark.parametrize("info", ["[]", "{", '{"diff-digest": "nonsense"}'])
def test_a_record_that_is_none(place, info):
    store = with_entry(place, place.base / "layers", "", CHANGES, info)
    with pytest.raises(StorageError, match="info"):
        store.lookup_additional_layer(TOC)
