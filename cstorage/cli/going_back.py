"""blame, deleted, restore, undo, forget-deleted: where things come from, and taking them back."""

from __future__ import annotations

from cstorage.cli.chronicle import document, line, show
from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.listing import json_list
from cstorage.cli.quoting import json_string, timestamp
from cstorage.cli.wording import describe
from cstorage.errors import StorageError
from cstorage.model import Kind
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.cli.invocation import Invocation
    from cstorage.cli.quoting import Json
    from cstorage.model import Item
    from cstorage.store.blame import Origin
    from cstorage.store.kept import Deleted
    from cstorage.store.past import Moment


def moment(text: str) -> Moment:
    """The moment that ``--when`` names. Raises ``StorageError``."""
    if text.isascii() and text.isdigit():
        return int(text)
    from datetime import datetime

    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise StorageError(
            f"--when: {text!r} is neither a sequence number nor a time like 2026-01-31T12:00:00Z"
        ) from None


def blame(inv: Invocation) -> int:
    """``blame``: one line for each thing that the item has."""
    found = inv.store.blame(inv.arg(0))
    if inv.json:
        json_list(inv.out, (_origin(x) for x in found), empty="[]")
    else:
        for what, which, entry in found:
            inv.out.line(f"{what}{' ' + _plain(which) if which else ''}: {line(entry)}")
    return OK


def _origin(found: Origin) -> dict[str, Json]:
    return {"what": found.what, "which": found.which, "entry": document(found.entry)}


def deleted(inv: Invocation) -> int:
    """``deleted``: one line for each item."""
    found = inv.store.deleted()
    if inv.json:
        json_list(inv.out, (_deleted(x) for x in found), empty="[]")
    else:
        for one in found:
            names = "".join(f" {_plain(name)}" for name in one.item.names)
            inv.out.line(
                f"{one.sequence} {timestamp(one.time_ns)} {one.kind.name.lower()} "
                f"{_plain(one.item.id)}{names}"
            )
    return OK


def _deleted(one: Deleted) -> dict[str, Json]:
    return {
        "sequence": one.sequence,
        "time": timestamp(one.time_ns),
        "until": timestamp(one.until_ns),
        "kind": one.kind.name.lower(),
        "id": one.item.id,
        "names": list(one.item.names),
        "size": one.size,
    }


def restore(inv: Invocation) -> int:
    """``restore``: goes on after a failing argument."""
    kinds = [kind for kind in Kind if inv.flag(kind.name.lower())]
    if len(kinds) > 1:
        inv.out.error("only one of --layer, --image and --container can be given")
        return FAILED
    status = OK
    found: list[Item] = []
    for arg in inv.args:
        try:
            found += inv.store.restore(arg, kinds[0] if kinds else None)
        except (StorageError, OSError) as error:
            status = FAILED
            inv.out.error(f"{arg}: {describe(error)}")
    if inv.json:
        inv.out.json([item.id for item in found])
    else:
        for item in found:
            inv.out.line(item.id)
            for name in item.names:
                inv.out.line(f"\t{name}")
    return status


def undo(inv: Invocation) -> int:
    """``undo``: prints the events that it took."""
    text = inv.arg(0)
    if not (text.isascii() and text.isdigit()):
        inv.out.error(f"not a sequence number: {text}; history shows them in its first column")
        return FAILED
    before = inv.store.sequence
    inv.store.undo(int(text))
    return show(inv, (entry for entry in inv.store.history() if entry.sequence > before))


def forget_deleted(inv: Invocation) -> int:
    """``forget-deleted``."""
    age_s = 0.0
    if inv.text("older_than"):
        from cstorage.cli.durations import parse_ns

        age_s = parse_ns(inv.text("older_than")) / 1e9
    count = inv.store.forget_deleted(age_s)
    if inv.json:
        inv.out.json(count)
    return OK


def _plain(text: str) -> str:
    """``text`` as it is, or quoted when it would break the line or blend with it."""
    return text if text and text.isprintable() and " " not in text else json_string(text)
