"""Creating, naming, data items, deleting, on a real store (cli.md §4, §5, §6)."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from command_line import archive

from cstorage.cli import progress
from cstorage.cli.invocation import Output
from cstorage.errors import StorageError
from cstorage.store.store import Store

ID = re.compile("[0-9a-f]{64}")


class TestCreating:
    def test_a_layer_prints_its_id_and_its_names(self, cli):
        text = cli.ok("create-layer", "--id", "base", "-n", "base-name", "-n", "alt")
        assert text == "base\n\tbase-name\n\talt\n"
        assert ID.fullmatch(cli.ok("create-layer").strip())

    def test_a_name_given_twice_is_given_once(self, cli):
        assert cli.ok("create-layer", "--id", "q", "-n", "q", "-n", "q") == "q\n\tq\n"
        assert cli.ok("get-names", "q") == "q\n"

    def test_a_parent_is_recorded_by_its_full_id(self, cli):
        cli.ok("create-layer", "--id", "base", "-n", "base-name")
        document = json.loads(cli.ok("create-layer", "--json", "--id", "child", "base-name"))
        assert document["parent"] == "base"
        assert "parent" not in json.loads(cli.ok("create-layer", "--json", ""))

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["nosuch"], "layer not known"),
            (["--id", "base"], "that ID is already in use"),
            (["-n", "base-name"], "that name is already in use"),
        ],
    )
    def test_a_layer_that_cannot_be(self, cli, words, text):
        cli.ok("create-layer", "--id", "base", "-n", "base-name")
        before = cli.ok("layers", "-j")
        assert cli("create-layer", *words) == (1, b"", f"{text}\n".encode())
        assert cli.ok("layers", "-j") == before

    def test_an_import_takes_its_stream_from_a_file_or_standard_input(self, cli, tmp_path):
        tar = archive(("f", b"data"))
        path = tmp_path / "layer.tar"
        path.write_bytes(tar)
        one = json.loads(cli.ok("import-layer", "--json", "--id", "one", stdin=tar))
        two = json.loads(cli.ok("import-layer", "--json", "--id", "two", "-f", str(path)))
        assert one["diff-digest"] == two["diff-digest"]
        assert one["diff-size"] == len(tar)
        missing = cli("import-layer", "-f", f"{tmp_path}/nosuch")
        text = f"open {tmp_path}/nosuch: no such file or directory\n"
        assert missing == (1, b"", text.encode())

    def test_a_broken_import_is_one_line_and_leaves_nothing(self, cli):
        result = cli("import-layer", "--id", "half", stdin=archive(("f", b"x" * 5000))[:3000])
        assert result.status == 1
        assert result.out == b""
        assert result.err.count(b"\n") == 1
        assert cli.ok("layers") == cli.ok("storage-layers") == ""

    def test_progress_is_told_on_standard_error(self, cli):
        tar = archive(("a", b"1"), ("b", b"2"))
        result = cli("import-layer", "--progress", "--id", "x", stdin=tar)
        assert result.status == 0
        assert result.out == b"x\n"
        shown = rf"{len(tar)} bytes read, {len(tar)} unpacked, 2 entries, [0-9.]+ MiB/s\x1b\[K\n"
        assert re.search(shown + r"\Z", result.errors)
        applied = cli("applydiff", "--progress", "x", stdin=tar)
        assert applied.status == 0
        assert re.search(shown + r"\Z", applied.errors)

    @pytest.mark.parametrize("seconds", [0.4, 0.6])
    def test_a_terminal_is_not_told_of_short_imports(self, cli, monkeypatch, seconds):
        clock = itertools.chain([0.0], itertools.repeat(seconds))
        monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
        monkeypatch.setattr(Output, "on_terminal", True)
        result = cli("import-layer", "--id", "x", stdin=archive(("a", b"1")))
        assert result.out == b"x\n"
        assert bool(result.err) == (seconds > 0.5)

    def test_images(self, cli, tmp_path):
        cli.ok("create-layer", "--id", "base")
        (tmp_path / "text").write_bytes(b"kept newline\n")
        assert cli.ok("create-image", "--id", "i", "-n", "a", "-n", "b", "base") == "i\n\ta\n\tb\n"
        document = json.loads(
            cli.ok("create-image", "-j", "-m", "loses", "-f", f"{tmp_path}/text", "--id", "j")
        )
        assert document["metadata"] == "kept newline\n"
        assert "layer" not in document
        for words, text in (
            (["nosuch"], "layer not known"),
            (
                ["--id", "i"],
                'an image with ID "i" already exists: that ID is already in use',
            ),
            (
                ["-n", "a"],
                'image name "a" is already associated with image "i": that name is already in use',
            ),
            (
                ["-d", "bogus"],
                'validating digests for new image: validating image digest "bogus": '
                "invalid checksum digest format",
            ),
        ):
            assert cli("create-image", *words) == (1, b"", f"{text}\n".encode())

    def test_containers(self, cli):
        cli.ok("create-layer", "--id", "base")
        cli.ok("create-image", "--id", "img", "base")
        assert cli.ok("create-container", "--id", "c", "-n", "x", "-n", "y", "img") == "c\n\tx\ty"
        volatile = json.loads(cli.ok("create-container", "-j", "--volatile", "img"))
        assert volatile["flags"] == {"MountLabel": "", "ProcessLabel": "", "Volatile": True}
        assert json.loads(cli.ok("create-container", "-j", ""))["image"] == ""
        for words, text in (
            (["nosuch"], 'locating image with ID "nosuch": image not known'),
            (["--id", "c", "img"], "that ID is already in use"),
            (
                ["-n", "x", "img"],
                'the container name "x" is already in use by c. You have to remove that container '
                "to be able to reuse that name: that name is already in use",
            ),
        ):
            layers = cli.ok("storage-layers")
            assert cli("create-container", *words) == (1, b"", f"{text}\n".encode())
            assert cli.ok("storage-layers") == layers

    def test_text_that_is_no_utf8_is_stored_as_replacement_characters(self, cli):
        cli.ok("create-image", "--id", "i", "-m", "a\udcffb")
        assert cli.ok("metadata", "i") == "i: a\ufffdb\n"

    def test_a_layer_on_a_lost_tree_is_named_with_its_fault(self, cli, tmp_path):
        cli.ok("create-layer", "--id", "lost")
        (tmp_path / "graph/vfs/dir/lost").rmdir()
        text = (
            'creating read-write layer with ID "child": '
            f"Stat {tmp_path}/graph/vfs/dir/lost: no such file or directory\n"
        )
        assert cli("create-layer", "--id", "child", "lost") == (1, b"", text.encode())

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (
                ["--uidmap", "0:0:1", "--hostuidmap"],
                "host uid map specified along with UID mapping",
            ),
            (
                ["--gidmap", "0:0:1", "--hostgidmap"],
                "host gid map specified along with GID mapping",
            ),
            (
                ["--uidmap", "0:1"],
                "initializing ID mappings: uid setting is malformed "
                'expected ["uint32:uint32:uint32"]: ["0:1"]',
            ),
            (
                ["--gidmap", "0:-1:2"],
                "initializing ID mappings: gid setting is malformed "
                'expected ["uint32:uint32:uint32"]: ["0:-1:2"]',
            ),
            (
                ["--subuidmap", "nobody-has-this-name", "--uidmap", "0:1"],
                'no subuid ranges found for user "nobody-has-this-name" in /etc/subuid',
            ),
        ],
    )
    def test_id_maps_that_make_no_sense(self, cli, words, text):
        assert cli("create-layer", *words) == (1, b"", f"{text}\n".encode())
        assert cli.ok("layers") == ""

    @pytest.mark.root
    def test_id_maps_are_recorded_and_shown(self, cli):
        document = json.loads(
            cli.ok("create-layer", "-j", "--id", "m", "--uidmap", "0:100000:1000:1000:5000:10")
        )
        assert document["uidmap"] == [
            {"container_id": 0, "host_id": 100000, "size": 1000},
            {"container_id": 1000, "host_id": 5000, "size": 10},
        ]
        assert "gidmap" not in document
        assert cli.ok("layer", "m") == (
            "ID: m\nUID mapping: (container=0, host=100000, size=1000)\n"
            "UID mapping: (container=1000, host=5000, size=10)\n"
        )
        unmounted = cli("layer-parent-owners", "m")
        assert unmounted == (1, b"", b"LayerParentOwner: layer is not mounted\n")


class TestNames:
    def test_added_names_come_first_and_set_replaces(self, cli):
        cli.ok("create-image", "--id", "i", "-n", "in")
        assert cli.ok("add-names", "--json", "-n", "y", "-n", "z", "i") == '["y","z","in"]\n'
        assert cli.ok("remove-names", "--json", "-n", "y", "-n", "nosuch", "in") == '["z","in"]\n'
        assert cli.ok("set-names", "-n", "only", "i") == ""
        assert cli.ok("get-names", "i") == "only\n"
        assert cli.ok("set-names", "--json", "i") == "null\n"
        assert cli.ok("get-names", "--json", "i") == "[]\n"

    def test_arguments_after_the_first_are_not_used(self, cli):
        cli.ok("create-image", "--id", "i")
        cli.ok("add-names", "-n", "x", "i", "nosuch")
        assert cli.ok("get-names", "i") == "x\n"

    def test_the_empty_name_is_a_name(self, cli):
        cli.ok("create-layer", "--id", "l")
        cli.ok("add-names", "-n", "", "l")
        assert cli.ok("get-names", "l") == "\n"

    def test_unknown_items(self, cli):
        for command in ("get-names", "add-names", "set-names", "remove-names"):
            assert cli(command, "nosuch") == (1, b"", b"layer not known\n")


class TestMetadata:
    def test_it_is_shown_without_its_last_newline(self, cli, tmp_path):
        (tmp_path / "m").write_text("line\n\n")
        cli.ok("create-layer", "--id", "l")
        cli.ok("create-layer", "--id", "k")
        cli.ok("set-metadata", "-f", f"{tmp_path}/m", "l")
        assert cli.ok("metadata", "l", "k") == "l: line\n\nk: \n"
        assert cli.ok("metadata", "-q", "l") == "line\n\n"
        result = cli("metadata", "--json", "l", "nosuch")
        assert result == (1, b'{"l":"line\\n"}\n', b"")
        assert cli("metadata", "nosuch") == (1, b"nosuch: \n", b"")
        assert cli("metadata", "-j", "nosuch") == (1, b"{}\n", b"")

    def test_an_empty_text_is_refused_but_an_empty_file_clears(self, cli, tmp_path):
        cli.ok("create-layer", "--id", "l")
        cli.ok("set-metadata", "-m", "text", "l")
        assert cli("set-metadata", "-m", "", "l") == (1, b"", b"no new metadata provided\n")
        (tmp_path / "empty").touch()
        cli.ok("set-metadata", "-m", "loses", "-f", f"{tmp_path}/empty", "l")
        assert cli.ok("metadata", "-q", "l") == "\n"

    def test_unknown_items(self, cli):
        text = b"identifier is not a layer, image, or container\n"
        assert cli("set-metadata", "-m", "x", "nosuch") == (1, b"", text)


class TestData:
    def test_bytes_come_back_as_they_went_in(self, cli, tmp_path):
        data = bytes(range(256))
        cli.ok("create-layer", "--id", "x")
        cli.ok("create-image", "--id", "x")
        cli.ok("create-container", "--id", "x", "")
        for kind in ("layer", "image", "container"):
            cli.ok(f"set-{kind}-data", "x", "Item", stdin=data)
            cli.ok(f"set-{kind}-data", "x", "empty")
            assert cli(f"get-{kind}-data", "x", "Item").out == data
            cli.ok(f"get-{kind}-data", "-f", f"{tmp_path}/{kind}", "x", "Item")
            assert (tmp_path / kind).read_bytes() == data
            assert cli.ok(f"list-{kind}-data", "x") == "Item\nempty\n"
            assert cli.ok(f"list-{kind}-data", "--json", "x") == '["Item","empty"]\n'
        for kind in ("image", "container"):
            assert cli.ok(f"get-{kind}-data-size", "x", "Item") == "256\n"
            digest = cli.ok(f"get-{kind}-data-digest", "x", "empty")
            assert digest.startswith("sha256:e3b0c44298fc1c149afbf4c8996fb924")

    def test_no_items_are_null(self, cli):
        cli.ok("create-layer", "--id", "x")
        assert cli.ok("list-layer-data", "x") == ""
        assert cli.ok("list-layer-data", "--json", "x") == "null\n"

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            ("get-image-data nosuch n", 'locating image with ID "nosuch": image not known'),
            ("get-layer-data nosuch n", "layer not known"),
            ("set-layer-data nosuch n", "layer not known"),
            ("get-container-data nosuch n", "container not known"),
            (
                "get-image-data x n",
                'locating item named "n" for image with ID "x" (consider removing the image to '
                "resolve the issue): file does not exist",
            ),
            (
                "get-layer-data x n",
                'locating item named "n" for layer with ID "x": file does not exist',
            ),
            (
                "get-container-data x Item",
                "open {root}/vfs-containers/x/=SXRlbQ==: no such file or directory",
            ),
            ("get-image-data-size x n", "size is not known"),
            ("get-image-data-digest x n", "could not compute digest of item"),
            ("get-container-data-size x n", "size is not known"),
            ("get-container-data-digest x n", "could not compute digest of item"),
        ],
    )
    def test_what_is_missing(self, cli, tmp_path, words, text):
        cli.ok("create-layer", "--id", "x")
        cli.ok("create-image", "--id", "x")
        cli.ok("create-container", "--id", "x", "")
        expected = text.format(root=tmp_path / "graph") + "\n"
        assert cli(*words.split()) == (1, b"", expected.encode())

    def test_the_empty_name(self, cli):
        cli.ok("create-layer", "--id", "x")
        cli.ok("create-image", "--id", "x")
        cli.ok("create-container", "--id", "x", "")
        invalid = "not a valid name for a big data item\n"
        for kind in ("layer", "image", "container"):
            text = f"can't set empty name for {kind} big data item: {invalid}"
            assert cli(f"set-{kind}-data", "x", "") == (1, b"", text.encode())
        text = f"can't retrieve container big data value for empty name: {invalid}"
        assert cli("get-container-data", "x", "") == (1, b"", text.encode())

    def test_a_failing_read_leaves_an_empty_file(self, cli, tmp_path):
        cli.ok("create-layer", "--id", "x")
        target = tmp_path / "target"
        target.write_text("old")
        assert cli("get-layer-data", "-f", str(target), "x", "nosuch").status == 1
        assert target.read_text() == ""
        target.write_text("old")
        assert cli("get-layer-data", "-f", str(target), "nosuch", "nosuch").status == 1
        assert target.read_text() == "old"

    def test_directories_are_made_and_images_are_not_looked_up(self, cli, tmp_path):
        cli.ok("create-container", "--id", "c", "-n", "name", "")
        for command, path in (
            (("get-container-dir", "name"), "graph/vfs-containers/c/userdata"),
            (("get-container-run-dir", "c"), "run/vfs-containers/c/userdata"),
            (("get-image-dir", "nonsense"), "graph/vfs-images/nonsense/userdata"),
            (("get-image-run-dir", "nonsense"), "run/vfs-images/nonsense/userdata"),
            (("get-image-dir", "a//b/../c"), "graph/vfs-images/a/c/userdata"),
            (("get-image-dir", ""), "graph/vfs-images/userdata"),
            (("get-image-run-dir", "."), "run/vfs-images/userdata"),
        ):
            assert cli.ok(*command) == f"{tmp_path}/{path}\n"
            assert (tmp_path / path).stat().st_mode & 0o7777 == 0o700
        assert cli("get-container-dir", "nosuch") == (1, b"", b"container not known\n")
        assert cli("get-image-dir", "../x").status == 1


class TestDeleting:
    @pytest.fixture(autouse=True)
    def chain(self, cli):
        cli.ok("create-layer", "--id", "base", "-n", "bn")
        cli.ok("create-layer", "--id", "top", "base")
        cli.ok("create-image", "--id", "img", "top")
        cli.ok("create-container", "--id", "con", "img")

    def test_layers_in_use_stay_by_whatever_key_they_are_named(self, cli):
        layer = json.loads(cli.ok("container", "-j", "con"))[0]["layer"]
        for key, text in (
            ("base", "used by layer top: layer has children"),
            ("bn", "used by layer top: layer has children"),
            (layer, f"layer {layer} used by container con: layer is in use by a container"),
            ("nosuch", "identifier is not a layer"),
        ):
            assert cli("delete-layer", key) == (1, b"", f"{key}: {text}\n".encode())

    def test_the_rest_is_deleted_after_a_failure(self, cli):
        cli.ok("create-layer", "--id", "free")
        result = cli("delete-layer", "--json", "nosuch", "free", "base")
        assert result.status == 1
        assert json.loads(result.out) == {
            "base": "used by layer top: layer has children",
            "free": "",
            "nosuch": "identifier is not a layer",
        }
        assert result.text.index('"base"') < result.text.index('"free"')
        assert result.err == b""
        assert cli("exists", "free").status == 1

    def test_of_an_argument_given_twice_the_last_result_counts(self, cli):
        result = cli("delete-container", "con", "con")
        assert result == (1, b"", b"con: identifier is not a container\n")

    def test_an_image_goes_with_the_layers_only_it_needs(self, cli):
        refused = cli("delete-image", "img")
        text = "img: image used by con: image is in use by a container\n"
        assert refused == (1, b"", text.encode())
        cli.ok("delete-container", "con")
        assert cli("delete-image", "--test", "img") == (0, b"", b"img: top\nimg: base\n")
        deleted = cli("delete-image", "--json", "img", "nosuch")
        assert deleted.status == 1
        assert deleted.text == (
            '{"img":{"deleted-layers":["top","base"]},'
            '"nosuch":{"error":"identifier is not an image"}}\n'
        )
        assert cli.ok("layers") == ""

    def test_delete_asks_nothing_and_takes_containers_first(self, cli):
        cli.ok("create-layer", "--id", "con")
        cli.ok("delete", "con")
        assert cli.ok("containers") == ""
        cli.ok("delete", "con", "img", "base")
        assert cli.ok("layers", "-t") == "base\n└─top\n"
        assert cli("delete", "nosuch") == (1, b"", b"nosuch: layer not known\n")

    def test_wipe(self, cli):
        assert cli.ok("wipe") == ""
        assert cli.ok("layers") == cli.ok("images") == cli.ok("storage-layers") == ""
        assert cli.ok("wipe", "--json") == '""\n'

    def test_failures_of_store_wide_commands(self, cli, monkeypatch):
        """As JSON an error is an empty object, and nothing is said beside it."""

        def refuse(*_):
            raise StorageError("no")

        for method in ("wipe", "dedup", "garbage_collect"):
            monkeypatch.setattr(Store, method, refuse)
        for command in ("wipe", "dedup"):
            assert cli(command) == (1, b"", f"{command}: no\n".encode())
            assert cli(command, "--json") == (1, b"{}\n", b"")
        cli.ok("mount", "con")
        assert cli("gc", "--json") == (
            1, b"", b"shutdown: a layer is mounted: layer is in use by a container\nno\n",
        )  # fmt: skip
        assert cli.ok("mounted", "con") == ""
