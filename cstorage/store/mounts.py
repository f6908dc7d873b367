"""Mounting with reference counts that processes share and a reboot forgets (semantics §4.7).

The counts are a second, volatile journal below the run root: events ``[1, layer, path, count]``,
``count`` being the new count and 0 meaning "not mounted". Events of another boot are void, and the
kernel has the last word: a layer that it does not know as mounted has count 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import journal as journal_api
from cstorage.drivers.contract import MountOptions
from cstorage.errors import LayerUnknown, LayerUsedByContainer, StorageError, StoreIsReadOnly
from cstorage.model import IDMaps, Layer, LayerID
from cstorage.store import lookup, variants
from cstorage.store.core import boot_id
from cstorage.store.reading import translated
from journal.errors import JournalNotFound
from journal.frame import DATA
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage.store.core import Core
    from journal import Journal, Reader, Writer

_COUNT_SET = 1
_SCHEMA = 1
_SEGMENT_BYTES = 1 << 20


class Mount(NamedTuple):
    """Where a layer is mounted and how many hold it."""

    path: str
    users: int


class MountTable:
    """Mount counts of one run root, kept in ``RUNROOT/<driver>-mounts``."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.path = core.location.run_root / f"{core.driver.name}-mounts"
        self._journal: Journal | None = None
        self._reader: Reader | None = None
        self._table: dict[str, Mount] = {}
        self._boot = boot_id()
        self._writer: Writer | None = None

    def _open(self, create: bool) -> bool:
        if self._journal is None:
            if not create and not self.path.exists():
                return False
            with translated():
                try:
                    self._journal = journal_api.Journal.open(
                        self.path,
                        mode="w" if create else "r",
                        create=create,
                        durability="none",
                        segment_bytes=_SEGMENT_BYTES,
                        force_network_fs=True,
                    )
                except JournalNotFound:
                    if create:
                        raise
                    return False  # another process is about to make it, and has mounted nothing
                self._reader = self._journal.reader(None)
        return True

    def _catch_up(self) -> None:
        assert self._reader is not None
        with translated():
            for frame in self._reader.read_new():
                if frame.kind != DATA:
                    continue
                transaction = frame.transaction()
                if transaction.actor[4] != self._boot:
                    continue
                for event in transaction.events:
                    _, layer, path, count = event[:4]
                    if count > 0:
                        self._table[layer] = Mount(path, count)
                    else:
                        self._table.pop(layer, None)

    def all(self) -> dict[str, Mount]:
        """Layer ID → mount, as recorded; the kernel may know better."""
        with self.core.mutex:
            if self._open(create=False):
                self._catch_up()
            return dict(self._table)

    def get(self, layer: str) -> Mount:
        """The recorded mount of a layer; count 0 and no path if there is none."""
        return self.all().get(layer, Mount("", 0))

    def _reopen_for_writing(self) -> None:
        if self._journal is not None and self._journal.mode != "w":
            self._journal.close()
            self._journal = None
            self._table = {}
        self._open(create=True)

    def _set(self, writer: Writer, layer: str, mount: Mount) -> None:
        writer.commit(
            [[_COUNT_SET, layer, mount.path, mount.users]],
            actor=list(self.core.actor()),
            reason="",
            schema=_SCHEMA,
        )

    @contextmanager
    def held(self) -> Iterator[MountTable]:
        """Keep others from mounting or unmounting while layers are taken away."""
        with self.core.mutex, translated():
            self._reopen_for_writing()
            assert self._journal is not None
            with self._journal.writer() as writer:
                self._catch_up()
                self._writer = writer
                try:
                    yield self
                finally:
                    self._writer = None

    def forget(self, layer: str) -> None:
        """A layer is gone, and its mount with it. Only inside ``held``."""
        assert self._writer is not None
        if layer in self._table:
            self._set(self._writer, layer, Mount("", 0))
            self._catch_up()

    def add(self, layer: Layer, options: MountOptions, must_exist: bool = True) -> Path:
        """Mount the layer, or count one more user of its mount; returns where it is."""
        with self.core.mutex, translated():
            self._reopen_for_writing()
            assert self._journal is not None
            with self._journal.writer() as writer:
                self._catch_up()
                # Deletion takes this lock after its event is written, so a layer that is still
                # known here cannot disappear before the count says that it is in use.
                known = self.core.state.layer(layer.id) is not None or layer.read_only
                if must_exist and not known:
                    raise LayerUnknown
                current = self._table.get(layer.id)
                if current is not None and self.core.driver.is_mounted(layer.id):
                    mount = current._replace(users=current.users + 1)
                else:
                    mount = Mount(str(self.core.driver.mount(layer.id, options)), 1)
                self._set(writer, layer.id, mount)
                self._catch_up()
                return _path(mount.path)

    def drop(self, layer: str, force: bool) -> bool:
        """One user less, or none with ``force``; True if it is still mounted."""
        with self.core.mutex, translated():
            if not self._open(create=False) and not self.core.driver.is_mounted(layer):
                return False
            self._reopen_for_writing()
            assert self._journal is not None
            with self._journal.writer() as writer:
                self._catch_up()
                current = self._table.get(layer)
                if current is not None and current.users > 1 and not force:
                    self._set(writer, layer, current._replace(users=current.users - 1))
                    self._catch_up()
                    return True
                self.core.driver.unmount(layer)
                if current is not None:
                    self._set(writer, layer, Mount("", 0))
                    self._catch_up()
                return False

    def close(self) -> None:
        if self._journal is not None:
            with translated():
                self._journal.close()
            self._journal = None


