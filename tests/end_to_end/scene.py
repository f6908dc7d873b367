"""A store on disk and the programmes that work on it, for tests that look from outside."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sysconfig
from pathlib import Path
from typing import NamedTuple

from forkserver import ForkServer

_TIMEOUT_S = 120
_LINK = re.compile(r"\b[A-Z0-9]{26}\b")
_LONG = re.compile(r"\b([0-9a-f]{64}|[0-9a-f]{16}|\d{10,20})\b")


class Done(NamedTuple):
    """What a programme did; text is UTF-8 with backslashes for what is not."""

    exit: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """All it said, on both streams."""
        return [*self.stdout.splitlines(), *self.stderr.splitlines()]


class Scene:
    """One store. ``run`` waits for a command; ``argv`` is for those who start it themselves."""

    def __init__(
        self, command: list[str], environment: dict[str, str], forks: ForkServer, driver: str
    ) -> None:
        self.command, self.environment = command, environment
        self.forks, self.driver = forks, driver
        self.graph = Path()
        self.run_root = Path()

    def at(self, base: Path) -> Scene:
        """The same programmes, with a store below ``base``."""
        scene = Scene(self.command, self.environment, self.forks, self.driver)
        base.mkdir(parents=True, exist_ok=True)
        scene.graph, scene.run_root = base / "graph", base / "run"
        return scene

    def argv(self, *args: str) -> list[str]:
        roots = ["--graph", str(self.graph), "--run", str(self.run_root), "-s", self.driver]
        return [*self.command, *roots, *args]

    def run(self, *args: str, stdin: bytes = b"") -> Done:
        words = self.argv(*args)[len(self.command) :]
        return _done(*self.forks.run(words, stdin))

    def run_under(self, prefix: tuple[str, ...], *args: str) -> Done:
        """A command started anew by the words of ``prefix``, such as an instrument."""
        done = subprocess.run(
            [*prefix, *self.argv(*args)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
            env=self.environment,
        )
        return _done(done.returncode, done.stdout, done.stderr)

    def ok(self, *args: str, stdin: bytes = b"") -> str:
        done = self.run(*args, stdin=stdin)
        assert done.exit == 0, f"{args}: {done}"
        return done.stdout

    def journal(self, *args: str) -> Done:
        return _done(*self.forks.run(["--graph", str(self.graph), *args], b"", "cstorage-journal"))

    def layers(self) -> list[str]:
        return [layer["id"] for layer in json.loads(self.ok("layers", "--json")) or []]

    def copy_to(self, base: Path) -> Scene:
        """A copy of the store as it lies on the disk."""
        other = self.at(base)
        subprocess.run(["cp", "-a", str(self.graph), str(other.graph)], check=True)
        return other

    def bytes_on_disk(self) -> dict[str, tuple[str, int]]:
        """Every file below the graph root: kind and size, random names made equal.

        Journal files are listed without sizes: a store that lived through more has a longer one.
        The folders for unfinished work are left out, but not what is in them.
        """
        found: dict[str, tuple[str, int]] = {}
        top = os.fsencode(self.graph)
        for folder, folders, files in os.walk(top):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                facts = os.lstat(path)
                shown = os.fsdecode(os.path.relpath(path, top))
                journal = shown.split("/")[0].endswith("journal")
                shown = _LINK.sub("<link>", _LONG.sub("<n>", shown))
                size = facts.st_size if stat.S_ISREG(facts.st_mode) and not journal else 0
                if shown in ("staging", "trash"):
                    continue
                found[shown] = (stat.filemode(facts.st_mode)[0], size)
        return found

    def fingerprint(self) -> dict[str, str]:
        """Every file below the graph root with its content, to show that nothing changed.

        Without the lock file, which names its last holder.
        """
        found = {}
        for path in sorted(self.graph.rglob("*")):
            if path == self.graph / "journal" / "lock":
                continue
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            elif path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = "folder"
        return found


def _done(status: int, stdout: bytes, stderr: bytes) -> Done:
    return Done(
        status,
        stdout.decode("utf-8", "backslashreplace"),
        stderr.decode("utf-8", "backslashreplace"),
    )


def one_clear_line(done: Done, *words: str) -> None:
    """The refusal is one line for people, with exit status 1, and says one of the words."""
    assert done.exit == 1, done
    assert len(done.lines) == 1, done
    assert not re.search("Traceback|internal error", done.lines[0]), done
    if words:
        assert any(word.lower() in done.lines[0].lower() for word in words), done


def real_tar(path: Path, *packages: str) -> bytes:
    """A tar made by GNU tar of parts of the running Python's library: real files, real times."""
    library = sysconfig.get_path("stdlib")
    subprocess.run(
        ["tar", "-C", library, "--exclude=__pycache__", "--sort=name", "-cf", str(path), *packages],
        check=True,
    )
    return path.read_bytes()
