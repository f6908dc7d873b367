"""One rule for each row of docs/differences.md.

A rule is given a step and both results and makes equal what its row declares, nothing more: it
leaves a pair alone that does not look exactly like the row says. ``documented`` reads the rows.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from duo import Rule, Shown, Step

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "differences.md"

RULES: dict[str, Rule] = {}


def documented(text: str | None = None) -> dict[str, str]:
    """The rows of the table in docs/differences.md: ID and what differs.

    Raises ``ValueError`` for an ID that stands twice and for a row without a reason.
    """
    rows: dict[str, str] = {}
    for line in (DOCUMENT.read_text() if text is None else text).splitlines():
        match = re.match(r"\| `([a-z0-9-]+)` \|", line)
        if match is None:
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) != 5 or not all(cells):
            raise ValueError(f"row {match[1]} needs five filled cells, has {cells}")
        if match[1] in rows:
            raise ValueError(f"row {match[1]} stands twice")
        rows[match[1]] = cells[1]
    return rows


def _rule(name: str):  # type: ignore[no-untyped-def]
    def register(rule: Rule) -> Rule:
        assert name not in RULES, name
        RULES[name] = rule
        return rule

    return register


def _words(step: Step) -> list[str]:
    return [arg if isinstance(arg, str) else arg.ours for arg in step.args]


_ABSENT = frozenset(
    {
        "applydiff-using-staging-dir", "check", "config", "create-storage-layer", "dedup", "gc",
        "get-image-dir", "getimagedir", "get-image-run-dir", "getimagerundir",
        "remove-names", "removenames", "storage-layers", "unshare",
    }
)  # fmt: skip


@_rule("newer-commands")
def _newer_commands(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    absent = theirs == Shown(1, f"{step.command}: unrecognized command.\n", "")
    return (ours, ours) if step.command in _ABSENT and absent else (ours, theirs)


@_rule("newer-flags")
def _newer_flags(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    flags = {
        "layers": ("--quick", "-q"),
        "mount": ("--read-only",),
        "copy": ("-o",),
    }.get(step.command, ())
    unknown = re.match(r"flag provided but not defined: (\S+)\n", theirs.stderr)
    if unknown is None or theirs.exit != 125:
        return ours, theirs
    bundled = any(
        len(flag) == 2 and re.fullmatch(rf"-\w*{flag[1]}\w*", unknown[1]) for flag in flags
    )
    return (ours, ours) if bundled or unknown[1] in flags else (ours, theirs)


@_rule("version-known")
def _version_known(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "version" or ours.exit != theirs.exit:
        return ours, theirs
    if theirs.stdout == "[]\n" and re.fullmatch(r'\[\["Version","[^"]+"\]\]\n', ours.stdout):
        return ours._replace(stdout=theirs.stdout), theirs
    if not theirs.stderr and re.fullmatch(r"Version: \S+\n", ours.stderr):
        return ours._replace(stderr=""), theirs
    return ours, theirs


@_rule("status-rows")
def _status_rows(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "status" or step.driver != "overlay":
        return ours, theirs
    extra = ("Supports shifting", "Supports volatile")
    if ours.stdout.startswith("[["):
        rows = [row for row in json.loads(ours.stdout) if row[0] not in extra]
        return ours._replace(stdout=json.dumps(rows, separators=(",", ":")) + "\n"), theirs
    kept = [line for line in ours.stderr.splitlines(keepends=True) if not line.startswith(extra)]
    return ours._replace(stderr="".join(kept)), theirs


@_rule("layers-null")
def _layers_null(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command == "layers" and (ours.stdout, theirs.stdout) == ("null\n", "[]\n"):
        return ours._replace(stdout="[]\n"), theirs
    return ours, theirs


_UNCOUNTED = frozenset(
    {
        "containers", "images", "layers", "shutdown", "status", "version", "wipe", "get-names",
        "get-image-data", "get-image-data-size", "get-image-data-digest", "set-image-data",
        "get-container-data", "get-container-data-size", "get-container-data-digest",
        "set-container-data", "get-layer-data", "set-layer-data",
        "get-container-dir", "get-container-run-dir",
    }
)  # fmt: skip


@_rule("argument-counts")
def _argument_counts(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    refused = ours.exit == 1 and ours.stdout.startswith(f"{step.command}: too many arguments ([")
    return (ours, ours) if refused and step.command in _UNCOUNTED else (ours, theirs)


_NAME_LINE = re.compile(r"\t+name: |Name: |Image name: |[ │]*name: |[ │]*image name: ")

#: Commands that show names in their order.
_SHOW_NAMES = frozenset(
    {
        "layers", "layer", "images", "image", "images-by-digest", "containers", "container",
        "create-container",
    }
)  # fmt: skip


def _names_sorted(shown: Shown) -> Shown:
    """Names in an order of their own wherever a command shows them."""
    lines = shown.stdout.splitlines(keepends=True)
    position = 0
    while position < len(lines):
        mark = _NAME_LINE.match(lines[position])
        end = position + 1
        if mark:
            while end < len(lines) and lines[end].startswith(mark[0]):
                end += 1
            lines[position:end] = sorted(lines[position:end])
        position = end
    text = "".join(lines)

    def ordered(value: object) -> object:
        if isinstance(value, list):
            return [ordered(item) for item in value]
        if isinstance(value, dict):
            return {
                key: sorted(item) if key in ("names", "names-history") else ordered(item)
                for key, item in value.items()
            }
        return value

    try:
        document = json.loads(text)
    except ValueError:
        return shown._replace(stdout=text)
    return shown._replace(stdout=json.dumps(ordered(document)) + "\n")


@_rule("add-names-order")
def _add_names_order(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command in ("add-names", "addnames", "get-names", "getnames"):
        ours, theirs = (
            shown._replace(stdout=json.dumps(sorted(json.loads(shown.stdout))) + "\n")
            if shown.stdout.startswith("[")
            else shown._replace(stdout="".join(sorted(shown.stdout.splitlines(keepends=True))))
            for shown in (ours, theirs)
        )
        return ours, theirs
    if step.command in _SHOW_NAMES:
        return _names_sorted(ours), _names_sorted(theirs)
    return ours, theirs


@_rule("mount-image-vfs")
def _mount_image_vfs(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    refused = "vfs driver does not support mount options while mounting" in theirs.stderr
    if step.command == "mount" and step.driver == "vfs" and refused and ours.exit == 0:
        return ours, ours
    return ours, theirs


@_rule("copy-crash")
def _copy_crash(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    crashed = theirs.exit == 2 and "panic:" in theirs.stderr
    return (ours, ours) if step.command == "copy" and crashed and ours.exit != 2 else (ours, theirs)


@_rule("driver-option-words")
def _driver_option_words(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    start = "error initializing: "
    both = ours.stdout.startswith(start) and theirs.stdout.startswith(start)
    if both and "option" in ours.stdout:
        return ours, theirs._replace(stdout=ours.stdout)
    return ours, theirs


@_rule("foreign-driver-options")
def _foreign_driver_options(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    refused = r"error initializing: (overlay: Unknown option|vfs driver does not support) btrfs\."
    if theirs.exit == 1 and re.match(refused, theirs.stdout) and ours.exit == 0:
        return ours, ours
    return ours, theirs


@_rule("copy-words")
def _copy_words(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    fault = re.fullmatch(r'error ("\w+") as a numeric (UID|GID): (.*)', theirs.stderr)
    if step.command == "copy" and fault and ours.stderr == f"bad {fault[2]}: {fault[3]}\n":
        return ours, theirs._replace(stderr=ours.stderr)
    return ours, theirs


@_rule("diff-type-bits")
def _diff_type_bits(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    """Modes of members: theirs carry the bits of the file's type above the permissions."""
    if step.command != "diff" or ours.exit != theirs.exit:
        return ours, theirs
    bits = re.compile(r"(?<=', ')0o\d+(?=', )")
    return ours, theirs._replace(
        stdout=bits.sub(lambda match: oct(int(match[0], 8) & 0o7777), theirs.stdout)
    )


