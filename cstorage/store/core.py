"""What every operation of the store works with: paths, journal, state, driver, transactions.

The two protocols of the store live here (docs/architecture.md):

* **Reading** takes no lock: ``Core.state`` compares the journal's tail first and applies what is
  new, so a read never returns less than what had been committed when it began.
* **Committing**: ``Core.transaction`` holds the writer lock, catches up, lets the caller check its
  preconditions and collect events, then moves prepared content into place, appends one frame,
  applies it, and moves what it removed to the trash; the trash is emptied outside the lock.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import journal as journal_api
from cstorage import events as ev
from cstorage.content import ContentStore
from cstorage.errors import OutcomeUnknown, StorageError, StoreIsReadOnly
from cstorage.events import codec
from cstorage.model import Kind
from cstorage.state import State
from cstorage.state.reducer import apply
from cstorage.store.reading import Replica, translated
from cstorage.store.workspace import Intent, Workspace, any_entries, left_over

if TYPE_CHECKING:
    from cstorage.drivers.contract import GraphDriver, Prepared
    from cstorage.store.mounts import MountTable
    from journal import Journal, Writer


class Location(NamedTuple):
    """Where a store is and how it was opened."""

    graph_root: Path
    run_root: Path
    driver_name: str
    driver_options: tuple[str, ...] = ()
    image_store: str = ""
    transient: bool = False
    read_only: bool = False
    reason: str = ""
    program: str = ""


def boot_id() -> str:
    """The kernel's ID of this boot, "" where there is none."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def new_id() -> str:
    """64 random hex digits that do not start with 12 decimal ones (semantics §2.1)."""
    while True:
        candidate = os.urandom(32).hex()
        if not candidate[:12].isdigit():
            return candidate


