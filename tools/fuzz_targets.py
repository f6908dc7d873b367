"""What ``tools/fuzz`` feeds with bytes: one target per reader of bytes that others wrote.

Rules of this module:

* A target is a function of bytes. It returns, or raises one of the errors that its reader
  documents; ``check`` turns everything else into ``Finding``: another error, more than a second
  of processor time, more than 100 MiB of memory, a change outside the layer, bytes that come back
  wrong.
* Checksums are made right (or taken for right) when the input asks for it, because chance never
  makes them right and everything behind them would stay unseen.
* Seeds are the archives of the tests, hostile ones included, and small records of other formats.
* Everything is imported at the top: ``tools/fuzz`` instruments what is imported with this module.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import importlib
import io
import lzma
import os
import shutil
import sys
import tarfile
import tempfile
import time
import tomllib  # noqa: F401 - instrumented
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cbor2

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from cstorage import config  # noqa: E402 - found through the line above
from cstorage.archive import header as tar  # noqa: E402
from cstorage.archive import writer  # noqa: E402
from cstorage.archive.apply import ApplyOptions, Limits, apply_layer  # noqa: E402
from cstorage.archive.beneath import Payloads, remove_in  # noqa: E402
from cstorage.archive.compression import Decompressor, compressing  # noqa: E402
from cstorage.archive.manifest import ManifestWriter, read_manifest  # noqa: E402
from cstorage.archive.reader import TarReader  # noqa: E402
from cstorage.archive.recipe import RecipeWriter, assemble, crc64, read_recipe  # noqa: E402
from cstorage.archive.whiteouts import WhiteoutFormat  # noqa: E402
from cstorage.errors import ArchiveError, ConfigError, ContentChanged, StorageError  # noqa: E402
from cstorage.events import codec as events  # noqa: E402
from cstorage.interop import records  # noqa: E402
from cstorage.model import Compression, IDMapEntry, IDMaps  # noqa: E402
from journal import checksum, frame, snapshot, snapshot_writer  # noqa: E402
from journal.codec import decode, encode  # noqa: E402
from journal.errors import JournalError  # noqa: E402
from journal.fs import OsFs  # noqa: E402
from journal.position import Position  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS_MAX = 1.0
MEMORY_MAX = 100 << 20
_OUTPUT_MAX = 8 << 20  # decoded bytes looked at per input
_SEED_MAX = 1 << 16

# What the machine, and not the archive, is to blame for: memory file systems have their limits.
_MACHINE = {errno.ENOSPC, errno.ENOMEM, errno.ENOTSUP, errno.EPERM, errno.EDQUOT}


class Finding(Exception):
    """An input that shows a defect; the text says which rule it broke."""


class Target(NamedTuple):
    """One reader: what to call, which errors it documents, where to begin, tokens of its format."""

    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]
    tokens: tuple[bytes, ...] = ()
    length_max: int = 1 << 14


def check(target: Target, data: bytes) -> None:
    """Run one input. Raises ``Finding`` (or the undocumented error itself, with its traceback)."""
    _forget_peak()
    before = _memory("VmRSS")
    start = time.process_time()
    try:
        target.run(data)
    except target.errors:
        pass
    except OSError as error:
        if error.errno not in _MACHINE:
            raise
    spent = time.process_time() - start
    if spent > SECONDS_MAX:
        raise Finding(f"{spent:.1f} s of processor time for {len(data)} bytes")
    grown = _memory("VmHWM") - before
    if grown > MEMORY_MAX:
        raise Finding(f"{grown >> 20} MiB of memory for {len(data)} bytes")


def _forget_peak() -> None:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:  # the peak of the whole run is looked at instead
        pass


def _memory(key: str) -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(key):
                return int(line.split()[1]) << 10
    return 0


def folder_on_memory() -> str:
    """A fresh folder on a memory file system where there is one."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.mkdtemp(prefix="fuzz-", dir=os.environ.get("FUZZ_FOLDER", base))


# -- archives --------------------------------------------------------------------------------------


