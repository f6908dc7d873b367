"""Data that another process replaces between a reader's look and its reading."""

from __future__ import annotations

from pathlib import Path

import pytest

import cstorage
from cstorage.content import ContentDamaged, ContentStore
from cstorage.errors import BigDataUnknown, ImageUnknown


@pytest.fixture
def two(tmp_path):
    """Two stores over one root, as two processes have them."""
    place = (tmp_path / "graph", tmp_path / "run")
    with (
        cstorage.open(*place, driver="vfs", program="one") as one,
        cstorage.open(*place, driver="vfs", program="other") as other,
    ):
        one.create_image(id="picture")
        one.set_image_big_data("picture", "note", b"first")
        yield one, other


def meanwhile(monkeypatch, *steps):
    """Before each reading of a content the next step happens."""
    left = list(steps)
    read = ContentStore.read

    def reading(self: ContentStore, key: str) -> bytes:
        if left:
            left.pop(0)()
        return read(self, key)

    monkeypatch.setattr(ContentStore, "read", reading)


def test_the_new_data_is_read(two, monkeypatch):
    one, other = two
    meanwhile(
        monkeypatch,
        lambda: other.set_image_big_data("picture", "note", b"second"),
        lambda: other.set_image_big_data("picture", "note", b"third"),
    )
    assert one.image_big_data("picture", "note") == b"third"


def test_also_when_the_old_data_came_back(two, monkeypatch):
    one, _ = two
    path = one._core.content.path

    def there_and_back() -> None:
        (key,) = (p.name for p in Path(one._core.content.root).rglob("*") if p.is_file())
        moved = path(key).rename(path(key).with_name("away"))
        monkeypatch.setattr(
            ContentStore, "holds", lambda self, key: bool(moved.rename(path(key))) or True
        )

    meanwhile(monkeypatch, there_and_back)
    assert one.image_big_data("picture", "note") == b"first"


def test_data_of_a_deleted_image_is_unknown(two, monkeypatch):
    one, other = two
    meanwhile(monkeypatch, lambda: other.delete_image("picture"))
    with pytest.raises((ImageUnknown, BigDataUnknown)):
        one.image_big_data("picture", "note")


def test_data_that_is_gone_for_good_is_damaged(two):
    one, _ = two
    (path,) = (p for p in Path(one._core.content.root).rglob("*") if p.is_file())
    path.unlink()
    with pytest.raises(ContentDamaged, match=r"picture data item .*missing"):
        one.image_big_data("picture", "note")
