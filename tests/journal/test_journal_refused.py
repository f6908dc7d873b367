"""Who may not write: after failed syncs of others, with unknown features, without the lock."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from journal import (
    Journal,
    JournalError,
    JournalSuspect,
    LockTimeout,
    UnsupportedFormat,
    WriterPoisoned,
)
from journal import frame as fr
from journal import segment as sg
from journal.backend import FileBackend, MemoryBackend
from journal.checksum import extender
from journal.codec import encode
from journal.errors import InvalidRecord, ResyncRequired
from journal.fs import OsFs
from journal.repair import clear_suspect
from journal.verify import verify


class Device(OsFs):
    """Whose syncs fail when ``broken``, of whatever file."""

    broken = False

    def fdatasync(self, fd: int) -> None:  # type: ignore[override]
        if self.broken:
            raise OSError(5, "Input/output error")
        os.fdatasync(fd)

    def sync_directory(self, path: str) -> None:
        if self.broken:
            raise OSError(5, "Input/output error")
        super().sync_directory(path)


def make(root: Path, **options: object) -> Journal:
    return Journal.open(root, "w", create=True, reserve_bytes=0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("rotated", [False, True])
def test_a_failed_sync_stops_writers_that_were_at_it_before(tmp_path: Path, rotated: bool) -> None:
    """The frame that one could not sync is visible to the others, and perhaps nowhere else. A
    descriptor opened later (after a rotation) would not even report the error."""
    device = Device()
    with make(tmp_path / "log", fs=device) as failing, make(tmp_path / "log") as other:
        other.commit([["other"]])
        failing.commit([["before"]])
        if rotated:
            with failing.writer() as writer:
                writer.rotate()
        device.broken = True
        with pytest.raises(WriterPoisoned):
            failing.commit([["lost?"]])
        device.broken = False
        assert (tmp_path / "log" / "SUSPECT").exists()
        with pytest.raises(JournalSuspect, match="clear-suspect"):
            other.commit([["on top"]])
        with pytest.raises(JournalSuspect):
            make(tmp_path / "log").commit([["on top"]])
        assert verify(str(tmp_path / "log")).exit_code == 2
        clear_suspect(str(tmp_path / "log"))
        assert other.commit([["after the check"]]).first_sequence == 4
        with pytest.raises(WriterPoisoned):
            failing.commit([["never again"]])
    assert verify(str(tmp_path / "log")).exit_code == 0


def test_features_that_only_a_newer_version_may_write(tmp_path: Path) -> None:
    root = tmp_path / "log"
    with make(root) as log:
        log.commit([["a"]])
        with log.writer() as writer:
            writer.rotate()
    path = root / "segments" / sg.name(2)
    raw = bytearray(path.read_bytes()[: sg.HEADER_SIZE])
    raw[16] = 1  # a compatible bit
    raw[124:] = extender(raw[12])(0, bytes(raw[:124])).to_bytes(4, "little")
    path.write_bytes(bytes(raw) + b"JFR1 half a frame")
    (root / "durable").unlink()
    with Journal.open(root) as log:
        assert log.position.sequence == 1
    with make(root) as log, pytest.raises(UnsupportedFormat, match="it can be read"):
        log.commit([["b"]])
    assert path.read_bytes().endswith(b"half a frame")  # nothing was cut off


def test_threads_that_wait_for_one_lock_do_not_wait_one_after_another(tmp_path: Path) -> None:
    with make(tmp_path / "log") as holder, make(tmp_path / "log") as log:
        ends: list[tuple[float, BaseException]] = []
        begun = time.monotonic()

        def work() -> None:
            try:
                log.commit([["x"]], timeout_s=0.4)
            except LockTimeout as error:
                ends.append((time.monotonic() - begun, error))

        threads = [threading.Thread(target=work) for _ in range(8)]
        with holder.writer():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert len(ends) == 8
        assert max(when for when, _ in ends) < 2.0
        for _, error in ends:
            assert f"pid {os.getpid()}" in str(error)
            assert "0.4 s" in str(error)
        assert log.commit([["free"]]).first_sequence == 1


def test_waiting_for_ever_is_allowed(tmp_path: Path) -> None:
    with make(tmp_path / "log", lock_timeout_s=float("inf")) as log:
        log.commit([["a"]])
        with log.writer() as writer:
            writer.commit([["b"]])
        holder = make(tmp_path / "log")
        held = threading.Event()

        def hold() -> None:
            with holder.writer():
                held.set()
                time.sleep(0.2)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(10)
        assert log.commit([["c"]], timeout_s=float("inf")).first_sequence == 3
        thread.join()
        holder.close()


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_backends_refuse_alike(kind: str, tmp_path: Path) -> None:
    """What a simulation lets pass the journal must take."""
    backend = MemoryBackend() if kind == "memory" else FileBackend(make(tmp_path / "log"))
    backend.append([["a"]])
    for wrong in (
        {"events": []},
        {"events": ["text"]},
        {"events": [["a"]], "txid": b"short"},
        {"events": [["a"]], "reason": 7},
        {"events": [["a"]], "schema": -1},
        {"events": [[1.5]]},
        {"events": [[b"x" * fr.MAX_BODY]]},
    ):
        with pytest.raises(InvalidRecord):
            backend.append(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidRecord):
        list(backend.read("nonsense"))
    (record,) = backend.read()
    other = MemoryBackend() if kind == "memory" else FileBackend(make(tmp_path / "other"))
    with pytest.raises(ResyncRequired):
        list(other.read(record.cursor))
    assert backend.last_sequence() == 1
    backend.close()
    other.close()


def test_network_file_systems_are_refused_unless_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert OsFs().network(str(tmp_path)) == ""
    make(tmp_path / "log").close()
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    kinds = {line.split(" - ")[1].split()[0] for line in table}
    monkeypatch.setattr("journal.fs._NETWORK_NAMES", kinds)  # as if all that is mounted were
    for root in (tmp_path / "log", tmp_path / "new"):
        with pytest.raises(JournalError, match="put the journal on a local disk, or force it"):
            make(root)
    assert not (tmp_path / "new").exists()
    Journal.open(tmp_path / "log").close()
    with make(tmp_path / "new", force_network_fs=True) as log:
        log.commit([["a"]])


@pytest.mark.parametrize(
    ("kind", "flags", "count", "readable"),
    [
        (99, fr.OPTIONAL, 0, True),
        (99, 0, 0, False),
        (99, fr.OPTIONAL | 0x10, 0, False),
        (fr.DATA, 0x80, 1, False),
        (fr.DATA, 0x02, 1, True),
    ],
)
def test_frames_of_a_newer_version(
    tmp_path: Path, kind: int, flags: int, count: int, readable: bool
) -> None:
    """An unknown kind is carried if its flags allow it, else nobody goes on."""
    root = tmp_path / "log"
    with make(root) as log:
        log.commit([["a"]])
    path = root / "segments" / sg.name(1)
    header = sg.parse(path.read_bytes())
    assert header is not None
    with Journal.open(root) as log:
        place = log.position
    body = [1, [], bytes(16), "", [["b"]], "a later field"] if count else ["new"]
    data, _ = fr.build(
        extender(header.algorithm), header.seed, place.offset, place.link, kind=kind,
        first_sequence=2, count=count, promise=0, time_ns=0, body=encode(body), flags=flags,
    )  # fmt: skip
    with path.open("ab") as file:
        file.write(data)
    before = path.read_bytes()
    if readable:
        with make(root) as log:
            assert log.commit([["c"]]).first_sequence == 2 + count
            kinds = [frame.kind_name for frame in log.frames()]
        expected = "data" if count else "kind-99"
        assert kinds == ["open", "data", "close", expected, "open", "data"]
        assert verify(str(root), "strict").exit_code == 0
        return
    with Journal.open(root) as log, pytest.raises(UnsupportedFormat, match="newer version"):
        list(log.frames())
    with make(root) as log, pytest.raises(UnsupportedFormat):
        log.commit([["c"]])
    with pytest.raises(UnsupportedFormat):
        verify(str(root))
    assert path.read_bytes() == before
