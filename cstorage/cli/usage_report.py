"""``df``: what the store occupies, for people and as JSON."""

from __future__ import annotations

from cstorage.cli.invocation import OK
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.cli.invocation import Invocation
    from cstorage.cli.quoting import Json

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def df(inv: Invocation) -> int:
    """``df``."""
    found = inv.store.usage(inv.flag("measure"))
    images = list(inv.store.image_usage()) if inv.flag("images") else []
    owners = list(inv.store.owner_usage())
    if inv.json:
        document: dict[str, Json] = {**found._asdict(), "total_bytes": found.total_bytes}
        document["owners"] = [owner._asdict() for owner in owners]
        if inv.flag("images"):
            document["image_usage"] = [{**i._asdict(), "names": list(i.names)} for i in images]
        inv.out.json(document)
        return OK
    rows = [
        ("TYPE", "NUMBER", "SIZE", "RECLAIMABLE"),
        ("layers", str(found.layers), size(found.layer_bytes), size(found.reclaimable_bytes)),
        ("  of one image", "", size(found.unique_bytes), ""),
        ("  of several images", "", size(found.shared_bytes), ""),
        ("  of no image", "", size(found.unneeded_bytes), ""),
        ("  of containers", "", size(found.in_use_bytes), ""),
        ("  not measured", str(found.unmeasured_layers), size(found.measured_bytes), ""),
        ("images", str(found.images), "", ""),
        ("containers", str(found.containers), "", ""),
        ("data", str(found.contents), size(found.data_bytes), ""),
        ("deleted, kept", str(found.kept_items), size(found.kept_bytes), size(found.kept_bytes)),
        ("journal", "", size(found.journal_bytes), ""),
        (
            "total",
            "",
            size(found.total_bytes),
            size(found.reclaimable_bytes + found.kept_bytes),
        ),
    ]
    for kind, number, amount, free in rows:
        inv.out.line(f"{kind:<20} {number:>10} {amount:>10} {free:>12}".rstrip())
    inv.out.line("")
    inv.out.line(f"{'OWNER':<14} {'LAYERS':>10} {'SIZE':>10} {'DATA':>10}  IMAGES  CONTAINERS")
    for owner in owners:
        inv.out.line(
            f"{owner.uid:<14} {owner.layers:>10} {size(owner.layer_bytes):>10} "
            f"{size(owner.data_bytes):>10} {owner.images:>7} {owner.containers:>11}"
        )
    if images:
        inv.out.line("")
        inv.out.line(f"{'IMAGE':<14} {'UNIQUE':>10} {'SHARED':>10} {'CONTAINERS':>10}  NAMES")
        for image in images:
            inv.out.line(
                f"{image.id[:12]:<14} {size(image.unique):>10} {size(image.shared):>10} "
                f"{image.containers:>10}  {' '.join(image.names)}".rstrip()
            )
    return OK


def size(count: int) -> str:
    """Bytes with three digits and a decimal unit."""
    amount = float(count)
    for unit in _UNITS:
        if amount < 999.5 or unit == _UNITS[-1]:
            break
        amount /= 1000
    return f"{count}B" if unit == "B" else f"{amount:.3g}{unit}"
