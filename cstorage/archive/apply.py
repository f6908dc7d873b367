"""One pass over a layer archive: decode, hash, record, and build the tree, on several threads.

    source ─ decode ahead ─┬─ digests of the stream
                           └─ members: tree, recipe, manifest (caller's thread)

Rules of this module:

* The source is read to its end, so trailing bytes are part of the digests and of the recipe (§6.1).
* Every thread sees the same chunks, which nobody changes; memory is bounded by the queues.
* Nothing is decided by the order in which threads finish: recipe, manifest and summary depend on
  the archive alone (but for ``disk_size``: what directories need, the file system decides).
* On any error all threads are stopped and the error is raised; the caller discards the tree.
"""

from __future__ import annotations

import hashlib
import os

from cstorage.archive import header as tar
from cstorage.archive.builder import Builder
from cstorage.archive.compression import ByteSource, Decompressor
from cstorage.archive.extract import Extractor, write_all
from cstorage.archive.handover import SharingExtractor
from cstorage.archive.manifest import Hasher, ManifestWriter
from cstorage.archive.options import ApplyOptions, Limits, Progress
from cstorage.archive.reader import Member, TarReader, shown
from cstorage.archive.recipe import RecipeWriter, crc64
from cstorage.archive.threads import Consumer, Producer
from cstorage.errors import ArchiveLimitExceeded
from cstorage.model import Compression, DiffSummary, Digest
from journal.plain import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_CHUNK = 2 << 20  # decoded bytes handed around at a time
_AHEAD = 2 << 20  # received bytes decoded at a time
_DEPTH = 8  # chunks ahead: enough that a thread which the scheduler lets wait stops no other
_RATIO_FLOOR = 16 << 20
_HOLES_MAX = 4 << 30  # zeros hashed per archive; beyond, sparse files stay without digest
_SHA256 = "sha256:"


class _ContentStream:
    """Content on its way: to the file, its CRC (for the recipe) and its digest (manifest)."""

    def __init__(self, reader: TarReader, hasher: Hasher | None, *, crc: bool) -> None:
        self._reader = reader
        self._hasher = hasher
        self._with_crc = crc
        self._holes = _HOLES_MAX
        self.crc = 0
        self.digest = b""

    def __call__(self, fd: int, member: Member) -> None:
        """Write the member's content to ``fd`` (an ``Extractor``'s ``write_content``)."""
        if member.sparse is not None:
            self._sparse(fd, member)
            return
        view = self._reader.whole()
        if view is not None:
            write_all(fd, view)
            self._take(view)
            return
        running = self._hasher() if self._hasher is not None else None
        crc = 0
        for view in self._reader.views():
            write_all(fd, view)
            if self._with_crc:
                crc = crc64(view, crc)
            if running is not None:
                running.update(view)
        self.crc = crc
        if running is not None:
            self.digest = running.digest()

    def _take(self, view: memoryview) -> None:
        if self._with_crc:
            self.crc = crc64(view)
        if self._hasher is not None:
            self.digest = self._hasher(view).digest()

    def share(self, builder: Builder, size: int) -> int:
        """Leave ``size`` bytes to ``builder``: where it finds them; negative if it cannot."""
        reader = self._reader
        chunk, at = reader.chunk, reader.at
        if size > len(chunk) - at or (chunk is not builder.chunk and not builder.load(chunk)):
            return -1
        view = reader.whole()
        assert view is not None
        self._take(view)
        return builder.base + at

    def _sparse(self, fd: int, member: Member) -> None:
        """Holes stay holes on disk; the digest is that of the expanded content."""
        self._holes -= member.size - sum(length for _, length in member.sparse or ())
        hashed = self._hasher is not None and self._holes >= 0
        running = self._hasher() if hashed and self._hasher is not None else None
        zeros = memoryview(bytes(1 << 16))
        os.ftruncate(fd, member.size)
        end = 0
        for offset, length in [*(member.sparse or ()), (member.size, 0)]:
            hole = offset - end
            while hole and running is not None:
                piece = min(hole, len(zeros))
                running.update(zeros[:piece])
                hole -= piece
            os.lseek(fd, offset, os.SEEK_SET)
            for view in self._reader.views(length):
                write_all(fd, view)
                if running is not None:
                    running.update(view)
            end = offset + length
        self.digest = running.digest() if running is not None else b""


