"""The files of a layer and of all below it, from what their archives said: no mount, no root.

Rules of this module:

* The view of a layer is the recorded manifests of its ancestors and of itself, replayed base
  first, record by record in archive order: a whiteout or an opaque mark takes away what lower
  layers brought and leaves what its own archive brought, before it or after it.
* Hard links of one archive share one ``Node``; the last header sets its attributes. A link to a
  file of a lower layer is a file of its own layer.
* Directories that an archive implies without listing them are ``implied``: 0755, root's.
* A parent that is a symbolic link is followed where extraction follows it: in the layer that has
  it, and with drivers that extract over a copy of the parent; overlay puts a directory there.
* Symbolic links are resolved inside the view: ``..`` of the root is the root, absolute targets
  begin there, more than 40 in one path are refused as the kernel does.
* Content comes from the tree of the layer that holds it, and is compared with the recorded digest
  while it is handed out. What was changed since is reported, never passed off as recorded.

Owners are those of the archive, not mapped. Paths are raw bytes without leading slash; the root is
``b""``.
"""

from __future__ import annotations

import errno
import os
import stat

from cstorage.errors import ContentChanged, LayerUnknown, StorageError
from cstorage.model import Change, ChangeKind, Layer
from cstorage.store.lookup import go_quote
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cstorage.archive.compression import ByteSource
    from cstorage.archive.manifest import ManifestEntry, ManifestReader
    from cstorage.store.core import Core

_LINK, _SYMLINK = ord("1"), ord("2")
_TYPES = {
    ord("0"): stat.S_IFREG,
    0: stat.S_IFREG,
    ord("2"): stat.S_IFLNK,
    ord("3"): stat.S_IFCHR,
    ord("4"): stat.S_IFBLK,
    ord("5"): stat.S_IFDIR,
    ord("6"): stat.S_IFIFO,
}
_LOOKS_MAX = 4  # parts that are tried before all is read
_LINKS_MAX = 40  # symbolic links in one path, as Linux counts
_PIECE = 1 << 20


class FilesUnrecorded(StorageError):
    """A layer has no manifest: it was never filled from an archive, or not by this program."""


class Node:
    """A file, directory, link, device or pipe. Names are its directory's business.

    ``type`` is the ``S_IF…`` value, ``mode`` the permission bits, ``size`` bytes of a regular
    file, ``layer`` the place in the chain (0 = base) of the layer that it comes from.
    """

    __slots__ = (
        "children", "device", "digest", "gid", "implied", "layer", "link", "mode", "mtime_ns",
        "size", "touched", "type", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, type_: int, layer: int) -> None:
        self.type = type_
        self.layer = layer
        self.mode = 0o755
        self.uid = self.gid = self.size = self.mtime_ns = 0
        self.link = b""
        self.device = (0, 0)
        self.xattrs: tuple[tuple[str, bytes], ...] = ()
        self.digest = b""
        self.implied = True
        self.touched = layer
        """The last layer that has something in this directory."""
        self.children: dict[bytes, Node] | None = {} if type_ == stat.S_IFDIR else None

    def describe(self, entry: ManifestEntry) -> None:
        """Take over the attributes that every type has."""
        self.mode = entry.mode & 0o7777
        self.uid, self.gid = entry.uid, entry.gid
        self.mtime_ns = entry.mtime_ns
        self.implied = False

    def copy(self, layer: int) -> Node:
        """The same file as one of another layer. Not for directories."""
        other = Node(self.type, layer)
        for name in ("mode", "uid", "gid", "size", "mtime_ns", "link", "device", "xattrs"):
            setattr(other, name, getattr(self, name))
        other.digest, other.implied = self.digest, self.implied
        return other


class Found(NamedTuple):
    """What a path leads to; ``path`` has no symbolic links but the last name."""

    path: bytes
    node: Node


# -- the chain and its replay ----------------------------------------------------------------------


def chain(find: Callable[[str], Layer | None], layer: Layer) -> list[Layer]:
    """The layer and its ancestors, base first.

    Raises ``FilesUnrecorded`` naming the layer without a manifest, ``LayerUnknown`` naming a
    parent that ``find`` does not know.
    """
    layers = [layer]
    while True:
        current = layers[-1]
        if not current.diff.manifest:
            raise FilesUnrecorded(
                f"no file list was recorded for layer {go_quote(current.id)}",
                hint="only layers that were filled from an archive have one; mount it instead",
            )
        if not current.parent:
            return layers[::-1]
        parent = find(current.parent)
        if parent is None:
            raise LayerUnknown(f"parent {go_quote(current.parent)} of layer {go_quote(current.id)}")
        layers.append(parent)


