"""What happens before a store is opened: help, bad words, counts of arguments (cli.md §1)."""

from __future__ import annotations

import pytest

from cstorage.cli.main import main
from cstorage.cli.table import COMMANDS

GLOBAL_USAGE = b"Usage: cstorage command [options [...]]\n\nCommands:\n\n  check  "


def test_no_command_prints_usage_and_fails(cli):
    result = cli.bare()
    assert result.status == 1
    assert result.out.startswith(GLOBAL_USAGE)
    assert result.out.endswith(b"\n\nOptions:\n")
    assert result.err.startswith(b"\n  --debug, -D  ")


def test_help_before_the_command_is_all_on_standard_output(cli):
    result = cli.bare("--help", "layers")
    assert result.status == 0
    assert result.out.startswith(GLOBAL_USAGE)
    assert b"\nOptions:\n\n  --debug, -D  " in result.out
    assert result.err == b""


def test_help_with_one_dash_warns(cli):
    result = cli.bare("-help")
    assert result.status == 0
    assert result.out.startswith(GLOBAL_USAGE)
    assert result.errors.startswith("Warning: '-help' is deprecated")
    assert result.err.count(b"\n") == 1


def test_h_before_the_command_prints_usage_twice_and_fails(cli):
    result = cli.bare("-h")
    assert result.status == 1
    assert result.out.count(GLOBAL_USAGE) == 2
    between = b"Options:\nflag: help requested while parsing arguments (1)\nUsage: "
    assert between in result.out


@pytest.mark.parametrize("word", ["--help", "-help", "-h"])
def test_help_of_a_command_exits_with_125(cli, word):
    result = cli.bare("layers", word)
    assert result.status == 125
    head = "Usage: cstorage layers [options [...]]\n\nList layers\n\nOptions:\n"
    assert result.text == head
    assert "  --tree, -t  " in result.errors


def test_the_list_of_commands_is_padded_to_thirty_columns(cli):
    lines = cli.bare("--help").text.splitlines()
    assert f"  {'layers':<30}List layers" in lines
    shown = [line.split()[0] for line in lines if line.startswith("  ") and "--" not in line[:4]]
    assert shown == [command.name for command in COMMANDS]


def test_a_bad_global_flag(cli):
    result = cli.bare("--nope", "layers")
    assert result.status == 1
    message = b"flag provided but not defined: --nope"
    assert result.out.startswith(message + b" while parsing arguments (1)\nUsage: cstorage ")
    assert result.err.startswith(message + b"\nSee 'cstorage --help'.\n\n  --debug, -D  ")


def test_the_hint_names_the_program_as_it_was_called(cli):
    cli.argv0 = "/opt/bin/cstorage"
    assert "See '/opt/bin/cstorage cstorage --help'." in cli.bare("--nope").errors
    assert "See '/opt/bin/cstorage layers --help'." in cli.bare("layers", "--nope").errors


def test_a_script_that_was_found_along_the_path_was_called_by_its_name(cli, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/opt/bin")
    cli.argv0 = "/opt/bin/cstorage"
    assert "See 'cstorage --help'." in cli.bare("--nope").errors
    assert "See 'cstorage layers --help'." in cli.bare("layers", "--nope").errors


def test_under_the_original_name_messages_carry_that_name(cli):
    cli.argv0 = "containers-storage"
    assert cli.bare().text.startswith("Usage: containers-storage command ")
    assert "See 'containers-storage --help'." in cli.bare("--nope").errors
    cli.argv0 = "/else/containers-storage"
    help_text = cli.bare("layers", "-h").text
    assert help_text.startswith("Usage: containers-storage layers ")
    assert "See '/else/containers-storage containers-storage --help'." in cli.bare("-Q").errors


def test_a_bad_command_flag_exits_with_125_and_says_nothing_on_standard_output(cli):
    result = cli.bare("layers", "-jX")
    assert result.status == 125
    assert result.out == b""
    assert result.errors == ("flag provided but not defined: -jX\nSee 'cstorage layers --help'.\n")


def test_an_unknown_command(cli):
    assert cli.bare("frob", "--json")[:2] == (1, b"frob: unrecognized command.\n")
    assert cli.bare("")[:2] == (1, b": unrecognized command.\n")


def test_too_few_arguments_name_the_command_as_it_was_typed(cli):
    result = cli.bare("deletelayer")
    assert result.status == 1
    assert result.text.startswith(
        "deletelayer: more arguments required.\nUsage: cstorage deletelayer "
    )
    assert "--json, -j" in result.errors


def test_too_many_arguments_are_listed(cli):
    result = cli.bare("create-layer", "a", "b", "--json")
    assert result.status == 1
    assert result.text.startswith("create-layer: too many arguments ([a b --json]).\nUsage: ")


def test_the_flag_list_shows_present_values_and_shortens_the_home(cli, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    words = ["-g", "/home/someone/store", "-R", "/run/x", "-s", "vfs", "--storage-opt", "a=b"]
    shown = cli.bare(*words, "diff").errors
    assert "  --graph, -g=~/store  " in shown
    assert "  --storage-driver, -s=vfs  " in shown
    assert "  --storage-opt=[a=b]  " in shown
    assert "  --bzip2, --bz2, -b  " in shown
    options = [line.split()[0] for line in shown.splitlines() if line]
    assert options == sorted(options, key=str.lower)


def test_wrong_words_make_no_store(cli, tmp_path):
    assert cli("layers", "extra").status == 1
    assert cli("layers", "--nope").status == 125
    assert cli("frob").status == 1
    assert list(tmp_path.iterdir()) == []


def test_every_alias_finds_its_command(cli):
    for command in COMMANDS:
        for name in (command.name, *command.aliases):
            result = cli.bare(name, "-h")
            assert result.status == 125
            assert result.text.startswith(f"Usage: cstorage {name} {command.synopsis}\n")


def test_commands_that_do_not_exist(cli):
    for name in (
        "get-layer-data-size",
        "get-layer-data-digest",
        "get-layer-dir",
        "inspect",
        "help",
    ):
        assert cli.bare(name).text == f"{name}: unrecognized command.\n"


def test_the_program_needs_no_arguments_at_all(monkeypatch, capfdbinary):
    monkeypatch.setattr("sys.argv", ["cstorage", "frob"])
    assert main() == 1
    assert capfdbinary.readouterr().out == b"frob: unrecognized command.\n"
