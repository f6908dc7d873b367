"""What is on the disk before what: an import's system calls, seen from outside.

A power cut keeps what was synced and some of the rest. So the content, and what says that it is
about to move, are synced before anything moves; each directory that something moved into, or was
made in, is synced after that; and only then is the event.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest
from scene import Scene, real_tar

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

CALLS = "syncfs,fsync,fdatasync,rename,renameat,renameat2,mkdir,symlink,symlinkat,pwrite64"


class Call(NamedTuple):
    """One successful call of the store's process: what it did, to which paths."""

    name: str
    paths: tuple[str, ...]


def calls(log: str) -> list[Call]:
    found = []
    pending: dict[str, str] = {}
    for line in log.splitlines():
        thread, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            pending[thread] = text.removesuffix("<unfinished ...>")
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", text):
            text = pending.pop(thread, "") + resumed[1]
        match = re.match(r"(\w+)\((.*)\)\s+= (-?\d+)", text)
        if match and int(match[3]) >= 0:
            paths = re.findall(r'<(/[^>]*)>|"(/[^"]*)"', match[2])
            found.append(Call(match[1], tuple(a or b for a, b in paths)))
    return found


@pytest.fixture
def recorded(scene: Scene, tmp_path: Path) -> tuple[Scene, list[Call]]:
    """All that an import into a store with content did."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (Debian: apt install strace)")
    data = real_tar(tmp_path / "library.tar", "json", "email")
    packed = subprocess.run(["gzip", "-nc"], input=data, capture_output=True, check=True).stdout
    archive = tmp_path / "library.tar.gz"
    archive.write_bytes(packed)
    scene.ok("import-layer", "--id", "base", stdin=data[:0])
    log = tmp_path / "trace"
    watched = (
        "strace",
        "-f",
        "-y",
        "-qq",
        "-s",
        "4096",
        "-o",
        str(log),
        "-e",
        f"trace=?{CALLS.replace(',', ',?')}",
    )
    done = scene.run_under(watched, "import-layer", "--id", "new", "-f", str(archive), "base")
    assert done.exit == 0, done
    return scene, calls(log.read_text())


def test_content_then_moves_then_directories_then_the_event(
    recorded: tuple[Scene, list[Call]],
) -> None:
    scene, made = recorded
    graph = str(scene.graph)
    home = f"{graph}/{'vfs/dir' if scene.driver == 'vfs' else 'overlay'}"
    event = max(
        at for at, call in enumerate(made)
        if call.name == "fdatasync" and "/journal/segments/" in call.paths[0]
    )  # fmt: skip
    written = max(
        at for at, call in enumerate(made[:event])
        if call.name == "pwrite64" and "/journal/segments/" in call.paths[0]
    )  # fmt: skip
    moves = [
        (at, call.paths[-1]) for at, call in enumerate(made[:event])
        if call.name.startswith("rename") and call.paths[-1].startswith((home, f"{graph}/content/"))
    ]  # fmt: skip
    assert [path for _, path in moves if path == f"{home}/new"]
    assert len([path for _, path in moves if path.startswith(f"{graph}/content/")]) == 2

    content = max(at for at, call in enumerate(made) if call.name == "syncfs")
    intent = next(
        at for at, call in enumerate(made)
        if call.name.startswith("rename") and call.paths[-1].endswith("/=intent")
    )  # fmt: skip
    assert intent < content, "the intent is not on the disk when things move"
    assert content < moves[0][0], "something moved before its content was on the disk"
    changed = {path.rpartition("/")[0]: at for at, path in moves}
    for at, call in enumerate(made[moves[0][0] : event], moves[0][0]):
        if call.name in ("mkdir", "symlink", "symlinkat"):
            above = call.paths[-1].rpartition("/")[0]
            changed[above] = max(at, changed.get(above, 0))
    for folder, at in changed.items():
        synced = [
            late for late, call in enumerate(made)
            if call.name == "fsync" and call.paths == (folder,) and at < late < written
        ]  # fmt: skip
        assert synced, f"{folder} was changed and not synced before the event was written"
