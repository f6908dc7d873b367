#!/usr/bin/env python3
"""What interoperation costs: refreshing a view after one change, and adopting a store.

    tools/bench interop [--layers 10,1000,10000] [--megabytes 200] [--files 4000] [--tree DIR]

Refresh: time of bringing the view of a store with N layers (and N/10 images) up to one new name,
beside the bare copy of the bytes of the list that changed, which the format asks for. Adoption: a
store of one image made here, of random files in one layer or of the tree DIR (a root file system)
in four, adopted by copying and by linking, beside ``cp -a`` of the same store; every figure is the
best of three, the files in the page cache, all of it synced.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cstorage
from cstorage import events as ev
from cstorage.model import BigDataItem, DiffSummary, Digest, IDMaps, ImageID, LayerID
from cstorage.store import projecting
from cstorage.store.core import Core

SHA = "sha256:" + "ab" * 32


def best(what: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of some runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        what()
        found.append(time.perf_counter() - start)
    return min(found)


def fill(core: Core, layers: int) -> None:
    """Records without trees: the view does not look at them."""
    data = json.dumps({"config": "x" * 400}).encode()
    with core.work() as work:
        import hashlib

        key = hashlib.sha256(data).hexdigest()
        path = work.put(key, data)
        blobs = tuple(BigDataItem(name, len(data), Digest(SHA), key) for name in ("manifest", SHA))
        with core.transaction() as tx:
            tx.adopt(key, path)
            parent = LayerID("")
            for number in range(layers):
                id_ = LayerID(f"{number:064x}")
                parent = LayerID("") if number % 10 == 0 else parent
                diff = DiffSummary(Digest(SHA), 12345, Digest(SHA), 123456, uids=(0,), gids=(0,))
                tx.emit(ev.LayerCreated(id_, (), parent, "", "", tx.now_ns, diff, {}, IDMaps(),
                                        (), False, False))  # fmt: skip
                parent = id_
                if number % 10 == 9:
                    tx.emit(ev.ImageCreated(
                        ImageID(f"{number:064x}"), (f"localhost/image{number}:1",), (), id_, "{}",
                        Digest(SHA), tx.now_ns, {}, blobs))  # fmt: skip


def refresh(base: Path, sizes: list[int]) -> None:
    print(f"refresh of the view after one change (ms); load {os.getloadavg()[0]:.1f}")
    print(f"{'layers':>8} {'whole':>9} {'new name':>9} {'new layer':>9} {'copy':>7}  bytes copied")
    for size in sizes:
        place = base / f"refresh{size}"
        with cstorage.open(place / "graph", place / "run", "vfs") as store:
            core = store._core
            fill(core, size)
            start = time.perf_counter()
            store.project(keep=False)
            whole = time.perf_counter() - start
            image = next(store.images(), None)
            assert image is not None
            names: Iterator[int] = iter(range(1000))

            def renamed(
                store: cstorage.Store = store, id_: str = image.id, names: Iterator[int] = names
            ) -> float:
                store.set_names(id_, [f"localhost/name{next(names)}:1"])
                start = time.perf_counter()
                assert not projecting.refresh(store._core).whole
                return time.perf_counter() - start

            def added(store: cstorage.Store = store) -> float:
                store.import_layer(io.BytesIO(b"\0" * 1024))
                start = time.perf_counter()
                assert not projecting.refresh(store._core).whole
                return time.perf_counter() - start

            renaming = min(renamed() for _ in range(5))
            adding = min(added() for _ in range(5))
            listed = place / "graph" / "vfs-layers" / "layers.json"
            copy = best(lambda: _copied(listed, place / "copy"), 5)  # noqa: B023
            print(
                f"{size:>8} {whole * 1e3:>9.1f} {renaming * 1e3:>9.2f} {adding * 1e3:>9.2f} "
                f"{copy * 1e3:>7.2f}  {listed.stat().st_size}"
            )


def _copied(source: Path, target: Path) -> None:
    """The least that replacing a list costs: its bytes, synced, renamed."""
    data = source.read_bytes()
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, data)
    os.fdatasync(fd)
    os.close(fd)
    os.rename(target, target.with_suffix(".new"))


def random_archive(megabytes: int, files: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(files):
            info = tarfile.TarInfo(f"d{number % 50}/f{number}")
            info.size = megabytes * (1 << 20) // files
            archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    return out.getvalue()


def archives_of(tree: Path, count: int = 4) -> Iterator[bytes]:
    """Archives that together hold the tree, its directories dealt out in turn."""
    names = sorted(p.relative_to(tree) for p in (*tree.iterdir(), *(tree / "usr").glob("*")))
    names = [name for name in names if str(name) != "usr"]
    for number in range(count):
        some = [str(name) for name in names[number::count]]
        command = ["tar", "-C", str(tree), "-c", "--numeric-owner", "--", *some]
        yield subprocess.run(command, check=True, capture_output=True).stdout


def adoption(base: Path, archives: Iterator[bytes], what: str) -> None:
    theirs = base / "theirs"
    parent = ""
    with cstorage.open(base / "made" / "graph", base / "made" / "run", "overlay") as store:
        for archive in archives:
            parent = store.import_layer(io.BytesIO(archive), parent=parent).id
        store.create_image(
            "ab" * 32, ["localhost/big:1"], parent,
            big_data=[("manifest", b"{}"), (SHA, b"{}")],
        )  # fmt: skip
        store.export(theirs)
        layers = len(list(store.layers()))
    sizes = [p.lstat() for p in theirs.rglob("*") if p.is_file() and not p.is_symlink()]
    megabytes = sum(info.st_size for info in sizes) / (1 << 20)
    print(
        f"adoption of {what}: {layers} layers, {len(sizes)} files, {megabytes:.0f} MiB (s, MiB/s);"
        f" load {os.getloadavg()[0]:.1f}"
    )

    def report(name: str, what: Callable[[int], object]) -> None:
        runs = iter(range(100))
        seconds = best(lambda: what(next(runs)))
        print(f"{name:>14} {seconds:>8.2f} {megabytes / seconds:>8.0f}")

    def copied(number: int) -> None:
        target = base / f"cp{number}"
        subprocess.run(["cp", "-a", theirs, target], check=True)
        subprocess.run(["sync", "-f", target], check=True)
        shutil.rmtree(target)

    def adopted(mode: str) -> Callable[[int], None]:
        def run(number: int) -> None:
            place = base / f"{mode}{number}"
            with cstorage.open(place / "graph", place / "run", "overlay") as store:
                assert not store.adopt(theirs, mode).left_out

        return run

    report("cp -a, sync", copied)
    report("adopt --copy", adopted("copy"))
    report("adopt --link", adopted("link"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--layers", default="10,1000,10000")
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--tree", type=Path, help="adopt an image of this tree in four layers too")
    parser.add_argument("--directory", help="where to work (default: a temporary directory)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as folder:
        refresh(Path(folder), [int(size) for size in given.layers.split(",")])
        if os.geteuid() == 0:
            made = random_archive(given.megabytes, given.files)
            adoption(Path(folder) / "random", iter([made]), "random files")
            if given.tree is not None:
                adoption(Path(folder) / "tree", archives_of(given.tree), "a tree")
        else:
            print("adoption needs root: left out")


if __name__ == "__main__":
    main()
