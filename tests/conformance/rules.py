"""One rule for each row of docs/differences.md.

A rule is given a step and both results and makes equal what its row declares, nothing more: it
leaves a pair alone that does not look exactly like the row says. ``documented`` reads the rows.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from duo import Rule, Shown, Step
from tars import MTIME

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


_LOST_HERE = re.compile(
    r"no layer has the short name [<\w>]+"
    r"(; a parent of this layer is missing from the store; run check)?"
)
_LOST_THERE = re.compile(
    r'creating overlay mount to \S+, mount_data=\\?"[^"]*": no such file or directory'
)


ABSENT = frozenset(
    {
        "applydiff-using-staging-dir", "check", "config", "create-storage-layer", "dedup", "gc",
        "get-image-dir", "getimagedir", "get-image-run-dir", "getimagerundir",
        "remove-names", "removenames", "storage-layers", "unshare",
    }
)  # fmt: skip


@_rule("newer-commands")
def _newer_commands(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    absent = theirs == Shown(1, f"{step.command}: unrecognized command.\n", "")
    return (ours, ours) if step.command in ABSENT and absent else (ours, theirs)


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
    uncounted = step.command in {*_UNCOUNTED, *(name.replace("-", "") for name in _UNCOUNTED)}
    return (ours, ours) if refused and uncounted else (ours, theirs)


_NAME_LINE = re.compile(
    r"\t+name: |Name: |Image name: |[ │]*name: |[ │]*image name: |[ │]*container name: "
)

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
    if "\nUsage: " in f"\n{ours.stdout}":
        return ours, theirs
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


def _mounted_only_here(step: Step, ours: Shown, theirs: Shown, refusal: str) -> tuple[Shown, Shown]:
    """``mount``: accepts what ours mounts and theirs refuses with a line like ``refusal``."""
    if step.command != "mount" or theirs.exit != 1:
        return ours, theirs
    if theirs.stdout.startswith("["):
        try:
            mine, other = json.loads(ours.stdout), json.loads(theirs.stdout)
        except ValueError:
            return ours, theirs
        same = len(mine) == len(other) and all(
            left == right
            or (
                left["error"] == ""
                and left["mountpoint"]
                and re.fullmatch(refusal, f"{right['error']} while mounting {right['id']}")
            )
            for left, right in zip(mine, other, strict=True)
        )
        return (ours, ours) if same else (ours, theirs)
    kept = [line for line in theirs.stderr.splitlines() if not re.fullmatch(refusal, line)]
    mine_lines, other_lines = ours.stdout.splitlines(), theirs.stdout.splitlines()
    same = len(mine_lines) == len(other_lines) and all(
        left == right or right == "" for left, right in zip(mine_lines, other_lines, strict=True)
    )
    refused = len(theirs.stderr.splitlines()) - len(kept)
    more = sum(map(bool, mine_lines)) - sum(map(bool, other_lines))
    if kept == ours.stderr.splitlines() and same and refused == more:
        return ours, ours
    return ours, theirs


@_rule("mount-image-vfs")
def _mount_image_vfs(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.driver != "vfs":
        return ours, theirs
    words = "vfs driver does not support mount options"
    lost = "layer not known"  # ours: the parent of the image's top layer was deleted
    for key in _words(step):
        line = f"{lost} while mounting {key}\n"
        json_start = f'{{"id":"{key}","mountpoint":"","error":'
        if line in ours.stderr:
            theirs = theirs._replace(
                stderr=theirs.stderr.replace(f"{words} while mounting {key}\n", line)
            )
        if f'{json_start}"{lost}"' in ours.stdout:
            theirs = theirs._replace(
                stdout=theirs.stdout.replace(f'{json_start}"{words}"', f'{json_start}"{lost}"')
            )
    return _mounted_only_here(step, ours, theirs, f"{words} while mounting .*")


def _lost_by_name(key: str, ours: Shown, theirs: Shown) -> Shown:
    """``theirs`` with our words for a layer found by its name whose parent was deleted."""
    name = re.escape(key)
    forms = (
        (rf"^(?P<text>{{}}) while mounting {name}$"),
        (rf'(?<={{{{"id":"{name}","mountpoint":"","error":")(?P<text>{{}})(?=")'),
    )
    for form in forms:
        lost = re.search(form.format(_LOST_HERE.pattern), "\n".join(ours[1:]), re.M)
        if lost is None:
            continue
        words = form.format(rf"(?:stat|open) ROOT/\S*/{name}(?:/link)?: no such file or directory")
        theirs = Shown(
            theirs.exit,
            *(re.sub(words, lambda _, text=lost[0]: text, part, flags=re.M) for part in theirs[1:]),
        )
    return theirs


@_rule("mount-by-name")
def _mount_by_name(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    missing = r"(?:stat|open) ROOT/\S*?/(?P<key>[^/]*)(?:/link)?: no such file or directory"
    refusal = rf"{missing} while mounting (?P=key)"
    if step.command == "mount" and step.driver == "overlay":
        for key in _words(step):
            theirs = _lost_by_name(key, ours, theirs)
    return _mounted_only_here(step, ours, theirs, refusal)


@_rule("mount-read-only-image")
def _mount_read_only_image(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command in ("unmount", "umount") and theirs.exit == 1:
        for image in {"ro-img", "ro-name"}.intersection(_words(step)):
            error = f'{{"id":"{image}","error":"layer not known"}}'
            line = f"layer not known while unmounting {image}\n"
            if error not in ours.stdout and line not in ours.stderr:
                stdout = theirs.stdout.replace(error, error.replace("layer not known", ""))
                theirs = Shown(ours.exit, stdout, theirs.stderr.replace(line, ""))
        return ours, theirs
    return _mounted_only_here(step, ours, theirs, "layer not known while mounting ro-.*")


@_rule("refused-mapped-copy")
def _refused_mapped_copy(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "images" or not _maps_seen(step) or not theirs.stdout.startswith("["):
        return ours, theirs
    mine, other = json.loads(ours.stdout), json.loads(theirs.stdout)
    fewer = len(mine) == len(other) and all(
        {**left, "mapped-layers": 0} == {**right, "mapped-layers": 0}
        and len(left.get("mapped-layers", ())) <= len(right.get("mapped-layers", ()))
        for left, right in zip(mine, other, strict=True)
    )
    return (ours, ours) if fewer else (ours, theirs)


@_rule("read-only-mount-words")
def _read_only_mount_words(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command not in ("mount", "copy"):
        return ours, theirs
    words = (
        "mounting read/only store images is not allowed: called a write method on a read-only store"
    )
    return (
        ours._replace(
            stdout=ours.stdout.replace(words, "layer not known"),
            stderr=ours.stderr.replace(words, "layer not known"),
        ),
        theirs,
    )


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


@_rule("shown-whiteouts")
def _shown_whiteouts(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    logged = theirs.stderr.replace("<log>\n", "")
    if step.command == "copy" and step.driver == "overlay" and theirs.stderr.startswith("<log>"):
        return ours, theirs._replace(stderr=logged)
    return ours, theirs


@_rule("copy-words")
def _copy_words(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "copy" or ours.exit != theirs.exit:
        return ours, theirs
    fault = re.fullmatch(r'error ("[^"]*") as a numeric (UID|GID): (.*)', theirs.stderr)
    if fault and ours.stderr == f"bad {fault[2]}: {fault[3]}\n":
        return ours, theirs._replace(stderr=ours.stderr)
    start = re.compile(r'error copying "[^"]*" to "[^"]*": (?=.)')
    left, right = start.match(ours.stderr), start.match(theirs.stderr)
    if left and right and left[0] == right[0]:
        return ours, theirs._replace(stderr=ours.stderr)
    return ours, theirs


@_rule("copy-onto-itself")
def _copy_onto_itself(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    refused = re.fullmatch(
        r'error copying "([^"]*)" to "\1": a directory cannot be copied into itself\n', ours.stderr
    )
    if step.command == "copy" and refused and ours.exit == 1 and theirs == Shown(0, "", ""):
        return ours, ours
    return ours, theirs


@_rule("copied-image-names")
def _copied_image_names(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    mine, other = ours.stdout.splitlines(), theirs.stdout.splitlines()
    if step.command == "get-names" and step.args == ("ro-img",) and mine == [*other, "ro-image"]:
        return ours, ours
    return ours, theirs


@_rule("import-order")
def _import_order(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command not in ("import-layer", "importlayer") or step.driver != "overlay":
        return ours, theirs
    taken = ("that ID is already in use\n", "that name is already in use\n")
    parent = ("layer not known\n", "would-be parent layer is a container\n")
    if ours.exit == theirs.exit and ours.stderr in taken and theirs.stderr in parent:
        return ours._replace(stderr=theirs.stderr), theirs
    return ours, theirs


def _same_loss(step: Step, ours: Shown, theirs: Shown) -> bool:
    """Whether both say, each in its words, that a layer cannot be mounted without its parent."""
    if not any(map(_LOST_THERE.search, theirs[1:])):
        return False
    mine, other = (  # theirs may have our words by now, see `mount-by-name`
        Shown(
            shown.exit,
            *(_LOST_HERE.sub("<lost>", _LOST_THERE.sub("<lost>", text)) for text in shown[1:]),
        )
        for shown in (ours, theirs)
    )
    other = other._replace(stderr=other.stderr.replace("<log>\n", ""))
    if step.command == "mount":  # of an image: refused before it comes to mounting
        for key in _words(step):
            for text in (
                f"{{}} while mounting {key}\n",
                f'{{{{"id":"{key}","mountpoint":"","error":"{{}}"}}}}',
            ):
                said, lost = text.format("layer not known"), text.format("<lost>")
                if lost in "".join(other[1:]):
                    mine = Shown(mine.exit, *(part.replace(said, lost) for part in mine[1:]))
    return mine == other


@_rule("missing-tree-words")
def _missing_tree_words(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.driver != "overlay" or ours.exit != theirs.exit:
        return ours, theirs
    if _same_loss(step, ours, theirs):
        return ours, ours
    unmounted = re.compile(r'(error mounting layer "[^"]*"): .*no such file or directory\n')
    lost = re.compile(r'(error mounting layer "[^"]*"): no layer has the short name .*\n')
    left, right = lost.fullmatch(ours.stderr), unmounted.search(theirs.stderr)
    if step.command == "copy" and left and right and left[1] == right[1]:
        return ours, theirs._replace(stderr=ours.stderr)
    unmountable = r"<log>\ncreating overlay mount to .*: no such file or directory\n"
    if (
        step.command in ("changes", "diff", "diffsize")
        and re.match(r"\w+ ROOT/overlay/\S+: no such", ours.stderr)
        and re.fullmatch(unmountable, theirs.stderr)
    ):
        return ours, theirs._replace(stderr=ours.stderr)
    words = re.compile(
        r"(?:faccessat|stat|Stat|readlink) (ROOT/overlay/[^/ ]+)(?:/diff)?(?=: no such file or)"
    )
    ours, theirs = (
        Shown(shown.exit, *(words.sub(r"stat \1", text) for text in shown[1:]))
        for shown in (ours, theirs)
    )
    return ours, theirs


@_rule("directory-times")
def _directory_times(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    """Ours may list modified directories more (a directory is all that a diff shows of them)."""
    if step.command not in ("changes", "diff") or ours.exit or theirs.exit:
        return ours, theirs
    if ours.stdout.startswith(("[", "null")):
        mine, other = (json.loads(shown.stdout) or [] for shown in (ours, theirs))
        surplus = [item for item in mine if item not in other]
        same = [item for item in mine if item in other] == other
        fits = all(item["Kind"] == 0 for item in surplus)
    else:
        lines, others = ours.stdout.splitlines(), theirs.stdout.splitlines()
        surplus_lines = [line for line in lines if line not in others]
        same = [line for line in lines if line in others] == others
        fits = all(re.match(r"Modify |\('[^']*', '5', ", line) for line in surplus_lines)
    return (ours, ours) if same and fits else (ours, theirs)


@_rule("applydiff-without-parent")
def _applydiff_without_parent(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.driver != "overlay" or step.command not in ("applydiff", "apply-diff"):
        return ours, theirs
    refused = r"<log>\ncreating overlay mount to .*: no such file or directory\n"
    unmountable = theirs.exit == 1 and re.fullmatch(refused, theirs.stderr)
    return (ours, ours) if unmountable and ours == Shown(0, "", "") else (ours, theirs)


@_rule("maps-without-root")
def _maps_without_root(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    what = r'creating read-write layer with ID "[^"]+": '
    refused = re.fullmatch(what + "container ID 0 cannot be mapped to a host ID\n", ours.stderr)
    given = any(word.endswith("5:5:5") for word in _words(step))
    if given and refused and ours.exit == 1 and not ours.stdout and theirs.exit == 0:
        return ours, ours
    return ours, theirs


@_rule("delete-by-name")
def _delete_by_name(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    """``delete-layer`` of what is in use: refused here for every spelling, there for full IDs."""
    if step.command not in ("delete-layer", "deletelayer") or ours.exit != 1:
        return ours, theirs
    in_use = re.compile(r"layer has children|is in use by an? (?:image|container)")
    if "Usage: " in ours.stdout:
        return ours, theirs
    if ours.stdout:
        mine, other = json.loads(ours.stdout), json.loads(theirs.stdout)
    else:
        mine, other = (
            dict(line.split(": ", 1) for line in shown.stderr.splitlines())
            for shown in (ours, theirs)
        )
    spared = [
        key
        for key, text in mine.items()
        if in_use.search(text) and not in_use.search(other.get(key, ""))
    ]
    # Full IDs of the world of the generated sequences, which may not be spared.
    return (ours, ours) if spared and not {"mid", "upper"}.intersection(spared) else (ours, theirs)


@_rule("dots-as-data-name")
def _dots_as_data_name(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    refused = (
        r"(?:closing bigdata file for the layer: )?"
        r"rename ROOT/\.tmp-\S+ ROOT/\S+: file exists\n"
    )
    if _words(step)[-1:] != [".."]:
        return ours, theirs
    if ours.exit == 0 and re.fullmatch(refused, theirs.stderr):
        return ours, ours
    if ours.exit == theirs.exit == 1 and theirs.stderr.endswith(": is a directory\n"):
        return ours, ours
    return ours, theirs


@_rule("sha512-digests")
def _sha512_digests(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    given = any(word.endswith("sha512:" + "0123456789abcdef" * 8) for word in _words(step))
    if given and theirs.exit == 1 and theirs.stderr.endswith("unsupported digest algorithm\n"):
        return ours, ours
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


#: Options that 1.43 does not know, by command; "" for those of all commands.
_NEW_OPTIONS = {
    "": {
        "--image-store",
        "--transient-store",
        "--unshare",
        "-U",
        "--reason",
        "--when",
        "--keep-deleted",
    },
    "layers": {"--quick", "-q"},
    "mount": {"--read-only"},
    "import-layer": {"--max-bytes", "--max-entries", "--max-ratio", "--progress"},
    "applydiff": {"--max-bytes", "--max-entries", "--max-ratio", "--progress"},
}


def _options(text: str) -> set[str]:
    """The spellings of all options that a usage text lists."""
    found = re.findall(r"^  (-[^=\n]*?)(?:=.*|  .*)?$", text, re.M)
    return {spelling for line in found for spelling in line.split(", ")}


@_rule("help-words")
def _help_words(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    """Usage text: everything up to the command's name, streams, status and options count."""
    mine_options, other_options = _options(ours.stderr), _options(theirs.stderr)
    names = {"importlayer": "import-layer", "apply-diff": "applydiff"}
    name = names.get(step.command, step.command)
    new = _NEW_OPTIONS[""] | _NEW_OPTIONS.get(name, set())
    if other_options - mine_options or mine_options - other_options - new:
        return ours, theirs
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
        if re.search(r"[│├└]", text):
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


