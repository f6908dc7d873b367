"""The ID mapping flags of the creating commands (cli.md §2.6)."""

from __future__ import annotations

from cstorage.errors import StorageError
from cstorage.model import IDMaps
from cstorage.store.mapping import MapOptions
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.cli.invocation import Invocation


class MapRefused(StorageError):
    """Mapping flags that contradict each other."""


def map_options(inv: Invocation) -> MapOptions:
    """What the mapping flags ask for.

    Raises ``MapRefused`` and ``IDMapError``. Ranges of ``--subuidmap`` and ``--subgidmap`` come
    before the explicit triples; giving only one of the two names uses it for both.
    """
    uids, gids = inv.text("uidmap"), inv.text("gidmap")
    user, group = inv.text("subuidmap"), inv.text("subgidmap")
    host_uids, host_gids = inv.flag("hostuidmap"), inv.flag("hostgidmap")
    if not (uids or gids or user or group):
        return MapOptions(host_uids, host_gids)
    user, group = user or group, group or user
    if host_uids and (uids or user):
        raise MapRefused("host uid map specified along with UID mapping")
    if host_gids and (gids or group):
        raise MapRefused("host gid map specified along with GID mapping")
    from cstorage import idmap

    owned = idmap.requested(subuid_owner=user, subgid_owner=group).maps if user else IDMaps()
    uid_map, gid_map = idmap.parse([uids], "uid"), idmap.parse([gids], "gid")
    return MapOptions(host_uids, host_gids, (*owned.uids, *uid_map), (*owned.gids, *gid_map))
