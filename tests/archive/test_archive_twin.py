"""An export with a second process is the same export, whatever becomes of that process."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cstorage.archive import twin as twins
from cstorage.archive.beneath import Payloads
from cstorage.archive.recipe import RecipeWriter, assemble
from cstorage.archive.twin import Twin, begun
from cstorage.errors import ArchiveError, ContentChanged

from .conftest import Imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Root, Scene

FILES = 400
BIG = 3 << 20
CUT = 1 << 14


class Exported(Imported):
    """A layer of small files with a large one among them, and a twin for it."""

    def __init__(self, data: bytes, root: Root) -> None:
        super().__init__(data, root)
        self.twin = Twin(root.fd, CUT)
        self.opened_here = 0

    def ready(self) -> Exported:
        """Itself, when the twin can be given something."""
        while not self.twin.wants():
            self.twin.take(wait=True)
            assert not self.twin.lost
        return self

    def to(self, sink: io.BytesIO, *, listed: bool, recipe: bytes = b"") -> bytes:
        with Payloads([self.root.fd]) as payloads:

            def opened(name: bytes) -> int:
                self.opened_here += 1
                return payloads.open(name)

            assemble(
                io.BytesIO(recipe or self.recipe.getvalue()),
                opened,
                sink,
                digest="" if listed else self.summary.uncompressed_digest,
                manifest=io.BytesIO(self.manifest.getvalue()) if listed else None,
                twin=self.twin,
            )
        return sink.getvalue()

    def out(self, *, listed: bool) -> bytes:
        return self.to(io.BytesIO(), listed=listed)


@pytest.fixture
def exported(scene: Callable[[], Scene], root: Root) -> Iterator[Exported]:
    made = scene()
    for number in range(FILES):
        if number % 50 == 0:
            made.dir(f"d{number}")
        made.file(f"d{number // 50 * 50}/{number}", b"%d " % number * (number % 300))
        if number == FILES // 2:
            made.file("big", b"large" * (BIG // 5)).symlink("link", "d0")
    made = Exported(bytes(made), root)
    try:
        yield made
    finally:
        made.twin.close()


@pytest.mark.parametrize("listed", [True, False])
def test_what_both_read_is_the_archive(exported: Exported, listed: bool) -> None:
    assert exported.ready().out(listed=listed) == exported.data
    assert 0 < exported.opened_here < FILES, "one of them did everything"


@pytest.mark.parametrize("listed", [True, False])
def test_a_twin_that_is_not_there_yet_is_not_waited_for(exported: Exported, listed: bool) -> None:
    os.kill(exported.twin._pid, signal.SIGSTOP)
    assert exported.out(listed=listed) == exported.data
    os.kill(exported.twin._pid, signal.SIGCONT)


@pytest.mark.parametrize("listed", [True, False])
def test_a_twin_that_dies_is_replaced(exported: Exported, listed: bool) -> None:
    os.kill(exported.ready().twin._pid, signal.SIGKILL)
    assert exported.out(listed=listed) == exported.data
    assert exported.twin.lost


def test_a_twin_that_dies_with_work_in_hand_is_replaced(exported: Exported) -> None:
    pid = exported.ready().twin._pid

    class Killing(io.BytesIO):
        def write(self, data: object) -> int:
            if exported.twin._with_it and not exported.twin.lost:
                os.kill(pid, signal.SIGKILL)
            return super().write(data)  # type: ignore[arg-type]

    assert exported.to(Killing(), listed=False) == exported.data


def test_a_twin_that_does_not_answer_is_ended(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "_PATIENCE_S", 0.2)
    os.kill(exported.ready().twin._pid, signal.SIGSTOP)
    assert exported.out(listed=True) == exported.data
    assert exported.twin.lost


@pytest.mark.parametrize(
    "change", ["bytes", "shorter", "longer", "gone", "directory", "link", "pipe", "outside"]
)
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("number", [37, FILES - 1])
def test_a_file_that_became_something_else_is_named(
    exported: Exported, tmp_path: Path, listed: bool, change: str, number: int
) -> None:
    """Whoever meets it, and the twin follows no link either."""
    path = exported.root.path / f"d{number // 50 * 50}" / str(number)
    content = path.read_bytes()
    if change in ("shorter", "longer"):
        os.truncate(path, len(content) + (1 if change == "longer" else -1))
    elif change == "bytes":
        path.write_bytes(content[:-1] + b"!")
    else:
        path.unlink()
    if change == "directory":
        path.mkdir()
    elif change == "link":
        path.symlink_to("1")
    elif change == "pipe":
        os.mkfifo(path)
    elif change == "outside":
        folder = path.parent
        folder.rename(tmp_path / "moved")
        (tmp_path / "moved" / path.name).write_bytes(content)
        folder.symlink_to(tmp_path / "moved")
    sink = io.BytesIO()
    # With the folder outside, the first of its files is missed.
    wanted = "/" if change == "outside" else f'/{number}"'
    with pytest.raises(ContentChanged, match=wanted):
        exported.ready().to(sink, listed=listed)
    assert exported.data.startswith(sink.getvalue())
    assert len(sink.getvalue()) < len(exported.data)


def test_a_damaged_recipe_is_an_error_of_the_recipe(exported: Exported) -> None:
    out = io.BytesIO()
    writer = RecipeWriter(out)
    for _ in range(300):
        writer.segment(bytes(512))
    writer._line(b'{"type":1,"name":"d0/1","size":"many","payload":"AAAAAAAAAAA=","position":9}\n')
    writer.close()
    with pytest.raises(ArchiveError, match="damaged recipe"):
        exported.ready().to(io.BytesIO(), listed=False, recipe=out.getvalue())


def test_the_twin_holds_nothing_that_anybody_waits_for(exported: Exported) -> None:
    """Neither the sink nor the lock of a store: its descriptors are seven."""
    held = sorted(map(int, os.listdir(f"/proc/{exported.ready().twin._pid}/fd")))
    assert held[:7] == list(range(7))
    for fd in held[7:]:  # its map of the memory, directories that it opened itself
        place = os.readlink(f"/proc/{exported.twin._pid}/fd/{fd}")
        assert place.startswith((str(exported.root.path), "/memfd:export"))
    for fd in (0, 1, 2):
        assert os.readlink(f"/proc/{exported.twin._pid}/fd/{fd}") == os.devnull


def test_a_closed_twin_is_gone(exported: Exported) -> None:
    pid = exported.ready().twin._pid
    before = len(os.listdir("/proc/self/fd"))
    exported.twin.close()
    exported.twin.close()
    assert not Path(f"/proc/{pid}").exists()
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_a_twin_ends_with_the_process_it_works_for(root: Root) -> None:
    code = (
        "import os, sys; from cstorage.archive.twin import Twin; "
        f"twin = Twin(os.open({str(root.path)!r}, os.O_RDONLY), 1); "
        "print(twin._pid, flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    second = int(first.stdout.readline())
    first.kill()
    first.communicate()
    for _ in range(500):
        try:
            if Path(f"/proc/{second}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    pytest.fail("it is still there")


def test_a_twin_is_begun_only_where_it_is_of_use(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = twins.ENTRIES
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert twins._running() > 0
    monkeypatch.setattr(twins, "_running", lambda: 3)
    assert begun(root.fd, many, many, packed=True) is None
    monkeypatch.setattr(twins, "_running", lambda: 2)
    large = many * twins.PACKED_AVERAGE * 2
    made = [
        begun(root.fd, many, many, packed=True),
        begun(root.fd, many, large, packed=False),
    ]
    for twin in made:
        assert twin is not None
        twin.close()
    assert begun(root.fd, many - 1, many, packed=False) is None
    assert begun(root.fd, many, large, packed=True) is None
    monkeypatch.setattr(sys, "executable", "")
    assert begun(root.fd, many, many, packed=False) is None
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    held = len(os.listdir("/proc/self/fd"))
    assert begun(root.fd, many, many, packed=False) is None
    assert len(os.listdir("/proc/self/fd")) == held
    monkeypatch.undo()
    monkeypatch.setattr(twins, "_running", lambda: 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert begun(root.fd, many, many, packed=False) is None
