"""The command table: complete, consistent, and the source of the documentation."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from cstorage.cli import reference
from cstorage.cli.clickapp import group
from cstorage.cli.command import GLOBAL_FLAGS, UNLIMITED, flags_of
from cstorage.cli.table import COMMANDS, find

PROJECT = Path(__file__).resolve().parents[2]

# The commands of the original in the order of its usage text (cli.md §11).
ORIGINAL = """
check config container list-container-data get-container-data get-container-data-size
get-container-data-digest set-container-data get-container-dir get-container-run-dir
container-parent-owners containers copy create-storage-layer create-layer import-layer create-image
create-container dedup delete delete-layer delete-image delete-container changes diffsize diff
applydiff applydiff-using-staging-dir exists gc image list-image-data get-image-data
get-image-data-size get-image-data-digest set-image-data get-image-dir get-image-run-dir images
images-by-digest layer layer-parent-owners list-layer-data get-layer-data set-layer-data layers
storage-layers metadata set-metadata mount unmount mounted get-names add-names remove-names
set-names shutdown status unshare version wipe
""".split()  # noqa: SIM905

# Ours, in the order of the usage text.
OURS = """
history watch project pin unpin pins adopt export convert
blame deleted restore undo forget-deleted df batch ls cat find which-layer diff-images
""".split()  # noqa: SIM905

WITHOUT_UNDASHED_ALIAS = {
    "check", "config", "container", "container-parent-owners", "containers", "copy",
    "create-storage-layer", "dedup", "delete", "changes", "diff", "applydiff-using-staging-dir",
    "exists", "gc", "image", "images", "images-by-digest", "layer", "layer-parent-owners",
    "layers", "storage-layers", "metadata", "mount", "mounted", "shutdown", "status", "unshare",
    "version", "wipe", *OURS,
}  # fmt: skip
IRREGULAR = {"diffsize": ("diff-size",), "applydiff": ("apply-diff",), "unmount": ("umount",)}


def test_the_table_has_the_commands_of_the_original_in_its_order_and_then_ours():
    assert [command.name for command in COMMANDS] == [*ORIGINAL, *OURS]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_aliases_are_those_of_the_original(command):
    expected = IRREGULAR.get(command.name, (command.name.replace("-", ""),))
    if command.name in WITHOUT_UNDASHED_ALIAS:
        expected = ()
    assert command.aliases == expected


def test_no_spelling_is_used_twice():
    spellings = [s for command in COMMANDS for s in (command.name, *command.aliases)]
    assert len(spellings) == len(set(spellings))
    assert all(find(spelling) is not None for spelling in spellings)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_is_implemented_and_documented(command):
    module, _, name = command.handler.partition(":")
    handler = getattr(importlib.import_module(f"cstorage.cli.{module}"), name)
    assert callable(handler)
    assert command.summary
    assert command.summary[-1] != "."
    assert command.most == UNLIMITED or command.least <= command.most
    for flag in flags_of(command):
        assert flag.help, flag


def test_the_page_of_the_command_line_is_made_from_the_table():
    page = (PROJECT / "docs" / "cli.md").read_text()
    assert page == reference.render(), "run python -m cstorage.cli.reference > docs/cli.md"
    for command in COMMANDS:
        assert f"\n### {command.name}" in page


def test_a_hot_command_line_does_not_import_click_or_handlers_it_does_not_need():
    code = (
        "import sys; from cstorage.cli.main import main; main(['cstorage', 'nosuch'])\n"
        "print(sorted(m for m in sys.modules if m.startswith(('click', 'cstorage', 'structlog'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    loaded = set(eval(done.stdout.splitlines()[-1]))
    assert not {name for name in loaded if name.startswith(("click", "structlog"))}
    assert not {name for name in loaded if name.startswith("cstorage.store")}
    assert "cstorage.cli.main" in loaded


class TestClick:
    """The same table as a click group."""

    def test_the_group_has_every_command_with_every_flag(self):
        app = group("cstorage")
        context = click.Context(app)
        assert app.list_commands(context) == [command.name for command in COMMANDS]
        for command in COMMANDS:
            shown = app.get_command(context, command.name)
            assert shown is not None
            spellings = {s for parameter in shown.params for s in parameter.opts}
            wanted = {s for flag in flags_of(command) for s in flag.spellings}
            assert wanted <= spellings

    def test_completion_offers_commands_and_flags(self):
        complete = ShellComplete(group("cstorage"), {}, "cstorage", "_CSTORAGE_COMPLETE")
        offered = [item.value for item in complete.get_completions(["-g", "x"], "create-c")]
        assert offered == ["create-container"]
        offered = [item.value for item in complete.get_completions(["-D", "layers"], "--tr")]
        assert sorted(offered) == ["--transient-store", "--tree"]
        offered = [item.value for item in complete.get_completions([], "--tr")]
        assert offered == ["--transient-store"]

    def test_invoking_the_group_runs_the_program(self, capfdbinary):
        with pytest.raises(SystemExit) as ended:
            group("cstorage").main(["layers", "--nope"])
        assert ended.value.code == 125
        assert b"See 'cstorage layers --help'." in capfdbinary.readouterr().err

    def test_click_shows_the_same_usage(self):
        app = group("cstorage")
        shown = app.get_help(click.Context(app))
        assert shown.startswith("Usage: cstorage command [options [...]]\n\nCommands:\n")
        assert all(flag.spellings[0] in shown for flag in GLOBAL_FLAGS)