class View:
    """The merged tree of a chain of layers, grown by ``add`` layer by layer."""

    def __init__(self, *, merged: bool = False, only: Wanted | None = None) -> None:
        """``merged``: the driver extracts a layer over a copy of its parent. ``only``: a part."""
        self._only = only
        self.root = Node(stat.S_IFDIR, 0)
        self.algorithms: list[str] = []
        """Per layer, the name of the digests in its manifest."""
        self._merged = merged
        self._layer = -1
        self._last: tuple[bytes, Node] | None = None

    def add(self, manifest: ByteSource) -> None:
        """Apply the next layer's manifest. Raises ``ArchiveError`` if it is damaged."""
        from cstorage.archive.manifest import ManifestReader, Mark

        reader = ManifestReader(manifest)
        self.algorithms.append(reader.algorithm)
        self._layer += 1
        self._last = None
        for entry in reader if self._only is None else self._only.of(reader, merged=self._merged):
            if entry.mark is Mark.PRESENT:
                self._place(entry)
            elif entry.path or self._merged:  # overlay ignores an opaque mark in a layer's root
                self._hide(entry.path, itself=entry.mark is Mark.WHITEOUT)

    def _place(self, entry: ManifestEntry) -> None:
        directory, _, base = entry.path.rpartition(b"/")
        if not base:
            self.root.describe(entry)
            self.root.layer = self._layer
            return
        linked = self._linked(entry) if entry.type == _LINK else None
        kind = _TYPES.get(entry.type)
        if linked is None and kind is None:
            return
        if self._last is not None and self._last[0] == directory:
            parent = self._last[1]
        else:
            parent = self._directory(directory)
            self._last = (directory, parent)
        assert parent.children is not None
        old = parent.children.get(base)
        if linked is not None:
            node = linked
        elif old is not None and kind == stat.S_IFDIR and old.type == kind:
            node = old
            node.layer = node.touched = self._layer
        else:
            node = Node(kind or 0, self._layer)
        if old is not None and old is not node:
            self._last = None
        if linked is None:
            node.link = entry.linkname if kind == stat.S_IFLNK else b""
            node.size = entry.size if kind == stat.S_IFREG else 0
            node.device = (entry.devmajor, entry.devminor)
            node.digest = entry.digest
            node.xattrs = entry.xattrs
        elif entry.xattrs:
            node.xattrs = entry.xattrs
        node.describe(entry)
        parent.children[base] = node
        if kind == stat.S_IFCHR and node.device == (0, 0) and not self._merged:
            del parent.children[base]  # what the kernel takes for a whiteout

    def _linked(self, entry: ManifestEntry) -> Node | None:
        """The file that a hard link is one more name of, if there is one."""
        target = _plain(entry.linkname)
        try:
            node = self.find(target, follow=False).node
        except OSError:
            return None
        if node.type == stat.S_IFDIR:
            return None
        if node.layer == self._layer:
            return node
        node.describe(entry)
        return node.copy(self._layer)

    def _directory(self, path: bytes) -> Node:
        """The directory that an entry goes into, made where no archive listed it."""
        trail = [self.root]
        parts = [part for part in path.split(b"/") if part][::-1]
        links = 0
        self.root.touched = self._layer
        while parts:
            name = parts.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            children = trail[-1].children
            assert children is not None
            node = children.get(name)
            follows = self._merged or (node is not None and node.layer == self._layer)
            if node is not None and node.type == stat.S_IFLNK and follows and links < _LINKS_MAX:
                links += 1
                if node.link.startswith(b"/"):
                    del trail[1:]
                parts += node.link.split(b"/")[::-1]
                continue
            if node is None or node.children is None:
                node = children[name] = Node(stat.S_IFDIR, self._layer)
            node.touched = self._layer
            trail.append(node)
        return trail[-1]

    def _hide(self, path: bytes, *, itself: bool) -> None:
        """Take away what lower layers have at ``path`` (if ``itself``) and below it."""
        self._last = None
        if not itself:
            pending = [self._directory(path)]
        else:
            directory, _, base = path.rpartition(b"/")
            # Extraction makes the directory that a whiteout stands in, as any entry's.
            siblings = self._directory(directory).children
            node = siblings.get(base) if siblings is not None else None
            if siblings is None or node is None:
                return
            if node.layer < self._layer:
                if node.children is None or node.touched < self._layer:
                    del siblings[base]
                    return
                _imply(node, self._layer)
            pending = [node]
        layer = self._layer
        while pending:
            children = pending.pop().children
            for name, child in list((children or {}).items()):
                assert children is not None
                if child.layer < layer:
                    if child.children is None or child.touched < layer:
                        del children[name]
                        continue
                    _imply(child, layer)
                if child.children is not None:
                    pending.append(child)

    # -- questions ---------------------------------------------------------------------------------

    def find(self, path: bytes, *, follow: bool = True) -> Found:
        """What ``path`` leads to; ``follow``: also through a symbolic link that is its last name.

        Raises ``FileNotFoundError``, ``NotADirectoryError``, ``OSError`` (``ELOOP``).
        """
        trail = [Found(b"", self.root)]
        parts = path.split(b"/")[::-1]
        last = not path.endswith(b"/")
        links = 0
        while parts:
            name = parts.pop()
            here = trail[-1]
            if here.node.children is None:
                raise _refused(errno.ENOTDIR, path)
            if name in (b"", b"."):
                continue
            if name == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            node = here.node.children.get(name)
            if self._only is not None:
                self._only.ask(here.path, (name, *reversed(parts)))
            if node is None:
                raise _refused(errno.ENOENT, path)
            if node.type == stat.S_IFLNK and (follow or parts or not last):
                links += 1
                if links > _LINKS_MAX:
                    raise _refused(errno.ELOOP, path)
                if node.link.startswith(b"/"):
                    del trail[1:]
                parts += node.link.split(b"/")[::-1]
                continue
            trail.append(Found(here.path + b"/" + name if here.path else name, node))
        return trail[-1]

    def walk(self, start: Found) -> Iterator[Found]:
        """``start`` and all below it: a directory before what is in it, names bytewise."""
        pending = [start]
        while pending:
            found = pending.pop()
            yield found
            pending += reversed(below(found))


