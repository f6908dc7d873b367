"""The state on disk: levels on a snapshot, made in the background, believed only by the rules."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

import cstorage
from cstorage.errors import StorageError
from cstorage.state import State
from cstorage.store import reading, tables
from journal import Frame, Journal
from journal.snapshots import Snapshots


def open_store(root: Path, **options):
    return cstorage.open(root / "g", root / "r", driver="vfs", **options)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A place for a store whose helper is started by hand only."""
    monkeypatch.setattr(tables.Helper, "start", lambda self, pause_s=0.0: False)
    return tmp_path


def change(root: Path, begin: int, end: int) -> None:
    with open_store(root) as store:
        for number in range(begin, end):
            store.create_image(id=f"image{number:05}", names=[f"name{number}"])


def settle(root: Path, **options) -> bool:
    path = root / "g" / "journal"
    with Journal.open(path, "w") as journal:
        return tables.settle(journal, str(path), reading.apply_frame, **options)


def replayed(root: Path) -> State:
    state = State()
    with Journal.open(root / "g" / "journal") as journal:
        for frame in journal.frames():
            reading.apply_frame(state, frame)
    return state


def check_state(store, root: Path) -> None:
    """What the store answers is what replaying everything gives."""
    whole = replayed(root)
    found = store._core.state
    assert list(found.entries()) == list(whole.entries())
    assert found.digest() == whole.digest()
    for prefix in (b"N", b"Oi", b"I"):
        assert list(found.scan(prefix)) == list(whole.scan(prefix))
        assert list(found.scan(prefix, reverse=True)) == list(whole.scan(prefix, reverse=True))


def test_a_level_holds_only_what_changed(root):
    change(root, 0, 60)
    assert settle(root)
    change(root, 60, 65)
    with open_store(root) as store:
        store.delete_image("image00003")
        store.set_names("image00010", ["name61", "other"])
    assert settle(root)
    assert not settle(root), "nothing changed since"
    with open_store(root) as store:
        replica = store._core._replica
        assert replica.tail_events == 0
        base, level = replica.state._table.tables
        assert len(level) < len(base) / 2
        assert not store.exists("image00003")
        assert store.image("name61").id == "image00010"
        check_state(store, root)


def test_there_are_few_levels_and_two_piles_whatever_the_number_of_tables(root):
    change(root, 0, 200)
    settle(root)
    for step in range(12):
        change(root, 200 + 5 * step, 205 + 5 * step)
        settle(root)
    with open_store(root) as store:
        sizes = [len(table) for table in store._core._replica.state._table.tables]
        assert len(sizes) <= 4, sizes
        assert all(a >= tables.RATIO * b for a, b in pairwise(sizes[1:]))
        check_state(store, root)
    assert len(list((root / "g" / "index").glob("*.table"))) <= 6


def test_levels_become_a_snapshot_when_they_weigh_as_much(root, monkeypatch):
    monkeypatch.setattr(tables, "LEAST_LEVELS", 50)
    change(root, 0, 20)
    settle(root)
    change(root, 20, 60)
    settle(root)
    assert not list((root / "g" / "index").glob("*.table"))
    assert len(list((root / "g" / "journal" / "snapshots").glob("*.snap"))) == 2
    with open_store(root) as store:
        check_state(store, root)


@pytest.mark.parametrize("which", ["base", "level"])
@pytest.mark.parametrize("how", ["gone", "cut", "foreign"])
def test_a_table_in_doubt_is_not_used(root, which, how):
    """The store opens from what is left: an older pile, or everything from the journal."""
    change(root, 0, 30)
    settle(root)
    change(root, 30, 40)
    settle(root)
    folder = root / "g" / ("index" if which == "level" else "journal/snapshots")
    path = next(p for p in folder.iterdir() if p.suffix in (".table", ".snap"))
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        other = root / "other"
        change(other, 0, 35)
        settle(other)
        path.write_bytes(next((other / "g/journal/snapshots").glob("*.snap")).read_bytes())
    with open_store(root) as store:
        assert store._core._replica.tail_events > 0
        check_state(store, root)


def test_a_table_that_the_journal_does_not_name_is_not_used(root, monkeypatch):
    change(root, 0, 30)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "control", lambda *_: None)
        patch.setattr(Snapshots, "maintain", lambda *_: [])
        settle(root)
    assert list((root / "g/journal/snapshots").glob("*.snap"))
    with open_store(root) as store:
        assert store._core._replica.tail_events > 30
        check_state(store, root)


def test_a_damaged_block_is_noticed_and_its_table_set_aside(root):
    """One command fails; the next one uses older tables, or replays."""
    change(root, 0, 400)
    settle(root)
    path = next((root / "g/journal/snapshots").glob("*.snap"))
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"Iimage00300") + 30] ^= 1
    path.chmod(0o600)
    path.write_bytes(raw)
    with open_store(root) as store, pytest.raises(StorageError, match="damaged"):
        store.image("image00300")
    with open_store(root) as store:
        assert store.image("image00300").names == ("name300",)
        check_state(store, root)


def test_closing_a_store_with_a_long_tail_has_a_table_made(tmp_path):
    """By a process that nobody waits for."""
    change(tmp_path, 0, reading.TAIL_EVENTS + 10)
    deadline = time.monotonic() + 30
    while True:
        with open_store(tmp_path, read_only=True) as store:
            if store._core._replica.tail_events < 10:
                check_state(store, tmp_path)
                break
        assert time.monotonic() < deadline, "no table was made"
        time.sleep(0.1)


