"""Exports and imports: replicas of repaired logs, and nothing leaves before it is on the disk."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from journal import Journal, JournalError
from journal import frame as fr
from journal.audit import prove_inclusion
from journal.cli import build
from journal.fs import OsFs
from journal.repair import repair
from journal.transfer import export, load
from journal.verify import verify


def filled(root: Path, count: int = 120) -> Path:
    with Journal.open(
        root, "w", create=True, segment_bytes=4096, reserve_bytes=0, durability="none"
    ) as log:
        for number in range(count):
            log.commit([["n", number, "x" * 40]])
    return root


def damaged(path: Path, offset: int, size: int) -> None:
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    raw[offset : offset + size] = bytes(size)
    path.write_bytes(raw)


def same(one: Path, other: Path) -> bool:
    def content(root: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (root / "segments").iterdir()}

    return content(one) == content(other)


@pytest.mark.parametrize(
    ("segment", "offset", "size"),
    [
        (2, 1000, 600),  # frames in the middle
        (2, 128, 400),  # the first frames
        (3, 3500, 5000),  # the seal and what is before it
        (2, 40, 8),  # the header
        (0, 900, 8),  # the end of one frame: its successor's link is taken as stated
    ],
)
def test_a_repaired_log_is_replicated(tmp_path: Path, segment: int, offset: int, size: int) -> None:
    """Whole, and in two parts parted at every place where a reader may stand."""
    root = filled(tmp_path / "log")
    paths = sorted((root / "segments").iterdir())
    size = min(size, paths[segment].stat().st_size - offset)
    damaged(paths[segment], offset, size)
    repair(str(root), apply=True, accept_loss=True)
    with Journal.open(root) as log:
        ends = [frame.end for frame in log.frames()]
        kinds = [frame.kind for frame in log.frames()]
        gaps = [i for i, kind in enumerate(kinds) if kind == fr.GAP]
        assert gaps or offset == 40
        whole = io.BytesIO()
        moved = export(log, whole)
        whole.seek(0)
        assert load(str(tmp_path / "replica"), whole) == moved
        assert same(root, tmp_path / "replica")
        assert verify(str(tmp_path / "replica"), "strict").exit_code == 0
        around = {at for gap in gaps for at in range(gap - 2, gap + 3)} | {5, len(ends) - 2}
        for at in sorted(around & set(range(len(ends)))):
            replica = tmp_path / f"replica.{at}"
            first, rest = io.BytesIO(), io.BytesIO()
            until = ends[at].sequence
            middle = export(log, first, until_sequence=until)
            end = export(log, rest, middle.end)
            first.seek(0)
            rest.seek(0)
            load(str(replica), first)
            assert load(str(replica), rest) == end
            assert same(root, replica), at
    with Journal.open(tmp_path / "replica", "w", reserve_bytes=0) as log:
        assert log.commit([["goes on"]]).first_sequence == 121


def test_an_export_with_a_false_gap_is_refused(tmp_path: Path) -> None:
    """A frame that does not continue the chain is not taken because a gap stands before it."""
    root = filled(tmp_path / "log", 20)
    damaged(root / "segments" / "0000000001.seg", 1000, 300)
    repair(str(root), apply=True, accept_loss=True)
    out = io.BytesIO()
    with Journal.open(root) as log:
        export(log, out)
        link = next(f.link for f in log.frames() if f.kind == fr.GAP)
    from hashlib import sha256

    raw = out.getvalue()[:-37].replace(link, bytes(32))
    forged = raw + b"E" + (32).to_bytes(4, "little") + sha256(raw).digest()
    with pytest.raises(JournalError, match="invalid frame"):
        load(str(tmp_path / "replica"), io.BytesIO(forged))


class Syncs(OsFs):
    """How long each segment was when it was last synced."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}

    def fdatasync(self, fd: int) -> None:  # type: ignore[override]
        os.fdatasync(fd)
        stat = os.fstat(fd)
        self.sizes[stat.st_ino] = stat.st_size


@pytest.mark.parametrize("what", ["export", "prove"])
def test_what_leaves_the_host_is_synced_first(tmp_path: Path, what: str) -> None:
    root = filled(tmp_path / "log", 10)  # without a sync
    stat = (root / "segments" / "0000000001.seg").stat()
    fs = Syncs()
    with Journal.open(root, fs=fs) as log:
        if what == "export":
            export(log, io.BytesIO())
        else:
            prove_inclusion(log, 3)
    assert fs.sizes == {stat.st_ino: stat.st_size}


def test_a_failed_sync_exports_nothing(tmp_path: Path) -> None:
    class Failing(OsFs):
        def fdatasync(self, fd: int) -> None:  # type: ignore[override]
            raise OSError(5, "Input/output error")

    root = filled(tmp_path / "log", 10)
    out = io.BytesIO()
    with Journal.open(root, fs=Failing()) as log, pytest.raises(OSError, match="Input/output"):
        export(log, out)
    with pytest.raises(JournalError, match="cut off"):
        load(str(tmp_path / "replica"), io.BytesIO(out.getvalue()))
    assert not (tmp_path / "replica").exists()


def test_a_failed_export_keeps_the_older_file(tmp_path: Path) -> None:
    root = filled(tmp_path / "log", 10)
    file = tmp_path / "backup"
    call = [*("-j", str(root), "export"), str(file)]
    assert CliRunner().invoke(build(), call).exit_code == 0
    good = file.read_bytes()
    result = CliRunner().invoke(build(), [*call, "--from", f"1:4000:7:{'00' * 32}"])
    assert result.exit_code == 3
    assert "not part of this history" in result.output
    assert file.read_bytes() == good
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "log"]


def test_a_relative_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new folder's name is made durable where it is, not at the root of the file system."""
    synced: list[str] = []

    class Names(OsFs):
        def sync_directory(self, path: str) -> None:
            synced.append(path)
            super().sync_directory(path)

    root = filled(tmp_path / "log", 10)
    monkeypatch.chdir(tmp_path)
    out = io.BytesIO()
    with Journal.open(root) as log:
        export(log, out)
    out.seek(0)
    load("deep/er/replica", out, fs=Names())
    assert same(root, tmp_path / "deep" / "er" / "replica")
    assert str(tmp_path) in synced
    assert "/" not in synced


def test_an_import_cut_short_is_continued_from_where_the_replica_ends(tmp_path: Path) -> None:
    """A kill in the middle of a frame: what is cut off then is no difference to the original."""
    root = filled(tmp_path / "log")
    replica = tmp_path / "replica"
    out = io.BytesIO()
    with Journal.open(root) as log:
        export(log, out)

    class Killed(Exception):
        pass

    class Kill(OsFs):
        left = 3000

        def pwrite(self, fd: int, data: bytes, offset: int) -> int:  # type: ignore[override]
            if len(data) > 500:
                self.left -= len(data)
                if self.left < 0:
                    os.pwrite(fd, data[: len(data) // 2], offset)
                    raise Killed
            return os.pwrite(fd, data, offset)

    out.seek(0)
    with pytest.raises(Killed):
        load(str(replica), out, fs=Kill())
    with Journal.open(replica) as log:
        place = log.position
    assert 0 < place.sequence < 120
    rest = io.BytesIO()
    with Journal.open(root) as log:
        export(log, rest, place)
    rest.seek(0)
    load(str(replica), rest)
    assert same(root, replica)
