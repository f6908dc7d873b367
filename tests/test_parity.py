"""docs/parity.md is what tools/parity makes of the tree, and the gaps are the known ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Helper modules stand beside the tests that use them.
sys.path.append(str(Path(__file__).resolve().parent / "parity"))

import evidence
import original
import parity_page
from parity_page import Row, Table


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    return parity_page.tables()


def test_the_page_is_what_the_tool_makes(tables: list[Table]) -> None:
    stale = "docs/parity.md is stale: run tools/parity and look at what changed"
    assert parity_page.PAGE.read_text() == parity_page.render(tables), stale


def test_what_is_not_there_is_exactly_the_list_of_known_gaps(tables: list[Table]) -> None:
    assert parity_page.missing(tables).keys() == original.GAPS.keys()


def test_every_other_item_has_a_counterpart_and_test_files_that_exist(
    tables: list[Table],
) -> None:
    rows = [row for table in tables for row in table.rows if row.item not in original.GAPS]
    assert all(row.ours for row in rows)
    for row in rows:
        assert row.tests, row.item
        assert all((evidence.TESTS / name).is_file() for name in row.tests), row.item


def test_no_item_is_listed_twice(tables: list[Table]) -> None:
    items = [row.item for table in tables for row in table.rows]
    assert len(items) == len(set(items))


def test_an_item_without_counterpart_or_test_is_missing() -> None:
    rows = [Row("a", "x", ("t.py",)), Row("b", "", ("t.py",)), Row("c", "x", ())]
    assert parity_page.missing([Table("t", rows)]) == {"b": "no counterpart", "c": "no test"}


def test_a_command_that_nobody_runs_has_no_evidence() -> None:
    uses, flags = evidence.commands({"never-run": "--nothing", "layers": "--no-such"}, "")
    assert uses["layers"]
    assert not uses["never-run"]
    assert not flags["layers --no-such"]
    assert not evidence.methods({"no_such_method"})["no_such_method"]
    assert not evidence.errors({"NoSuchError": "no such text at all"})["NoSuchError"]
    assert not evidence.keys()["storage.no_such_key"]
