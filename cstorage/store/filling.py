"""Extracting archives: into a layer that is being made, and over one that exists.

Over an existing layer, all or nothing: the archive is extracted over a copy of the layer's tree
(extents are shared where the file system can) and copy and tree are exchanged in the transaction
that records the archive. Some are extracted in place instead, and bad input then leaves what
was extracted so far: a layer that is mounted, or under one that is, because its tree cannot be
exchanged; a file system without ``renameat2(RENAME_EXCHANGE)``; and a transaction of several
operations, of which a later one may read the tree.
"""

from __future__ import annotations

import os
import time

from cstorage import events as ev
from cstorage.errors import DriverError, LayerUnknown, StorageError
from cstorage.model import DiffSummary, Layer
from cstorage.store import lookup
from cstorage.store.exchange import can_exchange
from cstorage.store.mapping import of_files
from cstorage.store.workspace import Intent, Swap, Workspace, declare
from journal.plain import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from cstorage.archive.compression import ByteSource
    from cstorage.archive.options import ApplyOptions
    from cstorage.drivers.contract import Prepared
    from cstorage.store.core import Core

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_USERS_WAIT_S = 10.0
_USERS_POLL_S = 0.02
_PRIVATE_MARKS = ("trusted.overlay.redirect", "trusted.overlay.metacopy")


class HashingFile:
    """A file being written whose SHA-256 is its future name.

    Unless it is made ``durable``, whoever has it syncs the file system before it is used.
    """

    def __init__(self, work: Workspace, name: str, *, durable: bool = True) -> None:
        self._durable = durable
        self.path = work.path / name
        self.file: BinaryIO = open(self.path, "xb")
        self.work = work
        self.size = 0

    def finish(self) -> str:
        """Name the file after its content, and return the content key."""
        self.file.flush()
        if self._durable:
            os.fdatasync(self.file.fileno())
        self.size = os.fstat(self.file.fileno()).st_size
        self.file.close()
        with open(self.path, "rb") as written:
            import hashlib

            key = hashlib.file_digest(written, "sha256").hexdigest()
        target = self.work.path / f"content-{key}"
        os.rename(self.path, target)
        os.chmod(target, 0o600)
        return key


def with_files(diff: DiffSummary, recipe: HashingFile, manifest: HashingFile | None) -> DiffSummary:
    """``diff`` with content keys and sizes of its finished recipe and manifest."""
    diff = diff._replace(recipe=recipe.finish(), manifest="", manifest_size=0)
    if manifest is not None:
        diff = diff._replace(manifest=manifest.finish())
        diff = diff._replace(manifest_size=manifest.size)
    return diff._replace(recipe_size=recipe.size)


def _over(
    core: Core, layer: Layer, root: int, listed: bool, manifest: HashingFile, work: Workspace
) -> HashingFile | None:
    """The list of a tree that had content before ``manifest``'s archive came: of both.

    ``listed``: all of what was there before is in the layer's own list, or nothing was there.
    None if nobody knows what was there.
    """
    if not listed:
        return None
    older = layer.diff.manifest
    if not older:
        return manifest
    from cstorage.archive.merging import merge

    manifest.file.flush()
    both = HashingFile(work, "=manifest-of-both")
    try:
        with core.content.open(older) as first, core.content.open(older) as second, \
                manifest.path.open("rb") as third, manifest.path.open("rb") as fourth:  # fmt: skip
            old, new = iter((first, second)), iter((third, fourth))
            merge(lambda: next(old), lambda: next(new), root, both.file)
    except BaseException:
        both.file.close()
        raise
    return both


def _listed(core: Core, layer: Layer, root: int) -> bool:
    """Whether the layer's list, or its emptiness, says all of what the layer has in ``root``.

    Trees that began as a copy of the parent's are never empty; they are taken for unchanged.
    """
    copied = core.driver.name != "overlay" and bool(layer.parent)
    return bool(layer.diff.manifest) or copied or not os.listdir(root)


def extract(
    core: Core,
    prepared: Prepared,
    source: ByteSource,
    options: ApplyOptions | None,
    work: Workspace,
    listing: Callable[[HashingFile], HashingFile | None] | None = None,
    *,
    durable: bool = True,
) -> DiffSummary:
    """Extract the archive; its recipe and manifest become content files of the work folder.

    ``listing`` makes the layer's manifest of the archive's, None if nobody knows all that the layer
    has. Unless those files are made ``durable``, the caller syncs the file system.
    """
    recipe = HashingFile(work, "=recipe", durable=durable)
    manifest = HashingFile(work, "=manifest", durable=durable)
    try:
        diff = core.driver.apply(
            prepared, source, options, recipe=recipe.file, manifest=manifest.file
        )
        return with_files(diff, recipe, listing(manifest) if listing is not None else manifest)
    finally:
        recipe.file.close()
        manifest.file.close()


def copy_finished(core: Core, prepared: Prepared, twin: Layer, work: Workspace) -> DiffSummary:
    """Fill a layer with the tree and the records of another one that nobody may write to.

    Raises ``StorageError`` if the driver put something of the parent into the new layer.
    """
    if os.listdir(prepared.root_fd):
        raise StorageError(f"layer {prepared.plan.id} is not empty")
    copy_content(core.driver.content_root(twin.id), prepared)
    for key in (twin.diff.recipe, twin.diff.manifest):
        os.link(core.content.path(key), work.path / f"content-{key}")
    return twin.diff


def copy_content(root: str, prepared: Prepared) -> None:
    """Fill a new layer with what is in the directory ``root``, and the root's attributes."""
    from cstorage.drivers.copytree import TreeCopier

    prepared.filled = True
    tree = os.open(root, _DIRECTORY)
    try:
        TreeCopier().copy(tree, prepared.root_fd)
    finally:
        os.close(tree)


