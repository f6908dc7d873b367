"""Records of the original's JSON files as records of ours (drivers-and-formats §1.6, §1.7).

Rules:

* A file is an array of objects. A missing or empty file, ``null`` and ``[]`` mean "no records".
  Keys are matched ignoring case, unknown ones are ignored.
* Nothing read is trusted: an ID must be one path component, because it becomes one; a digest must
  have its form; types must be right. What is not makes the whole file unusable, with an error that
  names file, record and field, because half a list of layers is no list of layers.
* Times are RFC 3339; a missing one and the zero time ``0001-01-01`` are 0, "unknown".
"""

from __future__ import annotations

import re

from cstorage.content import digests
from cstorage.errors import InvalidDigest, StorageError
from cstorage.model import (
    BigDataItem,
    Compression,
    Container,
    ContainerID,
    DiffSummary,
    Digest,
    IDMap,
    IDMapEntry,
    IDMaps,
    Image,
    ImageID,
    Layer,
    LayerID,
)
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ID_MAX = (1 << 32) - 1
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))"
)


class ForeignDataError(StorageError):
    """A file of the original that cannot be understood; the text says which, where and why."""


def read(path: Path) -> list[dict[str, Any]]:
    """The objects in a record file, keys in lower case. Raises ``ForeignDataError``."""
    import json

    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    if not raw.strip():
        return []
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ForeignDataError(f"loading {str(path)!r}: {error}") from error
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ForeignDataError(f"loading {str(path)!r}: not an array of objects")
    return [{key.lower(): value for key, value in item.items()} for item in found]


class _Record:
    """One object of a file, with typed access to its members."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values = values
        self.path = path
        self.id = self.component("id")

    def wrong(self, key: str, what: str) -> ForeignDataError:
        who = self.values.get("id")
        return ForeignDataError(f"loading {str(self.path)!r}: record {who!r}: {key} {what}")

    def get(self, key: str, kind: type, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.wrong(key, f"is {value!r}, which is no {kind.__name__}")
        return value

    def text(self, key: str) -> str:
        found: str = self.get(key, str, "")
        return found

    def number(self, key: str) -> int:
        found: int = self.get(key, int, 0)
        if not -(1 << 63) <= found < 1 << 63:
            raise self.wrong(key, f"is {found}, beyond 64 bits")
        return found

    def component(self, key: str) -> str:
        """A text that can stand in a path by itself."""
        found = self.text(key)
        if found in ("", ".", "..") or "/" in found or "\0" in found:
            raise self.wrong(key, f"is {found!r}, which cannot be an ID")
        return found

    def reference(self, key: str) -> str:
        """The ID of another record, or ""."""
        return self.component(key) if self.text(key) else ""

    def texts(self, key: str) -> tuple[str, ...]:
        found = self.get(key, list, [])
        if not all(isinstance(value, str) for value in found):
            raise self.wrong(key, "holds something that is no string")
        return tuple(found)

    def digest(self, key: str) -> Digest:
        return self.checked(key, self.text(key))

    def checked(self, key: str, digest: str) -> Digest:
        if digest:
            try:
                digests.check(digest)
            except InvalidDigest as error:
                raise self.wrong(key, f"is {digest!r}: {error}") from error
        return Digest(digest)

    def ids(self, key: str) -> tuple[int, ...]:
        found = self.get(key, list, [])
        if not all(type(value) is int and 0 <= value <= ID_MAX for value in found):
            raise self.wrong(key, "holds something that is no ID of a user or group")
        return tuple(found)

    def map(self, key: str) -> IDMap:
        entries = []
        for raw in self.get(key, list, []):
            if not isinstance(raw, dict):
                raise self.wrong(key, "holds something that is no object")
            numbers = [raw.get(name) for name in ("container_id", "host_id", "size")]
            if not all(type(n) is int and 0 <= n <= ID_MAX for n in numbers):
                raise self.wrong(key, f"holds {raw!r}")
            entries.append(IDMapEntry(*(int(n or 0) for n in numbers)))
        return tuple(entries)

    def maps(self) -> IDMaps:
        return IDMaps(self.map("uidmap"), self.map("gidmap"))

    def time_ns(self, key: str) -> int:
        text = self.text(key)
        if not text:
            return 0
        found = parse_time(text)
        if found is None:
            raise self.wrong(key, f"is {text!r}, which is no RFC 3339 time")
        return found

    def flags(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.get("flags", dict, {})
        return found

    def blobs(self, *, strict: bool) -> tuple[BigDataItem, ...]:
        """Blobs with what is recorded of them; size -1 where nothing is.

        ``strict``: digests of manifests must have their form, as the original insists.
        """
        sizes = self.get("big-data-sizes", dict, {})
        recorded = self.get("big-data-digests", dict, {})
        found = []
        for name in dict.fromkeys(self.texts("big-data-names")):
            digest = recorded.get(name, "")
            size = sizes.get(name, -1)
            if not isinstance(digest, str) or type(size) is not int:
                raise self.wrong("big-data", f"of {name!r} has size {size!r}, digest {digest!r}")
            if strict and name.startswith("manifest"):
                self.checked("big-data-digests", digest)
            found.append(BigDataItem(name, size, Digest(digest), ""))
        return tuple(found)


def parse_time(text: str) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time, 0 for the zero time, ``None`` if it is none."""
    import datetime

    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, off_hours, off_minutes = match.groups()[6:]
    if year == 1:
        return 0
    try:
        whole = datetime.datetime(
            year, month, day, hour, minute, min(second, 59), tzinfo=datetime.UTC
        )
    except ValueError:
        return None
    seconds = int(whole.timestamp()) + (second - min(second, 59))
    if sign:
        offset = int(off_hours) * 3600 + int(off_minutes) * 60
        seconds -= offset if sign == "+" else -offset
    return seconds * 10**9 + int((fraction or "").ljust(9, "0"))


