"""Modules that are imported when something in them is first used.

A command uses one or two of the store's modules; importing the others would cost it more than its
work does (architecture §9: 60 ms for a whole command).
"""

from __future__ import annotations

from journal.plain import Any


class LazyModule:
    """Stands for a module; the first attribute that is asked for imports it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        from importlib import import_module

        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value
