"""Digest strings: which are valid, and those of bytes."""

from __future__ import annotations

import hashlib
import re

from cstorage.errors import InvalidDigest
from cstorage.model import Digest

_HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
_SHAPE = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")


def check(digest: str) -> Digest:
    """``digest`` if it is ``algorithm:hex`` of a known algorithm and its length.

    Raises ``InvalidDigest`` with the digest library's words (semantics §2.8, cli §3.3).
    """
    if not _SHAPE.fullmatch(digest):
        raise InvalidDigest("invalid checksum digest format")
    algorithm, _, text = digest.partition(":")
    if algorithm not in _HEX_DIGITS:
        raise InvalidDigest("unsupported digest algorithm")
    if len(text) != _HEX_DIGITS[algorithm]:
        raise InvalidDigest("invalid checksum digest length")
    if not re.fullmatch("[0-9a-f]+", text):
        raise InvalidDigest("invalid checksum digest format")
    return Digest(digest)


def of(data: bytes) -> Digest:
    """``sha256:…`` of ``data``."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
