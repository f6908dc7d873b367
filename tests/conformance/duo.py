"""The same commands through two programmes, and what of their doings differs.

A ``Side`` is one programme with its own graph root and run root. A ``Duo`` gives every step to
both, normalises what is random (IDs in their order of appearance, times, roots, the programme's own
name) and compares exit status, standard output and standard error. What still differs is handed to
the rules of ``rules.py``, one for each row of docs/differences.md; what differs after them is a
``Mismatch`` that prints the whole sequence so that it can be typed again.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import tars
import trees
from forkserver import ForkServer
from tally import Tally

#: Listed differences after which the two stores differ.
PARTING = frozenset(
    {
        "argument-counts", "copied-image-names", "copy-onto-itself", "delete-by-name",
        "dots-as-data-name", "maps-without-root", "applydiff-without-parent",
        "mount-by-name", "mount-image-vfs", "mount-read-only-image",
        "refused-mapped-copy", "several-ranges", "sha512-digests",
        "whiteout-over-file",
    }
)  # fmt: skip

#: Commands that change nothing, so that `argument-counts` does not part the stores.
LOOKING = frozenset(
    {
        "containers", "images", "layers", "status", "version", "get-names", "getnames",
        "get-image-data", "get-image-data-size", "get-image-data-digest", "get-container-data",
        "get-container-data-size", "get-container-data-digest", "get-layer-data",
    }
)  # fmt: skip

#: Debian's package of the original.
PEER = "containers-storage"

_TIMEOUT_S = 60
_ID = re.compile(r"(?<!sha256:)(?<![0-9a-zA-Z])[0-9a-f]{64}(?![0-9a-zA-Z])")
_TIME = re.compile(r"(?!0001-01-01T00:00:00Z)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_LINK = re.compile(r"(?<![A-Z0-9])[A-Z0-9]{26}(?![A-Z0-9])")
_LOG = re.compile(r'^time="[^"]*" level=\w+ msg=.*$', re.M)
_NAME = re.compile(r"(?<![\w/.-])(?:[\w/.-]*/)?(?:containers-storage|cstorage)(?![\w/.-])")


class Result(NamedTuple):
    """What one programme did, as it did it."""

    exit: int
    stdout: bytes
    stderr: bytes


class Shown(NamedTuple):
    """A result made comparable."""

    exit: int
    stdout: str
    stderr: str


class PerSide(NamedTuple):
    """A value that each side chose for itself, such as a random ID or a mount point."""

    ours: str
    theirs: str


Argument = str | PerSide


class Step(NamedTuple):
    """One command as the rules see it."""

    command: str
    args: tuple[Argument, ...]
    driver: str
    seen: frozenset[str]  # every word of this and of earlier commands


class Mismatch(AssertionError):
    """The two sides did different things, and no listed difference explains it."""


class Side:
    """One programme with a store of its own."""

    def __init__(
        self,
        label: str,
        command: Sequence[str],
        base: Path,
        driver: str,
        environment: dict[str, str],
    ) -> None:
        self.label = label
        self.command = list(command)
        # Usage texts are padded by the length of the roots: folders with names of one length.
        self.graph = base / f"{label:_<8}" / "graph"
        self.run_root = base / f"{label:_<8}" / "run"
        self.driver = driver
        self.environment = environment
        self.forks: ForkServer | None = None  # another way to start the same programme
        self.numbers: dict[str, str] = {}
        self.words: dict[str, str] = {}  # other text that this side chose, and how it is shown

    def argv(self, args: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        roots = ["--graph", str(self.graph), "--run", str(self.run_root), "-s", self.driver]
        return [*self.command, *roots, *options, *args]

    def run(self, args: Sequence[str], stdin: bytes = b"", options: Sequence[str] = ()) -> Result:
        if self.forks is not None:
            return Result(*self.forks.run(self.argv(args, options)[len(self.command) :], stdin))
        done = subprocess.run(
            self.argv(args, options), input=stdin, capture_output=True, check=False,
            timeout=_TIMEOUT_S, env=self.environment,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    def plain(self, text: str) -> str:
        """``text`` without what this side chose at random."""
        text = text.replace(str(self.graph), "ROOT").replace(str(self.run_root), "RUN")
        text = text.replace(str(self.graph.parent), "SIDE")
        text = _ID.sub(self._numbered, text)
        for word, shown in self.words.items():
            text = text.replace(word, shown)
        return _LINK.sub("<link>", _TIME.sub("<T>", text))

    def _numbered(self, match: re.Match[str]) -> str:
        return self.numbers.setdefault(match[0], f"<id{len(self.numbers) + 1}>")

    def show(self, result: Result) -> Shown:
        stdout = result.stdout.decode("utf-8", "backslashreplace")
        stderr = _LOG.sub("<log>", result.stderr.decode("utf-8", "backslashreplace"))
        return Shown(
            result.exit,
            _NAME.sub("PROGRAMME", self.plain(stdout)),
            _NAME.sub("PROGRAMME", self.plain(stderr)),
        )

    def trees(self, since_ns: int) -> dict[str, trees.Entry]:
        """Every layer's directory: the whole of it on vfs, ``diff`` on overlay."""
        found: dict[str, trees.Entry] = {}
        home = self.graph / self.driver
        layers = home / "dir" if self.driver == "vfs" else home
        names = sorted(os.listdir(layers)) if layers.is_dir() else []
        for name in names:
            if self.driver == "overlay" and (name == "l" or not (layers / name / "diff").is_dir()):
                continue
            shown = self.plain(name)
            root = layers / name / "diff" if self.driver == "overlay" else layers / name
            for path, entry in trees.snapshot(root, since_ns).items():
                found[f"{shown}/{path}"] = entry
        return found


