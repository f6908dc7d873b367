"""Methods and errors of the library that no other test uses."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import cstorage
from cstorage import errors
from cstorage.drivers.contract import DriverReader
from cstorage.errors import (
    DriverError,
    LayerIncorrectContentDigest,
    LayerIncorrectContentSize,
    LoadError,
    ParentUnknown,
    StorageError,
    UnknownItemError,
)
from cstorage.events import LayerDiffApplied
from cstorage.model import Digest
from cstorage.store import userns
from cstorage.store.checking import CHECK_EVERYTHING
from cstorage.store.store import Store
from tests.cli.command_line import archive


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    options = ["vfs.ignore_chown_errors=true"]
    with cstorage.open(
        tmp_path / "graph", tmp_path / "run", driver="vfs", driver_options=options, transient=True
    ) as opened:
        yield opened


def test_a_store_tells_what_it_was_opened_with(store: Store, tmp_path: Path) -> None:
    assert (store.graph_root, store.run_root) == (tmp_path / "graph", tmp_path / "run")
    assert store.driver_name == "vfs"
    assert store.driver_options == ("vfs.ignore_chown_errors=true",)
    assert store.transient is True
    assert store.status() == []
    assert store.version().count(".") >= 1 or store.version() == ""


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_the_graph_driver_answers_about_trees(tmp_path: Path, driver: str) -> None:
    """What container engines ask it: where the parts of a layer are, what differs, what it can."""
    if os.geteuid() != 0:
        pytest.skip("owners and mounts need root")
    with cstorage.open(tmp_path / "graph", tmp_path / "run", driver=driver) as store:
        base = store.import_layer(io.BytesIO(archive(("f", b"data"))))
        top = store.create_layer(parent=base.id)
        reader: DriverReader = store.graph_driver
        assert reader.name == store.driver_name == driver
        assert reader.layers() == store.storage_layers() == sorted([base.id, top.id])
        assert reader.exists(top.id)
        assert not reader.exists("nobody")
        content = Path(reader.content_root(base.id))
        assert (content / "f").read_bytes() == b"data"
        assert reader.diff_size(base.id) == 4
        assert [change.path for change in reader.changes(base.id)] == [b"/f"]
        assert reader.status() == store.status()
        home = store.graph_root / driver
        expected = {
            "UpperDir": str(home / top.id / "diff"),
            "WorkDir": str(home / top.id / "work"),
            "MergedDir": str(home / top.id / "merged"),
            "LowerDir": str(home / base.id / "diff"),
        }
        assert reader.metadata(top.id) == (expected if driver == "overlay" else {})
        assert "LowerDir" not in reader.metadata(base.id)
        with pytest.raises(DriverError, match="nobody"):
            reader.metadata("nobody")
        path = store.mount(top.id)
        assert reader.is_mounted(top.id)
        assert driver == "vfs" or reader.metadata(top.id)["MergedDir"] == str(path)
        store.unmount(top.id)


def test_dedup_refuses_a_method_it_does_not_know(store: Store) -> None:
    assert store.dedup("sha256") == 0
    layer = store.import_layer(io.BytesIO(archive(("f", b"data"))))
    store.create_image(layer=layer.id)
    with pytest.raises(StorageError, match="invalid hash method: foo"):
        store.dedup("foo")


def test_staged_content_that_is_cleaned_up_is_gone(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("overlay needs root here")
    with cstorage.open(tmp_path / "graph", tmp_path / "run", driver="overlay") as store:
        source = tmp_path / "source"
        source.mkdir()
        (source / "file").write_bytes(b"staged")
        staged = store.prepare_staged_layer(source)
        folder = staged.path
        assert (folder / "file").read_bytes() == b"staged"
        store.cleanup_staged_layer(staged)
        assert not folder.exists()
        assert list(store.layers()) == []
        store.shutdown(force=True)


def test_a_layer_whose_archive_is_another_than_recorded_is_found(store: Store) -> None:
    layer = store.import_layer(io.BytesIO(archive(("f", b"data"))), id="odd")
    promised = Digest(f"sha256:{hashlib.sha256(b'something else').hexdigest()}")
    # Without a recipe there is nothing but the generated archive to compare with the record.
    record = layer.diff._replace(recipe="", uncompressed_digest=promised, uncompressed_size=7)
    with store._core.transaction("damage planted by a test") as tx:
        tx.emit(LayerDiffApplied(layer.id, record))
    found = store.check(CHECK_EVERYTHING).layers["odd"]
    assert [type(finding) for finding in found[:2]] == [
        LayerIncorrectContentDigest,
        LayerIncorrectContentSize,
    ]


def test_errors_that_nothing_raises_are_there_to_be_caught() -> None:
    assert str(LoadError("reading x")) == "reading x: error loading storage metadata"
    assert isinstance(ParentUnknown(), UnknownItemError)
    assert str(ParentUnknown()) == "parent of layer not known"


def test_every_error_of_the_original_is_a_storage_error() -> None:
    # Classes that say nothing of their own would be told apart by nobody.
    texts = [
        error.sentinel
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, StorageError) and error.sentinel
    ]
    assert len(texts) == len(set(texts))


def test_rootless_ranges_are_those_of_the_user(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = tmp_path / "ranges"
    ranges.write_text("somebody:5000:10\nothers:9000:10\n")
    monkeypatch.setattr(userns, "SUBUID", str(ranges))
    monkeypatch.setattr(userns, "SUBGID", str(ranges))
    monkeypatch.delenv("_CONTAINERS_USERNS_CONFIGURED", raising=False)
    monkeypatch.setenv("USER", "somebody")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        found = userns.subordinate_ids(store._core)
    assert found == ([(5000, 5010)], [(5000, 5010)])
