"""Many processes doing random operations on one store, everything recorded, and the judgement.

Each worker is a process of its own. It writes one JSON line per operation: when it began and ended
(one clock for all processes), what it did, what it got, and which event the process had seen last.
``judge`` compares with a model of its own, built from nothing but the events in the journal:

* every acknowledged change is in the journal exactly once, no refused one is;
* every read is what the model has at the event that the reader had seen last;
* that event is not older than the last commit acknowledged before the read began;
* a name that always had a holder is never found without one.

``python recorded.py ROOT PROCESSES OPERATIONS`` runs and judges; the exit status tells.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))

IMAGES = 8
PIVOTS = ("pivot-a", "pivot-b")
"""Names that always belong to some image; transactions move both at once."""
DRIVER = "vfs"


def open_store(root: Path) -> Any:
    import cstorage

    return cstorage.open(root / "graph", root / "run", driver=DRIVER)


def prepare(root: Path) -> None:
    """The images that live through the whole run, and the names that always have a holder."""
    with open_store(root) as store:
        for number in range(IMAGES):
            names = list(PIVOTS) if number == 0 else []
            store.create_image(id=f"fixed{number}", names=names, metadata="begin")


# -- one process ---------------------------------------------------------------------------------


class Worker:
    def __init__(self, root: Path, number: int, operations: int, seed: int) -> None:
        self.random = random.Random(seed * 1000 + number)
        self.root = root
        self.number = number
        self.operations = operations
        self.store = open_store(root)
        self.file = (root / f"history-{number}").open("w")
        self.mine: list[str] = []

    def run(self) -> None:
        from cstorage.errors import StoreBusy

        actions = [
            (4, self.read_metadata), (4, self.read_pivots), (2, self.read_listing),
            (1, self.read_data), (3, self.write_metadata), (2, self.swap), (2, self.add_name),
            (1, self.write_data), (1, self.create), (1, self.delete), (1, self.refused),
            (1, self.compare_and_set), (1, self.reopen),
        ]  # fmt: skip
        chosen = self.random.choices(
            [action for _, action in actions],
            [weight for weight, _ in actions],
            k=self.operations,
        )
        for at, action in enumerate(chosen):
            self.tag = f"{self.number}.{at}"
            began = time.monotonic_ns()
            try:
                record = action()
            except StoreBusy:  # waited for its turn in vain: a refusal, and not in the journal
                record = {"op": "refused"}
            if record is not None:
                record |= {"began": began, "ended": time.monotonic_ns(), "tag": self.tag}
                self.file.write(json.dumps(record) + "\n")
        self.store.close()
        self.file.close()

    def fixed(self) -> str:
        return f"fixed{self.random.randrange(IMAGES)}"

    def _read(self, what: str, key: str, got: Any) -> dict[str, Any]:
        return {"op": "read", "what": what, "key": key, "got": got, "seen": self.store.sequence}

    def _wrote(self, events: int = 1) -> dict[str, Any]:
        return {"op": "write", "events": events, "seen": self.store.sequence}

    def read_metadata(self) -> dict[str, Any]:
        key = self.fixed()
        return self._read("metadata", key, self.store.metadata(key))

    def read_pivots(self) -> dict[str, Any]:
        name = self.random.choice(PIVOTS)
        from cstorage.errors import StorageError

        try:
            got = self.store.image(name).id
        except StorageError:
            got = ""
        return self._read("holder", name, got)

    def read_listing(self) -> dict[str, Any]:
        got = {image.id: sorted(image.names) for image in self.store.images()}
        return self._read("listing", "", got)

    def read_data(self) -> dict[str, Any]:
        key = self.fixed()
        if "note" not in self.store.list_image_big_data(key):
            return self._read("data", key, "")
        text = self.store.image_big_data(key, "note").decode()
        return {"op": "content", "key": key, "got": text}

    def write_metadata(self) -> dict[str, Any]:
        with self.store.because(self.tag):
            self.store.set_metadata(self.fixed(), self.tag)
        return self._wrote()

    def write_data(self) -> dict[str, Any]:
        with self.store.because(self.tag):
            self.store.set_image_big_data(self.fixed(), "note", self.tag.encode())
        return self._wrote()

    def add_name(self) -> dict[str, Any]:
        with self.store.because(self.tag):
            self.store.add_names(self.fixed(), [f"name{self.random.randrange(12)}"])
        return self._wrote()

    def swap(self) -> dict[str, Any]:
        """Both pivots to another image, in one change."""
        with self.store.transaction(self.tag) as tx:
            target = self.fixed()
            for name in PIVOTS:
                tx.point(name, target)
        return self._wrote(2)

    def compare_and_set(self) -> dict[str, Any]:
        from cstorage.errors import NamesChanged

        expected, target = self.fixed(), self.fixed()
        try:
            with self.store.transaction(self.tag) as tx:
                tx.point(PIVOTS[0], target, expected=expected)
                tx.point(PIVOTS[1], target)
        except NamesChanged:
            return {"op": "refused"}
        return self._wrote(2)

    def create(self) -> dict[str, Any]:
        id_ = f"own-{self.tag}"
        with self.store.because(self.tag):
            self.store.create_image(id=id_, names=[f"of-{self.tag}"])
        self.mine.append(id_)
        return self._wrote()

    def delete(self) -> dict[str, Any] | None:
        if not self.mine:
            return None
        with self.store.because(self.tag):
            self.store.delete_image(self.mine.pop())
        return self._wrote()

    def refused(self) -> dict[str, Any]:
        """A transaction that fails after its first changes."""
        from cstorage.errors import StorageError

        try:
            with self.store.transaction(self.tag) as tx:
                tx.create_image(id=f"never-{self.tag}")
                tx.set_metadata(self.fixed(), "never")
                tx.delete_image("nobody has this name")
        except StorageError:
            return {"op": "refused"}
        raise AssertionError("a transaction that had to fail did not")

    def reopen(self) -> dict[str, Any]:
        self.store.close()
        self.store = open_store(self.root)
        return self.read_metadata()


# -- the judgement -------------------------------------------------------------------------------


class History:
    """Values of one thing by the event that made them."""

    def __init__(self) -> None:
        self.at: list[int] = []
        self.values: list[Any] = []

    def put(self, sequence: int, value: Any) -> None:
        if self.at and self.at[-1] == sequence:
            self.values[-1] = value
        else:
            self.at.append(sequence)
            self.values.append(value)

    def get(self, sequence: int, default: Any) -> Any:
        index = bisect_right(self.at, sequence)
        return self.values[index - 1] if index else default


class Model:
    """What the events in the journal say, understood in the simplest way that is right."""

    def __init__(self) -> None:
        self.metadata: dict[str, History] = {}
        self.holder: dict[str, History] = {}
        self.names = History()
        self.notes: dict[str, set[str]] = {}
        self.reasons: Counter[str] = Counter()
        self._now: dict[str, list[str]] = {}

    def feed(self, entries: list[Any], sequence: int) -> None:
        """All events of one frame, which ends at ``sequence``."""
        from cstorage import events as ev

        for entry in entries:
            event = entry.event
            self.reasons[entry.reason] += 1
            match event:
                case ev.ImageCreated():
                    self._now[event.id] = []
                    self._take(event.id, event.names, sequence)
                    self.metadata.setdefault(event.id, History()).put(sequence, event.metadata)
                case ev.ImageDeleted():
                    for name in self._now.pop(event.id):
                        self.holder[name].put(sequence, "")
                    self.metadata[event.id].put(sequence, None)
                case ev.NamesAdded():
                    self._take(event.id, event.names, sequence)
                case ev.MetadataSet():
                    self.metadata[event.id].put(sequence, event.metadata)
                case ev.BigDataSet():
                    self.notes.setdefault(event.id, set()).add(entry.reason)
        self.names.put(sequence, {key: sorted(value) for key, value in self._now.items()})

    def _take(self, id_: str, names: tuple[str, ...], sequence: int) -> None:
        for name in names:
            for held in self._now.values():
                if name in held:
                    held.remove(name)
            self._now[id_].append(name)
            self.holder.setdefault(name, History()).put(sequence, id_)


def judge(root: Path) -> dict[str, int]:
    """Compare the recorded histories with the journal; counts. Raises ``AssertionError``."""
    from cstorage.store.history import entries_of

    model = Model()
    with open_store(root) as store:
        for frame in store._core.journal.frames():
            if frame.kind_name == "data":
                model.feed(list(entries_of(frame)), frame.last_sequence)
        events = store.sequence
    records = [
        json.loads(line)
        for path in sorted(root.glob("history-*"))
        for line in path.read_text().splitlines()
    ]
    writes = sorted((r["ended"], r["seen"]) for r in records if r["op"] == "write")
    ends = [ended for ended, _ in writes]
    newest: list[int] = []
    for _, seen in writes:
        newest.append(max(seen, newest[-1] if newest else 0))
    counts: Counter[str] = Counter(events=events)
    for record in records:
        counts[record["op"]] += 1
        where = json.dumps(record)[:300]
        if record["op"] == "write":
            assert model.reasons[record["tag"]] == record["events"], f"lost or doubled: {where}"
            continue
        if record["op"] == "refused":
            assert model.reasons[record["tag"]] == 0, f"refused, but in the journal: {where}"
            continue
        if record["op"] == "content":
            assert record["got"] in model.notes.get(record["key"], ()), f"never written: {where}"
            continue
        index = bisect_right(ends, record["began"])
        floor = newest[index - 1] if index else 0
        seen = record["seen"]
        assert seen >= floor, f"older than a commit acknowledged before ({floor}): {where}"
        match record["what"]:
            case "metadata":
                wanted = model.metadata[record["key"]].get(seen, None)
            case "holder":
                assert record["got"], f"a live name without a holder: {where}"
                wanted = model.holder[record["key"]].get(seen, "")
            case "listing":
                wanted = model.names.get(seen, {})
                pivots = [k for k, v in record["got"].items() if set(v) & set(PIVOTS)]
                assert len(pivots) == 1, f"a transaction seen by halves: {where}"
            case _:
                wanted = record["got"]
        assert record["got"] == wanted, f"no state at {seen}: {where}; model: {wanted!r:.300}"
    return dict(counts)


# -- running -------------------------------------------------------------------------------------


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)])


def run(root: Path, processes: int, operations: int, seed: int = 1) -> dict[str, int]:
    """``operations`` altogether, then the judgement."""
    prepare(root)
    each = max(1, operations // processes)
    workers = [start("worker", root, number, each, seed) for number in range(processes)]
    failed = [worker.wait() for worker in workers]
    assert not any(failed), f"exit statuses {failed}"
    return judge(root)


def add_names(root: Path, number: int, count: int) -> None:
    from cstorage.errors import StoreBusy

    with open_store(root) as store:
        index = -1
        while index < count:
            try:
                if index < 0:
                    store.create_image(id=f"image{number}")
                else:
                    store.add_names(f"image{number}", [f"name-{number}-{index}"])
            except StoreBusy:
                continue  # waited for its turn in vain
            index += 1


def names(root: Path, processes: int, each: int) -> int:
    """Every process adds its names one by one; how many are there in the end."""
    with open_store(root):
        pass
    workers = [start("names", root, number, each) for number in range(processes)]
    failed = [worker.wait() for worker in workers]
    assert not any(failed), f"exit statuses {failed}"
    with open_store(root) as store:
        found = {name for image in store.images() for name in image.names}
        missing = [
            f"name-{number}-{index}"
            for number in range(processes)
            for index in range(each)
            if f"name-{number}-{index}" not in found
        ]
        assert not missing, missing[:5]
        return len(found)


def main(words: list[str]) -> int:
    if words[0] == "worker":
        Worker(Path(words[1]), *map(int, words[2:5])).run()
    elif words[0] == "names":
        add_names(Path(words[1]), int(words[2]), int(words[3]))
    else:
        print(run(Path(words[0]), int(words[1]), int(words[2])))
    return 0


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main(sys.argv[1:]))