class _World:
    """A layer with lower content, beside it things that must never change."""

    def __init__(self) -> None:
        self.path = folder_on_memory()
        self.root = os.path.join(self.path, "layer")
        self.outside = [os.path.join(self.path, name) for name in ("folder", "folder/f", "secret")]
        os.mkdir(self.outside[0])
        for name in self.outside[1:]:
            with open(name, "w") as file:
                file.write("host")
        self.fill()
        self.before = self.state()

    def fill(self) -> None:
        os.mkdir(self.root)
        for name in ("d", "d/e", "lower"):
            os.mkdir(os.path.join(self.root, name))
        for name in ("f", "d/f", "d/e/f", "lower/f"):
            with open(os.path.join(self.root, name), "w") as file:
                file.write("lower")
        os.symlink("..", os.path.join(self.root, "up"))
        os.symlink(self.outside[2], os.path.join(self.root, "out"))
        os.symlink(self.outside[0], os.path.join(self.root, "d", "out"))

    def state(self) -> list[Any]:
        found: list[Any] = [sorted(os.listdir(self.path)), os.listdir(self.outside[0])]
        for name in self.outside:
            info = os.lstat(name)
            found.append(
                (info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_size,
                 info.st_mtime_ns, info.st_ino)
            )  # fmt: skip
        return found

    def renew(self) -> None:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            remove_in(fd, b"layer")
        finally:
            os.close(fd)
        self.fill()
        if self.state() != self.before:
            raise Finding("something outside the layer changed")


_world: _World | None = None
_MAPS = (IDMaps(), IDMaps((IDMapEntry(0, 100_000, 65_536),), (IDMapEntry(0, 100_000, 65_536),)))
_checksum_agrees = tar._checksum_agrees


def _any_checksum(_block: bytes, _stored: int) -> bool:
    return True


def _options(flags: int) -> ApplyOptions:
    return ApplyOptions(
        whiteouts=WhiteoutFormat.REMOVE if flags & 1 else WhiteoutFormat.OVERLAY,
        maps=_MAPS[flags >> 2 & 1],
        in_userns=bool(flags & 8),
        force_mask=0o755 if flags & 16 else None,
        limits=Limits(max_bytes=1 << 24, max_entries=1000, max_ratio=0 if flags & 32 else 1000),
    )


def archive(data: bytes) -> None:
    """An import and an export. First byte: options; bit 1: header checksums count."""
    global _world  # noqa: PLW0603 - made once, for a folder per input would cost most of the time
    if _world is None:
        _world = _World()
    flags, data = data[0] if data else 0, data[1:]
    agrees: Any = _checksum_agrees if flags & 2 else _any_checksum
    tar._checksum_agrees = agrees
    root = os.open(_world.root, os.O_RDONLY)
    recipe, manifest, again = io.BytesIO(), io.BytesIO(), io.BytesIO()
    try:
        apply_layer(io.BytesIO(data), root, _options(flags), recipe=recipe, manifest=manifest)
        for stream in (recipe, manifest):
            stream.seek(0)
        for _ in read_manifest(manifest):
            pass
        try:
            with Payloads([root]) as payloads:
                assemble(recipe, payloads.open, again)
        except ContentChanged:
            return  # a later member replaced an earlier one's content: said, not silently wrong
        decoder = Decompressor(io.BytesIO(data))
        plain = b"".join(iter(lambda: decoder.read(1 << 20), b""))
        if again.getvalue() != plain:
            raise Finding("the export differs from the archive")
    finally:
        os.close(root)
        tar._checksum_agrees = _checksum_agrees
        _world.renew()


def _test_module(name: str) -> Any:
    """A file of the archive tests, for the archives in it."""
    return importlib.import_module(f"tests.archive.{name}")


def plain_archives() -> list[bytes]:
    """The tests' archives, hostile ones first, and one of each dialect Python can write."""
    scene = _test_module("conftest").Scene
    found = [
        bytes(build(scene(), "/outside"))
        for _, build, *_ in _test_module("test_archive_hostile").ROWS
    ]
    found += _test_module("test_archive_sparse").ARCHIVES.values()
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=kind) as made:
            for name in ("a", "d/" + "n" * 90, "ü"):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = 5, 1
                made.addfile(info, io.BytesIO(b"hello"))
        found.append(out.getvalue())
    return [data for data in found if len(data) < _SEED_MAX]


