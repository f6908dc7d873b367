"""Several processes that import the same thing at the same time: one unpacks (decision 0050)."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.store.place import diff_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.store.place import Place

ROOT = Path(__file__).parent.parent.parent
PEER = Path(__file__).with_name("single_flight_peer.py")
WAIT_S = 20.0


def archive(path: Path, middle: bytes = b"same") -> Path:
    """An archive whose first and last 64 KiB are the same whatever is in its middle."""
    source = path.with_suffix(".d")
    (source / "a").mkdir(parents=True)
    (source / "a" / "0").write_bytes(b"0" * 100_000)
    (source / "a" / "1").write_bytes(middle.ljust(100))
    (source / "a" / "2").write_bytes(b"2" * 100_000)
    os.link(source / "a" / "0", source / "a" / "3")
    os.symlink("a/0", source / "link")
    os.mknod(source / ".wh.gone")
    for entry in (source, *source.rglob("*")):
        os.utime(entry, (1, 1), follow_symlinks=False)
    with tarfile.open(path, "w") as out:
        out.add(source, ".")
    return path


class Peers:
    """Importing processes, all started, the first of them unpacking and waiting to go on."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.base / "meeting"
        self.folder.mkdir()
        place.reopen(place.open()).close()
        self.started: list[subprocess.Popen[str]] = []

    def start(self, path: Path, id_: str = "", *, stdin: bool = False) -> subprocess.Popen[str]:
        place = self.place
        process = subprocess.Popen(
            [sys.executable, PEER, place.graph, place.run, place.driver,
             "/dev/stdin" if stdin else path, self.folder, id_],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE if stdin else None,
        )  # fmt: skip
        self.started.append(process)
        return process

    def leader(self, path: Path, id_: str = "") -> subprocess.Popen[str]:
        process = self.start(path, id_)
        until((self.folder / "unpacking").exists)
        return process

    def waiting(self, process: subprocess.Popen[str]) -> None:
        until(lambda: any(
            f" {process.pid} " in line and "->" in line and "FLOCK" in line
            for line in Path("/proc/locks").read_text().splitlines()
        ))  # fmt: skip

    def unpacked(self) -> int:
        return len(list(self.folder.glob("unpacked-*")))

    def go_on(self) -> list[str]:
        """Let them; what each printed."""
        (self.folder / "go-on").touch()
        return [process.communicate(timeout=WAIT_S)[0].strip() for process in self.started]


@pytest.fixture
def peers(place: Place) -> Iterator[Peers]:
    made = Peers(place)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.005)


def test_several_imports_of_one_file_unpack_it_once(peers: Peers, tmp_path: Path) -> None:
    """Each gets a layer of its own with the same tree, and the archive out of each is the same."""
    path = archive(tmp_path / "one.tar")
    peers.leader(path)
    for other in (peers.start(path), peers.start(path), peers.start(path)):
        peers.waiting(other)
    ids = peers.go_on()
    assert peers.unpacked() == 1
    assert len(set(ids)) == 4
    store = peers.place.open()
    for id_ in ids:
        assert diff_of(store, id_) == path.read_bytes()
        layer = store.layer(id_)
        assert layer.diff == store.layer(ids[0]).diff
    assert store.check().healthy
    roots = [Path(store._core.driver.content_root(id_)) for id_ in ids]
    assert len({(root / "a" / "0").stat().st_ino for root in roots}) == 4, "trees are not shared"
    store.delete_layer(ids[0])
    assert diff_of(store, ids[1]) == path.read_bytes()


def test_several_imports_under_one_id_unpack_once(peers: Peers, tmp_path: Path) -> None:
    path = archive(tmp_path / "one.tar")
    peers.leader(path, "one")
    for other in (peers.start(path, "one"), peers.start(archive(tmp_path / "b.tar", b"x"), "one")):
        peers.waiting(other)
    assert sorted(peers.go_on()) == ["DuplicateID", "DuplicateID", "one"]
    assert peers.unpacked() == 1


def test_of_a_killed_importer_the_next_one_takes_over(peers: Peers, tmp_path: Path) -> None:
    path = archive(tmp_path / "one.tar")
    first = peers.leader(path)
    for other in (peers.start(path), peers.start(path)):
        peers.waiting(other)
    first.kill()
    first.wait()
    until(lambda: peers.unpacked() == 2)
    killed, *ids = peers.go_on()
    assert killed == ""
    assert peers.unpacked() == 2
    store = peers.place.open()
    assert [diff_of(store, id_) for id_ in ids] == [path.read_bytes()] * 2


def test_a_file_that_only_looks_the_same_is_unpacked(peers: Peers, tmp_path: Path) -> None:
    """Equal size, equal first and last bytes: the digest of all of it tells."""
    one, other = archive(tmp_path / "one.tar"), archive(tmp_path / "two.tar", b"other")
    assert one.stat().st_size == other.stat().st_size
    peers.leader(one)
    peers.waiting(peers.start(other))
    ids = peers.go_on()
    assert peers.unpacked() == 2
    store = peers.place.open()
    assert [diff_of(store, id_) for id_ in ids] == [one.read_bytes(), other.read_bytes()]


def test_nobody_waits_for_a_pipe(peers: Peers, tmp_path: Path) -> None:
    """It may stall for ever: imports from it neither wait nor are waited for."""
    path = archive(tmp_path / "one.tar")
    stalled = peers.start(path, "one", stdin=True)
    until((peers.folder / "unpacking").exists)
    (peers.folder / "go-on").touch()
    quick = peers.start(path, "one")
    assert quick.communicate(timeout=WAIT_S)[0].strip() == "one"
    assert stalled.communicate(path.read_bytes().decode("latin-1"), timeout=WAIT_S)[0].strip() == (
        "DuplicateID"
    )


def test_nothing_is_left_of_a_flight(peers: Peers, tmp_path: Path) -> None:
    path = archive(tmp_path / "one.tar")
    peers.leader(path, "one")
    peers.waiting(peers.start(path, "one"))
    peers.go_on()
    folder = peers.place.run / f"{peers.place.driver}-imports"
    assert list(folder.iterdir()) == []
