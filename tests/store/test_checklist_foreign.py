"""Record files of the original: rows 33 to 35, 90, 99 and 172 of the checklist.

Row 33 is about repairing a file of the original, which this store never writes: in ours a name
cannot be given twice (last test).
"""

from __future__ import annotations

import json

import pytest

from cstorage import events as ev
from cstorage.errors import (
    BigDataUnknown,
    DigestUnknown,
    DuplicateImageNames,
    DuplicateLayerNames,
)
from cstorage.interop import records
from cstorage.interop.records import ForeignDataError, parse_time
from cstorage.model import Compression, DiffSummary, IDMapEntry, IDMaps
from tests.store.peer import Peer
from tests.store.place import forge, ids


@pytest.fixture
def peer(place):
    (place.base / "shelf/graph").mkdir(parents=True)
    return Peer(place.base / "shelf", place.driver)


def opened(place, peer):
    return place.open(driver_options=[f"imagestore={peer.graph}"])


def test_images_that_share_a_name_make_opening_fail(place, peer):
    """Row 34."""
    peer.edit(
        "images", lambda x: x.extend([{"id": "a", "names": ["n"]}, {"id": "b", "names": ["n"]}])
    )
    with pytest.raises(DuplicateImageNames):
        opened(place, peer)


def test_layers_that_share_a_name_make_listing_fail(place, peer):
    """Row 35."""
    peer.edit(
        "layers", lambda x: x.extend([{"id": "a", "names": ["n"]}, {"id": "b", "names": ["n"]}])
    )
    store = opened(place, peer)
    with pytest.raises(DuplicateLayerNames, match="loading additional layer stores"):
        list(store.layers())


@pytest.mark.parametrize(
    "record",
    [
        {"id": "a", "digest": "nonsense"},
        {"id": "a", "big-data-names": ["manifest"], "big-data-digests": {"manifest": "sha256:1"}},
        {"id": "../a"},
        {"id": ""},
        {"id": 7},
        {"id": "a", "layer": "../../etc"},
        {"id": "a", "names": "n"},
        {"id": "a", "created": "yesterday"},
        "no object",
    ],
)
def test_a_bad_image_record_makes_opening_fail(place, peer, record):
    """Row 90, and all else that is not what it should be. The error names the file."""
    peer.edit("images", lambda x: x.append(record))
    with pytest.raises(ForeignDataError, match=r"images\.json"):
        opened(place, peer)


@pytest.mark.parametrize("text", ["[", "[]x", "{}", "[1]", "\0", '[{"id":"a"}] trailing'])
def test_a_file_that_is_no_list_of_records_makes_opening_fail(place, peer, text):
    """§2.12. The error quotes the path."""
    path = peer.file("images")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ForeignDataError, match=r"images\.json"):
        opened(place, peer)


@pytest.mark.parametrize("text", ["", " \n", "null", "[]", "[ ]\n"])
def test_files_without_records(place, peer, text):
    """§1.6 of the formats: a missing or empty file, null and [] mean no records."""
    for kind in ("images", "layers"):
        path = peer.file(kind)
        path.parent.mkdir(parents=True)
        path.write_text(text)
    store = opened(place, peer)
    assert ids(store.images()) == ids(store.layers()) == []


@pytest.mark.parametrize("flag", [True, False, "yes", 1, None])
def test_the_incomplete_flag_is_ignored_in_additional_stores(place, peer, flag):
    """Row 172."""
    peer.edit("layers", lambda x: x.append({"id": "a", "flags": {"incomplete": flag}}))
    assert ids(opened(place, peer).layers()) == ["a"]


def test_the_file_decides_whether_there_is_a_data_item(place, peer):
    """§4.9: lean stores list no names, or no sizes; what is no item's file is none."""
    bare = {"id": "bare", "big-data-names": ["listed"]}
    peer.edit("images", lambda x: x.append(bare))
    folder = peer.graph / f"{place.driver}-images/bare"
    (folder / "userdata").mkdir(parents=True)
    (folder / "listed").write_bytes(b"123")
    (folder / "manifest").write_bytes(b"{}")
    (peer.graph / "secret").write_bytes(b"secret")
    store = opened(place, peer)
    assert store.image_big_data("bare", "manifest") == b"{}"
    assert [store.image_big_data_size("bare", x) for x in ("listed", "manifest")] == [3, 2]
    assert store.list_image_big_data("bare") == ["listed"]
    with pytest.raises(DigestUnknown):
        store.image_big_data_digest("bare", "manifest")
    for name in ("absent", "userdata", "", ".", "../../secret", "a\0b"):
        with pytest.raises(BigDataUnknown):
            store.image_big_data("bare", name)


def test_every_member_of_a_layer_record(tmp_path):
    """§1.7 of the formats. Keys are matched ignoring case, unknown ones are ignored."""
    digest = "sha256:" + "a" * 64
    (tmp_path / "layers.json").write_text(
        json.dumps(
            [
                {
                    "ID": "x",
                    "names": ["n", "m", "n"],
                    "parent": "p",
                    "metadata": "<&>",
                    "mountlabel": "label",
                    "created": "2026-11-21T00:06:52.17981111Z",
                    "compressed-diff-digest": digest,
                    "compressed-size": 5,
                    "diff-digest": digest,
                    "toc-digest": digest,
                    "diff-size": -1,
                    "compression": 4,
                    "uidset": [0, 4294967295],
                    "gidset": [],
                    "flags": {"a": [1, {"b": None}]},
                    "uidmap": [{"container_id": 0, "host_id": 1000, "size": 9}],
                    "big-data-names": ["b", "a"],
                    "unknown": {},
                }
            ]
        )
    )
    (layer,) = records.layers(tmp_path / "layers.json")
    assert (layer.id, layer.names, layer.parent) == ("x", ("n", "m"), "p")
    assert (layer.metadata, layer.mount_label) == ("<&>", "label")
    assert layer.created_ns == 1795219612179811110
    assert layer.diff == DiffSummary(
        digest, 5, digest, -1, digest, Compression.ZSTD, (0, 4294967295), ()
    )
    assert layer.flags == {"a": [1, {"b": None}]}
    assert layer.maps == IDMaps((IDMapEntry(0, 1000, 9),), ())
    assert [blob.name for blob in layer.big_data] == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00.5+01:00", 500_000_000),
        ("1969-12-31T23:59:59Z", -1_000_000_000),
        ("2024-02-30T00:00:00Z", None),
        ("2024-02-03", None),
    ],
)
def test_times(text, expected):
    assert parse_time(text) == expected


def test_a_name_given_twice_in_the_journal_is_the_later_items(store):
    """Row 33 for our store: the earlier record loses the name, by the rule of every replay."""
    store.create_layer("first", names=["n", "keep"])
    forge(
        store,
        ev.LayerCreated(
            "second", ("n",), "", "", "", 0, DiffSummary(), {}, IDMaps(), (), False, False
        ),
    )
    assert store.names("first") == ("keep",)
    assert store.layer("n").id == "second"
