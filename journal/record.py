"""``NamedTuple`` without ``typing``: that import is half of what ``import journal`` would cost.

Rules of this module:

* For the type checker it is ``typing.NamedTuple``. At run time the same classes are made by
  ``collections.namedtuple``, from annotations that nobody evaluates.
* The modules that ``import journal`` loads take ``NamedTuple`` from here, import nothing of
  ``typing`` at run time, and say ``TYPE_CHECKING = False`` themselves.
"""

from __future__ import annotations

__all__ = ["NamedTuple"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import namedtuple

    _OWN = frozenset(("__annotations__", "__module__", "__qualname__"))

    class _Maker(type):
        def __new__(cls, name, bases, content):
            if not bases:
                return type.__new__(cls, name, bases, content)
            fields = content["__annotations__"]
            made = namedtuple(
                name,
                fields,
                defaults=[content[field] for field in fields if field in content],
                module=content["__module__"],
            )
            for key, value in content.items():
                if key not in _OWN and key not in fields:
                    setattr(made, key, value)
            made.__annotations__ = fields
            return made

    class NamedTuple(metaclass=_Maker):
        """Base of a record: fields are annotations, defaults their values."""
