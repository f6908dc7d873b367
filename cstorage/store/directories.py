"""Directories that belong to callers: ``userdata`` of containers and images (semantics §4.8).

They are made when first asked for, mode 0700, and are no part of the journal. They go with the
item: the transaction that deletes it moves them out, with an intent like the one for layers' trees.
"""

from __future__ import annotations

import errno
import os

from cstorage.errors import DirectoryFileUnknown, InvalidID
from cstorage.model import Kind
from cstorage.store import lookup
from cstorage.store.workspace import remove_tree
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cstorage.state import State
    from cstorage.store.core import Core
    from cstorage.store.workspace import Folder, Workspace


def _userdata(core: Core, root: Path, kind: str, key: str) -> Path:
    """``root/<driver>-<kind>/<key>/userdata``; a key can only name something below that folder."""
    from pathlib import Path

    folder = Path(root) / f"{core.driver.name}-{kind}"
    path = Path(os.path.normpath(folder / key.lstrip("/") / "userdata"))
    if folder not in path.parents or "\0" in key:
        raise InvalidID(
            f"{key!r} names a directory outside {folder}",
            hint="use an ID without .. components",
        )
    if not core.location.read_only:
        _make_private(path)
    return path


def _make_private(path: Path) -> None:
    """Make a directory and those above it that are missing, all 0700 whatever the umask allows."""
    if not path.is_dir():
        _make_private(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


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


def _places(core: Core, folder: Folder) -> tuple[Path, Path]:
    """Where an item's directories are, in the graph root and in the run root."""
    name = f"{core.driver.name}-{'containers' if folder.kind == Kind.CONTAINER else 'images'}"
    return core.location.graph_root / name / folder.id, core.location.run_root / name / folder.id


def place(core: Core, folder: Folder) -> Path:
    """Where the directories of an item are that survive a reboot."""
    return _places(core, folder)[0]


def orphans(state: State, folders: Iterable[Folder]) -> list[Folder]:
    """Those whose item does not exist."""
    from cstorage.state import keys

    return [x for x in folders if state.get(keys.record(Kind(x.kind), x.id)) is None]


def present(core: Core, folders: Iterable[Folder]) -> list[Folder]:
    """Those that there is a directory of."""
    return [
        folder
        for folder in folders
        if folder.id not in ("", ".", "..")
        and "/" not in folder.id
        and any(os.path.lexists(place) for place in _places(core, folder))
    ]


def run_trash(core: Core) -> Path:
    """Where the directories of the run root go that nobody shall see any more."""
    return core.location.run_root / f"{core.driver.name}-trash"


def withdrawn_name(folder: Folder) -> str:
    """What the directories of an item that is gone are called in a work folder."""
    return f"={folder.kind}-{folder.id}"


def withdraw(core: Core, folder: Folder, work: Workspace) -> None:
    """Move the directories of an item that is gone into ``work`` and its annex.

    What cannot be moved, because something is mounted there, is emptied where it is.
    """
    name = withdrawn_name(folder)
    trashes = (str(work.path), work.intent.annex)
    for place, trash in zip(_places(core, folder), trashes, strict=True):
        try:
            if os.path.isdir(place):
                os.makedirs(trash, mode=0o700, exist_ok=True)
            os.rename(place, f"{trash}/{name}")
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EBUSY):
                raise
            remove_tree(place)


def _inside(folder: Path, file: str) -> Path:
    path = type(folder)(os.path.normpath(folder / file.lstrip("/")))
    if folder not in path.parents:
        raise InvalidID(f"file name {file!r} leaves the directory {folder}")
    return path


def write_file(folder: Path, file: str, data: bytes) -> None:
    """Write ``folder/file`` atomically, mode 0600; directories between are made."""
    path = _inside(folder, file)
    _make_private(path.parent)
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
