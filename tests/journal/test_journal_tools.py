"""Command line, archive, pruning, transfer, proofs, checkpoints, backends."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from journal import Conflict, Frame, Journal, JournalError, ResyncRequired
from journal import frame as fr
from journal.archive import archive, prune
from journal.audit import check_proof, prove_consistency, prove_inclusion, proved_event
from journal.backend import FileBackend, MemoryBackend
from journal.checkpoint import check_journal, check_signature, generate_key, public_key, sign
from journal.cli import build
from journal.digest import StateDigest
from journal.transfer import export, load
from journal.verify import verify


class Counter:
    """A reducer: how often each name occurred."""

    schema = 1
    reducer_version = 1

    def __init__(self) -> None:
        self.state: dict[bytes, bytes] = {}
        self._digest = StateDigest()

    def apply(self, frame: Frame) -> None:
        if frame.kind != fr.DATA:
            return
        for event in frame.transaction().events:
            key = str(event[1] % 7).encode()
            old = self.state.get(key)
            if old is not None:
                self._digest.remove(key, old)
            self.state[key] = str(int(old or b"0") + 1).encode()
            self._digest.add(key, self.state[key])

    def items(self) -> list[tuple[bytes, bytes]]:
        return sorted(self.state.items())

    def digest(self) -> bytes:
        return self._digest.value()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "j"
    grow(path, 150)
    return path


def grow(path: Path, count: int) -> None:
    with Journal.open(
        path,
        "w",
        create=True,
        segment_bytes=4096,
        reserve_bytes=0,
        durability="none",
        actor=[0, 42, "test"],
    ) as j:
        for i in range(count):
            j.commit([["n", i]], reason="a\x1breason" if i == 3 else "")


def live(path: str) -> tuple[Any, bytes]:
    state = Counter()
    with Journal.open(path) as j:
        for frame in j.frames():
            state.apply(frame)
        return j.position, state.digest()


@pytest.fixture
def run(root: Path) -> Callable[..., Result]:
    group = build(describe=lambda e: f"number {e[1]}", reducer=Counter, live=live)

    def call(*words: str) -> Result:
        return CliRunner().invoke(group, ["-j", str(root), *words])

    return call


def test_log_prints_one_line_per_event(run: Callable[..., Result]) -> None:
    result = run("log")
    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert len(lines) == 150
    assert lines[0].startswith("1 20")
    assert lines[0].endswith("[0 42 test] number 0")
    assert "\x1b" not in result.output
    records = [json.loads(x) for x in run("log", "--json", "--since", "149").output.splitlines()]
    assert [r["sequence"] for r in records] == [149, 150]
    assert records[0]["event"] == ["n", 148]
    resumed = run("log", "--from", records[0]["position"]).output.splitlines()
    assert len(resumed) == 1
    assert len(run("log", "--limit", "5").output.splitlines()) == 5
    assert "# " in run("log", "--control").output


def test_tail_stat_and_verify(run: Callable[..., Result]) -> None:
    assert len(run("tail", "-n", "3").output.splitlines()) == 3
    assert len(run("tail", "-f", "-n", "3", "--timeout", "0.05").output.splitlines()) == 3
    assert json.loads(run("stat", "--json").output)["last_sequence"] == 150
    for level in ("--quick", "--full", "--strict", "--replay"):
        assert run("verify", level).exit_code == 0
    assert json.loads(run("verify", "--json").output)["verdict"] == "clean"


def test_exit_codes_tell_what_is_wrong(root: Path, run: Callable[..., Result]) -> None:
    last = sorted((root / "segments").iterdir())[-1]
    with last.open("ab") as file:
        file.write(b"JFR1torn")
    assert run("verify").exit_code == 1
    first = sorted((root / "segments").iterdir())[0]
    first.chmod(0o644)
    first.write_bytes(first.read_bytes()[:300] + b"?" + first.read_bytes()[301:])
    assert run("verify").exit_code == 2
    assert run("repair").exit_code == 2
    assert run("repair", "--apply", "--accept-loss").exit_code == 0
    assert run("verify").exit_code in (0, 1)
    other = CliRunner().invoke(build(), ["-j", str(root) + "no", "log"])
    assert other.exit_code == 3
    assert "no journal" in other.output
    with Journal.open(root, "w") as j, j.writer():
        from journal import facade

        before = facade.Journal.open.__func__.__kwdefaults__["lock_timeout_s"]  # type: ignore[attr-defined]
        facade.Journal.open.__func__.__kwdefaults__["lock_timeout_s"] = 0.01  # type: ignore[attr-defined]
        try:
            assert run("snapshot").exit_code == 4
        finally:
            facade.Journal.open.__func__.__kwdefaults__["lock_timeout_s"] = before  # type: ignore[attr-defined]


def test_replay_compares_with_the_live_state(root: Path, run: Callable[..., Result]) -> None:
    assert run("replay").exit_code == 0
    liar = build(reducer=Counter, live=lambda p: (live(p)[0], bytes(32)))
    result = CliRunner().invoke(liar, ["-j", str(root), "replay"])
    assert result.exit_code == 2
    assert "replay" in result.output


def test_snapshot_archive_prune(root: Path, run: Callable[..., Result]) -> None:
    with Journal.open(root) as j:
        old = j.reader().position
        everything = [f.link for f in j.frames()]
        with (
            pytest.raises(JournalError, match="two verified snapshots"),
            Journal.open(root, "w") as w,
        ):
            prune(w)
    assert run("archive").exit_code == 0
    with Journal.open(root) as j:
        assert [f.link for f in j.frames()][: len(everything)] == everything
    assert verify(str(root)).exit_code == 0
    assert run("snapshot").exit_code == 0
    grow(root, 150)
    assert run("snapshot").exit_code == 0
    grow(root, 20)
    assert run("verify", "--replay").exit_code == 0
    with Journal.open(root, "w") as j:
        archive(j)
        gone = prune(j)
        assert gone
        assert prune(j) == []
        with pytest.raises(ResyncRequired):
            j.reader(old)
        snap = j.snapshots.open_trusted(schema=1, reducer_version=1)
        assert snap is not None
        again = Counter()
        again.state = dict(snap.items())
        again._digest = StateDigest(snap.digest)
        for frame in j.frames(snap.position):
            again.apply(frame)
    report = verify(str(root))
    assert report.exit_code == 0
    assert any(f.rule == "pruned" for f in report.findings)
    grow(root, 150)  # seals of later segments know the pruned tree
    assert verify(str(root)).exit_code == 0
    whole = Counter()
    whole.state = again.state


def test_a_replica_is_the_same_log(root: Path, tmp_path: Path) -> None:
    replica = str(tmp_path / "replica")
    with Journal.open(root) as j:
        out = io.BytesIO()
        moved = export(j, out, until_sequence=70)
        out.seek(0)
        assert load(replica, out) == moved
        rest = io.BytesIO()
        end = export(j, rest, moved.end)
        rest.seek(0)
        assert load(replica, rest) == end
        rest.seek(0)
        with pytest.raises(JournalError, match="the export begins at"):
            load(replica, rest)
    for path in sorted((root / "segments").iterdir()):
        assert (Path(replica) / "segments" / path.name).read_bytes() == path.read_bytes()
    bad = bytearray(out.getvalue())
    bad[500] ^= 1
    with pytest.raises(JournalError, match="damaged"):
        load(str(tmp_path / "other"), io.BytesIO(bytes(bad)))
    assert not (tmp_path / "other").exists()


def test_proofs_hold_and_forgeries_do_not(root: Path) -> None:
    with Journal.open(root) as j:
        for sequence in (1, 2, 77, 150):
            proof = prove_inclusion(j, sequence)
            assert check_proof(json.loads(json.dumps(proof)), root=bytes.fromhex(proof["root"]))
            assert not check_proof(proof | {"index": proof["index"] ^ 1})
            assert not check_proof(proof | {"previous": "00" * 32})
            assert not check_proof(proof | {"sequence": sequence + 1})
            frame = bytes.fromhex(proof["frame"]).replace(b"n", b"m", 1)
            assert not check_proof(proof | {"frame": frame.hex()})
            assert proved_event(proof) == ["n", sequence - 1]
        size = prove_inclusion(j, 1)["size"]
        for old in range(1, size + 1):
            proof = prove_consistency(j, old)
            assert check_proof(proof)
            assert not check_proof(proof | {"old_root": "11" * 32})
            assert not check_proof(proof | {"root": "11" * 32})


def test_checkpoints_show_a_rewritten_history(root: Path, tmp_path: Path) -> None:
    key = str(tmp_path / "key")
    generate_key(key)
    with Journal.open(root) as j:
        note = sign(j, key, "example.org/log")
    grow(root, 30)
    found = check_signature(note, public_key(key, "example.org/log"))
    with Journal.open(root) as j:
        assert check_journal(j, found)
    with pytest.raises(JournalError):
        check_signature(note.replace("\n1", "\n2", 1), public_key(key, "example.org/log"))
    other = tmp_path / "other"
    grow(other, 300)
    with Journal.open(other) as j:
        assert not check_journal(j, found)


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_backends_behave_alike(kind: str, tmp_path: Path) -> None:
    backend = (
        MemoryBackend() if kind == "memory"
        else FileBackend(Journal.open(tmp_path / "b", "w", create=True, reserve_bytes=0))
    )  # fmt: skip
    assert backend.append([["a"], ["b"]], expected=0, txid=b"1" * 16) == (1, 2)
    assert backend.append([["c"]], expected=2) == (3, 3)
    with pytest.raises(Conflict):
        backend.append([["d"]], expected=2)
    with pytest.raises(JournalError):
        backend.append([["a"]], txid=b"1" * 16)
    records = list(backend.read())
    assert [r.first_sequence for r in records] == [1, 3]
    assert [r.transaction.events for r in backend.read(records[0].cursor)] == [[["c"]]]
    watched = backend.watch(records[0].cursor, timeout_s=0.05)
    assert [r.first_sequence for r in watched] == [3]
    assert backend.last_sequence() == 3
    backend.close()
