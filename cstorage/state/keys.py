"""Keys of the state table: one flat, ordered key space for records and their indexes.

Every fact of the state is one entry ``key → value`` (docs/state.md), so a snapshot is a sorted
table of them and everything else (opening, lookups, prefix scans) follows from that.

First byte → entry:

====  =================================================  =======================
byte  rest of the key                                    value
====  =================================================  =======================
``L`` layer ID                                           ``Layer``
``I`` image ID                                           ``Image``
``C`` container ID                                       ``Container``
``N`` kind letter, name                                  ID of the holder
``O`` kind letter, 0/1 volatile, sequence (8, BE)        ID: listing order
``P`` parent ID (length-prefixed), child ID              "" : children
``T`` layer ID (length-prefixed), image ID               "" : images on a layer
``K`` layer ID (length-prefixed), container ID           "" : container of a layer
``U`` image ID (length-prefixed), container ID           "" : containers of an image
``D`` c/u/t, digest, NUL, sequence (8, BE)               layer ID: by digest
``E`` digest, NUL, sequence (8, BE)                      image ID: by digest
``R`` content key (64 hex)                               int: references to it
``X`` layer ID                                           int: images that need it
``Y`` layer ID                                           int: containers that need it
``!`` kind letter, ID (length-prefixed), who pinned it   ``Pin``
``#`` counter name                                       int
``@`` fact name                                          str
====  =================================================  =======================
"""

from __future__ import annotations

from cstorage.model import Kind

RECORD = {Kind.LAYER: b"L", Kind.IMAGE: b"I", Kind.CONTAINER: b"C"}
_LETTER = {Kind.LAYER: b"l", Kind.IMAGE: b"i", Kind.CONTAINER: b"c"}


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _prefixed(value: str) -> bytes:
    raw = _text(value)
    return len(raw).to_bytes(2, "big") + raw


def record(kind: Kind, id_: str) -> bytes:
    return RECORD[kind] + _text(id_)


def name(kind: Kind, value: str) -> bytes:
    return b"N" + _LETTER[kind] + _text(value)


def order(kind: Kind, volatile: bool, sequence: int) -> bytes:
    return b"O" + _LETTER[kind] + (b"1" if volatile else b"0") + sequence.to_bytes(8, "big")


def order_prefix(kind: Kind) -> bytes:
    return b"O" + _LETTER[kind]


def child_prefix(parent: str) -> bytes:
    return b"P" + _prefixed(parent)


def image_of_layer_prefix(layer: str) -> bytes:
    return b"T" + _prefixed(layer)


def container_of_layer_prefix(layer: str) -> bytes:
    return b"K" + _prefixed(layer)


def container_of_image_prefix(image: str) -> bytes:
    return b"U" + _prefixed(image)


def under(prefix: bytes, id_: str) -> bytes:
    return prefix + _text(id_)


def layer_digest_prefix(which: str, digest: str) -> bytes:
    """``which``: c compressed, u uncompressed, t table of contents."""
    return b"D" + which.encode() + digest.encode() + b"\0"


def image_digest_prefix(digest: str) -> bytes:
    return b"E" + digest.encode() + b"\0"


def sequenced(prefix: bytes, sequence: int) -> bytes:
    return prefix + sequence.to_bytes(8, "big")


def content(key: str) -> bytes:
    return b"R" + key.encode()


def uses(which: bytes, layer: str) -> bytes:
    """``which``: X by images, Y by containers."""
    return which + _text(layer)


PINS = b"!"


def pin_prefix(kind: Kind, id_: str) -> bytes:
    return PINS + _LETTER[kind] + _prefixed(id_)


def counter(what: str) -> bytes:
    return b"#" + what.encode()


def fact(what: str) -> bytes:
    return b"@" + what.encode()


def after(prefix: bytes) -> bytes:
    """The smallest key above every key with ``prefix``, empty if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b""


def text_after(key: bytes, prefix: bytes) -> str:
    """The text part of ``key`` behind ``prefix``."""
    return key[len(prefix) :].decode("utf-8", "surrogateescape")
