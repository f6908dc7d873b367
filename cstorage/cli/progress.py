"""The line that tells how far an import is: bytes, entries and rate so far, on standard error.

Rules of this module:

* On a terminal it appears by itself once an import has lasted ``_PATIENCE_S``; short ones say
  nothing. Where standard error is not a terminal only ``--progress`` brings it, at once.
* The block ends the line, also after an error or an interrupt, so that a message stands on its own.
"""

from __future__ import annotations

from time import monotonic

from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.archive.options import ApplyOptions, Progress
    from cstorage.cli.invocation import Invocation
    from cstorage.model import DiffSummary

_INTERVAL_S = 0.2
_PATIENCE_S = 0.5
_MIB = 1 << 20


class ProgressLine:
    """Rewrites one line a few times a second; leaving the block ends the line."""

    def __init__(self, inv: Invocation) -> None:
        self._out = inv.out
        asked = inv.flag("progress")
        self._wanted = asked or inv.out.on_terminal
        self._begun = monotonic()
        self._next = self._begun + (0.0 if asked else _PATIENCE_S)
        self._shown = ""

    def options(self, given: ApplyOptions | None) -> ApplyOptions | None:
        """``given`` with reports to this line, if it is wanted."""
        if not self._wanted:
            return given
        from cstorage.archive.options import ApplyOptions

        return (given or ApplyOptions())._replace(progress=self._report)

    def finish(self, diff: DiffSummary) -> None:
        """The totals of the finished import."""
        if self._shown or (self._wanted and monotonic() >= self._next):
            self._show(diff.compressed_size, diff.uncompressed_size, diff.entries)

    def _report(self, progress: Progress) -> None:
        now = monotonic()
        if now >= self._next:
            self._next = now + _INTERVAL_S
            self._show(*progress)

    def _show(self, read: int, unpacked: int, entries: int) -> None:
        rate = unpacked / _MIB / max(monotonic() - self._begun, 0.001)
        text = f"{read} bytes read, {unpacked} unpacked, {entries} entries, {rate:.1f} MiB/s"
        if text != self._shown:
            self._shown = text
            self._out.error_write(f"\r{text}\x1b[K")

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._out.error_write("\n")
