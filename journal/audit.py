"""Proofs over the log's tree: that a frame is in it, and that today's log extends an earlier one.

Rules of this module (docs/journal-format.md, section 11):

* A proof is a small JSON object that can be checked with nothing but itself and a trusted root.
  One of inclusion carries the frame, so that it says what the event is and not only that one is.
* What a proof speaks of is synced first: a root never leaves the host before its frames are safe.
* Making one reads the whole log; history that was pruned or lost cannot be proved any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal import frame as fr
from journal.checksum import chain
from journal.codec import decode
from journal.cursor import Cursor
from journal.errors import InvalidRecord, JournalError
from journal.fs import settle
from journal.merkle import (
    check_consistency,
    consistency_path,
    inclusion_path,
    leaf_hash,
    root_from_inclusion,
    tree_root,
)

if TYPE_CHECKING:
    from journal.facade import Journal


_UNLINKED = 8
"""Bytes of a frame's header that its link does not cover: magic and checksum."""


class Leaves:
    """The leaf hashes of a journal's whole history, and where each event's frame is."""

    def __init__(self, journal: Journal, wanted: int = 0) -> None:
        """Raises ``JournalError`` if the beginning is pruned or frames were lost."""
        self.hashes: list[bytes] = []
        self.index = -1  # of the frame that holds the event ``wanted``
        self.frame: fr.Frame | None = None
        cursor = Cursor(journal.fs, journal.root, journal.uuid)
        try:
            if cursor.header.number != 1:
                raise JournalError("the history's beginning is pruned: nothing can be proved")
            frames: list[fr.Frame] = []
            while cursor.read(frames):
                for frame in frames:
                    if frame.kind == fr.GAP:
                        raise JournalError("frames were lost in a repair: nothing can be proved")
                    if frame.first_sequence <= wanted <= frame.last_sequence:
                        self.index, self.frame = len(self.hashes), frame
                    self.hashes.append(leaf_hash(frame.link))
                frames.clear()
            assert cursor.handle is not None
            if cursor.handle.fd >= 0:
                settle(journal.fs, cursor.handle.fd)
        finally:
            cursor.close()

    def root(self, size: int | None = None) -> bytes:
        """Tree head over the first ``size`` frames."""
        return tree_root(self.hashes if size is None else self.hashes[:size])


def _stored(frame: fr.Frame) -> bytes:
    """What the frame's link covers beside the link before: its header and body as stored."""
    length = len(frame.body)
    head = fr.HEADER.pack(
        fr.MAGIC, 0, length, frame.kind, frame.flags, frame.count, frame.first_sequence,
        frame.promise, frame.time_ns,
    )  # fmt: skip
    return head[_UNLINKED:] + frame.body + bytes(-length & 7)


def _taken_apart(data: bytes) -> tuple[int, int, bytes]:
    """First sequence, number of events and body of a frame from what its link covers; ValueError
    if it cannot be one."""
    head = fr.HEADER_SIZE - _UNLINKED
    if len(data) < head:
        raise ValueError("a frame cut off")
    _, _, length, _, _, count, first, _, _ = fr.HEADER.unpack(bytes(_UNLINKED) + data[:head])
    if len(data) != head + (length + 7 & -8):
        raise ValueError("not the length of a frame")
    return first, count, data[head : head + length]


def prove_inclusion(journal: Journal, sequence: int) -> dict[str, Any]:
    """Proof that the frame holding event ``sequence`` is in the log."""
    leaves = Leaves(journal, sequence)
    frame = leaves.frame
    if frame is None:
        raise JournalError(f"no event has the sequence number {sequence}")
    return {
        "type": "inclusion",
        "journal": journal.uuid.hex(),
        "sequence": sequence,
        "size": len(leaves.hashes),
        "root": leaves.root().hex(),
        "index": leaves.index,
        "previous": frame.previous.hex(),
        "frame": _stored(frame).hex(),
        "path": [step.hex() for step in inclusion_path(leaves.hashes, leaves.index)],
    }


def prove_consistency(journal: Journal, old_size: int) -> dict[str, Any]:
    """Proof that the log extends its own state of ``old_size`` frames."""
    leaves = Leaves(journal)
    if not 0 < old_size <= len(leaves.hashes):
        raise JournalError(f"the log never had {old_size} frames, it has {len(leaves.hashes)}")
    return {
        "type": "consistency",
        "journal": journal.uuid.hex(),
        "old_size": old_size,
        "old_root": leaves.root(old_size).hex(),
        "size": len(leaves.hashes),
        "root": leaves.root().hex(),
        "path": [step.hex() for step in consistency_path(leaves.hashes, old_size)],
    }


def proved_event(proof: dict[str, Any]) -> list[Any]:
    """What the event is that a proof of inclusion (checked before) speaks of."""
    first, _, body = _taken_apart(bytes.fromhex(proof["frame"]))
    event: list[Any] = decode(body)[4][int(proof["sequence"]) - first]
    return event


def check_proof(
    proof: dict[str, Any], *, root: bytes | None = None, old_root: bytes | None = None
) -> bool:
    """Whether the proof holds, for the given trusted roots where given.

    Raises ``InvalidRecord`` for something that is not a proof.
    """
    try:
        path = [bytes.fromhex(step) for step in proof["path"]]
        size = int(proof["size"])
        head = bytes.fromhex(proof["root"])
        kind = proof["type"]
        if kind == "inclusion":
            data = bytes.fromhex(proof["frame"])
            first, count, _ = _taken_apart(data)
            leaf = leaf_hash(chain(bytes.fromhex(proof["previous"]), data))
            good = root_from_inclusion(leaf, int(proof["index"]), size, path) == head
            good = good and first <= int(proof["sequence"]) < first + count
        elif kind == "consistency":
            old = bytes.fromhex(proof["old_root"])
            good = check_consistency(int(proof["old_size"]), old, size, head, path)
            if old_root is not None:
                good = good and old == old_root
        else:
            raise InvalidRecord(f"not a proof: type {kind!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRecord(f"not a proof: {error}") from error
    return good and (root is None or root == head)
