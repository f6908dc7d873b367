"""What only the vfs driver has: complete copies, shared extents, owners changed while copying."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cstorage.drivers.contract import MountOptions
from cstorage.drivers.copytree import TreeCopier, copied_attribute
from cstorage.errors import DriverError
from cstorage.idmap import IDMapError
from cstorage.model import IDMapEntry, IDMaps
from tests.drivers.conftest import root_only
from tests.drivers.stage import ROOTFS, Stage, device, file, folder, listing

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, root_only]

SHIFT = IDMaps((IDMapEntry(0, 100000, 65536),), (IDMapEntry(0, 200000, 65536),))


def copy(source: Path, target: Path, **options: object) -> TreeCopier:
    target.mkdir()
    copier = TreeCopier(**options)  # type: ignore[arg-type]
    one, two = (os.open(path, os.O_RDONLY) for path in (source, target))
    copier.copy(one, two)
    os.close(one)
    os.close(two)
    return copier


def test_the_layout_is_the_documented_one(vfs: Stage) -> None:
    vfs.layer("base", "", *ROOTFS)
    vfs.layer("child", "base")
    home = vfs.base / "vfs"
    assert os.listdir(home) == ["dir"]
    assert sorted(os.listdir(home / "dir")) == ["base", "child"]
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert listing(home / "dir/child") == listing(home / "dir/base")


@pytest.fixture(params=["xfs", "btrfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system whose files can share extents."""
    make = f"mkfs.{request.param}"
    if shutil.which(make) is None:
        pytest.skip(f"{make} is not installed")
    image, target = tmp_path / "image", tmp_path / "disk"
    target.mkdir()
    with image.open("wb") as out:
        out.truncate(320 << 20)
    subprocess.run([make, "-q", str(image)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", str(image), str(target)], check=True)
    yield target
    subprocess.run(["umount", str(target)], check=True)


def test_copies_share_extents_where_the_file_system_can(disk: Path) -> None:
    (disk / "from").mkdir()
    (disk / "from/big").write_bytes(os.urandom(20 << 20))
    (disk / "from/small").write_text("x")
    os.sync()
    before = os.statvfs(disk).f_bfree * os.statvfs(disk).f_frsize
    copier = copy(disk / "from", disk / "to")
    os.sync()
    after = os.statvfs(disk).f_bfree * os.statvfs(disk).f_frsize
    assert (copier.files, copier.cloned) == (2, 2)
    assert before - after < 5 << 20
    assert (disk / "to/big").read_bytes() == (disk / "from/big").read_bytes()


def test_copies_between_file_systems_are_read_and_written(disk: Path, tmp_path: Path) -> None:
    (disk / "from").mkdir()
    (disk / "from/f").write_bytes(b"content" * 1000)
    copier = copy(disk / "from", tmp_path / "to")
    assert copier.cloned == 0
    assert (tmp_path / "to/f").read_bytes() == b"content" * 1000


def test_holes_stay_holes(tmp_path: Path) -> None:
    source = tmp_path / "from"
    source.mkdir()
    with (source / "sparse").open("wb") as out:
        out.seek(8 << 20)
        out.write(b"middle")
        out.truncate(64 << 20)
    copy(source, tmp_path / "to")
    copied = tmp_path / "to/sparse"
    assert copied.stat().st_size == 64 << 20
    assert copied.stat().st_blocks * 512 < 1 << 20
    with copied.open("rb") as data:
        data.seek(8 << 20)
        assert data.read(6) == b"middle"
        assert data.read(100) == bytes(100)


def test_everything_about_an_entry_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "from"
    (source / "d/sub").mkdir(parents=True)
    plain = source / "d/file"
    plain.write_text("x")
    os.setxattr(plain, "user.note", b"1")
    os.setxattr(plain, "trusted.note", b"2")
    os.setxattr(source / "d", "trusted.overlay.opaque", b"y")
    os.setxattr(source / "d", "trusted.overlay.origin", b"private")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.chown(plain, 12, 34)
    plain.chmod(0o6755)
    os.setxattr(plain, "security.capability", capability)
    os.link(plain, source / "again")
    os.symlink("d/file", source / "link")
    os.mkfifo(source / "fifo", 0o600)
    os.mknod(source / "device", 0o20640, os.makedev(1, 3))
    (source / os.fsdecode(b"not-utf8-\xff")).touch()
    (source / "d").chmod(0o1777)
    os.chown(source / "link", 5, 6, follow_symlinks=False)
    for path in (plain, source / "link", source / "fifo", source / "d/sub", source / "d", source):
        os.utime(path, ns=(1_111_111_111, 2_222_222_222), follow_symlinks=False)
    copy(source, tmp_path / "to")
    target = tmp_path / "to"
    for path in (source, *source.rglob("*")):
        one, two = path.lstat(), (target / path.relative_to(source)).lstat()
        for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_rdev"):
            assert getattr(one, field) == getattr(two, field), (path, field)
    assert (target / "again").stat().st_ino == (target / "d/file").stat().st_ino
    assert os.getxattr(target / "d/file", "security.capability") == capability
    assert os.getxattr(target / "d/file", "trusted.note") == b"2"
    assert os.listxattr(target / "d") == ["trusted.overlay.opaque"]


def test_labels_and_private_marks_are_not_copied() -> None:
    wanted = ["user.x", "trusted.x", "security.capability", "system.posix_acl_access"]
    left = ["security.selinux", "trusted.overlay.redirect", "trusted.overlay.metacopy"]
    assert [name for name in (*wanted, *left) if copied_attribute(name)] == wanted


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory, where making and removing thousands of directories is quick."""
    target = tmp_path / "memory"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(target)], check=True)
    yield target
    subprocess.run(["umount", str(target)], check=True)


def test_trees_deeper_than_paths_descriptors_and_stack_are_copied_and_removed(
    memory: Path,
) -> None:
    vfs = Stage(memory, "vfs")
    vfs.layer("base")
    here = os.getcwd()
    os.chdir(vfs.directory("base"))
    try:
        for _ in range(1100):
            os.mkdir("directory")
            os.chdir("directory")
        Path("bottom").touch()
    finally:
        os.chdir(here)
    vfs.layer("child", "base")
    path, depth = os.open(vfs.directory("child"), os.O_RDONLY), 0
    while "directory" in os.listdir(path):
        below = os.open("directory", os.O_RDONLY, dir_fd=path)
        os.close(path)
        path, depth = below, depth + 1
    assert (depth, os.listdir(path)) == (1100, ["bottom"])
    os.close(path)
    from cstorage.drivers.removal import remove_tree

    for name in ("base", "child"):
        vfs.driver.withdraw(name, vfs.trash)
        remove_tree(str(vfs.trash / name))
    assert os.listdir(vfs.trash) == []


def test_a_child_with_other_maps_has_other_owners(vfs: Stage) -> None:
    vfs.layer("base", "", *ROOTFS, file("odd", uid=70000, gid=5))
    vfs.layer("mapped", "base", maps=SHIFT)
    owners = {name: row[:3] for name, row in listing(vfs.directory("mapped")).items()}
    assert owners["etc/passwd"] == ("-rw-r--r--", 100001, 200002)
    assert owners["bin/su"] == ("-rwsr-xr-x", 100000, 200000)
    assert owners["odd"] == ("-rw-r--r--", 65534, 200005)  # the new map does not know 70000
    assert vfs.directory("mapped").stat().st_uid == 100000
    vfs.layer("same", "mapped", maps=SHIFT, parent_maps=SHIFT)
    assert listing(vfs.directory("same")) == listing(vfs.directory("mapped"))


def test_dropping_the_maps_restores_the_owners(vfs: Stage) -> None:
    vfs.layer("base", "", *ROOTFS)
    vfs.layer("mapped", "base", maps=SHIFT)
    vfs.layer("back", "mapped", parent_maps=SHIFT)
    assert listing(vfs.directory("back")) == listing(vfs.directory("base"))
    assert vfs.changes("mapped", "base", maps=SHIFT) == []


def test_a_base_layer_with_maps_belongs_to_the_mapped_root(vfs: Stage) -> None:
    vfs.layer("base", "", file("f", uid=3), maps=SHIFT)
    assert vfs.directory("base").stat().st_uid == 100000
    assert (vfs.directory("base") / "f").stat().st_uid == 100003


def test_a_map_without_root_is_refused_and_leaves_nothing(vfs: Stage) -> None:
    five = IDMaps((IDMapEntry(5, 100000, 10),), ())
    with pytest.raises(IDMapError, match=r"^container ID 0 cannot be mapped to a host ID$"):
        vfs.prepare("x", maps=five)
    assert not list(vfs.work.glob("*/*"))


def test_only_ro_is_understood_as_a_mount_option(vfs: Stage) -> None:
    vfs.layer("a")
    assert vfs.driver.mount("a", MountOptions(options=("ro",))) == vfs.directory("a")
    with pytest.raises(DriverError, match=r"^vfs driver does not support mount options$"):
        vfs.driver.mount("a", MountOptions(options=("nodev",)))


def test_whiteouts_delete_for_real(vfs: Stage) -> None:
    from tests.drivers.stage import whiteout

    vfs.layer("base", "", *ROOTFS, folder("d"), device("d/null", 1, 3))
    vfs.layer("child", "base", whiteout("d"), whiteout("etc/passwd"))
    names = set(listing(vfs.directory("child")))
    assert "d" not in names
    assert "etc/passwd" not in names
    assert "etc/shadow" in names
    assert not any(".wh." in name for name in names)


def test_storage_options_are_refused(vfs: Stage) -> None:
    with pytest.raises(DriverError, match="not supported for vfs"):
        vfs.prepare("a", storage_options={"size": "1g"})


# -- btrfs: the same with subvolumes ---------------------------------------------------------------


def test_a_btrfs_child_is_a_snapshot_that_costs_nothing(btrfs_disk: Path) -> None:
    made = Stage(btrfs_disk / "cheap", "btrfs")
    made.layer("base", "", file("big", "x" * (8 << 20)))
    os.sync()
    before = os.statvfs(btrfs_disk).f_bfree
    for number in range(20):
        made.layer(f"child{number}", "base", writable=True)
    os.sync()
    spent = (before - os.statvfs(btrfs_disk).f_bfree) * os.statvfs(btrfs_disk).f_frsize
    assert spent < 8 << 20
    assert made.directory("child0").stat().st_ino == 256  # the root of a subvolume
    (made.directory("child0") / "big").write_text("own")
    assert (made.directory("base") / "big").stat().st_size == 8 << 20


def test_btrfs_layers_get_other_owners_and_go_away_completely(btrfs_disk: Path) -> None:
    from cstorage.drivers.removal import remove_tree

    made = Stage(btrfs_disk / "owners", "btrfs")
    made.layer("base", "", *ROOTFS)
    made.layer("mapped", "base", maps=SHIFT)
    owners = {name: row[:3] for name, row in listing(made.directory("mapped")).items()}
    assert owners["etc/passwd"] == ("-rw-r--r--", 100001, 200002)
    assert owners["bin/su"] == ("-rwsr-xr-x", 100000, 200000)
    assert made.directory("mapped").stat().st_uid == 100000
    for name in ("mapped", "base"):
        made.driver.withdraw(name, made.trash)
        remove_tree(str(made.trash / name))
    assert os.listdir(made.trash) == []
    assert made.driver.layers() == []


def test_btrfs_needs_btrfs_and_refuses_limits(tmp_path: Path) -> None:
    made = Stage(tmp_path, "btrfs")
    with pytest.raises(DriverError, match="btrfs needs a btrfs file system"):
        made.driver.check_supported()
    with pytest.raises(DriverError, match="cannot hold a subvolume"):
        made.layer("a")
    for option in ("btrfs.size=1g", "min_space=1g"):
        with pytest.raises(DriverError, match="is not supported"):
            Stage(tmp_path, "btrfs", option)
    with pytest.raises(DriverError, match=r'^unknown option "imagestore"'):
        Stage(tmp_path, "btrfs", "imagestore=/x")
