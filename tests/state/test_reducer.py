"""The reducer: what each event does, and that replay, snapshot and draft agree."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cstorage import events as ev
from cstorage.events import codec
from cstorage.model import BigDataItem, DiffSummary, IDMaps, Kind
from cstorage.state import State, aggregates, values
from cstorage.state.reducer import ReplayError, apply
from journal.digest import StateDigest

HEX = "ab" * 32


class SortedTable:
    """A snapshot's table over a list: the second implementation that keeps the protocol honest."""

    def __init__(self, entries: list[tuple[bytes, bytes]]) -> None:
        self.entries = entries
        self.keys = [key for key, _ in entries]
        assert self.keys == sorted(self.keys)
        digest = StateDigest()
        for key, value in entries:
            digest.add(key, value)
        self.digest = digest.value()

    def get(self, key: bytes) -> bytes | None:
        at = bisect_left(self.keys, key)
        return self.entries[at][1] if at < len(self.keys) and self.keys[at] == key else None

    def get_many(self, keys):
        return {key: value for key in keys if (value := self.get(key)) is not None}

    def scan(self, prefix: bytes, start: bytes = b"", reverse: bool = False):
        found = [(k, v) for k, v in self.entries if k.startswith(prefix) and k >= start]
        return iter(found[::-1] if reverse else found)

    def __len__(self) -> int:
        return len(self.entries)


def layer(id_: str, parent: str = "", names: tuple[str, ...] = (), **more) -> ev.LayerCreated:
    fields = {
        "metadata": "",
        "mount_label": "",
        "created_ns": 1,
        "diff": DiffSummary(),
        "flags": {},
        "maps": IDMaps(),
        "big_data": (),
        "writable": True,
        "volatile": False,
    }
    return ev.LayerCreated(id=id_, parent=parent, names=names, **(fields | more))


def image(id_: str, top: str = "", names: tuple[str, ...] = (), **more) -> ev.ImageCreated:
    fields = {
        "names_history": (),
        "metadata": "",
        "digest": "",
        "created_ns": 1,
        "flags": {},
        "big_data": (),
    }
    return ev.ImageCreated(id=id_, top_layer=top, names=names, **(fields | more))


def replay(*events: ev.Event) -> State:
    state = State()
    for sequence, event in enumerate(events, 1):
        apply(state, event, sequence)
    return state


def test_names_history_follows_the_rule_of_the_original():
    state = replay(
        image("i", names=("a", "b")),
        ev.NamesAdded(Kind.IMAGE, "i", ("d", "c")),
    )
    assert state.image("i").names == ("d", "c", "a", "b")
    assert state.image("i").names_history == ("b", "a", "c", "d")
    apply(state, ev.NamesRemoved(Kind.IMAGE, "i", ("c",)), 3)
    assert state.image("i").names == ("d", "a", "b")
    assert state.image("i").names_history == ("b", "a", "d", "c")


def test_a_name_moves_from_its_holder_without_complaint():
    state = replay(
        layer("one", names=("n", "m")), layer("two"), ev.NamesAdded(Kind.LAYER, "two", ("n",))
    )
    assert state.layer("one").names == ("m",)
    assert state.resolve(Kind.LAYER, "n") == "two"


def test_id_beats_name_beats_unique_prefix():
    state = replay(
        layer("aaa111"),
        layer("aaa222", names=("aaa",)),
        layer("bbb"),
        layer("bbbccc"),
        layer("x y"),
    )
    assert state.resolve(Kind.LAYER, "aaa") == "aaa222"
    assert state.resolve(Kind.LAYER, "aa") is None
    assert state.resolve(Kind.LAYER, "bbb") == "bbb"
    assert state.resolve(Kind.LAYER, "bbbc") == "bbbccc"
    assert state.resolve(Kind.LAYER, "x") is None
    assert state.resolve(Kind.LAYER, "x y") == "x y"
    assert state.resolve(Kind.LAYER, "") is None


def test_an_image_keeps_the_digest_of_its_first_manifest():
    first = BigDataItem("manifest", 1, "sha256:" + "1" * 64, HEX)
    second = first._replace(digest="sha256:" + "2" * 64)
    state = replay(
        image("i"),
        ev.BigDataSet(Kind.IMAGE, "i", first),
        ev.BigDataSet(Kind.IMAGE, "i", second),
    )
    assert state.image("i").digest == first.digest
    assert list(state.images_by_digest(first.digest)) == ["i"]
    assert list(state.images_by_digest(second.digest)) == ["i"]


def test_deleting_everything_leaves_only_the_facts():
    item = BigDataItem("k", 1, "sha256:" + "1" * 64, HEX)
    diff = DiffSummary(uncompressed_digest="sha256:" + "3" * 64, recipe="cd" * 32)
    state = replay(
        ev.StoreInitialised("vfs"),
        layer("l", names=("n",), diff=diff, big_data=(item,)),
        layer("m", parent="l"),
        image("i", "m", ("n",), big_data=(item,)),
        ev.ContainerCreated("c", ("n",), "i", "m", "", 1, IDMaps(), {}, (item,), False),
        ev.ContainerDeleted("c"),
        ev.ImageDeleted("i"),
        ev.LayerDeleted("m"),
        ev.LayerDeleted("l"),
    )
    assert [key for key, _ in state.entries()] == [b"#c", b"#i", b"#l", b"#usage", b"@driver"]
    assert not any(aggregates.usage(state))
    assert state.count(Kind.LAYER) == 0


def test_an_event_about_an_unknown_item_is_refused():
    with pytest.raises(ReplayError, match="'nobody'"):
        replay(ev.LayerDeleted("nobody"))


def test_listing_is_in_creation_order_with_volatile_items_last():
    state = replay(layer("z"), layer("v", volatile=True), layer("a"))
    assert list(state.ids(Kind.LAYER)) == ["z", "a", "v"]


