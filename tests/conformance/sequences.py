"""Hand-written command sequences, one for each part of the command line's behaviour.

A sequence is a function of a ``Duo``; every step in it is compared. The comparison of the trees of
files comes at the end of each by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import tars
from duo import Duo, PerSide

if TYPE_CHECKING:
    from pathlib import Path

Sequence = Callable[[Duo], None]
SEQUENCES: dict[str, Sequence] = {}


def sequence(function: Sequence) -> Sequence:
    SEQUENCES[function.__name__] = function
    return function


def _base(duo: Duo) -> None:
    duo.run("import-layer", "--id", "base", "-n", "base-name", stdin=tars.BASE)


def _chain(duo: Duo) -> None:
    """Two layers, an image and a container."""
    _base(duo)
    duo.run("import-layer", "--id", "top", "-n", "top-name", "base", stdin=tars.CHANGES)
    duo.run("create-image", "--id", "img", "-n", "img-name", "top")
    duo.run("create-container", "--id", "con", "-n", "con-name", "img")


def _listings(duo: Duo) -> None:
    for command in ("layers", "images", "containers"):
        duo.run(command)
        duo.run(command, "--json")
    duo.run("layers", "--tree")


# -- listing and examining -------------------------------------------------------------------------


@sequence
def empty_store(duo: Duo) -> None:
    _listings(duo)
    duo.run("images", "-q")
    duo.run("status")
    duo.run("status", "--json")
    duo.run("version")
    duo.run("version", "--json")
    duo.run("layer", "nosuch")
    duo.run("layer", "--json", "nosuch")
    duo.run("image", "nosuch")
    duo.run("image", "-j", "nosuch")
    duo.run("container", "nosuch")
    duo.run("container", "-j", "nosuch")
    duo.run("exists", "nosuch")
    duo.run("metadata", "nosuch")
    duo.run("metadata", "--json", "nosuch")
    duo.run("get-names", "nosuch")
    duo.run("shutdown")
    duo.run("shutdown", "--json")
    duo.run("wipe")
    duo.run("wipe", "--json")


@sequence
def listings_of_a_chain(duo: Duo) -> None:
    _chain(duo)
    duo.run("create-layer", "--id", "top2", "base")
    duo.run("create-layer", "--id", "solo", "-n", "a name")
    duo.run("create-layer", "--id", "solochild", "solo")
    duo.run("create-image", "--id", "img2", "-n", "x", "-n", "y", "top2")
    duo.run("create-container", "--id", "con2", "img2")
    _listings(duo)
    duo.run("layers", "-tj")
    duo.run("layers", "-q")
    duo.run("images", "--quiet")
    for key in ("base", "base-name", "bas", "top", "so", "nosuch", "solo", "con", ""):
        duo.run("layer", key)
        duo.run("layer", "--json", key)
    duo.run("layer", "solo", "nosuch", "base", "solo")
    for key in ("img", "img-name", "im", "img2", "nosuch"):
        duo.run("image", key)
        duo.run("image", "--json", key)
    for key in ("con", "con-name", "c", "con2", "nosuch"):
        duo.run("container", key)
        duo.run("container", "--json", key)
    duo.run("exists", "base")
    duo.run("exists", "base", "img", "con", unordered=True)
    duo.run("exists", "base", "nosuch", unordered=True)
    duo.run("exists", "-q", "base", "nosuch")
    duo.run("exists", "--json", "base", "nosuch", "im")
    for flag in ("-l", "-i", "-c"):
        for key in ("base", "img", "con"):
            duo.run("exists", flag, key)
    duo.run("exists", "-l", "-i", "base")
    duo.run("layer-parent-owners", "base")
    duo.run("layer-parent-owners", "--json", "base", "nosuch")
    duo.run("container-parent-owners", "con")
    duo.run("container-parent-owners", "--json", "con", "nosuch")


@sequence
def prefixes_names_and_ids(duo: Duo) -> None:
    for identity in ("aaa111", "aaa222", "bbb", "bbbccc", "with blank", "odd<&>"):
        duo.run("create-layer", "--id", identity)
    duo.run("add-names", "-n", "aaa", "aaa222")
    for key in ("aaa", "aa", "aaa1", "bbb", "bbbc", "b", "with", "with blank", "odd"):
        duo.run("layer", key)
        duo.run("layer", "--json", key)
    duo.run("add-names", "-n", "bbb", "aaa111")
    duo.run("layer", "bbb")
    duo.run("layers", "--json")
    duo.run("create-image", "--id", "bbb", "bbb")
    duo.run("create-container", "--id", "bbb", "bbb")
    duo.run("exists", "-c", "bbb")
    duo.run("metadata", "bbb")
    duo.run("delete", "bbb")
    _listings(duo)
    duo.run("delete", "bbb")
    _listings(duo)
    duo.run("delete", "bbb")
    duo.run("delete", "bbb")
    _listings(duo)


@sequence
def one_id_for_every_kind(duo: Duo) -> None:
    """The names commands go by the ID that their argument leads to: the layer's, of these."""
    duo.run("create-layer", "--id", "one")
    duo.run("create-image", "--id", "one", "-n", "image-name", "one")
    duo.run("create-container", "--id", "one", "-n", "container-name", "one")
    for key in ("image-name", "container-name", "one"):
        duo.run("get-names", key)
        duo.run("get-names", "--json", key)
    duo.run("set-names", "-n", "given to an image", "image-name")
    for key in ("image-name", "container-name", "given to an image"):
        duo.run("get-names", key)
        duo.run("metadata", key)
    duo.run("set-metadata", "-m", "the container's", "container-name")
    _listings(duo)


