"""A segment file: its name and its 128-byte header (journal format, section 2).

Rules of this module:

* A name is the segment's number, ten digits, ``.seg``; numbers have no holes. (A first sequence
  number would not be unique: control frames take none. docs/decisions/0010.)
* Unknown incompatible bits forbid reading; unknown bits of either kind forbid writing.
* The header's checksum is the seed of every frame checksum in the file.
* Anything else in the folder is not a segment and is never opened by a reader.
"""

from __future__ import annotations

from struct import Struct

from journal import checksum
from journal.checksum import sha256
from journal.errors import UnsupportedFormat
from journal.plain import TYPE_CHECKING, NamedTuple
from journal.position import Position

if TYPE_CHECKING:
    from journal.fs import Fs

MAGIC = b"JRNLSEG\x01"
VERSION = 1
HEADER = Struct("<8sHHBBHII16sQQQ32sQ16sI")
HEADER_SIZE = 128
SUFFIX = ".seg"
FOLDER = "segments"


class SegmentHeader(NamedTuple):
    """The decoded header. ``previous`` is the link of the last frame of the segment before."""

    uuid: bytes
    number: int
    first_sequence: int
    epoch: int
    previous: bytes
    time_ns: int
    boot_id: bytes
    algorithm: int
    seed: int
    compat: int = 0
    incompat: int = 0

    @property
    def start(self) -> Position:
        """The place of the first frame."""
        return Position(self.number, HEADER_SIZE, self.first_sequence - 1, self.previous)


def genesis(uuid: bytes) -> bytes:
    """The link before the first frame of a journal."""
    link: bytes = sha256(b"journal genesis\n" + uuid).digest()
    return link


def name(number: int) -> str:
    return f"{number:010d}{SUFFIX}"


def number_of(entry: str) -> int:
    """Number of a segment file name, 0 if it is not one."""
    if len(entry) == 14 and entry.endswith(SUFFIX) and entry[:10].isdigit() and entry.isascii():
        return int(entry[:10])
    return 0


def exists(fs: Fs, root: str, number: int) -> bool:
    """Whether the live segment ``number`` of the journal at ``root`` is there."""
    try:
        fs.stat(f"{root}/{FOLDER}/{name(number)}")
    except FileNotFoundError:
        return False
    return True


def listing(fs: Fs, folder: str) -> list[int]:
    """Numbers of the segment files in ``folder``, ascending."""
    return sorted(number for entry in fs.listdir(folder) if (number := number_of(entry)))


def listing_archive(fs: Fs, folder: str) -> list[int]:
    """Numbers of the compressed segments in the archive ``folder``, ascending."""
    try:
        entries = fs.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(
        number for entry in entries if entry.endswith(".zst") and (number := number_of(entry[:-4]))
    )


def build(
    *,
    uuid: bytes,
    number: int,
    first_sequence: int,
    epoch: int,
    previous: bytes,
    time_ns: int,
    boot_id: bytes,
    algorithm: int,
) -> bytes:
    """The 128 bytes of a header."""
    raw = HEADER.pack(
        MAGIC, VERSION, HEADER_SIZE, algorithm, checksum.SHA256, 0, 0, 0, uuid, number,
        first_sequence, epoch, previous, time_ns, boot_id, 0,
    )  # fmt: skip
    raw += bytes(HEADER_SIZE - len(raw) - 4)
    return raw + checksum.extender(algorithm)(0, raw).to_bytes(4, "little")


def parse(raw: bytes) -> SegmentHeader | None:
    """The header, or None if the bytes are not a valid one.

    ``UnsupportedFormat`` if they are valid but of a version or with a feature not known here.
    """
    if len(raw) < HEADER_SIZE or raw[:7] != MAGIC[:7]:
        return None
    (
        magic, version, size, algorithm, hashing, _, compat, incompat, uuid, number, first, epoch,
        previous, time_ns, boot_id, _,
    ) = HEADER.unpack_from(raw)  # fmt: skip
    crc = int.from_bytes(raw[HEADER_SIZE - 4 : HEADER_SIZE], "little")
    for candidate in (algorithm, checksum.CRC32C, checksum.CRC32):
        try:
            right = checksum.extender(candidate)(0, raw[: HEADER_SIZE - 4]) == crc
        except UnsupportedFormat:
            continue
        if right:
            break
    else:
        return None
    if (
        magic != MAGIC
        or version != VERSION
        or size != HEADER_SIZE
        or candidate != algorithm
        or hashing != checksum.SHA256
        or incompat
    ):
        raise UnsupportedFormat(
            f"segment {number}: format version {version}, features {incompat:#x}, checksum "
            f"{algorithm}, chain {hashing} need a newer version"
        )
    return SegmentHeader(
        uuid, number, first, epoch, previous, time_ns, boot_id, algorithm, crc, compat, incompat
    )
