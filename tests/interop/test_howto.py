"""Every command of docs/interop.md works as it stands there, in that order."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers
import pytest
from mounts import unmount_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WHY = peers.missing("podman", "buildah", "skopeo", "containers-storage")
pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.skipif(bool(_WHY), reason=_WHY)]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "interop.md"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """podman refuses run roots of more than 50 characters."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    unmount_below(folder)
    shutil.rmtree(folder)


def test_the_commands_of_the_page(
    open_store: Callable[..., Any],
    layout: Path,
    tmp_path: Path,
    short_folder: Path,
    cstorage_command: list[str],
    clean_environment: dict[str, str],
) -> None:
    with open_store("overlay") as store:
        image = peers.load(store, layout, "localhost/test:1")
        graph, run = store.graph_root, store.run_root
    theirs = peers.Engine(tmp_path / "theirs", "overlay")
    theirs.skopeo("copy", f"oci:{layout}:t", "containers-storage:localhost/theirs:1")
    reader = peers.Engine(tmp_path / "reader", "overlay", graph)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "cstorage"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(cstorage_command)} "$@"\n')
    script.chmod(0o755)
    environment = {
        **clean_environment, **reader.env, "PATH": f"{script.parent}:{os.environ['PATH']}",
        "STORE": str(graph), "RUN": str(run), "CONF": str(reader.conf),
        "THEIRS": str(theirs.root), "WORK": str(short_folder),
    }  # fmt: skip
    commands = [
        line.strip().removeprefix("$ ").replace("skopeo ", f"skopeo --policy {reader.policy} ")
        for line in PAGE.read_text().splitlines()
        if line.startswith("    $ ")
    ]
    assert len(commands) >= 15
    said = {}
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, text=True,
            timeout=peers.TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done}"
        said[command] = done.stdout
    listings = [text for command, text in said.items() if "images" in command]
    assert all(image.id[:12] in text for text in listings)
    assert sum("1 image" in text for text in said.values()) == 2  # exported, converted
