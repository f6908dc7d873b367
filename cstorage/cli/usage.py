"""The usage texts: layout as the original prints it (cli.md §1.4), words our own. Pure."""

from __future__ import annotations

import os

from cstorage.cli.goflags import BOOL, LIST
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cstorage.cli.command import Command
    from cstorage.cli.goflags import Flag, Value

_NAME_WIDTH = 30


def overview(program: str, commands: Iterable[Command]) -> str:
    """The global usage up to and including its ``Options:`` line."""
    rows = "".join(f"  {row.name:<{_NAME_WIDTH}}{row.summary}\n" for row in commands)
    return f"Usage: {program} command [options [...]]\n\nCommands:\n\n{rows}\nOptions:\n"


def of_command(program: str, typed: str, command: Command) -> str:
    """A command's usage up to and including its ``Options:`` line; ``typed`` is the name used."""
    return f"Usage: {program} {typed} {command.synopsis}\n\n{command.summary}\n\nOptions:\n"


def flag_list(flags: Sequence[Flag], values: Mapping[str, Value], home: str = "") -> str:
    """The flags with their present values, sorted by long name, one line each.

    A value below ``home`` is shortened to ``~``.
    """
    rows = [(_shown(flag, values.get(flag.key, flag.unset), home), flag.help) for flag in flags]
    rows.sort(key=lambda row: row[0].lower())
    width = max(len(shown) for shown, _ in rows) + 4
    return "\n" + "".join(f"  {shown:<{width}}{text}\n" for shown, text in rows)


def _shown(flag: Flag, value: Value, home: str) -> str:
    names = ", ".join(flag.spellings)
    if flag.kind == LIST:
        assert isinstance(value, tuple)
        return f"{names}=[{' '.join(value)}]"
    if flag.kind == BOOL:
        return f"{names}=true" if value else names
    assert isinstance(value, str)
    if home and (value == home or value.startswith(home + os.sep)):
        value = "~" + value[len(home) :]
    return f"{names}={value}" if value not in ("", "0", "false") else names
