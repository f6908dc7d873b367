"""history and watch: who changed what, when and why.

One line per event: sequence, time, who, what, why. As JSON one object per line (``watch``) or a
list (``history``), with every field of the event.
"""

from __future__ import annotations

import _thread
import sys
from contextlib import contextmanager

from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.listing import json_list
from cstorage.cli.quoting import json_string, timestamp
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cstorage.cli.invocation import Invocation
    from cstorage.cli.quoting import Json
    from cstorage.events import HistoryEntry


def history(inv: Invocation) -> int:
    """``history``: the whole store's, or one item's."""
    return show(inv, inv.store.history(inv.arg(0)))


def show(inv: Invocation, entries: Iterable[HistoryEntry]) -> int:
    """Entries of the history, a line each or one JSON list."""
    if inv.json:
        json_list(inv.out, map(document, entries), empty="[]")
    else:
        for entry in entries:
            inv.out.line(line(entry))
    return OK


def watch(inv: Invocation) -> int:
    """``watch``: runs until interrupted."""
    since = inv.text("since")
    if since and not (since.isascii() and since.isdigit()):
        inv.out.error(f"not a sequence number: {since}; history shows them in its first column")
        return FAILED
    with _insistent_interrupts():
        for entry in inv.store.watch(int(since) if since else None):
            if inv.json:
                inv.out.json(document(entry))
            else:
                inv.out.line(line(entry))
            inv.out.flush()
    return OK


@contextmanager
def _insistent_interrupts() -> Iterator[None]:
    """An interrupt that falls where nothing can be raised (a finalizer) is raised again after it.

    The interpreter would drop it, and the command would go on waiting.
    """
    before = sys.unraisablehook

    def raise_again(trouble: sys.UnraisableHookArgs) -> None:
        if issubclass(trouble.exc_type, KeyboardInterrupt):
            _thread.interrupt_main()
        else:
            before(trouble)

    sys.unraisablehook = raise_again
    try:
        yield
    finally:
        sys.unraisablehook = before


def line(entry: HistoryEntry) -> str:
    """``entry`` for people: one line whatever the texts in it contain."""
    actor = entry.actor
    who = f"uid {actor.uid}, {actor.program}[{actor.pid}]@{actor.host}"
    reason = f" ({_plain(entry.reason)})" if entry.reason else ""
    return f"{entry.sequence} {timestamp(entry.time_ns)} {who}: {_what(entry.event)}{reason}"


def document(entry: HistoryEntry) -> dict[str, Json]:
    """``entry`` with everything that the journal holds of it."""
    event = entry.event
    return {
        "sequence": entry.sequence,
        "time": timestamp(entry.time_ns),
        "actor": _plain_json(entry.actor._asdict()),
        "reason": entry.reason,
        "event": type(event).__name__,
        "data": _plain_json(event._asdict()),
    }


def _what(event: Any) -> str:
    """The event's name in words, its item and the fields that are short enough to show."""
    words = "".join(f" {char.lower()}" if char.isupper() else char for char in _kind(event))
    fields = event._asdict()
    parts = [words.strip()]
    if "id" in fields:
        kind = fields.get("kind")
        if kind is not None:
            parts.append(kind.name.lower())
        parts.append(_plain(fields["id"]))
    if fields.get("names"):
        parts.append("names " + ",".join(map(_plain, fields["names"])))
    for name in ("parent", "image", "layer", "top_layer", "driver", "by"):
        if fields.get(name):
            parts.append(f"{name.replace('_', ' ')} {_plain(fields[name])}")
    if "item" in fields:
        parts.append(f"item {_plain(fields['item'].name)} ({fields['item'].size} bytes)")
    if fields.get("diff") and fields["diff"].uncompressed_digest:
        parts.append(f"diff {fields['diff'].uncompressed_digest}")
    return " ".join(parts)


def _kind(event: Any) -> str:
    return type(event).__name__


def _plain(text: str) -> str:
    """``text`` as it is, or quoted when it would break the line or blend with it."""
    if text and text.isprintable() and " " not in text:
        return text
    return json_string(text)


def _plain_json(value: Any) -> Json:
    """Records as objects, everything else as JSON knows it."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): _plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(item) for item in value]
    if isinstance(value, str):
        return str(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value
