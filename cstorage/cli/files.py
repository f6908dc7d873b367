"""ls, cat, find, which-layer: files without mounts."""

from __future__ import annotations

import os
import stat

from cstorage.cli.invocation import OK
from cstorage.cli.quoting import go_quote, json_text, timestamp
from cstorage.errors import StorageError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cstorage.cli.invocation import Invocation
    from cstorage.cli.quoting import Json
    from cstorage.store.files import Files, Found

_TYPES = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "b": stat.S_IFBLK,
    "c": stat.S_IFCHR,
    "p": stat.S_IFIFO,
}
_WORDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
    stat.S_IFIFO: "pipe",
}


class TypeRefused(StorageError):
    """A type of file that there is none of."""


def ls(inv: Invocation) -> int:
    """``ls``."""
    from cstorage.store.files import below

    long = inv.flag("long")
    files = inv.store.files(inv.arg(0))
    path = inv.arg(1)
    try:
        start = files.find(path, follow=not long)
    except OSError:  # a link to nothing is listed as itself
        start = files.find(path, follow=False)
    if start.node.children is None:
        entries: Iterable[Found] = [start]
    elif inv.flag("recursive"):
        entries = files.walk(start)
        next(iter(entries))  # the directory itself
    else:
        entries = below(start)
    if inv.json:
        return _documents(inv, files, entries)
    inside = len(start.path) + 1 if start.path else 0
    for found in entries:
        shown = found.path if found is start else found.path[inside:]
        name = _shown(os.fsdecode(shown) if found is not start else inv.arg(1))
        inv.out.line(_long(found, name) if long else name)
    return OK


def cat(inv: Invocation) -> int:
    """``cat``."""
    files = inv.store.files(inv.arg(0))
    pieces = files.read(files.find(inv.arg(1)))
    inv.out.flush()
    sink = inv.out.raw
    for piece in pieces:
        data = memoryview(piece)
        while data:  # a stream that Python does not buffer may take less than all
            data = data[sink.write(data) :]
    return OK


def find(inv: Invocation) -> int:
    """``find``."""
    kind = inv.text("type")
    if kind and kind not in _TYPES:
        raise TypeRefused(f"--type {go_quote(kind)}: give one of {', '.join(_TYPES)}")
    files = inv.store.files(inv.arg(0))
    entries = files.walk(files.find(inv.arg(1), follow=False))
    matching = _matching(entries, inv.text("name"), _TYPES.get(kind, 0))
    if inv.json:
        return _documents(inv, files, matching)
    for found in matching:
        inv.out.line(_shown("/" + os.fsdecode(found.path)))
    return OK


def which_layer(inv: Invocation) -> int:
    """``which-layer``."""
    files = inv.store.files(inv.arg(0))
    found = files.find(inv.arg(1), follow=False)
    if inv.json:
        inv.out.json(_document(files, found))
    else:
        inv.out.line(files.layer_of(found).id)
    return OK


def _matching(entries: Iterable[Found], glob: str, kind: int) -> Iterator[Found]:
    from fnmatch import fnmatchcase

    for found in entries:
        if kind and found.node.type != kind:
            continue
        if not glob or fnmatchcase(os.fsdecode(found.path.rpartition(b"/")[2]), glob):
            yield found


def _documents(inv: Invocation, files: Files, entries: Iterable[Found]) -> int:
    """An array, written as it is made."""
    before = "["
    for found in entries:
        inv.out.write(before + json_text(_document(files, found)))
        before = ","
    inv.out.write("[]\n" if before == "[" else "]\n")
    return OK


def _document(files: Files, found: Found) -> dict[str, Json]:
    node = found.node
    document: dict[str, Json] = {
        "path": "/" + os.fsdecode(found.path),
        "type": _WORDS[node.type],
        "mode": f"{node.mode:04o}",
        "uid": node.uid,
        "gid": node.gid,
        "size": node.size,
        "mtime": _time(node.mtime_ns),
        "layer": files.layer_of(found).id,
    }
    if node.type == stat.S_IFLNK:
        document["target"] = os.fsdecode(node.link)
    if node.type in (stat.S_IFBLK, stat.S_IFCHR):
        document["device"] = f"{node.device[0]}:{node.device[1]}"
    if node.digest:
        document["digest"] = f"{files.algorithm(node)}:{node.digest.hex()}"
    return document


def _long(found: Found, name: str) -> str:
    node = found.node
    size = str(node.size)
    if node.type in (stat.S_IFBLK, stat.S_IFCHR):
        size = f"{node.device[0]},{node.device[1]}"
    arrow = f" -> {_shown(os.fsdecode(node.link))}" if node.type == stat.S_IFLNK else ""
    mode = stat.filemode(node.type | node.mode)
    owner = f"{node.uid}:{node.gid}"
    return f"{mode} {owner:>11} {size:>12} {_time(node.mtime_ns)} {name}{arrow}"


def _time(time_ns: int) -> str:
    """A time as RFC 3339; what no calendar has as seconds since the epoch."""
    try:
        return timestamp(time_ns) if time_ns else "1970-01-01T00:00:00Z"
    except (OverflowError, OSError, ValueError):
        return f"@{time_ns // 1_000_000_000}"


def _shown(name: str) -> str:
    """A name on a line of its own: quoted if it could be taken for something else."""
    return name if name.isprintable() and not name.startswith('"') else go_quote(name)
