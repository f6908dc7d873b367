"""Identifiers, names, lookup: rows 1 to 32 of the checklist (semantics §12.1).

Rows 33 to 35 are about files of the original and stand in ``test_checklist_foreign.py``.
"""

from __future__ import annotations

import os
import re

import pytest

from cstorage.errors import (
    ContainerUnknown,
    DuplicateID,
    DuplicateName,
    ImageUnknown,
    LayerUnknown,
    StorageError,
)
from cstorage.store import core
from tests.store.place import ids

KINDS = ("layer", "image", "container")


def make(store, kind, **more):
    """A layer, image or container; images and containers rest on nothing."""
    return {
        "layer": store.create_layer,
        "image": store.create_image,
        "container": store.create_container,
    }[kind](**more)


def unknown(kind):
    return {"layer": LayerUnknown, "image": ImageUnknown, "container": ContainerUnknown}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_generated_ids_are_64_lower_case_hex_digits(store, kind):
    """Row 1."""
    assert re.fullmatch("[0-9a-f]{64}", make(store, kind).id)


def test_no_generated_id_starts_with_12_decimal_digits(monkeypatch):
    """Row 2."""
    drawn = [bytes.fromhex("123456789012" + "ab" * 26), bytes.fromhex("12345678901a" + "ab" * 26)]
    monkeypatch.setattr(os, "urandom", lambda n: drawn.pop(0))
    assert core.new_id().startswith("12345678901a")
    assert drawn == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("id_", ["short", "dotted.word", "with a blank", "ünïcode", "-x"])
def test_any_text_that_is_one_path_component_is_accepted_as_id(store, kind, id_):
    """Row 3. Texts that would leave the store as a path are refused (docs/differences.md)."""
    assert make(store, kind, id=id_).id == id_
    assert getattr(store, kind)(id_).id == id_


def test_a_layer_id_in_use_is_refused_and_the_first_layer_stays(store):
    """Row 4. The call raises; ``layer`` hands back the first one."""
    first = store.create_layer("twice", names=["first"])
    with pytest.raises(DuplicateID):
        store.create_layer("twice", names=["second"])
    assert store.layer("twice") == first
    assert ids(store.layers()) == ["twice"]


def test_an_image_id_in_use_is_refused(store):
    """Row 5."""
    store.create_image("twice")
    with pytest.raises(DuplicateID, match='an image with ID "twice" already exists'):
        store.create_image("twice")
    assert ids(store.images()) == ["twice"]


def test_a_container_id_in_use_is_refused_and_leaves_no_layer(store):
    """Row 6."""
    store.create_container(id="twice")
    before = ids(store.layers()), store.storage_layers()
    with pytest.raises(DuplicateID):
        store.create_container(id="twice")
    assert (ids(store.layers()), store.storage_layers()) == before


def test_a_container_cannot_take_a_layer_id_in_use(store):
    """Row 7."""
    store.create_layer("taken")
    with pytest.raises(DuplicateID):
        store.create_container(layer_id="taken")
    assert ids(store.containers()) == []


def test_one_id_may_stand_for_a_layer_an_image_and_a_container(store):
    """Row 8."""
    layer = store.create_layer("same")
    image = store.create_image("same")
    container = store.create_container(id="same")
    assert store.layer("same") == layer
    assert store.image("same") == image
    assert store.container("same") == container


@pytest.mark.parametrize("kind", KINDS)
def test_creation_never_steals_a_name(store, kind):
    """Row 9."""
    make(store, kind, id="first", names=["taken"])
    with pytest.raises(DuplicateName):
        make(store, kind, id="second", names=["free", "taken"])
    assert store.names("first") == ("taken",)
    assert not store.exists("second")


def test_one_name_may_stand_for_one_item_of_each_kind(store):
    """Row 10."""
    made = {kind: make(store, kind, names=["shared"]) for kind in KINDS}
    for kind, item in made.items():
        assert getattr(store, kind)("shared").id == item.id


