"""Tables of contents: the second identity of a layer, and where zstd:chunked archives carry it.

Such an archive ends in skippable zstd frames (drivers-and-formats §8.1): the compressed table, the
compressed tar-split, and a footer of 64 bytes that says where they are. The *TOC digest* is the
digest of the compressed table.

Rules of this module:

* A digest that the caller gives (from a descriptor's annotation) is the caller's word and recorded
  as it is.
* A table found in the archive is believed only if it says, entry by entry, what the archive's
  members and the bytes of their content said. Otherwise a forged table would let one layer answer
  to the digest of another; such a layer is imported like any other and has no TOC digest.
* Tables of more than 8 MiB are not looked at: an import stays within its memory.
* The table of a directory that was staged is made from what was extracted; it is the same for the
  same entries.
"""

from __future__ import annotations

import os

from cstorage.archive.zstdframes import FrameWalker
from cstorage.errors import ArchiveError
from cstorage.model import Digest
from journal.checksum import sha256
from journal.plain import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage.archive.compression import ByteSource
    from cstorage.archive.manifest import ManifestEntry
    from cstorage.archive.options import ApplyOptions

ANNOTATION = "io.github.containers.zstd-chunked.manifest-checksum"
"""Key of the TOC digest among the annotations of a layer's descriptor."""

MANIFEST_ITEM = "zstd-chunked-manifest"
LAYER_DATA_ITEM = "zstd-chunked-layer-data"
LAYER_DATA = b'{"format":0}'

_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"
_FOOTER_BYTES = 64
_FOOTER_MARK = b"GNUlInUx"
_TABLE_BYTES_MAX = 8 << 20  # some 30,000 entries; parsed they take ten times as much memory
_PIECE = 1 << 20
_TYPES = {
    ord("0"): "reg", ord("1"): "hardlink", ord("2"): "symlink", ord("3"): "char",
    ord("4"): "block", ord("5"): "dir", ord("6"): "fifo",
}  # fmt: skip
_COMPARED = ("type", "linkname", "mode", "size", "uid", "gid", "devmajor", "devminor", "digest")


class Table(NamedTuple):
    """A table of contents: the digest of its compressed form, and its JSON."""

    digest: Digest
    json: bytes


# -- reading ---------------------------------------------------------------------------------------


class _Frames(FrameWalker):
    """Notes where skippable frames are that no other frame follows."""

    def __init__(self) -> None:
        super().__init__()
        self.tail: dict[int, int] = {}
        """Offset of a frame's data → its length."""
        self._fed = 0
        self._start = 0

    def feed(self, data: bytes) -> None:
        self._start = self._fed - len(self._held)
        super().feed(data)
        self._fed += len(data)

    def _frame(self, data: bytes, at: int) -> int:
        used = super()._frame(data, at)
        if used and data[at + 1 : at + 4] == _SKIPPABLE:
            self.tail[self._start + at + used] = self._skip
        elif used:
            self.tail.clear()
        return used


