"""Deterministic CBOR: the values a journal carries and the bytes they become.

Rules of this module (RFC 8949 section 4.2.1; docs/journal-format.md, section 5):

* Values are ``None``, booleans, integers of 64 bits, text, bytes, lists, and maps with text keys.
  No floats, no tags, no sets, no indefinite lengths, no duplicate keys.
* ``cbor2``'s canonical order (length first) equals the order of 4.2.1 when all keys are text.
* ``decode`` refuses what ``encode`` cannot have produced, except for the shape of integers and the
  order of keys, which ``strict`` proves by encoding again.
"""

from __future__ import annotations

from journal.errors import InvalidRecord
from journal.plain import Any, NoReturn, compiled

MAX_DEPTH = 32
_SCALARS = frozenset((str, bytes, bool, type(None)))
_LOW, _HIGH = -(1 << 63), 1 << 64
_loads: Any = None
_dumps: Any = None
_refusing: dict[int, Any] = {}


def _refuse_tag(*_: Any) -> NoReturn:
    raise ValueError("tags are not part of the format")


def quick_cbor() -> Any:
    """``cbor2`` without what its package imports for annotations: a fifth of a command's start."""
    return compiled("cbor2", "_cbor2")


def _load() -> None:
    """Import the codec at first use: half of the package's users only look at positions."""
    global _loads, _dumps  # noqa: PLW0603 - late import
    cbor = quick_cbor()
    for tag in (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 43000, 52, 54, 100, 256, 258, 260,
                261, 1004, 55799):  # fmt: skip
        _refusing[tag] = _refuse_tag
    _dumps = cbor.dumps
    _loads = cbor.loads


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind is int:
        if not _LOW <= value < _HIGH:
            raise InvalidRecord(f"integer {value} does not fit 64 bits")
    elif kind in _SCALARS:
        return
    elif kind is list or kind is tuple or isinstance(value, (list, tuple)):
        if depth >= MAX_DEPTH:
            raise InvalidRecord(f"value nests deeper than {MAX_DEPTH}")
        for item in value:
            # Most items are plain: a call for each of them would cost more than the encoding.
            inner = type(item)
            if inner in _SCALARS or (inner is int and _LOW <= item < _HIGH):
                continue
            _check(item, depth + 1)
    elif kind is dict:
        if depth >= MAX_DEPTH:
            raise InvalidRecord(f"value nests deeper than {MAX_DEPTH}")
        for key, item in value.items():
            if type(key) is not str:
                raise InvalidRecord(f"map key {key!r} is not text")
            _check(item, depth + 1)
    elif isinstance(value, (str, bytes, int)):
        raise InvalidRecord(f"{type(value).__name__} is not a plain value: convert it first")
    else:
        raise InvalidRecord(f"a value of type {type(value).__name__} cannot be recorded")


def encode(value: Any) -> bytes:
    """The one byte form of ``value``; ``InvalidRecord`` names what cannot be carried."""
    if _dumps is None:
        _load()
    _check(value, 0)
    try:
        return _dumps(value, canonical=True)  # type: ignore[no-any-return]
    except (ValueError, UnicodeError, OverflowError) as error:
        raise InvalidRecord(f"cannot be recorded: {error}") from error


def decode(data: bytes) -> Any:
    """The value; ``InvalidRecord`` for anything the format does not allow."""
    if _loads is None:
        _load()
    try:
        return _loads(
            data,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            max_depth=MAX_DEPTH + 4,
            tag_hook=_refuse_tag,
            semantic_decoders=_refusing,
        )
    except Exception as error:  # the decoder's errors share no base with those of hooks
        raise InvalidRecord(f"not a record: {error}") from error


def strict(data: bytes) -> Any:
    """``decode``, then prove that ``data`` is the one byte form of the value."""
    value = decode(data)
    if encode(value) != data:
        raise InvalidRecord("not in deterministic form")
    return value
