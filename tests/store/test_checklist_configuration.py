"""Configuration, namespaces, several openings: rows 174 and 192 to 203 of the checklist (§12.9).

Rows 194 to 196 in detail are in ``tests/test_config.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tars import Member, archive, folder

import cstorage
from cstorage import MapOptions
from cstorage.config import StoreOptions
from cstorage.errors import (
    ConfigError,
    DriverError,
    DriverNotSupported,
    IncompleteOptions,
    InvalidID,
    NoAvailableIDs,
    NotAnID,
    StorageError,
)
from cstorage.model import IDMapEntry, IDMaps, Kind
from cstorage.store import protocols, userns
from cstorage.store.mapping import AutoMaps
from tests.store.place import fill, ids


@pytest.fixture
def configured(tmp_path, monkeypatch, driver):
    """Write a configuration file that every opening reads."""

    def write(text: str = "", **more: str) -> None:
        path = tmp_path / "storage.conf"
        keys = {"graphroot": tmp_path / "graph", "runroot": tmp_path / "run", "driver": driver}
        lines = [f"{key} = {json.dumps(str(value))}" for key, value in (keys | more).items()]
        path.write_text("\n".join(["[storage]", *lines, text]))
        monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(path))

    return write


def test_a_driver_name_alone_is_not_enough(driver):
    """Row 192."""
    with pytest.raises(IncompleteOptions):
        cstorage.open(driver=driver)


def test_one_root_alone_takes_the_other_from_the_configuration(configured, tmp_path, driver):
    """§3.1, step 5."""
    configured()
    with cstorage.open(tmp_path / "other", driver=driver) as store:
        assert (store.graph_root, store.run_root) == (tmp_path / "other", tmp_path / "run")
    with cstorage.open(run_root=tmp_path / "other", driver=driver) as store:
        assert (store.graph_root, store.run_root) == (tmp_path / "graph", tmp_path / "other")


def test_same_roots_give_the_same_object(place):
    """Row 193. It stays open until everybody closed it; after ``free`` a new one is made."""
    first = place.open()
    assert place.open() is first
    assert place.open(driver="", transient=True) is first
    assert place.open(run_root=place.base / "other run") is not first
    assert place.open(reason="another reason") is not first
    first.free()
    first.free()
    second = place.open()
    assert second is not first
    layer = first.create_layer()
    assert second.layer(layer.id) == layer
    second.close()
    assert place.open() is not second


def test_a_shared_object_closes_with_its_last_user(place):
    """Row 193: nested ``with`` blocks on one store do not disturb each other."""
    given = (place.graph, place.run, place.driver)
    with cstorage.open(*given) as outer:
        with cstorage.open(*given) as inner:
            assert inner is outer
        outer.create_layer("still open")
    with cstorage.open(*given) as again:
        assert again is not outer
        assert again.exists("still open")


def test_the_configuration_opens_a_store(configured, tmp_path, driver):
    """Rows 194 and 196."""
    configured(
        '[storage.options]\nroot-auto-userns-user = "somebody"\n'
        '[storage.options.pull_options]\nuse_hard_links = "true"\n'
    )
    with cstorage.open() as store:
        assert store.graph_root == tmp_path / "graph"
        assert store.driver_name == driver
        assert store.pull_options == {"use_hard_links": "true"}


def test_a_missing_configuration_file_is_fatal(configured, tmp_path, monkeypatch):
    """Row 195."""
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="absent"):
        cstorage.open()
    configured()
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF_OVERRIDE", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="absent"):
        cstorage.open()


def test_an_image_store_that_is_the_graph_root_is_fatal(configured, tmp_path):
    """Row 197."""
    configured(imagestore=str(tmp_path / "graph"))
    with pytest.raises(ConfigError):
        cstorage.open()


def test_driver_options(place, driver):
    """Row 198."""
    other = {"vfs": "overlay", "overlay": "vfs"}[driver]
    for bad in ("nonsense=1", f"{driver}.nonsense=1", "nodriver.size=1", "malformed"):
        with pytest.raises(DriverError):
            place.open(driver_options=[bad])
    place.open(driver_options=[f"{other}.nonsense=1"])
    with pytest.raises(DriverNotSupported):
        place.open(driver="nodriver", run_root=place.base / "elsewhere")


def test_default_maps_are_those_of_layers_without_a_parent(place, unshifted):
    """§2.10: the store-wide maps; a container without an image has them too."""
    maps = (IDMapEntry(0, 100000, 1000),)
    store = place.open(options=StoreOptions(uid_map=maps, gid_map=maps))
    assert (store.uid_map, store.gid_map) == (maps, maps)
    layer = store.create_layer()
    assert layer.maps == IDMaps(maps, maps)
    assert store.layer(store.create_container().layer).maps == IDMaps(maps, maps)
    assert not store.create_layer(maps=MapOptions(host_uids=True, host_gids=True)).maps


# -- automatic user namespaces -------------------------------------------------------------------


@pytest.fixture
def subordinates(tmp_path, monkeypatch):
    """Files of subordinate IDs: 100000 to 102999 for the account of containers."""
    for name in ("SUBUID", "SUBGID"):
        path = tmp_path / name.lower()
        path.write_text("# comment\n\nother:5000:100\ncontainers:100000:3000\n")
        monkeypatch.setattr(userns, name, str(path))


def auto(**more) -> MapOptions:
    return MapOptions(auto=AutoMaps(**more))


def test_lowest_free_ids_are_given(store, subordinates):
    """Row 199: the example of semantics §10.3, with additional mappings at the end."""
    whole = (IDMapEntry(0, 101024, 1024),)
    store.create_container(maps=MapOptions(uids=whole, gids=whole))
    root = (IDMapEntry(0, 0, 1),)
    box = store.create_container(maps=auto(size=500, additional_uids=root))
    assert box.maps.uids == (IDMapEntry(1, 100000, 499), IDMapEntry(0, 0, 1))
    assert box.maps.gids == (IDMapEntry(0, 100000, 500),)


def test_ranges_may_be_in_pieces_and_are_free_again_after_deletion(store, subordinates):
    """Row 199."""
    first, second, third = (store.create_container(maps=auto(size=1000)).id for _ in range(3))
    store.delete_container(first)
    store.delete_container(third)
    pieces = store.create_container(maps=auto(size=1500)).maps
    assert pieces.uids == (IDMapEntry(0, 100000, 1000), IDMapEntry(1000, 102000, 500))
    assert store.container(second).maps.uids == (IDMapEntry(0, 101000, 1000),)


@pytest.mark.parametrize("text", ["", "containers:100000:10\n"])
def test_not_enough_ids(store, subordinates, text):
    """Row 200. Nothing is left behind."""
    for path in (userns.SUBUID, userns.SUBGID):
        Path(path).write_text(text)
    with pytest.raises(NoAvailableIDs):
        store.create_container(maps=auto(size=11))
    assert ids(store.layers()) == store.storage_layers() == []


def account_image(store, uid: int, passwd: bytes = b"") -> str:
    data = archive([folder("etc"), Member("etc/passwd", passwd), Member("file", b"", uid=uid)])
    return store.create_image(layer=fill(store, data).id).id


def test_the_need_of_an_image(store, subordinates, tmp_path):
    """§10.3, steps 3 and 4: owners of files, accounts, the minimum, and files in their place."""
    small = account_image(store, 7)
    assert sum(e.size for e in store.create_container(small, maps=auto()).maps.uids) == 1024
    owner = account_image(store, 1500)
    assert sum(e.size for e in store.create_container(owner, maps=auto()).maps.uids) == 1501
    store.wipe()
    line = b"a:x:1999:5::/:\nnobody:x:3000:3000::/:\nbad line\nb:x:65534:65534::/:\n"
    account = account_image(store, 0, line)
    box = store.create_container(account, maps=auto())
    assert sum(e.size for e in box.maps.uids) == 2000
    store.delete_container(box.id)
    given = tmp_path / "passwd"
    given.write_text("c:x:1234:1::/:\n")
    box = store.create_container(account, maps=auto(passwd_file=str(given)))
    assert sum(e.size for e in box.maps.uids) == 1235
    store.delete_container(box.id)
    box = store.create_container(account, maps=auto(initial_size=2500))
    assert sum(e.size for e in box.maps.uids) == 2500


HIDING = {
    "whiteout": [folder("etc"), Member("etc/.wh.passwd")],
    "opaque": [folder("etc"), Member("etc/.wh..wh..opq")],
    "a file instead": [Member("etc", b"no directory")],
    "a link elsewhere": [
        folder("etc"), folder("run"), Member("run/passwd", b"a:x:1100:0::/:\n"),
        Member("etc/passwd", kind=tarfile.SYMTYPE, link="/../../run/passwd"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("members", HIDING.values(), ids=HIDING)
def test_accounts_are_those_that_the_image_shows(store, subordinates, members):
    """§10.3, step 4: as a mount shows them, and no link leads out of it."""
    lower = fill(store, archive([folder("etc"), Member("etc/passwd", b"a:x:1999:5::/:\n")]))
    image = store.create_image(layer=fill(store, archive(members), parent=lower.id).id).id
    box = store.create_container(image, maps=auto())
    linked = members[-1].kind == tarfile.SYMTYPE
    assert sum(e.size for e in box.maps.uids) == (1101 if linked else 1024)


def test_a_need_above_the_maximum(place, subordinates):
    """Row 201. The error names both numbers."""
    store = place.open(options=StoreOptions(auto_userns_max_size=1400))
    image = account_image(store, 1500)
    with pytest.raises(StorageError, match=r"1501.*1400"):
        store.create_container(image, maps=auto())


def test_an_explicit_size_is_taken_as_it_is(place, subordinates):
    """Row 202."""
    store = place.open(options=StoreOptions(auto_userns_max_size=100))
    assert store.create_container(maps=auto(size=1)).maps.uids == (IDMapEntry(0, 100000, 1),)
    assert store.create_container(maps=auto(size=200)).maps.uids == (IDMapEntry(0, 100001, 200),)


def test_an_image_without_layers_has_no_need_to_look_at(store, subordinates):
    """Row 203."""
    image = store.create_image().id
    with pytest.raises(StorageError, match="cannot find layer"):
        store.create_container(image, maps=auto())
    assert store.create_container(image, maps=auto(size=5)).maps.uids[0].size == 5


def test_an_automatic_container_shows_its_ids(store, subordinates):
    """The map is used like an explicit one, shifted by the driver or stored on a mapped copy."""
    image = account_image(store, 7)
    box = store.create_container(image, maps=auto(size=50))
    path = store.mount(box.id)
    owner = (path / "file").stat().st_uid
    store.unmount(box.id)
    assert owner == 100007


def test_parallel_allocations_do_not_overlap(store, place, subordinates):
    """Row 174: four processes at once."""
    script = (
        "import sys, cstorage\n"
        "from cstorage.store import userns\n"
        "from cstorage.store.mapping import AutoMaps\n"
        "userns.SUBUID, userns.SUBGID = sys.argv[4:6]\n"
        "with cstorage.open(*sys.argv[1:4]) as store:\n"
        "    for _ in range(3):\n"
        "        store.create_container(maps=cstorage.MapOptions(auto=AutoMaps(size=100)))"
    )
    argv = [sys.executable, "-c", script, place.graph, place.run, place.driver, userns.SUBUID]
    running = [subprocess.Popen([*argv, userns.SUBGID]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    starts = sorted(entry.host_id for box in store.containers() for entry in box.maps.uids)
    assert starts == [100000 + 100 * number for number in range(12)]


# -- accessors -----------------------------------------------------------------------------------


def test_lists_of_one_moment(store):
    """§4.1: what was not asked for is empty."""
    layer, image = store.create_layer().id, store.create_image().id
    box = store.create_container(image)
    found = store.multi_list(layers=True, containers=True)
    assert [ids(items) for items in found] == [[layer, box.layer], [], [box.id]]
    assert ids(store.multi_list(images=True).images) == [image]
    assert store.multi_list() == ([], [], [])


def test_digest_locks(store, place, driver):
    """§4.1: one file per digest, made when it is locked; an empty digest names the directory."""
    lock = store.digest_lock("sha256:abc")
    assert store.digest_lock("sha256:abc") is lock
    with lock.writing():
        assert (place.run / f"{driver}-locks/sha256:abc").is_file()
    (place.run / f"{driver}-locks").mkdir(exist_ok=True)
    with pytest.raises(OSError):
        store.digest_lock("").lock()
    with pytest.raises(InvalidID):
        store.digest_lock("../escape")


@pytest.mark.parametrize("kind", ["layer", "image", "container"])
def test_flags_can_be_changed(store, place, kind):
    """§2.7; the original can set them at creation only."""
    make = {
        "layer": store.create_layer,
        "image": store.create_image,
        "container": store.create_container,
    }[kind]
    item = make(id="it", flags={"a": 1}).id
    store.set_flag(item, "b", {"deep": [True, None, 1.5]})
    store.clear_flag(item, "a")
    store.clear_flag(item, "absent")
    flags = place.reopen(store).flags("it")
    assert {k: v for k, v in flags.items() if "Label" not in k} == {
        "b": {"deep": [True, None, 1.5]}
    }


def test_flags_of_what_is_unknown_and_values_that_are_no_json(store):
    for call in (
        lambda: store.flags("nobody"),
        lambda: store.set_flag("nobody", "a", 1),
        lambda: store.clear_flag("nobody", "a"),
    ):
        with pytest.raises(NotAnID):
            call()
    layer = store.create_layer().id
    for value in (object(), float("nan"), b"bytes"):
        with pytest.raises(StorageError, match="JSON"):
            store.set_flag(layer, "a", value)
    assert store.flags(layer) == {}


def test_a_store_is_what_the_protocols_say(store):
    """Code written against the protocols takes a store."""
    assert isinstance(store, protocols.MetadataStore)
    assert isinstance(store, protocols.FlaggableStore)
    item = store.create_image().id
    blobs = store.blobs(Kind.IMAGE)
    assert isinstance(blobs, protocols.BigDataStore)
    blobs.write(item, "config", b"12")
    assert (blobs.names(item), blobs.read(item, "config"), blobs.size(item, "config")) == (
        ["config"],
        b"12",
        2,
    )
    assert blobs.digest(item, "config") == store.image_big_data_digest(item, "config")
