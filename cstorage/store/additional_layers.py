"""Additional layer stores: layers that something else already holds unpacked, by table of contents.

A store is a folder ``PATH/[<base64 of the image reference>/]<TOC digest>/{diff,info,blob}``, named
by the overlay option ``additionallayerstore=PATH[:ref]`` (drivers-and-formats §3.12). ``info`` is a
layer record of the original, ``blob`` the archive.

A layer taken from one is linked: its tree is the entry's ``diff``, its archive the entry's
``blob``, its digests and sizes are what ``info`` says. Nothing is copied, and the entry has to
stay. Or it is copied: filled from the blob, whose digest must be the recorded one, and independent
of the entry from then on. Both are recorded like other layers. (The original links, and forgets the
record with the process: quirk Q-09.)
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from cstorage.drivers import layout
from cstorage.errors import ArchiveChanged, LayerUnknown, StorageError
from cstorage.interop import records
from cstorage.model import Digest, Layer
from cstorage.store import layers
from cstorage.store.lookup import go_quote
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.archive.compression import ByteSink
    from cstorage.store.core import Core

_PIECE = 1 << 20
_PARTS = ("diff", "info", "blob")


def _info(path: Path) -> Layer:
    """The layer record in a file of its own; it need not have an ID."""
    import json

    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise records.ForeignDataError(f"loading {str(path)!r}: {error}") from error
    if not isinstance(found, dict):
        raise records.ForeignDataError(f"loading {str(path)!r}: not an object")
    return records.layer_of({"id": "-"} | {key.lower(): found[key] for key in found}, path)


class AdditionalLayer:
    """One entry of an additional layer store; a context manager that releases it."""

    def __init__(self, core: Core, folder: Path, toc_digest: str) -> None:
        self._core = core
        self._folder = folder
        self.toc_digest = Digest(toc_digest)
        self._info = _info(folder / "info")
        self._notify("use")

    def __enter__(self) -> AdditionalLayer:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def compressed_size(self) -> int:
        """Bytes of the blob as recorded, or as it is."""
        return self._info.diff.compressed_size or (self._folder / "blob").stat().st_size

    def put_as(
        self, id: str = "", parent: str = "", names: Sequence[str] = (), *, copy: bool = False
    ) -> Layer:
        """Make it a layer of the store, linked to the entry unless ``copy``.

        Raises ``LayerUnknown`` (parent), ``ParentIsContainer``, ``DuplicateID``, ``DuplicateName``,
        ``DriverError``; when it is copied ``ArchiveError``, also if the blob is not what the entry
        says it is.
        """
        request = layers.LayerRequest(
            id=id,
            parent=parent,
            names=(*self._info.names, *names),
            mount_label=self._info.mount_label,
            writable=False,
            flags=self._info.flags,
            metadata=self._info.metadata,
        )
        if not copy:
            diff = self._info.diff._replace(
                toc_digest=self.toc_digest,
                uncompressed_size=self._info.diff.uncompressed_size or -1,  # 0 is left out of JSON
                recipe="",
                manifest="",
            )
            return layers.create_linked(self._core, request, self._folder, diff)
        with (self._folder / "blob").open("rb") as blob:
            return layers.create(
                self._core,
                request,
                blob,
                toc_digest=self.toc_digest,
                expected=self._info.diff.uncompressed_digest,
            )

    def release(self) -> None:
        """Tell the store that the entry is not needed any more."""
        layout.release_entry(str(self._folder))

    def _notify(self, name: str) -> None:
        try:
            (self._folder / name).open("x").close()
        except OSError:
            pass  # likewise


def find(core: Core, toc_digest: str, image: str = "") -> AdditionalLayer:
    """The entry for a table of contents. Raises ``LayerUnknown``, ``StorageError``."""
    settings = getattr(core.driver, "settings", None)
    if "/" in toc_digest or toc_digest in ("", ".", ".."):
        raise LayerUnknown(f"no table of contents {go_quote(toc_digest)}")
    for text in getattr(settings, "additional_layer_stores", ()):
        path, separator, with_reference = text.rpartition(":")
        if not separator or with_reference != "ref":
            path, with_reference = text, ""
        folder = Path(path)
        if with_reference:
            folder /= base64.b64encode(image.encode()).decode()
        folder /= toc_digest
        if all((folder / part).exists() for part in _PARTS):
            try:
                return AdditionalLayer(core, folder, toc_digest)
            except OSError as error:
                raise StorageError(f"additional layer store {path}: {error}") from error
    raise LayerUnknown


def write_blob(layer: Layer, entry: str, sink: ByteSink) -> None:
    """Write the uncompressed archive of a linked layer.

    Raises ``ArchiveChanged``, when all of it was written, if it is not the recorded one;
    ``ArchiveError`` if the blob cannot be decoded.
    """
    import hashlib

    from cstorage.archive.compression import Decompressor

    recorded = layer.diff.uncompressed_digest
    digest = hashlib.sha256()
    with open(f"{entry}/blob", "rb") as blob:
        archive = Decompressor(blob)
        while piece := archive.read(_PIECE):
            digest.update(piece)
            sink.write(piece)
    found = f"sha256:{digest.hexdigest()}"
    if recorded and recorded != found:
        raise ArchiveChanged(f"{entry}/blob has digest {found}, recorded was {recorded}")
