"""What a layer changed: lists, sizes and archives (semantics §4.5).

An archive against the recorded parent is rebuilt from the recipe, byte for byte; without a recipe,
or against another reference, the driver makes a deterministic one.
"""

from __future__ import annotations

from contextlib import contextmanager

from cstorage.content import ContentDamaged
from cstorage.errors import ContentChanged, LayerUnknown, StorageError, UnsupportedCompression
from cstorage.model import Change, Compression, IDMaps, Layer
from cstorage.store import lookup
from cstorage.store.lookup import go_quote
from cstorage.store.mapping import of_files
from journal.plain import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cstorage.archive.compression import ByteSink
    from cstorage.archive.twin import Twin
    from cstorage.drivers.contract import PayloadReader
    from cstorage.store.core import Core


_READ = 1 << 20
_SLOW = {Compression.BZIP2: "bz2", Compression.XZ: "xz"}


class Pair:
    """A layer and what it is compared with."""

    def __init__(self, core: Core, to: str, from_: str) -> None:
        located = core.catalogue.locate_layer(to)
        if located is None:
            raise LayerUnknown
        self.layer: Layer = located[0]
        self.shelf = located[2]
        reference = lookup.find_layer(located[1], from_) if from_ else None
        # An unknown reference silently means the parent; without one the driver is given the
        # caller's text and fails with its own words (quirk Q-12, kept: scripts see it).
        if reference is not None:
            self.reference = str(reference.id)
        elif self.layer.parent and (
            not from_ or core.catalogue.layer_by_id(str(self.layer.parent)) is not None
        ):
            self.reference = str(self.layer.parent)
        else:
            self.reference = from_
            if from_:
                core.driver.require(from_)
        base = core.catalogue.layer_by_id(self.reference) if self.reference else None
        state = located[1]
        self.maps = of_files(core, state, self.layer)
        self.reference_maps = of_files(core, state, base) if base is not None else IDMaps()
        self.against_parent = self.reference == self.layer.parent


def changes(core: Core, to: str, from_: str = "") -> list[Change]:
    """Changed paths between ``from_`` (default: the parent) and ``to``."""
    pair = Pair(core, to, from_)
    return core.driver.changes(
        pair.layer.id,
        pair.reference,
        maps=pair.maps,
        parent_maps=pair.reference_maps,
    )


def size(core: Core, to: str, from_: str = "") -> int:
    """Bytes of the added or modified files between ``from_`` and ``to``."""
    pair = Pair(core, to, from_)
    return core.driver.diff_size(
        pair.layer.id,
        pair.reference,
        maps=pair.maps,
        parent_maps=pair.reference_maps,
    )


def sized(core: Core, layer: Layer) -> int:
    """The driver's measure of one layer against its parent, its failure worded as the original."""
    try:
        return size(core, layer.id)
    except LayerUnknown:
        raise
    except (StorageError, OSError) as error:
        raise StorageError(
            f"size/digest of layer with ID {go_quote(layer.id)} could not be calculated: {error}"
        ) from error


def write(
    core: Core,
    to: str,
    sink: ByteSink,
    from_: str = "",
    compression: Compression | None = None,
    slow: bool = True,
) -> None:
    """Write the layer's archive to ``sink``.

    ``compression`` ``None`` means the one recorded for the layer. The original cannot produce bzip2
    and xz (semantics §4.5); here they have to be asked for, and ``slow`` be true. Raises
    ``LayerUnknown``, ``UnsupportedCompression`` (before anything is written), ``ContentChanged``
    (in mid-stream, if a file no longer has the content the recipe expects), ``DriverError``.
    """
    from cstorage.archive.compression import compressing

    pair = Pair(core, to, from_)
    wanted = pair.layer.diff.compression if compression is None else compression
    if wanted in _SLOW and (compression is None or not slow):
        raise UnsupportedCompression(f"unsupported compression format tar.{_SLOW[wanted]}")
    recipe = _recipe(core, pair) if pair.against_parent else None
    with compressing(sink, wanted) as target:
        entry = core.driver.linked_entry(pair.layer.id) if pair.against_parent else ""
        if recipe is not None:
            with recipe:
                _rebuild(core, pair, recipe, target)
        elif entry:
            from cstorage.store.additional_layers import write_blob

            write_blob(pair.layer, entry, target)
        else:
            core.driver.write_diff(
                pair.layer.id,
                pair.reference,
                target,
                maps=pair.maps,
                parent_maps=pair.reference_maps,
            )


