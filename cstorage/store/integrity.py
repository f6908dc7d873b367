"""Can a layer's archive still be made, byte for byte; and if not, because of which files?

The recipe stops at the first file that is not what was imported. The manifest knows the digest of
every file, so all of them can be named; without one, the first has to do.
"""

from __future__ import annotations

import hashlib
import os

from cstorage import errors as err
from cstorage.content import ContentDamaged
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cstorage.model import Item, Layer
    from cstorage.store.core import Core

_PIECE = 1 << 20
_REGULAR = ord("0")


class _Hasher:
    """A sink that only counts and digests."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return len(data)


def called(item: Item) -> str:
    """What findings call an item."""
    place = "read-only " if getattr(item, "read_only", False) else ""
    return f"{place}{type(item).__name__.lower()} {item.id}"


def findings(core: Core, layer: Layer) -> Iterator[err.CheckError]:
    """What is wrong with the archive of a layer that has an uncompressed digest recorded.

    ``LayerFileChanged`` for each file that was changed or is gone, and one more for the archive,
    which ends at the first of them; ``LayerIncorrectContentDigest`` for the archive as a whole,
    ``LayerIncorrectContentSize`` after it; a plain ``CheckError`` for what keeps the archive from
    being made at all (no tree, unreadable files).
    """
    from cstorage.model import Compression
    from cstorage.store import diffs

    sink = _Hasher()
    where = called(layer)
    try:
        diffs.write(core, layer.id, sink, compression=Compression.NONE)
    except (err.ArchiveError, ContentDamaged) as error:
        named = list(changed_files(core, layer))
        whole = not isinstance(error, err.ContentChanged) or isinstance(error, err.ArchiveChanged)
        if not named and not whole:
            named = [str(error)]
        for number, text in enumerate(named):
            yield err.LayerFileChanged(f"{where}: {text}")
            if number == 0:  # the archive breaks off here, which the original tells twice
                trailer = "consume any trailer after the EOF marker"
                yield err.LayerFileChanged(f"layer {layer.id}: {trailer}: {text}")
        if not named:
            yield err.LayerIncorrectContentDigest(f"{where}: {error}")
        return
    except (err.StorageError, OSError) as error:
        yield err.CheckError(f"{where}: {error}")
        return
    if f"sha256:{sink.sha256.hexdigest()}" != layer.diff.uncompressed_digest:
        yield err.LayerIncorrectContentDigest(where)
    if layer.diff.uncompressed_size not in (-1, sink.size):
        yield err.LayerIncorrectContentSize(
            f"{where}: read {sink.size} bytes instead of {layer.diff.uncompressed_size} bytes"
        )


def damaged_list(core: Core, layer: Layer) -> str:
    """What is wrong with the manifest of a layer, "" if nothing is or there is none."""
    if not layer.diff.manifest:
        return ""
    try:
        core.content.read(layer.diff.manifest)
    except (ContentDamaged, OSError) as error:
        return str(error)
    return ""


def changed_files(core: Core, layer: Layer) -> Iterator[str]:
    """The layer's own files that do not hold what was recorded, one line for each.

    Ends early, without an error, where the manifest or the tree cannot be read: who asks has a
    finding already and wants to know more.
    """
    from cstorage.archive.manifest import ManifestReader, Mark, hasher_of

    names: dict[bytes, bytes] = {}

    def spelled(path: bytes) -> bytes:
        if not names:
            names.update(_names(core, layer))
        return names.get(path, path)

    if not layer.diff.manifest or layer.read_only:
        return
    try:
        payloads = core.driver.payloads(layer.id)
        root = os.fsencode(core.driver.content_root(layer.id))
        try:
            with core.content.open(layer.diff.manifest) as stored:
                reader = ManifestReader(stored)
                hasher = hasher_of(reader.algorithm)
                for entry in reader:
                    if entry.mark is not Mark.PRESENT or entry.type != _REGULAR:
                        continue
                    try:
                        descriptor = payloads(entry.path)
                    except err.ContentChanged:
                        place = os.path.join(root, entry.path)
                        if os.path.lexists(place):
                            yield _mismatch(spelled(entry.path))
                        else:
                            yield _missing(place)
                        continue
                    digest = hasher()
                    with open(descriptor, "rb", buffering=0) as file:
                        size = os.fstat(descriptor).st_size
                        while piece := file.read(_PIECE):
                            digest.update(piece)
                    if size != entry.size or (entry.digest and digest.digest() != entry.digest):
                        yield _mismatch(spelled(entry.path))
        finally:
            payloads.close()
    except (err.StorageError, OSError):
        return


def _names(core: Core, layer: Layer) -> Iterator[tuple[bytes, bytes]]:
    """Paths of the layer's files, and how its archive spells them (``./etc/passwd``)."""
    from cstorage.archive.names import clean
    from cstorage.archive.recipe import read_recipe

    if not layer.diff.recipe:
        return
    with core.content.open(layer.diff.recipe) as stored:
        for _data, name, size, _crc in read_recipe(stored):
            if size:
                yield clean(name), name


def _mismatch(path: bytes) -> str:
    from cstorage.archive.reader import shown

    return f"file integrity checksum failed for {shown(path)}"


def _missing(place: bytes) -> str:
    return f"open {os.fsdecode(place)}: no such file or directory"