def _archive_seeds() -> list[bytes]:
    plain = plain_archives()
    found = [bytes([flags]) + data for data in plain for flags in (0, 1)]
    return found + [b"\0" + _packed(plain[0], kind) for kind in Compression]


def _packed(data: bytes, compression: Compression) -> bytes:
    out = io.BytesIO()
    with compressing(out, compression, threads=1) as sink:
        sink.write(data)
    return out.getvalue()


_TAR_TOKENS = (
    b"ustar\x0000", b"ustar  \0", b"././@LongLink", b".wh.", b".wh..wh..opq", b"../", b"path=",
    b"linkpath=", b"size=", b"SCHILY.xattr.user.a=", b"SCHILY.xattr.trusted.overlay.opaque=y",
    b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=", b"GNU.sparse.map=0,5",
    b"GNU.sparse.numblocks=1", b"GNU.sparse.offset=0", b"GNU.sparse.numbytes=5", b"0000644\0",
    b"00000000005\0", b"\x80\0\0\0\0\0\0\0\0\0\0\1",
)  # fmt: skip

# -- decompressors ---------------------------------------------------------------------------------

_REFERENCES: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: gzip.decompress,
    Compression.BZIP2: bz2.decompress,
    Compression.XZ: lzma.decompress,
}


def compressed(data: bytes) -> None:
    """A stream; what it decodes to is what Python's own module decodes it to."""
    stream = Decompressor(io.BytesIO(data))
    out = io.BytesIO()
    while piece := stream.read(1 << 16):
        if len(piece) > 1 << 16:
            raise Finding("more decoded bytes than asked for")
        out.write(piece)
        if out.tell() > _OUTPUT_MAX:
            return
    reference = _REFERENCES.get(stream.compression)
    if reference is None:
        return
    try:
        expected = reference(data)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise Finding(f"taken for whole; Python's module says: {error}") from error
    if expected != out.getvalue():
        raise Finding("decoded to other bytes than Python's module decodes to")


def _compressed_seeds() -> list[bytes]:
    plain = b"hello" * 20 + bytes(3000)
    found = []
    for kind in Compression:
        one = _packed(plain, kind)
        found += [one, one + one, one[:-3]]
    frame_ = _packed(plain, Compression.ZSTD)
    return [*found, frame_ + b"\x50\x2a\x4d\x18\x02\0\0\0xx" + frame_]


# -- recipe, manifest, pax -------------------------------------------------------------------------


def recipe(data: bytes) -> None:
    """The text of a recipe. First byte: whether it is compressed already."""
    packed = data[1:] if data[:1] == b"\1" else gzip.compress(data[1:], 1)

    def payload(name: bytes) -> int:
        with Payloads([root]) as payloads:
            return payloads.open(name)

    root = os.open(_recipe_root(), os.O_RDONLY)
    try:
        assemble(io.BytesIO(packed), payload, io.BytesIO())
        for _ in read_recipe(io.BytesIO(packed)):
            pass
    finally:
        os.close(root)


_recipe_folder = ""


def _recipe_root() -> str:
    global _recipe_folder  # noqa: PLW0603 - made once
    if not _recipe_folder:
        _recipe_folder = folder_on_memory()
        os.mkdir(os.path.join(_recipe_folder, "d"))
        for name in ("f", "d/f"):
            with open(os.path.join(_recipe_folder, name), "w") as file:
                file.write("hello")
        os.symlink("/", os.path.join(_recipe_folder, "l"))
        os.mkfifo(os.path.join(_recipe_folder, "p"))
    return _recipe_folder


def _recipe_seeds() -> list[bytes]:
    out = io.BytesIO()
    made = RecipeWriter(out)
    made.segment(bytes(512))
    for name in (b"f", b"d/f", b"l/f", b"\xff", b"p", b"a<b"):
        made.file(name, 5, crc64(b"hello"))
    made.file(b"empty")
    made.close()
    return [b"\0" + gzip.decompress(out.getvalue()), b"\1" + out.getvalue()]


def manifest(data: bytes) -> None:
    """A manifest: the items of its sequence, or (first byte 1) the compressed stream itself."""
    packed = data[1:] if data[:1] == b"\1" else _packed(data[1:], Compression.ZSTD)
    for entry in read_manifest(io.BytesIO(packed)):
        if type(entry.path) is not bytes or type(entry.size) is not int:
            raise Finding(f"a record that is none: {entry!r}")


