"""Which test files exercise what, read from their sources with ``ast``. Nothing of them is run.

What counts as exercising (a mention elsewhere, such as an import or a docstring, does not):

* a command: its word is the first command word in a call that runs the command line;
* a flag: a spelling stands in such a call of that command, also inside a bundle of letters. Where
  the call gets words from a variable, the literals of the same function count as its words;
* a method or attribute: it is taken from something that holds a store;
* an error: the class is named in code, or its text stands in an expected message;
* a configuration key: a literal has a line ``key =`` below that table's heading;
* an environment variable: it is named in a literal or as a keyword.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

Uses = dict[str, Counter[str]]

_COMMAND_FOLDERS = {"cli", "conformance", "end_to_end", "parity"}
_RUNNERS = {"run", "ok", "bare", "cli", "process", "complete", "program"}
_METHOD_FOLDERS = {"store", "interop", "scale", "end_to_end", "parity"}
_STORES = re.compile(r"\b\w*store\w*\b|^(beside|full|first|second|other|before|again)$")
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
_HEADING = re.compile(r"^\s*\[([\w.]+)\]\s*$")
_KEY = re.compile(r"^\s*([\w-]+)\s*=(?!=)")
_OWN = {"conftest.py", "original.py", "evidence.py", "parity_page.py", "test_parity.py"}


@cache
def sources() -> list[tuple[Path, ast.Module]]:
    """The test files that may be evidence, in a fixed order."""
    return [
        (path.relative_to(TESTS), ast.parse(path.read_text()))
        for path in sorted(TESTS.rglob("*.py"))
        if path.name not in _OWN
    ]


def strings(node: ast.AST) -> list[str]:
    """The string literals below a node in the order of the source, docstrings left out."""
    left_out = set()
    for inner in ast.walk(node):
        if isinstance(inner, _FUNCTIONS | ast.ClassDef | ast.Module) and inner.body:
            first = inner.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                left_out.add(first.value)
    found = [
        inner
        for inner in ast.walk(node)
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
        if inner not in left_out
    ]
    found.sort(key=lambda inner: (inner.lineno, inner.col_offset))
    return [str(inner.value) for inner in found]


def functions(tree: ast.Module) -> Iterator[ast.AST]:
    """Functions of a module, with their decorators; not those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            yield from (child for child in node.body if isinstance(child, _FUNCTIONS))


# -- the command line ------------------------------------------------------------------------------


def _bindings(function: ast.AST) -> dict[str, list[str]]:
    """Loop variables and parameters -> the literals they go through."""
    found: dict[str, list[str]] = defaultdict(list)
    for node in ast.walk(function):
        if isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name):
            found[node.target.id] += strings(node.iter)
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Tuple):
            for target in node.target.elts:
                if isinstance(target, ast.Name):
                    found[target.id] += strings(node.iter)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("parametrize"):
            names = [word for text in strings(node.args[0]) for word in re.split(r"[,\s]+", text)]
            for name in names:
                found[name] += strings(node.args[1])
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] += strings(node.value)
    return found


def _words(node: ast.expr, bound: dict[str, list[str]], commands: set[str]) -> list[list[str]]:
    """What one argument may be: a list of alternatives, each a list of words; unknown is []."""
    match node:
        case ast.Constant(value=str() as text):
            return [[text]]
        case ast.Starred(value=ast.Name(id=name)):
            return [bound.get(name, [])]
        case ast.Starred(value=value):
            return [strings(value)]
        case ast.Name(id=name):
            return [[text] for text in bound.get(name, [])] or [[]]
        case ast.JoinedStr(values=parts):
            pattern = "".join(
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"[a-z]+"
                for part in parts
            )
            fitting = [[name] for name in sorted(commands) if re.fullmatch(pattern, name)]
            literal = str(parts[0].value) if isinstance(parts[0], ast.Constant) else ""
            return fitting or [[literal]]
    return [[]]


