"""A second process makes files: same tree and records, same errors, and nothing afterwards."""

from __future__ import annotations

import ctypes
import fcntl
import io
import os
import re
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from cstorage.archive import apply, beneath, builder
from cstorage.archive.apply import Limits, Progress, apply_layer
from cstorage.archive.handover import SharingExtractor
from cstorage.errors import ArchiveLimitExceeded, ArchiveTruncated
from tests.archive.outcomes import OPTIONS, alone, outcome, timeless, tree_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


_PR_SET_CHILD_SUBREAPER = 36
ROOT = os.geteuid() == 0


def many(scene: Any, count: int = 300, size: int = 700) -> Any:
    """Files in a few directories."""
    made = scene()
    for folder in range(3):
        made.dir(f"d{folder}")
        for number in range(count // 3):
            made.file(f"d{folder}/f{number}", b"%d " % number * (size // 4), mtime=number)
    return made


def everything(scene: Any) -> Any:
    """Entries of all kinds, and each way in which one depends on a file in front of it."""
    made = scene()
    made.file("top", b"in the root").file("empty").file("/slash", b"1").file(".//slash2", b"2")
    made.file("./dot", b"3").dir("d", mode=0o755).file("d//twice", b"4").file("d/./dotted", b"5")
    for number in range(200):
        made.file(
            f"d/f{number}", b"x" * number * 97, mode=0o600 + number % 64, mtime=10**9 + number
        )
    for number in range(150):
        made.dir(f"m{number}", mtime=number).file(f"m{number}/only", b"%d" % number)
    made.link("d/hard", "m149/only").file("d/f200", b"after the link")
    made.file("d/setid", b"#!", mode=0o6755).file("d/bare", b"-", mode=0)
    made.symlink("s", "d").file("./d/.hidden", b".").file("./d/shown", b"!")
    made.file("implied/deep/file", b"parents that are not mentioned")
    made.dir("implied", mode=0o2755).file("implied/late", b"below a set-group directory")
    made.dir("implied/deep", mode=0o700, mtime=5)
    made.fifo("d/pipe").file("big", os.urandom(3 << 20)).file("d/last", b"z" * 5000)
    made.dir("e", mode=0o711, mtime=77)
    return made


@pytest.fixture
def no_children() -> Iterator[None]:
    """No child process is left by the test."""
    before = children()
    yield
    assert children() == before


def children() -> set[str]:
    found: set[str] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as listed:
                found.update(listed.read().split())
        except FileNotFoundError:
            continue
    return found


@pytest.mark.usefixtures("no_children")
def test_tree_and_records_are_those_of_one_process(
    tmp_path: Path, scene: Any, with_builder: list[bytes]
) -> None:
    archive = bytes(everything(scene))
    expected = alone(tmp_path / "alone", archive)
    assert not with_builder
    found = outcome(tmp_path / "both", archive, ())
    assert not expected.error
    assert found == expected
    assert len(with_builder) > 300, "the builder made next to nothing: the test shows nothing"


def test_what_is_one_path_keeps_its_last_entry(
    tmp_path: Path, scene: Any, with_builder: list[bytes]
) -> None:
    """Through the archive's own link: order counts, so from there on one process makes all."""
    made = scene().dir("d").symlink("s", "d").file("d/x", b"first").file("d/y", b"one")
    made.file("s/x", b"second").file("d/z", b"1").file("s/z", b"2").file("s/y", b"two")
    found = outcome(tmp_path / "both", bytes(made), ())
    assert found == alone(tmp_path / "alone", bytes(made))
    assert (tmp_path / "both/d/x").read_bytes() == b"second"
    assert (tmp_path / "both/d/z").read_bytes() == b"2"
    assert with_builder == [b"d/x", b"d/y"]


def test_a_directory_keeps_its_number_until_its_files_are_sent(
    tmp_path: Path, scene: Any, with_builder: list[bytes]
) -> None:
    """As many directories as have numbers, the first one again, and one more: both in a message."""
    made = scene()
    for number in range(builder._DIRECTORIES):
        made.dir(f"m{number}").file(f"m{number}/a", b"%d" % number)
    archive = bytes(made.file("m0/b", b"of the first").dir("more").file("more/a", b"of another"))
    found = outcome(tmp_path / "both", archive, ())
    assert found == alone(tmp_path / "alone", archive)
    assert with_builder[-2:] == [b"m0/b", b"more/a"]


@pytest.mark.usefixtures("no_children", "with_builder")
@pytest.mark.parametrize("size", [0, 3])
def test_a_file_that_is_being_made_stays_what_it_is_while_others_are(
    tmp_path: Path, scene: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One takes the place of a directory, and the builder dies: the files before come first."""
    made = scene().file("d/x/below", b"implies d/x")
    for number in range(9):
        made.file(f"d/f{number}", b"y" * number, mtime=1000 + number)
    archive = bytes(made.file("d/last", b"z" * size, mtime=77).file("d/x", b"content", mtime=99))
    real_flush, real_drain = builder.Builder.flush, builder.Builder.drain

    def flush(self: builder.Builder) -> None:
        for pid in children():
            os.kill(int(pid), signal.SIGSTOP)
        real_flush(self)

    def drain(self: builder.Builder) -> Any:
        for pid in children():
            os.kill(int(pid), signal.SIGKILL)
        return real_drain(self)

    monkeypatch.setattr(builder, "_FILES_MAX", 11)
    monkeypatch.setattr(builder, "_BACKLOG", 1)
    monkeypatch.setattr(builder.Builder, "flush", flush)
    monkeypatch.setattr(builder.Builder, "drain", drain)
    found = outcome(tmp_path / "both", archive, ())
    expected = alone(tmp_path / "alone", archive)
    assert not expected.error
    assert timeless(found) == timeless(expected)
    assert (tmp_path / "both/d/x").stat().st_mtime == 99


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="other groups need root")
def test_a_directory_is_described_after_its_files(
    tmp_path: Path, scene: Any, with_builder: list[bytes]
) -> None:
    """Its set-group bit is for what comes after it in the archive."""
    archive = bytes(scene().file("d/f", b"x").dir("d", mode=0o2755, gid=77).file("d/g", b"x"))
    found = outcome(tmp_path / "both", archive, ())
    assert found == alone(tmp_path / "alone", archive)
    assert b"d/f" in with_builder


#: Entries that meet a file on its way through another name of its directory.
MEETINGS: list[tuple[str, Callable[[Any], Any]]] = [
    ("link", lambda made: made.link("l", "s/x")),
    ("file below", lambda made: made.file("s/x/y", b"")),
    ("directory below", lambda made: made.dir("s/x/y")),
    ("directory", lambda made: made.dir("s/x")),
    ("symlink", lambda made: made.symlink("s/x", "there")),
    ("pipe", lambda made: made.fifo("s/x")),
    ("whiteout", lambda made: made.file("s/.wh.x")),
    ("replaced directory", lambda made: made.file("s/e", b"1").file("d/e/y", b"2")),
    ("root", lambda made: made.symlink("r", "/").file("r/top", b"second")),
]


@pytest.mark.parametrize(("what", "add"), MEETINGS, ids=[row[0] for row in MEETINGS])
def test_meetings_through_another_name_end_as_in_one_process(
    tmp_path: Path, scene: Any, what: str, add: Any, with_builder: list[bytes]
) -> None:
    made = scene().dir("d").dir("d/e").symlink("s", "d").file("top", b"first").file("d/x", b"1")
    archive = bytes(add(made))
    found = outcome(tmp_path / "both", archive, ())
    expected = alone(tmp_path / "alone", archive)
    assert b"d/x" in with_builder
    if expected.error:  # directories do not have their times yet
        found, expected = timeless(found), timeless(expected)
    assert found == expected


def breaks_off(archive: bytes) -> bytes:
    return archive[: len(archive) // 2 + 100]


#: Archives that are refused while files are on their way: what stands after 300 good files.
REFUSED: list[tuple[str, Callable[[Any], Any]]] = [
    ("below a file", lambda made: made.file("d2/f99/x", b"")),
    ("below a file, two levels", lambda made: made.file("d2/f99/x/y", b"")),
    ("a directory below a file", lambda made: made.dir("d2/f99/x")),
    ("twice", lambda made: made.file("d2/f99", b"")),
    ("out", lambda made: made.file("d2/../../x", b"")),
    ("hard link to nothing", lambda made: made.link("l", "d2/f100")),
    ("hard link below a file", lambda made: made.link("l", "d2/f99/x")),
    ("a long name", lambda made: made.file("d2/" + "n" * 256, b"")),
    ("a file whose owner is no ID", lambda made: made.file("d2/x", b"", uid=-5)),
]


@pytest.mark.parametrize(("what", "add"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refusals_are_those_of_one_process(
    tmp_path: Path, scene: Any, what: str, add: Any, with_builder: list[bytes]
) -> None:
    archive = bytes(add(many(scene)))
    found = outcome(tmp_path / "both", archive, ())
    assert with_builder
    assert found.error
    assert found.error == alone(tmp_path / "alone", archive).error
    assert found.error.startswith("Archive")


def test_the_first_error_counts(
    tmp_path: Path, scene: Any, with_builder: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be made comes before the entry at which the importer itself stops."""
    monkeypatch.setattr(builder, "_BACKLOG", 1 << 20)  # the importer makes none of them itself
    made = many(scene, 600, 4000).file("d0/huge", b"x" * 20_000)
    archive = bytes(made.file("d0/g", b"").file("d0/g", b""))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(_: Progress) -> None:  # not before the memory was made, which counts as a file
        for pid in children() if with_builder else ():
            resource.prlimit(int(pid), resource.RLIMIT_FSIZE, (9000, before[1]))
            resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1]))

    try:
        found = outcome(tmp_path / "both", archive, (), progress=limit)
        assert b"d0/huge" in with_builder
        assert found.error == alone(tmp_path / "alone", archive).error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert '"d0/huge": File too large' in found.error


@pytest.mark.usefixtures("with_builder", "no_children")
@pytest.mark.parametrize("end", ["cut", "limit", "interrupt"])
def test_after_an_error_no_process_is_left(tmp_path: Path, scene: Any, end: str) -> None:
    archive = bytes(many(scene, 3000, 4000))
    pieces = 0

    def progress(_: Progress) -> None:
        nonlocal pieces
        pieces += 1
        if end == "interrupt" and pieces == 4:
            assert children(), "there is no builder: the test shows nothing"
            raise KeyboardInterrupt

    expected: dict[str, tuple[type[BaseException], Any]] = {
        "cut": (ArchiveTruncated, breaks_off(archive)),
        "limit": (ArchiveLimitExceeded, archive),
        "interrupt": (KeyboardInterrupt, archive),
    }
    kind, data = expected[end]
    limits = Limits(max_entries=2000 if end == "limit" else 0)
    (tmp_path / "tree").mkdir()
    root = os.open(tmp_path / "tree", os.O_RDONLY)
    try:
        with pytest.raises(kind):
            apply_layer(
                io.BytesIO(data),
                root,
                OPTIONS._replace(limits=limits, progress=progress),
                guards=(),
            )
    finally:
        os.close(root)
    state = tree_state(tmp_path / "tree")
    time.sleep(0.05)
    assert tree_state(tmp_path / "tree") == state


@pytest.mark.usefixtures("no_children")
@pytest.mark.parametrize("when", [2, 3, 5])
def test_a_builder_that_is_killed_costs_nothing_but_its_help(
    tmp_path: Path, scene: Any, when: int, with_builder: list[bytes]
) -> None:
    archive = bytes(many(scene, 3000, 4000))
    pieces = 0

    def progress(_: Progress) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == when:
            for pid in children():
                os.kill(int(pid), signal.SIGKILL)

    found = outcome(tmp_path / "both", archive, (), progress=progress)
    assert pieces > when
    assert 0 < len(with_builder) < 3000
    expected = alone(tmp_path / "alone", archive)
    assert expected.summary is not None
    assert found.summary is not None
    # A file that was begun was removed: the tree is then measured, with its root.
    block = abs(found.summary.disk_size - expected.summary.disk_size)
    assert block <= 1 << 16
    size = expected.summary.disk_size
    assert found._replace(summary=found.summary._replace(disk_size=size)) == expected


def cannot_spawn(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError

    patch.setattr(os, "posix_spawn", refuse)


def is_embedded(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise AssertionError("a program was started that is no interpreter")

    patch.setattr(sys, "executable", "/bin/sh")
    patch.setattr(os, "posix_spawn", refuse)


def ends_at_once(patch: pytest.MonkeyPatch) -> None:
    real = os.posix_spawn
    patch.setattr(os, "posix_spawn", lambda _, __, *a, **k: real("/bin/true", ["true"], *a, **k))


def may_do_something_else(patch: pytest.MonkeyPatch) -> None:
    from cstorage.archive import builder_main

    patch.setattr(builder_main, "standing", lambda: b"CapEff: 0")


def no_memory(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(24, "no more descriptors")

    patch.setattr(os, "memfd_create", refuse)


#: Where there can be no builder.
WITHOUT: list[tuple[str, Callable[[pytest.MonkeyPatch], Any]]] = [
    ("one processor", lambda patch: patch.setattr(os, "sched_getaffinity", lambda _: {0})),
    ("embedded", is_embedded),
    ("nothing to start", lambda patch: patch.setattr(sys, "executable", "")),
    ("frozen", lambda patch: patch.setattr(sys, "frozen", True, raising=False)),
    ("no such interpreter", lambda patch: patch.setattr(sys, "executable", "/nowhere/python3")),
    ("forbidden", cannot_spawn),
    ("ends at once", ends_at_once),
    ("other rights", may_do_something_else),
    ("no memory", no_memory),
    ("names that fold case", lambda patch: patch.setattr(beneath, "folds_case", lambda _: True)),
]


@pytest.mark.usefixtures("no_children")
@pytest.mark.parametrize(("what", "spoil"), WITHOUT, ids=[row[0] for row in WITHOUT])
def test_without_a_builder_all_is_made_here(
    tmp_path: Path, scene: Any, what: str, spoil: Any, with_builder: list[bytes]
) -> None:
    archive = bytes(many(scene, 30))
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch)
        found = outcome(tmp_path / "both", archive, ())
    assert with_builder == []
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert found == alone(tmp_path / "alone", archive)


@pytest.mark.parametrize(
    "options", [{"ignore_chown_errors": True}, {"force_mask": 0o700}], ids=["chown", "mask"]
)
def test_options_that_need_the_importer(
    tmp_path: Path, scene: Any, options: Any, with_builder: list[bytes]
) -> None:
    found = outcome(tmp_path / "both", bytes(many(scene, 30)), (), **options)
    assert not found.error
    assert not with_builder


def test_what_is_not_empty_is_filled_by_the_importer(
    tmp_path: Path, scene: Any, with_builder: list[bytes]
) -> None:
    """Files may be in the way there, and what is removed is a matter of order."""
    path = tmp_path / "tree"
    path.mkdir()
    (path / "older").write_bytes(b"")
    root = os.open(path, os.O_RDONLY)
    try:
        apply_layer(io.BytesIO(bytes(many(scene, 30))), root, OPTIONS, guards=())
    finally:
        os.close(root)
    assert not with_builder
    assert (path / "d0/f1").is_file()


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="other owners need root")
@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_owners_and_modes_are_those_of_the_archive(
    tmp_path: Path, scene: Any, mask: int, with_builder: list[bytes]
) -> None:
    made = scene().dir("g", mode=0o2775, gid=77)
    for number, mode in enumerate((0o644, 0o777, 0o600, 0o4755, 0o2755, 0o1644, 0o6777, 0)):
        for uid, gid in ((0, 0), (5, 0), (0, 6), (1000, 1000)):
            made.file(f"g/{number}-{uid}-{gid}", b"x", mode=mode, uid=uid, gid=gid)
    old = os.umask(mask)
    try:
        found = outcome(tmp_path / "both", bytes(made), ())
        expected = alone(tmp_path / "alone", bytes(made))
    finally:
        os.umask(old)
    assert found == expected
    assert len(with_builder) == 32
    assert (tmp_path / "both/g/7-5-0").stat().st_uid == 5
    assert (tmp_path / "both/g/1-0-6").stat().st_mode & 0o7777 == 0o777


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="mounts need root")
def test_a_full_disk_is_said_in_the_same_words(
    tmp_path: Path, scene: Any, with_builder: list[bytes]
) -> None:
    """Of a file near by: both processes fill the disk, so that an earlier one may have no room."""
    archive = bytes(many(scene, 3000, 4000))
    errors = []
    for run in (outcome, alone):
        place = tmp_path / run.__name__
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], check=True)
        try:
            errors.append(run(place / "tree", archive, *(((),) if run is outcome else ())).error)
        finally:
            subprocess.run(["umount", place], check=True)
    assert with_builder
    words = [re.sub(r'"d\d/f\d+"', "a file", error) for error in errors]
    assert words == ["Explained: [Errno 28] cannot extract a file: No space left on device"] * 2


