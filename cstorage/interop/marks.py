"""Where a view is, and the note of what its last refresh left.

The mark is ours, apart from the folders that other tools clean up; without it a view is made anew.
"""

from __future__ import annotations

import os

from cstorage.errors import StorageError
from cstorage.interop import copies, jsonform
from cstorage.interop.selection import GROUP, Form
from journal.errors import JournalError
from journal.plain import TYPE_CHECKING, Any, NamedTuple
from journal.position import Position, parse

if TYPE_CHECKING:
    from cstorage.content import ContentStore

VERSION = 1


class Place(NamedTuple):
    """Where a view belongs: the graph root, the driver's name, the 16 bytes of the journal's ID."""

    graph_root: str
    driver: str
    uuid: bytes
    content: ContentStore

    def folder(self, group: str) -> str:
        return f"{self.graph_root}/{self.driver}-{group}"

    def json(self, file: str) -> str:
        return f"{self.folder(GROUP[file])}/{file}.json"

    def lock(self, group: str) -> str:
        return f"{self.folder(group)}/{group}.lock"

    @property
    def own_folder(self) -> str:
        return f"{self.graph_root}/projection"

    def draft(self, name: str) -> str:
        """Where a file is written before it is renamed into the view: never in its folders."""
        return f"{self.own_folder}/{self.driver}.{name}.draft"

    @property
    def mark(self) -> str:
        return f"{self.own_folder}/{self.driver}.mark"


class Mark(NamedTuple):
    """What the last refresh left: how far it read, its files' identity and sums, what it hid."""

    form: Form
    keep: bool
    grace_s: int
    position: Position
    files: dict[str, list[int]]
    sums: dict[str, int]
    left_out: dict[str, str]


def read(place: Place) -> Mark | None:
    """What the last refresh noted; ``None`` if there was none, or nothing usable is left of it."""
    import json

    try:
        with open(place.mark, "rb") as file:
            raw: Any = json.loads(file.read())
        if raw["version"] != VERSION or raw["journal"] != place.uuid.hex():
            return None
        return Mark(
            Form(raw["form"]),
            bool(raw["keep"]),
            int(raw["grace_s"]),
            parse(raw["position"]),
            {str(k): [int(n) for n in v] for k, v in raw["files"].items()},
            {str(k): int(v, 16) for k, v in raw["sums"].items()},
            {str(k): str(v) for k, v in raw["left_out"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StorageError, JournalError):
        return None


def write(place: Place, mark: Mark) -> None:
    """Replace the note; losing it in a power failure costs a refresh of the whole view."""
    data = jsonform.encode({
        "version": VERSION,
        "journal": place.uuid.hex(),
        "form": mark.form.value,
        "keep": mark.keep,
        "grace_s": mark.grace_s,
        "position": mark.position.text(),
        "files": mark.files,
        "sums": {file: f"{total:x}" for file, total in mark.sums.items()},
        "left_out": mark.left_out,
    })  # fmt: skip
    draft = f"{place.mark}.new"
    copies.write(draft, [memoryview(data)], durable=False)
    os.rename(draft, place.mark)
