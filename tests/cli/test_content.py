"""Diffs, mounts, copies, on a real store (cli.md §7)."""

from __future__ import annotations

import gzip
import json
import os

import pytest
from command_line import archive

TAR = archive(("dir/f", b"12345"), ("g", b"x"))


@pytest.fixture
def base(cli, tmp_path):
    """The directory of an imported layer ``base``."""
    cli.ok("import-layer", "--id", "base", "-n", "bn", stdin=TAR)
    return tmp_path / "graph/vfs/dir/base"


class TestDiffs:
    def test_changes_of_a_base_and_of_a_child(self, cli, base, tmp_path):
        cli.ok("create-layer", "--id", "child", "base")
        child = tmp_path / "graph/vfs/dir/child"
        (child / "g").unlink()
        (child / 'new "\n\udcff').write_text("n")
        assert cli.ok("changes", "base") == 'Add "/dir"\nAdd "/dir/f"\nAdd "/g"\n'
        assert set(cli.ok("changes", "child").splitlines()) == {
            'Add "/new \\"\\n\\xff"',
            'Delete "/g"',
        }
        found = json.loads(cli.ok("changes", "--json", "child"))
        assert {"Path": "/g", "Kind": 2} in found
        assert {"Path": '/new "\n\ufffd', "Kind": 1} in found
        assert cli.ok("changes", "--json", "base", "base") == "null\n"

    def test_the_size_of_a_diff(self, cli, base):
        assert cli.ok("diffsize", "base") == "6\n"
        assert cli.ok("diff-size", "bn") == "6\n"
        assert cli("diffsize", "--json", "base").status == 125

    def test_a_diff_is_the_imported_stream(self, cli, base, tmp_path):
        assert cli("diff", "base").out == TAR
        assert gzip.decompress(cli("diff", "-c", "base").out) == TAR
        assert gzip.decompress(cli("diff", "-u", "-c", "base").out) == TAR
        cli.ok("diff", "-f", f"{tmp_path}/out.tar", "bn")
        assert (tmp_path / "out.tar").read_bytes() == TAR

    def test_a_diff_has_the_recorded_compression(self, cli):
        cli.ok("import-layer", "--id", "z", stdin=gzip.compress(TAR))
        assert gzip.decompress(cli("diff", "z").out) == TAR
        assert cli("diff", "-u", "z").out == TAR

    @pytest.mark.parametrize(
        ("flag", "name"), [("-b", "bz2"), ("--bzip2", "bz2"), ("--bz2", "bz2"), ("-x", "xz")]
    )
    def test_two_compressions_are_never_offered(self, cli, base, flag, name):
        text = f"unsupported compression format tar.{name}\n"
        assert cli("diff", "-u", flag, "base") == (1, b"", text.encode())

    @pytest.mark.parametrize("line", [("changes",), ("diffsize",), ("diff",), ("diff", "-x")])
    def test_an_unknown_second_layer_is_named_before_all_else(self, cli, base, tmp_path, line):
        text = f"stat {tmp_path}/graph/vfs/dir/zzz: no such file or directory\n"
        assert cli(*line, "base", "zzz") == (1, b"", text.encode())

    def test_a_failing_diff_leaves_an_empty_file(self, cli, tmp_path):
        assert cli("diff", "-f", f"{tmp_path}/o", "nosuch") == (1, b"", b"layer not known\n")
        assert (tmp_path / "o").read_bytes() == b""

    def test_applydiff_fills_a_layer(self, cli, tmp_path):
        cli.ok("create-layer", "--id", "l")
        assert cli.ok("applydiff", "l", stdin=TAR) == ""
        assert (tmp_path / "graph/vfs/dir/l/dir/f").read_text() == "12345"
        (tmp_path / "t").write_bytes(archive(("h", b"hh")))
        cli.ok("apply-diff", "-f", f"{tmp_path}/t", "l")
        assert cli.ok("diffsize", "l") == "8\n"
        assert cli("applydiff", "nosuch") == (1, b"", b"layer not known\n")

    def test_partial_images_need_the_configuration_and_a_driver_that_can(
        self, cli, tmp_path, monkeypatch
    ):
        words = ("applydiff-using-staging-dir", "l", str(tmp_path))
        assert cli(*words) == (1, b"", b"partial images are disabled\n")
        file = tmp_path / "storage.conf"
        file.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/g"\nrunroot = "{tmp_path}/r"\n'
            '[storage.options.pull_options]\nenable_partial_images = "true"\n'
        )
        monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(file))
        assert cli(*words) == (1, b"", b"partial images are disabled\n")
        text = b"graph driver vfs does not support partial pull\n"
        assert cli.bare(*words) == (1, b"", text)


