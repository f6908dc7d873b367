"""Owners of a mapped container's files: archives name the container's IDs, mounts the host's.

Whether the driver changed the owners on disk (vfs, overlay without ID-mapped mounts) or shifts them
when it mounts (overlay, fuse-overlayfs), the outcome is the same.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile

import pytest

from cstorage import MapOptions
from cstorage.model import ChangeKind, IDMapEntry, IDMaps
from cstorage.store.checking import CHECK_EVERYTHING
from tests.store.conftest import root_only
from tests.store.place import Place, diff_of, fill

MAP = (IDMapEntry(0, 100000, 65536),)
MAPS = MapOptions(uids=MAP, gids=MAP)
GAPS = (IDMapEntry(0, 100000, 1), IDMapEntry(1, 200001, 65535))
FUSE = shutil.which("fuse-overlayfs")

pytestmark = [pytest.mark.root, root_only]
needs_fuse = pytest.mark.skipif(FUSE is None, reason="fuse-overlayfs is not installed")
WAYS = ["vfs", "overlay", "overlay-unshifted", pytest.param("overlay-program", marks=needs_fuse)]


@pytest.fixture
def driver():
    """Each test names its ways."""
    return "overlay"


@pytest.fixture(params=WAYS)
def mapped(request, tmp_path):
    """A store with a mapped container on an image of two layers; "base" is the lower one."""
    driver, _, way = request.param.partition("-")
    if way == "unshifted":
        request.getfixturevalue("unshifted")
    options = [f"overlay.mount_program={FUSE}"] if way == "program" else []
    place = Place(tmp_path, driver)
    yield with_container(place.open(driver_options=options))
    place.close()


def with_container(store):
    fill(store, id="base")
    middle = io.BytesIO()
    with tarfile.open(fileobj=middle, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("middle"))
    fill(store, middle.getvalue(), id="middle", parent="base")
    store.create_image("image", layer="middle")
    store.create_container("image", id="box", maps=MAPS)
    return store


def write_as(path, host_id, text="new"):
    path.write_text(text)
    os.chown(path, host_id, host_id)


def owners(data: bytes) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name.rstrip("/"): (member.uid, member.gid) for member in tar}


@pytest.mark.parametrize("mounted", [True, False])
def test_the_archive_of_a_container_names_its_own_ids(mapped, mounted):
    layer = mapped.container("box").layer
    path = mapped.mount("box")
    write_as(path / "mine", 100007)
    os.chown(path / "home/user/note", 100000, 100000)
    if not mounted:
        mapped.unmount("box")
    assert owners(diff_of(mapped, layer))["mine"] == (7, 7)
    assert owners(diff_of(mapped, layer))["home/user/note"] == (0, 0)
    changes = {change.path: change.kind for change in mapped.changes(layer)}
    assert changes[b"/mine"] is ChangeKind.ADD
    assert changes[b"/home/user/note"] is ChangeKind.MODIFY
    assert b"/etc" not in changes
    if mounted:
        mapped.unmount("box")


@pytest.mark.parametrize("mounted", [True, False])
def test_compared_with_another_layer_only_what_changed_differs(mapped, mounted):
    """Layers below the container's have owners of their own, on disk and in the comparison."""
    layer = mapped.container("box").layer
    path = mapped.mount("box")
    write_as(path / "mine", 100007)
    if not mounted:
        mapped.unmount("box")
    assert sorted(c.path for c in mapped.changes(layer, "base")) == [b"/middle", b"/mine"]
    assert owners(diff_of(mapped, layer, from_="base")) == {"middle": (0, 0), "mine": (7, 7)}
    assert mapped.diff_size(layer, "base") == 3
    back = {c.path: c.kind for c in mapped.changes("base", layer)}
    assert back == {b"/middle": ChangeKind.DELETE, b"/mine": ChangeKind.DELETE}
    if mounted:
        mapped.unmount("box")


def test_what_the_hosts_root_put_there_is_roots(place):
    """Not every file of a mounted tree was made by the container: no map has to know host ID 0."""
    store = with_container(place.open())
    (store.mount("box") / "by-root").write_text("x")
    store.unmount("box")
    assert owners(diff_of(store, store.container("box").layer))["by-root"] == (0, 0)


def test_an_archive_over_a_containers_layer_gets_the_containers_owners(mapped):
    layer = mapped.container("box").layer
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("applied")
        member.uid, member.gid = 5, 6
        tar.addfile(member)
    mapped.apply_diff(layer, io.BytesIO(data.getvalue()))
    path = mapped.mount("box")
    info = (path / "applied").stat()
    assert (info.st_uid, info.st_gid) == (100005, 100006)
    assert (path.stat().st_uid, path.stat().st_gid) == (100000, 100000)
    mapped.unmount("box")
    assert diff_of(mapped, layer, compression=None) == data.getvalue()
    assert mapped.check(CHECK_EVERYTHING).healthy
    # What strays is put right with the owners that belong there.
    os.chmod(mapped.mount("box") / "applied", 0o600)
    mapped.unmount("box")
    report = mapped.check(CHECK_EVERYTHING)
    assert list(report.layers) == [layer]
    assert mapped.repair(report) == []
    assert mapped.check(CHECK_EVERYTHING).healthy
    assert (mapped.mount("box") / "applied").stat().st_uid == 100005
    mapped.unmount("box")


@needs_fuse
def test_maps_that_a_mount_program_cannot_apply_are_applied_on_disk(place):
    """Maps with gaps (§3.8)."""
    store = place.open(driver_options=[f"overlay.mount_program={FUSE}"])
    store.create_image("image", layer=fill(store, id="base").id)
    box = store.create_container("image", maps=MapOptions(uids=GAPS, gids=GAPS))
    assert store.layer(box.layer).maps == IDMaps(GAPS, GAPS)
    path = store.mount(box.id)
    assert (path / "home/user/note").stat().st_uid == 201000
    store.unmount(box.id)
