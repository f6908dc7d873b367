"""Many processes on one store: what they saw and did fits one order of all changes."""

from __future__ import annotations

import json

import pytest
import recorded


def test_every_read_is_a_state_and_no_update_is_lost(tmp_path):
    """Four processes, 600 operations; ``tools/soak`` does 32 and 100 000."""
    counts = recorded.run(tmp_path, processes=4, operations=600, seed=7)
    assert counts["write"] > 150
    assert counts["read"] > 150
    assert counts["refused"] > 20


def test_every_name_of_every_process_is_there(tmp_path):
    """``tools/soak`` does 64 processes with 1 000 names each."""
    assert recorded.names(tmp_path, processes=6, each=40) == 240


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    root = tmp_path_factory.mktemp("history")
    recorded.run(root, processes=2, operations=80, seed=3)
    return root


@pytest.mark.parametrize("op", ["read", "write", "refused"])
def test_the_judge_notices_a_history_that_did_not_happen(history, op):
    """A changed answer, a forgotten change, a refused change that is in the journal."""
    path = history / "history-0"
    before = path.read_text()
    lines = [json.loads(line) for line in before.splitlines()]
    at = next(i for i, line in enumerate(lines) if line["op"] == op)
    if op == "read":
        lines[at]["got"] = "something else"
    elif op == "write":
        lines[at]["tag"] = "9.9"
    else:
        lines[at]["tag"] = next(line["tag"] for line in lines if line["op"] == "write")
    try:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises((AssertionError, TypeError)):
            recorded.judge(history)
    finally:
        path.write_text(before)


def test_the_judge_notices_a_stale_read(history):
    path = history / "history-0"
    before = path.read_text()
    lines = [json.loads(line) for line in before.splitlines()]
    last = max(i for i, line in enumerate(lines) if line.get("what") == "metadata")
    lines[last]["seen"] = 2
    try:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(AssertionError, match="older than a commit"):
            recorded.judge(history)
    finally:
        path.write_text(before)
