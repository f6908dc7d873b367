"""``tools/bench scale``: what one operation costs in stores of very different sizes.

    tools/bench scale [--sizes 10,1000,10000] [--rounds 15] [--stores DIR] [--peer-most 10000]
                      [--svg docs/scale.svg] [--scenario] [--tail 50000]

Stores are made by ``tools/synthetic.py`` (kept in DIR if given, and found there the next time).
Operations of all sizes, and of Debian's containers-storage on the same store, are interleaved.
Milliseconds of wall time within one process: of looks the median of single ones, of changes the
least of all rounds. "First" is a look at what nobody has looked at in a store just opened, the
tables being in memory, "again" one at what was looked at before. Of whole commands the least
counts, in processor milliseconds (other programs on the machine cannot take part in that), and wall
time where it says so. The last column is largest size / smallest size. ``--scenario`` deletes a
58-layer image from 43 222 layers. ``--tail`` opens each size with so many events behind the
snapshot.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tools")]

import synthetic  # noqa: E402
from bench_plot import plot  # noqa: E402

import cstorage  # noqa: E402
from cstorage.store.store import Store  # noqa: E402

START = str(Path(sys.executable).with_name("cstorage"))
PEER = "containers-storage"
DELETED = 43_222
LISTED_MOST = 10_000
Action = Callable[[], object]


FRESH = 3
"""Stores that are opened in a round for looking into each once."""
LOOKS = 9
"""Looks of one kind into each of them."""


class Bench:
    """Times by operation and size: the least, or the median where there are many."""

    def __init__(self) -> None:
        self.least: dict[str, dict[int, float]] = {}
        self._single: dict[tuple[str, int], list[float]] = {}

    def single(self, what: str, size: int, action: Action) -> None:
        """One look of many."""
        began = time.perf_counter()
        action()
        taken = self._single.setdefault((what, size), [])
        taken.append(time.perf_counter() - began)
        self.least.setdefault(what, {})[size] = statistics.median(taken)

    def note(self, what: str, size: int, seconds: float) -> None:
        row = self.least.setdefault(what, {})
        row[size] = min(seconds, row.get(size, seconds))

    def show(self, sizes: Iterable[int]) -> None:
        sizes = list(sizes)
        width = max(map(len, self.least))
        print(f"{'milliseconds':<{width}}" + "".join(f"{size:>12,}" for size in sizes) + "   ratio")
        for what, row in self.least.items():
            cells = "".join(
                f"{row[size] * 1e3:12.3f}" if size in row else f"{'':>12}" for size in sizes
            )
            # A list of a hundred needs a store that has a hundred.
            least = min((s for s in row if s >= 100 or "list" not in what), default=min(row))
            first, last = row[least], row[max(row)]
            print(f"{what:<{width}}{cells} {last / first:7.2f}")


def command_seconds(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Processor and wall seconds of one command; its output goes nowhere."""
    began = time.perf_counter()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        pid = os.posix_spawnp(
            words[0],
            words,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)],
        )
    finally:
        os.close(null)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed with status {status}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - began


