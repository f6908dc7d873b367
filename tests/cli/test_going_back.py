"""--when, blame, deleted, restore, undo, forget-deleted."""

from __future__ import annotations

import json

import pytest


def numbers(cli, *item):
    return [int(line.split()[0]) for line in cli.ok("history", *item).splitlines()]


@pytest.fixture
def kept(cli):
    """The command line with deletions kept for an hour."""
    cli.roots = [*cli.roots, "--keep-deleted", "1h"]
    return cli


def test_the_store_as_it_was(cli):
    cli.ok("create-layer", "--id", "one")
    entry = json.loads(cli.ok("history", "--json"))[-1]
    cli.ok("create-layer", "--id", "two")
    assert cli.ok("--when", str(entry["sequence"]), "layers", "-q").split() == ["one"]
    assert cli.ok("layers", "--when", entry["time"], "-q").split() == ["one"]
    assert cli("--when", str(entry["sequence"]), "create-layer").status == 1
    assert cli.ok("layers", "-q").split() == ["one", "two"]


@pytest.mark.parametrize("moment", ["yesterday", "99", "2001-01-01T00:00:00Z", "-1", "²"])
def test_a_moment_that_there_is_not(cli, moment):
    cli.ok("layers")
    done = cli(f"--when={moment}", "layers")
    assert (done.status, done.text.startswith("error initializing: ")) == (1, True)


def test_where_everything_comes_from(cli):
    cli.ok("create-layer", "--id", "one", "-n", "a b")
    cli.ok("--reason", "because", "set-metadata", "-m", "text", "one")
    shown = cli.ok("blame", "one").splitlines()
    assert [line.split(": ")[0] for line in shown] == ["created", 'name "a b"', "metadata"]
    assert shown[2].endswith("metadata set layer one (because)")
    document = json.loads(cli.ok("blame", "--json", "one"))
    assert [(x["what"], x["which"], x["entry"]["reason"]) for x in document][1:] == [
        ("name", "a b", ""),
        ("metadata", "", "because"),
    ]
    assert cli("blame", "nothing").errors == "identifier is not a layer, image, or container\n"


def test_deleting_and_restoring(kept):
    kept.ok("create-layer", "--id", "one")
    kept.ok("create-image", "--id", "image", "-n", "app:1", "one")
    kept.ok("delete-image", "app:1")
    number = numbers(kept, "image")[-1]
    listed = [line.split() for line in kept.ok("deleted").splitlines()]
    assert [(int(x[0]), *x[2:]) for x in listed] == [
        (number, "image", "image", "app:1"),
        (number, "layer", "one"),
    ]
    document = json.loads(kept.ok("deleted", "-j"))
    assert [(x["kind"], x["id"], x["names"]) for x in document] == [
        ("image", "image", ["app:1"]),
        ("layer", "one", []),
    ]
    assert kept.ok("restore", "app:1") == "one\nimage\n\tapp:1\n"
    assert kept.ok("deleted", "--json") == "[]\n"
    again = kept("restore", "app:1")
    assert (again.status, again.text) == (1, "")
    assert again.errors.startswith("app:1: nothing deleted that is still kept")


def test_a_kind(kept):
    kept.ok("create-layer", "--id", "same")
    kept.ok("create-image", "--id", "same", "")
    kept.ok("delete-image", "same")
    kept.ok("delete-layer", "same")
    assert json.loads(kept.ok("restore", "--image", "--json", "same")) == ["same"]
    assert kept.ok("images", "-q") == "same\n"
    assert kept.ok("layers", "-q") == ""
    assert kept("restore", "-i", "-l", "same").status == 1


def test_undoing(kept):
    kept.ok("create-layer", "--id", "one", "-n", "a")
    kept.ok("set-names", "-n", "b", "one")
    number = numbers(kept)[-1]
    assert "names set layer one names a" in kept.ok("undo", str(number))
    assert kept.ok("get-names", "one") == "a\n"
    kept.ok("delete-layer", "one")
    kept.ok("undo", "--json", str(numbers(kept)[-1]))
    assert kept.ok("layers", "-q") == "one\n"
    assert kept("undo", "x").errors.startswith("not a sequence number: x;")
    assert kept("undo", str(number)).status == 1


def test_forgetting(kept):
    kept.ok("create-layer", "--id", "one")
    kept.ok("delete-layer", "one")
    assert kept.ok("forget-deleted", "--older-than", "30m", "--json") == "0\n"
    assert kept.ok("forget-deleted", "--json") == "1\n"
    assert kept.ok("deleted") == ""


@pytest.mark.parametrize("words", ["restore one", "undo 1", "forget-deleted"])
def test_they_have_no_place_in_an_atomic_batch(kept, tmp_path, words):
    script = tmp_path / "script"
    script.write_text(words)
    done = kept("batch", "--atomic", "-f", str(script))
    assert done.status == 1
    assert "cannot be part of a transaction" in done.errors
