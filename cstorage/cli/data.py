"""Data items and private directories of layers, images and containers.

Rule (cli.md §6.2): the item is looked up first, then the file is made or emptied, then the data is
read; so a wrong data name leaves an empty file behind.
"""

from __future__ import annotations

from cstorage.cli.invocation import OK
from cstorage.cli.quoting import well_formed
from cstorage.cli.streams import Target, source
from cstorage.cli.wording import FileRefused
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cstorage.cli.invocation import Invocation


def list_layer(inv: Invocation) -> int:
    """``list-layer-data``."""
    return _list(inv, inv.store.list_layer_big_data)


def list_image(inv: Invocation) -> int:
    """``list-image-data``."""
    return _list(inv, inv.store.list_image_big_data)


def list_container(inv: Invocation) -> int:
    """``list-container-data``."""
    return _list(inv, inv.store.list_container_big_data)


def _list(inv: Invocation, names_of: Callable[[str], Sequence[str]]) -> int:
    names = list(names_of(inv.arg(0)))
    if inv.json:
        inv.out.json(names or None)
    else:
        for name in names:
            inv.out.line(name)
    return OK


def get_layer(inv: Invocation) -> int:
    """``get-layer-data``."""
    return _get(inv, inv.store.layer(inv.arg(0)).id, inv.store.layer_big_data)


def get_image(inv: Invocation) -> int:
    """``get-image-data``."""
    return _get(inv, inv.store.image(inv.arg(0)).id, inv.store.image_big_data)


def get_container(inv: Invocation) -> int:
    """``get-container-data``."""
    found = inv.store.container(inv.arg(0)).id
    return _get(inv, found, inv.store.container_big_data)


def _get(inv: Invocation, item_id: str, read: Callable[[str, str], bytes]) -> int:
    with Target(inv) as target:
        data = memoryview(read(item_id, inv.arg(1)))
        while data:
            written = target.write(data)
            data = data[written:]
    return OK


def set_layer(inv: Invocation) -> int:
    """``set-layer-data``."""
    layer = inv.store.layer(inv.arg(0)).id
    try:
        return _set(inv, layer, inv.store.set_layer_big_data)
    except FileRefused as error:
        if not str(error).startswith("read "):
            raise
        # A directory can be opened: layers alone look at the name before they read.
        if not inv.arg(1):
            inv.store.set_layer_big_data(layer, "", b"")
        raise FileRefused(f"copying bigdata for the layer: {error}") from None


def set_image(inv: Invocation) -> int:
    """``set-image-data``: the digest of a manifest is that of its bytes."""
    from cstorage.store import digests

    def put(key: str, name: str, data: bytes) -> None:
        inv.store.set_image_big_data(key, name, data, digests.of)

    return _set(inv, inv.store.image(inv.arg(0)).id, put)


def set_container(inv: Invocation) -> int:
    """``set-container-data``."""
    return _set(inv, inv.store.container(inv.arg(0)).id, inv.store.set_container_big_data)


def _set(inv: Invocation, item_id: str, put: Callable[[str, str, bytes], object]) -> int:
    with source(inv) as stream:
        data = stream.read()
    put(item_id, well_formed(inv.arg(1)), data)
    return OK


def size_image(inv: Invocation) -> int:
    """``get-image-data-size``."""
    return _show(inv, inv.store.image(inv.arg(0)).id, inv.store.image_big_data_size)


def size_container(inv: Invocation) -> int:
    """``get-container-data-size``."""
    return _show(inv, inv.store.container(inv.arg(0)).id, inv.store.container_big_data_size)


def digest_image(inv: Invocation) -> int:
    """``get-image-data-digest``."""
    return _show(inv, inv.store.image(inv.arg(0)).id, inv.store.image_big_data_digest)


def digest_container(inv: Invocation) -> int:
    """``get-container-data-digest``."""
    return _show(inv, inv.store.container(inv.arg(0)).id, inv.store.container_big_data_digest)


def _show(inv: Invocation, item_id: str, ask: Callable[[str, str], object]) -> int:
    inv.out.line(f"{ask(item_id, inv.arg(1))}")
    return OK


def container_directory(inv: Invocation) -> int:
    """``get-container-dir``."""
    return _directory(inv, inv.store.container_directory)


def container_run_directory(inv: Invocation) -> int:
    """``get-container-run-dir``."""
    return _directory(inv, inv.store.container_run_directory)


def image_directory(inv: Invocation) -> int:
    """``get-image-dir``: the argument is not looked up."""
    return _directory(inv, inv.store.image_directory)


def image_run_directory(inv: Invocation) -> int:
    """``get-image-run-dir``: the argument is not looked up."""
    return _directory(inv, inv.store.image_run_directory)


def _directory(inv: Invocation, find: Callable[[str], Path]) -> int:
    inv.out.line(f"{find(inv.arg(0))}")
    return OK
