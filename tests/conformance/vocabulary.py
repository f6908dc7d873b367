"""What generated command lines are made of: Hypothesis strategies for words, options, archives.

The world of IDs and names is small, so that the commands meet each other: taken names, shared
parents, missing items, items in use. A word that begins with ``@`` stands for something that only
the running comparison knows:

- ``@last``: the newest item with a random ID, ``@run1``: the layer of the container run1,
  ``@run1~`` and ``@last~``: a prefix of these;
- ``@out``: a file to write, one for each side, compared afterwards;
- ``@host/NAME``: a file or folder that both sides read;
- ``@place``: a folder of the side's own.

No fixed ID is hexadecimal: a random ID must never begin with one.
"""

from __future__ import annotations

import tars
from hypothesis import strategies as st

Words = list[str]
Line = st.SearchStrategy[Words]
Word = st.SearchStrategy[str]

RANDOM = ("@last", "@run1", "@run2", "@last~", "@run1~")
NEW_LAYERS = st.sampled_from(["lower", "mid", "upper", "lo", "x"])
NEW_IMAGES = st.sampled_from(["img", "img2", "x"])
NEW_CONTAINERS = st.sampled_from(["run1", "run2", "x"])

_ODD = ("nosuch", "", "l", "lowe", "mi", "name", "other", "späße", "ro-low", "ro-name")
LAYERS = st.one_of(NEW_LAYERS, NEW_LAYERS, st.sampled_from([*_ODD, *RANDOM]))
IMAGES = st.one_of(NEW_IMAGES, NEW_IMAGES, st.sampled_from(["im", "i", "ro-img", *_ODD]))
CONTAINERS = st.one_of(
    NEW_CONTAINERS, NEW_CONTAINERS, st.just("run1"), st.sampled_from(["run", "ru", *_ODD])
)
ITEMS = st.one_of(LAYERS, IMAGES, CONTAINERS)

NAMES = st.sampled_from(["name", "other", "lower", "späße", "<&>", "mi", "a b", "n" * 70])
TEXTS = st.sampled_from(
    ["text", "two\nlines\n", '{"a": "<b>"}', "ü\u2028", "\x01\x7f", "\n\n", "-x", "tab\t"]
)
KEYS = st.sampled_from(
    ["key", "key", "manifest", "manifest-1", "odd/key", "B", "", "ü", "..", "a b", "k" * 120]
)
BYTES = st.sampled_from([b"", b"bytes\n", b"\x00\xff", b"{}", b"x" * 5000])
DIGESTS = st.sampled_from(
    [
        "sha256:" + "0123456789abcdef" * 4,
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",  # of {}
        "sha256:" + "0123456789ABCDEF" * 4,
        "sha512:" + "0123456789abcdef" * 8,
        "sha256:12",
        "md7:12",
        "bogus",
        "",
    ]
)
MAPS = st.sampled_from(
    ["0:100000:2000", "0:300000:2000", "0:5000:2000", "0:0:65536", "0:1", "a:b:c",
     "0:-1:2", "", "5:5:5"]
)  # fmt: skip


# -- command lines ---------------------------------------------------------------------------------


def option(*spellings: str, values: Word | None = None) -> Line:
    """One use of an option: any spelling, the value as its own word or, of long ones, glued on."""
    spelling = st.sampled_from(spellings)
    if values is None:
        glued = st.sampled_from(["", "", "", "", "", "=true", "=false", "=T"])
        return st.builds(
            lambda word, more: [word + (more if word.startswith("--") else "")], spelling, glued
        )
    return st.builds(
        lambda word, value, glue: (
            [f"{word}={value}"]
            if glue and word.startswith("--") and value[:1] not in ("'", '"', "@")
            else [word, value]
        ),
        spelling,
        values,
        st.sampled_from([False, False, True]),
    )


def sometimes(line: Line, often: int = 2) -> Line:
    """Nothing in half of the cases; less often with a larger ``often``."""
    return st.one_of(st.just([]), st.just([]), *[line] * often)


