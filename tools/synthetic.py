"""Stores of any size without any content, for measurements: ours, and the same for its peer.

The journal is written through its public API, a thousand layers a frame, and the tables are made
as a store makes them. Layers come in chains of ``DEPTH`` with an image on top of each; the last
image has ``DEEP`` layers. IDs and digests follow from numbers, so every run measures the same.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from cstorage import events as ev  # noqa: E402
from cstorage.events import codec  # noqa: E402
from cstorage.model import (  # noqa: E402
    BigDataItem,
    Compression,
    DiffSummary,
    Digest,
    IDMaps,
    ImageID,
    Kind,
    LayerID,
)

DEPTH = 10
DEEP = 58
FRAME_EVENTS = 1000
EVENTS_PER_TABLE = 350_000
EPOCH_NS = 1_700_000_000 * 10**9
LAYER_BYTES = 1 << 20


def number(what: str, index: int) -> str:
    """64 hex digits that stand for the ``index``-th ``what``."""
    return hashlib.sha256(f"{what} {index}".encode()).hexdigest()


def layer_id(index: int) -> str:
    return number("layer", index)


def image_name(index: int) -> str:
    return f"registry.example/team/app:{index}"


def chains(layers: int) -> list[range]:
    """Which layers belong to which image, from the bottom to the top."""
    deep = layers - DEEP if layers > 10 * DEEP else layers
    found = [range(at, min(at + DEPTH, deep)) for at in range(0, deep, DEPTH)]
    return [*found, range(deep, layers)] if deep < layers else found


def layer_created(id_: str, parent: str, index: int) -> ev.LayerCreated:
    """A layer whose archive has been measured."""
    return ev.LayerCreated(
        id=LayerID(id_),
        names=(),
        parent=LayerID(parent),
        metadata="",
        mount_label="",
        created_ns=EPOCH_NS + index,
        diff=DiffSummary(
            compressed_digest=Digest(f"sha256:{number('compressed', index)}"),
            compressed_size=LAYER_BYTES // 3,
            uncompressed_digest=Digest(f"sha256:{number('diff', index)}"),
            uncompressed_size=LAYER_BYTES,
            compression=Compression.GZIP,
            uids=(0,),
            gids=(0,),
            entries=100,
            content_size=LAYER_BYTES - 51200,
            disk_size=LAYER_BYTES,
        ),
        flags={},
        maps=IDMaps(),
        big_data=(),
        writable=False,
        volatile=False,
    )


def events(layers: int) -> Iterator[ev.Event]:
    """Everything that happened to the store."""
    yield ev.StoreInitialised("vfs")
    for image, chain in enumerate(chains(layers)):
        parent = ""
        for index in chain:
            id_ = layer_id(index)
            yield layer_created(id_, parent, index)
            parent = id_
        manifest = Digest(f"sha256:{number('manifest', image)}")
        yield ev.ImageCreated(
            id=ImageID(number("image", image)),
            names=(image_name(image),),
            names_history=(image_name(image),),
            top_layer=LayerID(parent),
            metadata="",
            digest=manifest,
            created_ns=EPOCH_NS + image,
            flags={},
            big_data=(BigDataItem("manifest", 1000, manifest, number("manifest", image)),),
        )


def ours(root: Path, layers: int, tables: bool = True) -> None:
    """A store with graph root ``root/graph`` (driver vfs); with ``tables`` ready to be opened."""
    from cstorage.store import reading
    from cstorage.store.tables import settle
    from journal import Journal

    graph = root / "graph"
    graph.mkdir(parents=True)
    (root / "run").mkdir()
    (graph / "journal.driver").write_text("vfs\n")
    (graph / "vfs" / "dir").mkdir(parents=True)
    path = graph / "journal"
    with Journal.open(path, "w", create=True, durability="none") as journal:
        frame: list[list[object]] = []
        since = 0

        def commit() -> None:
            journal.commit(frame, actor=[0, 1, "synthetic", "host", ""], schema=ev.SCHEMA)
            frame.clear()

        for event in events(layers):
            frame.append(codec.encode(event))
            since += 1
            if len(frame) == FRAME_EVENTS:
                commit()
                if tables and since >= EVENTS_PER_TABLE:
                    settle(journal, str(path), reading.apply_frame)
                    since = 0
        if frame:
            commit()
        if tables:
            settle(journal, str(path), reading.apply_frame, full=True)


def later_events(layers: int, count: int) -> Iterator[ev.Event]:
    """Names, metadata and new layers on top of old ones."""
    for index in range(count):
        old = LayerID(layer_id(index * 17 % layers))
        if index % 3 == 0:
            yield ev.NamesAdded(Kind.LAYER, old, (f"later{index}",))
        elif index % 3 == 1:
            yield ev.MetadataSet(Kind.LAYER, old, f"later {index}")
        else:
            yield layer_created(number("later", index), old, layers + index)


def more(root: Path, layers: int, count: int) -> None:
    """``count`` more events, ten in a frame, and the tables that are made of them meanwhile."""
    from cstorage.store import reading
    from cstorage.store.tables import settle
    from journal import Journal

    path = root / "graph" / "journal"
    with Journal.open(path, "w", durability="none") as journal:
        frame: list[list[object]] = []
        for event in later_events(layers, count):
            frame.append(codec.encode(event))
            if len(frame) == 10:
                journal.commit(frame, actor=[0, 1, "synthetic", "host", ""], schema=ev.SCHEMA)
                frame.clear()
        settle(journal, str(path), reading.apply_frame)


def peers(root: Path, layers: int) -> None:
    """The same store as containers/storage keeps it (driver vfs)."""
    graph = root / "graph"
    for folder in ("vfs-layers", "vfs-images", "vfs-containers", "vfs/dir"):
        (graph / folder).mkdir(parents=True)
    (root / "run").mkdir()
    with (graph / "vfs-layers" / "layers.json").open("w") as file:
        before = "["
        for chain in chains(layers):
            parent = ""
            for index in chain:
                record: dict[str, object] = {"id": layer_id(index)}
                if parent:
                    record["parent"] = parent
                parent = layer_id(index)
                record |= {
                    "created": "2023-11-14T22:13:20Z",
                    "compressed-diff-digest": f"sha256:{number('compressed', index)}",
                    "compressed-size": LAYER_BYTES // 3,
                    "diff-digest": f"sha256:{number('diff', index)}",
                    "diff-size": LAYER_BYTES,
                    "compression": 2,
                    "uidset": [0],
                    "gidset": [0],
                }
                file.write(before + json.dumps(record))
                before = ","
        file.write("]")
    images = []
    for image, chain in enumerate(chains(layers)):
        manifest = f"sha256:{number('manifest', image)}"
        images.append(
            {
                "id": number("image", image),
                "digest": manifest,
                "names": [image_name(image)],
                "layer": layer_id(chain[-1]),
                "big-data-names": ["manifest"],
                "big-data-sizes": {"manifest": 1000},
                "big-data-digests": {"manifest": manifest},
                "created": "2023-11-14T22:13:20Z",
            }
        )
    (graph / "vfs-images" / "images.json").write_text(json.dumps(images))
    (graph / "vfs-containers" / "containers.json").write_text("[]")
