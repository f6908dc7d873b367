"""Generated archives: whatever is legal comes back byte for byte, and trees survive the trip.

Every entry is written in a dialect of its own (``dialects``), so that one archive mixes V7, ustar,
star, GNU and pax, sparse files in four forms, global headers, whiteouts, devices; then it ends
in one of the ways archives end and is compressed, in one stream or in several.

The default is a small fixed set, for every run; ``--archive-examples N`` draws N afresh and prints
what they were made of.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections import Counter
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.archive.beneath import Payloads
from cstorage.archive.compression import compressing, detect
from cstorage.archive.manifest import Mark, read_manifest
from cstorage.archive.produce import write_tree
from cstorage.archive.recipe import assemble
from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.archive.writer import END, Entry
from cstorage.errors import ArchiveError
from cstorage.model import Compression
from tests.archive.dialects import (
    DIALECTS,
    SPARSE,
    More,
    encode_as,
    extended,
    fits,
    pad,
)

_DEFAULT_EXAMPLES = 150
ROOT = os.geteuid() == 0
BASE = "/dev/shm" if os.path.isdir("/dev/shm") else None

_COMPONENT = (
    st.binary(min_size=1, max_size=12) | st.text(min_size=1, max_size=8).map(str.encode)
    | st.sampled_from([b"a", b"b", b"x" * 120, b".wh", b"wh.", b"...", b"\xff\xfe", b" ", b"<&>"])
).filter(lambda c: b"/" not in c and b"\0" not in c and c not in (b".", b"..")
         and not c.startswith(b".wh."))  # fmt: skip
_XATTRS = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b=c", b"user.\xc3\xa9"]), st.binary(max_size=40), max_size=2
).map(lambda found: tuple(sorted(found.items())))
_OWNERS = (
    st.sampled_from([0, 1000, 8**7 - 1, 8**7, (1 << 32) - 2]) | st.integers(0, (1 << 32) - 2)
    if ROOT
    else st.just(os.geteuid())
)
KINDS = (
    "file", "dir", "symlink", "link", "fifo", "whiteout", "opaque", "sparse", "global",
    *(("device",) if ROOT else ()),
)  # fmt: skip


class Step(NamedTuple):
    """One entry to be: what it is, what it says, and in which dialect."""

    name: bytes
    kind: str
    content: bytes
    mode: int
    mtime: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    uid: int
    gid: int
    dialect: str
    form: str
    more: More
    number: int


_STEPS = st.builds(
    Step,
    st.lists(_COMPONENT, min_size=1, max_size=4).map(b"/".join),
    st.sampled_from(KINDS),
    st.binary(max_size=1500),
    st.integers(0, 0o7777),
    st.integers(-(1 << 40), 1 << 40) | st.integers(0, 1 << 33),
    _XATTRS,
    _OWNERS,
    _OWNERS if ROOT else st.just(os.getegid()),
    st.sampled_from(DIALECTS),
    st.sampled_from(list(SPARSE)),
    st.builds(
        More,
        st.integers(0, 999_999_999),
        st.none() | st.integers(0, 1 << 33),
        st.sampled_from([b"", b"a comment", b"\xff = \n"]),
    ),
    st.integers(0, 255),
)
_PLANS = st.lists(_STEPS, max_size=12)
_ENDS = st.sampled_from(["two blocks", "one block", "none", "many", "junk", "cut padding"])


def mapped(content: bytes, number: int) -> tuple[list[tuple[int, int]], int]:
    """A map for stored bytes: regions with holes before, between and behind them."""
    pairs, at, left = [], number % 3 * 700, len(content)
    while left:
        length = min(left, 1 + number * 7)
        pairs.append((at, length))
        at += length + 1 + number
        left -= length
    return pairs, at + number * 1000


def build(plan: list[Step], seen: Counter[str]) -> tuple[list[bytes], int]:
    """The members of the plan, conflicting ones left out; ``seen`` counts what is in them.

    Also how many bytes of padding the last one ends with.
    """
    taken: dict[bytes, str] = {}
    parts: list[bytes] = []
    padding = 0

    def put(step: Step, kind: int, name: bytes, content: bytes = b"", **more: Any) -> None:
        entry = Entry(name, kind, step.mode, step.uid, step.gid, len(content), step.mtime, **more)
        dialect = step.dialect if fits(entry, step.dialect) else "pax"
        seen[dialect] += 1
        parts.append(encode_as(dialect, entry, step.more) + pad(content))
        nonlocal padding
        padding = -len(content) % 512

    for step in plan:
        name, kind = step.name, step.kind
        above = [name[:at] for at in range(len(name)) if name[at : at + 1] == b"/"]
        if kind == "global":
            parts.append(extended([(b"comment", step.content), (b"mtime", b"5")], b"g"))
            padding = 0
            seen[kind] += 1
            continue
        if name in taken or any(taken.get(path, "dir") != "dir" for path in above):
            continue
        if kind == "whiteout":
            directory, slash, base = name.rpartition(b"/")
            if len(base) > 200 or b"wh:" + name in taken:
                continue
            taken[b"wh:" + name] = kind
            put(step, ord("0"), directory + slash + b".wh." + base)
            seen[kind] += 1
            continue
        if any(other.startswith(name + b"/") for other in taken):
            continue  # something is below it already, so it must stay a directory
        files = [other for other, what in taken.items() if what == "file"]
        if kind == "link" and not files:
            continue
        taken.update(dict.fromkeys(above, "dir"))
        taken[name] = {"opaque": "dir", "sparse": "file"}.get(kind, kind)
        seen[kind] += 1
        match kind:
            case "opaque":
                put(step, ord("5"), name + b"/")
                put(step, ord("0"), name + b"/.wh..wh..opq")
            case "file":
                put(step, ord("0"), name, step.content, xattrs=step.xattrs)
            case "sparse":
                pairs, logical = mapped(step.content, step.number)
                entry = Entry(name, ord("0"), step.mode, step.uid, step.gid, 0, step.mtime)
                parts.append(SPARSE[step.form](entry, pairs, logical, step.content))
                padding = -len(step.content) % 512
                seen[f"sparse {step.form}"] += 1
            case "dir":
                put(step, ord("5"), name + b"/", xattrs=step.xattrs)
            case "symlink":
                target = step.content.replace(b"\0", b"")[:200] or b"x"
                put(step, ord("2"), name, linkname=target)
            case "link":
                put(step, ord("1"), name, linkname=files[step.number % len(files)])
            case "fifo":
                put(step, ord("6"), name)
            case "device":
                letter = b"34"[step.number & 1]
                put(step, letter, name, devmajor=step.number, devminor=step.number * 3)
    return parts, padding


def ended(members: bytes, how: str, junk: bytes, padding: int) -> bytes:
    """The archive's end, legal or customary; ``padding`` are its last bytes that mean nothing."""
    match how:
        case "two blocks":
            return members + END
        case "one block":
            return members + END[:512]
        case "none":
            return members
        case "many":
            return members + END * 9
        case "cut padding":
            return members[: len(members) - padding]
    return members + END + junk