@_rule("whiteout-over-file")
def _whiteout_over_file(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.driver != "overlay" or step.command not in ("applydiff", "apply-diff"):
        return ours, theirs
    refused = theirs == Shown(1, "", "processing tar file(file exists): exit status 1\n")
    return (ours, ours) if refused and ours == Shown(0, "", "") else (ours, theirs)


@_rule("mapped-directories")
def _mapped_directories(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "(trees)" or not _maps_seen(step):
        return ours, theirs
    if step.driver == "overlay":  # what is mounted has a rule of its own
        top = r"(?!mounted)[^/\n]+/\.: (?:uid|gid): ours \d+, theirs \d+"
        return _without_lines(ours, top), theirs
    ours = _without_lines(ours, r"[^/\n]+/\.: (?:uid|gid): ours \d+, theirs \d+")
    left_out = r"[^/\n]+/(?:dd|dd/e|home|usr|var): (?:uid|gid): ours [1-9]\d*, theirs 0"
    return _without_lines(ours, left_out), theirs


@_rule("mapped-mount-root")
def _mapped_mount_root(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "(trees)" or step.driver != "overlay" or not _maps_seen(step):
        return ours, theirs
    return _without_lines(ours, r"mounted/\.: (?:uid|gid): ours [1-9]\d*, theirs 0"), theirs


@_rule("unmappable-owners")
def _unmappable_owners(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    refused = r"(?:user|group) ID \d+ cannot be mapped to a container ID\n"
    if step.command == "diff" and theirs.exit == 0 and re.fullmatch(refused, ours.stderr):
        return ours, ours
    return ours, theirs


@_rule("parent-owners")
def _parent_owners(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    """Theirs lists the root of the newest mapped layer too: it owns the driver's folder."""
    commands = ("layer-parent-owners", "container-parent-owners")
    if step.command not in commands or step.driver != "vfs" or ours.exit != theirs.exit:
        return ours, theirs
    surplus = re.compile(r"(?<=IDs: \[0) [1-9]\d*(?=\])|(?<=IDs\":\[0),[1-9]\d*(?=\])")
    return ours, theirs._replace(stdout=surplus.sub("", theirs.stdout))


@_rule("several-ranges")
def _several_ranges(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.driver != "overlay" or step.command != "create-layer" or "--json" not in step.args:
        return ours, theirs
    recorded = re.sub(r',"[ug]idmap":\[[^]]*\]', "", theirs.stdout)
    if recorded == ours.stdout and '},{"container_id"' in theirs.stdout:
        return ours, ours
    return ours, theirs


@_rule("map-order")
def _map_order(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    """Only where a user's ranges and explicit ones were given together."""
    if not ("--subuidmap" in step.seen and "--uidmap" in step.seen):
        return ours, theirs

    def ordered(text: str) -> str:
        one = r'\{"container_id":\s*\d+,\s*"host_id":\s*\d+,\s*"size":\s*\d+\}'
        return re.sub(
            rf"{one}(?:,\s*{one})+", lambda match: ",".join(sorted(re.findall(one, match[0]))), text
        )

    return (
        ours._replace(stdout=ordered(ours.stdout)),
        theirs._replace(stdout=ordered(theirs.stdout)),
    )


@_rule("copied-link-times")
def _copied_link_times(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "(trees)" or not _maps_seen(step):
        return ours, theirs
    return _without_lines(ours, rf"[^/\n]+/usr/bin: time: ours '{MTIME}\d+', theirs 'now'"), theirs


def _maps_seen(step: Step) -> bool:
    return any(word.startswith(("--uidmap", "--gidmap", "--host")) for word in step.seen)


@_rule("short-names")
def _short_names(step: Step, ours: Shown, theirs: Shown) -> tuple[Shown, Shown]:
    if step.command != "(trees)" or step.driver != "vfs" or not _maps_seen(step):
        return ours, theirs
    line = r"short-copy/[a-z]: (?:uid|gid): ours 300000, theirs 0"
    return _without_lines(ours, line), theirs
