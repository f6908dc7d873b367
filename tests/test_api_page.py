"""docs/api.md is what tools/api makes of the sources, and leaves nothing public unexplained."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

# The page's maker stands beside its programme.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))

import api_page


def test_the_page_is_what_the_tool_makes() -> None:
    assert api_page.PAGE.read_text() == api_page.render(), "docs/api.md is stale: run tools/api"


ELSEWHERE = ("Several changes as one", "Backends")
"""Sections whose classes pass calls on, and say in their documentation to whom."""


def test_whatever_can_be_called_is_explained() -> None:
    bare = []
    for section in api_page.render().split("\n## ")[1:]:
        for line, following in pairwise(section.splitlines()):
            call = line.startswith("* `") and "(" in line
            if call and not section.startswith(ELSEWHERE) and not following.startswith("  "):
                bare.append(line)
    assert bare == []


def test_errors_are_told_where_they_are_looked_for() -> None:
    text = api_page.render()
    entry = text.partition("  create_container(")[2].partition("\n* ")[0]
    assert "Raises" in entry
    assert "`containers.create`" not in entry
