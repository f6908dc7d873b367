"""Commands that exist once per kind of item, or once per verb on names."""

from __future__ import annotations

from cstorage.cli.command import JSON, NEW_NAMES, READ_FILE, UNLIMITED, WRITE_FILE, Command

OPTIONS = "[options [...]]"
ANY_ITEM = "LayerOrImageOrContainerNameOrID"
ANY_NAME = "imageOrContainerNameOrID"


def data_commands(kind: str, sizes: bool) -> tuple[Command, ...]:
    """The commands for the data items of one kind; layers have no size and digest commands."""
    an = "an" if kind == "image" else "a"
    item = f"{kind}NameOrID"
    takes = f"{OPTIONS} {'layerID' if kind == 'layer' else item} dataName"
    rows = [
        Command(
            f"list-{kind}-data",
            (f"list{kind}data",),
            f"{OPTIONS} {kind}NameOrID",
            f"List the data items of {an} {kind}",
            1,
            1,
            (JSON,),
            f"data:list_{kind}",
            "Names in the order in which they were first set; JSON `null` when there are none.",
        ),
        Command(
            f"get-{kind}-data",
            (f"get{kind}data",),
            takes,
            f"Read a data item of {an} {kind}",
            2,
            2,
            (WRITE_FILE,),
            f"data:get_{kind}",
            "Writes the bytes as they are. The file is made or emptied before the item is read.",
        ),
    ]
    if sizes:
        rows += [
            Command(
                f"get-{kind}-data-size",
                (f"get{kind}datasize",),
                takes,
                f"Show the size of a data item of {an} {kind}",
                2,
                2,
                (),
                f"data:size_{kind}",
            ),
            Command(
                f"get-{kind}-data-digest",
                (f"get{kind}datadigest",),
                takes,
                f"Show the digest of a data item of {an} {kind}",
                2,
                2,
                (),
                f"data:digest_{kind}",
            ),
        ]
    rows.append(
        Command(
            f"set-{kind}-data",
            (f"set{kind}data",),
            takes,
            f"Store a data item with {an} {kind}",
            2,
            2,
            (READ_FILE,),
            f"data:set_{kind}",
            "Replaces an item of that name in place. Empty data is fine, an empty name is not.",
        )
    )
    return tuple(rows)


def directories(kind: str) -> tuple[Command, ...]:
    an = "an" if kind == "image" else "a"
    note = (
        "Creates the directory. The argument is used as it is: no such image need exist."
        if kind == "image"
        else "Creates the directory (mode 0700) if need be."
    )
    return (
        Command(
            f"get-{kind}-dir",
            (f"get{kind}dir",),
            f"{OPTIONS} {kind}NameOrID",
            f"Show the lasting private directory of {an} {kind}",
            1,
            1,
            (),
            f"data:{kind}_directory",
            note,
        ),
        Command(
            f"get-{kind}-run-dir",
            (f"get{kind}rundir",),
            f"{OPTIONS} {kind}NameOrID",
            f"Show the private directory of {an} {kind} that a reboot empties",
            1,
            1,
            (),
            f"data:{kind}_run_directory",
            note,
        ),
    )


def parent_owners(kind: str) -> Command:
    return Command(
        f"{kind}-parent-owners",
        (),
        f"{OPTIONS} {kind}NameOrID [...]",
        f"Show owners above the mount point that the {kind}'s ID maps cannot express",
        1,
        UNLIMITED,
        (JSON,),
        f"examine:{kind}_parent_owners",
        "JSON: one document per argument, one per line.",
    )


def names_command(verb: str, summary: str, details: str) -> Command:
    return Command(
        f"{verb}-names",
        (f"{verb}names",),
        f"{OPTIONS} {ANY_NAME}",
        summary,
        1,
        UNLIMITED,
        (NEW_NAMES, JSON),
        f"names:{verb}_names",
        f"{details} Prints nothing; with --json the resulting list, `null` when empty. "
        "Arguments after the first are not used.",
    )
