"""Text forms that scripts read: Go quoting, JSON, time stamps. Pure.

Strings may hold surrogate escapes (bytes of an argument or a path that are no UTF-8): quoting
shows them as ``\\xNN``, JSON as the escape of U+FFFD (cli.md §2.2, §2.3, §7.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import gmtime

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

_JSON_ESCAPES: dict[int, str] = {
    **{code: f"\\u{code:04x}" for code in range(0x20)},
    **{ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"},
    **dict.fromkeys(range(0xD800, 0xE000), "\\ufffd"),  # bytes that are no UTF-8
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    ord("\b"): "\\b",
    ord("\f"): "\\f",
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}


def well_formed(text: str) -> str:
    """``text`` with every byte that is no UTF-8 replaced by U+FFFD, as records store it."""
    if text.isascii():
        return text
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


def go_quote(text: str | bytes) -> str:
    """``text`` in double quotes with the escapes of Go's ``%q``."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    from cstorage.store import lookup

    return lookup.go_quote(text)


def json_string(text: str) -> str:
    """``text`` as a JSON string with exactly the original's escapes."""
    return '"' + text.translate(_JSON_ESCAPES) + '"'


def json_text(value: Json) -> str:
    """``value`` as compact JSON; mappings keep the order they have."""
    return "".join(_json_parts(value))


def _json_parts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield json_string(value)
    elif value is None:
        yield "null"
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, int):
        yield str(int(value))
    elif isinstance(value, float):
        yield _go_float(value)
    elif isinstance(value, Mapping):
        yield "{"
        comma = ""
        for key, item in value.items():
            yield f"{comma}{json_string(key)}:"
            yield from _json_parts(item)
            comma = ","
        yield "}"
    else:
        yield "["
        comma = ""
        for item in value:
            if comma:
                yield comma
            yield from _json_parts(item)
            comma = ","
        yield "]"


def _go_float(value: float) -> str:
    """A number as Go's encoder writes a float64: no ``.0``, exponents below 1e-6 and from 1e21."""
    if value - value != 0:  # infinities and NaN have no JSON form
        return "null"
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    mantissa, mark, power = repr(value).partition("e")
    if not mark:
        return mantissa
    exponent = int(power)
    if exponent >= -6:
        sign, digits = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
        if exponent < 0:
            return f"{sign}0.{'0' * (-exponent - 1)}{digits.replace('.', '')}"
    return f"{mantissa}e{exponent:+d}"


def by_key(mapping: Mapping[str, Json]) -> dict[str, Json]:
    """``mapping`` in the order in which the original writes its maps: keys by byte order."""
    return {key: mapping[key] for key in sorted(mapping, key=_key_bytes)}


def _key_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def timestamp(time_ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC; 0 is the original's unset time."""
    if time_ns == 0:
        return "0001-01-01T00:00:00Z"
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    at = gmtime(seconds)
    text = f"{at[0]:04d}-{at[1]:02d}-{at[2]:02d}T{at[3]:02d}:{at[4]:02d}:{at[5]:02d}"
    if fraction:
        text += f".{fraction:09d}".rstrip("0")
    return text + "Z"
