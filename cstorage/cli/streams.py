"""Files and standard streams that commands read from and write to.

What is read from has no buffer: closing one waits for a read that a thread has under way, so that
an interrupt could not end a command whose input has stalled.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from cstorage.cli.invocation import OutputRefused
from cstorage.cli.wording import FileRefused, open_file, system_text
from journal.plain import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from cstorage.cli.invocation import Invocation

_PIPE = 1 << 20  # as much as the kernel lets anybody have
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""What only a write can meet, so that it is the target's fault whoever met it."""


def source(inv: Invocation) -> BinaryIO:
    """What ``--file`` names, else standard input; the caller closes it."""
    path = inv.text("file")
    if path:
        return cast("BinaryIO", os.fdopen(open_file(path, "r"), "rb", buffering=0))
    return standard_input()


def standard_input() -> BinaryIO:
    """Standard input as bytes; closing it leaves descriptor 0 open."""
    buffer = getattr(sys.stdin, "buffer", None)
    if buffer is None:
        raise FileRefused("read /dev/stdin: bad file descriptor")
    try:
        fd = os.dup(buffer.fileno())
    except (OSError, ValueError):  # not a descriptor: a stream put in its place
        return buffer  # type: ignore[no-any-return]
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)
    except OSError:
        pass  # not a pipe, or the user has too many
    return cast("BinaryIO", os.fdopen(fd, "rb", buffering=0))


def read_all(path: str) -> bytes:
    """The whole content of the file ``path``."""
    with os.fdopen(open_file(path, "r"), "rb") as file:
        try:
            return file.read()
        except OSError as error:
            error.filename = path
            raise FileRefused(system_text(error, "read")) from None


class Target:
    """Where data goes: the file that ``--file`` names, made or emptied at once, else stdout."""

    def __init__(self, inv: Invocation) -> None:
        path = inv.text("file")
        self._name = path or "/dev/stdout"
        self._file: BinaryIO | None = None
        if path:
            self._file = os.fdopen(open_file(path, "w"), "wb", buffering=0)
        else:
            inv.out.flush()
        self.stream: BinaryIO = self._file or inv.out.raw

    def __enter__(self) -> BinaryIO:
        return self.stream

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            if self._file is None:
                self.stream.flush()
            else:
                self._file.close()
        except OSError as failure:
            if error is None:
                error = failure
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            error.filename = self._name
            refused = OutputRefused if self._file is None else FileRefused
            raise refused(system_text(error, "write")) from None
        if error is not None:
            raise error