Rule = Callable[[Step, Shown, Shown], tuple[Shown, Shown]]


class Outcome(NamedTuple):
    """A step on both sides."""

    ours: Result
    theirs: Result

    @property
    def line(self) -> PerSide:
        """The first line of standard output of each side: an ID, a mount point."""
        return PerSide(*(r.stdout.decode().partition("\n")[0] for r in self))

    @property
    def ok(self) -> bool:
        return self.ours.exit == 0 and self.theirs.exit == 0


class Duo:
    """Two sides in step."""

    def __init__(
        self,
        ours: Side,
        theirs: Side,
        rules: dict[str, Rule],
        used: set[str],
        host: Path,
        tally: Tally,
    ) -> None:
        self.ours, self.theirs = ours, theirs
        self.rules = rules
        self.used = used
        self.host = host  # files that both sides may read
        self.since_ns = time.time_ns() - 2_000_000_000
        self.transcript: list[str] = []
        self.patient = False  # note a mismatch and go on; ``finish`` raises them all
        self.mismatches: list[str] = []
        self.words: set[str] = set()
        self.tally = tally
        self.parted = ""  # the listed difference after which the two stores are not the same

    @property
    def driver(self) -> str:
        return self.ours.driver

    # -- steps -------------------------------------------------------------------------------------

    def run(
        self,
        command: str,
        *args: Argument,
        stdin: bytes = b"",
        options: Sequence[Argument] = (),
        unordered: bool = False,
        output: str = "text",
        file: PerSide | None = None,
    ) -> Outcome:
        """One command on both sides, compared.

        ``unordered``: the original prints its lines in random order. ``output``: "text", "tar" (a
        tar stream, compared by its members) or "stream" (the same, but possibly compressed).
        ``file``: what the command writes beside its streams; it must have the same content, by the
        same ``output``.
        """
        self.words.update(arg for arg in args if isinstance(arg, str))
        step = Step(command, args, self.driver, frozenset(self.words))
        self.transcript.append(self._typed(step, stdin))
        results = []
        for side, pick in ((self.ours, 0), (self.theirs, 1)):
            words = [arg if isinstance(arg, str) else arg[pick] for arg in args]
            before = [option if isinstance(option, str) else option[pick] for option in options]
            results.append(side.run([command, *words], stdin, before))
        outcome = Outcome(*results)
        self.tally.note(self.driver, command, [str(arg) for arg in args], outcome.theirs.exit == 0)
        if output != "text":
            results = [_as_listing(result, output, self.since_ns) for result in results]
        ours, theirs = self.ours.show(results[0]), self.theirs.show(results[1])
        if unordered:
            ours, theirs = _sorted_lines(ours), _sorted_lines(theirs)
        if command in ("images", "image", "images-by-digest"):
            ours, theirs = _digests_sorted(ours), _digests_sorted(theirs)
        if command == "layers":
            ours, theirs = _roots_sorted(ours), _roots_sorted(theirs)
        self._compare(step, ours, theirs)
        if file is not None:
            self._compare_files(step, file, output)
        return outcome

    def _compare_files(self, step: Step, file: PerSide, output: str) -> None:
        shown = []
        for side, name in ((self.ours, file.ours), (self.theirs, file.theirs)):
            path = Path(name)
            result = Result(0, path.read_bytes(), b"") if path.exists() else Result(1, b"", b"")
            path.unlink(missing_ok=True)
            if output != "text":
                result = _as_listing(result, output, self.since_ns)
            shown.append(side.show(result))
        self._compare(step, *shown)

    def _compare(self, step: Step, ours: Shown, theirs: Shown) -> None:
        left, right = _same_class(ours, theirs)
        helped = []
        for name, rule in self.rules.items():
            if left == right:
                break
            before = left, right
            left, right = _same_class(*rule(step, left, right))
            if (left, right) != before:
                helped.append(name)
        if left == right:
            self.used.update(helped)
            parting = PARTING.intersection(helped)
            if step.command in LOOKING:
                parting -= {"argument-counts"}
            if parting:
                self.parted = ", ".join(sorted(parting))
        elif self.patient:
            typed = f"  after: {self.transcript[-1]}"
            self.mismatches.append("\n".join([typed, *_differing_fields(left, right, helped)]))
        else:
            steps = (f"    {line}" for line in self.transcript)
            raise Mismatch("\n".join([*steps, *_differing_fields(left, right, helped)]))

    def finish(self) -> None:
        """Compares the trees, unless the stores parted, then raises what a patient run noted."""
        if not self.parted:
            self.trees()
        if self.mismatches:
            steps = "".join(f"    {line}\n" for line in self.transcript)
            raise Mismatch(f"{self.driver}:\n{steps}" + "\n".join(self.mismatches))

    def trees(self) -> None:
        """Compares the trees of all layers; first shows both sides all IDs in one order."""
        for command in ("layers", "images", "containers"):
            self.run(command, "--json")
        self._no_difference(self.ours.trees(self.since_ns), self.theirs.trees(self.since_ns))

    def same_tree(self, roots: PerSide, label: str) -> None:
        """Compares one tree of each side, for instance of a mounted container."""
        assert all(root.startswith("/") for root in roots), f"no folder to compare: {roots}"
        snapshots = [
            {
                f"{label}/{path}": entry
                for path, entry in trees.snapshot(Path(root), self.since_ns).items()
            }
            for root in roots
        ]
        self._no_difference(*snapshots)

    def _no_difference(self, ours: dict[str, trees.Entry], theirs: dict[str, trees.Entry]) -> None:
        lines = trees.differing(ours, theirs)
        step = Step("(trees)", (), self.driver, frozenset(self.words))
        self.transcript.append("(compare the trees)")
        self._compare(step, Shown(0, "".join(f"{line}\n" for line in lines), ""), Shown(0, "", ""))

    def each(self, path: PerSide, change: Callable[[Path], object]) -> None:
        """The same change of files on both sides, for instance in a mounted container."""
        self.transcript.append(f"({getattr(change, '__name__', 'a change')} in {path.ours})")
        for side in path:
            assert side.startswith("/"), f"no folder to change: {path}"
            change(Path(side))

    # -- reports -----------------------------------------------------------------------------------

    def _typed(self, step: Step, stdin: bytes) -> str:
        words = [
            arg if isinstance(arg, str) else f"{{{arg.ours}|{arg.theirs}}}" for arg in step.args
        ]
        feed = f" < ({len(stdin)} bytes)" if stdin else ""
        return f"{step.command} {' '.join(shlex.quote(word) for word in words)}{feed}".rstrip()


