"""What a file of the journal says is not believed for having the right checksum only."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import InvalidRecord, Journal, SnapshotRefused
from journal import frame as fr
from journal.checksum import extender, preferred
from journal.codec import encode
from journal.digest import StateDigest
from journal.snapshot import FOOTER


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open(str(tmp_path / "j"), "w", create=True, reserve_bytes=0)


def test_any_bit_of_a_snapshots_footer_leads_to_the_next_older_one(journal: Journal) -> None:
    """Offsets that no file can have are a damaged snapshot, not an error of the system."""
    for number in (1, 2):
        journal.commit([["e", number]])
        journal.snapshots.write([(b"key", b"%d" % number)], position=journal.position, schema=1,
                                reducer_version=1, digest=StateDigest().value())  # fmt: skip
    newest = Path(journal.snapshots.folder) / journal.snapshots.trusted()[0]
    whole = newest.read_bytes()
    for bit in range(FOOTER.size * 8):
        data = bytearray(whole)
        data[len(whole) - FOOTER.size + bit // 8] ^= 1 << bit % 8
        newest.write_bytes(data)
        with pytest.raises(SnapshotRefused):
            journal.snapshots.open_one(newest.name)
        found = journal.snapshots.open_trusted(schema=1, reducer_version=1)
        assert found is not None
        assert found.get(b"key") == b"1"
        found.close()


@pytest.mark.parametrize("kind", [fr.GAP, fr.SEAL])
@pytest.mark.parametrize(
    "body", [None, 7, "text", {}, [], [1], [1, "2"], [1, 2, "", 4, 5], [1, 2, "", None, 5]]
)
def test_a_gap_or_seal_with_another_body_is_an_invalid_record(kind: int, body: object) -> None:
    extend = extender(preferred())
    link = bytes(32)
    data, _ = fr.build(extend, 1, 128, link, kind=kind, first_sequence=1, count=0, promise=128,
                       time_ns=0, body=encode(body))  # fmt: skip
    try:
        run = fr.parse(data, 128, 1, 1, extend, 0, link, None)
    except InvalidRecord:
        return
    # A seal of few words says nothing of a chain to go on from.
    assert kind == fr.SEAL
    assert isinstance(body, list)
    assert run.frames == 1
