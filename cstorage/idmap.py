"""ID maps: textual form, subordinate ranges, translation, checks, automatic allocation. All pure.

A map is a tuple of ``IDMapEntry``: ``size`` container IDs from ``container_id`` on are the host IDs
from ``host_id`` on. An empty map is the identity. The first entry that holds an ID decides.

Sources: semantics §2.10, §4.10, §10; cli §2.6.
"""

from __future__ import annotations

import itertools

from cstorage.errors import InvalidMappings, NoAvailableIDs, StorageError
from cstorage.model import IDMap, IDMapEntry, IDMaps
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ID_MAX = (1 << 32) - 1
OVERFLOW_ID = 65534
"""What the kernel shows for an ID that has no counterpart."""


class IDMapError(StorageError):
    """A textual map, a subordinate ID file or a translation that makes no sense."""


# -- textual form --------------------------------------------------------------------------------


def parse(settings: Sequence[str], kind: str = "uid") -> IDMap:
    """The map of ``container:host:size`` texts, each of one or more triples joined by ``:``.

    ``kind`` ("uid" or "gid") is named in the error.
    """
    entries = []
    for text in settings:
        if not text:
            continue
        fields = text.split(":")
        if len(fields) % 3:
            raise _malformed(kind, settings)
        numbers = []
        for field in fields:
            if not (field.isascii() and field.isdigit()) or int(field) > ID_MAX:
                raise _malformed(kind, settings)
            numbers.append(int(field))
        for index in range(0, len(numbers), 3):
            entries.append(IDMapEntry(*numbers[index : index + 3]))
    return tuple(entries)


def _malformed(kind: str, settings: Sequence[str]) -> IDMapError:
    shown = " ".join(f'"{text}"' for text in settings)
    return IDMapError(
        "initializing ID mappings: "
        f'{kind} setting is malformed expected ["uint32:uint32:uint32"]: [{shown}]'
    )


def format_entry(entry: IDMapEntry) -> str:
    """``container:host:size``."""
    return f"{entry.container_id}:{entry.host_id}:{entry.size}"


# -- translation ---------------------------------------------------------------------------------


def to_host(container_id: int, id_map: IDMap) -> int:
    """The host ID of a container ID. Raises ``IDMapError`` if it has none."""
    if not id_map:
        return container_id
    for entry in id_map:
        offset = container_id - entry.container_id
        if 0 <= offset < entry.size:
            return entry.host_id + offset
    raise IDMapError(f"container ID {container_id} cannot be mapped to a host ID")


def to_container(host_id: int, id_map: IDMap) -> int:
    """The container ID of a host ID. Raises ``IDMapError`` if it has none."""
    if not id_map:
        return host_id
    for entry in id_map:
        offset = host_id - entry.host_id
        if 0 <= offset < entry.size:
            return entry.container_id + offset
    raise IDMapError(f"host ID {host_id} cannot be mapped to a container ID")


def root_id(id_map: IDMap) -> int:
    """The host ID of the container's root.

    A single entry of size 1 means its host ID, whatever container ID it has.
    """
    if len(id_map) == 1 and id_map[0].size == 1:
        return id_map[0].host_id
    return to_host(0, id_map)


def root_pair(maps: IDMaps) -> tuple[int, int]:
    """Host UID and GID of the container's root."""
    return root_id(maps.uids), root_id(maps.gids)


def is_contiguous(id_map: IDMap) -> bool:
    """Whether the map is empty or one unbroken shift."""
    return all(
        later.container_id == earlier.container_id + earlier.size
        and later.host_id == earlier.host_id + earlier.size
        for earlier, later in itertools.pairwise(id_map)
    )


# -- checks --------------------------------------------------------------------------------------


def check_overlaps(id_map: IDMap, kind: str = "UID") -> None:
    """Raise ``InvalidMappings`` if container ranges or host ranges of one list overlap."""
    offending: set[int] = set()
    for starts in ([e.container_id for e in id_map], [e.host_id for e in id_map]):
        reach, holder = -1, -1
        for index in sorted(range(len(id_map)), key=starts.__getitem__):
            if starts[index] < reach:
                offending |= {holder, index}
            if starts[index] + id_map[index].size > reach:
                reach, holder = starts[index] + id_map[index].size, index
    if offending:
        listed = ", ".join(format_entry(id_map[index]) for index in sorted(offending))
        noun = "mappings" if len(offending) > 1 else "mapping"
        raise InvalidMappings(f"{kind} {noun} {listed} overlap")


# -- subordinate IDs -----------------------------------------------------------------------------


