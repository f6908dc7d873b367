"""Does a layer's tree still say what its archives said? (semantics §6.3, L7)

The expected tree is the manifests of the layer and its ancestors, replayed (``files``); the real
one is what a read-only mount shows. Compared: type, owner, size (regular files), mode, mtime in
whole seconds.
The root directory itself is not compared. Each difference is one line:

    -/gone   +/extra   +/extra-dir/   /changed(mode:0644￫0600,mtime:0x5e0d5da5￫0x3a4fc880)

A directory in the place of something else, or the reverse, is one that is gone and one that is
extra. Types are the numbers of tar's letters for them.
"""

from __future__ import annotations

import os
import stat

from cstorage.errors import LayerUnknown
from cstorage.model import IDMap, IDMaps, Layer, LayerID
from cstorage.store import files
from cstorage.store.mapping import of_files
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cstorage.state import State
    from cstorage.store.core import Core

_ARROW = "\uffeb"
_TYPE_FLAGS = {
    stat.S_IFREG: ord("0"),
    stat.S_IFLNK: ord("2"),
    stat.S_IFCHR: ord("3"),
    stat.S_IFBLK: ord("4"),
    stat.S_IFDIR: ord("5"),
    stat.S_IFIFO: ord("6"),
}


class Node(NamedTuple):
    """What is compared of one entry; ``mtime_s`` seconds since the epoch."""

    type: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_s: int
    mtime_ns: int = 0
    """For putting it right; not compared."""
    unrecorded: frozenset[str] = frozenset()
    """What no archive says of it."""


_CHANGED_INSIDE = frozenset({"time"})
_MADE_ANEW = frozenset({"time", "mode", "owner"})


