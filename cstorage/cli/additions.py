"""Commands about the store as a whole that the original does not have: rows of the table."""

from __future__ import annotations

from cstorage.cli.command import JSON, READ_FILE, UNLIMITED, Command
from cstorage.cli.families import ANY_ITEM, OPTIONS
from cstorage.cli.goflags import BOOL, STRING, Flag

ADDITIONS: tuple[Command, ...] = (
    Command(
        "blame",
        (),
        f"{OPTIONS} {ANY_ITEM}",
        "Show which change each name, flag and data item of something comes from",
        1,
        1,
        (JSON,),
        "going_back:blame",
        "One line for each: what, then the change as `history` prints it.",
    ),
    Command(
        "deleted",
        (),
        OPTIONS,
        "List what was deleted and can be restored",
        0,
        0,
        (JSON,),
        "going_back:deleted",
        "One line for each: sequence and time of the deletion, kind, ID, names; the latest first. "
        "Deletions are kept with the global option --keep-deleted, or as long and as many bytes as "
        "`keep-deleted-seconds` and `keep-deleted-mib` in storage.conf (`[storage.options]`) say.",
    ),
    Command(
        "restore",
        (),
        f"{OPTIONS} {ANY_ITEM} [...]",
        "Bring back deleted layers, images or containers with what they rest on",
        1,
        UNLIMITED,
        (
            Flag(("--layer", "-l"), BOOL, "Only layers"),
            Flag(("--image", "-i"), BOOL, "Only images"),
            Flag(("--container", "-c"), BOOL, "Only containers"),
            JSON,
        ),
        "going_back:restore",
        "By ID, a name that it had, or the beginning of its ID; of several the one deleted last. "
        "Prints what came back as `create-image` does, with --json a list of IDs. Names that "
        "others have by now stay with them. Goes on after a failing argument.",
    ),
    Command(
        "undo",
        (),
        f"{OPTIONS} sequenceNumber",
        "Take back a deletion, or a change of names, metadata or flags",
        1,
        1,
        (JSON,),
        "going_back:undo",
        "All of the transaction that the change of that number in `history` is part of. Refused if "
        "something else changed the same things since. Prints the changes that it took.",
    ),
    Command(
        "forget-deleted",
        (),
        OPTIONS,
        "Delete for good what is kept to be restored",
        0,
        0,
        (Flag(("--older-than",), STRING, "Only what was deleted this long ago (24h, 30m)"), JSON),
        "going_back:forget_deleted",
        "Prints nothing; with --json the number of deletions.",
    ),
    Command(
        "df",
        (),
        OPTIONS,
        "Show what the store occupies and what could be freed",
        0,
        0,
        (
            Flag(("--images", "-i"), BOOL, "Also what each image adds"),
            Flag(("--measure", "-m"), BOOL, "Walk the layers whose size was never recorded"),
            JSON,
        ),
        "usage_report:df",
        "From sums that are kept with every change; nothing is walked. Layers that were never "
        "filled from an archive, those of containers, count only with --measure. An owner is the "
        "user whose process created an item, or was the first to bring a content.",
    ),
    Command(
        "batch",
        (),
        OPTIONS,
        "Run commands read from standard input in one process",
        0,
        0,
        (
            READ_FILE,
            Flag(("--atomic", "-a"), BOOL, "All commands in one transaction, or none of them"),
            JSON,
        ),
        "batch:batch",
        "One command a line, without global options: words as in a shell, or a JSON array of "
        'words, or {"args": [...], "reason": "..."}; empty lines and lines beginning with # are '
        "skipped. Goes on after a failing command, --atomic stops and undoes; either makes the "
        "exit status 1. With --json one object per command: line, status, out, err.",
    ),
)