@sequence
def folders_in_place_of_files(duo: Duo) -> None:
    _chain(duo)
    folder = str(duo.host)
    duo.run("import-layer", "-f", folder)
    duo.run("applydiff", "-f", folder, "top")
    duo.run("diff", "-f", folder, "top")
    duo.run("set-metadata", "-f", folder, "top")
    duo.run("create-image", "-f", folder)
    duo.run("create-container", "-f", folder, "img")
    duo.run("set-image-data", "-f", folder, "img", "key")
    duo.run("set-container-data", "-f", folder, "con", "key")
    duo.run("get-image-data", "-f", folder, "img", "key")
    _listings(duo)


@sequence
def a_name_that_is_no_utf8(duo: Duo) -> None:
    duo.run("create-layer", "--id", "odd")
    duo.each(duo.run("mount", "odd").line, lambda root: (root / "a\udcff<").touch())
    duo.run("changes", "odd")
    duo.run("changes", "--json", "odd")
    duo.run("exists", "--json", "b\udcff")
    duo.run("metadata", "--json", "odd")
    duo.run("unmount", "odd")


# -- creating --------------------------------------------------------------------------------------


@sequence
def creating_layers(duo: Duo) -> None:
    duo.run("create-layer", "--id", "base", "-n", "base-name", "-n", "alt")
    duo.run("create-layer", "--json", "-i", "child", "-n", "child-name", "base")
    duo.run("create-layer", "base-name")
    duo.run("createlayer", "--json", "chil")
    duo.run("create-layer", "nosuch")
    duo.run("create-layer", "--id", "base")
    duo.run("create-layer", "-n", "alt")
    duo.run("create-layer", "--id", "base", "nosuch")
    duo.run("create-layer", "--id", "base", "-n", "alt")
    duo.run("create-layer", "--id", "readonly", "-r", "base")
    duo.run("create-layer", "--id", "empty parent", "")
    duo.run("create-layer", "--id=", "-n", "named only")
    duo.run("create-layer", "a", "b")
    duo.run("create-layer", "base", "--json")
    duo.run("create-layer", "--hostuidmap", "--uidmap", "0:1:1")
    duo.run("create-layer", "--uidmap", "0:1")
    duo.run("create-layer", "--gidmap", "0:-1:2")
    duo.run("create-layer", "--subuidmap", "no-such-user-here")
    _listings(duo)


@sequence
def importing_layers(duo: Duo) -> None:
    _base(duo)
    duo.run("import-layer", "--id", "changed", "--json", "base", stdin=tars.CHANGES)
    duo.run("import-layer", "--id", "opaque", "-n", "o", "changed", stdin=tars.OPAQUE)
    duo.run("import-layer", "--id", "special", stdin=tars.SPECIAL)
    duo.run("import-layer", "--id", "nothing", "--json", stdin=tars.EMPTY)
    file = duo.host / "layer.tar"
    file.write_bytes(tars.BASE)
    duo.run("import-layer", "--id", "from-file", "--json", "-f", str(file))
    duo.run("import-layer", "--id", "no-file", "-f", str(duo.host / "nosuch.tar"))
    duo.run("import-layer", "--id", "base", stdin=tars.BASE)
    duo.run("import-layer", "-n", "base-name", stdin=tars.BASE)
    duo.run("import-layer", "--id", "orphan", "nosuch", stdin=tars.BASE)
    for name, data in tars.COMPRESSED.items():
        duo.run("import-layer", "--id", name, "--json", stdin=data)
    _listings(duo)
    for layer in ("base", "changed", "opaque", "special", "nothing", "gzip"):
        duo.run("diffsize", layer)
        duo.run("changes", layer, unordered=True)


@sequence
def broken_archives(duo: Duo) -> None:
    _base(duo)
    for number, data in enumerate(tars.BROKEN.values()):
        duo.run("import-layer", "--id", f"broken{number}", "base", stdin=data)
    duo.run("layers", "--json")
    for number, _data in enumerate(tars.BROKEN.values()):
        duo.run("exists", f"broken{number}")


@sequence
def own_whiteouts(duo: Duo) -> None:
    if duo.driver == "vfs":  # on overlay 1.43 refuses the archive, so that the stores would part
        duo.run("import-layer", "--id", "own", stdin=tars.OWN_WHITEOUT)


@sequence
def whiteouts_over_own_files(duo: Duo) -> None:
    duo.run("import-layer", "--id", "layer", stdin=tars.BASE)
    duo.run("applydiff", "layer", stdin=tars.CHANGES)
    if duo.driver == "vfs":  # on overlay the stores part
        duo.run("changes", "layer", unordered=True)
        duo.run("diff", "-u", "layer")


@sequence
def creating_images(duo: Duo) -> None:
    _base(duo)
    digest = "sha256:" + "0123456789abcdef" * 4
    duo.run("create-image", "--id", "one", "-n", "n1", "-n", "n2", "-n", "n1", "-m", "text", "base")
    duo.run("create-image", "--json", "--id", "two", "-d", digest, "base-name")
    duo.run("create-image", "--json", "--id", "layerless")
    duo.run("create-image", "--id", "one")
    duo.run("create-image", "-n", "n1", "base")
    duo.run("create-image", "nosuch")
    duo.run("create-image", "-d", "bogus")
    duo.run("create-image", "-d", "sha256:12")
    duo.run("create-image", "-d", "md7:12")
    note = duo.host / "metadata"
    note.write_text("from a file\n")
    duo.run("create-image", "--json", "--id", "file", "-m", "loses", "-f", str(note), "base")
    duo.run("create-image", "--id", "nofile", "-f", str(duo.host / "nosuch"))
    duo.run("metadata", "file", "one", "two")
    duo.run("metadata", "-q", "file")
    duo.run("metadata", "-j", "file", "one", "nosuch")
    duo.run("images-by-digest", digest)
    duo.run("images-by-digest", "--json", digest)
    duo.run("images-by-digest", "sha256:" + "9" * 64)
    duo.run("images-by-digest", "--json", "sha256:" + "9" * 64)
    duo.run("images-by-digest", "bogus")
    duo.run("images-by-digest", "sha256:12")
    duo.run("images-by-digest", "one")
    _listings(duo)


