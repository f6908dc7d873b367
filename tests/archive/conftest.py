"""A scene builder for layer archives: what is written is what is meant, byte for byte."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cstorage.archive import apply, builder
from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.header import BLKTYPE, CHRTYPE, DIRTYPE, FIFOTYPE, LNKTYPE, REGTYPE, SYMTYPE
from cstorage.archive.writer import END, Entry, encode, padding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cstorage.archive.reader import Member

UID, GID = os.geteuid(), os.getegid()


class Scene:
    """Collects members; ``bytes(scene)`` is the archive."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def _add(self, entry: Entry, content: bytes = b"") -> Scene:
        self._parts.append(encode(entry) + content + padding(len(content)))
        return self

    def file(self, name: str | bytes, content: bytes = b"", **fields: object) -> Scene:
        return self._add(_entry(name, REGTYPE, 0o644, fields, size=len(content)), content)

    def dir(self, name: str | bytes, **fields: object) -> Scene:
        return self._add(_entry(name, DIRTYPE, 0o755, fields))

    def symlink(self, name: str | bytes, target: str | bytes, **fields: object) -> Scene:
        return self._add(_entry(name, SYMTYPE, 0o777, fields, linkname=_raw(target)))

    def link(self, name: str | bytes, target: str | bytes, **fields: object) -> Scene:
        return self._add(_entry(name, LNKTYPE, 0o644, fields, linkname=_raw(target)))

    def fifo(self, name: str | bytes, **fields: object) -> Scene:
        return self._add(_entry(name, FIFOTYPE, 0o644, fields))

    def char(self, name: str | bytes, major: int, minor: int, **fields: object) -> Scene:
        return self._add(_entry(name, CHRTYPE, 0o666, fields, devmajor=major, devminor=minor))

    def block(self, name: str | bytes, major: int, minor: int, **fields: object) -> Scene:
        return self._add(_entry(name, BLKTYPE, 0o660, fields, devmajor=major, devminor=minor))

    def raw(self, data: bytes) -> Scene:
        self._parts.append(data)
        return self

    def entry(self, entry: Entry, content: bytes = b"") -> Scene:
        return self._add(entry, content)

    def __bytes__(self) -> bytes:
        return b"".join(self._parts) + END


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _entry(
    name: str | bytes, kind: int, mode: int, fields: dict[str, object], **more: object
) -> Entry:
    values: dict[str, object] = {"mode": mode, "uid": UID, "gid": GID, "mtime": 1_600_000_000}
    values |= more | fields
    return Entry(_raw(name), kind, **values)  # type: ignore[arg-type]


@pytest.fixture
def scene() -> Callable[[], Scene]:
    """Makes an empty scene."""
    return Scene


@pytest.fixture
def with_builder(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Imports have a builder from the first file on; the names of what was handed over."""
    handed: list[bytes] = []

    class Watched(builder.Builder):
        def take(self, member: Member, name: bytes, *rest: Any) -> bool:
            handed.append(name)
            return super().take(member, name, *rest)

    def run(*given: Any) -> Any:
        *others, guards = given
        return real(*others, () if guards is None else guards)

    real = apply._Run
    monkeypatch.setattr(builder, "AFTER", 1)
    monkeypatch.setattr(builder, "START_WAIT_S", 60.0)
    monkeypatch.setattr(apply, "Builder", Watched)
    monkeypatch.setattr(apply, "_Run", run)
    return handed


@pytest.fixture(params=["alone", "with a builder"])
def both_ways(request: pytest.FixtureRequest) -> None:
    """The test runs twice: one process makes all files, or a second one makes what it can."""
    if request.param != "alone":
        request.getfixturevalue("with_builder")


class Root(NamedTuple):
    """A layer's tree inside a directory with things that must never change."""

    fd: int
    path: Path
    outside: Path

    def outside_state(self) -> list[tuple[str, int, int, int, int, bytes]]:
        """Everything outside the tree: names, modes, owners, times, contents."""
        found = []
        for path in sorted(self.outside.rglob("*")):
            if path == self.path or self.path in path.parents:
                continue
            info = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found.append(
                (
                    str(path),
                    info.st_mode,
                    info.st_uid,
                    info.st_gid,
                    info.st_mtime_ns,
                    content,
                )
            )
        return found


class Imported:
    """An archive in a tree, with what was recorded of it."""

    def __init__(self, data: bytes, root: Root) -> None:
        self.data = data
        self.root = root
        self.recipe, self.manifest = io.BytesIO(), io.BytesIO()
        self.summary = apply_layer(
            io.BytesIO(data), root.fd, ApplyOptions(), recipe=self.recipe, manifest=self.manifest
        )


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """An empty layer tree; beside it a file, a directory and a link, to be left alone."""
    outside = tmp_path / "outside"
    tree = outside / "layer"
    tree.mkdir(parents=True)
    (outside / "secret").write_bytes(b"host file\n")
    (outside / "folder").mkdir()
    (outside / "folder" / "inner").write_bytes(b"host file too\n")
    (outside / "pointer").symlink_to("secret")
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Root(fd, tree, outside)
    finally:
        os.close(fd)
