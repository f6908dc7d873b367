"""What every graph driver promises, proved for each of them with real mounts."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cstorage.drivers import mountapi
from cstorage.drivers.contract import MountOptions
from cstorage.errors import ArchiveError, ContentChanged, DriverError, InvalidID
from tests.drivers.stage import (
    FOLDERS,
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
    pass

EXPECTED_ROOTFS = {
    "etc": ("drwxr-xr-x", 0, 0, ""),
    "etc/passwd": ("-rw-r--r--", 1, 2, "root:x:0:0\n"),
    "etc/shadow": ("-rw-r--r--", 1, 2, "root:x:0:0\n"),
    "etc/link": ("lrwxrwxrwx", 0, 0, "passwd"),
    "etc/motd": ("-rw-r--r--", 0, 0, "hello"),
    "bin": ("drwxr-x---", 0, 0, ""),
    "bin/su": ("-rwsr-xr-x", 0, 0, "#!"),
    "null": ("crw-r--r--", 0, 0, "1:3"),
}


def test_constructing_a_driver_touches_nothing(stage: Stage) -> None:
    assert not (stage.base / stage.name).exists()
    assert not (stage.base / "run").exists()
    assert stage.driver.exists("x") is False
    assert stage.driver.layers() == []
    assert not (stage.base / stage.name).exists()
    assert not (stage.base / "run").exists()


def test_a_prepared_layer_is_invisible_until_it_is_published(stage: Stage) -> None:
    prepared = stage.prepare("a")
    stage.driver.apply(prepared, io.BytesIO(archive(*ROOTFS)))
    assert not stage.driver.exists("a")
    assert stage.driver.layers() == []
    assert stage.traces("a") == []
    stage.driver.publish(prepared)
    prepared.close()
    assert stage.driver.exists("a")
    assert stage.driver.layers() == ["a"]
    assert not list(stage.work.glob("*/*"))


def test_an_applied_archive_is_seen_exactly_through_a_mount(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS)
    stage.layer("top", "base", writable=True)
    path = stage.driver.mount("top")
    assert listing(path) == EXPECTED_ROOTFS
    assert (path / "etc/passwd").stat().st_ino == (path / "etc/shadow").stat().st_ino
    assert (path / "etc/passwd").stat().st_mtime == 1_000_000
    stage.driver.unmount("top")


def test_a_base_layer_starts_with_mode_0555_whatever_the_umask(stage: Stage) -> None:
    before = os.umask(0o077)
    try:
        stage.layer("base")
        stage.layer("child", "base")
    finally:
        os.umask(before)
    for layer in ("base", "child"):
        root = stage.directory(layer)
        root = root / "diff" if stage.name == "overlay" else root
        assert stat.S_IMODE(root.stat().st_mode) == 0o555


def test_a_layer_on_a_missing_parent_is_refused_and_leaves_nothing(stage: Stage) -> None:
    expected = f"Stat {stage.base}/{stage.name}/"
    expected += "nope/diff" if stage.name == "overlay" else f"{FOLDERS[stage.name]}/nope"
    with pytest.raises(DriverError) as caught:
        stage.prepare("a", "nope")
    assert str(caught.value) == f"{expected}: no such file or directory"
    assert not list(stage.work.glob("*/*"))


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../x", "a\0b", "x" * 201])
def test_ids_that_could_leave_the_home_are_refused_everywhere(stage: Stage, bad: str) -> None:
    with pytest.raises(InvalidID):
        stage.prepare(bad)
    with pytest.raises(InvalidID):
        stage.driver.withdraw(bad, stage.trash)
    for operation in (stage.driver.exists, stage.driver.mount, stage.driver.unmount):
        with pytest.raises(InvalidID):
            operation(bad)
    if bad:
        with pytest.raises(InvalidID):
            stage.prepare("fine", bad)


def test_a_child_sees_its_parent_and_cannot_change_it(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS)
    stage.layer("child", "base", writable=True)
    path = stage.driver.mount("child")
    (path / "etc/passwd").write_text("changed")
    (path / "bin/su").unlink()
    (path / "new").write_text("new")
    stage.driver.unmount("child")
    stage.layer("other", "base", writable=True)
    assert listing(stage.driver.mount("other")) == EXPECTED_ROOTFS
    stage.driver.unmount("other")


def test_content_written_through_a_mount_is_there_at_the_next_one(stage: Stage) -> None:
    stage.layer("a", writable=True)
    (stage.driver.mount("a") / "f").write_text("kept")
    stage.driver.unmount("a")
    assert (stage.driver.mount("a") / "f").read_text() == "kept"
    stage.driver.unmount("a")


def test_mounting_twice_and_unmounting_twice_are_harmless(stage: Stage) -> None:
    stage.layer("a", writable=True)
    first = stage.driver.mount("a")
    assert stage.driver.mount("a") == first
    assert stage.driver.is_mounted("a")
    stage.driver.unmount("a")
    stage.driver.unmount("a")
    assert stage.mounts() == []
    assert stage.driver.is_mounted("a") is (stage.name != "overlay")


def test_another_process_sees_the_kernels_truth_about_mounts(stage: Stage) -> None:
    stage.layer("a", writable=True)
    stage.driver.mount("a")
    other = Stage(stage.base, stage.variant)
    assert other.driver.is_mounted("a")
    other.driver.unmount("a")
    assert stage.driver.is_mounted("a") is (stage.name != "overlay")


def test_mounting_an_unknown_layer_is_an_error(stage: Stage) -> None:
    with pytest.raises(DriverError, match="no such file or directory"):
        stage.driver.mount("nope")


def test_whiteouts_and_opaque_directories_hide_what_is_below(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS, folder("d"), file("d/old", "old"), folder("d/sub"))
    stage.layer("child", "base", whiteout("etc/link"), folder("d"), opaque("d"), file("d/new", "n"))
    stage.layer("top", "child", writable=True)
    path = stage.driver.mount("top")
    assert sorted(os.listdir(path / "d")) == ["new"]
    assert sorted(os.listdir(path / "etc")) == ["motd", "passwd", "shadow"]
    stage.driver.unmount("top")


def test_a_broken_archive_raises_only_archive_errors(stage: Stage) -> None:
    with stage.prepare("a") as prepared, pytest.raises(ArchiveError):
        stage.driver.apply(prepared, io.BytesIO(archive(*ROOTFS)[:700]))
    assert not stage.driver.exists("a")


def test_changes_against_the_parent_name_every_edit(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS)
    stage.layer("child", "base", writable=True)
    path = stage.driver.mount("child")
    (path / "etc/motd").write_text("changed and longer")
    (path / "bin/su").unlink()
    (path / "new").mkdir()
    (path / "new/file").write_text("12345")
    stage.driver.unmount("child")
    found = stage.changes("child", "base")
    for expected in (("M", "/etc/motd"), ("D", "/bin/su"), ("A", "/new"), ("A", "/new/file")):
        assert expected in found
    assert ("D", "/etc/link") not in found
    size = stage.driver.diff_size("child", "base")
    assert size >= len("changed and longer") + 5


def test_changes_without_a_parent_are_everything(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS)
    assert stage.changes("base") == [("A", f"/{name}") for name in sorted(EXPECTED_ROOTFS)]


def test_changes_against_a_layer_that_is_not_the_parent(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS)
    stage.layer("mid", "base", file("mid", "1"))
    stage.layer("top", "mid", file("top", "2"), whiteout("null"))
    assert stage.changes("top", "base") == [("A", "/mid"), ("A", "/top"), ("D", "/null")]
    assert sorted(stage.diff("top", "base").names()) == [".wh.null", "mid", "top"]
    assert stage.driver.diff_size("top", "base") == 2


def test_a_diff_applied_to_another_layer_gives_the_same_tree(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS, folder("d"), file("d/x", "x"))
    stage.layer("child", "base", writable=True)
    path = stage.driver.mount("child")
    (path / "etc/motd").write_text("changed")
    os.unlink(path / "null")
    os.unlink(path / "d/x")
    os.symlink("target", path / "d/y")
    os.setxattr(path / "bin/su", "user.note", b"value")
    wanted = listing(path)
    stage.driver.unmount("child")
    diff = stage.diff("child", "base").data
    with stage.prepare("copy", "base") as prepared:
        summary = stage.driver.apply(prepared, io.BytesIO(diff))
        stage.driver.make_durable(prepared)
        stage.driver.publish(prepared)
    assert summary.uncompressed_size == len(diff)
    stage.layer("look", "copy", writable=True)
    path = stage.driver.mount("look")
    assert listing(path) == wanted
    assert os.getxattr(path / "bin/su", "user.note") == b"value"
    stage.driver.unmount("look")


def test_an_archive_can_be_applied_to_a_published_layer(stage: Stage) -> None:
    stage.layer("base", "", file("one", "1"))
    summary = stage.driver.apply_to("base", io.BytesIO(archive(file("two", "2"))))
    assert summary.uids == (0,)
    assert {name for _, name in stage.changes("base")} == {"/one", "/two"}
    with pytest.raises(DriverError, match="no such file"):
        stage.driver.apply_to("nope", io.BytesIO(b""))


def test_what_is_applied_to_a_published_layer_is_on_disk_when_the_call_returns(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.layer("a", "", *ROOTFS)
    there = Path(stage.driver.content_root("a")) / "etc/hosts"
    complete = []

    def sync(_descriptor: int) -> None:
        complete.append(there.exists())

    monkeypatch.setattr(mountapi, "sync_file_system", sync)
    stage.driver.apply_to("a", io.BytesIO(archive(file("etc/hosts", "::1"))))
    assert complete[-1]


def test_a_disk_that_fails_early_fails_the_layer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written ahead of need on a thread may fail there, but must be told at the end."""
    failed = threading.Event()

    def sync(_descriptor: int) -> None:
        failed.set()
        raise OSError(errno.EIO, "broken disk")

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                assert failed.wait(10)
            return data

    monkeypatch.setattr(mountapi, "sync_file_system", sync)
    prepared = stage.prepare("a")
    stage.driver.apply(prepared, Slow(archive(*ROOTFS)))
    with pytest.raises(OSError, match="broken disk"):
        stage.driver.make_durable(prepared)
    prepared.close()


