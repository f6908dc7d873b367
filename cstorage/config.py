"""storage.conf and its friends: which options a store has when nobody names any.

Rules (semantics §9):

* One main file, the first that exists: ``$XDG_CONFIG_HOME/containers/storage.conf``
  (``$HOME/.config`` when the variable is unset), ``/etc/containers/storage.conf``,
  ``/usr/share/containers/storage.conf``. Drop-ins (``*.conf`` in the ``.d`` directories) are merged
  over it in the order of their file names; of two with the same name the later directory's counts.
* ``CONTAINERS_STORAGE_CONF`` replaces all of that, ``CONTAINERS_STORAGE_CONF_OVERRIDE`` is read
  last in any case; naming a missing file is fatal, and so is a syntax error anywhere.
* A later scalar replaces an earlier one; ``pull_options`` merges by key; an array replaces, unless
  it contains ``{append=true}``, which makes it and later arrays of that key append.
* ``STORAGE_DRIVER`` and ``STORAGE_OPTS`` override what the files say.
* Unknown keys and foreign tables (``thinpool`` …) are ignored; each leaves a line in ``notes``.

``load`` does the I/O, ``options_from`` decides. Errors: ``ConfigError``.
"""

from __future__ import annotations

import os

from cstorage.errors import ConfigError
from journal.plain import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cstorage.model import IDMap

GRAPH_ROOT = "/var/lib/containers/storage"
RUN_ROOT = "/run/containers/storage"

_NAME = "storage.conf"
_SYSTEM = "/etc/containers"
_VENDOR = "/usr/share/containers"
_FULL_ID_RANGE = 4294967295

# Keys of a table: name -> (type, where it goes). The order of tables is the order of the options.
_STORAGE_KEYS: dict[str, type] = {
    "driver": str,
    "driver_priority": list,
    "graphroot": str,
    "runroot": str,
    "imagestore": str,
    "rootless_storage_path": str,
    "transient_store": bool,
}
_OPTION_KEYS: dict[str, type] = {
    "additionalimagestores": list,
    "additionallayerstores": list,
    "imagestore": str,
    "size": str,
    "mount_program": str,
    "skip_mount_home": str,
    "ignore_chown_errors": str,
    "force_mask": int,
    "mountopt": str,
    "use_composefs": str,
    "root-auto-userns-user": str,
    "auto-userns-min-size": int,
    "auto-userns-max-size": int,
    "disable-volatile": bool,
    "projection": str,
    "keep-deleted-seconds": int,
    "keep-deleted-mib": int,
}
_DRIVER_TABLES: dict[str, tuple[str, ...]] = {
    "btrfs": ("min_space", "size"),
    "overlay": (
        "mountopt", "mount_program", "size", "inodes", "skip_mount_home", "force_mask",
        "ignore_chown_errors", "use_composefs", "sync",
    ),
    "vfs": ("ignore_chown_errors", "sync"),
    "zfs": ("fsname", "mountopt", "size"),
}  # fmt: skip


class StoreOptions(NamedTuple):
    """How to open a store. JSON names and order: semantics §9.5."""

    run_root: str = ""
    graph_root: str = ""
    image_store: str = ""
    driver: str = ""
    driver_priority: tuple[str, ...] = ()
    driver_options: tuple[str, ...] = ()
    uid_map: IDMap = ()
    gid_map: IDMap = ()
    root_auto_userns_user: str = ""
    auto_userns_min_size: int = 0
    auto_userns_max_size: int = 0
    pull_options: Mapping[str, str] | None = None
    disable_volatile: bool = False
    transient_store: bool = False
    projection: str = ""
    """Whether the view for other tools follows every change: "additional", "off", "" = as the
    store was told with ``project``. Ours alone, not part of the JSON form."""
    keep_deleted_s: int = 0
    """How many seconds deleted items are kept to be restored; 0 = no limit if bytes are given, else
    not at all. Ours alone, like the next."""
    keep_deleted_bytes: int = 0
    """How many bytes of them; 0 = no limit."""
    notes: tuple[str, ...] = ()
    """What was read and ignored, one line each; not part of the JSON form."""


class Surroundings(NamedTuple):
    """What the rules depend on besides the files; ``here`` reads it from the process."""

    environ: Mapping[str, str]
    uid: int = 0
    rootless: bool = False
    system: str = _SYSTEM
    vendor: str = _VENDOR


def here() -> Surroundings:
    """The surroundings of this process."""
    environ = dict(os.environ)
    uid = rootless_uid(environ)
    return Surroundings(environ, uid, is_rootless(environ, uid))


