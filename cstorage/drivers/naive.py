"""The differences of two file trees by comparing them, for drivers without a shortcut.

Rules: drivers-and-formats §5.2 (what counts as a change), §5.5 (the archive), §5.6 (sizes). Without
a parent everything is added and the archive is a plain one of the whole tree.
"""

from __future__ import annotations

from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.archive.compression import ByteSink
    from cstorage.model import Change, IDMaps


def changes(old: int | None, new: int, maps: IDMaps, parent_maps: IDMaps) -> list[Change]:
    """Changes that lead from tree ``old`` (None = empty) to ``new``, in path order."""
    from cstorage.archive.changes import compare_trees

    return compare_trees(old, new, old_maps=parent_maps, new_maps=maps)


def size(old: int | None, new: int, maps: IDMaps, parent_maps: IDMaps) -> int:
    """Bytes of added and modified files."""
    from cstorage.archive.changes import changes_size

    return changes_size(new, changes(old, new, maps, parent_maps))


def write(old: int | None, new: int, sink: ByteSink, maps: IDMaps, parent_maps: IDMaps) -> None:
    """Write the difference as an archive."""
    from cstorage.archive.produce import write_changes, write_tree

    if old is None:
        write_tree(new, sink, maps=maps)
    else:
        write_changes(new, changes(old, new, maps, parent_maps), sink, maps=maps)
