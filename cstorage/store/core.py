"""What every operation of the store works with: paths, journal, state, driver, work folders.

The two protocols of the store live here (docs/architecture.md):

* **Reading** takes no lock: ``Core.state`` compares the journal's tail first and applies what is
  new, so a read never returns less than what had been committed when it began.
* **Committing**: ``Core.transaction`` holds the writer lock, catches up, lets the caller check its
  preconditions and collect events in a ``commit.Transaction``, which it then commits.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

import journal as journal_api
from cstorage.config import StoreOptions
from cstorage.content import ContentStore
from cstorage.errors import OutcomeUnknown, StorageError, StoreIsReadOnly
from cstorage.model import IDMaps
from cstorage.state import State
from cstorage.store.catalogue import Catalogue
from cstorage.store.exchange import exchange
from cstorage.store.lazily import LazyModule
from cstorage.store.reading import Replica, translated
from cstorage.store.workspace import DELETED, Intent, Swap, Workspace, any_entries, left_over
from journal.plain import TYPE_CHECKING, NamedTuple, Path

if TYPE_CHECKING:
    from cstorage import events as ev
    from cstorage.drivers.contract import GraphDriver
    from cstorage.store.catalogue import Shelf
    from cstorage.store.commit import Transaction
    from cstorage.store.kept import Retention
    from cstorage.store.mounts import MountTable
    from cstorage.store.past import Moment
    from cstorage.store.reading import Own
    from cstorage.store.removing import Remover
    from journal import Journal
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
        self,
        location: Location,
        journal: Journal,
        driver: GraphDriver,
        journal_path: Path,
        moment: Moment | None = None,
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
        self.keeps_deleted = bool(self.options.keep_deleted_s or self.options.keep_deleted_bytes)
        self.pull_options: Mapping[str, str] = self.options.pull_options or {}
        self._joint: tuple[int, Transaction] | None = None  # thread and its joint transaction
        if moment is None:
            self._replica = Replica(journal, journal_path, writable=not location.read_only)
        else:
            from cstorage.store.past import Past

            self._replica = Past(journal, journal_path, moment)

    # -- reading ---------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state, caught up with the journal. Hold ``mutex`` while several reads must agree."""
        joint = self.joint
        if joint is not None:
            return joint.state
        with self.mutex:
            self._replica.refresh()
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

    def _catch_up(self, own: Own | None = None) -> None:
        self._replica.catch_up(own)

    @property
    def until(self) -> int | None:
        """The last event that a store of the past knows of, ``None`` in the present."""
        return self._replica.until

    @property
    def retention(self) -> Retention:
        """How long what this process deletes is kept."""
        from cstorage.store.kept import Retention

        return Retention(self.options.keep_deleted_s, self.options.keep_deleted_bytes)

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

    def check_writable(self) -> None:
        """Raises ``StoreIsReadOnly``: before anything is prepared, moved or removed."""
        if self.location.read_only:
            raise StoreIsReadOnly(f"{self.location.graph_root} is open for reading only")

    @contextmanager
    def transaction(self, reason: str = "", actor: ev.Actor | None = None) -> Iterator[Transaction]:
        """Hold the writer lock around the block; commit what it collected when it ends well.

        Raises ``StoreBusy``, ``StoreDamaged``, ``StoreIsReadOnly``, and whatever the block raises:
        then nothing was changed.
        """
        self.check_writable()
        from cstorage.store.commit import Transaction

        joint = self.joint
        if joint is not None:
            part = Transaction(self, joint.writer, joint.reason, joint)
            yield part
            joint.absorb(part)
            return
        tx = None
        try:
            with self.mutex, translated():
                self._replica.refresh()  # what is applied before the lock keeps nobody waiting
                with self.journal.writer() as writer:
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

    @property
    def remover(self) -> Remover:
        """What deletes the trees of large deletions; imported by whoever has something for it."""
        from cstorage.store.removing import Remover

        found: Remover = self.__dict__.setdefault("_remover", Remover())
        return found

    def _await_removals(self) -> None:
        if "_remover" in self.__dict__:
            self.remover.wait()

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
        self.check_writable()
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
        return self.is_split and tree.startswith(f"{self.image_staging.parent}/")

    def lies_apart(self, layer: str) -> bool:
        """The same of a layer; asks no disk where nothing is split."""
        return self.is_split and self.in_image_store(self.driver.content_root(layer))

    @property
    def is_split(self) -> bool:
        """Whether layers that are not writable have a place of their own."""
        return self.image_staging != self.staging

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
        self._await_removals()
        if self.location.read_only or not any_entries(*places):
            return 0
        settled = 0
        for parent in places:
            for work in left_over(parent):
                if work.kept() and not work.intent.moves:
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
        keep_s = 0.0
        if intent.moves or ((work.path / DELETED).exists() and not work.has_time):
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
                if intent.folders:
                    from cstorage.store import directories

                    for folder in directories.orphans(self._state, intent.folders):
                        directories.withdraw(self, folder, work)
                keep_s = self._keep_s(work)
        work.keep(keep_s)
        work.discard()

    def _keep_s(self, work: Workspace) -> float:
        """How long a left-over folder is to be kept because of the deleted items in it."""
        described = self.trash / work.path.name  # the part in a split image store has no record
        if not (described / DELETED).exists():
            return 0.0
        from cstorage.store import kept

        found = kept.read(described)
        if found is None or not kept.is_gone(self, found):
            return 0.0
        kept.add_links(self, described, found.items)
        return max(0.0, (found.until_ns - time.time_ns()) / 1e9)

    def _settle_swap(self, work: Workspace, swap: Swap) -> None:
        """The tree that the record is of goes into the layer, the other one with the folder."""
        layer = self._state.layer(swap.layer)
        if layer is None:
            return
        root, tree = self.driver.content_root(swap.layer), work.path / "=tree"
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
        self._await_removals()
