"""``kill -9`` at any moment of an import leaves a whole store.

It opens, verifies, lists no half layer, and after the next write its folders hold nothing that a
store which never was killed would not hold. Moments are system calls (by ``strace``, which kills at
the k-th call of a kind) and points in time. ``--kill-points N`` tries N calls of each kind.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from scene import Scene, real_tar

pytestmark = [pytest.mark.root, pytest.mark.timeout(1200)]

#: Calls that change something or decide who may, and at how many of them a run kills by default.
CALLS = {
    "rename": 4, "renameat": 4, "renameat2": 4, "fdatasync": 4, "fsync": 4, "syncfs": 2,
    "pwrite64": 4, "write": 3, "mkdir": 3, "mkdirat": 2, "unlink": 3, "unlinkat": 3, "rmdir": 2,
    "openat": 4, "openat2": 2, "flock": 3, "symlink": 2, "symlinkat": 2, "link": 1, "linkat": 1,
    "ftruncate": 2, "fallocate": 1, "fchown": 1, "fchownat": 1, "lchown": 1, "fchmod": 1,
    "fchmodat": 1, "chmod": 1, "utimensat": 1, "mknodat": 1, "setxattr": 1, "fsetxattr": 1,
}  # fmt: skip

_RANDOM_TIMES = 10


class Prepared(NamedTuple):
    """A store to start from and what a store must look like afterwards."""

    start: Scene
    data: bytes
    without: dict[str, tuple[str, int]]
    complete: dict[str, tuple[str, int]]


@pytest.fixture
def prepared(scene: Scene, tmp_path: Path) -> Prepared:
    data = real_tar(tmp_path / "library.tar", "json", "email")
    (tmp_path / "library.tar.gz").write_bytes(
        subprocess.run(["gzip", "-nc"], input=data, capture_output=True, check=True).stdout
    )
    scene.ok("import-layer", "--id", "base", "-n", "base-name", stdin=data[:0])
    scene.ok("create-image", "--id", "img", "base")
    without = scene.copy_to(tmp_path / "without")
    without.ok("create-layer", "--id", "after", "base")
    complete = scene.copy_to(tmp_path / "complete")
    complete.ok(*_IMPORT, str(tmp_path / "library.tar.gz"), "base")
    complete.ok("create-layer", "--id", "after", "base")
    return Prepared(scene, data, without.bytes_on_disk(), complete.bytes_on_disk())


_IMPORT = ("import-layer", "--id", "new", "-n", "new-name", "-f")


def _check(prepared: Prepared, store: Scene, moment: str) -> bool:
    """All that must be true of a store whose import was killed; whether the import had won."""
    listed = store.run("layers", "--json")
    assert listed.exit == 0, f"{moment}: does not open: {listed}"
    layers = {layer["id"]: layer for layer in json.loads(listed.stdout)}
    assert list(layers) in (["base"], ["base", "new"]), f"{moment}: {list(layers)}"
    verified = store.journal("verify")
    assert verified.exit in (0, 1), f"{moment}: {verified}"  # 1: a torn tail, not yet cut
    won = "new" in layers
    if won:
        expected = "sha256:" + hashlib.sha256(prepared.data).hexdigest()
        assert layers["new"]["diff-digest"] == expected, moment
        assert layers["new"]["names"] == ["new-name"], moment
    written = store.run("create-layer", "--id", "after", "base")
    assert written.exit == 0, f"{moment}: cannot write: {written}"
    verified = store.journal("verify")
    assert verified.exit == 0, f"{moment}: {verified}"
    clean = prepared.complete if won else prepared.without
    stray = _differences(store.bytes_on_disk(), clean)
    assert not stray, f"{moment}: not as a clean store: {stray}"
    return won


def _differences(found: dict[str, tuple[str, int]], clean: dict[str, tuple[str, int]]) -> list[str]:
    return [
        f"{path}: {found.get(path)} instead of {clean.get(path)}"
        for path in sorted(found.keys() | clean.keys())
        if found.get(path) != clean.get(path)
    ]


def _calls_of_the_store(log: str, graph: Path) -> dict[str, tuple[int, int]]:
    """For each kind of call of the main thread: calls before the store is touched, and in all."""
    before: Counter[str] = Counter()
    count: Counter[str] = Counter()
    main, touched = None, False
    for line in log.splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match is None:
            continue
        main = main or match[1]
        touched = touched or str(graph) in line
        if match[1] == main:
            count[match[2]] += 1
            if not touched:
                before[match[2]] += 1
    return {call: (before[call], total) for call, total in count.items() if total > before[call]}


def _spread(first: int, last: int, points: int) -> list[int]:
    """``points`` numbers from ``first`` to ``last``, both ends among them."""
    if last - first + 1 <= points:
        return list(range(first, last + 1))
    if points == 1:
        return [(first + last) // 2]
    return sorted({first + (last - first) * i // (points - 1) for i in range(points)})


def test_killed_at_system_calls(
    prepared: Prepared, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (Debian: apt install strace)")
    wanted = request.config.getoption("--kill-points")
    archive = str(tmp_path / "library.tar.gz")
    trace = ("strace", "-f", "-qq", "-o")
    probe = prepared.start.copy_to(tmp_path / "probe")
    log = tmp_path / "trace"
    watched = (*trace, str(log), "-e", f"trace=?{',?'.join(CALLS)}")
    done = probe.run_under(watched, *_IMPORT, archive, "base")
    assert done.exit == 0, done
    outcomes: Counter[str] = Counter()
    for call, (before, total) in _calls_of_the_store(log.read_text(), probe.graph).items():
        for number in _spread(before + 1, total, wanted or CALLS[call]):
            moment = f"killed at {call} number {number} of {total}"
            store = prepared.start.copy_to(tmp_path / f"{call}-{number}")
            inject = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")
            killed = store.run_under((*trace, "/dev/null", *inject), *_IMPORT, archive, "base")
            if killed.exit == 0:
                outcomes["not reached"] += 1
            won = _check(prepared, store, moment)
            outcomes["there" if won else "not there"] += 1
            shutil.rmtree(store.graph.parent)
    assert outcomes["not there"], outcomes  # some moments before the commit
    assert outcomes["there"], outcomes  # some after it
    print(f"kill points on {prepared.start.driver}: {dict(outcomes)}")


def test_killed_at_random_times(prepared: Prepared, tmp_path: Path) -> None:
    archive = str(tmp_path / "library.tar.gz")
    probe = prepared.start.copy_to(tmp_path / "probe")
    began = time.monotonic()
    probe.ok(*_IMPORT, archive, "base")
    whole_s = time.monotonic() - began
    chance = random.Random(20)  # the same moments in every run, as far as the machine lets us
    for turn in range(_RANDOM_TIMES):
        store = prepared.start.copy_to(tmp_path / f"turn-{turn}")
        process = subprocess.Popen(
            store.argv(*_IMPORT, archive, "base"),
            env=store.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        pause_s = chance.uniform(0.1, 1.1) * whole_s
        time.sleep(pause_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _check(prepared, store, f"killed after {pause_s:.3f} s of {whole_s:.3f} s")
        shutil.rmtree(store.graph.parent)


def test_killed_while_a_builder_makes_files(prepared: Prepared, tmp_path: Path) -> None:
    """The importer dies, the process that makes files for it ends by itself, nothing stays."""
    files = tmp_path / "files"
    for folder in range(40):
        (files / f"{folder}").mkdir(parents=True)
        for number in range(200):
            (files / f"{folder}" / f"{number}").write_bytes(b"x" * (number * 10))
    archive = tmp_path / "files.tar"
    subprocess.run(["tar", "-C", files, "-cf", archive, "."], check=True)
    complete = prepared.start.copy_to(tmp_path / "complete-files")
    complete.ok(*_IMPORT, str(archive), "base")
    complete.ok("create-layer", "--id", "after", "base")
    case = prepared._replace(data=archive.read_bytes(), complete=complete.bytes_on_disk())
    met = 0
    for turn in range(_RANDOM_TIMES):
        store = prepared.start.copy_to(tmp_path / f"files-{turn}")
        importer = subprocess.Popen(
            store.argv(*_IMPORT, str(archive), "base"),
            env=store.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        children = Path(f"/proc/{importer.pid}/task/{importer.pid}/children")
        while importer.poll() is None and not children.read_text():
            time.sleep(0.001)
        time.sleep(turn * 0.02)
        met += importer.poll() is None and bool(children.read_text())
        importer.send_signal(signal.SIGKILL)
        importer.wait()
        _check(case, store, f"killed {turn * 20} ms after the builder was started")
        shutil.rmtree(store.graph.parent)
    assert met > 2, "the builder was not met: the test shows nothing"


def test_the_check_sees_a_stray_file(prepared: Prepared, tmp_path: Path) -> None:
    store = prepared.start.copy_to(tmp_path / "stray")
    (store.graph / "overlooked").write_bytes(b"x")
    with pytest.raises(AssertionError, match="overlooked"):
        _check(prepared, store, "stray")
