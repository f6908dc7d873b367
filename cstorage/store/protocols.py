"""What parts of a store look like to code that should not care which store it is.

``Store`` is a ``MetadataStore`` and a ``FlaggableStore``; ``Store.blobs(kind)`` is a
``BigDataStore`` over the items of one kind. Code written against these can be given a dictionary in
its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from cstorage.model import Digest, Kind

if TYPE_CHECKING:
    from cstorage.store.core import Core


@runtime_checkable
class MetadataStore(Protocol):
    """Opaque text by item."""

    def metadata(self, key: str) -> str:
        """The item's text, "" if none was set."""

    def set_metadata(self, key: str, text: str) -> None:
        """Replace it."""


@runtime_checkable
class FlaggableStore(Protocol):
    """Small JSON values by item and name."""

    def flags(self, key: str) -> Mapping[str, Any]:
        """All flags of the item."""

    def set_flag(self, key: str, flag: str, value: Any) -> None:
        """Set one to a JSON value."""

    def clear_flag(self, key: str, flag: str) -> None:
        """Take one away; an absent one is ignored."""


@runtime_checkable
class BigDataStore(Protocol):
    """Named blobs by item."""

    def names(self, key: str) -> list[str]:
        """Names of the item's blobs, in the order of their first write."""

    def read(self, key: str, name: str) -> bytes:
        """The bytes of one."""

    def size(self, key: str, name: str) -> int:
        """Its length in bytes."""

    def digest(self, key: str, name: str) -> Digest:
        """Its digest."""

    def write(
        self, key: str, name: str, data: bytes, digester: Callable[[bytes], str] | None = None
    ) -> None:
        """Store or replace one."""


class Blobs:
    """The blobs of all layers, of all images or of all containers of a store."""

    def __init__(self, core: Core, kind: Kind) -> None:
        self._core = core
        self.kind = kind

    def names(self, key: str) -> list[str]:
        """In the order of their first write."""
        from cstorage.store import bigdata

        return bigdata.names(self._core, self.kind, key)

    def read(self, key: str, name: str) -> bytes:
        """Raises ``BigDataUnknown``."""
        from cstorage.store import bigdata

        return bigdata.read(self._core, self.kind, key, name)

    def size(self, key: str, name: str) -> int:
        """Raises ``SizeUnknown``."""
        from cstorage.store import bigdata

        return bigdata.size(self._core, self.kind, key, name)

    def digest(self, key: str, name: str) -> Digest:
        """Raises ``DigestUnknown``."""
        from cstorage.store import bigdata

        return bigdata.digest(self._core, self.kind, key, name)

    def write(
        self, key: str, name: str, data: bytes, digester: Callable[[bytes], str] | None = None
    ) -> None:
        """``digester`` as in ``Store.set_image_big_data``."""
        from cstorage.store import bigdata

        bigdata.write(self._core, self.kind, key, name, data, digester)
