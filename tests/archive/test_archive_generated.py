"""Generated archives: whatever is legal comes back byte for byte, and trees survive the trip."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.beneath import Payloads
from cstorage.archive.compression import compressing, detect
from cstorage.archive.manifest import Mark, read_manifest
from cstorage.archive.produce import write_tree
from cstorage.archive.recipe import assemble
from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.model import Compression

_COMPONENT = (
    st.binary(min_size=1, max_size=12) | st.text(min_size=1, max_size=8).map(str.encode)
    | st.sampled_from([b"a", b"b", b"x" * 120, b".wh", b"wh.", b"...", b"\xff\xfe", b" ", b"<&>"])
).filter(lambda c: b"/" not in c and b"\0" not in c and c not in (b".", b"..")
         and not c.startswith(b".wh."))  # fmt: skip
_XATTRS = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b=c", b"user.\xc3\xa9"]), st.binary(max_size=40), max_size=2
).map(lambda found: tuple(sorted(found.items())))
_ENTRY = st.tuples(
    st.lists(_COMPONENT, min_size=1, max_size=4).map(b"/".join),
    st.sampled_from(["file", "dir", "symlink", "link", "fifo", "whiteout", "opaque"]),
    st.binary(max_size=1500),
    st.integers(0, 0o7777),
    st.integers(-(1 << 40), 1 << 40) | st.integers(0, 1 << 33),
    _XATTRS,
)
_PLANS = st.lists(_ENTRY, max_size=12)


def build(scene: Any, plan: Any) -> bytes:
    """An archive of the plan's entries, conflicting ones left out."""
    taken: dict[bytes, str] = {}
    archive = scene()
    for name, kind, content, mode, mtime, xattrs in plan:
        above = [name[:at] for at in range(len(name)) if name[at : at + 1] == b"/"]
        if name in taken or any(taken.get(path, "dir") != "dir" for path in above):
            continue
        fields = {"mode": mode, "mtime": mtime}
        if kind == "whiteout":
            directory, slash, base = name.rpartition(b"/")
            if len(base) > 200 or b"wh:" + name in taken:
                continue
            taken[b"wh:" + name] = kind
            archive.file(directory + slash + b".wh." + base, **fields)
            continue
        if any(taken.get(name_, "") and name_.startswith(name + b"/") for name_ in taken):
            continue  # something is below it already, so it must stay a directory
        taken.update(dict.fromkeys(above, "dir"))
        if kind == "opaque":
            taken[name] = "dir"
            archive.dir(name + b"/", **fields).file(name + b"/.wh..wh..opq", **fields)
        elif kind == "file":
            taken[name] = kind
            archive.file(name, content, xattrs=xattrs, **fields)
        elif kind == "dir":
            taken[name] = kind
            archive.dir(name + b"/", xattrs=xattrs, **fields)
        elif kind == "symlink":
            taken[name] = kind
            archive.symlink(name, content.replace(b"\0", b"")[:200] or b"x", **fields)
        elif kind == "fifo":
            taken[name] = kind
            archive.fifo(name, **fields)
        else:
            files = [other for other, what in taken.items() if what == "file"]
            if files:
                taken[name] = "link"
                archive.link(name, files[0], **fields)
    return bytes(archive)


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=_PLANS, compression=st.sampled_from(Compression), junk=st.binary(max_size=700))
def test_generated_archives_come_back_byte_for_byte(
    scene: Any, plan: Any, compression: Compression, junk: bytes
) -> None:
    """Any legal archive, junk after its end included, through any compression and back."""
    data = build(scene, plan) + junk
    if detect(data[:512]) != Compression.NONE:
        return  # the first name begins like a compressed stream: everybody takes it for one
    packed = io.BytesIO()
    with compressing(packed, compression, threads=1) as sink:
        sink.write(data)
    packed.seek(0)
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    path = tempfile.mkdtemp(dir=base)
    root = os.open(path, os.O_RDONLY)
    try:
        recipe, manifest, again = io.BytesIO(), io.BytesIO(), io.BytesIO()
        how = WhiteoutFormat.OVERLAY if os.geteuid() == 0 else WhiteoutFormat.REMOVE
        options = ApplyOptions(whiteouts=how)
        summary = apply_layer(packed, root, options, recipe=recipe, manifest=manifest)
        recipe.seek(0)
        manifest.seek(0)
        with Payloads([root]) as payloads:
            assemble(recipe, payloads.open, again)
        assert again.getvalue() == data
        assert summary.uncompressed_size == len(data)
        for entry in read_manifest(manifest):
            if entry.mark == Mark.PRESENT:
                assert os.path.lexists(os.path.join(os.fsencode(path), entry.path))
    finally:
        os.close(root)
        shutil.rmtree(path)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=_PLANS)
def test_an_exported_tree_is_exported_the_same_again(scene: Any, plan: Any) -> None:
    """Tree → archive → tree → archive: the two archives are equal bytes."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    options = ApplyOptions(whiteouts=WhiteoutFormat.REMOVE)
    archives = [build(scene, plan)]
    if detect(archives[0][:512]) != Compression.NONE:
        return
    for _ in range(3):
        path = tempfile.mkdtemp(dir=base)
        root = os.open(path, os.O_RDONLY)
        try:
            apply_layer(io.BytesIO(archives[-1]), root, options)
            out = io.BytesIO()
            write_tree(root, out)
            archives.append(out.getvalue())
        finally:
            os.close(root)
            shutil.rmtree(path)
        if detect(archives[-1][:512]) != Compression.NONE:
            return
    # The first export has implied directories with the time of their making; the later ones agree.
    assert archives[2] == archives[3]
