"""Driver names, options, which driver a store uses, and deleting trees that resist."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cstorage.drivers import mountapi, options, overlay_options, registry, removal
from cstorage.drivers.contract import DriverOptions
from cstorage.drivers.overlay import OverlayDriver
from cstorage.drivers.removal import remove_tree
from cstorage.drivers.vfs import VfsDriver
from cstorage.errors import DriverError, DriverNotSupported
from tests.drivers.conftest import root_only
from tests.drivers.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = {
    "foo": "unable to parse key/value option: foo",
    "foo=bar": 'unknown option "foo" ("foo=bar")',
    "zzz.foo=bar": 'unknown driver "zzz" in option "zzz.foo=bar"',
    "ignore_chown_errors=maybe": 'strconv.ParseBool: parsing "maybe": invalid syntax',
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("factory", [VfsDriver, OverlayDriver])
def test_wrong_options_have_the_originals_texts(factory: type, text: str) -> None:
    with pytest.raises(DriverError) as caught:
        factory(DriverOptions("/g/x", "/r/x", (text,)))
    assert str(caught.value) == TEXTS[text]


def test_only_overlay_knows_additional_stores_by_two_names() -> None:
    OverlayDriver(DriverOptions("/g", "/r", ("additionalimagestore=/",)))
    VfsDriver(DriverOptions("/g", "/r", ("imagestore=/",)))
    with pytest.raises(DriverError, match=r'^unknown option "additionalimagestore"'):
        VfsDriver(DriverOptions("/g", "/r", ("additionalimagestore=/",)))


@pytest.mark.parametrize("text", ["mountopt=nodev", "vfs.mountopt=nodev", ".mountopt=nodev"])
def test_vfs_refuses_mount_options(text: str) -> None:
    with pytest.raises(DriverError, match=r"^vfs driver does not support mount options$"):
        VfsDriver(DriverOptions("/g/vfs", "/r/vfs", (text,)))


def test_vfs_refuses_the_documented_sync_option() -> None:
    with pytest.raises(DriverError, match=r'^unknown option "sync" \("vfs.sync=none"\)$'):
        VfsDriver(DriverOptions("/g/vfs", "/r/vfs", ("vfs.sync=none",)))


def test_options_of_other_drivers_are_not_even_validated() -> None:
    VfsDriver(DriverOptions("/g", "/r", ("overlay.odd=1", "overlay2.x=y", "zfs.z=", "BTRFS.a=b")))
    OverlayDriver(DriverOptions("/g", "/r", ("vfs.odd=1",)))


def test_keys_and_prefixes_ignore_case() -> None:
    parsed = overlay_options.parse(("Overlay.MountOpt=nodev,Foo", "OVERLAY2.SYNC=filesystem"))
    assert parsed.mountopt == ("nodev", "Foo")
    assert parsed.sync == "filesystem"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size=10g", overlay_options.Quota(10 << 30, 0)),
        ("size=1.5kb", overlay_options.Quota(1536, 0)),
        ("size=5 MiB", overlay_options.Quota(5 << 20, 0)),
        ("inodes=7", overlay_options.Quota(0, 7)),
    ],
)
def test_sizes_have_units(text: str, expected: overlay_options.Quota) -> None:
    assert overlay_options.parse((text,)).quota == expected


@pytest.mark.parametrize(
    "text",
    [
        "size=ten", "size=-1", "size=1q", "size=nan", "size=", "inodes=x", "inodes=-1",
        "force_mask=9", "force_mask=-7", "sync=maybe", "imagestore=relative",
        "imagestore=/no/such/dir", "mount_program=/no/such/program", "use_composefs=2",
        "use_composefs=true",
    ],
)  # fmt: skip
def test_values_that_make_no_sense_are_driver_errors(text: str) -> None:
    with pytest.raises(DriverError):
        OverlayDriver(DriverOptions("/g", "/r", (f"overlay.{text}",)))


def test_masks_have_names() -> None:
    assert [overlay_options.force_mask(t) for t in ("shared", "private", "0755")] == [
        0o755,
        0o700,
        0o755,
    ]


def test_additional_stores_are_listed_once_in_order() -> None:
    given = (
        "imagestore=/a,/b",
        "overlay.additionalimagestore=/c",
        "imagestore=/a",
        "vfs.imagestore=/v",
    )
    assert options.additional_stores("overlay", given) == ("/a", "/b", "/c")
    assert options.additional_stores("vfs", given) == ("/a", "/b", "/v")


def test_mount_flags_and_data_are_told_apart() -> None:
    flags, data = mountapi.split_options(["nodev", "metacopy=on", "ro", "", "rw", "noexec", "exec"])
    assert data == ("metacopy=on",)
    assert flags == mountapi.Flags(4, 4)
    assert mountapi.split_options(["ro"])[0].read_only


# -- choice ----------------------------------------------------------------------------------------


def test_a_named_driver_is_used_and_an_unknown_one_refused(tmp_path: Path) -> None:
    assert registry.select(tmp_path, tmp_path, "overlay2") == "overlay"
    with pytest.raises(DriverNotSupported) as caught:
        registry.open_driver("nonsense", tmp_path, tmp_path)
    assert str(caught.value) == (
        f"failed to GetDriver graph nonsense {tmp_path}: driver not supported"
    )


def test_prior_state_decides(tmp_path: Path) -> None:
    (tmp_path / "overlay").mkdir()
    assert registry.select(tmp_path, tmp_path / "run") == "overlay"
    assert not (tmp_path / "run").exists()


def test_state_of_several_drivers_needs_a_choice(tmp_path: Path) -> None:
    (tmp_path / "overlay").mkdir()
    (tmp_path / "vfs").mkdir()
    with pytest.raises(DriverError, match=r"contains several valid graphdrivers: overlay, vfs; "):
        registry.select(tmp_path, tmp_path)
    assert registry.select(tmp_path, tmp_path, "vfs") == "vfs"


def test_old_vfs_state_counts_only_if_vfs_is_in_a_configured_priority(tmp_path: Path) -> None:
    (tmp_path / "vfs").mkdir()
    assert registry.select(tmp_path, tmp_path, priority=["vfs", "overlay"]) == "vfs"


@pytest.mark.root
@root_only
def test_without_state_the_first_driver_that_works_is_used(tmp_path: Path) -> None:
    assert registry.select(tmp_path / "g", tmp_path / "r") == "overlay"
    assert registry.select(tmp_path / "g2", tmp_path / "r", priority=["zfs", "vfs"]) == "vfs"


@pytest.mark.root
@root_only
def test_a_driver_that_does_not_work_here_is_skipped(tmp_path: Path) -> None:
    outer = Stage(tmp_path)
    outer.layer("disk", writable=True)
    disk = outer.driver.mount("disk")
    assert registry.select(disk / "graph", tmp_path / "r") == "vfs"
    outer.driver.unmount("disk")
    assert outer.close() == []


def test_looking_for_a_layer_loads_nothing_heavy(tmp_path: Path) -> None:
    """The command line's ``exists`` must stay inside its start-up budget."""
    script = (
        "import sys; from cstorage.drivers.registry import open_driver;"
        f"open_driver('overlay', {str(tmp_path)!r}, {str(tmp_path)!r}).exists('x');"
        "print(*sorted(set(sys.modules) & {'ctypes', 'pathlib', 'tempfile', 'subprocess', 'shutil',"
        "'importlib.metadata', 'logging', 'dataclasses', 'cstorage.archive.apply', 'threading'}))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == ""


# -- removal ---------------------------------------------------------------------------------------


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "a"))
    remove_tree(str(tmp_path / "a/b"))


