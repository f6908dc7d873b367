"""The part of ``Store`` that lists and finds items, in the store itself and in additional ones.

See ``store`` for what ``key`` may be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from cstorage.errors import ContainerUnknown, LayerUnknown
from cstorage.model import Container, Image, Kind, Layer
from cstorage.store import lookup
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cstorage.store.catalogue import Catalogue
    from cstorage.store.core import Core


class Lists(NamedTuple):
    """What ``Store.multi_list`` returns."""

    layers: list[Layer]
    images: list[Image]
    containers: list[Container]


class Finder:
    """Questions about which items there are."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def layers(self) -> Iterator[Layer]:
        """All layers in creation order, volatile ones last, then those of additional stores.

        With an image store those that are in it come after the others, before volatile ones.
        """
        return self._listed(self._core.view)

    def _listed(self, catalogue: Catalogue) -> Iterator[Layer]:
        found = catalogue.layers()
        if not self._core.location.image_store:
            return found
        # Where a layer is only its tree tells: records of both places are in one journal.
        return iter(sorted(found, key=self._place))

    def _place(self, layer: Layer) -> int:
        if layer.read_only:
            return 3
        if layer.volatile:
            return 2
        shelf = os.path.join(self._core.location.image_store, "")
        return int(self._core.driver.content_root(layer.id).startswith(shelf))

    def images(self) -> Iterator[Image]:
        """All images in creation order, then those of additional stores."""
        return self._core.view.images()

    def containers(self) -> Iterator[Container]:
        """All containers in creation order, volatile ones last."""
        state = self._core.view.primary
        for id_ in state.ids(Kind.CONTAINER):
            found = state.container(id_)
            if found is not None:
                yield found

    def layer(self, key: str) -> Layer:
        """One layer's record as of now. Raises ``LayerUnknown``."""
        return self._core.catalogue.layer(key)

    def image(self, key: str) -> Image:
        """One image's record. Raises ``ImageUnknown``, also where a record here hides it."""
        return self._core.catalogue.unhidden_image(key)

    def container(self, key: str) -> Container:
        """One container's record. Raises ``ContainerUnknown``."""
        return lookup.container(self._core.state, key)

    def multi_list(
        self, layers: bool = False, images: bool = False, containers: bool = False
    ) -> Lists:
        """The lists asked for, all of one moment; the others are empty."""
        core = self._core
        with core.mutex:
            catalogue = core.catalogue
            state = catalogue.primary
            boxes = [state.container(id_) for id_ in state.ids(Kind.CONTAINER) if containers]
            return Lists(
                list(self._listed(catalogue)) if layers else [],
                list(catalogue.images()) if images else [],
                [box for box in boxes if box is not None],
            )

    def exists(self, key: str) -> bool:
        """Whether any layer, image or container answers to ``key``."""
        return self._core.catalogue.any_item(key) is not None

    def lookup(self, key: str) -> str:
        """ID of the layer, image or container (in this order). Raises ``LayerUnknown``."""
        found = self._core.catalogue.any_item(key)
        if found is None:
            raise LayerUnknown
        return found.id

    def layers_by_compressed_digest(self, digest: str) -> list[Layer]:
        """Layers by the digest of the archive as it was received.

        Raises ``InvalidDigest``, ``LayerUnknown`` if there is none.
        """
        return self._layers_by("c", digest)

    def layers_by_uncompressed_digest(self, digest: str) -> list[Layer]:
        """Layers by the digest of the archive unpacked (DiffID).

        Raises ``InvalidDigest``, ``LayerUnknown`` if there is none.
        """
        return self._layers_by("u", digest)

    def layers_by_toc_digest(self, digest: str) -> list[Layer]:
        """Layers by the digest of a zstd:chunked archive's table of contents.

        Raises ``InvalidDigest``, ``LayerUnknown`` if there is none.
        """
        return self._layers_by("t", digest)

    def _layers_by(self, which: str, digest: str) -> list[Layer]:
        from cstorage.store import digests

        digests.check(digest)
        with self._core.mutex:
            found = list(self._core.catalogue.layers_by_digest(which, digest))
        if not found:
            raise LayerUnknown
        return found

    def images_by_digest(self, digest: str) -> list[Image]:
        """Images that answer to ``digest``; a digest nobody has, or a malformed one, finds none."""
        with self._core.mutex:
            return list(self._core.catalogue.images_by_digest(digest))

    def images_by_top_layer(self, key: str) -> list[Image]:
        """Images whose top layer or mapped top layer it is. Raises ``LayerUnknown``."""
        with self._core.mutex:
            catalogue = self._core.catalogue
            return list(catalogue.images_of_layer(catalogue.layer(key).id))

    def container_by_layer(self, key: str) -> Container:
        """The container that has this layer. Raises ``LayerUnknown``, ``ContainerUnknown``."""
        with self._core.mutex:
            catalogue = self._core.catalogue
            id_ = catalogue.primary.container_of_layer(catalogue.layer(key).id)
            if id_ is None:
                raise ContainerUnknown
            return lookup.container(catalogue.primary, id_)
