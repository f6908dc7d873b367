"""Content of a source's layers: verified, and brought into a prepared layer of ours.

Every archive is rebuilt from the source's tar-split and compared with its recorded digest; that
happens while it is copied, or before its files are linked. What has no digest cannot be verified
and is copied as it is.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading

from cstorage.archive.recipe import assemble
from cstorage.drivers import treewalk
from cstorage.drivers.copytree import TreeCopier
from cstorage.drivers.payload import Payloads
from cstorage.errors import ArchiveError
from cstorage.interop.origin import ItemFault, Origin
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cstorage.archive.compression import ByteSink
    from cstorage.model import Layer

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_FOREIGN = ("trusted.overlay.metacopy", "trusted.overlay.redirect", "user.overlay.metacopy",
            "user.overlay.redirect", "user.overlay.opaque")  # fmt: skip
"""Marks that another mount would not heed: content elsewhere, or made for unprivileged mounts."""


class Measure:
    """A sink that only measures."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self._digest.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        return "sha256:" + self._digest.hexdigest()


def _payload_roots(origin: Origin, layer: Layer) -> list[str]:
    if origin.driver == "vfs":
        return origin.contents(layer)
    found: list[str] = []
    for member in origin.chain(layer):
        found += origin.contents(member)
    return found


def write_archive(origin: Origin, layer: Layer, sink: ByteSink) -> None:
    """The layer's archive as it was once taken in. Raises ``ItemFault``, ``ArchiveError``."""
    path = origin.recipe(layer)
    if not path:
        raise ItemFault("it has no tar-split file")
    payloads = Payloads(_payload_roots(origin, layer))
    try:
        with open(path, "rb") as recipe:
            assemble(recipe, payloads, sink)
    finally:
        payloads.close()


def verify(origin: Origin, layer: Layer) -> None:
    """Read the whole layer and compare it with its digest. Raises ``ItemFault``."""
    seen = Measure()
    try:
        write_archive(origin, layer, seen)
    except (ArchiveError, OSError) as error:
        raise ItemFault(f"its archive cannot be rebuilt: {_text(error)}") from error
    compare(layer, seen.digest, seen.size)


def compare(layer: Layer, digest: str, size: int, *, made_anew: bool = False) -> None:
    """Raise ``ItemFault`` if an archive is not the one that was recorded."""
    fault = ""
    if digest != layer.diff.uncompressed_digest:
        fault = f"its archive has digest {digest}, not {layer.diff.uncompressed_digest}"
    elif layer.diff.uncompressed_size not in (0, -1, size):
        fault = f"its archive has {size} bytes, not {layer.diff.uncompressed_size}"
    if fault and made_anew:
        fault = f"it has no tar-split file, and made anew {fault}"
    if fault:
        raise ItemFault(fault)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


class Stream:
    """What ``produce(sink)`` writes, as a source to read from; it runs in a thread of its own.

    A context manager. ``finish`` raises what went wrong in the producer, before anything is
    committed that was made from its bytes.
    """

    def __init__(self, produce: Callable[[ByteSink], None]) -> None:
        import fcntl

        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._write_fd, _F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            pass  # a smaller pipe is only slower
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(produce,), daemon=True)

    def _run(self, produce: Callable[[ByteSink], None]) -> None:
        try:
            produce(self)
        except BrokenPipeError:
            pass  # the reader gave up and says why
        except Exception as error:
            self._error = error
        finally:
            os.close(self._write_fd)

    def write(self, data: bytes, /) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._write_fd, view) :]

    def read(self, n: int, /) -> bytes:
        return os.read(self._read_fd, n)

    def finish(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._read_fd)
        self._thread.join()


