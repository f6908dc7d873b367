"""``journal.plain``: its records and paths behave like those of the standard library."""

from __future__ import annotations

import copy
import pathlib
import pickle
import sys
import typing

import pytest

from journal.plain import NamedTuple, Path, compiled


class Ours(NamedTuple):
    """Three fields."""

    first: int
    second: str = "b"
    third: tuple[int, ...] = ()

    @property
    def doubled(self) -> int:
        return self.first * 2


class Theirs(typing.NamedTuple):
    first: int
    second: str = "b"
    third: tuple[int, ...] = ()


class Heir(Ours):
    pass


CALLS = [
    ((1,), {}), ((1, "x"), {}), ((1, "x", (2,)), {}), ((), {"first": 3, "third": (1,)}),
    ((), {}), ((1, 2, 3, 4), {}), ((1,), {"fourth": 1}), ((1,), {"first": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("args", "named"), CALLS)
def test_a_record_is_made_and_refused_as_the_library_does(args, named):
    refusals = []
    for kind in (Theirs, Ours):
        try:
            wanted = kind(*args, **named)
        except TypeError as error:
            refusals.append(str(error).replace(kind.__name__, ""))
    if refusals:
        assert refusals[0] == refusals[1]
        return
    wanted = Theirs(*args, **named)
    for _ in range(2):  # the first call compiles the constructor
        made = Ours(*args, **named)
        assert made == wanted
        assert hash(made) == hash(wanted)
        assert repr(made) == repr(wanted).replace("Theirs", "Ours")
        assert made._asdict() == wanted._asdict()
        assert made._replace(second="z") == wanted._replace(second="z")
        assert (made.first, made.second, made.third) == tuple(made)


def test_a_record_has_the_parts_of_the_librarys():
    for name in ("_fields", "_field_defaults", "__match_args__"):
        assert getattr(Ours, name) == getattr(Theirs, name)
    assert typing.get_type_hints(Ours) == typing.get_type_hints(Theirs)
    made = Ours(4)
    assert isinstance(made, tuple)
    assert made.doubled == 8
    assert Ours.__doc__ == "Three fields."
    assert pickle.loads(pickle.dumps(made)) == copy.copy(made) == made
    assert Ours._make([1, "c", ()]) == (1, "c", ())
    for wrong in (lambda: Ours._make([1]), lambda: made._replace(nothing=1)):
        with pytest.raises((TypeError, ValueError)):
            wrong()
    with pytest.raises(AttributeError):
        made.other = 1  # type: ignore[attr-defined]
    heir = Heir(5)
    assert type(heir) is Heir
    assert heir._replace(first=6).doubled == 12
    match made:
        case Ours(first, second):
            assert (first, second) == (4, "b")


def test_a_class_with_fields_in_a_wrong_order_is_refused():
    with pytest.raises(TypeError, match="follows"):
        type(NamedTuple)("Wrong", (NamedTuple,), {"__annotations__": {"a": "", "b": ""}, "a": 1})


@pytest.mark.parametrize(
    "text",
    ["", ".", "/", "a", "/a/b", "a//b/", "./a", "a/./b", "/a/../b", "//a", ".hidden", "a/.b"],
)
def test_a_path_is_the_librarys(text):
    """Its text, its parts, what it equals and how it joins."""
    ours, theirs = Path(text), pathlib.Path(text)
    assert str(ours) == str(theirs) == ours.__fspath__()
    assert ours == theirs
    assert theirs == ours
    assert hash(ours) == hash(theirs)
    assert {ours: 1}[theirs] == 1
    for part in ("x", "x/y", "/x", "../x", "x/"):
        assert str(ours / part) == str(theirs / part)
        assert str("up" / ours) == str("up" / theirs)
    assert ours.name == theirs.name
    assert str(ours.parent) == str(theirs.parent)
    assert ours.with_name("n") == theirs.with_name("n") if theirs.name else True
    assert ours != text
    assert sorted([ours / "b", ours / "a"]) == [theirs / "a", theirs / "b"]


def test_a_path_does_what_paths_do(tmp_path):
    ours = Path(tmp_path) / "folder"
    assert not ours.exists()
    ours.mkdir()
    (ours / "file").write_text("x")
    assert (ours / "file").exists()
    assert ours.is_dir()
    assert not (ours / "file").is_dir()
    assert [path.name for path in ours.iterdir()] == ["file"]


def test_a_compiled_half_is_the_one_of_the_package():
    import cbor2

    assert compiled("cbor2", "_cbor2") is cbor2
    assert compiled("json", "no_such_half") is sys.modules["json"] or "json" not in sys.modules
    with pytest.raises(ImportError):
        compiled("no_such_package_at_all", "half")
