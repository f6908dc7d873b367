"""What only a process of its own shows: signals, pipes, names, namespaces, the journal's words."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from pathlib import Path

import pytest
from command_line import PROJECT, archive, process

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="changes user, which needs root")


@pytest.fixture
def roots(cli):
    return cli.roots


OTHER = 12345
"""A user ID that no account has."""


def readable_python():
    """An interpreter of this version that every user can run, with the project's folder too."""
    for path in (sys.executable, "/usr/bin/python3"):
        real = Path(path).resolve()
        folders = [*real.parents, *PROJECT.parents, PROJECT]
        if real.exists() and all(folder.stat().st_mode & 0o001 for folder in folders):
            asked = [path, "-c", "import sys; print(*sys.version_info[:2])"]
            version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            if version.split() == [str(part) for part in sys.version_info[:2]]:
                return path
    return None


def run(*words, **options):
    child = process(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


def tree(cli):
    """Names of everything below the graph root, but for the journal's own files."""
    root = Path(cli.roots[cli.roots.index("--graph") + 1])
    return sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if "journal" not in path.parts
    )


class TestJournal:
    def test_every_change_is_told_with_its_reason(self, cli):
        cli.ok("--reason", "a test", "create-layer", "--id", "base", "-n", "a b")
        cli.ok("create-image", "--reason", "two\nlines", "--id", "img", "base")
        cli.ok("delete-image", "img")
        lines = cli.ok("history").splitlines()
        who = rf"uid {os.geteuid()}, cstorage create-layer\[\d+\]@\S+"
        time = r"\d{4}-\d\d-\d\dT[0-9:.]+Z"
        assert re.fullmatch(
            rf'2 {time} {who}: layer created base names "a b" \("a test"\)', lines[1]
        )
        assert lines[2].endswith(': image created img top layer base ("two\\nlines")')
        assert [line.split()[0] for line in lines] == [f"{n + 1}" for n in range(len(lines))]

    def test_the_history_of_one_item_outlives_it(self, cli):
        cli.ok("create-layer", "--id", "base")
        cli.ok("create-image", "--id", "img", "base")
        cli.ok("set-metadata", "-m", "secret", "img")
        cli.ok("delete-image", "img")
        found = json.loads(cli.ok("history", "--json", "img"))
        assert [entry["event"] for entry in found] == [
            "ImageCreated",
            "MetadataSet",
            "ImageDeleted",
        ]
        assert found[1]["data"] == {"kind": "i", "id": "img", "metadata": "secret"}
        assert found[1]["actor"]["uid"] == os.geteuid()
        assert cli.ok("history", "--json", "nosuch") == "[]\n"

    def test_watching_shows_changes_and_ends_quietly_when_interrupted(self, cli, roots):
        cli.ok("create-layer", "--id", "before")
        watcher = process(
            *roots, "watch", "--since", "1", "--json", stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert json.loads(watcher.stdout.readline())["data"]["id"] == "before"
        cli.ok("create-layer", "--id", "after")
        assert json.loads(watcher.stdout.readline())["data"]["id"] == "after"
        watcher.send_signal(signal.SIGINT)
        out, err = watcher.communicate(timeout=30)
        assert (watcher.returncode, out, err) == (130, b"", b"")

    def test_a_sequence_number_is_a_number(self, cli):
        text = "not a sequence number: x; history shows them in its first column\n"
        assert cli("watch", "--since", "x") == (1, b"", text.encode())


class TestStreams:
    def test_a_reader_that_goes_away_is_no_error(self, cli, roots):
        cli.ok("import-layer", "--id", "big", stdin=archive(("f", bytes(1 << 22))))
        child = process(*roots, "diff", "big", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.read(10)
        child.stdout.close()
        assert child.stderr.read() == b""
        child.stderr.close()
        assert child.wait(timeout=60) == 141

    def test_an_interrupted_import_ends_and_leaves_nothing(self, cli, roots):
        """Its input has stalled: a thread waits in a read that nothing will end."""
        cli.ok("create-layer", "--id", "before")
        before = tree(cli)
        reading, writing = os.pipe()
        child = process(
            *roots, "import-layer", "--progress", stdin=reading, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        os.close(reading)
        try:
            os.write(writing, archive(("one", bytes(50_000)), ("two", bytes(50_000)))[:-3000])
            assert child.stderr.read(1) == b"\r"
            assert tree(cli) != before
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=30)
        finally:
            child.kill()
            os.close(writing)
        assert (child.returncode, out) == (130, b"")
        assert err.endswith(b"MiB/s\x1b[K\n")
        assert tree(cli) == before

    def test_a_terminal_is_told_how_far_an_import_is(self, roots):
        terminal, far_end = pty.openpty()
        child = process(
            *roots, "import-layer", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=far_end
        )
        os.close(far_end)
        info = tarfile.TarInfo("endless")
        info.size = 1 << 40
        piece = info.tobuf()
        until = time.monotonic() + 60
        try:
            while not select.select([terminal], [], [], 0.02)[0]:
                assert time.monotonic() < until
                child.stdin.write(piece)
                child.stdin.flush()
                piece = bytes(512)
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=60)
        finally:
            child.kill()
        shown = b""
        with contextlib.suppress(OSError):  # the far end is closed, and nothing is left
            while data := os.read(terminal, 4096):
                shown += data
        os.close(terminal)
        assert (child.returncode, out) == (130, b"")
        line = rb"\r\d+ bytes read, \d+ unpacked, 1 entries, [0-9.]+ MiB/s\x1b\[K"
        assert re.fullmatch(rb"(%b)+\r\n" % line, shown)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    def test_output_that_cannot_be_written_is_one_line(self, cli, roots):
        cli.ok("create-layer", "--id", "l")
        with open("/dev/full", "wb") as full:
            child = process(*roots, "layers", stdout=full, stderr=subprocess.PIPE)
            _, err = child.communicate(timeout=60)
        assert child.returncode == 1
        assert err == b"write /dev/stdout: no space left on device\n"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    @pytest.mark.parametrize("words", [("diff", "l"), ("get-layer-data", "l", "k")])
    def test_data_that_cannot_be_written_names_where_it_was_to_go(self, cli, roots, words):
        cli.ok("import-layer", "--id", "l", stdin=archive(("f", bytes(1 << 20))))
        cli.ok("set-layer-data", "l", "k", stdin=b"a short one")
        with open("/dev/full", "wb") as full:
            child = process(*roots, *words, stdout=full, stderr=subprocess.PIPE)
            _, err = child.communicate(timeout=60)
        assert (child.returncode, err) == (1, b"write /dev/stdout: no space left on device\n")
        full_file = cli(words[0], "-f", "/dev/full", *words[1:])
        assert full_file == (1, b"", b"write /dev/full: no space left on device\n")

    def test_standard_input_that_is_closed_is_one_line(self, cli, roots):
        words = [
            sys.executable,
            "-c",
            "from cstorage.cli.main import main; raise SystemExit(main())",
        ]
        command = " ".join(f"'{word}'" for word in [*words, *roots, "import-layer"])
        done = subprocess.run(
            ["sh", "-c", f"exec {command} <&-"], capture_output=True, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr == b"read /dev/stdin: bad file descriptor\n"

    def test_debug_lines_come_first_and_can_be_silenced_again(self, cli, tmp_path):
        result = cli("--debug", "layers")
        texts = re.findall(r'level=debug msg="([^"]*)"', result.errors)
        assert texts[:4] == [
            f"Root: {tmp_path}/graph",
            f"Run Root: {tmp_path}/run",
            "Driver Name: vfs",
            "Driver Options: []",
        ]
        stamp = r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)" level=debug msg='
        assert re.match(stamp, result.errors)
        assert cli("--debug", "layers", "--debug=false").err == b""


class TestOpening:
    def test_roots_are_made_absolute(self, cli, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = cli.bare("-g", "g", "-R", "r", "-s", "vfs", "status")
        assert f"Root: {tmp_path}/g\nRun Root: {tmp_path}/r\n" in result.errors

    def test_flags_after_the_command_win_over_those_before(self, cli, tmp_path):
        cli.ok("create-layer", "--graph", f"{tmp_path}/other", "--id", "there")
        assert (tmp_path / "other/vfs/dir/there").is_dir()
        assert not (tmp_path / "graph").exists()

    def test_a_driver_alone_is_not_enough(self, cli):
        text = (
            b"error initializing: no storage runroot or graphroot specified: "
            b"missing necessary StoreOptions\n"
        )
        assert cli.bare("-s", "vfs", "layers") == (1, text, b"")

    def test_the_configuration_is_used_when_nothing_is_said(self, cli, tmp_path, monkeypatch):
        file = tmp_path / "storage.conf"
        file.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/cg"\nrunroot = "{tmp_path}/cr"\n'
        )
        monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(file))
        assert cli.bare("create-layer", "--id", "here").status == 0
        assert (tmp_path / "cg/vfs/dir/here").is_dir()
        shown = json.loads(cli.bare("config").out)
        assert shown["root"] == f"{tmp_path}/cg"
        assert shown["PullOptions"] is None

    def test_a_missing_configuration_file_fails_every_command_but_wrong_words_come_first(
        self, cli, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("CONTAINERS_STORAGE_CONF", f"{tmp_path}/nosuch")
        result = cli.bare("layers")
        assert result.status == 1
        assert result.text.startswith("error initializing: ")
        assert f"{tmp_path}/nosuch: no such file or directory" in result.text
        assert cli.bare("frob").text == "frob: unrecognized command.\n"
        assert cli.bare("layers", "--frob").status == 125

    def test_a_store_that_cannot_be_opened_is_told_on_standard_output(self, cli, tmp_path):
        (tmp_path / "graph").write_text("a file")
        result = cli("layers")
        assert result.status == 1
        assert result.text.startswith("error initializing: ")
        assert result.out.count(b"\n") == 1

    def test_an_unknown_driver(self, cli, tmp_path):
        result = cli.bare("-g", f"{tmp_path}/g", "-R", f"{tmp_path}/r", "-s", "zzz", "layers")
        assert result.status == 1
        assert result.text.startswith("error initializing: ")
        assert "driver not supported" in result.text

    def test_a_defect_is_one_line_and_with_debug_its_trace(self, cli, monkeypatch):
        from cstorage.store.store import Store

        def broken(self):
            raise ValueError("a bug")

        monkeypatch.setattr(Store, "layers", broken)
        text = b"internal error: ValueError: a bug; run again with --debug\n"
        assert cli("layers") == (2, b"", text)
        assert "Traceback (most recent call last)" in cli("--debug", "layers").errors


@pytest.mark.root
@ROOT_ONLY
class TestNamespaces:
    def test_a_command_runs_in_a_new_user_namespace(self, cli, roots, tmp_path):
        own = os.readlink("/proc/self/ns/user").encode()
        status, out, err = run(*roots, "unshare", "sh", "-c", "readlink /proc/self/ns/user; id -u")
        assert (status, err) == (0, b"")
        namespace, uid = out.split()
        assert namespace != own
        assert uid == b"0"

    @pytest.mark.parametrize(
        ("command", "text"),
        [
            (["sh", "-c", "exit 3"], "exit status 3"),
            (["sh", "-c", "kill -9 $$"], "signal: killed"),
            (["no-such-command"], 'exec: "no-such-command": executable file not found in $PATH'),
            (["./no-such"], "fork/exec ./no-such: no such file or directory"),
            (["/etc/passwd"], "fork/exec /etc/passwd: permission denied"),
        ],
    )
    def test_every_failure_of_the_command_is_exit_status_1(self, roots, command, text):
        assert run(*roots, "unshare", *command) == (1, b"", f"{text}\n".encode())

    def test_a_command_of_ours_can_be_run_in_a_namespace(self, roots):
        assert run(*roots, "create-layer", "-U", "--id", "inside") == (0, b"inside\n", b"")
        assert run(*roots, "-U", "layers", "-q") == (0, b"inside\n", b"")
        assert run(*roots, "-U", "exists", "nosuch") == (1, b"nosuch: false\n", b"")

    def test_another_user_gets_a_namespace_by_itself(self):
        python = readable_python()
        if python is None:
            pytest.skip("no Python of this version that other users may run")
        code = "import sys; from cstorage.cli.main import main; sys.exit(main(sys.argv[1:]))"
        packages = Path(sysconfig.get_path("purelib"))
        with tempfile.TemporaryDirectory() as home:
            os.chown(home, OTHER, OTHER)
            environment = {
                "HOME": home,
                "PATH": os.defpath,
                "PYTHONPATH": f"{PROJECT}:{packages}",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            words = [python, "-c", code, "cstorage", "-g", f"{home}/g", "-R", f"{home}/r"]
            done = subprocess.run(
                [*words, "-s", "vfs", "unshare", "id", "-u"],
                user=OTHER, group=OTHER, extra_groups=[], cwd=home, env=environment,
                capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stdout) == (0, b"0\n")
            said = [line.partition(b" level=")[2].decode() for line in done.stderr.splitlines()]
            whose = r"subuid mappings for user \"12345\" and subgid mappings for group \"12345\""
            none = r"no subuid ranges found for user \"12345\" in /etc/subuid"
            assert said == [
                f'warning msg="Reading allowed ID mappings: reading {whose}: {none}"',
                r'warning msg="Found no UID ranges set aside for user \"12345\" in /etc/subuid."',
                r'warning msg="Found no GID ranges set aside for user \"12345\" in /etc/subgid."',
            ]
            assert os.stat(f"{home}/g").st_uid == OTHER
