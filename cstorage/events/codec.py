"""Stored form of events and of the value types in them: arrays of CBOR primitives.

Rules:

* Numbers of ``NUMBERS`` are never reassigned. An unknown number is an error that names it: a store
  written by a newer version must not be read as if the event had not happened.
* Decoding a malformed event raises ``EventError`` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cstorage import events as ev
from cstorage.errors import StorageError
from cstorage.model import BigDataItem, DiffSummary, Kind
from cstorage.model.stored import (
    pack_diff,
    pack_flags,
    pack_items,
    pack_maps,
    unpack_diff,
    unpack_flags,
    unpack_item,
    unpack_items,
    unpack_maps,
)
from journal.plain import Any, TypeVar

NUMBERS: dict[type[Any], int] = {
    ev.StoreInitialised: 1,
    ev.LayerCreated: 10,
    ev.LayerDiffApplied: 11,
    ev.LayerDeleted: 12,
    ev.ImageCreated: 20,
    ev.ImageMappedLayerAdded: 21,
    ev.ImageMappedLayerRemoved: 22,
    ev.ImageDeleted: 23,
    ev.ImageMoved: 24,
    ev.ContainerCreated: 30,
    ev.ContainerDeleted: 31,
    ev.NamesSet: 40,
    ev.NamesAdded: 41,
    ev.NamesRemoved: 42,
    ev.MetadataSet: 43,
    ev.BigDataSet: 44,
    ev.FlagsSet: 45,
    ev.Pinned: 46,
    ev.Unpinned: 47,
}


class EventError(StorageError):
    """A journal holds something that is not an event this version knows."""


_T = TypeVar("_T")
_PACK: dict[str, Callable[[Any], Any]] = {
    "names": list,
    "names_history": list,
    "diff": pack_diff,
    "flags": pack_flags,
    "maps": pack_maps,
    "big_data": pack_items,
    "item": list,
    "kind": str,
}
_UNPACK: dict[str, Callable[[Any], Any]] = {
    "names": tuple,
    "names_history": tuple,
    "diff": unpack_diff,
    "flags": unpack_flags,
    "maps": unpack_maps,
    "big_data": unpack_items,
    "item": unpack_item,
    "kind": Kind,
}


_PLAIN: dict[str, type] = {
    "str": str, "LayerID": str, "ImageID": str, "ContainerID": str, "Digest": str,
    "int": int, "bool": bool,
}  # fmt: skip


class _Codec:
    """Array form of one event class, from its field names."""

    def __init__(self, cls: type[Any], number: int) -> None:
        self.cls = cls
        self.number = number
        self.fields: tuple[str, ...] = cls._fields
        self.defaults: list[Any] = list(cls._field_defaults.values())  # of the last fields
        self.pack = [(i, _PACK[f]) for i, f in enumerate(self.fields) if f in _PACK]
        self.unpack = [(i, _UNPACK[f]) for i, f in enumerate(self.fields) if f in _UNPACK]
        types = [str(cls.__annotations__[f]) for f in self.fields]
        types = [x.removeprefix("ForwardRef('").removesuffix("')") for x in types]
        self.plain = [(i, _PLAIN[t]) for i, t in enumerate(types) if t in _PLAIN]
        self.texts = [i for i, t in enumerate(types) if t == "tuple[str, ...]"]


_BY_CLASS = {cls: _Codec(cls, number) for cls, number in NUMBERS.items()}
_BY_NUMBER = {codec.number: codec for codec in _BY_CLASS.values()}


def check(event: ev.Event) -> None:
    """Raise ``TypeError`` for fields of plain types that hold something else.

    Callers are not all checked by a type checker, and what is in the journal is there for good.
    """
    codec = _BY_CLASS[type(event)]
    values: Sequence[Any] = event
    for i, wanted in codec.plain:
        if not isinstance(values[i], wanted) or (wanted is int and isinstance(values[i], bool)):
            raise _wrong(codec.fields[i], wanted, values[i])
    for i in codec.texts:
        for text in values[i]:
            if not isinstance(text, str):
                raise _wrong(codec.fields[i], str, text)


def _wrong(field: str, wanted: type, value: object) -> TypeError:
    return TypeError(f"{field.replace('_', ' ')}: {wanted.__name__}, not {type(value).__name__}")


def encode(event: ev.Event) -> list[Any]:
    """The array that stands for ``event`` in a transaction."""
    codec = _BY_CLASS[type(event)]
    raw: list[Any] = [codec.number, *event]
    for i, pack in codec.pack:
        raw[i + 1] = pack(raw[i + 1])
    return raw


def decode(raw: Sequence[Any]) -> ev.Event:
    """The event that ``raw`` stands for. Raises ``EventError`` if it stands for none."""
    try:
        codec = _BY_NUMBER[raw[0]]
    except (LookupError, TypeError) as error:
        what = raw[0] if isinstance(raw, list) and raw else raw
        raise EventError(
            f"event kind {what!r} is not known to this version; use the version that wrote it"
        ) from error
    size = len(codec.fields)
    fields = list(raw[1 : size + 1])
    try:
        missing = size - len(fields)
        if 0 < missing <= len(codec.defaults):
            # Written before the last fields were appended to this event.
            fields += codec.defaults[-missing:]
        elif missing > 0:
            raise EventError(f"event {codec.cls.__name__} has {len(fields)} of {size} fields")
        for i, unpack in codec.unpack:
            fields[i] = unpack(fields[i])
        event: ev.Event = codec.cls._make(fields)
    except EventError:
        raise
    except (TypeError, ValueError, LookupError) as error:
        raise EventError(f"event {codec.cls.__name__} is malformed: {error}") from error
    return event


def describe(event: ev.Event) -> str:
    """One line for people: ``layer-created 1f3a… parent=… names=…``."""
    import json

    name = "".join("-" + c.lower() if c.isupper() else c for c in type(event).__name__).lstrip("-")
    parts = [name]
    for field, value in zip(type(event)._fields, event, strict=True):
        if field in ("id", "kind"):
            parts.append(str(value) if field == "id" else Kind(str(value)).name.lower())
        elif isinstance(value, BigDataItem):
            parts.append(f"{value.name!r} {value.size} bytes {value.digest}")
        elif isinstance(value, DiffSummary):
            if value.uncompressed_digest:
                parts.append(
                    f"diff={value.uncompressed_digest} diff-size={value.uncompressed_size}"
                )
        elif isinstance(value, tuple) and value:
            listed = [v.name if isinstance(v, BigDataItem) else v for v in value]
            parts.append(f"{field.replace('_', '-')}={json.dumps(listed, ensure_ascii=False)}")
        elif field not in ("created_ns", "since_ns", "flags") and value:
            shown = (
                value if isinstance(value, bool | int) else json.dumps(value, ensure_ascii=False)
            )
            parts.append(f"{field.replace('_', '-')}={shown}")
    return " ".join(parts)


def to_json(event: ev.Event) -> dict[str, Any]:
    """The event as an object of JSON types, its kind under ``"event"``."""
    name = "".join("-" + c.lower() if c.isupper() else c for c in type(event).__name__).lstrip("-")
    out: dict[str, Any] = {"event": name}
    for field, value in zip(type(event)._fields, event, strict=True):
        out[field] = _plain(value)
    return out


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {k: _plain(v) for k, v in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
