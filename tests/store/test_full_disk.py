"""A disk without room: what is deleted must free some."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

import cstorage
from cstorage.errors import StorageError


def _archive(size: int) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = size
        tar.addfile(entry, io.BytesIO(os.urandom(size)))
    return io.BytesIO(out.getvalue())


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


@pytest.mark.root
@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_a_layer_can_be_deleted_on_a_full_disk(tmp_path: Path, driver: str) -> None:
    if os.getuid() != 0:
        pytest.skip("not root: mounting a small file system")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
    try:
        with cstorage.open(disk / "graph", tmp_path / "run", driver=driver) as store:
            store.import_layer(_archive(1 << 20), id="large")
            _fill(disk / "filler")
            with pytest.raises((OSError, StorageError)):
                store.import_layer(_archive(1 << 20), id="more")
            store.delete_layer("large")
            assert list(store.layers()) == []
            assert store.storage_layers() == []
            assert os.listdir(disk / "graph" / "trash") == []
            assert (disk / "graph" / "journal" / "reserve").stat().st_size > 0
            store.import_layer(_archive(1 << 18), id="fits")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
