"""The targets of ``tools/fuzz`` hold for their own seeds, for damaged ones and for past findings.

Coverage-guided runs take minutes and are a command of their own; this is what every run repeats.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="targets make device nodes and owners")
pytestmark = [pytest.mark.root, root_only]


def _load() -> Any:
    name = "fuzz_targets"
    loader = SourceFileLoader(name, str(TOP / "tools" / f"{name}.py"))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # for NamedTuple, which looks its module up
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fuzz() -> Any:
    """``tools/fuzz_targets.py`` as a module."""
    module = _load()
    yield module
    module.tidy()


READERS = (
    "archive", "compressed", "recipe", "manifest", "pax", "conf", "interop", "cbor", "frames",
    "snapshots",
)  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_seeds_and_damaged_seeds_end_as_documented(fuzz: Any, name: str) -> None:
    """Each seed as it is, and with bytes changed, cut and doubled: no undocumented error."""
    target = fuzz.TARGETS[name]
    chance = random.Random(name)
    seeds = target.seeds()
    assert seeds
    for seed in seeds:
        fuzz.check(target, seed)
    for _ in range(100):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data)) if data else 0
            match chance.randrange(3):
                case 0:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del data[at : at + chance.randrange(600)]
                case 2:
                    data[at:at] = data[at : at + chance.randrange(600)]
        fuzz.check(target, bytes(data))


def test_a_check_sees_what_it_is_for(fuzz: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An undocumented error, time, memory, a changed outside and wrong bytes are findings."""
    import time

    def burn(_: bytes) -> None:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass

    monkeypatch.setattr(fuzz, "SECONDS_MAX", 0.1)
    for run in (burn, lambda data: (data or b"x") * (200 << 20)):
        with pytest.raises(fuzz.Finding):
            fuzz.check(fuzz.Target(run, (), list), b"")
    with pytest.raises(ZeroDivisionError):
        fuzz.check(fuzz.Target(lambda _: 1 // 0, (ValueError,), list), b"")
    fuzz.check(fuzz.Target(lambda _: int("x"), (ValueError,), list), b"")

    archive = fuzz.TARGETS["archive"]
    plain = fuzz.plain_archives()[0]
    fuzz.check(archive, b"\0" + plain)
    monkeypatch.setattr(fuzz, "assemble", lambda recipe, payload, sink: sink.write(b"else"))
    with pytest.raises(fuzz.Finding, match="differs"):
        fuzz.check(archive, b"\0" + plain)
    Path(fuzz._world.outside[2]).write_text("changed")
    with pytest.raises(fuzz.Finding, match="outside"):
        fuzz.check(archive, b"\0" + plain)
    fuzz.tidy()
    fuzz._world = None


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris (extra: fuzz) is not installed"
)
def test_the_command_fuzzes(tmp_path: Path) -> None:
    """A short run of one target: runs are counted, coverage grows, the corpus is kept."""
    done = subprocess.run(
        [sys.executable, TOP / "tools" / "fuzz", "--minutes", "0.03", "--corpus", tmp_path, "pax"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing found" in done.stdout
    assert len(list((tmp_path / "pax").iterdir())) >= 5
