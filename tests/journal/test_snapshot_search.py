"""Searching a snapshot: whatever the keys are like, a scan gives what a sorted list gives."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

import pytest

from journal import snapshot, snapshot_writer
from journal.digest import StateDigest
from journal.errors import SnapshotRefused, UnsupportedFormat
from journal.fs import REAL, OsFs
from journal.position import Position


def made(path: Path, keys: list[bytes], longest: int = 40) -> snapshot.Snapshot:
    """A snapshot file of these keys; a value is the key backwards, some of them long."""
    records = [(key, key[::-1] * (1 + key[-1] % longest)) for key in sorted(keys)]
    digest = StateDigest()
    for record in records:
        digest.add(*record)
    snapshot_writer.write(
        REAL,
        str(path),
        records,
        uuid=bytes(16),
        position=Position(1, 0, 0, bytes(32)),
        schema=1,
        reducer_version=1,
        digest=digest.value(),
        time_ns=0,
    )
    return snapshot.Snapshot(REAL, str(path))


def hashes(count: int, letter: str = "L", salt: str = "") -> list[bytes]:
    return [
        f"{letter}{hashlib.sha256(f'{salt}{number}'.encode()).hexdigest()}".encode()
        for number in range(count)
    ]


KEYS = {
    "hashes": hashes(2500),
    "hashes of several kinds": hashes(2000) + hashes(300, "I") + hashes(7, "C") + hashes(999, "X"),
    "clusters": [b"L00" + key[1:] for key in hashes(2000)] + hashes(50),
    "one beginning": [b"L" + b"a" * 40 + str(number).encode() for number in range(3000)],
    "words": [f"N{number:05}-name".encode() for number in range(3000)],
    "words among hashes": hashes(1500) + [f"Lword {number}".encode() for number in range(1500)],
    "capitals": [key.upper() for key in hashes(1500)] + hashes(1500),
    "numbers": [b"O" + number.to_bytes(8, "big") for number in range(3000)],
    "signs": [f"L{sign}{number}".encode() for sign in "+-_ " for number in range(500)],
    "few": hashes(5),
    "none": [],
}


@pytest.mark.parametrize("name", KEYS)
def test_a_scan_gives_what_a_sorted_list_gives(tmp_path, name):
    keys = sorted(KEYS[name])
    chance = random.Random(name)
    with made(tmp_path / "snap", keys) as found:
        prefixes = [b"", b"L", b"M", b"\xff", b"Lg", b"L" + b"f" * 64, b"L0", b"L00"]
        prefixes += [chance.choice(keys)[: chance.randrange(1, 20)] for _ in range(30) if keys]
        prefixes += hashes(20, salt="absent")
        for prefix in prefixes:
            wanted = [key for key in keys if key.startswith(prefix)]
            assert [key for key, _ in found.scan(prefix)] == wanted, prefix
            assert [key for key, _ in found.scan(prefix, reverse=True)] == wanted[::-1], prefix
            assert found._bisect(prefix) == bisect_left(keys, prefix)
        for key in chance.sample(keys, min(len(keys), 200)):
            assert found.get(key) == key[::-1] * (1 + key[-1] % 40)
            assert found.get(key + b"x") is None
        found.prove_all()


class Counting(OsFs):
    """Notes every read."""

    def __init__(self) -> None:
        self.reads: list[int] = []

    def pread(self, fd: int, size: int, offset: int, /) -> bytes:  # type: ignore[override]
        self.reads.append(size)
        return REAL.pread(fd, size, offset)


def test_a_hash_is_found_with_a_few_reads(tmp_path):
    """However many there are; halving takes two reads more whenever they double."""
    reads = {}
    for count in (20, 1000, 16_000):
        made(tmp_path / f"{count}", hashes(count), longest=4).close()
        fs = Counting()
        with snapshot.Snapshot(fs, str(tmp_path / f"{count}")) as found:
            found._bisect(b"L0")  # where the kind begins is looked for once
            fs.reads.clear()
            for one in hashes(200, salt="absent"):
                found._bisect(one[:14])
            reads[count] = len(fs.reads) / 200
    assert reads[20] == 2
    assert reads[1000] < 5, reads
    assert reads[16_000] < 6.5, reads


@pytest.mark.parametrize("count", [10, 1000, 20_000])
def test_a_look_reads_the_same_in_a_file_of_any_size(tmp_path, count):
    """A bucket and a record for what is there, a bucket for what is not, a filter for a beginning
    that no key has; seldom one bucket more, seldom a record in vain."""
    keys = hashes(count)
    made(tmp_path / "snap", keys, longest=1).close()
    fs = Counting()
    with snapshot.Snapshot(fs, str(tmp_path / "snap")) as found:
        asked = [keys[number * 7919 % count] for number in range(300)]
        absent = hashes(300, salt="absent")

        def reads(look: Callable[[bytes], object], wanted: list[bytes]) -> float:
            fs.reads.clear()
            for key in wanted:
                look(key)
            return len(fs.reads) / len(wanted)

        assert 2 <= reads(found.get, asked) < 2.2
        assert 1 <= reads(found.get, absent) < 1.1
        list(found.scan(b"L0"))  # where the kind begins is looked for once
        assert 1 <= reads(lambda key: list(found.scan(key[:13])), absent) < 1.4


def test_keys_that_share_a_bucket_are_all_found(tmp_path):
    """One after the other they go into the next bucket, the last one into the first."""
    wanted = 3 * snapshot.PLACES
    count = 2 * wanted
    buckets = -(-count // snapshot_writer.FILL)
    chosen: list[bytes] = []
    others: list[bytes] = []
    for key in hashes(40 * count):
        last = int.from_bytes(snapshot.hashed(key), "little") % buckets == buckets - 1
        if last and len(chosen) < wanted:
            chosen.append(key)
        elif not last and len(others) < count - wanted:
            others.append(key)
    assert (len(chosen), len(others)) == (wanted, count - wanted)
    with made(tmp_path / "snap", chosen + others) as found:
        for key in chosen + others:
            assert found.get(key) is not None
        for key in hashes(2000, salt="absent"):
            assert found.get(key) is None
        found.prove_all()


@pytest.mark.parametrize("part", ["record", "offset", "bucket", "filter", "meta"])
def test_a_damaged_part_is_never_answered_from(tmp_path, part):
    """Also when it was read before: it is proved whenever it is read."""
    keys = hashes(3000)
    path = tmp_path / "snap"
    with made(path, keys) as found:
        assert found.get(keys[7]) is not None
        whole = path.read_bytes()
        number = int.from_bytes(snapshot.hashed(keys[7]), "little")
        index = sorted(keys).index(keys[7])
        begin = int.from_bytes(snapshot.hashed(keys[7][: snapshot.PREFIX]), "little")
        bucket = found._buckets_at + snapshot.BUCKET * (number % found._buckets)
        known = found._filters_at + snapshot.FILTER * (begin % found._filters)
        meta = found._filters_at + snapshot.FILTER * found._filters
        looks: dict[str, tuple[int, int, Callable[[], object]]] = {
            "record": (whole.find(keys[7]) - 16, 16 + 65, lambda: found.get(keys[7])),
            "offset": (found._offsets_at + 8 * index, 8, lambda: found._key(index)),
            "bucket": (bucket, snapshot.BUCKET, lambda: found.get(keys[7])),
            "filter": (known, snapshot.FILTER, lambda: list(found.scan(keys[7][:12]))),
            "meta": (meta, 1, lambda: snapshot.Snapshot(REAL, str(path))),
        }
        at, size, look = looks[part]
        for byte in range(at, at + size):
            data = bytearray(whole)
            data[byte] ^= 1 << byte % 8
            path.write_bytes(data)
            with pytest.raises(snapshot.SnapshotRefused):
                look()


def test_a_file_of_another_version_is_told_from_a_damaged_one(tmp_path):
    made(tmp_path / "snap", hashes(5)).close()
    data = bytearray((tmp_path / "snap").read_bytes())
    data[7] = 1
    (tmp_path / "snap").write_bytes(data)
    with pytest.raises(UnsupportedFormat, match="another version"):
        snapshot.Snapshot(REAL, str(tmp_path / "snap"))


def test_long_records_are_read_whole_both_ways(tmp_path):
    keys = [b"k%02d" % number for number in range(30)]
    records = [(key, key * (10_000 * (number % 7))) for number, key in enumerate(keys)]
    digest = StateDigest()
    for record in records:
        digest.add(*record)
    snapshot_writer.write(
        REAL, str(tmp_path / "snap"), records, uuid=bytes(16),
        position=Position(1, 0, 0, bytes(32)), schema=1, reducer_version=1,
        digest=digest.value(), time_ns=0, meta=[1, "x"],
    )  # fmt: skip
    with snapshot.Snapshot(REAL, str(tmp_path / "snap")) as found:
        assert list(found.items()) == records
        assert list(found.scan(reverse=True)) == records[::-1]
        assert [found.get(key) for key in keys] == [value for _, value in records]
        assert found.described.meta == [1, "x"]
        found.prove_all()


@pytest.mark.parametrize("close", [0, 1 << 30])
@pytest.mark.parametrize("kind", KEYS)
def test_many_looks_give_what_one_after_the_other_give(
    tmp_path: Path, kind: str, close: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read one by one and in large pieces; what is there, what is not, and all of it."""
    monkeypatch.setattr(snapshot, "CLOSE", close)
    found = made(tmp_path / "s", KEYS[kind])
    absent = hashes(200, salt="absent")
    for asked in (KEYS[kind] + absent, KEYS[kind][::7], absent, KEYS[kind][:1], []):
        wanted = {key: value for key in asked if (value := found.get(key)) is not None}
        assert found.get_many(asked) == wanted
        assert set(wanted) == set(asked) & set(KEYS[kind])


