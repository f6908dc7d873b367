"""The FORMAT marker: every byte of its first two lines counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import Journal
from journal.errors import JournalError


def test_a_changed_byte_in_the_marker_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "log"
    with Journal.open(root, mode="w", create=True) as log:
        log.commit([["event"]])
    marker = root / "FORMAT"
    whole = marker.read_bytes()
    for place in range(whole.index(b"created")):
        changed = bytearray(whole)
        changed[place] = ord("a") if changed[place] != ord("a") else ord("b")
        marker.write_bytes(changed)
        with pytest.raises(JournalError), Journal.open(root) as log:
            list(log.frames())
    marker.write_bytes(whole)
    with Journal.open(root) as log:
        assert log.position.sequence == 1
