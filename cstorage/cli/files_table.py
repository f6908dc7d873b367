"""Commands that look at files without a mount: rows of the table."""

from __future__ import annotations

from cstorage.cli.command import JSON, Command
from cstorage.cli.families import OPTIONS
from cstorage.cli.goflags import BOOL, STRING, Flag

_ITEM = "imageOrLayerNameOrID"
_RECORDED = (
    "From what was recorded when the layers were filled: nothing is mounted, changes made since "
    "do not show, and of several archives applied to one layer the last counts. Fails for layers "
    "never filled from an archive."
)
_NAMES = "Names with control characters, quotes in front or bytes that are no UTF-8 are quoted."
_OBJECTS = (
    "With --json an array of objects: path, type, mode, uid, gid, size, mtime, layer, and target, "
    "device, digest where there are any."
)

FILES: tuple[Command, ...] = (
    Command(
        "ls",
        (),
        f"{OPTIONS} {_ITEM} [path]",
        "List files of an image or a layer",
        1,
        2,
        (
            Flag(("--long", "-l"), BOOL, "Also type, mode, owner, size, time and link target"),
            Flag(("--recursive", "-R"), BOOL, "Also all that is below, under its whole path"),
            JSON,
        ),
        "files:ls",
        f"{_RECORDED} {_NAMES} A symbolic link is followed, with --long only if a / ends the "
        f"path. {_OBJECTS}",
    ),
    Command(
        "cat",
        (),
        f"{_ITEM} path",
        "Write the content of a file of an image or a layer",
        2,
        2,
        (),
        "files:cat",
        "Read from the tree of the layer that holds it, without a mount. Exit status 1 if the "
        "file is not what was recorded: of another size (then nothing is written) or other bytes.",
    ),
    Command(
        "find",
        (),
        f"{OPTIONS} {_ITEM} [path]",
        "Find files of an image or a layer by name and type",
        1,
        2,
        (
            Flag(("--name", "-n"), STRING, "Glob that the last name has to match"),
            Flag(("--type", "-t"), STRING, "f file, d directory, l link, b c device, p pipe"),
            JSON,
        ),
        "files:find",
        f"Whole paths, the starting point among them. {_RECORDED} {_NAMES} {_OBJECTS}",
    ),
    Command(
        "which-layer",
        (),
        f"{OPTIONS} {_ITEM} path",
        "Show which layer a file comes from",
        2,
        2,
        (JSON,),
        "files:which_layer",
        "The ID of the uppermost layer that brought the path. A symbolic link that is the last "
        "name is not followed. With --json the object that `ls` shows.",
    ),
    Command(
        "diff-images",
        (),
        f"{OPTIONS} {_ITEM} {_ITEM}",
        "List what changes from one image or layer to another",
        2,
        2,
        (JSON,),
        "diffs:diff_images",
        f"Lines and JSON as of `changes`; contents are compared by digest. {_RECORDED}",
    ),
)
