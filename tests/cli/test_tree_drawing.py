"""The drawing of ``layers --tree`` (cli.md §3.1, both samples)."""

from __future__ import annotations

from cstorage.cli.tree import draw

SAMPLE = """\
(base)
├─base
│ name: base-name
│ ├─top
│ │ name: top-name
│ │ image: img1
│ │ image name: img1-name
│ │ └─leaf
│ │   container: c1
│ │   container name: c1-name
│ └─top2
└─solo
  └─solochild"""

ORPHANS = """\
mid
└─top
  image: img
  image name: in
(base)
├─base
└─solo"""


def test_nodes_stand_under_their_parents_with_their_notes():
    pairs = [
        ("", "base"),
        ("base", "top"),
        ("top", "leaf"),
        ("base", "top2"),
        ("", "solo"),
        ("solo", "solochild"),
    ]
    notes = {
        "base": ["name: base-name"],
        "top": ["name: top-name", "image: img1", "image name: img1-name"],
        "leaf": ["container: c1", "container name: c1-name"],
    }
    assert "\n".join(draw(pairs, notes)) == SAMPLE


def test_children_of_a_missing_parent_are_a_tree_of_their_own_smallest_first():
    pairs = [("", "base"), ("mid", "top"), ("", "solo")]
    assert "\n".join(draw(pairs, {"top": ["image: img", "image name: in"]})) == ORPHANS


def test_a_chain_deeper_than_the_stack_is_drawn():
    pairs = [(f"{n - 1}" if n else "", f"{n}") for n in range(5000)]
    lines = list(draw(pairs, {}))
    assert len(lines) == 5001
    assert lines[-1] == "  " * 4999 + "└─4999"


def test_no_layers_draw_nothing():
    assert list(draw([], {})) == []