class Core:
    """Shared machinery of one open store. Safe to use from several threads."""

    def __init__(
        self, location: Location, journal: Journal, driver: GraphDriver, journal_path: Path
    ) -> None:
        self.location = location
        self.journal = journal
        self.driver = driver
        self.journal_path = journal_path
        self.mutex = threading.RLock()
        content = journal_path.name.removesuffix("journal") + "content"
        self.content = ContentStore(location.graph_root / content)
        self.staging = location.graph_root / "staging"
        self.trash = location.graph_root / "trash"
        self._replica = Replica(journal, journal_path, writable=not location.read_only)

    # -- reading ---------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state, caught up with the journal. Hold ``mutex`` while several reads must agree."""
        with self.mutex:
            self._catch_up()
            return self._state

    @property
    def view(self) -> State:
        """The state of this moment, for those who read on while others commit (listings)."""
        with self.mutex:
            self._catch_up()
            return self._state.frozen()

    @property
    def _state(self) -> State:
        return self._replica.state

    def _catch_up(self) -> None:
        self._replica.catch_up()

    @property
    def position(self) -> journal_api.Position:
        """The place in the journal that this process has read up to."""
        return self._replica.position

    @cached_property
    def mounts(self) -> MountTable:
        """Mount counts of the run root."""
        from cstorage.store.mounts import MountTable

        return MountTable(self)

    # -- writing ---------------------------------------------------------------------------------

    def actor(self) -> ev.Actor:
        """Who this process is, for the record."""
        program = self.location.program or os.path.basename(sys.argv[0] or "python")
        return ev.Actor(os.getuid(), os.getpid(), program, os.uname().nodename, boot_id())

    @contextmanager
    def transaction(self, reason: str = "") -> Iterator[Transaction]:
        """Hold the writer lock around the block; commit what it collected when it ends well.

        Raises ``StoreBusy``, ``StoreDamaged``, ``StoreIsReadOnly``, and whatever the block raises:
        then nothing was changed.
        """
        if self.location.read_only:
            raise StoreIsReadOnly(f"{self.location.graph_root} is open for reading only")
        tx = None
        try:
            with self.mutex, translated(), self.journal.writer() as writer:
                self._catch_up()
                tx = Transaction(self, writer, reason or self.location.reason)
                yield tx
                tx.commit()
            self.refresh_view()
        finally:
            if tx is not None:
                tx.close()

    @property
    def may_have_view(self) -> bool:
        """One ``stat``: whether a view for other tools was ever made here."""
        return os.path.isdir(f"{self.location.graph_root}/projection")

    def refresh_view(self) -> None:
        """Let the view that other tools read follow the journal, if this store keeps one."""
        if self.may_have_view:
            from cstorage.store.projecting import after_commit

            after_commit(self)

    def snapshot(self) -> Path | None:
        """Write a snapshot of the current state and return the folder; ``None`` if it is empty."""
        with self.mutex:
            return self.journal_path / "snapshots" if self._replica.snapshot() else None

    @contextmanager
    def work(self) -> Iterator[Workspace]:
        """A work folder for the block, deleted afterwards.

        If the outcome of a commit is unknown it is left to the next sweep, which will know. A block
        that was interrupted is settled like the work of a process that died: only the journal knows
        on which side of the commit that was.
        """
        work = Workspace.create(self.staging)
        try:
            yield work
        except OutcomeUnknown:
            work.abandon()
            raise
        except Exception:
            raise
        except BaseException:
            self.settle(work)
            raise
        finally:
            work.discard()

    # -- left-overs ------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Settle the work folders of processes that died; returns how many there were.

        Costs two ``scandir`` calls when there are none. A store that cannot be written, or whose
        writer is busy, is left as it is: the next one who opens it will try again.
        """
        if self.location.read_only or not any_entries(self.staging, self.trash):
            return 0
        settled = 0
        for parent in (self.staging, self.trash):
            for work in left_over(parent):
                if work.kept():
                    work.abandon()
                    continue
                settled += self.settle(work)
        return settled

    def settle(self, work: Workspace) -> bool:
        """Make of the work folder's intent what the journal says; False if that is not possible.

        Then the folder stays for the next sweep: it must not keep anybody from the store.
        """
        try:
            self._settle(work, work.intent)
        except (StorageError, OSError):
            work.abandon()
            return False
        return True

    def _settle(self, work: Workspace, intent: Intent) -> None:
        if intent.layers or intent.contents:
            with self.mutex, translated(), self.journal.writer():
                self._catch_up()
                unknown = [x for x in intent.layers if self._state.layer(x) is None]
                if unknown and intent.driver == self.driver.name:
                    with self.mounts.held() as held:
                        for layer in unknown:
                            self.driver.withdraw(layer, work.path)
                            held.forget(layer)
                for content in intent.contents:
                    if not self._state.refers_to_content(content):
                        self.content.evict(content, work.path)
        work.discard()

    def close(self) -> None:
        with self.mutex, translated():
            if "mounts" in self.__dict__:
                self.mounts.close()
            self.journal.close()
        self._replica.close()


class Transaction:
    """Events and content that become part of the store together, or not at all.

    ``state`` is the store's state with the transaction's own events already applied to it.
    """

    def __init__(self, core: Core, writer: Writer, reason: str) -> None:
        self.core = core
        self.writer = writer
        self.reason = reason
        self.state = State(core._state)
        self.events: list[ev.Event] = []
        self.now_ns = time.time_ns()
        self._next = writer.tail.sequence + 1
        self._prepared: list[Prepared] = []
        self._contents: dict[str, Path] = {}
        self._dropped_layers: dict[str, None] = {}
        self._dropped_contents: dict[str, None] = {}
        self._trash: Workspace | None = None
        self._unsettled = False
        """Something was moved, or is to be, and it is not yet known to be where it belongs."""

    def emit(self, event: ev.Event) -> None:
        """Add ``event``; it is visible in ``self.state`` at once."""
        self._note_removals(event)
        apply(self.state, event, self._next)
        self._next += 1
        self.events.append(event)

    def publish(self, prepared: Prepared) -> None:
        """Move a prepared layer into the driver's home when the transaction commits.

        Its ID must be in the intent of the work folder that it was prepared in.
        """
        self._prepared.append(prepared)

    def adopt(self, key: str, path: Path) -> None:
        """Move a complete content file into place when the transaction commits."""
        self._contents[key] = path

    def withdraw(self, layer: str) -> None:
        """Remove a driver's tree that has no record when the transaction commits."""
        self._dropped_layers[layer] = None

    def _note_removals(self, event: ev.Event) -> None:
        contents: Iterable[str] = ()
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
                image = self.state.image(event.id)
                if image is not None:
                    contents = [item.content for item in image.big_data]
            case ev.ContainerDeleted():
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

    def commit(self) -> None:
        """Publish, append, apply, remove: steps 3 and 4 of the commit protocol."""
        core = self.core
        if not self.events and not self._dropped_layers:
            return
        gone_layers = [x for x in self._dropped_layers if self.state.layer(x) is None]
        gone_contents = [x for x in self._dropped_contents if not self.state.refers_to_content(x)]
        if gone_layers or gone_contents:
            self._trash = Workspace.create(core.trash)
            self._trash.declare(Intent(core.driver.name, tuple(gone_layers), tuple(gone_contents)))
        published: list[str] = []
        self._unsettled = True
        try:
            for prepared in self._prepared:
                self._clear_the_way(prepared.plan.id)
                published.append(prepared.plan.id)
                core.driver.publish(prepared)
            for key, path in self._contents.items():
                core.content.adopt(path, key)
            if self.events:
                self.writer.commit(
                    [codec.encode(event) for event in self.events],
                    actor=list(core.actor()),
                    reason=self.reason,
                    schema=ev.SCHEMA,
                )
        except journal_api.WriterPoisoned:
            # Whether the frame is durable is unknown; what was moved stays for the next sweep.
            raise
        except (StorageError, journal_api.JournalError, OSError):
            self._roll_back(published)
            self._unsettled = False
            raise
        # Anything else, an interrupt above all, may have come after the frame was written: then
        # taking back what it speaks of would be a loss. Who settles it asks the journal first.
        core._catch_up()
        try:
            self._remove(gone_layers, gone_contents)
        except (StorageError, OSError):
            return  # the change is made; what could not be moved out yet is left to a sweep
        self._unsettled = False

    def _clear_the_way(self, layer: str) -> None:
        """A tree without a record gives way to the layer of its ID, as in the original."""
        if self.core.driver.exists(layer):
            self._trash = self._trash or Workspace.create(self.core.trash)
            self.core.driver.withdraw(layer, self._trash.path)

    def _remove(self, layers: Sequence[str], contents: Sequence[str]) -> None:
        if self._trash is None:
            return
        core = self.core
        if layers:
            with core.mounts.held() as held:
                for layer in layers:
                    core.driver.withdraw(layer, self._trash.path)
                    held.forget(layer)
        for content in contents:
            core.content.evict(content, self._trash.path)

    def _roll_back(self, published: list[str]) -> None:
        """Take back what was moved into place; the frame was certainly not written."""
        if not published and not self._contents:
            return
        trash = self._trash or Workspace.create(self.core.trash)
        for layer in published:
            self.core.driver.withdraw(layer, trash.path)
        for key in self._contents:
            if not self.core._state.refers_to_content(key):
                self.core.content.evict(key, trash.path)
        self._trash = trash

    def close(self) -> None:
        """Delete what the transaction removed. Slow; the writer lock is not held any more."""
        trash, self._trash = self._trash, None
        if trash is None:
            return
        if self._unsettled:
            self.core.settle(trash)
            return
        if self._dropped_layers and self.core.may_have_view:
            from cstorage.store.projecting import grace_s

            trash.keep(grace_s(self.core))
        try:
            trash.discard()
        except OSError:
            trash.abandon()  # the change is made; a sweep tries again to delete what it removed