@sequence
def creating_containers(duo: Duo) -> None:
    _base(duo)
    duo.run("create-image", "--id", "img", "-n", "img-name", "base")
    duo.run("create-image", "--id", "layerless")
    duo.run(
        "create-container", "--id", "box1", "-n", "a", "-n", "b", "-n", "a", "-m", "meta", "img"
    )
    duo.run("create-container", "--json", "--id", "box2", "img-name")
    duo.run("create-container", "--json", "--id", "box3", "")
    duo.run("create-container", "--json", "--id", "box4", "layerless")
    duo.run("create-container", "--json", "--id", "box5", "--volatile", "img")
    duo.run("create-container", "img")
    duo.run("create-container", "--id", "box1", "img")
    duo.run("create-container", "--id", "box9", "-n", "a", "img")
    duo.run("create-container", "nosuch")
    duo.run("create-container")
    duo.run("create-container", "a", "b")
    _listings(duo)
    duo.run("container", "box1", "box2", "box3")
    duo.run("metadata", "box1", "box2")


# -- deleting --------------------------------------------------------------------------------------


@sequence
def deleting_layers(duo: Duo) -> None:
    _chain(duo)
    duo.run("delete-layer", "base")
    duo.run("delete-layer", "top")
    duo.run("delete-layer", "--json", "base", "top", "nosuch")
    duo.run("delete-layer", "nosuch")
    duo.run("create-layer", "--id", "free", "-n", "free-name")
    duo.run("create-layer", "--id", "free2")
    duo.run("delete-layer", "free", "nosuch")
    duo.run("delete-layer", "-j", "free2", "free2")
    _listings(duo)
    duo.run("delete-container", "con")
    duo.run("delete-layer", "top")
    duo.run("delete-image", "img")
    _listings(duo)


@sequence
def deleting_images(duo: Duo) -> None:
    _chain(duo)
    duo.run("create-layer", "--id", "side", "base")
    duo.run("create-image", "--id", "img2", "side")
    duo.run("create-image", "--id", "img3", "side")
    duo.run("delete-image", "img")
    duo.run("delete-image", "--json", "img", "nosuch")
    duo.run("delete-image", "-t", "img2")
    duo.run("delete-image", "--json", "--test", "img2")
    duo.run("delete-image", "img2")
    duo.run("delete-image", "--json", "-t", "img3")
    duo.run("delete-image", "--json", "img3")
    duo.run("delete-container", "con")
    duo.run("delete-image", "-t", "img-name")
    duo.run("delete-image", "img-name")
    duo.run("delete-image", "nosuch")
    _listings(duo)


@sequence
def deleting_containers_and_anything(duo: Duo) -> None:
    _chain(duo)
    duo.run("create-container", "--id", "con2", "img")
    duo.run("delete-container", "con2", "nosuch")
    duo.run("delete-container", "-j", "nosuch")
    duo.run("delete", "nosuch")
    duo.run("delete", "--json", "nosuch")
    duo.run("delete", "base")
    _listings(duo)
    duo.run("delete", "con", "img")
    _listings(duo)
    duo.run("delete", "--json", "top", "top")
    _listings(duo)


@sequence
def wiping(duo: Duo) -> None:
    _chain(duo)
    duo.run("mount", "con")
    duo.run("wipe")
    _listings(duo)


# -- names, metadata, data -------------------------------------------------------------------------


@sequence
def names(duo: Duo) -> None:
    _chain(duo)
    duo.run("get-names", "base")
    duo.run("get-names", "--json", "con")
    for item in ("base", "img", "con"):
        duo.run("set-names", "-n", f"{item}-1", "-n", f"{item}-2", item)
        twice = ("-n", f"{item}-2", "-n", f"{item}-2")
        duo.run("set-names", "--json", "-n", f"{item}-3", *twice, item)
        duo.run("get-names", item)
    duo.run("image", "--json", "img")
    duo.run("set-names", "-n", "shared", "base")
    duo.run("set-names", "-n", "shared", "top")
    duo.run("get-names", "base")
    duo.run("get-names", "-j", "base")
    duo.run("set-names", "img")
    duo.run("set-names", "--json", "con")
    duo.run("get-names", "--json", "img")
    duo.run("set-names", "-n", "x", "nosuch")
    duo.run("add-names", "-n", "x", "nosuch")
    duo.run("get-names", "nosuch")
    duo.run("set-names", "--json", "-n", "<&>\u2028", "base")
    duo.run("image", "--json", "img")
    duo.run("add-names", "--json", "-n", "", "con")
    duo.run("get-names", "con")
    _listings(duo)


@sequence
def adding_names(duo: Duo) -> None:
    _chain(duo)
    duo.run("create-image", "--id", "img2", "top")
    duo.run("add-names", "-n", "y", "-n", "z", "img")
    duo.run("get-names", "img")
    duo.run("get-names", "--json", "img")
    duo.run("add-names", "-n", "y", "img2")
    duo.run("get-names", "img")
    duo.run("get-names", "img2")
    duo.run("add-names", "--json", "-n", "y", "img2")
    duo.run("remove-names", "-n", "nosuch", "nosuch")
    _listings(duo)


