"""One run of one command: what was asked, where output goes, and the open store.

Rules: text leaves as UTF-8 with the bytes of badly encoded arguments restored; standard output is
flushed before anything goes to standard error, so that both in one stream keep their order.
"""

from __future__ import annotations

import os
import sys

from cstorage.cli.quoting import Json, json_text
from journal.plain import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from cstorage.cli.command import Command
    from cstorage.cli.goflags import Value
    from cstorage.store.store import Store

OK = 0
FAILED = 1
INTERNAL = 2
BAD_FLAG = 125
INTERRUPTED = 130
BROKEN_PIPE = 141


class OutputRefused(Exception):
    """Standard output could not take its text; ``str()`` says why."""


class Output:
    """Standard output and standard error as bytes."""

    def __init__(self, stdout: BinaryIO, stderr: BinaryIO) -> None:
        self._stdout = stdout
        self._stderr = stderr

    @classmethod
    def standard(cls) -> Output:
        return cls(_bytes_of(sys.stdout), _bytes_of(sys.stderr))

    @property
    def raw(self) -> BinaryIO:
        """Standard output itself, for data that is not text."""
        return self._stdout

    @property
    def on_terminal(self) -> bool:
        """Whether somebody looks at standard error while the command runs."""
        return self._stderr.isatty()

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        try:
            while data:  # a stream that Python does not buffer may take less than all
                data = data[self._stdout.write(data) :]
        except OSError as error:
            raise _refused(error) from error

    def line(self, text: str) -> None:
        self.write(f"{text}\n")

    def json(self, value: Json) -> None:
        """One document on one line."""
        self.line(json_text(value))

    def error(self, text: str) -> None:
        """One line on standard error."""
        self.error_write(f"{text}\n")

    def error_write(self, text: str) -> None:
        self.flush()
        self._stderr.write(text.encode("utf-8", "surrogateescape"))
        self._stderr.flush()

    def flush(self) -> None:
        try:
            self._stdout.flush()
        except OSError as error:
            raise _refused(error) from error


def _refused(error: OSError) -> Exception:
    """What to raise for a failed write: a reader that went away is not worth a message."""
    if isinstance(error, BrokenPipeError):
        return error
    return OutputRefused(f"write /dev/stdout: {os.strerror(error.errno or 0).lower()}")


def _bytes_of(stream: object) -> BinaryIO:
    """The binary stream below ``stream``; the null device where the process has none."""
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        return open(os.devnull, "wb")
    return buffer  # type: ignore[no-any-return]


class Invocation:
    """What a command's handler gets."""

    def __init__(
        self,
        *,
        command: Command,
        typed: str,
        args: list[str],
        values: dict[str, Value],
        store: Store,
        out: Output,
        configured: bool,
    ) -> None:
        self.command = command
        self.typed = typed
        self.args = args
        self.values = values
        self.store = store
        self.out = out
        self.configured = configured
        """Whether the configuration was read, because nothing before the command forbade it."""

    def flag(self, key: str) -> bool:
        """A boolean flag's value; False where the command has no such flag."""
        return bool(self.values.get(key, False))

    def text(self, key: str) -> str:
        """A string flag's value, "" where it was not given."""
        value = self.values.get(key, "")
        assert isinstance(value, str)
        return value

    def many(self, key: str) -> tuple[str, ...]:
        """A list flag's values in the order given."""
        value = self.values.get(key, ())
        assert isinstance(value, tuple)
        return value

    @property
    def json(self) -> bool:
        return self.flag("json")

    def arg(self, index: int) -> str:
        """The argument at ``index``, "" where there are fewer."""
        return self.args[index] if index < len(self.args) else ""
