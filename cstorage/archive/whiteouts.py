"""Whiteouts: how "this is gone" is said in archives and on disk.

In archives (AUFS names, which OCI took over): an empty file ``dir/.wh.NAME`` says that ``NAME`` of
the lower layers is gone, ``dir/.wh..wh..opq`` that everything of the lower layers in ``dir`` is.
Other names that begin with ``.wh..wh.`` were AUFS' own book-keeping and mean nothing to anybody
else. A whiteout speaks of the layers below, never of entries of its own archive.

On disk there are two ways: the kernel's overlay keeps markers (a 0:0 character device; an
extended attribute on the directory), other drivers have nothing to keep and remove at once.

Source: drivers-and-formats §3.7, §6.7, §6.8, §9.5.
"""

from __future__ import annotations

import stat
from enum import StrEnum

from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from os import stat_result

PREFIX = b".wh."
META_PREFIX = b".wh..wh."
OPAQUE = b".wh..wh..opq"
LINKS = b".wh..wh.plnk"
"""Directory in which AUFS kept files with several names; hard links of the archive point there."""

OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")


class WhiteoutFormat(StrEnum):
    """What applying a whiteout does to the tree."""

    OVERLAY = "overlay"
    """Character device 0:0, and ``trusted.overlay.opaque`` (in a user namespace ``user.…``)."""
    REMOVE = "remove"
    """The named thing is deleted, unless this very archive made it."""


def is_whiteout_device(info: stat_result) -> bool:
    """Whether an entry is overlay's marker for "gone"."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
