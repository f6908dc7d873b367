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
``P`` parent ID (length-prefixed)                        group by ID: children
``T`` layer ID (length-prefixed)                         group by ID: images on a layer
``K`` layer ID (length-prefixed)                         group by ID: its container
``U`` image ID (length-prefixed)                         group by ID: its containers
``D`` c/u/t, digest, NUL                                 group by age: layers
``E`` digest, NUL                                        group by age: images
``R`` content key (64 hex)                               int: references to it, or
                                                         [int, UID that brought it]
``W`` kind letter, ID                                    int: UID that created it, if not 0
``X`` layer ID                                           int: images that need it
``Y`` layer ID                                           int: containers that need it
``!`` kind letter, ID (length-prefixed), who pinned it   ``Pin``
``#`` counter name                                       int, or several
``@`` fact name                                          str
====  =================================================  =======================

A group is an entry of its own and, with two or more members, one entry for each of them behind the
group's key: the member's ID, or 8 bytes of its sequence (``groups``).
"""

from __future__ import annotations

from cstorage.model import Kind

RECORD = {Kind.LAYER: b"L", Kind.IMAGE: b"I", Kind.CONTAINER: b"C"}
_LETTER = {Kind.LAYER: b"l", Kind.IMAGE: b"i", Kind.CONTAINER: b"c"}


def text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _prefixed(value: str) -> bytes:
    raw = text(value)
    return len(raw).to_bytes(2, "big") + raw


def record(kind: Kind, id_: str) -> bytes:
    return RECORD[kind] + text(id_)


def name(kind: Kind, value: str) -> bytes:
    return b"N" + _LETTER[kind] + text(value)


def order(kind: Kind, volatile: bool, sequence: int) -> bytes:
    return b"O" + _LETTER[kind] + (b"1" if volatile else b"0") + sequence.to_bytes(8, "big")


def order_prefix(kind: Kind) -> bytes:
    return b"O" + _LETTER[kind]


def children(parent: str) -> bytes:
    return b"P" + _prefixed(parent)


def images_of_layer(layer: str) -> bytes:
    return b"T" + _prefixed(layer)


def containers_of_layer(layer: str) -> bytes:
    return b"K" + _prefixed(layer)


def containers_of_image(image: str) -> bytes:
    return b"U" + _prefixed(image)


def layers_with_digest(which: str, digest: str) -> bytes:
    """``which``: c compressed, u uncompressed, t table of contents."""
    return b"D" + which.encode() + digest.encode() + b"\0"


def images_with_digest(digest: str) -> bytes:
    return b"E" + digest.encode() + b"\0"


def owner(kind: Kind, id_: str) -> bytes:
    return b"W" + _LETTER[kind] + text(id_)


def content(key: str) -> bytes:
    return b"R" + key.encode()


def uses(which: bytes, layer: str) -> bytes:
    """``which``: X by images, Y by containers."""
    return which + text(layer)


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
