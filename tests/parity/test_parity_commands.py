"""Commands and options that no other test of the command line uses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.command_line import archive
from tests.cli.conftest import Program

MAP = [{"container_id": 0, "host_id": 100, "size": 5}]


def test_check_finds_a_tree_without_a_record_and_repair_removes_it(cli: Program) -> None:
    cli.ok("create-storage-layer", "--id", "stray")
    result = cli("check")
    text = "layer in lower level storage driver not accounted for"
    assert (result.status, result.text) == (1, f"layer stray:\n layer stray: {text}\n")
    assert result.errors == (
        "1 layer errors, 0 read-only layer errors, 0 image errors, "
        "0 read-only image errors, 0 container errors\n"
    )
    found = cli("check", "--quick", "--json")
    assert found.status == 1
    assert json.loads(found.text)["Layers"] == {"stray": [{}]}
    assert cli("check", "--repair").status == 0
    assert cli.ok("storage-layers") == ""
    assert cli.ok("check") == ""


def test_check_takes_the_age_up_to_which_an_unused_layer_is_fine(cli: Program) -> None:
    cli.ok("create-layer", "--id", "free")
    assert cli.ok("check", "--max", "1h") == ""
    old = cli("check", "--max", "0")
    assert old.status == 1
    assert "layer not referenced by any images or containers" in old.text
    wrong = cli("check", "-m", "bogus")
    assert (wrong.status, wrong.errors) == (1, 'time: invalid duration "bogus"\n')


def test_check_removes_a_damaged_container_only_by_force(cli: Program, tmp_path: Path) -> None:
    cli.ok("create-container", "--id", "box", "")
    cli.ok("set-container-data", "box", "item", stdin=b"planted for the check")
    for path in (tmp_path / "graph").rglob("*"):
        if path.is_file() and path.read_bytes() == b"planted for the check":
            path.unlink()
    assert "container data item is missing" in cli("check").text
    assert cli("check", "--repair").status == 1
    assert cli.ok("containers") == "box\n\tdata: item\n"
    assert cli("check", "--force").status == 0
    assert cli.ok("containers") == ""


def test_dedup_counts_bytes_and_knows_its_methods(cli: Program) -> None:
    assert cli.ok("dedup") == "Deduplicated 0 bytes\n"
    assert cli.ok("dedup", "--json", "--hash-method", "sha256") == '{"Deduped":0}\n'
    cli.ok("import-layer", "--id", "base", stdin=archive(("f", b"data")))
    cli.ok("create-image", "base")
    for method in ("foo", ""):
        for flags in ((), ("--json",)):
            wrong = cli("dedup", *flags, "--hash-method", method)
            assert wrong == (1, b"", f"invalid hash method: {method}\n".encode())


def test_copy_takes_json_and_prints_nothing(cli: Program, tmp_path: Path) -> None:
    cli.ok("create-layer", "--id", "base")
    (tmp_path / "file").write_text("copied")
    assert cli.ok("copy", "--json", f"{tmp_path}/file", "base:/file") == ""
    assert (tmp_path / "graph/vfs/dir/base/file").read_text() == "copied"


def test_mount_takes_options_without_using_them(cli: Program, tmp_path: Path) -> None:
    cli.ok("create-layer", "--id", "base")
    path = f"{tmp_path}/graph/vfs/dir/base\n"
    assert cli.ok("mount", "--opt", "nodev", "base") == path
    assert cli.ok("mount", "--label", "a label", "base") == path
    cli.ok("unmount", "--force", "base")


@pytest.mark.parametrize("command", ["create-layer", "import-layer"])
def test_the_label_of_a_layer_is_recorded(cli: Program, command: str) -> None:
    document = json.loads(cli.ok(command, "--json", "--label", "a label", "--readonly"))
    assert document["mountlabel"] == "a label"


def test_a_storage_layer_takes_a_label_and_a_kind(cli: Program) -> None:
    words = ("--id", "tree", "--label", "a label", "--readonly")
    assert cli.ok("create-storage-layer", *words) == "tree\n"
    assert cli.ok("storage-layers") == "tree\n"
    assert cli.ok("layers") == ""


def test_the_metadata_of_a_container_may_come_from_a_file(cli: Program, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("two\nlines\n")
    cli.ok("create-container", "--id", "box", "--metadata-file", f"{tmp_path}/text", "")
    assert cli.ok("metadata", "-q", "box") == "two\nlines\n"


@pytest.mark.parametrize(
    "command", ["create-layer", "import-layer", "create-container", "create-storage-layer"]
)
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--uidmap", "0:0:1", "--hostuidmap"], "host uid map specified along with UID mapping"),
        (["--gidmap", "0:0:1", "--hostgidmap"], "host gid map specified along with GID mapping"),
        (["--subuidmap", "no-owner"], 'no subuid ranges found for user "no-owner" in /etc/subuid'),
        (["--subgidmap", "no-owner"], 'no subuid ranges found for user "no-owner" in /etc/subuid'),
    ],
)
def test_id_maps_that_make_no_sense_make_nothing(
    cli: Program, command: str, words: list[str], text: str
) -> None:
    assert cli(command, *words, "") == (1, b"", f"{text}\n".encode())
    assert cli.ok("layers") == ""
    assert cli.ok("storage-layers") == ""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, which only root may")
def test_id_maps_own_the_trees_of_every_command_that_takes_them(
    cli: Program, tmp_path: Path
) -> None:
    maps = ("--uidmap", "0:100:5", "--gidmap", "0:100:5")
    layer = json.loads(cli.ok("import-layer", "--id", "a", "-j", *maps, stdin=archive(("f", b""))))
    assert layer["uidmap"] == layer["gidmap"] == MAP
    cli.ok("create-image", "--id", "img", "a")
    box = json.loads(cli.ok("create-container", "-j", *maps, "img"))
    assert box["uidmap"] == box["gidmap"] == MAP
    cli.ok("create-storage-layer", "--id", "b", *maps)
    for tree in ("a", "b", box["layer"]):
        status = (tmp_path / "graph/vfs/dir" / tree).stat()
        assert (status.st_uid, status.st_gid) == (100, 100)
    host = ("--hostuidmap", "--hostgidmap")
    for command in ("create-layer", "import-layer"):
        assert "uidmap" not in json.loads(cli.ok(command, "-j", *host, "a"))
    assert "uidmap" not in json.loads(cli.ok("create-container", "-j", *host, "img"))
    cli.ok("create-storage-layer", "--id", "c", *host)
    assert (tmp_path / "graph/vfs/dir/c").stat().st_uid == 0


class TestGlobalOptions:
    def test_read_only_layers_go_to_the_image_store(self, cli: Program, tmp_path: Path) -> None:
        shelf = tmp_path / "shelf"
        cli.ok("--image-store", str(shelf), "create-layer", "--id", "ro", "--readonly")
        assert (shelf / "vfs/dir/ro").is_dir()
        assert not (tmp_path / "graph/vfs/dir/ro").exists()

    def test_the_long_name_chooses_the_driver(self, cli: Program, tmp_path: Path) -> None:
        roots = ("--graph", f"{tmp_path}/g", "--run", f"{tmp_path}/r")
        result = cli.bare(*roots, "--storage-driver", "vfs", "status", "--json")
        assert ["Driver Name", "vfs"] in json.loads(result.text)

    def test_a_command_runs_where_it_is_when_told_not_to_unshare(self, cli: Program) -> None:
        assert cli.ok("layers", "--unshare=false") == ""
        assert cli.ok("--unshare=true", "layers", "-U=false") == ""
