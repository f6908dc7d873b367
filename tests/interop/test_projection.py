"""The view for other tools is derived from state: same bytes however it came about, safe to lose,
and never mistaken for the truth."""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers
import pytest

from cstorage.errors import ViewChanged
from cstorage.interop import jsonform
from cstorage.interop.filenames import big_data_file
from cstorage.interop.selection import Form
from cstorage.store import projecting

if TYPE_CHECKING:
    from collections.abc import Callable

    import cstorage

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="not root: layers with owners"),
]

SHA = "sha256:" + "ab" * 32


def _records(graph: Path, file: str, driver: str = "vfs") -> list[dict[str, Any]]:
    group = file.removeprefix("volatile-")
    found: list[dict[str, Any]] = json.loads(
        (graph / f"{driver}-{group}" / f"{file}.json").read_bytes()
    )
    return found


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_deleting_the_view_and_projecting_again_gives_the_same_bytes(
    open_store: Callable[..., Any], layout: Path, driver: str
) -> None:
    with open_store(driver) as store:
        peers.load(store, layout, "localhost/test:1")
        store.project(keep=True)
        before = peers.view_bytes(store.graph_root, driver)
        assert len(before) == 4 + 3 + 4  # two lists with locks, three recipes, four data items
        store.stop_projecting()
        assert peers.view_bytes(store.graph_root, driver) == {}
        store.project()
        assert peers.view_bytes(store.graph_root, driver) == before


def _do_something(store: cstorage.Store, rng: random.Random) -> None:
    """One random change; refusals are as good as changes."""
    from cstorage.errors import StorageError

    layers = [layer.id for layer in store.layers()]
    images = [image.id for image in store.images()]
    containers = [container.id for container in store.containers()]
    name = f"localhost/{rng.choice('abcdefgh')}:1"
    empty = b"\0" * 1024
    try:
        match rng.randrange(12):
            case 0 | 1 | 2:
                import io

                parent = rng.choice([*layers, ""])
                store.import_layer(io.BytesIO(empty), parent=parent)
            case 3 | 4:
                data = json.dumps({"n": rng.random()}).encode()
                store.create_image(
                    rng.randbytes(32).hex(), [name], rng.choice([*layers, ""]),
                    big_data=[("manifest", data, SHA), (SHA, data)][: rng.choice([0, 1, 2, 2, 2])],
                )  # fmt: skip
            case 5:
                store.set_image_big_data(rng.choice(images), "manifest", b"{}", lambda _: SHA)
                store.set_image_big_data(rng.choice(images), SHA, b"{}")
            case 6:
                store.add_names(rng.choice(images), [name])
            case 7:
                store.set_names(rng.choice([*layers, *images]), [name])
            case 8:
                store.create_container(rng.choice(images), volatile=rng.random() < 0.3)
            case 9:
                store.delete_image(rng.choice(images))
            case 10:
                store.delete_container(rng.choice(containers))
            case _:
                store.delete(rng.choice([*layers, *images, *containers]))
    except (StorageError, IndexError):
        pass


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("seed", range(2))
def test_a_view_refreshed_step_by_step_equals_one_made_at_once(
    open_store: Callable[..., Any], seed: int, form: Form
) -> None:
    rng = random.Random(seed)
    with open_store("vfs") as store:
        store.project(form=form, keep=True)
        whole = steps = 0
        for _ in range(40):
            _do_something(store, rng)
            done = projecting.refresh(store._core)
            whole += done.whole
            steps += 1
        seen = peers.view_bytes(store.graph_root, "vfs")
        store.stop_projecting()
        again = store.project(form=form)
        assert peers.view_bytes(store.graph_root, "vfs") == seen
        assert whole < steps / 2  # most refreshes took the short way
        assert projecting.refresh(store._core).left_out == again.left_out


def test_a_kept_view_follows_every_commit_of_every_process(
    open_store: Callable[..., Any], layout: Path
) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, "localhost/test:1")
        store.project(keep=True)
        with open_store("vfs") as other:
            other.add_names(image.id, ["localhost/second:1"])
        names = _records(store.graph_root, "images")[0]["names"]
        assert names == ["localhost/second:1", "localhost/test:1"]
        store.delete_image(image.id)
        assert _records(store.graph_root, "images") == []
        assert _records(store.graph_root, "layers") == []
        left = [p.name for p in (store.graph_root / "vfs-layers").iterdir()]
        assert sorted(left) == ["layers.json", "layers.lock"]


