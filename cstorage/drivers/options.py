"""Driver option strings: ``key=value`` or ``driver.key=value``.

Rules (semantics §3.1, drivers-and-formats §3.1): keys are case-insensitive; a prefix naming another
known driver makes the option irrelevant; an unknown prefix, a missing ``=`` or a key that the
driver does not know is fatal. Everything here is pure.
"""

from __future__ import annotations

from cstorage.errors import DriverError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KNOWN_DRIVERS = ("overlay", "overlay2", "btrfs", "zfs", "vfs")
"""Names that may prefix an option, whether or not the driver is available here."""

IMAGE_STORE_KEYS = ("imagestore", "additionalimagestore")

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def canonical(driver: str) -> str:
    """The name a driver answers to: ``overlay2`` is ``overlay``."""
    return "overlay" if driver == "overlay2" else driver


def parse(text: str) -> tuple[str, str, str]:
    """``(driver, key, value)`` of an option; driver "" = any. Raises ``DriverError``."""
    name, separator, value = text.partition("=")
    if not separator:
        raise DriverError(f"unable to parse key/value option: {text}")
    driver, dot, key = name.strip().lower().partition(".")
    if not dot:
        return "", driver, value.strip()
    if driver and driver not in KNOWN_DRIVERS:
        raise DriverError(f'unknown driver "{driver}" in option "{text}"')
    return canonical(driver), key, value.strip()


def addressed_to(driver: str, options: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """``(key, value, original text)`` of the options that concern ``driver``, in order."""
    for text in options:
        prefix, key, value = parse(text)
        if prefix in {"", driver}:
            yield key, value, text


def unknown(key: str, text: str) -> DriverError:
    """The error for a key that the addressed driver does not have."""
    return DriverError(f'unknown option "{key}" ("{text}")')


def boolean(value: str) -> bool:
    """A truth value in the forms that Go accepts."""
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise DriverError(f'strconv.ParseBool: parsing "{value}": invalid syntax')


def byte_size(value: str) -> int:
    """A size with an optional unit (``b k m g t p``, ``kb``, ``kib`` …), factor 1024."""
    text = value.strip().lower()
    digits = text.rstrip("bikmgtp ")
    unit = text[len(digits) :].strip().removesuffix("b").removesuffix("i")
    try:
        number = float(digits)
        factor = _UNITS[unit]
    except (ValueError, KeyError):
        raise DriverError(f"invalid size: '{value}'", hint="write it like 10g or 512m") from None
    if not 0 <= number < 1 << 63:
        raise DriverError(f"invalid size: '{value}'", hint="write it like 10g or 512m")
    return int(number * factor)


def additional_stores(driver: str, options: Iterable[str]) -> tuple[str, ...]:
    """Paths of additional image stores named in the options, in order, without repetition."""
    found: dict[str, None] = {}
    for key, value, _ in addressed_to(driver, options):
        if key in IMAGE_STORE_KEYS:
            found.update(dict.fromkeys(part for part in value.split(",") if part))
    return tuple(found)
