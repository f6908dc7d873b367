"""Generated command sequences do the same on both sides.

A Hypothesis state machine draws commands over a small world of IDs and names, so that they meet
each other: taken names, shared parents, missing items, items in use. Every step is compared as in
the hand-written sequences, the trees at the end.

The default is a small fixed set, for every run. ``--conformance-examples N`` draws N sequences for
each driver afresh.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, ClassVar

import pytest
import tars
from forkserver import ForkServer
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from mounts import unmount_below

if TYPE_CHECKING:
    from pathlib import Path

    from duo import Duo, DuoMaker

pytestmark = [pytest.mark.root, pytest.mark.peer]

_DEFAULT_EXAMPLES = 12
_STEPS = 14

# No ID is hexadecimal: a random ID must never begin with one.
LAYERS = st.sampled_from(["lower", "mid", "upper", "lo", "x"])
IMAGES = st.sampled_from(["img", "img2", "x"])
CONTAINERS = st.sampled_from(["run1", "run2", "x"])
ITEMS = st.one_of(LAYERS, IMAGES, CONTAINERS, st.just("nosuch"))
NAMES = st.sampled_from(["name", "other", "lower", "späße", "<&>"])
NAME_LISTS = st.lists(NAMES, max_size=3, unique=True)
TEXTS = st.sampled_from(["text", "two\nlines\n", '{"a": "<b>"}', "ü"])
KEYS = st.sampled_from(["key", "manifest", "odd/key", "B", ""])
BYTES = st.sampled_from([b"", b"bytes\n", b"\x00\xff", b"{}"])

_PATHS = st.sampled_from(["a", "b", "d/f", "d/g", "d/e/h", "z"])
_FILES = st.builds(
    lambda name, data, mode, uid, gid: tars.Member(name, data, mode=mode, uid=uid, gid=gid),
    _PATHS,
    st.sampled_from([b"", b"one\n", b"two two\n"]),
    st.sampled_from([0o644, 0o600, 0o4755]),
    st.sampled_from([0, 1000]),
    st.sampled_from([0, 42]),
)
_LINKS = st.builds(
    lambda name, link: tars.Member(name, kind=b"2", link=link, mode=0o777),
    st.sampled_from(["l", "d/l"]),
    st.sampled_from(["a", "../b", "/nowhere"]),
)
_FOLDERS = st.sampled_from(["d", "d/e", "v"]).map(lambda name: tars.folder(name, 0o750))
_WHITEOUTS = st.sampled_from([".wh.a", "d/.wh.f", "d/.wh..wh..opq"]).map(tars.Member)
ARCHIVES = st.lists(
    st.one_of(_FILES, _FILES, _LINKS, _FOLDERS, _WHITEOUTS),
    max_size=5,
    unique_by=lambda member: member.name,
).map(lambda members: tars.archive(_without_own_whiteouts(members)))


def _without_own_whiteouts(members: list[tars.Member]) -> list[tars.Member]:
    """Leaves out whiteouts of what the same archive brought before: `own-whiteouts` differ."""
    kept: list[tars.Member] = []
    for member in members:
        folder, _, name = member.name.rpartition("/")
        hidden = f"{folder}/{name.removeprefix('.wh.')}".lstrip("/")
        names = [f"{other.name}/" for other in kept]
        own = name.startswith(".wh.") and any(n.startswith(f"{hidden}/") for n in names)
        if not own:
            kept.append(member)
    return kept


def _flags(flag: str, values: list[str]) -> list[str]:
    return [word for value in values for word in (flag, value)]


class Commands(RuleBasedStateMachine):
    """The commands; ``make`` is set to the maker of the two sides before a run."""

    make: ClassVar[DuoMaker]
    ours: ClassVar[list[str]]
    driver: ClassVar[str]
    forks: ClassVar[ForkServer]
    numbers: ClassVar[itertools.count[int]]

    duo: Duo

    @initialize()
    def start(self) -> None:
        label = f"{self.driver}{next(Commands.numbers)}"
        self.duo = Commands.make(self.driver, Commands.ours, label=label)
        self.duo.ours.forks = Commands.forks
        self.mounted = 0

    # -- creating ----------------------------------------------------------------------------------

    @rule(layer=LAYERS, parent=st.one_of(st.just(""), LAYERS), names=NAME_LISTS)
    def create_layer(self, layer: str, parent: str, names: list[str]) -> None:
        self.duo.run("create-layer", "--id", layer, *_flags("-n", names), parent)

    @rule(layer=LAYERS, parent=st.one_of(st.just(""), LAYERS), data=ARCHIVES)
    def import_layer(self, layer: str, parent: str, data: bytes) -> None:
        self.duo.run("import-layer", "--json", "--id", layer, parent, stdin=data)

    @rule(layer=LAYERS, data=ARCHIVES)
    def apply_diff(self, layer: str, data: bytes) -> None:
        self.duo.run("applydiff", layer, stdin=data)

    @rule(image=IMAGES, layer=st.one_of(st.just(""), LAYERS), names=NAME_LISTS, text=TEXTS)
    def create_image(self, image: str, layer: str, names: list[str], text: str) -> None:
        self.duo.run("create-image", "--id", image, "-m", text, *_flags("-n", names), layer)

    @rule(container=CONTAINERS, image=st.one_of(st.just(""), IMAGES), names=NAME_LISTS)
    def create_container(self, container: str, image: str, names: list[str]) -> None:
        self.duo.run("create-container", "--id", container, *_flags("-n", names), image)

    # -- changing ----------------------------------------------------------------------------------

    @rule(item=ITEMS, names=NAME_LISTS)
    def set_names(self, item: str, names: list[str]) -> None:
        self.duo.run("set-names", *_flags("-n", names), item)

    @rule(item=ITEMS, text=TEXTS)
    def set_metadata(self, item: str, text: str) -> None:
        self.duo.run("set-metadata", "-m", text, item)

    @rule(kind=st.sampled_from(["layer", "image", "container"]), item=ITEMS, key=KEYS, data=BYTES)
    def set_data(self, kind: str, item: str, key: str, data: bytes) -> None:
        self.duo.run(f"set-{kind}-data", item, key, stdin=data)
        self.duo.run(f"get-{kind}-data", item, key)
        self.duo.run(f"list-{kind}-data", item)

    # -- mounting ----------------------------------------------------------------------------------

    @rule(container=CONTAINERS, name=st.sampled_from(["a", "new", "d"]))
    def write_in(self, container: str, name: str) -> None:
        mounted = self.duo.run("mount", container)
        if mounted.ok:
            self.duo.each(mounted.line, lambda root: _write(root / name))
            self.duo.run("unmount", container)

    @rule(container=CONTAINERS)
    def mount(self, container: str) -> None:
        self.duo.run("mount", container)
        self.mounted += 1

    @precondition(lambda self: self.mounted)
    @rule(container=CONTAINERS, force=st.booleans())
    def unmount(self, container: str, force: bool) -> None:
        self.duo.run("unmount", *(["--force"] if force else []), container)
        self.duo.run("mounted", container)

    # -- deleting ----------------------------------------------------------------------------------

    @rule(item=ITEMS)
    def delete(self, item: str) -> None:
        self.duo.run("delete", item)

    @rule(layer=LAYERS)
    def delete_layer(self, layer: str) -> None:
        self.duo.run("delete-layer", layer)

    @rule(image=IMAGES, test=st.booleans())
    def delete_image(self, image: str, test: bool) -> None:
        self.duo.run("delete-image", "--json", *(["--test"] if test else []), image)

    @rule(container=CONTAINERS)
    def delete_container(self, container: str) -> None:
        self.duo.run("delete-container", container)

    # -- looking -----------------------------------------------------------------------------------

    @rule(layer=LAYERS)
    def look_at_a_layer(self, layer: str) -> None:
        self.duo.run("layer", layer)
        self.duo.run("changes", layer, unordered=True)
        self.duo.run("diffsize", layer)
        self.duo.run("diff", "-u", layer, output="tar")

    @rule(item=ITEMS)
    def look_at_an_item(self, item: str) -> None:
        for kind in ("layer", "image", "container"):
            self.duo.run(kind, item)
        self.duo.run("exists", item)
        self.duo.run("metadata", item)
        self.duo.run("get-names", item)

    def teardown(self) -> None:
        if not hasattr(self, "duo"):
            return
        try:
            self.duo.run("layers", "--tree")
            self.duo.trees()
        finally:
            for side in (self.duo.ours, self.duo.theirs):
                unmount_below(side.graph.parent)


def _write(path: Path) -> None:
    if path.is_dir():
        path = path / "inside"
    path.write_bytes(json.dumps({"written": path.name}).encode())


@pytest.mark.timeout(0)
@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_generated_commands_do_the_same(
    duo_of: DuoMaker,
    cstorage_command: list[str],
    forks: ForkServer,
    driver: str,
    request: pytest.FixtureRequest,
) -> None:
    wanted = request.config.getoption("--conformance-examples")
    Commands.make, Commands.ours, Commands.driver = duo_of, cstorage_command, driver
    Commands.numbers = itertools.count()
    Commands.forks = forks
    run_state_machine_as_test(
        Commands,
        settings=settings(
            max_examples=wanted or _DEFAULT_EXAMPLES,
            stateful_step_count=_STEPS,
            derandomize=not wanted,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
