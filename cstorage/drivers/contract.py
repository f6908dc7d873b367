"""What a graph driver promises to the store.

Terms, fixed once:

* **layer** — a file tree as one image layer or container sees it; **parent** — the layer below.
* **content root** — the directory that holds what the layer itself contributes: for ``overlay`` the
  upper directory ``diff`` (changes only), for ``vfs`` the whole tree (``DIR/<id>``).
* **home** — the driver's directory, ``GRAPHROOT/<driver>``; the **image home** is the same below a
  split image store and receives layers that are not writable; **additional homes** belong to
  read-only stores and are only read; the **run home**, ``RUNROOT/<driver>``, forgets at reboot.
* **prepared** — complete, but below a caller's work directory where nobody looks; **published** —
  in the home under its ID. There is nothing in between that a reader could meet.
* **maps** — the ID maps of the files on disk. A driver that ``can_shift_ids`` stores host IDs
  (empty maps) and applies maps when it mounts; for a layer that is mounted that way, ``maps`` are
  ``ShiftedMaps``.

Life cycle::

    prepare ─► apply ─► make_durable ─► publish ─► mount / unmount / changes / diff … ─► withdraw
       │ (no lock held, nothing visible)  │ (writer lock held, a rename)   (rename to the trash)
       └─ the work directory is simply deleted when anything fails ─┘

``publish`` may be killed between any two of its steps. The store has written down its intent before
and calls ``withdraw(id, trash)`` for what it finds unfinished; ``withdraw`` needs nothing but the
ID, removes whatever part is there, and is content when there is none. So both are safe to repeat.

Importing a layer and running a container, in calls::

    prepared = driver.prepare(LayerPlan(id="9f…", parent="ab…"), work)   # no lock
    summary = driver.apply(prepared, stream, options, recipe=…, manifest=…)
    driver.make_durable(prepared)
    …writer lock…  driver.publish(prepared)  …journal frame…  unlock
    top = driver.prepare(LayerPlan(id="c1…", parent="9f…", writable=True), work)
    …publish as above…
    path = driver.mount("c1…", MountOptions())         # the store counts references, not the driver
    driver.changes("c1…", "9f…")
    driver.unmount("c1…")

Construction does no I/O beyond checking paths named in options: probes run when something needs
their answer, directories appear at the first write.

Errors: ``DriverError`` (also for missing layers: ``PATH: no such file or directory``, after
``Stat`` for a parent, ``stat`` or ``faccessat`` otherwise),
``DriverNotSupported``, ``InvalidID``, ``ArchiveError`` from streams, ``OSError`` for real I/O
errors. Sources: reference drivers-and-formats §1.2, §1.3, §3, §4; semantics §2.10, §4.7.
"""

from __future__ import annotations

import os

from cstorage.errors import InvalidID
from cstorage.model import IDMaps, LayerID
from journal.plain import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cstorage.archive.apply import ApplyOptions
    from cstorage.archive.compression import ByteSink, ByteSource
    from cstorage.model import Change, DiffSummary

StrPath = str | os.PathLike[str]

ID_BYTES_MAX = 200
"""Longest ID that is used as a path component (the store appends suffixes; NAME_MAX is 255)."""


NO_MAPS = IDMaps()
"""Host IDs."""


class ShiftedMaps(IDMaps):
    """Maps that mounts apply, as opposed to those that a layer's files were changed to.

    Only what was written through such a mount, the layer's own content, has owners of the maps on
    disk; the layers below have host IDs.
    """

    __slots__ = ()


class DriverOptions(NamedTuple):
    """Where a driver works and what it was told.

    ``options`` are ``key=value`` or ``driver.key=value`` strings as the user gave them. Paths are
    ``GRAPHROOT/<driver>``, ``RUNROOT/<driver>``, ``IMAGESTORE/<driver>`` ("" = no split store) and
    ``AIS/<driver>`` for every additional image store, in order.
    """

    home: StrPath
    run_home: StrPath
    options: tuple[str, ...] = ()
    additional_homes: tuple[StrPath, ...] = ()
    image_home: StrPath = ""


class LayerPlan(NamedTuple):
    """A layer to be made.

    ``template`` makes it a copy of that layer (its content and chain) with other ``maps``; the
    record's parent is then the template's parent, and ``parent_maps`` are the template's maps.
    ``storage_options`` are per-layer driver options (``size``, ``inodes``).
    """

    id: LayerID
    parent: LayerID = LayerID("")
    writable: bool = False
    template: LayerID = LayerID("")
    mount_label: str = ""
    storage_options: Mapping[str, str] = {}
    maps: IDMaps = NO_MAPS
    parent_maps: IDMaps = NO_MAPS


