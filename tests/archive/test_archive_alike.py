"""Files that differ in name, size and time only: the short way gives what the long way gives."""

from __future__ import annotations

import random
import re
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from cstorage.archive import extract
from cstorage.archive.apply import Limits
from cstorage.archive.header import BLOCK
from cstorage.archive.reader import TarReader
from tests.archive.outcomes import Outcome, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROUNDS = 300
NOW_NS = time.time_ns() - 10**9
DAY_NS = 86_400 * 10**9


@pytest.fixture
def short_way(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Names of the members that went the short way."""
    taken: list[bytes] = []
    real = TarReader.alike

    def alike(self: TarReader, first: Any) -> Iterator[Any]:
        for member in real(self, first):
            yield member
            taken.append(member[0])  # asked for the next one: this one was made

    monkeypatch.setattr(TarReader, "alike", alike)
    return taken


def the_long_way(path: Path, archive: bytes, **options: Any) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TarReader, "precedes", lambda *_: False)
        return outcome(path, archive, None, **options)


def both(tmp_path: Path, archive: bytes, **options: Any) -> tuple[Outcome, Outcome]:
    """What each way leaves; what got no time from the archive has none."""
    found = outcome(tmp_path / "short", archive, None, **options)
    expected = the_long_way(tmp_path / "long", archive, **options)
    return undated(found), undated(expected)


def undated(found: Outcome) -> Outcome:
    tree = [(*x[:5], 0, x[6]) if NOW_NS < x[5] < NOW_NS + DAY_NS else x for x in found.tree]
    return found._replace(tree=tree)


def rows(scene: Any, above: str = "d/", count: int = 40) -> Any:
    made = scene().dir("d", mtime=5).dir("d/e", mtime=6).dir("d/e/deep", mtime=7)
    for number in range(count):
        made.file(f"{above}f{number}", b"%d," % number * number, mtime=10**9 + number % 3)
    return made


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("above", ["d/", "./d/", "", "./", "d/e/deep/"])
def test_same_tree_and_records(
    tmp_path: Path, scene: Any, above: str, short_way: list[bytes]
) -> None:
    found, expected = both(tmp_path, bytes(rows(scene, above)))
    assert not expected.error
    assert found == expected
    assert len(short_way) == 39


#: What stands between good files, how many of the 20 behind it still go the short way, and whether
#: the archive is refused.
BREAKS: list[tuple[str, Callable[[Any], Any], int]] = [
    ("another mode", lambda made: made.file("d/x", b"x", mode=0o755), 19),
    ("set-user", lambda made: made.file("d/x", b"x", mode=0o4755), 19),
    ("a name of 100 bytes", lambda made: made.file("d/" + "n" * 98, b"x"), 20),
    ("a longer name", lambda made: made.file("d/" + "n" * 120, b"x"), 19),
    ("a directory below", lambda made: made.file("d/e/x", b"x"), 19),
    ("a hidden name", lambda made: made.file("d/.x", b"x"), 20),
    ("dots", lambda made: made.file("d/./x", b"x"), 19),
    ("slashes", lambda made: made.file("d//x", b"x"), 19),
    ("a whiteout", lambda made: made.file("d/.wh.x", b""), 19),
    ("a link", lambda made: made.link("d/x", "d/f3"), 19),
    ("a symbolic link", lambda made: made.symlink("d/x", "f3"), 19),
    ("a pipe", lambda made: made.fifo("d/x"), 19),
    ("an extended header", lambda made: made.file("d/x", b"x", xattrs=((b"user.a", b"1"),)), 19),
    ("a name that is no UTF-8", lambda made: made.file(b"d/\xff", b"x"), 19),  # extended header
    ("a name to be quoted", lambda made: made.file('d/"<', b"x"), 20),
    ("a whiteout's mark inside", lambda made: made.file("d/x.wh.y", b"x"), 20),
    ("a time of 1970", lambda made: made.file("d/x", b"x", mtime=0), 20),
    ("a time of 2242", lambda made: made.file("d/x", b"x", mtime=8**11 - 1), 20),
    ("no content", lambda made: made.file("d/x"), 20),
]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("what", "add", "after"), BREAKS, ids=[row[0] for row in BREAKS])
def test_what_is_different_goes_the_long_way(
    tmp_path: Path, scene: Any, what: str, add: Any, after: int, short_way: list[bytes]
) -> None:
    made = add(rows(scene, count=10))
    for number in range(20):
        made.file(f"d/g{number}", b"x" * number)
    found, expected = both(tmp_path, bytes(made))
    assert not expected.error
    assert found == expected
    assert sum(name.startswith(b"d/g") for name in short_way) == after


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("byte", [0xFF, 0x80, 0x22, 0x3C, 0x5C, 0x7F, 0x0A])
def test_names_of_any_bytes(tmp_path: Path, scene: Any, byte: int, short_way: list[bytes]) -> None:
    archive = bytearray(bytes(rows(scene)))
    at = archive.index(b"d/f33\0")
    archive[at + 3] = byte
    set_sum(archive, at)
    found, expected = both(tmp_path, bytes(archive))
    assert not expected.error
    assert found == expected
    assert b"d/f%c3" % byte in short_way


@pytest.mark.usefixtures("both_ways")
def test_padding_that_is_not_zeros_is_kept(tmp_path: Path, scene: Any) -> None:
    archive = bytearray(bytes(rows(scene)))
    for match in re.finditer(rb",\0+(?=d/f)", archive):
        archive[match.end() - 1] = 7
    found, expected = both(tmp_path, bytes(archive))
    assert not expected.error
    assert found == expected


def files(archive: bytes | bytearray) -> list[int]:
    """Where the headers of plain files are."""
    return [
        at for at in range(0, len(archive) - BLOCK, BLOCK)
        if archive[at + 257 : at + 262] == b"ustar" and archive[at + 156] == ord("0")
    ]  # fmt: skip


@pytest.mark.usefixtures("both_ways")
def test_the_name_of_another_file_is_recorded(tmp_path: Path, scene: Any) -> None:
    """It means nothing in a plain file's header, and the list has it all the same."""
    archive = bytearray(bytes(rows(scene)))
    for at in files(archive):
        archive[at + 157 : at + 162] = b"other"
        set_sum(archive, at)
    found, expected = both(tmp_path, bytes(archive))
    assert not expected.error
    assert found == expected


@pytest.mark.usefixtures("both_ways")
def test_a_sum_that_is_right_but_for_the_modulus_is_refused(tmp_path: Path, scene: Any) -> None:
    archive = bytearray(bytes(rows(scene)))
    for number, at in enumerate(files(archive)):
        archive[at + 157 : at + 345] = b"\xff" * 188
        archive[at + 346 : at + BLOCK] = b"\xff" * 166
        set_sum(archive, at)
        if number == 5:
            total = int(archive[at + 148 : at + 154], 8)
            archive[at + 148 : at + 154] = b"%06o" % (total - 65521)
    found, expected = both(tmp_path, bytes(archive))
    assert "the checksum does not agree" in expected.error
    assert found == expected


@pytest.mark.usefixtures("both_ways")
def test_a_path_twice_is_refused(tmp_path: Path, scene: Any, short_way: list[bytes]) -> None:
    found, expected = both(tmp_path, bytes(rows(scene).file("d/f7", b"again")))
    assert "duplicates of file paths" in expected.error
    assert found == expected
    assert len(short_way) == 39


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("most", [3, 4, 20, 42, 43, 44])
def test_entries_are_counted(tmp_path: Path, scene: Any, most: int) -> None:
    found, expected = both(tmp_path, bytes(rows(scene)), limits=Limits(max_entries=most))
    assert ("more than" in expected.error) == (most < 43)
    assert found == expected


@pytest.mark.usefixtures("both_ways")
def test_long_names_are_refused(tmp_path: Path, scene: Any) -> None:
    made = rows(scene).file("d/" + "n" * 30, b"x")
    found, expected = both(tmp_path, bytes(made), limits=Limits(max_name=31))
    assert "path of 32 bytes" in expected.error
    assert found == expected


def test_what_is_in_the_way_is_removed(tmp_path: Path, scene: Any, short_way: list[bytes]) -> None:
    """Over content that exists; a directory that goes may be one that is held open."""
    for name in ("short", "long"):
        (tmp_path / name / "d" / "f7" / "below").mkdir(parents=True)
        (tmp_path / name / "d" / "f9").symlink_to("f1")
        (tmp_path / name / "d" / "f11").write_text("older")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlib.Path.mkdir", lambda *_, **__: None)
        found, expected = both(tmp_path, bytes(rows(scene)))
    assert not expected.error
    assert found == expected
    assert len(short_way) >= 35


def test_a_full_disk_is_told_of_the_file(
    tmp_path: Path, scene: Any, monkeypatch: pytest.MonkeyPatch, short_way: list[bytes]
) -> None:
    real = extract.write_all

    def full(fd: int, view: memoryview) -> None:
        if bytes(view).startswith(b"30,"):
            raise OSError(28, "No space left on device")
        real(fd, view)

    monkeypatch.setattr(extract, "write_all", full)
    found = outcome(tmp_path / "short", bytes(rows(scene)), None)
    assert '"d/f30": No space left on device' in found.error
    assert short_way[-1] == b"d/f29"


def set_sum(archive: bytearray, at: int) -> None:
    """Make the checksum of the header at ``at`` right."""
    block = archive[at : at + 148] + b" " * 8 + archive[at + 156 : at + BLOCK]
    archive[at + 148 : at + 156] = b"%06o\0 " % sum(block)


def damaged(archive: bytes, seed: int) -> bytes:
    """A few bytes of headers and padding changed, checksums made right again or not."""
    noise = random.Random(seed)
    made = bytearray(archive)
    headers = [
        at for at in range(0, len(made) - BLOCK, BLOCK) if made[at + 257 : at + 262] == b"ustar"
    ]
    for _ in range(noise.randrange(1, 4)):
        at = noise.choice(headers)
        place = at + noise.choice((
            noise.randrange(BLOCK), noise.randrange(12), noise.randrange(100, 160),
            -noise.randrange(1, 80) if at > 80 else 0,
        ))  # fmt: skip
        made[place] = noise.choice((0, 1, 32, 45, 46, 47, 48, 49, 55, 56, 95, 97, 128, 255))
        if noise.random() < 0.7:
            set_sum(made, at)
    return bytes(made)


@pytest.mark.usefixtures("both_ways")
def test_damaged_headers_end_as_the_long_way(
    tmp_path: Path, scene: Any, short_way: list[bytes]
) -> None:
    """300 archives: the same error, or the same tree and records."""
    archive = bytes(rows(scene, "./d/", 20))
    errors = 0
    for seed in range(ROUNDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found, expected = both(folder, damaged(archive, seed))
        errors += bool(expected.error)
        assert found == expected, f"seed {seed}"
    assert ROUNDS // 10 < errors < ROUNDS * 9 // 10
    assert len(short_way) > ROUNDS * 3


def test_the_sum_of_a_block_is_never_taken_modulo() -> None:
    """``adler32`` counts modulo 65 521: more than the first 148 bytes can come to."""
    assert (zlib.adler32(b"\xff" * 148) & 0xFFFF) - 1 == 148 * 255
    assert (zlib.adler32(b"\xff" * 256) & 0xFFFF) - 1 == 256 * 255 < 65521
    assert BLOCK - 156 - 100 == 256  # of a header from its type on, without the other file's name