def rootless_uid(environ: Mapping[str, str]) -> int:
    """``_CONTAINERS_ROOTLESS_UID`` if it is set, else the effective user ID."""
    text = environ.get("_CONTAINERS_ROOTLESS_UID", "")
    return int(text) if text.isascii() and text.isdigit() else os.geteuid()


def is_rootless(environ: Mapping[str, str], uid: int) -> bool:
    """Whether this process lacks what the host's root has (semantics §9.4)."""
    if uid != 0 or environ.get("_CONTAINERS_USERNS_CONFIGURED"):
        return True
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            fields = file.readline().split()
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            capabilities = next(
                (int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), ~0
            )
    except (OSError, ValueError, IndexError):
        return False
    cap_sys_admin = 1 << 21
    return fields[1:3] != ["0", str(_FULL_ID_RANGE)] or not capabilities & cap_sys_admin


# -- files ---------------------------------------------------------------------------------------


def _user_directory(where: Surroundings) -> str | None:
    configured = where.environ.get("XDG_CONFIG_HOME")
    if configured is None:
        home = where.environ.get("HOME")
        return f"{home}/.config/containers" if home else None
    # Set but empty gives a relative path, against the manual (quirk Q-22).
    return os.path.join(configured, "containers")


def main_candidates(where: Surroundings) -> list[str]:
    """Places of the main file, the first that exists counts."""
    user = _user_directory(where)
    folders = [*([user] if user is not None else []), where.system, where.vendor]
    return [f"{folder}/{_NAME}" for folder in folders]


def drop_in_directories(where: Surroundings) -> list[str]:
    """Directories of drop-ins, later ones hide same names of earlier ones."""
    found = []
    kind = "rootless" if where.uid else "rootful"
    for folder in (where.vendor, where.system):
        found.append(f"{folder}/{_NAME}.d")
        found.append(f"{folder}/storage.{kind}.conf.d")
        if where.uid:
            found.append(f"{folder}/storage.{kind}.conf.d/{where.uid}")
    user = _user_directory(where)
    if user is not None:
        found.append(f"{user}/{_NAME}.d")
    return found


def files(where: Surroundings) -> list[str]:
    """The files to read, in order. Does not check that explicitly named ones exist."""
    chosen: list[str] = []
    explicit = where.environ.get("CONTAINERS_STORAGE_CONF")
    if explicit:
        chosen.append(explicit)
    else:
        chosen.extend([path for path in main_candidates(where) if os.path.isfile(path)][:1])
        by_name: dict[str, str] = {}
        for folder in drop_in_directories(where):
            try:
                names = os.listdir(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for name in names:
                if name.endswith(".conf") and os.path.isfile(f"{folder}/{name}"):
                    by_name[name] = f"{folder}/{name}"
        chosen.extend(path for _, path in sorted(by_name.items()))
    override = where.environ.get("CONTAINERS_STORAGE_CONF_OVERRIDE")
    if override:
        chosen.append(override)
    return chosen


def read(path: str) -> dict[str, Any]:
    """The ``storage`` table of a file. Raises ``ConfigError`` naming the file."""
    import tomllib

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f'decode configuration "{path}": toml: {error}', hint="correct the file"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f'decode configuration "{path}": toml: {error}') from None
    except OSError as error:
        verb = "read" if isinstance(error, IsADirectoryError) else "open"
        raise ConfigError(f"{verb} {path}: {(error.strerror or str(error)).lower()}") from None
    table = document.get("storage", {})
    if not isinstance(table, dict):
        raise ConfigError(f'decode configuration "{path}": storage is not a table')
    return table


# -- merging -------------------------------------------------------------------------------------


