"""Recipes: everything of an archive except file contents, in the format of ``tar-split``.

A recipe is gzip around one JSON object per line, in stream order (drivers-and-formats §7):

    {"type":2,"payload":"<base64>","position":0}                      raw bytes
    {"type":1,"name":"bin/sh","size":400,"payload":"<base64>","position":1}   content of a file

``payload`` of a file is the CRC-64 (ISO 3309, big-endian) of its content; a member without content
has ``null`` and no ``size``. A name that is not UTF-8 stands in ``name_raw``, base64.

Rules of this module:

* Written so that the reference's tools reassemble the archive exactly. Where they would not
  (content not found under the member's name: sparse members, skipped entries) the content itself
  is written as raw bytes.
* The same archive always gives the same recipe, byte for byte.
* Assembly checks size and CRC of every file and says which one changed; what was already handed to
  the sink by then is wrong, so a consumer commits only after ``assemble`` returned.
"""

from __future__ import annotations

import binascii
import re

from cstorage.errors import ArchiveError, ArchiveTruncated
from journal.plain import TYPE_CHECKING, Any, compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from cstorage.archive.compression import ByteSink, ByteSource
    from cstorage.archive.twin import Twin

PIECE = 1 << 20
"""Most raw bytes in one segment."""

_LINE_MAX = 16 << 20  # 8 MiB of headers in base64, with room: no recipe of ours has longer lines
_BATCH = 1 << 18  # bytes compressed at once
_FILE = (
    b'{"type":2,"payload":"%s","position":%d}\n'
    b'{"type":1,%s"size":%d,"payload":"%s","position":%d}\n'
)
_ALIKE_SPELLED = _FILE.replace(b"%s", b"%s%s%s", 1)
_ALIKE = _ALIKE_SPELLED.replace(b'1,%s"', b'1,"name":"%s","')
_PARTS, _NAME = 8, 4  # what either takes, and which of them the name is
_ALIKE_MAX = 128
_READ = 15 << 13  # the allocator gives larger ones back each time, and gets new pages
_go_iso: Callable[[bytes | memoryview, int], int] | None = None
_PADDINGS = [b"AAAA" * threes for threes in range(512 // 3 + 1)]
_ZERO_THREES = [bytes(3 * threes) for threes in range(512 // 3 + 1)]
"""Zeros that pad a file, by threes, as the text has them and as the archive has."""
_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\<>&')
"""Bytes that stand for themselves in the JSON of the reference (it escapes ``<``, ``>``, ``&``)."""


def crc64(data: bytes | memoryview, start: int = 0) -> int:
    """CRC-64/GO-ISO of ``data``, continuing from ``start`` (0 at the beginning)."""
    global _go_iso  # noqa: PLW0603
    if _go_iso is None:
        _go_iso = compiled("fastcrc", "fastcrc").crc64.go_iso
        assert _go_iso is not None
    return _go_iso(data, start)


def json_string(text: str) -> str:
    """``text`` as a JSON string spelled as the reference spells it."""
    import json

    out = json.dumps(text, ensure_ascii=False)
    for char, escape in (
        ("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"),
        ("\u2028", "\\u2028"), ("\u2029", "\\u2029"),
    ):  # fmt: skip
        out = out.replace(char, escape)
    return out


def _name_field(name: bytes) -> bytes:
    if not name.translate(None, _PLAIN):
        return b'"name":"%s",' % name
    try:
        return b'"name":%s,' % json_string(name.decode()).encode()
    except UnicodeDecodeError:
        return b'"name_raw":"%s",' % binascii.b2a_base64(name, newline=False)


class RecipeWriter:
    """Writes a recipe to ``sink``; ``close`` ends the gzip stream (the sink stays open)."""

    def __init__(self, sink: ByteSink) -> None:
        import zlib

        try:
            from isal import isal_zlib

            self._gzip: Any = isal_zlib.compressobj(1, wbits=31)
        except ImportError:
            self._gzip = zlib.compressobj(1, wbits=31)
        self._sink = sink
        self._lines: list[bytes] = []
        self._pending = 0  # bytes in them
        self._position = 0
        # Parts of lines that ``alike`` wrote, ``_PARTS`` each, behind ``_lines``.
        self._parts: list[bytes | int] = []
        self._rest = b""
        self._tails: list[bytes] = []

    def _line(self, line: bytes) -> None:
        self._position += 1
        self._put(line)

    def _put(self, lines: bytes) -> None:
        if self._parts:
            self._write_alike()
        self._lines.append(lines)
        self._pending += len(lines)
        if self._pending >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        """Compress whole batches: how the text came in parts must not show in the result."""
        text = b"".join(self._lines)
        view = memoryview(text)
        whole = len(text) - len(text) % _BATCH
        for at in range(0, whole, _BATCH):
            if out := self._gzip.compress(view[at : at + _BATCH]):
                self._sink.write(out)
        self._lines = [text[whole:]]
        self._pending = len(text) - whole

    def segment(self, data: bytes | memoryview) -> None:
        """Raw bytes of the archive (headers, padding, contents that are kept here)."""
        self._line(
            b'{"type":2,"payload":"%s","position":%d}\n'
            % (binascii.b2a_base64(data, newline=False), self._position)
        )

    def file(self, name: bytes, size: int = 0, crc: int = 0) -> None:
        """A member whose content (``size`` bytes, 0 for none kept elsewhere) belongs here."""
        if size:
            payload = binascii.b2a_base64(crc.to_bytes(8, "big"), newline=False)
            self._line(
                b'{"type":1,%s"size":%d,"payload":"%s","position":%d}\n'
                % (_name_field(name), size, payload, self._position)
            )
        else:
            self._line(
                b'{"type":1,%s"payload":null,"position":%d}\n' % (_name_field(name), self._position)
            )

    def member(self, segment: bytes, name: bytes, size: int, crc: int) -> None:
        """``segment`` and ``file`` of one member at once: most of a recipe is made of these."""
        position = self._position
        self._position = position + 2
        if size:
            lines = _FILE % (
                binascii.b2a_base64(segment, newline=False), position, _name_field(name), size,
                binascii.b2a_base64(crc.to_bytes(8, "big"), newline=False), position + 1,
            )  # fmt: skip
        else:
            lines = (
                b'{"type":2,"payload":"%s","position":%d}\n'
                b'{"type":1,%s"payload":null,"position":%d}\n'
            ) % (
                binascii.b2a_base64(segment, newline=False), position,
                _name_field(name), position + 1,
            )  # fmt: skip
        self._put(lines)

    def begin_alike(self, head: bytes) -> None:
        """``alike`` members follow, whose blocks are ``head`` from the 157th byte on."""
        if head[156:] != self._rest:
            self._rest = head[156:]
            # Base64 goes by threes, and what is in front may have any length.
            self._tails = [binascii.b2a_base64(head[156 + n :], newline=False) for n in (0, 2, 1)]

    def alike(self, chunk: bytes, start: int, at: int, name: bytes, size: int, crc: int) -> None:
        """``member`` whose segment is ``chunk`` from ``start`` to the end of the block ``at``."""
        if not size:
            self.member(chunk[start : at + 512], name, 0, 0)
            return
        padding = at - start
        threes = padding // 3
        if chunk.startswith(_ZERO_THREES[threes], start):
            start += 3 * threes
        else:
            threes = 0
        position = self._position
        self._position = position + 2
        encode = binascii.b2a_base64
        parts = self._parts
        parts += (
            _PADDINGS[threes],
            encode(chunk[start : at + 156 + -padding % 3], newline=False),
            self._tails[padding % 3],
            position, name, size, encode(crc.to_bytes(8, "big"), newline=False), position + 1,
        )  # fmt: skip
        if len(parts) >= _ALIKE_MAX * _PARTS:
            self._write_alike()

    def _write_alike(self) -> None:
        """All at once: to make a text of 1 KiB for each takes longer than the rest of it."""
        parts, self._parts = self._parts, []
        names: list[Any] = parts[_NAME::_PARTS]
        if b"".join(names).translate(None, _PLAIN):
            parts[_NAME::_PARTS] = map(_name_field, names)
            lines = _ALIKE_SPELLED
        else:
            lines = _ALIKE
        self._put(lines * len(names) % tuple(parts))

    def close(self) -> None:
        if self._parts:
            self._write_alike()
        self._flush()
        self._sink.write(self._gzip.compress(b"".join(self._lines)))
        self._sink.write(self._gzip.flush())


RecipeEntry: TypeAlias = "tuple[bytes, bytes, int, bytes]"
"""Raw bytes of the archive; then a file: name, size of its content (0: no file), CRC-64."""

_RAW = b'{"type":2,"payload":"'
NEXT = b'\n{"type":2'
"""Where to cut a recipe's text: a file stays with what is in front of it."""
_REST = re.compile(
    rb'","position":[0-9]+\}\n'
    rb'(?:\{"type":1,"name":"([ !#-%\'-;=?-\[\]-~\x80-\xff]*)",(?:"size":([0-9]{1,18}),)?'
    rb'"payload":(?:null|"([^"\\]*)"),"position":[0-9]+\}\n)?'
)
"""What follows a payload of raw bytes, with the file behind it if there is one, as writers spell
it; other spellings are legal JSON, too, and take the long way."""

# Most of what is in front of a small file is known: zeros that pad the file before it, and the
# second half of its header, which is that of the file before unless it has another owner. To
# compare base64 costs a twentieth of decoding it.
_TAIL = 472
"""Characters of 352 to 354 bytes, which begin behind a header's type."""
_ENDS = frozenset((b"AA", b"A=", b"=="))


def read_recipe(recipe: ByteSource) -> Iterator[RecipeEntry]:
    """Entries of a recipe (gzip), in order.

    Raises ``ArchiveError`` if it is not one, ``ArchiveTruncated`` if its end is missing.
    """
    for text in read_text(recipe):
        yield from entries_of(text)


def entries_of(text: bytes) -> Iterator[RecipeEntry]:
    """Entries of whole lines of a recipe. Raises ``ArchiveError``."""
    decode = binascii.a2b_base64
    tails: dict[bytes, tuple[bytes, bytes]] = {}
    at, end = 0, len(text)
    padding = 0
    while at < end:
        try:
            start = at + len(_RAW)
            if text.startswith(_RAW, at) and (
                match := _REST.match(text, stop := text.find(b'"', start))
            ):
                skipped = _PADDINGS[padding // 3]
                if text.startswith(skipped, start):
                    start += len(skipped)
                    zeros = _ZERO_THREES[padding // 3]
                else:
                    zeros = b""
                last = stop - _TAIL
                ending = text[stop - 2 : stop]
                known = tails.get(ending)
                if known is not None and last >= start and text.startswith(known[0], last):
                    head = decode(text[start:last], strict_mode=True)
                    data = b"".join((zeros, head, known[1]))
                else:
                    data = decode(text[start:stop], strict_mode=True)
                    if last >= start and ending in _ENDS:
                        tail = text[last:stop]
                        tails[ending] = tail, data[-(_TAIL // 4 * 3 - tail.count(b"=")) :]
                    if zeros:
                        data = zeros + data
                at = match.end()
                name, length, crc = match.groups()
                if length is None:
                    yield data, b"", 0, b""
                    padding = 0
                else:
                    size = int(length)
                    yield data, name, size, decode(crc or b"", strict_mode=True)
                    padding = -size & 511
            else:
                stop = text.index(b"\n", at)
                if stop > at:
                    yield _entry(text[at:stop])
                at = stop + 1
                padding = 0
        except ValueError as error:
            raise ArchiveError(f"damaged recipe: {error}: {text[at : at + 80]!r}") from error


def read_text(recipe: ByteSource) -> Iterator[bytes]:
    """The decoded text in pieces of whole lines, each ended by a line feed, cut at ``NEXT``."""
    from cstorage.archive.compression import Decompressor

    stream = Decompressor(recipe)
    held: list[bytes] = []
    size = 0
    while data := stream.read(_READ):
        stop = (data.rfind(NEXT) + 1) or (data.rfind(b"\n") + 1)
        if stop:
            held.append(data[:stop])
            yield b"".join(held)
            held, size = [], 0
            data = data[stop:]
        held.append(data)
        size += len(data)
        if size > _LINE_MAX:
            raise ArchiveError("damaged recipe: a line of more than 16 MiB")
    if size:
        yield b"".join((*held, b"\n"))


def _entry(line: bytes) -> RecipeEntry:
    """One line, whatever its spelling."""
    import json

    try:
        record = json.loads(line)
        payload = record.get("payload")
        raw = binascii.a2b_base64(payload, strict_mode=True) if payload else b""
        if record["type"] == 2:
            return raw, b"", 0, b""
        if record["type"] != 1:
            raise ValueError(f"unknown type {record['type']!r}")
        if "name_raw" in record:
            name = binascii.a2b_base64(record["name_raw"], strict_mode=True)
        else:
            name = record.get("name", "").encode()
        size = record.get("size", 0)
        if not isinstance(size, int) or size < 0:
            raise ValueError("size out of range")
        return b"", name, size, raw
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArchiveError(f"damaged recipe: {error}: {line[:80]!r}") from error


def assemble(
    recipe: ByteSource,
    open_payload: Callable[[bytes], int],
    sink: ByteSink,
    *,
    digest: str = "",
    manifest: ByteSource | None = None,
    confirm: Callable[[int], object] | None = None,
    twin: Twin | None = None,
) -> int:
    """Write the archive that ``recipe`` describes to ``sink``; returns its size in bytes.

    ``open_payload(name)`` returns a descriptor of the regular file that holds the content of the
    member called ``name`` (as the archive spells it), from any one thread; the descriptor is closed
    here. ``manifest`` is the file list that the same import recorded: each
    file is then compared with its digest, which proves the archive if the caller vouches for both
    records. Otherwise ``digest`` (``sha256:hex``) is what the archive must come to.

    Raises ``ContentChanged`` naming the first file whose size or content is not the recorded one
    (or that cannot be opened), or if the whole has another digest; ``ArchiveError`` for a damaged
    recipe or manifest.
    """
    from cstorage.archive import assembly

    return assembly.assemble(
        recipe, open_payload, sink,
        digest=digest, manifest=manifest, confirm=confirm, twin=twin,
    )  # fmt: skip


__all__ = [
    "PIECE", "ArchiveTruncated", "RecipeEntry", "RecipeWriter", "assemble", "crc64",
    "json_string", "read_recipe",
]  # fmt: skip
