"""What one process does while another prunes, archives, snapshots, writes or closes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from journal import Journal, JournalClosed, JournalDamaged, ResyncRequired
from journal import frame as fr
from journal import segment as sg
from journal.archive import archive, prune
from journal.digest import StateDigest
from journal.fs import OsFs
from journal.repair import repair
from journal.stat import stat
from journal.verify import verify


def opened(root: Path, **options: object) -> Journal:
    options = {"segment_bytes": 4096, "reserve_bytes": 0, "durability": "none"} | options
    return Journal.open(root, "w", create=True, **options)  # type: ignore[arg-type]


def commits(log: Journal, count: int) -> None:
    for number in range(count):
        log.commit([["n", number, "x" * 100]])


def snapshot(log: Journal, items: Iterator[tuple[bytes, bytes]] | tuple[()] = ()) -> None:
    with log.writer() as writer:
        place = writer.tail
    log.snapshots.write(
        items, position=place, schema=1, reducer_version=1, digest=StateDigest().value()
    )


def prunable(root: Path) -> Journal:
    """A journal of which two snapshots cover several segments."""
    log = opened(root)
    for _ in range(2):
        commits(log, 60)
        snapshot(log)
    commits(log, 5)
    return log


class After(OsFs):
    """Does something once, right after a call of a given name on a path with a given part."""

    def __init__(self, call: str, part: str, then: Callable[[], object]) -> None:
        self._call, self._part, self._then = call, part, then
        self.done = False

    def _did(self, call: str, path: str) -> None:
        if call == self._call and self._part in path and not self.done:
            self.done = True
            self._then()

    def listdir(self, path: str) -> list[str]:  # type: ignore[override]
        found = os.listdir(path)
        self._did("listdir", path)
        return found

    def rename(self, old: str, new: str) -> None:  # type: ignore[override]
        os.rename(old, new)
        self._did("rename", new)

    def stat(self, path: str) -> os.stat_result:  # type: ignore[override]
        self._did("stat", path)
        return os.stat(path)

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:  # type: ignore[override]
        fd = os.open(path, flags, mode)
        self._did("open", path)
        return fd


def test_a_reader_that_begins_while_the_oldest_segments_go(tmp_path: Path) -> None:
    with prunable(tmp_path / "log") as log:
        fs = After("listdir", "/segments", lambda: prune(log))
        with Journal.open(tmp_path / "log", fs=fs) as other, other.reader() as reader:
            assert fs.done
            assert reader.position.segment > 1
            assert [f.link for f in reader.read_new()] == [f.link for f in log.frames()]


def test_a_missing_oldest_segment_is_not_looked_for_for_ever(tmp_path: Path) -> None:
    with prunable(tmp_path / "log"):
        pass

    class Gone(OsFs):
        def open(self, path: str, flags: int, mode: int = 0o644) -> int:  # type: ignore[override]
            if path.endswith(sg.name(1)):
                raise FileNotFoundError(2, "gone", path)
            return os.open(path, flags, mode)

    with Journal.open(tmp_path / "log", fs=Gone()) as log, pytest.raises(FileNotFoundError):
        log.reader()


@pytest.mark.parametrize("level", ["quick", "full"])
def test_verify_while_the_oldest_segments_go(tmp_path: Path, level: str) -> None:
    with prunable(tmp_path / "log") as log:
        fs = After("listdir", "/segments", lambda: None)
        listings = 0

        def second() -> None:  # the first listing says what is the oldest, the second is walked
            nonlocal listings
            listings += 1
            fs.done = listings > 1
            if fs.done:
                prune(log)

        fs._then = second
        report = verify(str(tmp_path / "log"), level, fs=fs)
        assert fs.done
        assert (report.exit_code, [f.weight for f in report.findings if f.weight != "notice"]) == (
            0,
            [],
        )


def test_a_pruning_cut_short_explains_itself_and_is_finished(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Kill(OsFs):
        left = 2

        def unlink(self, path: str) -> None:  # type: ignore[override]
            if path.endswith(".seg"):
                self.left -= 1
                if self.left < 0:
                    raise Killed
            os.unlink(path)

    root = tmp_path / "log"
    prunable(root).close()
    with opened(root, fs=Kill()) as log, pytest.raises(Killed):
        prune(log)
    report = verify(str(root))
    assert report.exit_code == 0
    assert "cut short" in next(f.text for f in report.findings if f.rule == "pruned")
    assert repair(str(root)).steps == ()
    with opened(root) as log:
        assert prune(log)[0] == 3
    assert "cut short" not in str(verify(str(root)).findings)


def test_segments_that_go_without_a_prune_frame_are_damage(tmp_path: Path) -> None:
    root = tmp_path / "log"
    prunable(root).close()
    (root / "segments" / sg.name(1)).unlink()
    assert verify(str(root)).exit_code == 2
    with prunable(tmp_path / "other") as log:
        kept = prune(log)[-1] + 1
    assert verify(str(tmp_path / "other")).exit_code == 0
    (tmp_path / "other" / "segments" / sg.name(kept)).unlink()  # more than the frame says
    assert verify(str(tmp_path / "other")).exit_code == 2


def test_an_append_in_progress_is_not_torn(tmp_path: Path) -> None:
    """Verify sees half a frame, and a moment later the whole one."""
    root = tmp_path / "log"
    with opened(root) as log:
        commits(log, 3)
    path = root / "segments" / sg.name(1)
    whole = path.read_bytes()
    with opened(root) as log:
        log.commit([["the frame that is being written"]])
    grown = path.read_bytes()
    path.write_bytes(grown[: len(whole) + 50])
    assert verify(str(root)).exit_code == 1

    class Slow:
        def __getattr__(self, name: str) -> object:
            from journal import clock

            return getattr(clock.REAL, name)

        def sleep(self, seconds: float) -> None:
            path.write_bytes(grown)

    assert verify(str(root), clock=Slow()).exit_code == 0  # type: ignore[arg-type]


def test_a_successor_made_between_two_looks_is_not_missing(tmp_path: Path) -> None:
    """Verify finds no successor of the sealed segment; then there are two."""
    root = tmp_path / "log"
    with opened(root) as log:
        commits(log, 3)
        with log.writer() as writer:
            writer.rotate()
        (root / "segments" / sg.name(2)).unlink()
    log = opened(root)

    class Late(OsFs):
        looks = 0

        def open(self, path: str, flags: int, mode: int = 0o644) -> int:  # type: ignore[override]
            try:
                return os.open(path, flags, mode)
            except FileNotFoundError:
                if path.endswith(sg.name(2)) and not self.looks:
                    self.looks += 1
                    commits(log, 60)
                raise

    fs = Late()
    assert verify(str(root), fs=fs).exit_code == 0
    assert fs.looks
    log.close()


def test_stat_while_segments_are_archived(tmp_path: Path) -> None:
    with prunable(tmp_path / "log") as log:
        fs = After("stat", ".seg", lambda: archive(log))
        with Journal.open(tmp_path / "log", fs=fs) as other:
            assert stat(other)["bytes"] > 0
        assert fs.done


def test_maintain_leaves_a_snapshot_that_another_process_is_writing(tmp_path: Path) -> None:
    """At both moments: while its file is written, and before the log names it."""
    with opened(tmp_path / "log") as log, opened(tmp_path / "log") as other:
        commits(log, 3)

        def items() -> Iterator[tuple[bytes, bytes]]:
            yield b"a", b"1"
            other.snapshots.maintain(1)
            yield b"b", b"2"

        snapshot(log, items())
        assert len(log.snapshots.trusted()) == 1

    fs = After("rename", ".snap", lambda: third.snapshots.maintain(1))
    with opened(tmp_path / "log", fs=fs) as log, opened(tmp_path / "log") as third:
        commits(log, 3)
        snapshot(log, iter([(b"c", b"3")]))
        assert fs.done
        with log.snapshots.open_trusted(schema=1, reducer_version=1) as newest:  # type: ignore[union-attr]
            assert dict(newest.items()) == {b"c": b"3"}


def test_maintain_removes_what_a_crash_left_an_hour_ago(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as log:
        commits(log, 3)
        snapshot(log)
        for name in (".new-1.tmp", "snap-00000000000000000001-00.snap"):
            path = tmp_path / "log" / "snapshots" / name
            path.write_bytes(b"half")
            os.utime(path, (0, 0))
        assert len(log.snapshots.maintain(1)) == 2
        assert len(log.snapshots.trusted()) == 1


def test_without_its_beginning_a_log_needs_a_snapshot(tmp_path: Path) -> None:
    """Replaying what is left would silently give another state."""
    with prunable(tmp_path / "log") as log:
        assert log.snapshots.open_trusted(schema=2, reducer_version=1) is None
        assert prune(log)
        with pytest.raises(JournalDamaged, match="schema 2 and reducer version 1"):
            log.snapshots.open_trusted(schema=2, reducer_version=1)
        empty = log.snapshots.open_trusted(schema=1, reducer_version=1)
        assert empty  # of an empty state, and yet a snapshot
        assert len(empty) == 0
        empty.close()


def test_an_unreadable_snapshot_leads_to_the_older_one(tmp_path: Path) -> None:
    with prunable(tmp_path / "log") as log:
        newest, older = log.snapshots.trusted()

        class Bad(OsFs):
            def open(self, path: str, flags: int, mode: int = 0o644) -> int:  # type: ignore[override]
                if path.endswith(newest):
                    raise OSError(5, "Input/output error", path)
                return os.open(path, flags, mode)

        with Journal.open(tmp_path / "log", fs=Bad()) as other:
            found = other.snapshots.open_trusted(schema=1, reducer_version=1)
            assert found is not None
            assert found.path.endswith(older)
            found.close()


def test_a_damaged_snapshot_neither_counts_nor_stands_in_the_way_of_pruning(
    tmp_path: Path,
) -> None:
    with prunable(tmp_path / "log") as log:
        snapshot(log, iter([(b"key", b"value")]))  # its digest is not that of its records
        assert len(log.snapshots.trusted()) == 3
        gone = prune(log)
        assert gone
        older = log.snapshots.trusted()[2]
        with log.snapshots.open_one(older) as found:
            assert gone[-1] == found.position.segment - 1


@pytest.mark.parametrize("hints", [True, False])
def test_closing_ends_the_watchers_of_other_threads(tmp_path: Path, hints: bool) -> None:
    for _ in range(15):
        log = opened(tmp_path / "log")
        ends: list[BaseException] = []
        watcher = log.watch(hints=hints, heartbeat_s=0.02)

        def follow(watcher: object = watcher, ends: list[BaseException] = ends) -> None:
            try:
                for _ in watcher:  # type: ignore[attr-defined]
                    pass
            except BaseException as error:
                ends.append(error)

        thread = threading.Thread(target=follow)
        thread.start()
        commits(log, 5)
        log.close()
        thread.join(5)
        watcher.close()
        assert not thread.is_alive()
        assert [type(end) for end in ends] == [JournalClosed]


def test_a_reader_closed_while_it_reads_says_so(tmp_path: Path) -> None:
    """The descriptor goes between two calls of another thread."""
    log = opened(tmp_path / "log")
    commits(log, 3)

    class Closing(OsFs):
        def fstat(self, fd: int) -> os.stat_result:  # type: ignore[override]
            other.close()
            return os.fstat(fd)

    fs = OsFs()
    other = Journal.open(tmp_path / "log", fs=fs)
    reader = other.reader()
    reader._cursor.handle._fs = Closing()  # type: ignore[union-attr]
    with pytest.raises(JournalClosed):
        reader.read_batch()
    log.close()


def test_threads_may_ask_for_the_position_at_once(tmp_path: Path) -> None:
    """Two threads in one reader would skip or repeat what the other has read."""
    with (
        opened(tmp_path / "log", segment_bytes=1 << 20) as log,
        Journal.open(tmp_path / "log") as other,
    ):
        inside = 0
        overlapping = []
        original = other.reader

        def reader(start: object = None) -> object:
            found = original(start)  # type: ignore[arg-type]
            real = found.read_batch

            class Watched:
                position = found.position

                def read_batch(self) -> list[fr.Frame]:
                    nonlocal inside
                    inside += 1
                    overlapping.append(inside)
                    batch = real()
                    inside -= 1
                    return batch

            return Watched()

        other.reader = reader  # type: ignore[method-assign, assignment]
        commits(log, 50)
        threads = [
            threading.Thread(target=lambda: [other.position for _ in range(300)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        commits(log, 300)
        for thread in threads:
            thread.join()
        assert max(overlapping) == 1


def test_a_sealed_segment_replaced_under_a_reader(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as log:
        commits(log, 3)
        reader = log.reader()
        list(reader.read_new())
        path = tmp_path / "log" / "segments" / sg.name(1)
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        with pytest.raises(ResyncRequired):
            list(reader.read_new())