_IMPORTER = """
import os, sys, time
from cstorage.archive import builder
from cstorage.archive.apply import ApplyOptions, apply_layer
builder.AFTER, builder.START_WAIT_S = 1, 60.0
root, lock = os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[3])
os.set_inheritable(lock, False)
def progress(state):
    if state.entries > 500:
        print("running", flush=True)
        time.sleep(60)
with open(sys.argv[2], "rb") as source:
    apply_layer(source, root, ApplyOptions(progress=progress), guards=(lock,))
"""


def test_the_builder_ends_with_its_importer_and_locks_until_then(
    tmp_path: Path, scene: Any
) -> None:
    """Whoever gets the lock after the importer was killed finds a tree that does not change."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "archive").write_bytes(bytes(many(scene, 3000, 4000)))
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    importer = subprocess.Popen(
        [sys.executable, "-c", _IMPORTER, tmp_path / "tree", tmp_path / "archive", str(lock)],
        stdout=subprocess.PIPE,
        pass_fds=(lock,),
    )
    os.close(lock)
    # The builder becomes a child of this process: who stopped it could lose it otherwise.
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    assert importer.stdout is not None
    assert importer.stdout.readline() == b"running\n"
    with open(f"/proc/{importer.pid}/task/{importer.pid}/children") as listed:
        (pid,) = map(int, listed.read().split())
    os.kill(pid, signal.SIGSTOP)
    importer.kill()
    importer.wait()
    importer.stdout.close()
    again = os.open(tmp_path / "lock", os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + 30
        while True:
            try:
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, "the builder goes on without its importer"
                time.sleep(0.01)
        state = tree_state(tmp_path / "tree")
        time.sleep(0.05)
        assert state
        assert tree_state(tmp_path / "tree") == state
    finally:
        os.close(again)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_the_builder_ends_although_the_channel_stays_open(tmp_path: Path, scene: Any) -> None:
    """What the importer forked has its descriptors, and outlives it."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "archive").write_bytes(bytes(many(scene, 3000, 4000)))
    forking = _IMPORTER.replace(
        "time.sleep(60)", "os.write(1, b'%d\\n' % os.fork()); os.close(1); time.sleep(60)"
    )
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    importer = subprocess.Popen(
        [sys.executable, "-c", forking, tmp_path / "tree", tmp_path / "archive", str(lock)],
        stdout=subprocess.PIPE,
        pass_fds=(lock,),
    )
    os.close(lock)
    assert importer.stdout is not None
    with importer.stdout as said:
        assert said.readline() == b"running\n"
        forked = max(int(line) for line in said)
    with open(f"/proc/{importer.pid}/task/{importer.pid}/children") as listed:
        (pid,) = {int(child) for child in listed.read().split()} - {forked}
    try:
        with open(f"/proc/{pid}/cmdline") as words:
            assert "builder_main" in words.read()
        time.sleep(0.5)  # it has made all that it was sent, and waits
        importer.kill()
        importer.wait()
        deadline = time.monotonic() + 30
        while os.path.exists(f"/proc/{pid}"):
            assert time.monotonic() < deadline, "the builder waits for ever"
            time.sleep(0.02)
    finally:
        os.kill(forked, signal.SIGKILL)


