"""Layers, images and containers as records of containers/storage's JSON files. Pure.

Keys, their order and which of them are left out when empty: drivers-and-formats §1.6, §1.7. A file
holds one array; we put every record on a line of its own, which every reader accepts, so that a
record can be found and replaced without parsing the others. Raw line feeds occur nowhere else,
because JSON strings escape them.

Fields of a record that this version does not know are kept in the item's flags under ``EXTRA`` and
come back out as fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from time import gmtime

from cstorage.interop.filenames import big_data_file
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cstorage.model import BigDataItem, Container, IDMap, Image, Layer

EXTRA = "containers-storage.unknown-fields"
"""Key in an item's flags under which adopted records keep fields that nobody here knows."""

EMPTY = b"[]"
_HTML = (
    ("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"),
    ("\u2028", "\\u2028"), ("\u2029", "\\u2029"),
)  # fmt: skip


def encode(value: Any) -> bytes:
    """``value`` as compact JSON with the original's escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char, escape in _HTML:
        if char in text:
            # These characters occur in strings only, so replacing them everywhere is enough.
            text = text.replace(char, escape)
    return text.encode("utf-8", "replace")


def timestamp(time_ns: int) -> str:
    """RFC 3339 in UTC, fraction without trailing zeros; 0 is the original's unset time."""
    if time_ns == 0:
        return "0001-01-01T00:00:00Z"
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    at = gmtime(seconds)
    text = f"{at[0]:04d}-{at[1]:02d}-{at[2]:02d}T{at[3]:02d}:{at[4]:02d}:{at[5]:02d}"
    return text + (f".{fraction:09d}".rstrip("0") if fraction else "") + "Z"


def storable(items: Iterable[BigDataItem]) -> list[BigDataItem]:
    """The items that the original can keep in files, each file once."""
    found: dict[str, BigDataItem] = {}
    for item in items:
        name = big_data_file(item.name)
        if name:
            found.setdefault(name, item)
    return list(found.values())


def layer_record(layer: Layer) -> bytes:
    """One record of ``layers.json``."""
    diff = layer.diff
    record: dict[str, Any] = {"id": layer.id}
    _add(
        record,
        ("names", layer.names),
        ("parent", layer.parent),
        ("metadata", layer.metadata),
        ("mountlabel", layer.mount_label),
    )
    record["created"] = timestamp(layer.created_ns)
    _add(
        record,
        ("compressed-diff-digest", diff.compressed_digest),
        ("compressed-size", diff.compressed_size),
        ("diff-digest", diff.uncompressed_digest),
        ("toc-digest", diff.toc_digest),
        ("diff-size", diff.uncompressed_size),
        ("compression", int(diff.compression)),
        ("uidset", diff.uids),
        ("gidset", diff.gids),
    )
    _add_flags(record, layer.flags)
    _add(
        record,
        ("uidmap", _map(layer.maps.uids)),
        ("gidmap", _map(layer.maps.gids)),
        ("big-data-names", [item.name for item in storable(layer.big_data)]),
    )
    return encode(_with_extra(record, layer.flags))


def image_record(image: Image) -> bytes:
    """One record of ``images.json``."""
    record: dict[str, Any] = {"id": image.id}
    _add(
        record,
        ("digest", image.digest),
        ("names", image.names),
        ("names-history", image.names_history),
        ("layer", image.top_layer),
        ("mapped-layers", image.mapped_top_layers),
        ("metadata", image.metadata),
    )
    _add_big_data(record, image.big_data)
    record["created"] = timestamp(image.created_ns)
    _add_flags(record, image.flags)
    return encode(_with_extra(record, image.flags))


def container_record(container: Container) -> bytes:
    """One record of ``containers.json``."""
    record: dict[str, Any] = {"id": container.id}
    _add(record, ("names", container.names))
    record["image"] = container.image
    record["layer"] = container.layer
    _add(record, ("metadata", container.metadata))
    _add_big_data(record, container.big_data)
    record["created"] = timestamp(container.created_ns)
    _add(
        record,
        ("uidmap", _map(container.maps.uids)),
        ("gidmap", _map(container.maps.gids)),
    )
    _add_flags(record, container.flags)
    return encode(_with_extra(record, container.flags))


