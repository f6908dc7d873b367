"""``copy``: files and directories from the host or a layer into a layer (or out to the host).

Rules (cli.md §7.9): a directory's contents go into the target, which is made with mode 0755 if it
is missing; anything else is written to exactly the target, links in both paths followed. Paths in
layers are resolved as if the layer were ``/``, so nothing in a layer can lead out of it. Owners go
back through the source layer's ID maps and forward through the target's.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING, NamedTuple

from cstorage import idmap
from cstorage.archive.beneath import open_in_root, stat_in
from cstorage.cli.invocation import OK
from cstorage.cli.quoting import go_quote
from cstorage.cli.wording import describe
from cstorage.drivers.copytree import TreeCopier
from cstorage.errors import LayerUnknown, StorageError
from cstorage.model import IDMaps

if TYPE_CHECKING:
    from collections.abc import Callable

    from cstorage.cli.invocation import Invocation
    from cstorage.model import IDMap, LayerID
    from cstorage.store.store import Store

_PLACE = os.O_PATH | os.O_CLOEXEC
_FOLDER = _PLACE | os.O_DIRECTORY
_READABLE_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class CopyRefused(StorageError):
    """A copy that cannot be done as asked; the text says what and where."""


class Place(NamedTuple):
    """One side of a copy: a path below a root, the root being a mounted layer or the host's."""

    root: str
    path: str
    maps: IDMaps

    @property
    def shown(self) -> str:
        """The path as the host sees it."""
        return posixpath.normpath(self.root + self.path) if self.root else self.path

    def open_root(self) -> int:
        return os.open(self.root or "/", _FOLDER)

    @property
    def inner(self) -> bytes:
        """The path below the root."""
        path = self.path if self.root else os.path.abspath(self.path)
        return os.fsencode(path)


def copy(inv: Invocation) -> int:
    """``copy``."""
    owner = _owner(inv.text("chown"))
    *sources, target = inv.args
    mounted: list[LayerID] = []
    try:
        to = _place(inv.store, target, mounted)
        places = [_place(inv.store, source, mounted) for source in sources]
        for place in places:
            destination = to
            if not to.root and to.path.endswith("/"):
                destination = to._replace(path=to.path + posixpath.basename(place.path))
            _copy(place, destination, owner)
    finally:
        for layer_id in mounted:
            inv.store.unmount(layer_id)
    return OK


def _place(store: Store, spec: str, mounted: list[LayerID]) -> Place:
    """The side that ``spec`` names; its layer is mounted and noted in ``mounted``."""
    key, colon, path = spec.partition(":")
    if not colon:
        return Place("", spec, IDMaps())
    try:
        layer = store.layer(key)
    except LayerUnknown as error:
        raise LayerUnknown(f"error finding layer {go_quote(key)}") from error
    root = store.mount(layer.id)
    mounted.append(layer.id)
    return Place(f"{root}", posixpath.normpath(f"/{path}"), layer.maps)


def _owner(text: str) -> tuple[int, int] | None:
    """The IDs of ``UID[:GID]``, one number meaning both."""
    if not text:
        return None
    uid, colon, gid = text.partition(":")
    return _number("UID", uid), _number("GID", gid if colon else uid)