@pytest.mark.parametrize("close", [0, 1 << 30])
def test_many_looks_refuse_what_is_damaged(
    tmp_path: Path, close: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bit flipped anywhere: the right answer or none."""
    monkeypatch.setattr(snapshot, "CLOSE", close)
    keys = hashes(40)
    made(tmp_path / "s", keys, longest=3).close()
    whole = (tmp_path / "s").read_bytes()
    right = {key: key[::-1] * (1 + key[-1] % 3) for key in keys}
    refused = 0
    for at in range(snapshot.HEADER_SIZE, len(whole) - snapshot.FOOTER.size, 11):
        (tmp_path / "s").write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            with snapshot.Snapshot(REAL, str(tmp_path / "s")) as found:
                assert found.get_many(keys) == right
        except SnapshotRefused:
            refused += 1
    assert refused > len(keys) * 8


def test_a_search_refuses_what_is_damaged(tmp_path: Path) -> None:
    """A bit flipped in a record or in its offset: what begins like that, or none."""
    keys = sorted(hashes(40))
    with made(tmp_path / "s", keys, longest=3) as found:
        end = found._buckets_at
    whole = (tmp_path / "s").read_bytes()
    refused = 0
    for at in range(snapshot.HEADER_SIZE, end, 23):
        (tmp_path / "s").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with snapshot.Snapshot(REAL, str(tmp_path / "s")) as found:
            for key in keys[::5]:
                try:
                    assert [one for one, _ in found.scan(key[:12])] == [key]
                except SnapshotRefused:
                    refused += 1
    assert refused > len(range(snapshot.HEADER_SIZE, end, 23)) / 2
