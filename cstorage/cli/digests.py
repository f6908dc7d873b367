"""Well-formed digests: a known algorithm, a colon, so many lower-case hex digits. Pure."""

from __future__ import annotations

from cstorage.errors import InvalidDigest

_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_ALGORITHM = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+._-")
_HEX = frozenset("0123456789abcdef")


def require_digest(text: str) -> None:
    """Raise ``InvalidDigest`` with the original's words unless ``text`` is a digest."""
    algorithm, colon, digits = text.partition(":")
    if not (colon and algorithm and digits and _ALGORITHM.issuperset(algorithm)):
        raise InvalidDigest("invalid checksum digest format")
    length = _LENGTHS.get(algorithm)
    if length is None:
        raise InvalidDigest("unsupported digest algorithm")
    if len(digits) != length:
        raise InvalidDigest("invalid checksum digest length")
    if not _HEX.issuperset(digits):
        raise InvalidDigest("invalid checksum digest format")
