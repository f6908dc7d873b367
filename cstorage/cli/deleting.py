"""delete, delete-layer, delete-image, delete-container: go on after a failing argument."""

from __future__ import annotations

from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.quoting import by_key
from cstorage.cli.wording import describe
from cstorage.errors import StorageError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cstorage.cli.invocation import Invocation
    from cstorage.cli.quoting import Json


def delete(inv: Invocation) -> int:
    """``delete``: container, image or layer, without safety checks."""
    return _each(inv, inv.store.delete)


def delete_layer(inv: Invocation) -> int:
    """``delete-layer``."""
    return _each(inv, inv.store.delete_layer)


def delete_container(inv: Invocation) -> int:
    """``delete-container``."""
    return _each(inv, inv.store.delete_container)


def _each(inv: Invocation, remove: Callable[[str], object]) -> int:
    """The last result of an argument that was given twice is the one that counts."""
    results: dict[str, str] = {}
    for arg in inv.args:
        try:
            remove(arg)
            results[arg] = ""
        except (StorageError, OSError) as error:
            results[arg] = describe(error)
    if inv.json:
        inv.out.json(by_key(results))
    else:
        for arg, text in results.items():
            if text:
                inv.out.error(f"{arg}: {text}")
    return FAILED if any(results.values()) else OK


def delete_image(inv: Invocation) -> int:
    """``delete-image``: with ``--test`` nothing is removed, the answer is the same."""
    layers: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    for arg in inv.args:
        layers[arg], errors[arg] = [], ""
        try:
            removed = inv.store.delete_image(arg, commit=not inv.flag("test"))
            layers[arg] = [str(layer_id) for layer_id in removed]
        except (StorageError, OSError) as error:
            errors[arg] = describe(error)
    if inv.json:
        documents: dict[str, Json] = {}
        for arg, removed_ids in layers.items():
            document: dict[str, Json] = {}
            if removed_ids:
                document["deleted-layers"] = removed_ids
            if errors[arg]:
                document["error"] = errors[arg]
            documents[arg] = document
        inv.out.json(by_key(documents))
    else:
        for arg, removed_ids in layers.items():
            if errors[arg]:
                inv.out.error(f"{arg}: {errors[arg]}")
            for layer_id in removed_ids:
                inv.out.error(f"{arg}: {layer_id}")
    return FAILED if any(errors.values()) else OK
