"""The overlay driver: layers are directories of changes, the kernel (or FUSE) joins them.

Layout and its rules are in ``layout``; this module is the life cycle of ``contract`` on top of it.

* A layer's content root is ``diff``. Only the first layer of a chain has no ``lower`` file; it gets
  an empty directory ``empty`` to stand in as lower directory.
* ``publish`` renames ``<id>`` first and makes the short name ``l/<LINK>`` second: a half-published
  layer is then always a directory that knows its short name, and ``withdraw`` needs no search.
* ``diff`` copies mode and owner of the parent's ``diff``; a base layer starts as 0555.
* Reading merged trees (comparison with something that is not the parent, foreign whiteouts) uses
  overlay mounts that are attached nowhere, so no mount point and no other process is involved.

Sources: drivers-and-formats §1.2, §3.3, §3.4, §3.7, §3.11.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from cstorage.drivers import layout, overlay_options, publication
from cstorage.drivers.contract import (
    NO_MAPS,
    PLAIN_MOUNT,
    DriverOptions,
    LayerPlan,
    MountOptions,
    Prepared,
    ShiftedMaps,
    StrPath,
    checked_id,
)
from cstorage.drivers.trees import TreeDriver
from cstorage.errors import DriverError
from cstorage.model import IDMapEntry, IDMaps
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cstorage.archive.apply import ApplyOptions
    from cstorage.archive.compression import ByteSink
    from cstorage.drivers.mountapi import OverlayMount
    from cstorage.drivers.probe import Probe
    from cstorage.model import Change

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BASE_MODE = 0o555
_VIEW = "view-"
_OVERRIDE = "user.containers.override_stat"


class OverlayDriver(TreeDriver):
    """See the module."""

    name = "overlay"

    def __init__(self, options: DriverOptions) -> None:
        self.home = os.fspath(options.home)
        self.run_home = os.fspath(options.run_home)
        self.image_home = os.fspath(options.image_home)
        self.settings = overlay_options.parse(options.options)
        own = (self.home, self.image_home) if self.image_home else (self.home,)
        self.homes = layout.Homes(own, [os.fspath(home) for home in options.additional_homes])
        self._probe: Probe | None = None
        self._program: str | None = None
        if self.settings.quota:
            from cstorage.drivers.quota import check_file_system

            check_file_system(self.probe.backing_filesystem)

    # -- abilities -------------------------------------------------------------------------------

    @property
    def probe(self) -> Probe:
        """What the kernel and the file system can do; asked on first use, remembered in RUNROOT."""
        if self._probe is None:
            from cstorage.drivers.probe import Probe

            self._probe = Probe(self.home, self.run_home, self.settings)
        return self._probe

    @property
    def can_shift_ids(self) -> bool:
        return self.probe.shifting

    def can_shift(self, maps: IDMaps, /) -> bool:
        if self.settings.mount_program:
            from cstorage.idmap import is_contiguous

            if not (is_contiguous(maps.uids) and is_contiguous(maps.gids)):
                return False
        return self.can_shift_ids

    @property
    def stages_content(self) -> bool:
        return True

    @property
    def mount_program(self) -> str:
        """The program that mounts instead of the kernel, "" for the kernel.

        Unless one is configured, fuse-overlayfs steps in where the kernel cannot (§3.2).
        """
        if self._program is None:
            self._program = self.settings.mount_program
            if not self._program and not self.probe.native:
                from cstorage.drivers.fuse import find_program

                self._program = find_program()
        return self._program

    def check_supported(self) -> None:
        """Raise ``DriverNotSupported`` if overlays cannot be mounted on the home's file system."""
        self.probe.check_overlay()

    # -- making layers ---------------------------------------------------------------------------

    def check_plan(self, plan: LayerPlan, /) -> None:
        if checked_id(plan.id) in layout.NOT_LAYERS:
            raise DriverError(f"{plan.id!r} is a name of the overlay directory itself")
        if plan.storage_options and not plan.writable:
            raise DriverError(
                "--storage-opt size and inodes are only supported for read-write layers"
            )
        overlay_options.layer_quota(plan.storage_options, self.settings.quota)
        if plan.writable and self.settings.force_mask is not None:
            self._check_masked_writable()
        if plan.maps:
            from cstorage.idmap import root_pair

            root_pair(plan.maps)

    def prepare(self, plan: LayerPlan, work: StrPath, parent: Prepared | None = None) -> Prepared:
        self.check_plan(plan)
        layer_id = plan.id
        quota = overlay_options.layer_quota(plan.storage_options, self.settings.quota)
        below = plan.template or plan.parent
        below_path = ""
        if parent is not None:
            below_path = parent.path
        elif below:
            below_path = self._existing(below)
        path = f"{os.fspath(work)}/{layer_id}"
        os.mkdir(path, 0o700)
        try:
            if plan.writable and quota:
                self._limit(path, quota)
            self._fill(plan, path, below_path)
            if below_path and plan.maps != plan.parent_maps:
                self._change_owners(plan, path, parent)
            root = os.open(f"{path}/diff", _DIRECTORY | os.O_NOFOLLOW)
        except BaseException:
            from cstorage.drivers.removal import remove_tree

            remove_tree(path)
            raise
        home = self.home if plan.writable or not self.image_home else self.image_home
        return Prepared(plan, path, root, home)

    def _existing(self, layer_id: str) -> str:
        found = self.homes.find(layer_id)
        if found is None or not os.path.isdir(found.diff):
            path = f"{self.homes.own[0]}/{layer_id}" if found is None else found.path
            raise DriverError(f"Stat {path}/diff: no such file or directory")
        return found.path

    def require(self, layer_id: str) -> None:
        self.homes.get(layer_id)

    def _fill(self, plan: LayerPlan, path: str, below: str) -> None:
        from cstorage.idmap import root_pair

        root = root_pair(plan.maps) if plan.maps else (os.geteuid(), os.getegid())
        mode, owner = _BASE_MODE, root
        lower = ""
        if below:
            status = os.stat(f"{below}/diff")
            mode, owner = self._attributes(f"{below}/diff", status)
            if plan.maps != plan.parent_maps:
                from cstorage.drivers.chown import Owners

                owner = Owners(plan.parent_maps, plan.maps)(*owner)
            link = layout.link_name(below)
            if link is None:
                raise DriverError(f"Stat {below}/link: no such file or directory")
            above = layout.lower_names(below)
            lower = ":".join(f"{layout.LINKS}/{name}" for name in (link, *above))
        for name in ("work", "merged", *(() if below else ("empty",))):
            os.mkdir(f"{path}/{name}", 0o700)
            _own(f"{path}/{name}", root)
        os.mkdir(f"{path}/diff", mode)
        _own(f"{path}/diff", owner)
        if self.settings.force_mask is None:
            os.chmod(f"{path}/diff", mode)  # mkdir obeyed the umask, chown may clear bits
        else:
            os.chmod(f"{path}/diff", self.settings.force_mask)
            text = f"{owner[0]}:{owner[1]}:{mode:04o}:dir"
            os.setxattr(f"{path}/diff", _OVERRIDE, text.encode())
        _write(f"{path}/link", layout.new_link_name())
        if lower:
            _write(f"{path}/lower", lower)
        _own(path, root)

    def _attributes(self, diff: str, status: os.stat_result) -> tuple[int, tuple[int, int]]:
        """Mode and owner of a content root, the recorded ones if a mask hides them (§3.9)."""
        if self.settings.force_mask is not None:
            try:
                fields = os.getxattr(diff, _OVERRIDE).decode("ascii").split(":")
                return int(fields[2], 8), (int(fields[0]), int(fields[1]))
            except (OSError, ValueError, IndexError):
                pass
        return stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)

    def _check_masked_writable(self) -> None:
        if not self.settings.mount_program:
            raise DriverError(
                "overlay: force_mask option for writeable layers is only supported with a"
                " mount_program",
                hint="configure mount_program, or remove force_mask",
            )

    def _limit(self, path: str, quota: overlay_options.Quota) -> None:
        from cstorage.drivers.quota import limit_layer

        taken = [layer.path for layer in self.homes.own_layers()]
        limit_layer(path, quota, self.home, self.run_home, taken)

    def _change_owners(self, plan: LayerPlan, path: str, parent: Prepared | None) -> None:
        from cstorage.drivers.chown import Owners
        from cstorage.drivers.rotation import rotate

        if parent is not None and parent.path != f"{parent.home}/{parent.plan.id}":
            raise DriverError(
                f"layer {plan.id} needs other owners than its parent {parent.plan.id}",
                hint="publish the parent first",
            )
        data = ("userxattr",) if self.probe.user_xattr else ()
        owners = Owners(plan.parent_maps, plan.maps)
        rotate(path, self.homes.chain(path), owners, data)

    def apply_options(self, given: ApplyOptions | None, maps: IDMaps) -> ApplyOptions:
        from cstorage.archive.apply import ApplyOptions
        from cstorage.archive.whiteouts import WhiteoutFormat

        base = given or ApplyOptions(WhiteoutFormat.OVERLAY)
        return base._replace(
            whiteouts=WhiteoutFormat.OVERLAY,
            maps=maps,
            ignore_chown_errors=self.settings.ignore_chown_errors,
            force_mask=self.settings.force_mask,
            in_userns=self.probe.rootless,
        )

    def link(self, prepared: Prepared, entry: StrPath) -> None:
        target = f"{os.path.abspath(entry)}/diff"
        descriptor = -1
        try:
            descriptor = os.open(target, _DIRECTORY)
            os.rmdir(f"{prepared.path}/diff")
            os.symlink(target, f"{prepared.path}/diff")
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            raise DriverError(f"{target}: {(error.strerror or str(error)).lower()}") from None
        _write(f"{prepared.path}/{layout.ENTRY_FILE}", os.path.abspath(entry))
        prepared.close()
        prepared.root_fd = descriptor

    def linked_entry(self, layer_id: str) -> str:
        layer = self.homes.find(layer_id)
        return layout.linked_entry(layer.path) if layer is not None else ""

    def make_durable(self, prepared: Prepared) -> None:
        if prepared.filled:
            publication.sync_content(prepared)
            return
        for name in ("link", "lower", layout.ENTRY_FILE):
            path = f"{prepared.path}/{name}"
            if os.path.exists(path):
                publication.sync_file(path)
        publication.sync_directory(prepared.path)

    # -- publishing and withdrawing --------------------------------------------------------------

    def publish(self, prepared: Prepared) -> tuple[str, ...]:
        home, layer_id = prepared.home, prepared.plan.id
        links = f"{home}/{layout.LINKS}"
        if not os.path.isdir(links):
            publication.make_directories(links, 0o755)
        link = layout.link_name(prepared.path)
        if link is None:
            raise DriverError(f"Stat {prepared.path}/link: no such file or directory")
        publication.move_into_place(prepared, f"{home}/{layer_id}")
        layout.make_link(home, link, layer_id)
        return home, links

    def withdraw(self, layer_id: str, trash: StrPath) -> bool:
        checked_id(layer_id)
        if layer_id in layout.NOT_LAYERS:
            return False
        found = False
        for home in self.homes.own:
            path = f"{home}/{layer_id}"
            there = os.path.lexists(path)
            if there:
                self._release(path)
                if entry := layout.linked_entry(path):
                    layout.release_entry(entry)
            name = layout.read_small(f"{path}/link") if there else None
            if name is not None and not layout.valid_link_name(name):
                name = None
            found |= layout.remove_links(home, layer_id, name or None)
            if there:
                found |= publication.move_to_trash(path, os.fspath(trash))
        self._forget_run_directory(layer_id)
        return found

    # -- looking ---------------------------------------------------------------------------------

    def exists(self, layer_id: str) -> bool:
        return self.homes.find(layer_id) is not None

    def layers(self) -> list[str]:
        return sorted({layer.id for layer in self.homes.own_layers()})

    def content_root(self, layer_id: str) -> str:
        layer = self.homes.find(layer_id)
        return layer.diff if layer is not None and layer.own else ""

    def _own_layer(self, layer_id: str) -> layout.LayerDir:
        found = self.homes.get(layer_id)
        if not found.own:
            raise DriverError(f"layer {layer_id} is in the read-only store {found.home}")
        if entry := layout.linked_entry(found.path):
            raise DriverError(
                f"the content of layer {layer_id} is in the additional layer store at {entry}",
                hint="make a layer on top of it, and change that",
            )
        return found

    def own_content(self, layer_id: str) -> str:
        return self._own_layer(layer_id).diff

    def content_directories(self, layer_id: str) -> list[str]:
        layer = self.homes.get(layer_id)
        return [layer.diff, *self.homes.chain(layer.path)]

    def metadata(self, layer_id: str) -> dict[str, str]:
        layer = self.homes.get(layer_id)
        found = {
            "UpperDir": layer.diff,
            "WorkDir": f"{layer.path}/work",
            "MergedDir": self.mount_point(layer),
        }
        lowers = self.homes.chain(layer.path)
        return found | ({"LowerDir": ":".join(lowers)} if lowers else {})

    # -- mounting --------------------------------------------------------------------------------

    def mount(self, layer_id: str, options: MountOptions = PLAIN_MOUNT) -> Path:
        from pathlib import Path

        from cstorage.drivers.overlay_mount import mount_layer

        return Path(mount_layer(self, self.homes.get(layer_id), options))

    def mount_point(self, layer: layout.LayerDir) -> str:
        """Where a layer is mounted: in its own directory, or in RUNROOT if that is not ours."""
        return layer.merged if layer.own else f"{self.run_home}/{layer.id}/merged"

    def unmount(self, layer_id: str) -> None:
        layer = self.homes.get(layer_id)
        self._release(layer.path if layer.own else f"{self.run_home}/{layer.id}")
        if not layer.own:
            self._forget_run_directory(layer_id)

    def _release(self, path: str) -> None:
        """Detach what is mounted below a layer directory and renew its mount point."""
        from cstorage.drivers.overlay_mount import release

        release(path, self.settings.mount_program)

    def _forget_run_directory(self, layer_id: str) -> None:
        path = f"{self.run_home}/{layer_id}"
        if os.path.isdir(path):
            from cstorage.drivers.removal import remove_tree

            self._release(path)
            remove_tree(path)

    def is_mounted(self, layer_id: str) -> bool:
        from cstorage.drivers.mountapi import is_mount_point

        layer = self.homes.find(layer_id)
        return layer is not None and is_mount_point(self.mount_point(layer))

    def disk_maps(self, maps: IDMaps) -> IDMaps:
        """A mount program stores host IDs whatever it shows; the kernel stores what it shows.

        What the host's root put into a mount has its ID then, which no map has to know.
        """
        if not isinstance(maps, ShiftedMaps):
            return maps
        if self.mount_program:
            return NO_MAPS
        root = IDMapEntry(0, 0, 1)
        return IDMaps(maps.uids and (*maps.uids, root), maps.gids and (*maps.gids, root))

    @contextmanager
    def view(self, layer_id: str, maps: IDMaps = NO_MAPS) -> Iterator[int]:
        """A descriptor of the merged tree of a layer, for reading, with its owners on disk.

        Of a layer with ``ShiftedMaps`` the layers below are shown as its mounts show them.
        """
        from cstorage.drivers.mountapi import is_mount_point
        from cstorage.drivers.overlay_mount import is_shifted

        layer = self.homes.get(layer_id)
        point = self.mount_point(layer)
        shifted = isinstance(maps, ShiftedMaps)
        as_it_is = is_mount_point(point) and (
            not shifted if self.mount_program else is_shifted(point) == shifted
        )
        if as_it_is:
            tree = os.open(point, _DIRECTORY)
        else:
            tree = self._view(layer, maps if shifted and not self.mount_program else None)
        try:
            yield tree
        finally:
            os.close(tree)

    def _view(self, layer: layout.LayerDir, maps: IDMaps | None) -> int:
        from cstorage.drivers.mountapi import overlay_view
        from cstorage.drivers.overlay_mount import assemble, lowers_shown, mount_options

        # Content written with metacopy or redirects can only be read with the same options.
        flags, data = mount_options(self, PLAIN_MOUNT)
        scratch = f"{self.run_home}/{_VIEW}{os.getpid()}-{os.urandom(4).hex()}"
        mapped = f"{scratch}-mapped"
        try:
            with lowers_shown(self, layer, maps, mapped) as lowers:
                mount: OverlayMount = assemble(
                    self, layer, read_only=True, lowers=lowers, data=data, flags=flags
                )
                if self.mount_program:
                    from cstorage.drivers import fuse
                    from cstorage.drivers.mountapi import overlay_data

                    return fuse.view(self.mount_program, self.home, overlay_data(mount), scratch)
                return overlay_view(mount, scratch)
        finally:
            if maps is not None:
                _detach_below(mapped)

    # -- differences -----------------------------------------------------------------------------

    def _is_parent(self, layer: layout.LayerDir, parent: str) -> bool:
        """Whether ``parent`` is what the layer directly rests on ("" = nothing)."""
        below = layout.lower_names(layer.path)
        if not parent or not below:
            return not parent and not below
        found = self.homes.find(parent)
        direct = self.homes.by_link(below[0])
        return found is not None and (found.home, found.id) == (direct.home, direct.id)

    def _native(self, layer: layout.LayerDir, parent: str) -> bool:
        return self._is_parent(layer, parent) and self.probe.native_diff

    @contextmanager
    def _trees(self, layer: layout.LayerDir) -> Iterator[tuple[int, list[int]]]:
        """Descriptors of the layer's content root and of everything below it."""
        opened: list[int] = []
        try:
            for path in (layer.diff, *self.homes.chain(layer.path)):
                opened.append(os.open(path, _DIRECTORY))
            yield opened[0], opened[1:]
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def changes(
        self,
        layer_id: str,
        parent: str = "",
        *,
        maps: IDMaps = NO_MAPS,
        parent_maps: IDMaps = NO_MAPS,
    ) -> list[Change]:
        layer = self.homes.get(layer_id)
        if self._native(layer, parent):
            from cstorage.archive.changes import overlay_changes

            with self._trees(layer) as (upper, lowers):
                return overlay_changes(upper, lowers)
        return super().changes(layer_id, parent, maps=maps, parent_maps=parent_maps)

    def diff_size(
        self,
        layer_id: str,
        parent: str = "",
        *,
        maps: IDMaps = NO_MAPS,
        parent_maps: IDMaps = NO_MAPS,
    ) -> int:
        layer = self.homes.get(layer_id)
        if self._is_parent(layer, parent):
            from cstorage.archive.changes import tree_size

            with self._trees(layer) as (upper, _):
                return tree_size(upper)
        return super().diff_size(layer_id, parent, maps=maps, parent_maps=parent_maps)

    def write_diff(
        self,
        layer_id: str,
        parent: str,
        sink: ByteSink,
        *,
        maps: IDMaps = NO_MAPS,
        parent_maps: IDMaps = NO_MAPS,
    ) -> None:
        layer = self.homes.get(layer_id)
        if self._native(layer, parent):
            from cstorage.archive.produce import write_overlay_diff

            with self._trees(layer) as (upper, lowers):
                write_overlay_diff(upper, lowers, sink, maps=self.disk_maps(maps))
            return
        super().write_diff(layer_id, parent, sink, maps=maps, parent_maps=parent_maps)

    # -- damage ----------------------------------------------------------------------------------

    def damage(self, layer_id: str, parent: str, /) -> list[str]:
        layer = self.homes.find(layer_id)
        if layer is None or not layer.own:
            return []  # the mount says so
        found = []
        try:
            if layout.link_name(layer.path) is None:
                found.append(f"{layer.path}/link: no such file or directory")
            if parent and not layout.lower_names(layer.path):
                found.append(f"{layer.path}/lower: no such file or directory")
        except DriverError as error:
            found.append(str(error))
        return found

    def mend(self, layer_id: str, parent: str, /) -> None:
        if not self.damage(layer_id, parent):
            return
        layer = self._own_layer(layer_id)
        try:
            name = layout.link_name(layer.path)
        except DriverError:
            name = None
        if name is None:
            name = next(iter(layout.links_to(layer.home, layer_id)), layout.new_link_name())
            _replace(f"{layer.path}/link", name)
        layout.make_link(layer.home, name, layer_id)
        try:
            whole = not parent or bool(layout.lower_names(layer.path))
        except DriverError:
            whole = False
        if not whole:
            below = self.homes.get(parent).path
            links = (layout.link_name(below), *layout.lower_names(below))
            _replace(f"{layer.path}/lower", ":".join(f"{layout.LINKS}/{x}" for x in links if x))
        publication.sync_directory(layer.path)

    # -- the store's questions -------------------------------------------------------------------

    def status(self) -> list[tuple[str, str]]:
        probe = self.probe
        return [
            ("Backing Filesystem", probe.backing_filesystem),
            ("Supports d_type", _truth(probe.d_type)),
            ("Native Overlay Diff", _truth(probe.native_diff)),
            ("Using metacopy", _truth(probe.using_metacopy)),
            ("Supports shifting", _truth(probe.shifting)),
            ("Supports volatile", _truth(probe.volatile)),
        ]

    def cleanup(self) -> None:
        """Release views that a killed process left mounted; the home itself is never mounted."""
        from cstorage.drivers.mountapi import detach

        try:
            names = os.listdir(self.run_home)
        except FileNotFoundError:
            return
        for name in names:
            owner = name.removeprefix(_VIEW).partition("-")[0]
            if name.startswith(_VIEW) and not os.path.exists(f"/proc/{owner}"):
                detach(f"{self.run_home}/{name}")
                _detach_below(f"{self.run_home}/{name}")

    def replace_content(self, layer_id: str, content: StrPath) -> None:
        """Exchange the layer's content with a finished directory of the same file system.

        Afterwards ``content`` holds what the layer had, for the caller to delete. Atomic: the layer
        has the one or the other content whenever the process dies.
        """
        from cstorage.drivers.mountapi import exchange

        layer = self._own_layer(layer_id)
        exchange(layer.diff, os.fspath(content))
        publication.sync_directory(layer.path)


def _detach_below(path: str) -> None:
    """Detach what is mounted on the directories in ``path``, and remove them and it."""
    from cstorage.drivers.mountapi import detach

    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    for name in names:
        detach(f"{path}/{name}")
        os.rmdir(f"{path}/{name}")
    os.rmdir(path)


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _own(path: str, owner: tuple[int, int]) -> None:
    if owner != (os.geteuid(), os.getegid()):
        os.chown(path, *owner)


def _replace(path: str, text: str) -> None:
    draft = f"{path}.new"
    try:
        os.unlink(draft)
    except FileNotFoundError:
        pass
    _write(draft, text)
    publication.sync_file(draft)
    os.rename(draft, path)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        data = os.fsencode(text)
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
