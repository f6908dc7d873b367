"""The shape of the tree: who may import whom, what stands at the top, how long a module may be.

The rooms and their order are those of docs/architecture.md. Everything is read from the sources
with ``ast``; nothing of the project is imported here.
"""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parent.parent

#: Rooms of the store from the top down. A module may import its own room and those of a later row;
#: rooms of one row know nothing of each other.
ROWS: tuple[tuple[str, ...], ...] = (
    ("cstorage.cli",),
    ("cstorage.store",),
    ("cstorage.oci", "cstorage.interop"),
    ("cstorage.drivers",),
    ("cstorage.archive",),
    ("cstorage.content",),
    ("cstorage.state",),
    ("cstorage.events",),
    ("cstorage.config",),
    ("cstorage.idmap",),
    ("cstorage.model",),
    ("cstorage.errors",),
    ("journal",),
)
RANK = {room: rank for rank, row in enumerate(ROWS) for room in row}

#: Narrower than the order: the only rooms of the project that these may know.
ONLY = {
    "cstorage.state": {"cstorage.events", "cstorage.model", "cstorage.errors", "journal"},
    "cstorage.events": {"cstorage.model", "cstorage.errors"},
    "cstorage.archive": {"cstorage.model", "cstorage.errors", "cstorage.idmap"},
    "cstorage.model": {"cstorage.errors"},
    "cstorage.errors": set(),
    "journal": set(),
}

#: Names of the standard library in a lighter form: nobody learns anything of a journal from them.
LIGHT = "journal.plain"

#: The façade that ``import cstorage`` shows may name the store; it is above all rooms but the CLI.
FACADE = "cstorage"

#: What a pure room may not touch: input, output, the clock, chance.
IMPURE_MODULES = {
    "asyncio", "fcntl", "glob", "io", "mmap", "multiprocessing", "os", "pathlib", "random",
    "secrets", "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time",
    "uuid",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}

TOP_LEVEL = {
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md",
    "cstorage", "journal", "tests", "tools", "docs",
}  # fmt: skip

#: One module is one noun; a page that does not fit a reader's head holds two.
LINES_MAX = 1000

MACHINE_PATHS = re.compile(
    # written so that this file does not match itself
    r"(?<![\w.}-])/(?:wor[k]|roo[t]|hom[e]/[a-z])/|\.pyen[v]|/Users[/]|agen[t]s?/worktree"
)


class Import(NamedTuple):
    """One import statement: what it names and where it stands."""

    target: str
    where: str


def tracked_files() -> list[Path]:
    """Files of the tree as git sees them; without git, every file that is not a dot-file."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP, capture_output=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        names = [name for name in listed.stdout.decode().split("\0") if name]
    else:
        names = [
            str(path.relative_to(TOP))
            for path in TOP.rglob("*")
            if path.is_file() and not any(p.startswith(".") for p in path.relative_to(TOP).parts)
        ]
    return sorted(TOP / name for name in names if (TOP / name).is_file())


def module_name(path: Path) -> str:
    parts = path.relative_to(TOP).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The room a dotted module name belongs to; ``cstorage`` itself is the façade."""
    if module == "journal" or module.startswith("journal."):
        return "journal"
    if module == FACADE:
        return FACADE
    if module.startswith("cstorage."):
        return ".".join(module.split(".")[:2])
    return None


def imports_of(source: str, module: str, name: str, *, package: bool) -> Iterator[Import]:
    """Every module that a source text imports, wherever the statement stands in it."""
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, f"{name}:{node.lineno}")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                keep = len(parts) - node.level + (1 if package else 0)
                base = ".".join([*parts[:keep], *([node.module] if node.module else [])])
            for alias in node.names:
                # ``from cstorage import model`` names a room, ``… import Store`` does not
                within = f"{FACADE}.{alias.name}"
                target = within if base == FACADE and within in RANK else base
                yield Import(target, f"{name}:{node.lineno}")


def verdict(importer: str, imported: str) -> str | None:
    """Why ``importer`` (a module) may not import ``imported``; None if it may."""
    here, there = room_of(importer), room_of(imported)
    if here is None or there is None or here == there or imported == LIGHT:
        return None
    if there == FACADE:
        return None if here == "cstorage.cli" else f"{here} reaches up to the façade"
    if here == FACADE:
        return f"the façade reaches up to {there}" if there == "cstorage.cli" else None
    for room in (here, there):
        if room not in RANK:
            return f"{room} is no room of the architecture"
    if here in ONLY and there not in ONLY[here]:
        return f"{here} may not know {there}"
    if RANK[here] >= RANK[there]:
        return f"{here} stands below or beside {there}"
    return None