def packed(data: bytes, compression: Compression, cut: int) -> bytes:
    """The archive compressed, in two streams if ``cut`` says so."""
    out = io.BytesIO()
    pieces = (data[:cut], data[cut:]) if cut and compression != Compression.NONE else (data,)
    for piece in pieces:
        with compressing(out, compression, threads=1) as sink:
            sink.write(piece)
        if compression == Compression.ZSTD:
            out.write(b"\x55\x2a\x4d\x18\x03\0\0\0abc")  # frames that are skipped
        if compression == Compression.XZ:
            out.write(bytes(8))  # padding between and after streams
    return out.getvalue()


def check(data: bytes, stream: bytes, whiteouts: WhiteoutFormat) -> None:
    """In and out again: the same bytes, and what the manifest says is there."""
    path = tempfile.mkdtemp(dir=BASE)
    root = os.open(path, os.O_RDONLY)
    try:
        recipe, manifest, again = io.BytesIO(), io.BytesIO(), io.BytesIO()
        options = ApplyOptions(whiteouts=whiteouts)
        summary = apply_layer(io.BytesIO(stream), root, options, recipe=recipe, manifest=manifest)
        recipe.seek(0)
        manifest.seek(0)
        with Payloads([root]) as payloads:
            assemble(recipe, payloads.open, again, digest=summary.uncompressed_digest)
        assert again.getvalue() == data
        assert summary.uncompressed_size == len(data)
        for entry in read_manifest(manifest):
            if entry.mark == Mark.PRESENT:
                assert os.path.lexists(os.path.join(os.fsencode(path), entry.path))
    finally:
        os.close(root)
        shutil.rmtree(path)


@pytest.mark.timeout(0)
@pytest.mark.usefixtures("both_ways")
def test_generated_archives_come_back_byte_for_byte(request: pytest.FixtureRequest) -> None:
    """Any legal archive, junk after its end included, through any compression and back."""
    wanted = request.config.getoption("--archive-examples")
    seen: Counter[str] = Counter()

    @settings(
        max_examples=wanted or _DEFAULT_EXAMPLES,
        derandomize=not wanted,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        plan=_PLANS,
        compression=st.sampled_from(Compression),
        end=_ENDS,
        junk=st.binary(max_size=700),
        cut=st.integers(0, 2000),
        whiteouts=st.sampled_from(WhiteoutFormat if ROOT else [WhiteoutFormat.REMOVE]),
    )
    def trip(plan: Any, compression: Any, end: str, junk: bytes, cut: int, whiteouts: Any) -> None:
        own: Counter[str] = Counter()
        members, padding = build(plan, own)
        data = ended(b"".join(members), end, junk, padding)
        try:
            if detect(data[:512]) != Compression.NONE:
                return  # begins like a compressed stream: everybody takes it for one
        except ArchiveError:
            return
        check(data, packed(data, compression, cut), whiteouts)
        seen.update(own)
        seen.update(("archives", compression.name.lower(), f"ending in {end}", whiteouts.value))
        seen["members"] += len(members)

    trip()
    if wanted:
        print("\n" + ", ".join(f"{count} {what}" for what, count in sorted(seen.items())))
    assert seen["archives"] >= (wanted or _DEFAULT_EXAMPLES) * 0.9
    if wanted >= 500:  # fewer need not meet every kind
        assert set(seen) >= {*DIALECTS, *KINDS, *(f"sparse {form}" for form in SPARSE)}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=_PLANS)
def test_an_exported_tree_is_exported_the_same_again(plan: Any) -> None:
    """Tree → archive → tree → archive: the two archives are equal bytes."""
    options = ApplyOptions(whiteouts=WhiteoutFormat.REMOVE)
    archives = [b"".join(build(plan, Counter())[0]) + END]
    if detect(archives[0][:512]) != Compression.NONE:
        return
    for _ in range(3):
        path = tempfile.mkdtemp(dir=BASE)
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
