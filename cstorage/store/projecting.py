"""The view for other tools, kept in step with the store.

``refresh`` runs after every commit of a store that keeps a view, in whatever process commits. It
reads only the frames since the view's mark. A view that cannot be refreshed (locked by another
tool, written to by one) never fails a commit, which is durable already: it stays as it was, and the
next refresh or ``project`` catches up or says what is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from cstorage.errors import StorageError, StoreIsReadOnly
from cstorage.events import codec
from cstorage.interop import marks, projection
from cstorage.interop.marks import Place
from cstorage.interop.projection import Outcome, Projection
from cstorage.interop.selection import Form
from journal.errors import JournalError
from journal.frame import DATA
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage import events as ev
    from cstorage.store.core import Core
    from journal.position import Position

_COMMIT_TIMEOUT_S = 2.0
"""How long a commit waits for tools that hold the view's locks before it leaves the view behind."""

GRACE_S = 3600
"""Seconds that deleted layers stay in the trash while a view is kept, unless set otherwise."""


def place(core: Core) -> Place:
    return Place(str(core.location.graph_root), core.driver.name, core.journal.uuid, core.content)


def _events(core: Core, start: Position) -> Iterator[tuple[int, ev.Event]]:
    """Events between ``start`` and what the core has read. Raises ``JournalError``."""
    end = core.position.sequence
    for frame in core.journal.frames(start):
        if frame.kind != DATA:
            continue
        sequence = frame.first_sequence
        for raw in frame.transaction().events:
            if sequence <= end:
                yield sequence, codec.decode(raw)
            sequence += 1


def project(
    core: Core,
    *,
    form: Form | None = None,
    keep: bool | None = None,
    grace_s: int | None = None,
    overwrite: bool = False,
    verify: bool = False,
) -> Outcome:
    """Write the view, looking at every record. ``None`` leaves a setting as it was.

    Raises ``ViewChanged`` if another program wrote to it (``overwrite`` replaces what it wrote),
    ``StoreBusy``, ``StoreIsReadOnly``.
    """
    if core.location.read_only:
        raise StoreIsReadOnly(f"{core.location.graph_root} is open for reading only")
    with core.mutex, projection.held(place(core)) as view:
        mark = view.mark
        state = core.state
        return view.rebuild(
            state,
            core.position,
            form=form or (mark.form if mark else Form.ADDITIONAL),
            keep=keep if keep is not None else bool(mark and mark.keep),
            grace_s=grace_s if grace_s is not None else mark.grace_s if mark else GRACE_S,
            overwrite=overwrite,
            verify=verify,
        )


def refresh(core: Core, timeout_s: float = 10.0) -> Outcome:
    """Bring the view up to now, by the events since its last refresh where that is possible."""
    with core.mutex, projection.held(place(core)) as view:
        view.timeout_s = timeout_s
        return _refresh(core, view)


def _refresh(core: Core, view: Projection) -> Outcome:
    mark = view.mark
    state = core.state
    if mark is not None:
        try:
            done = view.update(state, core.position, _events(core, mark.position))
        except JournalError:
            done = None  # the part of the journal since the mark is archived
        if done is not None:
            return done
        view = Projection(view.place, mark, view.timeout_s)
    return view.rebuild(
        state,
        core.position,
        form=mark.form if mark else Form.ADDITIONAL,
        keep=mark.keep if mark else True,
        grace_s=mark.grace_s if mark else GRACE_S,
    )


def grace_s(core: Core) -> float:
    """Seconds for which content that other tools may be using is kept after its deletion."""
    mark = marks.read(place(core))
    wanted = core.location.projection == "additional"
    if mark is None:
        return GRACE_S if wanted else 0
    return mark.grace_s if wanted or mark.keep else 0


def kept(core: Core) -> bool:
    """Whether this store keeps a view: the quick question before every commit's refresh."""
    path = place(core).mark
    if not os.path.exists(path):
        return False
    mark = marks.read(place(core))
    return mark is not None and mark.keep


def after_commit(core: Core) -> None:
    """Refresh a kept view; what stands against it is left to ``project`` to report."""
    try:
        if core.location.projection == "additional" or kept(core):
            refresh(core, _COMMIT_TIMEOUT_S)
    except (StorageError, OSError):
        return


def stop(core: Core, *, overwrite: bool = False) -> None:
    """Remove the view and do not keep one any more. Raises ``ViewChanged``."""
    with core.mutex, projection.held(place(core)) as view:
        view.take_down(overwrite)


__all__ = [
    "GRACE_S",
    "Form",
    "Outcome",
    "after_commit",
    "kept",
    "project",
    "refresh",
    "stop",
]
