"""What a caller may ask of an import, and what it is told while it runs."""

from __future__ import annotations

from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.model import IDMaps
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Limits(NamedTuple):
    """Bounds of an import; 0 means unbounded. Beyond one, ``ArchiveLimitExceeded``.

    ``max_bytes`` counts decoded bytes of the archive and expanded bytes of sparse files alike.
    ``max_ratio`` is decoded per received bytes, looked at once 16 MiB were decoded, because short
    archives are mostly padding. Extended headers and sparse maps are always bounded by 1 MiB each.
    """

    max_bytes: int = 0
    max_entries: int = 0
    max_ratio: int = 0
    max_name: int = 4095
    """Bytes of a path: the longest the kernel takes."""
    max_depth: int = 1024
    """Components of a path."""


class Progress(NamedTuple):
    """State of a running import: bytes received, bytes decoded, members extracted."""

    compressed_bytes: int
    uncompressed_bytes: int
    entries: int


class ApplyOptions(NamedTuple):
    """How a layer archive is applied to a tree."""

    whiteouts: WhiteoutFormat = WhiteoutFormat.OVERLAY
    maps: IDMaps = IDMaps()
    ignore_chown_errors: bool = False
    force_mask: int | None = None
    limits: Limits = Limits()
    in_userns: bool = False
    progress: Callable[[Progress], None] | None = None
    """Called on the caller's thread, about once per MiB decoded."""
    original_digest: str = ""
    """Digest of the received bytes if known; trusted when it is SHA-256 (semantics §2.9)."""
    original_size: int | None = None
    uncompressed_digest: str = ""
    toc_digest: str = ""
    """Digest of the table of contents, from a descriptor's annotation; recorded as it is."""
