"""Where zstd frames begin and end (RFC 8878 §3), without decoding them. Pure.

The decoder library takes a stream that stops in the middle of a frame for one that ended; a layer
must not be accepted that way. ``FrameWalker`` is shown every raw byte and knows whether the stream
may end here.
"""

from __future__ import annotations

from cstorage.errors import ArchiveError

_MAGIC = b"\x28\xb5\x2f\xfd"
_DICTIONARY_ID = (0, 1, 2, 4)
_CONTENT_SIZE = (0, 2, 4, 8)


class FrameWalker:
    """Feed raw bytes; ``at_boundary`` tells whether all frames so far are complete."""

    def __init__(self) -> None:
        self._held = b""  # start of a structure of which some bytes are still missing
        self._skip = 0  # bytes of a block, checksum or skippable frame still to come
        self._in_frame = False
        self._checksum = False

    @property
    def at_boundary(self) -> bool:
        return not (self._held or self._skip or self._in_frame)

    def feed(self, data: bytes) -> None:
        """Walk on. Raises ``ArchiveError`` if what follows a frame is not another one."""
        if self._held:
            data = self._held + data
            self._held = b""
        at, end = 0, len(data)
        while True:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
            if at >= end:
                return
            used = self._block(data, at) if self._in_frame else self._frame(data, at)
            if not used:
                self._held = data[at:]
                return
            at += used

    def _frame(self, data: bytes, at: int) -> int:
        """Bytes of the frame header at ``at``; 0 if more are needed to tell."""
        magic = data[at : at + 4]
        if magic == _MAGIC:
            if len(data) < at + 5:
                return 0
            descriptor = data[at + 4]
            single = descriptor >> 5 & 1
            content = _CONTENT_SIZE[descriptor >> 6] or single
            size = 5 + (not single) + _DICTIONARY_ID[descriptor & 3] + content
            if len(data) < at + size:
                return 0
            self._in_frame = True
            self._checksum = bool(descriptor & 4)
            return size
        if len(magic) == 4 and magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50:
            if len(data) < at + 8:
                return 0
            self._skip = int.from_bytes(data[at + 4 : at + 8], "little")
            return 8
        if len(magic) == 4:
            raise ArchiveError("garbage after the zstd stream")
        return 0

    def _block(self, data: bytes, at: int) -> int:
        if len(data) < at + 3:
            return 0
        head = int.from_bytes(data[at : at + 3], "little")
        run_length = head >> 1 & 3 == 1
        self._skip = 1 if run_length else head >> 3
        if head & 1:
            self._in_frame = False
            self._skip += 4 * self._checksum
        return 3
