"""create-layer, create-storage-layer, import-layer, create-image, create-container."""

from __future__ import annotations

from cstorage.cli.idmaps import map_options
from cstorage.cli.invocation import OK
from cstorage.cli.limits import apply_options
from cstorage.cli.names import metadata_text
from cstorage.cli.quoting import well_formed
from cstorage.cli.records import container_document, image_document, layer_document
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cstorage.cli.invocation import Invocation


def _names(inv: Invocation) -> list[str]:
    """The names asked for, each once: the original loses a name that is given twice."""
    return list(dict.fromkeys(map(well_formed, inv.many("name"))))


def _layer_options(inv: Invocation) -> dict[str, Any]:
    return {
        "id": well_formed(inv.text("id")),
        "parent": inv.arg(0),
        "mount_label": well_formed(inv.text("label")),
        "writable": not inv.flag("readonly"),
        "maps": map_options(inv),
    }


def _created(inv: Invocation, item_id: str, names: Sequence[str]) -> int:
    inv.out.line(item_id)
    for name in names:
        inv.out.line(f"\t{name}")
    return OK


def create_layer(inv: Invocation) -> int:
    """``create-layer``."""
    layer = inv.store.create_layer(names=_names(inv), **_layer_options(inv))
    if inv.json:
        inv.out.json(layer_document(layer))
        return OK
    return _created(inv, layer.id, layer.names)


def create_storage_layer(inv: Invocation) -> int:
    """``create-storage-layer``: the driver only."""
    layer_id = inv.store.create_storage_layer(**_layer_options(inv))
    if inv.json:
        inv.out.json(layer_id)
    else:
        inv.out.line(layer_id)
    return OK


def import_layer(inv: Invocation) -> int:
    """``import-layer``: the file is opened before the store does anything."""
    from cstorage.cli.progress import ProgressLine
    from cstorage.cli.streams import source

    options = apply_options(inv)
    with source(inv) as stream, ProgressLine(inv) as line:
        layer = inv.store.import_layer(
            stream, names=_names(inv), options=line.options(options), **_layer_options(inv)
        )
        line.finish(layer.diff)
    if inv.json:
        inv.out.json(layer_document(layer))
        return OK
    return _created(inv, layer.id, layer.names)


def create_image(inv: Invocation) -> int:
    """``create-image``."""
    image = inv.store.create_image(
        id=well_formed(inv.text("id")),
        names=_names(inv),
        layer=inv.arg(0),
        metadata=metadata_text(inv),
        digest=inv.text("digest"),
    )
    if inv.json:
        inv.out.json(image_document(image))
        return OK
    return _created(inv, image.id, image.names)


def create_container(inv: Invocation) -> int:
    """``create-container``."""
    container = inv.store.create_container(
        image=inv.arg(0),
        id=well_formed(inv.text("id")),
        names=_names(inv),
        metadata=metadata_text(inv),
        maps=map_options(inv),
        volatile=inv.flag("volatile"),
    )
    if inv.json:
        inv.out.json(container_document(container))
        return OK
    # Here the original puts all names on one line and does not end it.
    inv.out.line(container.id)
    inv.out.write("".join(f"\t{name}" for name in container.names))
    return OK