def _manifest_seeds() -> list[bytes]:
    out = io.BytesIO()
    made = ManifestWriter(out)
    made.add((0, b"d/f", 0x30, 0o644, 0, 0, 5, 10**18, b"", 0, 0, (("user.a", b"1"),), bytes(32)))
    made.add((1, b"gone", 0x30, 0, 0, 0, 0, 0, b"", 0, 0, (), b""))
    made.close()
    stream = Decompressor(io.BytesIO(out.getvalue()))
    return [b"\0" + stream.read(1 << 16), b"\1" + out.getvalue()]


def pax(data: bytes) -> None:
    """The records of an extended header, by themselves and in front of a member."""
    for keyword, value in tar.parse_records(data):
        if not keyword or "=" in keyword or type(value) is not bytes:
            raise Finding(f"a record that is none: {keyword!r}")
    made = b"".join((
        writer._extended_block(b"x", len(data)), data, writer.padding(len(data)),
        writer.encode(writer.Entry(b"x", tar.REGTYPE, size=512)), bytes(512), writer.END,
    ))  # fmt: skip
    chunks = iter([made])
    reader = TarReader(lambda: next(chunks, b""))
    while reader.next() is not None:
        pass


def _pax_seeds() -> list[bytes]:
    rows: list[list[tuple[bytes, bytes]]] = [
        [(b"path", b"a/b"), (b"mtime", b"1.5"), (b"SCHILY.xattr.user.a", b"\0\n=")],
        [(b"size", b"512"), (b"uid", b"-1"), (b"gid", b"4294967295"), (b"linkpath", b"x")],
        [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
         (b"GNU.sparse.realsize", b"9"), (b"GNU.sparse.name", b"n")],
        [(b"GNU.sparse.size", b"600"), (b"GNU.sparse.numblocks", b"1"),
         (b"GNU.sparse.map", b"0,512")],
        [(b"GNU.sparse.size", b"600"), (b"GNU.sparse.numblocks", b"1"),
         (b"GNU.sparse.offset", b"0"), (b"GNU.sparse.numbytes", b"512")],
    ]  # fmt: skip
    return [b"".join(writer._record(*pair) for pair in row) for row in rows]


# -- configuration, interop ------------------------------------------------------------------------

_file = ""


def _as_file(data: bytes) -> str:
    global _file  # noqa: PLW0603 - one file, written anew for each input
    if not _file:
        _file = os.path.join(folder_on_memory(), "file")
    with open(_file, "wb") as out:
        out.write(data)
    return _file


def conf(data: bytes) -> None:
    """A storage.conf and the options it comes to."""
    merged = config._Merged()
    path = _as_file(data)
    merged.add(config.read(path), path)
    options = config.options_from(merged, config.Surroundings({"HOME": "/h"}, 0))
    config.to_json(options)


def _conf_seeds() -> list[bytes]:
    return [
        b'[storage]\ndriver = "overlay"\ngraphroot = "/g"\nrunroot = "/r"\n'
        b'driver_priority = ["overlay", {append=true}]\ntransient_store = true\n'
        b'[storage.options]\nadditionalimagestores = ["/a", {append=true}]\nsize = ""\n'
        b'force_mask = 448\npull_options = {enable_partial_images = "true", x = "y"}\n'
        b'[storage.options.overlay]\nmountopt = "nodev,metacopy=on"\n[storage.options.vfs]\n'
        b'ignore_chown_errors = "true"\n[storage.options.thinpool]\nx = 1\n',
        b'storage = {driver = "vfs", options = {auto-userns-min-size = 5}}\n',
    ]


def interop(data: bytes) -> None:
    """layers.json, images.json, containers.json of another tool."""
    path = Path(_as_file(data))
    for read in (records.layers, records.images, records.containers):
        try:
            for _ in read(path):
                pass
        except records.ForeignDataError:
            continue