def _number(kind: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise CopyRefused(
            f"bad {kind}: strconv.ParseUint: parsing {go_quote(text)}: invalid syntax"
        )
    if int(text) > idmap.ID_MAX:
        raise CopyRefused(
            f"bad {kind}: strconv.ParseUint: parsing {go_quote(text)}: value out of range"
        )
    return int(text)


def _owners(
    source: IDMaps, target: IDMaps, chown: tuple[int, int] | None
) -> Callable[[int, int], tuple[int, int]]:
    """Owner on disk in the source to owner on disk in the target."""

    def mapped(own: int, back: IDMap, forward: IDMap) -> int:
        return idmap.to_host(idmap.to_container(own, back), forward)

    def owners(uid: int, gid: int) -> tuple[int, int]:
        if chown is not None:
            return idmap.to_host(chown[0], target.uids), idmap.to_host(chown[1], target.gids)
        return mapped(uid, source.uids, target.uids), mapped(gid, source.gids, target.gids)

    return owners


def _copy(source: Place, target: Place, chown: tuple[int, int] | None) -> None:
    """Copy one source; any failure names both sides."""
    roots: list[int] = []
    try:
        roots.append(source.open_root())
        roots.append(target.open_root())
        found = _open(roots[0], source.inner, _PLACE, f"stat {source.shown}")
        roots.append(found)
        copier = MergingCopier(_owners(source.maps, target.maps, chown))
        if stat.S_ISDIR(os.fstat(found).st_mode):
            owner = _made_owner(chown, target.maps)
            folder = _make_folder(roots[1], target.inner, 0o755, owner)
            roots.append(folder)
            tree = os.open(".", _READABLE_FOLDER, dir_fd=found)
            roots.append(tree)
            copier.merge(tree, folder)
        else:
            parent, name = posixpath.split(_followed(roots[1], target.inner))
            folder = _make_folder(roots[1], parent, 0o700, idmap.root_pair(target.maps))
            roots.append(folder)
            copier.place(found, folder, name)
    except (OSError, StorageError) as error:
        sides = f"{go_quote(source.shown)} to {go_quote(target.shown)}"
        raise CopyRefused(f"error copying {sides}: {describe(error)}") from error
    finally:
        for fd in roots:
            os.close(fd)


def _made_owner(chown: tuple[int, int] | None, maps: IDMaps) -> tuple[int, int]:
    """On-disk owner of a directory that the copy makes for its target."""
    if chown is None:
        return idmap.root_pair(maps)
    return idmap.to_host(chown[0], maps.uids), idmap.to_host(chown[1], maps.gids)


def _open(root: int, path: bytes, flags: int, doing: str) -> int:
    try:
        return open_in_root(root, path, flags)
    except FileNotFoundError:
        raise CopyRefused(f"{doing}: no such file or directory") from None


def _followed(root: int, path: bytes) -> bytes:
    """``path`` with the links in it followed, as far as it exists at all."""
    try:
        fd = open_in_root(root, path, _PLACE)
    except OSError:
        return path
    try:
        top = os.readlink(f"/proc/self/fd/{root}".encode())
        found = os.readlink(f"/proc/self/fd/{fd}".encode())
    finally:
        os.close(fd)
    return b"/" + found.removeprefix(top.rstrip(b"/")).lstrip(b"/")


def _make_folder(root: int, path: bytes, mode: int, owner: tuple[int, int]) -> int:
    """A descriptor of the directory ``path``; what is missing of it is made."""
    try:
        return open_in_root(root, path, _READABLE_FOLDER)
    except FileNotFoundError:
        pass
    parent, name = posixpath.split(path.rstrip(b"/"))
    above = _make_folder(root, parent, mode, owner)
    try:
        os.mkdir(name, 0o700, dir_fd=above)
        made = os.open(name, _READABLE_FOLDER | os.O_NOFOLLOW, dir_fd=above)
    finally:
        os.close(above)
    os.fchown(made, *owner)
    os.fchmod(made, mode)
    return made


class MergingCopier(TreeCopier):
    """A tree copier whose target may have content: directories merge, files are replaced."""

    def merge(self, source: int, target: int) -> None:
        """Copy the content of directory ``source``, not its attributes, into ``target``."""
        self._target_root = target
        self._directory(source, target, b"")

    def place(self, source: int, target: int, name: bytes) -> None:
        """Copy what ``source`` (an ``O_PATH`` descriptor) holds to ``name`` in ``target``."""
        there = stat_in(target, name)
        if not name or (there is not None and stat.S_ISDIR(there.st_mode)):
            raise CopyRefused("cannot overwrite a directory with a file; name the file to write")
        status = os.fstat(source)
        new = b".cstorage-copy-%d" % os.getpid()
        try:
            if stat.S_ISREG(status.st_mode):
                self._place_file(source, target, new, status)
            else:
                os.mknod(new, status.st_mode, status.st_rdev, dir_fd=target)
                os.chown(new, *self._owners(status), dir_fd=target, follow_symlinks=False)
                os.chmod(new, stat.S_IMODE(status.st_mode), dir_fd=target)
            os.rename(new, name, src_dir_fd=target, dst_dir_fd=target)
        except BaseException:
            try:
                os.unlink(new, dir_fd=target)
            except FileNotFoundError:
                pass
            raise

    def _place_file(self, source: int, target: int, name: bytes, status: os.stat_result) -> None:
        content = os.open(f"/proc/self/fd/{source}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            copied = os.open(name, flags, 0o600, dir_fd=target)
            try:
                self._content(content, copied, status)
                self._finish(content, copied, status)
            finally:
                os.close(copied)
        finally:
            os.close(content)

    def _entry(
        self, source: int, target: int, name: bytes, path: bytes, status: os.stat_result
    ) -> None:
        there = stat_in(target, name)
        if there is None:
            super()._entry(source, target, name, path, status)
            return
        is_folder, was_folder = stat.S_ISDIR(status.st_mode), stat.S_ISDIR(there.st_mode)
        if is_folder != was_folder:
            raise FileExistsError(
                errno.EEXIST, "a directory and a file of that name do not merge", path
            )
        if not is_folder:
            os.unlink(name, dir_fd=target)
            super()._entry(source, target, name, path, status)
            return
        flags = _READABLE_FOLDER | os.O_NOFOLLOW
        inner = os.open(name, flags, dir_fd=source)
        try:
            present = os.open(name, flags, dir_fd=target)
            try:
                self._directory(inner, present, path + b"/")
                self._finish(inner, present, status)
            finally:
                os.close(present)
        finally:
            os.close(inner)