def layers(path: Path) -> Iterator[Layer]:
    """Layers in a ``layers.json``, in its order. Raises ``ForeignDataError``."""
    for values in read(path):
        yield layer_of(values, path)


def layer_of(values: Mapping[str, Any], path: Path) -> Layer:
    """The layer of one record of the file ``path``. Raises ``ForeignDataError``."""
    record = _Record(values, path)
    compression = record.number("compression")
    if compression not in tuple(Compression):
        raise record.wrong("compression", f"is {compression}")
    return Layer(
        id=LayerID(record.id),
        names=tuple(dict.fromkeys(record.texts("names"))),
        parent=LayerID(record.reference("parent")),
        metadata=record.text("metadata"),
        mount_label=record.text("mountlabel"),
        created_ns=record.time_ns("created"),
        diff=DiffSummary(
            compressed_digest=record.digest("compressed-diff-digest"),
            compressed_size=record.number("compressed-size"),
            uncompressed_digest=record.digest("diff-digest"),
            uncompressed_size=record.number("diff-size"),
            toc_digest=record.digest("toc-digest"),
            compression=Compression(compression),
            uids=record.ids("uidset"),
            gids=record.ids("gidset"),
        ),
        flags=record.flags(),
        maps=record.maps(),
        big_data=record.blobs(strict=False),
    )


def images(path: Path) -> Iterator[Image]:
    """Images in an ``images.json``, in its order. Raises ``ForeignDataError``."""
    for values in read(path):
        yield image_of(values, path)


def image_of(values: Mapping[str, Any], path: Path) -> Image:
    """The image of one record of the file ``path``. Raises ``ForeignDataError``."""
    record = _Record(values, path)
    return Image(
        id=ImageID(record.id),
        digest=record.digest("digest"),
        names=tuple(dict.fromkeys(record.texts("names"))),
        names_history=record.texts("names-history"),
        top_layer=LayerID(record.reference("layer")),
        mapped_top_layers=tuple(LayerID(x) for x in record.texts("mapped-layers")),
        metadata=record.text("metadata"),
        big_data=record.blobs(strict=True),
        created_ns=record.time_ns("created"),
        flags=record.flags(),
    )


def containers(path: Path, *, volatile: bool = False) -> Iterator[Container]:
    """Containers in a ``containers.json``, in its order. Raises ``ForeignDataError``."""
    for values in read(path):
        yield container_of(values, path, volatile=volatile)


def container_of(values: Mapping[str, Any], path: Path, *, volatile: bool = False) -> Container:
    """The container of one record of the file ``path``. Raises ``ForeignDataError``."""
    record = _Record(values, path)
    return Container(
        id=ContainerID(record.id),
        names=tuple(dict.fromkeys(record.texts("names"))),
        image=ImageID(record.reference("image")),
        layer=LayerID(record.reference("layer")),
        metadata=record.text("metadata"),
        big_data=record.blobs(strict=False),
        created_ns=record.time_ns("created"),
        maps=record.maps(),
        flags=record.flags(),
        volatile=volatile,
    )
