"""Listing and examining, on a real store with the vfs driver (cli.md §3)."""

from __future__ import annotations

import json
import re

import pytest
from command_line import archive

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
ID = re.compile("[0-9a-f]{64}")


@pytest.fixture
def chain(cli):
    """Two layers, an image with a manifest, a container; returns the container's layer."""
    cli.ok("import-layer", "--id", "base", "-n", "base-name", stdin=archive(("f", b"12345")))
    cli.ok("create-layer", "--id", "top", "-n", "top-name", "base")
    cli.ok("create-image", "--id", "img1", "-n", "img1-name", "-m", "text", "top")
    cli.ok("set-image-data", "img1", "manifest", stdin=b"{}")
    cli.ok("create-container", "--id", "c1", "-n", "c1-name", "img1")
    return json.loads(cli.ok("container", "-j", "c1"))[0]["layer"]


def test_an_empty_store_lists_null_or_an_empty_list(cli):
    assert cli.ok("layers", "--json") == "null\n"
    assert cli.ok("images", "--json") == "null\n"
    assert cli.ok("containers", "--json") == "[]\n"
    assert cli.ok("storage-layers", "--json") == "[]\n"
    assert cli.ok("layers") == cli.ok("layers", "-t") == cli.ok("images", "-q") == ""


def test_layers_name_their_users(cli, chain):
    assert cli.ok("layers") == (
        "base\n\tname: base-name\n"
        "top\n\tname: top-name\n\timage: img1\n\t\tname: img1-name\n"
        f"{chain}\n\tcontainer: c1\n\t\tname: c1-name\n"
    )
    assert cli.ok("layers", "-q") == f"base\ntop\n{chain}\n"


def test_json_wins_over_the_tree_and_the_tree_over_quick(cli, chain):
    assert cli.ok("layers", "-tqj") == cli.ok("layers", "-j")
    assert cli.ok("layers", "-tq") == cli.ok("layers", "-t")


def test_the_tree_has_notes_and_shows_what_is_mounted(cli, chain, tmp_path):
    cli.ok("mount", "base")
    assert cli.ok("layers", "-t") == (
        "(base)\n└─base\n  name: base-name\n"
        f"  mount: {tmp_path}/graph/vfs/dir/base\n"
        "  └─top\n    name: top-name\n    image: img1\n    image name: img1-name\n"
        f"    └─{chain}\n      container: c1\n      container name: c1-name\n"
    )
    cli.ok("unmount", "base")


def test_a_layer_document_has_its_fields_in_the_original_order(cli, chain):
    [base, top, _] = json.loads(cli.ok("layers", "-j"))
    assert list(base) == [
        "id", "names", "created", "compressed-diff-digest", "compressed-size", "diff-digest",
        "diff-size", "uidset", "gidset",
    ]  # fmt: skip
    assert TIME.fullmatch(base["created"])
    assert list(top) == ["id", "names", "parent", "created"]
    assert top["parent"] == "base"


def test_an_image_document(cli, chain):
    text = cli.ok("images", "-j")
    digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert TIME.sub("T", text) == (
        f'[{{"id":"img1","digest":"{digest}","names":["img1-name"],"layer":"top",'
        '"metadata":"text","big-data-names":["manifest"],"big-data-sizes":{"manifest":2},'
        f'"big-data-digests":{{"manifest":"{digest}"}},"created":"T"}}]\n'
    )
    assert cli.ok("images") == f"img1\n\tname: img1-name\n\tdigest: {digest}\n\tdata: manifest\n"
    assert cli.ok("images", "-q") == "img1\n"
    assert cli.ok("images-by-digest", "-q", digest) == "img1\n"
    assert json.loads(cli.ok("images-by-digest", "-j", digest)) == json.loads(text)


def test_a_container_document(cli, chain):
    text = cli.ok("containers", "-j")
    assert TIME.sub("T", text) == (
        f'[{{"id":"c1","names":["c1-name"],"image":"img1","layer":"{chain}","created":"T",'
        '"flags":{"MountLabel":"","ProcessLabel":""}}]\n'
    )
    assert cli.ok("containers") == "c1\n\tname: c1-name\n"


def test_digests_have_to_be_well_formed_but_not_known(cli):
    assert cli.ok("images-by-digest", f"sha256:{'0' * 64}") == ""
    assert cli.ok("images-by-digest", "-j", f"sha256:{'0' * 64}") == "[]\n"
    for digest, text in (
        ("bogus", "invalid checksum digest format"),
        ("sha256:12", "invalid checksum digest length"),
        (f"md7:{'0' * 64}", "unsupported digest algorithm"),
    ):
        assert cli("images-by-digest", digest) == (1, b"", f"{digest}: {text}\n".encode())


