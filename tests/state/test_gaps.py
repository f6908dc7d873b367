"""Runs of removed entries: jumped over, and never more than what is gone."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from cstorage.state import State
from cstorage.state.gaps import LEAST
from cstorage.state.levels import Levels
from journal.codec import encode

PREFIX = b"Ol0"


class Rows:
    """A table in memory that counts the entries it was asked for."""

    digest = bytes(32)

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self.rows = dict(sorted(rows.items()))
        self.passed = 0

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return {key: self.rows[key] for key in keys if key in self.rows}

    def __len__(self) -> int:
        return len(self.rows)

    def scan(
        self, prefix: bytes, start: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        found = [k for k in self.rows if k.startswith(prefix) and (reverse or k >= start)]
        for key in reversed(found) if reverse else found:
            self.passed += 1
            yield key, self.rows[key]


def key(number: int) -> bytes:
    return PREFIX + number.to_bytes(8, "big")


def table(count: int) -> Rows:
    return Rows({key(n): encode(f"id{n}") for n in range(count)})


def first(state: State, count: int) -> list[str]:
    found = state.scan(PREFIX)
    return [value for _, (_, value) in zip(range(count), found, strict=False)]


def test_a_listing_passes_what_was_deleted_before_it_once():
    rows = table(3000)
    state = State(rows)
    for number in range(2000):
        state.remove(key(number))
    for _ in range(2):
        rows.passed = 0
        assert first(state.frozen(), 3) == ["id2000", "id2001", "id2002"]
    assert rows.passed < 10


def test_the_same_of_levels():
    rows = table(3000)
    gone = Rows({key(number): b"" for number in range(100, 2000)})
    levels = Levels([rows, gone])
    whole = [key(n) for n in (*range(100), *range(2000, 3000))]
    assert [k for k, _ in levels.scan(PREFIX)] == whole
    rows.passed = gone.passed = 0
    assert [k for k, _ in levels.scan(PREFIX)] == whole
    assert gone.passed < 10
    assert rows.passed < len(whole) + 10
    assert [k for k, _ in levels.scan(PREFIX, reverse=True)] == whole[::-1]


def test_what_was_put_into_a_run_is_found():
    state = State(table(1000))
    for number in range(900):
        state.remove(key(number))
    assert first(state, 1) == ["id900"]
    before = state.frozen()
    state.put(key(450), "new")
    assert first(state, 2) == ["new", "id900"]
    assert first(before, 1) == ["id900"], "a view does not change"
    state.remove(key(450))
    assert first(state, 1) == ["id900"]


def test_everything_deleted_is_passed_once():
    rows = table(1000)
    state = State(rows)
    for number in range(1000):
        state.remove(key(number))
    assert first(state, 1) == []
    rows.passed = 0
    assert first(state, 1) == []
    assert rows.passed < 5


def test_a_view_is_not_changed_and_does_not_change():
    state = State(table(10))
    view = state.frozen()
    state.remove(key(0))
    view.put(key(1), "mine")
    assert first(state, 2) == ["id1", "id2"]
    assert first(view, 2) == ["id0", "mine"]


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_changes_views_and_scans(seed):
    """Compared with a dictionary; runs are long enough to be noted, and are filled again."""
    chance = random.Random(seed)
    count = 6 * LEAST
    base: dict[bytes, object] = {}
    tables: list[Rows] = [table(count)]
    base.update({key(n): f"id{n}" for n in range(count)})
    if seed % 2:
        gone = range(LEAST, 3 * LEAST)
        tables.append(Rows({key(n): b"" for n in gone}))
        for n in gone:
            del base[key(n)]
    state: State = State(Levels(tables))
    if seed % 3 == 0:
        state = State(state)
    model = dict(base)
    views: list[tuple[State, dict[bytes, object]]] = []
    for _ in range(60):
        match chance.randrange(5):
            case 0:
                begin = chance.randrange(count)
                for n in range(begin, min(count, begin + chance.randrange(2 * LEAST))):
                    state.remove(key(n))
                    model.pop(key(n), None)
            case 1:
                n = chance.randrange(count)
                state.put(key(n), f"new{n}")
                model[key(n)] = f"new{n}"
            case 2:
                views.append((state.frozen(), dict(model)))
            case _:
                start = chance.choice([b"", key(chance.randrange(count))])
                for seen, wanted in [(state, model), *views[-3:]]:
                    rows = sorted(wanted.items())
                    assert list(seen.scan(PREFIX, start)) == [r for r in rows if r[0] >= start]
                    assert list(seen.scan(PREFIX, reverse=True)) == rows[::-1]