class TableReader:
    """An archive on its way to somebody who reads all of it; keeps what stands at its end."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._frames: _Frames | None = None
        self._position = 0
        self._kept: dict[int, bytearray] = {}

    def read(self, n: int, /) -> bytes:
        data = bytes(self._source.read(n))
        if not self._position:
            while data and len(data) < len(_ZSTD):
                more = self._source.read(len(_ZSTD) - len(data))
                if not more:
                    break
                data += more
            self._frames = _Frames() if data.startswith(_ZSTD) else None
        if self._frames is not None:
            self._keep(data, self._position)
        self._position += len(data)
        return data

    def _keep(self, data: bytes, position: int) -> None:
        assert self._frames is not None
        try:
            self._frames.feed(data)
        except ArchiveError:
            self._frames = None  # whoever decodes it says what is wrong
            return
        tail = self._frames.tail
        self._kept = {offset: kept for offset, kept in self._kept.items() if offset in tail}
        for offset, length in tail.items():
            if length > _TABLE_BYTES_MAX or len(tail) > 3:
                continue
            kept = self._kept.setdefault(offset, bytearray())
            wanted = offset + len(kept)
            if wanted >= position:
                kept += data[wanted - position : offset + length - position]

    def table(self) -> Table | None:
        """The table that the footer points to, once all was read. Nothing of it is proven."""
        if self._frames is None or not self._frames.at_boundary or not self._kept:
            return None
        footer = bytes(self._kept[max(self._kept)])
        if len(footer) != _FOOTER_BYTES or footer[-8:] != _FOOTER_MARK:
            return None
        words = [int.from_bytes(footer[at : at + 8], "little") for at in range(0, 56, 8)]
        offset, length, size, kind = words[:4]
        compressed = bytes(self._kept.get(offset, b""))
        if kind != 1 or not length or len(compressed) != length or size > _TABLE_BYTES_MAX:
            return None
        import zstandard

        try:
            text = zstandard.ZstdDecompressor().decompress(compressed, max_output_size=size)
        except zstandard.ZstdError:
            return None
        digest = Digest(f"sha256:{sha256(compressed).hexdigest()}")
        return Table(digest, text) if len(text) == size else None


# -- what a table says -----------------------------------------------------------------------------


def entries(manifest: Path, root_fd: int) -> list[dict[str, Any]]:
    """The entries of the table of contents of what was extracted into ``root_fd``, in its order.

    Raises ``ArchiveError`` and ``OSError`` if the tree is not what the manifest says.
    """
    from cstorage.archive.beneath import Payloads
    from cstorage.archive.manifest import Mark, read_manifest

    payloads = Payloads([root_fd])
    found = []
    try:
        with manifest.open("rb") as stored:
            for entry in read_manifest(stored):
                digest = ""
                if entry.mark is Mark.PRESENT and entry.size:
                    with open(payloads.open(entry.path), "rb", buffering=0) as file:
                        import hashlib

                        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
                found.append(_entry(entry, digest))
    finally:
        payloads.close()
    return found


def _entry(entry: ManifestEntry, digest: str) -> dict[str, Any]:
    """One entry as the format spells it: zero values are left out, except type and name."""
    import base64
    import datetime

    from cstorage.archive.manifest import Mark

    path = os.fsdecode(entry.path)
    if entry.mark is Mark.WHITEOUT:
        above, _, base = path.rpartition("/")
        path = f"{above}/.wh.{base}" if above else f".wh.{base}"
    elif entry.mark is Mark.OPAQUE:
        path = f"{path}/.wh..wh..opq".lstrip("/")
    seconds, rest = divmod(entry.mtime_ns, 10**9)
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        fraction = f".{rest:09d}".rstrip("0") if rest else ""
        time = f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
    except (ValueError, OverflowError, OSError):
        time = ""  # a year that the notation has no room for
    fields: dict[str, Any] = {
        "linkName": os.fsdecode(entry.linkname),
        "mode": entry.mode,
        "size": entry.size,
        "uid": entry.uid,
        "gid": entry.gid,
        "modtime": time,
        "devMajor": entry.devmajor,
        "devMinor": entry.devminor,
        "xattrs": {key: base64.b64encode(value).decode() for key, value in entry.xattrs},
        "digest": digest,
    }
    kind = _TYPES.get(entry.type, "reg")
    return {"type": kind, "name": path} | {key: value for key, value in fields.items() if value}


def made(described: list[dict[str, Any]]) -> Table:
    """The table with these entries."""
    import json

    import zstandard

    document = {"version": 1, "entries": described}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()
    compressed = zstandard.ZstdCompressor(level=3, write_content_size=True).compress(text)
    return Table(Digest(f"sha256:{sha256(compressed).hexdigest()}"), text)


def agrees(table: Table, described: list[dict[str, Any]]) -> bool:
    """Whether the table says what ``described`` says: the same paths with the same attributes.

    Keys are taken in any spelling of upper and lower case; where in the archive the content is, and
    times beyond the second, are not compared.
    """
    import json

    try:
        document = {key.lower(): value for key, value in json.loads(table.json).items()}
        listed = [{k.lower(): v for k, v in x.items()} for x in document["entries"]]
        if document.get("version") != 1:
            return False
        theirs = [_comparable(x) for x in listed if x.get("type") != "chunk"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    ours = [_comparable({k.lower(): v for k, v in x.items()}) for x in described]
    both = dict(theirs), dict(ours)
    return len(both[0]) == len(theirs) and len(both[1]) == len(ours) and both[0] == both[1]


def _comparable(entry: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    name = os.path.normpath("/" + entry["name"])
    size = entry.get("size") or 0
    fields = []
    for key in _COMPARED:
        value = entry.get(key) or ""
        if key == "mode":
            value = (entry.get("mode") or 0) & 0o7777
        if key == "digest" and not size:
            value = ""  # an empty file may have the digest of nothing, or none
        if key == "linkname" and entry["type"] == "hardlink":
            value = os.path.normpath("/" + value)
        fields.append(value)
    time = str(entry.get("modtime") or "")[:19]
    xattrs = tuple(sorted((entry.get("xattrs") or {}).items()))
    return name, (*fields, time, xattrs)


def digest_of(
    archive: TableReader, options: ApplyOptions | None, manifest: Path, root_fd: int
) -> Digest:
    """The TOC digest to be recorded for an archive that was extracted, "" if there is none.

    Raises ``InvalidDigest`` if the caller gave one that is malformed.
    """
    if options is not None and options.toc_digest:
        from cstorage.store import digests

        digests.check(options.toc_digest)
        return Digest(options.toc_digest)
    table = archive.table()
    if table is None:
        return Digest("")
    try:
        return table.digest if agrees(table, entries(manifest, root_fd)) else Digest("")
    except (ArchiveError, OSError):
        return Digest("")
