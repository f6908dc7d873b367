"""Where layers of the overlay driver are, and what may be read there.

Rules of the layout (drivers-and-formats §1.2): ``<home>/<id>/{diff,link,lower,work,merged,empty}``
and ``<home>/l/<LINK>`` → ``../<id>/diff``. ``link`` holds the short name; ``lower`` the short names
of the whole chain below, direct parent first, as ``l/<LINK>`` joined by ``:``; neither ends in a
newline. ``diff1``, ``diff2`` … are older contents that an ID-map update rotated away; they belong
directly below ``diff``. Where ``diff`` is a symbolic link to the tree of an entry of an additional
layer store, ``additionallayer`` has the path of the entry.

Nothing read here is trusted: short names, ``lower`` entries and link targets must have exactly
their form, or they could lead out of the store (§9.1).
"""

from __future__ import annotations

import os

from cstorage.drivers.contract import checked_id
from cstorage.errors import DriverError
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

LINKS = "l"
LINK_LENGTH = 26
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

NOT_LAYERS = frozenset((LINKS, "staging", "tempdirs"))
"""Directories of a home that are not layers."""

ENTRY_FILE = "additionallayer"

SCRATCH = ".probe-"
"""How scratch directories of probes begin."""

DEPTH_MAX = 500
"""Most lower directories the kernel stacks."""


class LayerDir(NamedTuple):
    """A layer's directory: which home it is in, whether that home is ours to write, its path."""

    id: str
    home: str
    own: bool
    path: str

    @property
    def diff(self) -> str:
        return f"{self.path}/diff"

    @property
    def merged(self) -> str:
        return f"{self.path}/merged"


def new_link_name() -> str:
    """A short name: 26 random characters ``A-Z2-7``, unique among all stores ever stacked."""
    return "".join(_ALPHABET[byte & 31] for byte in os.urandom(LINK_LENGTH))


