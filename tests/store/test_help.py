"""What a user sees of the library before reading its sources."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import cstorage
from cstorage import errors

PUBLIC = [
    (name, member)
    for name, member in inspect.getmembers(cstorage.Store)
    if not name.startswith("_")
]
RAISED = re.compile(r"Raises(.*?)(?:\.\s|\.$|\Z)", re.S)


@pytest.mark.parametrize(("name", "member"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_every_method_says_what_it_does_and_raises_what_exists(name: str, member: object) -> None:
    text = (member.fget if isinstance(member, property) else member).__doc__  # type: ignore[attr-defined]
    assert text, name
    assert not text.startswith("Raises"), "what it does comes first"
    for part in RAISED.findall(text):
        for word in re.findall(r"``(?:\w+\.)?([A-Z]\w+)``", part):
            elsewhere = ("FileNotFoundError", "TypeError")
            assert hasattr(errors, word) or word in elsewhere, (name, word)


@pytest.mark.parametrize("name", cstorage.__all__)
def test_what_the_package_offers_is_there_after_importing_it_alone(name: str) -> None:
    code = f"import cstorage; assert {name!r} in dir(cstorage); cstorage.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cstorage.nothing


def test_methods_have_types() -> None:
    for name, member in PUBLIC:
        if inspect.isfunction(member):
            signature = inspect.signature(member)
            assert signature.return_annotation is not inspect.Signature.empty, name
            for parameter in list(signature.parameters.values())[1:]:
                assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)
