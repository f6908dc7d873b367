"""Who gave an item what it has now: for every name, flag, blob and text the event it comes from."""

from __future__ import annotations

from cstorage import events as ev
from cstorage.errors import NotAnID
from cstorage.state import keys
from cstorage.store import history, lookup
from journal.plain import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cstorage.store.core import Core


class Origin(NamedTuple):
    """One thing that an item has, and the event that gave it.

    ``what`` is ``created``, ``content``, ``name``, ``metadata``, ``flag``, ``data``,
    ``mapped layer`` or ``pin``; ``which`` is the name, the flag's or blob's key, the layer's ID or
    who pinned it, "" for things that an item has one of.
    """

    what: str
    which: str
    entry: ev.HistoryEntry


_Found = dict[tuple[str, str], ev.HistoryEntry]


def of(core: Core, key: str) -> list[Origin]:
    """Origins of everything that the item has, oldest first. Raises ``NotAnID``.

    Reads the whole journal. What is older than the journal's first frame is left out.
    """
    with core.mutex:
        state = core.state
        target = lookup.any_item(state, key)
        if target is None:
            raise NotAnID
        item: Any = state.get(keys.record(*target))
        newest = core.position.sequence
    found: _Found = {}
    for entry in history.everything(core):
        if entry.sequence > newest:
            break
        if ev.subject(entry.event) == target:
            _note(found, entry)
        elif isinstance(entry.event, ev.NamesSet | ev.NamesAdded) and entry.event.kind is target[0]:
            for name in entry.event.names:  # taken away by another item
                found.pop(("name", name), None)
    found = {where: entry for where, entry in found.items() if _has(item, *where)}
    order = sorted(found, key=lambda where: found[where].sequence)
    return [Origin(*where, found[where]) for where in order]


def _has(item: Any, what: str, which: str) -> bool:
    """Names that went in a way that no event of the item tells are not the item's any more."""
    return what != "name" or which in item.names


def _note(found: _Found, entry: ev.HistoryEntry) -> None:
    event = entry.event
    match event:
        case ev.LayerCreated() | ev.ImageCreated() | ev.ContainerCreated():
            found.clear()
            found["created", ""] = entry
            _names(found, entry, event.names)
            _flags(found, entry, event.flags, {})
            for item in event.big_data:
                found["data", item.name] = entry
            if event.metadata:
                found["metadata", ""] = entry
            if isinstance(event, ev.LayerCreated) and event.diff.uncompressed_digest:
                found["content", ""] = entry
        case ev.LayerDiffApplied():
            found["content", ""] = entry
        case ev.NamesSet():
            for what, which in list(found):
                if what == "name" and which not in event.names:
                    del found[what, which]
            _names(found, entry, event.names)
        case ev.NamesAdded():
            _names(found, entry, event.names)
        case ev.NamesRemoved():
            for name in event.names:
                found.pop(("name", name), None)
        case ev.MetadataSet():
            found["metadata", ""] = entry
        case ev.BigDataSet():
            found["data", event.item.name] = entry
        case ev.FlagsSet():
            before = {which: found[what, which] for what, which in found if what == "flag"}
            _flags(found, entry, event.flags, before)
        case ev.ImageMappedLayerAdded():
            found["mapped layer", event.layer] = entry
        case ev.ImageMappedLayerRemoved():
            found.pop(("mapped layer", event.layer), None)
        case ev.Pinned():
            found["pin", event.by] = entry
        case ev.Unpinned():
            found.pop(("pin", event.by), None)
        case _:  # the store's own, deletions, and images that move: no part of what an item has
            pass


def _names(found: _Found, entry: ev.HistoryEntry, names: tuple[str, ...]) -> None:
    for name in names:
        found.setdefault(("name", name), entry)


def _flags(
    found: _Found, entry: ev.HistoryEntry, flags: Any, before: dict[str, ev.HistoryEntry]
) -> None:
    """A flag that an event of all flags leaves as it was keeps its origin."""
    for which, old in before.items():
        then: Any = old.event
        if which not in flags:
            del found["flag", which]
        elif then.flags[which] != flags[which]:
            found["flag", which] = entry
    for which in flags:
        found.setdefault(("flag", which), entry)
