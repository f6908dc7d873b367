"""tools/quickstart shows what it promises and ends in OK."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from scene import real_tar

TOP = Path(__file__).resolve().parent.parent.parent


@pytest.mark.root
@pytest.mark.timeout(600)
def test_the_tour_ends_in_ok_and_leaves_nothing(tmp_path: Path) -> None:
    if not (TOP / ".venv" / "installed").is_file():
        pytest.skip(
            "this checkout has no .venv yet, and a test should not install one (tools/test)"
        )
    if os.getuid() != 0:
        pytest.skip("not root: the tour of the overlay driver")
    archive = tmp_path / "rootfs.tar"
    real_tar(archive, "json", "email")
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [TOP / "tools" / "quickstart", archive],
        env=os.environ | {"TMPDIR": str(work)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1] == "OK", done
    for shown in (
        "    watch | 2 ",  # the second process saw the import
        'Add "/srv/data/note"',  # changes
        "srv/data/note",  # diff
        'image deleted image ("end of the tour")',  # history
        "match: True",  # replay
    ):
        assert shown in done.stdout, f"{shown!r} is missing in {done.stdout}"
    assert list(work.iterdir()) == []
