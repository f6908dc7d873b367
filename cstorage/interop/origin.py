"""A store of containers/storage as a source: what it says it has, item by item.

Rules (drivers-and-formats §1.4, §2.7):

* Nothing of the source is changed: its lock files are opened for reading and not made where they
  are missing, its trees are only read.
* Files of records are read under the original's shared locks, in its order: layers, images,
  containers. Of an ID that occurs twice the first record counts; of an image's name that occurs
  twice the last holder keeps it, as in the original.
* A record that cannot be understood is a fault of that item, a file that cannot be understood is a
  fault of that file. Faults are collected, never raised.
* Every ID, digest and link target that is read is checked before it becomes part of a path, and a
  tree may not lead out of the source by symbolic links.
* Unknown fields of a record go into the item's flags (``jsonform.EXTRA``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cstorage.drivers.options import KNOWN_DRIVERS, canonical
from cstorage.errors import StorageError
from cstorage.interop import jsonform, locks, records, selection
from cstorage.interop.filenames import big_data_file
from cstorage.model import BigDataItem, Container, Image, Item, Kind, Layer
from journal.plain import Any, NamedTuple, TypeVar

DRIVERS = ("overlay", "vfs")
"""Drivers whose trees can be taken over."""

_BIG_DATA_MAX = 64 << 20
_FIELDS = {
    Kind.LAYER: frozenset((
        "id", "names", "parent", "metadata", "mountlabel", "created", "compressed-diff-digest",
        "compressed-size", "diff-digest", "toc-digest", "diff-size", "compression", "uidset",
        "gidset", "flags", "uidmap", "gidmap", "big-data-names",
    )),
    Kind.IMAGE: frozenset((
        "id", "digest", "names", "names-history", "layer", "mapped-layers", "metadata",
        "big-data-names", "big-data-sizes", "big-data-digests", "created", "flags",
    )),
    Kind.CONTAINER: frozenset((
        "id", "names", "image", "layer", "metadata", "big-data-names", "big-data-sizes",
        "big-data-digests", "created", "uidmap", "gidmap", "flags",
    )),
}  # fmt: skip

_T = TypeVar("_T", Layer, Image, Container)


class OriginError(StorageError):
    """A store that cannot be read at all: not there, several drivers, a driver nobody knows."""


class ItemFault(StorageError):
    """Why one item of a source cannot be taken."""


class Fault(NamedTuple):
    """An item or file that is left out, and why."""

    item: str
    why: str


class Found(NamedTuple):
    """A record and the metadata folder it is from."""

    item: Item
    folder: str


def drivers_at(graph_root: str) -> list[str]:
    """Known drivers that keep metadata at a graph root."""
    return [
        name
        for name in KNOWN_DRIVERS
        if canonical(name) == name and os.path.isdir(f"{graph_root}/{name}-layers")
    ]


def choose_driver(graph_root: str, wanted: str = "") -> str:
    """The driver of the store at ``graph_root``. Raises ``OriginError``."""
    if not os.path.isdir(graph_root):
        raise OriginError(f"{graph_root} is not a directory")
    present = drivers_at(graph_root)
    if wanted:
        present = [canonical(wanted)] if canonical(wanted) in present else []
    if not present:
        raise OriginError(
            f"{graph_root} holds no store of containers/storage"
            + (f" with driver {wanted}" if wanted else "")
        )
    if len(present) > 1:
        raise OriginError(
            f"{graph_root} holds stores of several drivers: {', '.join(present)}",
            hint="choose one with --from-driver",
        )
    if present[0] not in DRIVERS:
        raise OriginError(
            f"{graph_root} uses the driver {present[0]}",
            hint="only overlay and vfs can be taken over; convert it with the original's tools",
        )
    return present[0]


class Origin:
    """One store as a source; ``read`` first. Roots: the graph root, its split image store."""

    def __init__(
        self,
        graph_root: str,
        driver: str,
        *,
        run_root: str = "",
        image_store: str = "",
        additional: tuple[str, ...] = (),
        timeout_s: float = 10.0,
    ) -> None:
        self.driver = driver
        self.graph_root = graph_root
        own = [graph_root, *([image_store] if image_store else [])]
        self.roots = [*own, *additional]
        self._own = own
        self._run_root = run_root
        self._timeout_s = timeout_s
        self.layers: dict[str, Found] = {}
        self.images: dict[str, Found] = {}
        self.containers: dict[str, Found] = {}
        self.faults: list[Fault] = []
        self._tokens: list[tuple[str, bytes]] = []

    @property
    def text(self) -> str:
        """How the source is called in the journal."""
        return f"{self.driver}@{self.graph_root}"

    @property
    def mount_program(self) -> bool:
        """Whether a mount program wrote the trees, with whiteouts of its own (§3.7)."""
        try:
            with open(f"{self.graph_root}/{self.driver}/.has-mount-program", "rb") as file:
                return file.read(16).strip() == b"true"
        except OSError:
            return False

    def _folder(self, root: str, group: str) -> str:
        return f"{root}/{self.driver}-{group}"

    def _locks(self, group: str) -> list[str]:
        roots = self.roots if group != selection.CONTAINERS else [self.graph_root]
        return [f"{self._folder(root, group)}/{group}.lock" for root in roots]

    # -- records ---------------------------------------------------------------------------------

    def read(self) -> None:
        """Read all records under the original's locks. Raises ``StoreBusy``."""
        self.layers, self.images, self.containers, self.faults = {}, {}, {}, []
        with locks.shared(self._locks(selection.LAYERS), self._timeout_s):
            self._tokens = self._layer_tokens()
            self._read_layers()
        with locks.shared(self._locks(selection.IMAGES), self._timeout_s):
            for root in self._own:
                folder = self._folder(root, selection.IMAGES)
                self._file(Kind.IMAGE, folder, "images.json", records.image_of, self.images)
        self._settle_names()
        with locks.shared(self._locks(selection.CONTAINERS), self._timeout_s):
            folder = self._folder(self.graph_root, selection.CONTAINERS)
            self._file(
                Kind.CONTAINER, folder, "containers.json", records.container_of, self.containers
            )
            volatile: dict[str, Found] = {}
            for place in (folder, f"{self._run_root}/{self.driver}-containers"):
                if place.startswith("/"):
                    self._file(
                        Kind.CONTAINER,
                        place,
                        "volatile-containers.json",
                        records.container_of,
                        volatile,
                    )
            for id_, found in volatile.items():
                assert isinstance(found.item, Container)
                item = found.item._replace(volatile=True)
                self.containers.setdefault(id_, Found(item, folder))

    def _read_layers(self) -> None:
        volatile: dict[str, Found] = {}
        for root in self.roots:
            folder = self._folder(root, selection.LAYERS)
            self._file(
                Kind.LAYER, folder, "layers.json", records.layer_of, self.layers,
                quiet=root not in self._own,
            )  # fmt: skip
        for folder in (
            self._folder(self.graph_root, selection.LAYERS),
            f"{self._run_root}/{self.driver}-layers",
        ):
            if folder.startswith("/"):
                self._file(Kind.LAYER, folder, "volatile-layers.json", records.layer_of, volatile)
        for id_, found in volatile.items():
            assert isinstance(found.item, Layer)
            self.layers.setdefault(id_, found._replace(item=found.item._replace(volatile=True)))

    def _layer_tokens(self) -> list[tuple[str, bytes]]:
        return [(path, locks.token(path)) for path in self._locks(selection.LAYERS)]

    def _file(
        self,
        kind: Kind,
        folder: str,
        name: str,
        make: Callable[[Mapping[str, Any], Path], _T],
        into: dict[str, Found],
        *,
        quiet: bool = False,
    ) -> None:
        """Records of one file; ``quiet`` for stores that only lend parents."""
        path = Path(folder) / name
        try:
            found = records.read(path)
        except (StorageError, OSError) as error:
            self.faults.append(Fault(str(path), f"cannot be read: {error}"))
            return
        label = kind.name.lower()
        for values in found:
            shown = f"{label} {values.get('id', '?')}"
            try:
                item = make(values, path)
                fault = _id_fault(item)
                extra = {k: v for k, v in values.items() if k not in _FIELDS[kind]}
                if extra:
                    item = item._replace(flags={**item.flags, jsonform.EXTRA: extra})
            except StorageError as error:
                self.faults.append(Fault(shown, str(error)))
                continue
            if fault:
                self.faults.append(Fault(shown, fault))
            elif item.id in into:
                if not quiet and into[item.id].folder == folder:
                    self.faults.append(Fault(shown, "a second record of this ID; the first counts"))
            else:
                into[item.id] = Found(item, folder)

    def _settle_names(self) -> None:
        """A name that several images claim stays with the last one."""
        holder: dict[str, str] = {}
        for id_, found in self.images.items():
            assert isinstance(found.item, Image)
            for name in found.item.names:
                if name in holder:
                    self.faults.append(
                        Fault(f"name {name}", f"of image {holder[name]}: image {id_} has it too")
                    )
                holder[name] = id_
        for id_, found in self.images.items():
            assert isinstance(found.item, Image)
            kept = tuple(name for name in found.item.names if holder[name] == id_)
            if kept != found.item.names:
                self.images[id_] = found._replace(item=found.item._replace(names=kept))

    def ordered_layers(self) -> list[Layer]:
        """Own layers and whatever images and layers rest on, parents first, else in file order."""
        own = {self._folder(root, selection.LAYERS) for root in self._own}
        own.add(f"{self._run_root}/{self.driver}-layers")
        wanted = [id_ for id_, found in self.layers.items() if found.folder in own]
        for found in self.images.values():
            assert isinstance(found.item, Image)
            wanted += [found.item.top_layer, *found.item.mapped_top_layers]
        done: dict[str, Layer] = {}
        for id_ in wanted:
            chain: dict[str, Layer] = {}
            current = id_
            while current in self.layers and current not in done and current not in chain:
                item = self.layers[current].item
                assert isinstance(item, Layer)
                chain[current] = item
                current = item.parent
            done.update(reversed(chain.items()))
        return list(done.values())

    # -- content ---------------------------------------------------------------------------------

    @contextmanager
    def steady(self, layer: Layer) -> Iterator[None]:
        """Hold the layer locks; the layer is as it was when the records were read.

        Raises ``StoreBusy``, ``ItemFault`` if its tool changed or deleted it meanwhile.
        """
        with locks.shared(self._locks(selection.LAYERS), self._timeout_s):
            tokens = self._layer_tokens()
            if tokens != self._tokens:
                before, faults = self.layers, self.faults
                self.layers, self.faults = {}, []
                self._read_layers()
                now, self.layers, self.faults = self.layers.get(layer.id), before, faults
                if now is None or now.item != layer:
                    raise ItemFault("was changed or deleted while the store was read; run it again")
            yield

    def chain(self, layer: Layer) -> list[Layer]:
        """The layer and its ancestors, the layer first. Raises ``ItemFault``."""
        found = [layer]
        seen = {layer.id}
        while found[-1].parent:
            above = self.layers.get(found[-1].parent)
            if above is None:
                raise ItemFault(f"its parent {found[-1].parent} is not in the store")
            assert isinstance(above.item, Layer)
            if above.item.id in seen:
                raise ItemFault("its parents form a circle")
            seen.add(above.item.id)
            found.append(above.item)
        return found

    def contents(self, layer: Layer) -> list[str]:
        """Directories that hold what the layer contributes, uppermost first. Raises ``ItemFault``.

        For vfs the one tree; for overlay ``diff`` and what ID-map updates rotated away.
        """
        for root in self.roots:
            home = f"{root}/{self.driver}"
            path = f"{home}/dir/{layer.id}" if self.driver == "vfs" else f"{home}/{layer.id}"
            if os.path.isdir(path):
                break
        else:
            raise ItemFault("its tree is missing")
        if self.driver == "vfs":
            self._inside(path)
            return [path]
        if os.path.lexists(f"{path}/composefs-data"):
            raise ItemFault("it is stored as a composefs image")
        if os.path.lexists(f"{path}/additionallayer"):
            raise ItemFault("its content is in an additional layer store")
        if not os.path.isdir(f"{path}/diff"):
            raise ItemFault(f"{path}/diff is missing")
        found = [f"{path}/diff"]
        while os.path.isdir(f"{path}/diff{len(found)}"):
            found.append(f"{path}/diff{len(found)}")
        for folder in found:
            self._inside(folder)
        return found

    def _inside(self, path: str) -> None:
        real = os.path.realpath(path)
        if not any(
            real.startswith(os.path.realpath(f"{root}/{self.driver}") + "/") for root in self.roots
        ):
            raise ItemFault(f"{path} leads out of the store, to {real}")

    def recipe(self, layer: Layer) -> str:
        """Path of the layer's tar-split file, "" if there is none."""
        for root in self.roots:
            path = f"{self._folder(root, selection.LAYERS)}/{layer.id}.tar-split.gz"
            if os.path.isfile(path) and not os.path.islink(path):
                return path
        return ""

    def big_data(self, found: Found) -> list[tuple[str, bytes, str]]:
        """Name, bytes and digest of the item's data, verified. Raises ``ItemFault``."""
        return [self._blob(found, item) for item in found.item.big_data]

    def private(self, found: Found) -> str:
        """The item's own folder beside the records. Raises ``ItemFault`` if it leads elsewhere."""
        path = f"{found.folder}/{found.item.id}"
        real = os.path.realpath(path)
        homes = [root for root in (*self.roots, self._run_root) if root]
        if not any(real.startswith(os.path.realpath(root) + "/") for root in homes):
            raise ItemFault(f"{path} leads out of the store, to {real}")
        return path

    def _blob(self, found: Found, item: BigDataItem) -> tuple[str, bytes, str]:
        import hashlib

        name = big_data_file(item.name)
        if not name:
            raise ItemFault(f"its data item {item.name!r} cannot be in a file")
        path = f"{self.private(found)}/{name}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise ItemFault(f"its data item {item.name!r}: {error.strerror}: {path}") from None
        with open(fd, "rb") as file:
            data = file.read(_BIG_DATA_MAX + 1)
        if len(data) > _BIG_DATA_MAX:
            raise ItemFault(f"its data item {item.name!r} is larger than {_BIG_DATA_MAX} bytes")
        if item.size not in (-1, len(data)):
            raise ItemFault(
                f"its data item {item.name!r} has {len(data)} bytes instead of {item.size}"
            )
        own = "sha256:" + hashlib.sha256(data).hexdigest()
        if item.digest and item.digest != own and not _other_digest(item, data):
            raise ItemFault(f"its data item {item.name!r} has digest {own}, not {item.digest}")
        return item.name, data, item.digest or own

    def lower_fault(self, layer: Layer) -> str:
        """What is wrong with an overlay layer's short names, "" if they say what the records say.

        A wrong ``lower`` shows a container less than its image holds, without any error (§2.2).
        """
        from cstorage.drivers import layout

        home = f"{self.graph_root}/{self.driver}"
        try:
            names = layout.lower_names(f"{home}/{layer.id}")
            own = layout.link_name(f"{home}/{layer.id}")
            targets = [os.readlink(f"{home}/l/{name}") for name in (own or "?", *names)]
        except (StorageError, OSError) as error:
            return f"its short names cannot be read: {error}"
        expected = [f"../{found.id}/diff" for found in self.chain(layer)]
        if targets != expected:
            return "its files link and lower do not name the layers of its chain"
        return ""


def _other_digest(item: BigDataItem, data: bytes) -> bool:
    """Whether a digest is right that is not the SHA-256 of the bytes.

    Other algorithms are computed. A signed schema 1 manifest has the digest of its payload, which
    nobody here computes; it is told by its signatures and taken at its word.
    """
    import hashlib

    algorithm, _, text = item.digest.partition(":")
    if algorithm in {"sha384", "sha512"}:
        return hashlib.new(algorithm, data).hexdigest() == text
    return item.name.startswith("manifest") and b'"signatures"' in data


def _id_fault(item: Item) -> str:
    """Why an ID (its own or one that it refers to) cannot be used as a path, "" if all can."""
    ids = [str(item.id)]
    match item:
        case Layer():
            ids += [item.parent] if item.parent else []
        case Image():
            ids += [id_ for id_ in (item.top_layer, *item.mapped_top_layers) if id_]
        case Container():
            ids += [id_ for id_ in (item.image, item.layer) if id_]
    for id_ in ids:
        if not selection.is_component(id_):
            return f"the ID {id_[:80]!r} cannot be a file name"
    return ""
