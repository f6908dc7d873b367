"""Verify finds damage, repair restores what proves itself and names what is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from journal import Journal, JournalError
from journal import frame as fr
from journal import segment as sg
from journal.repair import repair
from journal.verify import verify


def filled(path: Path, count: int = 120) -> Path:
    root = path / "j"
    with Journal.open(
        root, "w", create=True, segment_bytes=4096, reserve_bytes=0, durability="none"
    ) as j:
        for i in range(count):
            j.commit([["n", i, "x" * (i % 50)]])
    return root


def read(root: Path) -> dict[int, object]:
    with Journal.open(root) as j:
        return {
            f.first_sequence: f.transaction().events[0] for f in j.frames() if f.kind == fr.DATA
        }


def segments(root: Path) -> list[Path]:
    return sorted((root / "segments").glob("*.seg"))


def damage(path: Path, offset: int, data: bytes) -> None:
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(data)] = data
    path.write_bytes(raw)


def heal(root: Path, *, accept: bool = True) -> int:
    dry = repair(str(root))
    before = [p.read_bytes() for p in segments(root)]
    assert [p.read_bytes() for p in segments(root)] == before
    done = repair(str(root), apply=True, accept_loss=accept)
    assert [s.file for s in done.steps] == [s.file for s in dry.steps]
    report = verify(str(root), "strict")
    assert [f for f in report.findings if f.weight == "damage"] == []
    again = repair(str(root))
    assert again.steps == ()
    return done.lost


def test_every_flip_in_an_earlier_segment_is_found_and_repaired(tmp_path: Path) -> None:
    root = filled(tmp_path)
    whole = read(root)
    target = segments(root)[2]
    original = target.read_bytes()
    random.seed(7)
    for offset in random.sample(range(len(original)), 60):
        damage(target, offset, bytes([original[offset] ^ (1 << random.randrange(8))]))
        assert verify(str(root)).exit_code == 2
        lost = heal(root)
        left = read(root)
        assert lost <= 1
        assert len(left) == len(whole) - lost
        assert all(left[s] == whole[s] for s in left)
        target.chmod(0o644)
        target.write_bytes(original)
    assert verify(str(root)).exit_code == 0


@pytest.mark.parametrize("size", [8, 64, 512, 2000])
def test_a_zeroed_range_becomes_a_gap(tmp_path: Path, size: int) -> None:
    root = filled(tmp_path)
    whole = read(root)
    damage(segments(root)[2], 1000, bytes(size))
    with pytest.raises(JournalError, match="accept"):
        repair(str(root), apply=True)
    lost = heal(root)
    left = read(root)
    assert 0 < lost == len(whole) - len(left)
    with Journal.open(root, "w") as j:
        assert j.commit([["more"]]).first_sequence == 121


def test_a_missing_segment_becomes_a_gap(tmp_path: Path) -> None:
    root = filled(tmp_path)
    whole = read(root)
    segments(root)[2].unlink()
    assert verify(str(root)).exit_code == 2
    lost = heal(root)
    assert lost == len(whole) - len(read(root)) > 0
    with Journal.open(root, "w", segment_bytes=4096, reserve_bytes=0) as j:
        for i in range(50):
            j.commit([["more", i]])
    assert verify(str(root)).exit_code == 0


@pytest.mark.parametrize("which", [0, 2])
def test_a_damaged_segment_header_is_written_anew(tmp_path: Path, which: int) -> None:
    root = filled(tmp_path)
    whole = read(root)
    damage(segments(root)[which], 40, b"????????")
    assert verify(str(root)).exit_code == 2
    assert heal(root) == 0
    assert read(root) == whole


def test_lost_seal_and_lost_marker_are_restored(tmp_path: Path) -> None:
    root = filled(tmp_path)
    whole = read(root)
    target = segments(root)[1]
    damage(target, target.stat().st_size - 60, b"!" * 30)
    (root / "FORMAT").unlink()
    assert heal(root) == 0
    assert read(root) == whole


def test_originals_are_set_aside(tmp_path: Path) -> None:
    root = filled(tmp_path)
    damage(segments(root)[1], 500, b"\xff" * 4)
    bad = segments(root)[1].read_bytes()
    heal(root)
    assert bad in [p.read_bytes() for p in (root / "recovered").iterdir()]


def test_quick_sees_headers_and_seals(tmp_path: Path) -> None:
    root = filled(tmp_path)
    assert verify(str(root), "quick").exit_code == 0
    damage(segments(root)[1], 60, b"\xff")
    assert verify(str(root), "quick").exit_code == 2


def test_a_torn_tail_is_not_damage(tmp_path: Path) -> None:
    root = filled(tmp_path)
    with segments(root)[-1].open("ab") as file:
        file.write(fr.MAGIC + b"torn")
    report = verify(str(root))
    assert report.exit_code == 1
    assert repair(str(root)).torn
    with Journal.open(root, "w", reserve_bytes=0) as j:
        j.commit([["go on"]])
    assert verify(str(root)).exit_code == 0
    assert sg.HEADER_SIZE == 128
