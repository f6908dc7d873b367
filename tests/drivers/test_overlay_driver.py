"""What only the overlay driver has: its layout, chains, options, ID maps, masks, limits."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cstorage.archive.beneath import open_payload_in_root
from cstorage.drivers import idmapped, layout, mountapi, quota
from cstorage.drivers.contract import DriverOptions, MountOptions, ShiftedMaps
from cstorage.drivers.overlay import OverlayDriver
from cstorage.drivers.overlay_options import Quota
from cstorage.drivers.probe import file_system
from cstorage.errors import DriverError, DriverNotSupported
from cstorage.model import IDMapEntry, IDMaps
from tests.drivers.conftest import root_only
from tests.drivers.stage import (
    FUSE,
    ROOTFS,
    Stage,
    archive,
    file,
    folder,
    hard_link,
    listing,
    opaque,
    symlink,
    whiteout,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, root_only]
needs_fuse = pytest.mark.skipif(FUSE is None, reason="fuse-overlayfs is not installed")

SHIFT = IDMaps((IDMapEntry(0, 100000, 65536),), (IDMapEntry(0, 200000, 65536),))


def mount_line(path: Path) -> str:
    text = Path("/proc/self/mountinfo").read_text()
    return next(line for line in text.splitlines() if line.split()[4] == str(path))


# -- layout ----------------------------------------------------------------------------------------


def test_the_layout_is_the_documented_one_to_the_byte(overlay: Stage) -> None:
    overlay.layer("base")
    overlay.layer("mid", "base")
    overlay.layer("top", "mid", writable=True)
    home = overlay.base / "overlay"
    links = {name: (home / name / "link").read_text() for name in ("base", "mid", "top")}
    for name, link in links.items():
        assert re.fullmatch("[A-Z2-7]{26}", link)
        assert os.readlink(home / "l" / link) == f"../{name}/diff"
    assert sorted(os.listdir(home)) == ["base", "l", "mid", "top"]
    assert sorted(os.listdir(home / "l")) == sorted(links.values())
    assert sorted(os.listdir(home / "base")) == ["diff", "empty", "link", "merged", "work"]
    assert sorted(os.listdir(home / "top")) == ["diff", "link", "lower", "merged", "work"]
    assert (home / "mid/lower").read_text() == f"l/{links['base']}"
    assert (home / "top/lower").read_text() == f"l/{links['mid']}:l/{links['base']}"
    modes = {
        path: stat.S_IMODE((home / path).stat().st_mode)
        for path in ("top", "top/diff", "top/work", "top/merged", "top/link", "top/lower", "l", "")
    }
    assert modes == {
        "top": 0o700,
        "top/diff": 0o555,
        "top/work": 0o700,
        "top/merged": 0o700,
        "top/link": 0o644,
        "top/lower": 0o644,
        "l": 0o755,
        "": 0o755,
    }


def test_mode_and_owner_of_the_parents_root_are_inherited(overlay: Stage) -> None:
    overlay.layer("base", "", folder("/", mode=0o1711, uid=5, gid=6))
    overlay.layer("child", "base")
    status = (overlay.directory("child") / "diff").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1711, 5, 6)


def test_a_peer_mounts_our_tree_with_nothing_but_the_files(overlay: Stage, tmp_path: Path) -> None:
    """The kernel accepts the chain as the file ``lower`` names it, relative to the home."""
    overlay.layer("base", "", file("low", "1"))
    overlay.layer("top", "base", file("up", "2"))
    home = overlay.base / "overlay"
    target = tmp_path / "target"
    target.mkdir()
    lower = (home / "top/lower").read_text()
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir=top/diff:{lower}", str(target)],
        check=True,
        cwd=home,
    )
    try:
        assert sorted(os.listdir(target)) == ["low", "up"]
    finally:
        subprocess.run(["umount", str(target)], check=True)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("lower", "l/../../../etc"),
        ("lower", "x/ABC"),
        ("lower", "l/A:l/"),
        ("link", "../../etc"),
    ],
)
def test_files_of_the_layout_are_not_trusted(overlay: Stage, path: str, text: str) -> None:
    overlay.layer("base")
    overlay.layer("child", "base")
    (overlay.directory("child") / path).write_text(text)
    with pytest.raises(DriverError):
        overlay.prepare("grandchild", "child")


def test_a_short_name_that_leads_elsewhere_is_refused(overlay: Stage) -> None:
    overlay.layer("base")
    overlay.layer("child", "base")
    link = overlay.base / "overlay/l" / (overlay.directory("base") / "link").read_text()
    link.unlink()
    link.symlink_to("/etc")
    with pytest.raises(DriverError, match=r"is not \.\./<layer>/diff"):
        overlay.driver.mount("child")


def test_a_lost_short_name_is_made_again(overlay: Stage) -> None:
    overlay.layer("base", "", file("f"))
    overlay.layer("child", "base")
    link = overlay.base / "overlay/l" / (overlay.directory("base") / "link").read_text()
    link.unlink()
    assert os.listdir(overlay.driver.mount("child")) == ["f"]
    assert os.readlink(link) == "../base/diff"
    overlay.driver.unmount("child")


# -- chains ----------------------------------------------------------------------------------------


def chain(stage: Stage, length: int) -> str:
    """A writable layer above ``length`` others, the lowest and highest of which have a file."""
    parent = ""
    for number in range(length):
        with stage.prepare(f"n{number}", parent) as prepared:
            if number in (0, length - 1):
                stage.driver.apply(prepared, io.BytesIO(archive(file(f"f{number}"))))
            stage.driver.publish(prepared)
        parent = f"n{number}"
    stage.layer("top", parent, writable=True)
    return "top"


@pytest.mark.parametrize("legacy", [False, True], ids=["descriptors", "mount-string"])
def test_chains_whose_options_exceed_a_page_mount(
    overlay: Stage, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if legacy:
        monkeypatch.setattr(mountapi, "_appending", False)
    top = chain(overlay, 220)
    lowers = overlay.driver.homes.chain(str(overlay.directory(top)))
    assert len(":".join(lowers)) > os.sysconf("SC_PAGE_SIZE")
    here = os.getcwd()
    path = overlay.driver.mount(top)
    assert sorted(os.listdir(path)) == ["f0", "f219"]
    (path / "written").write_text("x")
    overlay.driver.unmount(top)
    assert (overlay.directory(top) / "diff/written").exists()
    assert os.getcwd() == here


def test_500_lower_directories_mount_and_501_do_not(overlay: Stage) -> None:
    chain(overlay, 500)
    assert sorted(os.listdir(overlay.driver.mount("top"))) == ["f0", "f499"]
    overlay.driver.unmount("top")
    overlay.layer("more", "top", writable=True)
    with pytest.raises(DriverError, match="max depth exceeded"):
        overlay.driver.mount("more")


@pytest.mark.parametrize("legacy", [False, True], ids=["descriptors", "mount-string"])
@pytest.mark.parametrize("folder_name", ["a:b,c\\d", "x" * 200])
def test_any_path_can_be_a_store(
    tmp_path: Path, legacy: bool, folder_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if legacy:
        monkeypatch.setattr(mountapi, "_appending", False)
    made = Stage(tmp_path / folder_name)
    made.layer("base", "", file("f"))
    made.layer("top", "base", writable=True)
    assert os.listdir(made.driver.mount("top")) == ["f"]
    made.driver.unmount("top")
    assert made.close() == []


# -- mounting --------------------------------------------------------------------------------------


def test_mount_flags_become_flags_and_the_rest_stays_data(tmp_path: Path) -> None:
    made = Stage(tmp_path, "overlay", "overlay.mountopt=nodev,nosuid,metacopy=on,xino=off")
    made.layer("base", "", *ROOTFS)
    made.layer("top", "base", writable=True)
    fields = mount_line(made.driver.mount("top")).split()
    assert {"nodev", "nosuid", "rw"} <= set(fields[5].split(","))
    assert "metacopy=on" in fields[-1]
    made.driver.unmount("top")
    # Options of the mount replace the configured ones, but a metacopy that works stays.
    fields = mount_line(made.driver.mount("top", MountOptions(options=("noexec",)))).split()
    assert "noexec" in fields[5]
    assert "nodev" not in fields[5]
    assert "metacopy=on" in fields[-1]
    made.driver.unmount("top")
    assert made.close() == []


def test_metacopy_and_redirects_switch_to_the_naive_diff(tmp_path: Path) -> None:
    made = Stage(tmp_path, "overlay", "overlay.mountopt=metacopy=on,redirect_dir=on")
    made.layer("base", "", *ROOTFS)
    made.layer("top", "base", writable=True)
    path = made.driver.mount("top")
    (path / "etc/motd").chmod(0o600)
    (path / "etc").rename(path / "renamed")
    made.driver.unmount("top")
    status = dict(made.driver.status())
    assert (status["Native Overlay Diff"], status["Using metacopy"]) == ("false", "true")
    names = made.diff("top", "base").names()
    assert {"renamed", "renamed/motd", ".wh.etc"} <= set(names)
    assert made.close() == []


def test_probe_results_are_remembered_under_the_originals_names(tmp_path: Path) -> None:
    made = Stage(tmp_path, "overlay", "overlay.mountopt=nodev")
    status = dict(made.driver.status())
    run = made.base / "run/overlay"
    expected = {
        "overlay-true",
        f"metacopy(nodev)-{status['Using metacopy']}",
        f"native-diff(nodev)-{status['Native Overlay Diff']}",
        f"idmapped-lower-dir-{status['Supports shifting']}",
        f"volatile-{status['Supports volatile']}",
    }
    assert set(os.listdir(run)) == expected
    (run / f"volatile-{status['Supports volatile']}").rename(run / "volatile-false")
    again = Stage(tmp_path, "overlay", "overlay.mountopt=nodev")
    assert dict(again.driver.status())["Supports volatile"] == "false"
    assert os.listdir(made.base / "overlay") == []


def test_a_scratch_directory_of_a_killed_probe_goes_with_the_next_probe(overlay: Stage) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = overlay.base / f"overlay/.probe-{dead.pid}-x"
    (left / "upper").mkdir(parents=True)
    overlay.driver.status()
    assert not left.exists()


def test_volatile_mounts_work_again_after_a_crash(overlay: Stage) -> None:
    overlay.layer("a", writable=True)
    path = overlay.driver.mount("a", MountOptions(volatile=True))
    assert "volatile" in mount_line(path)
    overlay.driver.unmount("a")
    assert (overlay.directory("a") / "work/work/incompat/volatile").exists()
    overlay.driver.mount("a", MountOptions(volatile=True))
    overlay.driver.unmount("a")


def test_options_of_the_driver_cannot_be_overridden(overlay: Stage) -> None:
    overlay.layer("a", writable=True)
    for option in ("lowerdir=/etc", "upperdir=/tmp", "workdir=/tmp"):
        with pytest.raises(DriverError, match="is the driver's own"):
            overlay.driver.mount("a", MountOptions(options=(option,)))


def test_a_refused_mount_says_what_the_kernel_said(overlay: Stage) -> None:
    overlay.layer("a", writable=True)
    with pytest.raises(DriverError, match=r"creating overlay mount to .*/a/merged: .*nonsense"):
        overlay.driver.mount("a", MountOptions(options=("nonsense",)))
    assert overlay.mounts() == []


def test_a_mount_label_reaches_the_kernel(overlay: Stage) -> None:
    """Without SELinux the kernel refuses the option, which shows that it was passed."""
    overlay.layer("a", writable=True)
    if Path("/sys/fs/selinux/enforce").exists():
        pytest.skip("SELinux is on: any label could be right or wrong here")
    with pytest.raises(DriverError, match="context"):
        overlay.driver.mount("a", MountOptions(label="system_u:object_r:container_file_t:s0"))


def test_layers_of_read_only_stores_are_mounted_read_only_in_the_run_root(
    overlay: Stage, tmp_path: Path
) -> None:
    overlay.layer("base", "", file("f", "x"))
    mine = Stage(tmp_path / "mine", additional_homes=(overlay.base / "overlay",))
    path = mine.driver.mount("base")
    assert path == tmp_path / "mine/run/overlay/base/merged"
    assert os.listdir(path) == ["f"]
    with pytest.raises(OSError, match="Read-only"):
        (path / "new").touch()
    mine.driver.unmount("base")
    assert not path.parent.exists()
    assert mine.close() == []


def test_views_for_diffs_are_never_attached(overlay: Stage) -> None:
    overlay.layer("base", "", *ROOTFS)
    overlay.layer("mid", "base", whiteout("null"))
    overlay.layer("top", "mid")
    with overlay.driver.view("top") as tree:
        assert overlay.mounts() == []
        assert "null" not in os.listdir(tree)
    before = Path("/proc/self/mountinfo").read_text()
    overlay.changes("top", "base")
    assert Path("/proc/self/mountinfo").read_text() == before


def test_native_changes_follow_the_rules_of_upper_directories(overlay: Stage) -> None:
    overlay.layer("base", "", *ROOTFS, folder("e"), file("e/old"))
    overlay.layer(
        "child",
        "base",
        folder("e"),
        opaque("e"),
        file("e/z"),
        folder("etc"),
        file("etc/passwd", "x"),
    )
    assert overlay.changes("child", "base") == [
        ("D", "/e"),
        ("A", "/e/z"),
        ("M", "/etc/passwd"),
    ]


def test_a_finished_directory_replaces_a_layers_content_at_once(overlay: Stage) -> None:
    overlay.layer("a", "", file("old"))
    staged = overlay.work / "finished"
    staged.mkdir()
    (staged / "new").touch()
    assert overlay.driver.stages_content
    overlay.driver.replace_content("a", staged)
    assert os.listdir(overlay.directory("a") / "diff") == ["new"]
    assert os.listdir(staged) == ["old"]


def test_unmounting_also_drops_the_copy_in_another_mount_namespace(overlay: Stage) -> None:
    """A process that kept our mount in its own namespace must not keep the layer busy."""
    overlay.layer("a", writable=True)
    overlay.driver.mount("a")
    other = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write(b"ready\n")
    other.stdin.flush()
    assert other.stdout.readline() == b"ready\n"
    seen = Path(f"/proc/{other.pid}/mountinfo")
    try:
        assert str(overlay.base) in seen.read_text()
        overlay.driver.unmount("a")
        assert str(overlay.base) not in seen.read_text()
    finally:
        other.stdin.close()
        other.wait()


# -- ID maps ---------------------------------------------------------------------------------------


@pytest.fixture
def shifting(overlay: Stage) -> Stage:
    if not overlay.driver.can_shift_ids:
        pytest.skip("this kernel or file system has no ID-mapped lower directories")
    return overlay


def test_a_mount_shows_other_owners_and_new_files_belong_to_the_mapped_root(
    shifting: Stage,
) -> None:
    shifting.layer("base", "", *ROOTFS)
    shifting.layer("mid", "base", file("mid", uid=10, gid=20))
    shifting.layer("top", "mid", writable=True)
    path = shifting.driver.mount("top", MountOptions(maps=SHIFT))
    owners = {name: row[1:3] for name, row in listing(path).items()}
    assert owners["etc/passwd"] == (100001, 200002)
    assert owners["mid"] == (100010, 200020)
    assert owners["bin/su"] == (100000, 200000)
    assert (path.stat().st_uid, path.stat().st_gid) == (100000, 200000)
    assert (path / "etc/passwd").read_text() == "root:x:0:0\n"
    assert [point for point in shifting.mounts() if "mapped" in point] == []
    # A process in a user namespace with these maps is root there.
    with idmapped.user_namespace(SHIFT) as namespace:
        script = "echo new > new; chmod 700 etc; ls -lan etc/passwd"
        done = subprocess.run(
            ["nsenter", f"--user=/proc/{os.getpid()}/fd/{namespace}", "sh", "-c", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=path,  # the way here is closed to that user
        )
    assert done.stdout.split()[2:4] == ["1", "2"]
    shifting.driver.unmount("top")
    diff = shifting.directory("top") / "diff"
    assert (diff / "new").stat().st_uid == 100000
    assert (shifting.directory("base") / "diff/etc/passwd").stat().st_uid == 1


def test_changes_of_a_mounted_shifted_layer_are_its_own_only(shifting: Stage) -> None:
    shifting.layer("base", "", *ROOTFS)
    shifting.layer("mid", "base")
    shifting.layer("top", "mid", writable=True)
    path = shifting.driver.mount("top", MountOptions(maps=SHIFT))
    (path / "new").touch()
    assert shifting.changes("top", "base", maps=SHIFT) == [("A", "/new")]
    shifting.driver.unmount("top")


def test_a_layer_with_other_maps_cannot_be_shifted(shifting: Stage) -> None:
    shifting.layer("a", writable=True)
    with pytest.raises(DriverError, match="shifting not enabled"):
        shifting.driver.mount("a", MountOptions(maps=SHIFT, layer_maps=IDMaps(SHIFT.gids)))


def test_shifting_can_be_switched_off(overlay: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    assert not overlay.driver.can_shift_ids
    assert not overlay.driver.can_shift(SHIFT)
    assert dict(overlay.driver.status())["Supports shifting"] == "false"


def test_without_shifting_a_copy_with_new_owners_is_made_and_rotated_away(
    overlay: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    overlay.layer("base", "", *ROOTFS)
    os.setxattr(
        overlay.directory("base") / "diff/bin/su",
        "security.capability",
        bytes.fromhex("0100000200200000000000000000000000000000"),
    )
    overlay.layer("mapped", "", template="base", maps=SHIFT)
    directory = overlay.directory("mapped")
    assert directory.stat().st_uid == 100000
    assert os.listdir(directory / "diff") == []
    copied = listing(directory / "diff1")
    assert copied["etc/passwd"] == ("-rw-r--r--", 100001, 200002, "root:x:0:0\n")
    assert copied["bin/su"] == ("-rwsr-xr-x", 100000, 200000, "#!")
    assert os.getxattr(directory / "diff1/bin/su", "security.capability")
    assert (directory / "diff1/etc/passwd").stat().st_nlink == 2
    # A child with the same maps finds the rotated content, and changes are only its own.
    overlay.layer("top", "mapped", writable=True, maps=SHIFT, parent_maps=SHIFT)
    path = overlay.driver.mount("top", MountOptions(maps=SHIFT, layer_maps=SHIFT))
    assert {row[1] for row in listing(path).values()} == {100000, 100001}
    (path / "added").touch()
    overlay.driver.unmount("top")
    assert overlay.changes("top", "mapped", maps=SHIFT, parent_maps=SHIFT) == [("A", "/added")]
    # Back to host IDs.
    overlay.layer("back", "top", parent_maps=SHIFT)
    with overlay.driver.view("back") as tree:
        assert os.stat("etc/passwd", dir_fd=tree).st_uid == 1
    # Seen with its maps, the copy differs in nothing from what it was copied from.
    assert overlay.changes("mapped", "base", maps=SHIFT) == []


def test_an_owner_outside_the_old_maps_is_an_error_that_leaves_nothing(
    overlay: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    overlay.layer("base", "", file("f", uid=7))
    narrow = IDMaps((IDMapEntry(0, 100000, 5),), ())
    with pytest.raises(DriverError, match="owner 7:0 of a file: host ID 7 cannot be mapped"):
        overlay.prepare("x", "base", parent_maps=narrow, maps=SHIFT)
    assert not list(overlay.work.glob("*/*"))


ROOTLESS = """
import io, os, sys
from pathlib import Path
from tests.drivers.stage import Stage, archive, file, folder, opaque, whiteout
stage = Stage(Path(sys.argv[1]))
print(dict(stage.driver.status())["Native Overlay Diff"], stage.driver.probe.user_xattr)
stage.layer("base", "", folder("d"), file("d/old"), file("gone"), file("kept", "x"))
stage.layer("child", "base", folder("d"), opaque("d"), file("d/new"), whiteout("gone"))
stage.layer("top", "child", writable=True)
path = stage.driver.mount("top")
print(sorted(os.listdir(path)), os.listdir(path / "d"))
(path / "kept").unlink()
stage.driver.unmount("top")
print(stage.changes("top", "child"), stage.changes("child", "base"))
print(stage.close())
"""


def test_a_user_namespaces_root_uses_the_marks_it_may_set(tmp_path: Path) -> None:
    source = Path(__file__).parents[2]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", ROOTLESS,
         str(tmp_path / "store")],
        capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(source), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "true True",
        "['d', 'kept'] ['new']",
        "[('D', '/kept')] [('D', '/d'), ('A', '/d/new'), ('D', '/gone')]",
        "[]",
    ], done.stderr


# -- mount program ---------------------------------------------------------------------------------


@needs_fuse
def test_a_mount_program_maps_owners_with_its_options(tmp_path: Path) -> None:
    made = Stage(tmp_path, "overlay-fuse")
    made.layer("base", "", *ROOTFS)
    made.layer("top", "base", writable=True)
    assert made.driver.can_shift(SHIFT)
    gaps = IDMaps((IDMapEntry(0, 1, 1), IDMapEntry(5, 100, 1)), ())
    assert not made.driver.can_shift(gaps)
    path = made.driver.mount("top", MountOptions(maps=SHIFT))
    assert " fuse" in mount_line(path)
    assert (path / "etc/passwd").stat().st_uid == 100001
    made.driver.unmount("top")
    assert (made.base / "overlay/.has-mount-program").read_bytes() == b"true"
    assert made.close() == []


@needs_fuse
def test_a_mask_hides_modes_and_keeps_them_in_an_attribute(tmp_path: Path) -> None:
    made = Stage(tmp_path, "overlay-fuse", "overlay.force_mask=private")
    made.layer("base", "", *ROOTFS)
    diff = made.directory("base") / "diff"
    su = diff / "bin/su"
    assert stat.S_IMODE(su.stat().st_mode) == 0o700
    assert os.getxattr(su, "user.containers.override_stat").startswith(b"0:0:4755")
    made.layer("top", "base", writable=True)
    path = made.driver.mount("top")
    assert stat.S_IMODE((path / "bin/su").stat().st_mode) == 0o4755
    assert (path / "etc/passwd").stat().st_uid == 1
    made.driver.unmount("top")
    assert made.close() == []


def test_a_mask_for_writable_layers_needs_a_mount_program(tmp_path: Path) -> None:
    made = Stage(tmp_path, "overlay", "overlay.force_mask=0700")
    made.layer("base")
    with pytest.raises(DriverError, match="only supported with a mount_program"):
        made.prepare("top", "base", writable=True)


def test_a_mount_program_that_fails_is_quoted(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
    program.chmod(0o755)
    made = Stage(tmp_path / "s", "overlay", f"overlay.mount_program={program}")
    made.layer("a", writable=True)
    with pytest.raises(DriverError, match=r"it is broken \(exit status 3\)"):
        made.driver.mount("a")


@needs_fuse
def test_fuse_steps_in_where_the_kernel_cannot(tmp_path: Path) -> None:
    """A home on an overlay: the kernel refuses it as upper directory, FUSE does not."""
    outer = Stage(tmp_path / "outer")
    outer.layer("disk", writable=True)
    disk = outer.driver.mount("disk")
    inner = Stage(disk / "inner")
    with pytest.raises(DriverNotSupported, match="not supported over overlayfs"):
        inner.driver.check_supported()
    inner.layer("base", "", file("f", "x"))
    inner.layer("top", "base", writable=True)
    path = inner.driver.mount("top")
    assert " fuse" in mount_line(path)
    assert (path / "f").read_text() == "x"
    inner.driver.unmount("top")
    outer.driver.unmount("disk")
    assert outer.close() == []


# -- limits ----------------------------------------------------------------------------------------


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("mkfs.xfs is not installed")
    image, target = tmp_path / "image", tmp_path / "disk"
    target.mkdir()
    with image.open("wb") as disk:
        disk.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop,prjquota", str(image), str(target)],
        check=False, capture_output=True,
    )  # fmt: skip
    if mounted.returncode != 0:
        subprocess.run(["mount", "-o", "loop", str(image), str(target)], check=True)
    yield target
    subprocess.run(["umount", str(target)], check=True)


def test_limits_where_the_file_system_has_none_are_a_clear_error(overlay: Stage) -> None:
    limits = {"size": "10m"}
    with pytest.raises(DriverError, match="does not support Project Quota"):
        overlay.prepare("a", writable=True, storage_options=limits)
    assert not list(overlay.work.glob("*/*"))
    with pytest.raises(DriverError, match="only supported for read-write layers"):
        overlay.prepare("a", storage_options=limits)
    with pytest.raises(DriverError, match="unknown option colour"):
        overlay.prepare("a", writable=True, storage_options={"colour": "red"})


@pytest.mark.parametrize("name", sorted(layout.NOT_LAYERS))
def test_the_drivers_own_directories_are_no_layers(overlay: Stage, name: str) -> None:
    overlay.layer("a")
    with pytest.raises(DriverError, match="is a name of the overlay directory itself"):
        overlay.layer(name)
    assert overlay.driver.layers() == ["a"]


def test_links_in_a_view_are_followed_wherever_they_lead(overlay: Stage) -> None:
    """The kernel answers EAGAIN to absolute links with ".." in mounts that are attached nowhere."""
    overlay.layer("a", "", folder("d"), file("f", "here"), symlink("d/l", "/../../f"))
    with overlay.driver.view("a") as tree:
        descriptor = open_payload_in_root(tree, b"d/l")
    with open(descriptor) as found:
        assert found.read() == "here"


@pytest.mark.parametrize("text", ["size=1g", "overlay.inodes=5"])
def test_limits_for_all_layers_need_xfs_when_the_store_is_opened(tmp_path: Path, text: str) -> None:
    found = file_system(str(tmp_path))
    with pytest.raises(DriverError, match=f"only supported for backingFS XFS. Found {found}$"):
        OverlayDriver(DriverOptions(tmp_path / "overlay", tmp_path / "run", (text,)))
    OverlayDriver(DriverOptions(tmp_path / "overlay", tmp_path / "run", ("size=0",)))


def test_limits_are_accepted_on_xfs(xfs: Path) -> None:
    OverlayDriver(DriverOptions(xfs / "overlay", xfs / "run", ("size=1g",)))


def test_every_limited_layer_gets_a_project_that_its_content_inherits(xfs: Path) -> None:
    home, run = str(xfs / "overlay"), str(xfs / "run")
    projects = []
    for name in ("a", "b"):
        path = f"{home}/{name}"
        os.makedirs(path)
        projects.append(quota.limit_layer(path, Quota(), home, run, [home]))
        os.mkdir(f"{path}/inner")
        descriptor = os.open(f"{path}/inner", os.O_RDONLY)
        assert quota.project_id(descriptor) == projects[-1]
        os.close(descriptor)
    start = quota.first_project(0, os.stat(home).st_ino)
    assert projects == [start, start + 1]
    os.unlink(f"{run}/last-project")  # as after a reboot: found again from the layers
    os.mkdir(f"{home}/c")
    assert (
        quota.limit_layer(f"{home}/c", Quota(), home, run, [f"{home}/a", f"{home}/b"]) == start + 2
    )


def test_a_full_layer_is_refused_more_space(xfs: Path) -> None:
    made = Stage(xfs)
    refusal = None
    try:
        made.layer("a", writable=True, storage_options={"size": "1m", "inodes": "100"})
    except DriverError as error:
        refusal = str(error)
    if refusal is not None:
        assert "Project Quota" in refusal
        pytest.skip("this kernel is built without XFS quotas")
    path = made.driver.mount("a")
    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT) + "|No space"):
        (path / "big").write_bytes(b"x" * (4 << 20))
    made.driver.unmount("a")


def test_layout_constants_agree() -> None:
    assert len(layout.new_link_name()) == layout.LINK_LENGTH == 26
    assert json.dumps(sorted(layout.NOT_LAYERS)) == '["l", "staging", "tempdirs"]'


def test_hard_links_between_files_of_an_archive_survive_a_change_of_owners(
    overlay: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    overlay.layer("base", "", folder("d"), file("d/one", "1"), hard_link("two", "d/one"))
    overlay.layer("copy", "", template="base", maps=SHIFT)
    with overlay.driver.view("copy") as tree:
        one, two = (os.stat(name, dir_fd=tree) for name in ("d/one", "two"))
    assert one.st_ino == two.st_ino
    assert one.st_uid == two.st_uid == 100000


def test_directories_of_hard_links_keep_their_times_when_owners_change(
    overlay: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making a link again is a change of its directory, which the archive says nothing of."""
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    entries = (folder("d"), file("d/one", "1"), hard_link("d/two", "d/one"))
    overlay.layer("base", "", *entries)
    overlay.layer("copy", "", template="base", maps=SHIFT)
    with overlay.driver.view("copy") as tree:
        assert os.stat("d", dir_fd=tree).st_mtime == 1_000_000


