"""ID maps: text, subordinate files, translation, overlaps, automatic allocation."""

from __future__ import annotations

import pwd
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cstorage import idmap
from cstorage.errors import InvalidMappings, NoAvailableIDs
from cstorage.idmap import IDMapError
from cstorage.model import IDMap, IDMapEntry, IDMaps

if TYPE_CHECKING:
    from pathlib import Path


def entries(*triples: tuple[int, int, int]) -> IDMap:
    return tuple(IDMapEntry(*triple) for triple in triples)


def test_triples_may_be_joined_and_empty_texts_are_skipped() -> None:
    assert idmap.parse(["0:100000:1000:1000:5000:10", "", "7:8:9"]) == entries(
        (0, 100000, 1000), (1000, 5000, 10), (7, 8, 9)
    )


@pytest.mark.parametrize(
    "text", ["0:1", "0:-1:2", "a:1:2", "0:1:2:3", "0:1:4294967296", "0: 1:2", "٠:1:2", ":1:2"]
)
def test_a_malformed_map_is_quoted_in_the_error(text: str) -> None:
    expected = (
        "initializing ID mappings: gid setting is malformed expected"
        f' ["uint32:uint32:uint32"]: ["{text}"]'
    )
    with pytest.raises(IDMapError) as caught:
        idmap.parse([text], "gid")
    assert str(caught.value) == expected


def test_the_first_entry_that_holds_an_id_decides() -> None:
    id_map = entries((0, 1000, 10), (5, 2000, 10))
    assert idmap.to_host(7, id_map) == 1007
    assert idmap.to_host(12, id_map) == 2007
    assert idmap.to_container(2001, id_map) == 6
    with pytest.raises(IDMapError, match=r"^container ID 99 cannot be mapped to a host ID$"):
        idmap.to_host(99, id_map)
    with pytest.raises(IDMapError, match=r"^host ID 99 cannot be mapped to a container ID$"):
        idmap.to_container(99, id_map)


def test_no_map_is_the_identity() -> None:
    assert (idmap.to_host(5, ()), idmap.to_container(5, ())) == (5, 5)
    assert idmap.root_pair(IDMaps()) == (0, 0)


def test_a_single_id_is_root_whatever_it_is_called_inside() -> None:
    assert idmap.root_id(entries((5, 1000, 1))) == 1000
    with pytest.raises(IDMapError, match=r"^container ID 0 cannot be mapped to a host ID$"):
        idmap.root_id(entries((5, 1000, 2)))


@pytest.mark.parametrize(
    ("id_map", "expected"),
    [
        (entries((0, 100, 10), (10, 200, 10)), None),
        (entries((0, 100, 10), (9, 200, 10)), "UID mappings 0:100:10, 9:200:10 overlap"),
        (entries((0, 100, 10), (10, 109, 10)), "UID mappings 0:100:10, 10:109:10 overlap"),
        (
            entries((0, 0, 100), (200, 10, 1), (300, 500, 1), (400, 20, 1)),
            "UID mappings 0:0:100, 200:10:1, 400:20:1 overlap",
        ),
    ],
)
def test_overlapping_ranges_are_listed(id_map: IDMap, expected: str | None) -> None:
    if expected is None:
        idmap.check_overlaps(id_map)
        return
    with pytest.raises(InvalidMappings) as caught:
        idmap.check_overlaps(id_map)
    assert str(caught.value) == f"{expected}: invalid mappings specified"


SUBUID = "# ranges\n\nfoo:70000:10\nfoo:50000:5\nbar:1:1\n1001:9000:3\n"


def test_subordinate_ranges_are_sorted_and_laid_out_from_zero() -> None:
    ranges = idmap.subordinate_ranges(SUBUID, "foo", 1001)
    assert ranges == ((9000, 3), (50000, 5), (70000, 10))
    assert idmap.ranges_map(ranges) == entries((0, 9000, 3), (3, 50000, 5), (8, 70000, 10))


def test_the_owner_all_matches_every_line() -> None:
    assert len(idmap.subordinate_ranges(SUBUID, "ALL")) == 4


@pytest.mark.parametrize("line", ["foo:1", "foo:1:2:3", "foo:x:1"])
def test_a_line_that_is_no_range_is_refused(line: str) -> None:
    with pytest.raises(IDMapError, match="line 1"):
        idmap.subordinate_ranges(line, "foo")


