"""The drawing of ``layers --tree`` (cli.md §3.1). Pure."""

from __future__ import annotations

from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BASE = "(base)"


def draw(pairs: Sequence[tuple[str, str]], notes: Mapping[str, list[str]]) -> Iterator[str]:
    """Lines of the forest given by (parent or "", layer) pairs in list order.

    ``notes`` are the lines below a node. A root is ``(base)`` or a parent that is not listed
    itself; the root with the fewest direct children comes first (first seen among equals).
    """
    children: dict[str, list[str]] = {}
    listed = set()
    for parent, layer in pairs:
        children.setdefault(parent or BASE, []).append(layer)
        listed.add(layer)
    roots = [parent for parent in children if parent not in listed]
    for root in sorted(roots, key=lambda each: len(children[each])):
        yield root
        yield from _below(root, children, notes)


def _below(
    root: str, children: Mapping[str, Sequence[str]], notes: Mapping[str, list[str]]
) -> Iterator[str]:
    """The subtree without its root; depth is bounded by memory, not by Python's stack."""
    pending: list[tuple[str, str, bool]] = []

    def put(parent: str, indent: str) -> None:
        below = children.get(parent, ())
        last = len(below) - 1
        pending.extend((below[at], indent, at == last) for at in range(last, -1, -1))

    put(root, "")
    while pending:
        node, indent, last = pending.pop()
        yield f"{indent}{'└─' if last else '├─'}{node}"
        indent += "  " if last else "│ "
        for note in notes.get(node, ()):
            yield f"{indent}{note}"
        put(node, indent)
