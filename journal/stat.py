"""Numbers about a journal, found without reading the whole log.

Rules of this module:

* Reads names, sizes, headers and the last segment; never writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal import mark as mk
from journal import segment as sg
from journal.cursor import ARCHIVE
from journal.layout import RECOVERED, RESERVE, suspect
from journal.snapshots import listing

if TYPE_CHECKING:
    from journal.facade import Journal


def _size(journal: Journal, path: str) -> int:
    """Bytes of a file, 0 if it was archived or pruned meanwhile."""
    try:
        return journal.fs.stat(path).st_size
    except FileNotFoundError:
        return 0


def stat(journal: Journal) -> dict[str, Any]:
    """Identity, extent, position, durability and snapshots of an open journal."""
    fs, root = journal.fs, journal.root
    folder = f"{root}/{sg.FOLDER}"
    numbers = sg.listing(fs, folder)
    place = journal.position
    mark = mk.load(fs, root, journal.clock.boot_id())
    try:
        cuts = len(fs.listdir(f"{root}/{RECOVERED}"))
    except FileNotFoundError:
        cuts = 0
    try:
        reserve = fs.stat(f"{root}/{RESERVE}").st_size
    except FileNotFoundError:
        reserve = 0
    return {
        "uuid": journal.uuid.hex(),
        "created_ns": journal.created_ns,
        "segments": len(numbers),
        "first_segment": numbers[0] if numbers else 0,
        "archived_segments": len(sg.listing_archive(fs, f"{root}/{ARCHIVE}")),
        "bytes": sum(_size(journal, f"{folder}/{sg.name(number)}") for number in numbers),
        "last_sequence": place.sequence,
        "position": place.text(),
        "durable_sequence": mark.sequence if mark else None,
        "epoch": mark.epoch if mark else None,
        "snapshots": [entry.name for entry in listing(fs, root)],
        "recovered_pieces": cuts,
        "reserve_bytes": reserve,
        "suspect": suspect(fs, root),
    }