def _expected(core: Core, chain: list[Layer]) -> tuple[dict[bytes, Node], set[bytes]]:
    """The recorded tree, and the directories that no archive listed."""
    view = files.of_chain(core, chain)
    # A layer that puts something into a directory without listing it changes the directory's time;
    # in an overlay it gets a directory of its own there.
    silent = _MADE_ANEW if core.driver.name == "overlay" else _CHANGED_INSIDE
    want: dict[bytes, Node] = {}
    implied: set[bytes] = set()
    for path, node in view.walk(files.Found(b"", view.root)):
        if node.implied:
            implied.add(path)
        elif path:
            want[path] = Node(
                node.type,
                node.mode,
                node.uid,
                node.gid,
                node.size,
                max(0, node.mtime_ns // 10**9),
                node.mtime_ns,
                silent if node.touched > node.layer else frozenset(),
            )
    return want, implied


def _to_container(entries: IDMap, host: int) -> int:
    for first, start, size in entries:
        if start <= host < start + size:
            return first + host - start
    return host


def _walk(root: bytes, prefix: bytes, maps: IDMaps) -> Iterator[tuple[bytes, Node]]:
    with os.scandir(os.path.join(root, prefix)) as found:
        entries = sorted(found, key=lambda e: e.name)
    for entry in entries:
        try:
            info = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # where nothing lies below, overlay lists whiteouts, and no more
            continue
        path = prefix + b"/" + entry.name if prefix else entry.name
        kind = stat.S_IFMT(info.st_mode)
        yield (
            path,
            Node(
                kind,
                stat.S_IMODE(info.st_mode),
                _to_container(maps.uids, info.st_uid),
                _to_container(maps.gids, info.st_gid),
                info.st_size if kind == stat.S_IFREG else 0,
                max(0, info.st_mtime_ns // 10**9),
            ),
        )
        if kind == stat.S_IFDIR:
            yield from _walk(root, path, maps)


def changes(want: Node, have: Node, ignored: frozenset[str] = frozenset()) -> str:
    """What of an entry is not as recorded, "" if all is."""
    ignored |= want.unrecorded
    parts = []
    if want.type != have.type and "type" not in ignored:
        old_type, new_type = (_TYPE_FLAGS.get(node.type, ord("?")) for node in (want, have))
        parts.append(f"filetype:{old_type}{_ARROW}{new_type}")
    for name, old, new in (("uid", want.uid, have.uid), ("gid", want.gid, have.gid)):
        if old != new and "owner" not in ignored:
            parts.append(f"{name}:{old}{_ARROW}{new}")
    if want.size != have.size and stat.S_IFREG in (want.type, have.type):
        parts.append(f"size:{want.size}{_ARROW}{have.size}")
    links = want.type == have.type == stat.S_IFLNK  # whose modes mean nothing
    if want.mode != have.mode and not links and "mode" not in ignored:
        parts.append(f"mode:{want.mode:04o}{_ARROW}{have.mode:04o}")
    if want.mtime_s != have.mtime_s and "time" not in ignored:
        parts.append(f"mtime:0x{want.mtime_s:x}{_ARROW}0x{have.mtime_s:x}")
    return ",".join(parts)


def _same_kind(one: Node, other: Node) -> bool:
    """Whether both are directories, or neither is."""
    return (one.type == stat.S_IFDIR) == (other.type == stat.S_IFDIR)


def ignored_attributes(core: Core) -> frozenset[str]:
    """What the store's options make meaningless (semantics §6.3)."""
    found: set[str] = set()
    for option in core.location.driver_options:
        if "ignore_chown_errors=true" in option:
            found.add("owner")
        if "force_mask=" in option:
            found |= {"owner", "mode", "type"}
    if core.pull_options.get("use_hard_links") == "true":
        found.add("time")
    return frozenset(found)


class Compared(NamedTuple):
    """The recorded and the real tree by path."""

    want: Mapping[bytes, Node]
    have: Mapping[bytes, Node]
    implied: set[bytes]
    """Directories that are there as an archive has, or takes away, something in them."""

    def surplus(self, path: bytes) -> bool:
        """Whether something of the real tree is neither recorded nor implied."""
        if path in self.want:
            return False
        return self.have[path].type != stat.S_IFDIR or not (
            path in self.implied or any(other.startswith(path + b"/") for other in self.want)
        )


def compare(core: Core, state: State, layer: Layer) -> Compared | None:
    """``None`` if the recorded history has gaps."""
    from cstorage.drivers.contract import MountOptions

    try:
        chain = files.chain(state.layer, layer)
    except (files.FilesUnrecorded, LayerUnknown):
        return None
    want, implied = _expected(core, chain)
    maps = of_files(core, state, layer)
    options = MountOptions(
        label=layer.mount_label, read_only=True, maps=maps, layer_maps=layer.maps
    )
    root = os.fsencode(core.mounts.add(layer, options))
    try:
        have = dict(_walk(root, b"", maps))
    finally:
        core.mounts.drop(LayerID(layer.id), force=False)
    return Compared(want, have, implied)


def differences(core: Core, state: State, layer: Layer) -> list[str]:
    """Lines as the module describes them, sorted by path; empty if the tree is as recorded.

    Empty too for layers of which the recorded history has gaps: there is nothing to compare with.
    """
    compared = compare(core, state, layer)
    if compared is None:
        return []
    want, have, _ = compared
    ignored = ignored_attributes(core)
    found: list[tuple[bytes, str]] = []
    for path in want.keys() | have.keys():
        text = "/" + path.decode("utf-8", "backslashreplace")
        old, new = want.get(path), have.get(path)
        if old is not None and new is not None and _same_kind(old, new):
            changed = changes(old, new, ignored)
            if changed:
                found.append((path, f"{text}({changed})"))
            continue
        if old is not None:
            found.append((path, f"-{text}{'/' if old.type == stat.S_IFDIR else ''}"))
        if new is not None and (old is not None or compared.surplus(path)):
            found.append((path, f"+{text}{'/' if new.type == stat.S_IFDIR else ''}"))
    return [line for _, line in sorted(found, key=lambda each: each[0])]