class _Merged:
    """Tables of several files laid over one another."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.pull_options: dict[str, str] | None = None
        self.notes: list[str] = []
        self._appending: set[str] = set()

    def add(self, table: Mapping[str, Any], path: str) -> None:
        for key, value in table.items():
            if key == "options":
                self._options(_table(value, "storage.options", path), path)
            elif key in _STORAGE_KEYS:
                self._set(f"storage.{key}", value, _STORAGE_KEYS[key], path)
            else:
                self._note(f"storage.{key}", path)

    def _options(self, table: Mapping[str, Any], path: str) -> None:
        for key, value in table.items():
            if key in _OPTION_KEYS:
                self._set(f"options.{key}", value, _OPTION_KEYS[key], path)
            elif key == "pull_options":
                pulls = self.pull_options = self.pull_options or {}
                for name, text in _table(value, f"storage.options.{key}", path).items():
                    if not isinstance(text, str):
                        raise _wrong(path, f"storage.options.pull_options.{name}", "a string")
                    pulls[name] = text
            elif key in _DRIVER_TABLES:
                for name, text in _table(value, f"storage.options.{key}", path).items():
                    if name in _DRIVER_TABLES[key]:
                        self._set(f"{key}.{name}", text, str, path)
                    else:
                        self._note(f"storage.options.{key}.{name}", path)
            else:
                self._note(f"storage.options.{key}", path)

    def _set(self, key: str, value: Any, kind: type, path: str) -> None:
        if kind is list:
            self._array(key, value, path)
            return
        if not isinstance(value, kind) or (kind is int and not _is_number(value)):
            names = {str: "a string", int: "an integer from 0 to 4294967295", bool: "true or false"}
            raise _wrong(path, _spelled(key), names[kind])
        self.values[key] = value

    def _array(self, key: str, value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise _wrong(path, _spelled(key), "an array of strings")
        strings = []
        for element in value:
            if isinstance(element, str):
                strings.append(element)
            elif element == {"append": True}:
                self._appending.add(key)
            elif element == {"append": False}:
                self._appending.discard(key)
            else:
                raise _wrong(
                    path, _spelled(key), "an array of strings, optionally with {append=true}"
                )
        if key in self._appending:
            strings = [*self.values.get(key, []), *strings]
        self.values[key] = strings

    def _note(self, key: str, path: str) -> None:
        self.notes.append(f"{path}: {key} is not used")


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32


def _spelled(key: str) -> str:
    """A key of ``_Merged.values`` as it stands in a file."""
    table = key.partition(".")[0]
    if table == "storage":
        return key
    return f"storage.{key}" if table == "options" else f"storage.options.{key}"


def _table(value: object, name: str, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, name, "a table")
    return value


def _wrong(path: str, key: str, expected: str) -> ConfigError:
    return ConfigError(
        f'decode configuration "{path}": {key} must be {expected}', hint="correct the file"
    )


# -- deciding ------------------------------------------------------------------------------------


def options_from(merged: _Merged, where: Surroundings) -> StoreOptions:
    """Store options from merged tables and the environment."""
    values, notes = merged.values, list(merged.notes)
    environ = where.environ
    driver = environ.get("STORAGE_DRIVER") or values.get("storage.driver", "")
    if driver == "overlay2":
        notes.append('driver "overlay2" is called "overlay"')
        driver = "overlay"
    priority = [
        "overlay" if name == "overlay2" else name
        for name in values.get("storage.driver_priority", [])
    ]
    graph_root, run_root = _roots(values, where, notes)
    image_store = values.get("storage.imagestore", "")
    if image_store and image_store == graph_root:
        raise ConfigError(
            f"imagestore {image_store} must either be not set or be a different than graphroot",
            hint="remove imagestore from storage.conf or name another directory",
        )
    projection = values.get("options.projection", "")
    if projection not in {"", "additional", "off"}:
        raise ConfigError(
            f'projection must be "additional" or "off", not "{projection}"',
            hint="correct storage.options.projection in storage.conf",
        )
    given = environ.get("STORAGE_OPTS")
    if given is None:
        options = _driver_options(values)
    else:
        options = [part for part in given.split(",") if part]
    return StoreOptions(
        run_root=run_root,
        graph_root=graph_root,
        image_store=image_store,
        driver=driver,
        driver_priority=tuple(priority),
        driver_options=tuple(options),
        root_auto_userns_user=values.get("options.root-auto-userns-user", ""),
        auto_userns_min_size=values.get("options.auto-userns-min-size", 0),
        auto_userns_max_size=values.get("options.auto-userns-max-size", 0),
        pull_options=merged.pull_options,
        disable_volatile=values.get("options.disable-volatile", False),
        transient_store=values.get("storage.transient_store", False),
        projection=projection,
        keep_deleted_s=values.get("options.keep-deleted-seconds", 0),
        keep_deleted_bytes=values.get("options.keep-deleted-mib", 0) << 20,
        notes=tuple(notes),
    )


def _roots(values: Mapping[str, Any], where: Surroundings, notes: list[str]) -> tuple[str, str]:
    graph = values.get("storage.graphroot", "")
    per_user = values.get("storage.rootless_storage_path", "")
    personal = where.rootless and where.uid != 0
    if per_user:
        if graph:
            notes.append("rootless_storage_path is not used because graphroot is set")
        elif personal:
            graph = per_user
    run = values.get("storage.runroot", "")
    graph = expand(graph, where) if graph else ""
    run = expand(run, where) if run else ""
    if not personal:
        return graph or GRAPH_ROOT, run or RUN_ROOT
    if not graph:
        data = where.environ.get("XDG_DATA_HOME") or (
            where.environ.get("HOME", "") + "/.local/share"
        )
        graph = f"{data}/containers/storage"
    return graph, run or f"{_runtime_directory(where)}/containers"


def _runtime_directory(where: Surroundings) -> str:
    """``$XDG_RUNTIME_DIR``, else a private directory that is made if need be (semantics §9.4)."""
    configured = where.environ.get("XDG_RUNTIME_DIR")
    if configured:
        if not os.path.isdir(configured):
            raise ConfigError(
                f"stat {configured}: no such file or directory",
                hint="XDG_RUNTIME_DIR must name a directory",
            )
        return os.path.realpath(configured)
    problem = ""
    for path in (
        f"/run/user/{where.uid}",
        f"{where.environ.get('TMPDIR') or '/tmp'}/storage-run-{where.uid}",
    ):
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            status = os.lstat(path)
        except OSError as error:
            problem = f"{path}: {error.strerror}"
            continue
        if status.st_uid == where.uid and not status.st_mode & 0o022:
            return path
        problem = f"{path} must belong to user {where.uid} and be writable by nobody else"
    raise ConfigError(f"no runtime directory: {problem}", hint="set XDG_RUNTIME_DIR")


def expand(path: str, where: Surroundings) -> str:
    """``$UID``, then variables, then symbolic links if the path exists (semantics §9.3)."""
    import re

    text = path.replace("$UID", str(where.uid))
    text = re.sub(
        r"\$(?:\{(\w*)\}|(\w+))",
        lambda found: where.environ.get(found[1] or found[2] or "", ""),
        text,
    )
    return os.path.realpath(text) if os.path.exists(text) else os.path.normpath(text)


def _driver_options(values: Mapping[str, Any]) -> list[str]:
    """Driver option strings in the original's order."""
    options = [f"imagestore={path}" for path in values.get("options.additionalimagestores", [])]
    options += [
        f"additionallayerstore={path}" for path in values.get("options.additionallayerstores", [])
    ]
    for key in ("size", "mount_program", "skip_mount_home", "ignore_chown_errors"):
        if values.get(f"options.{key}"):
            options.append(f"{key}={values[f'options.{key}']}")
    if values.get("options.force_mask"):
        options.append(f"force_mask={values['options.force_mask']:o}")
    if values.get("options.mountopt"):
        options.append(f"mountopt={values['options.mountopt']}")
    for table, keys in _DRIVER_TABLES.items():
        options += [
            f"{table}.{key}={values[f'{table}.{key}']}"
            for key in keys
            if values.get(f"{table}.{key}")
        ]
    return options


