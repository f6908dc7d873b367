"""What every operation of the store works with: paths, journal, state, driver, transactions.

The two protocols of the store live here (docs/architecture.md):

* **Reading** takes no lock: ``Core.state`` compares the journal's tail first and applies what is
  new, so a read never returns less than what had been committed when it began.
* **Committing**: ``Core.transaction`` holds the writer lock, catches up, lets the caller check its
  preconditions and collect events, then moves prepared content into place, appends one frame,
  applies it, and moves what it removed to the trash; the trash is emptied outside the lock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

import journal as journal_api
from cstorage.config import StoreOptions
from cstorage.content import ContentStore
from cstorage.errors import OutcomeUnknown, StorageError, StoreIsReadOnly
from cstorage.model import IDMaps, Kind
from cstorage.state import State
from cstorage.store.catalogue import Catalogue
from cstorage.store.exchange import exchange
from cstorage.store.lazily import LazyModule
from cstorage.store.reading import Replica, translated
from cstorage.store.workspace import Intent, Swap, Workspace, any_entries, left_over
from journal.plain import TYPE_CHECKING, Any, NamedTuple, Path

if TYPE_CHECKING:
    from cstorage import events as ev
    from cstorage.drivers.contract import GraphDriver, Prepared
    from cstorage.store.catalogue import Shelf
    from cstorage.store.mounts import MountTable
    from journal import Journal, Writer
else:
    ev = LazyModule("cstorage.events")  # a command that only looks has no use for events


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
    options: StoreOptions = StoreOptions()
    projection: str = ""
    """Whether a view for other tools follows: "additional", "off", "" = as the view's mark says."""


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
        image_root = Path(location.image_store) if location.image_store else location.graph_root
        self.image_staging = image_root / "staging"
        self.image_trash = image_root / "trash"
        self.options = location.options
        self.default_maps = IDMaps(self.options.uid_map, self.options.gid_map)
        self.pull_options: Mapping[str, str] = self.options.pull_options or {}
        self._joint: tuple[int, Transaction] | None = None  # thread and its joint transaction
        self._replica = Replica(journal, journal_path, writable=not location.read_only)

    # -- reading ---------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state, caught up with the journal. Hold ``mutex`` while several reads must agree."""
        joint = self.joint
        if joint is not None:
            return joint.state
        with self.mutex:
            self._catch_up()
            return self._state

    @property
    def view(self) -> Catalogue:
        """The catalogue of this moment, for those who read on while others commit (listings)."""
        with self.mutex:
            return Catalogue(self.state.frozen(), self.shelves)

    @property
    def joint(self) -> Transaction | None:
        """The transaction that everything this thread does now is part of, if there is one."""
        held = self._joint
        return held[1] if held is not None and held[0] == threading.get_ident() else None

    @property
    def _state(self) -> State:
        return self._replica.state

    def _catch_up(self) -> None:
        self._replica.catch_up()

    @property
    def image_store(self) -> str:
        """The split image store as images record it, "" without one."""
        return self.location.image_store

    @cached_property
    def shelves(self) -> tuple[Shelf, ...]:
        """The additional stores that the driver options name."""
        from cstorage.drivers.options import additional_stores

        roots = additional_stores(self.driver.name, self.location.driver_options)
        if not roots:
            return ()
        from cstorage.store.additional import shelves

        return shelves(roots, self.driver.name)

    @cached_property
    def subordinate_ids(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Host UIDs and GIDs for automatic namespaces, looked up once: from, up to excluding."""
        from cstorage.store.userns import subordinate_ids

        return subordinate_ids(self)

    @property
    def catalogue(self) -> Catalogue:
        """The state with the additional stores beside it."""
        return Catalogue(self.state, self.shelves)

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
    def transaction(self, reason: str = "", actor: ev.Actor | None = None) -> Iterator[Transaction]:
        """Hold the writer lock around the block; commit what it collected when it ends well.

        Raises ``StoreBusy``, ``StoreDamaged``, ``StoreIsReadOnly``, and whatever the block raises:
        then nothing was changed.
        """
        if self.location.read_only:
            raise StoreIsReadOnly(f"{self.location.graph_root} is open for reading only")
        joint = self.joint
        if joint is not None:
            part = Transaction(self, joint.writer, joint.reason, joint)
            yield part
            joint.absorb(part)
            return
        tx = None
        try:
            with self.mutex, translated(), self.journal.writer() as writer:
                self._catch_up()
                tx = Transaction(self, writer, reason or self.location.reason, actor=actor)
                yield tx
                tx.commit()
            self.refresh_view()
        finally:
            if tx is not None:
                tx.close()

    @contextmanager
    def joint_transaction(self, reason: str = "") -> Iterator[Transaction]:
        """One transaction of all operations that this thread performs in the block.

        Errors: those of ``transaction``. A block that raises has changed nothing.
        """
        if self.joint is not None:
            raise StorageError("a transaction inside a transaction: end the first one before")
        works: list[Workspace] = []
        try:
            with self.transaction(reason) as tx:
                works = tx.works
                self._joint = (threading.get_ident(), tx)
                try:
                    yield tx
                finally:
                    self._joint = None
        except BaseException as error:
            for work in works:
                self._after(error, work)
            raise
        finally:
            for work in works:
                work.discard()
        for action in tx.afterwards:
            action()

    @property
    def may_have_view(self) -> bool:
        """At most one ``stat``: whether a view for other tools may be kept here."""
        if self.location.projection:
            return self.location.projection != "off"
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
    def work(self, image: bool = False) -> Iterator[Workspace]:
        """A work folder for the block, deleted afterwards.

        ``image``: on the file system of layers that are not writable (a split image store).
        If the outcome of a commit is unknown it is left to the next sweep, which will know. A block
        that was interrupted is settled like the work of a process that died: only the journal knows
        on which side of the commit that was.
        """
        with self._held(Workspace.create(self.image_staging if image else self.staging)) as work:
            yield work

    @contextmanager
    def tree_work(self, work: Workspace, *, image: bool) -> Iterator[Workspace]:
        """A work folder where a layer's tree can be made: ``work``, unless the store is split."""
        if not image or self.image_staging == self.staging:
            yield work
            return
        with self.work(image=True) as other:
            yield other

    @contextmanager
    def work_beside(self, tree: str, work: Workspace) -> Iterator[Workspace]:
        """A work folder on the file system of the layer tree ``tree``."""
        with self.tree_work(work, image=self.in_image_store(tree)) as found:
            yield found

    def in_image_store(self, tree: str) -> bool:
        """Whether a layer's tree is in the split image store."""
        return self.image_staging != self.staging and tree.startswith(
            f"{self.image_staging.parent}/"
        )

    @contextmanager
    def _held(self, work: Workspace) -> Iterator[Workspace]:
        if self.joint is not None:
            self.joint.works.append(work)
            yield work
            return
        try:
            yield work
        except BaseException as error:
            self._after(error, work)
            raise
        finally:
            work.discard()

    def _after(self, error: BaseException, work: Workspace) -> None:
        """What an error makes of a work folder; after an ordinary one nothing was moved."""
        if isinstance(error, OutcomeUnknown):
            work.abandon()
        elif not isinstance(error, Exception):
            self.settle(work)

    # -- left-overs ------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Settle the work folders of processes that died; returns how many there were.

        Costs two ``scandir`` calls when there are none. A store that cannot be written, or whose
        writer is busy, is left as it is: the next one who opens it will try again.
        """
        places = [self.staging, self.trash]
        if self.image_staging != self.staging:
            places += [self.image_staging, self.image_trash]
        if self.location.read_only or not any_entries(*places):
            return 0
        settled = 0
        for parent in places:
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
        if intent.layers or intent.contents or intent.swaps:
            with self.mutex, translated(), self.journal.writer():
                self._catch_up()
                unknown = [x for x in intent.layers if self._state.layer(x) is None]
                if unknown and intent.driver == self.driver.name:
                    with self.mounts.held() as held:
                        for layer in unknown:
                            self.driver.withdraw(layer, work.path)
                            held.forget(layer)
                for swap in intent.swaps:
                    self._settle_swap(work, swap)
                for content in intent.contents:
                    if not self._state.refers_to_content(content):
                        self.content.evict(content, work.path)
        work.discard()

    def _settle_swap(self, work: Workspace, swap: Swap) -> None:
        """The tree that the record is of goes into the layer, the other one with the folder."""
        layer = self._state.layer(swap.layer)
        if layer is None:
            return
        root, tree = self.driver.content_root(swap.layer), work.path / "tree"
        if not root or not os.path.isdir(root) or not tree.is_dir():
            return
        in_place = os.stat(root).st_ino == swap.inode
        if in_place != (layer.diff.recipe == swap.recipe):
            exchange(root, str(tree))

    def close(self) -> None:
        with self.mutex, translated():
            if "mounts" in self.__dict__:
                self.mounts.close()
            for shelf in self.__dict__.get("shelves", ()):
                shelf.close()
            self.journal.close()
        self._replica.close()


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
        self.afterwards: list[Callable[[], None]] = []
        """What is to be done once a joint transaction has been committed."""
        self._next: int = whole._next if whole is not None else writer.tail.sequence + 1
        self._prepared: list[Prepared] = []
        self._contents: dict[str, Path] = {}
        self._dropped_layers: dict[str, None] = {}
        self._dropped_contents: dict[str, None] = {}
        self._trash: Workspace | None = None
        self._image_trash: Workspace | None = None
        self._exchanges: list[tuple[str, str]] = []
        self._committed = False
        self._reserve_spent = False
        self._unsettled = False
        """Something was moved, or is to be, and it is not yet known to be where it belongs."""

    def emit(self, event: ev.Event) -> None:
        """Add ``event``; it is visible in ``self.state`` at once."""
        from cstorage.state.reducer import apply

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

    def publish(self, prepared: Prepared) -> None:
        """Move a prepared layer into the driver's home when the transaction commits.

        Its ID must be in the intent of the work folder that it was prepared in.
        """
        self._prepared.append(prepared)

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
        if gone_layers or gone_contents:
            self._make_trash(gone_layers, gone_contents)
        published: list[str] = []
        exchanged: list[tuple[str, str]] = []
        self._unsettled = True
        try:
            for pair in self._exchanges:
                exchange(*pair)
                exchanged.append(pair)
            for prepared in self._prepared:
                self._clear_the_way(prepared.plan.id)
                published.append(prepared.plan.id)
                core.driver.publish(prepared)
            for key, path in self._contents.items():
                core.content.adopt(path, key)
            if self.events:
                from cstorage.events import codec

                self.writer.commit(
                    [codec.encode(event) for event in self.events],
                    actor=list(self.actor),
                    reason=self.reason,
                    schema=ev.SCHEMA,
                    use_reserve=bool(gone_layers or gone_contents) and not self._prepared,
                )
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
        core._catch_up()
        try:
            self._remove(gone_layers, gone_contents)
        except (StorageError, OSError):
            return  # the change is made; what could not be moved out yet is left to a sweep
        self._unsettled = False

    def _clear_the_way(self, layer: str) -> None:
        """A tree without a record gives way to the layer of its ID, as in the original."""
        if self.core.driver.exists(layer):
            self.core.driver.withdraw(layer, self._trash_for(layer).path)

    def _remove(self, layers: Sequence[str], contents: Sequence[str]) -> None:
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

    def _make_trash(self, layers: list[str], contents: list[str]) -> None:
        """Folders for what goes, on the file systems that it is on, with the intent to move it."""
        core = self.core
        apart = [x for x in layers if core.in_image_store(core.driver.content_root(x))]
        if apart:
            self._image_trash = self._declared(core.image_trash, apart, ())
            layers = [x for x in layers if x not in apart]
        if layers or contents:
            self._trash = self._declared(core.trash, layers, contents)

    def _declared(self, parent: Path, layers: Sequence[str], contents: Sequence[str]) -> Workspace:
        """A folder below ``parent`` with the intent to move these there.

        It takes room on a disk that may be full, which must not keep anybody from making room.
        """
        while True:
            trash = None
            try:
                trash = Workspace.create(parent)
                trash.declare(Intent(self.core.driver.name, tuple(layers), tuple(contents)))
                return trash
            except BaseException as error:
                if trash is not None:
                    trash.discard()
                full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
                if not full or not self.writer.spend_reserve():
                    raise
                self._reserve_spent = True

    def _trash_for(self, layer: str) -> Workspace:
        core = self.core
        if core.in_image_store(core.driver.content_root(layer)):
            self._image_trash = self._image_trash or Workspace.create(core.image_trash)
            return self._image_trash
        self._trash = self._trash or Workspace.create(core.trash)
        return self._trash

    def _roll_back(self, published: list[str]) -> None:
        """Take back what was moved into place; the frame was certainly not written."""
        if not published and not self._contents:
            return
        for layer in published:
            self.core.driver.withdraw(layer, self._trash_for(layer).path)
        self._trash = self._trash or Workspace.create(self.core.trash)
        for key in self._contents:
            if not self.core._state.refers_to_content(key):
                self.core.content.evict(key, self._trash.path)

    def close(self) -> None:
        """Delete what the transaction removed. Slow; the writer lock is not held any more."""
        kept_s = 0.0
        if self._trash is not None and self._dropped_layers and self.core.may_have_view:
            from cstorage.store.projecting import grace_s

            kept_s = grace_s(self.core)
        for trash in (self._trash, self._image_trash):
            if trash is None:
                continue
            if self._unsettled:
                self.core.settle(trash)
                continue
            try:
                trash.keep(kept_s)
                trash.discard()
            except OSError:
                trash.abandon()  # the change is made; a sweep tries again to delete the rest
        self._trash = self._image_trash = None
        if self._reserve_spent:
            refused = contextlib.suppress(StorageError, OSError)
            with refused, translated(), self.core.journal.writer() as writer:
                writer.refill_reserve()