def _interop_seeds() -> list[bytes]:
    digest = b"sha256:" + b"0" * 64
    return [
        b'[{"id":"a","names":["n"],"parent":"b","created":"2024-01-02T03:04:05.6+01:00",'
        b'"compressed-diff-digest":"%s","compressed-size":5,"diff-digest":"%s","diff-size":9,'
        b'"compression":2,"uidset":[0,1],"gidset":[0],"uidmap":[{"container_id":0,"host_id":1,'
        b'"size":5}],"flags":{"x":true},"big-data-names":["k"]}]' % (digest, digest),
        b'[{"id":"a","digest":"%s","layer":"l","mapped-layers":["m"],"names-history":["n"],'
        b'"big-data-names":["manifest"],"big-data-sizes":{"manifest":5},'
        b'"big-data-digests":{"manifest":"%s"}}]' % (digest, digest),
        b'[{"id":"c","image":"i","layer":"l","metadata":"{}","created":"0001-01-01T00:00:00Z"}]',
        b"null",
    ]


# -- journal ---------------------------------------------------------------------------------------

_EXTEND = checksum.extender(checksum.preferred())
_SEED = 0x12345678
_LINK = bytes(range(32))


def frames(data: bytes) -> None:
    """A segment's bytes; with the first byte 1 made of right frames around the input's bodies."""
    buffer = _built(data[1:]) if data[:1] == b"\1" else data[1:]
    out: list[frame.Frame] = []
    run = frame.parse(buffer, 128, 1, _SEED, _EXTEND, 0, _LINK, out)
    frame.search(buffer, 128, run.offset - 128, seed=_SEED, extend=_EXTEND)
    for found in out:
        _ = found.end
        if found.kind == frame.DATA:
            for event in found.transaction().events:
                try:
                    events.decode(event)
                except StorageError:
                    continue


def _built(data: bytes) -> bytes:
    """Frames of the form: kind, flags, count, length (two bytes), body."""
    made = b""
    link, sequence = _LINK, 1
    at = 0
    while at + 5 <= len(data):
        kind, flags, count = data[at] % 10, data[at + 1], data[at + 2] % 4
        length = int.from_bytes(data[at + 3 : at + 5], "little") % 2048
        body = data[at + 5 : at + 5 + length]
        at += 5 + length
        raw, link = frame.build(
            _EXTEND, _SEED, 128 + len(made), link, kind=kind, first_sequence=sequence,
            count=count if kind != frame.DATA else count or 1, promise=0, time_ns=1, body=body,
            flags=flags,
        )  # fmt: skip
        sequence += count if kind != frame.DATA else count or 1
        made += raw
    return made


def _frame_seeds() -> list[bytes]:
    bodies = [
        (frame.OPEN, 0, encode([1, "actor"])),
        (frame.DATA, 1, encode([1, ["a", 1], bytes(16), "why", [[45, "layer", "x", "{}"]]])),
        (frame.SNAPSHOT_REF, 0, encode(["s", 1, bytes(32)])),
        (frame.GAP, 0, encode([2, 5, "lost", bytes(32), None])),
        (frame.SEAL, 0, encode([1, 2, 3, 4, bytes(32)])),
    ]
    plan = b"".join(
        bytes([kind, 0, count]) + len(body).to_bytes(2, "little") + body
        for kind, count, body in bodies
    )
    singles = [
        b"\1" + bytes([kind, 0, count]) + len(body).to_bytes(2, "little") + body
        for kind, count, body in bodies
    ]
    return [b"\1" + plan, b"\0" + _built(plan), *singles]


def snapshots(data: bytes) -> None:
    """A snapshot file; with the first byte 1 its checksums are made right."""
    body = _resealed(data[1:]) if data[:1] == b"\1" else data[1:]
    with snapshot.Snapshot(OsFs(), _as_file(body)) as found:
        found.prove_all()
        for key in (b"k0", b"none"):
            found.get(key)
        for reverse in (False, True):
            for _ in found.scan(b"k", reverse=reverse):
                pass