def test_a_refresh_replaces_single_lines_and_copies_no_other_file(
    open_store: Callable[..., Any], layout: Path
) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, "localhost/test:1")
        store.project()
        inodes = {
            path: path.stat().st_ino
            for path in (store.graph_root / "vfs-layers").rglob("*")
            if path.is_file()
        }
        store.add_names(image.id, ["localhost/second:1"])
        done = projecting.refresh(store._core)
        assert (done.whole, done.written, done.removed, done.files) == (False, 1, 0, 0)
        assert {path: path.stat().st_ino for path in inodes} == inodes


def test_what_another_program_writes_is_reported_and_left_alone(
    open_store: Callable[..., Any], layout: Path
) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, "localhost/test:1")
        store.project(keep=True)
        folder = store.graph_root / "vfs-images"
        foreign = [{"id": "cc" * 32, "created": "2024-01-02T03:04:05Z"}]
        (folder / "images.json").write_text(json.dumps(foreign))
        (folder / "images.lock").write_bytes(os.urandom(64))
        with pytest.raises(ViewChanged, match=r"images\.json was written by another program"):
            store.project()
        store.add_names(image.id, ["localhost/second:1"])  # a commit succeeds all the same
        assert json.loads((folder / "images.json").read_bytes()) == foreign
        assert len(list(store.images())) == 1  # and nothing foreign entered the store
        with pytest.raises(ViewChanged):
            store.stop_projecting()
        store.project(overwrite=True)
        assert [r["id"] for r in _records(store.graph_root, "images")] == [image.id]


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "token", "recipe", "blob", "stray"])
def test_damage_is_repaired_and_named(
    open_store: Callable[..., Any], layout: Path, damage: str
) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, "localhost/test:1")
        store.project()
        good = peers.view_bytes(store.graph_root, "vfs")
        layers = store.graph_root / "vfs-layers"
        target = layers / "layers.json"
        match damage:
            case "cut":
                target.write_bytes(b"")
            case "flip":
                data = bytearray(target.read_bytes())
                data[len(data) // 2] ^= 1
                target.write_bytes(data)
            case "gone":
                target.unlink()
            case "token":
                (layers / "layers.lock").unlink()
            case "recipe":
                target = layers / f"{image.layers[0]}.tar-split.gz"
                target.write_bytes(b"x" * target.stat().st_size)
            case "blob":
                target = store.graph_root / "vfs-images" / image.id / "manifest"
                info = target.stat()
                target.write_bytes(b"x" * info.st_size)
                os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
            case _:
                target = layers / ("dd" * 32 + ".tar-split.gz")
                target.write_bytes(b"left by somebody")
        done = store.project(verify=True)
        assert peers.view_bytes(store.graph_root, "vfs") == good
        assert done.repaired == (() if damage == "token" else (str(target),))
        assert [layer.id for layer in store.layers()] == image.layers  # the truth is untouched


def test_damage_to_copies_cannot_reach_content(
    open_store: Callable[..., Any], layout: Path
) -> None:
    with open_store("overlay") as store:
        image = peers.load(store, layout, "localhost/test:1")
        store.project()
        for path in (store.graph_root / "overlay-images" / image.id).iterdir():
            with path.open("r+b") as file:
                file.write(b"overwritten in place")
        assert json.loads(store.image_big_data(image.id, "manifest"))["schemaVersion"] == 2


def test_one_bad_image_does_not_poison_the_listing(
    open_store: Callable[..., Any], layout: Path
) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, "localhost/test:1")
        bare = store.create_layer(writable=False)
        data = [("manifest", b"{}", SHA), (SHA, b"{}")]
        expected = {
            f"image {store.create_image('short', big_data=data).id}": "not 64 hex digits",
            f"image {store.create_image('aa' * 32).id}": "no manifest",
            f"image {store.create_image('bb' * 32, big_data=data[:1]).id}": "no config",
            f"image {store.create_image('cc' * 32, layer=bare.id, big_data=data).id}": "no digest",
        }
        done = store.project()
        assert [r["id"] for r in _records(store.graph_root, "images")] == [image.id]
        assert {item for item, _ in done.left_out} == set(expected)
        for item, why in done.left_out:
            assert expected[item] in why