def test_layer_shows_what_it_finds_and_fails_silently_for_the_rest(cli, chain):
    result = cli("layer", "top", "nosuch", "base-name", "top")
    assert result.status == 1
    assert result.err == b""
    top = "ID: top\nParent: base\nName: top-name\n"
    assert result.text == f"{top}ID: base\nName: base-name\n{top}"
    assert cli("layer", "--json", "nosuch") == (1, b"[]\n", b"")
    assert cli("image", "-j", "nosuch") == (1, b"[]\n", b"")
    assert cli("container", "-j", "nosuch") == (1, b"[]\n", b"")


def test_image_and_container_texts(cli, chain):
    digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert cli.ok("image", "img1") == (
        f"ID: img1\nName: img1-name\nTop Layer: top\nDigest: {digest}\nData: manifest\n"
        "Size: 10242\n"
    )
    cli.ok("set-container-data", "c1", "item", stdin=b"1234567")
    assert cli.ok("container", "c1") == (
        "ID: c1\nName: c1-name\nImage: img1\nImage name: img1-name\nSize: 7\n"
        f"Layer: {chain}\nData: item\n"
    )


def test_an_image_without_its_layer_has_an_unknown_size_and_the_command_succeeds(cli, chain):
    cli.ok("delete", "top")
    assert 'Size unknown: locating layer with ID "top": layer not known\n' in cli.ok(
        "image", "img1"
    )


def test_an_empty_container_shows_an_empty_image(cli):
    cli.ok("create-container", "--id", "bare", "")
    lines = cli.ok("container", "bare").splitlines()
    assert lines[:3] == ["ID: bare", "Image: ", "Size: 0"]


def test_exists_prints_each_argument_once_in_their_order(cli, chain):
    result = cli("exists", "img1", "nosuch", "img1", "ba")
    assert result == (1, b"img1: true\nnosuch: false\nba: true\n", b"")
    assert cli("exists", "-q", "img1", "nosuch") == (1, b"", b"")
    assert cli.ok("exists", "--json", "top", "base") == '{"base":true,"top":true}\n'


def test_the_kinds_asked_of_exists_change_only_the_exit_status(cli, chain):
    assert cli("exists", "-l", "img1") == (1, b"img1: true\n", b"")
    assert cli("exists", "-i", "img1") == (0, b"img1: true\n", b"")
    assert cli("exists", "-li", "img1") == (1, b"img1: true\n", b"")
    assert cli("exists", "-c", chain) == (0, f"{chain}: true\n".encode(), b"")


def test_parent_owners_of_unmapped_items(cli, chain):
    assert cli("layer-parent-owners", "base", "nosuch") == (1, b"ID: base\n", b"")
    assert cli.ok("container-parent-owners", "c1") == "ID: c1\nUIDs: []\nGIDs: []\n"
    assert cli.ok("layer-parent-owners", "-j", "base", "top") == (
        '{"ID":"base","UIDs":null,"GIDs":null}\n{"ID":"top","UIDs":null,"GIDs":null}\n'
    )


def test_the_driver_lists_its_layers_sorted(cli, chain):
    assert cli.ok("storage-layers").splitlines() == sorted(["base", "top", chain])
    assert cli.ok("create-storage-layer", "--id", "sl1", "--json") == '"sl1"\n'
    assert "sl1" in cli.ok("storage-layers")
    assert "sl1" not in cli.ok("layers")
    refused = cli("create-storage-layer", "nosuch")
    assert (refused.status, refused.out) == (1, b"")
    assert refused.errors.startswith("Stat /")
    assert refused.errors.endswith("/vfs/dir/nosuch: no such file or directory\n")
    cli.ok("gc")
    assert "sl1" not in cli.ok("storage-layers")


def test_status_and_version_speak_on_standard_error_but_json_on_standard_output(cli, tmp_path):
    result = cli("status")
    assert result.out == b""
    assert result.errors == (
        f"Root: {tmp_path}/graph\nRun Root: {tmp_path}/run\nDriver Name: vfs\nDriver Options: []\n"
    )
    rows = json.loads(cli.ok("status", "--json"))
    assert rows[2:] == [["Driver Name", "vfs"], ["Driver Options", "[]"]]
    assert cli("version").out == b""
    assert isinstance(json.loads(cli.ok("version", "-j")), list)