@sequence
def metadata(duo: Duo) -> None:
    _chain(duo)
    for item in ("base", "img", "con", "img-name", "nosuch"):
        duo.run("set-metadata", "-m", f"about {item}\n", item)
        duo.run("metadata", item)
        duo.run("metadata", "--quiet", item)
    duo.run("metadata", "--json", "base", "img", "con", "nosuch")
    duo.run("metadata", "base", "nosuch", "con")
    duo.run("set-metadata", "-m", "", "base")
    duo.run("set-metadata", "base")
    empty = duo.host / "empty"
    empty.write_text("")
    duo.run("set-metadata", "-f", str(empty), "base")
    duo.run("metadata", "base")
    duo.run("set-metadata", "-f", str(duo.host / "nosuch"), "base")
    duo.run("set-metadata", "-m", "unknown", "nosuch")
    _listings(duo)


@sequence
def data_items(duo: Duo) -> None:
    _chain(duo)
    for kind, item in (("image", "img"), ("container", "con"), ("layer", "top")):
        duo.run(f"list-{kind}-data", item)
        duo.run(f"list-{kind}-data", "--json", item)
        for key, value in (("b", b"second"), ("a", b"first\n"), ("odd/Key", b""), ("b", b"again")):
            duo.run(f"set-{kind}-data", item, key, stdin=value)
        duo.run(f"list-{kind}-data", item)
        duo.run(f"list{kind}data", "-j", item)
        for key in ("a", "b", "odd/Key", "nosuch", ""):
            duo.run(f"get-{kind}-data", item, key)
            if kind != "layer":
                duo.run(f"get-{kind}-data-size", item, key)
                duo.run(f"get{kind}datadigest", item, key)
        duo.run(f"set-{kind}-data", item, "", stdin=b"x")
        duo.run(f"set-{kind}-data", "nosuch", "a", stdin=b"x")
        duo.run(f"get-{kind}-data", "nosuch", "a")
        duo.run(f"list-{kind}-data", "nosuch")
        duo.run(f"get-{kind}-data", item)
        for file in ("nosuch", ""):  # "" is the directory
            duo.run(f"set-{kind}-data", "-f", str(duo.host / file), item, "a")
            duo.run(f"set-{kind}-data", "-f", str(duo.host / file), item, "")
            duo.run(f"set-{kind}-data", "-f", str(duo.host / file), "nosuch", "a")
        duo.run(kind, "--json", item)
        duo.run(kind, item)
    out = duo.host / "out"
    duo.run("get-image-data", "-f", str(out), "img", "a")
    assert out.read_bytes() == b"first\n"
    duo.run("delete-container", "con")
    duo.run("image", "img")
    _listings(duo)


@sequence
def manifests_and_digests(duo: Duo) -> None:
    _chain(duo)
    duo.run("set-image-data", "img", "manifest", stdin=b"{}")
    duo.run("images", "--json")
    duo.run("image", "img")
    digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    duo.run("images-by-digest", digest)
    duo.run("images-by-digest", "-q", digest)
    duo.run("set-image-data", "img", "manifest", stdin=b'{"a":1}')
    duo.run("image", "img", unordered=True)
    duo.run("images-by-digest", "--json", digest)
    duo.run("get-image-data-digest", "img", "manifest")


@sequence
def directories(duo: Duo) -> None:
    _chain(duo)
    for key in ("con", "con-name", "co", "nosuch"):
        duo.run("get-container-dir", key)
        duo.run("getcontainerrundir", key)
    place = duo.run("get-container-dir", "con").line
    duo.each(place, lambda path: (path / "file").write_bytes(b"12345"))
    duo.run("container", "con")
    duo.run("get-image-dir", "img")


# -- diffs, mounts ---------------------------------------------------------------------------------


def _edit(root: Path) -> None:
    """Adds, changes, replaces and removes."""
    (root / "etc/hosts").write_bytes(b"::1 localhost\n")
    (root / "etc/new").mkdir()
    (root / "etc/new/file").write_bytes(b"new\n")
    os.chmod(root / "etc/passwd", 0o600)
    os.unlink(root / "usr/bin/alias")
    os.symlink("tool", root / "usr/bin/link")
    os.rmdir(root / "var/empty")
    os.chown(root / "var/tmp", 7, 8)
    with open(root / "usr/bin/tool", "ab") as file:
        file.write(b"more\n")


@sequence
def changes_in_a_container(duo: Duo) -> None:
    _chain(duo)
    place = duo.run("mount", "con").line
    duo.each(place, _edit)
    duo.run("unmount", "con")
    inner = layer_of(duo, "con")
    duo.run("changes", inner, unordered=True)
    duo.run("changes", "--json", inner, unordered=True)
    duo.run("changes", "top", unordered=True)
    duo.run("changes", inner, "base", unordered=True)
    duo.run("changes", "top", "base", unordered=True)
    duo.run("changes", "base", "top", unordered=True)
    duo.run("changes", "--json", "base", "base", unordered=True)
    duo.run("changes", "nosuch")
    duo.run("diffsize", inner)
    duo.run("diffsize", "top")
    duo.run("diff-size", "base")
    duo.run("diffsize", inner, "base")
    duo.run("diffsize", "nosuch")
    duo.run("diffsize", "--json", "base")
    duo.run("diff", inner, output="tar")
    duo.run("diff", inner, "base", output="tar")
    duo.run("diff", "top", output="tar")
    duo.run("diff", "-c", "top", output="stream")
    duo.run("container", "con")
    # what goes out comes in again
    stream = duo.ours.run(["diff", "-u", inner.ours]).stdout
    duo.run("import-layer", "--id", "again", "top", stdin=stream)
    duo.run("changes", "again", unordered=True)


def layer_of(duo: Duo, container: str, options: tuple[str | PerSide, ...] = ()) -> PerSide:
    """The ID of a container's layer on each side, numbered for the comparisons."""
    import json

    found = []
    for side, pick in ((duo.ours, 0), (duo.theirs, 1)):
        words = [option if isinstance(option, str) else option[pick] for option in options]
        record = json.loads(side.run(["container", "--json", container], options=words).stdout)[0]
        side.plain(record["layer"])
        found.append(record["layer"])
    return PerSide(*found)


