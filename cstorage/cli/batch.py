"""``batch``: many commands, one process; as one transaction with ``--atomic``.

Rules of this module:

* A line is split into words like a shell's, or is JSON. Global options belong to ``batch`` itself.
* Commands find standard input at its end: it belongs to ``batch``.
* The reason of a line replaces that of ``batch``, except with ``--atomic``: one change, one reason.
* A failing command changes nothing (every command is a transaction); without ``--atomic`` the next
  one runs. With it all lines are read before the first runs, because the writer lock is held.
"""

from __future__ import annotations

import os
from importlib import import_module

from cstorage.cli.command import GLOBAL_FLAGS, UNLIMITED, flags_of
from cstorage.cli.invocation import FAILED, OK, Invocation, Output
from cstorage.cli.wording import FileRefused, describe
from cstorage.errors import StorageError
from journal.plain import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEVER = frozenset(("batch", "unshare", "watch"))
"""Commands that make no sense among others."""
NOT_UNDONE = frozenset(
    (
        "applydiff",
        "applydiff-using-staging-dir",
        "check",
        "copy",
        "create-storage-layer",
        "dedup",
        "forget-deleted",
        "gc",
        "mount",
        "restore",
        "shutdown",
        "undo",
        "unmount",
        "wipe",
    )
)
"""Commands that do more than change the store's state, so that a transaction cannot hold them."""


class _Undone(Exception):
    """Leaves the transaction without committing it."""


def batch(inv: Invocation) -> int:
    """``batch``."""
    atomic = inv.flag("atomic")
    lines = _lines(inv.text("file"))
    if not atomic:
        failed = [_run(inv, at, line, atomic) != OK for at, line in lines]
        return FAILED if any(failed) else OK
    script = list(lines)
    try:
        with inv.store.transaction():
            for at, line in script:
                if _run(inv, at, line, atomic) != OK:
                    raise _Undone
    except _Undone:
        inv.out.error(f"batch: nothing was changed: line {at} failed")
        return FAILED
    return OK


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Number and text of each command line."""
    source: BinaryIO
    if path and path != "-":
        try:
            source = open(path, "rb")
        except OSError as error:
            raise FileRefused(f"{path}: {error.strerror}") from error
    else:
        source = os.fdopen(os.dup(0), "rb")
        void = os.open(os.devnull, os.O_RDONLY)
        os.dup2(void, 0)
        os.close(void)
    with source:
        for at, raw in enumerate(source, 1):
            line = raw.decode("utf-8", "surrogateescape").strip()
            if line and not line.startswith("#"):
                yield at, line


def _words(line: str) -> tuple[list[str], str]:
    """Words and reason of a line. Raises ``FileRefused`` saying what is wrong with it."""
    if line[0] not in "[{":
        import shlex

        try:
            return shlex.split(line), ""
        except ValueError as error:
            raise FileRefused(str(error)) from error
    import json

    try:
        value: Any = json.loads(line)
    except ValueError as error:
        raise FileRefused(f"not JSON: {error}") from error
    reason = ""
    if isinstance(value, dict):
        reason = str(value.get("reason", ""))
        value = value.get("args")
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise FileRefused('expected a list of words, or {"args": [...]}')
    return value, reason


def _run(inv: Invocation, at: int, line: str, atomic: bool) -> int:
    """One command; its exit status."""
    from io import BytesIO

    if not inv.json:
        try:
            return _command(inv, line, inv.out, atomic)
        except (StorageError, OSError, FileRefused) as error:
            inv.out.error(f"line {at}: {describe(error)}")
            return FAILED
    stdout, stderr = BytesIO(), BytesIO()
    out = Output(stdout, stderr)
    try:
        status = _command(inv, line, out, atomic)
    except (StorageError, OSError, FileRefused) as error:
        out.error(describe(error))
        status = FAILED
    inv.out.json(
        {
            "line": at,
            "status": status,
            "out": stdout.getvalue().decode("utf-8", "surrogateescape"),
            "err": stderr.getvalue().decode("utf-8", "surrogateescape"),
        }
    )
    inv.out.flush()
    return status


def _command(inv: Invocation, line: str, out: Output, atomic: bool) -> int:
    from cstorage.cli import goflags
    from cstorage.cli.table import find

    words, reason = _words(line)
    if not words:
        raise FileRefused("no command")
    typed, *rest = words
    command = find(typed)
    if command is None or command.name in NEVER:
        raise FileRefused(f"{typed}: not a command for batch")
    if atomic and command.name in NOT_UNDONE:
        raise FileRefused(f"{typed}: cannot be part of a transaction")
    given = {flag.key: inv.values[flag.key] for flag in GLOBAL_FLAGS}
    parsed = goflags.parse(rest, flags_of(command), given)
    if parsed.failed:
        raise FileRefused(f"{typed}: {next(r for r in parsed.reports if r != goflags.USAGE)}")
    args = parsed.rest
    if len(args) < command.least or (command.most != UNLIMITED and len(args) > command.most):
        raise FileRefused(f"{typed}: wrong number of arguments ({len(args)})")
    module, _, name = command.handler.partition(":")
    handler: Callable[[Invocation], int] = getattr(import_module(f"cstorage.cli.{module}"), name)
    with inv.store.because(reason):
        return handler(
            Invocation(
                command=command,
                typed=typed,
                args=args,
                values=parsed.values,
                store=inv.store,
                out=out,
                configured=inv.configured,
            )
        )
