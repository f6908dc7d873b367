"""Layers, images and containers as JSON documents (cli.md §2.4). Pure.

Field order is the original's; a field that is empty or zero is left out, except those that the
original always writes.
"""

from __future__ import annotations

from cstorage.cli.quoting import Json, by_key, timestamp
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cstorage.model import BigDataItem, Container, IDMap, Image, Layer


def layer_document(layer: Layer) -> dict[str, Json]:
    """The Layer document."""
    diff = layer.diff
    document: dict[str, Json] = {"id": layer.id}
    _add(
        document,
        names=list(layer.names),
        parent=layer.parent,
        metadata=layer.metadata,
        mountlabel=layer.mount_label,
    )
    document["created"] = timestamp(layer.created_ns)
    _add(
        document,
        compressed_diff_digest=diff.compressed_digest,
        compressed_size=diff.compressed_size,
        diff_digest=diff.uncompressed_digest,
        toc_digest=diff.toc_digest,
        diff_size=diff.uncompressed_size,
        compression=int(diff.compression),
    )
    if diff.uids:
        document["uidset"] = list(diff.uids)
    if diff.gids:
        document["gidset"] = list(diff.gids)
    if layer.flags:
        document["flags"] = by_key(layer.flags)
    _add_maps(document, layer.maps.uids, layer.maps.gids)
    _add(document, big_data_names=[item.name for item in layer.big_data])
    return document


def image_document(image: Image) -> dict[str, Json]:
    """The Image document."""
    document: dict[str, Json] = {"id": image.id}
    _add(
        document,
        digest=image.digest,
        names=list(image.names),
        names_history=list(image.names_history),
        layer=image.top_layer,
        mapped_layers=list(image.mapped_top_layers),
        metadata=image.metadata,
    )
    _add_big_data(document, image.big_data)
    document["created"] = timestamp(image.created_ns)
    if image.flags:
        document["flags"] = by_key(image.flags)
    return document


def container_document(container: Container) -> dict[str, Json]:
    """The Container document."""
    document: dict[str, Json] = {"id": container.id}
    _add(document, names=list(container.names))
    document["image"] = container.image
    document["layer"] = container.layer
    _add(document, metadata=container.metadata)
    _add_big_data(document, container.big_data)
    document["created"] = timestamp(container.created_ns)
    _add_maps(document, container.maps.uids, container.maps.gids)
    if container.flags:
        document["flags"] = by_key(container.flags)
    return document


def _add(document: dict[str, Json], **fields: Json) -> None:
    """Add the fields that are not empty, ``_`` in their names written ``-``."""
    for name, value in fields.items():
        if value:
            document[name.replace("_", "-")] = value


def _add_maps(document: dict[str, Json], uids: IDMap, gids: IDMap) -> None:
    _add(document, uidmap=_map(uids), gidmap=_map(gids))


def _map(entries: IDMap) -> list[Mapping[str, int]]:
    return [
        {"container_id": entry.container_id, "host_id": entry.host_id, "size": entry.size}
        for entry in entries
    ]


def _add_big_data(document: dict[str, Json], items: Iterable[BigDataItem]) -> None:
    found = list(items)
    _add(
        document,
        big_data_names=[item.name for item in found],
        big_data_sizes=by_key({item.name: item.size for item in found}),
        big_data_digests=by_key({item.name: item.digest for item in found}),
    )
