"""The page docs/api.md: what a program that uses the library may call, from the sources.

``render`` gives the page. Only names without a leading underscore are public, and of a class those
of its own body and of the mixins that stand beside it.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parent.parent
PAGE = TOP / "docs" / "api.md"
WIDTH = 96

_INTRODUCTION = """\
# The library

<!-- Made by `tools/api`; change the sources instead. -->

`import cstorage` for the store, `from journal import Journal` for the journal alone. Methods raise
classes of [`cstorage.errors`](#cstorageerrors) and, where the system refuses, `OSError`; one that
raises has changed nothing. How the journal is used by itself stands in [journal.md](journal.md).
"""


class Part(NamedTuple):
    """One section: ``names`` of a file's top level ((): all public ones), under ``title``."""

    title: str
    file: str
    names: tuple[str, ...] = ()
    called: str = ""  # how users call a function that has another name in its module


PARTS = (
    Part("cstorage.open", "cstorage/store/opening.py", ("open_store",), "cstorage.open"),
    Part("cstorage.Store", "cstorage/store/store.py", ("Store",)),
    Part("Looking things up", "cstorage/store/finder.py", ("Finder",)),
    Part("Names, metadata, flags, big data, directories", "cstorage/store/item_data.py",
         ("ItemData",)),
    Part("Mounting", "cstorage/store/mounter.py", ("Mounter",)),
    Part("History, and going back", "cstorage/store/chronicler.py", ("Chronicler",)),
    Part("What was deleted", "cstorage/store/kept.py", ("Deleted",)),
    Part("Where something comes from", "cstorage/store/blame.py", ("Origin",)),
    Part("Other tools", "cstorage/store/neighbour.py", ("Neighbour",)),
    Part("Several changes as one", "cstorage/store/transactions.py", ("StoreTransaction",)),
    Part("Files without mounting", "cstorage/store/files.py", ("Files",)),
    Part("cstorage.MapOptions", "cstorage/store/mapping.py", ("MapOptions",)),
    Part("cstorage.model", "cstorage/model/__init__.py"),
    Part("cstorage.events", "cstorage/events/__init__.py"),
    Part("cstorage.errors", "cstorage/errors.py"),
    Part("cstorage.config", "cstorage/config.py"),
    Part("cstorage.store.lockfile", "cstorage/store/lockfile.py"),
    Part("cstorage.store.protocols", "cstorage/store/protocols.py"),
    Part("journal.Journal", "journal/facade.py", ("Journal", "Writer")),
    Part("Reading a journal", "journal/reader.py", ("Reader",)),
    Part("Frames", "journal/frame.py", ("Frame", "Transaction")),
    Part("Watching a journal", "journal/watcher.py", ("Watcher",)),
    Part("Snapshots", "journal/snapshots.py", ("Snapshots",)),
    Part("Backends", "journal/backend.py"),
    Part("journal.errors", "journal/errors.py"),
)  # fmt: skip

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_POINTER = re.compile(r"(?:Errors[^:.]*|Arguments and errors): ``(\w+)\.(\w+)``\.")


def render() -> str:
    """The page's text."""
    lines = [_INTRODUCTION]
    for part in PARTS:
        lines.append(f"\n## {part.title}\n")
        tree = ast.parse((TOP / part.file).read_text())
        if not part.names:
            lines += _documentation(tree)
        for node in _public(tree.body):
            if not part.names or node.name in part.names:
                lines += _class(node, part) if isinstance(node, ast.ClassDef) else _function(
                    node, part.called or node.name
                )  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _public(body: list[ast.stmt]) -> Iterator[ast.ClassDef | _Function]:
    for node in body:
        kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node


def _documentation(node: ast.Module | ast.ClassDef | _Function, indent: str = "") -> list[str]:
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    text = _POINTER.sub(_raised, text).replace("``", "`")
    return [f"{indent}{line}".rstrip() for line in text.splitlines()] + [""] if text else []


def _raised(pointer: re.Match[str]) -> str:
    """What a docstring that only points to a function of the store's modules would say itself."""
    module, name = pointer.groups()
    path = TOP / "cstorage" / "store" / f"{module}.py"
    for node in _public(ast.parse(path.read_text()).body) if path.exists() else ():
        found = re.search(r"Raises [^.]*(?:\.|$)", ast.get_docstring(node) or "", re.DOTALL)
        if node.name == name and found:
            return found[0]
    return pointer[0]


def _class(node: ast.ClassDef, part: Part) -> list[str]:
    """A class: its heading, fields of a record, properties and methods."""
    lines = []
    if part.names[:1] != (node.name,) or not part.title.endswith(node.name):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        lines.append(f"### {node.name}" + (f" ({bases})" if bases else "") + "\n")
    lines += _documentation(node)
    fields = [_field(item) for item in node.body if isinstance(item, ast.AnnAssign)]
    if any(fields):
        lines += ["Fields: " + ", ".join(f"`{text}`" for text in fields if text) + ".", ""]
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name[:1] != "_":
            lines += _function(item, item.name)
    return lines


def _field(item: ast.AnnAssign) -> str:
    name = ast.unparse(item.target)
    return "" if name.startswith("_") else f"{name}: {ast.unparse(item.annotation)}"


def _function(node: _Function, name: str) -> list[str]:
    """One entry of a list: the call, then the documentation below it."""
    marks = {ast.unparse(mark) for mark in node.decorator_list}
    if any(mark.endswith(".setter") for mark in marks):
        return []
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    if marks & {"property", "cached_property"}:
        call = f"{name}{result.replace(' -> ', ': ')}"
    else:
        first = node.args.posonlyargs + node.args.args
        if first and first[0].arg in ("self", "cls"):
            del (node.args.posonlyargs or node.args.args)[0]
        call = f"{name}({ast.unparse(node.args)}){result}"
    return [f"* `{call}`", *_documentation(node, "  ")] if len(call) <= WIDTH else [
        "* ```python", *(f"  {line}" for line in _folded(call)), "  ```",
        *_documentation(node, "  "),
    ]  # fmt: skip


def _folded(call: str) -> list[str]:
    """A call too long for a line, at its commas outside of brackets."""
    head, _, rest = call.partition("(")
    lines, line, depth = [f"{head}("], "    ", 0
    for position, letter in enumerate(rest):
        depth += {"[": 1, "(": 1, "{": 1, "]": -1, ")": -1, "}": -1}.get(letter, 0)
        if depth < 0:
            return [*lines, f"{line.rstrip()},", rest[position:]]
        line += letter
        if letter == "," and depth == 0 and len(line) > WIDTH // 2:
            lines.append(line.rstrip())
            line = "   "
    return [*lines, line]
