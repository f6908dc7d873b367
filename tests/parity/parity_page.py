"""The page docs/parity.md: every item of the original, ours, and the tests that exercise it.

``tables`` finds the rows, ``missing`` those without a counterpart or a test, ``render`` writes the
page. The same sources give the same page.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import evidence
import original

import cstorage.config
import cstorage.errors
from cstorage.cli import command as command_line
from cstorage.cli.table import COMMANDS
from cstorage.store.store import Store

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / "docs" / "parity.md"

_INTRODUCTION = """\
# Parity with containers/storage

<!-- Made by `tools/parity`; change tests/parity/original.py or the tests instead. -->

Every command, option, method, error and configuration key of containers/storage (April 2026), what
it is here, and the test files (below `tests/`) that exercise it most, two at the most. The tests
are found by reading their sources; what counts is said in `tests/parity/evidence.py`. Where the
behaviour differs on purpose, [differences.md](differences.md) says so. A configuration key counts
as here when it is read and handed on; a driver that is not there, as zfs, can make no use of its
keys.
"""


class Row(NamedTuple):
    """One item. ``ours`` is "" without a counterpart, ``tests`` is empty without a test."""

    item: str
    ours: str
    tests: tuple[str, ...]


class Table(NamedTuple):
    title: str
    rows: list[Row]


def _most(uses: Counter[str]) -> tuple[str, ...]:
    ranked = sorted(uses, key=lambda path: (not Path(path).name.startswith("test_"), -uses[path]))
    return tuple(ranked[:2])


def _snake(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return spaced.lower()


def _command_tables() -> list[Table]:
    uses, flag_uses = evidence.commands(original.COMMANDS, original.GLOBAL_FLAGS)
    ours = {command.name: command for command in COMMANDS}
    names, flags = [], []
    for spelled, own in original.COMMANDS.items():
        name, *aliases = spelled.split()
        here = ours.get(name)
        if here is not None and not set(aliases) <= set(here.aliases):
            here = None
        where = here.handler.partition(":")[0] if here else ""
        names.append(
            Row(
                ", ".join((name, *aliases)),
                f"cstorage/cli/{where}.py" if where else "",
                _most(uses[name]),
            )
        )
        for group in own.split():
            known = here is not None and any(
                set(group.split(",")) <= {*flag.spellings, *flag.deprecated} for flag in here.flags
            )
            found = _most(flag_uses[f"{name} {group}"])
            flags.append(Row(f"{name} {group}", "the same" if known else "", found))
    everywhere = []
    for group in original.GLOBAL_FLAGS.split():
        known = any(
            set(group.split(",")) <= set(flag.spellings)
            for flag in (*command_line.GLOBAL_FLAGS, command_line.HELP_FLAG)
        )
        everywhere.append(Row(group, "the same" if known else "", _most(flag_uses[group])))
    return [
        Table("Commands", names),
        Table("Global options", everywhere),
        Table("Options of commands", flags),
    ]


def _methods() -> Table:
    ours = {name: original.OUR_METHODS.get(name, _snake(name)) for name in original.METHODS.split()}
    uses = evidence.methods(set(ours.values()))
    return Table(
        "Methods of the store",
        [
            Row(name, f"Store.{here}" if hasattr(Store, here) else "", _most(uses[here]))
            for name, here in ours.items()
        ],
    )


def _errors() -> Table:
    ours = {name: name.removeprefix("Err") for name in original.ERRORS}
    uses = evidence.errors({ours[name]: text for name, text in original.ERRORS.items()})
    rows = []
    for name, here in ours.items():
        found = getattr(cstorage.errors, here, None)
        same = found is not None and found.sentinel == original.ERRORS[name]
        rows.append(Row(name, f"cstorage.errors.{here}" if same else "", _most(uses[here])))
    return Table("Errors", rows)


def _known_keys() -> set[str]:
    config = cstorage.config
    known = {f"storage.{key}" for key in config._STORAGE_KEYS}
    known |= {f"storage.options.{key}" for key in config._OPTION_KEYS}
    for table, keys in config._DRIVER_TABLES.items():
        known |= {f"storage.options.{table}.{key}" for key in keys}
    return known


def _keys() -> Table:
    known, uses = _known_keys(), evidence.keys()
    rows = []
    for table, keys in original.KEYS.items():
        for key in keys.split():
            item = f"{table}.{key}"
            # Pull options are a free map of texts.
            here = item in known or table.endswith(".pull_options")
            rows.append(Row(item, "cstorage/config.py" if here else "", _most(uses[item])))
    return Table("Configuration keys", rows)


def _variables() -> Table:
    names = original.VARIABLES.split()
    uses = evidence.variables(set(names))
    modules = {path: path.read_text() for path in sorted((TOP / "cstorage").rglob("*.py"))}
    rows = []
    for name in names:
        literal = re.compile(rf"[\"']{name}[\"']")
        where = [
            str(path.relative_to(TOP)) for path, text in modules.items() if literal.search(text)
        ]
        rows.append(Row(name, where[0] if where else "", _most(uses[name])))
    return Table("Environment variables", rows)


def tables() -> list[Table]:
    return [*_command_tables(), _methods(), _errors(), _keys(), _variables()]


def missing(found: list[Table]) -> dict[str, str]:
    """Items without a counterpart or without a test -> which of the two it is."""
    return {
        row.item: "no test" if row.ours else "no counterpart"
        for table in found
        for row in table.rows
        if not (row.ours and row.tests)
    }


def render(found: list[Table]) -> str:
    absent = missing(found)
    parts = [_INTRODUCTION]
    for table in found:
        here = [row for row in table.rows if row.item not in absent]
        parts.append(f"\n## {table.title} ({len(here)} of {len(table.rows)})\n\n")
        parts.append("| original | here | tests |\n|---|---|---|\n")
        for row in here:
            ours = row.ours if row.ours == "the same" else f"`{row.ours}`"
            tests = ", ".join(row.tests)
            parts.append(f"| `{row.item}` | {ours} | {tests} |\n")
    parts.append("\n## Not there\n\n")
    if not absent:
        parts.append("Nothing.\n")
    else:
        parts.append("| original | what is missing | why |\n|---|---|---|\n")
    for item, what in absent.items():
        parts.append(f"| `{item}` | {what} | {original.GAPS.get(item, 'not said')} |\n")
    return "".join(parts)
