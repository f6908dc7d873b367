"""Layer archives for the comparisons: made here, deterministic, small, one concern each."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

#: All members carry this time, so that a tree shows which times came from an archive.
MTIME = 1_000_000_000


class Member(NamedTuple):
    """One entry of an archive; ``kind`` is a type flag of the tar format."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, str], ...] = ()
    mtime: float = MTIME


def folder(name: str, mode: int = 0o755, **more: object) -> Member:
    return Member(name, kind=tarfile.DIRTYPE, mode=mode, **more)  # type: ignore[arg-type]


def archive(members: Iterable[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.mode = member.kind, member.mode
            info.uid, info.gid = member.uid, member.gid
            info.mtime = member.mtime  # type: ignore[assignment]
            info.linkname = member.link
            info.devmajor, info.devminor = member.device
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in member.xattrs}
            info.size = len(member.data)
            tar.addfile(info, io.BytesIO(member.data) if member.data else None)
    return out.getvalue()


def without_own_whiteouts(members: list[Member]) -> list[Member]:
    """Leaves out whiteouts of what the same archive brought before: `own-whiteouts` differ."""
    kept: list[Member] = []
    for member in members:
        folder_, _, name = member.name.rpartition("/")
        hidden = f"{folder_}/{name.removeprefix('.wh.')}".lstrip("/")
        names = [f"{other.name}/" for other in kept]
        if name == ".wh..wh..opq":
            own = any(n.startswith(f"{folder_}/") and n != f"{folder_}/" for n in names)
        else:
            own = name.startswith(".wh.") and any(n.startswith(f"{hidden}/") for n in names)
        if not own:
            kept.append(member)
    return kept


def packed(data: bytes, kind: str) -> bytes:
    """``data`` compressed as ``kind`` says; unchanged for an empty kind."""
    if kind == "gzip":
        return gzip.compress(data, mtime=0)
    if kind == "bzip2":
        return bz2.compress(data)
    if kind == "xz":
        return lzma.compress(data)
    if kind == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data


BASE = archive(
    [
        folder("."),
        folder("etc"),
        Member("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
        Member("etc/shadow", b"secret\n", mode=0o640, gid=42),
        folder("home/user", mode=0o700, uid=1000, gid=1001),
        Member("home/user/note", b"hello\n", uid=1000, gid=1001),
        Member("bin", kind=tarfile.SYMTYPE, link="usr/bin", mode=0o777),
        folder("usr/bin"),
        Member("usr/bin/tool", b"#!/bin/sh\n" * 50, mode=0o4755),
        Member("usr/bin/alias", kind=tarfile.LNKTYPE, link="usr/bin/tool", mode=0o4755),
        folder("var/tmp", mode=0o1777),
        folder("var/empty"),
    ]
)

SPECIAL = archive(
    [
        folder("dev"),
        Member("dev/null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
        Member("dev/loop", kind=tarfile.BLKTYPE, device=(7, 0), mode=0o660, gid=6),
        Member("run/pipe", kind=tarfile.FIFOTYPE, mode=0o600),
        Member("attr", b"x", xattrs=(("user.colour", "blue"), ("user.empty", ""))),
        Member("long/" + "n" * 120 + "/" + "m" * 120, b"deep\n"),
        Member("dangling", kind=tarfile.SYMTYPE, link="/nowhere/at/all", mode=0o777),
        Member("späße 'quoted' \"and\" back\\slash", b"odd\n"),
    ]
)

CHANGES = archive(
    [
        folder("etc"),
        Member("etc/.wh.shadow"),
        Member("etc/passwd", b"root:x:0:0::/:/bin/bash\n"),
        Member("etc/hosts", b"127.0.0.1 localhost\n"),
        folder("home"),
        Member("home/.wh.user"),
        folder("var/tmp", mode=0o1777),
        folder("var/empty", mode=0o700),
    ]
)

OPAQUE = archive(
    [
        folder("usr"),
        folder("usr/bin"),
        Member("usr/bin/.wh..wh..opq"),
        Member("usr/bin/only", b"alone\n", mode=0o755),
    ]
)

#: A whiteout of what the same archive brought.
OWN_WHITEOUT = archive([Member("a"), Member(".wh.a"), Member("b")])

EMPTY = b""

#: The same archive as each compression that is recognised by its first bytes.
COMPRESSED = {
    "gzip": gzip.compress(BASE, mtime=0),
    "bzip2": bz2.compress(BASE),
    "xz": lzma.compress(BASE),
}

BROKEN = {
    "cut in a member": BASE[:1300],
    "cut in a header": BASE[:700],
    "not a tar": b"this is no archive of any kind\n" * 100,
    "cut gzip": COMPRESSED["gzip"][: len(COMPRESSED["gzip"]) // 2],
}


def listing(data: bytes, since_s: float) -> list[tuple[object, ...]]:
    """A tar stream as comparable facts, in its order; the bytes of headers may differ.

    Times from ``since_s`` on read "now".
    """
    import hashlib

    rows: list[tuple[object, ...]] = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for info in tar:
            body = tar.extractfile(info) if info.isreg() else None
            digest = hashlib.sha256(body.read()).hexdigest()[:16] if body else ""
            xattrs = sorted(
                (key, value) for key, value in info.pax_headers.items() if "xattr" in key
            )
            rows.append(
                (
                    info.name.rstrip("/"),
                    info.type.decode(),
                    oct(info.mode),
                    info.uid,
                    info.gid,
                    info.size,
                    info.linkname,
                    info.devmajor,
                    info.devminor,
                    digest,
                    tuple(xattrs),
                    "now" if info.mtime >= since_s else info.mtime,
                )
            )
    return rows
