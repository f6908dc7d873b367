"""What drivers have in common that keep layers as directories: filling, comparing, reading them.

A driver says where a layer's own content and its whole tree are; everything here follows from
that. Differences are found by comparing two trees, which always works; a driver with a shortcut
overrides the method and calls it for the rest. Rules: drivers-and-formats §5.2 (what counts as a
change), §5.5 (the archive), §5.6 (sizes). Without a parent everything is added and the archive is a
plain one of the whole tree.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import contextmanager

from cstorage.drivers.contract import NO_MAPS, Prepared
from cstorage.errors import NotSupported
from journal.plain import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from cstorage.archive.apply import ApplyOptions
    from cstorage.archive.compression import ByteSink, ByteSource
    from cstorage.drivers.contract import LayerPlan, PayloadReader, StrPath
    from cstorage.model import Change, DiffSummary, IDMaps

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class TreeDriver(ABC):
    """See the module; the public methods are those of ``contract.GraphDriver``."""

    home: str
    image_home: str

    @abstractmethod
    def apply_options(self, given: ApplyOptions | None, maps: IDMaps) -> ApplyOptions:
        """``given``, with what is the driver's to say: whiteouts, maps, chown errors, mask."""

    @abstractmethod
    def own_content(self, layer_id: str) -> str:
        """The content root of a layer that may be changed. Raises ``DriverError``."""

    @abstractmethod
    def content_directories(self, layer_id: str) -> Sequence[str]:
        """Where a file of the layer is looked for, in this order. Raises ``DriverError``."""

    @abstractmethod
    def view(self, layer_id: str, maps: IDMaps = NO_MAPS) -> AbstractContextManager[int]:
        """A descriptor of the whole tree of a layer whose files have owners of ``maps``."""

    def disk_maps(self, maps: IDMaps) -> IDMaps:
        """The maps of a layer's own files on disk."""
        return maps

    def damage(self, _layer_id: str, _parent: str, /) -> list[str]:
        return []

    def mend(self, _layer_id: str, _parent: str, /) -> None:
        return  # there is nothing but content

    def linked_entry(self, layer_id: str) -> str:
        del layer_id
        return ""

    def readmit(self, plan: LayerPlan, path: StrPath) -> Prepared:
        home = self.home if plan.writable or not self.image_home else self.image_home
        return Prepared(plan, os.fspath(path), -1, home)

    def link(self, prepared: Prepared, entry: StrPath) -> None:
        raise NotSupported(f"content of {os.fspath(entry)} for layer {prepared.plan.id}")

    # -- filling ---------------------------------------------------------------------------------

    def apply(
        self,
        prepared: Prepared,
        source: ByteSource,
        options: ApplyOptions | None = None,
        *,
        recipe: BinaryIO | None = None,
        manifest: BinaryIO | None = None,
    ) -> DiffSummary:
        from cstorage.archive.apply import apply_layer
        from cstorage.drivers.earlysync import EarlySync

        prepared.filled = True
        chosen = self.apply_options(options, self.disk_maps(prepared.plan.maps))
        with EarlySync(prepared.root_fd):
            return apply_layer(
                source, prepared.root_fd, chosen,
                recipe=recipe, manifest=manifest, guards=prepared.guards,
            )  # fmt: skip

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
        from cstorage.archive.apply import apply_layer
        from cstorage.drivers.earlysync import EarlySync
        from cstorage.drivers.mountapi import sync_file_system

        root = os.open(self.own_content(layer_id), _DIRECTORY | os.O_NOFOLLOW)
        try:
            chosen = self.apply_options(options, self.disk_maps(maps))
            with EarlySync(root):
                diff = apply_layer(source, root, chosen, recipe=recipe, manifest=manifest)
            sync_file_system(root)
            return diff
        finally:
            os.close(root)

    # -- differences -----------------------------------------------------------------------------

    @contextmanager
    def _views(
        self, layer_id: str, parent: str, maps: IDMaps, parent_maps: IDMaps
    ) -> Iterator[tuple[int | None, int]]:
        with self.view(layer_id, maps) as new:
            if not parent:
                yield None, new
                return
            with self.view(parent, parent_maps) as old:
                yield old, new

    def _compared(
        self, old: int | None, new: int, maps: IDMaps, parent_maps: IDMaps
    ) -> list[Change]:
        from cstorage.archive.changes import compare_trees

        return compare_trees(
            old, new, old_maps=self.disk_maps(parent_maps), new_maps=self.disk_maps(maps)
        )

    def changes(
        self,
        layer_id: str,
        parent: str = "",
        *,
        maps: IDMaps = NO_MAPS,
        parent_maps: IDMaps = NO_MAPS,
    ) -> list[Change]:
        with self._views(layer_id, parent, maps, parent_maps) as (old, new):
            return self._compared(old, new, maps, parent_maps)

    def diff_size(
        self,
        layer_id: str,
        parent: str = "",
        *,
        maps: IDMaps = NO_MAPS,
        parent_maps: IDMaps = NO_MAPS,
    ) -> int:
        from cstorage.archive.changes import changes_size

        with self._views(layer_id, parent, maps, parent_maps) as (old, new):
            return changes_size(new, self._compared(old, new, maps, parent_maps))

    def write_diff(
        self,
        layer_id: str,
        parent: str,
        sink: ByteSink,
        *,
        maps: IDMaps = NO_MAPS,
        parent_maps: IDMaps = NO_MAPS,
    ) -> None:
        from cstorage.archive.produce import write_changes, write_tree

        with self._views(layer_id, parent, maps, parent_maps) as (old, new):
            if old is None:
                write_tree(new, sink, maps=self.disk_maps(maps))
            else:
                found = self._compared(old, new, maps, parent_maps)
                write_changes(new, found, sink, maps=self.disk_maps(maps))

    # -- payloads --------------------------------------------------------------------------------

    def payloads(self, layer_id: str) -> PayloadReader:
        from cstorage.drivers.payload import Payloads

        return Payloads(self.content_directories(layer_id))

    def open_payload(self, layer_id: str, name: bytes) -> int:
        reader = self.payloads(layer_id)
        try:
            return reader(name)
        finally:
            reader.close()
