"""An interrupt (Ctrl-C) at any line of a commit: the store agrees with its journal afterwards."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import cstorage
from cstorage.store.store import Store

_STEP = 13
"""Every so many lines; the offset differs between the operations."""
_PLACES = frozenset(
    (
        *("commit", "append", "_write", "_sync", "_accept", "transaction", "withdraw", "evict"),
        *("publish", "adopt", "_catch_up", "catch_up", "apply_frame", "_remove"),
    )
)
_SOURCES = str(Path(cstorage.__file__).parent.parent)


def _archive() -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    return io.BytesIO(out.getvalue())


class _Interrupter:
    """Raises ``KeyboardInterrupt`` at the n-th line that runs in one of ``_PLACES``."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = ""

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code.co_name not in _PLACES or not code.co_filename.startswith(_SOURCES):
            return None if event == "call" and "site-packages" in code.co_filename else self
        # The line of a ``with`` statement runs again when its block is left: an interrupt just
        # there comes before any ``__exit__``, which nothing written in Python can prevent.
        if event == "line" and not _is_with(code.co_filename, frame.f_lineno):
            self.left -= 1
            if self.left == 0:
                self.where = f"{os.path.basename(code.co_filename)}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self


_lines: dict[str, list[str]] = {}


def _is_with(path: str, number: int) -> bool:
    if path not in _lines:
        _lines[path] = Path(path).read_text().splitlines()
    return _lines[path][number - 1].lstrip().startswith("with ")


def _import(store: Store) -> None:
    store.import_layer(_archive(), id="new")


def _container(store: Store) -> None:
    store.create_container("image", id="box")


def _big_data(store: Store) -> None:
    store.set_image_big_data("image", "key", b"new value")


def _delete(store: Store) -> None:
    store.delete_layer("old")


@pytest.mark.parametrize("operation", [_import, _container, _big_data, _delete])
def test_records_trees_and_contents_agree_after_an_interrupt(
    tmp_path: Path, operation: Callable[[Store], None]
) -> None:
    if os.getuid() != 0:
        pytest.skip("not root: layers with owners")
    at = 1
    while True:
        roots = tmp_path / f"{at}-graph", tmp_path / f"{at}-run"
        interrupter = _Interrupter(at)
        with cstorage.open(*roots, driver="vfs") as store:
            store.import_layer(_archive(), id="base")
            store.import_layer(_archive(), id="old")
            store.create_image(id="image", layer="base", big_data=[("key", b"old value")])
            sys.settrace(interrupter)
            try:
                operation(store)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            # The process that was interrupted goes on, and sees what others see.
            seen = [layer.id for layer in store.layers()]
            store.add_names("base", ["afterwards"])
        with cstorage.open(*roots, driver="vfs") as store:
            records = [layer.id for layer in store.layers()]
            assert seen == records, interrupter.where
            assert sorted(records) == store.storage_layers(), interrupter.where
            assert store.image_big_data("image", "key") in (b"old value", b"new value")
            for layer in records:
                if store.layer(layer).diff.recipe:
                    store.diff(layer, io.BytesIO())
        if not interrupter.where:
            return
        at += _STEP