JSON = sometimes(option("--json", "-j"), 3)
NAME_OPTIONS: Line = st.lists(NAMES, max_size=3).flatmap(
    lambda names: st.tuples(*(option("--name", "-n", values=st.just(n)) for n in names)).map(
        lambda lines: [word for line in lines for word in line]
    )
)
_MAP_OPTIONS: Line = st.one_of(
    st.just([]),
    st.just([]),
    st.just([]),
    st.just(["--uidmap", "0:100000:2000", "--gidmap", "0:200000:2000"]),
    st.just(["--uidmap=0:300000:2000", "--gidmap=0:300000:2000"]),
    option("--uidmap", values=MAPS),
    option("--gidmap", values=MAPS),
    st.just(["--hostuidmap", "--hostgidmap"]),
    option("--hostuidmap"),
    option("--hostgidmap"),
    *[option("--subuidmap", values=st.just("nosuch-user"))] * 2,
    *[option("--subgidmap", values=st.just("nosuch-group"))] * 2,
    st.builds(lambda a, b: [*a, *b], option("--uidmap", values=MAPS), option("--hostuidmap")),
)
_METADATA: Line = st.one_of(
    st.just([]),
    st.just([]),
    option("--metadata", "-m", values=TEXTS),
    option("--metadata-file", "-f", values=st.sampled_from(["@host/note", "@host/nosuch"])),
)


def _id(values: Word) -> Line:
    return st.one_of(st.just([]), *[option("--id", "-i", values=values)] * 4)


def _line(command: str | tuple[str, ...], *parts: Line) -> Line:
    """A command (any of its names), options in any order of ``parts``, arguments last."""
    names = (command,) if isinstance(command, str) else command
    name = st.sampled_from([names[0]] * 4 + list(names))
    return st.tuples(name, *parts).map(lambda found: [found[0], *_flat(found[1:])])


def _flat(lines: tuple[object, ...]) -> Words:
    return [word for line in lines for word in line]  # type: ignore[attr-defined]


def _one(word: Word) -> Line:
    return word.map(lambda value: [value])


def _many(word: Word) -> Line:
    one = st.lists(word, min_size=1, max_size=1)
    return st.one_of(one, one, st.lists(word, min_size=1, max_size=3))


_PARENT: Line = st.one_of(st.just([]), st.just([""]), _one(LAYERS), _one(LAYERS))
_FILE_IN = sometimes(
    option("--file", "-f", values=st.sampled_from(["@host/layer.tar", "@host/nosuch"]))
)
_FILE_OUT = sometimes(option("--file", "-f", values=st.just("@out")), 3)
#: A label that is not empty can only be mounted where SELinux is on.
_LABEL = sometimes(option("--label", "-l", values=st.just("")))
_NEW_LAYER = (_id(NEW_LAYERS), NAME_OPTIONS, sometimes(option("--readonly", "-r")), JSON, _LABEL)

CREATE_LAYER = _line(("create-layer", "createlayer"), *_NEW_LAYER, _MAP_OPTIONS, _PARENT)
IMPORT_LAYER = _line(("import-layer", "importlayer"), *_NEW_LAYER, _MAP_OPTIONS, _FILE_IN, _PARENT)
APPLY_DIFF = _line(("applydiff", "apply-diff"), _FILE_IN, _one(LAYERS))
CREATE_IMAGE = _line(
    ("create-image", "createimage"),
    _id(NEW_IMAGES),
    NAME_OPTIONS,
    _METADATA,
    sometimes(option("--digest", "-d", values=DIGESTS)),
    JSON,
    _PARENT,
)
CREATE_CONTAINER = _line(
    ("create-container", "createcontainer"),
    _id(NEW_CONTAINERS),
    NAME_OPTIONS,
    _METADATA,
    _MAP_OPTIONS,
    sometimes(option("--volatile")),
    JSON,
    _one(IMAGES),
)

#: A change of names copies an image of an additional store: `copied-image-names` differ.
_NAMED = ITEMS.filter(lambda item: item != "ro-img")
NAMING = st.one_of(
    _line(("set-names", "setnames"), NAME_OPTIONS, JSON, _one(_NAMED)),
    _line(("add-names", "addnames"), NAME_OPTIONS, JSON, _one(_NAMED)),
    _line(("get-names", "getnames"), JSON, _one(ITEMS)),
)
METADATA = st.one_of(
    _line(("set-metadata", "setmetadata"), _METADATA, _one(ITEMS)),
    _line("metadata", sometimes(option("--quiet", "-q")), JSON, _many(ITEMS)),
)

_HOLDERS = {"layer": LAYERS, "image": IMAGES, "container": CONTAINERS}


