"""Hand-written command sequences, one for each part of the command line's behaviour.

A sequence is a function of a ``Duo``; every step in it is compared. The comparison of the trees of
files comes at the end of each by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import tars
from duo import Duo

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
        duo.run(kind, "--json", item)
        duo.run(kind, item)
    duo.run("set-image-data", "-f", str(duo.host / "nosuch"), "img", "a")
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


def layer_of(duo: Duo, container: str):  # type: ignore[no-untyped-def]
    """The ID of a container's layer on each side."""
    import json

    from duo import PerSide

    return PerSide(
        *(
            json.loads(side.run(["container", "--json", container]).stdout)[0]["layer"]
            for side in (duo.ours, duo.theirs)
        )
    )


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
def driver_options(duo: Duo) -> None:
    for option in ("foo", "foo=bar", f"{duo.driver}.nosuch=1", "zzz.foo=bar"):
        duo.run("layers", options=["--storage-opt", option])
    duo.run("status", options=["--storage-opt", "btrfs.min_space=1G"])
    if duo.driver == "overlay":
        duo.run("status", options=["--storage-opt", "overlay.mountopt=nodev"])
        duo.run("status", options=["--storage-opt", "overlay.ignore_chown_errors=maybe"])
