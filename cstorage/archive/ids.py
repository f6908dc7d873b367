"""Mapping of user and group IDs between a container and the host. Pure.

An empty map means "host IDs": every ID stands for itself.
"""

from __future__ import annotations

from cstorage.errors import ArchiveError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.model import IDMap

OVERFLOW_ID = 65534


def to_host(ids: IDMap, container_id: int, what: str) -> int:
    """The host's ID for ``container_id``; ``what`` names it in the error.

    Raises ``ArchiveError`` if the map does not cover it (drivers-and-formats §6.6).
    """
    if not ids:
        return container_id
    for entry in ids:
        if 0 <= container_id - entry.container_id < entry.size:
            return entry.host_id + container_id - entry.container_id
    raise ArchiveError(
        f"{what} {container_id} cannot be mapped to a host ID",
        hint="give the layer a map that covers it",
    )


def to_container(ids: IDMap, host_id: int) -> int | None:
    """The container's ID for ``host_id``; ``None`` if the map does not cover it."""
    if not ids:
        return host_id
    for entry in ids:
        if 0 <= host_id - entry.host_id < entry.size:
            return entry.container_id + host_id - entry.host_id
    return None
