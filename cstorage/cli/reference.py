"""The page docs/cli.md, made from the command table. Pure.

``python -m cstorage.cli.reference > docs/cli.md`` writes it; a test fails when the page is stale
or a command has no summary or no flag has help.
"""

from __future__ import annotations

import sys

from cstorage.cli.command import GLOBAL_FLAGS, UNLIMITED, Command
from cstorage.cli.goflags import BOOL, LIST
from cstorage.cli.table import COMMANDS
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cstorage.cli.goflags import Flag

_INTRODUCTION = """\
# The command line

<!-- Made by `python -m cstorage.cli.reference`; change cstorage/cli/table.py instead. -->

    cstorage [global flags] COMMAND [global or command flags] [arguments]

The commands, flags, output and exit statuses are those of `containers-storage`; what is our own is
marked so. Called under the name `containers-storage`, the program uses that name in its messages.

## Words of a command line

* Flags: `--name value`, `--name=value`, `-x value`, `-x=value`. Booleans take no following word,
  only `=true`, `=false` and their short forms. Single letters can be bundled (`-gRs ROOT RUN vfs`).
* Flags stand before the arguments: parsing stops at the first word that is not a flag, and at `--`.
* Global flags are accepted before and after the command; the later one wins, `--storage-opt` adds.
* An item is named by its ID, one of its names, or a prefix of its ID that no other item shares.

## Exit status

| status | meaning |
|---|---|
| 0 | success |
| 1 | the command failed as a whole or for some argument; a bad global flag; an unknown command |
| 2 | a defect of this program |
| 125 | a bad flag after the command, or `COMMAND --help` |
| 130 | interrupted |
| 141 | the reader of standard output went away |

Errors are one line on standard error. `error initializing: …`, unknown commands and wrong numbers
of arguments are told on standard output, as the original does.
"""

_OWN_COMMANDS = frozenset(
    (
        *("history", "watch", "df", "batch"),
        *("blame", "deleted", "restore", "undo", "forget-deleted"),
        *("project", "adopt", "export", "convert"),
        *("ls", "cat", "find", "which-layer", "diff-images"),
    )
)
_OWN_FLAGS = frozenset(("--reason", "--progress", "--when", "--keep-deleted"))


def render() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, "\n## Global flags\n\n", _flag_table(GLOBAL_FLAGS), "\n## Commands\n"]
    parts.extend(_section(command) for command in COMMANDS)
    return "".join(parts)


def _section(command: Command) -> str:
    own = " (our own)" if command.name in _OWN_COMMANDS else ""
    lines = [f"\n### {command.name}{own}\n\n"]
    lines.append(f"    cstorage {command.name} {command.synopsis}".rstrip() + "\n\n")
    lines.append(f"{command.summary}. {command.details}".rstrip() + "\n")
    facts = [f"Arguments: {_arguments(command)}."]
    if command.aliases:
        facts.append(f"Also called {', '.join(f'`{alias}`' for alias in command.aliases)}.")
    lines.append("\n" + " ".join(facts) + "\n")
    if command.flags:
        lines.append("\n" + _flag_table(command.flags))
    return "".join(lines)


def _arguments(command: Command) -> str:
    if command.most == UNLIMITED:
        return f"{command.least} or more" if command.least else "any number"
    if command.least == command.most:
        return "none" if command.most == 0 else f"{command.most}"
    return f"{command.least} to {command.most}"


def _flag_table(flags: Iterable[Flag]) -> str:
    rows = ["| flag | value | meaning |\n|---|---|---|\n"]
    for flag in flags:
        names = ", ".join(f"`{name}`" for name in flag.spellings)
        kind = {BOOL: "–", LIST: "text, repeatable"}.get(flag.kind, "text")
        default = f" (default `{flag.default}`)" if flag.default else ""
        own = " (our own)" if flag.spellings[0] in _OWN_FLAGS else ""
        rows.append(f"| {names} | {kind} | {flag.help}{default}{own} |\n")
    return "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(render())
