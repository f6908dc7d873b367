"""Transaction ids of the last segments: a retry must not be recorded twice.

Rules of this module:

* Only ids that a caller gave are refused, but all that the log holds are known: the first attempt
  may have been another process's.
* Read from the log at the first question, then kept up with what is read and written.
"""

from __future__ import annotations

from journal import frame as fr
from journal import segment as sg
from journal.cursor import Cursor
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from journal.fs import Fs
    from journal.request import Request

SEGMENTS = 2
"""How far back a given transaction id is looked for, in segments."""


class Recent:
    """Transaction ids and the first sequence number of each."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: dict[bytes, int] | None = None

    @property
    def wanted(self) -> list[fr.Frame] | None:
        """Where frames that are read for other reasons are to be collected, if anywhere."""
        return None if self.known is None else []

    def forget(self) -> None:
        """Frames may have been passed over: read the log again when asked."""
        self.known = None

    def read(self, frames: list[fr.Frame] | None) -> None:
        """Note frames that other processes wrote."""
        if self.known is not None:
            for found in frames or ():
                if found.kind == fr.DATA:
                    self.known[found.transaction().txid] = found.first_sequence

    def wrote(self, requests: list[Request]) -> None:
        """Note what this process wrote."""
        if self.known is not None:
            for request in requests:
                if request.txid and request.result is not None:
                    self.known[request.txid] = request.result.first_sequence

    def find(self, fs: Fs, root: str, uuid: bytes, last: int, txid: bytes) -> int:
        """First sequence of a recent transaction with this id, 0 if there is none; ``last`` is the
        number of the last segment."""
        if self.known is None:
            self.known = {}
            begin = max(1, last - SEGMENTS + 1)
            while begin < last and not sg.exists(fs, root, begin):
                begin += 1
            scan = Cursor(fs, root, uuid, number=begin)
            try:
                frames: list[fr.Frame] = []
                while scan.read(frames):
                    self.read(frames)
                    frames.clear()
            except BaseException:
                self.known = None  # read by halves it would let a repetition pass
                raise
            finally:
                scan.close()
        return self.known.get(txid, 0)
