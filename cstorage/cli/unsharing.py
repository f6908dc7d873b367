"""``unshare``: a command in a new user namespace."""

from __future__ import annotations

import os

from cstorage.cli.invocation import FAILED, OK
from cstorage.cli.quoting import go_quote
from cstorage.cli.wording import system_text
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.cli.invocation import Invocation


def unshare(inv: Invocation) -> int:
    """Run the command, by default the user's shell; any failure of it is exit status 1."""
    from cstorage.cli.namespace import configured, run_inside

    inv.out.flush()
    if configured():
        return _execute(inv)
    return run_inside(lambda: _execute(inv))


def _execute(inv: Invocation) -> int:
    import signal
    import subprocess

    words = inv.args or [os.environ.get("SHELL") or "/bin/sh"]
    try:
        code = subprocess.run(words, check=False).returncode
    except OSError as error:
        if isinstance(error, FileNotFoundError) and "/" not in words[0]:
            inv.out.error(f"exec: {go_quote(words[0])}: executable file not found in $PATH")
        else:
            error.filename = words[0]
            inv.out.error(system_text(error, "fork/exec"))
        return FAILED
    if code < 0:
        name = signal.strsignal(-code) or f"signal {-code}"
        inv.out.error(f"signal: {name.lower()}")
    elif code:
        inv.out.error(f"exit status {code}")
    return FAILED if code else OK
