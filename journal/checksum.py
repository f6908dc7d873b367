"""The two checksum algorithms and the chain hash, by the ids of the segment header.

Rules of this module:

* Id 1 is CRC-32C (Castagnoli), id 2 is CRC-32 of zlib, used where no CRC-32C wheel exists. A
  segment names its algorithm; a reader that lacks it says so instead of guessing.
* ``extend(seed, data)`` continues a checksum; both algorithms have this order of arguments here.
* Chain id 1 is SHA-256. OpenSSL's is several times quicker than the interpreter's own and takes
  milliseconds to load, so it is loaded by who has hashed a mebibyte.
"""

from __future__ import annotations

from collections.abc import Callable

from journal.errors import UnsupportedFormat
from journal.plain import Any, compiled

CRC32C = 1
CRC32 = 2
SHA256 = 1

Extend = Callable[[int, bytes], int]
_extends: dict[int, Extend] = {}


def _own_sha256() -> Any:
    """The SHA-256 that the interpreter brings, else OpenSSL's."""
    for name in ("_sha2", "_sha256"):
        try:
            return __import__(name).sha256
        except ImportError:
            continue
    import hashlib

    return hashlib.sha256


def _own_blake2b() -> Any:
    """BLAKE2b without what ``hashlib`` imports for other algorithms."""
    try:
        return __import__("_blake2").blake2b
    except ImportError:
        import hashlib

        return hashlib.blake2b


blake2b = _own_blake2b()
_sha256 = _own_sha256()
_before_openssl = 1 << 20


def hashing(size: int) -> Any:
    """The quickest maker of SHA-256 objects for whoever is about to hash ``size`` bytes."""
    global _sha256, _before_openssl  # noqa: PLW0603 - late import
    if _before_openssl > 0:
        _before_openssl -= size
        if _before_openssl <= 0:
            import hashlib

            _sha256 = hashlib.sha256
    return _sha256


def sha256(data: bytes) -> Any:
    """The hash object of ``data``, as ``hashlib`` makes it."""
    return hashing(len(data))(data)


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
                found = compiled("google_crc32c", "_crc32c").extend
            except ImportError as error:
                raise UnsupportedFormat(
                    "the journal uses CRC-32C: install google-crc32c"
                ) from error
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
    digest: bytes = sha256(previous + data).digest()
    return digest
