"""Commands about the store as a whole that the original does not have: rows of the table."""

from __future__ import annotations

from cstorage.cli.command import JSON, READ_FILE, Command
from cstorage.cli.families import OPTIONS
from cstorage.cli.goflags import BOOL, Flag

ADDITIONS: tuple[Command, ...] = (
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
