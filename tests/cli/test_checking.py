"""What ``check`` says, word for word, and in which order (cli.md §8.2)."""

from __future__ import annotations

import os
import shutil
from hashlib import sha256

import pytest
from command_line import archive

from cstorage.store.store import Store

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners are compared, which needs root"),
]

MTIME = 1_600_000_000
MOUNTED = "shutdown: a layer is mounted: layer is in use by a container\n"
WHOLE = '{"Layers":{},"ROLayers":{},"Images":{},"ROImages":{},"Containers":{}}\n'


def counts(
    layers: int = 0, images: int = 0, containers: int = 0, *, read_only: bool = False
) -> str:
    """The line that ends a check with findings."""
    mine, others = ((0, 0), (layers, images)) if read_only else ((layers, images), (0, 0))
    return (
        f"{mine[0]} layer errors, {others[0]} read-only layer errors, {mine[1]} image errors, "
        f"{others[1]} read-only image errors, {containers} container errors\n"
    )


def report(**found: list[str]) -> str:
    """Groups of findings: ``layer_l1=["..."]``."""
    return "".join(
        f"{item.replace('_', ' ')}:\n" + "".join(f" {line}\n" for line in lines)
        for item, lines in found.items()
    )


@pytest.fixture
def tree(cli, tmp_path):
    """The tree of layer l1, which image i1 is made of."""
    cli.ok("import-layer", "-i", "l1", stdin=archive(("./f", b"hello"), ("./d/g", b"gg")))
    cli.ok("create-image", "-i", "i1", "l1")
    return tmp_path / "graph/vfs/dir/l1"


def alter(path, data: bytes) -> None:
    """Other bytes, the same times."""
    info = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def test_a_changed_file_is_told_twice_as_the_archive_is_read_to_its_end(cli, tree):
    alter(tree / "f", b"HELLO")
    failed = 'file integrity checksum failed for "./f"'
    twice = [f"layer l1: {failed}", f"layer l1: consume any trailer after the EOF marker: {failed}"]
    found = report(layer_l1=twice, image_i1=twice)
    for flags in ((), ("-q",)):
        assert cli("check", *flags) == (1, found.encode(), counts(1, 1).encode())
    assert cli("check", "-j").text == WHOLE.replace(
        '"Layers":{}', '"Layers":{"l1":[{},{}]}', 1
    ).replace('"Images":{}', '"Images":{"i1":[{},{}]}', 1)
    assert cli("diff", "-u", "l1")[::2] == (1, f"{failed}\n".encode())


def test_a_file_that_is_gone_is_told_in_the_same_way(cli, tree):
    (tree / "d/g").unlink()
    gone = f"open {tree}/d/g: no such file or directory"
    twice = [f"layer l1: {gone}", f"layer l1: consume any trailer after the EOF marker: {gone}"]
    assert cli("check").text == report(layer_l1=twice, image_i1=twice)


@pytest.mark.parametrize(
    ("damage", "lines"),
    [
        ("mode", ["/f(mode:0644￫0600)"]),
        ("owner", ["/f(uid:0￫1,gid:0￫2)"]),
        ("time", [f"/f(mtime:0x{MTIME:x}￫0x1)"]),
        ("extra", ["+/nd/", "+/nd/x", "+/new"]),
        ("type", [f"/d/g(filetype:48￫54,mode:0644￫0600,mtime:0x{MTIME:x}￫0x1)"]),
        ("directory", ["-/d/g", "+/d/g/"]),
    ],
)
def test_differences_of_a_tree(cli, tree, damage, lines):
    name = tree / "d/g"
    if damage in ("type", "directory"):
        # Nothing of an empty file is needed for the archive, so that only the tree tells.
        cli.ok("delete", "i1", "l1")
        cli.ok("import-layer", "-i", "l1", stdin=archive(("./d/g", b"")))
        cli.ok("create-image", "-i", "i1", "l1")
        name.unlink()
    match damage:
        case "mode":
            (tree / "f").chmod(0o600)
        case "owner":
            os.chown(tree / "f", 1, 2)
        case "time":
            os.utime(tree / "f", (1, 1))
        case "extra":
            (tree / "nd").mkdir()
            (tree / "nd/x").touch()
            (tree / "new").touch()
        case "type":
            os.mkfifo(name, 0o600)
            os.utime(name, (1, 1))
        case "directory":
            name.mkdir()
    modified = [f"layer l1: {line}, layer content modified" for line in lines]
    assert cli("check", "-q") == (0, b"", b"")
    assert cli("check").text == report(layer_l1=modified, image_i1=modified)


