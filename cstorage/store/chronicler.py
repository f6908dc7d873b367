"""The part of ``Store`` that knows what happened, shows what was, and takes it back."""

from __future__ import annotations

from collections.abc import Iterator

from cstorage.store.lazily import LazyModule
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage import events as ev
    from cstorage.model import Item, Kind
    from cstorage.store import blame, history, kept, opening, restoring
    from cstorage.store.core import Core
    from cstorage.store.past import Moment
    from cstorage.store.store import Store
else:
    blame = LazyModule("cstorage.store.blame")
    history = LazyModule("cstorage.store.history")
    kept = LazyModule("cstorage.store.kept")
    opening = LazyModule("cstorage.store.opening")
    restoring = LazyModule("cstorage.store.restoring")


class Chronicler:
    """The journal's side of the store."""

    _core: Core

    def history(self, key: str = "") -> Iterator[ev.HistoryEntry]:
        """Every event of the store, or of the items that ``key`` stands for, in order.

        Each has its ``sequence``, ``time_ns`` since 1970, ``actor``, ``reason`` and ``event``. A
        layer, an image and a container may share a key: all are meant, and so are deleted items of
        that ID. Otherwise these answer to its beginning (8 characters), or a name.
        """
        return history.of(self._core, key) if key else history.everything(self._core)

    def blame(self, key: str) -> list[blame.Origin]:
        """Which event each name, flag, blob … of an item comes from. Raises ``NotAnID``."""
        return blame.of(self._core, key)

    def watch(self, since: int | None = None) -> Iterator[ev.HistoryEntry]:
        """Events after sequence ``since`` (``None``: from now), as they are committed.

        By any process; blocks in between. Raises ``StoreIsReadOnly`` for a store of the past.
        """
        return history.watch(self._core, since)

    def at(self, moment: Moment) -> Store:
        """The store as it was, for reading; to be closed.

        ``moment``: the sequence number of an event, or a ``datetime`` (local without time zone).
        Records are those of then, files those of today. Raises ``NotInHistory``.
        """
        return opening.as_of(self._core, moment)

    def deleted(self) -> Iterator[kept.Deleted]:
        """What was deleted and can be restored, the latest first: see ``open``'s keep_deleted_s."""
        return kept.listed(self._core)

    def restore(self, key: str, kind: Kind | None = None) -> list[Item]:
        """Bring back a deleted item with what it rests on; returns what came back.

        ``key``: its ID, a name it had, or the beginning of the ID (4 characters). Names that others
        have by now stay with them. Raises ``NotKept``, ``DuplicateID``.
        """
        return restoring.restore(self._core, key, kind)

    def undo(self, sequence: int) -> list[ev.Event]:
        """Take back the transaction that this event is part of; returns the events that did.

        Deletions as by ``restore``; changes of names, metadata and flags by setting what was
        before. Raises ``NotInHistory``, ``NotKept``, ``ChangedSince`` if the same things were
        changed again, ``DuplicateID``, ``NotSupported`` for what cannot be undone.
        """
        return restoring.undo(self._core, sequence)

    def forget_deleted(self, older_than_s: float = 0.0) -> int:
        """Delete for good what is kept, if it was deleted that long ago; how many deletions."""
        return restoring.forget(self._core, older_than_s)
