"""``check`` of a store in use: what others have in their hands is no damage, damage still is."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tars import CHANGES

import cstorage
from cstorage import errors as err
from cstorage.store.checking import CHECK_EVERYTHING
from cstorage.store.store import Store
from tests.store.conftest import root_only
from tests.store.place import fill

EVENTS = 200
"""Of the other process while the store is checked."""

BUSY = """
import io, sys, tarfile
import cstorage, cstorage.errors
tar = io.BytesIO()
with tarfile.open(fileobj=tar, mode="w") as archive:
    for number in range(40):
        info = tarfile.TarInfo(f"file{number}")
        info.size = 3000
        archive.addfile(info, io.BytesIO(bytes([number]) * 3000))
graph, run, driver = sys.argv[1:]
with cstorage.open(graph, run, driver=driver) as store:
    print("ready", flush=True)
    while True:
        base = store.import_layer(io.BytesIO(tar.getvalue()))
        image = store.create_image(layer=base.id, big_data=[("blob", b"image")])
        try:
            store.apply_diff(base.id, io.BytesIO(tar.getvalue()))
        except cstorage.errors.StorageError as error:
            assert "mounted meanwhile; try again" in str(error)  # by the check
        store.create_container(image.id, "box")
        store.delete_container("box")
        store.delete_image(image.id)
"""


@root_only
def test_what_others_do_meanwhile_is_no_finding(tmp_path: Path, driver: str) -> None:
    roots = (str(tmp_path / "graph"), str(tmp_path / "run"))
    with cstorage.open(*roots, driver=driver) as store:
        store.create_layer("damaged")
        busy = subprocess.Popen(
            [sys.executable, "-c", BUSY, *roots, driver],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()},
        )  # fmt: skip
        try:
            assert busy.stdout is not None
            assert busy.stdout.readline() == "ready\n"
            end = store.sequence + EVENTS
            while store.sequence < end:
                assert busy.poll() is None, "the other process failed"
                report = store.check(CHECK_EVERYTHING)
                assert report.healthy, report
            store.create_storage_layer("stray")
            shutil.rmtree(store.graph_driver.content_root("damaged"))
            report = store.check(CHECK_EVERYTHING)
        finally:
            busy.kill()
            busy.wait()
        assert report.layers.keys() == {"damaged", "stray"}
        assert [type(error) for error in report.layers["stray"]] == [err.LayerUnaccounted]
        assert not report.images
        assert not report.containers


@pytest.fixture(params=["overlay", "vfs"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class _MountsMeanwhile(io.BytesIO):
    """An archive during whose reading the layer is mounted; it is unmounted a little later."""

    def __init__(self, data: bytes, store: Store, layer: str) -> None:
        super().__init__(data)
        self.store, self.layer = store, layer
        self.timer = threading.Timer(0.3, store.unmount, (layer,))

    def read(self, size: int | None = -1) -> bytes:
        if not self.timer.is_alive() and not self.timer.finished.is_set():
            self.store.mount(self.layer)
            self.timer.start()
        return super().read(size)


@root_only
def test_an_archive_waits_for_whoever_looks_for_a_moment(tmp_path: Path, driver: str) -> None:
    with cstorage.open(tmp_path / "graph", tmp_path / "run", driver=driver) as store:
        fill(store, id="base")
        source = _MountsMeanwhile(CHANGES, store, "base")
        store.apply_diff("base", source)
        assert source.timer.finished.is_set()
        source.timer.join()
        report = store.check(CHECK_EVERYTHING)
        assert report.healthy, report
