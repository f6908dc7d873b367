"""Putting right what only strays from the record: attributes, and files that nobody recorded.

A layer whose archive can still be made, byte for byte, but whose tree has other modes, owners,
times or surplus files, is mended in place: nothing that was recorded is lost by it, whereas
deleting the layer (what the original does) takes images and containers along. What is missing or
of another type or size is not mended.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cstorage.errors import LayerContentModified, StorageError
from cstorage.idmap import to_host
from cstorage.store import contents
from cstorage.store.mapping import of_files
from cstorage.store.workspace import remove_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cstorage.model import IDMaps, Layer
    from cstorage.store.core import Core


def mend(core: Core, found: Mapping[str, list[Exception]]) -> set[str]:
    """Mend the layers that have no other findings; returns the IDs of those that are well again.

    A finding in one layer shows in those above it, so all are mended before any is looked at.
    """
    state = core.state
    candidates = [
        layer
        for id_, errors in found.items()
        if all(isinstance(error, LayerContentModified) for error in errors)
        and (layer := state.layer(id_)) is not None
    ]
    for layer in candidates:
        _mend(core, layer)
    return {layer.id for layer in candidates if not contents.differences(core, state, layer)}


def _mend(core: Core, layer: Layer) -> None:
    compared = contents.compare(core, core.state, layer)
    root = os.fsencode(core.driver.content_root(layer.id))
    if compared is None or not root:
        return
    want, have = compared
    maps = core.driver.disk_maps(of_files(core, core.state, layer))
    touched: set[bytes] = set()
    for path in sorted(have.keys() - want.keys(), reverse=True):
        if contents.implied(path, have[path], want):
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
        if not os.path.lexists(own) or old.type != new.type:
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
