"""ls, cat, find, which-layer, diff-images and the bounds of imports, on a real two-layer image."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest
from command_line import archive

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts of overlay need root")


def layer(*members):
    """An archive of (name, type, data or target) triples."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, value in members:
            info = tarfile.TarInfo(name)
            info.type, info.mtime = kind, 1_600_000_000
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            if kind == tarfile.REGTYPE:
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
            else:
                info.linkname = value.decode()
                tar.addfile(info)
    return stream.getvalue()


F, D, L, H = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
LOWER = layer(
    ("etc", D, b""),
    ("etc/gone", F, b"gone\n"),
    ("etc/keep", F, b"keep\n"),
    ("o", D, b""),
    ("o/hidden", F, b"hidden\n"),
    ("usr", D, b""),
    ("usr/bin", D, b""),
    ("usr/bin/tool", F, b"\0tool\xff"),
    ("bin", L, b"usr/bin"),
)
UPPER = layer(
    ("etc/.wh.gone", F, b""),
    ("etc/one", F, b"1"),
    ("etc/two", H, b"etc/one"),
    ("o/.wh..wh..opq", F, b""),
    ("o/seen", F, b"seen\n"),
    ("odd\nname", F, b""),
)


@pytest.fixture(params=["vfs", pytest.param("overlay", marks=[pytest.mark.root, ROOT])])
def image(request, cli, tmp_path):
    """The command line on a store with an image ``img`` of two layers; its first layer's tree."""
    cli.roots[-1] = request.param
    cli.ok("import-layer", "--id", "lower", stdin=LOWER)
    cli.ok("import-layer", "--id", "upper", "lower", stdin=UPPER)
    cli.ok("create-image", "--id", "f00", "-n", "img", "upper")
    inside = {"vfs": "graph/vfs/dir/lower", "overlay": "graph/overlay/lower/diff"}
    return tmp_path / inside[request.param]


class TestLs:
    def test_names_of_a_directory(self, cli, image):
        assert cli.ok("ls", "img") == 'bin\netc\no\n"odd\\nname"\nusr\n'
        assert cli.ok("ls", "lower", "/etc") == "gone\nkeep\n"
        assert cli.ok("ls", "img", "etc") == "keep\none\ntwo\n"
        assert cli.ok("ls", "img", "/bin") == "tool\n"
        assert cli.ok("ls", "img", "bin/tool") == "bin/tool\n"

    def test_all_that_is_below(self, cli, image):
        assert cli.ok("ls", "-R", "img", "usr") == "bin\nbin/tool\n"
        assert cli.ok("ls", "-R", "img", "o") == "seen\n"

    def test_attributes(self, cli, image):
        long = cli.ok("ls", "-l", "img", "bin").split()
        assert long[0][0] == "l"
        assert long[4:] == ["bin", "->", "usr/bin"]
        assert cli.ok("ls", "--long", "img", "bin/").split() == [
            "-rw-r--r--", "0:0", "6", "2020-09-13T12:26:40Z", "tool",
        ]  # fmt: skip

    def test_objects(self, cli, image):
        (one,) = json.loads(cli.ok("ls", "--json", "img", "etc/one"))
        digest = one.pop("digest")
        assert digest.partition(":")[0] in ("blake3", "sha256")
        assert one == {
            "path": "/etc/one", "type": "file", "mode": "0644", "uid": 0, "gid": 0, "size": 1,
            "mtime": "2020-09-13T12:26:40Z", "layer": "upper",
        }  # fmt: skip
        assert [f["path"] for f in json.loads(cli.ok("ls", "-j", "img", "etc"))] == [
            "/etc/keep", "/etc/one", "/etc/two",
        ]  # fmt: skip
        cli.ok("import-layer", "--id", "empty", stdin=layer(("d", D, b"")))
        assert cli.ok("ls", "-j", "empty", "d") == "[]\n"

    def test_what_is_not_there(self, cli, image):
        assert cli("ls", "img", "etc/gone") == (1, b"", b"/etc/gone: no such file or directory\n")
        assert cli("ls", "nosuch").errors == ('locating image or layer "nosuch": layer not known\n')
        cli.ok("create-layer", "--id", "bare")
        result = cli("ls", "bare")
        assert (result.status, result.out) == (1, b"")
        assert result.errors.startswith('no file list was recorded for layer "bare"; ')

    def test_the_global_letter_keeps_its_meaning_before_the_command(self, cli, image, tmp_path):
        graph, driver = cli.roots[1], cli.roots[-1]
        words = ("--graph", graph, "-R", f"{tmp_path}/run", "-s", driver, "ls", "-R", "img", "o")
        assert cli.bare(*words) == (0, b"seen\n", b"")


