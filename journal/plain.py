"""What modules need of ``typing`` while they run, without its price.

Rules of this module:

* A type checker sees the names of ``typing`` themselves. At run time they are what is left of them
  when annotations are text: nothing, but for ``NamedTuple``.
* ``Path`` holds the text of a path and does what costs nothing; anything else is done by the path
  of ``pathlib`` that it stands for. Who hands a path to others gives them one of those.
* Records are made without turning annotations into objects, and the constructor of one is compiled
  when it is first called: a short command uses a few of the many it imports. They behave like
  ``typing.NamedTuple`` in everything else (docs/decisions/0031-quick-start-and-end.md).
* ``compiled`` gets a package's compiled half without the package, where that only adds names.
* Imports nothing that the interpreter has not imported at its start.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from pathlib import Path
    from typing import (
        Any,
        BinaryIO,
        NamedTuple,
        NewType,
        NoReturn,
        Protocol,
        TypeVar,
        assert_never,
        cast,
    )
else:
    import os
    import sys
    from _collections import _tuplegetter

    Any = BinaryIO = NoReturn = None

    def TypeVar(*_described, **_bounds):
        """Nothing: annotations are text."""

    def assert_never(value):
        """A type checker proves that this is never called."""
        raise AssertionError(f"expected nothing, got {value!r}")

    class Protocol:
        """A shape that classes have or have not; nothing is checked at run time."""

    def cast(_kind, value):
        """``value``, which a type checker shall take for one of another kind."""
        return value

    def NewType(_name, kind):
        """The type itself: telling them apart is the type checker's business."""
        return kind

    class _Record(tuple):
        """What all records have in common."""

        __slots__ = ()
        _fields = ()
        _field_defaults = {}  # noqa: RUF012

        @classmethod
        def _make(cls, values):
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
            return made

        def _replace(self, /, **changes):
            made = self._make(map(changes.pop, self._fields, self))
            if changes:
                raise ValueError(f"Got unexpected field names: {list(changes)!r}")
            return made

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self):
            shown = ", ".join(f"{n}={v!r}" for n, v in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({shown})"

        def __getnewargs__(self):
            return tuple(self)

    def _constructor(name, fields, defaults):
        names = "".join(f"{field}, " for field in fields)
        code = f"lambda _cls, {names}: _new(_cls, ({names}))"
        made = eval(code, {"_new": tuple.__new__, "__builtins__": {}})
        made.__name__ = "__new__"
        made.__qualname__ = f"{name}.__new__"
        made.__defaults__ = tuple(defaults.values())
        return made

    class _RecordType(type):
        """Makes a subclass of ``tuple`` of a class with annotated fields."""

        def __new__(cls, name, bases, body):
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = tuple(body.get("__annotations__", ()))
            defaults = {field: body[field] for field in fields if field in body}
            if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                raise TypeError(f"{name}: a field without a default follows one that has one")
            for index, field in enumerate(fields):
                if field.startswith("_"):
                    raise ValueError(f"{name}: a field's name must not begin with an underscore")
                body[field] = _tuplegetter(index, None)
            body.update(
                __slots__=(), _fields=fields, _field_defaults=defaults, __match_args__=fields
            )

            def first(_cls, *args, **named):
                """Compile the constructor, and call it from now on."""
                made.__new__ = _constructor(name, fields, defaults)
                return made.__new__(_cls, *args, **named)

            body["__new__"] = first
            made = type.__new__(type, name, (_Record,), body)
            return made

    class NamedTuple(metaclass=_RecordType):
        """A record: an immutable tuple with names for its places."""

    class Path:
        """A path; see the rules of the module."""

        __slots__ = ("_text",)

        def __init__(self, *parts):
            text = os.path.join(*map(os.fspath, parts)) if parts else "."
            if not text or text[-1] == "/" or "//" in text or "/." in text or text[0] == ".":
                text = str(_real(text))
            self._text = text

        def __fspath__(self):
            return self._text

        __str__ = __fspath__

        def __repr__(self):
            return f"Path({self._text!r})"

        def __truediv__(self, part):
            return Path(self._text, part)

        def __rtruediv__(self, base):
            return Path(base, self._text)

        def __eq__(self, other):
            if type(other) is Path:
                return self._text == other._text
            known = sys.modules.get("pathlib")
            if known is None or not isinstance(other, known.PurePath):
                return NotImplemented
            return _real(self._text) == other

        def __hash__(self):
            return hash(_real(self._text))

        def __lt__(self, other):
            return _real(self._text) < _real(other)

        @property
        def name(self):
            return "" if self._text == "." else os.path.basename(self._text)

        @property
        def parent(self):
            return Path(os.path.dirname(self._text) or ".")

        def exists(self):
            return os.path.exists(self._text)

        def is_dir(self):
            return os.path.isdir(self._text)

        def __getattr__(self, name):
            return getattr(_real(self._text), name)

    def _real(text):
        """The path that ``Path`` stands for."""
        import pathlib

        return pathlib.Path(text)


def compiled(package: str, module: str) -> Any:
    """``package.module``, or ``package`` if that is imported already or has no such module.

    Entered under its own name, so whoever imports the package later gets the same one. Raises
    ``ImportError``.
    """
    import sys

    name = f"{package}.{module}"
    known = sys.modules.get(package) or sys.modules.get(name)
    if known is not None:
        return known
    from importlib.machinery import PathFinder

    around = PathFinder.find_spec(package)
    inside = around.submodule_search_locations if around is not None else None
    spec = PathFinder.find_spec(name, inside) if inside is not None else None
    loader = spec.loader if spec is not None else None
    made = loader.create_module(spec) if spec is not None and loader is not None else None
    if loader is None or made is None:
        return __import__(package)
    sys.modules[name] = made
    try:
        loader.exec_module(made)
    except BaseException:
        del sys.modules[name]
        raise
    return made


__all__ = [
    "TYPE_CHECKING",
    "Any",
    "BinaryIO",
    "NamedTuple",
    "NewType",
    "NoReturn",
    "Path",
    "Protocol",
    "TypeVar",
    "assert_never",
    "cast",
    "compiled",
]