def _add(record: dict[str, Any], *fields: tuple[str, Any]) -> None:
    for key, value in fields:
        if value:
            record[key] = value


def _map(entries: IDMap) -> list[dict[str, int]]:
    return [entry._asdict() for entry in entries]


def _add_big_data(record: dict[str, Any], items: Iterable[BigDataItem]) -> None:
    found = storable(items)
    by_name = sorted(found, key=lambda item: item.name.encode("utf-8", "surrogateescape"))
    _add(
        record,
        ("big-data-names", [item.name for item in found]),
        ("big-data-sizes", {item.name: item.size for item in by_name}),
        ("big-data-digests", {item.name: item.digest for item in by_name}),
    )


def _add_flags(record: dict[str, Any], flags: Mapping[str, Any]) -> None:
    _add(record, ("flags", {key: flags[key] for key in sorted(flags) if key != EXTRA}))


def _with_extra(record: dict[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    extra = flags.get(EXTRA)
    if isinstance(extra, Mapping):
        for key in sorted(extra):
            record.setdefault(key, extra[key])
    return record


# -- files of records ----------------------------------------------------------------------------


def key_of(id_: str) -> bytes:
    """How the line of the record ``id_`` begins, the line feed included."""
    return b'\n{"id":' + encode(id_) + b","


def joined(records: Iterable[bytes]) -> bytes:
    """The file with these records in this order."""
    body = b",".join([b"\n" + record for record in records])
    return b"[" + body + b"\n]" if body else EMPTY


def find(data: bytes, id_: str) -> tuple[int, int]:
    """Where the record ``id_`` is in a file: from its line feed to its end; (-1, -1) if nowhere."""
    start = data.find(key_of(id_))
    if start < 0:
        return -1, -1
    end = data.find(b"\n", start + 1)
    return start, end - 1 if data[end - 1 : end] == b"," else end


def spliced(data: bytes, changes: Mapping[str, bytes], added: Iterable[bytes]) -> list[memoryview]:
    """The file ``data`` with the records of ``changes`` replaced (b"" = removed) and more appended.

    ``data`` has the form that ``joined`` gives it. Returned in pieces that share its memory.
    Raises ``KeyError`` for a change of a record that is not there.
    """
    edits: list[tuple[int, int, bytes]] = []
    for id_, record in changes.items():
        start, end = find(data, id_)
        if start < 0:
            raise KeyError(id_)
        edits.append((start, end, record))
    edits.sort()
    view = memoryview(data)
    last = len(data) - 2 if data != EMPTY else 1
    pieces: list[memoryview] = []
    cursor = 1
    for start, end, record in edits:
        if start > cursor:
            pieces.append(view[cursor : start - 1])
        if record:
            pieces.append(memoryview(b"\n" + record))
        cursor = end + 1
    if cursor < last:
        pieces.append(view[cursor:last])
    pieces += [memoryview(b"\n" + record) for record in added]
    if not pieces:
        return [memoryview(EMPTY)]
    out = [memoryview(b"[")]
    for index, piece in enumerate(pieces):
        if index:
            out.append(memoryview(b","))
        out.append(piece)
    out.append(memoryview(b"\n]"))
    return out


def holders(data: bytes, name: str) -> list[str]:
    """IDs of the records of a file whose line contains ``name`` as a string."""
    found = []
    needle = encode(name)
    at = data.find(needle)
    while at >= 0:
        start = data.rfind(b"\n", 0, at)
        end = data.find(b"\n", at)
        try:
            found.append(str(json.loads(data[start:end].rstrip(b",\n"))["id"]))
        except (ValueError, KeyError, TypeError):
            pass
        at = data.find(needle, end)
    return found
