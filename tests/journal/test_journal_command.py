"""The command line under bad input: one line, the documented exit code, nothing touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from journal import Frame, Journal
from journal import frame as fr
from journal.archive import prune
from journal.checkpoint import generate_key, sign
from journal.cli import build
from journal.digest import StateDigest
from journal.show import lines

TOP = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    with Journal.open(path, "w", create=True, reserve_bytes=0, durability="none") as log:
        for number in range(10):
            log.commit([["n", number]])
    return path


@pytest.fixture
def run(root: Path) -> Callable[..., Result]:
    return lambda *words: CliRunner().invoke(build(), ["-j", str(root), *words])


def refused(result: Result, code: int, text: str) -> None:
    assert result.exit_code == code, result.output
    assert text in result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    "place", [f"1:{10**30}:3:{'00' * 32}", f"1:-8:3:{'00' * 32}", f"{1 << 63}:0:3:{'00' * 32}", "x"]
)
def test_a_place_that_is_none(run: Callable[..., Result], place: str) -> None:
    for command in ("log", "tail"):
        refused(run(command, "--from", place), 3, "not a journal position")


def test_numbers_out_of_range_are_wrong_usage(run: Callable[..., Result]) -> None:
    for words in (("log", "--limit", "-1"), ("tail", "-n", "-1"), ("archive", "--keep", "-1"),
                  ("snapshot", "--keep", "0")):  # fmt: skip
        refused(run(*words), 2, "not in the range")


def test_a_program_that_knows_no_state_says_so(run: Callable[..., Result]) -> None:
    refused(run("snapshot"), 3, "does not know how to build the state")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{bad", "neither a proof nor a root"),
        (b"\xff\xfe\0", "neither a proof nor a checkpoint"),
        (b"{}", "not a proof"),
        (b'{"type": "inclusion"}', "not a proof"),
        (b"", "not a checkpoint"),
    ],
)
def test_what_is_no_proof(
    run: Callable[..., Result], tmp_path: Path, text: bytes, said: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(text)
    refused(run("check-proof", str(file)), 3, said)


def test_a_root_that_is_no_number(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(run("prove", "3").output)
    refused(run("check-proof", str(file), "--root", "zz"), 3, "neither a proof nor a root")


def test_a_proof_says_what_the_event_is(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(run("prove", "3").output)
    assert run("check-proof", str(file)).output == "holds: event 3 is [n 2]\n"
    proof = json.loads(file.read_text())
    file.write_text(json.dumps(proof | {"sequence": 4}))
    refused(run("check-proof", str(file)), 2, "DOES NOT HOLD")


def test_a_proof_must_be_of_the_checkpoint_s_size(
    run: Callable[..., Result], root: Path, tmp_path: Path
) -> None:
    generate_key(str(tmp_path / "key"))
    note, file = tmp_path / "note", tmp_path / "file"
    with Journal.open(root) as log:
        note.write_text(sign(log, str(tmp_path / "key")))
    file.write_text(run("prove", "3").output)
    call = ("check-proof", str(file), "--checkpoint", str(note))
    assert run(*call).exit_code == 0
    file.write_text(json.dumps(json.loads(file.read_text()) | {"size": 9}))
    assert run(*call).exit_code == 2
    with Journal.open(root, "w") as log:
        log.commit([["more"]])
    file.write_text(run("prove", "--checkpoint", str(note)).output)
    assert run(*call).exit_code == 0
    old = json.loads(file.read_text())["old_size"]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"old_size": old - 1}))
    assert run(*call).exit_code == 2


@pytest.mark.parametrize("words", [["--apply"], ["--clear-suspect"], []])
@pytest.mark.parametrize("there", [True, False])
def test_repair_leaves_another_s_folder_alone(
    tmp_path: Path, words: list[str], there: bool
) -> None:
    folder = tmp_path / "folder"
    if there:
        folder.mkdir()
        (folder / "letter").write_text("dear")
    result = CliRunner().invoke(build(), ["-j", str(folder), "repair", *words])
    refused(result, 3, "holds no journal")
    assert folder.exists() == there
    assert not there or os.listdir(folder) == ["letter"]


def test_a_lost_marker_is_damage_that_repair_mends(root: Path, run: Callable[..., Result]) -> None:
    (root / "FORMAT").unlink()
    for command in ("log", "verify"):
        refused(run(command), 2, "`repair` writes it anew")
    assert run("repair", "--apply").exit_code == 0
    assert run("verify").exit_code == 0
    assert len(run("log").output.splitlines()) == 10


def test_a_defect_is_no_torn_tail(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("journal.verify.verify", broken)
    assert run("verify").exit_code == 3


def test_an_interrupt_is_no_torn_tail(root: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "journal", "-j", str(root), "tail", "--follow"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=TOP,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in said


def test_what_an_application_says_moves_no_cursor(root: Path) -> None:
    with Journal.open(root) as log:
        frame = next(f for f in log.frames() if f.kind == fr.DATA)
    (line,) = lines(frame, lambda event: f"\x1b[2J{event[0]}\n")
    assert line.endswith("\\x1b[2Jn\\n")


class Count:
    """How many events there were."""

    schema = reducer_version = 1

    def __init__(self) -> None:
        self.count = 0

    def apply(self, frame: Frame) -> None:
        self.count += frame.count

    def items(self) -> list[tuple[bytes, bytes]]:
        return [(b"count", b"%d" % self.count)]

    def digest(self) -> bytes:
        found = StateDigest()
        found.add(*self.items()[0])
        return found.value()


def test_replay_of_a_pruned_log_accuses_nobody(tmp_path: Path) -> None:
    root = tmp_path / "log"
    group = build(reducer=Count, live=lambda path: (Journal.open(path).position, bytes(32)))

    def run(*words: str) -> Result:
        return CliRunner().invoke(group, ["-j", str(root), *words])

    with Journal.open(
        root, "w", create=True, reserve_bytes=0, segment_bytes=4096, durability="none"
    ) as log:
        for _ in range(2):
            for number in range(60):
                log.commit([["n", number, "x" * 50]])
            assert run("snapshot").exit_code == 0
        assert run("verify", "--replay").exit_code == 0
        assert prune(log)
    assert run("verify", "--replay").exit_code == 0
    assert "no state can be built from nothing" in run("verify", "--replay").output
    refused(run("replay"), 3, "no state can be built from nothing")
