"""project, adopt, export and convert: working with containers/storage and its tools."""

from __future__ import annotations

from cstorage.cli.invocation import FAILED, OK
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.cli.invocation import Invocation
    from cstorage.store.replay import Copied

LEFT_OUT = 3
"""Exit status: all went well, but some items could not be taken along."""


def project(inv: Invocation) -> int:
    """``project``: the view of this store for other tools."""
    from cstorage.interop.selection import Form

    store = inv.store
    if inv.flag("off"):
        store.stop_projecting(overwrite=inv.flag("overwrite"))
        return OK
    if inv.flag("consumers"):
        found = store.consumers()
        if inv.json:
            inv.out.json([{"mount": c.mount_point, "layers": list(c.layers)} for c in found])
        else:
            for consumer in found:
                inv.out.line(f"{consumer.mount_point}: {' '.join(consumer.layers)}")
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


def adopt(inv: Invocation) -> int:
    """``adopt``: take over a store of other tools."""
    from cstorage.cli.durations import parse_ns

    modes = [m for m in ("copy", "link", "in-place") if inv.flag(m.replace("-", "_"))]
    if len(modes) > 1:
        inv.out.error(f"--{' and --'.join(modes)} exclude each other")
        return FAILED
    done = inv.store.adopt(
        inv.arg(0),
        modes[0] if modes else "copy",
        dry_run=inv.flag("dry_run"),
        from_driver=inv.text("from_driver"),
        run_root=inv.text("from_run"),
        image_store=inv.text("from_image_store"),
        additional=inv.many("additional"),
        timeout_s=parse_ns(inv.text("lock_timeout")) / 10**9,
        tell=None if inv.json else inv.out.line,
    )
    if inv.json:
        inv.out.json({
            "adopted": list(done.adopted),
            "known": list(done.known),
            "left-out": [{"item": item, "reason": why} for item, why in done.left_out],
            "notes": list(done.notes),
        })  # fmt: skip
    else:
        verb = "would be adopted" if inv.flag("dry_run") else "adopted"
        inv.out.line(
            f"{len(done.adopted)} {verb}, {len(done.known)} known, {len(done.left_out)} left out"
        )
    return LEFT_OUT if done.left_out else OK


def export(inv: Invocation) -> int:
    """``export``: a store for others to use as their root."""
    if inv.text("to") not in ("", "containers-storage"):
        inv.out.error(f"unknown format {inv.text('to')}; containers-storage is the only one")
        return FAILED
    return _copied(inv, inv.store.export(inv.arg(0)))


def convert(inv: Invocation) -> int:
    """``convert``: this store with another driver."""
    if not inv.text("to"):
        inv.out.error("name the driver of the copy with --to overlay or --to vfs")
        return FAILED
    return _copied(inv, inv.store.convert(inv.arg(0), inv.text("to")))


def _copied(inv: Invocation, done: Copied) -> int:
    if inv.json:
        inv.out.json({
            "layers": done.layers,
            "images": done.images,
            "containers": done.containers,
            "left-out": [{"item": item, "reason": why} for item, why in done.left_out],
        })  # fmt: skip
    else:
        for item, why in done.left_out:
            inv.out.line(f"left out: {item}: {why}")
        inv.out.line(f"{done.layers} layers, {done.images} images, {done.containers} containers")
    return LEFT_OUT if done.left_out else OK
