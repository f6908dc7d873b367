"""A layer whose files have other owners than its parent's, where mounts cannot shift them.

Rule (drivers-and-formats §3.8): the new layer is mounted and every entry gets its new owner, which
copies all files up into ``diff``; then ``diff`` is renamed to ``diff1`` (the next free number) and
a fresh ``diff`` takes its place. The layer's own changes stay apart from the copies that way.

Works on a layer directory that is not published yet, with a mount that is attached nowhere.
"""

from __future__ import annotations

import os
import stat

from cstorage.drivers.chown import Owners, chown_tree
from cstorage.drivers.mountapi import OverlayMount, overlay_view
from cstorage.drivers.removal import remove_tree
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def rotate(path: str, lowers: Sequence[str], owners: Owners, data: Sequence[str] = ()) -> None:
    """Give everything in the layer at ``path`` its new owner and start a fresh ``diff``."""
    tree = overlay_view(
        OverlayMount(tuple(lowers), f"{path}/diff", f"{path}/work", tuple(data)), f"{path}/view"
    )
    try:
        chown_tree(tree, owners)
    finally:
        os.close(tree)
    number = 1
    while os.path.lexists(f"{path}/diff{number}"):
        number += 1
    os.rename(f"{path}/diff", f"{path}/diff{number}")
    for name in ("diff", "work"):
        like = os.stat(f"{path}/diff{number}" if name == "diff" else f"{path}/work")
        if name == "work":
            remove_tree(f"{path}/work")
        os.mkdir(f"{path}/{name}", 0o700)
        os.chown(f"{path}/{name}", like.st_uid, like.st_gid)
        os.chmod(f"{path}/{name}", stat.S_IMODE(like.st_mode))
