"""What the comparisons ran: sequences, commands and options, counted by driver.

A generator that never draws an option compares nothing about it; the counts are printed after a run
and ``Tally.thin`` names what a long run drew too seldom.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from cstorage.cli.additions import ADDITIONS
from cstorage.cli.command import Command
from cstorage.cli.files_table import FILES
from cstorage.cli.interop_table import INTEROP
from cstorage.cli.table import COMMANDS


class Known(NamedTuple):
    """One command of the table under all its names."""

    name: str
    flags: dict[str, str]  # every spelling, and the long name that it stands for


_KNOWN = {
    spelling: Known(
        command.name,
        {word: flag.spellings[0] for flag in command.flags for word in flag.spellings},
    )
    for command in COMMANDS
    for spelling in (command.name, *command.aliases)
}


class Tally:
    """Counts of one test run."""

    def __init__(self) -> None:
        self.sequences: Counter[str] = Counter()
        self.commands: Counter[str] = Counter()
        self.parted: Counter[str] = Counter()
        self.succeeded: Counter[tuple[str, str]] = Counter()
        self.uses: Counter[tuple[str, str, str]] = Counter()

    def note(self, driver: str, command: str, words: list[str], ok: bool) -> None:
        """Counts a command and the options among its words (bundled short ones are not seen)."""
        self.commands[driver] += 1
        known = _KNOWN.get(command)
        if known is None:
            self.uses[driver, "(no command)", ""] += 1
            return
        self.uses[driver, known.name, ""] += 1
        self.succeeded[driver, known.name] += ok
        for word in words:
            flag = known.flags.get(word.partition("=")[0])
            if flag is not None:
                self.uses[driver, known.name, flag] += 1

    def thin(self, driver: str, least: int, unknown_to_peer: frozenset[str]) -> list[str]:
        """Commands and options of both programmes that were drawn fewer than ``least`` times."""
        missing = []
        for command in COMMANDS:
            if command.name in unknown_to_peer or is_ours(command):
                continue
            for flag in ("", *(f.spellings[0] for f in command.flags)):
                if _only_ours(command.name, flag):
                    continue
                if (count := self.uses[driver, command.name, flag]) < least:
                    missing.append(f"{command.name} {flag}".rstrip() + f" ({count})")
        return missing

    def report(self) -> list[str]:
        """Lines for people: totals, then each command with its options."""
        lines = []
        for driver in self.sequences:
            lines.append(
                f"{driver}: {self.sequences[driver]} generated sequences, "
                f"{self.commands[driver]} commands compared; "
                f"{self.parted[driver]} sequences ended early at a listed difference"
            )
            for command in dict.fromkeys(known.name for known in _KNOWN.values()):
                if count := self.uses[driver, command, ""]:
                    flags = [
                        f"{flag} {self.uses[driver, command, flag]}"
                        for flag in dict.fromkeys(_KNOWN[command].flags.values())
                        if self.uses[driver, command, flag]
                    ]
                    done = self.succeeded[driver, command]
                    lines.append(f"  {command} {count} ({done} exit 0) {', '.join(flags)}".rstrip())
        return lines


_OURS = frozenset(command.name for command in (*ADDITIONS, *FILES, *INTEROP)) | {"history", "watch"}


def is_ours(command: Command) -> bool:
    """Whether no version of the original has this command."""
    return command.name in _OURS


#: Options of commands that 1.43 has, but without these.
_NEW_OPTIONS = {
    ("layers", "--quick"), ("import-layer", "--progress"), ("applydiff", "--progress"),
    ("copy", "--json"),
}  # fmt: skip


def _only_ours(command: str, flag: str) -> bool:
    return (command, flag) in _NEW_OPTIONS or flag.startswith("--max-")
