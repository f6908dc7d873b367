"""storage.conf: search order, drop-ins, merging, environment, and the options that result."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from cstorage import config
from cstorage.config import StoreOptions, Surroundings
from cstorage.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


class Scene:
    """A made-up machine: its configuration directories and environment."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.environ: dict[str, str] = {"HOME": str(base / "home")}

    def put(self, path: str, text: str) -> str:
        target = self.base / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return str(target)

    def load(self, *, uid: int = 0, rootless: bool | None = None, **environ: str) -> StoreOptions:
        return config.load(
            Surroundings(
                {**self.environ, **environ},
                uid,
                bool(uid) if rootless is None else rootless,
                str(self.base / "etc"),
                str(self.base / "usr"),
            )
        )


def graphroot(name: str) -> str:
    return f'[storage]\ngraphroot = "/{name}"\n'


def test_without_any_file_root_uses_the_built_in_directories(scene: Scene) -> None:
    options = scene.load()
    assert options.graph_root == "/var/lib/containers/storage"
    assert options.run_root == "/run/containers/storage"
    assert options.driver == ""
    assert options.driver_options == ()


def test_the_first_existing_main_file_counts_and_no_other_is_read(scene: Scene) -> None:
    scene.put("usr/storage.conf", graphroot("vendor") + 'runroot = "/vendor-run"\n')
    assert scene.load().graph_root == "/vendor"
    scene.put("etc/storage.conf", graphroot("system"))
    assert scene.load()[:2] == ("/run/containers/storage", "/system")
    scene.put("home/.config/containers/storage.conf", graphroot("home"))
    assert scene.load().graph_root == "/home"


def test_xdg_config_home_replaces_the_directory_in_the_home(scene: Scene) -> None:
    scene.put("home/.config/containers/storage.conf", graphroot("home-dir"))
    scene.put("xdg/containers/storage.conf", graphroot("xdg"))
    assert scene.load(XDG_CONFIG_HOME=str(scene.base / "xdg")).graph_root == "/xdg"


def test_drop_ins_merge_in_name_order_and_later_directories_hide_equal_names(scene: Scene) -> None:
    scene.put("etc/storage.conf", graphroot("main") + 'runroot = "/main-run"\n')
    scene.put("usr/storage.conf.d/10-a.conf", graphroot("usr-a"))
    scene.put("usr/storage.conf.d/20-b.conf", graphroot("usr-b"))
    assert scene.load()[:2] == ("/main-run", "/usr-b")
    scene.put("etc/storage.conf.d/20-b.conf", '[storage]\ndriver = "vfs"\n')
    assert scene.load().graph_root == "/usr-a"
    scene.put("etc/storage.conf.d/30-c.txt", graphroot("not-a-conf"))
    assert scene.load().graph_root == "/usr-a"


@pytest.mark.parametrize(
    ("folder", "uid", "expected"),
    [
        ("etc/storage.rootful.conf.d", 0, True),
        ("etc/storage.rootful.conf.d", 1000, False),
        ("etc/storage.rootless.conf.d", 1000, True),
        ("etc/storage.rootless.conf.d/1000", 1000, True),
        ("etc/storage.rootless.conf.d/1001", 1000, False),
    ],
)
def test_drop_in_directories_depend_on_the_user(
    scene: Scene, folder: str, uid: int, expected: bool
) -> None:
    scene.put(f"{folder}/x.conf", graphroot("dropped"))
    options = scene.load(uid=uid, rootless=False)
    assert (options.graph_root == "/dropped") is expected


def test_an_explicit_file_replaces_main_file_and_drop_ins(scene: Scene) -> None:
    scene.put("etc/storage.conf", graphroot("main"))
    scene.put("etc/storage.conf.d/z.conf", graphroot("drop"))
    named = scene.put("mine.conf", '[storage]\ndriver = "vfs"\n')
    options = scene.load(CONTAINERS_STORAGE_CONF=named)
    assert (options.graph_root, options.driver) == ("/var/lib/containers/storage", "vfs")


def test_the_override_file_is_read_last_in_every_case(scene: Scene) -> None:
    scene.put("etc/storage.conf.d/z.conf", graphroot("drop"))
    named = scene.put("named.conf", graphroot("named"))
    last = scene.put("last.conf", graphroot("last"))
    assert scene.load(CONTAINERS_STORAGE_CONF_OVERRIDE=last).graph_root == "/last"
    both = scene.load(CONTAINERS_STORAGE_CONF=named, CONTAINERS_STORAGE_CONF_OVERRIDE=last)
    assert both.graph_root == "/last"


