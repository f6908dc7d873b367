"""changes, diffsize, diff, applydiff."""

from __future__ import annotations

from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.limits import apply_options
from cstorage.cli.quoting import go_quote, json_text
from cstorage.cli.streams import Target, source
from cstorage.model import ChangeKind, Compression
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cstorage.cli.invocation import Invocation
    from cstorage.model import Change

_WORDS = {ChangeKind.MODIFY: "Modify", ChangeKind.ADD: "Add", ChangeKind.DELETE: "Delete"}


def changes(inv: Invocation) -> int:
    """``changes``."""
    return show(inv, inv.store.changes(inv.arg(0), inv.arg(1)))


def diff_images(inv: Invocation) -> int:
    """``diff-images``."""
    return show(inv, inv.store.changes_between(inv.arg(0), inv.arg(1)))


def show(inv: Invocation, found: Iterable[Change]) -> int:
    """Print changes, as lines or as JSON."""
    out = inv.out
    if not inv.json:
        for change in found:
            out.line(f"{_WORDS[change.kind]} {go_quote(change.path)}")
        return OK
    before = "["
    for change in found:
        path = change.path.decode("utf-8", "surrogateescape")
        out.write(before + json_text({"Path": path, "Kind": int(change.kind)}))
        before = ","
    out.write("null\n" if before == "[" else "]\n")
    return OK


def diffsize(inv: Invocation) -> int:
    """``diffsize``."""
    inv.out.line(f"{inv.store.diff_size(inv.arg(0), inv.arg(1))}")
    return OK


def diff(inv: Invocation) -> int:
    """``diff``: of several compression flags the last of u, c, b, x wins."""
    compression: Compression | None = None
    for key, choice in (
        ("uncompressed", Compression.NONE),
        ("gzip", Compression.GZIP),
        ("bzip2", Compression.BZIP2),
        ("xz", Compression.XZ),
    ):
        if inv.flag(key):
            compression = choice
    store = inv.store
    with Target(inv) as sink:
        layer = store.layer(inv.arg(0)).id
        # The library can do what scripts know that this command refuses.
        store.diff(layer, sink, inv.arg(1), compression, slow=False)
    return OK


def applydiff(inv: Invocation) -> int:
    """``applydiff``."""
    from cstorage.cli.progress import ProgressLine

    options = apply_options(inv)
    with source(inv) as stream, ProgressLine(inv) as line:
        line.finish(inv.store.apply_diff(inv.arg(0), stream, line.options(options)))
    return OK


def applydiff_staged(inv: Invocation) -> int:
    """``applydiff-using-staging-dir``: only with partial images, only where the driver can."""
    pulls: Mapping[str, str] = {}
    if inv.configured:
        from cstorage.config import load

        pulls = load().pull_options or {}
    if pulls.get("enable_partial_images") != "true":
        inv.out.error("partial images are disabled")
        return FAILED
    if inv.store.driver_name != "overlay":
        inv.out.error(f"graph driver {inv.store.driver_name} does not support partial pull")
        return FAILED
    with inv.store.prepare_staged_layer(inv.arg(1)) as staged:
        inv.store.apply_staged_layer(staged, inv.arg(0))
    return OK