def _differing_fields(ours: Shown, theirs: Shown, helped: list[str]) -> list[str]:
    lines = []
    for field in Shown._fields:
        mine, other = getattr(ours, field), getattr(theirs, field)
        if mine != other:
            lines += [f"  {field}: ours:   {mine!r}"[:4000], f"  {field}: theirs: {other!r}"[:4000]]
    if helped:
        lines.append(f"  (applied: {', '.join(helped)})")
    return lines


def _digests_sorted(shown: Shown) -> Shown:
    """Digests after an image's recorded one in an order of their own: the original's is random."""
    lines = shown.stdout.splitlines(keepends=True)
    ordered: list[str] = []
    run: list[str] = []
    for line in [*lines, ""]:
        if line.startswith(("\tdigest: ", "Digest: ")):
            run.append(line)
        else:
            ordered += [*run[:1], *sorted(run[1:]), line]
            run = []
    return shown._replace(stdout="".join(ordered))


def _roots_sorted(shown: Shown) -> Shown:
    """Trees of ``layers --tree`` with equally many children in an order of their own.

    The original draws them in random order; that those with fewer come first is compared.
    """
    if not re.search("^[├└]", shown.stdout, re.M):
        return shown
    trees_ = re.findall(r"^[^ │├└\n].*\n(?:[ │├└].*\n)*", shown.stdout, re.M)
    weights = [len(re.findall("^[├└]", tree, re.M)) for tree in trees_]
    ordered: list[str] = []
    for _, group in itertools.groupby(zip(weights, trees_, strict=True), key=lambda pair: pair[0]):
        ordered += sorted(tree for _, tree in group)
    return shown._replace(stdout="".join(ordered))


