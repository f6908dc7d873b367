"""The vfs driver: every layer is a complete file tree in ``<home>/dir/<id>``.

Works everywhere and costs space, less where files can share their extents (``copytree``). Nothing
is mounted: ``mount`` returns the directory, a layer counts as mounted while it exists. Whiteouts
are carried out on applying (AUFS rule). Sources: drivers-and-formats §1.3, §4.1.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from cstorage.drivers import options, publication
from cstorage.drivers.contract import (
    NO_MAPS,
    PLAIN_MOUNT,
    DriverOptions,
    LayerPlan,
    MountOptions,
    Prepared,
    StrPath,
    checked_id,
)
from cstorage.drivers.trees import TreeDriver
from cstorage.errors import DriverError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cstorage.archive.apply import ApplyOptions
    from cstorage.drivers.chown import Owners
    from cstorage.model import IDMaps

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BASE_MODE = 0o555


class VfsDriver(TreeDriver):
    """See the module."""

    name = "vfs"
    folder = "dir"
    """Where in the home the layers are."""
    option_keys: tuple[str, ...] = ("ignore_chown_errors", "imagestore")

    def __init__(self, given: DriverOptions) -> None:
        self.home = os.fspath(given.home)
        self.image_home = os.fspath(given.image_home)
        self.ignore_chown_errors = False
        self._own = [home for home in (self.home, self.image_home) if home]
        self._homes = [*self._own, *(os.fspath(home) for home in given.additional_homes)]
        for key, value, text in options.addressed_to(self.name, given.options):
            if key == "mountopt":
                raise DriverError(f"{self.name} driver does not support mount options")
            if key not in self.option_keys:
                raise options.unknown(key, text)
            if key == "ignore_chown_errors":
                self.ignore_chown_errors = options.boolean(value)

    @property
    def can_shift_ids(self) -> bool:
        return False

    def can_shift(self, _maps: IDMaps, /) -> bool:
        return False

    @property
    def stages_content(self) -> bool:
        return False

    # -- making layers ---------------------------------------------------------------------------

    def check_plan(self, plan: LayerPlan, /) -> None:
        checked_id(plan.id)
        if plan.storage_options:
            raise DriverError(f"--storage-opt is not supported for {self.name}")
        if plan.maps:
            from cstorage.idmap import root_pair

            root_pair(plan.maps)  # a map that cannot express the container's root is an error

    def prepare(self, plan: LayerPlan, work: StrPath, parent: Prepared | None = None) -> Prepared:
        self.check_plan(plan)
        below = plan.template or plan.parent
        source = ""
        if parent is not None:
            source = parent.path
        elif below:
            source = self._find(below) or ""
            if not source:
                raise DriverError(f"Stat {self._missing(below)}")
        path = f"{os.fspath(work)}/{plan.id}"
        self._create(path, source)
        root = -1
        try:
            root = os.open(path, _DIRECTORY | os.O_NOFOLLOW)
            self._fill(plan, root, source)
        except BaseException:
            if root >= 0:
                os.close(root)
            from cstorage.drivers.removal import remove_tree

            remove_tree(path)
            raise
        home = self.home if plan.writable or not self.image_home else self.image_home
        prepared = Prepared(plan, path, root, home)
        prepared.filled = bool(source)
        return prepared

    def _create(self, path: str, _source: str) -> None:
        """Make the directory of a new layer."""
        os.mkdir(path, 0o700)

    def _fill(self, plan: LayerPlan, root: int, source: str) -> None:
        """Give the new directory what the parent has, and its owners and mode."""
        if not source:
            if plan.maps:
                from cstorage.idmap import root_pair

                os.fchown(root, *root_pair(plan.maps))
            os.fchmod(root, _BASE_MODE)
            return
        from cstorage.drivers.copytree import TreeCopier

        origin = os.open(source, _DIRECTORY | os.O_NOFOLLOW)
        try:
            TreeCopier(self._owners(plan)).copy(origin, root)
        finally:
            os.close(origin)

    def _owners(self, plan: LayerPlan) -> Owners | None:
        """How owners change from the parent's to the layer's maps, None if they do not."""
        if plan.maps == plan.parent_maps:
            return None
        from cstorage.drivers.chown import Owners

        return Owners(plan.parent_maps, plan.maps)

    def apply_options(self, given: ApplyOptions | None, maps: IDMaps) -> ApplyOptions:
        from cstorage.archive.apply import ApplyOptions
        from cstorage.archive.whiteouts import WhiteoutFormat
        from cstorage.config import here

        base = given or ApplyOptions(WhiteoutFormat.REMOVE)
        return base._replace(
            whiteouts=WhiteoutFormat.REMOVE,
            maps=maps,
            ignore_chown_errors=self.ignore_chown_errors,
            force_mask=None,
            in_userns=here().rootless,
        )

    def make_durable(self, prepared: Prepared) -> None:
        if prepared.filled:
            publication.sync_content(prepared)
        else:
            os.fsync(prepared.root_fd)

    # -- publishing and withdrawing --------------------------------------------------------------

    def publish(self, prepared: Prepared) -> tuple[str, ...]:
        layers = f"{prepared.home}/{self.folder}"
        if not os.path.isdir(layers):
            publication.make_directories(layers, 0o700)
        publication.move_into_place(prepared, f"{layers}/{prepared.plan.id}")
        return (layers,)

    def withdraw(self, layer_id: str, trash: StrPath) -> bool:
        checked_id(layer_id)
        found = False
        for home in self._own:
            path = f"{home}/{self.folder}/{layer_id}"
            if os.path.lexists(path):
                found |= publication.move_to_trash(path, os.fspath(trash))
        return found

    # -- looking ---------------------------------------------------------------------------------

    def _find(self, layer_id: str) -> str | None:
        checked_id(layer_id)
        for home in self._homes:
            path = f"{home}/{self.folder}/{layer_id}"
            if os.path.isdir(path):
                return path
        return None

    def _path(self, layer_id: str) -> str:
        found = self._find(layer_id)
        if found is None:
            raise DriverError(f"stat {self._missing(layer_id)}")
        return found

    def _missing(self, layer_id: str) -> str:
        return f"{self.home}/{self.folder}/{layer_id}: no such file or directory"

    def require(self, layer_id: str) -> None:
        self._path(layer_id)

    def exists(self, layer_id: str) -> bool:
        return self._find(layer_id) is not None

    def layers(self) -> list[str]:
        found: set[str] = set()
        for home in self._own:
            try:
                with os.scandir(f"{home}/{self.folder}") as entries:
                    found.update(e.name for e in entries if e.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                continue
        return sorted(found)

    def content_root(self, layer_id: str) -> str:
        path = self._find(layer_id) or ""
        return path if self._is_own(path) else ""

    def own_content(self, layer_id: str) -> str:
        path = self._path(layer_id)
        if not self._is_own(path):
            raise DriverError(f"layer {layer_id} is in a read-only store")
        return path

    def _is_own(self, path: str) -> bool:
        return any(path.startswith(f"{home}/{self.folder}/") for home in self._own)

    def content_directories(self, layer_id: str) -> list[str]:
        return [self._path(layer_id)]

    def mount(self, layer_id: str, options: MountOptions = PLAIN_MOUNT) -> Path:
        from pathlib import Path

        path = self._path(layer_id)
        for option in options.options:
            if option != "ro":
                raise DriverError(f"{self.name} driver does not support mount options")
        return Path(path)

    def unmount(self, layer_id: str) -> None:
        checked_id(layer_id)

    def is_mounted(self, layer_id: str) -> bool:
        return self.exists(layer_id)

    @contextmanager
    def view(self, layer_id: str, maps: IDMaps = NO_MAPS) -> Iterator[int]:
        del maps  # the files are what they are: nothing is mounted
        tree = os.open(self._path(layer_id), _DIRECTORY | os.O_NOFOLLOW)
        try:
            yield tree
        finally:
            os.close(tree)

    # -- the store's questions -------------------------------------------------------------------

    def metadata(self, layer_id: str) -> dict[str, str]:
        self._path(layer_id)
        return {}

    def status(self) -> list[tuple[str, str]]:
        return []

    def cleanup(self) -> None:
        """Nothing is ever mounted."""