class Linker(TreeCopier):
    """Copies a tree by sharing extents, else by hard links, else for real.

    Only for trees that nobody changes in place: image layers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linked = 0

    def _file(self, source: int, target: int, name: bytes, status: os.stat_result) -> None:
        if not self._clone or not status.st_size:
            try:
                os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
                self.linked += 1
                return
            except OSError:
                pass  # another file system, or too many links: copied like the rest
        super()._file(source, target, name, status)


def copy_tree(source: str, target: int, copier: TreeCopier | None = None) -> None:
    """Copy the directory ``source`` with its attributes to the empty directory ``target``."""
    inner = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        (copier or TreeCopier()).copy(inner, target)
    finally:
        os.close(inner)


def points_elsewhere(path: str) -> bool:
    """Whether an overlay directory says something that only its own mounts understand (§2.7)."""
    return any(
        mark in _attributes(place)
        for place, info in _entries(path)
        if stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode)
        for mark in _FOREIGN
    )


def has_other_owners(origin: Origin, layer: Layer) -> bool:
    """Whether files belong to somebody whom no archive of the layer's chain names.

    So it is with stores of unprivileged users, whose files have the owners that their namespace
    maps to. Root may own what no archive names: whiteouts, and directories above an entry.
    """
    uids, gids = {0}, {0}
    for member in origin.chain(layer) if origin.driver == "vfs" else [layer]:
        uids.update(member.diff.uids)
        gids.update(member.diff.gids)
    return any(
        info.st_uid not in uids or info.st_gid not in gids
        for path in origin.contents(layer)
        for _, info in _entries(path)
    )


def _entries(path: str) -> Iterator[tuple[bytes, os.stat_result]]:
    """Everything below a directory: a path that is good until the next one, and its ``lstat``."""
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        pending = [b""]
        while pending:
            current = pending.pop()
            with treewalk.Tree(root) as tree:
                directory = tree.open(current)
            try:
                for name, info in treewalk.entries(directory):
                    if stat.S_ISDIR(info.st_mode):
                        pending.append(treewalk.joined(current, name))
                    yield treewalk.place(directory, name), info
            finally:
                os.close(directory)
    finally:
        os.close(root)


def _attributes(place: bytes) -> list[str]:
    try:
        return os.listxattr(place, follow_symlinks=False)
    except OSError:
        return []


def reading_driver(origin: Origin, scratch: str) -> Any:
    """A driver of ours that sees the source's trees as an additional store, so only reads them."""
    from cstorage.drivers.contract import DriverOptions
    from cstorage.drivers.registry import driver_class

    return driver_class(origin.driver)(
        DriverOptions(
            home=f"{scratch}/home/{origin.driver}",
            run_home=f"{scratch}/run/{origin.driver}",
            additional_homes=tuple(f"{root}/{origin.driver}" for root in origin.roots),
        )
    )


def generate(origin: Origin, layer: Layer, scratch: str, sink: ByteSink) -> None:
    """The archive that the layer's files make today. ``scratch`` is a directory to work in."""
    from cstorage.drivers.contract import NO_MAPS
    from cstorage.model import Layer as LayerRecord

    tree, *_ = origin.contents(layer)
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    parent = origin.layers.get(layer.parent)
    maps = parent.item.maps if parent and isinstance(parent.item, LayerRecord) else NO_MAPS

    def produce(sink: ByteSink) -> None:
        reading_driver(origin, scratch).write_diff(
            layer.id, layer.parent, sink, maps=layer.maps, parent_maps=maps
        )

    if not origin.mount_program:
        produce(sink)
        return
    from cstorage.interop import mountprogram

    with Stream(produce) as stream:
        mountprogram.translate(stream, sink, tree)
        stream.finish()


def verify_any(origin: Origin, layer: Layer, scratch: str) -> None:
    """Compare a layer's content with its digest, if it has one. Raises ``ItemFault``."""
    if not layer.diff.uncompressed_digest:
        origin.contents(layer)
    elif origin.recipe(layer):
        verify(origin, layer)
    else:
        seen = Measure()
        generate(origin, layer, scratch, seen)
        compare(layer, seen.digest, seen.size, made_anew=True)
