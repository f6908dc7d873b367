"""Sealing the last segment and beginning the next one (journal format, section 2: R1 to R4).

Rules of this module:

* A segment with a successor is durable as a whole, whatever the durability of commits is.
* The successor gets its name when its header is on the disk; a crash before that leaves a sealed
  log, which the next writer continues with a successor.
"""

from __future__ import annotations

import errno

from journal import frame as fr
from journal import segment as sg
from journal.errors import WriterPoisoned
from journal.fs import FULL, O_RDWR, publish
from journal.plain import TYPE_CHECKING
from journal.request import Request

if TYPE_CHECKING:
    from journal.tail import Tail


_WANTING = FULL | {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors that say nothing about the disk's content."""


def make_room(tail: Tail, frames: list[Request], segment_bytes: int) -> None:
    """Rotate if the log ends with a seal, or if the frames would make the segment too large."""
    cursor = tail.cursor
    assert cursor is not None
    if cursor.sealed:
        _succeed(tail)
        return
    room = segment_bytes - cursor.offset
    for request in frames:
        room -= fr.OVERHEAD + (len(request.body) + 7 & -8)
    if room < 0 and cursor.sequence >= cursor.header.first_sequence:
        rotate(tail)


def rotate(tail: Tail) -> None:
    """Seal the last segment and begin the next one."""
    from journal.merkle import seal_body

    cursor = tail.cursor
    assert cursor is not None
    body = seal_body(tail.fs, tail.root, tail.uuid, cursor.position)
    torn, tail.torn = tail.torn, True
    tail.surely([Request(fr.SEAL, body, 0)])  # R1
    cursor.sealed = True
    try:
        tail.fs.chmod(f"{tail.root}/{sg.FOLDER}/{sg.name(cursor.header.number)}", 0o444)
    except OSError:
        pass  # the mode is a courtesy; the seal is what counts
    _succeed(tail)
    tail.torn = torn


def _taken_back(tail: Tail, number: int) -> bool:
    """Whether no successor is there any more. It may have got its name but not the sync of its
    folder, for which a descriptor is needed; nothing is in it yet."""
    try:
        tail.fs.unlink(f"{tail.root}/{sg.FOLDER}/{sg.name(number)}")
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def _succeed(tail: Tail) -> None:
    """Create and enter the successor of a sealed segment."""
    cursor = tail.cursor
    assert cursor is not None
    number = cursor.header.number + 1
    data = sg.build(
        uuid=tail.uuid, number=number, first_sequence=cursor.sequence + 1, epoch=tail.epoch,
        previous=cursor.chain, time_ns=tail.clock.time_ns(), boot_id=tail.clock.boot_id(),
        algorithm=cursor.header.algorithm,
    )  # fmt: skip
    folder = f"{tail.root}/{sg.FOLDER}"
    try:
        publish(tail.fs, folder, sg.name(number), data)  # R2, R3, R4
    except OSError as error:
        if error.errno in _WANTING and _taken_back(tail, number):
            raise  # nothing was begun: the next append tries again
        tail.die(error)
        raise WriterPoisoned(
            f"{tail.root}: segment {number} could not be begun ({error})"
        ) from error
    fd = tail.fs.open(f"{folder}/{sg.name(number)}", O_RDWR)
    last, tail.fd = tail.fd, fd
    if last >= 0:
        tail.fs.close(last)
    tail.synced = sg.HEADER_SIZE
    cursor.enter(number)
    tail.acked = cursor.position
    tail.hint[0] = cursor.position
