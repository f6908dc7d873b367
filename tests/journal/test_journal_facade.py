"""The public API does what docs/journal.md says."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import journal
from journal import Journal
from journal import frame as fr
from journal.digest import StateDigest
from journal.verify import verify


def make(path: Path, **options: object) -> Journal:
    return Journal.open(path / "j", "w", create=True, reserve_bytes=0, **options)  # type: ignore[arg-type]


def events(opened: Journal) -> list[object]:
    return [e for f in opened.frames() if f.kind == fr.DATA for e in f.transaction().events]


def test_the_ten_lines_of_the_page_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "journal.md").read_text()
    first = page.split("```python\n")[1].split("```")[0]
    (second,) = [part for part in page.split("```python\n") if "snapshot.scan()" in part]
    monkeypatch.chdir(tmp_path)
    exec(compile(first, "journal.md", "exec"), {})
    assert capsys.readouterr().out == "1 2\n{'anna': 70, 'ben': 20}\n"
    for _ in range(2):  # by replay, from the snapshot
        exec(compile(second.split("```")[0], "journal.md", "exec"), {})
        assert capsys.readouterr().out == "{b'anna': 70, b'ben': 20}\n"
    assert verify("demo-journal", "strict").snapshots == 2


def test_a_commit_is_read_back_by_another_object(tmp_path: Path) -> None:
    with make(tmp_path) as j:
        done = j.commit([["a", 1], ["b", b"x"]], actor=[0, 1], reason="why", schema=3)
        assert (done.first_sequence, done.last_sequence) == (1, 2)
        with Journal.open(tmp_path / "j") as other:
            (frame,) = [f for f in other.frames() if f.kind == fr.DATA]
            said = frame.transaction()
            assert (said.schema, said.actor, said.reason) == (3, [0, 1], "why")
            assert said.events == [["a", 1], ["b", b"x"]]
            assert frame.end == done.position == other.position


def test_expected_conflicts_write_nothing(tmp_path: Path) -> None:
    with make(tmp_path) as j:
        j.commit([["a"]], expected=0)
        before = j.position
        with pytest.raises(journal.Conflict) as caught:
            j.commit([["b"]], expected=0)
        assert (caught.value.expected, caught.value.actual) == (0, 1)
        assert j.position == before


def test_a_given_txid_is_refused_twice_even_across_objects(tmp_path: Path) -> None:
    txid = os.urandom(16)
    with make(tmp_path) as j:
        j.commit([["a"]], txid=txid)
    with make(tmp_path) as j, pytest.raises(journal.DuplicateTransaction):
        j.commit([["a"]], txid=txid)


def test_rotation_keeps_sequence_and_chain(tmp_path: Path) -> None:
    with make(tmp_path, segment_bytes=4096) as j:
        for i in range(200):
            j.commit([["n", i, "x" * 40]])
        assert j.position.segment > 5
        assert events(j) == [["n", i, "x" * 40] for i in range(200)]


def test_reader_position_resumes_exactly(tmp_path: Path) -> None:
    with make(tmp_path, segment_bytes=4096) as j:
        for i in range(100):
            j.commit([["n", i]])
        reader = j.reader()
        seen = []
        for frame in reader.read_new():
            seen.append(frame)
            if len(seen) == 37:
                break
        rest = list(j.reader(reader.position).read_new())
        assert [*seen, *rest] == list(j.frames())
        assert list(reader.read_new()) == rest
        assert not reader.changed()
        j.commit([["new"]])
        assert reader.changed()


def test_writer_block_catches_up_with_other_processes(tmp_path: Path) -> None:
    with make(tmp_path) as one, make(tmp_path) as two:
        for i in range(10):
            with one.writer() as w:
                assert w.tail.sequence == 2 * i
                w.commit([["one", i]], expected=2 * i)
            two.commit([["two", i]], expected=2 * i + 1)
        assert len(events(one)) == 20


def test_threads_share_syncs_and_lose_nothing(tmp_path: Path) -> None:
    with make(tmp_path) as j:
        results: list[int] = []

        def work(name: int) -> None:
            for i in range(20):
                results.append(j.commit([[name, i]]).first_sequence)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert sorted(results) == list(range(1, 161))
        assert len(events(j)) == 160


def test_lock_timeout_names_the_holder(tmp_path: Path) -> None:
    refused = pytest.raises(journal.LockTimeout, match=f"pid {os.getpid()}")
    with make(tmp_path) as one, make(tmp_path) as two, one.writer(), refused:
        two.commit([["x"]], timeout_s=0.02)


def test_read_mode_never_writes_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(journal.JournalNotFound, match="create=True"):
        Journal.open(tmp_path / "none")
    make(tmp_path).close()
    before = sorted((e.name, e.stat().st_mtime_ns) for e in os.scandir(tmp_path / "j"))
    with Journal.open(tmp_path / "j") as j:
        assert list(j.frames()) == []
        with pytest.raises(journal.JournalReadOnly):
            j.commit([["x"]])
    assert before == sorted((e.name, e.stat().st_mtime_ns) for e in os.scandir(tmp_path / "j"))


def test_a_forked_child_cannot_use_or_hold_the_journal(tmp_path: Path) -> None:
    with make(tmp_path) as j:
        j.commit([["a"]])
        with j.writer() as w:
            child = os.fork()
            if child == 0:
                try:
                    w.commit([["from the child"]])
                except journal.JournalClosed:
                    os._exit(7)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        j.commit([["b"]])
        assert events(j) == [["a"], ["b"]]


def test_a_snapshot_is_trusted_only_by_its_rules(tmp_path: Path) -> None:
    with make(tmp_path) as j:
        place = j.commit([["a"]]).position
        items = sorted((b"key%d" % i, b"value%d" % i) for i in range(5000))
        digest = StateDigest()
        for key, value in items:
            digest.add(key, value)
        said = j.snapshots.write(
            items, position=place, schema=1, reducer_version=2, digest=digest.value(), meta=["m"]
        )
        with j.snapshots.open_trusted(schema=1, reducer_version=2) as snap:
            assert snap.position == place
            assert snap.described == said
            snap.prove_all()
            assert snap.get(b"key77") == b"value77"
            assert snap.get(b"nothing") is None
            assert list(snap.scan(b"key1")) == [i for i in items if i[0].startswith(b"key1")]
            assert list(snap.scan(b"key1", reverse=True)) == [
                i for i in reversed(items) if i[0].startswith(b"key1")
            ]
            assert next(snap.scan(b"key", start=b"key42"))[0] == b"key42"
        assert j.snapshots.open_trusted(schema=1, reducer_version=3) is None
        assert j.snapshots.open_trusted(schema=2, reducer_version=2) is None


def test_a_process_that_commits_once_syncs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path).close()
    from journal.fs import OsFs

    calls: list[int] = []

    class Counting(OsFs):
        def fdatasync(self, fd: int) -> None:  # type: ignore[override]
            calls.append(fd)
            os.fdatasync(fd)

    for _ in range(3):
        calls.clear()
        with make(tmp_path, fs=Counting()) as j:
            j.commit([["a"]])
        assert len(calls) == 1


@pytest.mark.parametrize("bad", [1.5, {1: 2}, object(), 1 << 64, {"a"}, "\ud800"])
def test_values_outside_the_format_are_refused(tmp_path: Path, bad: object) -> None:
    with make(tmp_path) as j:
        with pytest.raises(journal.InvalidRecord):
            j.commit([["x", bad]])
        assert j.position.sequence == 0
