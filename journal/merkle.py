"""The tree over all frames of a log: RFC 6962 hashes, compact ranges, proofs.

Rules of this module:

* Leaf ``i`` is the chain link of frame ``i`` (frames of all kinds, counted from 0 since the
  beginning of the log); leaf hash SHA-256(0x00 ‖ link), node hash SHA-256(0x01 ‖ left ‖ right).
* A seal frame holds the number of frames before it and the peaks of the tree over them (at most 64
  hashes), so that the root of a long log needs only the last segment.
* Pure, except ``seal_body`` and ``peaks_before``, which read segments.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from journal import frame as fr
from journal import segment as sg
from journal.codec import decode, encode
from journal.cursor import open_segment
from journal.errors import JournalDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from journal.fs import Fs
    from journal.position import Position


def leaf_hash(link: bytes) -> bytes:
    return sha256(b"\x00" + link).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A growing tree that keeps only its peaks (left to right, largest first)."""

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)
        if len(self.peaks) != size.bit_count():
            raise JournalDamaged(f"a tree of {size} leaves has {size.bit_count()} peaks")

    def append(self, link: bytes) -> None:
        node = sha256(b"\x00" + link).digest()
        size = self.size
        peaks = self.peaks
        while size & 1:
            node = sha256(b"\x01" + peaks.pop() + node).digest()
            size >>= 1
        peaks.append(node)
        self.size += 1

    def extend(self, links: Iterable[bytes]) -> None:
        """``append`` for many."""
        hasher = sha256
        peaks = self.peaks
        size = self.size
        for link in links:
            node = hasher(b"\x00" + link).digest()
            rest = size
            while rest & 1:
                node = hasher(b"\x01" + peaks.pop() + node).digest()
                rest >>= 1
            peaks.append(node)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """The tree head; SHA-256 of nothing for an empty tree."""
        if not self.peaks:
            return sha256(b"").digest()
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = node_hash(peak, node)
        return node


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf *hashes*."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(tree_root(leaves[:split]), tree_root(leaves[split:]))


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Audit path of leaf ``index`` (RFC 6962 section 2.1.1)."""
    if len(leaves) <= 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*inclusion_path(leaves[:split], index), tree_root(leaves[split:])]
    return [*inclusion_path(leaves[split:], index - split), tree_root(leaves[:split])]


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that the path leads to, None if the path cannot belong to such a tree."""
    if not 0 <= index < size:
        return None
    node = leaf
    last = size - 1
    for step in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            node = node_hash(step, node)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            node = node_hash(node, step)
        index >>= 1
        last >>= 1
    return node if last == 0 else None


def consistency_path(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """Proof that the tree over the first ``old`` leaves is a prefix (RFC 6962 section 2.1.2)."""

    def walk(low: int, high: int, size: int, whole: bool) -> list[bytes]:
        if size == high - low:
            return [] if whole else [tree_root(leaves[low:high])]
        split = 1 << (high - low - 1).bit_length() - 1
        if size <= split:
            return [*walk(low, low + split, size, whole), tree_root(leaves[low + split : high])]
        return [*walk(low + split, high, size - split, False), tree_root(leaves[low : low + split])]

    if not 0 < old < len(leaves):
        return []
    return walk(0, len(leaves), old, True)


def check_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]
) -> bool:
    """Whether the proof shows that the new tree extends the old one (RFC 9162 section 2.1.4.2)."""
    if old_size == new_size:
        return old_root == new_root and not path
    if not 0 < old_size < new_size:
        return old_size == 0 and not path
    steps = list(path)
    if old_size & (old_size - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    first, last = old_size - 1, new_size - 1
    while first & 1:
        first >>= 1
        last >>= 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            old = node_hash(step, old)
            new = node_hash(step, new)
            while first and not first & 1:
                first >>= 1
                last >>= 1
        else:
            new = node_hash(new, step)
        first >>= 1
        last >>= 1
    return last == 0 and old == old_root and new == new_root


# -- segments --------------------------------------------------------------------------------------


def links_of(buffer: bytes) -> Iterable[bytes]:
    """Chain links of the frames in the bytes of a segment that has been verified."""
    at = sg.HEADER_SIZE
    unpack = fr.HEADER.unpack_from
    while at + fr.OVERHEAD <= len(buffer):
        at += fr.size_of(unpack(buffer, at)[2])
        yield buffer[at - 32 : at]


def last_frame(fs: Fs, root: str, number: int) -> tuple[int, bytes, bytes]:
    """Kind, body and link of the last frame of a segment, found through its trailer."""
    handle = open_segment(fs, root, number)
    try:
        size = handle.size()
        if size < sg.HEADER_SIZE + fr.OVERHEAD:
            raise JournalDamaged(f"segment {number} holds no frame", segment=number)
        _, length, link = fr.TRAILER.unpack(handle.read(fr.TRAILER_SIZE, size - fr.TRAILER_SIZE))
        start = size - fr.size_of(length)
        raw = handle.read(fr.HEADER_SIZE + length, start) if start >= sg.HEADER_SIZE else b""
        if raw[:4] != fr.MAGIC:
            raise JournalDamaged(f"segment {number} does not end with a frame", segment=number)
        return raw[12], raw[fr.HEADER_SIZE :], link
    finally:
        handle.close()


def peaks_before(fs: Fs, root: str, number: int, buffer: bytes) -> Tree:
    """The tree over all frames before segment ``number`` (``buffer`` holds its bytes).

    Known from the seal before it, or from the prune frame that explains its absence.
    """
    if number == 1:
        return Tree()
    try:
        kind, body, link = last_frame(fs, root, number - 1)
    except FileNotFoundError:
        tree = _pruned(buffer, number)
        if tree is None:
            raise JournalDamaged(
                f"segment {number - 1} is gone and no prune frame says so", segment=number - 1
            ) from None
        return tree
    if kind != fr.SEAL:
        raise JournalDamaged(f"segment {number - 1} is not sealed", segment=number - 1)
    fields = decode(body)
    if fields[0] is None:  # a repair could not know it: the tree begins anew
        return Tree()
    tree = Tree(fields[0], fields[1])
    tree.append(link)
    return tree


def _pruned(buffer: bytes, number: int) -> Tree | None:
    at = sg.HEADER_SIZE
    while at + fr.OVERHEAD <= len(buffer):
        head = fr.HEADER.unpack_from(buffer, at)
        if head[3] == fr.PRUNE:
            fields = decode(buffer[at + fr.HEADER_SIZE : at + fr.HEADER_SIZE + head[2]])
            if fields[0] == number:
                return Tree(fields[2], fields[3])
        at += fr.size_of(head[2])
    return None


def seal_body(fs: Fs, root: str, uuid: bytes, place: Position) -> bytes:
    """Body of the seal at ``place``: [frames before it, peaks, last sequence, offset]."""
    handle = open_segment(fs, root, place.segment)
    try:
        buffer = handle.read(place.offset, 0)
    finally:
        handle.close()
    header = sg.parse(buffer)
    if header is None or header.uuid != uuid:
        raise JournalDamaged(f"segment {place.segment}: the header changed", segment=place.segment)
    tree = peaks_before(fs, root, place.segment, buffer)
    tree.extend(links_of(buffer))
    return encode([tree.size, tree.peaks, place.sequence, place.offset])
