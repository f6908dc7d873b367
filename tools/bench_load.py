"""``tools/bench load``: what a reader notices of one who imports or deletes.

    tools/bench load [--layers 20000] [--import-gib 2] [--delete 10000] [--stores DIR]

How long a list of the first hundred layers takes a process that has the store open: while nothing
happens, while another process imports an archive, and while another deletes many layers. Many
writers and readers at once: ``tools/bench commit --crowd``. The load of the machine is printed,
since it is part of every figure.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tools")]

import synthetic  # noqa: E402

import cstorage  # noqa: E402

LIST_PAUSE_S = 0.01
PART = 8 << 20


def percentile(values: list[float], share: float) -> float:
    """The smallest value that ``share`` of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(values: list[float]) -> str:
    if not values:
        return "none"
    shown = (statistics.median(values), percentile(values, 0.99), max(values))
    p50, p99, most = (f"{value * 1e3:.2f}" for value in shown)
    return f"p50 {p50}, p99 {p99}, max {most} ms (n = {len(values)})"


def open_at(root: Path) -> Any:
    return cstorage.open(root / "graph", root / "run", driver="vfs")


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--role", *map(str, words)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> Any:
    """What a process of ours reported last. ``SystemExit`` if it failed."""
    text, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args!r} failed")
    return json.loads(text.splitlines()[-1])


# -- what the processes do ---------------------------------------------------------------------


def list_until(root: Path, mark: Path) -> list[float]:
    """Seconds of each listing but the first, until ``mark`` is there."""
    taken = []
    with open_at(root) as store:
        list(islice(store.layers(), 100))  # of a store just opened: ``bench scale`` has that
        while not mark.exists():
            began = time.perf_counter()
            list(islice(store.layers(), 100))
            taken.append(time.perf_counter() - began)
            time.sleep(LIST_PAUSE_S)
    return taken


class Noise(io.RawIOBase):
    """A stream of so many bytes that compress as program files do not: all different blocks."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.left = size
        self.part = os.urandom(PART)

    def read(self, size: int = -1) -> bytes:
        size = min(size if size >= 0 else PART, self.left, PART)
        self.left -= size
        return self.part[:size]


def big_archive(path: Path, size: int) -> None:
    """A tar with files of 64 MiB, ``size`` bytes altogether."""
    with tarfile.open(path, "w") as tar:
        for number in range(max(1, size // (64 << 20))):
            info = tarfile.TarInfo(f"file{number}")
            info.size = min(size, 64 << 20)
            tar.addfile(info, Noise(info.size))


def import_archive(root: Path, archive: Path) -> float:
    with open_at(root) as store, archive.open("rb") as source:
        began = time.perf_counter()
        store.import_layer(source, id="imported")
        return time.perf_counter() - began


def delete_layers(root: Path, count: int) -> float:
    """The images of the first ``count`` layers, in one transaction."""
    with open_at(root) as store:
        began = time.perf_counter()
        with store.transaction() as tx:
            for number in range(count // synthetic.DEPTH):
                tx.delete_image(synthetic.image_name(number))
        return time.perf_counter() - began


def play(role: str, root: Path, argument: str) -> object:
    """What the process of ``role`` reports; ``argument`` is its mark, archive or count."""
    match role:
        case "list":
            return list_until(root, Path(argument))
        case "import":
            return import_archive(root, Path(argument))
        case "delete":
            return delete_layers(root, int(argument))
    raise SystemExit(f"{role!r} is no role of tools/bench load")


# -- the measurements --------------------------------------------------------------------------


def listing_beside(root: Path, folder: Path, what: str, *work: object) -> None:
    """One process lists while another works (or nobody does, for some seconds)."""
    mark = folder / f"done-{what}"
    reader = start("list", root, mark)
    if work:
        seconds = said(start(*work))
    else:
        time.sleep(seconds := 5.0)
    mark.touch()
    print(f"list of 100, {what} ({seconds:.1f} s): {milliseconds(said(reader))}", flush=True)


def main(words: list[str]) -> int:
    if words[:1] == ["--role"]:
        print(json.dumps(play(words[1], Path(words[2]), words[3])))
        return 0
    parser = argparse.ArgumentParser(prog="tools/bench load", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--layers", type=int, default=20_000)
    parser.add_argument("--delete", type=int, default=10_000)
    parser.add_argument("--import-gib", type=float, default=2.0)
    parser.add_argument("--archive", type=Path, help="one to be imported, instead of one made here")
    parser.add_argument("--stores", type=Path, help="where to work; needs the archive twice")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="cstorage-load-", dir=given.stores) as temporary:
        folder = Path(temporary)
        root = folder / "store"
        synthetic.ours(root, given.layers)
        home = root / "graph" / "vfs" / "dir"
        for index in range(given.delete + synthetic.DEPTH):
            (home / synthetic.layer_id(index)).mkdir(exist_ok=True)
        made = folder / "archive.tar"
        if given.archive is None:
            big_archive(made, int(given.import_gib * (1 << 30)))
        archive = (given.archive or made).absolute()
        what = f"import of {archive.stat().st_size / (1 << 30):.2g} GiB beside it"
        os.sync()
        load = os.getloadavg()[0]
        print(f"{given.layers:,} layers; load of the machine before: {load:.1f}", flush=True)
        listing_beside(root, folder, "idle")
        listing_beside(root, folder, what, "import", root, archive)
        made.unlink(missing_ok=True)
        listing_beside(
            root, folder, f"deletion of {given.delete:,} layers beside it", "delete", root,
            given.delete,
        )  # fmt: skip
        listing_beside(root, folder, "idle again")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
