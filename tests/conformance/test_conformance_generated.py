"""Generated command sequences do the same on both sides.

A Hypothesis state machine draws the command lines of ``vocabulary.py``. Every step is compared as
in the hand-written sequences; the trees at the end, and those of containers while they are mounted.

The default is a small fixed set, for every run, whose first difference is shrunk.
``--conformance-examples N`` draws N sequences for each driver afresh (``--hypothesis-seed`` repeats
a draw), goes on after a difference and prints all of them, and from 500 on fails too when a command
or an option was hardly ever drawn.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
import tars
import vocabulary as v
from duo import Mismatch, Outcome, PerSide, Result
from forkserver import ForkServer
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from mounts import unmount_below
from rules import ABSENT
from tally import Tally, is_ours

from cstorage.cli.table import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from duo import Argument, Duo, DuoMaker

pytestmark = [pytest.mark.root, pytest.mark.peer]

_DEFAULT_EXAMPLES = 12
_STEPS = 14
_NOTHING = Outcome(Result(1, b"", b""), Result(1, b"", b""))

#: From so many sequences on, every option must have come up, in 1 of 500 sequences at the least.
_JUDGED_FROM = 500

_BOTH = [
    spelling
    for command in COMMANDS
    if command.name not in ABSENT and command.name != "copy" and not is_ours(command)
    for spelling in (command.name, *command.aliases)
]


#: Newer commands that change the store, or unmount what is mounted, on the side that has them.
_CHANGING = frozenset({"unshare", "gc", "check", "create-storage-layer"})


class Commands(RuleBasedStateMachine):
    """The commands; the class variables are set before a run."""

    make: ClassVar[DuoMaker]
    ours: ClassVar[list[str]]
    driver: ClassVar[str]
    forks: ClassVar[ForkServer]
    numbers: ClassVar[itertools.count[int]]
    tally: ClassVar[Tally]
    found: ClassVar[list[str] | None]  # None: a difference ends the run

    duo: Duo

    @initialize(chain=st.integers(0, 3), extra=st.integers(0, 5), data=v.ARCHIVES)
    def start(self, chain: int, extra: int, data: bytes) -> None:
        label = f"{self.driver}{next(Commands.numbers)}"
        self.duo = Commands.make(self.driver, Commands.ours, label=label)
        self.duo.ours.forks = Commands.forks
        self.duo.tally = self.tally
        self.tally.sequences[self.driver] += 1
        self.over = False
        self.options: list[Argument] = []
        self.chosen: dict[str, PerSide] = {}
        host = self.duo.host
        (host / "tree/sub").mkdir(parents=True)
        for name in ("note", "file", "tree/one", "tree/sub/two"):
            (host / name).write_bytes(f"{name}\n".encode())
        (host / "layer.tar").write_bytes(tars.BASE)
        for name in ("tree/one", "tree/sub/two", "tree/sub", "tree", "file"):
            os.utime(host / name, (tars.MTIME, tars.MTIME))
        if extra == 0:
            self._additional_store()
        if chain:
            self.run(["import-layer", "--id", "lower", ""], stdin=data)
            self.run(["create-layer", "--id", "mid", "-n", "name", "lower"])
            self.run(["create-image", "--id", "img", "-n", "name", "mid"])
            self.run(["create-image", "--id", "img2", "lower"])
        if chain > 1:
            self._create_container(["create-container", "--id", "run1", "-n", "name", "img"])

    def _additional_store(self) -> None:
        """Items that are only there to be read, in a store of its own for each side."""
        main = [(side, side.graph) for side in (self.duo.ours, self.duo.theirs)]
        for side, graph in main:
            side.graph = graph.parent / "extra"
        self.run(["import-layer", "--id", "ro-low", "-n", "ro-name"], stdin=tars.BASE)
        self.run(["create-image", "--id", "ro-img", "-n", "ro-name", "ro-low"])
        self.run(["shutdown"])
        for side, graph in main:
            side.graph = graph
        store = PerSide(*(f"{self.driver}.imagestore={graph.parent}/extra" for _, graph in main))
        self.options = ["--storage-opt", store]

    # -- running a line ----------------------------------------------------------------------------

    def run(self, line: v.Words, stdin: bytes = b"") -> Outcome:
        """One command on both sides; nothing once the two stores have parted."""
        if self.over:
            return _NOTHING
        command, *words = line
        return self.checked(lambda: self._compared(command, words, stdin)) or _NOTHING

    def checked(self, step: Callable[[], Outcome | None]) -> Outcome | None:
        """A comparison, after which the sequence may be over."""
        try:
            outcome = step()
        except Mismatch as mismatch:
            if self.found is None:
                raise
            self.found.append(str(mismatch))
            self.over = True
            return None
        except Exception as error:
            if self.found is None:
                raise
            steps = "".join(f"    {line}\n" for line in self.duo.transcript)
            self.found.append(f"{steps}  the comparison failed: {error!r}")
            self.over = True
            return None
        if self.duo.parted:
            self.tally.parted[self.driver] += 1
            self.over = True
        return outcome

    def _compared(self, command: str, words: v.Words, stdin: bytes) -> Outcome:
        args = [self._resolved(word) for word in words]
        output, file = "text", None
        if command == "diff":
            output = "stream"
        if "@out" in words:
            file = args[words.index("@out")]
            assert isinstance(file, PerSide)
        return self.duo.run(
            command,
            *args,
            stdin=stdin,
            options=self.options,
            unordered=command.startswith(("delete", "exists", "changes")),
            output=output,
            file=file,
        )

    def _resolved(self, word: str) -> Argument:
        sides = (self.duo.ours, self.duo.theirs)
        if word.startswith("@host/"):
            return str(self.duo.host / word.removeprefix("@host/"))
        if word in ("@out", "@place"):
            return PerSide(*(str(side.graph.parent / word[1:]) for side in sides))
        chosen = self.chosen.get(word.rstrip("~"))
        if chosen is None or not word.endswith("~"):
            return word if chosen is None else chosen
        short = PerSide(*(identity[:12] for identity in chosen))
        for side, prefix in zip(sides, short, strict=True):
            side.words[prefix] = f"<start of {word}>"
        return short

    def _made(self, outcome: Outcome) -> None:
        """Remembers an ID that the sides chose."""
        if not (outcome.ours.exit == outcome.theirs.exit == 0):
            return
        found = [_identity(result.stdout) for result in (outcome.ours, outcome.theirs)]
        if found[0] != found[1]:
            self.chosen["@last"] = PerSide(*found)

    # -- creating ----------------------------------------------------------------------------------

    @rule(line=v.CREATE_LAYER)
    def create_layer(self, line: v.Words) -> None:
        self._made(self.run(line))

    @rule(line=v.IMPORT_LAYER, data=v.ARCHIVES)
    def import_layer(self, line: v.Words, data: bytes) -> None:
        self._made(self.run(line, data))

    @rule(line=v.APPLY_DIFF, data=v.ARCHIVES)
    def apply_diff(self, line: v.Words, data: bytes) -> None:
        self.run(line, data)

    @rule(line=v.CREATE_IMAGE)
    def create_image(self, line: v.Words) -> None:
        self._made(self.run(line))

    @rule(line=v.CREATE_CONTAINER)
    def create_container(self, line: v.Words) -> None:
        self._create_container(line)

    def _create_container(self, line: v.Words) -> None:
        outcome = self.run(line)
        self._made(outcome)
        if not (outcome.ours.exit == outcome.theirs.exit == 0):
            if any(word.startswith(("--uidmap", "--gidmap")) for word in line):
                self.run(["images", "--json"])  # a `refused-mapped-copy` shows here
            return
        identities = [_identity(result.stdout) for result in (outcome.ours, outcome.theirs)]
        layers = []
        for side, identity in zip((self.duo.ours, self.duo.theirs), identities, strict=True):
            record = json.loads(side.run(["container", "--json", identity]).stdout)[0]
            layers.append(record["layer"])
            side.plain(record["layer"])  # numbers it: listings may show it in another order
        name = identities[0] if identities[0] == identities[1] else "last"
        self.chosen[f"@{name}"] = PerSide(*layers)

    # -- changing ----------------------------------------------------------------------------------

    @rule(line=v.NAMING)
    def name(self, line: v.Words) -> None:
        self.run(line)

    @rule(
        pair=st.sampled_from([("lower", "mid"), ("img", "img2"), ("run1", "run2"), ("mid", "img")]),
        name=v.NAMES,
        add=st.booleans(),
    )
    def move_a_name(self, pair: tuple[str, str], name: str, add: bool) -> None:
        for item in pair:
            self.run(["add-names" if add else "set-names", "--name", name, item])
        for item in pair:
            self.run(["get-names", "--json", item])

    @rule(line=v.METADATA)
    def metadata(self, line: v.Words) -> None:
        self.run(line)

    @rule(line=v.LAYER_DATA, data=v.BYTES)
    def layer_data(self, line: v.Words, data: bytes) -> None:
        self.run(line, data)

    @rule(line=v.IMAGE_DATA, data=v.BYTES)
    def image_data(self, line: v.Words, data: bytes) -> None:
        self.run(line, data)

    @rule(line=v.CONTAINER_DATA, data=v.BYTES)
    def container_data(self, line: v.Words, data: bytes) -> None:
        self.run(line, data)

    @rule(
        kind=st.sampled_from(["layer", "image", "container"]),
        number=st.integers(0, 1),
        key=v.KEYS,
        data=v.BYTES,
    )
    def data_of_what_is_there(self, kind: str, number: int, key: str, data: bytes) -> None:
        item = {
            "layer": ("lower", "mid"), "image": ("img", "img2"), "container": ("run1", "run2"),
        }[kind][number]  # fmt: skip
        self.run([f"set-{kind}-data", item, key], data)
        self.run([f"get-{kind}-data", item, key])
        self.run([f"get-{kind}-data", "-f", "@out", item, key])
        if kind != "layer":
            self.run([f"get-{kind}-data-size", item, key])
            self.run([f"get-{kind}-data-digest", item, key])
        self.run([f"list-{kind}-data", item])

    @rule(line=v.DIRECTORIES)
    def directories(self, line: v.Words) -> None:
        self.run(line)

    @rule(line=v.COPY)
    def copy(self, line: v.Words) -> None:
        self.run(line)

    # -- mounting ----------------------------------------------------------------------------------

    @rule(container=v.NEW_CONTAINERS, edits=v.EDITS)
    def edit(self, container: str, edits: list[tuple[str, str]]) -> None:
        mounted = self.run(["mount", container])
        if mounted.ok:
            self.duo.each(mounted.line, lambda root: _edit(root, edits))
            self.duo.transcript[-1] = f"(edits in {container}: {edits})"
            self.checked(lambda: self.duo.same_tree(mounted.line, "mounted"))
            self.run(["unmount", container])

    @rule(line=st.one_of(v.MOUNT, v.MOUNT, v.MOUNT_IMAGE))
    def mount(self, line: v.Words) -> None:
        self.run(line)

    @rule(line=st.one_of(v.UNMOUNT, v.MOUNTED))
    def unmount(self, line: v.Words) -> None:
        self.run(line)

    # -- deleting ----------------------------------------------------------------------------------

    @rule(line=v.DELETE_LAYER)
    def delete_layer(self, line: v.Words) -> None:
        self.run(line)

    @rule(line=v.DELETE_IMAGE)
    def delete_image(self, line: v.Words) -> None:
        self.run(line)

    @rule(line=v.DELETE_CONTAINER)
    def delete_container(self, line: v.Words) -> None:
        self.run(line)

    @rule(line=v.DELETE)
    def delete(self, line: v.Words) -> None:
        self.run(line)

    # -- looking -----------------------------------------------------------------------------------

    @rule(line=v.LIST)
    def list_items(self, line: v.Words) -> None:
        self.run(line)

    @rule(line=v.EXISTS)
    def exists(self, line: v.Words) -> None:
        self.run(line)

    @rule(line=v.OWNERS)
    def owners(self, line: v.Words) -> None:
        self.run(line)

    @rule(line=v.EXAMINE)
    def examine(self, line: v.Words) -> None:
        self.run(line)

    @rule(first=v.DIFF, second=v.CHANGES)
    def diffs(self, first: v.Words, second: v.Words) -> None:
        self.run(first)
        self.run(second)

    @rule(layer=v.LAYERS)
    def look_at_a_layer(self, layer: str) -> None:
        self.run(["changes", layer])
        self.run(["diffsize", layer])
        self.run(["diff", "-u", layer])

    @rule(item=v.ITEMS)
    def look_at_an_item(self, item: str) -> None:
        for kind in ("layer", "image", "container"):
            self.run([kind, item])
        self.run(["exists", item])
        self.run(["metadata", item])
        self.run(["get-names", item])

    @rule(line=v.STORE_WIDE)
    def store_wide(self, line: v.Words) -> None:
        forced = any(word.startswith(("--force", "-f")) for word in line)
        if forced and not self.over:
            tree = self.duo.theirs.run(["layers", "--tree"]).stdout
            if b"mount: " in tree:  # theirs would never come back
                return
        self.run(line)

    # -- wrong lines -------------------------------------------------------------------------------

    @rule(line=v.wrong(_BOTH))
    def wrong(self, line: v.Words) -> None:
        self.run(line)

    @rule(command=st.sampled_from(sorted(ABSENT - _CHANGING)))
    def newer(self, command: str) -> None:
        self.run([command, *(["nosuch"] if command.endswith(("dir", "names")) else [])])

    # -- the end -----------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "duo"):
            return
        try:
            self.run(["layers", "--tree"])
            if not self.over:
                self.checked(self.duo.trees)
        finally:
            unmount_below(self.duo.host.parent)
            shutil.rmtree(self.duo.host.parent, ignore_errors=True)


def _kind(mismatch: str) -> str:
    """What tells one difference from another: the last command and the first field that differs."""
    lines = mismatch.splitlines()
    steps = [line for line in lines if line.startswith("    ")]
    fields = [line for line in lines if not line.startswith("    ")]
    return steps[-1].split()[0] + re.sub(r"<id\d+>|\d+", "", "".join(fields[:2]))[:200]


def _identity(out: bytes) -> str:
    text = out.decode()
    return str(json.loads(text)["id"]) if text.startswith("{") else text.partition("\n")[0]


def _edit(root: Path, edits: list[tuple[str, str]]) -> None:
    """Changes a tree; what cannot be done there is left out, on both sides alike."""
    for what, name in edits:
        path = root / name
        try:
            _one_edit(what, path, root)
        except OSError:
            continue


def _one_edit(what: str, path: Path, root: Path) -> None:
    if what in ("write", "append"):
        path.parent.mkdir(exist_ok=True)
        with open(path, "ab" if what == "append" else "wb") as file:
            file.write(f"{what} {path.name}\n".encode())
    elif what == "remove":
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    elif what == "folder":
        path.mkdir(parents=True)
    elif what == "symlink":
        path.symlink_to("aa")
    elif what == "link":
        os.link(root / "aa", path, follow_symlinks=False)
    elif what == "rename":
        os.rename(path, root / "renamed")
    elif not path.is_symlink():
        if what == "chmod":
            path.chmod(0o711)
        elif what == "chown":
            os.chown(path, 7, 8)
        elif what == "xattr":
            os.setxattr(path, "user.edited", b"yes")
        elif what == "touch":
            os.utime(path, (tars.MTIME + 5, tars.MTIME + 5))


#: Defects as Python that is run in our programme before each command: one for each thing compared.
PLANTED = {
    "files a second too young": (
        "import cstorage.archive.extract as m; right = m.times\n"
        "m.times = lambda member: tuple(time + 10**9 for time in right(member))"
    ),
    "attributes forgotten": (
        "from cstorage.archive.attributes import Attributes as a\n"
        "a._set_xattr = lambda self, *words, **more: None"
    ),
    "set-user-ID bits lost": (
        "import os; right = os.fchmod; os.fchmod = lambda fd, mode: right(fd, mode & 0o777)"
    ),
    "exit status 0 where 1 is due": (
        "import cstorage.cli.main as m; right = m.main\n"
        "m.main = lambda: {1: 0}.get(status := right(), status)"
    ),
    "faults told on standard output": (
        "from cstorage.cli.invocation import Output as o\n"
        "o.error_write = lambda self, text: self.write(text)"
    ),
    "a name that stays with its old holder": (
        "import cstorage.state.reducer as m; m._take_name = lambda *words: None"
    ),
    "sizes one byte too large": (
        "import cstorage.store.diffs as m; right = m.size\n"
        "m.size = lambda *words: right(*words) + 1"
    ),
}

#: So many sequences must be enough to notice any of them.
_NOTICED_WITHIN = 150


@pytest.mark.timeout(0)
@pytest.mark.parametrize("defect", PLANTED)
def test_a_planted_defect_is_noticed(
    duo_of: DuoMaker, clean_environment: dict[str, str], tmp_path: Path, defect: str
) -> None:
    """What the generated sequences compare is worth something: they find what is broken."""
    server = ForkServer(tmp_path, clean_environment, PLANTED[defect])
    Commands.make, Commands.ours, Commands.driver = duo_of, [], "vfs"
    Commands.numbers = itertools.count()
    Commands.forks = server
    Commands.tally = Tally()
    Commands.found = None
    try:
        with pytest.raises(Mismatch):
            run_state_machine_as_test(Commands, settings=_settings(_NOTICED_WITHIN))
    finally:
        server.close()


def _settings(examples: int, *, afresh: bool = False, shrink: bool = False) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=_STEPS,
        derandomize=not afresh,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=True,
    )


@pytest.mark.timeout(0)
@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_generated_commands_do_the_same(
    duo_of: DuoMaker,
    cstorage_command: list[str],
    forks: ForkServer,
    tally: Tally,
    driver: str,
    request: pytest.FixtureRequest,
) -> None:
    wanted = request.config.getoption("--conformance-examples")
    Commands.make, Commands.ours, Commands.driver = duo_of, cstorage_command, driver
    Commands.numbers = itertools.count()
    Commands.forks = forks
    Commands.tally = tally
    Commands.found = [] if wanted else None
    chosen = _settings(wanted or _DEFAULT_EXAMPLES, afresh=bool(wanted), shrink=not wanted)
    run_state_machine_as_test(Commands, settings=chosen)
    if Commands.found:
        kinds = {_kind(text): text for text in reversed(Commands.found)}
        shown = "\n\n".join(list(kinds.values())[:60])
        message = f"{len(Commands.found)} sequences differ, one of each kind:\n{shown}"
        pytest.fail(message, pytrace=False)
    if wanted >= _JUDGED_FROM:
        assert not tally.thin(driver, max(wanted // 500, 1), ABSENT)
