"""The commands that deal with podman, skopeo, buildah and the original's stores."""

from __future__ import annotations

from cstorage.cli.command import JSON, UNLIMITED, Command
from cstorage.cli.goflags import BOOL, LIST, STRING, Flag

_LEFT_OUT = "Exit status 3 when something was left out; each such item is a line with its reason."

_BY = Flag(("--by",), STRING, "Who needs the item (default: user and host)")

INTEROP = (
    Command(
        "project",
        (),
        "[options [...]]",
        "Let other tools read this store: write the files that they expect beside ours",
        0,
        0,
        (
            Flag(("--own-root",), BOOL, "For one tool that takes the root over, containers too"),
            Flag(("--keep",), BOOL, "Refresh after every change from now on"),
            Flag(("--off",), BOOL, "Remove what was written, and stop refreshing"),
            Flag(("--grace",), STRING, "How long deleted layers stay in the trash meanwhile"),
            Flag(("--verify",), BOOL, "Read every copy instead of trusting size and time"),
            Flag(("--overwrite",), BOOL, "Replace what other programs wrote"),
            Flag(("--consumers",), BOOL, "Only list the mounts that rest on layers of this store"),
            JSON,
        ),
        "interop:project",
        "Tells how many records were written, what was not as it had been left, and what cannot "
        f"be shown to every tool. {_LEFT_OUT}",
    ),
    Command(
        "pin",
        (),
        "[options [...]] imageOrLayerNameOrID [...]",
        "Forbid deleting images or layers, because somebody elsewhere uses them",
        1,
        UNLIMITED,
        (_BY, JSON),
        "pins:pin",
        "With the global option --reason it is recorded why. All arguments are pinned, or none. "
        "Every way of deleting a pinned item, or a layer under it, fails and says who pinned it.",
    ),
    Command(
        "unpin",
        (),
        "[options [...]] imageOrLayerNameOrID [...]",
        "Allow deleting images or layers again",
        1,
        UNLIMITED,
        (_BY, Flag(("--all", "-a"), BOOL, "Take back the pins of everybody"), JSON),
        "pins:unpin",
    ),
    Command(
        "pins",
        (),
        "[options [...]] [imageOrLayerNameOrID]",
        "List what is pinned, by whom, since when and why",
        0,
        1,
        (JSON,),
        "pins:pins",
    ),
    Command(
        "adopt",
        (),
        "[options [...]] graphroot",
        "Take over images and containers of a store that another tool wrote",
        1,
        1,
        (
            Flag(("--copy",), BOOL, "Copy content (the default)"),
            Flag(("--link",), BOOL, "Share content by reflinks, or hard links where that is safe"),
            Flag(("--in-place",), BOOL, "The store is this graph root: leave content where it is"),
            Flag(("--dry-run", "-n"), BOOL, "Verify and report, change nothing"),
            Flag(("--from-driver",), STRING, "Driver of the store, where it has several"),
            Flag(("--from-run",), STRING, "Its run root, where volatile containers may be"),
            Flag(("--from-image-store",), STRING, "Its image store, if it is split"),
            Flag(("--additional",), LIST, "Store that holds parents of its layers, repeatable"),
            Flag(("--lock-timeout",), STRING, "How long to wait for its users", default="10s"),
            JSON,
        ),
        "interop:adopt",
        "One line per item as it is adopted or left out, then the counts; with --json lists of "
        f"all items. Content is verified while it is read. {_LEFT_OUT}",
    ),
    Command(
        "export",
        (),
        "--to containers-storage directory",
        "Write a full store in the original's format, for another tool to use as its root",
        1,
        1,
        (
            Flag(("--to",), STRING, "Format; `containers-storage` is the only one"),
            JSON,
        ),
        "interop:export",
        f"The directory must be missing or empty. {_LEFT_OUT}",
    ),
    Command(
        "convert",
        (),
        "--to driver directory",
        "Make a copy of this store that uses another graph driver",
        1,
        1,
        (
            Flag(("--to",), STRING, "Driver of the copy: overlay or vfs"),
            JSON,
        ),
        "interop:convert",
        "The directory must be missing or empty. Times, digests, names and the order of creation "
        f"stay; the copy's journal names the origin. {_LEFT_OUT}",
    ),
)
