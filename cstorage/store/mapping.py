"""Which ID maps a new layer or container gets (semantics §2.10)."""

from __future__ import annotations

from typing import NamedTuple

from cstorage.errors import InvalidMappings
from cstorage.model import IDMap, IDMapEntry, IDMaps


class MapOptions(NamedTuple):
    """What the caller asks for. A true host flag means "no mapping of that kind".

    With neither flag nor list, the parent's map is inherited. ``auto`` asks for a range of its own
    (containers only): size, 0 meaning "decide".
    """

    host_uids: bool = False
    host_gids: bool = False
    uids: IDMap = ()
    gids: IDMap = ()

    @property
    def requested(self) -> IDMaps:
        """The lists as asked for, after the host flags have cleared theirs."""
        return IDMaps(() if self.host_uids else self.uids, () if self.host_gids else self.gids)


def effective(options: MapOptions, inherited: IDMaps) -> IDMaps:
    """Maps of the new item: host flag → none, a list → that list, otherwise ``inherited``."""
    asked = options.requested
    uids = asked.uids or (() if options.host_uids else inherited.uids)
    gids = asked.gids or (() if options.host_gids else inherited.gids)
    return IDMaps(uids, gids)


def check_overlaps(maps: IDMaps) -> None:
    """Raises ``InvalidMappings`` if ranges within one list overlap on either side (§4.10)."""
    for entries in (maps.uids, maps.gids):
        bad = [entry for entry in entries if _overlaps(entry, entries)]
        if bad:
            listed = ", ".join(f"{e.container_id}:{e.host_id}:{e.size}" for e in bad)
            noun = "mapping" if len(bad) == 1 else "mappings"
            raise InvalidMappings(f"overlapping ID {noun} {listed}")


def _overlaps(entry: IDMapEntry, entries: IDMap) -> bool:
    for other in entries:
        if other is entry:
            continue
        for a, b in ((entry.container_id, other.container_id), (entry.host_id, other.host_id)):
            if a < b + other.size and b < a + entry.size:
                return True
    return False