class NotRead(Exception):
    """A view of a part was asked about, or needs, a path outside of that part."""

    def __init__(self, path: bytes) -> None:
        super().__init__(path)
        self.path = path


class TooTangled(Exception):
    """Entries below symbolic links of their layers: any of them may be at any path."""


class Wanted:
    """The part of manifests that decides what is at some paths: a fraction of their entries.

    That is what is said of the paths, of what is above and of what is below them. Where a path
    leads through a symbolic link, the view asks for it (``NotRead``), and the part is made larger.
    """

    def __init__(self) -> None:
        self._above: set[bytes] = {b""}
        self._below: tuple[bytes, ...] = ()
        self._links: set[bytes] = set()

    def begin(self) -> None:
        """A chain is read from its base."""
        self._links = set()

    def add(self, path: bytes) -> None:
        self._below += (path + b"/",)
        while path:
            self._above.add(path)
            path = path.rpartition(b"/")[0]

    def ask(self, place: bytes, rest: Sequence[bytes]) -> None:
        """Raises ``NotRead`` if the first of ``rest``, in ``place``, is outside of the part."""
        inside = place + b"/" if place else b""
        if inside + rest[0] not in self._above:
            raise NotRead(_plain(inside + b"/".join(_until_up(rest))))

    def of(self, reader: ManifestReader, *, merged: bool) -> Iterator[ManifestEntry]:
        """The next layer's entries that count, more than necessary if in doubt.

        Raises ``TooTangled`` if it cannot be told which do.
        """
        if not merged:
            self._links = set()
        links, above, below = self._links, self._above, self._below
        last = b""
        for record in reader.records():
            path: bytes = record[1]
            if links:
                directory = path.rpartition(b"/")[0]
                if directory != last:
                    last = directory
                    while directory:
                        if directory in links:
                            raise TooTangled
                        directory = directory.rpartition(b"/")[0]
            if record[2] == _SYMLINK and record[0] == 0:
                links.add(path)
            elif record[2] == _LINK and _plain(record[8]) in above:
                above.add(path)  # one more name of a file that counts: its header does, too
            if path in above or path.startswith(below):
                yield reader.entry(record)