def apply_layer(
    source: ByteSource,
    root_fd: int,
    options: ApplyOptions,
    *,
    recipe: BinaryIO | None = None,
    manifest: BinaryIO | None = None,
    guards: Sequence[int] | None = None,
) -> DiffSummary:
    """Apply the archive in ``source`` (compressed or not) to the directory ``root_fd``.

    Writes the tar-split recipe to ``recipe`` and the per-file manifest to ``manifest`` if given.
    With ``guards`` a second process may make files of the tree (``builder``). It ends before this
    returns, or soon after this process died; until then it keeps these descriptors open, so that
    locks on them keep others from cleaning up.
    Returns what is recorded about the archive, ``recipe`` and ``manifest`` keys left empty.

    Raises ``ArchiveError`` and its subclasses for the archive's faults, ``OSError`` for the
    machine's. After an error the tree is in an undefined state.
    """
    run = _Run(source, root_fd, options, recipe, manifest, guards)
    try:
        return run.work()
    finally:
        run.close()


class _Run:
    def __init__(
        self,
        source: ByteSource,
        root_fd: int,
        options: ApplyOptions,
        recipe: BinaryIO | None,
        manifest: BinaryIO | None,
        guards: Sequence[int] | None,
    ) -> None:
        self._options = options
        self._limits: Limits = options.limits
        self._hash_raw = not options.original_digest.startswith(_SHA256)
        self._stages: list[Consumer | Producer] = []
        self._raw_hash = hashlib.sha256()
        self._hash = hashlib.sha256()
        self._digests = Consumer(self._digest, _DEPTH, "archive-digest")
        self._stages.append(self._digests)
        self._extractor: Extractor | None = None
        self._expanded = 0
        try:
            self._decoder = Decompressor(
                source, self._raw_digester() if self._hash_raw else None, ahead=_AHEAD
            )
            plain = self._decoder.compression == Compression.NONE
            self._hash_decoded = not plain and not options.uncompressed_digest.startswith(_SHA256)
            self._ahead = Producer(self._decode, _DEPTH, "archive-decode")
            self._stages.append(self._ahead)
            # Decoding has begun: what is imported from here on costs no time.
            self._recipe = RecipeWriter(recipe) if recipe is not None else None
            self._manifest = ManifestWriter(manifest) if manifest is not None else None
            self._empty = self._manifest.hasher().digest() if self._manifest is not None else b""
            self._reader = TarReader(self._next_chunk)
            self._content = _ContentStream(
                self._reader,
                self._manifest.hasher if self._manifest is not None else None,
                crc=self._recipe is not None,
            )
            if guards is None:
                self._extractor = Extractor(root_fd, options, self._content)
            else:
                share, builder = self._content.share, Builder(guards)
                self._extractor = SharingExtractor(root_fd, options, self._content, share, builder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for stage in reversed(self._stages):
            stage.close()
        if self._extractor is not None:
            self._extractor.close()
            self._extractor = None

    # -- stages --------------------------------------------------------------------------------

    def _raw_digester(self) -> Callable[[bytes], object]:
        """What the decoder shows its raw bytes to; it must not lead back to the decoder."""
        put, running = self._digests.put, self._raw_hash
        return lambda data: put((running, data))

    def _decode(self) -> bytes:
        data = self._decoder.read(_CHUNK)
        if data and self._hash_decoded:
            self._digests.put((self._hash, data))
        return data

    @staticmethod
    def _digest(item: tuple[Any, bytes]) -> None:
        item[0].update(item[1])

    def _next_chunk(self) -> bytes:
        chunk = self._ahead.next()
        if not chunk:
            return chunk
        limits = self._limits
        total = self._reader.consumed + len(chunk)
        if limits.max_bytes and total > limits.max_bytes:
            raise ArchiveLimitExceeded(
                f"the archive has more than {limits.max_bytes} bytes",
                hint="raise --max-bytes if this archive is trusted",
            )
        if limits.max_ratio and total > _RATIO_FLOOR:
            received = self._decoder.raw_size
            if total > received * limits.max_ratio:
                raise ArchiveLimitExceeded(
                    f"the archive expands more than {limits.max_ratio} times "
                    f"({received} bytes to {total} or more)",
                    hint="raise --max-ratio if this archive is trusted",
                )
        if self._options.progress is not None:
            entries = self._extractor.entries if self._extractor is not None else 0
            self._options.progress(Progress(self._decoder.raw_size, total, entries))
        return chunk

    # -- the pass ------------------------------------------------------------------------------

    def work(self) -> DiffSummary:
        extractor = self._extractor
        assert extractor is not None
        try:
            return self._pass(extractor)
        except Exception:
            extractor.settle()  # an earlier entry may have an error, which then is the first
            raise

    def _pass(self, extractor: Extractor) -> DiffSummary:
        uids: set[int] = set()
        gids: set[int] = set()
        reader, content, recipe, manifest = (
            self._reader,
            self._content,
            self._recipe,
            self._manifest,
        )
        empty = self._empty
        while (member := reader.next()) is not None:
            content.crc = 0
            content.digest = empty
            if member.sparse is not None:
                self._before_sparse(member, recipe)
            path, mark = extractor.add(member)
            if b".wh." not in member.name or not _base(member.name).startswith(b".wh."):
                uids.add(member.uid & 0xFFFFFFFF)
                gids.add(member.gid & 0xFFFFFFFF)
            if recipe is not None and member.sparse is None:
                self._record(member, mark, recipe)
            if manifest is not None and mark >= 0:
                regular = member.type == tar.REGTYPE and not mark
                manifest.add((
                    mark, path, member.type, member.mode & 0o7777, member.uid, member.gid,
                    member.size if regular else 0, member.mtime_ns,
                    member.linkname, member.devmajor, member.devminor, member.xattrs or (),
                    content.digest if regular else b"",
                ))  # fmt: skip
                if regular and recipe is not None:
                    name = member.name
                    above = name[: name.rfind(b"/") + 1]
                    if reader.precedes(above) and name in (path, b"./" + path):
                        extractor.follow(path, self._alike(member, above, recipe, manifest))
        first = True
        for piece in reader.trailer():
            if recipe is not None and (piece or first):
                recipe.segment(piece)
            first = False
        size = extractor.finish()
        self._digests.finish()
        if recipe is not None:
            recipe.close()
        if manifest is not None:
            manifest.close()
        return self._summary(uids, gids, extractor.entries, size, extractor.disk_size)

    def _alike(
        self, first: Member, above: bytes, recipe: RecipeWriter, manifest: ManifestWriter
    ) -> Iterator[tuple[Member, bytes, memoryview, int]]:
        """What ``Extractor.follow`` asks for; of each one it made, the records are written.

        All are the object ``first``: to make another one for each costs a fifth of the work.
        """
        reader, hasher, empty = self._reader, manifest.hasher, self._empty
        chunk = reader.chunk
        view = memoryview(chunk)
        begin = len(above)
        clean = 2 if above.startswith(b"./") else 0
        begun = False
        for name, size, mtime, start, at in reader.alike(first):
            if not name.startswith(above):
                return
            if not begun:
                begun = True
                recipe.begin_alike(chunk[at : at + tar.BLOCK])
                manifest.begin_alike(first.mode & 0o7777, first.uid, first.gid)
            first.name, first.size, first.mtime_ns = name, size, mtime
            place = at + tar.BLOCK
            content = view[place : place + size]
            yield first, name[begin:], content, place
            crc = 0
            digest = empty
            if size:
                crc = crc64(content)
                digest = hasher(content).digest()
            recipe.alike(chunk, start, at, name, size, crc)
            manifest.alike(name[clean:], size, mtime, digest)

    def _record(self, member: Member, mark: int, recipe: RecipeWriter) -> None:
        """The recipe's entry for a member; content that is not on disk goes into the recipe."""
        stored = member.stored
        on_disk = mark == 0 and member.type == tar.REGTYPE
        crc = self._content.crc
        recipe.member(member.segment, member.name, stored if on_disk else 0, crc)
        if stored and not on_disk:
            for view in self._reader.views():
                recipe.segment(view)

    def _before_sparse(self, member: Member, recipe: RecipeWriter | None) -> None:
        """A sparse member: its compact content goes into the recipe while it is being read."""
        self._expanded += member.size
        if self._limits.max_bytes and self._expanded > self._limits.max_bytes:
            raise ArchiveLimitExceeded(
                f"{shown(member.name)}: sparse files of more than {self._limits.max_bytes} bytes"
            )
        if recipe is not None:
            recipe.member(member.segment, member.name, 0, 0)
            if member.sparse_map:
                recipe.segment(member.sparse_map)
            self._reader.tap(recipe.segment)

    def _summary(
        self, uids: set[int], gids: set[int], entries: int, content_size: int, disk_size: int = 0
    ) -> DiffSummary:
        """Semantics §2.9: trusted digests and sizes, else what was computed."""
        options = self._options
        compression = self._decoder.compression
        compressed = (
            _SHA256 + self._raw_hash.hexdigest() if self._hash_raw else options.original_digest
        )
        if options.uncompressed_digest.startswith(_SHA256):
            uncompressed = options.uncompressed_digest
        elif compression == Compression.NONE:
            uncompressed = compressed
        else:
            uncompressed = _SHA256 + self._hash.hexdigest()
        given = options.original_digest and options.original_size is not None
        return DiffSummary(
            compressed_digest=Digest(compressed),
            compressed_size=(options.original_size or 0) if given else self._decoder.raw_size,
            uncompressed_digest=Digest(uncompressed),
            uncompressed_size=self._reader.consumed,
            compression=compression,
            uids=tuple(sorted(uids)),
            gids=tuple(sorted(gids)),
            entries=entries,
            content_size=content_size,
            disk_size=disk_size,
        )


def _base(name: bytes) -> bytes:
    return name.rstrip(b"/").rpartition(b"/")[2]


__all__ = ["ApplyOptions", "Limits", "Progress", "apply_layer"]