class TestCat:
    def test_the_bytes_as_they_are(self, cli, image):
        assert cli("cat", "img", "/bin/tool") == (0, b"\0tool\xff", b"")
        assert cli("cat", "img", "etc/two").out == b"1"

    def test_a_changed_file_is_reported(self, cli, image):
        (image / "etc/keep").write_bytes(b"KEEP\n")
        result = cli("cat", "img", "etc/keep")
        assert result.status == 1
        assert result.errors == (
            '/etc/keep of layer "lower" was changed after it was imported: '
            "its bytes do not have the recorded digest; run check\n"
        )
        (image / "etc/keep").write_bytes(b"longer than before\n")
        assert cli("cat", "img", "etc/keep")[:2] == (1, b"")

    def test_what_has_no_content(self, cli, image):
        assert cli("cat", "img", "etc") == (1, b"", b"/etc: is a directory\n")
        assert cli("cat", "img", "etc/gone") == (1, b"", b"/etc/gone: no such file or directory\n")


class TestFind:
    def test_by_name_and_type(self, cli, image):
        assert cli.ok("find", "img", "etc") == "/etc\n/etc/keep\n/etc/one\n/etc/two\n"
        assert cli.ok("find", "--name", "*o*", "--type", "f", "img") == (
            '/etc/one\n/etc/two\n"/odd\\nname"\n/usr/bin/tool\n'
        )
        assert cli.ok("find", "--type", "l", "img") == "/bin\n"
        assert cli.ok("find", "--type", "d", "lower", "usr") == "/usr\n/usr/bin\n"
        assert cli.ok("find", "--name", "nosuch", "img") == ""
        assert cli.ok("find", "--json", "--name", "nosuch", "img") == "[]\n"
        (link,) = json.loads(cli.ok("find", "-j", "-t", "l", "img"))
        assert (link["path"], link["target"]) == ("/bin", "usr/bin")

    def test_a_type_that_there_is_not(self, cli, image):
        result = cli("find", "--type", "x", "img")
        assert (result.status, result.errors) == (
            1, '--type "x": give one of f, d, l, b, c, p\n',
        )  # fmt: skip


class TestLayers:
    def test_which_layer_a_path_comes_from(self, cli, image):
        assert cli.ok("which-layer", "img", "etc/keep") == "lower\n"
        assert cli.ok("which-layer", "img", "etc/two") == "upper\n"
        assert cli.ok("which-layer", "f00", "bin/tool") == "lower\n"
        assert json.loads(cli.ok("which-layer", "-j", "img", "/bin"))["layer"] == "lower"

    def test_what_changes_from_one_to_the_other(self, cli, image):
        lines = cli.ok("diff-images", "lower", "img").splitlines()
        assert lines == [
            'Modify "/etc"',
            'Delete "/etc/gone"',
            'Add "/etc/one"',
            'Add "/etc/two"',
            'Modify "/o"',
            'Delete "/o/hidden"',
            'Add "/o/seen"',
            'Add "/odd\\nname"',
        ]
        assert {"Path": "/etc/gone", "Kind": 2} in json.loads(
            cli.ok("diff-images", "--json", "lower", "img")
        )
        assert cli.ok("diff-images", "--json", "img", "upper") == "null\n"


class TestBounds:
    """``--max-bytes``, ``--max-entries``, ``--max-ratio``."""

    TAR = archive(("a", b"x" * 3000), ("b", b""))

    @pytest.mark.parametrize(
        ("flag", "text"),
        [("--max-bytes=2k", "more than 2048 bytes"), ("--max-entries=1", "more than 1 entries")],
    )
    def test_an_import_beyond_a_bound_leaves_nothing(self, cli, flag, text):
        result = cli("import-layer", flag, stdin=self.TAR)
        assert result.status == 1
        assert text in result.errors
        assert cli.ok("layers", "-q") == ""
        cli.ok("create-layer", "--id", "l")
        assert text in cli("applydiff", flag, "l", stdin=self.TAR).errors

    def test_an_import_within_its_bounds(self, cli):
        bounds = ("--max-bytes", "1M", "--max-entries", "2", "--max-ratio", "100")
        cli.ok("import-layer", "--id", "l", *bounds, stdin=self.TAR)
        assert cli.ok("ls", "l") == "a\nb\n"
        cli.ok("applydiff", *bounds, "l", stdin=self.TAR)

    def test_what_expands_too_much(self, cli):
        import gzip

        bomb = gzip.compress(archive(("zeros", bytes(20 << 20))), 6)
        result = cli("import-layer", "--max-ratio", "50", stdin=bomb)
        assert result.status == 1
        assert "expands more than 50 times" in result.errors

    @pytest.mark.parametrize(
        "words", [("--max-bytes", "2x"), ("--max-entries", "1k"), ("--max-ratio", "-1")]
    )
    def test_what_is_no_bound(self, cli, words):
        result = cli("import-layer", *words, stdin=self.TAR)
        assert (result.status, result.out) == (1, b"")
        assert result.errors.startswith(f'{words[0]} "{words[1]}": give a whole number')
