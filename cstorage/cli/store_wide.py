"""Commands about the store as a whole: status, version, gc, wipe, shutdown, dedup, config."""

from __future__ import annotations

from contextlib import contextmanager

from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.wording import describe
from cstorage.errors import StorageError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cstorage.cli.invocation import Invocation


def status(inv: Invocation) -> int:
    """``status``: the original writes the text to standard error."""
    store = inv.store
    rows = [
        ("Root", str(store.graph_root)),
        ("Run Root", str(store.run_root)),
        ("Driver Name", store.driver_name),
        ("Driver Options", f"[{' '.join(store.driver_options)}]"),
    ]
    return _pairs(inv, [*rows, *store.status()])


def version(inv: Invocation) -> int:
    """``version``: the original writes the text to standard error; nothing if it is unknown."""
    known = inv.store.version()
    return _pairs(inv, [("Version", known)] if known else [])


def _pairs(inv: Invocation, pairs: Sequence[tuple[str, str]]) -> int:
    if inv.json:
        inv.out.json([[key, value] for key, value in pairs])
    else:
        for key, value in pairs:
            inv.out.error(f"{key}: {value}")
    return OK


def gc(inv: Invocation) -> int:
    """``gc``: ends with a forced shutdown, whose refusal changes nothing."""
    with forced_shutdown(inv):
        inv.store.garbage_collect()
        if inv.json:
            inv.out.json("")
    return OK


@contextmanager
def forced_shutdown(inv: Invocation) -> Iterator[None]:
    """Unmount everything after the block; what was mounted is told on standard error.

    Also after an error, but not after an interrupt: who hurries wants nothing more done.
    """
    problem: Exception | None = None
    try:
        yield
    except Exception as error:
        problem = error
    try:
        inv.store.shutdown(force=True)
    except (StorageError, OSError) as error:
        inv.out.error(f"shutdown: {describe(error)}")
    if problem is not None:
        raise problem


def wipe(inv: Invocation) -> int:
    """``wipe``."""
    try:
        inv.store.wipe()
    except (StorageError, OSError) as error:
        return _failed(inv, f"wipe: {describe(error)}")
    if inv.json:
        inv.out.json("")
    return OK


def shutdown(inv: Invocation) -> int:
    """``shutdown``: fails when something was mounted, also if ``--force`` unmounted it."""
    try:
        inv.store.shutdown(force=inv.flag("force"))
    except (StorageError, OSError) as error:
        return _failed(inv, f"shutdown: {describe(error)}")
    if inv.json:
        inv.out.json("")
    return OK


def dedup(inv: Invocation) -> int:
    """``dedup``."""
    method = inv.text("hash_method")
    if method not in ("crc", "size", "sha256"):
        inv.out.error(f"invalid hash method: {method}")
        return FAILED
    try:
        saved = inv.store.dedup(method)
    except (StorageError, OSError) as error:
        return _failed(inv, f"dedup: {describe(error)}")
    if inv.json:
        inv.out.json({"Deduped": saved})
    else:
        inv.out.line(f"Deduplicated {saved} bytes")
    return OK


def _failed(inv: Invocation, text: str) -> int:
    """The error as a line; as JSON the empty object that the original makes of it, and no more."""
    if inv.json:
        inv.out.json({})
    else:
        inv.out.error(text)
    return FAILED


def config(inv: Invocation) -> int:
    """``config``: the configuration, not what flags made of it."""
    from cstorage.config import load, to_json

    inv.out.line(to_json(load()))
    return OK
