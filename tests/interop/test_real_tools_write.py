"""What podman, buildah, skopeo and the original wrote is adopted, exported and used again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers
import pytest

from cstorage.model import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

_WHY = peers.missing("podman", "buildah", "skopeo", "containers-storage")
pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.skipif(bool(_WHY), reason=_WHY)]


class Written:
    """A root that all tools wrote to, and what podman says of it."""

    def __init__(self, engine: peers.Engine) -> None:
        self.engine = engine
        self.images = _images(engine)
        self.archives = _archives(engine)


def _images(engine: peers.Engine) -> dict[str, Any]:
    """ID → names, digest, layers, size as podman lists them."""
    return {
        r["Id"]: (
            sorted(r.get("Names") or []),
            r["Digest"],
            json.loads(engine.podman("inspect", r["Id"]))[0]["RootFS"]["Layers"],
        )
        for r in json.loads(engine.podman("images", "--format", "json"))
    }


def _archives(engine: peers.Engine) -> dict[str, str]:
    """Digests of the layers' archives, made by the original's tool from its files."""
    found = {}
    for layer in engine.original_json("layers", "--json"):
        if layer.get("diff-digest"):
            done = peers.run("containers-storage", "diff", "-u", layer["id"], env=engine.env)
            found[layer["id"]] = "sha256:" + hashlib.sha256(done.out).hexdigest()
    return found


@pytest.fixture(params=["overlay", "vfs"])
def written(request: pytest.FixtureRequest, layout: Path, tmp_path: Path) -> Written:
    engine = peers.Engine(tmp_path / "theirs", request.param)
    engine.skopeo("copy", f"oci:{layout}:t", "containers-storage:localhost/test:1")
    work = engine.buildah("from", "--pull-never", "localhost/test:1").strip()
    point = Path(engine.buildah("mount", work).strip())
    (point / "built").write_text("by buildah")
    (point / "etc" / "one").unlink()
    engine.buildah("umount", work)
    engine.buildah("commit", "-q", "--rm", work, "localhost/built:1")
    engine.podman("tag", "localhost/built:1", "localhost/tagged:2")
    engine.podman("create", "--name", "c", "localhost/built:1")
    point = Path(engine.podman("mount", "c").strip())
    (point / "inside").write_text("by podman")
    engine.podman("umount", "c")
    name = engine.original("create-layer", "-n", "bare").split()[0]
    engine.original("set-layer-data", "-f", str(engine.conf), name, "Some-Data")
    return Written(engine)


def test_adopt_then_export_gives_podman_the_same_images_and_bytes(
    written: Written, open_store: Callable[..., Any], tmp_path: Path
) -> None:
    assert len(written.images) == 2
    engine = written.engine
    before = peers.listing(engine.root)
    with open_store(engine.driver) as store:
        done = store.adopt(engine.root)
        assert done.left_out == ()
        for id_, digest in written.archives.items():
            out = io.BytesIO()
            store.diff(id_, out, compression=Compression.NONE)
            assert "sha256:" + hashlib.sha256(out.getvalue()).hexdigest() == digest
        assert store.layer("bare").big_data[0].name == "Some-Data"
        history = store.image("localhost/tagged:2").names_history
        assert set(history) == {"localhost/built:1", "localhost/tagged:2"}
        exported = store.export(tmp_path / "exported")
        assert exported.left_out == ()
    assert peers.listing(engine.root) == before
    other = peers.Engine(tmp_path / "other", engine.driver).at(tmp_path / "exported")
    assert _images(other) == written.images
    assert _archives(other) == written.archives
    point = Path(other.original("mount", "c").strip())
    assert (point / "inside").read_text() == "by podman"
    assert (point / "built").read_text() == "by buildah"
    assert not (point / "etc" / "one").exists()
    other.original("unmount", "c")
    other.podman("create", "--name", "more", "localhost/built:1")  # a root of its own, to write to


def test_adopted_images_are_read_in_place_by_podman(
    written: Written, open_store: Callable[..., Any], tmp_path: Path
) -> None:
    """Out of podman's store, through ours, into podman again: the digests stay."""
    engine = written.engine
    with open_store(engine.driver) as store:
        store.adopt(engine.root, "link")
        store.project()
        reader = peers.Engine(tmp_path / "reader", engine.driver, store.graph_root)
        assert _images(reader) == written.images


