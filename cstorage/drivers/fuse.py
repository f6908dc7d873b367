"""Mounting with a program (fuse-overlayfs) instead of the kernel.

The program is called as ``<program> -o <options> <target>`` with the home as working directory;
mount flags stay among the options, ID maps become options too (drivers-and-formats §3.6). It
returns when the mount is there and leaves a process that serves it.
"""

from __future__ import annotations

import os

from cstorage.drivers import mountapi
from cstorage.errors import DriverError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cstorage.model import IDMap, IDMaps

PROGRAM = "fuse-overlayfs"
_TIMEOUT_S = 60


def map_options(maps: IDMaps) -> list[str]:
    """Options that make the program show mapped owners. Pure."""
    options = []
    for squash, mapping, id_map in (
        ("squash_to_uid", "uidmapping", maps.uids),
        ("squash_to_gid", "gidmapping", maps.gids),
    ):
        options.extend(_map_option(squash, mapping, id_map))
    return options


def _map_option(squash: str, mapping: str, id_map: IDMap) -> list[str]:
    if not id_map:
        return []
    if len(id_map) == 1 and id_map[0].size == 1:
        return [f"{squash}={id_map[0].host_id}"]
    text = "".join(f":{e.container_id}:{e.host_id}:{e.size}" for e in id_map)
    return [f"{mapping}={text}"]


def mount(program: str, home: str, data: str, target: str) -> None:
    """Run the program. Raises ``DriverError`` with what it said."""
    import subprocess
    import tempfile

    # A file, not a pipe: the serving process inherits it and would keep a pipe open for ever.
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                [program, "-o", data, target],
                check=False,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=_TIMEOUT_S,
            )
        except FileNotFoundError:
            raise DriverError(f"mount program {program}: no such file or directory") from None
        except subprocess.TimeoutExpired:
            raise DriverError(
                f"mount program {program} did not finish within {_TIMEOUT_S} s"
            ) from None
        if done.returncode == 0 and mountapi.is_mount_point(target):
            return
        said.seek(0)
        text = said.read(4096).decode("utf-8", "replace").strip()
    raise DriverError(
        f"using mount program {program}: {text or 'nothing was mounted'}"
        f" (exit status {done.returncode})"
    )


def unmount(point: str) -> bool:
    """Ask the helper to unmount, else write everything back and detach; False if nothing was."""
    import subprocess

    for program in ("fusermount3", "fusermount"):
        try:
            done = subprocess.run(
                [program, "-u", point], check=False, capture_output=True, timeout=_TIMEOUT_S
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return True
    try:
        tree = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return mountapi.detach(point)
    try:
        mountapi.sync_file_system(tree)
    finally:
        os.close(tree)
    return mountapi.detach(point)


def view(program: str, home: str, data: str, scratch: str) -> int:
    """A descriptor of the merged tree, mounted at ``scratch`` only for a moment."""
    os.makedirs(scratch, mode=0o700)
    try:
        mount(program, home, data, os.path.abspath(scratch))
        try:
            return os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            mountapi.detach(scratch)
    finally:
        os.rmdir(scratch)


def find_program(environ_path: Sequence[str] = ()) -> str:
    """The path of fuse-overlayfs, "" if it is not installed."""
    import shutil

    return shutil.which(PROGRAM, path=":".join(environ_path) or None) or ""
