"""Groups of IDs: what they hold after any changes, and how little it takes to ask."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cstorage.state import State, groups, keys

GROUP = keys.children("parent")
IDS = ["a", "b", "bb", "c"]
AGE = {id_: bytes([9 - number]) for number, id_ in enumerate(IDS)}


class Counting(State):
    """Counts the searches."""

    searches = 0

    def scan(self, prefix: bytes, start: bytes = b"", reverse: bool = False):
        self.searches += 1
        return super().scan(prefix, start, reverse)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(IDS)), max_size=20), st.booleans())
def test_a_group_is_a_set_in_order(changes, by_age):
    """And leaves nothing behind when it is empty, nor twice what it can hold once."""
    place = AGE.__getitem__ if by_age else keys.text
    state, model = State(), set()
    for adding, id_ in changes:
        (groups.add if adding else groups.remove)(state, GROUP, id_, place)
        (model.add if adding else model.discard)(id_)
        assert list(groups.members(state, GROUP)) == sorted(model, key=place)
        assert groups.size(state, GROUP) == len(model)
        entries = len(list(state.entries()))
        assert entries == (len(model) + 1 if len(model) > 1 else len(model))


def test_nobody_searches_for_none_or_one():
    state = Counting()
    assert list(groups.members(state, GROUP)) == []
    groups.add(state, GROUP, "a", keys.text)
    assert list(groups.members(state, GROUP)) == ["a"]
    groups.remove(state, GROUP, "a", keys.text)
    assert state.searches == 0
    for id_ in IDS:
        groups.add(state, GROUP, id_, keys.text)
    assert list(groups.members(state, GROUP)) == IDS
    assert state.searches == 1