class TestMounts:
    def test_lines_match_arguments(self, cli, base, tmp_path):
        cli.ok("create-container", "--id", "con", "")
        layer = json.loads(cli.ok("container", "-j", "con"))[0]["layer"]
        result = cli("mount", "nosuch", "bn", "con")
        assert result.status == 1
        assert result.text == f"\n{base}\n{tmp_path}/graph/vfs/dir/{layer}\n"
        assert result.errors == "layer not known while mounting nosuch\n"
        assert cli.ok("mounted", "base", "con") == "base mounted\ncon mounted\n"
        cli.ok("unmount", "base", "con")

    def test_mount_answers_as_json(self, cli, base):
        result = cli("mount", "--json", "nosuch", "base")
        assert result == (
            1,
            b'[{"id":"nosuch","mountpoint":"","error":"layer not known"},'
            + f'{{"id":"base","mountpoint":"{base}","error":""}}]\n'.encode(),
            b"",
        )
        cli.ok("unmount", "base")

    def test_only_the_last_unmount_says_so(self, cli, base):
        cli.ok("mount", "base", "base")
        assert cli.ok("unmount", "base") == ""
        assert cli.ok("unmount", "base") == "base mountpoint unmounted\n"
        assert cli.ok("umount", "base") == "base mountpoint unmounted\n"
        cli.ok("mount", "base", "base")
        assert cli.ok("unmount", "-f", "--json", "base") == (
            'base mountpoint unmounted\n[{"id":"base","error":""}]\n'
        )
        failed = cli("unmount", "nosuch", "base")
        assert failed == (
            1,
            b"base mountpoint unmounted\n",
            b"layer not known while unmounting nosuch\n",
        )

    def test_mounted_says_nothing_of_what_is_not(self, cli, base):
        assert cli("mounted", "base") == (0, b"", b"")
        assert cli("mounted", "nosuch") == (
            1,
            b"",
            b"layer not known checking if nosuch is mounted\n",
        )
        assert cli.ok("mounted", "-j", "base") == '[{"id":"base","error":""}]\n'

    def test_only_images_are_mounted_read_only(self, cli, base):
        cli.ok("create-image", "--id", "img", "base")
        assert cli.ok("mount", "-r", "img") == f"{base}\n"
        assert cli.ok("unmount", "img") == ""
        text = 'locating image with ID "base": image not known while mounting base\n'
        assert cli("mount", "--ro", "base") == (1, b"\n", text.encode())
        assert cli("mount", "img").errors == "layer not known while mounting img\n"

    def test_shutdown_fails_when_it_had_to_unmount(self, cli, base):
        cli.ok("mount", "base", "base")
        text = b"shutdown: a layer is mounted: layer is in use by a container\n"
        assert cli("shutdown") == (1, b"", text)
        assert cli("shutdown", "--json") == (1, b"{}\n", b"")
        assert cli("shutdown", "--force") == (1, b"", text)
        assert cli("shutdown", "--json") == (0, b'""\n', b"")
        assert cli.ok("mounted", "base") == ""

    def test_check_and_gc_unmount_everything(self, cli, base):
        cli.ok("mount", "base")
        result = cli("check")
        text = b"shutdown: a layer is mounted: layer is in use by a container\n"
        assert result == (0, b"", text)
        cli.ok("mount", "base")
        assert cli("gc", "--json") == (0, b'""\n', text)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="copies keep owners, which needs root")