def _calls(function: ast.AST, commands: set[str]) -> Iterator[tuple[str, set[str]]]:
    """Each run of the command line in a function: the command, and the words that go with it."""
    bound = _bindings(function)
    wide = {name for name in commands if "-" in name}
    everything = set(strings(function))
    for node in ast.walk(function):
        if not isinstance(node, ast.Call):
            continue
        runner = ast.unparse(node.func)
        if runner.rpartition(".")[2] not in _RUNNERS or runner == "subprocess.run":
            continue
        arguments: list[ast.expr] = []
        for argument in node.args:
            inside = isinstance(argument, ast.List | ast.Tuple)
            arguments += argument.elts if inside else [argument]  # type: ignore[attr-defined]
        alternatives = [_words(argument, bound, commands) for argument in arguments]
        flat = {word for some in alternatives for words in some for word in words}
        if any(isinstance(argument, ast.Starred | ast.Name) for argument in arguments):
            flat |= everything
        for some in alternatives:
            hits = [next((w for w in words if w in commands), None) for words in some]
            named = {hit for hit in hits if hit is not None}
            # Of the literals of a variable, words that are nothing but commands.
            named |= {w for words in some if len(words) > 1 for w in words if w in wide}
            if named:
                yield from ((name, flat) for name in sorted(named))
                break


def _has(words: set[str], spellings: list[str]) -> bool:
    for word in words:
        head = word.partition("=")[0]
        if head in spellings:
            return True
        bundle = re.fullmatch(r"-([A-Za-z]{2,4})", head)
        if bundle and any(len(s) == 2 and s[1] in bundle[1] for s in spellings):
            return True
    return False


def commands(table: dict[str, str], everywhere: str) -> tuple[Uses, Uses]:
    """Uses of commands (``name``) and flags (``name --flag,-f``, ``--flag,-f`` for global ones)."""
    primary = {word: row.split()[0] for row in table for word in row.split()}
    flags = {row.split()[0]: own.split() for row, own in table.items()}
    of_commands: Uses = defaultdict(Counter)
    of_flags: Uses = defaultdict(Counter)
    for path, tree in sources():
        if path.parts[0] not in _COMMAND_FOLDERS:
            continue
        for function in functions(tree):
            for word, words in _calls(function, set(primary)):
                name = primary[word]
                of_commands[name][str(path)] += 1
                for group in flags[name]:
                    if _has(words, group.split(",")):
                        of_flags[f"{name} {group}"][str(path)] += 1
            named = set(strings(function))
            for group in everywhere.split():
                if _has(named, [s for s in group.split(",") if s.startswith("--")]):
                    of_flags[group][str(path)] += 1
    return of_commands, of_flags


# -- the library -----------------------------------------------------------------------------------


def methods(names: set[str]) -> Uses:
    found: Uses = defaultdict(Counter)
    for path, tree in sources():
        if path.parts[0] not in _METHOD_FOLDERS:
            continue
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in names
                and not isinstance(node.value, ast.BinOp)
                and _STORES.search(ast.unparse(node.value))
            ):
                found[node.attr][str(path)] += 1
    return found


def errors(texts: dict[str, str]) -> Uses:
    """Uses of error classes; ``texts`` is class -> text."""
    found: Uses = defaultdict(Counter)
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute):
                name = node.id if isinstance(node, ast.Name) else node.attr
                if name in texts:
                    found[name][str(path)] += 1
        for function in functions(tree):
            for literal in strings(function):
                for name, text in texts.items():
                    if text in literal and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", literal):
                        found[name][str(path)] += 1
    return found


# -- configuration ---------------------------------------------------------------------------------


def keys() -> Uses:
    """Uses of configuration keys, as ``table.key``."""
    found: Uses = defaultdict(Counter)
    for path, tree in sources():
        for function in functions(tree):
            table = ""
            for literal in strings(function):
                for line in literal.splitlines():
                    heading, key = _HEADING.match(line), _KEY.match(line)
                    if heading:
                        table = heading[1]
                    elif key and table:
                        found[f"{table}.{key[1]}"][str(path)] += 1
    return found


def variables(names: set[str]) -> Uses:
    found: Uses = defaultdict(Counter)
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg in names:
                found[str(node.arg)][str(path)] += 1
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = node.value.partition("=")[0]
                if name in names:
                    found[name][str(path)] += 1
    return found
