"""project, adopt, export and convert: working with containers/storage and its tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cstorage.cli.invocation import FAILED, OK

if TYPE_CHECKING:
    from cstorage.cli.invocation import Invocation

LEFT_OUT = 3
"""Exit status: all went well, but some items could not be taken along."""


def project(inv: Invocation) -> int:
    """``project``: the view of this store for other tools."""
    from cstorage.interop.selection import Form

    store = inv.store
    if inv.flag("off"):
        store.stop_projecting(overwrite=inv.flag("overwrite"))
        return OK
    grace: int | None = None
    if inv.text("grace"):
        from cstorage.cli.durations import parse_ns

        grace = int(parse_ns(inv.text("grace")) // 10**9)
    done = store.project(
        form=Form.OWN_ROOT if inv.flag("own_root") else Form.ADDITIONAL,
        keep=True if inv.flag("keep") else None,
        grace_s=grace,
        overwrite=inv.flag("overwrite"),
        verify=inv.flag("verify"),
    )
    if inv.json:
        inv.out.json({
            "sequence": done.sequence,
            "written": done.written,
            "removed": done.removed,
            "files": done.files,
            "repaired": list(done.repaired),
            "left-out": [{"item": item, "reason": why} for item, why in done.left_out],
        })  # fmt: skip
    else:
        inv.out.line(
            f"projected up to change {done.sequence}: {done.written} records written, "
            f"{done.removed} removed, {done.files} files copied"
        )
        for path in done.repaired:
            inv.out.line(f"repaired: {path}")
        for item, why in done.left_out:
            inv.out.line(f"left out: {item}: {why}")
    return LEFT_OUT if done.left_out else OK


_ = FAILED
