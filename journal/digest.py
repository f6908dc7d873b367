"""The state digest: one number for a set of records, whatever the order they were made in.

Rules of this module:

* Sum modulo 2^256 of SHA-256(key length u32 ‖ key ‖ value) over all records, so it can be kept
  while records come and go.
* It finds accidents and non-deterministic reducers; it is not a signature.
"""

from __future__ import annotations

from journal.checksum import sha256

_MASK = (1 << 256) - 1


def record_number(key: bytes, value: bytes) -> int:
    """What one record adds."""
    return int.from_bytes(sha256(len(key).to_bytes(4, "little") + key + value).digest(), "little")


class StateDigest:
    """A running digest: ``add`` what appears, ``remove`` what goes."""

    __slots__ = ("_sum",)

    def __init__(self, start: bytes = bytes(32)) -> None:
        self._sum = int.from_bytes(start, "little")

    def add(self, key: bytes, value: bytes) -> None:
        self._sum = (self._sum + record_number(key, value)) & _MASK

    def remove(self, key: bytes, value: bytes) -> None:
        self._sum = (self._sum - record_number(key, value)) & _MASK

    def value(self) -> bytes:
        return self._sum.to_bytes(32, "little")
