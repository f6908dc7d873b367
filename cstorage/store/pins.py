"""Pins: promises not to delete what somebody outside this store rests on.

An additional store learns nothing of who uses it, so whoever does may say so. A pin is an event of
its own: who, why, since when. While an image or layer is pinned it cannot be deleted, nor can what
it rests on, by whatever way; everything else can be done with it. An item may have pins of several
holders, each of whom takes back their own.
"""

from __future__ import annotations

import os

from cstorage import events as ev
from cstorage.errors import ItemPinned, NotAnID, StorageError, WrongKindError
from cstorage.model import Kind, Pin
from cstorage.store import lookup
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cstorage.state import State
    from cstorage.store.core import Core


def holder() -> str:
    """Who pins if nobody else is named: user and host of this process."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"


def _item(state: State, key: str) -> tuple[Kind, str]:
    found = lookup.any_item(state, key)
    if found is None:
        raise NotAnID(key)
    if found[0] is Kind.CONTAINER:
        raise WrongKindError("containers cannot be pinned", hint="pin its image or layer")
    return found


def pin(core: Core, keys: Sequence[str], *, by: str = "", why: str = "") -> list[Pin]:
    """Pin the images and layers that ``keys`` stand for, all or none; returns their pins.

    ``by`` defaults to the user and host, ``why`` to the reason of the transaction. Pinning again
    with another reason replaces it. Raises ``NotAnID``, ``WrongKindError``.
    """
    by = _name(by)
    made = []
    with core.transaction(why) as tx:
        for key in dict.fromkeys(keys):
            kind, id_ = _item(tx.state, key)
            old = next((pin for pin in tx.state.pins(kind, id_) if pin.by == by), None)
            new = Pin(kind, id_, by, why or tx.reason, tx.now_ns)
            if old is not None and old.why == new.why:
                new = old
            else:
                tx.emit(ev.Pinned(*new))
            made.append(new)
    return made


def unpin(core: Core, keys: Sequence[str], *, by: str = "", everybody: bool = False) -> list[Pin]:
    """Take pins back, all or none; returns them.

    Those of ``by`` (default: user and host), or ``everybody``'s. Raises ``NotAnID``,
    ``StorageError`` where there is no such pin, naming who has one.
    """
    by = _name(by)
    taken = []
    with core.transaction() as tx:
        for key in dict.fromkeys(keys):
            kind, id_ = _item(tx.state, key)
            found = tx.state.pins(kind, id_)
            mine = [pin for pin in found if everybody or pin.by == by]
            if not mine:
                others = ", ".join(pin.by for pin in found)
                who = "" if everybody else f" by {by}"
                raise StorageError(
                    f"{kind.name.lower()} {id_} is not pinned{who}"
                    + (f" but by {others}" if others else ""),
                    hint="name the holder with --by, or take back all pins with --all"
                    if others
                    else "",
                )
            for pin in mine:
                tx.emit(ev.Unpinned(kind, pin.id, pin.by))
            taken += mine
    return taken


def _name(by: str) -> str:
    by = by or holder()
    if not by.isprintable():
        raise StorageError(f"{by!r} cannot be who pins: it has characters that are no text")
    return by


def of(core: Core, key: str = "") -> list[Pin]:
    """All pins, or those of one item, images' first. Raises ``NotAnID``."""
    state = core.state
    return state.pins(*_item(state, key)) if key else state.all_pins()


def check(state: State, kind: Kind, id_: str) -> None:
    """Raise ``ItemPinned`` if the item itself is pinned."""
    for pin in state.pins(kind, id_):
        raise _refusal(pin)


def check_beneath(state: State, layer: str) -> None:
    """Raise ``ItemPinned`` if the layer is pinned, or something that rests on it."""
    for pin in state.all_pins():
        tops: list[str] = [pin.id]
        if pin.kind is Kind.IMAGE:
            image = state.image(pin.id)
            tops = [image.top_layer, *image.mapped_top_layers] if image is not None else []
        if any(layer in _chain(state, top) for top in tops):
            raise _refusal(pin, layer)


def _chain(state: State, top: str) -> set[str]:
    """The layer ``top`` and what it rests on."""
    seen: set[str] = set()
    while top and top not in seen:
        seen.add(top)
        found = state.layer(top)
        top = found.parent if found is not None else ""
    return seen


def check_all(state: State) -> None:
    """Raise ``ItemPinned`` if anything is pinned."""
    for pin in state.all_pins():
        raise _refusal(pin)


def _refusal(pin: Pin, layer: str = "") -> ItemPinned:
    from cstorage.interop.jsonform import timestamp

    what = f"{pin.kind.name.lower()} {pin.id}"
    if layer and layer != pin.id:
        what = f"layer {layer} is needed by {what}, which"
    why = f": {pin.why}" if pin.why else ""
    return ItemPinned(
        f"{what} is pinned by {pin.by} since {timestamp(pin.since_ns)}{why}",
        hint=f"pins of others are taken back with unpin --by {pin.by!r} {pin.id}",
    )
