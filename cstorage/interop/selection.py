"""Which items a view for other tools shows, and why it leaves others out. Pure.

One record that a tool cannot digest makes whole listings of podman fail (drivers-and-formats §2.2),
so a view shows only what every tool accepts:

* layers: all in the own-root form; without those of containers and the volatile ones in the
  additional form, because they change;
* images: ID of 64 hex digits, a manifest and a config among the data, and a chain of layers that
  is complete and has digests and sizes;
* containers: only in the own-root form, with their layer present.
"""

from __future__ import annotations

import re
from enum import StrEnum

from cstorage.interop.filenames import big_data_file
from cstorage.model import Container, Image, Kind, Layer
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cstorage.state import State

LAYERS = "layers"
VOLATILE_LAYERS = "volatile-layers"
IMAGES = "images"
CONTAINERS = "containers"
VOLATILE_CONTAINERS = "volatile-containers"

GROUP = {
    LAYERS: LAYERS,
    VOLATILE_LAYERS: LAYERS,
    IMAGES: IMAGES,
    CONTAINERS: CONTAINERS,
    VOLATILE_CONTAINERS: CONTAINERS,
}
"""The metadata folder (and its lock) that each file of records belongs to, in locking order."""

FOLDER = {Kind.LAYER: LAYERS, Kind.IMAGE: IMAGES, Kind.CONTAINER: CONTAINERS}

_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


class Form(StrEnum):
    """What a view is for: others only read it, or one other tool takes the root over."""

    ADDITIONAL = "additional"
    OWN_ROOT = "own-root"


FILES = {
    Form.ADDITIONAL: (LAYERS, IMAGES),
    Form.OWN_ROOT: (LAYERS, VOLATILE_LAYERS, IMAGES, CONTAINERS, VOLATILE_CONTAINERS),
}


class Verdict(NamedTuple):
    """The file an item is shown in, "" for none, and why not ("" where nobody needs to know)."""

    file: str
    why: str = ""


def is_digest(text: str) -> bool:
    """Whether it is ``algorithm:hex`` of a known algorithm and exactly its length."""
    return _DIGEST.fullmatch(text) is not None


def is_component(text: str) -> bool:
    """Whether an ID is one harmless path component, as every tool uses it."""
    return _COMPONENT.fullmatch(text) is not None


def layer(state: State, item: Layer, form: Form) -> Verdict:
    if not is_component(item.id):
        return Verdict("", "its ID cannot be a file name for every tool")
    if form is Form.OWN_ROOT:
        return Verdict(VOLATILE_LAYERS if item.volatile else LAYERS)
    if item.volatile or state.container_of_layer(item.id) is not None:
        return Verdict("")
    return Verdict(LAYERS)


def image(state: State, item: Image, form: Form, sound: dict[str, str] | None = None) -> Verdict:
    """``sound`` remembers verdicts on layer chains between calls on the same state."""
    why = _image_fault(state, item, form, {} if sound is None else sound)
    return Verdict("" if why else IMAGES, why)


def _image_fault(state: State, item: Image, form: Form, sound: dict[str, str]) -> str:
    if not _IMAGE_ID.fullmatch(item.id):
        return "its ID is not 64 hex digits"
    if item.digest and not is_digest(item.digest):
        return "its digest is malformed"
    names = {data.name for data in item.big_data}
    if "manifest" not in names:
        return "it has no manifest"
    if not any(is_digest(name) for name in names):
        return "it has no config"
    for data in item.big_data:
        if not big_data_file(data.name):
            return f"its data item {data.name!r} cannot be kept in a file"
        if data.name.startswith("manifest") and not is_digest(data.digest):
            return f"the digest of its data item {data.name!r} is malformed"
    for top in (item.top_layer, *item.mapped_top_layers):
        fault = _chain_fault(state, top, form, sound) if top else ""
        if fault:
            return fault
    return ""


def _chain_fault(state: State, top: str, form: Form, sound: dict[str, str]) -> str:
    seen: list[str] = []
    id_ = top
    fault = ""
    while id_ and not fault:
        if id_ in sound:
            fault = sound[id_]
            break
        found = state.layer(id_)
        if found is None:
            fault = f"layer {id_} is missing"
        elif not layer(state, found, form).file:
            fault = f"layer {id_} is not shown"
        elif not (is_digest(found.diff.uncompressed_digest) and found.diff.uncompressed_size >= 0):
            fault = f"layer {id_} has no digest"
        seen.append(id_)
        id_ = found.parent if found is not None else ""
        if len(seen) > _DEPTH_MAX:
            fault = f"the chain of layer {top} does not end"
    for passed in seen:
        sound[passed] = fault
    return fault


_DEPTH_MAX = 10_000


def container(state: State, item: Container, form: Form) -> Verdict:
    if form is not Form.OWN_ROOT:
        return Verdict("")
    if not is_component(item.id):
        return Verdict("", "its ID cannot be a file name for every tool")
    found = state.layer(item.layer)
    if found is None:
        return Verdict("", f"its layer {item.layer} is missing")
    if item.image and state.image(item.image) is None:
        return Verdict("", f"its image {item.image} is missing")
    return Verdict(VOLATILE_CONTAINERS if item.volatile else CONTAINERS)
