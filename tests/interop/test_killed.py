"""``kill -9`` at any moment of ``project``, ``adopt`` and ``export`` leaves both sides valid.

``--kill-points N`` kills N times each (default: a few).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers
import pytest

import cstorage
from cstorage.model import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.getuid() != 0, reason="not root: layers with owners"),
]

_DEFAULT = 5


class Killer:
    """Starts ``cstorage`` and kills it some time after it began to write."""

    def __init__(self, command: list[str], environment: dict[str, str], seed: int) -> None:
        self._command, self._environment = command, environment
        self._random = random.Random(seed)
        self._working_s = 0.0

    def _start(self, words: list[str], begun: Callable[[], bool]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*self._command, *words], env=self._environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and not begun():
            time.sleep(0.0005)
        return process

    def measure(self, words: list[str], begun: Callable[[], bool]) -> None:
        """How long the command works from its first write to its end."""
        process = self._start(words, begun)
        start = time.monotonic()
        assert process.wait() == 0
        self._working_s = time.monotonic() - start

    def kill(self, words: list[str], begun: Callable[[], bool]) -> bool:
        """Run and kill at a random moment of its work; whether it was still running."""
        process = self._start(words, begun)
        start = time.monotonic()
        try:
            process.wait(timeout=self._random.uniform(0, self._working_s))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            return True
        self._working_s = time.monotonic() - start  # the machine is faster than it was
        return False


@pytest.fixture
def killer(cstorage_command: list[str], clean_environment: dict[str, str]) -> Killer:
    return Killer(cstorage_command, clean_environment, seed=7)


@pytest.fixture
def times(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kill-points")) or _DEFAULT


def _roots(base: Path, driver: str = "overlay") -> list[str]:
    return ["--graph", str(base / "graph"), "--run", str(base / "run"), "-s", driver]


def _check_view(graph: Path) -> None:
    """What a tool needs of every record that it is shown."""
    layers_file = graph / "overlay-layers" / "layers.json"
    images_file = graph / "overlay-images" / "images.json"
    layers = json.loads(layers_file.read_bytes() or "[]") if layers_file.exists() else []
    images = json.loads(images_file.read_bytes() or "[]") if images_file.exists() else []
    ids = {layer["id"] for layer in layers}
    for layer in layers:
        assert (graph / "overlay" / layer["id"] / "diff").is_dir()
        assert layer.get("parent", "") in {"", *ids}
        assert (graph / "overlay-layers" / f"{layer['id']}.tar-split.gz").stat().st_size > 0
    for image in images:
        assert image["layer"] in ids
        folder = graph / "overlay-images" / image["id"]
        assert (folder / "manifest").stat().st_size == image["big-data-sizes"]["manifest"]


def test_project_killed_at_any_moment(
    open_store: Callable[..., Any], layout: Path, tmp_path: Path, killer: Killer, times: int
) -> None:
    more = tmp_path / "layout2"
    peers.oci_layout(more, [*peers.layers()[:1], peers._tar([("x", b"x" * 100_000)])], note="2")
    with open_store("overlay", "start") as store:
        first = peers.load(store, layout, "localhost/test:1")
        store.project()
        peers.load(store, more, "localhost/more:1")
        store.set_names(first.id, ["localhost/renamed:1"])
    subprocess.run(["cp", "-a", tmp_path / "start", tmp_path / "clean"], check=True)

    def begun(place: Path) -> Callable[[], bool]:
        images = place / "graph" / "overlay-images"
        return lambda: len(list(images.iterdir())) > 3

    assert not begun(tmp_path / "start")()
    killer.measure([*_roots(tmp_path / "clean"), "project"], begun(tmp_path / "clean"))
    want = peers.view_bytes(tmp_path / "clean" / "graph", "overlay")
    killed = 0
    for _ in range(times):
        place = tmp_path / "victim"
        subprocess.run(["cp", "-a", tmp_path / "start", place], check=True)
        killed += killer.kill([*_roots(place), "project"], begun(place))
        _check_view(place / "graph")
        with cstorage.open(place / "graph", place / "run", "overlay") as store:
            assert len(list(store.images())) == 2
            assert store.project().left_out == ()
        assert peers.view_bytes(place / "graph", "overlay") == want
        shutil.rmtree(place)
    assert killed


def test_adopt_killed_at_any_moment(
    open_store: Callable[..., Any], layout: Path, tmp_path: Path, killer: Killer, times: int
) -> None:
    theirs = tmp_path / "theirs"
    with open_store("overlay", "origin") as store:
        image = peers.load(store, layout, "localhost/test:1")
        container = store.create_container(image.id, names=["c"])
        (store.mount(container.id) / "inside").write_text("by c")
        store.unmount(container.id)
        store.export(theirs)
    before = peers.listing(theirs)

    def begun(place: Path) -> Callable[[], bool]:
        return (place / "graph" / "staging").exists

    clean = tmp_path / "clean"
    killer.measure([*_roots(clean), "adopt", str(theirs)], begun(clean))
    killed = partly = 0
    for number in range(times):
        place = tmp_path / f"victim{number}"
        killed += killer.kill([*_roots(place), "adopt", str(theirs)], begun(place))
        assert peers.listing(theirs) == before
        with cstorage.open(place / "graph", place / "run", "overlay") as store:
            there = [layer.id for layer in store.layers()]
            partly += 0 < len(there) < 4
            assert there in [[*image.layers, container.layer][:n] for n in range(5)]
            for layer in store.layers():
                if layer.diff.recipe:
                    out = io.BytesIO()
                    store.diff(layer.id, out, compression=Compression.NONE)
                    digest = "sha256:" + hashlib.sha256(out.getvalue()).hexdigest()
                    assert digest == layer.diff.uncompressed_digest
            assert sorted(store.storage_layers()) == sorted(there)
            assert store.adopt(theirs).left_out == ()
            assert (store.mount("c") / "inside").read_text() == "by c"
            store.unmount("c")
            assert not list((store.graph_root / "staging").iterdir())
        shutil.rmtree(place)
    assert killed
    assert partly or times < 20


def _lists(store: Path) -> dict[str, bytes]:
    """An exported store's files but for the change tokens, which are of one journal."""
    found = peers.view_bytes(store, "overlay")
    return {name: data for name, data in found.items() if not name.endswith(".lock")}


def test_export_killed_at_any_moment_leaves_no_half_store(
    open_store: Callable[..., Any], layout: Path, tmp_path: Path, killer: Killer, times: int
) -> None:
    with open_store("overlay", "ours") as store:
        peers.load(store, layout, "localhost/test:1")
    words = [*_roots(tmp_path / "ours"), "export", "--to", "containers-storage"]

    def begun(place: Path) -> Callable[[], bool]:
        return lambda: any(place.parent.glob(f".{place.name}.*"))

    killer.measure([*words, str(tmp_path / "clean")], begun(tmp_path / "clean"))
    want = _lists(tmp_path / "clean")
    for number in range(max(3, times // 4)):
        place = tmp_path / f"out{number}"
        killer.kill([*words, str(place)], begun(place))
        if place.exists():
            assert _lists(place) == want