def _recipe(core: Core, pair: Pair) -> BinaryIO | None:
    if pair.shelf is not None:
        return pair.shelf.recipe(pair.layer)
    return core.content.open(pair.layer.diff.recipe) if pair.layer.diff.recipe else None


class _Vouched:
    """A content file on its way to a reader; ``verify`` tells whether it was what its key says."""

    def __init__(self, file: BinaryIO, key: str) -> None:
        import hashlib

        self._file = file
        self._key = key
        self._digest = hashlib.sha256()

    def read(self, n: int, /) -> bytes:
        data = self._file.read(n)
        self._digest.update(data)
        return data

    def verify(self, what: str) -> None:
        while self.read(_READ):
            pass
        if self._digest.hexdigest() != self._key:
            raise ContentDamaged(
                f"the {what} has digest {self._digest.hexdigest()}, expected {self._key}; run check"
            )


def _intact(core: Core, key: str) -> bool:
    """Whether a content file is there and what its key says; a damaged list stops no export."""
    import hashlib

    if not key:
        return False
    try:
        with open(core.content.path(key), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == key
    except OSError:
        return False


def _rebuild(core: Core, pair: Pair, recipe: BinaryIO, sink: ByteSink) -> None:
    """The archive from the layer's files; a file that changed is named, and ends it.

    The recipe and the file list of one import, both as their keys say, and every file as the list
    says, are the archive. So is what has the archive's own digest, which takes less time if the
    files are small, but cannot name one: then the list is asked.
    """
    from cstorage.archive.proof import whole_is_cheaper

    diff = pair.layer.diff
    listed = pair.shelf is None and _intact(core, diff.manifest)
    if listed and not (
        diff.uncompressed_digest and whole_is_cheaper(diff.entries, diff.uncompressed_size)
    ):
        _by_list(core, pair, recipe, sink)
        return
    try:
        _by_digest(core, pair, recipe, sink)
    except ContentChanged:
        if listed:
            recipe.seek(0)
            _by_list(core, pair, recipe, _Nowhere())
        raise


class _Nowhere:
    """A sink for an archive that is only proven."""

    def write(self, data: bytes, /) -> int:
        return len(data)


def _by_digest(core: Core, pair: Pair, recipe: BinaryIO, sink: ByteSink) -> None:
    from cstorage.archive.recipe import assemble

    with _payloads(core, pair.layer, sink) as (payloads, twin):
        assemble(recipe, payloads, sink, digest=pair.layer.diff.uncompressed_digest, twin=twin)


@contextmanager
def _payloads(
    core: Core, layer: Layer, sink: ByteSink
) -> Iterator[tuple[PayloadReader, Twin | None]]:
    """The layer's files, and a second process for an export that is worth one."""
    from cstorage.archive import twin
    from cstorage.archive.compression import CompressingSink

    diff = layer.diff
    packed = isinstance(sink, CompressingSink) and sink.packs
    payloads = core.driver.payloads(layer.id)
    second = None
    try:
        second = twin.begun(
            payloads.directory(), diff.entries, diff.uncompressed_size, packed=packed
        )
        yield payloads, second
    finally:
        if second is not None:
            second.close()
        payloads.close()


def _by_list(core: Core, pair: Pair, recipe: BinaryIO, sink: ByteSink) -> None:
    from cstorage.archive.recipe import assemble

    diff = pair.layer.diff
    with core.content.open(diff.manifest) as file:
        manifest, known = _Vouched(file, diff.manifest), _Vouched(recipe, diff.recipe)

        def confirm(size: int) -> None:
            known.verify(f"recipe of layer {pair.layer.id}")
            manifest.verify(f"file list of layer {pair.layer.id}")
            if size != diff.uncompressed_size:
                raise ContentDamaged(
                    f"the archive of layer {pair.layer.id} has {size} bytes, "
                    f"recorded were {diff.uncompressed_size}; run check"
                )

        with _payloads(core, pair.layer, sink) as (payloads, twin):
            assemble(known, payloads, sink, manifest=manifest, confirm=confirm, twin=twin)