@sequence
def diffs(duo: Duo) -> None:
    _chain(duo)
    duo.run("import-layer", "--id", "gzip", stdin=tars.COMPRESSED["gzip"])
    duo.run("import-layer", "--id", "xz", stdin=tars.COMPRESSED["xz"])
    duo.run("diff", "base")
    duo.run("diff", "-u", "base")
    duo.run("diff", "top")
    duo.run("diff", "gzip", output="stream")
    duo.run("diff", "--gzip", "base", output="stream")
    duo.run("diff", "-u", "gzip")
    duo.run("diff", "-u", "-c", "gzip", output="stream")
    duo.run("diff", "xz")
    duo.run("diff", "-u", "xz")
    duo.run("diff", "-b", "base")
    duo.run("diff", "--xz", "base")
    duo.run("diff", "nosuch")
    duo.run("diff")
    out = duo.host / "diff.tar"
    duo.run("diff", "-f", str(out), "top")
    assert out.read_bytes() == tars.CHANGES
    duo.run("create-layer", "--id", "plain", "base")
    duo.run("diff", "plain", output="tar")
    duo.run("diff", "plain", "nosuch", output="tar")


@sequence
def applying_diffs(duo: Duo) -> None:
    _base(duo)
    duo.run("create-layer", "--id", "layer", "base")
    duo.run("applydiff", "layer", stdin=tars.CHANGES)
    duo.run("layer", "--json", "layer")
    duo.run("layers", "--json")
    duo.run("apply-diff", "layer", stdin=tars.COMPRESSED["gzip"])
    duo.run("layers", "--json")
    duo.run("applydiff", "nosuch", stdin=tars.CHANGES)
    duo.run("applydiff", "-f", str(duo.host / "nosuch"), "layer")
    duo.run("applydiff", "layer", stdin=tars.EMPTY)
    duo.run("layers", "--json")
    duo.run("create-layer", "--id", "plain")
    duo.run("applydiff", "plain", stdin=tars.BROKEN["not a tar"])
    duo.run("layers", "--json")


@sequence
def mounting(duo: Duo) -> None:
    _chain(duo)
    duo.run("mounted", "con")
    duo.run("mounted", "--json", "con")
    duo.run("mount", "con")
    duo.run("mount", "con")
    duo.run("mounted", "con")
    duo.run("mounted", "-j", "con")
    duo.run("layers", "--tree")
    duo.run("unmount", "con")
    duo.run("mounted", "con")
    duo.run("unmount", "con")
    duo.run("mounted", "con")
    duo.run("unmount", "con")
    duo.run("mount", "nosuch", "base", "con-name")
    duo.run("unmount", "nosuch", "base", "con")
    duo.run("mount", "--json", "nosuch", "con")
    duo.run("umount", "--json", "nosuch", "con")
    duo.run("mount", "con")
    duo.run("mount", "con")
    duo.run("unmount", "--force", "con")
    duo.run("mounted", "con")
    duo.run("mount", "img")
    duo.run("mounted", "img")
    duo.run("mounted", "nosuch")
    duo.run("mount")
    duo.run("unmount")
    duo.run("mount", "con")
    duo.run("shutdown")
    duo.run("shutdown", "--json")
    duo.run("delete-container", "con")
    duo.run("shutdown")


def _touch(root: Path) -> None:
    os.utime(root / "etc", (tars.MTIME + 5, tars.MTIME + 5))


@sequence
def times_of_directories(duo: Duo) -> None:
    _chain(duo)
    duo.each(duo.run("mount", "con").line, _touch)
    duo.run("unmount", "con")
    inner = layer_of(duo, "con")
    duo.run("changes", inner, unordered=True)
    duo.run("changes", "--json", inner, unordered=True)
    duo.run("diff", inner, output="tar")
    duo.run("diffsize", inner)


@sequence
def applying_without_a_parent(duo: Duo) -> None:
    duo.run("create-layer", "--id", "below")
    duo.run("create-layer", "--id", "above", "below")
    duo.run("delete", "below")
    duo.run("applydiff", "above", stdin=tars.BASE)


@sequence
def an_image_whose_lower_layer_was_deleted(duo: Duo) -> None:
    """``delete`` takes a parent away; what needs a mount of the child says so, all else works."""
    duo.run("import-layer", "--id", "below", stdin=tars.BASE)
    duo.run("create-layer", "--id", "above", "-n", "above-name", "below")
    duo.run("create-image", "--id", "img", "-n", "img-name", "above")
    duo.run("create-container", "--id", "con", "img")
    duo.run("image", "img")
    duo.run("delete", "below")
    for command in ("image", "images", "layer", "layers", "exists"):
        for flags in ((), ("--json",)):
            keys = {"image": ("img",), "layer": ("above",), "exists": ("img", "above")}
            duo.run(command, *flags, *keys.get(command, ()), unordered=command == "exists")
    duo.run("image", "img-name", "img")
    duo.run("diffsize", "above")
    duo.run("mount", "-r", "img-name", "nosuch", "img")
    duo.run("mount", "-r", "--json", "img")
    duo.run("container", "con")
    duo.run("container", "--json", "con")
    duo.run("mount", "con", "above", "nosuch")
    duo.run("mount", "--json", "con", "above")
    duo.run("copy", "above:/etc/passwd", str(duo.host / "copied"))
    if duo.driver == "overlay":  # of vfs, which needs no parent, ours would mount it
        duo.run("mount", "above-name", "above")
        duo.run("mount", "--json", "nosuch", "above-name")
    duo.run("delete-container", "con")
    duo.run("delete-image", "img")
    duo.run("layers")


