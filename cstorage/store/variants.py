"""Which variant of an image's top layer to use, by ID maps (semantics §2.10, steps 1 to 4).

An image has its top layer and, for other maps than that has, mapped copies of it. A copy is made
when it is first needed and stays for those who need it later, unless the image or the layer it
would be a copy of is in an additional store.
"""

from __future__ import annotations

from cstorage import events as ev
from cstorage.errors import LayerUnknown
from cstorage.model import IDMaps, Image, Layer, LayerID
from cstorage.store import layers
from cstorage.store.mapping import MapOptions, stored
from cstorage.store.workspace import Intent
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.drivers.contract import Prepared
    from cstorage.store.catalogue import Catalogue
    from cstorage.store.commit import Transaction
    from cstorage.store.core import Core
    from cstorage.store.workspace import Workspace

HOST = MapOptions(host_uids=True, host_gids=True)
"""Host IDs: what image mounts ask for."""


def choose(
    core: Core, catalogue: Catalogue, image: Image, options: MapOptions
) -> tuple[Layer, IDMaps | None]:
    """The variant to build on, and the maps of the copy that has to be made of it first, if any.

    Raises ``LayerUnknown`` if there is no usable variant.
    """
    asked = options.requested
    fallback: Layer | None = None
    for state, shelf in catalogue.layer_states():
        for id_ in (image.top_layer, *image.mapped_top_layers):
            found = state.layer(id_)
            if found is None or (found.parent and catalogue.layer_by_id(found.parent) is None):
                continue
            layer = found._replace(read_only=shelf is not None)
            host_flag_hurts = (options.host_uids and layer.maps.uids) or (
                options.host_gids and layer.maps.gids
            )
            if layer.maps == asked and not host_flag_hurts:
                return layer, None
            if asked and not layer.maps and core.driver.can_shift(asked):
                return layer, None
            fallback = fallback or layer
    if fallback is None:
        raise LayerUnknown
    if image.read_only or fallback.read_only:
        return fallback, None
    return fallback, stored(core, asked)


class Copy:
    """A mapped copy of a top layer on its way into the store."""

    def __init__(self, core: Core, image: Image, base: Layer, maps: IDMaps) -> None:
        self.core = core
        self.image = image
        self.id = layers.new_layer_id(core.state)
        self.base = layers.Base(base.parent, base, maps, base.maps)
        self.request = layers.LayerRequest(writable=False, mount_label=base.mount_label)

    def prepare(self, work: Workspace) -> Prepared:
        """Its tree below ``work``, durable. A context manager, as every prepared layer."""
        prepared = layers.prepare(self.core, self.base, self.id, self.request, work)
        self.core.driver.make_durable(prepared)
        return prepared

    def enter(self, tx: Transaction, prepared: Prepared) -> None:
        """Make it part of the transaction, as a layer and as a variant of the image."""
        tx.publish(prepared)
        tx.emit(layers.created(tx, self.base, self.id, self.request, self.base.diff))
        tx.emit(ev.ImageMappedLayerAdded(self.image.id, self.id))


def usable(core: Core, image: Image, options: MapOptions) -> Layer:
    """The variant for ``options``; made, in a transaction of its own, if there is none yet."""
    base, copy_maps = choose(core, core.catalogue, image, options)
    if copy_maps is None:
        return base
    copy = Copy(core, image, base, copy_maps)
    with core.work(image=True) as work, copy.prepare(work) as prepared:
        work.declare(Intent(core.driver.name, (copy.id,), ()))
        with core.transaction() as tx:
            again, needed = choose(core, tx.catalogue, image, options)
            if needed is None:
                return again
            copy.enter(tx, prepared)
    found = core.state.layer(copy.id)
    if found is None:
        raise LayerUnknown
    return found


def unmapped(core: Core, image: Image) -> LayerID:
    """ID of the variant with host IDs: the first mapped copy without maps, else the top layer."""
    catalogue = core.catalogue
    for id_ in image.mapped_top_layers:
        layer = catalogue.layer_by_id(id_)
        if layer is not None and not layer.maps:
            return layer.id
    return image.top_layer
