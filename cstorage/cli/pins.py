"""pin, unpin, pins: what must not be deleted, because somebody elsewhere uses it."""

from __future__ import annotations

from cstorage.cli.invocation import OK
from cstorage.cli.listing import json_list
from cstorage.cli.quoting import json_string, timestamp
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cstorage.cli.invocation import Invocation
    from cstorage.cli.quoting import Json
    from cstorage.model import Pin


def pin(inv: Invocation) -> int:
    """``pin``: all arguments, or none of them."""
    return _show(inv, inv.store.pin(*inv.args, by=inv.text("by")))


def unpin(inv: Invocation) -> int:
    """``unpin``: shows what was taken back."""
    return _show(inv, inv.store.unpin(*inv.args, by=inv.text("by"), everybody=inv.flag("all")))


def pins(inv: Invocation) -> int:
    """``pins``: one line each."""
    return _show(inv, inv.store.pins(inv.arg(0)))


def _show(inv: Invocation, found: Iterable[Pin]) -> int:
    if inv.json:
        json_list(inv.out, map(_document, found), empty="[]")
    else:
        for one in found:
            why = f": {_plain(one.why)}" if one.why else ""
            inv.out.line(
                f"{one.kind.name.lower()} {one.id} pinned by {one.by} "
                f"since {timestamp(one.since_ns)}{why}"
            )
    return OK


def _document(one: Pin) -> dict[str, Json]:
    return {
        "kind": one.kind.name.lower(),
        "id": one.id,
        "by": one.by,
        "since": timestamp(one.since_ns),
        "reason": one.why,
    }


def _plain(text: str) -> str:
    """``text`` as it is, or quoted when it would break the line."""
    return text if text.isprintable() else json_string(text)
