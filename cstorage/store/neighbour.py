"""The part of ``Store`` that works with the stores and views of other tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cstorage.store.lazily import LazyModule
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.drivers.contract import StrPath
    from cstorage.interop.consumers import Consumer
    from cstorage.interop.projection import Outcome
    from cstorage.interop.selection import Form
    from cstorage.store import adoption, projecting, replay
    from cstorage.store.adoption import Adoption
    from cstorage.store.core import Core
    from cstorage.store.incoming import Mode
    from cstorage.store.replay import Copied
else:
    adoption = LazyModule("cstorage.store.adoption")
    projecting = LazyModule("cstorage.store.projecting")
    replay = LazyModule("cstorage.store.replay")


class Neighbour:
    """Stores of containers/storage, and programs that read ours."""

    _core: Core

    def project(
        self,
        *,
        form: Form | None = None,
        keep: bool | None = None,
        grace_s: int | None = None,
        overwrite: bool = False,
        verify: bool = False,
    ) -> Outcome:
        """Write the view that podman and its like read.

        Arguments and errors: ``projecting.project``.
        """
        return projecting.project(
            self._core, form=form, keep=keep, grace_s=grace_s, overwrite=overwrite, verify=verify
        )

    def consumers(self) -> list[Consumer]:
        """Mounts on this machine that rest on layers of this store, ours among them."""
        from cstorage.interop.consumers import consumers

        return consumers(self._core.driver.home) if self._core.driver.name == "overlay" else []

    def stop_projecting(self, *, overwrite: bool = False) -> None:
        """Remove the view. Raises ``ViewChanged`` if another program wrote to it."""
        projecting.stop(self._core, overwrite=overwrite)

    def adopt(
        self,
        graph_root: StrPath,
        mode: Mode | str = "copy",
        *,
        dry_run: bool = False,
        from_driver: str = "",
        run_root: str = "",
        image_store: str = "",
        additional: Sequence[str] = (),
        timeout_s: float = 10.0,
        tell: Callable[[str], None] | None = None,
    ) -> Adoption:
        """Take over a store of containers/storage; ``mode``: copy, link, in-place.

        Arguments and errors: ``adoption.adopt``.
        """
        return adoption.adopt(
            self._core,
            str(graph_root),
            mode=adoption.Mode(mode),
            dry_run=dry_run,
            from_driver=from_driver,
            run_root=run_root,
            image_store=image_store,
            additional=additional,
            timeout_s=timeout_s,
            tell=tell,
        )

    def convert(self, directory: StrPath, driver: str) -> Copied:
        """A copy of the store that uses another driver. Errors: ``replay.convert``."""
        return replay.convert(self._core, str(directory), driver)

    def export(self, directory: StrPath) -> Copied:
        """A store of containers/storage with everything in it. Errors: ``replay.export``."""
        return replay.export(self._core, str(directory))
