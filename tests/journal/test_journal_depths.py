"""What each depth of verification proves, and that the shallow ones see what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import journal.merkle
from journal import Journal
from journal.clock import Clock
from journal.codec import decode, encode
from journal.verify import Report, verify

_PEAKS, _COUNT, _LAST, _OFFSET = 1, 0, 2, 3


class _Rewound(Clock):
    """A wall clock that is set back twice."""

    __slots__ = ("_ticks",)

    def __init__(self) -> None:
        self._ticks = 0

    def time_ns(self) -> int:
        self._ticks += 1
        return self._ticks - 5 * (self._ticks > 15) - 5 * (self._ticks > 35)


def _filled(root: Path, clock: Clock | None = None) -> None:
    with Journal.open(
        root, "w", create=True, segment_bytes=4096, durability="none", clock=clock
    ) as log:
        for number in range(40):
            log.commit([["event", number, "x" * 300], ["another"]])


def _rules(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings if finding.weight == "damage"}


@pytest.mark.parametrize("field", [_PEAKS, _COUNT, _LAST, _OFFSET])
def test_a_seal_that_lies_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: int
) -> None:
    """Written so from the start, with checksums and links that are right."""
    honest = journal.merkle.seal_body

    def lying(*place: Any) -> bytes:
        body = decode(honest(*place))
        body[field] = [bytes(32) for _ in body[field]] if field == _PEAKS else body[field] + 1
        return encode(body)

    root = tmp_path / "log"
    _filled(root)
    with Journal.open(root, "w", durability="none") as log:
        with log.writer() as writer, monkeypatch.context() as patched:
            patched.setattr(journal.merkle, "seal_body", lying)
            writer.rotate()
        log.commit([["after"]])
    for processes in (1, 3):
        full = verify(str(root), processes=processes)
        assert _rules(full) == (set() if field == _PEAKS else {"seal"})
        assert _rules(verify(str(root), "strict", processes=processes)) == {"seal"}


def test_full_counts_what_strict_counts(tmp_path: Path) -> None:
    root = tmp_path / "log"
    _filled(root, _Rewound())
    full, strict = verify(str(root)), verify(str(root), "strict")
    assert [finding.rule for finding in strict.findings] == ["clock", "clock"]
    assert strict.tree_size == strict.frames > 40
    assert len(strict.tree_root) == 32
    assert full == strict._replace(level="full", tree_size=0, tree_root=b"")
    assert full.events == 80
    for processes in (2, 8):
        for one in (full, strict):
            assert verify(str(root), one.level, processes=processes) == one


@pytest.mark.parametrize("size", [0, 100, 128, 150])
def test_a_segment_that_was_cut_short_stops_no_verification(tmp_path: Path, size: int) -> None:
    """Also not in a process that begins with the segment behind it."""
    root = tmp_path / "log"
    _filled(root)
    path = root / "segments/0000000003.seg"
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(size)
    for processes in (1, 2, 3, 8):
        for level in ("full", "strict"):
            report = verify(str(root), level, processes=processes)
            assert {f.segment for f in report.findings if f.weight == "damage"} == {3}, report
