"""PURE: the indexes of the store and how events change them. No I/O, no clock, no randomness.

A ``State`` is a base (nothing, a snapshot's table, or another state) plus an overlay of what the
events since then changed. ``apply`` is the only way to change it. Everything that a lookup needs
is an entry of its own (``keys``), so no operation depends on how much is stored.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from cstorage.model import Container, Digest, Image, Kind, Layer, Pin
from cstorage.state import groups, keys, values
from cstorage.state.gaps import GONE, Gaps
from journal.digest import record_number
from journal.plain import Any, Protocol


class Table(Protocol):
    """An immutable sorted table of encoded entries: what a snapshot offers."""

    @property
    def digest(self) -> bytes:
        """The state digest of the entries (``journal.digest``), 32 bytes."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are there."""

    def scan(
        self, prefix: bytes, start: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]: ...

    def __len__(self) -> int: ...


_ABSENT = object()
DECODED_MAX = 4096
"""Decoded entries of the table that are kept, and keys that it lacks: memory grows with what is
looked at, to a bound."""


class State:
    """Entries of a base with an overlay of changes.

    ``base``: a ``Table`` (encoded values), another ``State`` (a draft on top of it), or ``None``.
    """

    def __init__(self, base: Table | State | None = None) -> None:
        self._parent = base if isinstance(base, State) else None
        self._table = None if base is None or isinstance(base, State) else base
        self._overlay: dict[bytes, Any] = {}  # None marks a removed entry
        self._decoded: dict[bytes, Any] = {}  # entries of the table, which never change
        self._arrived: list[bytes] = []
        """The overlay's keys in the order they came; only ever appended to."""
        self._index: tuple[int, list[bytes]] = (0, [])
        """How many of them have been sorted, and those in order."""
        self._gaps = Gaps()
        self._shared = False
        """A frozen view has the same overlay: whoever is changed next takes a copy."""

    # -- entries ---------------------------------------------------------------------------------

    def _base_get(self, key: bytes) -> Any:
        if self._parent is not None:
            return self._parent.get(key)
        if self._table is not None:
            found = self._decoded.get(key, _ABSENT)
            if found is _ABSENT:
                raw = self._table.get(key)
                found = None if raw is None else values.decode(key, raw)
                if len(self._decoded) >= DECODED_MAX:
                    self._decoded.clear()
                self._decoded[key] = found
            return found
        return None

    def get(self, key: bytes) -> Any:
        """The value of ``key``, ``None`` if there is none."""
        value = self._overlay.get(key, _ABSENT)
        return self._base_get(key) if value is _ABSENT else value

    @property
    def _bottom(self) -> State:
        state = self
        while state._parent is not None:
            state = state._parent
        return state

    @property
    def has_table(self) -> bool:
        """Whether anything has to be looked up."""
        return self._bottom._table is not None

    def look_ahead(self, keys: Iterable[bytes], more: int = 0) -> None:
        """Look the keys up that are not known yet, all at once: ``get`` will be asked for them.

        ``more`` of them will follow. More than ``DECODED_MAX`` would drive each other out. Only of
        a state that ``has_table``.
        """
        state = self._bottom
        assert state._table is not None
        overlay, decoded = state._overlay, state._decoded
        wanted = {key for key in keys if key not in overlay}
        if len(decoded) + len(wanted) + more > DECODED_MAX:
            decoded.clear()
        wanted.difference_update(decoded)
        found = state._table.get_many(wanted)
        for key in wanted:
            raw = found.get(key)
            decoded[key] = None if raw is None else values.decode(key, raw)

    def put(self, key: bytes, value: Any) -> None:
        if self._shared:
            self._overlay, self._gaps = dict(self._overlay), self._gaps.copy()
            self._shared = False
        if value is not None and self._gaps:
            self._gaps.put(key)
        new = key not in self._overlay
        self._overlay[key] = value
        if new:
            self._arrived.append(key)

    def take_over(self, draft: State) -> None:
        """Change to what ``draft``, a state on top of this one, is."""
        for key, value in draft._overlay.items():
            self.put(key, value)

    def is_base_of(self, draft: State) -> bool:
        return draft._parent is self

    def remove(self, key: bytes) -> None:
        self.put(key, None)

    def _overlay_keys(self) -> list[bytes]:
        """Keys of the overlay in order.

        Threads may do this beside each other and beside one that changes the state: lists are
        replaced, not changed, and an index that is behind is brought up to date by the next one.
        """
        done, ordered = self._index
        count = len(self._arrived)
        if done < count:
            ordered = ordered + self._arrived[done:count]
            ordered.sort()  # two runs: cheap
            self._index = (count, ordered)
        return ordered

    def frozen(self) -> State:
        """The state as it is now, out of reach of later changes.

        Costs nothing until one of the two is changed, which then copies the overlay.
        """
        view = State(self._table if self._parent is None else self._parent)
        self._shared = view._shared = True
        view._overlay, view._gaps, view._decoded = self._overlay, self._gaps, self._decoded
        view._index = (0, self._overlay_keys())
        return view

    def scan(
        self, prefix: bytes, start: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, Any]]:
        """Entries whose key has ``prefix``, in key order, from key ``start`` on.

        ``reverse`` goes from the last to the first and takes no ``start``. Changing the state
        while iterating gives what was there when the overlay was last looked at.
        """
        overlay = self._overlay_keys()
        above = keys.after(prefix)
        last = bisect_left(overlay, above) if above else len(overlay)

        def rows(start: bytes) -> Iterator[tuple[bytes, Any]]:
            first = bisect_left(overlay, max(prefix, start), 0, last)
            own = overlay[first:last]
            return self._merge(prefix, start, own[::-1] if reverse else own, reverse)

        if reverse or last == 0 or overlay[last - 1] < max(prefix, start):  # nothing to jump over
            for key, value in rows(start):
                if value is not GONE:
                    yield key, value
        else:
            yield from self._gaps.live(rows, start, above)

    def _merge(
        self, prefix: bytes, start: bytes, own: list[bytes], reverse: bool
    ) -> Iterator[tuple[bytes, Any]]:
        """Entries of base and overlay in order, removed ones as ``GONE``."""
        base: Iterator[tuple[bytes, Any]] = iter(())
        decode = None
        if self._parent is not None:
            base = self._parent.scan(prefix, start, reverse)
        elif self._table is not None:
            base = self._table.scan(prefix, start, reverse)
            decode = values.decode
        count = len(own)
        index = 0
        for key, value in base:
            while index < count and (own[index] > key if reverse else own[index] < key):
                mine = self._overlay[own[index]]
                yield own[index], GONE if mine is None else mine
                index += 1
            if index < count and own[index] == key:
                mine = self._overlay[key]
                yield key, GONE if mine is None else mine
                index += 1
            else:
                yield key, decode(key, value) if decode else value
        for key in own[index:]:
            mine = self._overlay[key]
            yield key, GONE if mine is None else mine

    @property
    def changes(self) -> int:
        """How many entries differ from the base: what a new snapshot would spare replaying."""
        return len(self._overlay)

    def changed(self) -> Iterator[tuple[bytes, bytes]]:
        """The entries that differ from the base, in key order, encoded: a level (``levels``).

        An empty value says that the base's entry is gone.
        """
        for key in self._overlay_keys():
            value = self._overlay[key]
            if value is not None:
                yield key, values.encode(value)
            elif self._table is not None and self._table.get(key) is not None:
                yield key, b""

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries in key order, encoded: what a snapshot is made of."""
        overlay = self._overlay_keys()
        index = 0
        if self._table is not None:
            for key, raw in self._table.scan(b""):
                while index < len(overlay) and overlay[index] < key:
                    value = self._overlay[overlay[index]]
                    if value is not None:
                        yield overlay[index], values.encode(value)
                    index += 1
                if index < len(overlay) and overlay[index] == key:
                    value = self._overlay[key]
                    if value is not None:
                        yield key, values.encode(value)
                    index += 1
                else:
                    yield key, raw
        for key in overlay[index:]:
            value = self._overlay[key]
            if value is not None:
                yield key, values.encode(value)

    def digest(self) -> bytes:
        """Order-free digest of all entries (``journal.digest``), 32 bytes.

        Costs the overlay's size: the base brings its own digest.
        """
        total = int.from_bytes(self._table.digest, "little") if self._table is not None else 0
        for key, value in self._overlay.items():
            if self._table is not None:
                old = self._table.get(key)
                if old is not None:
                    total -= record_number(key, old)
            if value is not None:
                total += record_number(key, values.encode(value))
        return (total % (1 << 256)).to_bytes(32, "little")

    # -- records ---------------------------------------------------------------------------------

    def layer(self, id_: str) -> Layer | None:
        found: Layer | None = self.get(keys.record(Kind.LAYER, id_))
        return found

    def image(self, id_: str) -> Image | None:
        found: Image | None = self.get(keys.record(Kind.IMAGE, id_))
        return found

    def container(self, id_: str) -> Container | None:
        found: Container | None = self.get(keys.record(Kind.CONTAINER, id_))
        return found

    def holder(self, kind: Kind, name: str) -> str | None:
        """ID of the item of ``kind`` that holds ``name``."""
        found: str | None = self.get(keys.name(kind, name))
        return found

    def resolve(self, kind: Kind, key: str) -> str | None:
        """The ID that ``key`` stands for among items of ``kind`` (semantics §2.3).

        Exact ID, exact name, for containers the exact ID of their layer, unique prefix of an ID.
        IDs with a blank are not found by prefix; an ambiguous prefix finds nothing.
        """
        if not key:
            return self.holder(kind, key)
        if self.get(keys.record(kind, key)) is not None:
            return key
        held = self.holder(kind, key)
        if held is not None:
            return held
        if kind is Kind.CONTAINER:
            by_layer = self.container_of_layer(key)
            if by_layer is not None:
                return by_layer
        found: str | None = None
        prefix = keys.RECORD[kind]
        for entry, _ in self.scan(keys.record(kind, key)):
            id_ = keys.text_after(entry, prefix)
            if " " in id_:
                continue
            if found is not None:
                return None
            found = id_
        return found

    # -- relations -------------------------------------------------------------------------------

    def children(self, layer: str) -> Iterator[str]:
        return groups.members(self, keys.children(layer))

    def images_of_layer(self, layer: str) -> Iterator[str]:
        """Images whose top layer or mapped top layer it is."""
        return groups.members(self, keys.images_of_layer(layer))

    def container_of_layer(self, layer: str) -> str | None:
        # Asked for anyway by whoever changes the layer, and counted once where there is none.
        if not self.count(Kind.CONTAINER) or self.get(keys.uses(b"Y", layer)) is None:
            return None
        return next(groups.members(self, keys.containers_of_layer(layer)), None)

    def containers_of_image(self, image: str) -> Iterator[str]:
        return groups.members(self, keys.containers_of_image(image))

    def layers_by_digest(self, which: str, digest: str) -> Iterator[str]:
        """Layer IDs in creation order; ``which``: c compressed, u uncompressed, t TOC."""
        return groups.members(self, keys.layers_with_digest(which, digest))

    def images_by_digest(self, digest: Digest | str) -> Iterator[str]:
        return groups.members(self, keys.images_with_digest(digest))

    def refers_to_content(self, content: str) -> bool:
        return self.get(keys.content(content)) is not None

    def content_keys(self) -> Iterator[str]:
        """Every content key that an item refers to, once each, in order."""
        for key, _ in self.scan(b"R"):
            yield keys.text_after(key, b"R")

    def ids(self, kind: Kind) -> Iterator[str]:
        """IDs in listing order: creation order, volatile items last (cli §3.1)."""
        for _, id_ in self.scan(keys.order_prefix(kind)):
            yield id_

    def pins(self, kind: Kind, id_: str) -> list[Pin]:
        """Pins of an item, by who asked for them; one look where nothing is pinned."""
        if not self.get(keys.counter("pins")):
            return []
        return [pin for _, pin in self.scan(keys.pin_prefix(kind, id_))]

    def all_pins(self) -> list[Pin]:
        """Every pin: those of images first, then those of layers."""
        if not self.get(keys.counter("pins")):
            return []
        return [pin for _, pin in self.scan(keys.PINS)]

    def count(self, kind: Kind) -> int:
        found: int | None = self.get(keys.counter(kind))
        return found or 0

    @property
    def driver(self) -> str:
        """Name of the graph driver the store was made with, "" before its first event."""
        found: str | None = self.get(keys.fact("driver"))
        return found or ""