def test_containers_are_shown_only_to_who_takes_the_root_over(
    open_store: Callable[..., Any], layout: Path
) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, "localhost/test:1")
        container = store.create_container(image.id, names=["c"], big_data=[("note", b"x")])
        store.create_container(image.id, names=["v"], volatile=True)
        store.project()
        graph = store.graph_root
        assert [r["id"] for r in _records(graph, "layers")] == image.layers
        assert not (graph / "vfs-containers").exists()
        store.project(form=Form.OWN_ROOT)
        assert [r["id"] for r in _records(graph, "layers")] == [*image.layers, container.layer]
        assert [r["names"] for r in _records(graph, "containers")] == [["c"]]
        assert [r["names"] for r in _records(graph, "volatile-containers")] == [["v"]]
        assert (graph / "vfs-containers" / container.id / "note").read_bytes() == b"x"


def test_private_directories_survive_the_view(open_store: Callable[..., Any], layout: Path) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, "localhost/test:1")
        mine = store.image_directory(image.id) / "kept"
        mine.write_text("mine")
        store.project()
        store.stop_projecting()
        assert mine.read_text() == "mine"


_HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_SH if sys.argv[2] == "shared" else fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_tool_that_holds_the_lock_delays_the_view_and_not_the_commit(
    open_store: Callable[..., Any], layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cstorage.errors import StoreBusy

    monkeypatch.setattr(projecting, "_COMMIT_TIMEOUT_S", 0.2)
    with open_store("vfs") as store:
        image = peers.load(store, layout, "localhost/test:1")
        store.project(keep=True)
        lock = store.graph_root / "vfs-images" / "images.lock"
        before = (store.graph_root / "vfs-images" / "images.json").read_bytes()
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(lock), "shared"], stdout=subprocess.PIPE
        )
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            store.add_names(image.id, ["localhost/second:1"])
            assert (store.graph_root / "vfs-images" / "images.json").read_bytes() == before
            with pytest.raises(StoreBusy, match=f"locked by process {holder.pid}"):
                projecting.refresh(store._core, 0.1)
        finally:
            holder.kill()
            holder.wait()
        store.add_names(image.id, ["localhost/third:1"])
        assert len(_records(store.graph_root, "images")[0]["names"]) == 3


def test_a_reader_with_the_original_s_locks_never_sees_half_a_view(
    open_store: Callable[..., Any], layout: Path
) -> None:
    """Both lists are taken under both locks: every image shown has its layer shown."""
    code = """
import fcntl, json, sys, time
graph = sys.argv[1]
locks = [open(f"{graph}/vfs-{g}/{g}.lock", "rb") for g in ("layers", "images")]
end, seen = time.monotonic() + 3, set()
while time.monotonic() < end:
    for lock in locks:
        fcntl.lockf(lock, fcntl.LOCK_SH)
    layers = {r["id"] for r in json.load(open(f"{graph}/vfs-layers/layers.json"))}
    images = json.load(open(f"{graph}/vfs-images/images.json"))
    token = tuple(open(f"{graph}/vfs-{g}/{g}.lock", "rb").read() for g in ("layers", "images"))
    for lock in locks:
        fcntl.lockf(lock, fcntl.LOCK_UN)
    assert all(r.get("layer", "") in layers for r in images if "layer" in r), "half a view"
    seen.add((token, len(images)))
print(len(seen), len({t for t, _ in seen}))
"""
    import io
    import time

    with open_store("vfs") as store:
        store.project(keep=True)
        reader = subprocess.Popen(
            [sys.executable, "-c", code, str(store.graph_root)], stdout=subprocess.PIPE
        )
        end = time.monotonic() + 3.5
        number = 0
        while time.monotonic() < end:
            layer = store.import_layer(io.BytesIO(b"\0" * 1024))
            id_ = f"{number:064x}"
            store.create_image(id_, layer=layer.id, big_data=[("manifest", b"{}", SHA), (SHA, b"")])
            store.delete_image(id_)
            number += 1
        out, _ = reader.communicate(timeout=30)
    assert reader.returncode == 0
    states, tokens = map(int, out.split())
    assert tokens >= 2
    assert states == tokens  # equal tokens, equal lists


