"""What one change of the store consists of, and how it becomes part of it: all of it, or nothing.

A ``Transaction`` lives while the writer lock is held. It collects events, applied at once to a
state of its own, and what has to move: prepared layers and content files into place, trees to be
exchanged, and, found from the events, what is removed. ``commit`` does that in the order of the
commit protocol (docs/architecture.md): move in, append one frame, apply, move out to the trash.
``close`` deletes the trash when the lock is not held any more.

A kill at any moment leaves work folders with intents (``workspace``), which the next one who opens
the store settles by what the journal says.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Sequence

import journal as journal_api
from cstorage import events as ev
from cstorage.content import sync_directories
from cstorage.errors import StorageError
from cstorage.model import Container, Image, Kind, Layer
from cstorage.state import State
from cstorage.store.catalogue import Catalogue
from cstorage.store.exchange import exchange
from cstorage.store.reading import Own, translated
from cstorage.store.workspace import Folder, Intent, Workspace
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage.drivers.contract import Prepared
    from cstorage.store.core import Core
    from cstorage.store.kept import Gone
    from journal import Writer

_DELETIONS = (ev.LayerDeleted, ev.ImageDeleted, ev.ContainerDeleted, ev.ImageMappedLayerRemoved)
_FRAME_BYTES_MAX = 16 << 20
"""Most bytes that one frame of the journal holds, apart from who did it and why."""


class Transaction:
    """Events and content that become part of the store together, or not at all.

    ``state`` is the store's state with the transaction's own events already applied to it.
    """

    def __init__(
        self,
        core: Core,
        writer: Writer,
        reason: str,
        whole: Transaction | None = None,
        actor: ev.Actor | None = None,
    ) -> None:
        self.core = core
        self.actor = actor or core.actor()
        self.writer = writer
        self.reason = reason
        self.state: State = State(whole.state if whole is not None else core._state)
        self.catalogue = Catalogue(self.state, core.shelves)
        self.events: list[ev.Event] = []
        self.now_ns = time.time_ns()
        self.works: list[Workspace] = []
        """Work folders to be discarded when a joint transaction has ended."""
        self._next: int = whole._next if whole is not None else writer.tail.sequence + 1
        self._prepared: list[Prepared] = []
        self._contents: dict[str, Path] = {}
        self._dropped_layers: dict[str, None] = {}
        self._dropped_contents: dict[str, None] = {}
        self._dropped_folders: dict[Folder, None] = {}
        self._trash: Workspace | None = None
        self._image_trash: Workspace | None = None
        self._exchanges: list[tuple[str, str]] = []
        self._gone: list[Gone] = []
        """Deleted items, if they are to be kept (``kept``)."""
        self._origins: dict[str, Path] = {}
        """Folders that published trees go back to if nothing comes of it."""
        self._committed = False
        self._reserve_spent = False
        self.written = False
        """The frame is in the journal."""
        self._done = False
        """The frame was written, and what it speaks of is where it belongs."""
        self._unsettled = False
        """Something was moved, or is to be, and it is not yet known to be where it belongs."""

    def emit(self, event: ev.Event) -> None:
        """Add ``event``; it is visible in ``self.state`` at once."""
        from cstorage.events import codec
        from cstorage.state.reducer import apply

        codec.check(event)
        self._note_removals(event)
        apply(self.state, event, self._next)
        self._next += 1
        self.events.append(event)

    def absorb(self, part: Transaction) -> None:
        """Make what ``part``, begun on top of this transaction, collected a part of it."""
        for event in part.events:
            self.emit(event)
        self._prepared += part._prepared
        self._exchanges += part._exchanges
        self._contents |= part._contents
        self._dropped_layers |= part._dropped_layers
        self._dropped_contents |= part._dropped_contents
        self._dropped_folders |= part._dropped_folders
        self._origins |= part._origins

    def publish(self, prepared: Prepared, origin: Path | None = None) -> None:
        """Move a prepared layer into the driver's home when the transaction commits.

        Its ID must be in the intent of the work folder that it was prepared in; a commit that fails
        moves it to the trash, or back into ``origin``.
        """
        self._prepared.append(prepared)
        if origin is not None:
            self._origins[prepared.plan.id] = origin

    def adopt(self, key: str, path: Path) -> None:
        """Move a complete content file into place when the transaction commits."""
        self._contents[key] = path

    def exchange(self, first: str, second: str) -> None:
        """Let two trees change places when the transaction commits."""
        self._exchanges.append((first, second))

    def withdraw(self, layer: str) -> None:
        """Remove a driver's tree that has no record when the transaction commits."""
        self._dropped_layers[layer] = None

    def _note_removals(self, event: ev.Event) -> None:
        contents: Iterable[str] = ()
        if self.core.keeps_deleted:
            self._note_gone(event)
        match event:
            case ev.LayerDeleted():
                layer = self.state.layer(event.id)
                if layer is not None:
                    self._dropped_layers[layer.id] = None
                    contents = (
                        layer.diff.recipe,
                        layer.diff.manifest,
                        *(item.content for item in layer.big_data),
                    )
            case ev.LayerDiffApplied():
                layer = self.state.layer(event.id)
                if layer is not None:
                    contents = (layer.diff.recipe, layer.diff.manifest)
            case ev.ImageDeleted():
                self._dropped_folders[Folder(Kind.IMAGE, event.id)] = None
                image = self.state.image(event.id)
                if image is not None:
                    contents = [item.content for item in image.big_data]
            case ev.ContainerDeleted():
                self._dropped_folders[Folder(Kind.CONTAINER, event.id)] = None
                container = self.state.container(event.id)
                if container is not None:
                    contents = [item.content for item in container.big_data]
            case ev.BigDataSet():
                item: Any = {
                    Kind.LAYER: self.state.layer,
                    Kind.IMAGE: self.state.image,
                    Kind.CONTAINER: self.state.container,
                }[event.kind](event.id)
                if item is not None:
                    contents = [d.content for d in item.big_data if d.name == event.item.name]
        for content in contents:
            if content:
                self._dropped_contents[content] = None

    def _note_gone(self, event: ev.Event) -> None:
        from cstorage.store import kept

        state = self.state
        item: Layer | Image | Container | None = None
        match event:
            case ev.LayerDeleted():
                item = state.layer(event.id)
            case ev.ImageDeleted():
                item = state.image(event.id)
            case ev.ContainerDeleted():
                item = state.container(event.id)
            case _:
                return
        if item is not None:
            self._gone.append(kept.gone(state, item))

    def commit(self) -> None:
        """Publish, append, apply, remove: steps 3 and 4 of the commit protocol.

        Done at the end of the block that the transaction is for, unless the block did it before.
        """
        core = self.core
        if self._committed:
            return
        self._committed = True
        if not self.events and not self._dropped_layers:
            return
        gone_layers = [x for x in self._dropped_layers if self.state.layer(x) is None]
        gone_contents = [x for x in self._dropped_contents if not self.state.refers_to_content(x)]
        gone_folders = self._gone_folders()
        if gone_layers or gone_contents or gone_folders or self._gone:
            self._make_trash(gone_layers, gone_contents, gone_folders)
        published: list[str] = []
        exchanged: list[tuple[str, str]] = []
        changed: list[str] = []
        self._unsettled = True
        try:
            for pair in self._exchanges:
                exchange(*pair)
                exchanged.append(pair)
            for prepared in self._prepared:
                self._clear_the_way(prepared.plan.id)
                published.append(prepared.plan.id)
                changed += core.driver.publish(prepared)
            for key, path in self._contents.items():
                changed += core.content.adopt(path, key)
            sync_directories(changed)
            if self.events:
                self._append(use_reserve=self._trash is not None and not self._prepared)
                self.written = True
        except journal_api.WriterPoisoned:
            # Whether the frame is durable is unknown; what was moved stays for the next sweep.
            raise
        except (StorageError, journal_api.JournalError, OSError):
            for pair in reversed(exchanged):
                exchange(*pair)
            self._roll_back(published)
            self._unsettled = False
            raise
        # Anything else, an interrupt above all, may have come after the frame was written: then
        # taking back what it speaks of would be a loss. Who settles it asks the journal first.
        core._catch_up(self._own())
        try:
            self._remove(gone_layers, gone_contents, gone_folders)
        except (StorageError, OSError):
            return  # the change is made; what could not be moved out yet is left to a sweep
        self._unsettled = False
        self._done = True

    def _own(self) -> Own | None:
        """What was committed, if it only deletes: such events are IDs and hold nothing else.

        Of others the state shall have what the journal gives back, not objects of the caller's,
        and know who caused them.
        """
        if not self.written or not all(isinstance(event, _DELETIONS) for event in self.events):
            return None
        return Own(self._next - len(self.events), self.state)

    def _append(self, *, use_reserve: bool) -> None:
        from cstorage.events import codec

        encoded = [codec.encode(event) for event in self.events]
        try:
            self.writer.commit(
                encoded,
                actor=list(self.actor),
                reason=self.reason,
                schema=ev.SCHEMA,
                use_reserve=use_reserve,
            )
        except journal_api.InvalidRecord as error:
            raise _refused(self.events, encoded, error) from error

    def _clear_the_way(self, layer: str) -> None:
        """A tree without a record gives way to the layer of its ID, as in the original."""
        if self.core.driver.exists(layer):
            self.core.driver.withdraw(layer, self._trash_for(layer).path)

    def _gone_folders(self) -> list[Folder]:
        """Directories of callers that go with their items."""
        if not self._dropped_folders:
            return []
        from cstorage.store import directories

        return directories.present(
            self.core, directories.orphans(self.state, self._dropped_folders)
        )

    def _remove(
        self, layers: Sequence[str], contents: Sequence[str], folders: Sequence[Folder]
    ) -> None:
        core = self.core
        if layers:
            core.refresh_view()  # nobody shall be shown a layer whose content is gone
            with core.mounts.held() as held:
                for layer in layers:
                    core.driver.withdraw(layer, self._trash_for(layer).path)
                    held.forget(layer)
        if self._trash is not None:
            for content in contents:
                core.content.evict(content, self._trash.path)
        if self._trash is not None and self._gone:
            from cstorage.store import kept

            kept.add_links(core, self._trash.path, self._gone)
        if folders and self._trash is not None:
            from cstorage.store import directories

            for folder in folders:
                directories.withdraw(core, folder, self._trash)

    def _make_trash(self, layers: list[str], contents: list[str], folders: list[Folder]) -> None:
        """Folders for what goes, on the file systems that it is on, with the intent to move it."""
        core = self.core
        name = os.urandom(8).hex()
        apart = [x for x in layers if core.lies_apart(x)]
        if apart:
            self._image_trash = self._declared(core.image_trash, name, apart, ())
            layers = [x for x in layers if x not in apart]
        if layers or contents or folders or self._gone:
            self._trash = self._declared(core.trash, name, layers, contents, folders)

    def _declared(
        self,
        parent: Path,
        name: str,
        layers: Sequence[str],
        contents: Sequence[str],
        folders: Sequence[Folder] = (),
    ) -> Workspace:
        """A folder below ``parent`` with the intent to move these there.

        It takes room on a disk that may be full, which must not keep anybody from making room.
        """
        while True:
            trash = None
            try:
                trash = Workspace.create(parent, name)
                if self._gone:
                    self._describe(trash)
                intent = Intent(self.core.driver.name, tuple(layers), tuple(contents))
                if folders:
                    from cstorage.store import directories

                    annex = str(directories.run_trash(self.core) / trash.path.name)
                    intent = intent._replace(folders=tuple(folders), annex=annex)
                trash.declare(intent)
                return trash
            except BaseException as error:
                if trash is not None:
                    trash.discard()
                full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
                if not full or not self.writer.spend_reserve():
                    raise
                self._reserve_spent = True

    def _describe(self, trash: Workspace) -> None:
        from cstorage.store import kept

        first = self.writer.tail.sequence + 1
        kept.describe(trash, first, self.now_ns, self.core.retention.kept_s, self._gone)

    def _trash_for(self, layer: str) -> Workspace:
        core = self.core
        if core.lies_apart(layer):
            self._image_trash = self._image_trash or Workspace.create(core.image_trash)
            return self._image_trash
        self._trash = self._trash or Workspace.create(core.trash)
        return self._trash

    def _roll_back(self, published: list[str]) -> None:
        """Take back what was moved into place; the frame was certainly not written."""
        if not published and not self._contents:
            return
        for layer in published:
            origin = self._origins.get(layer)
            self.core.driver.withdraw(layer, origin or self._trash_for(layer).path)
        self._trash = self._trash or Workspace.create(self.core.trash)
        for key in self._contents:
            if not self.core._state.refers_to_content(key):
                self.core.content.evict(key, self._trash.path)

    def close(self) -> None:
        """Delete what the transaction removed; the writer lock is not held any more."""
        kept_s = 0.0
        if self._trash is not None and self._dropped_layers and self.core.may_have_view:
            from cstorage.store.projecting import grace_s

            kept_s = grace_s(self.core)
        if self._gone and self._done:
            kept_s = max(kept_s, self.core.retention.kept_s)
        for trash in (self._trash, self._image_trash):
            if trash is None:
                continue
            if self._unsettled:
                self.core.settle(trash)
                continue
            try:
                trash.keep(kept_s)
                self.core.remover.discard(trash)
            except OSError:
                trash.abandon()  # the change is made; a sweep tries again to delete the rest
        self._trash = self._image_trash = None
        if self._gone and self.core.retention.size:
            from cstorage.store import kept

            kept.trim(self.core, self.core.retention.size)
        if self._reserve_spent:
            refused = contextlib.suppress(StorageError, OSError)
            with refused, translated(), self.core.journal.writer() as writer:
                writer.refill_reserve()


def _refused(
    events: Sequence[ev.Event], encoded: Sequence[object], error: journal_api.InvalidRecord
) -> Exception:
    """Why a transaction is too large: which item brings most of it, and what to do instead."""
    import cbor2

    sizes = [len(cbor2.dumps(raw)) for raw in encoded]
    if sum(sizes) < _FRAME_BYTES_MAX:
        return error
    size = max(sizes)
    if size < _FRAME_BYTES_MAX:
        return StorageError(
            f"{len(events)} changes of {sum(sizes)} bytes in one transaction; 16 MiB at most",
            hint="make several transactions of them",
        )
    event = events[sizes.index(size)]
    field = max(event._fields, key=lambda name: len(repr(getattr(event, name))))
    kind = Kind(getattr(event, "kind", type(event).__name__[:1].lower())).name.lower()
    return StorageError(
        f"{kind} {getattr(event, 'id', '')}: {field.replace('_', ' ')} of {size} bytes; "
        "one change of the store holds 16 MiB at most",
        hint="keep it in a big data item, which may be of any size",
    )
