"""Looking up the entries of many events together changes nothing but how often a table is asked."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cstorage import events as ev
from cstorage import state as states
from cstorage.model import BigDataItem, DiffSummary, IDMaps, Kind
from cstorage.state import State, ahead
from cstorage.state.levels import Levels
from cstorage.state.reducer import apply
from tests.state.test_reducer import EVENTS, SortedTable, acceptable, image, layer, replay


class Asked(SortedTable):
    """A table that remembers the keys it was asked for one at a time."""

    def __init__(self, entries: list[tuple[bytes, bytes]]) -> None:
        super().__init__(entries)
        self.single: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        self.single.append(key)
        return super().get(key)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return {key: value for key in keys if (value := SortedTable.get(self, key)) is not None}


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=30), st.integers(0, 30), st.integers(1, 9), st.integers(1, 40))
def test_the_outcome_is_that_of_one_event_after_the_other(events, cut, part, most):
    """Whatever the events are, however many are looked up together, however little is kept."""
    events = acceptable(events)
    whole = replay(*events)
    resumed = State(SortedTable(list(replay(*events[:cut]).entries())))
    kept, states.DECODED_MAX = states.DECODED_MAX, most
    try:
        for at in range(cut, len(events), part):
            ahead.look(resumed, events[at : at + part])
            for sequence, event in enumerate(events[at : at + part], at + 1):
                apply(resumed, event, sequence)
    finally:
        states.DECODED_MAX = kept
    assert list(resumed.entries()) == list(whole.entries())
    assert resumed.digest() == whole.digest()


def container(id_: str, top: str) -> ev.ContainerCreated:
    return ev.ContainerCreated(id_, (f"name {id_}",), "i0", top, "", 1, IDMaps(), {}, (), False)


def many(user: int) -> State:
    """Forty chains of three layers with an image each, containers on two of them."""
    state = State()
    sequence = 0
    for chain in range(40):
        names = [f"l{chain}.{depth}" for depth in range(3)]
        parents = ["", *names]
        found: list[ev.Event] = []
        for id_, parent in zip(names, parents, strict=False):
            digest = f"sha256:{chain % 30:064}"
            diff = DiffSummary(
                compressed_digest=digest, uncompressed_digest=digest, toc_digest=digest,
                recipe=f"{id_:a>64}", manifest=f"{id_:b>64}", disk_size=5,
            )  # fmt: skip
            blob = BigDataItem("x", 1, f"sha256:{chain:064}", f"{id_:c>64}")
            found.append(layer(id_, parent, (f"name {id_}",), diff=diff, big_data=(blob,)))
        blob = BigDataItem("manifest", 1, f"sha256:{chain:064}", f"{chain:064}")
        found.append(image(f"i{chain}", names[-1], (f"n{chain}",), big_data=(blob,)))
        if chain > 37:
            found.append(container(f"c{chain}", names[-1]))
        for event in found:
            sequence += 1
            apply(state, event, sequence, user * (chain % 2))
    return state


@pytest.mark.parametrize("user", [0, 1000])
def test_deletions_ask_for_nothing_one_by_one(user):
    """But for counters, which are asked for once, and for groups of several."""
    table = Asked(list(many(user).entries()))
    state = State(table)
    events: list[ev.Event] = [ev.ContainerDeleted("c38"), ev.ContainerDeleted("c39")]
    for chain in range(32, 40):
        events.append(ev.ImageDeleted(f"i{chain}"))
        events += [ev.LayerDeleted(f"l{chain}.{depth}") for depth in (2, 1, 0)]
    ahead.look(state, events)
    for sequence, event in enumerate(events, 1000):
        apply(state, event, sequence)
    assert len(events) == 34
    counters = [key for key in table.single if key[:1] == b"#"]
    groups = [key for key in table.single if key[:1] in b"DEU" and key[-1:] != b"\0"]
    assert sorted(counters + groups) == sorted(table.single)
    assert len(counters) == len(set(counters))


def test_a_level_hides_what_is_below_it_from_many_looks_too():
    below = {bytes([65, n]): bytes([n]) for n in range(200)}
    above = {bytes([65, n]): (b"" if n % 3 else b"new") for n in range(0, 250, 2)}
    pile = Levels([SortedTable(sorted(table.items())) for table in (below, above)])
    keys = [bytes([65, n]) for n in range(256)]
    wanted = {key: value for key in keys if (value := pile.get(key)) is not None}
    random.Random(3).shuffle(keys)
    assert pile.get_many(keys) == wanted
    assert 100 < len(wanted) < 200


def test_what_is_known_is_not_looked_up_again():
    table = SortedTable(list(many(0).entries()))
    state = State(table)
    asked: list[list[bytes]] = []
    table.get_many = lambda keys: (asked.append(sorted(keys)), {})[1]  # type: ignore[method-assign]
    state.remove(b"L1")
    assert state.get(b"Ll1.1") is not None
    state.look_ahead([b"L1", b"Ll1.1", b"L2"])
    assert asked == [[b"L2"]]
    assert State(state).get(b"L2") is None
    assert state.layer("l1.1") is not None
    assert state.count(Kind.LAYER) == 120
