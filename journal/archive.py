"""Sealed segments outside the log folder: compressed, still readable; and pruning.

Rules of this module:

* Only sealed segments with a successor move; the archive file is complete and durable before the
  segment's name goes, so one of the two always exists.
* The archive file is one zstd frame with content size; what it holds is verified like any segment.
"""

from __future__ import annotations

from journal import segment as sg
from journal.errors import JournalDamaged, UnsupportedFormat
from journal.fs import Fs, read_file

FOLDER = "archive"
_LIMIT = 1 << 30


def load(fs: Fs, root: str, number: int) -> bytes:
    """The bytes of an archived segment. ``JournalDamaged`` if they cannot be unpacked."""
    try:
        import zstandard
    except ImportError as error:
        raise UnsupportedFormat("archived segments need the zstandard package") from error
    path = f"{root}/{FOLDER}/{sg.name(number)}.zst"
    raw = read_file(fs, path)
    try:
        size = zstandard.frame_content_size(raw)
        if not 0 < size <= _LIMIT:
            raise JournalDamaged(f"{path}: does not state a sane size", segment=number)
        return zstandard.ZstdDecompressor().decompress(raw)
    except zstandard.ZstdError as error:
        raise JournalDamaged(f"{path}: {error}", segment=number) from error
