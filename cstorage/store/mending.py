"""Putting right what can be: attributes, files that nobody recorded, file lists, links of layers.

A layer whose archive can still be made, byte for byte, but whose tree has other modes, owners,
times or surplus files, is mended in place: nothing that was recorded is lost by it, whereas
deleting the layer (what the original does) takes images and containers along. What is missing or
of another type or size is not mended.

A damaged file list (manifest) is made again from the archive, the driver's own files of a layer
from what its neighbours know.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cstorage import events as ev
from cstorage.content import sync_directories
from cstorage.errors import (
    LayerContentModified,
    LayerDirectoryDamaged,
    LayerFileListDamaged,
    StorageError,
)
from cstorage.idmap import to_host
from cstorage.model import Compression, IDMaps
from cstorage.store import contents, diffs, integrity
from cstorage.store.filling import extract
from cstorage.store.mapping import of_files
from cstorage.store.workspace import Intent, remove_tree
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cstorage.model import Layer
    from cstorage.store.core import Core


_MENDABLE = (LayerContentModified, LayerDirectoryDamaged, LayerFileListDamaged)


def mend(core: Core, found: Mapping[str, list[Exception]]) -> set[str]:
    """Mend the layers that have no other findings; returns the IDs of those that are well again.

    A finding in one layer shows in those above it, so all are mended before any is looked at.
    """
    state = core.state
    candidates = [
        layer
        for id_, errors in found.items()
        if all(isinstance(error, _MENDABLE) for error in errors)
        and (layer := state.layer(id_)) is not None
    ]
    for layer in candidates:
        try:
            core.driver.mend(layer.id, layer.parent)
            if integrity.damaged_list(core, layer):
                _list_again(core, layer)
        except (OSError, StorageError):
            continue  # it shows below that the layer is not well
    for layer in candidates:
        try:
            _mend(core, layer)
        except (OSError, StorageError):
            continue
    return {layer.id for layer in candidates if _well(core, layer)}


def _well(core: Core, layer: Layer) -> bool:
    current = core.state.layer(layer.id)
    if current is None or core.driver.damage(layer.id, layer.parent):
        return False
    if integrity.damaged_list(core, current) or any(integrity.findings(core, current)):
        return False
    try:
        return not contents.differences(core, core.state, current)
    except (OSError, StorageError):
        return False


def _list_again(core: Core, layer: Layer) -> None:
    """Make the manifest of a layer from its archive, and record it if it came out differently.

    The archive is extracted beside the layer for that. Raises what extracting raises, and
    ``ContentChanged`` if the archive is not the recorded one.
    """
    from cstorage.drivers.contract import LayerPlan
    from cstorage.interop.transfer import Stream

    parent = core.state.layer(layer.parent) if layer.parent else None
    maps = parent.maps if parent is not None else IDMaps()
    plan = LayerPlan(layer.id, layer.parent, maps=maps, parent_maps=maps)
    with core.work() as work, core.work_beside(core.driver.content_root(layer.id), work) as tree:
        with (
            core.driver.prepare(plan, tree.path) as prepared,
            Stream(
                lambda sink: diffs.write(core, layer.id, sink, compression=Compression.NONE)
            ) as archive,
        ):
            diff = extract(core, prepared, archive, None, work)
            archive.finish()
        old, new = layer.diff.manifest, diff.manifest
        if new != old:
            work.declare(Intent(core.driver.name, (), (new,)))
        with core.transaction("a damaged file list was made again") as tx:
            current = tx.state.layer(layer.id)
            if current is None or current.diff != layer.diff:
                return
            if new != old:
                tx.adopt(new, work.path / f"content-{new}")
                size = diff.manifest_size
                tx.emit(
                    ev.LayerDiffApplied(
                        layer.id, layer.diff._replace(manifest=new, manifest_size=size)
                    )
                )
                return
            damaged = work.path / "=damaged"
            damaged.mkdir()
            core.content.evict(old, damaged)
            sync_directories(core.content.adopt(work.path / f"content-{new}", new))


def _mend(core: Core, layer: Layer) -> None:
    compared = contents.compare(core, core.state, layer)
    root = os.fsencode(core.driver.content_root(layer.id))
    if compared is None or not root:
        return
    want, have, _ = compared
    maps = core.driver.disk_maps(of_files(core, core.state, layer))
    touched: set[bytes] = set()
    for path in sorted(have.keys() - want.keys(), reverse=True):
        if not compared.surplus(path):
            continue
        own = os.path.join(root, path)
        if os.path.lexists(own):
            touched.add(os.path.dirname(path))
            if stat.S_ISDIR(os.lstat(own).st_mode):
                remove_tree(Path(os.fsdecode(own)))
            else:
                os.unlink(own)
    # Deepest first: putting an entry right changes nothing of the directory that it is in.
    for path in sorted(want.keys() & have.keys(), reverse=True):
        old, new = want[path], have[path]
        own = os.path.join(root, path)
        if not os.path.lexists(own) or old.type != new.type or old.unrecorded:
            continue
        if path not in touched and not contents.changes(old, new):
            continue
        try:
            _restore(own, old, maps)
        except (OSError, StorageError):
            continue  # what could not be put right shows when the layer is compared again


def _restore(path: bytes, node: contents.Node, maps: IDMaps) -> None:
    os.chown(
        path,
        to_host(node.uid, maps.uids),
        to_host(node.gid, maps.gids),
        follow_symlinks=False,
    )
    if node.type != stat.S_IFLNK:
        os.chmod(path, node.mode)  # after chown, which clears bits
    os.utime(path, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)
