"""Which ID maps a new layer or container gets (semantics §2.10)."""

from __future__ import annotations

from cstorage.model import IDMap, IDMaps
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cstorage.model import Layer
    from cstorage.state import State
    from cstorage.store.core import Core


class AutoMaps(NamedTuple):
    """A request for host IDs that no other container has (semantics §10.3).

    ``size`` 0 means "what the image needs, at least ``initial_size`` and the configured minimum".
    The files, if given, stand for the image's passwd and group. Additional entries are part of the
    result as they are.
    """

    size: int = 0
    initial_size: int = 0
    passwd_file: str = ""
    group_file: str = ""
    additional_uids: IDMap = ()
    additional_gids: IDMap = ()


class MapOptions(NamedTuple):
    """What the caller asks for. A true host flag means "no mapping of that kind".

    With neither flag nor list, the parent's map is inherited. ``auto`` asks for a range of its own
    (containers only; ignored for layers).
    """

    host_uids: bool = False
    host_gids: bool = False
    uids: IDMap = ()
    gids: IDMap = ()
    auto: AutoMaps | None = None

    @property
    def requested(self) -> IDMaps:
        """The lists as asked for, after the host flags have cleared theirs."""
        return IDMaps(() if self.host_uids else self.uids, () if self.host_gids else self.gids)


def effective(options: MapOptions, inherited: IDMaps) -> IDMaps:
    """Maps of the new item: host flag → none, a list → that list, otherwise ``inherited``."""
    asked = options.requested
    uids = asked.uids or (() if options.host_uids else inherited.uids)
    gids = asked.gids or (() if options.host_gids else inherited.gids)
    return IDMaps(uids, gids)


def stored(core: Core, maps: IDMaps) -> IDMaps:
    """Maps as a layer records them: none if the driver applies them when it mounts."""
    return IDMaps() if maps and core.driver.can_shift(maps) else maps


def of_files(core: Core, state: State, layer: Layer) -> IDMaps:
    """Maps of the owners that the layer's own files have: as recorded, or its container's.

    A container's layer without maps got its files through mounts that apply the container's
    (``ShiftedMaps``).
    """
    if layer.maps or layer.read_only:
        return layer.maps
    id_ = state.container_of_layer(layer.id)
    container = state.container(id_) if id_ is not None else None
    if container is None or not container.maps or not core.driver.can_shift(container.maps):
        return layer.maps
    from cstorage.drivers.contract import ShiftedMaps

    return ShiftedMaps(*container.maps)


def check_overlaps(maps: IDMaps) -> None:
    """Raises ``InvalidMappings`` if ranges within one list overlap on either side (§4.10)."""
    from cstorage import idmap

    idmap.check_overlaps(maps.uids, "UID")
    idmap.check_overlaps(maps.gids, "GID")