def test_findings_of_an_image_follow_its_layers_from_the_top_down(cli):
    for words in (("base",), ("mid", "base"), ("top", "mid")):
        cli.ok("create-layer", "-i", *words)
    cli.ok("create-image", "-i", "i", "top")
    cli.ok("create-container", "-i", "c", "i")
    cli.ok("delete", "mid")
    missing = "layer mid: layer is missing"
    both = [missing, "image i: layer mid: image layer is missing"]
    found = report(layer_top=[missing], image_i=both, container_c=both)
    assert cli("check") == (1, found.encode(), counts(1, 1, 1).encode())


def test_a_container_without_its_image(cli):
    cli.ok("create-image", "-i", "i")
    cli.ok("create-container", "-i", "c", "i")
    cli.ok("delete", "i")
    found = report(container_c=["image i: image missing"]).encode()
    left = b"0 read-only layer errors, 0 read-only image errors, 1 container errors\n"
    assert cli("check") == (1, found, counts(0, 0, 1).encode())
    assert cli("check", "-r") == (1, found, left)
    assert cli("check", "-f") == (0, found, b"")
    assert cli("containers") == (0, b"", b"")


def test_layers_that_nobody_needs_or_knows(cli):
    cli.ok("create-layer", "-i", "old")
    cli.ok("create-storage-layer", "-i", "stray")
    found = report(
        layer_old=["layer old: layer not referenced by any images or containers"],
        layer_stray=["layer stray: layer in lower level storage driver not accounted for"],
    ).encode()
    assert cli("check", "-m", "0") == (1, found, counts(2).encode())
    assert cli("check", "-rm", "0") == (0, found, b"")
    assert cli("storage-layers") == (0, b"", b"")


def test_a_layer_without_a_tree(cli, tree):
    cli.ok("create-layer", "-i", "l2")
    for place in (tree, tree.with_name("l2")):
        shutil.rmtree(place)
    gone = [f"layer l1: stat {tree}: no such file or directory"] * 2
    found = report(
        layer_l1=gone, layer_l2=[gone[0].replace("l1", "l2")], image_i1=gone
    )  # fmt: skip
    assert cli("check") == (1, found.encode(), counts(2, 1).encode())


def test_refused_repairs_are_told_for_each_finding_and_the_first_once_more(cli, tree):
    cli.ok("create-container", "-i", "c1", "i1")
    layer = cli.ok("layers", "-q").split()[-1]
    alter(tree / "f", b"HELLO")
    image = "deleting image i1: image used by c1: image is in use by a container\n"
    deleting = f"deleting layer l1: used by layer {layer}: layer has children\n"
    assert cli("check", "-r").errors == image + deleting * 2 + image
    result = cli("check", "-rj")
    assert result.text.splitlines()[1:] == ["[{},{},{}]"]
    assert result.errors == image
    assert cli("check", "-f").status == 0
    assert cli("layers") == (0, b"", b"")