@pytest.mark.usefixtures("with_builder")
def test_waiting_often_is_given_up(
    tmp_path: Path, scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link after each file: to wait for each would cost more than the builder helps."""
    waited = 0
    real = builder.Builder.drain

    def drain(self: builder.Builder) -> Any:
        nonlocal waited
        waited += bool(self._waiting or self._batch.jobs)
        return real(self)

    monkeypatch.setattr(builder.Builder, "drain", drain)
    made = scene()
    for number in range(1000):
        made.file(f"f{number}", b"x").link(f"l{number}", f"f{number}")
    found = outcome(tmp_path / "both", bytes(made), ())
    assert found == alone(tmp_path / "alone", bytes(made))
    assert 0 < waited < 10


def test_two_names_of_a_directory_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``SharingExtractor`` relies on: the same directory under another path."""
    from cstorage.archive.parents import Parents

    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "s").symlink_to("d")
    root = os.open(tmp_path, os.O_RDONLY)
    parents = Parents(root)
    parents.watch()
    try:
        parents.find(b"d/e")
        parents.find(b"d")
        parents.forget()
        parents.tidy()
        parents.find(b"d/e")
        assert not parents.aliased
        parents.find(b"s/e")
        assert parents.aliased
        monkeypatch.setattr("cstorage.archive.parents._WATCHED_MAX", 2)
        many = Parents(root)
        many.watch()
        many.find(b"d/e")
        assert not many.aliased
        many.find(b"d")
        assert many.aliased
        many.close()
    finally:
        parents.close()
        os.close(root)


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="the attribute needs root on some file systems")
def test_a_directory_that_hands_down_an_acl_is_left_to_the_importer(tmp_path: Path) -> None:
    import struct

    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, perm, 0xFFFFFFFF) for tag, perm in ((1, 7), (4, 5), (32, 0))
    )
    root = os.open(tmp_path, os.O_RDONLY)
    helper = builder.Builder(())
    try:
        kept = SharingExtractor(root, OPTIONS, nothing, nothing, helper)
        assert kept._builder is helper
        kept.close()
        try:
            os.setxattr(tmp_path, "system.posix_acl_default", acl)
        except OSError:
            pytest.skip("no ACLs on this file system")
        without = SharingExtractor(root, OPTIONS, nothing, nothing, helper)
        assert without._builder is None
        without.close()
    finally:
        os.close(root)


def nothing(*_: object) -> Any:
    raise AssertionError


def test_apply_without_guards_has_no_builder(tmp_path: Path, scene: Any) -> None:
    """Who does not say what protects the tree from a clean-up gets no second process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "AFTER", 1)
        patch.setattr(apply, "Builder", None)
        assert not outcome(tmp_path / "tree", bytes(many(scene, 30)), None).error