def test_numbers_of_other_owners_are_not_looked_at() -> None:
    assert idmap.subordinate_ranges("bar:x:y\nfoo:1:2", "foo") == ((1, 2),)


def test_one_owner_and_one_list_stand_for_the_other_and_ranges_come_first(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("zzz:500:5\n")
    (tmp_path / "subgid").write_text("zzz:600:6\n")
    result = idmap.requested(
        ["9:9:9"],
        subuid_owner="zzz",
        subuid_path=str(tmp_path / "subuid"),
        subgid_path=str(tmp_path / "subgid"),
    )
    assert result == (
        False,
        False,
        IDMaps(entries((0, 500, 5), (9, 9, 9)), entries((0, 600, 6), (9, 9, 9))),
    )
    with pytest.raises(IDMapError) as caught:
        idmap.requested(subuid_owner="nobody-here", subuid_path=str(tmp_path / "subuid"))
    assert str(caught.value) == (
        f'no subuid ranges found for user "nobody-here" in {tmp_path / "subuid"}'
    )


def test_a_users_number_stands_for_him_among_the_groups_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = pwd.struct_passwd(("someone", "x", 4711, 815, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: user)
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("815:100:1\n4711:500:5\n")
    result = idmap.requested(
        subuid_owner="someone",
        subuid_path=str(tmp_path / "subuid"),
        subgid_path=str(tmp_path / "subgid"),
    )
    assert result.maps == IDMaps(entries((0, 500, 5)), entries((0, 500, 5)))


def test_a_user_who_asks_for_nothing_gets_himself() -> None:
    assert idmap.requested(own_ids=(1000, 1001)).maps == IDMaps(
        entries((0, 1000, 1)), entries((0, 1001, 1))
    )
    assert idmap.requested() == (True, True, IDMaps())


def test_allocation_takes_the_lowest_free_ids_and_appends_additional_maps() -> None:
    available = [(100000, 103000)]
    used = [(101024, 102048)]
    assert idmap.allocate(available, used, 500, entries((0, 0, 1))) == entries(
        (1, 100000, 499), (0, 0, 1)
    )
    assert idmap.allocate(available, used, 1500) == entries((0, 100000, 1024), (1024, 102048, 476))


def test_allocation_fails_when_ids_run_out() -> None:
    with pytest.raises(NoAvailableIDs, match=r"^not enough unused IDs in user namespace$"):
        idmap.allocate([(100000, 103000)], [(101024, 102048)], 1977)
    with pytest.raises(NoAvailableIDs):
        idmap.allocate([], [], 1)


intervals = st.lists(
    st.tuples(st.integers(0, 300), st.integers(1, 60)).map(lambda p: (p[0], p[0] + p[1])),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(available=intervals, used=intervals, size=st.integers(1, 120))
def test_allocated_ids_are_free_distinct_and_as_many_as_asked(
    available: list[tuple[int, int]], used: list[tuple[int, int]], size: int
) -> None:
    free = {n for a, b in available for n in range(a, b)} - {
        n for a, b in used for n in range(a, b)
    }
    if len(free) < size:
        with pytest.raises(NoAvailableIDs):
            idmap.allocate(available, used, size)
        return
    result = idmap.allocate(available, used, size)
    inside = [n for e in result for n in range(e.container_id, e.container_id + e.size)]
    outside = [n for e in result for n in range(e.host_id, e.host_id + e.size)]
    assert inside == list(range(size))
    assert outside == sorted(free)[:size]
    idmap.check_overlaps(result)


def test_the_automatic_size_has_bounds_that_an_explicit_size_ignores() -> None:
    assert idmap.automatic_size(0, 0, 0) == 1024
    assert idmap.automatic_size(0, 2000, 3000) == 3000
    assert idmap.automatic_size(1, 0, 5000) == 1
    with pytest.raises(IDMapError, match=r"70000.*65536"):
        idmap.automatic_size(0, 0, 70000)


def test_every_second_of_consecutive_ids_is_missed_as_in_the_original() -> None:
    assert idmap.highest_listed([1, 2]) == 2
    assert idmap.highest_listed([0]) == 0
    assert idmap.highest_listed([65534, 10]) == 11