def test_what_ends_the_command_is_said_after_what_was_mounted(cli):
    cli.ok("create-layer", "-i", "l1")
    cli.ok("mount", "l1")
    assert cli("check", "-m", "bogus") == (
        1, b"", f'{MOUNTED}time: invalid duration "bogus"\n'.encode(),
    )  # fmt: skip
    assert cli.ok("mounted", "l1") == ""
    cli.ok("mount", "l1")
    assert cli("check", "-m", "0").errors == MOUNTED + counts(1)
    assert cli("check", "-m", "bogus", "-j") == (1, b"", b'time: invalid duration "bogus"\n')


def content_file(root, data: bytes):
    """Where the store at ``root`` keeps these bytes."""
    (found,) = root.glob(f"content/sha256/*/{sha256(data).hexdigest()}")
    return found


@pytest.mark.parametrize("place", ["", "read-only "])
def test_data_items_that_are_gone_or_of_another_size(cli, tree, tmp_path, place):
    cli.ok("set-layer-data", "l1", "l", stdin=b"layer")
    cli.ok("set-image-data", "i1", "gone", stdin=b"image")
    cli.ok("set-image-data", "i1", "longer", stdin=b"more")
    content_file(tmp_path / "graph", b"layer").unlink()
    content_file(tmp_path / "graph", b"image").unlink()
    content_file(tmp_path / "graph", b"more").write_bytes(b"more and more")
    if place:
        cli.roots = [
            "--graph", f"{tmp_path}/graph2", "--run", f"{tmp_path}/run2", "-s", "vfs",
            "--storage-opt", f"vfs.imagestore={tmp_path}/graph",
        ]  # fmt: skip
    cli.ok("create-container", "-i", "c", "i1")
    cli.ok("set-container-data", "c", "gone", stdin=b"container")
    cli.ok("set-container-data", "c", "longer", stdin=b"box")
    own = tmp_path / ("graph2" if place else "graph")
    content_file(own, b"container").unlink()
    content_file(own, b"box").write_bytes(b"boxes")
    layer = [f'{place}layer l1: data item "l": layer data item is missing']
    image = [
        f'{place}image i1: data item "gone": image data item is missing',
        f'{place}image i1: data item "longer": image data item has incorrect size',
        *layer,
    ]
    container = [
        'container c: data item "gone": container data item is missing',
        'container c: data item "longer": container data item has incorrect size',
        *image,
    ]
    found = report(
        **{f"{place}layer l1": layer, f"{place}image i1": image, "container c": container}
    )
    expected = counts(1, 1, 1, read_only=bool(place))
    assert cli("check") == (1, found.encode(), expected.encode())


def test_findings_of_additional_stores_say_so(cli, tree, tmp_path):
    alter(tree / "f", b"HELLO")
    beside = (
        "--graph", f"{tmp_path}/graph2", "--run", f"{tmp_path}/run2", "-s", "vfs",
        "--storage-opt", f"vfs.imagestore={tmp_path}/graph",
    )  # fmt: skip
    failed = 'file integrity checksum failed for "./f"'
    twice = [
        f"read-only layer l1: {failed}",
        f"layer l1: consume any trailer after the EOF marker: {failed}",
    ]
    found = report(**{"read-only layer l1": twice, "read-only image i1": twice}).encode()
    assert cli.bare(*beside, "check") == (1, found, counts(1, 1, read_only=True).encode())
    left = "1 read-only layer errors, 1 read-only image errors"
    assert cli.bare(*beside, "check", "-r") == (1, found, f"{left}, 0 container errors\n".encode())
    assert cli.bare(*beside, "check", "-f") == (1, found, f"{left}\n".encode())
    cli.ok("delete", "l1")
    missing = "read-only image i1: layer l1: image layer is missing"
    assert cli.bare(*beside, "check").text == report(**{"read-only image i1": [missing]})


def test_an_interrupted_check_leaves_what_is_mounted(cli, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    cli.ok("create-layer", "-i", "l1")
    cli.ok("mount", "l1")
    monkeypatch.setattr(Store, "check", interrupt)
    assert cli("check") == (130, b"", b"")
    assert cli.ok("mounted", "l1") == "l1 mounted\n"