def test_payloads_come_from_the_uppermost_layer_and_never_from_outside(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS, file("f", "lower"), file("only-below", "b"))
    stage.layer("top", "base", file("f", "upper"), symlink("out", "/etc/hostname"))

    def content(name: bytes) -> bytes:
        descriptor = stage.driver.open_payload("top", name)
        try:
            return os.read(descriptor, 100)
        finally:
            os.close(descriptor)

    assert content(b"f") == b"upper"
    assert content(b"./f") == b"upper"
    assert content(b"only-below") == b"b"
    for bad in (b"out", b"null", b"etc", b"missing", b"etc/link"):
        with pytest.raises(ContentChanged):
            content(bad)
    reader = stage.driver.payloads("top")
    descriptors = [reader(b"f"), reader(b"only-below")]
    reader.close()
    assert [os.read(d, 10) for d in descriptors] == [b"upper", b"b"]
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_template_copy_has_the_templates_content(stage: Stage) -> None:
    stage.layer("base", "", file("below", "1"))
    stage.layer("template", "base", file("inside", "2"))
    stage.layer("copy", "base", template="template")
    stage.layer("look", "copy", writable=True)
    assert sorted(os.listdir(stage.driver.mount("look"))) == ["below", "inside"]
    stage.driver.unmount("look")
    assert stage.changes("copy", "base") == [("A", "/inside")]


