"""The two checksum algorithms and the chain hash, by the ids of the segment header.

Rules of this module:

* Id 1 is CRC-32C (Castagnoli), id 2 is CRC-32 of zlib, used where no CRC-32C wheel exists. A
  segment names its algorithm; a reader that lacks it says so instead of guessing.
* ``extend(seed, data)`` continues a checksum; both algorithms have this order of arguments here.
* Chain id 1 is SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from journal.errors import UnsupportedFormat

CRC32C = 1
CRC32 = 2
SHA256 = 1

Extend = Callable[[int, bytes], int]
_extends: dict[int, Extend] = {}


def _zlib() -> Extend:
    from zlib import crc32

    def extend(seed: int, data: bytes) -> int:
        return crc32(data, seed)

    return extend


def extender(algorithm: int) -> Extend:
    """``extend`` of the algorithm; ``UnsupportedFormat`` if it is unknown or not installed."""
    found = _extends.get(algorithm)
    if found is None:
        if algorithm == CRC32C:
            try:
                import google_crc32c
            except ImportError as error:
                raise UnsupportedFormat(
                    "the journal uses CRC-32C: install google-crc32c"
                ) from error
            found = google_crc32c.extend
        elif algorithm == CRC32:
            found = _zlib()
        else:
            raise UnsupportedFormat(f"unknown checksum algorithm {algorithm}")
        _extends[algorithm] = found
    return found


def preferred() -> int:
    """CRC-32C where it is installed, else CRC-32."""
    try:
        extender(CRC32C)
    except UnsupportedFormat:
        return CRC32
    return CRC32C


def chain(previous: bytes, data: bytes) -> bytes:
    """SHA-256 of the previous link and the stored bytes."""
    return sha256(previous + data).digest()