def _data(kind: str) -> Line:
    holder = _one(_HOLDERS[kind])
    # Twice to get them: only that has an option.
    read = ["", "", "-size", "-digest"] if kind != "layer" else [""]
    return st.one_of(
        _line(
            (f"set-{kind}-data", f"set{kind}data"),
            sometimes(option("--file", "-f", values=st.sampled_from(["@host/note", "@host/no"]))),
            holder,
            _one(KEYS),
        ),
        *(
            _line(
                (f"get-{kind}-data{what}", f"get{kind}data{what.replace('-', '')}"),
                _FILE_OUT if not what else st.just([]),
                holder,
                _one(KEYS),
            )
            for what in read
        ),
        _line((f"list-{kind}-data", f"list{kind}data"), JSON, holder),
    )


LAYER_DATA, IMAGE_DATA, CONTAINER_DATA = (_data(kind) for kind in _HOLDERS)
DIRECTORIES = st.one_of(
    *(
        _line((f"get-container-{kind}", f"getcontainer{kind.replace('-', '')}"), _one(CONTAINERS))
        for kind in ("dir", "run-dir")
    )
)

_MOUNTABLE = st.one_of(CONTAINERS, CONTAINERS, LAYERS)
_OPT = sometimes(option("--opt", "-o", values=st.sampled_from(["ro", ""])))
MOUNT = _line("mount", JSON, _OPT, _LABEL, _many(_MOUNTABLE))
MOUNT_IMAGE = _line("mount", option("--ro", "-r"), JSON, _many(IMAGES))
UNMOUNT = _line(
    ("unmount", "umount"),
    sometimes(option("--force", "-f")),
    JSON,
    _many(st.one_of(_MOUNTABLE, IMAGES)),
)
MOUNTED = _line("mounted", JSON, _many(_MOUNTABLE))

DELETE = _line("delete", JSON, _many(ITEMS))
DELETE_LAYER = _line(
    ("delete-layer", "deletelayer"), JSON, _many(st.one_of(NEW_LAYERS, NEW_LAYERS, LAYERS))
)
DELETE_IMAGE = _line(
    ("delete-image", "deleteimage"), sometimes(option("--test", "-t")), JSON, _many(IMAGES)
)
DELETE_CONTAINER = _line(("delete-container", "deletecontainer"), JSON, _many(CONTAINERS))

LIST = st.one_of(
    _line("layers", sometimes(option("--tree", "-t")), JSON),
    _line("images", sometimes(option("--quiet", "-q")), JSON),
    _line("containers", JSON),
    _line("images-by-digest", sometimes(option("--quiet", "-q")), JSON, _one(DIGESTS)),
)
EXAMINE = st.one_of(
    _line("layer", JSON, _many(LAYERS)),
    _line("image", JSON, _many(IMAGES)),
    _line("container", JSON, _many(CONTAINERS)),
)
EXISTS = _line(
    "exists",
    sometimes(option("--quiet", "-q")),
    sometimes(option("--layer", "-l"), 1),
    sometimes(option("--image", "-i"), 1),
    sometimes(option("--container", "-c"), 1),
    JSON,
    _many(ITEMS),
)
OWNERS = st.one_of(
    _line("layer-parent-owners", JSON, _many(LAYERS)),
    _line("container-parent-owners", JSON, _many(CONTAINERS)),
)
_COMPRESSIONS = st.one_of(
    st.just([]),
    st.just([]),
    option("--uncompressed", "-u"),
    option("--gzip", "-c"),
    option("--bzip2", "--bz2", "-b"),
    option("--xz", "-x"),
    st.just(["-u", "-c"]),
)
_REFERENCE = st.one_of(st.just([]), st.just([]), _one(LAYERS))
DIFF = _line("diff", _COMPRESSIONS, _FILE_OUT, _one(LAYERS), _REFERENCE)
CHANGES = st.one_of(
    _line("changes", JSON, _one(LAYERS), _REFERENCE),
    _line(("diffsize", "diff-size"), _one(LAYERS), _REFERENCE),
)

