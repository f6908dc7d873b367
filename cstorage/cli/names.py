"""Names and metadata of items."""

from __future__ import annotations

from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.quoting import by_key, well_formed
from cstorage.errors import NotAnID, UnknownItemError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cstorage.cli.invocation import Invocation


def get_names(inv: Invocation) -> int:
    """``get-names``: of what has the ID that the argument leads to, as for its siblings."""
    found = list(inv.store.names(inv.store.lookup(inv.arg(0))))
    if inv.json:
        inv.out.json(found)
    else:
        for name in found:
            inv.out.line(name)
    return OK


def add_names(inv: Invocation) -> int:
    """``add-names``."""
    return _change(inv, inv.store.add_names)


def remove_names(inv: Invocation) -> int:
    """``remove-names``."""
    return _change(inv, inv.store.remove_names)


def set_names(inv: Invocation) -> int:
    """``set-names``."""
    return _change(inv, inv.store.set_names)


def _change(inv: Invocation, change: Callable[[str, Sequence[str]], Sequence[str]]) -> int:
    """Translate the first argument to an ID, then change the names of what has that ID."""
    item_id = inv.store.lookup(inv.arg(0))
    result = change(item_id, [well_formed(name) for name in inv.many("name")])
    if inv.json:
        inv.out.json(list(result) or None)
    return OK


def metadata(inv: Invocation) -> int:
    """``metadata``: unknown items print like empty ones and fail the command."""
    found: dict[str, str] = {}
    status = OK
    for arg in inv.args:
        try:
            found[arg] = inv.store.metadata(arg).removesuffix("\n")
        except UnknownItemError:
            status = FAILED
    if inv.json:
        inv.out.json(by_key(found))
        return status
    for arg in inv.args:
        text = found.get(arg, "")
        inv.out.line(text if inv.flag("quiet") else f"{arg}: {text}")
    return status


def set_metadata(inv: Invocation) -> int:
    """``set-metadata``: refused without a text, but an empty file clears."""
    if not inv.text("metadata") and not inv.text("metadata_file"):
        inv.out.error("no new metadata provided")
        return FAILED
    text = metadata_text(inv)
    try:
        inv.store.set_metadata(inv.arg(0), text)
    except NotAnID:
        inv.out.error(str(NotAnID()))
        return FAILED
    return OK


def metadata_text(inv: Invocation) -> str:
    """The metadata that the flags give: the file's content as it is, else the text."""
    path = inv.text("metadata_file")
    if not path:
        return well_formed(inv.text("metadata"))
    from cstorage.cli.streams import read_all

    return well_formed(read_all(path).decode("utf-8", "surrogateescape"))
