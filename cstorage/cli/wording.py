"""Errors as one line of text, worded as the original words them.

The system's errors read ``open FILE: no such file or directory``: verb, path, cause in lower case.
"""

from __future__ import annotations

import os
import stat
import time

from cstorage.cli.quoting import go_quote
from cstorage.errors import StorageError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def describe(error: BaseException) -> str:
    """What to tell a person about ``error``: one line, with the way out where one is known."""
    if isinstance(error, StorageError):
        text = str(error)
        if error.hint and error.hint not in text:
            text = f"{text}; {error.hint}"
    elif isinstance(error, OSError) and error.errno is not None:
        text = system_text(error)
    else:
        text = str(error) or type(error).__name__
    return "; ".join(line for line in text.splitlines() if line) or type(error).__name__


def system_text(error: OSError, verb: str = "") -> str:
    """A system error as ``[VERB ]PATH: cause``."""
    cause = _cause(error.errno or 0)
    name = error.filename
    if name is None or isinstance(name, int):
        return f"{verb}: {cause}" if verb else cause
    path = os.fsdecode(name)
    return f"{verb} {path}: {cause}" if verb else f"{path}: {cause}"


def _cause(number: int) -> str:
    """The system's words for an error number, beginning in lower case unless an abbreviation."""
    text = os.strerror(number)
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


class FileRefused(Exception):
    """A file named on the command line cannot be opened; ``str()`` is the line to print."""


def open_file(path: str | Path, mode: str) -> int:
    """A descriptor of the file ``path`` for reading (``r``) or written anew (``w``)."""
    flags = os.O_RDONLY if mode == "r" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        opened = os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise FileRefused(system_text(error, "open")) from None
    if stat.S_ISDIR(os.fstat(opened).st_mode):
        os.close(opened)
        raise FileRefused(f"read {path}: is a directory")
    return opened


def log_line(level: str, text: str, fields: Mapping[str, object] | None = None) -> str:
    """``text`` as the original's logger writes it, with the time of now."""
    now = time.localtime()
    offset = time.strftime("%z", now)
    zone = "Z" if offset in ("+0000", "") else f"{offset[:3]}:{offset[3:]}"
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', now)}{zone}"
    rest = "".join(f" {key}={go_quote(str(value))}" for key, value in (fields or {}).items())
    return f'time="{stamp}" level={level} msg={go_quote(text)}{rest}'
