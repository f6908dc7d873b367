"""The file list of a layer that several archives were extracted into is that of its tree."""

from __future__ import annotations

import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest
from tars import Member, archive, folder

from cstorage.store.files import FilesUnrecorded, Found
from tests.store.place import diff_of, fill

if TYPE_CHECKING:
    from cstorage.store.store import Store

import io

LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE

BASE = archive([folder("d"), Member("d/base", b"base"), Member("gone", b"x"), folder("o"),
                Member("o/low", b"low")])  # fmt: skip
FIRST = archive(
    [
        folder("d"),
        Member("d/one", b"one"),
        Member("d/two", b"two"),
        Member("d/also", kind=HARD, link="d/one"),
        Member("d/third", kind=HARD, link="d/one"),
        Member(".wh.gone"),
        folder("tree"),
        Member("tree/leaf", b"leaf"),
        Member("s", kind=LINK, link="d", mode=0o777),
        Member("will-be-folder", b"f"),
    ]
)
SECONDS = {
    "adds": [Member("new", b"new"), Member("d/more", b"more")],
    "replaces a file": [Member("d/two", b"2")],
    "replaces what links point to": [Member("d/one", b"another")],
    "links to what was there": [Member("hard", kind=HARD, link="d/two")],
    "removes a file": [Member("d/.wh.two")],
    "removes what links point to": [Member("d/.wh.one")],
    "removes a file of the base": [Member("d/.wh.base")],
    "removes a tree": [Member(".wh.tree")],
    "hides what is below": [Member("o/.wh..wh..opq")],
    "puts a folder over a file": [folder("will-be-folder"), Member("will-be-folder/in", b"i")],
    "puts a file over a folder": [Member("tree", b"a file")],
    "brings back what was gone": [Member("gone", b"back")],
    "describes a folder anew": [folder("d", mode=0o711)],
    "says nothing": [],
}


def shown(store: Store, layer: str) -> dict[bytes, tuple[object, ...]]:
    """What the list says, contents included."""
    files = store.files(layer)
    return {
        path: (
            node.type,
            node.mode if node.type != stat.S_IFLNK else 0,
            node.link,
            b"".join(files.read(Found(path, node))) if node.type == stat.S_IFREG else b"",
        )
        for path, node in files.walk(files.find())
        if path
    }


def mounted(store: Store, layer: str) -> dict[bytes, tuple[object, ...]]:
    """What a mount shows."""
    root = os.fsencode(store.mount(layer))
    found: dict[bytes, tuple[object, ...]] = {}
    try:
        for place, folders, names in os.walk(root):
            for name in (*folders, *names):
                path = os.path.join(place, name)
                try:
                    info = os.lstat(path)
                except FileNotFoundError:
                    continue  # overlay lists a whiteout in a directory that only one layer has
                kind = stat.S_IFMT(info.st_mode)
                content = b""
                if kind == stat.S_IFREG:
                    with open(path, "rb") as file:
                        content = file.read()
                link = kind == stat.S_IFLNK
                found[os.path.relpath(path, root)] = (
                    kind,
                    0 if link else stat.S_IMODE(info.st_mode),
                    os.readlink(path) if link else b"",
                    content,
                )
    finally:
        store.unmount(layer)
    return found


@pytest.mark.parametrize("second", SECONDS)
@pytest.mark.parametrize("below", [True, False])
def test_it_is_what_a_mount_shows(store: Store, second: str, below: bool) -> None:
    if below:
        fill(store, BASE, id="base")
    fill(store, FIRST, id="top", parent="base" if below else "")
    data = archive(SECONDS[second])
    store.apply_diff("top", io.BytesIO(data))
    assert shown(store, "top") == mounted(store, "top")
    assert store.check().healthy
    assert diff_of(store, "top") == data
    store.apply_diff("top", io.BytesIO(archive([Member("last", b"last")])))
    assert shown(store, "top") == mounted(store, "top")
    assert store.files("top").find("last").node.size == 4


def test_a_mounted_layer_is_listed_as_well(store: Store) -> None:
    """Its tree cannot be exchanged, so the archive is extracted in place."""
    fill(store, FIRST, id="top", writable=True)
    store.mount("top")
    store.apply_diff("top", io.BytesIO(archive([Member("new", b"new")])))
    store.unmount("top")
    assert shown(store, "top") == mounted(store, "top")


def test_a_list_that_would_lack_files_is_not_recorded(store: Store, driver: str) -> None:
    """A container's layer was written to before the archive came: nobody listed those files."""
    store.create_layer(id="top")
    root = store.mount("top")
    with open(os.path.join(root, "by-hand"), "wb") as file:
        file.write(b"x")
    store.unmount("top")
    data = archive([Member("new", b"new")])
    store.apply_diff("top", io.BytesIO(data))
    assert diff_of(store, "top") == data
    with pytest.raises(FilesUnrecorded):
        store.files("top")
