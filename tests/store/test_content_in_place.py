"""Content files that are moved into their place: which directories are to be synced for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cstorage.content import ContentStore

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ab" * 32


def test_directories_of_a_file_that_is_there_already_are_synced_too(tmp_path: Path) -> None:
    """Whoever moved it there may have died before the directories were."""
    content = ContentStore(tmp_path / "content")
    moved = []
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(b"the same")
        moved.append(set(content.adopt(tmp_path / name, KEY)))
    above = tmp_path / "content" / "sha256"
    assert moved[0] >= {str(above / "ab"), str(above)}
    assert moved[1] == {str(above / "ab"), str(above)}
    assert content.path(KEY).read_bytes() == b"the same"
    assert not (tmp_path / "second").exists()
