"""The ID mapping flags of the creating commands (cli.md §2.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cstorage.cli.quoting import go_quote
from cstorage.errors import StorageError
from cstorage.model import IDMapEntry
from cstorage.store.mapping import MapOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cstorage.cli.invocation import Invocation
    from cstorage.model import IDMap

_LIMIT = 1 << 32


class MapRefused(StorageError):
    """The mapping flags contradict each other or cannot be understood."""


def map_options(inv: Invocation) -> MapOptions:
    """What the mapping flags ask for. Raises ``MapRefused``; reads only /etc/sub?id files."""
    uid_words, gid_words = inv.text("uidmap"), inv.text("gidmap")
    user, group = inv.text("subuidmap"), inv.text("subgidmap")
    host_uids, host_gids = inv.flag("hostuidmap"), inv.flag("hostgidmap")
    user, group = user or group, group or user
    if host_uids and (uid_words or user):
        raise MapRefused("host uid map specified along with UID mapping")
    if host_gids and (gid_words or group):
        raise MapRefused("host gid map specified along with GID mapping")
    uids = (*_subordinate("uid", "user", user), *_explicit("uid", uid_words))
    gids = (*_subordinate("gid", "group", group), *_explicit("gid", gid_words))
    return MapOptions(host_uids, host_gids, uids, gids)


def _explicit(kind: str, words: str) -> IDMap:
    """The entries of ``container:host:size[:container:host:size…]``."""
    if not words:
        return ()
    numbers = words.split(":")
    if len(numbers) % 3 or not all(map(_is_id, numbers)):
        raise MapRefused(
            f"initializing ID mappings: {kind} setting is malformed "
            f'expected ["uint32:uint32:uint32"]: [{go_quote(words)}]'
        )
    values = list(map(int, numbers))
    return tuple(IDMapEntry(*values[at : at + 3]) for at in range(0, len(values), 3))


def _is_id(word: str) -> bool:
    return word.isascii() and word.isdigit() and int(word) < _LIMIT


def _subordinate(kind: str, owner_kind: str, owner: str) -> IDMap:
    """Ranges of ``owner`` by start, laid out from container ID 0 upward."""
    if not owner:
        return ()
    path = f"/etc/sub{kind}"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            ranges = subordinate_ranges(file, path, _aliases(owner_kind, owner))
    except OSError as error:
        from cstorage.cli.wording import system_text

        raise MapRefused(system_text(error, "open")) from None
    if not ranges:
        raise MapRefused(f"no sub{kind} ranges found for {owner_kind} {go_quote(owner)} in {path}")
    entries = []
    inside = 0
    for start, size in ranges:
        entries.append(IDMapEntry(inside, start, size))
        inside += size
    return tuple(entries)


def subordinate_ranges(
    lines: Iterable[str], path: str, owners: Iterable[str]
) -> list[tuple[int, int]]:
    """(start, size) of the lines ``owner:start:size`` of ``owners``, sorted by start.

    ``path`` is what the error of a malformed line names. ``ALL`` stands for every owner.
    """
    wanted = {*owners, "ALL"}
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        fields = text.split(":")
        if len(fields) != 3 or (fields[0] in wanted and not all(map(_is_id, fields[1:]))):
            raise MapRefused(f"{path}:{number}: expected owner:start:size, found {go_quote(text)}")
        if fields[0] in wanted:
            found.append((int(fields[1]), int(fields[2])))
    return sorted(found)


def _aliases(owner_kind: str, owner: str) -> list[str]:
    """The name and, where the system knows it, its number in decimal."""
    import grp
    import pwd

    try:
        number = pwd.getpwnam(owner).pw_uid if owner_kind == "user" else grp.getgrnam(owner).gr_gid
    except KeyError:
        return [owner]
    return [owner, str(number)]
