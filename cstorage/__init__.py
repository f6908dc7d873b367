"""A local store for container layers, images and containers whose only truth is a journal.

    import cstorage

    with cstorage.open("/srv/store", "/run/store", driver="overlay") as store:
        with open("rootfs.tar.gz", "rb") as archive:
            layer = store.import_layer(archive, names=["base"])
        image = store.create_image(names=["example/base:1"], layer=layer.id)
        container = store.create_container(image.id, names=["work"])
        path = store.mount(container.id)

``open`` returns a ``Store``, which says what can be done. Errors are in ``cstorage.errors``, record
types in ``cstorage.model``, events in ``cstorage.events``.
"""

from __future__ import annotations

from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cstorage import errors, events, model
    from cstorage.config import StoreOptions
    from cstorage.model import Compression, IDMapEntry, Kind
    from cstorage.store.checking import CheckOptions
    from cstorage.store.mapping import AutoMaps, MapOptions
    from cstorage.store.opening import open_store as open
    from cstorage.store.store import Store

__all__ = [
    "AutoMaps", "CheckOptions", "Compression", "IDMapEntry", "Kind", "MapOptions", "Store",
    "StoreOptions", "errors", "events", "model", "open",
]  # fmt: skip

_HOME = {
    "open": ("store.opening", "open_store"),
    "Store": ("store.store", "Store"),
    "AutoMaps": ("store.mapping", "AutoMaps"),
    "CheckOptions": ("store.checking", "CheckOptions"),
    "Compression": ("model", "Compression"),
    "IDMapEntry": ("model", "IDMapEntry"),
    "Kind": ("model", "Kind"),
    "MapOptions": ("store.mapping", "MapOptions"),
    "StoreOptions": ("config", "StoreOptions"),
    "errors": ("errors", ""),
    "events": ("events", ""),
    "model": ("model", ""),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: commands load only what they use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOME[name]
    found = import_module(f"{__name__}.{module}")
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
