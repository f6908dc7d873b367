"""What is pinned, and what it rests on, cannot be deleted in any way, and the refusal says why."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers
import pytest

import cstorage
from cstorage.errors import ItemPinned, NotAnID, StorageError, WrongKindError
from cstorage.model import Kind
from cstorage.store import projecting

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="not root: layers with owners"),
]

NAME = "localhost/test:1"


def test_every_way_of_deleting_refuses_and_names_who_and_why(
    open_store: Callable[..., Any], layout: Path
) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, NAME)
        (pin,) = store.pin(NAME, by="host-b", why="runs there")
        assert (pin.kind, pin.id, pin.by, pin.why) == (Kind.IMAGE, image.id, "host-b", "runs there")
        ways: list[Callable[[], Any]] = [
            lambda: store.delete_image(NAME),
            lambda: store.delete_image(NAME, commit=False),
            lambda: store.delete(NAME),
            lambda: store.delete(image.layers[-1]),
            lambda: store.delete(image.layers[0]),
            store.wipe,
        ]
        for way in ways:
            with pytest.raises(ItemPinned, match=r"pinned by host-b since \d.*: runs there"):
                way()
        assert [layer.id for layer in store.layers()] == image.layers
        store.unpin(NAME, by="host-b")
        assert store.delete_image(NAME) == image.layers[::-1]


def test_pinned_layers_outlive_their_image(open_store: Callable[..., Any], layout: Path) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, NAME)
        store.pin(image.layers[1])
        assert store.delete_image(NAME) == [image.layers[2]]
        with pytest.raises(ItemPinned):
            store.delete_layer(image.layers[1])
        assert [layer.id for layer in store.layers()] == image.layers[:2]


def test_each_holder_takes_back_their_own_pin(open_store: Callable[..., Any], layout: Path) -> None:
    with open_store("vfs") as store:
        peers.load(store, layout, NAME)
        store.pin(NAME, by="a", why="first")
        store.pin(NAME, by="b")
        store.pin(NAME, by="a", why="second")
        assert [(p.by, p.why) for p in store.pins()] == [("a", "second"), ("b", "")]
        with pytest.raises(StorageError, match="is not pinned by c but by a, b"):
            store.unpin(NAME, by="c")
        store.unpin(NAME, by="a")
        with pytest.raises(ItemPinned, match="by b"):
            store.delete_image(NAME)
        assert [p.by for p in store.unpin(NAME, everybody=True)] == ["b"]
        assert store.pins() == []
        before = len(list(store.history()))
        with pytest.raises(NotAnID):
            store.pin(NAME, "nothing")  # all or none
        assert len(list(store.history())) == before
        container = store.create_container(NAME)
        with pytest.raises(WrongKindError, match="containers cannot be pinned"):
            store.pin(container.id)


def test_pins_outlive_snapshot_conversion_and_replay(
    open_store: Callable[..., Any], layout: Path, tmp_path: Path
) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, NAME)
        store.pin(NAME, image.layers[0], by="b", why="w")
        pins = store.pins()
        store.snapshot()
        store.convert(tmp_path / "copy", "vfs")
    with open_store("vfs") as store:
        assert store.pins() == pins
        with pytest.raises(ItemPinned):
            store.delete_image(NAME)
    with cstorage.open(tmp_path / "copy", tmp_path / "run", "vfs") as copy:
        assert copy.pins() == pins


def test_a_pin_changes_nothing_in_the_view(open_store: Callable[..., Any], layout: Path) -> None:
    with open_store("vfs") as store:
        peers.load(store, layout, NAME)
        store.project()
        before = peers.view_bytes(store.graph_root, "vfs")
        store.pin(NAME)
        done = projecting.refresh(store._core)
        assert (done.whole, done.written) == (False, 0)
        assert peers.view_bytes(store.graph_root, "vfs") == before


def test_the_commands(
    open_store: Callable[..., Any],
    layout: Path,
    tmp_path: Path,
    cstorage_command: list[str],
    clean_environment: dict[str, str],
) -> None:
    with open_store("vfs") as store:
        image = peers.load(store, layout, NAME)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        roots = ["--graph", f"{tmp_path}/ours/graph", "--run", f"{tmp_path}/ours/run", "-s", "vfs"]
        return subprocess.run(
            [*cstorage_command, *roots, *words], env=clean_environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip

    done = run("--reason", "runs there", "pin", "--by", "host-b", NAME)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"image {image.id} pinned by host-b since ")
    (listed,) = json.loads(run("pins", "--json").stdout)
    assert (listed["by"], listed["reason"], listed["kind"]) == ("host-b", "runs there", "image")
    refused = run("delete-image", NAME)
    assert refused.returncode == 1
    assert "pinned by host-b since" in refused.stderr
    assert "runs there" in refused.stderr
    assert "unpin --by" in refused.stderr
    told = run("history", NAME).stdout.splitlines()[-1]
    assert f"pinned image {image.id} by host-b" in told
    assert told.endswith('("runs there")')
    assert run("unpin", NAME).returncode == 1
    assert run("unpin", "--all", NAME).returncode == 0
    assert run("pins").stdout == ""
    assert run("delete-image", NAME).returncode == 0
