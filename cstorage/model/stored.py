"""Stored form of the value types, shared by events and by the state's tables: CBOR primitives.

Flags travel as JSON text with sorted keys. Their values are whatever the caller's JSON holds, and
JSON text keeps floats and nesting out of the deterministic CBOR (journal format page). Fields are
only ever appended; a reader fills missing trailing ones from the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cstorage.errors import StorageError
from cstorage.model import (
    BigDataItem,
    Compression,
    DiffSummary,
    Digest,
    IDMap,
    IDMapEntry,
    IDMaps,
)
from journal.plain import Any

SCHEMA = 1
"""Schema number of the transactions that this version writes."""


def pack_flags(flags: Mapping[str, Any]) -> str:
    """Flags as JSON text, "" when there are none."""
    if not flags:
        return ""
    import json

    return json.dumps(flags, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def unpack_flags(text: str) -> Mapping[str, Any]:
    if not text:
        return {}
    import json

    flags = json.loads(text)
    if not isinstance(flags, dict):
        raise StorageError(f"flags are not an object: {text!r}")
    return flags


def pack_maps(maps: IDMaps) -> list[Any]:
    return [[list(e) for e in maps.uids], [list(e) for e in maps.gids]] if maps else []


def _map(raw: Sequence[Sequence[int]]) -> IDMap:
    return tuple(IDMapEntry(*entry) for entry in raw)


_NO_MAPS = IDMaps()


def unpack_maps(raw: Sequence[Any]) -> IDMaps:
    return IDMaps(_map(raw[0]), _map(raw[1])) if raw else _NO_MAPS


def pack_items(items: Sequence[BigDataItem]) -> list[Any]:
    return [list(item) for item in items]


def unpack_item(raw: Sequence[Any]) -> BigDataItem:
    return BigDataItem(str(raw[0]), int(raw[1]), Digest(raw[2]), str(raw[3]))


def unpack_items(raw: Sequence[Any]) -> tuple[BigDataItem, ...]:
    return tuple(unpack_item(item) for item in raw)


_NO_DIFF = DiffSummary()
_COMPRESSIONS = {int(value): value for value in Compression}


def pack_diff(diff: DiffSummary) -> list[Any]:
    if diff == _NO_DIFF:
        return []
    return [
        diff.compressed_digest,
        diff.compressed_size,
        diff.uncompressed_digest,
        diff.uncompressed_size,
        diff.toc_digest,
        int(diff.compression),
        list(diff.uids),
        list(diff.gids),
        diff.recipe,
        diff.manifest,
        diff.entries,
        diff.content_size,
        diff.disk_size,
        diff.recipe_size,
        diff.manifest_size,
    ]


def unpack_diff(raw: Sequence[Any]) -> DiffSummary:
    if not raw:
        return _NO_DIFF
    fields = [*raw[:15], *_NO_DIFF[len(raw) :]]
    fields[5] = _COMPRESSIONS.get(fields[5]) or Compression(fields[5])
    fields[6] = tuple(fields[6])
    fields[7] = tuple(fields[7])
    return DiffSummary._make(fields)
