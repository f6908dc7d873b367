"""Finding items: IDs, names, prefixes, digests, relations; the errors of not finding them.

Error texts: images say ``locating image with ID "x": image not known``, layers and containers are
bare (semantics §5).
"""

from __future__ import annotations

from cstorage.errors import ContainerUnknown, ImageUnknown, LayerUnknown
from cstorage.model import Container, Image, Kind, Layer
from cstorage.state import State


def go_quote(text: str) -> str:
    """``text`` in double quotes as the original prints it inside messages."""
    out = ['"']
    short = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    short |= {"\v": "\\v", '"': '\\"', "\\": "\\\\"}
    for char in text:
        if char in short:
            out.append(short[char])
        elif char.isprintable():
            out.append(char)
        elif ord(char) < 0x80 or 0xDC80 <= ord(char) <= 0xDCFF:
            out.append(f"\\x{ord(char) & 0xFF:02x}")
        elif ord(char) < 0x10000:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(f"\\U{ord(char):08x}")
    return "".join(out) + '"'


def find_layer(state: State, key: str) -> Layer | None:
    id_ = state.resolve(Kind.LAYER, key)
    return None if id_ is None else state.layer(id_)


def find_image(state: State, key: str) -> Image | None:
    id_ = state.resolve(Kind.IMAGE, key)
    return None if id_ is None else state.image(id_)


def find_container(state: State, key: str) -> Container | None:
    id_ = state.resolve(Kind.CONTAINER, key)
    return None if id_ is None else state.container(id_)


def layer(state: State, key: str) -> Layer:
    """The layer that ``key`` stands for. Raises ``LayerUnknown``."""
    found = find_layer(state, key)
    if found is None:
        raise LayerUnknown
    return found


def image(state: State, key: str) -> Image:
    """The image that ``key`` stands for. Raises ``ImageUnknown`` naming it."""
    found = find_image(state, key)
    if found is None:
        raise ImageUnknown(f"locating image with ID {go_quote(key)}")
    return found


def container(state: State, key: str) -> Container:
    """The container that ``key`` stands for. Raises ``ContainerUnknown``."""
    found = find_container(state, key)
    if found is None:
        raise ContainerUnknown
    return found


GENERIC_ORDER = (Kind.LAYER, Kind.IMAGE, Kind.CONTAINER)
"""Order in which lookups that work on any kind search (semantics §4.2)."""


def any_item(state: State, key: str) -> tuple[Kind, str] | None:
    """Kind and ID of the first kind that knows ``key``."""
    for kind in GENERIC_ORDER:
        id_ = state.resolve(kind, key)
        if id_ is not None:
            return kind, id_
    return None