@_rule("whiteout-time")
def _whiteout_time(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "diff":
        return ours, theirs
    line = re.compile(r"^(\('(?:.*/)?\.wh\..*, )(?:'now'|0)\)$", re.M)
    ours, theirs = (
        shown._replace(stdout=line.sub(r"\g<1>0)", shown.stdout)) for shown in (ours, theirs)
    )
    return ours, theirs


@_rule("whiteout-links")
def _whiteout_links(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "diff" or step.driver != "overlay":
        return ours, theirs
    line = re.compile(r"^(\('(?:.*/)?\.wh\.[^']*', '0', '0o0', 0, 0, 0, )'[^']*'", re.M)
    return ours, theirs._replace(stdout=line.sub(r"\g<1>''", theirs.stdout))


@_rule("broken-tar-words")
def _broken_tar_words(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    """Both refuse, both say so on standard error and nowhere else."""
    if (
        step.command in ("applydiff", "apply-diff", "import-layer", "importlayer")
        and ours.exit == theirs.exit == 1
        and ours.stdout == theirs.stdout == ""
        and ours.stderr
        and theirs.stderr
        and re.search(r"ApplyLayer|processing tar|unpacking failed|exhausting input", theirs.stderr)
    ):
        return ours._replace(stderr=theirs.stderr), theirs
    return ours, theirs


@_rule("help-words")
def _help_words(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    """Usage text: everything up to the command's name, the streams and the status count."""
    usage = re.compile(rf"(.*^Usage: PROGRAMME {step.command}\b).*", re.M | re.S)
    mine, other = usage.match(ours.stdout), usage.match(theirs.stdout)
    if mine is None or other is None or mine[1] != other[1]:
        return ours, theirs
    if bool(ours.stderr) != bool(theirs.stderr):
        return ours, theirs
    return ours._replace(stdout=theirs.stdout, stderr=theirs.stderr), theirs


def _blocks(text: str) -> str:
    """Listed items, each with its indented lines, in an order of their own."""
    return "".join(sorted(re.findall(r"^\S.*\n(?:\t.*\n)*", text, re.M)))


@_rule("volatile-order")
def _volatile_order(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if "--volatile" not in step.seen or step.command not in ("containers", "layers"):
        return ours, theirs

    def ordered(text: str) -> str:
        if text.startswith("["):
            items = json.loads(text)
            return json.dumps(sorted(items, key=lambda item: str(item["id"]))) + "\n"
        if text.startswith("(base)"):
            return "".join(sorted(line.strip(" │├└─") + "\n" for line in text.splitlines()))
        return _blocks(text)

    return (
        ours._replace(stdout=ordered(ours.stdout)),
        theirs._replace(stdout=ordered(theirs.stdout)),
    )


def _without_lines(shown: Shown, pattern: str) -> Shown:
    return shown._replace(stdout=re.sub(rf"^{pattern}\n", "", shown.stdout, flags=re.M))


@_rule("top-directory-time")
def _top_directory_time(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command == "(trees)":
        return _without_lines(ours, r"[^/\n]+/\.: time: ours '\d+', theirs 'now'"), theirs
    return ours, theirs


@_rule("empty-attributes")
def _empty_attributes(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "(trees)":
        return ours, theirs
    colour = r"\('user.colour', '\w+'\),"
    line = rf"\S+: xattrs: ours \({colour} \('user.empty', ''\)\), theirs \({colour}\)"
    return _without_lines(ours, line), theirs


@_rule("folder-after-whiteout")
def _folder_after_whiteout(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "(trees)" or step.driver != "overlay":
        return ours, theirs
    opaque = r"\S+: xattrs: ours \(\('trusted\.overlay\.opaque', '79'\),\), theirs \(\)"
    return _without_lines(ours, opaque), theirs


@_rule("own-whiteouts")
def _own_whiteouts(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command == "(trees)" and step.driver == "vfs" and "own" in step.seen:
        return _without_lines(ours, r"own/a: only ours: Entry\(kind='-'.*"), theirs
    return ours, theirs