def _resealed(data: bytes) -> bytes:
    """The same with checksums that fit, so that what lies behind them is reached."""
    from hashlib import sha256

    data = data[: -snapshot.FOOTER.size]
    at = len(data) - 4 * -(-len(data) // (snapshot.BLOCK + 4))
    if at < snapshot.HEADER_SIZE:
        return data
    fields = list(snapshot.HEADER.unpack_from(data))
    fields[0], fields[1], fields[3] = snapshot.MAGIC, snapshot.VERSION, snapshot.BLOCK
    fields[19] = at
    try:
        extend = checksum.extender(fields[2] or checksum.CRC32C)
    except JournalError:
        return data
    head = snapshot.HEADER.pack(*fields)
    body = bytearray(head + data[len(head) : at])

    def seal(start: int, stop: int) -> None:
        body[start : start + 4] = extend(0, bytes(body[start + 4 : stop])).to_bytes(4, "little")

    offsets, buckets, filters, meta = (min(part, at) for part in fields[15:19])
    record = snapshot.HEADER_SIZE
    while record + snapshot.RECORD.size <= offsets:
        _, _, key, value = snapshot.RECORD.unpack_from(body, record)
        stop = record + snapshot.RECORD.size + key + value
        seal(record, stop)
        record = stop
    for part, end, size in (
        (buckets, filters, snapshot.BUCKET), (filters, meta, snapshot.FILTER),
    ):  # fmt: skip
        for start in range(part, end - size + 1, size):
            seal(start, start + size)
    sums = b"".join(
        extend(0, bytes(body[n : n + snapshot.BLOCK])).to_bytes(4, "little")
        for n in range(0, at, snapshot.BLOCK)
    )
    size = at + len(sums) + snapshot.FOOTER.size
    raw = bytes(body[: snapshot.HEADER_SIZE] + body[meta:]) + sums + size.to_bytes(8, "little")
    return bytes(body) + sums + snapshot.FOOTER.pack(at, size, sha256(raw).digest(), snapshot.END)


def _snapshot_seeds() -> list[bytes]:
    from journal.digest import StateDigest

    items = [(b"k%d" % n, b"v" * n) for n in range(5)]
    digest = StateDigest()
    for key, value in items:
        digest.add(key, value)
    path = _as_file(b"")
    snapshot_writer.write(
        OsFs(), path, items, uuid=bytes(16), position=Position(1, 128, 0, bytes(32)), schema=1,
        reducer_version=1, digest=digest.value(), time_ns=1, meta={"a": 1},
    )  # fmt: skip
    data = Path(path).read_bytes()
    return [b"\0" + data, b"\1" + data]


def cbor(data: bytes) -> None:
    """A record of a journal: what decodes is what encodes again, and an event or refused."""
    value = decode(data)
    try:
        again = encode(value)
    except JournalError:
        again = b""
    if again and decode(again) != value:
        raise Finding("a record that changes when it is encoded again")
    if isinstance(value, list):
        events.decode(value)


def _cbor_seeds() -> list[bytes]:
    rows: list[Any] = [
        [45, "layer", "x", {"a": True}], [40, "image", "i", ["n"]], [12, "l"],
        [10, "l", "", [], "", "", {}, [[], []], [], 1], {"a": [None, -1, b"b"]},
    ]  # fmt: skip
    return [cbor2.dumps(row, canonical=True) for row in rows]


TARGETS: dict[str, Target] = {
    "archive": Target(archive, (ArchiveError,), _archive_seeds, _TAR_TOKENS, _SEED_MAX),
    "compressed": Target(compressed, (ArchiveError,), _compressed_seeds),
    "recipe": Target(recipe, (ArchiveError,), _recipe_seeds,
                     (b'{"type":1,"name":"', b'"size":', b'"payload":null', b"name_raw")),
    "manifest": Target(manifest, (ArchiveError,), _manifest_seeds),
    "pax": Target(pax, (ArchiveError,), _pax_seeds, _TAR_TOKENS, 2048),
    "conf": Target(conf, (ConfigError,), _conf_seeds,
                   (b"[storage.options]", b"{append=true}", b'"""', b"[[", b"inf")),
    "interop": Target(interop, (StorageError,), _interop_seeds),
    "frames": Target(frames, (JournalError,), _frame_seeds, (b"JFR1",)),
    "snapshots": Target(snapshots, (JournalError,), _snapshot_seeds, (), 1 << 16),
    "cbor": Target(cbor, (JournalError, StorageError), _cbor_seeds, (), 2048),
}  # fmt: skip


def tidy() -> None:
    """Remove the folders that targets made."""
    for path in (_world.path if _world else "", _recipe_folder, os.path.dirname(_file)):
        if path:
            shutil.rmtree(path, ignore_errors=True)
