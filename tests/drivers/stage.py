"""A store's directories, one driver, and words to build and look at layers."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

from cstorage.drivers import mountapi
from cstorage.drivers.contract import DriverOptions, LayerPlan
from cstorage.drivers.registry import driver_class
from cstorage.model import DiffSummary, IDMaps, LayerID

FOLDERS = {"vfs": "dir", "btrfs": "subvolumes", "overlay": "."}
FUSE = shutil.which("fuse-overlayfs")


class Entry:
    """One member of an archive."""

    def __init__(self, name: str, data: bytes | None = b"", **fields: Any) -> None:
        self.info = tarfile.TarInfo(name)
        self.info.mode = 0o644
        self.info.mtime = 1_000_000
        self.data = data if data is not None else b""
        for key, value in fields.items():
            setattr(self.info, key, value)
        self.info.size = len(self.data)


def file(name: str, text: str = "", **fields: Any) -> Entry:
    return Entry(name, text.encode(), **fields)


def folder(name: str, **fields: Any) -> Entry:
    return Entry(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def symlink(name: str, target: str) -> Entry:
    return Entry(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str, **fields: Any) -> Entry:
    return Entry(name, type=tarfile.LNKTYPE, linkname=target, **fields)


def device(name: str, major: int, minor: int) -> Entry:
    return Entry(name, type=tarfile.CHRTYPE, devmajor=major, devminor=minor)


def whiteout(name: str) -> Entry:
    above, base = os.path.split(name)
    return Entry(os.path.join(above, f".wh.{base}"))


def opaque(directory: str) -> Entry:
    return Entry(f"{directory}/.wh..wh..opq")


def archive(*entries: Entry) -> bytes:
    """An uncompressed tar archive of the entries, in order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            tar.addfile(entry.info, io.BytesIO(entry.data))
    return out.getvalue()


ROOTFS = (
    folder("etc"),
    file("etc/passwd", "root:x:0:0\n", uid=1, gid=2),
    hard_link("etc/shadow", "etc/passwd", uid=1, gid=2),
    symlink("etc/link", "passwd"),
    file("etc/motd", "hello"),
    folder("bin", mode=0o750),
    file("bin/su", "#!", mode=0o4755),
    device("null", 1, 3),
)


class Sink:
    """Collects what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes, /) -> int:
        self.data += data
        return len(data)

    def members(self) -> list[tarfile.TarInfo]:
        with tarfile.open(fileobj=io.BytesIO(self.data)) as tar:
            return tar.getmembers()

    def names(self) -> list[str]:
        return [member.name for member in self.members()]


class Stage:
    """See the module. ``variant`` chooses driver and way of mounting."""

    def __init__(self, base: Path, variant: str = "overlay", *options: str, **more: Any) -> None:
        self.base = base
        self.variant = variant
        self.name = variant.partition("-")[0]
        self.work = base / "staging"
        self.trash = base / "trash"
        for path in (self.work, self.trash):
            path.mkdir(parents=True, exist_ok=True)
        given = list(options)
        if variant == "overlay-fuse":
            given.append(f"overlay.mount_program={FUSE}")
        self.driver = driver_class(self.name)(
            DriverOptions(base / self.name, base / "run" / self.name, tuple(given), **more)
        )
        self._count = 0

    def plan(self, layer: str, parent: str = "", **fields: Any) -> LayerPlan:
        return LayerPlan(LayerID(layer), LayerID(parent), **fields)

    def prepare(self, layer: str, parent: str = "", **fields: Any) -> Any:
        self._count += 1
        work = self.work / str(self._count)
        work.mkdir()
        return self.driver.prepare(self.plan(layer, parent, **fields), work)

    def layer(
        self, layer: str, parent: str = "", *entries: Entry, **fields: Any
    ) -> DiffSummary | None:
        """Make and publish a layer, filled with the entries if there are any."""
        with self.prepare(layer, parent, **fields) as prepared:
            summary = None
            if entries:
                summary = self.driver.apply(prepared, io.BytesIO(archive(*entries)))
            self.driver.make_durable(prepared)
            self.driver.publish(prepared)
        return summary

    def diff(self, layer: str, parent: str = "", **maps: IDMaps) -> Sink:
        sink = Sink()
        self.driver.write_diff(layer, parent, sink, **maps)
        return sink

    def changes(self, layer: str, parent: str = "", **maps: IDMaps) -> list[tuple[str, str]]:
        return [
            (change.kind.name[0], os.fsdecode(change.path))
            for change in self.driver.changes(layer, parent, **maps)
        ]

    def directory(self, layer: str) -> Path:
        """The directory that holds the layer."""
        home = self.base / self.name
        return home / FOLDERS[self.name] / layer

    def mounts(self) -> list[str]:
        """Mount points below the stage, as the kernel lists them."""
        text = Path("/proc/self/mountinfo").read_text()
        points = [line.split()[4] for line in text.splitlines()]
        return [point for point in points if point.startswith(f"{self.base}/")]

    def traces(self, layer: str) -> list[str]:
        """Everything in the homes that belongs to a layer: its directory, links that lead to it."""
        found = []
        for folder_path, folders, files in os.walk(self.base / self.name):
            for name in (*folders, *files):
                path = Path(folder_path) / name
                leads = path.is_symlink() and os.readlink(path) == f"../{layer}/diff"
                if name == layer or leads:
                    found.append(str(path))
        return found

    def close(self) -> list[str]:
        """Unmount what a failed test left; returns what it was."""
        left = self.mounts()
        for point in reversed(left):
            with contextlib.suppress(OSError):
                mountapi.detach(point)
        return left


def listing(root: Path) -> dict[str, tuple[str, int, int, str]]:
    """Path → (mode, uid, gid, content) of everything below a directory."""
    found = {}
    for folder_path, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder_path) / name
            status = path.lstat()
            text = ""
            if stat.S_ISLNK(status.st_mode):
                text = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                text = path.read_text()
            elif stat.S_ISCHR(status.st_mode):
                text = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
            found[str(path.relative_to(root))] = (
                stat.filemode(status.st_mode), status.st_uid, status.st_gid, text,
            )  # fmt: skip
    return found