def subordinate_ranges(
    text: str, owner: str, owner_id: int | None = None, *, path: str = "/etc/subuid"
) -> tuple[tuple[int, int], ...]:
    """``(start, count)`` of the owner's lines, sorted by start.

    ``text`` is the file's content, ``owner_id`` the numeric ID that also counts as that owner;
    the owner ``ALL`` matches every line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        fields = stripped.split(":")
        if len(fields) != 3:
            raise IDMapError(f"cannot parse subordinate ID range in {path} line {number}: {line}")
        if owner != "ALL" and fields[0] != owner and fields[0] != str(owner_id):
            continue
        try:
            found.append((int(fields[1]), int(fields[2])))
        except ValueError:
            raise IDMapError(
                f"cannot parse subordinate ID range in {path} line {number}: {line}"
            ) from None
    return tuple(sorted(found))


def ranges_map(ranges: Iterable[tuple[int, int]]) -> IDMap:
    """Ranges laid out from container ID 0 upward."""
    entries, next_id = [], 0
    for start, count in ranges:
        entries.append(IDMapEntry(next_id, start, count))
        next_id += count
    return tuple(entries)


def read_subordinate(path: str, owner: str, owner_id: int | None, kind: str) -> IDMap:
    """The map of an owner's ranges in a subordinate ID file. ``kind``: "user" or "group"."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except OSError as error:
        raise IDMapError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    ranges = subordinate_ranges(text, owner, owner_id, path=path)
    if not ranges:
        sub = "subuid" if kind == "user" else "subgid"
        raise IDMapError(f'no {sub} ranges found for {kind} "{owner}" in {path}')
    return ranges_map(ranges)


class MapRequest(NamedTuple):
    """What a caller asked for: host flags and maps (semantics §10.1)."""

    host_uids: bool
    host_gids: bool
    maps: IDMaps


def requested(
    uidmap: Sequence[str] = (),
    gidmap: Sequence[str] = (),
    subuid_owner: str = "",
    subgid_owner: str = "",
    *,
    own_ids: tuple[int, int] = (0, 0),
    subuid_path: str = "/etc/subuid",
    subgid_path: str = "/etc/subgid",
) -> MapRequest:
    """Maps from texts and subordinate owners, completed by the convenience rules.

    One of the two owners, or of the two lists, stands for the other; a process that is not root and
    asks for nothing gets ``0:<own>:1``; ranges of owners come before explicit triples.
    """
    subuid_owner, subgid_owner = subuid_owner or subgid_owner, subgid_owner or subuid_owner
    uidmap, gidmap = uidmap or gidmap, gidmap or uidmap
    uids: IDMap = ()
    gids: IDMap = ()
    if subuid_owner:
        uids = read_subordinate(subuid_path, subuid_owner, _user_id(subuid_owner), "user")
        gids = read_subordinate(subgid_path, subgid_owner, _user_id(subgid_owner), "group")
    uids += parse(uidmap, "uid")
    gids += parse(gidmap, "gid")
    if not uids and not gids and own_ids[0] != 0:
        uids = (IDMapEntry(0, own_ids[0], 1),)
        gids = (IDMapEntry(0, own_ids[1], 1),)
    return MapRequest(not uids, not gids, IDMaps(uids, gids))


def _user_id(name: str) -> int | None:
    """The number that also stands for an owner, in the file of groups too (semantics §10.2)."""
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


# -- automatic allocation ------------------------------------------------------------------------

Interval = tuple[int, int]
"""IDs from the first number up to, not including, the second."""


def _normal(intervals: Iterable[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for start, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _subtract(intervals: Iterable[Interval], taken: Iterable[Interval]) -> Iterator[Interval]:
    holes = _normal(taken)
    for start, end in _normal(intervals):
        position = start
        for hole_start, hole_end in holes:
            if hole_end <= position or hole_start >= end:
                continue
            if hole_start > position:
                yield position, hole_start
            position = max(position, hole_end)
        if position < end:
            yield position, end


def allocate(
    available: Iterable[Interval],
    used: Iterable[Interval],
    size: int,
    additional: IDMap = (),
) -> IDMap:
    """A map of ``size`` container IDs onto free host IDs (semantics §10.3, steps 5 to 7).

    Container IDs ``0 … size-1`` without those that ``additional`` covers get the lowest host IDs
    that are available and neither ``used`` nor the host side of ``additional``; ``additional`` is
    appended. Raises ``NoAvailableIDs``.
    """
    wanted = list(
        _subtract(
            [(0, size)],
            [(entry.container_id, entry.container_id + entry.size) for entry in additional],
        )
    )
    extra = [(entry.host_id, entry.host_id + entry.size) for entry in additional]
    free = _subtract(available, [*used, *extra])
    entries: list[IDMapEntry] = []
    host, host_end = 0, 0
    for first, end in wanted:
        position = first
        while position < end:
            if host == host_end:
                try:
                    host, host_end = next(free)
                except StopIteration:
                    raise NoAvailableIDs() from None
            count = min(end - position, host_end - host)
            entries.append(IDMapEntry(position, host, count))
            position, host = position + count, host + count
    return (*entries, *additional)


def automatic_size(
    explicit: int, initial: int, needed: int, minimum: int = 1024, maximum: int = 65536
) -> int:
    """How many IDs a container gets (semantics §10.3, step 3). Raises ``IDMapError``."""
    if explicit:
        return explicit
    size = max(minimum or 1024, initial or 1, needed)
    limit = maximum or 65536
    if size > limit:
        raise IDMapError(
            f"the container needs a user namespace with size {size} that is bigger than the"
            f" maximum value allowed with userns=auto {limit}"
        )
    return size


def highest_listed(ids: Iterable[int]) -> int:
    """The size that the IDs of a passwd or group file ask for, as the original counts it.

    ID 65534 is ignored. The maximum is compared with ``>`` after one was added, so 1 and 2 give 2
    (quirk Q-24, kept: the size of a namespace is visible to users).
    """
    size = 0
    for number in ids:
        if number != OVERFLOW_ID and number > size:
            size = number + 1
    return size