def _plain(path: bytes) -> bytes:
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def _until_up(names: Sequence[bytes]) -> Sequence[bytes]:
    """What is in front of the first ``..``: where that leads is seen when its place is known."""
    return names[: names.index(b"..")] if b".." in names else names


def of_chain(core: Core, layers: Sequence[Layer], only: Wanted | None = None) -> View:
    """The view of a chain of layers of the store, base first; of the part ``only`` if given.

    Raises ``ArchiveError``, ``ContentDamaged``, naming the layer whose manifest it is.
    """
    view = View(merged=core.driver.name != "overlay", only=only)
    if only is not None:
        only.begin()
    for layer in layers:
        try:
            with core.content.open(layer.diff.manifest) as manifest:
                view.add(manifest)
        except StorageError as error:
            raise type(error)(
                f"file list of layer {go_quote(layer.id)}: {error}", hint=error.hint
            ) from error
    return view


def below(found: Found) -> list[Found]:
    """The entries of a directory, sorted bytewise; none of anything else."""
    inside = found.path + b"/" if found.path else b""
    children = found.node.children or {}
    return [Found(inside + name, children[name]) for name in sorted(children)]


def _imply(node: Node, layer: int) -> None:
    """A directory that was taken away, but has entries of this layer: theirs implies it anew."""
    node.layer = layer
    node.mode, node.uid, node.gid, node.mtime_ns, node.xattrs = 0o755, 0, 0, 0, ()
    node.implied = True


def _refused(number: int, path: bytes) -> OSError:
    return OSError(number, os.strerror(number), b"/" + path.lstrip(b"/"))


# -- differences -----------------------------------------------------------------------------------


def compare(old: Files, new: Files) -> Iterator[Change]:
    """Changes that turn ``old`` into ``new``, in the order and by the rules of ``changes``.

    Contents are compared by digest too, where both sides have one of the same kind. A directory
    with changes in it counts as modified; of what is gone only the topmost name is reported.
    """
    levels = [_Level(b"", old.view.root, new.view.root, False)]
    while levels:
        level = levels[-1]
        name = next(level.names, None)
        if name is None:
            levels.pop()
            continue
        path = level.path + b"/" + name
        before, now = level.before.get(name), level.now.get(name)
        kind = None
        if now is None:
            kind = ChangeKind.DELETE
        elif before is None:
            kind = ChangeKind.ADD
        elif _differs((old, before), (new, now)):
            kind = ChangeKind.MODIFY
        if kind is not None:
            for above in levels:
                if above.unreported:
                    above.unreported = False
                    yield Change(above.path, ChangeKind.MODIFY)
            yield Change(path, kind)
        if now is not None and now.children is not None:
            levels.append(_Level(path, before, now, kind is None))


class _Level:
    """One directory of a comparison."""

    def __init__(self, path: bytes, before: Node | None, now: Node, unreported: bool) -> None:
        self.path = path
        self.unreported = unreported
        self.before = (before.children if before is not None else None) or {}
        self.now = now.children or {}
        self.names = iter(sorted(self.before.keys() | self.now.keys()))


def _differs(old: tuple[Files, Node], new: tuple[Files, Node]) -> bool:
    from cstorage.archive.changes import same_time

    before, now = old[1], new[1]
    if (
        before.type != now.type
        or before.mode != now.mode
        or (before.uid, before.gid) != (now.uid, now.gid)
        or before.device != now.device
        or before.size != now.size
        or before.link != now.link
        or dict(before.xattrs) != dict(now.xattrs)
        or not (before.implied or now.implied or same_time(before.mtime_ns, now.mtime_ns))
    ):
        return True
    comparable = old[0].algorithm(before) == new[0].algorithm(now)
    return comparable and bool(before.digest and now.digest) and before.digest != now.digest


# -- an image's or a layer's files -----------------------------------------------------------------


