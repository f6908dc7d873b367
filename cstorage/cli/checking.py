"""``check``: look for damage, print it, remove it if asked (cli.md §8.2)."""

from __future__ import annotations

from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.quoting import by_key
from cstorage.cli.store_wide import forced_shutdown
from cstorage.cli.wording import describe
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cstorage.cli.invocation import Invocation
    from cstorage.cli.quoting import Json
    from cstorage.store.checking import Report

_DEFAULT_AGE = "24h"


def check(inv: Invocation) -> int:
    """``check``: exit status 0 when the store is whole, or was repaired as asked.

    What ends the command is said last, after what was still mounted.
    """
    with forced_shutdown(inv):
        trouble = _check(inv)
    if trouble:
        inv.out.error(trouble)
        return FAILED
    return OK


def _check(inv: Invocation) -> str:
    """Look, and repair if asked; why the command fails, "" if it does not."""
    from cstorage.cli.durations import parse_ns
    from cstorage.store.checking import CHECK_EVERYTHING, CHECK_MOST

    options = CHECK_MOST if inv.flag("quick") else CHECK_EVERYTHING
    age_ns = parse_ns(inv.text("max") or _DEFAULT_AGE)
    report = inv.store.check(options._replace(unreferenced_age_max_s=age_ns / 1e9))
    _show(inv, report)
    if report.healthy:
        return ""
    force = inv.flag("force")
    if force or inv.flag("repair"):
        return _repair(inv, report, force=force)
    return _summary(
        (len(report.layers), "layer"),
        (len(report.read_only_layers), "read-only layer"),
        (len(report.images), "image"),
        (len(report.read_only_images), "read-only image"),
        (len(report.containers), "container"),
    )


def _show(inv: Invocation, report: Report) -> None:
    groups = (
        ("Layers", "layer", report.layers),
        ("ROLayers", "read-only layer", report.read_only_layers),
        ("Images", "image", report.images),
        ("ROImages", "read-only image", report.read_only_images),
        ("Containers", "container", report.containers),
    )
    if inv.json:
        # An error is an object without members in the original's JSON.
        inv.out.json(
            {
                key: by_key({id_: [{}] * len(found[id_]) for id_ in found})
                for key, _, found in groups
            }
        )
        return
    for _, title, found in groups:
        for item_id, findings in found.items():
            inv.out.line(f"{title} {item_id}:")
            for finding in findings:
                inv.out.line(f" {describe(finding)}")


def _summary(*counts: tuple[int, str]) -> str:
    return ", ".join(f"{count} {what} errors" for count, what in counts)


def _repair(inv: Invocation, report: Report, *, force: bool) -> str:
    """Remove what is damaged; why the command fails if something stays so."""
    refusals: Sequence[Exception] = inv.store.repair(report, remove_containers=force)
    if refusals:
        if inv.json:
            objects: list[Json] = [{} for _ in refusals]
            inv.out.json(objects)
        else:
            for refusal in refusals:
                inv.out.error(describe(refusal))
        return describe(refusals[0])
    left = [
        (len(report.read_only_layers), "read-only layer"),
        (len(report.read_only_images), "read-only image"),
    ]
    if not force:
        left.append((len(report.containers), "container"))
    if any(count for count, _ in left):
        return _summary(*left)
    return ""
