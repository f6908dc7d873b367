"""Stored form of the state's values, as a snapshot holds them: deterministic CBOR arrays.

The first byte of the key says which type a value has (``keys``). Decoding is lazy: a value is
decoded when it is first asked for. Equal values have equal bytes, which the state digest needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from cstorage.model import Container, Image, Kind, Layer, Pin, stored
from journal.codec import quick_cbor
from journal.plain import Any

_cbor = quick_cbor()

REDUCER_VERSION = 6
"""Raised whenever the same events give other entries, and for entries that older versions would not
heed; snapshots of other versions are not trusted."""


def encode(value: Any) -> bytes:
    """Bytes of one value."""
    match value:
        case Layer():
            raw: Any = [
                value.id,
                list(value.names),
                value.parent,
                value.metadata,
                value.mount_label,
                value.created_ns,
                stored.pack_diff(value.diff),
                stored.pack_flags(value.flags),
                stored.pack_maps(value.maps),
                stored.pack_items(value.big_data),
                value.writable,
                value.volatile,
                value.sequence,
            ]
        case Image():
            raw = [
                value.id,
                value.digest,
                list(value.names),
                list(value.names_history),
                value.top_layer,
                list(value.mapped_top_layers),
                value.metadata,
                stored.pack_items(value.big_data),
                value.created_ns,
                stored.pack_flags(value.flags),
                value.sequence,
                value.store,
            ]
        case Container():
            raw = [
                value.id,
                list(value.names),
                value.image,
                value.layer,
                value.metadata,
                stored.pack_items(value.big_data),
                value.created_ns,
                stored.pack_maps(value.maps),
                stored.pack_flags(value.flags),
                value.volatile,
                value.sequence,
                value.run_mark,
            ]
        case Pin():
            raw = [value.kind.value, value.id, value.by, value.why, value.since_ns]
        case _:
            raw = value
    encoded: bytes = _cbor.dumps(raw, canonical=True)
    return encoded


def _layer(r: Sequence[Any]) -> Layer:
    return Layer(
        r[0],
        tuple(r[1]),
        r[2],
        r[3],
        r[4],
        r[5],
        stored.unpack_diff(r[6]),
        stored.unpack_flags(r[7]),
        stored.unpack_maps(r[8]),
        stored.unpack_items(r[9]),
        r[10],
        r[11],
        r[12],
    )


def _image(r: Sequence[Any]) -> Image:
    return Image(
        r[0],
        r[1],
        tuple(r[2]),
        tuple(r[3]),
        r[4],
        tuple(r[5]),
        r[6],
        stored.unpack_items(r[7]),
        r[8],
        stored.unpack_flags(r[9]),
        r[10],
        False,
        r[11],
    )


def _container(r: Sequence[Any]) -> Container:
    return Container(
        r[0],
        tuple(r[1]),
        r[2],
        r[3],
        r[4],
        stored.unpack_items(r[5]),
        r[6],
        stored.unpack_maps(r[7]),
        stored.unpack_flags(r[8]),
        r[9],
        r[10],
        r[11],
    )


def _pin(r: Sequence[Any]) -> Pin:
    return Pin(Kind(r[0]), r[1], r[2], r[3], r[4])


_DECODE = {ord("L"): _layer, ord("I"): _image, ord("C"): _container, ord("!"): _pin}


def decode(key: bytes, raw: bytes) -> Any:
    """The value behind ``key``, from its bytes."""
    value = _cbor.loads(raw)
    make = _DECODE.get(key[0])
    return make(value) if make else value
