"""Digest strings, for callers of the store: the rules are ``cstorage.content.digests``."""

from __future__ import annotations

from cstorage.content.digests import check, of

__all__ = ["check", "of"]