def _sorted_lines(shown: Shown) -> Shown:
    if "\nUsage: " in f"\n{shown.stdout}":
        return shown

    def ordered(text: str) -> str:
        return "".join(sorted(text.splitlines(keepends=True)))

    try:
        document = json.loads(shown.stdout)
    except ValueError:
        return Shown(shown.exit, ordered(shown.stdout), ordered(shown.stderr))
    if isinstance(document, list):
        document = sorted(document, key=lambda item: json.dumps(item, sort_keys=True))
    return Shown(shown.exit, json.dumps(document) + "\n", ordered(shown.stderr))


def _same_class(ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    """Standard error by class: ours may go on where theirs ends (to say how to fix it)."""
    mine, other = ours.stderr.splitlines(), theirs.stderr.splitlines()
    if len(mine) == len(other) and all(
        line == known or line.startswith((f"{known} (", f"{known};"))
        for line, known in zip(mine, other, strict=True)
    ):
        return ours._replace(stderr=theirs.stderr), theirs
    return ours, theirs


def _as_listing(result: Result, output: str, since_ns: int) -> Result:
    """A result whose standard output is a tar stream, as text: one line for each member."""
    data = result.stdout
    if not data:
        return result
    kind = "plain"
    if output == "stream":
        kind, data = _decompressed(data)
    try:
        rows = "".join(f"{row}\n" for row in tars.listing(data, since_ns / 1e9))
    except tarfile.TarError:  # a usage text, for instance: compared as it is
        return result
    return result._replace(stdout=f"{kind}\n{rows}".encode())


def _decompressed(data: bytes) -> tuple[str, bytes]:
    if data[:2] == b"\x1f\x8b":
        return "gzip", subprocess.run(
            ["gzip", "-dc"], input=data, capture_output=True, check=True
        ).stdout
    if data[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        return "zstd", zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return "plain", data


DuoMaker = Callable[..., Duo]