def read_small(path: str) -> str | None:
    """The content of a ``link`` or ``lower`` file, or None if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        # 500 entries of at most NAME_MAX bytes: one read of 128 KiB takes any legal chain.
        data = os.read(descriptor, 1 << 17)
        return data.decode("utf-8", "surrogateescape").strip()
    finally:
        os.close(descriptor)


def valid_link_name(name: str) -> bool:
    """Whether a short name is one harmless path component."""
    return name not in {"", ".", ".."} and not set(name) & set("/:\0\n")


def link_name(path: str) -> str | None:
    """The short name of the layer at ``path``, None if it has none. Raises ``DriverError``."""
    name = read_small(f"{path}/link")
    if name is not None and not valid_link_name(name):
        raise DriverError(
            f"{path}/link: {name[:40]!r} is not a short name",
            hint="restore the name that the symbolic link in the directory l has",
        )
    return name or None


def lower_names(path: str) -> tuple[str, ...]:
    """Short names of the chain below the layer at ``path``, nearest first."""
    text = read_small(f"{path}/lower")
    if not text:
        return ()
    names = []
    for entry in text.split(":"):
        folder, _, name = entry.partition("/")
        if folder != LINKS or not valid_link_name(name):
            raise DriverError(f"{path}/lower: {entry[:60]!r} is not of the form l/NAME")
        names.append(name)
    return tuple(names)


def linked_entry(path: str) -> str:
    """The entry that the content of the layer at ``path`` is in, "" for an ordinary layer."""
    return (read_small(f"{path}/{ENTRY_FILE}") or "") if os.path.islink(f"{path}/diff") else ""


def release_entry(entry: str) -> None:
    """Tell an additional layer store that an entry of it is not needed any more (§3.12)."""
    try:
        os.rmdir(entry)
    except OSError:
        pass  # the answer of a store that counts, and of one that does not


def contents(path: str) -> list[str]:
    """The content directories of the layer at ``path``, uppermost first: diff, diff1, diff2 …"""
    found = [f"{path}/diff"]
    number = 1
    while os.path.isdir(rotated := f"{path}/diff{number}"):
        found.append(rotated)
        number += 1
    return found


class Homes:
    """The homes of one store, searched in order: home, image home, additional homes."""

    def __init__(self, own: Sequence[str], additional: Sequence[str]) -> None:
        self.own = tuple(own)
        self.all = tuple((home, True) for home in own) + tuple((home, False) for home in additional)

    def find(self, layer_id: str) -> LayerDir | None:
        """The directory of a layer, or None. Raises ``InvalidID``."""
        checked_id(layer_id)
        if layer_id in NOT_LAYERS:
            return None
        for home, own in self.all:
            path = f"{home}/{layer_id}"
            if os.path.isdir(path):
                return LayerDir(layer_id, home, own, path)
        return None

    def get(self, layer_id: str) -> LayerDir:
        """The directory of a layer that must exist. Raises ``DriverError`` as the original does."""
        found = self.find(layer_id)
        if found is None:
            raise DriverError(f"faccessat {self.own[0]}/{layer_id}: no such file or directory")
        return found

    def by_link(self, name: str) -> LayerDir:
        """The layer behind a short name; a lost link of an own layer is made again."""
        for home, own in self.all:
            try:
                target = os.readlink(f"{home}/{LINKS}/{name}")
            except OSError:
                continue
            parts = target.split("/")
            if len(parts) == 3 and parts[0] == ".." and parts[2] == "diff" and parts[1] != "..":
                return LayerDir(parts[1], home, own, f"{home}/{parts[1]}")
            raise DriverError(f"{home}/{LINKS}/{name}: {target[:80]!r} is not ../<layer>/diff")
        for layer in self.own_layers():
            if link_name(layer.path) == name:
                make_link(layer.home, name, layer.id)
                return layer
        raise DriverError(
            f"no layer has the short name {name}",
            hint="a parent of this layer is missing from the store; run check",
        )

    def own_layers(self) -> list[LayerDir]:
        """Every layer directory of the writable homes, sorted by ID."""
        found = []
        for home in self.own:
            try:
                with os.scandir(home) as entries:
                    for entry in entries:
                        name = entry.name
                        if name in NOT_LAYERS or name.startswith(SCRATCH):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            found.append(LayerDir(name, home, True, f"{home}/{name}"))
            except FileNotFoundError:
                continue
        return sorted(found)

    def chain(self, path: str) -> list[str]:
        """Directories below the ``diff`` of the layer at ``path``, uppermost first.

        Its own rotated contents come first, then those of every layer of the chain.
        """
        found = contents(path)[1:]
        for name in lower_names(path):
            found.extend(contents(self.by_link(name).path))
        return found


def make_link(home: str, name: str, layer_id: str) -> None:
    """Create ``l/<name>``. An equal link that is already there is fine."""
    target = f"../{layer_id}/diff"
    path = f"{home}/{LINKS}/{name}"
    try:
        try:
            os.symlink(target, path)
        except FileNotFoundError:
            os.mkdir(f"{home}/{LINKS}", 0o755)
            os.symlink(target, path)
    except FileExistsError:
        if os.readlink(path) != target:
            raise DriverError(f"{path} already leads to {os.readlink(path)}") from None


def links_to(home: str, layer_id: str) -> list[str]:
    """Short names that lead to a layer, sorted."""
    target = f"../{layer_id}/diff"
    found = []
    try:
        names = os.listdir(f"{home}/{LINKS}")
    except FileNotFoundError:
        return []
    for name in names:
        try:
            if os.readlink(f"{home}/{LINKS}/{name}") == target:
                found.append(name)
        except OSError:
            continue
    return sorted(found)


def remove_links(home: str, layer_id: str, name: str | None) -> bool:
    """Remove the short name of a layer; without a name, look for links that lead to the layer."""
    target = f"../{layer_id}/diff"
    folder = f"{home}/{LINKS}"
    names = [name] if name is not None else links_to(home, layer_id)
    removed = False
    for candidate in names:
        path = f"{folder}/{candidate}"
        try:
            if os.readlink(path) == target:
                os.unlink(path)
                removed = True
        except OSError:
            continue
    return removed
