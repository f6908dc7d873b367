"""The README's transcript and its library example do what they show."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
README = (TOP / "README.md").read_text()
DOCS = sorted((TOP / "docs").glob("*.md"))


def _block(language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", README, re.S)
    assert match is not None, language
    return match[1]


def _steps(transcript: str) -> list[tuple[str, str]]:
    """Commands and what each prints; lines that begin with ``> `` continue a command."""
    steps: list[tuple[str, str]] = []
    for line in transcript.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], ""))
        elif line.startswith("> "):
            steps[-1] = (f"{steps[-1][0]}\n{line[2:]}", "")
        else:
            steps[-1] = (steps[-1][0], f"{steps[-1][1]}{line}\n")
    return steps


def _pattern(expected: str) -> str:
    return "[^\n]*".join(re.escape(part) for part in expected.split("..."))


@pytest.fixture
def shell(
    tmp_path: Path,
    cstorage_command: list[str],
    journal_command: list[str],
    clean_environment: dict[str, str],
) -> dict[str, str]:
    """An environment in which a shell finds the commands of this tree."""
    programmes = tmp_path / "bin"
    programmes.mkdir()
    for name, command in (("cstorage", cstorage_command), ("cstorage-journal", journal_command)):
        script = programmes / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        script.chmod(0o755)
    return clean_environment | {"PATH": f"{programmes}:{os.environ['PATH']}"}


@pytest.mark.root
def test_the_transcript_is_true(tmp_path: Path, shell: dict[str, str]) -> None:
    if os.getuid() != 0:
        pytest.skip("not root: the transcript mounts")
    place = tmp_path / "demo"
    place.mkdir()
    steps = _steps(_block("console"))
    mark = "----8<----"
    script = "exec 2>&1\n" + "".join(f"{command}\necho '{mark}'\n" for command, _ in steps)
    done = subprocess.run(
        ["bash"],
        input=script,
        cwd=place,
        env=shell,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    printed = done.stdout.split(f"{mark}\n")
    assert len(printed) == len(steps) + 1, done
    for (command, expected), got in zip(steps, printed, strict=False):
        assert re.fullmatch(_pattern(expected), got), f"$ {command}\n{got}instead of\n{expected}"


@pytest.mark.root
def test_the_library_example_runs(tmp_path: Path, shell: dict[str, str]) -> None:
    if os.getuid() != 0:
        pytest.skip("not root: the example mounts")
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    subprocess.run(["tar", "-C", "rootfs", "-czf", "rootfs.tar.gz", "."], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-c", _block("python")],
        cwd=tmp_path,
        env=shell,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("MODIFY /etc\nADD /etc/motd\n", "", 0)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{page.name}" for page in DOCS)])
def test_links_lead_somewhere(page: str) -> None:
    text = (TOP / page).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (TOP / page).parent.joinpath(target).exists(), f"{page}: {target}"
