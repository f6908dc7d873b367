"""Digest strings: which are valid, and those of bytes."""

from __future__ import annotations

from cstorage.errors import InvalidDigest
from cstorage.model import Digest
from journal.checksum import sha256

_HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX = frozenset("0123456789abcdef")
_SHAPE = r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+"


def check(digest: str) -> Digest:
    """``digest`` if it is ``algorithm:hex`` of a known algorithm and its length.

    Raises ``InvalidDigest`` with the digest library's words (semantics §2.8, cli §3.3).
    """
    algorithm, _, text = digest.partition(":")
    if len(text) == _HEX_DIGITS.get(algorithm) and _HEX.issuperset(text):
        return Digest(digest)
    import re

    if not re.fullmatch(_SHAPE, digest):
        raise InvalidDigest("invalid checksum digest format")
    if algorithm not in _HEX_DIGITS:
        raise InvalidDigest("unsupported digest algorithm")
    if len(text) != _HEX_DIGITS[algorithm]:
        raise InvalidDigest("invalid checksum digest length")
    raise InvalidDigest("invalid checksum digest format")


def of(data: bytes) -> Digest:
    """``sha256:…`` of ``data``."""
    return Digest("sha256:" + sha256(data).hexdigest())