def in_use(core: Core, layer: str) -> bool:
    """Whether the layer, or one that rests on it, is mounted."""
    state = core.state
    for id_, mount in core.mounts.all().items():
        if mount.users and core.driver.is_mounted(id_):
            current = state.layer(id_)
            while current is not None:
                if current.id == layer:
                    return True
                current = state.layer(current.parent) if current.parent else None
    return False


def _wait_for_users(core: Core, layer: str) -> None:
    """Give whoever has the layer mounted for a moment, a ``check`` for instance, time to end."""
    deadline = time.monotonic() + _USERS_WAIT_S
    while in_use(core, layer) and time.monotonic() < deadline:
        time.sleep(_USERS_POLL_S)


def marked(root: str) -> bool:
    """Whether a tree has marks that only the mount which made them understands."""
    pending = [root]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    continue
                try:
                    names = os.listxattr(entry.path, follow_symlinks=False)
                except OSError:
                    continue
                if any(mark in names for mark in _PRIVATE_MARKS):
                    return True
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return False


def _check_own(core: Core, layer: Layer) -> None:
    if entry := core.driver.linked_entry(layer.id):
        raise DriverError(
            f"the content of layer {layer.id} is in the additional layer store at {entry}",
            hint="make a layer on top of it, and change that",
        )


def apply_diff(
    core: Core, key: str, source: ByteSource, options: ApplyOptions | None = None
) -> DiffSummary:
    """Extract an archive over an existing layer and record what it was.

    Raises ``LayerUnknown``, ``ArchiveError``, ``DriverError``.
    """
    layer = lookup.layer(core.state, key)
    _check_own(core, layer)
    root = core.driver.content_root(layer.id)
    with core.work() as work, core.work_beside(root, work) as tree_work:
        if (
            core.joint is not None
            or not os.path.isdir(root)
            or in_use(core, layer.id)
            or not can_exchange(str(tree_work.path))
            or (layer.writable and marked(root))
        ):
            return _in_place(core, layer, source, options, work)
        from cstorage.drivers.contract import LayerPlan, Prepared
        from cstorage.drivers.copytree import TreeCopier

        copy = f"{tree_work.path}/=tree"
        os.mkdir(copy, 0o700)
        plan = LayerPlan(id=layer.id, parent=layer.parent, maps=of_files(core, core.state, layer))
        with Prepared(plan, copy, os.open(copy, _DIRECTORY), "") as prepared:
            prepared.guards = tree_work.guards
            original = os.open(root, _DIRECTORY)
            try:
                listed = _listed(core, layer, original)
                TreeCopier().copy(original, prepared.root_fd)
            finally:
                os.close(original)
            diff = extract(
                core, prepared, source, options, work,
                lambda manifest: _over(core, layer, prepared.root_fd, listed, manifest, work),
            )  # fmt: skip
            core.driver.make_durable(prepared)
        replace_content(core, layer, copy, [ev.LayerDiffApplied(layer.id, diff)], diff, work,
                        tree_work)  # fmt: skip
    return diff


def replace_content(
    core: Core,
    layer: Layer,
    tree: str,
    events: list[ev.Event],
    diff: DiffSummary,
    work: Workspace,
    tree_work: Workspace,
    contents: tuple[str, ...] = (),
) -> None:
    """Exchange a layer's tree with ``tree`` and commit ``events``, together or not at all.

    ``tree`` is ``tree_work``'s folder ``=tree``, durable; content files are in ``work``.
    """
    if core.joint is not None:
        raise StorageError("staged content cannot replace a layer's inside a larger transaction")
    _check_own(core, layer)
    keys = tuple(dict.fromkeys(key for key in (diff.recipe, diff.manifest, *contents) if key))
    swap = Swap(layer.id, os.stat(tree).st_ino, diff.recipe)
    declare(work, tree_work, Intent(core.driver.name, (), keys, (swap,)))
    _wait_for_users(core, layer.id)
    with core.transaction() as tx:
        current = tx.state.layer(layer.id)
        if current is None:
            raise LayerUnknown
        for key in keys:
            tx.adopt(key, work.path / f"content-{key}")
        for event in events:
            tx.emit(event)
        tx.exchange(core.driver.content_root(layer.id), tree)
        with core.mounts.held():
            if current.diff != layer.diff or in_use(core, layer.id):
                raise StorageError(f"layer {layer.id} was changed or mounted meanwhile; try again")
            tx.commit()


def _in_place(
    core: Core,
    layer: Layer,
    source: ByteSource,
    options: ApplyOptions | None,
    work: Workspace,
) -> DiffSummary:
    recipe, manifest = HashingFile(work, "=recipe"), HashingFile(work, "=manifest")
    tree = os.open(core.driver.content_root(layer.id), _DIRECTORY)
    try:
        listed = _listed(core, layer, tree)
        diff = core.driver.apply_to(
            layer.id,
            source,
            options,
            maps=of_files(core, core.state, layer),
            recipe=recipe.file,
            manifest=manifest.file,
        )
        both = _over(core, layer, tree, listed, manifest, work)
        diff = with_files(diff, recipe, both)
    finally:
        os.close(tree)
        recipe.file.close()
        manifest.file.close()
    contents = tuple(dict.fromkeys(key for key in (diff.recipe, diff.manifest) if key))
    work.declare(Intent(core.driver.name, (), contents))
    with core.transaction() as tx:
        if tx.state.layer(layer.id) is None:
            raise LayerUnknown
        for key in contents:
            tx.adopt(key, work.path / f"content-{key}")
        tx.emit(ev.LayerDiffApplied(layer.id, diff))
    return diff
