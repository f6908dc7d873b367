"""What a command of the table is, and the flags that several commands share."""

from __future__ import annotations

from cstorage.cli.goflags import BOOL, LIST, STRING, Flag
from journal.plain import NamedTuple

UNLIMITED = -1


class Command(NamedTuple):
    """One command.

    ``handler`` is ``module:function`` below ``cstorage.cli``; the function takes an
    ``Invocation`` and returns the exit status. ``most`` is the largest number of arguments,
    ``UNLIMITED`` for any. ``synopsis`` is what follows the name in the usage line.
    """

    name: str
    aliases: tuple[str, ...]
    synopsis: str
    summary: str
    least: int
    most: int
    flags: tuple[Flag, ...]
    handler: str
    details: str = ""
    """What the documentation adds to the summary: output, exit status, differences."""


GLOBAL_FLAGS = (
    Flag(("--debug", "-D"), BOOL, "Show debug messages on standard error"),
    Flag(("--graph", "-g"), STRING, "Directory that holds the store"),
    Flag(("--run", "-R"), STRING, "Directory of what need not survive a reboot"),
    Flag(("--image-store",), STRING, "Directory that holds images apart from containers"),
    Flag(("--transient-store",), BOOL, "Keep containers only until the next reboot"),
    Flag(("--storage-driver", "-s"), STRING, "Graph driver to use ($STORAGE_DRIVER)"),
    Flag(("--storage-opt",), LIST, "Option for the graph driver, repeatable ($STORAGE_OPTS)"),
    Flag(("--unshare", "-U"), BOOL, "Run in a new user namespace"),
    Flag(("--reason",), STRING, "Why this is done, kept in the journal with every change"),
    Flag(("--when",), STRING, "Show the store as it was after this event, or at this time"),
    Flag(("--keep-deleted",), STRING, "Keep what is deleted this long, to be restored"),
)

HELP_FLAG = Flag(("--help",), BOOL, "Show this text", deprecated=("-help",))

JSON = Flag(("--json", "-j"), BOOL, "Print JSON")
QUIET_IDS = Flag(("--quiet", "-q"), BOOL, "Print only IDs")
READ_FILE = Flag(("--file", "-f"), STRING, "Read from this file instead of standard input")
WRITE_FILE = Flag(("--file", "-f"), STRING, "Write to this file instead of standard output")
METADATA = (
    Flag(("--metadata", "-m"), STRING, "Metadata text"),
    Flag(("--metadata-file", "-f"), STRING, "File that holds the metadata, taken as it is"),
)
NEW_ID = Flag(("--id", "-i"), STRING, "ID to give instead of a random one")
NEW_NAMES = Flag(("--name", "-n"), LIST, "Name to give, repeatable")
LABEL = Flag(("--label", "-l"), STRING, "SELinux label for mounting")
READONLY_LAYER = Flag(("--readonly", "-r"), BOOL, "Make a layer that nothing writes to")
MAPS = (
    Flag(("--uidmap",), STRING, "UID map, container:host:size[:...]"),
    Flag(("--gidmap",), STRING, "GID map, container:host:size[:...]"),
    Flag(("--subuidmap",), STRING, "User whose subordinate UIDs make the UID map"),
    Flag(("--subgidmap",), STRING, "Group whose subordinate GIDs make the GID map"),
    Flag(("--hostuidmap",), BOOL, "Use host UIDs whatever the parent's map"),
    Flag(("--hostgidmap",), BOOL, "Use host GIDs whatever the parent's map"),
)


PROGRESS = Flag(
    ("--progress",), BOOL, "Show bytes, entries and rate on standard error, terminal or not"
)

LIMITS = (
    Flag(("--max-bytes",), STRING, "Refuse more than this many bytes unpacked (k, m, g: x 1024)"),
    Flag(("--max-entries",), STRING, "Refuse more than this many entries"),
    Flag(("--max-ratio",), STRING, "Refuse what expands to more than this many times its size"),
)


def flags_of(command: Command) -> tuple[Flag, ...]:
    """The flags accepted after the command's name: the global ones and its own.

    A spelling that the command uses itself has its global meaning only before the command.
    """
    own = {spelling for flag in command.flags for spelling in flag.spellings}
    shared = (
        flag._replace(spellings=tuple(s for s in flag.spellings if s not in own))
        if own.intersection(flag.spellings)
        else flag
        for flag in GLOBAL_FLAGS
    )
    return (*shared, *command.flags)
