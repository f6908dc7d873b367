"""podman, buildah, skopeo and the original's own tool read a store of ours in place."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers
import pytest

from cstorage.errors import ItemPinned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WHY = peers.missing("podman", "buildah", "skopeo", "containers-storage")
pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.skipif(bool(_WHY), reason=_WHY)]

NAME = "localhost/test:1"


class Shown:
    """A projected store, and what the tree of its image must look like."""

    def __init__(self, graph: Path, image: peers.Loaded, tree: dict[str, Any]) -> None:
        self.graph, self.image, self.tree = graph, image, tree


@pytest.fixture(params=["overlay", "vfs"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shown(open_store: Callable[..., Any], layout: Path, driver: str) -> Shown:
    with open_store(driver) as store:
        image = peers.load(store, layout, NAME)
        layer = store.layer(image.layers[-1])
        tree = peers.listing(store.mount(layer.id))
        store.unmount(layer.id)
        store.project()
        return Shown(store.graph_root, image, tree)


@pytest.fixture(params=["in place", "read-only mount"])
def graph(request: pytest.FixtureRequest, shown: Shown, tmp_path: Path) -> Iterator[Path]:
    """The store as the tools see it: itself, or through a read-only bind mount."""
    if request.param == "in place":
        yield shown.graph
        return
    point = tmp_path / "readonly"
    point.mkdir()
    subprocess.run(["mount", "--bind", str(shown.graph), str(point)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(point)], check=True)
    yield point
    subprocess.run(["umount", str(point)], check=True)


def _oci_archive_digests(path: Path) -> tuple[str, list[str]]:
    """Digest of the config and those of the uncompressed layers in an OCI archive or layout."""
    import gzip

    if path.is_file():
        folder = path.with_suffix(".d")
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    else:
        folder = path
    blobs = folder / "blobs" / "sha256"
    index = json.loads((folder / "index.json").read_bytes())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
    found = []
    for layer in manifest["layers"]:
        data = (blobs / layer["digest"][7:]).read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        found.append("sha256:" + hashlib.sha256(data).hexdigest())
    return manifest["config"]["digest"], found


def test_podman_lists_creates_mounts_and_saves(
    shown: Shown, driver: str, graph: Path, tmp_path: Path
) -> None:
    before = peers.listing(shown.graph)
    engine = peers.Engine(tmp_path / "engine", driver, graph)
    listed = json.loads(engine.podman("images", "--format", "json"))
    assert [(r["Id"], r["Names"], r["Digest"]) for r in listed] == [
        (shown.image.id, [NAME], shown.image.digest)
    ]
    inspected = json.loads(engine.podman("inspect", NAME))[0]
    assert inspected["RootFS"]["Layers"] == shown.image.diff_ids
    assert inspected["Digest"] == shown.image.digest
    engine.podman("create", "--name", "c", NAME)
    point = Path(engine.podman("mount", "c").strip())
    assert {k: v for k, v in peers.listing(point).items() if k in shown.tree} == shown.tree
    (point / "written").write_text("by a container")
    engine.podman("umount", "c")
    engine.podman("cp", "c:/etc/three", str(tmp_path / "copied"))
    assert (tmp_path / "copied").read_bytes() == b"three\n"
    engine.podman("save", "-o", str(tmp_path / "o.tar"), "--format", "oci-archive", NAME)
    config, digests = _oci_archive_digests(tmp_path / "o.tar")
    assert (config, digests) == (f"sha256:{shown.image.id}", shown.image.diff_ids)
    engine.podman("rm", "c")
    assert peers.listing(shown.graph) == before  # and nothing was written to our store


def test_skopeo_inspects_and_copies_with_equal_digests(
    shown: Shown, driver: str, graph: Path, tmp_path: Path
) -> None:
    before = peers.listing(shown.graph)
    engine = peers.Engine(tmp_path / "engine", driver, graph)
    found = json.loads(engine.skopeo("inspect", f"containers-storage:{NAME}"))
    assert found["Digest"] == shown.image.digest
    engine.skopeo("copy", f"containers-storage:{NAME}", f"oci:{tmp_path / 'out'}:t")
    config, digests = _oci_archive_digests(tmp_path / "out")
    assert (config, digests) == (f"sha256:{shown.image.id}", shown.image.diff_ids)
    assert peers.listing(shown.graph) == before


def test_buildah_builds_on_an_image_of_ours(
    shown: Shown, driver: str, graph: Path, tmp_path: Path
) -> None:
    before = peers.listing(shown.graph)
    engine = peers.Engine(tmp_path / "engine", driver, graph)
    listed = json.loads(engine.buildah("images", "--json"))
    assert [(r["id"], r["names"], r["digest"]) for r in listed] == [
        (shown.image.id[:12], [NAME], shown.image.digest)
    ]
    inspected = json.loads(engine.buildah("inspect", "--type", "image", NAME))
    assert inspected["FromImageDigest"] == shown.image.digest
    assert inspected["OCIv1"]["rootfs"]["diff_ids"] == shown.image.diff_ids
    engine.buildah("push", "-q", NAME, f"oci:{tmp_path / 'pushed'}:t")
    config, digests = _oci_archive_digests(tmp_path / "pushed")
    assert (config, digests) == (f"sha256:{shown.image.id}", shown.image.diff_ids)
    work = engine.buildah("from", "--pull-never", NAME).strip()
    point = Path(engine.buildah("mount", work).strip())
    assert {k: v for k, v in peers.listing(point).items() if k in shown.tree} == shown.tree
    (point / "added").write_text("by buildah")
    engine.buildah("umount", work)
    engine.buildah("commit", "-q", work, "localhost/built:1")
    inspected = json.loads(engine.podman("inspect", "localhost/built:1"))[0]
    assert inspected["RootFS"]["Layers"][:3] == shown.image.diff_ids
    assert len(inspected["RootFS"]["Layers"]) == 4
    assert peers.listing(shown.graph) == before


def test_the_original_s_tool_lists_makes_containers_and_exports(
    shown: Shown, driver: str, graph: Path, tmp_path: Path
) -> None:
    before = peers.listing(shown.graph)
    engine = peers.Engine(tmp_path / "engine", driver, graph)
    images = engine.original_json("images", "--json")
    assert [(i["id"], i["names"]) for i in images] == [(shown.image.id, [NAME])]
    for id_, diff_id in zip(shown.image.layers, shown.image.diff_ids, strict=True):
        out = tmp_path / f"{id_}.tar"
        engine.original("diff", "-u", "-f", str(out), id_)
        assert "sha256:" + hashlib.sha256(out.read_bytes()).hexdigest() == diff_id
    container = engine.original_json("create-container", "--json", NAME)["id"]
    point = Path(engine.original("mount", container).strip())
    assert {k: v for k, v in peers.listing(point).items() if k in shown.tree} == shown.tree
    engine.original("unmount", container)
    assert peers.listing(shown.graph) == before


def test_a_pull_onto_our_layers_brings_only_what_is_missing(
    shown: Shown, driver: str, tmp_path: Path
) -> None:
    more = [*peers.layers(), peers._tar([("more", b"more\n")])]
    peers.oci_layout(tmp_path / "more", more)
    engine = peers.Engine(tmp_path / "engine", driver, shown.graph)
    engine.skopeo("copy", f"oci:{tmp_path / 'more'}:t", "containers-storage:localhost/more:1")
    own = json.loads((engine.root / f"{driver}-layers" / "layers.json").read_bytes())
    assert [layer["parent"] for layer in own] == [shown.image.layers[-1]]


def test_a_mounted_container_keeps_its_floor_for_the_grace(
    open_store: Callable[..., Any], layout: Path, tmp_path: Path
) -> None:
    """What podman has mounted goes on when we delete its image, as long as the trash is kept."""
    with open_store("overlay") as store:
        image = peers.load(store, layout, NAME)
        store.project(keep=True)
        engine = peers.Engine(tmp_path / "engine", "overlay", store.graph_root)
        engine.podman("create", "--name", "c", NAME)
        point = Path(engine.podman("mount", "c").strip())
        before = peers.listing(point)
        found = {c.mount_point: c.layers for c in store.consumers()}
        assert set(image.layers) <= set(found[str(point)])
        store.pin(NAME, by="podman")
        with pytest.raises(ItemPinned):
            store.delete_image(NAME)
        store.unpin(NAME, by="podman")
        store.delete_image(NAME)
        assert list(store.layers()) == []
        subprocess.run(["sysctl", "-q", "vm.drop_caches=2"], check=True)
        assert peers.listing(point) == before
        engine.podman("umount", "c")


def test_podman_takes_the_root_over(
    open_store: Callable[..., Any], layout: Path, driver: str, tmp_path: Path
) -> None:
    """The own-root form: images and containers of ours, used and changed by podman as its own."""
    from cstorage.errors import ViewChanged
    from cstorage.interop.selection import Form

    with open_store(driver) as store:
        image = peers.load(store, layout, NAME)
        container = store.create_container(image.id, names=["ours"])
        (store.mount(container.id) / "note").write_text("written here")
        store.unmount(container.id)
        store.project(form=Form.OWN_ROOT)
        engine = peers.Engine(tmp_path / "engine", driver).at(store.graph_root)
        listed = json.loads(engine.podman("images", "--format", "json"))
        assert [(r["Id"], r["Names"]) for r in listed] == [(image.id, [NAME])]
        point = Path(engine.original("mount", container.id).strip())
        assert (point / "note").read_text() == "written here"
        engine.original("unmount", container.id)
        engine.podman("create", "--name", "theirs", NAME)
        with pytest.raises(ViewChanged):
            store.project(form=Form.OWN_ROOT)
        assert [c.id for c in store.containers()] == [container.id]


def test_a_chain_of_120_layers(open_store: Callable[..., Any], tmp_path: Path, driver: str) -> None:
    """It is read from an additional store, and mounted in the root of the tool.

    These versions write mount options longer than a page relative to their own root, so that they
    cannot mount such a chain of an additional store, whoever wrote it.
    """
    from cstorage.interop.selection import Form

    depth = 120 if driver == "overlay" else 30  # vfs copies the whole tree for every layer
    archives = [peers._tar([(f"f{n}", b"%d" % n), ("last", b"%d" % n)]) for n in range(depth)]
    peers.oci_layout(tmp_path / "deep", archives)
    with open_store(driver) as store:
        image = peers.load(store, tmp_path / "deep", "localhost/deep:1")
        store.project()
        engine = peers.Engine(tmp_path / "engine", driver, store.graph_root)
        engine.skopeo("copy", "containers-storage:localhost/deep:1", f"oci:{tmp_path / 'out'}:t")
        _, digests = _oci_archive_digests(tmp_path / "out")
        assert digests == image.diff_ids
        store.project(form=Form.OWN_ROOT)
        own = peers.Engine(tmp_path / "own", driver).at(store.graph_root)
        own.podman("create", "--name", "c", "localhost/deep:1")
        point = Path(own.podman("mount", "c").strip())
        assert (point / "last").read_text() == str(depth - 1)
        assert (point / "f0").read_text() == "0"
        own.podman("umount", "c")