class MountOptions(NamedTuple):
    """How to mount a layer.

    ``options`` replace the configured ``mountopt`` when there are any. ``maps`` are the IDs the
    mount should show, ``layer_maps`` those of the files on disk.
    """

    label: str = ""
    options: tuple[str, ...] = ()
    read_only: bool = False
    volatile: bool = False
    maps: IDMaps = NO_MAPS
    layer_maps: IDMaps = NO_MAPS


PLAIN_MOUNT = MountOptions()
"""Writable, as configured."""


class Prepared:
    """A complete but unpublished layer: ``path`` is what ``publish`` renames to ``home``/<id>.

    ``root_fd`` is an open descriptor of the content root, closed by ``close`` (or leaving the
    ``with`` block). ``filled`` tells ``make_durable`` that content was written. ``guards`` are open
    descriptors whose locks keep others from cleaning up what is being made: a second process that
    writes there holds them, too; ``None``: there must be none.
    """

    __slots__ = ("filled", "guards", "home", "path", "plan", "root_fd")

    def __init__(self, plan: LayerPlan, path: str, root_fd: int, home: str) -> None:
        self.plan = plan
        self.path = path
        self.root_fd = root_fd
        self.home = home
        self.filled = False
        self.guards: tuple[int, ...] | None = None

    def close(self) -> None:
        """Close the descriptor; the directory stays. Safe to call twice."""
        descriptor, self.root_fd = self.root_fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PayloadReader(Protocol):
    """Opens regular files of one layer; holds directory descriptors until closed."""

    def __call__(self, name: bytes, /) -> int:
        """A new O_RDONLY descriptor of the regular file, found in-root, uppermost layer first."""

    def directory(self) -> int:
        """A descriptor of the directory with the layer's own files; the reader keeps it."""

    def close(self) -> None: ...


class DriverReader(Protocol):
    """The questions that a graph driver answers: nothing here changes a layer.

    ``Store.graph_driver`` hands out this much. Layer IDs are exact, and a layer of which there is
    no tree is a ``DriverError``; what the store recorded (names, maps, mount counts) is asked of
    the store.
    """

    name: str
    home: str

    @property
    def can_shift_ids(self) -> bool:
        """Whether mounts can apply ID maps, so that layers are stored with host IDs."""

    def can_shift(self, maps: IDMaps, /) -> bool:
        """Whether mounts can apply these maps."""

    @property
    def stages_content(self) -> bool:
        """Whether a finished directory can become a layer's content by renaming it."""

    def disk_maps(self, maps: IDMaps, /) -> IDMaps:
        """What ``maps`` of a layer mean for the owners that its own files have on disk."""

    def exists(self, layer_id: str) -> bool:
        """Whether the layer's tree is in the home, the image home or an additional home."""

    def require(self, layer_id: str) -> None:
        """Raises ``DriverError``, worded as when it is read, for a layer that ``exists`` denies."""

    def layers(self) -> list[str]:
        """IDs of all trees in the home and the image home, sorted."""

    def content_root(self, layer_id: str) -> str:
        """Path of the content root of a layer in the home or image home, "" if it is in neither."""

    def linked_entry(self, layer_id: str) -> str:
        """The entry of an additional layer store that has the layer's content, "" if none has.

        Such a layer can be read and mounted like any other, and not be written to.
        """

    def damage(self, layer_id: str, parent: str, /) -> list[str]:
        """What is wrong with the driver's own files of a layer that rests on ``parent``."""

    def is_mounted(self, layer_id: str) -> bool:
        """What the kernel says, not what was recorded."""

    def changes(
        self,
        layer_id: str,
        parent: str = "",
        *,
        maps: IDMaps = NO_MAPS,
        parent_maps: IDMaps = NO_MAPS,
    ) -> list[Change]:
        """What differs between the layer and ``parent`` ("" = an empty tree)."""

    def diff_size(
        self,
        layer_id: str,
        parent: str = "",
        *,
        maps: IDMaps = NO_MAPS,
        parent_maps: IDMaps = NO_MAPS,
    ) -> int:
        """Bytes of the files that differ (drivers-and-formats §5.6)."""

    def write_diff(
        self,
        layer_id: str,
        parent: str,
        sink: ByteSink,
        *,
        maps: IDMaps = NO_MAPS,
        parent_maps: IDMaps = NO_MAPS,
    ) -> None:
        """Write the difference as a tar archive, uncompressed."""

    def view(self, layer_id: str, maps: IDMaps = NO_MAPS) -> AbstractContextManager[int]:
        """A descriptor of the whole tree, for reading, whether or not the layer is mounted."""

    def payloads(self, layer_id: str) -> PayloadReader:
        """For rebuilding an archive from its recipe: many files of one layer."""

    def open_payload(self, layer_id: str, name: bytes) -> int:
        """One file of one layer, as ``payloads`` does."""

    def status(self) -> list[tuple[str, str]]:
        """Rows that ``status`` prints after "Driver Options". May probe."""

    def metadata(self, layer_id: str) -> dict[str, str]:
        """Where the parts of a layer are, by the names that container engines show.

        overlay: ``UpperDir``, ``WorkDir``, ``MergedDir``, and ``LowerDir`` (joined with colons) if
        there is a layer below; drivers without such parts have none.
        """