@sequence
def whiteouts_of_what_nothing_lies_below(duo: Duo) -> None:
    """A mounted overlay lists such whiteouts, as names without a file."""
    data = tars.archive(
        [tars.folder("dd", 0o755), tars.Member("dd/.wh.f"), tars.Member("dd/g", b"g\n")]
    )
    duo.run("import-layer", "--id", "base", stdin=data)
    duo.run("create-image", "--id", "img", "base")
    duo.run("create-container", "--id", "con", "img")
    duo.run("create-layer", "--id", "work", "base")
    duo.run("copy", "base:/dd", "work:/copied")
    duo.run("copy", "work:/dd", "work:/again")
    duo.run("changes", "work", unordered=True)
    inner = layer_of(duo, "con")
    duo.run("changes", inner, unordered=True)
    duo.run("diff", "-u", "base", output="tar")
    duo.run("create-layer", "--uidmap", "0:1000:50000", "--gidmap", "0:1000:50000", "base")


@sequence
def copying_a_directory_onto_itself(duo: Duo) -> None:
    duo.run("import-layer", "--id", "base", stdin=tars.BASE)
    duo.run("copy", "base:/etc", "base:/etc")


@sequence
def copying_shown_whiteouts_and_a_file_onto_a_directory(duo: Duo) -> None:
    data = tars.archive([tars.folder("dd", 0o755), tars.Member("dd/.wh.f")])
    duo.run("import-layer", "--id", "base", stdin=data)
    (duo.host / "file").write_bytes(b"file")
    duo.run("copy", "base:/dd", str(duo.host / "file"), str(duo.host / "place"))


@sequence
def counting_mounts(duo: Duo) -> None:
    """The count is kept between processes, for each layer; a container and its layer share it."""
    _chain(duo)
    inner = layer_of(duo, "con")
    for key in ("con", inner, "con-name", "top", "base"):
        duo.run("mount", key)
    for key in ("con", "con", inner, inner, "con", "top", "base", "base"):
        duo.run("unmount", "--json", key)
        duo.run("mounted", "con", inner, "top", "base")
    duo.run("mount", "con", "con", "con")
    duo.run("unmount", "con", "con")
    duo.run("mounted", "--json", "con", "con")
    duo.run("layers", "--tree")
    duo.run("delete-container", "con")
    duo.run("mounted", "con")
    duo.run("delete-layer", inner)
    duo.run("mount", "top", "top")
    duo.run("unmount", "-f", "top")
    duo.run("unmount", "-f", "top")
    duo.run("mounted", "top")


@sequence
def mounting_by_name(duo: Duo) -> None:
    _base(duo)
    duo.run("mount", "base-name", "base", "bas")


@sequence
def mounting_images(duo: Duo) -> None:
    _chain(duo)
    duo.run("mount", "-r", "img")
    duo.run("unmount", "img")
    duo.run("mount", "-r", "nosuch")


@sequence
def copying(duo: Duo) -> None:
    _chain(duo)
    source = duo.host / "source"
    (source / "sub").mkdir(parents=True)
    (source / "one").write_bytes(b"one\n")
    (source / "sub/two").write_bytes(b"two\n")
    os.chmod(source / "one", 0o640)
    for path in (source / "sub/two", source / "one", source / "sub", source):
        os.utime(path, (tars.MTIME, tars.MTIME))
    duo.run("copy", str(source / "one"), "con:/etc/one")
    duo.run("copy", str(source), "con:/srv/tree")
    duo.run("copy", "--chown", "7", str(source / "one"), "con:/etc/seven")
    duo.run("copy", "--chown", "a", str(source / "one"), "con:/etc/bad")
    duo.run("copy", str(source / "nosuch"), "con:/etc/nosuch")
    duo.run("copy", str(source / "one"), "nosuch:/etc/one")
    duo.run("copy", "top:/etc/hosts", "con:/etc/copied")
    duo.run("copy", str(source / "one"))
    duo.run("mounted", "con")


# -- ID maps, additional stores, damage ------------------------------------------------------------

_MAPS = ("--uidmap", "0:100000:2000", "--gidmap", "0:200000:2000")
_OTHER_MAPS = ("--uidmap", "0:300000:2000", "--gidmap", "0:400000:2000")
_RANGES = ("--uidmap", "0:300000:1000:1000:400000:1000")


@sequence
def mapped_layers(duo: Duo) -> None:
    _base(duo)
    duo.run("import-layer", "--id", "mapped", *_MAPS, stdin=tars.BASE)
    duo.run("create-layer", "--id", "inherits", "mapped")
    duo.run("create-layer", "--id", "other", *_OTHER_MAPS, "mapped")
    duo.run("create-layer", "--id", "host", "--hostuidmap", "--hostgidmap", "mapped")
    duo.run("create-layer", "--id", "half", "--hostuidmap", "mapped")
    duo.run("create-layer", "--id", "uids", "--uidmap", "0:7:5", "base")
    duo.run("create-layer", "--id", "empty", *_MAPS)
    duo.run("applydiff", "inherits", stdin=tars.CHANGES)
    duo.run("import-layer", "--id", "over", *_OTHER_MAPS, "mapped", stdin=tars.CHANGES)
    _listings(duo)
    layers = ("mapped", "inherits", "other", "host", "half", "uids", "empty", "over")
    duo.run("layer", *layers)
    for layer in layers:
        duo.run("changes", layer, unordered=True)
        duo.run("diffsize", layer)
        duo.run("diff", "-u", layer, output="tar")
        duo.run("layer-parent-owners", layer)
    duo.run("mount", "mapped", "other")
    duo.run("layer-parent-owners", "mapped", "base", "other")
    duo.run("layer-parent-owners", "--json", "mapped", "nosuch", "other")
    duo.run("unmount", "mapped", "other")


