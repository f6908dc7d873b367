"""Which IDs belong together: children of a layer, items with a digest, users of an item.

Rules of this module:

* A group is one entry under its own key: missing while it is empty, the ID of its only member, or
  the number of its members. Only with two or more they have entries of their own, ``group`` +
  place → ID, which are in the group's order.
* So "is there any, and which?" is one look-up for nearly every group, whatever the store's size;
  searching is left to groups that have something to search.
* Putting a member in twice, or taking out what is no member, changes nothing.
"""

from __future__ import annotations

from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cstorage.state import State

    Place = Callable[[str], bytes]
    """Where in the group's order an ID stands; not empty, different for every ID."""


def add(state: State, group: bytes, id_: str, place: Place) -> None:
    """``id_`` becomes a member."""
    found: str | int | None = state.get(group)
    if found is None:
        state.put(group, id_)
    elif isinstance(found, str):
        if found != id_:
            state.put(group, 2)
            state.put(group + place(found), found)
            state.put(group + place(id_), id_)
    else:
        entry = group + place(id_)
        if state.get(entry) is None:
            state.put(group, found + 1)
            state.put(entry, id_)


def remove(state: State, group: bytes, id_: str, place: Place) -> None:
    """``id_`` is no member any more."""
    found: str | int | None = state.get(group)
    if isinstance(found, str):
        if found == id_:
            state.remove(group)
    elif found is not None:
        entry = group + place(id_)
        if state.get(entry) is None:
            return
        state.remove(entry)
        if found > 2:
            state.put(group, found - 1)
            return
        left = list(_entries(state, group))
        for key, last in left:
            state.remove(key)
            state.put(group, last)


def members(state: State, group: bytes) -> Iterator[str]:
    """The IDs in the group's order."""
    found: str | int | None = state.get(group)
    if isinstance(found, str):
        yield found
    elif found is not None:
        for _, id_ in _entries(state, group):
            yield id_


def size(state: State, group: bytes) -> int:
    """How many members there are."""
    found: str | int | None = state.get(group)
    return found if isinstance(found, int) else 1 if found is not None else 0


def _entries(state: State, group: bytes) -> Iterator[tuple[bytes, str]]:
    for key, id_ in state.scan(group):
        if key != group:
            yield key, id_