@pytest.mark.parametrize("program", [False, pytest.param(True, marks=needs_fuse)])
def test_content_written_through_a_shifting_mount_is_compared_as_its_mounts_show_it(
    tmp_path: Path, program: bool
) -> None:
    """The kernel stores the mapped owners, a mount program the host's."""
    made = Stage(tmp_path, "overlay-fuse" if program else "overlay")
    if not made.driver.can_shift(SHIFT):
        pytest.skip("this kernel or file system has no ID-mapped lower directories")
    made.layer("base", "", *ROOTFS)
    made.layer("mid", "base", file("mid", uid=10, gid=20))
    made.layer("top", "mid", writable=True)
    path = made.driver.mount("top", MountOptions(maps=SHIFT))
    root = (path.stat().st_uid, path.stat().st_gid)
    (path / "new").write_text("12345")
    os.chown(path / "new", 100003, 200004)
    on_disk = (made.directory("top") / "diff/new").stat()
    maps = ShiftedMaps(*SHIFT)
    for mounted in (True, False):
        if not mounted:
            made.driver.unmount("top")
        assert made.changes("top", "base", maps=maps) == [("A", "/mid"), ("A", "/new")]
        assert made.driver.diff_size("top", "base", maps=maps) == 5
        (member,) = [m for m in made.diff("top", "mid", maps=maps).members() if m.name == "new"]
        assert (member.uid, member.gid) == (3, 4)
    assert root == (100000, 200000)
    assert (on_disk.st_uid, on_disk.st_gid) == ((3, 4) if program else (100003, 200004))
    assert made.close() == []
    assert not [name for name in os.listdir(made.base / "run/overlay") if "view" in name]
