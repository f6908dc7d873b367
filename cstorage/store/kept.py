"""What was deleted and is kept for a while, so that it can be restored.

Rules of this module:

* A transaction that deletes items leaves its folder below ``trash/`` for as long as the retention
  says, with everything they had: layer trees, blobs (links where others have them too), callers'
  directories, and, in the file ``=deleted``, their records. So it needs nothing from elsewhere.
* ``=deleted`` is written before the transaction is. A process that dies in between or afterwards
  leaves a folder that whoever sweeps keeps if the items are gone, and deletes if they are not.
* A folder goes when its time is over or all in it is restored, and the oldest ones while together
  they occupy more than the retention's bytes: when the store is opened, or something is deleted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

from cstorage.content import write_synced
from cstorage.model import Container, Image, Item, Kind, Layer
from cstorage.state import keys, values
from cstorage.store.workspace import DELETED, Workspace
from journal.codec import decode, encode
from journal.errors import InvalidRecord
from journal.plain import TYPE_CHECKING, Any, NamedTuple, Path

if TYPE_CHECKING:
    from cstorage.state import State
    from cstorage.store.core import Core

_FOREVER_S = 100 * 366 * 86400


class Retention(NamedTuple):
    """How long, and up to how many bytes altogether, deleted items are kept; 0 is no limit."""

    seconds: int = 0
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.seconds or self.size)

    @property
    def kept_s(self) -> int:
        return (self.seconds or _FOREVER_S) if self else 0


class Gone(NamedTuple):
    """A deleted item as it was, and when the layers that it rested on were created."""

    kind: Kind
    item: Item
    rested_on: dict[str, int]


class Deleted(NamedTuple):
    """A deleted item that can be restored: what ``Store.deleted`` lists.

    ``sequence`` is that of the first event of the transaction that deleted it, ``until_ns`` the
    time up to which it is kept if bytes allow, ``size`` what that transaction's items occupy.
    """

    kind: Kind
    item: Item
    sequence: int
    time_ns: int
    until_ns: int
    size: int


class Folder(NamedTuple):
    """What one transaction deleted."""

    path: Path
    sequence: int
    time_ns: int
    kept_s: int
    items: tuple[Gone, ...]

    @property
    def until_ns(self) -> int:
        return self.time_ns + self.kept_s * 1_000_000_000


def kind_of(item: Item) -> Kind:
    if isinstance(item, Layer):
        return Kind.LAYER
    return Kind.IMAGE if isinstance(item, Image) else Kind.CONTAINER


def contents_of(item: Item) -> list[str]:
    """Content keys that the item refers to."""
    own = (item.diff.recipe, item.diff.manifest) if isinstance(item, Layer) else ()
    return [key for key in (*own, *(blob.content for blob in item.big_data)) if key]


def gone(state: State, item: Item) -> Gone:
    """``item``, which is about to be deleted, with what tells the layers below it from others."""
    match item:
        case Layer():
            below: Sequence[str] = (item.parent,)
        case Image():
            below = (item.top_layer, *item.mapped_top_layers)
        case Container():
            below = (item.layer,)
    layers = [state.layer(id_) for id_ in below if id_]
    return Gone(kind_of(item), item, {x.id: x.created_ns for x in layers if x is not None})


# -- the folder ------------------------------------------------------------------------------------


def describe(
    work: Workspace, sequence: int, time_ns: int, kept_s: int, items: Sequence[Gone]
) -> None:
    """Write down what the folder is about to hold."""
    records = [
        [x.kind.value, values.encode(x.item), [[id_, ns] for id_, ns in x.rested_on.items()]]
        for x in items
    ]
    draft = work.path / f"{DELETED}.new"
    draft.unlink(missing_ok=True)
    write_synced(draft, encode([sequence, time_ns, kept_s, records]))
    os.rename(draft, work.path / DELETED)


def read(path: Path) -> Folder | None:
    """The folder at ``path``; ``None`` if it holds no deleted items (any more)."""
    try:
        raw: Any = decode((path / DELETED).read_bytes())
        items = []
        for kind_text, record, below in raw[3]:
            kind = Kind(kind_text)
            item: Item = values.decode(keys.record(kind, ""), record)
            items.append(Gone(kind, item, {str(id_): int(ns) for id_, ns in below}))
        return Folder(path, int(raw[0]), int(raw[1]), int(raw[2]), tuple(items))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (InvalidRecord, ValueError, IndexError, TypeError):
        return None  # damage of the medium: nothing to restore, and the sweep removes it


def folders(core: Core) -> list[Folder]:
    """What is kept, the newest first."""
    try:
        names = sorted(os.listdir(core.trash))
    except FileNotFoundError:
        return []
    found = [read(core.trash / name) for name in names if not name.endswith(".lock")]
    now = time.time_ns()
    alive = [x for x in found if x is not None and x.until_ns > now]
    return sorted(alive, key=lambda folder: (folder.time_ns, folder.sequence), reverse=True)


def tree_of(core: Core, folder: Folder, layer: str) -> Path | None:
    """Where the layer's tree is, in the graph root's trash or in that of the split image store."""
    for place in (folder.path, core.image_trash / folder.path.name):
        if os.path.isdir(place / layer):
            return place / layer
    return None


def add_links(core: Core, folder: Path, items: Sequence[Gone]) -> None:
    """Give the folder the blobs too that others still have; the writer lock is held."""
    for one in items:
        for key in contents_of(one.item):
            try:
                os.link(core.content.path(key), folder / key)
            except (FileExistsError, FileNotFoundError):
                continue


def is_gone(core: Core, folder: Folder) -> bool:
    """Whether the transaction that the folder was made for took place. Needs a current state."""
    for kind, item, _ in folder.items:
        now: Item | None = core._state.get(keys.record(kind, item.id))
        if now is not None and now.sequence == item.sequence:
            return False
    return bool(folder.items)


def listed(core: Core) -> Iterator[Deleted]:
    """Everything that can be restored, the latest deletion first."""
    for folder, gone in _restorable(core, folders(core)):
        yield Deleted(
            gone.kind,
            gone.item,
            folder.sequence,
            folder.time_ns,
            folder.until_ns,
            size(core, folder),
        )


def _restorable(core: Core, found: Sequence[Folder]) -> Iterator[tuple[Folder, Gone]]:
    for folder in found:
        for gone in folder.items:
            if not is_back(core.state, gone.kind, gone.item):
                yield folder, gone


def is_back(state: State, kind: Kind, item: Item) -> bool:
    """Whether a deleted item exists again, as opposed to another one of its ID."""
    now: Item | None = state.get(keys.record(kind, item.id))
    return now is not None and now.created_ns == item.created_ns


def totals(core: Core) -> tuple[int, int]:
    """The number of items that can be restored, and the bytes of all that is kept."""
    found = folders(core)
    return sum(1 for _ in _restorable(core, found)), sum(size(core, x) for x in found)


# -- bytes -----------------------------------------------------------------------------------------


def size(core: Core, folder: Folder) -> int:
    """Bytes that the folder occupies on disk; measured once, when it is first asked for."""
    noted = folder.path / "=size"
    try:
        return int(noted.read_text())
    except (OSError, ValueError):
        pass
    places = dict.fromkeys((folder.path, core.image_trash / folder.path.name))
    total = sum(_occupied(os.fspath(place)) for place in places if place.is_dir())
    try:
        noted.write_text(str(total))
    except OSError:
        pass  # read-only, or gone meanwhile
    return total


def _occupied(root: str) -> int:
    """As ``du`` counts: blocks, hard links once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    pending = [root]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif (info.st_dev, info.st_ino) in seen:
                        continue
                    else:
                        seen.add((info.st_dev, info.st_ino))
                    total += info.st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def trim(core: Core, most: int) -> None:
    """Delete the oldest folders until the others occupy at most ``most`` bytes."""
    total = 0
    for folder in folders(core):
        total += size(core, folder)
        if total > most:
            discard(core, folder)


def discard(core: Core, folder: Folder) -> bool:
    """Delete what is kept in a folder; False if another process works on it."""
    works = claim(core, folder)
    for work in works:
        work.discard()
    return bool(works)


def claim(core: Core, folder: Folder) -> list[Workspace]:
    """The folder, and its part in a split image store, as work folders of this process.

    Empty if another process works on it, or has deleted it.
    """
    first = Workspace.claim(folder.path)
    if first is None:
        return []
    found = [first]
    if core.image_trash != core.trash:
        other = Workspace.claim(core.image_trash / folder.path.name)
        found += [other] if other is not None else []
    return found