def test_layers_can_be_prepared_on_a_parent_that_is_not_published_yet(stage: Stage) -> None:
    lower = stage.prepare("lower")
    stage.driver.apply(lower, io.BytesIO(archive(file("low", "1"))))
    (stage.work / "next").mkdir()
    upper = stage.driver.prepare(stage.plan("upper", "lower"), stage.work / "next", lower)
    stage.driver.apply(upper, io.BytesIO(archive(file("up", "2"))))
    for prepared in (lower, upper):
        stage.driver.publish(prepared)
        prepared.close()
    assert sorted(os.listdir(stage.driver.mount("upper"))) == ["low", "up"]
    stage.driver.unmount("upper")


def test_withdrawing_moves_every_trace_into_the_trash(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS)
    stage.layer("child", "base", writable=True)
    stage.driver.mount("child")
    assert stage.driver.withdraw("child", stage.trash) is True
    assert stage.mounts() == []
    assert stage.traces("child") == []
    assert not stage.driver.exists("child")
    assert os.listdir(stage.trash) == ["child"]
    assert stage.driver.withdraw("child", stage.trash) is False
    assert stage.driver.layers() == ["base"]


def test_an_id_can_be_used_again_and_withdrawn_into_the_same_trash(stage: Stage) -> None:
    for expected in (["a"], ["a", "a.1"], ["a", "a.1", "a.2"]):
        stage.layer("a", "", file("f", "x"))
        stage.driver.withdraw("a", stage.trash)
        assert sorted(os.listdir(stage.trash)) == expected