class TestCopy:
    @pytest.fixture
    def source(self, tmp_path):
        source = tmp_path / "source"
        (source / "d").mkdir(parents=True)
        (source / "f").write_text("file")
        (source / "f").chmod(0o4711)
        os.link(source / "f", source / "d" / "same")
        (source / "link").symlink_to("f")
        os.chown(source / "d", 5, 6)
        return source

    def test_a_directory_puts_its_content_into_the_target(self, cli, base, source):
        assert cli("copy", str(source), "bn:/new/deep") == (0, b"", b"")
        new = base / "new/deep"
        assert sorted(os.listdir(new)) == ["d", "f", "link"]
        assert (new / "f").stat().st_mode & 0o7777 == 0o4711
        assert (new / "f").samefile(new / "d/same")
        assert os.readlink(new / "link") == "f"
        assert (new / "d").stat().st_uid == 5
        assert new.stat().st_mode & 0o7777 == 0o755

    def test_directories_merge_and_files_are_replaced(self, cli, base, source):
        (base / "d").mkdir()
        (base / "d" / "kept").touch()
        (base / "f").write_text("old")
        cli.ok("copy", str(source), "base:/")
        assert (base / "f").read_text() == "file"
        assert sorted(os.listdir(base / "d")) == ["kept", "same"]

    def test_merged_directories_get_the_times_of_the_source(self, cli, base, source):
        os.utime(source / "d", ns=(0, 10**18))
        for _ in range(2):
            cli.ok("copy", str(source), "base:/new")
            assert (base / "new/d").stat().st_mtime_ns == 10**18

    def test_a_file_is_written_to_exactly_the_target(self, cli, base, source):
        cli.ok("copy", f"{source}/link", "base:/x/y")
        assert (base / "x/y").read_text() == "file"
        assert (base / "x").stat().st_mode & 0o7777 == 0o700
        cli.ok("copy", f"{source}/f", "base:g")
        assert (base / "g").read_text() == "file"
        result = cli("copy", f"{source}/f", "base:/dir")
        assert result.status == 1
        assert result.errors.startswith(f'error copying "{source}/f" to "{base}/dir": ')

    def test_copies_go_between_layers_and_out(self, cli, base, tmp_path):
        cli.ok("create-layer", "--id", "other")
        cli.ok("copy", "base:/dir", "other:/there")
        assert (tmp_path / "graph/vfs/dir/other/there/f").read_text() == "12345"
        (tmp_path / "out").mkdir()
        cli.ok("copy", "base:/g", f"{tmp_path}/out/")
        assert (tmp_path / "out/g").read_text() == "x"
        assert cli.ok("mounted", "base", "other") == ""

    def test_owners_are_set_on_request(self, cli, base, source):
        cli.ok("copy", "--chown", "7", str(source), "base:/seven")
        for path in ("seven", "seven/f", "seven/d", "seven/link"):
            status = (base / path).lstat()
            assert (status.st_uid, status.st_gid) == (7, 7)
        cli.ok("copy", "-o", "7:8", f"{source}/f", "base:/file")
        assert (base / "file").stat().st_gid == 8
        for owner, text in (
            ("a", 'bad UID: strconv.ParseUint: parsing "a": invalid syntax'),
            ("1:b", 'bad GID: strconv.ParseUint: parsing "b": invalid syntax'),
        ):
            assert cli("copy", "-o", owner, f"{source}/f", "base:/n").errors == f"{text}\n"

    def test_owners_pass_through_the_maps_of_both_layers(self, cli, source, tmp_path):
        cli.ok("create-layer", "--id", "m", "--uidmap", "0:1000:50", "--gidmap", "0:2000:50")
        cli.ok("copy", str(source), "m:/in")
        status = (tmp_path / "graph/vfs/dir/m/in/d").stat()
        assert (status.st_uid, status.st_gid) == (1005, 2006)
        cli.ok("copy", "m:/in", f"{tmp_path}/back")
        assert (tmp_path / "back/d").stat().st_uid == 5

    def test_nothing_in_a_layer_leads_out_of_it(self, cli, base, source, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (base / "trap").symlink_to(outside)
        cli("copy", str(source), "base:/trap/x")
        assert os.listdir(outside) == []
        (base / "etc").symlink_to("/etc")
        result = cli("copy", "base:/etc/hostname", f"{tmp_path}/stolen")
        assert result.status == 1
        assert not (tmp_path / "stolen").exists()

    def test_a_directory_is_not_copied_into_itself(self, cli, base):
        for target in ("base:/dir", "base:/dir/new/below"):
            refused = cli("copy", "base:/dir", target)
            assert refused.status == 1
            assert refused.errors.endswith(": a directory cannot be copied into itself\n")

    def test_a_relative_path_of_the_host_takes_files_and_directories(
        self, cli, base, source, tmp_path, monkeypatch
    ):
        cli.ok("copy", str(source), "base:/dir")
        monkeypatch.chdir(tmp_path)
        for name in ("dir", "dir/f"):
            cli.ok("copy", f"base:/{name}", f"out-{name.replace('/', '-')}")
        assert sorted(os.listdir("out-dir")) == sorted(os.listdir(f"{base}/dir"))
        assert os.path.isfile("out-dir-f")

    def test_a_copy_that_fails_leaves_nothing_aside(self, cli, base, source):
        (base / "link").mkdir()
        (base / "link" / "kept").touch()
        assert cli("copy", str(source), "base:/").status == 1
        assert (base / "link" / "kept").exists()
        assert not [name for name in os.listdir(base) if name.startswith(".")]

    def test_unknown_sides(self, cli, base, source):
        text = 'error finding layer "nosuch": layer not known\n'
        assert cli("copy", "nosuch:/x", "base:/x") == (1, b"", text.encode())
        assert cli("copy", f"{source}/f", "nosuch:/x") == (1, b"", text.encode())
        missing = cli("copy", f"{source}/zzz", "base:/x").errors
        assert missing == (
            f'error copying "{source}/zzz" to "{base}/x": '
            f"stat {source}/zzz: no such file or directory\n"
        )