_SPECS = st.one_of(
    st.sampled_from(["@host/file", "@host/tree", "@host/nosuch"]),
    st.builds(
        lambda layer, path: f"{layer}:/{path}",
        NEW_LAYERS,
        st.sampled_from(["aa", "dd", "dd/f", "ll"]),
    ),
)
_TARGETS = st.one_of(
    st.builds(
        lambda layer, path: f"{layer}:/{path}",
        st.one_of(NEW_CONTAINERS, NEW_LAYERS, st.just("nosuch")),
        st.sampled_from(["aa", "new", "dd", "deep/er", "dd/"]),
    ),
    st.just("@place"),
)
COPY = _line(
    "copy",
    sometimes(option("--chown", values=st.sampled_from(["7", "7:8", "a", "7:b", "1:2:3"]))),
    _many(_SPECS),
    _one(_TARGETS),
)

STORE_WIDE = st.one_of(
    _line("status", JSON),
    _line("version", JSON),
    _line("shutdown", sometimes(option("--force", "-f")), JSON),
    _line("shutdown", JSON),
    *[_line("containers", JSON)] * 2,
    _line("wipe", JSON),
)


# -- wrong ones ------------------------------------------------------------------------------------

_SHAPES = (
    ["--nosuch"], ["-Z"], ["--json=maybe", "img"], ["-jZ"], ["--"], ["--", "nosuch"], ["-"], [],
    ["nosuch", "--json"], ["--help"], ["-h"], ["--name"], ["-f"], ["-n"], ["--id"],
    ["nosuch", "b", "c", "d"], ["--debug=false", "nosuch"], ["--json=", "x"], ["-="],
    ["--storage-opt", "foo", "nosuch"], ["--storage-opt=zzz.foo=bar", "x"], ["--graph"],
    ["-jj", "nosuch"], ["---json"], ["--Json"], ["--json", "false"], ["--js"], ["--id=\"a b\""],
)  # fmt: skip


def wrong(commands: list[str]) -> Line:
    """Lines with missing or surplus arguments, unknown options, wrong values, help."""
    spelled = st.sampled_from([*commands, "nosuchcommand", "Layers", "help", ""])
    return st.builds(lambda name, shape: [name, *shape], spelled, st.sampled_from(_SHAPES))


# -- archives --------------------------------------------------------------------------------------

#: In the top directory no name of one letter: `short-names` differ.
_PATHS = st.sampled_from(["aa", "bb", "dd/f", "dd/g", "dd/e/h", "zz", "ä ü"])
_FILES = st.builds(
    lambda name, data, mode, uid, gid: tars.Member(name, data, mode=mode, uid=uid, gid=gid),
    _PATHS,
    st.sampled_from([b"", b"one\n", b"two two\n", b"y" * 4000]),
    st.sampled_from([0o644, 0o600, 0o4755]),
    st.sampled_from([0, 1000]),
    st.sampled_from([0, 42]),
)
_LINKS = st.builds(
    lambda name, link: tars.Member(name, kind=b"2", link=link, mode=0o777),
    st.sampled_from(["ll", "dd/l"]),
    st.sampled_from(["aa", "../bb", "/nowhere"]),
)
_FOLDERS = st.sampled_from(["dd", "dd/e", "vv"]).map(lambda name: tars.folder(name, 0o750))
_SPECIAL = st.sampled_from(
    [
        tars.Member("dev", kind=b"3", device=(1, 3), mode=0o666),
        tars.Member("pipe", kind=b"6", mode=0o600),
        tars.Member("attr", b"x", xattrs=(("user.colour", "blue"),)),
    ]
)
_WHITEOUTS = st.sampled_from([".wh.aa", "dd/.wh.f", "dd/.wh..wh..opq"]).map(tars.Member)
MEMBERS = st.lists(
    st.one_of(_FILES, _FILES, _FILES, _LINKS, _FOLDERS, _SPECIAL, _WHITEOUTS),
    max_size=6,
    unique_by=lambda member: member.name,
)
ARCHIVES = st.builds(
    tars.packed,
    MEMBERS.map(tars.without_own_whiteouts).map(tars.archive),
    st.sampled_from(["", "", "", "gzip", "bzip2", "xz", "zstd"]),
)

# -- edits of a mounted tree -----------------------------------------------------------------------

EDITS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "append", "remove", "folder", "chmod", "chown", "symlink", "link", "xattr",
             "rename", "touch"]
        ),
        st.sampled_from(["aa", "new", "dd", "dd/f", "dd/g", "nn/o", "ll", "vv"]),
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip
