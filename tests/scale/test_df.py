"""What ``df`` says of a real store is what ``du`` says, and nothing was walked to know it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

import cstorage

TOP = Path(__file__).resolve().parents[2]


def archive(path: Path, *folders: str) -> Path:
    """A tar of parts of Python's own library: thousands of files of all sizes."""
    library = Path(sysconfig.get_paths()["stdlib"])

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in info.name or "site-packages" in info.name else info

    with tarfile.open(path, "w") as tar:
        for folder in folders:
            tar.add(library / folder, folder, filter=plain)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.LNKTYPE, f"{folders[0]}/__init__.py"
        tar.addfile(link)
    return path


def du(root: Path) -> int:
    done = subprocess.run(["du", "-s", "-B1", root], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_df_is_du_within_one_percent(tmp_path, driver, cstorage_command):
    if driver == "overlay" and os.geteuid() != 0:
        pytest.skip("overlay layers need root here")
    graph = tmp_path / "g"
    first = archive(tmp_path / "1.tar", "test", "email", "json")
    second = archive(tmp_path / "2.tar", "unittest", "xml", "asyncio")
    try:
        store = cstorage.open(graph, tmp_path / "r", driver=driver)
    except cstorage.errors.DriverError as error:
        pytest.skip(f"overlay does not work below {tmp_path}: {error}")
    with store:
        for number, path in enumerate((first, second)):
            with path.open("rb") as source:
                layer = store.import_layer(source, id=f"layer{number}")
            store.create_image(id=f"i{number}", layer=layer.id, big_data=[("note", b"x" * 9000)])
        found = store.usage()
    words = [*cstorage_command, "-g", graph, "-R", tmp_path / "r", "-s", driver, "df", "--json"]
    shown = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert shown["layer_bytes"] == found.layer_bytes
    real = du(graph)
    assert abs(shown["total_bytes"] - real) <= real / 100, (shown, real)
    assert found.unique_bytes == found.layer_bytes == found.reclaimable_bytes > 20_000_000


def test_containers_layers_count_when_they_are_measured(tmp_path):
    with cstorage.open(tmp_path / "g", tmp_path / "r", driver="vfs") as store:
        container = store.create_container()
        root = tmp_path / "g" / "vfs" / "dir" / container.layer
        (root / "file").write_bytes(bytes(100_000))
        found = store.usage()
        assert (found.unmeasured_layers, found.measured_bytes) == (1, 0)
        assert store.usage(measure=True).measured_bytes == du(root)


def test_what_is_kept_of_deleted_items_counts(tmp_path, cstorage_command):
    graph = tmp_path / "g"
    first = archive(tmp_path / "1.tar", "test", "email", "json")
    with cstorage.open(graph, tmp_path / "r", driver="vfs", keep_deleted_s=3600) as store:
        before = store.usage()
        with first.open("rb") as source:
            store.import_layer(source, id="layer")
        store.create_image(id="image", layer="layer", big_data=[("note", b"x" * 9000)])
        full = store.usage()
        assert (full.kept_items, full.kept_bytes) == (0, 0)
        store.delete_image("image")
        found = store.usage()
        assert found.kept_items == 2
        assert found.layers == before.layers
        real = du(graph)
        assert abs(found.total_bytes - real) <= real / 100, (found, real)
    words = [*cstorage_command, "-g", graph, "-R", tmp_path / "r", "-s", "vfs"]
    table = subprocess.run([*words, "df"], capture_output=True, check=True, text=True).stdout
    (row,) = [line.split() for line in table.splitlines() if line.startswith("deleted, kept")]
    assert row[2] == "2"
    with cstorage.open(graph, tmp_path / "r", driver="vfs") as store:
        store.restore("image")
        found = store.usage()
        assert (found.kept_items, found.kept_bytes) == (0, 0)
        assert found.layer_bytes == full.layer_bytes


CREATES = """
import os, sys
os.setreuid({uid}, 0)  # as a program that was started by a user with root's powers
sys.path.insert(0, {top!r})
import cstorage
with cstorage.open({graph!r}, {run!r}, driver="vfs") as store, open({archive!r}, "rb") as source:
    layer = store.import_layer(source, id="of{uid}")
    store.create_image(id="i{uid}", layer=layer.id, big_data=[("note", b"{uid}" * 5000)])
    store.create_image(id="j{uid}", big_data=[("note", b"the same" * 1000)])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as several users, which takes root")
@pytest.mark.root
def test_every_user_pays_for_what_he_brought(tmp_path, cstorage_command):
    """Per user what ``du`` says of his trees; together with the data, the whole store's sums."""
    graph, run = tmp_path / "g", tmp_path / "r"
    brought = {1001: ("test", "email"), 1002: ("unittest", "xml")}
    for uid, folders in brought.items():
        path = archive(tmp_path / f"{uid}.tar", *folders)
        code = CREATES.format(
            uid=uid, top=str(TOP), graph=str(graph), run=str(run), archive=str(path)
        )
        subprocess.run([sys.executable, "-c", code], check=True)
    words = [*cstorage_command, "-g", graph, "-R", run, "-s", "vfs"]
    done = subprocess.run([*words, "df", "--json"], capture_output=True, check=True)
    shown = json.loads(done.stdout)
    owners = {owner["uid"]: owner for owner in shown["owners"]}
    assert sorted(owners) == [1001, 1002]
    for uid in brought:
        real = du(graph / "vfs" / "dir" / f"of{uid}")
        assert abs(owners[uid]["layer_bytes"] - real) <= real / 100
        assert (owners[uid]["layers"], owners[uid]["images"]) == (1, 2)
    for part in ("layers", "images", "layer_bytes", "data_bytes", "contents"):
        assert sum(owner[part] for owner in owners.values()) == shown[part]
    # The note that both brought is his who came first; each has a recipe, a manifest and a note.
    assert [owners[uid]["contents"] for uid in brought] == [4, 3]
    text = subprocess.run([*words, "df"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in text.split("OWNER")[1].splitlines()[1:]] == ["1001", "1002"]
    with cstorage.open(graph, run, driver="vfs") as store:
        store.delete_image("i1001")
        assert [owner.contents for owner in store.owner_usage()] == [1, 3]
        store.delete_image("j1002")  # uses the other's note, which stays his
        store.delete_image("i1002")
        assert [owner.uid for owner in store.owner_usage()] == [1001]
