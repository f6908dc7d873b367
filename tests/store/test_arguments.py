"""What a caller gets wrong is refused before it is in the journal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from cstorage import errors
from cstorage.model import Kind
from tests.store.place import forge

if TYPE_CHECKING:
    from collections.abc import Callable

    from cstorage.store.store import Store

WRONG: dict[str, Callable[[Any], object]] = {
    "one text as names of a layer": lambda s: s.create_layer(names="abc"),
    "one text as names of an image": lambda s: s.create_image(names="abc"),
    "one text as names of a container": lambda s: s.create_container(names="abc"),
    "one text as names to set": lambda s: s.set_names("one", "abc"),
    "one text as names to add": lambda s: s.add_names("one", b"abc"),
    "one text as names to remove": lambda s: s.remove_names("one", "abc"),
    "bytes as metadata": lambda s: s.set_metadata("one", b"x"),
    "bytes as metadata of an image": lambda s: s.create_image(metadata=b"x"),
    "text as a time": lambda s: s.create_image(created_ns="now"),
    "truth as a time": lambda s: s.create_image(created_ns=True),
    "a number as history": lambda s: s.create_image(names_history=[1]),
    "text as a truth": lambda s: s.create_layer(volatile="no"),
    "a number as a label": lambda s: s.create_layer(mount_label=3),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=list(WRONG))
def test_wrong_types(store: Store, call: Callable[[Any], object]) -> None:
    store.create_layer(id="one", names=["a"])
    before = store.sequence
    with pytest.raises(TypeError, match=r"not (one text|bytes|str|int|bool)"):
        call(store)
    assert store.sequence == before
    assert store.storage_layers() == ["one"]


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("value", [math.nan, object(), b"x"])
def test_flags_that_are_no_json(store: Store, kind: Kind, value: object) -> None:
    create: Any = {
        Kind.LAYER: store.create_layer,
        Kind.IMAGE: store.create_image,
        Kind.CONTAINER: store.create_container,
    }[kind]
    with pytest.raises(errors.StorageError, match="no JSON"):
        create(flags={"a": value})
    assert store.storage_layers() == []


@pytest.mark.parametrize("id_", ["..", ".", "../x", "a/b", "/a", "nul\0", "x" * 201, "ä" * 101])
@pytest.mark.parametrize("kind", list(Kind))
def test_ids_that_would_lead_elsewhere(store: Store, kind: Kind, id_: str) -> None:
    """An ID names directories: ``a/../box`` would have the directories of ``box``."""
    create: Any = {
        Kind.LAYER: store.create_layer,
        Kind.IMAGE: store.create_image,
        Kind.CONTAINER: store.create_container,
    }[kind]
    with pytest.raises(errors.InvalidID):
        create(id=id_)
    assert store.storage_layers() == []


def test_ids_as_long_as_may_be(store: Store) -> None:
    for create in (store.create_layer, store.create_image, store.create_container):
        made: Any = create(id="x" * 200)
        assert store.exists(made.id)


def test_events_are_checked_wherever_they_come_from(store: Store) -> None:
    from cstorage import events as ev

    store.create_layer(id="one")
    with pytest.raises(TypeError, match="metadata: str, not NoneType"):
        forge(store, ev.MetadataSet(Kind.LAYER, "one", None))  # type: ignore[arg-type]