@pytest.mark.parametrize(
    "variable", ["CONTAINERS_STORAGE_CONF", "CONTAINERS_STORAGE_CONF_OVERRIDE"]
)
def test_naming_a_missing_file_is_fatal_and_an_empty_value_is_not(
    scene: Scene, variable: str
) -> None:
    with pytest.raises(ConfigError, match=r"^open /no/such/file: no such file or directory$"):
        scene.load(**{variable: "/no/such/file"})
    scene.load(**{variable: ""})


def test_a_syntax_error_names_the_file(scene: Scene) -> None:
    path = scene.put("etc/storage.conf", "[storage\n")
    with pytest.raises(ConfigError, match=rf'^decode configuration "{path}": toml: '):
        scene.load()


@pytest.mark.parametrize(
    "line",
    [
        "driver = 5",
        "graphroot = true",
        'transient_store = "yes"',
        'driver_priority = "overlay"',
        "driver_priority = [1]",
        "driver_priority = [{prepend=true}]",
        "[storage.options]\nauto-userns-min-size = true",
        "[storage.options.overlay]\nforce_mask = 7",
        "[storage.options.pull_options]\nuse_hard_links = true",
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_file_and_key(scene: Scene, line: str) -> None:
    path = scene.put("etc/storage.conf", "[storage]\n" + line)
    with pytest.raises(ConfigError, match=f'decode configuration "{path}": .* must be '):
        scene.load()


def test_arrays_are_replaced_unless_they_say_append(scene: Scene) -> None:
    key = "[storage.options]\nadditionalimagestores = "
    scene.put("etc/storage.conf", key + '["/a"]')
    scene.put("etc/storage.conf.d/1.conf", key + '["/b"]')
    assert scene.load().driver_options == ("imagestore=/b",)
    scene.put("etc/storage.conf.d/2.conf", key + '["/c", {append=true}]')
    scene.put("etc/storage.conf.d/3.conf", key + '["/d"]')
    assert scene.load().driver_options == ("imagestore=/b", "imagestore=/c", "imagestore=/d")


def test_pull_options_merge_by_key(scene: Scene) -> None:
    table = "[storage.options.pull_options]\n"
    scene.put("etc/storage.conf", table + 'use_hard_links = "true"\nostree_repos = "/o"')
    scene.put("etc/storage.conf.d/1.conf", table + 'ostree_repos = ""')
    assert scene.load().pull_options == {"use_hard_links": "true", "ostree_repos": ""}


def test_driver_options_come_in_the_originals_order(scene: Scene) -> None:
    scene.put(
        "etc/storage.conf",
        """
        [storage.options]
        mountopt = "nodev"
        force_mask = 0o755
        ignore_chown_errors = "true"
        skip_mount_home = "false"
        mount_program = "/bin/true"
        size = "10g"
        additionallayerstores = ["/layers:ref"]
        additionalimagestores = ["/one", "/two"]
        [storage.options.zfs]
        fsname = "pool"
        [storage.options.vfs]
        ignore_chown_errors = "true"
        [storage.options.overlay]
        sync = "filesystem"
        mountopt = "nodev,metacopy=on"
        [storage.options.btrfs]
        min_space = "1g"
        """,
    )
    assert scene.load().driver_options == (
        "imagestore=/one",
        "imagestore=/two",
        "additionallayerstore=/layers:ref",
        "size=10g",
        "mount_program=/bin/true",
        "skip_mount_home=false",
        "ignore_chown_errors=true",
        "force_mask=755",
        "mountopt=nodev",
        "btrfs.min_space=1g",
        "overlay.mountopt=nodev,metacopy=on",
        "overlay.sync=filesystem",
        "vfs.ignore_chown_errors=true",
        "zfs.fsname=pool",
    )


def test_foreign_tables_and_unknown_keys_leave_a_note_and_nothing_else(scene: Scene) -> None:
    path = scene.put(
        "etc/storage.conf",
        '[other]\nx = 1\n[storage]\nnew = 1\n[storage.options]\ny = "z"\n'
        '[storage.options.thinpool]\nsize = "1"\n[storage.options.overlay]\nodd = "1"\n',
    )
    options = scene.load()
    assert options.notes == (
        f"{path}: storage.new is not used",
        f"{path}: storage.options.y is not used",
        f"{path}: storage.options.thinpool is not used",
        f"{path}: storage.options.overlay.odd is not used",
    )
    assert options._replace(notes=()) == Scene(scene.base / "empty").load()


def test_environment_overrides_driver_and_options(scene: Scene) -> None:
    scene.put(
        "etc/storage.conf",
        '[storage]\ndriver = "overlay2"\n[storage.options.overlay]\nmountopt = "nodev"\n',
    )
    assert scene.load().driver == "overlay"
    assert scene.load(STORAGE_DRIVER="vfs").driver == "vfs"
    assert scene.load(STORAGE_DRIVER="").driver == "overlay"
    assert scene.load(STORAGE_OPTS="a=1,b=2").driver_options == ("a=1", "b=2")
    assert scene.load(STORAGE_OPTS="").driver_options == ()
    assert scene.load().driver_options == ("overlay.mountopt=nodev",)


def test_paths_are_expanded_uid_first_then_variables_then_links(scene: Scene) -> None:
    real = scene.base / "real"
    real.mkdir()
    os.symlink(real, scene.base / "link")
    scene.put(
        "etc/storage.conf",
        f'[storage]\ngraphroot = "{scene.base}/link"\n'
        'runroot = "/run/$UID/${PLACE}/$UNSET/../x"\n',
    )
    options = scene.load(PLACE="here")
    assert options.graph_root == str(real)
    assert options.run_root == "/run/0/x"  # unset becomes empty, then cleaned lexically


def test_a_split_image_store_must_differ_from_the_graph_root(scene: Scene) -> None:
    scene.put("etc/storage.conf", '[storage]\ngraphroot = "/g"\nimagestore = "/g"\n')
    with pytest.raises(ConfigError, match=r"^imagestore /g must "):
        scene.load()


def test_rootless_users_have_directories_of_their_own(scene: Scene) -> None:
    runtime = scene.base / "runtime"
    runtime.mkdir()
    options = scene.load(uid=1000, XDG_RUNTIME_DIR=str(runtime))
    assert options.graph_root == f"{scene.base}/home/.local/share/containers/storage"
    assert options.run_root == f"{runtime}/containers"
    moved = scene.load(uid=1000, XDG_RUNTIME_DIR=str(runtime), XDG_DATA_HOME="/data")
    assert moved.graph_root == "/data/containers/storage"
    with pytest.raises(ConfigError, match=r"^stat /no/such/dir: "):
        scene.load(uid=1000, XDG_RUNTIME_DIR="/no/such/dir")


def test_rootless_storage_path_counts_only_for_rootless_users_without_graphroot(
    scene: Scene,
) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(scene.base)}
    scene.put("etc/storage.conf", '[storage]\nrootless_storage_path = "/per/$UID"\n')
    assert scene.load(uid=1000, **runtime).graph_root == "/per/1000"
    assert scene.load().graph_root == "/var/lib/containers/storage"
    scene.put("etc/storage.conf", '[storage]\ngraphroot="/g"\nrootless_storage_path = "/per"\n')
    options = scene.load(uid=1000, **runtime)
    assert options.graph_root == "/g"
    assert "rootless_storage_path is not used because graphroot is set" in options.notes


def test_json_form_omits_what_is_empty_except_pull_options(scene: Scene) -> None:
    assert json.loads(config.to_json(scene.load())) == {
        "runroot": "/run/containers/storage",
        "root": "/var/lib/containers/storage",
        "PullOptions": None,
    }
    scene.put(
        "etc/storage.conf",
        """
        [storage]
        driver = "vfs"
        driver_priority = ["vfs", "overlay2"]
        imagestore = "/images"
        transient_store = true
        [storage.options]
        disable-volatile = true
        root-auto-userns-user = "someone"
        auto-userns-min-size = 5
        auto-userns-max-size = 6
        size = "<&>"
        [storage.options.pull_options]
        b = "2"
        a = "1"
        """,
    )
    assert config.to_json(scene.load()) == (
        '{"runroot":"/run/containers/storage","root":"/var/lib/containers/storage",'
        '"imagestore":"/images","driver":"vfs","driver-priority":["vfs","overlay"],'
        '"driver-options":["size=\\u003c\\u0026\\u003e"],"root_auto_ns_user":"someone",'
        '"auto_userns_min_size":5,"auto_userns_max_size":6,"PullOptions":{"a":"1","b":"2"},'
        '"disable-volatile":true,"transient_store":true}'
    )


def test_default_mount_options_are_the_first_that_concern_the_driver() -> None:
    options = StoreOptions(driver_options=("vfs.mountopt=x", "overlay.mountopt=nodev,ro"))
    assert config.default_mount_options(options, "overlay") == ("nodev", "ro")
    assert config.default_mount_options(options, "btrfs") == ()


def test_process_surroundings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_CONTAINERS_ROOTLESS_UID", "4711")
    where = config.here()
    assert (where.uid, where.rootless) == (4711, True)