def test_deleted_layers_stay_in_the_trash_for_the_stated_time(
    open_store: Callable[..., Any], layout: Path
) -> None:
    with open_store("overlay") as store:
        image = peers.load(store, layout, "localhost/test:1")
        store.project(keep=True, grace_s=3600)
        store.delete_image(image.id)
        kept = list((store.graph_root / "trash").glob("*/*/diff"))
        assert len(kept) == 3
    with open_store("overlay") as store:  # a sweep respects it
        assert list((store.graph_root / "trash").glob("*/*/diff")) == kept
        for note in (store.graph_root / "trash").glob("*/keep-until"):
            note.write_text("1")
            os.utime(f"{note.parent}.lock", (1, 1))
    with open_store("overlay") as store:  # and ends it
        assert not list((store.graph_root / "trash").iterdir())


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_splicing_equals_writing_anew(count: int) -> None:
    rng = random.Random(count)
    records = {f"i{n}": jsonform.encode({"id": f"i{n}", "n": n}) for n in range(count)}
    for _ in range(200):
        data = jsonform.joined(records.values())
        changes = {
            id_: rng.choice([b"", jsonform.encode({"id": id_, "n": rng.random()})])
            for id_ in records
            if rng.random() < 0.5
        }
        added = [jsonform.encode({"id": f"a{n}", "n": n}) for n in range(rng.randrange(3))]
        want = [changes.get(id_, record) for id_, record in records.items()]
        want = [record for record in want if record] + added
        assert b"".join(jsonform.spliced(data, changes, added)) == jsonform.joined(want)
        assert json.loads(jsonform.joined(want)) == [json.loads(record) for record in want]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("manifest", "manifest"), ("a-b", "=YS1i"), ("sha256:00", "=c2hhMjU2OjAw"),
        ("x?y", "=eD95"), ("=x", "=PXg="), ("abc-", "abc-"), ("A", "A"), ("é", "é"),
        ("a/", ""), (".", ""), ("..", ""), ("/", ""), ("ab?b", ""),
        ("x" * 300, ""),
    ],
)  # fmt: skip
def test_big_data_is_kept_in_the_original_s_file_or_not_at_all(name: str, file: str) -> None:
    assert big_data_file(name) == file


def test_locks_are_record_locks(tmp_path: Path) -> None:
    """``flock`` would not keep the original's tools out."""
    from cstorage.interop import locks

    path = tmp_path / "x.lock"
    with locks.exclusive([str(path)], 1.0):
        code = (
            "import fcntl, sys; f = open(sys.argv[1], 'r+b')\n"
            "try: fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB)\n"
            "except BlockingIOError: print('kept out')"
        )
        out = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        assert out.stdout == "kept out\n"
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_option_keeps_a_view_without_being_asked_each_time(
    open_store: Callable[..., Any], layout: Path
) -> None:
    with open_store("vfs", projection="additional") as store:
        peers.load(store, layout, "localhost/test:1")
        assert len(_records(store.graph_root, "images")) == 1
    with open_store("vfs", projection="off") as store:
        store.delete_image(next(store.images()).id)
        assert len(_records(store.graph_root, "images")) == 1
    with open_store("vfs") as store:  # the store itself remembers
        store.create_layer()
        assert _records(store.graph_root, "images") == []


def test_the_option_is_read_from_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cstorage import config
    from cstorage.errors import ConfigError

    conf = tmp_path / "storage.conf"
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
    conf.write_text('[storage.options]\nprojection = "additional"\n')
    assert config.load().projection == "additional"
    conf.write_text('[storage.options]\nprojection = "yes"\n')
    with pytest.raises(ConfigError, match="additional"):
        config.load()


def test_mounts_on_our_layers_are_known(
    open_store: Callable[..., Any], layout: Path, tmp_path: Path
) -> None:
    with open_store("overlay") as store:
        image = peers.load(store, layout, "localhost/test:1")
        home = store.graph_root / "overlay"
        lowers = ":".join(
            f"{home}/l/{(home / layer / 'link').read_text()}" for layer in reversed(image.layers)
        )
        for name in ("upper", "work", "point"):
            (tmp_path / name).mkdir()
        options = f"lowerdir={lowers},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "point")],
            check=True,
        )
        try:
            found = {c.mount_point: c.layers for c in store.consumers()}
            assert found[str(tmp_path / "point")] == tuple(reversed(image.layers))
        finally:
            subprocess.run(["umount", str(tmp_path / "point")], check=True)
        assert str(tmp_path / "point") not in {c.mount_point for c in store.consumers()}
