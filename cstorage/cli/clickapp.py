"""The command table as a click group: usage texts, shell completion, embedding.

Built from ``table`` on demand. Parsing is ``goflags``'s here too: click's own parser never sees a
word, because the grammar of the flags is another one (single-dash bundles, two parses). ``main``
comes here only to show usage and for completion (docs/decisions/0020-click-off-the-hot-path.md).
"""

from __future__ import annotations

import os
import sys

import click

from cstorage.cli import goflags, usage
from cstorage.cli.command import GLOBAL_FLAGS, Command, flags_of
from cstorage.cli.table import COMMANDS, find


def _option(flag: goflags.Flag) -> click.Option:
    """The click option that shows and completes ``flag``."""
    return click.Option(
        [*flag.spellings, flag.key],
        is_flag=flag.kind == goflags.BOOL,
        multiple=flag.kind == goflags.LIST,
        help=flag.help,
        type=click.Path() if flag.key in ("graph", "run", "file", "metadata_file") else None,
    )


class GoCommand(click.Command):
    """One row of the table."""

    def __init__(self, row: Command, program: str) -> None:
        super().__init__(
            row.name,
            params=[_option(flag) for flag in flags_of(row)],
            help=row.summary,
            add_help_option=False,
        )
        self.row = row
        self.program = program

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Only completion comes here: take the words as they are, without judging them."""
        parsed = goflags.parse(args, flags_of(self.row), {})
        ctx.params = dict(parsed.values)
        ctx.args = parsed.rest
        return parsed.rest

    def format_help(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(usage.of_command(self.program, self.row.name, self.row))
        formatter.write(usage.flag_list(flags_of(self.row), {}))


class GoGroup(click.Group):
    """The whole command line; invoked, it runs ``main``, so there is one way to run a command."""

    def __init__(self, program: str) -> None:
        super().__init__(
            program, params=[_option(flag) for flag in GLOBAL_FLAGS], add_help_option=False
        )
        self.program = program

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return [row.name for row in COMMANDS]

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = find(cmd_name)
        return None if row is None else GoCommand(row, self.program)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Global flags and command for completion; all words as they are for a real run."""
        if not ctx.resilient_parsing:
            ctx.args = args
            return args
        parsed = goflags.parse(args, GLOBAL_FLAGS, {})
        ctx.params = dict(parsed.values)
        ctx._protected_args, ctx.args = parsed.rest[:1], parsed.rest[1:]
        return ctx.args

    def invoke(self, ctx: click.Context) -> None:
        from cstorage.cli.main import main

        ctx.exit(main([self.program, *ctx.args]))

    def format_help(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(self.overview())
        formatter.write(usage.flag_list(GLOBAL_FLAGS, {}))

    def overview(self) -> str:
        """The global usage text without its flag list."""
        return usage.overview(self.program, COMMANDS)

    def usage_of(self, typed: str, row: Command) -> str:
        """The usage text of one command without its flag list."""
        return usage.of_command(self.program, typed, row)


def group(program: str) -> GoGroup:
    """The click group under the name ``program``."""
    return GoGroup(program)


def complete(variable: str) -> int:
    """Answer a shell's request for completions, which came in the environment."""
    from click.shell_completion import shell_complete

    instruction = os.environ[variable]
    program = os.path.basename(sys.argv[0])
    return shell_complete(group(program), {}, program, variable, instruction)
