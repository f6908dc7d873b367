"""Directories of containers and images go with them, whenever the process is killed.

The moments: the frame is durable and nothing was moved; the graph root's directory was moved and
the run root's was not; both were moved and the trash is not emptied.
"""

from __future__ import annotations

import os
import signal

import pytest

from cstorage.errors import ContainerUnknown
from cstorage.store import directories, workspace
from cstorage.store.core import Core
from cstorage.store.workspace import Workspace
from journal import codec
from tests.store.place import fill

MOMENTS = ["before", "between", "after"]


def kill_at(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process kill itself there; call it in a child."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "before":
        monkeypatch.setattr(directories, "withdraw", die)
    elif moment == "after":
        monkeypatch.setattr(Workspace, "discard", die)
    else:
        rename = os.rename

        def once(source, target):
            rename(source, target)
            if os.path.isdir(f"{target}/userdata"):
                die()

        monkeypatch.setattr(os, "rename", once)


def killed_while(monkeypatch, place, moment, action) -> None:
    """Perform ``action`` with a store of the place in a child that gets killed."""
    child = os.fork()
    if child == 0:
        try:
            store = place.open()
            kill_at(moment, monkeypatch)
            action(store)
        finally:
            os._exit(0)  # not killed: the assertion below tells
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def left(place) -> list[str]:
    """Everything of the items' directories and work folders that is still there."""
    found = []
    for root in (place.graph, place.run):
        for name in ("containers", "images", "trash"):
            for folder in (root / f"{place.driver}-{name}", root / name):
                found += [str(path) for path in folder.rglob("*")]
    return found


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", ["container", "image"])
def test_a_kill_while_an_item_is_deleted_leaves_no_directory(place, monkeypatch, kind, moment):
    store = place.open()
    store.create_image(id="img", layer=fill(store).id)
    if kind == "container":
        store.create_container("img", id="item")
        folders = [store.container_directory("item"), store.container_run_directory("item")]
    else:
        store.create_image(id="item")
        folders = [store.image_directory("item"), store.image_run_directory("item")]
    for folder in folders:
        (folder / "file").write_text("data")
    kept = store.image_directory("img") / "file"
    kept.write_text("stays")
    place.close()
    killed_while(monkeypatch, place, moment, lambda store: store.delete("item"))
    assert [folder.exists() for folder in folders] == {
        "before": [True, True], "between": [False, True], "after": [False, False],
    }[moment]  # fmt: skip
    store = place.open()
    assert not store.exists("item")
    assert kept.read_text() == "stays"
    assert [path for path in left(place) if "img" not in path] == []


def test_an_item_made_again_keeps_its_new_directories(place, monkeypatch):
    """What is left over of a deletion is settled by what the journal says now."""
    store = place.open()
    store.create_container(id="box")
    store.container_directory("box")
    place.close()
    killed_while(monkeypatch, place, "before", lambda store: store.delete_container("box"))
    monkeypatch.setattr(Core, "sweep", lambda core: 0)
    store = place.open()
    store.create_container(id="box")
    (store.container_directory("box") / "file").write_text("new")
    monkeypatch.undo()
    store = place.reopen(store)
    assert (store.container_directory("box") / "file").read_text() == "new"


def delete_and_fail(store):
    with store.transaction() as tx:
        tx.delete_container("box")
        tx.container("box")


def test_a_refused_deletion_keeps_the_directories(place, monkeypatch):
    store = place.open()
    store.create_container(id="box")
    folder = store.container_directory("box")
    with pytest.raises(ContainerUnknown):
        delete_and_fail(store)
    assert folder.is_dir()
    with store.transaction() as tx:
        tx.delete_container("box")
        assert folder.is_dir()
    assert not folder.exists()
    assert left(place) == []


def test_intents_of_earlier_versions_are_read(tmp_path):
    work = Workspace.create(tmp_path)
    work.declare(workspace.Intent("vfs", ("a",), ("b",)))
    (work.path / "=intent").write_bytes(codec.encode(["vfs", [b"a"], [b"b"], []]))
    work.abandon()
    (found,) = workspace.left_over(tmp_path)
    assert found.intent == workspace.Intent("vfs", ("a",), ("b",))
    found.discard()