def store_of(folder: Path, size: int, peer: bool) -> Path:
    """The synthetic store of that size, made if it is not there."""
    root = folder / f"{size}"
    for name, make in (("ours", synthetic.ours), ("peer", synthetic.peers)):
        if (name == "ours" or peer) and not (root / name / "graph").exists():
            began = time.monotonic()
            make(root / name, size)
            print(f"made {name} {size:,} in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return root


def open_at(root: Path, program: str = "") -> Store:
    """The store; one of its own for every ``program``, as another process would have it."""
    graph, run = root / "ours" / "graph", root / "ours" / "run"
    return cstorage.open(graph, run, driver="vfs", program=program)


def looked_at(root: Path, key: str) -> None:
    with open_at(root, "look") as store:
        store.layer(key)


def in_memory(root: Path) -> None:
    """Read the tables once, so that no look waits for a disk."""
    for folder in ("journal/snapshots", "index"):
        for path in (root / "ours" / "graph" / folder).iterdir():
            if path.suffix in (".snap", ".table"):
                with path.open("rb", buffering=0) as file:
                    while file.read(1 << 22):
                        pass


def in_process(bench: Bench, store: Store, root: Path, size: int, count: int) -> None:
    """One round of every operation within this process."""

    def take(what: str, action: Action) -> None:
        began = time.perf_counter()
        action()
        bench.note(what, size, time.perf_counter() - began)

    def look(what: str, action: Callable[[str], object], keys: Iterable[str]) -> None:
        for key in keys:
            bench.single(what, size, partial(action, key))

    here = synthetic.layer_id(size // 2)
    in_memory(root)
    time.sleep(0.1)  # who has just worked for long waits longer for a processor
    # A first look is one of somebody who has looked at other things: nothing is looked at twice.
    for number in range(FRESH * count, FRESH * (count + 1)):
        first = [synthetic.layer_id((number * 7919 + k * 31) % size) for k in range(LOOKS)]
        short = [synthetic.layer_id((number * 7919 + k * 37 + 5) % size) for k in range(LOOKS)]
        first = [key for key in dict.fromkeys(first) if key != here]
        short = [key[:12] for key in dict.fromkeys(short) if key not in (here, *first)]
        absent = [synthetic.number("absent", number * LOOKS + k) for k in range(LOOKS)]
        images = {(number * 7919 + k * 31) % len(synthetic.chains(size)) for k in range(LOOKS)}
        digests = [f"sha256:{synthetic.number('manifest', image)}" for image in images]
        look("open and look", lambda key: looked_at(root, key), [here] * 3)
        with open_at(root, "first looks") as opened:
            opened.layer(here)
            opened.exists("warm")
            opened.images_by_digest(f"sha256:{synthetic.number('absent', 0)}")
            look("layer, first look", opened.layer, first)
            look("layer by short ID, first look", opened.layer, short)
            look("exists not, first look", opened.exists, absent)
            look("images-by-digest, first look", opened.images_by_digest, digests)
            take("list first 100, first look", lambda: list(islice(opened.layers(), 100)))
    look("layer, again", store.layer, [here] * LOOKS)
    look("exists", store.exists, [here] * LOOKS)
    take("list first 100, again", lambda: list(islice(store.layers(), 100)))
    take("add-names", lambda: store.add_names(here, [f"name{count % 4}"]))
    take("create-layer", lambda: store.create_layer(id=f"made{count}"))
    take("delete-layer", lambda: store.delete_layer(f"made{count}"))
    if count == 0 and size <= LISTED_MOST:
        take("list all", lambda: sum(1 for _ in store.layers()))


def commands(bench: Bench, what: str, words: list[str], root: Path, size: int, count: int) -> None:
    """One round of every operation as a command of its own."""
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    place = [*words, "-g", f"{root}/graph", "-R" if what == "CLI" else "--run", f"{root}/run"]
    place += ["-s", "vfs"] if what == "CLI" else ["--storage-driver", "vfs"]
    here = synthetic.layer_id(size // 2)
    digest = f"sha256:{synthetic.number('manifest', 0)}"
    for name, arguments in (
        ("exists", ["exists", here]),
        ("layer", ["layer", here]),
        ("images-by-digest", ["images-by-digest", digest]),
        ("add-names", ["add-names", "-n", f"name{count % 4}", here]),
        ("create-layer", ["create-layer", "-i", f"command{count}"]),
        ("delete-layer", ["delete-layer", f"command{count}"]),
    ):
        processor, wall = command_seconds([*place, *arguments], environment)
        bench.note(f"{what} {name}", size, processor)
        if what == "CLI":
            bench.note(f"{what} {name}, wall", size, wall)


MEASURED = """
import sys, time
sys.path[:0] = sys.argv[3:5]
import cstorage, synthetic, cstorage.store.opening, cstorage.events.codec, cstorage.state.reducer
size, lookups = int(sys.argv[2]), int(sys.argv[5])
began = time.perf_counter()
store = cstorage.open(sys.argv[1] + "/graph", sys.argv[1] + "/run", driver="vfs")
store.layer(synthetic.layer_id(0))
opened = time.perf_counter() - began
for k in range(lookups):
    store.layer(synthetic.layer_id(k * 7919 % size))
if lookups:
    store.set_metadata(synthetic.layer_id(0), "x")
kib = dict(line.split()[:2] for line in open("/proc/self/smaps_rollup") if line[0] in "RP")
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
own = int(kib["Private_Clean:"]) + int(kib["Private_Dirty:"])
print(opened, int(peak) / 1024, own / 1024)
"""


def measured(root: Path, size: int, lookups: int) -> list[float]:
    """Of a process that opens the store and looks so many layers up: seconds until it is open,
    the most memory it ever had in MiB, and what it has to itself in the end."""
    words = [sys.executable, "-c", MEASURED, f"{root}/ours", str(size), str(TOP)]
    words += [str(TOP / "tools"), str(lookups)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def show_tail(folder: Path, size: int, events: int) -> None:
    """The store as it is after so many more events, with the tables that its helper made."""
    root = folder / f"{size}-tail-{events}"
    if not root.exists():
        shutil.copytree(folder / f"{size}" / "ours", root / "ours", copy_function=shutil.copy)
        synthetic.more(root / "ours", size, events)
    seconds, peak, _ = min(measured(root, size, 0) for _ in range(3))
    print(f"open {size:,} layers, {events:,} events after the snapshot: {seconds * 1e3:.1f} ms, "
          f"{peak:.0f} MB")  # fmt: skip


def delete_scenario(folder: Path) -> None:
    """One image of 58 layers out of 43 222 layers: frames, bytes, time."""
    store_of(folder, DELETED, False)
    with tempfile.TemporaryDirectory(dir=folder) as copy:
        shutil.copytree(folder / f"{DELETED}" / "ours", f"{copy}/ours", copy_function=shutil.copy)
        root = Path(copy)
        chain = synthetic.chains(DELETED)[-1]
        home = root / "ours" / "graph" / "vfs" / "dir"
        for index in chain:
            (home / synthetic.layer_id(index)).mkdir()
        with open_at(root) as store:
            store.delete_image(synthetic.image_name(0))  # imports what deleting needs
            store._core.remover.wait()  # and this what deleting many needs
            name = synthetic.image_name(len(synthetic.chains(DELETED)) - 1)
            os.sync()  # the copy is not what is measured
            start = store._core.journal.position
            began, used = time.perf_counter(), time.process_time()
            gone = store.delete_image(name)
            seconds, used = time.perf_counter() - began, time.process_time() - used
            store._core.remover.wait()
            gone_s = time.perf_counter() - began
            frames = [f for f in store._core.journal.frames(start) if f.kind_name == "data"]
            size = sum(f.end.offset - f.position.offset for f in frames)
    print(
        f"delete an image of {len(gone)} layers out of {DELETED:,}: {len(frames)} frame, "
        f"{size:,} bytes, {seconds * 1e3:.1f} ms ({used * 1e3:.1f} ms of processor time), "
        f"{gone_s * 1e3:.1f} ms until the last tree is gone"
    )


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sizes", default="10,1000,10000")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--stores", type=Path)
    parser.add_argument("--peer-most", type=int, default=10_000, help="largest store of the peer")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--scenario", action="store_true")
    parser.add_argument("--tail", type=int, default=0, help="events behind the snapshot")
    given = parser.parse_args(words)
    sizes = [int(size) for size in given.sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="cstorage-bench-") as temporary:
        folder = given.stores or Path(temporary)
        if given.scenario:
            delete_scenario(folder)
            return 0
        if given.tail:
            for size in sizes:
                store_of(folder, size, False)
                show_tail(folder, size, given.tail)
            return 0
        bench, peer = Bench(), shutil.which(PEER) is not None
        if not peer:
            print(f"{PEER} is not installed: its lines are left out", file=sys.stderr)
        roots = {size: store_of(folder, size, peer and size <= given.peer_most) for size in sizes}
        stores = {size: open_at(root) for size, root in roots.items()}
        for store in stores.values():
            store.snapshot() if store._core._replica.tail_events else None
        for count in range(given.rounds):
            for size, root in roots.items():
                in_process(bench, stores[size], root, size, count)
                bench.note(
                    "python -c pass", size,
                    command_seconds([sys.executable, "-c", "pass"], dict(os.environ))[0],
                )  # fmt: skip
                commands(bench, "CLI", [START], root / "ours", size, count)
                if peer and size <= given.peer_most and (size < 10_000 or count < 3):
                    commands(bench, PEER, [PEER], root / "peer", size, count)
        bench.show(sizes)
        memory = [measured(roots[size], size, 1000) for size in sizes]
        for index, title in ((1, "memory, MB"), (2, "of it its own")):
            print(f"{title:<30}" + "".join(f"{found[index]:12.0f}" for found in memory))
        print(f"load of the machine: {os.getloadavg()[0]:.1f}")
        if given.svg:
            shown = ("layer, first look", "add-names", "list first 100, first look", "CLI exists",
                     "CLI add-names", f"{PEER} exists", f"{PEER} add-names")  # fmt: skip
            lines = {what: bench.least[what] for what in shown if what in bench.least}
            given.svg.write_text(plot("One operation, by layers in the store", lines))
        for store in stores.values():
            store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