def test_lookups_of_any_kind_prefer_layers_then_images_then_containers(store):
    """Row 11."""
    layer, image, container = (make(store, kind, names=["shared"]).id for kind in KINDS)
    assert store.lookup("shared") == layer
    store.delete_layer(layer)
    assert store.lookup("shared") == image
    store.delete_image(image)
    assert store.lookup("shared") == container
    store.delete_container(container)
    with pytest.raises(LayerUnknown):
        store.lookup("shared")


@pytest.mark.parametrize("kind", KINDS)
def test_names_given_twice_at_creation_are_kept_once(store, place, kind):
    """Rows 12 and 13. A layer keeps its doubled name, where the original loses it (Q-02)."""
    id_ = make(store, kind, names=["b", "a", "b"]).id
    assert store.names(id_) == ("b", "a")
    assert place.reopen(store).names(id_) == ("b", "a")


@pytest.mark.parametrize("name", ["MiXed", " two  blanks ", "a:b:c", "x/y@z", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_names_are_not_normalised(store, kind, name):
    """Row 14."""
    id_ = make(store, kind, names=[name]).id
    assert getattr(store, kind)(name).id == id_
    with pytest.raises(unknown(kind)):
        getattr(store, kind)(name.swapcase() + ":latest")


@pytest.mark.parametrize("kind", KINDS)
def test_added_names_come_first(store, kind):
    """Row 15."""
    make(store, kind, id="it", names=["a", "b"])
    store.add_names("it", ["d", "c"])
    assert store.names("it") == ("d", "c", "a", "b")


def test_adding_a_name_again_moves_it_to_the_front(store):
    """Row 16."""
    store.create_layer("it", names=["a", "b", "c"])
    store.add_names("it", ["c"])
    assert store.names("it") == ("c", "a", "b")


@pytest.mark.parametrize("kind", KINDS)
def test_adding_takes_a_name_from_a_sibling_of_the_kind_only(store, kind):
    """Row 17."""
    other = KINDS[KINDS.index(kind) - 1]
    make(store, kind, id="holder", names=["x", "keep"])
    make(store, other, id="other kind", names=["x"])
    make(store, kind, id="taker")
    store.add_names("taker", ["x"])
    assert store.names("taker") == ("x",)
    assert store.names("holder") == ("keep",)
    assert store.names("other kind") == ("x",)


@pytest.mark.parametrize("kind", KINDS)
def test_setting_replaces_all_names_and_an_empty_list_clears(store, kind):
    """Row 18."""
    make(store, kind, id="it", names=["old"])
    store.set_names("it", ["new", "new", "newer"])
    assert store.names("it") == ("new", "newer")
    assert not store.exists("old")
    store.set_names("it", [])
    assert store.names("it") == ()
    assert not store.exists("new")


def test_removing_absent_names_is_silent(store):
    """Row 19."""
    store.create_image("it", names=["a"])
    store.remove_names("it", ["absent"])
    assert store.names("it") == ("a",)


@pytest.mark.parametrize("kind", KINDS)
def test_removed_names_are_free(store, kind):
    """Row 20."""
    make(store, kind, id="it", names=["a", "b"])
    store.remove_names("it", ["a"])
    assert make(store, kind, id="next", names=["a"]).names == ("a",)


@pytest.mark.parametrize("how", ["set_names", "add_names", "remove_names"])
def test_changing_names_of_what_is_unknown(store, how):
    """Row 21."""
    with pytest.raises(LayerUnknown):
        getattr(store, how)("nothing", ["a"])


def test_names_of_what_is_unknown(store):
    """Row 22."""
    with pytest.raises(LayerUnknown):
        store.names("nothing")


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_wins_over_a_name(store, kind):
    """Row 23."""
    make(store, kind, id="first")
    make(store, kind, id="second", names=["first"])
    assert getattr(store, kind)("first").id == "first"


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_wins_over_a_prefix(store, kind):
    """Row 24."""
    make(store, kind, id="abcdef")
    make(store, kind, id="other", names=["abc"])
    assert getattr(store, kind)("abc").id == "other"
    assert getattr(store, kind)("abcd").id == "abcdef"


@pytest.mark.parametrize("kind", KINDS)
def test_a_unique_prefix_stands_for_the_id(store, kind):
    """Row 25. Case matters."""
    make(store, kind, id="abcdef")
    assert getattr(store, kind)("a").id == "abcdef"
    with pytest.raises(unknown(kind)):
        getattr(store, kind)("A")


@pytest.mark.parametrize("kind", KINDS)
def test_an_ambiguous_prefix_is_unknown(store, kind):
    """Row 26."""
    make(store, kind, id="abc1")
    make(store, kind, id="abc2")
    with pytest.raises(unknown(kind)):
        getattr(store, kind)("abc")


@pytest.mark.parametrize("kind", KINDS)
def test_an_exact_id_that_begins_others_stands_for_itself(store, kind):
    """Row 27."""
    make(store, kind, id="xy")
    make(store, kind, id="x")
    assert getattr(store, kind)("x").id == "x"


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_with_a_blank_has_no_prefixes(store, kind):
    """Row 28."""
    make(store, kind, id="one two")
    assert getattr(store, kind)("one two").id == "one two"
    with pytest.raises(unknown(kind)):
        getattr(store, kind)("one")


def test_the_empty_key_is_no_prefix(store):
    """§2.3: the empty key never matches by prefix."""
    store.create_layer("only")
    with pytest.raises(LayerUnknown):
        store.layer("")


def test_a_container_answers_to_its_layers_full_id_only(store):
    """Row 29."""
    container = store.create_container(id="box", layer_id="its-layer", names=["n"])
    assert store.container("its-layer") == container
    with pytest.raises(ContainerUnknown):
        store.container("its-lay")


def test_creation_does_not_feed_the_names_history(store):
    """Row 30. The creation option does, as it is."""
    assert store.create_image(names=["a", "b"]).names_history == ()
    seeded = store.create_image(names=["c"], names_history=["x", "y", "x"])
    assert seeded.names_history == ("x", "y", "x")


def test_the_names_history_is_newest_first(store):
    """Row 31: the example of semantics §2.5 with other names."""
    store.create_image("it", names=["ash", "birch"])
    store.add_names("it", ["dogwood", "cedar"])
    assert store.names("it") == ("dogwood", "cedar", "ash", "birch")
    assert store.image("it").names_history == ("birch", "ash", "cedar", "dogwood")
    store.remove_names("it", ["cedar"])
    assert store.names("it") == ("dogwood", "ash", "birch")
    assert store.image("it").names_history == ("birch", "ash", "dogwood", "cedar")


def test_a_lost_name_stays_in_the_losers_history(store):
    """Row 32."""
    store.create_image("loser")
    store.create_image("winner")
    store.add_names("loser", ["prize"])
    store.add_names("winner", ["prize"])
    assert store.names("loser") == ()
    assert store.image("loser").names_history == ("prize",)
    assert store.image("winner").names_history == ("prize",)


LARGE = 17 << 20
FLAGS = {"flag": "x" * LARGE}


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("layer here: metadata of", lambda s: s.set_metadata("here", "x" * LARGE)),
        ("layer here: names of", lambda s: s.set_names("here", ["x" * LARGE])),
        ("image new: metadata of", lambda s: s.create_image("new", metadata="x" * LARGE)),
        ("container new: flags of", lambda s: s.create_container(id="new", flags=FLAGS)),
    ],
)
def test_what_no_change_can_hold_is_named_with_the_way_out(place, what, change):
    """And nothing is left of it."""
    store = place.open()
    store.create_layer("here")
    with pytest.raises(StorageError, match=what) as refused:
        change(store)
    assert "16 MiB" in str(refused.value)
    assert "big data" in refused.value.hint
    assert store.layer("here").names == ()
    assert not store.exists("new")
    assert store.check().healthy
    assert store.storage_layers() == ["here"]


def test_many_changes_that_are_too_much_together_are_counted(place):
    store = place.open()
    store.create_layer("here")
    with pytest.raises(StorageError, match=r"3 changes of .* bytes") as refused:
        three_large_changes(store)
    assert "several transactions" in refused.value.hint
    assert store.metadata("here") == ""


def three_large_changes(store):
    with store.transaction() as tx:
        for letter in "abc":
            tx.set_metadata("here", letter * (7 << 20))