def test_podman_s_store_is_taken_over_where_it_stands(written: Written, tmp_path: Path) -> None:
    import cstorage
    from cstorage.interop.selection import Form

    engine = written.engine
    with cstorage.open(engine.root, tmp_path / "run", engine.driver, taking_over=True) as store:
        assert store.adopt(engine.root, "in-place").left_out == ()
        store.project(form=Form.OWN_ROOT, overwrite=True)
    assert _images(engine) == written.images
    assert _archives(engine) == written.archives


@pytest.mark.parametrize("to", ["overlay", "vfs"])
def test_conversion_keeps_images_digests_and_history(
    written: Written, open_store: Callable[..., Any], tmp_path: Path, to: str
) -> None:
    import cstorage

    engine = written.engine
    with open_store(engine.driver) as store:
        store.adopt(engine.root)
        store.delete_layer(store.create_layer(names=["short-lived"]).id)
        done = store.convert(tmp_path / "converted", to)
        assert done.left_out == ()
        told = [(e.actor, e.reason, type(e.event)) for e in store.history()]
        with cstorage.open(tmp_path / "converted", tmp_path / "crun", to) as copy:
            assert [(e.actor, e.reason, type(e.event)) for e in copy.history()][1:] == told[1:]
            assert [i.id for i in copy.images()] == [i.id for i in store.images()]
            copy.project()
            reader = peers.Engine(tmp_path / "reader", to, copy.graph_root)
            assert _images(reader) == written.images


def test_layers_with_other_owners_come_along(
    layout: Path, open_store: Callable[..., Any], tmp_path: Path
) -> None:
    """Containers in user namespaces have the original make copies of layers with other owners."""
    maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"]
    for driver in ("overlay", "vfs"):
        engine = peers.Engine(tmp_path / f"theirs-{driver}", driver)
        engine.env["_CONTAINERS_OVERLAY_DISABLE_IDMAP"] = "yes"
        engine.skopeo("copy", f"oci:{layout}:t", "containers-storage:localhost/test:1")
        made = engine.original("create-container", "-n", "mapped", *maps, "localhost/test:1")
        with open_store(driver, f"ours-{driver}") as store:
            done = store.adopt(engine.root)
            assert done.left_out == ()
            container = store.container(made.split()[0])
            mine = store.layer(container.layer)
            theirs = next(r for r in engine.original_json("layers", "--json") if r["id"] == mine.id)
            assert [m._asdict() for m in mine.maps.uids] == theirs.get("uidmap", [])
            image = store.image("localhost/test:1")
            assert len(image.mapped_top_layers) == (1 if "uidmap" in theirs else 0)
            if mine.maps:
                point = store.mount(container.id)
                info = os.lstat(point / "etc" / "mine")
                assert (info.st_uid, info.st_gid) == (100007, 200008)
                store.unmount(container.id)


def test_parents_in_an_additional_store_are_taken_from_there(
    layout: Path, open_store: Callable[..., Any], tmp_path: Path
) -> None:
    with open_store("overlay", "base") as base:
        image = peers.load(base, layout, "localhost/test:1")
        base.project()
        engine = peers.Engine(tmp_path / "theirs", "overlay", base.graph_root)
    work = engine.buildah("from", "--pull-never", "localhost/test:1").strip()
    (Path(engine.buildah("mount", work).strip()) / "built").write_text("by buildah")
    engine.buildah("umount", work)
    engine.buildah("commit", "-q", "--rm", work, "localhost/built:1")
    with open_store("overlay") as store:
        alone = store.adopt(engine.root)
        assert alone.adopted == ()
        assert any("is not in the store" in fault.why for fault in alone.left_out)
        done = store.adopt(engine.root, additional=[str(base.graph_root)])
        assert done.left_out == ()
        assert [layer.id for layer in store.layers()][:3] == image.layers
        assert [i.names for i in store.images()] == [("localhost/built:1",)]


_NO_FUSE = peers.missing("fuse-overlayfs")


def _seen(point: Path) -> dict[str, Any]:
    """What a mount shows, with the attribute that the test set."""
    found: dict[str, Any] = dict(peers.listing(point))
    for name in os.listdir(point):
        marks = os.listxattr(point / name, follow_symlinks=False)
        found[f"attributes of {name}"] = sorted(m for m in marks if m.startswith("user."))
    return found


