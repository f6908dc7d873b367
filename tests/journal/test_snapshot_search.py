"""Searching a snapshot: whatever the keys are like, a scan gives what a sorted list gives."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left
from pathlib import Path

import pytest

from journal import snapshot
from journal.digest import StateDigest
from journal.fs import REAL
from journal.position import Position


def made(path: Path, keys: list[bytes]) -> snapshot.Snapshot:
    """A snapshot file of these keys; a value is the key backwards, some of them long."""
    records = [(key, key[::-1] * (1 + key[-1] % 40)) for key in sorted(keys)]
    digest = StateDigest()
    for record in records:
        digest.add(*record)
    snapshot.write(
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


def test_a_hash_is_found_in_a_few_looks(tmp_path):
    """However many there are; halving takes a look more whenever they double."""
    looks = {}
    for count in (1000, 16_000):
        keys = hashes(count)
        with made(tmp_path / f"{count}", keys) as found:
            found._bisect(keys[0])  # where the kind begins is looked for once
            counted = []
            whole = found._key

            def key(index, counted=counted, whole=whole):
                counted.append(index)
                return whole(index)

            found._key = key  # type: ignore[method-assign]
            wanted = hashes(200, salt="absent")
            for one in wanted:
                found._bisect(one[:14])
            looks[count] = len(counted) / len(wanted)
    assert looks[16_000] < 12, looks
    assert looks[16_000] < looks[1000] + 3, looks


def test_no_more_blocks_are_kept_than_it_says(tmp_path):
    keys = hashes(20_000)
    with made(tmp_path / "snap", keys) as found:
        for key in keys[::3]:
            assert found.get(key) is not None
        assert len(found._blocks) <= snapshot.KEPT
        assert len(found._sums) > 2 * snapshot.KEPT


def test_a_damaged_block_is_never_answered_from(tmp_path):
    """Also when it was read before: it is proved again whenever it is read."""
    keys = hashes(3000)
    with made(tmp_path / "snap", keys) as found:
        assert found.get(keys[7]) is not None
        path = tmp_path / "snap"
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(path.read_bytes().find(keys[7]) + 70)
            file.write(b"\0\0\0")
        found._blocks.clear()
        with pytest.raises(snapshot.SnapshotRefused, match="damaged"):
            found.get(keys[7])
