"""Directories that belong to callers: ``userdata`` of containers and images (semantics §4.8).

They are made when first asked for, mode 0700, and are no part of the journal; deleting the item
removes them.
"""

from __future__ import annotations

import os

from cstorage.errors import DirectoryFileUnknown, InvalidID
from cstorage.store import lookup
from cstorage.store.workspace import remove_tree
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage.store.core import Core


def _userdata(core: Core, root: Path, kind: str, key: str) -> Path:
    """``root/<driver>-<kind>/<key>/userdata``; a key can only name something below that folder."""
    from pathlib import Path

    folder = Path(root) / f"{core.driver.name}-{kind}"
    path = Path(os.path.normpath(folder / key.lstrip("/") / "userdata"))
    if folder not in path.parents or "\0" in key or path.parent == folder:
        raise InvalidID(
            f"{key!r} names a directory outside {folder}",
            hint="use an ID without .. components",
        )
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def container_directory(core: Core, key: str) -> Path:
    """Persistent directory of a container. Raises ``ContainerUnknown``."""
    id_ = lookup.container(core.state, key).id
    return _userdata(core, core.location.graph_root, "containers", id_)


def container_run_directory(core: Core, key: str) -> Path:
    """Directory of a container that forgets at reboot. Raises ``ContainerUnknown``."""
    id_ = lookup.container(core.state, key).id
    return _userdata(core, core.location.run_root, "containers", id_)


def image_directory(core: Core, key: str) -> Path:
    """Persistent directory for ``key``, which need not be an image (quirk Q-19, kept)."""
    return _userdata(core, core.location.graph_root, "images", key)


def image_run_directory(core: Core, key: str) -> Path:
    return _userdata(core, core.location.run_root, "images", key)


def remove(core: Core, kind: str, id_: str) -> None:
    """Remove both directories of a deleted item, with everything in them."""
    if not id_ or id_ in (".", "..") or "/" in id_:
        return
    if core.joint is not None:
        core.joint.afterwards.append(lambda: remove(core, kind, id_))
        return
    for root in (core.location.graph_root, core.location.run_root):
        remove_tree(root / f"{core.driver.name}-{kind}" / id_)


def _inside(folder: Path, file: str) -> Path:
    path = type(folder)(os.path.normpath(folder / file.lstrip("/")))
    if folder not in path.parents:
        raise InvalidID(f"file name {file!r} leaves the directory {folder}")
    return path


def write_file(folder: Path, file: str, data: bytes) -> None:
    """Write ``folder/file`` atomically, mode 0600; directories between are made."""
    path = _inside(folder, file)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".tmp-{path.name}{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fdatasync(fd)
    finally:
        os.close(fd)
    draft.rename(path)


def read_file(folder: Path, file: str) -> bytes:
    """Bytes of ``folder/file``. Raises ``DirectoryFileUnknown``."""
    path = _inside(folder, file)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DirectoryFileUnknown(f"open {path}: no such file or directory") from None


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below ``folder``; hard links once, directories not counted."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for base, _, files in os.walk(folder):
        for name in files:
            info = os.lstat(os.path.join(base, name))
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                total += info.st_size
    return total