def test_publishing_over_an_existing_layer_is_refused(stage: Stage) -> None:
    stage.layer("a", "", file("f", "old"))
    with pytest.raises(DriverError, match="already exists"):
        stage.layer("a", "", file("f", "new"))
    assert stage.driver.withdraw("a", stage.trash) is True


def test_layers_of_additional_stores_can_be_parents_but_not_changed(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS)
    stage.layer("image", "base", file("image", "i"))
    mine = Stage(stage.base / "mine", stage.variant, additional_homes=(stage.base / stage.name,))
    assert mine.driver.exists("image")
    assert mine.driver.layers() == []
    mine.layer("top", "image", writable=True)
    path = mine.driver.mount("top")
    assert listing(path) == {**EXPECTED_ROOTFS, "image": ("-rw-r--r--", 0, 0, "i")}
    mine.driver.unmount("top")
    with pytest.raises(DriverError, match="read-only store"):
        mine.driver.apply_to("image", io.BytesIO(archive(file("x"))))
    assert mine.driver.withdraw("image", mine.trash) is False
    assert stage.driver.exists("image")


def test_a_split_image_store_receives_the_layers_that_are_not_writable(stage: Stage) -> None:
    images = stage.base / "images" / stage.name
    mine = Stage(stage.base / "mine", stage.variant, image_home=images)
    mine.layer("image", "", *ROOTFS)
    mine.layer("top", "image", writable=True)
    assert (images / FOLDERS[stage.name] / "image").is_dir()
    assert mine.directory("top").is_dir()
    assert mine.driver.layers() == ["image", "top"]
    assert listing(mine.driver.mount("top")) == EXPECTED_ROOTFS
    mine.driver.unmount("top")
    assert mine.driver.withdraw("image", mine.trash)
    assert mine.driver.layers() == ["top"]


def test_read_only_mounts_show_the_layer(stage: Stage) -> None:
    stage.layer("base", "", *ROOTFS)
    path = stage.driver.mount("base", MountOptions(options=("ro",)))
    assert listing(path) == EXPECTED_ROOTFS
    if stage.name == "overlay":
        with pytest.raises(OSError, match="Read-only file system"):
            (path / "new").write_text("")
    stage.driver.unmount("base")


def test_a_hard_link_to_a_symbolic_link_survives_in_a_child(stage: Stage) -> None:
    stage.layer("base", "", symlink("s", "nowhere"), hard_link("h", "s"))
    stage.layer("child", "base", writable=True)
    path = stage.driver.mount("child")
    assert os.readlink(path / "h") == "nowhere"
    assert (path / "h").lstat().st_ino == (path / "s").lstat().st_ino
    stage.driver.unmount("child")


def test_status_rows_are_the_originals(stage: Stage) -> None:
    names = [name for name, _ in stage.driver.status()]
    assert names == (
        []
        if stage.name != "overlay"
        else [
            "Backing Filesystem",
            "Supports d_type",
            "Native Overlay Diff",
            "Using metacopy",
            "Supports shifting",
            "Supports volatile",
        ]
    )
