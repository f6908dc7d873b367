"""Single items: layer, image, container, exists, and owners above mount points."""

from __future__ import annotations

from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.quoting import by_key, json_text
from cstorage.cli.records import container_document, image_document, layer_document
from cstorage.cli.wording import describe
from cstorage.errors import LayerUnknown, StorageError, UnknownItemError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from cstorage.cli.invocation import Invocation, Output
    from cstorage.cli.quoting import Json
    from cstorage.model import Container, IDMap, Image, Layer

    Record = TypeVar("Record", Layer, Image, Container)


def layer(inv: Invocation) -> int:
    """``layer``."""
    return _examine(inv, inv.store.layer, layer_document, _show_layer)


def image(inv: Invocation) -> int:
    """``image``."""
    return _examine(inv, inv.store.image, image_document, _show_image)


def container(inv: Invocation) -> int:
    """``container``."""
    return _examine(inv, inv.store.container, container_document, _show_container)


def _examine(
    inv: Invocation,
    find: Callable[[str], Record],
    document: Callable[[Record], dict[str, Json]],
    show: Callable[[Invocation, Record], None],
) -> int:
    """Show what is found in argument order; what is not is skipped and fails the command."""
    status = OK
    found: list[Record] = []
    for arg in inv.args:
        try:
            found.append(find(arg))
        except UnknownItemError:
            status = FAILED
    if inv.json:
        inv.out.json([document(record) for record in found])
    else:
        for record in found:
            show(inv, record)
    return status


def _show_layer(inv: Invocation, record: Layer) -> None:
    out = inv.out
    out.line(f"ID: {record.id}")
    _show_map(out, "UID", record.maps.uids)
    _show_map(out, "GID", record.maps.gids)
    if record.parent:
        out.line(f"Parent: {record.parent}")
    for name in record.names:
        out.line(f"Name: {name}")
    if record.read_only:
        out.line("Read Only: true")


def _show_map(out: Output, kind: str, entries: IDMap) -> None:
    for entry in entries:
        out.line(
            f"{kind} mapping: (container={entry.container_id}, "
            f"host={entry.host_id}, size={entry.size})"
        )


def _show_image(inv: Invocation, record: Image) -> None:
    out = inv.out
    out.line(f"ID: {record.id}")
    for name in record.names:
        out.line(f"Name: {name}")
    out.line(f"Top Layer: {record.top_layer}")
    for layer_id in record.mapped_top_layers:
        out.line(f"Top Layer: {layer_id}")
    for digest in record.digests:
        out.line(f"Digest: {digest}")
    for item in record.big_data:
        out.line(f"Data: {item.name}")
    _show_size(out, inv.store.image_size, record.id)
    if record.read_only:
        out.line("Read Only: true")


def _show_container(inv: Invocation, record: Container) -> None:
    out = inv.out
    out.line(f"ID: {record.id}")
    for name in record.names:
        out.line(f"Name: {name}")
    out.line(f"Image: {record.image}")
    if record.image:
        try:
            names: Sequence[str] = inv.store.image(record.image).names
        except UnknownItemError:
            names = ()
        for name in names:
            out.line(f"Image name: {name}")
    _show_size(out, inv.store.container_size, record.id)
    out.line(f"Layer: {record.layer}")
    for item in record.big_data:
        out.line(f"Data: {item.name}")


def _show_size(out: Output, measure: Callable[[str], int], key: str) -> None:
    """The size, or why there is none; the command succeeds either way."""
    try:
        out.line(f"Size: {measure(key)}")
    except (StorageError, OSError) as error:
        out.line(f"Size unknown: {describe(error)}")


def exists(inv: Invocation) -> int:
    """``exists``: the kind flags change the exit status, not what is printed."""
    store = inv.store
    kinds: list[Callable[[str], object]] = []
    if inv.flag("layer"):
        kinds.append(store.layer)
    if inv.flag("image"):
        kinds.append(store.image)
    if inv.flag("container"):
        kinds.append(store.container)
    found = {arg: store.exists(arg) for arg in dict.fromkeys(inv.args)}
    if inv.json:
        inv.out.json(by_key(found))
    elif not inv.flag("quiet"):
        for arg, there in found.items():
            inv.out.line(f"{arg}: {'true' if there else 'false'}")
    for arg, there in found.items():
        if not there or not all(_is_found(find, arg) for find in kinds):
            return FAILED
    return OK


def _is_found(find: Callable[[str], object], key: str) -> bool:
    try:
        find(key)
    except UnknownItemError:
        return False
    return True


def layer_parent_owners(inv: Invocation) -> int:
    """``layer-parent-owners``: empty lists are left out of the text."""
    store = inv.store
    return _parent_owners(
        inv, store.layer, store.layer_parent_owners, "LayerParentOwner", always=False
    )


def container_parent_owners(inv: Invocation) -> int:
    """``container-parent-owners``: empty lists are shown."""
    store = inv.store
    return _parent_owners(
        inv, store.container, store.container_parent_owners, "ContainerParentOwner", always=True
    )


def _parent_owners(
    inv: Invocation,
    find: Callable[[str], Layer] | Callable[[str], Container],
    owners: Callable[[str], tuple[Sequence[int], Sequence[int]]],
    operation: str,
    *,
    always: bool,
) -> int:
    status = OK
    out = inv.out
    for arg in inv.args:
        try:
            record = find(arg)
        except UnknownItemError:
            status = FAILED
            continue
        try:
            if getattr(record, "read_only", False):
                raise LayerUnknown
            uids, gids = owners(record.id)
        except (StorageError, OSError) as error:
            out.error(f"{operation}: {describe(error)}")
            return FAILED
        if inv.json:
            document = {"ID": record.id, "UIDs": list(uids) or None, "GIDs": list(gids) or None}
            out.line(json_text(document))
            continue
        out.line(f"ID: {record.id}")
        for title, ids in (("UIDs", uids), ("GIDs", gids)):
            if ids or always:
                out.line(f"{title}: [{' '.join(map(str, ids))}]")
    return status
