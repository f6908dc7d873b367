"""What a short command imports: nothing that takes longer than its work."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
HEAVY = {
    "typing", "re", "pathlib", "dataclasses", "inspect", "json", "datetime", "decimal", "hashlib",
    "logging", "random", "shutil", "socket", "subprocess", "tempfile", "urllib.parse", "click",
    "cbor2", "google_crc32c",
}  # fmt: skip

RUN = """
import sys
sys.path.insert(0, {top!r})
before = set(sys.modules)  # what the interpreter and its site need is not ours to choose
from cstorage.cli.main import main
status = main(["cstorage", "-g", {root!r} + "/g", "-R", {root!r} + "/r", "-s", "vfs", *{words!r}])
print(sorted(set(sys.modules) - before), status)
"""

#: Not those of containers: their flags are JSON.
COMMANDS = [
    "exists base", "layer base", "layers", "images", "containers", "get-names base",
    "images-by-digest sha256:" + 64 * "0", "add-names -n more base", "set-metadata -m x base",
    "metadata base", "create-layer -i other", "create-image -i picture other",
    "delete-image picture",
    "create-layer -i single", "delete-layer single",
]  # fmt: skip


def imported(root: Path, words: str) -> set[str]:
    code = RUN.format(top=str(TOP), root=str(root), words=words.split())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, _, status = done.stdout.splitlines()[-1].rpartition(" ")
    assert status == "0", done
    return set(ast.literal_eval(shown))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    imported(folder, "create-layer -i base -n base-name")
    return folder


@pytest.mark.parametrize("words", COMMANDS)
def test_a_short_command_imports_nothing_heavy(root, words):
    heavy = imported(root, words) & HEAVY
    assert not heavy, heavy


def test_layers_come_and_go_without_what_only_annotations_need(root, tmp_path):
    archive = tmp_path / "layer.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(__file__, "file")
    needless = HEAVY - {"re", "hashlib"}  # headers are matched, contents hashed
    for words in (f"import-layer -i filled -f {archive}", "diff -u -f /dev/null filled"):
        assert not imported(root, words) & needless, words


def test_a_look_needs_no_events(root):
    """With fresh tables there is nothing to apply."""
    imported(root, "exists base")
    import cstorage

    with cstorage.open(root / "g", root / "r", driver="vfs") as store:
        store.snapshot()
    loaded = imported(root, "exists base")
    assert not {name for name in loaded if name.startswith("cstorage.events")}
    assert "cstorage.state.reducer" not in loaded


def processor_seconds(words: list[str]) -> float:
    """The least that a command took in some runs, its own and the kernel's."""
    least = 9.9
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(7):
        pid = os.posix_spawn(
            words[0],
            words,
            environment,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, 1, 0)],
        )
        _, status, used = os.wait4(pid, 0)
        assert status == 0
        least = min(least, used.ru_utime + used.ru_stime)
    return least


def test_a_look_costs_a_few_times_what_the_interpreter_does(root):
    """A bound with room for slow machines; tools/bench scale prints the figure."""
    code = (
        f"import sys; sys.path.insert(0, {str(TOP)!r}); sys.argv[0] = 'cstorage'\n"
        "from cstorage.cli.main import entry; entry()"
    )
    place = ["-g", str(root / "g"), "-R", str(root / "r"), "-s", "vfs"]
    bare = processor_seconds([sys.executable, "-c", "pass"])
    look = processor_seconds([sys.executable, "-c", code, *place, "exists", "base"])
    assert look < 5.5 * bare, (look, bare)