def _true_archives(store: Any) -> None:
    """Every layer's archive has the digest that is recorded."""
    for layer in store.layers():
        if layer.diff.uncompressed_digest:
            out = io.BytesIO()
            store.diff(layer.id, out, compression=Compression.NONE)
            digest = "sha256:" + hashlib.sha256(out.getvalue()).hexdigest()
            assert digest == layer.diff.uncompressed_digest


@pytest.mark.skipif(bool(_NO_FUSE), reason=_NO_FUSE)
@pytest.mark.parametrize("to", ["overlay", "vfs"])
def test_a_store_of_a_mount_program_comes_along(
    layout: Path, open_store: Callable[..., Any], tmp_path: Path, to: str
) -> None:
    """fuse-overlayfs keeps removals and opaque directories in ways of its own."""
    program = 'mount_program = "/usr/bin/fuse-overlayfs"'
    engine = peers.Engine(tmp_path / "theirs", "overlay", overlay=program)
    engine.skopeo("copy", f"oci:{layout}:t", "containers-storage:localhost/test:1")
    work = engine.buildah("from", "--pull-never", "localhost/test:1").strip()
    point = Path(engine.buildah("mount", work).strip())
    (point / "built").write_text("by buildah")
    (point / "etc" / "one").unlink()
    engine.buildah("umount", work)
    engine.buildah("commit", "-q", "--rm", work, "localhost/built:1")
    engine.podman("create", "--name", "c", "localhost/built:1")
    point = Path(engine.podman("mount", "c").strip())
    shutil.rmtree(point / "srv")
    (point / "srv").mkdir()  # opaque: the old one had files
    (point / "srv" / "new").write_text("by podman")
    (point / "etc" / "three").unlink()
    (point / "etc" / "link").unlink()
    (point / "etc" / "link").mkdir()
    os.chown(point / "built", 5, 6)
    (point / "built").chmod(0o4711)
    os.setxattr(point / "built", "user.note", b"kept")
    seen = _seen(point)
    engine.podman("umount", "c")
    with open_store(to) as store:
        assert store.adopt(engine.root, "link").left_out == ()
        _true_archives(store)
        assert _seen(store.mount("c")) == seen
        store.unmount("c")
        store.export(tmp_path / "exported")
    other = peers.Engine(tmp_path / "other", to).at(tmp_path / "exported")
    assert _images(other) == _images(engine)


@pytest.mark.skipif(bool(_NO_FUSE), reason=_NO_FUSE)
@pytest.mark.parametrize("mask", ["shared", "700"])
@pytest.mark.parametrize("to", ["overlay", "vfs"])
def test_masked_owners_and_modes_become_real(
    layout: Path, open_store: Callable[..., Any], tmp_path: Path, mask: str, to: str
) -> None:
    """With ``force_mask`` owners and modes are attributes, of images and containers.

    fuse-overlayfs 1.10 can do little more in such mounts than to make files in their root.
    """
    program = f'mount_program = "/usr/bin/fuse-overlayfs"\nforce_mask = "{mask}"'
    engine = peers.Engine(tmp_path / "theirs", "overlay", overlay=program)
    engine.skopeo("copy", f"oci:{layout}:t", "containers-storage:localhost/test:1")
    engine.podman("create", "--name", "c", "localhost/test:1")
    point = Path(engine.podman("mount", "c").strip())
    (point / "made").write_text("by podman")
    (point / "made").chmod(0o4711)
    engine.podman("umount", "c")
    (kept,) = engine.root.glob("overlay/*/diff/made")
    assert os.getxattr(kept, "user.fuseoverlayfs.override_stat").endswith(b":104711")
    assert oct(kept.stat().st_mode) != "0o104711"
    given = kept.with_name("given")  # as versions write it whose chown works
    given.write_text("to somebody")
    os.setxattr(given, "user.containers.override_stat", b"5:6:100640:file")
    with open_store(to) as store:
        assert store.adopt(engine.root).left_out == ()
        _true_archives(store)
        ours = store.mount("c")
        names = ("made", "given", "etc/mine", "etc")
        found = [(ours / name).stat() for name in names]
        assert [(oct(i.st_mode), i.st_uid, i.st_gid) for i in found] == [
            ("0o104711", 0, 0), ("0o100640", 5, 6), ("0o104755", 7, 8), ("0o40755", 0, 0)
        ]  # fmt: skip
        assert (ours / "made").read_text() == "by podman"
        assert os.listxattr(ours / "made") == []
        store.unmount("c")