@pytest.fixture
def short_tails(monkeypatch):
    """Stores that stay open go over to other tables soon, and nobody starts a helper."""
    monkeypatch.setattr(reading, "TAIL_EVENTS_OPEN", 50)
    monkeypatch.setattr(reading, "TAIL_EVENTS_KEPT", 50)
    monkeypatch.setattr(reading, "TABLE_PAUSE_S", 0.0)
    monkeypatch.setattr(reading, "TAIL_EVENTS", 10**9)
    monkeypatch.setattr(tables.Helper, "start", lambda *_: False)


def test_one_who_only_reads_goes_over_to_the_table_that_another_made(root, short_tails):
    """So its memory does not grow with what others do; also when nothing happens any more."""
    change(root, 0, 10)
    with open_store(root, read_only=True) as store:
        change(root, 10, 100)
        assert store.exists("image00099")
        assert store._core._replica.tail_events > 50
        settle(root)
        assert store.exists("image00099")
        assert store._core._replica.tail_events < 50
        check_state(store, root)


def tables_held() -> list[str]:
    """Tables that this process has open, once for each time."""
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    found = [os.readlink(path) for path in paths if os.path.lexists(path)]
    return [path for path in found if ".snap" in path or ".table" in path]


def test_tables_that_nobody_looks_into_any_more_are_closed(root, short_tails):
    with open_store(root) as store:
        for number in range(4):
            change(root, 100 * number, 100 * number + 100)
            settle(root)
            listing = store.images()
            assert next(listing).id == "image00000"
        change(root, 400, 500)
        settle(root)
        assert store.exists("image00499")
        assert sum(1 for _ in listing) > 300, "a listing goes on with the tables it began with"
        del listing
        pile = store._core._replica.state._table.tables
        assert len(tables_held()) == len(pile)


def test_nobody_goes_over_to_another_table_while_others_wait_for_the_lock(
    root, short_tails, monkeypatch
):
    loads = []
    load = reading.Replica.load

    def noted(self: reading.Replica) -> None:
        loads.append(self.journal._mine())
        load(self)

    with open_store(root) as store:
        change(root, 0, 200)
        settle(root)
        monkeypatch.setattr(reading.Replica, "load", noted)
        store.create_image(id="mine")
        assert loads == [False]


def test_a_table_is_only_made_where_none_covers_the_tail(root, monkeypatch):
    """Not by everybody who was there while it grew, nor while another is at it."""
    started = []
    monkeypatch.setattr(tables.Helper, "start", lambda *_: bool(started.append(1)))
    with open_store(root, reason="another store object") as early:
        change(root, 0, reading.TAIL_EVENTS + 10)
        assert len(started) == 1
        assert early.exists("image00000")
        settle(root)
    assert len(started) == 1
    change(root, 200, 201 + reading.TAIL_EVENTS)
    assert len(started) == 2
    lock = tables._lock(tables.index_folder(str(root / "g" / "journal")), wait=False)
    try:
        open_store(root).close()
    finally:
        os.close(lock)
    assert len(started) == 2
    open_store(root).close()
    assert len(started) == 3


def test_a_listing_does_not_begin_with_reading_everything(root):
    change(root, 0, 300)
    settle(root)
    with open_store(root) as store:
        listing = store.images()
        assert next(listing).id == "image00000"
        assert len(store._core._replica.state._decoded) < 10
        store.delete_image("image00001")
        # It shows the store of the moment it began; the next listing shows the next moment.
        assert next(listing).id == "image00001"
        assert [image.id for image in store.images()][:2] == ["image00000", "image00002"]


def test_a_deletion_is_applied_once_by_who_committed_it(root, monkeypatch):
    """And what it leads to is what everybody else gets from the journal."""
    applied: list[str] = []

    def noted(state: State, frame: Frame) -> int:
        applied.append(frame.kind_name)
        return apply_frame(state, frame)

    apply_frame = reading.apply_frame
    monkeypatch.setattr(reading, "apply_frame", noted)
    with open_store(root) as store:
        for name in "abcd":
            parent = ""
            for number in range(9):
                parent = store.create_layer(parent=parent, names=[f"{name}{number}"]).id
            store.create_image(id=name, layer=parent, names=[f"name {name}"])
        store.create_container(id="box", image="d")
        assert settle(root)
    with open_store(root) as store:
        applied.clear()
        store.delete_image("a")
        with store.transaction() as tx:
            tx.delete_image("b")
            tx.delete_container("box")
            tx.delete_image("d")
        assert "data" not in applied
        check_state(store, root)
        applied.clear()
        with store.transaction() as tx:
            tx.delete_image("c")
            tx.create_image(id="e", names=["name c"])
        assert applied.count("data") == 1, "what holds more than IDs is read back"
        check_state(store, root)
        assert [layer.id for layer in store.layers()] == []


@pytest.mark.parametrize("wrong", ["sequence", "base"])
def test_a_frame_of_somebody_else_is_not_taken_for_ones_own(root, wrong):
    with open_store(root) as one, open_store(root, program="another") as other:
        one.create_image(id="i", names=["n"])
        replica = other._core._replica
        replica.catch_up()
        one.delete_image("i")
        next_one = replica.position.sequence + 1
        draft = State(replica.state if wrong == "sequence" else None)
        draft.put(b"@wrong", "draft")
        replica.catch_up(reading.Own(next_one + (wrong == "sequence"), draft))
        assert one._core is not other._core
        check_state(other, root)


def test_the_maker_of_tables_steps_back():
    """Among the processes of its session and, where sessions share the processors, among those."""
    code = (
        "import os; from cstorage.store import tables; tables.step_back(); "
        "print(os.nice(0)); print(open('/proc/self/autogroup').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        start_new_session=True,
    )
    found = done.stdout.split()
    assert int(found[0]) >= 10
    if os.path.exists("/proc/self/autogroup"):
        assert found[-1] == "10"
