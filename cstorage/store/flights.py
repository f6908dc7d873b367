"""Imports under way: of several that would do the same at the same time, one does it.

Rules of this module (why: decision 0050):

* Whoever is to make a layer of a given ID waits for the one who is making it, and then finds it in
  the store. Nothing of the source was read by then.
* Whoever is to unpack a file that somebody else is unpacking just now, onto the same parent with
  the same maps, waits for the result and copies the finished tree. "The same file" is proven, never
  believed: by size, first and last bytes before the wait, by SHA-256 of all of it after the wait.
  Digests that callers pass along count for nothing here.
* Only layers that nobody may write to are copied, and only if their importer trusted no digest.
* Nobody waits for a source that may stall: imports from pipes and sockets do not take part.
* One file per flight in the run directory, locked by who works. Before it lets go it removes the
  file, so that latecomers begin anew, and leaves in it, for those who waited, what it made. If it
  died or failed there is nothing in it, and the next in line does the work.

A store whose users have different run directories only loses the saving.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat

from journal.plain import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from types import TracebackType

    from cstorage.archive.compression import ByteSource
    from cstorage.archive.options import ApplyOptions
    from cstorage.model import Layer
    from cstorage.store.core import Core
    from cstorage.store.layers import LayerRequest

_ENDS = 1 << 16
_PIECE = 1 << 20
_RESULT_MAX = 1 << 10


class Flight:
    """One piece of work that only one at a time does. Entering waits for whoever does it now.

    ``result`` is what the one who was waited for left, "" if there was none or it failed.
    """

    def __init__(self, core: Core, *key: str) -> None:
        text = "\0".join((str(core.location.graph_root), *key))
        name = hashlib.sha256(os.fsencode(text)).hexdigest()
        self._folder = os.path.join(core.location.run_root, f"{core.driver.name}-imports")
        self._path = os.path.join(self._folder, name)
        self._fd = -1
        self._told = ""
        self.result = ""

    def __enter__(self) -> Flight:
        try:
            os.makedirs(self._folder, 0o700, exist_ok=True)
            self._wait()
        except OSError:
            pass  # without the file everybody works, as without this module
        return self

    def _wait(self) -> None:
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:
                    os.ftruncate(fd, 0)
                    self._fd, fd = fd, -1
                    return
                self.result = os.pread(fd, _RESULT_MAX, 0).decode("utf-8", "replace")
                if self.result:
                    return
            finally:
                if fd >= 0:
                    os.close(fd)

    def tell(self, result: str) -> None:
        """What those who wait are to know, if the block ends well."""
        self._told = result

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            if kind is None and self._told:
                os.pwrite(fd, self._told.encode(), 0)
            os.unlink(self._path)
        except OSError:
            pass  # the work is done; at worst those who wait do theirs
        finally:
            # Explicitly, because a forked child may share the open file description.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


class Repeatable(NamedTuple):
    """A source that can be read without being used up: the rest of a regular file."""

    fd: int
    start: int
    size: int

    def ends(self) -> str:
        """Size, first and last bytes, as one digest."""
        tail = max(self.start, self.start + self.size - _ENDS)
        digest = hashlib.sha256(b"%d\n" % self.size)
        digest.update(os.pread(self.fd, _ENDS, self.start))
        digest.update(os.pread(self.fd, _ENDS, tail))
        return digest.hexdigest()

    def digest(self) -> str:
        """SHA-256 of all of it."""
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_PIECE))
        at, end = self.start, self.start + self.size
        while at < end and (count := os.preadv(self.fd, [buffer[: min(_PIECE, end - at)]], at)):
            digest.update(buffer[:count])
            at += count
        return f"sha256:{digest.hexdigest()}"


def repeatable(source: ByteSource) -> Repeatable | None:
    """The source as one that can be read again, ``None`` if it is not one."""
    file: Any = source
    try:
        fd, start = file.fileno(), file.tell()
        info = os.fstat(fd)
    except (AttributeError, OSError, ValueError):
        return None
    if not stat.S_ISREG(info.st_mode) or start > info.st_size:
        return None
    return Repeatable(fd, start, info.st_size - start)


def may_share(request: LayerRequest, options: ApplyOptions | None) -> bool:
    """Whether an import is a plain one of a layer that nobody may write to."""
    from cstorage.archive.options import ApplyOptions

    plain = options is None or options._replace(progress=None) == ApplyOptions()
    return plain and not (request.writable or request.mount_label or request.template)


def finished(core: Core, id_: str, same: Repeatable, parent: str) -> Layer | None:
    """The layer that the one who was waited for made, if ``same`` is what it was made from."""
    layer = core.state.layer(id_)
    if layer is None or layer.writable or layer.parent != parent:
        return None
    diff = layer.diff
    if not (diff.recipe and diff.manifest) or diff.compressed_size != same.size:
        return None
    return layer if diff.compressed_digest == same.digest() else None