def test_links_are_removed_not_followed(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "keep")
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == ["keep"]
    assert os.listdir(tmp_path / "keep") == ["file"]


def test_a_directory_is_emptied_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, empty directories and full ones among each other, more than are read at once."""
    monkeypatch.setattr(removal, "PART", 3)
    for number in range(20):
        (tmp_path / f"tree/empty{number}").mkdir(parents=True)
        (tmp_path / f"tree/full{number}/a/b").mkdir(parents=True)
        (tmp_path / f"tree/full{number}/a/file").touch()
        (tmp_path / f"tree/file{number}").touch()
        (tmp_path / f"tree/link{number}").symlink_to(tmp_path / "tree/empty0")
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


@pytest.mark.root
@root_only
def test_empty_directories_in_immutable_ones_are_removed(tmp_path: Path) -> None:
    (tmp_path / "tree/d/empty").mkdir(parents=True)
    for path in ("tree/d/empty", "tree/d"):
        subprocess.run(["chattr", "+i", str(tmp_path / path)], check=True)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


@pytest.mark.root
@root_only
def test_immutable_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / "tree/d").mkdir(parents=True)
    (tmp_path / "tree/d/file").touch()
    for path, flag in (("tree/d/file", "+i"), ("tree/d", "+a"), ("tree", "+i")):
        subprocess.run(["chattr", flag, str(tmp_path / path)], check=True)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


@pytest.mark.root
@root_only
def test_a_forgotten_mount_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "tree/inner").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path / "tree/inner")], check=True)
    try:
        (tmp_path / "tree/inner/precious").touch()
        with pytest.raises(OSError, match="something is mounted here"):
            remove_tree(str(tmp_path / "tree"))
        assert (tmp_path / "tree/inner/precious").exists()
    finally:
        subprocess.run(["umount", str(tmp_path / "tree/inner")], check=True)
