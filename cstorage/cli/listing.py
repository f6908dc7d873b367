"""The lists of everything: layers, images, containers, the driver's layers."""

from __future__ import annotations

from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.quoting import json_text
from cstorage.cli.records import container_document, image_document, layer_document
from cstorage.errors import InvalidDigest
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cstorage.cli.invocation import Invocation, Output
    from cstorage.cli.quoting import Json
    from cstorage.model import Container, Image


def json_list(out: Output, documents: Iterable[Json], *, empty: str) -> None:
    """A list of documents, written one by one; ``empty`` is what stands for no documents."""
    before = "["
    for document in documents:
        out.write(before + json_text(document))
        before = ","
    out.write(f"{empty}\n" if before == "[" else "]\n")


def layers(inv: Invocation) -> int:
    """``layers``: everything, or only IDs, or a tree, or JSON (which wins in this order: j t q)."""
    out, store = inv.out, inv.store
    if inv.json:
        json_list(out, map(layer_document, store.layers()), empty="null")
        return OK
    if inv.flag("quick") and not inv.flag("tree"):
        for layer in store.layers():
            out.line(layer.id)
        return OK
    images, containers = users_of_layers(store.images(), store.containers())
    if inv.flag("tree"):
        from cstorage.cli.tree import draw

        notes: dict[str, list[str]] = {}
        parents: list[tuple[str, str]] = []
        for layer in store.layers():
            parents.append((layer.parent, layer.id))
            lines = [f"name: {name}" for name in layer.names]
            path = store.mount_path(layer.id)
            if path:
                lines.append(f"mount: {path}")
            for image in images.get(layer.id, ()):
                lines.append(f"image: {image.id}")
                lines.extend(f"image name: {name}" for name in image.names)
            container = containers.get(layer.id)
            if container is not None:
                lines.append(f"container: {container.id}")
                lines.extend(f"container name: {name}" for name in container.names)
            if lines:
                notes[layer.id] = lines
        for line in draw(parents, notes):
            out.line(line)
        return OK
    for layer in store.layers():
        out.line(layer.id)
        for name in layer.names:
            out.line(f"\tname: {name}")
        for image in images.get(layer.id, ()):
            out.line(f"\timage: {image.id}")
            for name in image.names:
                out.line(f"\t\tname: {name}")
        container = containers.get(layer.id)
        if container is not None:
            out.line(f"\tcontainer: {container.id}")
            for name in container.names:
                out.line(f"\t\tname: {name}")
    return OK


def users_of_layers(
    images: Iterable[Image], containers: Iterable[Container]
) -> tuple[dict[str, list[Image]], dict[str, Container]]:
    """For each layer ID the images whose (mapped) top layer it is, and its container."""
    tops: dict[str, list[Image]] = {}
    for image in images:
        for layer_id in dict.fromkeys((image.top_layer, *image.mapped_top_layers)):
            if layer_id:
                tops.setdefault(layer_id, []).append(image)
    return tops, {container.layer: container for container in containers}


def storage_layers(inv: Invocation) -> int:
    """``storage-layers``: what the driver has."""
    found = inv.store.storage_layers()
    if inv.json:
        inv.out.json(list(found))
    else:
        for layer_id in found:
            inv.out.line(layer_id)
    return OK


def images(inv: Invocation) -> int:
    """``images``."""
    return _show_images(inv, inv.store.images(), empty="null")


def images_by_digest(inv: Invocation) -> int:
    """``images-by-digest``: the digest has to be well-formed, it need not be known."""
    from cstorage.store import digests

    digest = inv.arg(0)
    try:
        digests.check(digest)
    except InvalidDigest as error:
        inv.out.error(f"{digest}: {error}")
        return FAILED
    return _show_images(inv, inv.store.images_by_digest(digest), empty="[]")


def _show_images(inv: Invocation, found: Iterable[Image], *, empty: str) -> int:
    out = inv.out
    if inv.json:
        json_list(out, map(image_document, found), empty=empty)
        return OK
    for image in found:
        out.line(image.id)
        if inv.flag("quiet"):
            continue
        for name in image.names:
            out.line(f"\tname: {name}")
        for digest in image.digests:
            out.line(f"\tdigest: {digest}")
        for item in image.big_data:
            out.line(f"\tdata: {item.name}")
    return OK


def containers(inv: Invocation) -> int:
    """``containers``."""
    out = inv.out
    if inv.json:
        json_list(out, map(container_document, inv.store.containers()), empty="[]")
        return OK
    for container in inv.store.containers():
        out.line(container.id)
        for name in container.names:
            out.line(f"\tname: {name}")
        for item in container.big_data:
            out.line(f"\tdata: {item.name}")
    return OK
