"""The stored form of events: numbers, fields, and what is refused."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cstorage import events as ev
from cstorage.events import codec
from cstorage.model import Kind


def test_every_event_of_the_union_has_a_number_of_its_own():
    union = set(get_args(ev.Event))
    assert set(codec.NUMBERS) == union
    assert len(set(codec.NUMBERS.values())) == len(union)


def test_numbers_are_never_reassigned():
    """A change here breaks every existing journal: add numbers, never move them."""
    assert {cls.__name__: number for cls, number in codec.NUMBERS.items()} == {
        "StoreInitialised": 1,
        "LayerCreated": 10,
        "LayerDiffApplied": 11,
        "LayerDeleted": 12,
        "ImageCreated": 20,
        "ImageMappedLayerAdded": 21,
        "ImageMappedLayerRemoved": 22,
        "ImageDeleted": 23,
        "ImageMoved": 24,
        "ContainerCreated": 30,
        "ContainerDeleted": 31,
        "NamesSet": 40,
        "NamesAdded": 41,
        "NamesRemoved": 42,
        "MetadataSet": 43,
        "BigDataSet": 44,
        "FlagsSet": 45,
        "Pinned": 46,
        "Unpinned": 47,
    }


def test_surplus_fields_of_a_newer_version_are_ignored():
    raw = [*codec.encode(ev.NamesSet(Kind.LAYER, "l", ("n",))), "from the future"]
    assert codec.decode(raw) == ev.NamesSet(Kind.LAYER, "l", ("n",))


def test_an_unknown_kind_is_refused_by_number():
    with pytest.raises(codec.EventError, match="999"):
        codec.decode([999, "x"])


def test_a_short_event_is_refused_by_name():
    with pytest.raises(codec.EventError, match="NamesSet has 1 of 3"):
        codec.decode([40, "l"])


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 50) | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)


@given(JSON_LIKE)
def test_malformed_events_raise_only_the_documented_error(raw):
    try:
        codec.decode(raw)
    except codec.EventError:
        pass


@given(st.sampled_from(sorted(codec.NUMBERS.values())), st.lists(JSON_LIKE, max_size=14))
def test_malformed_fields_raise_only_the_documented_error(number, fields):
    try:
        codec.decode([number, *fields])
    except codec.EventError:
        pass
