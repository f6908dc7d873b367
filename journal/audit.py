"""Proofs over the log's tree: that a frame is in it, and that today's log extends an earlier one.

Rules of this module (docs/journal-format.md, section 11):

* A proof is a small JSON object that can be checked with nothing but itself and a trusted root.
* Making one reads the whole log; history that was pruned or lost cannot be proved any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal import frame as fr
from journal.cursor import Cursor
from journal.errors import InvalidRecord, JournalError
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


class Leaves:
    """The leaf hashes of a journal's whole history, and where each event's frame is."""

    def __init__(self, journal: Journal) -> None:
        """Raises ``JournalError`` if the beginning is pruned or frames were lost."""
        self.hashes: list[bytes] = []
        self._starts: list[int] = []
        self._links: list[bytes] = []
        cursor = Cursor(journal.fs, journal.root, journal.uuid)
        try:
            if cursor.header.number != 1:
                raise JournalError("the history's beginning is pruned: nothing can be proved")
            frames: list[fr.Frame] = []
            while cursor.read(frames):
                for frame in frames:
                    if frame.kind == fr.GAP:
                        raise JournalError("frames were lost in a repair: nothing can be proved")
                    self.hashes.append(leaf_hash(frame.link))
                    self._links.append(frame.link)
                    self._starts.append(frame.first_sequence if frame.count else 0)
                frames.clear()
        finally:
            cursor.close()

    def root(self, size: int | None = None) -> bytes:
        """Tree head over the first ``size`` frames."""
        return tree_root(self.hashes if size is None else self.hashes[:size])

    def index_of(self, sequence: int) -> int:
        """The frame that holds an event."""
        found = -1
        for index, first in enumerate(self._starts):
            if first and first <= sequence:
                found = index
            elif first > sequence:
                break
        if found < 0 or sequence < 1:
            raise JournalError(f"no event has the sequence number {sequence}")
        return found

    def link(self, index: int) -> bytes:
        return self._links[index]


def prove_inclusion(journal: Journal, sequence: int) -> dict[str, Any]:
    """Proof that the frame holding event ``sequence`` is in the log."""
    last = journal.position.sequence
    if not 1 <= sequence <= last:
        raise JournalError(f"no event has the sequence number {sequence} (the last is {last})")
    leaves = Leaves(journal)
    index = leaves.index_of(sequence)
    return {
        "type": "inclusion",
        "journal": journal.uuid.hex(),
        "sequence": sequence,
        "size": len(leaves.hashes),
        "root": leaves.root().hex(),
        "index": index,
        "link": leaves.link(index).hex(),
        "path": [step.hex() for step in inclusion_path(leaves.hashes, index)],
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
            leaf = leaf_hash(bytes.fromhex(proof["link"]))
            good = root_from_inclusion(leaf, int(proof["index"]), size, path) == head
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