IDS = st.sampled_from(["a", "b", "c", "dd", "d"])
NAMES = st.lists(st.sampled_from(["n", "m", "o", "é"]), max_size=3).map(tuple)
KINDS = st.sampled_from(list(Kind))
ITEMS = st.builds(
    BigDataItem,
    st.sampled_from(["manifest", "k", "Key"]),
    st.integers(0, 5),
    st.sampled_from(["sha256:" + c * 64 for c in "123"]),
    st.sampled_from([c * 64 for c in "ab"]),
)
EVENTS = st.one_of(
    st.builds(layer, IDS, st.sampled_from(["", "a", "b"]), NAMES, volatile=st.booleans()),
    st.builds(image, IDS, st.sampled_from(["", "a", "b"]), NAMES),
    st.builds(ev.NamesSet, KINDS, IDS, NAMES),
    st.builds(ev.NamesAdded, KINDS, IDS, NAMES),
    st.builds(ev.NamesRemoved, KINDS, IDS, NAMES),
    st.builds(ev.MetadataSet, KINDS, IDS, st.text(max_size=3)),
    st.builds(ev.BigDataSet, KINDS, IDS, ITEMS),
    st.builds(ev.LayerDeleted, IDS),
    st.builds(ev.ImageDeleted, IDS),
    st.builds(ev.ImageMappedLayerAdded, IDS, IDS),
    st.builds(ev.ImageMappedLayerRemoved, IDS, IDS),
    st.builds(
        ev.LayerDiffApplied,
        IDS,
        st.sampled_from([DiffSummary(), DiffSummary(uncompressed_digest="sha256:" + "4" * 64)]),
    ),
)


def acceptable(events: list[ev.Event]) -> list[ev.Event]:
    """The events that a store would have let through, in order."""
    state, kept = State(), []
    for event in events:
        if isinstance(event, ev.LayerCreated | ev.ImageCreated):
            kind = Kind.LAYER if isinstance(event, ev.LayerCreated) else Kind.IMAGE
            if any(state.holder(kind, name) for name in event.names):
                continue
        draft = State(state)
        try:
            apply(draft, event, len(kept) + 1)
        except ReplayError:
            continue
        apply(state, event, len(kept) + 1)
        kept.append(event)
    return kept


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=30), st.integers(0, 30))
def test_a_snapshot_in_the_middle_changes_nothing(events, cut):
    events = acceptable(events)
    whole = replay(*events)
    early = replay(*events[:cut])
    resumed = State(SortedTable(list(early.entries())))
    for sequence, event in enumerate(events[cut:], cut + 1):
        apply(resumed, event, sequence)
    assert list(resumed.entries()) == list(whole.entries())
    assert resumed.digest() == whole.digest()
    assert whole.digest() == SortedTable(list(whole.entries())).digest
    for prefix in (b"", b"N", b"Ol", b"L"):
        assert list(resumed.scan(prefix)) == list(whole.scan(prefix))
        assert list(resumed.scan(prefix, reverse=True)) == list(whole.scan(prefix))[::-1]


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=20))
def test_a_draft_shows_its_events_and_leaves_the_state_alone(events):
    events = acceptable(events)
    base = replay(*events[: len(events) // 2])
    before = list(base.entries())
    draft = State(base)
    for sequence, event in enumerate(events[len(events) // 2 :], len(events) // 2 + 1):
        apply(draft, event, sequence)
    assert list(base.entries()) == before
    assert list(draft.scan(b"")) == list(replay(*events).scan(b""))


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_an_event_survives_its_stored_form(event):
    assert codec.decode(codec.encode(event)) == event
    assert codec.describe(event).split()[0].islower()


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=15))
def test_every_value_survives_its_stored_form(events):
    state = replay(*acceptable(events))
    for key, value in state.scan(b""):
        assert values.decode(key, values.encode(value)) == value


def test_one_more_name_costs_the_same_whatever_the_item_has(monkeypatch):
    """It does not put the others once more, and their history keeps its order."""
    names = tuple(f"name{number}" for number in range(500))
    state = State()
    apply(state, image("i", names=names), 1)
    apply(state, ev.NamesSet(Kind.IMAGE, "i", names), 2)
    changed: list[bytes] = []
    put = State.put
    monkeypatch.setattr(State, "put", lambda s, k, v: (changed.append(k), put(s, k, v)))
    apply(state, ev.NamesAdded(Kind.IMAGE, "i", ("one", "more")), 3)
    assert sorted(changed) == [b"Ii", b"Nimore", b"Nione"]
    found = state.image("i")
    assert found is not None
    assert found.names == ("one", "more", *names)
    assert found.names_history == (*reversed(names), "more", "one")


@given(
    st.lists(st.sampled_from("abcdef"), max_size=4),
    st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=3), max_size=5),
    st.lists(st.sampled_from("abcdefg"), max_size=3),
)
def test_added_names_are_those_of_one_who_sets_them_all(history, added, removed):
    """The short way and the long one give the same entries."""
    quick, plain = State(), State()
    for state in (quick, plain):
        apply(state, image("i", names=("x", "a"), names_history=tuple(history)), 1)
        apply(state, image("other", names=("f", "g")), 2)
    for number, names in enumerate(added):
        if number == 2:
            for state in (quick, plain):
                apply(state, ev.NamesRemoved(Kind.IMAGE, "i", tuple(removed)), 8)
        found = plain.image("i")
        assert found is not None
        apply(quick, ev.NamesAdded(Kind.IMAGE, "i", tuple(names)), 9)
        apply(plain, ev.NamesSet(Kind.IMAGE, "i", (*names, *found.names)), 9)
        assert list(quick.entries()) == list(plain.entries())
