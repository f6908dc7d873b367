"""The line of ``import-layer --progress``: bytes and entries so far, on standard error."""

from __future__ import annotations

from time import monotonic

from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.archive.apply import Progress
    from cstorage.cli.invocation import Output
    from cstorage.model import DiffSummary

_INTERVAL_S = 0.2


class ProgressLine:
    """Rewrites one line a few times a second; leaving the block ends the line."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._next = 0.0
        self._text = ""
        self._shown = ""

    def show(self, progress: Progress) -> None:
        """Take a report of the archive reader."""
        self._put(progress.compressed_bytes, progress.uncompressed_bytes, progress.entries)

    def finish(self, diff: DiffSummary) -> None:
        """The totals of the finished import."""
        self._next = 0.0
        self._put(diff.compressed_size, diff.uncompressed_size, diff.entries)

    def _put(self, read: int, unpacked: int, entries: int) -> None:
        self._text = f"{read} bytes read, {unpacked} unpacked, {entries} entries"
        now = monotonic()
        if now >= self._next:
            self._next = now + _INTERVAL_S
            self._print()

    def _print(self) -> None:
        self._shown = self._text
        self._out.error_write(f"\r{self._text}\x1b[K")

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._text:
            if self._text != self._shown:
                self._print()
            self._out.error_write("\n")
