"""One frame to be written, and its outcome.

Rules of this module:

* A request is checked for size when it is made, before any lock is taken.
* After an append it has either a result or an error; neither means the outcome is unknown.
"""

from __future__ import annotations

from journal import frame as fr
from journal.errors import InvalidRecord
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from journal.position import Position


class Committed(NamedTuple):
    """The answer to a commit: event numbers and the place after its frame."""

    first_sequence: int
    last_sequence: int
    position: Position


class Request:
    """One frame to be written, and its outcome."""

    __slots__ = ("body", "count", "error", "expected", "kind", "reserve", "result", "txid")

    def __init__(
        self,
        kind: int,
        body: bytes,
        count: int,
        expected: int | None = None,
        txid: bytes | None = None,
        reserve: bool = False,
    ) -> None:
        if len(body) > fr.MAX_BODY:
            raise InvalidRecord(
                f"a transaction of {len(body)} bytes is larger than {fr.MAX_BODY}: split it"
            )
        self.kind = kind
        self.body = body
        self.count = count
        self.expected = expected
        self.txid = txid
        self.reserve = reserve
        self.result: Committed | None = None
        self.error: BaseException | None = None
