"""mount, unmount, mounted: go on after a failing argument."""

from __future__ import annotations

from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.wording import describe
from cstorage.errors import ImageUnknown, LayerUnknown, StorageError
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cstorage.cli.invocation import Invocation


class _Result(NamedTuple):
    id: str
    mountpoint: str
    error: str


def mount(inv: Invocation) -> int:
    """``mount``: results are printed after all arguments have been tried."""
    results = []
    for arg in inv.args:
        try:
            if inv.flag("read_only"):
                path = inv.store.mount_image(arg, inv.text("label"))
            else:
                path = inv.store.mount(arg, inv.text("label"))
            results.append(_Result(arg, f"{path}", ""))
        except (StorageError, OSError) as error:
            results.append(_Result(arg, "", describe(error)))
    if inv.json:
        inv.out.json([result._asdict() for result in results])
    else:
        for result in results:
            if result.error:
                inv.out.error(f"{result.error} while mounting {result.id}")
            inv.out.line(result.mountpoint)
    return FAILED if any(result.error for result in results) else OK


def unmount(inv: Invocation) -> int:
    """``unmount``: the line for a finished unmount comes at once, also with ``--json``."""
    force = inv.flag("force")
    errors: list[tuple[str, str]] = []
    for arg in inv.args:
        text = ""
        try:
            if not inv.store.unmount(arg, force):
                inv.out.line(f"{arg} mountpoint unmounted")
        except LayerUnknown as error:
            text = _unmount_image(inv, arg, force, describe(error))
        except (StorageError, OSError) as error:
            text = describe(error)
        errors.append((arg, text))
    return _report(inv, errors, "while unmounting {}")


def _unmount_image(inv: Invocation, arg: str, force: bool, otherwise: str) -> str:
    """Unmount what ``mount -r`` mounted; the text of the failure, "" for success."""
    try:
        inv.store.unmount_image(arg, force)
    except (ImageUnknown, LayerUnknown):
        return otherwise
    except (StorageError, OSError) as error:
        return describe(error)
    return ""


def mounted(inv: Invocation) -> int:
    """``mounted``: says nothing about what is not mounted."""
    errors: list[tuple[str, str]] = []
    for arg in inv.args:
        text = ""
        try:
            if inv.store.mounted(arg):
                inv.out.line(f"{arg} mounted")
        except (StorageError, OSError) as error:
            text = describe(error)
        errors.append((arg, text))
    return _report(inv, errors, "checking if {} is mounted")


def _report(inv: Invocation, errors: list[tuple[str, str]], context: str) -> int:
    if inv.json:
        inv.out.json([{"id": arg, "error": text} for arg, text in errors])
    else:
        for arg, text in errors:
            if text:
                inv.out.error(f"{text} {context.format(arg)}")
    return FAILED if any(text for _, text in errors) else OK
