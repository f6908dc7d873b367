"""Keys of storage.conf and variables that no other test uses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cstorage import config
from cstorage.config import StoreOptions, Surroundings
from tests.cli.command_line import process
from tests.cli.conftest import Program


def load(folder: Path, text: str, uid: int = 0, **environ: str) -> StoreOptions:
    file = folder / "storage.conf"
    file.write_text(text)
    environ = {"CONTAINERS_STORAGE_CONF": str(file), "HOME": str(folder), **environ}
    return config.load(Surroundings(environ, uid, bool(uid), str(folder), str(folder)))


def test_every_key_of_the_driver_tables_becomes_an_option(tmp_path: Path) -> None:
    options = load(
        tmp_path,
        """
        [storage.options.overlay]
        mount_program = "/bin/true"
        size = "1g"
        inodes = "1000"
        skip_mount_home = "true"
        force_mask = "shared"
        ignore_chown_errors = "true"
        use_composefs = "false"
        [storage.options.vfs]
        sync = "none"
        [storage.options.btrfs]
        size = "2g"
        [storage.options.zfs]
        mountopt = "nodev"
        size = "3g"
        """,
    )
    assert set(options.driver_options) == {
        "overlay.mount_program=/bin/true",
        "overlay.size=1g",
        "overlay.inodes=1000",
        "overlay.skip_mount_home=true",
        "overlay.force_mask=shared",
        "overlay.ignore_chown_errors=true",
        "overlay.use_composefs=false",
        "vfs.sync=none",
        "btrfs.size=2g",
        "zfs.mountopt=nodev",
        "zfs.size=3g",
    }
    assert options.notes == ()


def test_the_general_composefs_key_is_read_and_not_used(tmp_path: Path) -> None:
    text = """
        [storage.options]
        use_composefs = "true"
        """
    assert load(tmp_path, text) == load(tmp_path, "")


def test_pull_options_are_kept_as_they_are(tmp_path: Path) -> None:
    options = load(
        tmp_path,
        """
        [storage.options.pull_options]
        convert_images = "true"
        insecure_allow_unpredictable_image_contents = "false"
        """,
    )
    assert options.pull_options == {
        "convert_images": "true",
        "insecure_allow_unpredictable_image_contents": "false",
    }


def test_the_runtime_directory_falls_back_to_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.geteuid() or 12345
    folder = tmp_path / f"storage-run-{uid}"
    folder.mkdir(mode=0o700)
    os.chown(folder, uid, -1)
    make = os.makedirs

    def refuse(path: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        if path.startswith("/run/user/"):
            raise PermissionError(13, "Permission denied", path)
        make(path, mode, exist_ok)

    monkeypatch.setattr(os, "makedirs", refuse)
    assert load(tmp_path, "", uid, TMPDIR=str(tmp_path)).run_root == f"{folder}/containers"


def test_unshare_runs_the_shell_of_the_user(cli: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    # In such a namespace already, the command runs where it is.
    monkeypatch.setenv("_CONTAINERS_USERNS_CONFIGURED", "done")
    monkeypatch.setenv("SHELL", "/bin/true")
    assert cli("unshare").status == 0
    monkeypatch.setenv("SHELL", "/bin/false")
    assert cli("unshare") == (1, b"", b"exit status 1\n")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="enters a namespace as root")
def test_a_child_in_a_namespace_knows_who_started_it(cli: Program) -> None:
    with process(*cli.roots, "unshare", "env", stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = child.stdout.read().decode().splitlines()
    assert {"_CONTAINERS_USERNS_CONFIGURED=done", "_CONTAINERS_ROOTLESS_UID=0"} <= set(lines)
    assert "_CONTAINERS_ROOTLESS_GID=0" in lines
