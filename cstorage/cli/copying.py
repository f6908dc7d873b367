"""``copy``: files and directories from the host or a layer into a layer (or out to the host).

Rules (cli.md §7.9): a directory's contents go into the target, which is made with mode 0755 if it
is missing; anything else is written to exactly the target, links in both paths followed. Paths in
layers are resolved as if the layer were ``/``, so nothing in a layer can lead out of it. Owners go
back through the source layer's ID maps and forward through the target's.
"""

from __future__ import annotations

import os
import posixpath
import stat

from cstorage import idmap
from cstorage.archive.beneath import list_names, open_in_root, remove_in, stat_in
from cstorage.cli.invocation import OK
from cstorage.cli.quoting import go_quote
from cstorage.cli.wording import describe
from cstorage.drivers.copytree import TreeCopier, copied_attribute
from cstorage.errors import LayerUnknown, StorageError
from cstorage.model import IDMaps
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from cstorage.cli.invocation import Invocation
    from cstorage.model import IDMap, LayerID
    from cstorage.store.store import Store

    Owners = Callable[[int, int], tuple[int, int]]

_PIECE = 1 << 30
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
        for source in sources:
            place = _place(inv.store, source, mounted)
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
    try:
        root = store.mount(layer.id)
    except StorageError as error:
        raise StorageError(f"error mounting layer {go_quote(key)}: {error}") from error
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


def _owners(source: IDMaps, target: IDMaps, chown: tuple[int, int] | None) -> Owners:
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
    held: list[int] = []
    try:
        held.append(source.open_root())
        held.append(target.open_root())
        found = _open(held[0], source.inner, f"stat {source.shown}")
        held.append(found)
        owners = _owners(source.maps, target.maps, chown)
        if stat.S_ISDIR(os.fstat(found).st_mode):
            owner = _made_owner(chown, target.maps)
            held.append(_make_folder(held[1], target.inner, 0o755, owner))
            if _is_below(held[-1], found):
                raise CopyRefused("a directory cannot be copied into itself")
            held.append(os.open(".", _READABLE_FOLDER, dir_fd=found))
            _copy_tree(held[-1], held[-2], owners)
        else:
            parent, name = posixpath.split(_followed(held[1], target.inner))
            held.append(_make_folder(held[1], parent, 0o700, idmap.root_pair(target.maps)))
            _copy_file(found, held[-1], name, owners)
    except (OSError, StorageError) as error:
        sides = f"{go_quote(source.shown)} to {go_quote(target.shown)}"
        raise CopyRefused(f"error copying {sides}: {describe(error)}") from error
    finally:
        for fd in held:
            os.close(fd)


def _is_below(folder: int, top: int) -> bool:
    """Whether ``folder`` is ``top`` or stands below it."""
    wanted = os.fstat(top)
    here = os.open(".", _FOLDER, dir_fd=folder)
    try:
        while True:
            status = os.fstat(here)
            if os.path.samestat(status, wanted):
                return True
            above = os.open("..", _FOLDER, dir_fd=here)
            os.close(here)
            here = above
            if os.path.samestat(os.fstat(here), status):
                return False
    finally:
        os.close(here)


def _copy_tree(source: int, target: int, owners: Owners) -> None:
    """Put copies of what directory ``source`` has into ``target``.

    The copies are made aside, so that a copy that fails has replaced nothing, and renamed in.
    """
    aside = b".cstorage-copy-%d" % os.getpid()
    os.mkdir(aside, 0o700, dir_fd=target)
    try:
        stage = os.open(aside, _READABLE_FOLDER | os.O_NOFOLLOW, dir_fd=target)
        try:
            TreeCopier(owners).copy(source, stage)
            os.fchmod(stage, 0o700)
            _merge(stage, target)
        finally:
            os.close(stage)
    finally:
        remove_in(target, aside)


def _merge(stage: int, target: int) -> None:
    """Rename everything in ``stage`` into ``target``; directories on both sides become one."""
    merged: list[tuple[bytes, os.stat_result]] = []
    pending = [b""]
    while pending:
        path = pending.pop()
        here = open_in_root(stage, path, _READABLE_FOLDER)
        merged.append((path, os.fstat(here)))  # its time, before what is in it moves away
        there = open_in_root(target, path, _READABLE_FOLDER)
        try:
            for name in list_names(here):
                if _is_folder(here, name) and _is_folder(there, name):
                    pending.append(posixpath.join(path, name))
                else:  # refused by the kernel where only one side is a directory
                    os.rename(name, name, src_dir_fd=here, dst_dir_fd=there)
        finally:
            os.close(here)
            os.close(there)
    for path, status in reversed(merged[1:]):
        here = open_in_root(stage, path, _READABLE_FOLDER)
        there = open_in_root(target, path, _READABLE_FOLDER)
        try:
            _copy_attributes(here, there, status, None)
        finally:
            os.close(here)
            os.close(there)


def _is_folder(folder: int, name: bytes) -> bool:
    status = stat_in(folder, name)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _copy_file(source: int, target: int, name: bytes, owners: Owners) -> None:
    """Put a copy of what ``source`` (an ``O_PATH`` descriptor) holds under ``name``."""
    there = stat_in(target, name)
    if not name or (there is not None and stat.S_ISDIR(there.st_mode)):
        raise CopyRefused("cannot overwrite a directory with a file; name the file to write")
    status = os.fstat(source)
    aside = b".cstorage-copy-%d" % os.getpid()
    made = -1
    try:
        if stat.S_ISREG(status.st_mode):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            made = os.open(aside, flags, 0o600, dir_fd=target)
            _copy_content(source, made, status, owners)
        else:
            os.mknod(aside, status.st_mode, status.st_rdev, dir_fd=target)
            uid, gid = owners(status.st_uid, status.st_gid)
            os.chown(aside, uid, gid, dir_fd=target, follow_symlinks=False)
            os.chmod(aside, stat.S_IMODE(status.st_mode), dir_fd=target)
        os.rename(aside, name, src_dir_fd=target, dst_dir_fd=target)
    finally:
        if made >= 0:
            os.close(made)
        remove_in(target, aside)


def _copy_content(source: int, made: int, status: os.stat_result, owners: Owners) -> None:
    content = os.open(f"/proc/self/fd/{source}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while os.sendfile(made, content, None, _PIECE):
            pass
        _copy_attributes(content, made, status, owners)
    finally:
        os.close(content)


def _copy_attributes(source: int, made: int, status: os.stat_result, owners: Owners | None) -> None:
    """Owner, mode, extended attributes and times, in the order in which none undoes another."""
    uid, gid = status.st_uid, status.st_gid
    os.fchown(made, *(owners(uid, gid) if owners else (uid, gid)))
    os.fchmod(made, stat.S_IMODE(status.st_mode))
    try:
        names = os.listxattr(source)
    except OSError:  # a file system without them
        names = []
    for attribute in filter(copied_attribute, names):
        os.setxattr(made, attribute, os.getxattr(source, attribute))
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


def _made_owner(chown: tuple[int, int] | None, maps: IDMaps) -> tuple[int, int]:
    """On-disk owner of a directory that the copy makes for its target."""
    if chown is None:
        return idmap.root_pair(maps)
    return idmap.to_host(chown[0], maps.uids), idmap.to_host(chown[1], maps.gids)


def _open(root: int, path: bytes, doing: str) -> int:
    try:
        return open_in_root(root, path, _PLACE)
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
