"""All that an import leaves, to be compared with what another way of importing leaves."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cstorage.archive import builder
from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.errors import ArchiveError

if TYPE_CHECKING:
    from pathlib import Path

    from cstorage.model import DiffSummary

OPTIONS = ApplyOptions(whiteouts=WhiteoutFormat.REMOVE)


class Outcome(NamedTuple):
    """All that an import leaves."""

    tree: list[Any]
    summary: DiffSummary | None
    recipe: bytes
    manifest: bytes
    error: str


def tree_state(top: Path) -> list[Any]:
    """Every entry with its attributes and content; files that are one are told by their number."""
    found = []
    for path in sorted(top.rglob("*")):
        info = path.lstat()
        content: Any = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found.append((
            str(path.relative_to(top)), info.st_mode, info.st_uid, info.st_gid, info.st_nlink,
            info.st_mtime_ns, content,
        ))  # fmt: skip
    return found


def timeless(found: Outcome) -> Outcome:
    return found._replace(tree=[(*entry[:5], 0, entry[6]) for entry in found.tree])


def outcome(path: Path, archive: bytes, guards: tuple[int, ...] | None, **options: Any) -> Outcome:
    """Import ``archive`` into the new directory ``path``."""
    path.mkdir()
    recipe, manifest = io.BytesIO(), io.BytesIO()
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    summary, error = None, ""
    try:
        summary = apply_layer(
            io.BytesIO(archive), root, OPTIONS._replace(**options),
            recipe=recipe, manifest=manifest, guards=guards,
        )  # fmt: skip
    except (ArchiveError, OSError) as caught:
        error = f"{type(caught).__name__}: {caught}"
    finally:
        os.close(root)
    return Outcome(tree_state(path), summary, recipe.getvalue(), manifest.getvalue(), error)


def alone(path: Path, archive: bytes, **options: Any) -> Outcome:
    """The same by one process, whatever the fixtures say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "AFTER", sys.maxsize)
        return outcome(path, archive, None, **options)