# -- the result ----------------------------------------------------------------------------------


def load(where: Surroundings | None = None) -> StoreOptions:
    """The default store options of this process. Raises ``ConfigError``."""
    where = where or here()
    merged = _Merged()
    for path in files(where):
        merged.add(read(path), path)
    return options_from(merged, where)


def default_mount_options(options: StoreOptions, driver: str) -> tuple[str, ...]:
    """The configured ``mountopt`` of a driver, split at commas."""
    for text in options.driver_options:
        key, _, value = text.partition("=")
        if key in {"mountopt", f"{driver}.mountopt"}:
            return tuple(value.split(","))
    return ()


def to_json(options: StoreOptions) -> str:
    """The JSON form of the ``config`` command: empty members are omitted but for PullOptions."""
    import json

    def entries(id_map: IDMap) -> list[dict[str, int]]:
        return [
            {"container_id": e.container_id, "host_id": e.host_id, "size": e.size} for e in id_map
        ]

    pulls = options.pull_options
    members: list[tuple[str, Any]] = [
        ("runroot", options.run_root),
        ("root", options.graph_root),
        ("imagestore", options.image_store),
        ("driver", options.driver),
        ("driver-priority", list(options.driver_priority)),
        ("driver-options", list(options.driver_options)),
        ("uidmap", entries(options.uid_map)),
        ("gidmap", entries(options.gid_map)),
        ("root_auto_ns_user", options.root_auto_userns_user),
        ("auto_userns_min_size", options.auto_userns_min_size),
        ("auto_userns_max_size", options.auto_userns_max_size),
        ("PullOptions", None if pulls is None else dict(sorted(pulls.items()))),
        ("disable-volatile", options.disable_volatile),
        ("transient_store", options.transient_store),
    ]
    document = {key: value for key, value in members if value or key == "PullOptions"}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
