"""Who uses layers of a view right now: overlay mounts whose lower directories are ours.

That is all that can be known. Containers of other tools that are not mounted leave no trace in an
additional store, and mounts of other machines or hidden namespaces are not seen.
"""

from __future__ import annotations

import os
import re

from journal.plain import NamedTuple


class Consumer(NamedTuple):
    """A mount that rests on our layers: where it is, and which layers, uppermost first."""

    mount_point: str
    layers: tuple[str, ...]


def _unescaped(text: str) -> str:
    raw = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), os.fsencode(text))
    return os.fsdecode(raw)


def _tables() -> set[str]:
    """The mount tables of all processes that may be looked at, each once."""
    tables: dict[str, str] = {}
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in tables:
                with open(f"/proc/{pid}/mountinfo", errors="surrogateescape") as file:
                    tables[namespace] = file.read()
        except OSError:
            continue
    return set(tables.values())


def consumers(home: str) -> list[Consumer]:
    """Overlay mounts that rest on layers of the overlay home ``home``, sorted by mount point.

    Our own mounts are among them: they are no different.
    """
    found: dict[str, Consumer] = {}
    home = os.path.realpath(home)
    for table in _tables():
        for line in table.splitlines():
            before, _, after = line.partition(" - ")
            fields, rest = before.split(" "), after.split(" ")
            if rest[0] not in {"overlay", "fuse.fuse-overlayfs"} or len(rest) < 3:
                continue
            layers = _layers(_unescaped(rest[2]), home)
            if layers:
                point = _unescaped(fields[4])
                found[point] = Consumer(point, layers)
    return [found[point] for point in sorted(found)]


def _layers(options: str, home: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for text in options.split(","):
        key, _, value = text.partition("=")
        if not key.startswith("lowerdir"):
            continue
        for path in value.split(":"):
            real = os.path.realpath(path) if path.startswith("/") else ""
            if real.startswith(f"{home}/"):
                first, *others = real[len(home) + 1 :].split("/")
                # A short name that leads nowhere any more still tells that somebody is there.
                found[others[-1] if first == "l" and others else first] = None
    return tuple(found)
