"""A full disk: refused commits change nothing, deletions go on, everything opens."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from journal import Journal, JournalFull
from journal import frame as fr
from journal.verify import verify

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    where = tmp_path / "disk"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(where)], check=True,
                   timeout=20)
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True, timeout=20)


def fill(j: Journal) -> int:
    """Commit until there is no room; how many were acknowledged."""
    for count in range(10_000):
        try:
            j.commit([["fill", "x" * 2000]])
        except JournalFull as error:
            return count if "no room" in str(error) else -1
    raise AssertionError("the disk never filled")


@pytest.mark.root
def test_a_full_disk_still_takes_a_deletion(small_disk: Path) -> None:
    with Journal.open(small_disk / "j", "w", create=True, reserve_bytes=64 << 10,
                      segment_bytes=32 << 10) as j:
        count = fill(j)
        with pytest.raises(JournalFull):
            j.commit([["again", "x" * 9000]])
        for i in range(60):
            j.commit([["deleted", i]], use_reserve=True)
        numbers = [f.transaction().events[0][0] for f in j.frames() if f.kind == fr.DATA]
        assert numbers == ["fill"] * count + ["deleted"] * 60
        assert not (small_disk / "j" / "reserve").exists()
    assert verify(str(small_disk / "j"), "strict").exit_code == 0
    with Journal.open(small_disk / "j") as j:
        assert j.position.sequence == count + 60


@pytest.mark.root
def test_a_read_only_file_system_is_read(small_disk: Path) -> None:
    with Journal.open(small_disk / "j", "w", create=True, reserve_bytes=0) as j:
        j.commit([["a"]])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True, timeout=20)
    with Journal.open(small_disk / "j") as j:
        assert j.position.sequence == 1
    assert verify(str(small_disk / "j")).exit_code == 0
    with pytest.raises(OSError, match="Read-only"):
        Journal.open(small_disk / "j", "w")
