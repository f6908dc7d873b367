"""Bad input and bad disks: one clear line, status 1, nothing changed, nothing outside touched."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from scene import Scene, one_clear_line, real_tar

import cstorage
from cstorage.errors import StorageError

pytestmark = [pytest.mark.root]


def _member(name: str, data: bytes = b"", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in facts.items():
        setattr(info, field, value)
    return info, data


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


# -- what a command refuses ------------------------------------------------------------------------


def test_refusals_are_one_line_and_change_nothing(scene: Scene) -> None:
    scene.ok("create-layer", "--id", "base", "-n", "name")
    scene.ok("create-image", "--id", "img", "-n", "image", "base")
    scene.ok("create-container", "--id", "box", "img")
    before = scene.fingerprint()
    for command, words in (
        (("create-layer", "--id", "base"), "already in use"),
        (("create-layer", "-n", "name"), "already in use"),
        (("create-layer", "nosuch"), "layer not known"),
        (("create-image", "nosuch"), "layer not known"),
        (("create-container", "nosuch"), "image not known"),
        (("delete-layer", "base"), "layer has children"),
        (("delete-image", "img"), "in use"),
        (("delete", "nosuch"), "not known"),
        (("set-names", "-n", "x", "nosuch"), "not known"),
        (("set-metadata", "-m", "x", "nosuch"), "identifier is not a"),
        (("import-layer", "-f", "no-such-file"), "no such file or directory"),
        (("get-image-data", "img", "nosuch"), "does not exist"),
    ):
        one_clear_line(scene.run(*command), words)
    assert scene.fingerprint() == before


# -- archives --------------------------------------------------------------------------------------


@pytest.fixture
def small_tar(tmp_path: Path) -> bytes:
    return real_tar(tmp_path / "small.tar", "json")


def _starts_of_members(data: bytes) -> set[int]:
    """Where an archive may end without a member being cut; the bytes after are zeros or nothing."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        end = members[-1].offset_data + -(-members[-1].size // 512) * 512
    return {0, *(member.offset for member in members), *range(end, len(data) + 1)}


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_a_truncated_archive_makes_no_layer(
    scene: Scene, small_tar: bytes, compression: str
) -> None:
    data = small_tar
    whole = _starts_of_members(data)
    if compression:
        data = subprocess.run(["gzip", "-nc"], input=data, capture_output=True, check=True).stdout
        whole = {0, len(data)}
    offsets = sorted(
        {*range(1, 1200, 97), *range(1, len(data), len(data) // 60), len(data) - 1} - whole
    )
    scene.ok("layers")
    before = scene.bytes_on_disk()
    with cstorage.open(
        graph_root=scene.graph, run_root=scene.run_root, driver=scene.driver
    ) as store:
        for offset in offsets:
            with pytest.raises(StorageError):
                store.import_layer(io.BytesIO(data[:offset]), id="cut")
            assert list(store.layers()) == [], offset
    assert scene.bytes_on_disk() == before
    for offset in offsets[:: len(offsets) // 6]:
        one_clear_line(scene.run("import-layer", "--id", "cut", stdin=data[:offset]))
    assert scene.layers() == []
    assert scene.bytes_on_disk() == before


def _hostile(outside: Path) -> dict[str, bytes]:
    up = "../" * 40 + str(outside).lstrip("/")
    link = {"type": tarfile.SYMTYPE}
    hard = {"type": tarfile.LNKTYPE}
    huge = _tar(_member("x", b"y"))
    size_field = huge[:124] + b"77777777777\0" + huge[136:]
    checksum = sum(size_field[:148]) + 8 * 32 + sum(size_field[156:512])
    lies = size_field[:148] + f"{checksum:06o}\0 ".encode() + size_field[156:]
    return {
        "a name that climbs": _tar(_member(f"{up}/owned", b"x")),
        "an absolute name": _tar(_member(f"{outside}/owned", b"x")),
        "a symlink to follow": _tar(
            _member("way", linkname=str(outside), **link), _member("way/owned", b"x")
        ),
        "a climbing symlink to follow": _tar(
            _member("way", linkname=up, **link), _member("way/owned", b"x")
        ),
        "a symlink over a folder": _tar(
            _member("d", type=tarfile.DIRTYPE, mode=0o755),
            _member("d", linkname=str(outside), **link),
            _member("d/owned", b"x"),
        ),
        "a hard link to outside": _tar(
            _member("hard", linkname=f"{up}/kept", **hard), _member("hard", b"overwritten")
        ),
        "a hard link through a symlink": _tar(
            _member("way", linkname=str(outside), **link),
            _member("hard", linkname="way/kept", **hard),
        ),
        "a file written through a symlink": _tar(
            _member("file", linkname=f"{outside}/kept", **link), _member("file", b"overwritten")
        ),
        "a mode set through a symlink": _tar(
            _member("way", linkname=str(outside), **link),
            _member("way", type=tarfile.DIRTYPE, mode=0o777),
        ),
        "a whiteout that climbs": _tar(_member(f"{up}/.wh.kept")),
        "a whiteout of the parent": _tar(_member("d/.wh..")),
        "a whiteout of nothing": _tar(_member("d/.wh.")),
        "a whiteout through a symlink": _tar(
            _member("way", linkname=str(outside), **link), _member("way/.wh.kept")
        ),
        "an opaque mark through a symlink": _tar(
            _member("way", linkname=str(outside), **link), _member("way/.wh..wh..opq")
        ),
        "a size that lies": lies,
        "a wrong checksum": size_field,
        "a name of dots": _tar(_member("..", b"x")),
        "a name of a thousand folders": _tar(_member("d/" * 1000 + "f", b"x")),
        "a component too long": _tar(_member("n" * 300, b"x")),
        "a file under a file": _tar(_member("f", b"x"), _member("f/g", b"y")),
        "a symlink to itself": _tar(_member("me", linkname="me", **link), _member("me/x", b"y")),
    }


_HOSTILE_NAMES = sorted(_hostile(Path("/outside")))


@pytest.mark.parametrize("what", _HOSTILE_NAMES)
def test_a_hostile_archive_touches_nothing_outside(scene: Scene, tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    (outside / "kept").write_bytes(b"kept")
    os.utime(outside, (5, 5))
    facts = os.stat(outside), os.stat(outside / "kept")
    scene.ok("create-layer", "--id", "base")
    before = scene.bytes_on_disk()
    done = scene.run("import-layer", "--id", "new", "base", stdin=_hostile(outside)[what])
    if done.exit:
        one_clear_line(done)
        assert scene.layers() == ["base"]
        assert scene.bytes_on_disk() == before
    else:
        assert scene.layers() == ["base", "new"]
    assert os.listdir(outside) == ["kept"]
    assert (outside / "kept").read_bytes() == b"kept"
    after = os.stat(outside), os.stat(outside / "kept")
    for now, then in zip(after, facts, strict=True):
        assert (now.st_mode, now.st_nlink, now.st_mtime_ns, now.st_uid) == (
            then.st_mode, then.st_nlink, then.st_mtime_ns, then.st_uid,
        )  # fmt: skip
    assert scene.journal("verify").exit == 0


# -- disks -----------------------------------------------------------------------------------------


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, check=False, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


def test_a_full_disk_refuses_an_import_and_loses_nothing(scene: Scene, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    _mount("-t", "tmpfs", "-o", "size=6m", "none", str(place))
    scene.graph = place / "graph"
    scene.ok("create-layer", "--id", "base", "-n", "kept")
    before = scene.bytes_on_disk()
    big = _tar(_member("small", b"s"), _member("big", os.urandom(12 << 20)))
    one_clear_line(scene.run("import-layer", "--id", "new", "base", stdin=big), "no space left")
    assert scene.layers() == ["base"]
    scene.ok("create-layer", "--id", "next", "base")
    scene.ok("delete-layer", "next")
    assert scene.bytes_on_disk() == before
    assert scene.journal("verify").exit == 0


def test_a_disk_filled_to_the_last_byte_refuses_and_loses_nothing(
    scene: Scene, tmp_path: Path
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    _mount("-t", "tmpfs", "-o", "size=20m", "none", str(place))
    scene.graph = place / "graph"
    scene.ok("create-layer", "--id", "base", "-n", "kept")
    filler = place / "filler"
    fill = ["dd", "if=/dev/zero", f"of={filler}", "bs=4k"]
    filled = subprocess.run(fill, capture_output=True, check=False, text=True)
    assert "No space left" in filled.stderr
    refused = scene.run("create-layer", "--id", "new", "base")
    if refused.exit:
        one_clear_line(refused, "no space left")
    filler.unlink()
    assert scene.layers() == (["base"] if refused.exit else ["base", "new"])
    scene.ok("create-layer", "--id", "next", "base")
    assert scene.journal("verify").exit == 0


def test_a_read_only_file_system_refuses_every_change(scene: Scene) -> None:
    scene.ok("create-layer", "--id", "base", "-n", "kept")
    scene.ok("shutdown")
    before = scene.fingerprint()
    _mount("--bind", str(scene.graph), str(scene.graph))
    _mount("-o", "remount,bind,ro", str(scene.graph))
    try:
        for command in (
            ("create-layer", "--id", "new", "base"),
            ("set-names", "-n", "x", "base"),
            ("delete-layer", "base"),
        ):
            one_clear_line(scene.run(*command), "read-only")
    finally:
        subprocess.run(["umount", str(scene.graph)], check=True)
    assert scene.fingerprint() == before
    assert scene.layers() == ["base"]


# -- a damaged journal -----------------------------------------------------------------------------


def _segments(scene: Scene) -> list[Path]:
    return sorted((scene.graph / "journal" / "segments").iterdir())


def test_a_damaged_journal_refuses_changes_and_is_told(scene: Scene) -> None:
    for number in range(6):
        scene.ok("create-layer", "--id", f"l{number}")
    segment = _segments(scene)[-1]
    data = bytearray(segment.read_bytes())
    position = data.index(b"l2")  # inside an acknowledged event with others after it
    data[position] ^= 0xFF
    os.chmod(segment, 0o600)
    segment.write_bytes(data)
    before = scene.fingerprint()
    one_clear_line(scene.run("create-layer", "--id", "new"), "journal", "damage")
    verified = scene.journal("verify")
    assert verified.exit == 2, verified
    assert "Traceback" not in verified.stdout + verified.stderr
    assert scene.fingerprint() == before


def test_a_torn_tail_is_cut_and_the_store_goes_on(scene: Scene) -> None:
    for number in range(3):
        scene.ok("create-layer", "--id", f"l{number}")
    segment = _segments(scene)[-1]
    with open(segment, "ab") as file:
        file.write(b"\0" * 13)
    assert scene.layers() == ["l0", "l1", "l2"]
    scene.ok("create-layer", "--id", "next")
    assert scene.layers() == ["l0", "l1", "l2", "next"]
    assert scene.journal("verify").exit == 0
