"""Additional image stores: graph roots that others write and this store only reads.

Two kinds stand on the shelf: graph roots of the original (its JSON files, looked at anew whenever
one of them changed) and graph roots of our own (their journal). The driver finds their layers by
itself. Nothing is created in them and no lock is taken: record files and frames appear whole.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import journal as journal_api
from cstorage import events as ev
from cstorage.content import ContentStore
from cstorage.errors import DuplicateImageNames, DuplicateLayerNames
from cstorage.interop import records
from cstorage.interop.names import blob_file
from cstorage.model import BigDataItem, Digest, Image, Item, Kind, Layer
from cstorage.state import State
from cstorage.state.reducer import apply
from cstorage.store.lookup import go_quote
from cstorage.store.reading import Replica, translated
from journal.plain import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cstorage.store.catalogue import Shelf

_PLURAL = {Kind.LAYER: "layers", Kind.IMAGE: "images", Kind.CONTAINER: "containers"}


def shelves(roots: Sequence[str], driver: str) -> tuple[Shelf, ...]:
    """The additional stores at ``roots``, in order; image names are checked at once.

    Raises ``DuplicateImageNames``, ``ForeignDataError``, ``StoreDamaged``.
    """
    from cstorage.store.opening import journal_folder

    found: list[Shelf] = []
    for text in roots:
        root = Path(text)
        folder = journal_folder(root, driver)
        if (folder / "FORMAT").exists():
            found.append(JournalShelf(root, folder))
        else:
            shelf = ForeignShelf(root, driver)
            shelf.images  # noqa: B018  a store that contradicts itself must not be opened
            found.append(shelf)
    return tuple(found)


class JournalShelf:
    """A graph root of our own."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        with translated():
            self._journal = journal_api.Journal.open(folder, mode="r")
        self._replica = Replica(self._journal, folder)
        self._content = ContentStore(root / (folder.name.removesuffix("journal") + "content"))

    @property
    def layers(self) -> State:
        self._replica.refresh()
        return self._replica.state

    images = layers

    def read(self, kind: Kind, item: Item, blob: BigDataItem) -> bytes:
        del kind, item
        return self._content.read(blob.content)

    def unlisted(self, kind: Kind, item: Item, name: str) -> BigDataItem | None:
        del kind, item, name
        return None

    def recipe(self, layer: Layer) -> BinaryIO | None:
        return self._content.open(layer.diff.recipe) if layer.diff.recipe else None

    def close(self) -> None:
        with translated():
            self._journal.close()


class _Watched:
    """A state built from files, built again when one of them is not what it was."""

    def __init__(self, paths: Sequence[Path], build: Callable[[], State]) -> None:
        self.paths = paths
        self.build = build
        self._seen: list[tuple[int, int, int]] = []
        self._state: State | None = None

    def _signature(self) -> list[tuple[int, int, int]]:
        found = []
        for path in self.paths:
            try:
                info = os.stat(path)
                found.append((info.st_ino, info.st_mtime_ns, info.st_size))
            except FileNotFoundError:
                found.append((0, 0, 0))
        return found

    @property
    def state(self) -> State:
        now = self._signature()
        if self._state is None or now != self._seen:
            self._state = self.build()
            self._seen = now
        return self._state


class ForeignShelf:
    """A graph root, or split image store, that containers/storage writes."""

    def __init__(self, root: Path, driver: str) -> None:
        self.root = root
        self.driver = driver
        folder = root / f"{driver}-layers"
        self._layer_files = [folder / "layers.json", folder / "volatile-layers.json"]
        self._image_file = root / f"{driver}-images/images.json"
        self._layers = _Watched(self._layer_files, self._load_layers)
        self._images = _Watched([self._image_file], self._load_images)

    @property
    def layers(self) -> State:
        return self._layers.state

    @property
    def images(self) -> State:
        return self._images.state

    def _load_layers(self) -> State:
        """The first record of an ID counts. The flag ``incomplete`` is ignored (semantics §8.1)."""
        state = State()
        for path in self._layer_files:
            for layer in records.layers(path):
                if state.layer(layer.id) is not None:
                    continue
                for name in layer.names:
                    if state.holder(Kind.LAYER, name) is not None:
                        raise DuplicateLayerNames(
                            f"loading additional layer stores: {path}: name {go_quote(name)}"
                        )
                apply(state, _layer_created(layer), state.count(Kind.LAYER) + 1)
        return state

    def _load_images(self) -> State:
        """The last record of an ID counts."""
        state = State()
        found = {image.id: image for image in records.images(self._image_file)}
        for number, image in enumerate(found.values(), 1):
            for name in image.names:
                if state.holder(Kind.IMAGE, name) is not None:
                    raise DuplicateImageNames(f"{self._image_file}: name {go_quote(name)}")
            apply(state, _image_created(image), number)
            for mapped in image.mapped_top_layers:
                apply(state, ev.ImageMappedLayerAdded(image.id, mapped), number)
        return state

    def _path(self, kind: Kind, item: Item, name: str) -> Path:
        folder = self.root / f"{self.driver}-{_PLURAL[kind]}" / item.id
        path = Path(os.path.normpath(folder / blob_file(name)))
        if path.parent != folder:
            raise FileNotFoundError(f"open {path}: no such file or directory")
        return path

    def read(self, kind: Kind, item: Item, blob: BigDataItem) -> bytes:
        return self._path(kind, item, blob.name).read_bytes()

    def unlisted(self, kind: Kind, item: Item, name: str) -> BigDataItem | None:
        """The file decides, not the record (semantics §4.9): lean stores leave the names out."""
        try:
            info = os.stat(self._path(kind, item, name))
        except (OSError, ValueError):
            return None
        if not name or not stat.S_ISREG(info.st_mode):
            return None
        return BigDataItem(name, info.st_size, Digest(""), "")

    def recipe(self, layer: Layer) -> BinaryIO | None:
        try:
            return open(self.root / f"{self.driver}-layers/{layer.id}.tar-split.gz", "rb")
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Nothing is held."""


def _layer_created(layer: Layer) -> ev.LayerCreated:
    return ev.LayerCreated(**{name: getattr(layer, name) for name in ev.LayerCreated._fields})


def _image_created(image: Image) -> ev.ImageCreated:
    return ev.ImageCreated(**{name: getattr(image, name) for name in ev.ImageCreated._fields})
