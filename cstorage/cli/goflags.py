"""The flag grammar of the command line, pure: words and a flag table in, values or reports out.

Rules (cli.md §1.3, probed on the original tool):

* ``--name value``, ``--name=value``, ``-x value``, ``-x=value``; parsing stops at the first word
  that is not a flag; ``--`` stops it and is dropped; a lone ``-`` is an argument.
* A boolean never takes the next word; any other flag takes it whatever it looks like.
* One pair of equal quotes around an ``=value`` is removed; a separate word is not touched.
* A single-dash word that is no flag itself is tried letter by letter, and its ``=value`` is lost.
* Repeating a string or a boolean: the last wins. Lists collect in order.

Nothing is printed here: the outcome carries what has to be said, in the order of saying it.
"""

from __future__ import annotations

from cstorage.cli.quoting import go_quote
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Value = str | bool | tuple[str, ...]
"""A string flag, a boolean flag, or a list flag; which one is fixed by the flag's ``kind``."""

BOOL = "bool"
STRING = "string"
LIST = "list"

TRUE_WORDS = frozenset(("1", "t", "T", "true", "TRUE", "True"))
FALSE_WORDS = frozenset(("0", "f", "F", "false", "FALSE", "False"))

USAGE = ""
"""A report that asks for the usage text instead of a message line."""


class Flag(NamedTuple):
    """One flag: every spelling with its dashes, the kind of its value, one line of help.

    ``deprecated`` spellings are accepted with a warning and not shown.
    """

    spellings: tuple[str, ...]
    kind: str
    help: str
    deprecated: tuple[str, ...] = ()
    default: str = ""

    @property
    def key(self) -> str:
        """Name of the value: the first spelling without dashes in front, ``_`` inside."""
        return self.spellings[0].lstrip("-").replace("-", "_")

    @property
    def unset(self) -> Value:
        """The value of a flag that nobody gave."""
        if self.kind == BOOL:
            return False
        return self.default if self.kind == STRING else ()


class Outcome(NamedTuple):
    """What a parse came to.

    ``reports`` holds failure messages in the order to print them, with ``USAGE`` standing for the
    usage text (an unregistered ``-h``, ``-help`` or ``--help`` was met); it is empty exactly when
    the parse succeeded. ``warnings`` lists the deprecated spellings that were used.
    """

    values: dict[str, Value]
    rest: list[str]
    reports: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return bool(self.reports)


class _Refused(Exception):
    """The word cannot be parsed; ``text`` is what to say, ``USAGE`` if help was asked for."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class _Unknown(Exception):
    """A single-dash word that is not a flag as a whole; ``name`` is it without the dash."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


def unset_values(flags: Sequence[Flag]) -> dict[str, Value]:
    """The values of ``flags`` when none of them is given."""
    return {flag.key: flag.unset for flag in flags}


def parse(words: Sequence[str], flags: Sequence[Flag], given: Mapping[str, Value]) -> Outcome:
    """Parse the flags at the front of ``words``.

    ``given`` holds values from an earlier parse or from configuration: strings and booleans are
    replaced by a repetition, lists are added to. Never raises on bad words: the outcome reports.
    """
    parser = _Parser(words, flags, given)
    try:
        while parser.step():
            pass
    except _Refused as refusal:
        parser.reports.append(refusal.text)
    return Outcome(
        parser.values,
        parser.words[parser.at :],
        tuple(parser.reports),
        tuple(parser.warnings),
    )


class _Parser:
    """Words still to read, values read so far."""

    def __init__(
        self, words: Sequence[str], flags: Sequence[Flag], given: Mapping[str, Value]
    ) -> None:
        self.words = list(words)
        self.at = 0
        self.values = unset_values(flags)
        self.values.update(given)
        self.reports: list[str] = []
        self.warnings: list[str] = []
        self._known: dict[str, Flag] = {}
        self._deprecated: set[str] = set()
        for flag in flags:
            for spelling in (*flag.spellings, *flag.deprecated):
                self._known[spelling] = flag
            self._deprecated.update(flag.deprecated)

    def step(self) -> bool:
        """Read one flag, or one bundle of letters; False at the end of the flags."""
        try:
            return self._flag()
        except _Unknown as unknown:
            name = unknown.name
        if len(name) < 2:
            raise _Refused(f"flag provided but not defined: -{name}")
        for letter in name:
            # Each letter is parsed as a word of its own, so it takes its value from what follows.
            self.at -= 1
            self.words[self.at] = f"-{letter}"
            try:
                self._flag()
            except _Refused as refusal:
                self.reports.append(refusal.text)
                raise _Refused(f"flag provided but not defined: -{name}") from None
            except _Unknown:
                raise _Refused(f"flag provided but not defined: -{name}") from None
        return True

    def _flag(self) -> bool:
        """Read one flag with its value; False if the next word is none."""
        if self.at >= len(self.words):
            return False
        word = self.words[self.at]
        if len(word) < 2 or word[0] != "-":
            return False
        if word == "--":
            self.at += 1
            return False
        if word[1] == "=":
            raise _Refused(f"bad flag syntax: {word}")
        self.at += 1
        name, equals, value = word.partition("=")
        flag = self._known.get(name)
        if flag is None:
            if name in ("--help", "-help", "-h"):
                raise _Refused(USAGE)
            if name.startswith("--"):
                raise _Refused(f"flag provided but not defined: {name}")
            raise _Unknown(name[1:])
        if name in self._deprecated:
            self.warnings.append(name)
        if equals:
            value = _without_quotes(value)
        if flag.kind == BOOL:
            self.values[flag.key] = _truth(value, name) if equals else True
            return True
        if not equals:
            if self.at >= len(self.words):
                raise _Refused(f"flag needs an argument: {name}")
            value = self.words[self.at]
            self.at += 1
        if flag.kind == LIST:
            before = self.values[flag.key]
            assert isinstance(before, tuple)
            self.values[flag.key] = (*before, value)
        else:
            self.values[flag.key] = value
        return True


def _without_quotes(value: str) -> str:
    """``value`` without one pair of equal quotes around it; a lone quote stays as it is."""
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _truth(value: str, name: str) -> bool:
    if value in TRUE_WORDS:
        return True
    if value in FALSE_WORDS:
        return False
    quoted = go_quote(value)
    raise _Refused(
        f"invalid boolean value {quoted} for  {name}: "
        f"strconv.ParseBool: parsing {quoted}: invalid syntax"
    )
