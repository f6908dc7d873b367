"""Every test of the store runs on both drivers, with real mounts and owners."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.store.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cstorage.store.store import Store

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, devices and owners need root")

DRIVERS = [pytest.param(name, marks=[pytest.mark.root, root_only]) for name in ("vfs", "overlay")]


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """No configuration of this machine reaches a store."""
    empty = tmp_path_factory.mktemp("configuration") / "storage.conf"
    empty.write_text("")
    for name in list(os.environ):
        if name.startswith(("STORAGE_", "CONTAINERS_", "_CONTAINERS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(empty))


MEMORY = "/dev/shm"


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A folder in memory where there is such a thing: what is durable is tested elsewhere."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path_factory.mktemp("store")
        return
    import tempfile
    from pathlib import Path

    from mounts import unmount_below

    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="store-test-") as folder:
        yield Path(folder)
        if os.geteuid() == 0:
            unmount_below(Path(folder))


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def place(tmp_path: Path, driver: str) -> Iterator[Place]:
    made = Place(tmp_path, driver)
    yield made
    made.close()


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


@pytest.fixture
def unshifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver cannot shift IDs when it mounts, as on kernels without ID-mapped mounts."""
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
