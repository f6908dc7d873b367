"""Sharing the extents of equal files between layers (drivers-and-formats §3.14, semantics §4.11).

Candidates are grouped by the chosen method; the kernel compares the bytes before it shares
anything, so a wrong guess costs time, never content.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import struct
import zlib

from cstorage.errors import LayerUnknown, StorageError
from cstorage.model import Kind
from cstorage.store import images, lookup
from cstorage.store.catalogue import Catalogue
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cstorage.store.core import Core

_FIDEDUPERANGE = 0xC0189436
_HEAD = struct.Struct("=QQHHI")
_INFO = struct.Struct("=qQQiI")
_PIECE = 16 << 20
"""Bytes per request: file systems cap it near this."""
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS)
METHODS = ("crc", "size", "sha256")


def _digest(path: str, method: str) -> object:
    if method == "size":
        return 0
    with open(path, "rb", buffering=0) as file:
        if method == "sha256":
            return hashlib.file_digest(file, "sha256").digest()
        crc = 0
        while data := file.read(1 << 20):
            crc = zlib.crc32(data, crc)
        return crc


def _files(root: str) -> Iterator[tuple[str, os.stat_result]]:
    for base, _, names in os.walk(root):
        for name in names:
            path = os.path.join(base, name)
            try:
                info = os.lstat(path)
            except FileNotFoundError:  # deleted meanwhile
                continue
            if stat.S_ISREG(info.st_mode) and info.st_size:
                yield path, info


def _share(source: str, target: str, size: int) -> int:
    """Bytes of ``target`` that are now, or were already, the same extents as ``source``."""
    done = 0
    with open(source, "rb") as src, open(target, "r+b") as dst:
        while done < size:
            length = min(_PIECE, size - done)
            request = bytearray(
                _HEAD.pack(done, length, 1, 0, 0) + _INFO.pack(dst.fileno(), done, 0, 0, 0)
            )
            fcntl.ioctl(src.fileno(), _FIDEDUPERANGE, request)
            _, _, shared, status, _ = _INFO.unpack_from(request, _HEAD.size)
            if status != 0 or not shared:
                break
            done += shared
    return done


def _own_content(core: Core, layer: str) -> str:
    """Where the layer's content is, "" if it is in somebody else's store."""
    return "" if core.driver.linked_entry(layer) else core.driver.content_root(layer)


def dedup(core: Core, method: str = "crc") -> int:
    """Share equal files of all layers that images rest on; returns the duplicate bytes found.

    Raises ``StorageError`` for an unknown method, ``StoreIsReadOnly``.
    """
    if method not in METHODS:
        raise StorageError(f"invalid hash method: {method}")
    core.check_writable()
    state = core.state
    wanted: dict[str, None] = {}
    for id_ in state.ids(Kind.IMAGE):
        try:
            ids = images.layer_ids(Catalogue(state), lookup.image(state, id_))
        except LayerUnknown:
            continue
        wanted.update(dict.fromkeys(ids))
    roots = [root for id_ in wanted if (root := _own_content(core, id_))]
    by_size: dict[int, list[str]] = {}
    seen: set[tuple[int, int]] = set()
    for root in roots:
        for path, info in _files(root):
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                by_size.setdefault(info.st_size, []).append(path)
    total = 0
    for size, paths in by_size.items():
        if len(paths) < 2:
            continue
        first: dict[object, str] = {}
        for path in paths:
            kept = first.setdefault(_digest(path, method), path)
            if kept is path:
                continue
            try:
                total += _share(kept, path, size)
            except OSError as error:
                if error.errno in _UNSUPPORTED:
                    return total
                raise
    return total
