"""Trees of large deletions: removed beside the caller, gone when the store is closed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from cstorage.store import removing
from cstorage.store.workspace import Workspace
from tests.store.place import ids

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cstorage.store.store import Store
    from tests.store.place import Place


def stack(store: Store, count: int, name: str = "app") -> None:
    """An image on ``count`` layers."""
    parent = ""
    for number in range(count):
        parent = store.create_layer(parent=parent, id=f"{name}{number}").id
    store.create_image(id=f"{name}-image", layer=parent, names=[name])


def trash(place: Place) -> list[str]:
    return sorted(os.listdir(place.graph / "trash"))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Removals by a thread wait until it is set."""
    opened = threading.Event()
    discard = Workspace.discard

    def waiting(work: Workspace) -> None:
        if threading.current_thread().name == "cstorage-removal":
            assert opened.wait(30)
        discard(work)

    monkeypatch.setattr(Workspace, "discard", waiting)
    yield opened
    opened.set()


def test_nobody_waits_for_many_trees_but_who_closes_the_store(
    place: Place, store: Store, gate: threading.Event
) -> None:
    stack(store, removing.MANY)
    stack(store, 2, "other")
    store.delete_image("app")
    assert ids(store.layers()) == ["other0", "other1"]
    assert not store._core.driver.exists("app0")
    assert len(trash(place)) == 2, "the folder and its lock"
    store.delete_image("other")
    assert len(trash(place)) == 2, "few are removed at once"
    threading.Timer(0.05, gate.set).start()
    store.close()
    assert trash(place) == []


def test_few_trees_are_gone_when_the_deletion_returns(place: Place, store: Store) -> None:
    stack(store, removing.MANY - 1)
    store.delete_image("app")
    assert trash(place) == []
    assert threading.active_count() == 1


@pytest.mark.parametrize("why", ["the disk is nearly full", "there are no more threads"])
def test_all_are_gone_at_once_where(
    place: Place, store: Store, gate: threading.Event, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    if "disk" in why:
        monkeypatch.setattr(removing, "ROOM", 1.1)
    else:
        monkeypatch.setattr(threading.Thread, "start", refuse)
    stack(store, removing.MANY)
    store.delete_image("app")
    assert trash(place) == []


def test_one_thread_removes_what_several_deletions_left(
    place: Place, store: Store, gate: threading.Event
) -> None:
    for name in "abc":
        stack(store, removing.MANY, name)
    before = threading.active_count()
    for name in "abc":
        store.delete_image(name)
    assert threading.active_count() == before + 1
    gate.set()
    assert store._core.sweep() == 0, "what is being removed is not left over"
    assert trash(place) == []
    stack(store, removing.MANY)
    store.delete_image("app")
    store._core.remover.wait()
    assert trash(place) == []
    assert threading.active_count() == before


def test_what_cannot_be_removed_is_left_to_a_sweep(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(work: Workspace) -> None:
        raise PermissionError(work.path)

    stack(store, removing.MANY)
    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "discard", failing)
        store.delete_image("app")
        store._core.remover.wait()
    assert len(trash(place)) == 2
    assert store._core.sweep() == 1
    assert trash(place) == []


def test_kept_deletions_are_not_removed(place: Place) -> None:
    store = place.open(keep_deleted_s=3600)
    stack(store, removing.MANY)
    store.delete_image("app")
    store = place.reopen(store)
    store.restore("app")
    assert len(ids(store.layers())) == removing.MANY
    assert all(store._core.driver.exists(id_) for id_ in ids(store.layers()))


def test_a_forked_child_does_not_wait_for_its_parents_removals(
    place: Place, store: Store, gate: threading.Event
) -> None:
    stack(store, removing.MANY)
    store.delete_image("app")
    child = os.fork()
    if child == 0:
        store._core._await_removals()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(trash(place)) == 2
    gate.set()
    store.close()
    assert trash(place) == []


KILLED = """
import os, sys, threading
import cstorage
from cstorage.store.workspace import Workspace
store = cstorage.open(sys.argv[1], sys.argv[2], driver=sys.argv[3])
Workspace.discard = lambda work: threading.Event().wait()
store.delete_image("app")
os._exit(9)
"""


def test_trees_of_a_process_that_ended_are_removed_by_the_next(
    place: Place, store: Store, tmp_path: Path
) -> None:
    stack(store, removing.MANY)
    store.close()
    words = [str(place.graph), str(place.run), place.driver]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], timeout=60, check=False)
    assert done.returncode == 9
    assert len(trash(place)) == 2
    place.open()
    assert trash(place) == []


def test_an_interpreter_that_ends_without_closing_waits(place: Place, store: Store) -> None:
    stack(store, removing.MANY)
    store.close()
    code = "import sys, cstorage; cstorage.open(*sys.argv[1:3], driver=sys.argv[3])"
    words = [str(place.graph), str(place.run), place.driver]
    subprocess.run(
        [sys.executable, "-c", f"{code}.delete_image('app')", *words], timeout=60, check=True
    )
    assert trash(place) == []


def test_a_command_returns_when_everything_is_gone(place: Place, store: Store) -> None:
    stack(store, removing.MANY)
    store.close()
    code = "import sys; from cstorage.cli.main import entry; sys.exit(entry())"
    roots = ["-g", str(place.graph), "-R", str(place.run), "-s", place.driver]
    subprocess.run(
        [sys.executable, "-c", code, *roots, "delete-image", "app"],
        timeout=60, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert trash(place) == []
