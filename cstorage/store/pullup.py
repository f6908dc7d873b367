"""Making an image of an additional store the primary store's own, so that it can be changed.

Semantics §3.2. The copy has the resolved ID of the original (the reference implementation uses the
caller's text, quirk Q-08), its top layer stays where it is. From then on the copy hides the
original from lookups by ID.
"""

from __future__ import annotations

from cstorage import events as ev
from cstorage.errors import DuplicateName
from cstorage.model import BigDataItem, Image, Kind
from cstorage.store import bigdata
from cstorage.store.lookup import go_quote
from cstorage.store.workspace import Intent
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.store.catalogue import Shelf
    from cstorage.store.core import Core


def blobs_of(image: Image, shelf: Shelf) -> list[bigdata.Blob]:
    """All blobs of an image of a shelf, with the digests recorded there."""
    return [
        (blob.name, shelf.read(Kind.IMAGE, image, blob), blob.digest) for blob in image.big_data
    ]


def pull_up(core: Core, image: Image, shelf: Shelf, then: ev.Event) -> None:
    """Copy ``image`` into the primary store and apply ``then`` to it, in one transaction.

    Raises ``DuplicateName`` if one of its names is taken there.
    """
    with core.work() as work:
        blobs = bigdata.stage(blobs_of(image, shelf), work, Kind.IMAGE)
        contents = tuple(dict.fromkeys(blob.content for blob in blobs))
        work.declare(Intent(core.driver.name, (), contents))
        with core.transaction() as tx:
            if tx.state.image(image.id) is None:
                for name in image.names:
                    holder = tx.state.holder(Kind.IMAGE, name)
                    if holder is not None:
                        raise DuplicateName(
                            f"image name {go_quote(name)} is already associated with image "
                            f"{go_quote(holder)}"
                        )
                for key in contents:
                    tx.adopt(key, work.path / f"content-{key}")
                tx.emit(created(core, image, blobs))
            tx.emit(then)


def created(core: Core, image: Image, blobs: tuple[BigDataItem, ...]) -> ev.ImageCreated:
    """The event that makes the copy."""
    return ev.ImageCreated(
        id=image.id,
        names=image.names,
        names_history=image.names_history,
        top_layer=image.top_layer,
        metadata=image.metadata,
        digest=image.digest,
        created_ns=image.created_ns,
        flags=image.flags,
        big_data=blobs,
        store=core.image_store,
    )
