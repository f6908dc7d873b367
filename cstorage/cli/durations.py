"""Go's notation of durations: ``24h``, ``1h30m``, ``1.5s``, ``0``. Pure."""

from __future__ import annotations

import re

from cstorage.cli.quoting import go_quote
from cstorage.errors import StorageError

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)", re.ASCII)


class DurationRefused(StorageError):
    """A text that is no duration."""


def parse_ns(text: str) -> int:
    """Nanoseconds of the duration ``text``. Raises ``DurationRefused`` in Go's words."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total = at = 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None:
            raise DurationRefused(f"time: invalid duration {go_quote(text)}")
        number, unit = part.groups()
        if not unit:
            raise DurationRefused(f"time: missing unit in duration {go_quote(text)}")
        if unit not in _UNITS_NS:
            raise DurationRefused(
                f"time: unknown unit {go_quote(unit)} in duration {go_quote(text)}"
            )
        whole, _, fraction = number.partition(".")
        total += int(whole or 0) * _UNITS_NS[unit]
        if fraction:
            total += int(fraction) * _UNITS_NS[unit] // 10 ** len(fraction)
        at = part.end()
    if not rest or total >= 1 << 63:
        raise DurationRefused(f"time: invalid duration {go_quote(text)}")
    return sign * total
