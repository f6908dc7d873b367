"""The flag grammar: Go's, in its single-dash-bundle variety (cli.md §1.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cstorage.cli import goflags
from cstorage.cli.command import flags_of
from cstorage.cli.goflags import BOOL, LIST, STRING, USAGE, Flag
from cstorage.cli.table import COMMANDS

FLAGS = (
    Flag(("--json", "-j"), BOOL, "b"),
    Flag(("--tree", "-t"), BOOL, "b"),
    Flag(("--graph", "-g"), STRING, "s"),
    Flag(("--run", "-R"), STRING, "s"),
    Flag(("--name", "-n"), LIST, "l"),
)


def parse(*words, given=None):
    return goflags.parse(words, FLAGS, given or {})


def values(*words):
    outcome = parse(*words)
    assert not outcome.failed, outcome.reports
    return outcome.values


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--graph", "x"], "graph", "x"),
        (["--graph=x"], "graph", "x"),
        (["-g", "x"], "graph", "x"),
        (["-g=x"], "graph", "x"),
        (["--graph="], "graph", ""),
        (["--graph", "-x"], "graph", "-x"),
        (["--graph", "--"], "graph", "--"),
        (["-g", "a", "-g", "b"], "graph", "b"),
        (["--json"], "json", True),
        (["--json=false"], "json", False),
        (["--json", "--json=F"], "json", False),
        (["-n", "a,b", "--name=c", "-n", "c"], "name", ("a,b", "c", "c")),
        (["--graph='x y'"], "graph", "x y"),
        (['--graph="x"'], "graph", "x"),
        (["--graph", "'x'"], "graph", "'x'"),
        (["--graph='x\""], "graph", "'x\""),
        (['--json="true"'], "json", True),
    ],
)
def test_a_flag_takes_its_value(words, key, value):
    assert values(*words)[key] == value


@pytest.mark.parametrize("word", ["1", "t", "T", "true", "TRUE", "True"])
def test_every_spelling_of_true_is_taken(word):
    assert values(f"--json={word}")["json"] is True


@pytest.mark.parametrize("word", ["0", "f", "F", "false", "FALSE", "False"])
def test_every_spelling_of_false_is_taken(word):
    assert values("-j", f"--json={word}")["json"] is False


def test_a_boolean_never_takes_the_next_word():
    outcome = parse("--json", "false")
    assert outcome.values["json"] is True
    assert outcome.rest == ["false"]


def test_parsing_stops_at_the_first_argument():
    outcome = parse("base", "--json")
    assert outcome.rest == ["base", "--json"]
    assert outcome.values["json"] is False


def test_two_dashes_end_the_flags_and_are_dropped():
    assert parse("-j", "--", "-t").rest == ["-t"]


def test_a_lone_dash_is_an_argument():
    assert parse("-j", "-", "-t").rest == ["-", "-t"]


def test_a_bundle_is_read_letter_by_letter_each_taking_its_word():
    got = values("-gRj", "ROOT", "RUN")
    assert (got["graph"], got["run"], got["json"]) == ("ROOT", "RUN", True)


def test_the_value_of_a_bundle_is_dropped():
    got = values("-jt=false")
    assert got["json"] is True
    assert got["tree"] is True


@pytest.mark.parametrize(
    ("words", "reports"),
    [
        (["--nope"], ("flag provided but not defined: --nope",)),
        (["-x"], ("flag provided but not defined: -x",)),
        (["-jX"], ("flag provided but not defined: -jX",)),
        (["-json"], ("flag provided but not defined: -json",)),
        (["-g/dir"], ("flag needs an argument: -g", "flag provided but not defined: -g/dir")),
        (["--graph"], ("flag needs an argument: --graph",)),
        (["-jg"], ("flag needs an argument: -g", "flag provided but not defined: -jg")),
        (["-="], ("bad flag syntax: -=",)),
        (["--="], ("flag provided but not defined: --",)),
        (["---json"], ("flag provided but not defined: ---json",)),
        (
            ["--json=maybe"],
            (
                'invalid boolean value "maybe" for  --json: '
                'strconv.ParseBool: parsing "maybe": invalid syntax',
            ),
        ),
        (["-h"], (USAGE,)),
        (["--help"], (USAGE,)),
        (["-help"], (USAGE,)),
        (["-jh"], (USAGE, "flag provided but not defined: -jh")),
    ],
)
def test_what_is_said_about_a_bad_word(words, reports):
    assert parse(*words).reports == reports


def test_an_earlier_parse_is_overridden_and_lists_are_added_to():
    first = parse("-g", "a", "-n", "x", "-j").values
    second = goflags.parse(["-g", "b", "-n", "y", "--json=false"], FLAGS, first).values
    assert (second["graph"], second["name"], second["json"]) == ("b", ("x", "y"), False)


def test_a_deprecated_spelling_works_with_a_warning():
    flags = (Flag(("--help",), BOOL, "h", deprecated=("-help",)),)
    outcome = goflags.parse(["-help"], flags, {})
    assert outcome.values == {"help": True}
    assert outcome.warnings == ("-help",)


@given(st.lists(st.text(alphabet="-=jtgRnx'\" \udcffé", max_size=6), max_size=6))
def test_no_words_make_the_parser_raise_and_nothing_is_invented(words):
    outcome = goflags.parse(words, FLAGS, {})
    assert outcome.rest == words[len(words) - len(outcome.rest) :] or outcome.failed
    assert set(outcome.values) == {"json", "tree", "graph", "run", "name"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_no_two_flags_of_a_command_share_a_spelling_or_a_key(command):
    flags = flags_of(command)
    spellings = [s for flag in flags for s in (*flag.spellings, *flag.deprecated)]
    assert len(spellings) == len(set(spellings))
    assert len({flag.key for flag in flags}) == len(flags)
