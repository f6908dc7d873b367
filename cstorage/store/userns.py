"""ID ranges of their own for containers: automatic user namespaces (semantics §10.3).

The whole creation of such a container holds ``GRAPHROOT/userns.lock``, so that what one allocation
sees as free is still free when its container is recorded. Ranges belong to the containers that
record them; those of deleted containers are free at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from cstorage import idmap
from cstorage.errors import StorageError
from cstorage.model import IDMap, IDMaps, Image, Kind
from cstorage.store.mapping import AutoMaps
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cstorage.store.catalogue import Catalogue
    from cstorage.store.core import Core

SUBUID = "/etc/subuid"
SUBGID = "/etc/subgid"
DEFAULT_OWNER = "containers"
_NOBODY = ("nobody", "nogroup")
_LINE_MAX = 1 << 16


def lock(core: Core, wanted: bool) -> AbstractContextManager[object]:
    """The user namespace lock for a block, if ``wanted``."""
    if not wanted:
        return nullcontext()
    from cstorage.store.lockfile import get_lockfile

    return get_lockfile(core.location.graph_root / "userns.lock").writing()


def allocate(core: Core, catalogue: Catalogue, image: Image | None, auto: AutoMaps) -> IDMaps:
    """Free host IDs for a container on ``image``. Hold the lock.

    Raises ``NoAvailableIDs``; ``StorageError`` if the image needs more than the maximum or has no
    layers to look at.
    """
    available_uids, available_gids = core.subordinate_ids
    used_uids: list[idmap.Interval] = []
    used_gids: list[idmap.Interval] = []
    for id_ in catalogue.primary.ids(Kind.CONTAINER):
        container = catalogue.primary.container(id_)
        if container is not None:
            used_uids += _host_ranges(container.maps.uids)
            used_gids += _host_ranges(container.maps.gids)
    needed = 0
    if not auto.size and image is not None:
        needed = _needed(core, catalogue, image, auto)
    size = idmap.automatic_size(
        auto.size,
        auto.initial_size,
        needed,
        core.options.auto_userns_min_size,
        core.options.auto_userns_max_size,
    )
    return IDMaps(
        idmap.allocate(available_uids, used_uids, size, auto.additional_uids),
        idmap.allocate(available_gids, used_gids, size, auto.additional_gids),
    )


def _host_ranges(entries: IDMap) -> list[idmap.Interval]:
    return [(entry.host_id, entry.host_id + entry.size) for entry in entries]


# -- what there is -------------------------------------------------------------------------------


def subordinate_ids(core: Core) -> tuple[list[idmap.Interval], list[idmap.Interval]]:
    """Host UIDs and GIDs that may be given to containers; none if nothing is configured."""
    rootless = os.geteuid() != 0
    if os.environ.get("_CONTAINERS_USERNS_CONFIGURED"):
        # Inside a rootless namespace the configured ranges appear renumbered, from 1 upward.
        return _own_range("/proc/self/uid_map"), _own_range("/proc/self/gid_map")
    owner = core.options.root_auto_userns_user or DEFAULT_OWNER
    if rootless:
        owner = os.environ.get("USER") or _account()
    return _ranges(SUBUID, owner, "user"), _ranges(SUBGID, owner, "group")


def _account() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _ranges(path: str, owner: str, kind: str) -> list[idmap.Interval]:
    import pwd

    try:
        number = pwd.getpwnam(owner).pw_uid
    except KeyError:
        number = None
    try:
        return _host_ranges(idmap.read_subordinate(path, owner, number, kind))
    except idmap.IDMapError:
        return []


def _own_range(path: str) -> list[idmap.Interval]:
    total = 0
    with open(path, encoding="ascii") as file:
        for line in file:
            total += int(line.split()[2])
    return [(1, total)]


# -- what an image needs -------------------------------------------------------------------------


def _needed(core: Core, catalogue: Catalogue, image: Image, auto: AutoMaps) -> int:
    """IDs from 0 on that the image's files and accounts use."""
    if not image.top_layer:
        raise StorageError(f"cannot find layer {image.top_layer!r}")
    highest = -1
    id_: str = image.top_layer
    while id_:
        layer = catalogue.layer_by_id(id_)
        if layer is None:
            raise StorageError(f"cannot find layer {id_!r}")
        highest = max(highest, *layer.diff.uids, *layer.diff.gids, -1)
        id_ = layer.parent
    accounts: list[int] = []
    for inside, given, fields in (
        (b"etc/passwd", auto.passwd_file, (2, 3)),
        (b"etc/group", auto.group_file, (2,)),
    ):
        with _opened(core, image, inside, given) as text:
            accounts += _ids(text, fields)
    return max(highest + 1, idmap.highest_listed(accounts))


@contextmanager
def _opened(core: Core, image: Image, inside: bytes, given: str) -> Iterator[str]:
    """The text of a file of the image, or of the caller's in its place; "" if it has none."""
    try:
        if given:
            fd = os.open(given, os.O_RDONLY | os.O_CLOEXEC)
        else:
            from cstorage.archive.beneath import open_payload_in_root

            # Of the whole tree: a directory that was emptied or replaced hides what is below it.
            with core.driver.view(image.top_layer) as tree:
                fd = open_payload_in_root(tree, inside)
    except (OSError, StorageError):
        yield ""
        return
    with open(fd, encoding="utf-8", errors="replace") as file:
        yield file.read(16 << 20)


def _ids(text: str, fields: tuple[int, ...]) -> Iterator[int]:
    """IDs in the given columns; lines that are none are ignored, and so is nobody."""
    for line in text.splitlines():
        parts = line[:_LINE_MAX].split(":")
        if parts[0] in _NOBODY:
            continue
        for column in fields:
            if column < len(parts) and parts[column].isascii() and parts[column].isdigit():
                number = int(parts[column])
                if number <= idmap.ID_MAX:
                    yield number
