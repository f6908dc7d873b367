"""Several changes as one: ``with store.transaction(reason=…) as tx``.

Rules of this module:

* Everything that the thread does with the store inside the block joins the transaction: it is
  checked against the state with the changes before it, and committed in one frame when the block
  ends. A block that raises has changed nothing, whatever it did before.
* An operation that fails inside the block takes back its own part only; a caller that catches the
  error may go on.
* The writer lock is held for the whole block. What was read before it may be outdated, what is
  read inside it is not: ``expected`` compares the two (compare-and-set).
* Not undone, because they are no changes of the store's state: mounting, and extracting over an
  existing layer. A layer made in the block cannot be the parent of another one made in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cstorage.errors import LayerUnknown, NamesChanged
from cstorage.model import Kind
from cstorage.state import keys
from cstorage.store import lookup
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cstorage.model import Container, Image, Layer, LayerID
    from cstorage.store.core import Core
    from cstorage.store.store import Store


@contextmanager
def joint(store: Store, core: Core, reason: str) -> Iterator[StoreTransaction]:
    """The block's transaction. Raises ``StoreBusy``, ``StoreIsReadOnly``, and what it raises."""
    with core.joint_transaction(reason):
        yield StoreTransaction(store, core)


@contextmanager
def because(core: Core, reason: str) -> Iterator[None]:
    """Changes in the block are recorded with ``reason``; not for use by several threads."""
    before = core.location
    if reason:
        core.location = before._replace(reason=reason)
    try:
        yield
    finally:
        core.location = before


class StoreTransaction:
    """What may be done in a transaction. Arguments and errors: the methods of ``Store``."""

    def __init__(self, store: Store, core: Core) -> None:
        self.store = store
        self._core = core

    # -- looking ---------------------------------------------------------------------------------

    def exists(self, key: str) -> bool:
        return self.store.exists(key)

    def layer(self, key: str) -> Layer:
        return self.store.layer(key)

    def image(self, key: str) -> Image:
        return self.store.image(key)

    def container(self, key: str) -> Container:
        return self.store.container(key)

    def holder(self, kind: Kind, name: str) -> str:
        """ID of the item of ``kind`` that has ``name``, "" if none has."""
        return self._core.state.holder(kind, name) or ""

    # -- compare and set -------------------------------------------------------------------------

    def expect(self, kind: Kind, name: str, holder: str) -> None:
        """Raise ``NamesChanged`` unless ``holder`` ("" for nobody) has ``name``."""
        now = self.holder(kind, name)
        if now != holder:
            raise NamesChanged(
                f"name {name!r} belongs to {now or 'nobody'}, not to {holder or 'nobody'}"
            )

    def set_names(
        self, key: str, names: Sequence[str], *, expected: Sequence[str] | None = None
    ) -> tuple[str, ...]:
        """Replace the names, if they are those of ``expected`` (in order).

        Raises ``NamesChanged``, ``LayerUnknown``.
        """
        if expected is not None:
            state = self._core.state
            found = lookup.any_item(state, key)
            if found is None:
                raise LayerUnknown
            now: tuple[str, ...] = state.get(keys.record(*found)).names
            if now != tuple(expected):
                raise NamesChanged(f"the names of {key!r} are {list(now)}, not {list(expected)}")
        return self.store.set_names(key, names)

    def point(self, name: str, image: str, *, expected: str | None = None) -> None:
        """Give ``name`` to ``image``, if the image with ID ``expected`` ("" for none) has it now.

        Raises ``NamesChanged``, ``ImageUnknown``.
        """
        if expected is not None:
            self.expect(Kind.IMAGE, name, expected)
        self.store.add_names(self.store.image(image).id, [name])

    # -- changes ---------------------------------------------------------------------------------

    def add_names(self, key: str, names: Sequence[str]) -> tuple[str, ...]:
        return self.store.add_names(key, names)

    def remove_names(self, key: str, names: Sequence[str]) -> tuple[str, ...]:
        return self.store.remove_names(key, names)

    def set_metadata(self, key: str, text: str) -> None:
        self.store.set_metadata(key, text)

    def create_layer(self, *args: Any, **options: Any) -> Layer:
        return self.store.create_layer(*args, **options)

    def import_layer(self, *args: Any, **options: Any) -> Layer:
        return self.store.import_layer(*args, **options)

    def create_image(self, *args: Any, **options: Any) -> Image:
        return self.store.create_image(*args, **options)

    def create_container(self, *args: Any, **options: Any) -> Container:
        return self.store.create_container(*args, **options)

    def delete_layer(self, key: str) -> None:
        self.store.delete_layer(key)

    def delete_image(self, key: str) -> list[LayerID]:
        return self.store.delete_image(key)

    def delete_container(self, key: str) -> None:
        self.store.delete_container(key)
