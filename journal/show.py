"""Frames as text for people and as JSON for programs.

Rules of this module:

* One line per event; control frames have one line with a ``#``.
* JSON keeps everything: bytes become ``{"hex": …}``, times are nanoseconds.
* Text from the journal never reaches a terminal with control characters in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from journal import frame as fr

if TYPE_CHECKING:
    from journal.frame import Frame

Describe = Callable[[list[Any]], str]


def plain(value: Any) -> Any:
    """The value with bytes made readable for JSON."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def clean(text: str) -> str:
    """Control characters as escapes, so that a name cannot move the cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def word(value: Any) -> str:
    """A value in a line of text."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bytes):
        try:
            text = value.decode("ascii")
        except UnicodeDecodeError:
            text = "\n"
        return text if text.isprintable() else value.hex()
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(word(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + " ".join(f"{clean(k)}={word(v)}" for k, v in value.items()) + "}"
    return str(value)


def describe_plain(event: list[Any]) -> str:
    """An event whose meaning is not known: its fields."""
    return " ".join(word(field) for field in event)


def when(time_ns: int) -> str:
    """UTC, seconds and milliseconds."""
    seconds, rest = divmod(time_ns, 10**9)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{rest // 10**6:03d}Z"


def lines(frame: Frame, describe: Describe | None = None, control: bool = False) -> Iterator[str]:
    """One line per event: sequence, time, actor, reason in quotes if there is one, event."""
    if frame.kind != fr.DATA:
        if control:
            yield f"# {when(frame.time_ns)} {frame.kind_name} {word(frame.value())}"
        return
    said = frame.transaction()
    reason = f' "{clean(said.reason)}"' if said.reason else ""
    for index, event in enumerate(said.events):
        text = clean(describe(event)) if describe else describe_plain(event)
        actor = word(said.actor)
        yield f"{frame.first_sequence + index} {when(frame.time_ns)} {actor}{reason} {text}"


def records(
    frame: Frame, describe: Describe | None = None, control: bool = False
) -> Iterator[dict[str, Any]]:
    """One JSON object per event."""
    if frame.kind != fr.DATA:
        if control:
            yield {
                "kind": frame.kind_name,
                "time_ns": frame.time_ns,
                "position": frame.end.text(),
                "value": plain(frame.value()),
            }
        return
    said = frame.transaction()
    for index, event in enumerate(said.events):
        record = {
            "kind": "event",
            "sequence": frame.first_sequence + index,
            "time_ns": frame.time_ns,
            "schema": said.schema,
            "actor": plain(said.actor),
            "reason": said.reason,
            "transaction": said.txid.hex(),
            "position": frame.end.text(),
            "event": plain(event),
        }
        if describe is not None:
            record["text"] = describe(event)
        yield record
