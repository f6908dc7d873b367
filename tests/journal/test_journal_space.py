"""What is wanting: room, descriptors, the right to write. Refusals change nothing, deletions go on,
everything opens."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from journal import Journal, JournalFull
from journal import frame as fr
from journal.archive import archive
from journal.fs import OsFs
from journal.verify import verify

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    where = tmp_path / "disk"
    where.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(where)], check=True, timeout=20
    )
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
    with Journal.open(
        small_disk / "j", "w", create=True, reserve_bytes=64 << 10, segment_bytes=32 << 10
    ) as j:
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


class Wanting(OsFs):
    """Refuses the n-th call that needs a new descriptor, once armed."""

    def __init__(self) -> None:
        self.left = 0
        self.refused = 0

    def _take(self) -> None:
        if self.left:
            self.left -= 1
            if not self.left:
                self.refused += 1
                raise OSError(errno.EMFILE, "Too many open files")

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:  # type: ignore[override]
        self._take()
        return os.open(path, flags, mode)

    def sync_directory(self, path: str) -> None:
        self._take()
        super().sync_directory(path)


def test_no_descriptor_for_a_new_segment_harms_nobody(tmp_path: Path) -> None:
    """At every call of a rotation that needs one: the writer goes on, the log is whole."""
    for at in range(1, 30):
        fs = Wanting()
        root = tmp_path / str(at)
        with Journal.open(root, "w", create=True, reserve_bytes=0, segment_bytes=4096, fs=fs) as j:
            j.commit([["filling", "x" * 3700]])
            fs.left = at
            try:
                j.commit([["next", "y" * 500]])
                recorded = 1
            except OSError:
                recorded = 0
                assert fs.refused
            fs.left = 0
            assert j.commit([["last"]]).first_sequence == 2 + recorded
            assert j.position.segment == 2
            assert not (root / "SUSPECT").exists()
        assert verify(str(root), "strict").exit_code == 0
        if not fs.refused:
            assert at > 4  # temporary, folder, new segment twice
            return


def test_real_want_of_descriptors_at_a_rotation(tmp_path: Path) -> None:
    """The same with the kernel's own limit."""
    with Journal.open(tmp_path / "j", "w", create=True, reserve_bytes=0, segment_bytes=4096) as j:
        j.commit([["filling", "x" * 3700]])
        old = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, old[0]), old[1]))
        try:
            try:
                while len(taken) < 1024:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
            assert len(taken) < 256
            with pytest.raises(OSError, match="Too many open files"):
                j.commit([["next", "y" * 500]])
        finally:
            for fd in taken:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, old)
        assert j.commit([["last", "y" * 500]]).first_sequence == 2
        assert j.position.segment == 2
    assert verify(str(tmp_path / "j"), "strict").exit_code == 0


@pytest.mark.parametrize("place", ["archive", "segments"])
def test_a_read_only_left_over_of_a_crash_is_replaced(tmp_path: Path, place: str) -> None:
    """The temporary file has the mode of the file to be; who is not root cannot write to it."""
    root = tmp_path / "j"
    with Journal.open(root, "w", create=True, reserve_bytes=0, segment_bytes=4096) as j:
        for number in range(30):
            j.commit([["n", number, "x" * 500]])
        last = j.position.segment
        names = {"archive": ".0000000001.seg.zst.tmp", "segments": f".{last + 1:010d}.seg.tmp"}
        (root / "archive").mkdir()
        left_over = root / place / names[place]
        left_over.write_bytes(b"of a crash" * 900)
        left_over.chmod(0o444)

    def work() -> None:
        with Journal.open(root, "w", reserve_bytes=0, segment_bytes=4096) as j:
            if place == "archive":
                assert 1 in archive(j)
            else:
                with j.writer() as w:
                    w.rotate()
                assert j.position.segment == last + 1

    if os.geteuid():
        work()
    else:
        for path in [root, *root.rglob("*")]:
            os.chown(path, 65534, 65534)
        for parent in root.parents[:3]:
            parent.chmod(0o755)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setuid(65534)
                work()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not left_over.exists()
    assert verify(str(root), "strict").exit_code == 0
