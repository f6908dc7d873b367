"""Stores of other tools are taken over whole where they are whole; the rest is named.

The stores here are exports of ours, which the real tools accept (``test_real_tools_write``), and
damaged on purpose.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers
import pytest

import cstorage
from cstorage.errors import StoreBusy, StoreIsReadOnly
from cstorage.interop.origin import OriginError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="not root: layers with owners"),
]

NAME = "localhost/test:1"


class Foreign:
    """A store in the original's format, to be damaged."""

    def __init__(self, root: Path, driver: str, image: peers.Loaded, container: str) -> None:
        self.root, self.driver, self.image, self.container = root, driver, image, container

    def file(self, name: str) -> Path:
        return self.root / f"{self.driver}-{name}" / f"{name}.json"

    def edit(self, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        """Change the records of ``name`` (layers, images, containers)."""
        records = json.loads(self.file(name).read_bytes())
        change(records)
        self.file(name).write_text(json.dumps(records, indent=1) + "\n")

    def tree(self, layer: str) -> Path:
        home = self.root / self.driver
        return home / "dir" / layer if self.driver == "vfs" else home / layer / "diff"

    def recipe(self, layer: str) -> Path:
        return self.root / f"{self.driver}-layers" / f"{layer}.tar-split.gz"


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> dict[str, Foreign]:
    """A pristine foreign store per driver: an image of three layers, a container that wrote."""
    base = tmp_path_factory.mktemp("foreign")
    found = {}
    for driver in ("overlay", "vfs"):
        with cstorage.open(base / driver / "graph", base / driver / "run", driver) as store:
            image = peers.load(store, layout, NAME)
            container = store.create_container(
                image.id, names=["c"], metadata="about c", big_data=[("Some-Data", b"of c")]
            )
            point = store.mount(container.id)
            (point / "inside").write_text("written by c")
            (point / "etc" / "one").unlink()
            store.unmount(container.id)
            (store.container_directory(container.id) / "config").write_text("private")
            store.export(base / driver / "store")
            found[driver] = Foreign(base / driver / "store", driver, image, container.id)
    return found


@pytest.fixture(params=["overlay", "vfs"])
def foreign(request: pytest.FixtureRequest, exports: dict[str, Foreign], tmp_path: Path) -> Foreign:
    one = exports[request.param]
    root = tmp_path / "foreign"
    subprocess.run(["cp", "-a", str(one.root), str(root)], check=True)
    return Foreign(root, one.driver, one.image, one.container)


def _archive(store: cstorage.Store, layer: str) -> str:
    from cstorage.model import Compression

    out = io.BytesIO()
    store.diff(layer, out, compression=Compression.NONE)
    return "sha256:" + hashlib.sha256(out.getvalue()).hexdigest()


def _whole(store: cstorage.Store, foreign: Foreign) -> None:
    """Everything of the pristine store is in ours, with its bytes."""
    image = store.image(NAME)
    assert (image.id, image.digest) == (foreign.image.id, foreign.image.digest)
    assert [layer.id for layer in store.layers()][:3] == foreign.image.layers
    for id_, digest in zip(foreign.image.layers, foreign.image.diff_ids, strict=True):
        assert _archive(store, id_) == digest
    manifest = store.image_big_data(image.id, "manifest")
    assert "sha256:" + hashlib.sha256(manifest).hexdigest() == foreign.image.digest
    container = store.container("c")
    assert container.metadata == "about c"
    assert store.container_big_data("c", "Some-Data") == b"of c"
    assert (store.container_directory("c") / "config").read_text() == "private"
    point = store.mount("c")
    try:
        assert (point / "inside").read_text() == "written by c"
        assert not (point / "etc" / "one").exists()
        assert (point / "etc" / "hard").read_text() == "one\n"
        assert not (point / "opq" / "old").exists()
        assert (point / "etc" / "mine").stat().st_uid == 7
    finally:
        store.unmount("c")


@pytest.mark.parametrize("mode", ["copy", "link"])
@pytest.mark.parametrize("to", ["overlay", "vfs"])
def test_everything_is_adopted_with_its_bytes_and_a_second_run_finds_nothing_new(
    open_store: Callable[..., Any], foreign: Foreign, to: str, mode: str
) -> None:
    before = peers.listing(foreign.root)
    with open_store(to) as store:
        dry = store.adopt(foreign.root, mode, dry_run=True)
        assert store.sequence == 1
        done = store.adopt(foreign.root, mode)
        assert (done.left_out, done.known, dry.adopted) == ((), (), done.adopted)
        assert len(done.adopted) == 3 + 1 + 1
        _whole(store, foreign)
        again = store.adopt(foreign.root, mode)
        assert (again.adopted, again.known) == ((), done.adopted)
        origin = f"{foreign.driver}@{foreign.root}"
        entries = [e for e in store.history() if e.sequence > 1]
        assert all(origin in e.actor.program and origin in e.reason for e in entries)
        created = {layer.id: layer.created_ns for layer in store.layers()}
        records = json.loads(foreign.file("layers").read_bytes())
        from cstorage.interop.jsonform import timestamp

        assert {r["id"]: r["created"] for r in records} == {
            id_: timestamp(ns) for id_, ns in created.items()
        }
    assert peers.listing(foreign.root) == before
    if mode == "link":
        shutil.rmtree(foreign.root)
    with open_store(to) as store:
        _whole(store, foreign)


def test_linked_layers_share_files_and_containers_do_not(
    open_store: Callable[..., Any], exports: dict[str, Foreign]
) -> None:
    foreign = exports["overlay"]
    with open_store("overlay") as store:
        store.adopt(foreign.root, "link")
        theirs = (foreign.tree(foreign.image.layers[0]) / "srv" / "big").stat()
        ours = store.graph_root / "overlay" / foreign.image.layers[0] / "diff" / "srv" / "big"
        assert ours.stat().st_ino == theirs.st_ino  # this file system has hard links only
        layer = store.container("c").layer
        ours = store.graph_root / "overlay" / layer / "diff" / "inside"
        assert ours.stat().st_ino != (foreign.tree(layer) / "inside").stat().st_ino


@pytest.mark.parametrize("mode", ["copy", "link", "in-place"])
def test_owners_on_disk_that_no_archive_names_do_not_come_along(
    exports: dict[str, Foreign], open_store: Callable[..., Any], tmp_path: Path, mode: str
) -> None:
    """As in stores of unprivileged users, where root's files belong to that user on disk."""
    root = tmp_path / "foreign"
    subprocess.run(["cp", "-a", str(exports["overlay"].root), str(root)], check=True)
    foreign = Foreign(root, "overlay", exports["overlay"].image, exports["overlay"].container)
    subprocess.run(["chown", "-R", "1000:1000", foreign.tree(foreign.image.layers[0])], check=True)
    if mode == "in-place":
        with cstorage.open(root, tmp_path / "run", "overlay", taking_over=True) as store:
            done = store.adopt(root, "in-place")
            assert done.adopted == ()
            assert "owners that its archive does not name" in done.left_out[0].why
        return
    with open_store("overlay") as store:
        assert store.adopt(root, mode).left_out == ()
        _whole(store, foreign)
        point = store.mount(store.layer(foreign.image.layers[0]).id)
        owners = {name: (point / name).lstat().st_uid for name in ("etc/one", "etc/mine", "opq")}
        assert owners == {"etc/one": 0, "etc/mine": 7, "opq": 0}
        store.unmount(foreign.image.layers[0])


def test_a_store_is_taken_over_where_it_stands(foreign: Foreign, tmp_path: Path) -> None:
    records = foreign.file("layers").read_bytes()
    trees = peers.listing(foreign.root / foreign.driver)
    where = (foreign.root, tmp_path / "run", foreign.driver)
    with pytest.raises(StoreIsReadOnly, match="take it over with adopt"):
        cstorage.open(*where)
    with cstorage.open(*where, taking_over=True) as store:
        with pytest.raises(OriginError, match="is this store's graph root"):
            store.adopt(foreign.root)
        done = store.adopt(foreign.root, "in-place")
        assert done.left_out == ()
        _whole(store, foreign)
    with cstorage.open(*where) as store:
        _whole(store, foreign)
        assert store.adopt(foreign.root, "in-place").adopted == ()
        from cstorage.errors import ViewChanged

        with pytest.raises(ViewChanged):  # theirs, until somebody says otherwise
            store.project()
        store.project(overwrite=True)
    now = peers.listing(foreign.root / foreign.driver)
    assert {k: v for k, v in now.items() if k in trees} == trees
    assert foreign.file("layers").read_bytes() != records


def _left_out(done: Any) -> dict[str, str]:
    return {fault.item.split("/")[-1]: fault.why for fault in done.left_out}


def _adopted(done: Any) -> set[str]:
    return {item.split()[0] for item in done.adopted}


def test_files_that_are_no_lists_of_records_are_named(
    open_store: Callable[..., Any], foreign: Foreign
) -> None:
    good = foreign.file("images").read_bytes()
    for number, (data, why) in enumerate(
        (
            (good[: len(good) // 2], "cannot be read"),
            (good + b"x", "cannot be read"),
            (b'{"version":9,"images":[]}', "not an array"),
            (b"\xff\xfe", "cannot be read"),
            (b"[1,2]", "not an array of objects"),
        )
    ):
        foreign.file("images").write_bytes(data)
        with open_store("vfs", f"store{number}") as store:
            done = store.adopt(foreign.root)
            assert why in _left_out(done)["images.json"], data
            assert _adopted(done) == {"layer"}  # what does not depend on it is taken
            assert [c for c in _left_out(done) if c.startswith("container")]
    for number, data in enumerate((b"", b"null", b"[]", b" \n")):
        foreign.file("containers").write_bytes(data)
        foreign.file("images").write_bytes(good)
        with open_store("vfs", f"empty{number}") as store:
            done = store.adopt(foreign.root)
            # without the container its layer is an ordinary one
            assert _adopted(done) == {"layer", "image"}
            assert not done.left_out


def test_a_bad_record_costs_itself_and_what_rests_on_it(
    open_store: Callable[..., Any], foreign: Foreign
) -> None:
    base = foreign.image.layers[0]
    middle, top = foreign.image.layers[1:]

    def spoil(field: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
        return lambda records: records[1].__setitem__(field, value)

    cases: list[tuple[Callable[[list[dict[str, Any]]], None], str]] = [
        (spoil("diff-digest", "sha256:../../x"), "diff-digest"),
        (spoil("diff-size", "much"), "diff-size"),
        (spoil("parent", "../../../etc"), "parent"),
        (spoil("created", "yesterday"), "created"),
        (spoil("flags", {"incomplete": True}), "incomplete"),
        (spoil("parent", "f" * 64), "is not in the store"),
        (spoil("diff-digest", "sha256:" + "0" * 64), "its archive has digest"),
        (spoil("compression", 99), "compression"),
    ]
    good = foreign.file("layers").read_bytes()
    for number, (change, why) in enumerate(cases):
        foreign.file("layers").write_bytes(good)
        foreign.edit("layers", change)
        with open_store("vfs", f"store{number}") as store:
            done = store.adopt(foreign.root)
            faults = _left_out(done)
            assert why in faults[f"layer {middle}"], (why, faults)
            assert f"its parent {middle}" in faults[f"layer {top}"]
            assert f"its layer {top}" in faults[f"image {foreign.image.id}"]
            assert f"container {foreign.container}" in faults
            assert [layer.id for layer in store.layers()] == [base]
    foreign.file("layers").write_bytes(good)
    with open_store("vfs", "store0") as store:  # when it is mended, the rest follows
        assert len(store.adopt(foreign.root).adopted) == 4
        _whole(store, foreign)


@pytest.mark.parametrize(
    ("mark", "why"),
    [("composefs-data", "composefs image"), ("additionallayer", "additional layer store")],
)
def test_forms_of_newer_versions_are_named_and_left_out(
    exports: dict[str, Foreign], open_store: Callable[..., Any], tmp_path: Path, mark: str, why: str
) -> None:
    root = tmp_path / "foreign"
    subprocess.run(["cp", "-a", str(exports["overlay"].root), str(root)], check=True)
    base, middle, top = exports["overlay"].image.layers
    (root / "overlay" / middle / mark).mkdir()
    with open_store("overlay") as store:
        faults = _left_out(store.adopt(root))
        assert why in faults[f"layer {middle}"]
        assert f"its parent {middle}" in faults[f"layer {top}"]
        assert [layer.id for layer in store.layers()] == [base]
        (root / "overlay" / middle / mark).rmdir()
        assert store.adopt(root).left_out == ()


def test_hostile_identifiers_reach_no_path(
    open_store: Callable[..., Any], foreign: Foreign, tmp_path: Path
) -> None:
    before = peers.listing(tmp_path)
    for number, evil in enumerate(("../x", "/etc", "", ".", "a/b", "x" * 300, "n\0l", 7, None)):
        root = tmp_path / f"evil{number}"
        subprocess.run(["cp", "-a", str(foreign.root), str(root)], check=True)
        bad = Foreign(root, foreign.driver, foreign.image, foreign.container)
        for name in ("layers", "images", "containers"):
            bad.edit(name, lambda records: records[0].__setitem__("id", evil))
        with open_store("vfs", f"store{number}") as store:
            done = store.adopt(root)
            assert done.adopted == ()
            assert len(done.left_out) >= 5
        shutil.rmtree(root)
        shutil.rmtree(tmp_path / f"store{number}")
    assert peers.listing(tmp_path) == before


@pytest.mark.parametrize("damage", ["bytes", "gone", "recipe", "tree", "away"])
def test_changed_content_is_found_while_it_is_read(
    open_store: Callable[..., Any], foreign: Foreign, damage: str, tmp_path: Path
) -> None:
    layer = foreign.image.layers[0]
    target = foreign.tree(layer) / "srv" / "big"
    why = "its archive cannot be rebuilt"
    match damage:
        case "bytes":
            data = bytearray(target.read_bytes())
            data[1000] ^= 1
            target.write_bytes(data)
        case "gone":
            target.unlink()
        case "recipe":
            foreign.recipe(layer).write_bytes(foreign.recipe(layer).read_bytes()[:-100])
        case "tree":
            shutil.rmtree(foreign.tree(layer))
            why = "missing"
        case _:
            shutil.move(foreign.tree(layer), tmp_path / "away")
            foreign.tree(layer).symlink_to(tmp_path / "away")
            why = "leads out of the store"
    for mode in ("copy", "link"):
        with open_store("overlay", f"store-{mode}") as store:
            dry = store.adopt(foreign.root, mode, dry_run=True)
            done = store.adopt(foreign.root, mode)
            assert why in _left_out(done)[f"layer {layer}"], _left_out(done)
            assert set(_left_out(done)) == set(_left_out(dry))
            assert list(store.layers()) == []
            assert store.storage_layers() == []


def test_without_a_tar_split_file_only_a_layer_that_proves_itself_is_taken(
    open_store: Callable[..., Any], exports: dict[str, Foreign], tmp_path: Path
) -> None:
    root = tmp_path / "foreign"
    subprocess.run(["cp", "-a", str(exports["overlay"].root), str(root)], check=True)
    foreign = Foreign(root, "overlay", exports["overlay"].image, exports["overlay"].container)
    for layer in foreign.image.layers:
        foreign.recipe(layer).unlink()
    with open_store("overlay") as store:
        done = store.adopt(root)
        assert "no tar-split file" in _left_out(done)[f"layer {foreign.image.layers[0]}"]
        assert list(store.images()) == []


def test_data_items_are_compared_with_their_records(
    open_store: Callable[..., Any], foreign: Foreign
) -> None:
    path = foreign.root / f"{foreign.driver}-images" / foreign.image.id / "manifest"
    good = path.read_bytes()
    item = f"image {foreign.image.id}"
    for number, (data, why) in enumerate(
        ((good[:-1], "bytes instead of"), (b"x" + good[1:], "has digest"), (None, "No such file"))
    ):
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
        with open_store("vfs", f"store{number}") as store:
            done = store.adopt(foreign.root)
            assert why in _left_out(done)[item]
            assert _adopted(done) == {"layer"}


def test_data_behind_links_that_leave_the_store_is_not_read(
    open_store: Callable[..., Any], foreign: Foreign, tmp_path: Path
) -> None:
    folder = foreign.root / f"{foreign.driver}-images" / foreign.image.id
    shutil.move(folder, tmp_path / "secret")
    folder.symlink_to(tmp_path / "secret")
    with open_store("vfs") as store:
        done = store.adopt(foreign.root)
        assert "leads out of the store" in _left_out(done)[f"image {foreign.image.id}"]
        folder.unlink()
        folder.mkdir()
        (folder / "manifest").symlink_to(tmp_path / "secret" / "manifest")
        assert list(store.images()) == []
        assert "manifest" in _left_out(store.adopt(foreign.root))[f"image {foreign.image.id}"]


def test_missing_short_names_matter_only_in_place(
    open_store: Callable[..., Any], exports: dict[str, Foreign], tmp_path: Path
) -> None:
    """Copied layers get short names of their own; the recorded parents say what they rest on."""
    one = exports["overlay"]
    for number, name in enumerate(("link", "lower")):
        root = tmp_path / f"foreign{number}"
        subprocess.run(["cp", "-a", str(one.root), str(root)], check=True)
        (root / "overlay" / one.image.layers[1] / name).unlink()
        with open_store("overlay", f"store{number}") as store:
            assert store.adopt(root).left_out == ()
            _whole(store, one)
        with cstorage.open(root, tmp_path / f"run{number}", "overlay", taking_over=True) as store:
            faults = _left_out(store.adopt(root, "in-place"))
            assert (
                "link" in faults[f"layer {one.image.layers[1]}"]
                or "short names" in (faults[f"layer {one.image.layers[1]}"])
            )
            assert [layer.id for layer in store.layers()] == [one.image.layers[0]]


def test_unknown_fields_are_kept_and_come_out_again(
    open_store: Callable[..., Any], foreign: Foreign
) -> None:
    extra = {"future": {"a": [1, "<&>"]}, "z": None}
    foreign.edit("layers", lambda records: records[0].update(extra))
    foreign.edit("images", lambda records: records[0].update(extra))
    with open_store("vfs") as store:
        assert store.adopt(foreign.root).left_out == ()
        store.project()
        for name, id_ in (("layers", foreign.image.layers[0]), ("images", foreign.image.id)):
            path = store.graph_root / f"vfs-{name}" / f"{name}.json"
            record = next(r for r in json.loads(path.read_bytes()) if r["id"] == id_)
            assert {key: record[key] for key in extra} == extra
            assert "flags" not in record


def test_names_that_two_claim_go_to_one_and_are_reported(
    open_store: Callable[..., Any], foreign: Foreign, layout: Path
) -> None:
    second = "e" * 64

    def twice(records: list[dict[str, Any]]) -> None:
        records.append({**records[0], "id": second})

    folder = foreign.root / f"{foreign.driver}-images"
    shutil.copytree(folder / foreign.image.id, folder / second)
    foreign.edit("images", twice)
    with open_store("vfs") as store:
        store.create_image("d" * 64, ["localhost/other:1"])
        done = store.adopt(foreign.root)
        assert list(_left_out(done)) == ["test:1"]  # "name localhost/test:1"
        assert store.image(second).names == (NAME,)  # the last holder keeps it, as in the original
        assert store.image(foreign.image.id).names == ()
    with open_store("vfs", "held") as store:
        store.create_image("d" * 64, [NAME])
        done = store.adopt(foreign.root)
        assert done.notes == (f"name {NAME} stays with image {'d' * 64}",)
        assert store.image(NAME).id == "d" * 64


def test_places_that_are_no_store_of_a_known_driver_are_refused(
    open_store: Callable[..., Any], foreign: Foreign, tmp_path: Path
) -> None:
    with open_store("vfs") as store:
        with pytest.raises(OriginError, match="is not a directory"):
            store.adopt(tmp_path / "nowhere")
        (tmp_path / "empty").mkdir()
        with pytest.raises(OriginError, match="holds no store"):
            store.adopt(tmp_path / "empty")
        (tmp_path / "zfs" / "zfs-layers").mkdir(parents=True)
        with pytest.raises(OriginError, match="uses the driver zfs"):
            store.adopt(tmp_path / "zfs")
        (foreign.root / "btrfs-layers").mkdir()
        with pytest.raises(OriginError, match="several drivers") as refused:
            store.adopt(foreign.root)
        assert "--from-driver" in refused.value.hint
        assert store.adopt(foreign.root, from_driver=foreign.driver).left_out == ()


_HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_store_in_use_is_waited_for_and_then_named(
    open_store: Callable[..., Any], foreign: Foreign
) -> None:
    lock = foreign.root / f"{foreign.driver}-layers" / "layers.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with open_store("vfs") as store:
            with pytest.raises(StoreBusy, match=f"locked by process {holder.pid}"):
                store.adopt(foreign.root, timeout_s=0.2)
            assert store.sequence == 1
    finally:
        holder.kill()
        holder.wait()


def test_a_split_store_and_volatile_items_come_along(
    open_store: Callable[..., Any], foreign: Foreign, tmp_path: Path
) -> None:
    """Image layers in ``I``, their tar-split files in ``G``, volatile records in the run root."""
    split = tmp_path / "split"
    driver = foreign.driver
    (split / f"{driver}-layers").mkdir(parents=True)
    shutil.move(foreign.root / f"{driver}-images", split)
    layers = json.loads(foreign.file("layers").read_bytes())
    image_layers = [r for r in layers if r["id"] in foreign.image.layers]
    home = Path(driver, "dir") if driver == "vfs" else Path(driver)
    (split / home).mkdir(parents=True)
    for record in image_layers:
        shutil.move(foreign.root / home / record["id"], split / home)
    (split / f"{driver}-layers" / "layers.json").write_text(json.dumps(image_layers))
    rest = [r for r in layers if r not in image_layers]
    foreign.file("layers").unlink()
    run = tmp_path / "run-of-theirs"
    for name, records in (
        ("layers", rest), ("containers", json.loads(foreign.file("containers").read_bytes())),
    ):  # fmt: skip
        (run / f"{driver}-{name}").mkdir(parents=True)
        (run / f"{driver}-{name}" / f"volatile-{name}.json").write_text(json.dumps(records))
    foreign.file("containers").unlink()
    with open_store(driver) as store:
        done = store.adopt(foreign.root, image_store=str(split), run_root=str(run))
        assert done.left_out == ()
        assert store.container("c").volatile
        assert [layer.id for layer in store.layers()][:3] == foreign.image.layers