@sequence
def mapped_copy_of_short_names(duo: Duo) -> None:
    members = [tars.Member(name, b"x") for name in ("a", "b", "longer", "z")]
    duo.run("import-layer", "--id", "short", stdin=tars.archive(members))
    maps = ("--uidmap", "0:300000:2000", "--gidmap", "0:300000:2000")
    duo.run("create-layer", "--id", "short-copy", *maps, "short")


@sequence
def maps_of_several_ranges(duo: Duo) -> None:
    if duo.driver == "overlay":  # the stores part here
        duo.run("create-layer", "--id", "ranges", "--json", *_RANGES)
        return
    duo.run("import-layer", "--id", "ranges", *_RANGES, stdin=tars.BASE)
    duo.run("create-layer", "--id", "child", "ranges")
    duo.run("layer", "ranges", "child")
    duo.run("diff", "-u", "ranges", output="tar")


@sequence
def mapped_containers(duo: Duo) -> None:
    """Where the driver cannot shift IDs, one copy of the top layer for each map."""
    _chain(duo)
    duo.run("create-container", "--json", "--id", "box1", *_MAPS, "img")
    duo.run("create-container", "--json", "--id", "box2", *_MAPS, "img")
    duo.run("create-container", "--json", "--id", "box3", *_OTHER_MAPS, "img")
    duo.run("create-container", "--json", "--id", "box4", "--hostuidmap", "img")
    duo.run("create-container", "--json", "--id", "box5", *_MAPS, "")
    for box in ("box1", "box2", "box3", "box4", "box5"):
        layer_of(duo, box)
        duo.run("container-parent-owners", box)
        place = duo.run("mount", box).line
        duo.same_tree(place, "mounted")
        duo.run("container-parent-owners", "--json", box)
        duo.each(place, lambda root: (root / "new").write_bytes(b"new\n"))
        duo.run("unmount", box)
        duo.run("container", box)
        inner = layer_of(duo, box)
        duo.run("changes", inner, unordered=True)
        duo.run("diff", "-u", inner, output="tar")
    _listings(duo)
    duo.run("image", "img")
    duo.run("delete-image", "img")
    duo.run("delete-container", "box1", "box2", "box3")
    duo.run("delete-image", "--test", "img")
    duo.run("delete-container", "box4", "con")
    duo.run("delete-image", "--test", "img", unordered=True)
    duo.run("delete-image", "img", unordered=True)
    _listings(duo)


@sequence
def maps_without_root(duo: Duo) -> None:
    if duo.driver == "vfs":
        duo.run("create-layer", "--id", "rootless", "--uidmap", "5:5:5")


@sequence
def refused_mapped_container(duo: Duo) -> None:
    if duo.driver == "vfs":
        _chain(duo)
        duo.run("create-container", "-n", "con-name", *_MAPS, "img")
        duo.run("images", "--json")


@sequence
def labels(duo: Duo) -> None:
    """Only recorded: mounting with a label needs SELinux."""
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    duo.run("create-layer", "--id", "made", "-l", label)
    duo.run("import-layer", "--json", "--id", "filled", "--label", label, stdin=tars.CHANGES)
    duo.run("layer", "--json", "made", "filled")


def _with_additional_store(duo: Duo) -> tuple[str | PerSide, ...]:
    """Fills a second store and gives the options that add it, read-only."""
    sides = (duo.ours, duo.theirs)
    main = [side.graph for side in sides]
    for side in sides:
        side.graph = side.graph.parent / "extra"
    duo.run("import-layer", "--id", "ro-low", "-n", "ro-name", stdin=tars.BASE)
    duo.run("import-layer", "--id", "ro-top", "ro-low", stdin=tars.CHANGES)
    duo.run("create-image", "--id", "ro-img", "-n", "ro-image", "-m", "about", "ro-top")
    duo.run("set-image-data", "ro-img", "key", stdin=b"data")
    duo.run("set-layer-data", "ro-low", "key", stdin=b"data")
    duo.run("shutdown")
    for side, graph in zip(sides, main, strict=True):
        side.graph = graph
    store = PerSide(*(f"{duo.driver}.imagestore={graph.parent}/extra" for graph in main))
    return ("--storage-opt", store)


@sequence
def additional_stores(duo: Duo) -> None:
    options = _with_additional_store(duo)

    def run(*words: str, stdin: bytes = b"", unordered: bool = False) -> None:
        duo.run(words[0], *words[1:], stdin=stdin, options=options, unordered=unordered)

    for command in ("layers", "images", "containers"):
        run(command)
        run(command, "--json")
    run("layers", "--tree")
    for kind, item in (("layer", "ro-low"), ("layer", "ro-name"), ("image", "ro-im")):
        run(kind, item)
        run(kind, "--json", item)
        run("exists", item)
        run("metadata", item)
        run("get-names", item)
    run("list-image-data", "ro-img")
    run("get-image-data", "ro-image", "key")
    run("get-layer-data", "ro-name", "key")
    run("set-image-data", "ro-img", "key", stdin=b"x")
    run("set-layer-data", "ro-low", "key", stdin=b"x")
    for command in ("changes", "diffsize", "layer-parent-owners"):
        run(command, "ro-top", unordered=True)
    run("set-metadata", "-m", "x", "ro-img")
    run("set-metadata", "-m", "x", "ro-low")
    run("set-names", "-n", "x", "ro-low")
    run("applydiff", "ro-low", stdin=tars.CHANGES)
    for command in ("delete", "delete-layer", "delete-image", "delete-container"):
        run(command, "ro-img")
        run(command, "ro-top")
    run("mount", "ro-top", "ro-name")
    run("mounted", "ro-top")
    run("create-layer", "--id", "child", "ro-name")
    run("import-layer", "--id", "filled", "ro-top", stdin=tars.OPAQUE)
    run("create-image", "--id", "ours", "-n", "own-image", "ro-top")
    run("image", "own-image")
    run("create-container", "--id", "box", "ro-img")
    layer_of(duo, "box", options)
    run("create-container", "--id", "mapped", *_MAPS, "ro-img")
    layer_of(duo, "mapped", options)
    place = duo.run("mount", "box", options=options).line
    duo.same_tree(place, "mounted")
    run("unmount", "box")
    run("delete-layer", "child")
    run("layers", "--json")
    run("images", "--json")
    run("containers", "--json")
    run("add-names", "-n", "mine", "ro-img")
    run("get-names", "ro-img")