class GraphDriver(DriverReader, Protocol):
    """One way to keep layers on disk and to assemble them. See the module for the life cycle."""

    def check_plan(self, plan: LayerPlan, /) -> None:
        """Raises what ``prepare`` raises for plans that it refuses whatever trees there are."""

    def prepare(self, plan: LayerPlan, work: StrPath, parent: Prepared | None = None) -> Prepared:
        """Build the layer below ``work`` (an existing directory of the home's file system).

        Touches nothing published. ``parent`` stands for ``plan.parent`` while that is itself still
        unpublished; publish it first. Raises ``DriverError`` if the parent does not exist.
        """

    def apply(
        self,
        prepared: Prepared,
        source: ByteSource,
        options: ApplyOptions | None = None,
        *,
        recipe: BinaryIO | None = None,
        manifest: BinaryIO | None = None,
    ) -> DiffSummary:
        """Fill it from an archive.

        Whiteouts, maps, chown errors and mask of ``options`` are the driver's and are overwritten.
        """

    def link(self, prepared: Prepared, entry: StrPath) -> None:
        """Instead of ``apply``: its content is the tree ``<entry>/diff`` of somebody else.

        Raises ``NotSupported`` unless the driver can do that, ``DriverError`` if there is none.
        """

    def make_durable(self, prepared: Prepared) -> None:
        """Return when its content and directories are on disk. Slow; call it without the lock."""

    def publish(self, prepared: Prepared) -> tuple[str, ...]:
        """Rename it into place. Quick; closes nothing.

        Returns the directories that the caller is to sync before anybody relies on it.
        """

    def withdraw(self, layer_id: str, trash: StrPath) -> bool:
        """Unmount and move every trace of the layer into ``trash``; True if there was any."""

    def readmit(self, plan: LayerPlan, path: StrPath) -> Prepared:
        """A tree that ``withdraw`` moved to ``path``, to be published again."""

    def apply_to(
        self,
        layer_id: str,
        source: ByteSource,
        options: ApplyOptions | None = None,
        *,
        maps: IDMaps = NO_MAPS,
        recipe: BinaryIO | None = None,
        manifest: BinaryIO | None = None,
    ) -> DiffSummary:
        """Apply an archive onto a published layer; it is on disk when this returns."""

    def mount(self, layer_id: str, options: MountOptions = PLAIN_MOUNT) -> Path:
        """Make the layer's tree available and return where. No reference counting."""

    def unmount(self, layer_id: str) -> None:
        """Undo ``mount``; nothing happens if it is not mounted."""

    def mend(self, layer_id: str, parent: str, /) -> None:
        """Put right what ``damage`` finds, as far as that is possible."""

    def cleanup(self) -> None:
        """Release the driver's own mounts (shutdown)."""


def checked_id(layer_id: str) -> str:
    """The ID if it can be a single path component, else ``InvalidID``.

    The original joins any text to its home, so ``../x`` escapes (drivers-and-formats §9.1).
    Names that begin with ``=`` are those of the store's own files in folders that hold layers.
    """
    if (
        layer_id in {"", ".", ".."}
        or layer_id.startswith("=")
        or "/" in layer_id
        or "\0" in layer_id
        or len(os.fsencode(layer_id)) > ID_BYTES_MAX
    ):
        raise InvalidID(
            f"invalid layer ID {layer_id[:64]!r}",
            hint=f"an ID is one path component of at most {ID_BYTES_MAX} bytes, without = in front",
        )
    return layer_id
