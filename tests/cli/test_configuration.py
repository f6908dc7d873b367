"""What storage.conf says reaches the store that a command opens, also what no flag says."""

from __future__ import annotations

import os
import re

import pytest

from tests.cli.command_line import archive

KEYS = """\
[storage]
graphroot = "{base}/g"
runroot = "{base}/r"
{storage}
[storage.options]
{options}
[storage.options.pull_options]
use_hard_links = "true"
"""


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """Write a configuration file with these lines; commands without roots use it."""

    def write(storage: str = "", options: str = "") -> None:
        file = tmp_path / "storage.conf"
        file.write_text(KEYS.format(base=tmp_path, storage=storage, options=options))
        monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(file))

    monkeypatch.delenv("STORAGE_DRIVER", raising=False)
    monkeypatch.delenv("STORAGE_OPTS", raising=False)
    return write


def test_the_order_of_drivers_decides_without_a_name(cli, conf):
    conf('driver_priority = ["vfs", "overlay"]')
    assert cli.bare("status", "--json").text.count('["Driver Name","vfs"]') == 1


def test_volatile_mounts_can_be_disabled(cli, conf):
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    for disabled in ("false", "true"):
        conf('driver = "overlay"', f"disable-volatile = {disabled}")
        made = cli.bare("create-container", "--volatile", "--id", f"box-{disabled}", "")
        assert made.status == 0
        path = cli.bare("mount", f"box-{disabled}").text.strip()
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            (line,) = [row for row in table if f" {path} " in row]
        cli.bare("unmount", f"box-{disabled}")
        options = set(line.split()[-1].split(","))
        assert bool(options & {"volatile", "fsync=volatile"}) == (disabled == "false")


def test_times_are_not_checked_where_files_may_be_hard_links(cli, conf, tmp_path):
    """The pull option ``use_hard_links`` makes times meaningless (semantics §6.3)."""
    conf('driver = "vfs"')
    source = tmp_path / "t"
    source.write_bytes(archive(("f", b"data")))
    assert cli.bare("import-layer", "--id", "l", "-f", str(source)).status == 0
    os.utime(tmp_path / "g/vfs/dir/l/f", (1, 1))
    assert cli.bare("check", "--max", "1h").status == 0


def test_an_unknown_driver_is_told_and_logged(cli, tmp_path):
    """cli.md §1.5: the refusal on standard output, a log line on standard error."""
    roots = ("--graph", f"{tmp_path}/g", "--run", f"{tmp_path}/r")
    result = cli.bare(*roots, "-s", "nosuch", "layers")
    what = f"ailed to GetDriver graph nosuch {tmp_path}/g"
    assert result.status == 1
    assert result.text == f"error initializing: f{what}: driver not supported\n"
    assert re.fullmatch(rf'time="[^"]+" level=error msg="F{re.escape(what)}"\n', result.errors)


def test_what_is_not_used_is_told_with_debug(cli, conf):
    conf('driver = "vfs"\nthinpool = "x"')
    result = cli.bare("--debug", "layers")
    assert result.status == 0
    assert "storage.thinpool is not used" in result.errors


@pytest.mark.parametrize(
    ("variable", "path", "problem"),
    [
        ("CONTAINERS_STORAGE_CONF", "nosuch", "open {}: no such file or directory\n"),
        ("CONTAINERS_STORAGE_CONF_OVERRIDE", "nosuch", "open {}: no such file or directory\n"),
        ("CONTAINERS_STORAGE_CONF", "", "read {}: is a directory\n"),
        ("CONTAINERS_STORAGE_CONF", "broken.conf", 'decode configuration "{}": toml: '),
    ],
)
def test_a_file_that_the_environment_names_is_read_whatever_the_flags_say(
    cli, tmp_path, monkeypatch, variable, path, problem
):
    (tmp_path / "broken.conf").write_text("x = [")
    named = os.path.join(tmp_path, path).rstrip("/")
    monkeypatch.setenv(variable, named)
    result = cli("layers")
    assert (result.status, result.err) == (1, b"")
    assert result.text.startswith("error initializing: " + problem.format(named))
    assert not (tmp_path / "graph").exists()


def test_refused_options_have_the_words_that_scripts_know(cli, tmp_path):
    assert cli("--storage-opt", "vfs.mountopt=nodev", "layers") == (
        1, b"error initializing: vfs driver does not support mount options\n", b"",
    )  # fmt: skip
    (tmp_path / "graph/vfs").mkdir(parents=True)
    (tmp_path / "graph/overlay").mkdir()
    several = cli.bare("-g", f"{tmp_path}/graph", "-R", f"{tmp_path}/run", "layers")
    assert several == (
        1,
        f"error initializing: {tmp_path}/graph contains several valid graphdrivers: overlay, vfs; "
        "Please cleanup or explicitly choose storage driver (-s <DRIVER>)\n".encode(),
        b"",
    )


def test_the_roots_are_private_also_where_no_driver_is_named(cli, tmp_path):
    """Looking for a driver that works used to make them first, for everybody to read."""
    for name, driver in (("named", ("-s", "vfs")), ("found", ())):
        roots = ("-g", f"{tmp_path}/{name}/graph", "-R", f"{tmp_path}/{name}/run")
        assert cli.bare(*roots, *driver, "layers") == (0, b"", b"")
        for root in ("graph", "run"):
            assert (tmp_path / name / root).stat().st_mode & 0o7777 == 0o700


def test_roots_that_cannot_be_made(cli, tmp_path):
    (tmp_path / "file").touch()
    for graph, run, problem in (
        ("file", "run", "{}/file: not a directory"),
        ("file/sub", "run", "{}/file: not a directory"),
        ("graph", "file", "{}/file: not a directory"),
        ("/proc/nope/x", "run", "/proc/nope: no such file or directory"),
    ):
        text = f"error initializing: mkdir {problem.format(tmp_path)}\n"
        roots = ("-g", str(tmp_path / graph), "-R", str(tmp_path / run), "-s", "vfs")
        assert cli.bare(*roots, "layers") == (1, text.encode(), b"")


@pytest.mark.parametrize(
    ("storage", "options", "problem"),
    [
        ("driver = 7", "", "storage.driver must be a string"),
        ("", "auto-userns-min-size = -1", "storage.options.auto-userns-min-size must be an int"),
        ("", 'overlay = "x"', "storage.options.overlay must be a table"),
        ("", "size = 5", "storage.options.size must be a string"),
        ("", 'overlay.size = ["x"]', "storage.options.overlay.size must be a string"),
        ("driver = vfs", "", "toml: "),
    ],
)
def test_what_cannot_be_understood_names_file_and_key(
    cli, conf, tmp_path, storage, options, problem
):
    conf(storage, options)
    result = cli.bare("layers")
    assert result.status == 1
    assert result.text.startswith(
        f'error initializing: decode configuration "{tmp_path}/storage.conf": {problem}'
    )