def offences(source: str, module: str, name: str, *, package: bool = False) -> list[str]:
    found = []
    for item in imports_of(source, module, name, package=package):
        why = verdict(module, item.target)
        if why is not None:
            found.append(f"{item.where}: imports {item.target}: {why}")
    return found


def impurities(source: str, name: str) -> list[str]:
    """Statements of a pure room that reach for the world."""
    found = []
    for node in ast.walk(ast.parse(source, name)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
            if node.module == "datetime":
                found.append(f"{name}:{node.lineno}: imports the clock")
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in IMPURE_CALLS
        ):
            found.append(f"{name}:{node.lineno}: calls {node.func.id}()")
        found += [
            f"{name}:{node.lineno}: imports {full}"
            for full in names
            if full.split(".")[0] in IMPURE_MODULES
        ]
    return found


def project_modules() -> list[Path]:
    return [
        path
        for path in tracked_files()
        if path.suffix == ".py" and path.relative_to(TOP).parts[0] in ("cstorage", "journal")
    ]


def test_imports_only_point_downwards() -> None:
    found: list[str] = []
    for path in project_modules():
        found += offences(
            path.read_text(), module_name(path), str(path.relative_to(TOP)),
            package=path.name == "__init__.py",
        )  # fmt: skip
    assert not found, "\n".join(found)


def test_state_and_events_are_pure() -> None:
    found: list[str] = []
    for path in project_modules():
        if room_of(module_name(path)) in ("cstorage.state", "cstorage.events"):
            found += impurities(path.read_text(), str(path.relative_to(TOP)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "statement", "allowed"),
    [
        ("cstorage.cli.main", "import cstorage", True),
        ("cstorage.cli.main", "from cstorage.store import Store", True),
        ("cstorage.store.store", "from cstorage.cli import main", False),
        ("cstorage.store.store", "from cstorage.drivers.contract import Parent", True),
        ("cstorage.drivers.vfs", "def f():\n    from cstorage.store import Store", False),
        ("cstorage.drivers.vfs", "from cstorage.archive.apply import apply_layer", True),
        ("cstorage.archive.apply", "from ..drivers import vfs", False),
        ("cstorage.archive.apply", "from .whiteouts import OPAQUE", True),
        ("cstorage.state.indexes", "from cstorage.events import LayerCreated", True),
        ("cstorage.state.indexes", "from cstorage.content import Content", False),
        ("cstorage.state.indexes", "import journal.digest", True),
        ("cstorage.oci.layout", "from cstorage.interop import adopt", False),
        ("cstorage.errors", "from cstorage import model", False),
        ("cstorage.model", "from cstorage import errors", True),
        ("cstorage.model", "import cstorage", False),
        ("cstorage.cli.main", "from cstorage import Store", True),
        ("cstorage.drivers.vfs", "from cstorage import Store", False),
        ("journal.writer", "import cstorage.errors", False),
        ("journal.writer", "from journal import frame", True),
        ("cstorage.cellar.wine", "import journal", False),
    ],
)
def test_the_import_rule_tells_right_from_wrong(module: str, statement: str, allowed: bool) -> None:
    assert (offences(statement, module, "x.py") == []) is allowed


@pytest.mark.parametrize(
    ("statement", "pure"),
    [
        ("import os.path", False),
        ("from time import time_ns", False),
        ("from datetime import datetime", False),
        ("def f():\n    return open('x')", False),
        ("import hashlib, bisect", True),
    ],
)
def test_the_purity_rule_tells_right_from_wrong(statement: str, pure: bool) -> None:
    assert (impurities(statement, "x.py") == []) is pure


def test_only_listed_entries_stand_at_the_top() -> None:
    entries = {path.relative_to(TOP).parts[0] for path in tracked_files()}
    assert {name for name in entries if not name.startswith(".")} <= TOP_LEVEL


def test_no_module_outgrows_a_readers_head() -> None:
    long = {
        str(path.relative_to(TOP)): count
        for path in project_modules()
        if (count := path.read_text().count("\n")) > LINES_MAX
    }
    assert not long


def test_the_tree_names_no_path_of_one_machine() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(TOP)}:{number}: {line.strip()[:80]}"
            for number, line in enumerate(text.splitlines(), 1)
            if MACHINE_PATHS.search(line)
        ]
    assert not found, "\n".join(found)