class Files:
    """The files of one layer, or of an image's top layer, as recorded at the time of the call.

    The first question reads the manifests without making a tree of them, if a file that is no
    directory is the answer; anything else makes the tree, once.
    """

    def __init__(self, core: Core, key: str) -> None:
        """Raises ``LayerUnknown``, ``FilesUnrecorded``, ``ArchiveError``, ``StorageError``."""
        self._core = core
        with core.mutex:
            catalogue = core.catalogue
            self.layers = chain(catalogue.layer_by_id, _top(core, key))
        self._asked = False
        self._view: View | None = None
        self._algorithms: list[str] = []

    @property
    def view(self) -> View:
        """All of it. Raises ``ArchiveError``, ``StorageError``."""
        self._asked = True
        if self._view is None:
            self._view = of_chain(self._core, self.layers)
            self._algorithms = self._view.algorithms
        return self._view

    def find(self, path: str | bytes = b"", *, follow: bool = True) -> Found:
        """What ``path`` leads to; errors as ``View.find``."""
        wanted = os.fsencode(path)
        if not self._asked:
            self._asked = True
            if (found := self._look_up(wanted, follow)) is not None:
                return found
        return self.view.find(wanted, follow=follow)

    def _look_up(self, path: bytes, follow: bool) -> Found | None:
        """What ``path`` leads to, from the part of the manifests that decides it.

        None for directories, whose entries may be asked for, and where the part cannot be told.
        """
        part = Wanted()
        part.add(_plain(b"/".join(_until_up(path.split(b"/")))))
        try:
            for _ in range(_LOOKS_MAX):
                try:
                    view = of_chain(self._core, self.layers, part)
                    found = view.find(path, follow=follow)
                except NotRead as more:
                    part.add(more.path)
                    continue
                self._algorithms = view.algorithms
                return None if found.node.children is not None else found
        except TooTangled:
            pass
        return None

    def walk(self, start: Found) -> Iterator[Found]:
        """``start`` and all below it, in order."""
        return self.view.walk(start)

    def layer_of(self, found: Found) -> Layer:
        """The layer that an entry comes from."""
        return self.layers[found.node.layer]

    def algorithm(self, node: Node) -> str:
        """The name of the digest of a node's content."""
        return self._algorithms[node.layer]

    def read(self, found: Found) -> Iterator[bytes]:
        """The content of a regular file, in pieces.

        Raises ``IsADirectoryError`` or ``OSError`` (``EINVAL``) for what is no regular file;
        ``ContentChanged`` before the first piece if the file is gone or of another size, after
        the last one if its bytes do not have the recorded digest.
        """
        node = found.node
        if node.type != stat.S_IFREG:
            directory = node.type == stat.S_IFDIR
            raise _refused(errno.EISDIR if directory else errno.EINVAL, found.path)
        digest = None
        if node.digest:
            from cstorage.archive.manifest import hasher_of

            digest = hasher_of(self.algorithm(node))()
        layer = self.layer_of(found)
        try:
            fd = self._core.driver.open_payload(layer.id, found.path)
        except ContentChanged as error:
            raise self._changed(found, str(error)) from error
        with open(fd, "rb", buffering=0) as file:
            size = os.fstat(fd).st_size
            if size != node.size:
                raise self._changed(found, f"{size} bytes instead of {node.size}")
            while piece := file.read(_PIECE):
                if digest is not None:
                    digest.update(piece)
                yield piece
        if digest is not None and digest.digest() != node.digest:
            raise self._changed(found, "its bytes do not have the recorded digest")

    def _changed(self, found: Found, how: str) -> ContentChanged:
        return ContentChanged(
            f"/{os.fsdecode(found.path)} of layer {go_quote(self.layer_of(found).id)} was changed "
            f"after it was imported: {how}",
            hint="run check",
        )


def _top(core: Core, key: str) -> Layer:
    """The layer that ``key`` stands for, or the image's; an exact name beats a prefix of an ID."""
    catalogue = core.catalogue
    image = catalogue.find_image(key)
    layer = catalogue.find_layer(key)
    if image is None or (
        layer is not None
        and key in (layer.id, *layer.names)
        and key not in (image.id, *image.names)
    ):
        if layer is None:
            raise LayerUnknown(f"locating image or layer {go_quote(key)}")
        return layer
    if not image.top_layer:
        raise FilesUnrecorded(f"image {go_quote(image.id)} has no layer")
    top = catalogue.layer_by_id(image.top_layer)
    if top is None:
        raise LayerUnknown(f"top layer {go_quote(image.top_layer)} of image {go_quote(image.id)}")
    return top