@sequence
def changed_files(duo: Duo) -> None:
    """Exports of layers with files that are not what was imported."""
    home = "vfs/dir" if duo.driver == "vfs" else "overlay"
    inside = "" if duo.driver == "vfs" else "/diff"
    for layer in ("gone", "other", "longer", "shorter"):
        duo.run("import-layer", "--id", layer, stdin=tars.BASE)

    def damage(graph: Path) -> None:
        def file(layer: str) -> Path:
            return graph / f"{home}/{layer}{inside}/etc/shadow"

        size = file("other").stat().st_size
        file("gone").unlink()
        file("other").write_bytes(b"x" * size)
        file("longer").write_bytes(b"x" * (size + 1))
        file("shorter").write_bytes(b"x" * (size - 1))

    duo.each(PerSide(str(duo.ours.graph), str(duo.theirs.graph)), damage)
    for layer in ("gone", "other", "longer", "shorter"):
        duo.run("diff", "-f", str(duo.host / "out"), layer)


@sequence
def lost_trees(duo: Duo) -> None:
    """What the commands say when a layer's tree was damaged behind their back."""
    import shutil

    _chain(duo)
    home = "vfs/dir" if duo.driver == "vfs" else "overlay"
    inside = "" if duo.driver == "vfs" else "/diff"
    graphs = PerSide(str(duo.ours.graph), str(duo.theirs.graph))
    duo.run("create-layer", "--id", "lost")
    duo.run("create-image", "--id", "lost-img", "lost")
    duo.each(graphs, lambda graph: shutil.rmtree(graph / f"{home}/lost"))
    duo.run("layer", "lost")
    duo.run("exists", "lost")
    duo.run("mount", "lost")
    duo.run("changes", "lost")
    duo.run("diffsize", "lost")
    duo.run("image", "lost-img")
    duo.run("create-layer", "--id", "child", "lost")
    duo.run("create-container", "--id", "child", "lost-img")
    duo.run("delete-image", "lost-img")
    duo.run("layers", "--json")
    duo.each(graphs, lambda graph: (graph / f"{home}/base{inside}/etc/shadow").unlink())
    duo.run("diffsize", "base")
    duo.run("changes", "base", unordered=True)
    duo.run("image", "img")
    duo.run("layers", "--json")


def subordinate_ranges(duo: Duo) -> None:
    """Users with ranges in /etc/subuid and /etc/subgid; no sequence of every run, see the test."""
    _base(duo)
    duo.run("create-image", "--id", "img", "base")
    for number, words in enumerate(
        (
            ("--subuidmap", "alice"), ("--subgidmap", "alice"), ("--subuidmap", "bob"),
            ("--subuidmap", "alice", "--subgidmap", "bob"), ("--subuidmap", "carol"),
            ("--subuidmap", "alice", "--uidmap", "70000:5:10"), ("--subuidmap", "nobody-such"),
            ("--subuidmap", "alice", "--hostuidmap"),
        )
    ):  # fmt: skip
        duo.run("create-layer", "--json", "--id", f"layer{number}", *words)
        filled = ("--json", "--id", f"filled{number}", *words, "base")
        duo.run("import-layer", *filled, stdin=tars.BASE)
        duo.run("create-container", "--json", "--id", f"box{number}", *words, "img")
    _listings(duo)


# -- the shape of a command line -------------------------------------------------------------------


@sequence
def wrong_command_lines(duo: Duo) -> None:
    _base(duo)
    duo.run("nosuchcommand")
    duo.run("layers", "--nosuch")
    duo.run("layers", "-jX")
    duo.run("layer")
    duo.run("layer", "base", "--json")
    duo.run("layer", "--json=maybe", "base")
    duo.run("layer", "--json=false", "base")
    duo.run("layer", "--json=T", "base")
    duo.run("layer", '--json="true"', "base")
    duo.run("create-layer", "--id")
    duo.run("create-layer", "-n")
    duo.run("create-image", "a", "b")
    duo.run("layers", "--", "x")
    duo.run("layer", "--", "base")
    duo.run("layer", "--help")
    duo.run("layers", "-h")
    duo.run("images-by-digest")
    duo.run("copy", "--help")
    duo.run("get-names", "base", "base")
    duo.run("images", "extra")
    duo.run("layers", "--debug=false")
    duo.run("layers", "--debug=false", options=["--debug"])
    duo.run("layers", "-tj", "-jt")
    duo.run("layers", "-qt=false")


@sequence
def help_of_every_command(duo: Duo) -> None:
    from rules import ABSENT
    from tally import is_ours

    from cstorage.cli.table import COMMANDS

    for command in COMMANDS:
        if command.name not in ABSENT and not is_ours(command) and command.name != "copy":
            for name in (command.name, *command.aliases):
                duo.run(name, "--help")
            if command.least:
                duo.run(command.name)


@sequence
def driver_options(duo: Duo) -> None:
    for option in ("foo", "foo=bar", f"{duo.driver}.nosuch=1", "zzz.foo=bar"):
        duo.run("layers", options=["--storage-opt", option])
    duo.run("status", options=["--storage-opt", "btrfs.min_space=1G"])
    if duo.driver == "overlay":
        duo.run("status", options=["--storage-opt", "overlay.mountopt=nodev"])
        duo.run("status", options=["--storage-opt", "overlay.ignore_chown_errors=maybe"])