def _target(core: Core, key: str) -> tuple[Layer, IDMaps, tuple[str, ...], bool]:
    """Layer, maps, mount options and volatility that ``key`` asks for when it is mounted."""
    state = core.state
    container = lookup.find_container(state, key)
    if container is None:
        layer = core.catalogue.layer(key)
        if layer.read_only:
            raise StoreIsReadOnly("mounting read/only store images is not allowed")
        return layer, layer.maps, (), False
    found = state.layer(container.layer)
    if found is None:
        raise LayerUnknown
    options = container.flags.get("MountOpts") or ()
    texts = tuple(option for option in options if isinstance(option, str))
    volatile = container.flags.get("Volatile") is True and not core.options.disable_volatile
    return found, container.maps or found.maps, texts, volatile


def mount(
    core: Core, table: MountTable, key: str, label: str = "", options: Sequence[str] = ()
) -> Path:
    """Mount a container's layer, or a layer, for writing; count one user.

    Raises ``LayerUnknown``, ``DriverError``.
    """
    layer, maps, recorded, volatile = _target(core, key)
    return table.add(
        layer,
        MountOptions(
            label=label or layer.mount_label,
            options=tuple(options) or recorded,
            volatile=volatile,
            maps=maps,
            layer_maps=layer.maps,
        ),
    )


def mount_image(
    core: Core, table: MountTable, key: str, label: str = "", options: Sequence[str] = ()
) -> Path:
    """Mount an image's top layer read-only; count one user.

    Raises ``StorageError`` for option ``rw`` (checked first), ``ImageUnknown``, ``LayerUnknown``.
    """
    if "rw" in options:
        raise StorageError('invalid mount option "rw": images can only be mounted read-only')
    image = core.catalogue.image(key)
    if not image.top_layer:
        raise LayerUnknown
    layer = variants.usable(core, image, variants.HOST)
    if layer.maps:
        raise StorageError(
            "cannot create an image with canonical UID/GID mappings in a read-only store: "
            f"layer {layer.id} has maps of its own"
        )
    return table.add(
        layer,
        MountOptions(
            label=label or layer.mount_label,
            options=tuple(options),
            read_only=True,
            layer_maps=layer.maps,
        ),
    )


def unmount(core: Core, table: MountTable, key: str, force: bool = False) -> bool:
    """One user less of a container's layer or a layer; True if others still use it.

    Unmounting what is not mounted succeeds. Raises ``LayerUnknown``.
    """
    return table.drop(_layer_of(core, key), force)


def unmount_image(core: Core, table: MountTable, key: str, force: bool = False) -> bool:
    """The counterpart of ``mount_image``. Raises ``ImageUnknown``, ``LayerUnknown``."""
    layer = variants.unmapped(core, core.catalogue.image(key))
    if core.catalogue.layer_by_id(layer) is None:
        raise LayerUnknown
    return table.drop(layer, force)


def _layer_of(core: Core, key: str) -> LayerID:
    state = core.state
    container = lookup.find_container(state, key)
    layer = lookup.find_layer(state, key) if container is None else state.layer(container.layer)
    if layer is None:
        raise LayerUnknown
    return layer.id


def mounted(core: Core, table: MountTable, key: str) -> int:
    """How many users the mount of ``key`` has, 0 if the kernel does not know it as mounted."""
    layer = _layer_of(core, key)
    recorded = table.get(layer)
    if recorded.users and not core.driver.is_mounted(layer):
        return 0
    return recorded.users


def shutdown(core: Core, table: MountTable, force: bool = False) -> list[LayerID]:
    """Unmount everything (with ``force``) and release the driver's own mounts.

    Raises ``LayerUsedByContainer`` if anything was mounted, forced or not (quirk Q-18, kept).
    """
    state = core.state
    held = [LayerID(id_) for id_ in table.all() if state.layer(id_) is not None]
    busy = [id_ for id_ in held if core.driver.is_mounted(id_)]
    if force:
        for id_ in busy:
            table.drop(id_, force=True)
    if busy:
        raise LayerUsedByContainer("a layer is mounted")
    core.driver.cleanup()
    return []


def parent_owners(core: Core, table: MountTable, key: str) -> tuple[list[int], list[int]]:
    """Owners of the directories above a mapped layer's mount point that its maps do not know.

    Two sorted lists (UIDs, GIDs), empty for layers without maps. Raises ``LayerUnknown``,
    ``LayerNotMounted`` (semantics §4.4).
    """
    from cstorage.errors import LayerNotMounted

    layer = lookup.layer(core.state, key)
    if not layer.maps:
        return [], []
    path = table.get(layer.id).path
    if not path or not os.path.isdir(path):
        raise LayerNotMounted
    uids: set[int] = set()
    gids: set[int] = set()
    for folder in _path(path).parents:
        if str(folder) == "/":
            break
        for info in (os.stat(folder), os.lstat(folder)):
            if not _maps_host(layer.maps.uids, info.st_uid):
                uids.add(info.st_uid)
            if not _maps_host(layer.maps.gids, info.st_gid):
                gids.add(info.st_gid)
    return sorted(uids), sorted(gids)


def _maps_host(entries: Sequence[tuple[int, int, int]], host: int) -> bool:
    return not entries or any(first <= host < first + size for _, first, size in entries)


def _path(text: str) -> Path:
    from pathlib import Path

    return Path(text)
