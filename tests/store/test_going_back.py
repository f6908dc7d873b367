"""The store of a moment, who gave an item what, and taking deletions and changes back."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tars import BASE, CHANGES

import cstorage
import journal
from cstorage import errors
from cstorage.model import Container, IDMapEntry, Image, Kind, Layer
from cstorage.store.mapping import MapOptions
from journal import transfer
from tests.store.place import fill, ids

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cstorage.store.store import Store
    from tests.store.place import Place

DAY_S = 86400
KEPT = {"keep_deleted_s": DAY_S}


def exported(store: Store, key: str) -> bytes:
    out = io.BytesIO()
    store.diff(key, out)
    return out.getvalue()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_the_history_of_a_key_is_that_of_all_kinds_that_have_it(store: Store) -> None:
    store.create_layer("same")
    store.create_image("same", layer="same")
    store.create_layer("other")
    kinds = [type(entry.event).__name__ for entry in store.history("same")]
    assert kinds == ["LayerCreated", "ImageCreated"]
    store.create_image("second", layer="same")
    store.delete_image("same")
    kinds = [type(entry.event).__name__ for entry in store.history("same")]
    assert kinds == ["LayerCreated", "ImageCreated", "ImageDeleted"]


class TestAt:
    def test_records_are_those_of_the_event(self, store: Store) -> None:
        fill(store, id="base", names=["a"])
        then = store.sequence
        store.set_names("base", ["b"])
        store.create_layer(id="later")
        with store.at(then) as past:
            assert (past.layer("base").names, past.exists("later")) == (("a",), False)
            assert past.sequence == then
            assert [x.sequence for x in past.history()] == list(range(1, then + 1))
        assert store.layer("base").names == ("b",)

    def test_a_time_means_what_had_been_committed_by_then(self, store: Store) -> None:
        store.create_layer(id="before")
        time.sleep(0.01)
        then = datetime.now(UTC)
        time.sleep(0.01)
        store.create_layer(id="after")
        with store.at(then) as past:
            assert ids(past.layers()) == ["before"]
        with store.at(then.astimezone().replace(tzinfo=None)) as past:
            assert ids(past.layers()) == ["before"]
        with pytest.raises(errors.NotInHistory, match="begins after"):
            store.at(then - timedelta(days=1))

    def test_a_transaction_is_whole(self, store: Store) -> None:
        first = store.sequence
        with store.transaction() as tx:
            tx.create_layer(id="one")
            tx.create_layer(id="two")
        with store.at(first + 1) as past:
            assert ids(past.layers()) == ["one", "two"]
        with store.at(first) as past:
            assert ids(past.layers()) == []

    def test_tables_written_since_are_of_no_use(self, store: Store) -> None:
        store.create_layer(id="one")
        first = store.sequence
        store.snapshot()
        store.create_layer(id="two")
        second = store.sequence
        store.create_layer(id="three")
        store.snapshot()
        for moment, expected in ((first, ["one"]), (second, ["one", "two"])):
            with store.at(moment) as past:
                assert ids(past.layers()) == expected
                assert past.sequence == moment

    def test_it_stays_as_it_is_and_cannot_be_changed(self, place: Place, store: Store) -> None:
        fill(store, id="base")
        with place.open(at=store.sequence) as past:
            store.create_layer(id="later")
            assert not past.exists("later")
            assert exported(past, "base") == BASE
            with pytest.raises(errors.StoreIsReadOnly):
                past.create_layer()
            with pytest.raises(errors.StoreIsReadOnly):
                next(past.watch())
            place._opened.remove(past)

    @pytest.mark.parametrize(
        "call",
        [
            lambda past: past.garbage_collect(),
            lambda past: past.repair(past.check()),
            lambda past: past.dedup(),
            lambda past: past.wipe(),
            lambda past: past.import_layer(io.BytesIO(BASE)),
            lambda past: past.set_container_directory_file("box", "file", b""),
            lambda past: past.restore("base"),
            lambda past: past.undo(2),
            lambda past: past.forget_deleted(),
        ],
    )
    def test_nothing_of_today_is_removed_through_it(
        self, store: Store, call: Callable[[Store], object]
    ) -> None:
        store.create_container(id="box")
        then = store.sequence
        young = "f" * 64
        store.create_container(id=young, layer_id="young")
        store.set_container_directory_file(young, "file", b"kept")
        with store.at(then) as past, pytest.raises(errors.StoreIsReadOnly):
            call(past)
        assert store.from_container_directory(young, "file") == b"kept"
        assert store.check().healthy

    def test_looking_at_a_container_makes_no_directories(self, place: Place, store: Store) -> None:
        store.create_container(id="box")
        with place.open(read_only=True) as reader:
            assert not reader.container_directory("box").exists()
            assert reader.container_size("box") == 0
            place._opened.remove(reader)
        assert store.container_directory("box").is_dir()

    @pytest.mark.parametrize("moment", [-1, 10**9])
    def test_an_event_that_there_is_not(self, store: Store, moment: int) -> None:
        with pytest.raises(errors.NotInHistory, match="events 1 to 1"):
            store.at(moment)


class TestBlame:
    def test_everything_has_its_event(self, store: Store) -> None:
        store.create_image(id="image", names=["a", "b"], flags={"x": 1, "y": 1})
        made = store.sequence
        store.add_names("image", ["c", "a"])
        named = store.sequence
        store.set_flag("image", "y", 2)
        flagged = store.sequence
        store.set_metadata("image", "text")
        described = store.sequence
        store.set_image_big_data("image", "blob", b"1")
        stored = store.sequence
        found = {(x.what, x.which): x.entry.sequence for x in store.blame("a")}
        assert found == {
            ("created", ""): made,
            ("name", "a"): made,
            ("name", "b"): made,
            ("name", "c"): named,
            ("flag", "x"): made,
            ("flag", "y"): flagged,
            ("metadata", ""): described,
            ("data", "blob"): stored,
        }

    def test_a_name_that_was_lost_and_got_back(self, store: Store) -> None:
        store.create_image(id="one", names=["a"])
        store.create_image(id="two")
        store.add_names("two", ["a"])
        store.add_names("one", ["a"])
        found = [x.entry.sequence for x in store.blame("one") if x.what == "name"]
        assert found == [store.sequence]
        assert [x.what for x in store.blame("two")] == ["created"]

    def test_unknown(self, store: Store) -> None:
        with pytest.raises(errors.NotAnID):
            store.blame("nothing")


class TestRestore:
    def test_without_retention_nothing_is_kept(self, place: Place, store: Store) -> None:
        fill(store, id="base")
        store.delete_layer("base")
        assert list(store.deleted()) == []
        assert os.listdir(place.graph / "trash") == []
        with pytest.raises(errors.NotKept):
            store.restore("base")

    def test_a_store_that_is_open_already_is_no_excuse(self, place: Place, store: Store) -> None:
        fill(store, id="base")
        other = place.open(**KEPT)
        other.delete_layer("base")
        assert ids(other.restore("base")) == ["base"]
        assert place.open(**KEPT) is other

    @pytest.mark.parametrize(
        "name",
        ["intent", "intent.new", "deleted", "size", "tree", "recipe", "manifest", "container-box"],
    )
    def test_layers_named_as_one_might_name_the_stores_own_files(
        self, place: Place, name: str
    ) -> None:
        store = place.open(**KEPT)
        fill(store, id=name)
        store.create_image(id="image", layer=name)
        store.create_container("image", id="box")
        (store.container_directory("box") / "note").write_text("mine")
        with store.transaction():
            store.delete_container("box")
            store.delete_image("image")
        store = place.reopen(store)
        store.restore("box")
        assert exported(store, name) == BASE
        assert store.check().healthy
        assert (store.container_directory("box") / "note").read_text() == "mine"

    def test_an_image_with_everything(self, place: Place) -> None:
        store = place.open(**KEPT)
        fill(store, id="base", names=["lowest"], big_data=[("notes", b"n")])
        fill(store, CHANGES, id="top", parent="base")
        store.create_image(id="image", names=["app:1", "app"], layer="top", flags={"f": [1]})
        store.set_image_big_data("image", "manifest", b"m", sha256)
        store.set_metadata("image", "text")
        (store.image_directory("image") / "note").write_text("mine")
        layers, image = list(store.layers()), store.image("image")
        assert store.delete_image("app") == ["top", "base"]
        assert not store.exists("image")
        store = place.reopen(store)  # whoever restores need not keep anything
        assert [(x.kind, x.item.id) for x in store.deleted()] == [
            (Kind.IMAGE, "image"),
            (Kind.LAYER, "top"),
            (Kind.LAYER, "base"),
        ]
        back = store.restore("app:1")
        assert ids(back) == ["base", "top", "image"]
        assert store.image("app")._replace(sequence=0) == image._replace(sequence=0)
        assert [x._replace(sequence=0) for x in store.layers()] == [
            x._replace(sequence=0) for x in layers
        ]
        assert store.image_big_data("image", "manifest") == b"m"
        assert store.layer_big_data("base", "notes") == b"n"
        assert (exported(store, "base"), exported(store, "top")) == (BASE, CHANGES)
        assert (store.image_directory("image") / "note").read_text() == "mine"
        assert not any(store.check())
        assert os.listdir(place.graph / "trash") == []
        assert list(store.deleted()) == []

    def test_a_container_with_what_was_written_to_it(self, place: Place) -> None:
        store = place.open(**KEPT)
        fill(store, id="base")
        store.create_image(id="image", names=["app"], layer="base")
        box = store.create_container("app", id="box", names=["box1"])
        (store.mount("box") / "written").write_text("here")
        store.unmount("box")
        store.set_container_directory_file("box", "config/file", b"kept")
        store.delete_container("box")
        store.delete_image("app")
        back = store.restore("box1")
        assert [type(x) for x in back] == [Layer, Layer, Image, Container]
        assert store.container("box")._replace(sequence=0) == box._replace(sequence=0)
        assert (store.mount("box") / "written").read_text() == "here"
        store.unmount("box")
        assert store.from_container_directory("box", "config/file") == b"kept"
        assert not any(store.check())

    def test_blobs_that_others_had_when_it_was_deleted(self, place: Place) -> None:
        store = place.open(**KEPT)
        for name in ("one", "two"):
            store.create_image(id=name, big_data=[("blob", b"shared")])
            fill(store, id=f"{name}-layer")
        for name in ("one", "two"):
            store.delete_image(name)
            store.delete_layer(f"{name}-layer")
        store.restore("one")
        store.restore("one-layer")
        assert store.image_big_data("one", "blob") == b"shared"
        assert exported(store, "one-layer") == BASE

    def test_names_that_others_have_by_now_stay_there(self, place: Place) -> None:
        store = place.open(**KEPT)
        store.create_image(id="old", names=["latest", "1"])
        store.delete_image("old")
        store.create_image(id="new", names=["latest"])
        store.restore("old")
        assert (store.image("old").names, store.image("latest").id) == (("1",), "new")

    def test_an_id_that_is_taken(self, place: Place) -> None:
        store = place.open(**KEPT)
        fill(store, id="base")
        store.delete_layer("base")
        store.create_layer(id="base")
        with pytest.raises(errors.DuplicateID, match="made anew"):
            store.restore("base")
        store.delete_layer("base")
        store.restore("base")  # the latest deletion
        assert exported(store, "base") != BASE

    def test_it_never_comes_to_lie_on_another_layer(self, place: Place) -> None:
        store = place.open(**KEPT)
        fill(store, id="base")
        fill(store, CHANGES, id="top", parent="base")
        store.delete_layer("top")
        store.delete_layer("base")
        store.create_layer(id="base")
        with pytest.raises(errors.NotKept, match="another layer"):
            store.restore("top")
        store.delete_layer("base")
        assert ids(store.restore("top")) == ["base", "top"]
        assert exported(store, "base") == BASE

    def test_what_it_rested_on_is_gone_for_good(self, place: Place) -> None:
        store = place.open(**KEPT)
        fill(store, id="base")
        fill(store, CHANGES, id="top", parent="base")
        store.delete_layer("top")
        time.sleep(0.01)
        kept = next(store.deleted())
        assert (kept.item.id, kept.size > 0) == ("top", True)
        place.open(reason="keeps nothing").delete_layer("base")
        with pytest.raises(errors.NotKept, match="rested on layer base"):
            store.restore("top")
        assert ids(x.item for x in store.deleted()) == ["top"]

    def test_mapped_copies(self, place: Place, unshifted: None) -> None:
        store = place.open(**KEPT)
        fill(store, id="base")
        store.create_image(id="image", layer="base")
        maps = MapOptions(uids=(IDMapEntry(0, 1000, 9),), gids=(IDMapEntry(0, 1000, 9),))
        box = store.create_container("image", maps=maps)
        copies = store.image("image").mapped_top_layers
        assert len(copies) == 1
        store.delete_container(box.id)
        store.delete_image("image")
        store.restore("image")
        assert store.image("image").mapped_top_layers == copies
        store.delete_layer(copies[0])
        store.undo(store.sequence)
        assert store.image("image").mapped_top_layers == copies
        assert not any(store.check())

    def test_in_a_split_store(self, place: Place) -> None:
        apart = str(place.base / "apart")
        store = place.open(image_store=apart, **KEPT)
        fill(store, id="base")
        store.create_image(id="image", layer="base")
        store.create_container("image", id="box")
        store.delete_container("box")
        store.delete_image("image")
        assert len(store.restore("box")) == 4
        assert store._core.driver.content_root("base").startswith(apart)
        assert exported(store, "base") == BASE
        assert os.listdir(place.graph / "trash") == os.listdir(f"{apart}/trash") == []

    def test_age(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        store = place.open(**KEPT)
        fill(store, id="base")
        store.delete_layer("base")
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() + 2 * DAY_S * 10**9)
        monkeypatch.setattr(time, "time", lambda: real() / 1e9 + 2 * DAY_S)
        assert list(store.deleted()) == []
        with pytest.raises(errors.NotKept):
            store.restore("base")
        place.reopen(store)
        assert os.listdir(place.graph / "trash") == []

    def test_opening_does_not_look_at_what_is_kept(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = place.open(**KEPT)
        for name in ("one", "two"):
            store.create_layer(id=name)
        with store.transaction():
            store.delete("one")
            store.delete("two")
        store.restore("two")  # the other one stays kept in the same folder
        looked: list[object] = []
        monkeypatch.setattr("cstorage.store.workspace._read_intent", looked.append)
        store = place.reopen(store)
        assert looked == []
        monkeypatch.undo()
        assert ids(store.restore("one")) == ["one"]

    def test_bytes(self, place: Place) -> None:
        store = place.open(keep_deleted_bytes=3 << 20)
        for name in ("one", "two", "three"):
            store.create_layer(id=name)
            (store.mount(name) / "big").write_bytes(os.urandom(1 << 20))
            store.unmount(name)
            store.delete_layer(name)
        assert ids(x.item for x in store.deleted()) == ["three", "two"]
        assert len(os.listdir(place.graph / "trash")) == 4

    def test_forgetting(self, place: Place) -> None:
        store = place.open(**KEPT)
        fill(store, id="base")
        store.delete_layer("base")
        assert (store.forget_deleted(older_than_s=60), len(list(store.deleted()))) == (0, 1)
        assert (store.forget_deleted(), list(store.deleted())) == (1, [])
        assert os.listdir(place.graph / "trash") == []

    def test_not_inside_a_transaction(self, place: Place) -> None:
        store = place.open(**KEPT)
        fill(store, id="base")
        store.delete_layer("base")
        with pytest.raises(errors.StorageError, match="of their own"), store.transaction():
            store.restore("base")
        assert ids(x.item for x in store.deleted()) == ["base"]

    def test_everything_that_one_transaction_deleted(self, place: Place) -> None:
        store = place.open(**KEPT)
        fill(store, id="base")
        fill(store, CHANGES, id="top", parent="base")
        store.create_image(id="image", layer="top")
        store.create_container("image", id="box")
        before = ids(store.layers()), ids(store.images()), ids(store.containers())
        store.wipe()
        store.undo(store.sequence)
        after = ids(store.layers()), ids(store.images()), ids(store.containers())
        assert [sorted(x) for x in after] == [sorted(x) for x in before]
        assert not any(store.check())
        assert os.listdir(place.graph / "trash") == []

    def test_what_fails_leaves_everything_kept(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = place.open(**KEPT)
        fill(store, id="base", big_data=[("blob", b"b")])
        store.create_image(id="image", layer="base")
        store.create_container("image", id="box")
        store.set_container_directory_file("box", "file", b"kept")
        store.delete_container("box")
        store.delete_image("image")

        def refuse(*_: object, **__: object) -> None:
            raise OSError("planted")

        with monkeypatch.context() as patch:
            patch.setattr("cstorage.store.commit.Transaction._append", refuse)
            with pytest.raises(OSError, match="planted"):
                store.restore("box")
        assert (ids(store.layers()), store.storage_layers()) == ([], [])
        store = place.reopen(store)
        assert len(store.restore("box")) == 4
        assert exported(store, "base") == BASE
        assert store.from_container_directory("box", "file") == b"kept"

    @pytest.mark.parametrize("step", ["_append", "_remove", "close"])
    def test_a_process_that_dies_while_deleting(self, place: Place, step: str) -> None:
        store = place.open()
        fill(store, id="base")
        store.create_image(id="image", names=["app"], layer="base")
        died(place, f"commit.Transaction.{step}", "store.delete_image('image')")
        store = place.reopen(store)
        if step == "_append":
            assert (store.exists("image"), list(store.deleted())) == (True, [])
        else:
            assert not store.exists("image")
            assert ids(store.restore("app")) == ["base", "image"]
        assert exported(store, "base") == BASE
        assert os.listdir(place.graph / "trash") == []

    @pytest.mark.parametrize("step", ["commit.Transaction._append", "restoring._tidy"])
    def test_a_process_that_dies_while_restoring(self, place: Place, step: str) -> None:
        store = place.open(**KEPT)
        fill(store, id="base")
        store.create_image(id="image", names=["app"], layer="base")
        store.delete_image("image")
        died(place, step, "store.restore('image')")
        store = place.reopen(store)
        if step.endswith("_append"):
            assert not store.exists("image")
            assert ids(store.restore("app")) == ["base", "image"]
        assert (ids(store.layers()), ids(store.images())) == (["base"], ["image"])
        assert list(store.deleted()) == []
        assert exported(store, "base") == BASE
        assert not any(store.check())

    def test_a_restored_layer_is_an_event_like_others(self, place: Place) -> None:
        store = place.open(reason="oops", **KEPT)
        fill(store, id="base")
        store.delete_layer("base")
        store.restore("base")
        names = [(type(x.event).__name__, x.reason) for x in store.history("base")]
        assert names == [(f"Layer{x}", "oops") for x in ("Created", "Deleted", "Created")]

    def test_the_configuration_can_ask_for_it(self, place: Place, tmp_path: Path) -> None:
        file = tmp_path / "storage.conf"
        file.write_text(
            f'[storage]\ndriver = "{place.driver}"\ngraphroot = "{place.graph}"\n'
            f'runroot = "{place.run}"\n[storage.options]\nkeep-deleted-seconds = 60\n'
            "keep-deleted-mib = 5\n"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CONTAINERS_STORAGE_CONF", str(file))
            with cstorage.open() as store:
                store.create_layer(id="one")
                store.delete_layer("one")
                assert store._core.retention == (60, 5 << 20)
                assert ids(store.restore("one")) == ["one"]


class TestUndo:
    def test_names_go_back_to_whom_they_were_taken_from(self, store: Store) -> None:
        store.create_image(id="one", names=["latest", "1"])
        store.create_image(id="two", names=["2"])
        store.add_names("two", ["latest"])
        store.undo(store.sequence)
        assert (store.image("one").names, store.image("two").names) == (("latest", "1"), ("2",))

    def test_metadata_and_flags(self, store: Store) -> None:
        store.create_layer(id="one", flags={"a": 1})
        store.set_metadata("one", "first")
        with store.transaction():
            store.set_metadata("one", "second")
            store.set_flag("one", "a", 2)
        store.undo(store.sequence)
        assert (store.metadata("one"), store.flags("one")) == ("first", {"a": 1})
        store.undo(store.sequence)  # the undoing is undone
        assert (store.metadata("one"), store.flags("one")) == ("second", {"a": 2})

    def test_what_was_changed_since_is_left_alone(self, store: Store) -> None:
        store.create_layer(id="one", names=["a"])
        store.set_names("one", ["b"])
        undone = store.sequence
        store.set_names("one", ["c"])
        with pytest.raises(errors.ChangedSince):
            store.undo(undone)
        assert store.names("one") == ("c",)

    def test_a_name_that_somebody_took_meanwhile(self, store: Store) -> None:
        store.create_image(id="one", names=["a"])
        store.set_names("one", [])
        undone = store.sequence
        store.create_image(id="two", names=["a"])
        with pytest.raises(errors.ChangedSince, match="belongs to image two"):
            store.undo(undone)

    def test_what_cannot_be_undone_says_so(self, store: Store) -> None:
        store.create_layer(id="one")
        with pytest.raises(errors.NotSupported, match="LayerCreated"):
            store.undo(store.sequence)
        with pytest.raises(errors.NotInHistory):
            store.undo(99)
        store.delete_layer("one")
        with pytest.raises(errors.NotKept):
            store.undo(store.sequence)


def died(place: Place, step: str, call: str) -> None:
    """Run ``call`` in a process that ends where ``step`` begins."""
    code = (
        "import importlib, os, sys, cstorage\n"
        f"store = cstorage.open({str(place.graph)!r}, {str(place.run)!r}, {place.driver!r},"
        f" keep_deleted_s={DAY_S})\n"
        f"module, _, path = {step!r}.partition('.')\n"
        "at = importlib.import_module('cstorage.store.' + module)\n"
        "*above, last = path.split('.')\n"
        "for name in above: at = getattr(at, name)\n"
        "def die(*_, **__): os._exit(9)\n"
        f"setattr(at, last, die)\n{call}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr


def test_a_copy_as_of_an_earlier_moment(place: Place, store: Store, tmp_path: Path) -> None:
    """The recipe of docs/history.md."""
    fill(store, id="base", names=["a"])
    then = store.sequence
    store.set_names("base", ["b"])
    store.create_layer(id="later")
    store.snapshot()
    log = tmp_path / "log"
    with journal.Journal.open(store.journal_path) as opened, log.open("wb") as file:
        transfer.export(opened, file, until_sequence=then)
    copy = place.beside("copy")
    shutil.copytree(place.graph, copy.graph, symlinks=True)
    for name in ("journal", "index"):
        shutil.rmtree(copy.graph / name, ignore_errors=True)
    with log.open("rb") as file:
        transfer.load(str(copy.graph / "journal"), file)
    copied = copy.open()
    copied.garbage_collect()
    assert (ids(copied.layers()), copied.names("base")) == (["base"], ("a",))
    assert copied.storage_layers() == ["base"]
    assert exported(copied, "base") == BASE
    assert not any(copied.check())
