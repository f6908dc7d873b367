"""The kernel's mount calls, as far as drivers need them.

Two ways to mount an overlay:

* the descriptor API (``fsopen``, ``fsconfig``, ``fsmount``, ``move_mount``; ``lowerdir+`` since
  Linux 6.5): one call per lower directory, so no limit on the length of options, and the mount can
  stay *detached*: a descriptor that is a file tree nobody else can see and that ends when closed;
* ``mount(2)``: all options in one string of less than a page. Long chains and paths with characters
  that have a meaning there are passed as descriptor numbers relative to ``/proc/self/fd``. The
  working directory is changed in a thread of its own (``unshare(CLONE_FS)``), so nothing else in
  the process notices.

Errors are ``OSError`` with the kernel's own explanation, where it gave one, appended to the text.
Sources: drivers-and-formats §3.4, §3.5; fsopen(2), mount(2), umount2(2).
"""

from __future__ import annotations

import ctypes
import errno
import os

from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)

# Numbers of calls added after 2019 are the same on all architectures that Python runs on.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432

_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_CLONE_FS = 0x200
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_MS_BIND = 1 << 12
_MS_PRIVATE = 1 << 18

_VALUE_BYTES_MAX = 255
"""Longest string one ``fsconfig`` call takes."""

_SPECIAL = frozenset(":,\\")
"""Characters that overlay takes for separators or escapes in some of its options."""

_PAGE = os.sysconf("SC_PAGE_SIZE")

MS_RDONLY = 1

# Mount options that are flags of the mount, not data of the file system: (MS_*, MOUNT_ATTR_*, set?)
_FLAGS: dict[str, tuple[int, int, bool]] = {
    "ro": (1, 0x1, True),
    "rw": (1, 0x1, False),
    "nosuid": (2, 0x2, True),
    "suid": (2, 0x2, False),
    "nodev": (4, 0x4, True),
    "dev": (4, 0x4, False),
    "noexec": (8, 0x8, True),
    "exec": (8, 0x8, False),
    "noatime": (1 << 10, 0x10, True),
    "atime": (1 << 10, 0x10, False),
    "strictatime": (1 << 24, 0x20, True),
    "relatime": (1 << 21, 0, True),
    "norelatime": (1 << 21, 0, False),
    "nodiratime": (1 << 11, 0x80, True),
    "diratime": (1 << 11, 0x80, False),
    "sync": (1 << 4, 0, True),
    "async": (1 << 4, 0, False),
    "dirsync": (1 << 7, 0, True),
    "defaults": (0, 0, True),
}

RESERVED_DATA = frozenset(("lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"))
"""Overlay options that are the driver's alone."""


class Flags(NamedTuple):
    """Mount flags in both forms."""

    legacy: int = 0
    attributes: int = 0

    @property
    def read_only(self) -> bool:
        return bool(self.legacy & MS_RDONLY)


NO_FLAGS = Flags()


class OverlayMount(NamedTuple):
    """An overlay to be assembled: directories (uppermost lower first), data options, flags."""

    lowers: tuple[str, ...]
    upper: str = ""
    work: str = ""
    data: tuple[str, ...] = ()
    flags: Flags = NO_FLAGS
    label: str = ""


def split_options(options: Sequence[str]) -> tuple[Flags, tuple[str, ...]]:
    """Separate mount flags (``nodev``, ``ro`` …) from file system data. Pure."""
    legacy = attributes = 0
    data = []
    for option in options:
        known = _FLAGS.get(option)
        if known is None:
            if option:
                data.append(option)
        elif known[2]:
            legacy, attributes = legacy | known[0], attributes | known[1]
        else:
            legacy, attributes = legacy & ~known[0], attributes & ~known[1]
    return Flags(legacy, attributes), tuple(data)


def _failure(what: str, number: int, explanation: str = "") -> OSError:
    text = os.strerror(number).lower()
    return OSError(number, f"{what}: {text}" + (f" ({explanation})" if explanation else ""))


def _syscall(what: str, number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise _failure(what, ctypes.get_errno())
    return result


def _explanation(context: int) -> str:
    """What the kernel logged to a file system context: the last messages, without prefixes."""
    messages = []
    os.set_blocking(context, False)
    while True:
        try:
            message = os.read(context, 4096)
        except OSError:
            break
        if not message:
            break
        messages.append(message.decode("utf-8", "replace")[2:].strip())
    return "; ".join(messages)


def _configure(context: int, command: int, key: str | None, value: str | None) -> None:
    result: int = _libc.syscall(
        ctypes.c_long(_SYS_FSCONFIG),
        ctypes.c_int(context),
        ctypes.c_uint(command),
        None if key is None else os.fsencode(key),
        None if value is None else os.fsencode(value),
        ctypes.c_int(0),
    )
    if result < 0:
        number = ctypes.get_errno()
        name = "fsconfig" if key is None else f"option {key}" + (f"={value}" if value else "")
        raise _failure(name, number, _explanation(context))


_appending: bool | None = None


def has_appending_lowers() -> bool:
    """Whether ``lowerdir+`` can be used (asked once per process, no side effects)."""
    global _appending  # noqa: PLW0603 - a property of the running kernel
    if _appending is None:
        try:
            context = _syscall("fsopen", _SYS_FSOPEN, b"overlay", ctypes.c_uint(_FSOPEN_CLOEXEC))
        except OSError:
            _appending = False
            return False
        try:
            # Kernels that know the key look the path up at once; older ones keep any key for later
            # (success) or do not know it (EINVAL).
            _configure(context, _FSCONFIG_SET_STRING, "lowerdir+", "/proc/self/fd/-1")
            _appending = False
        except OSError as error:
            _appending = error.errno == errno.ENOENT
        finally:
            os.close(context)
    return _appending


class _Handles:
    """Directories that had to be opened because their path cannot be spelled out."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def number(self, path: str) -> int:
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.descriptors.append(descriptor)
        return descriptor

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


def overlay_detached(mount: OverlayMount) -> int:
    """Assemble an overlay that is attached nowhere; returns its descriptor (needs Linux 6.5)."""
    handles = _Handles()
    context = _syscall("fsopen", _SYS_FSOPEN, b"overlay", ctypes.c_uint(_FSOPEN_CLOEXEC))
    try:

        def directory(key: str, path: str) -> None:
            value = path
            if len(os.fsencode(path)) > _VALUE_BYTES_MAX or set(path) & _SPECIAL:
                value = f"/proc/self/fd/{handles.number(path)}"
            _configure(context, _FSCONFIG_SET_STRING, key, value)

        _configure(context, _FSCONFIG_SET_STRING, "source", "overlay")
        for lower in mount.lowers:
            directory("lowerdir+", lower)
        if mount.upper:
            directory("upperdir", mount.upper)
            directory("workdir", mount.work)
        for option in mount.data:
            key, separator, value = option.partition("=")
            if separator:
                _configure(context, _FSCONFIG_SET_STRING, key, value)
            else:
                _configure(context, _FSCONFIG_SET_FLAG, key, None)
        if mount.label:
            _configure(context, _FSCONFIG_SET_STRING, "context", mount.label)
        if mount.flags.read_only:
            _configure(context, _FSCONFIG_SET_FLAG, "ro", None)
        _configure(context, _FSCONFIG_CMD_CREATE, None, None)
        return _syscall(
            "fsmount",
            _SYS_FSMOUNT,
            ctypes.c_int(context),
            ctypes.c_uint(_FSMOUNT_CLOEXEC),
            ctypes.c_uint(mount.flags.attributes),
        )
    finally:
        os.close(context)
        handles.close()


def attach(tree: int, target: str) -> None:
    """Attach a detached mount at ``target``."""
    _syscall(
        "move_mount",
        _SYS_MOVE_MOUNT,
        ctypes.c_int(tree),
        b"",
        ctypes.c_int(-100),
        os.fsencode(target),
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
    )


def clone_tree(path: str) -> int:
    """A detached bind mount of ``path`` (not of mounts below it)."""
    return _syscall(
        "open_tree",
        _SYS_OPEN_TREE,
        ctypes.c_int(-100),
        os.fsencode(path),
        ctypes.c_uint(_OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC),
    )


def legacy_mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    """``mount(2)``."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(kind),
        ctypes.c_ulong(flags),
        os.fsencode(data),
    )
    if result < 0:
        raise _failure("mount", ctypes.get_errno())


def overlay_data(mount: OverlayMount, spell: dict[str, str] | None = None) -> str:
    """The option string of ``mount(2)``; ``spell`` replaces paths. Pure."""
    names = spell or {}
    parts = ["lowerdir=" + ":".join(names.get(path, path) for path in mount.lowers)]
    if mount.upper:
        parts.append("upperdir=" + names.get(mount.upper, mount.upper))
        parts.append("workdir=" + names.get(mount.work, mount.work))
    parts.extend(mount.data)
    if mount.label:
        parts.append(f'context="{mount.label}"')
    return ",".join(parts)


def _overlay_legacy(mount: OverlayMount, target: str) -> None:
    data = overlay_data(mount)
    paths = [*mount.lowers, *(path for path in (mount.upper, mount.work) if path)]
    if len(os.fsencode(data)) < _PAGE and not any(set(path) & _SPECIAL for path in paths):
        legacy_mount("overlay", target, "overlay", mount.flags.legacy, data)
        return

    import threading

    outcome: list[BaseException] = []

    def mounting() -> None:
        handles = _Handles()
        try:
            if _libc.unshare(_CLONE_FS) < 0:
                raise _failure("unshare", ctypes.get_errno())
            spell = {path: str(handles.number(path)) for path in dict.fromkeys(paths)}
            os.chdir("/proc/self/fd")
            short = overlay_data(mount, spell)
            if len(os.fsencode(short)) >= _PAGE:
                raise _failure("mount", errno.E2BIG, f"{len(mount.lowers)} lower directories")
            legacy_mount("overlay", target, "overlay", mount.flags.legacy, short)
        except BaseException as error:
            outcome.append(error)
        finally:
            handles.close()

    worker = threading.Thread(target=mounting, name="overlay-mount")
    worker.start()
    worker.join()
    if outcome:
        raise outcome[0]


def mount_overlay(mount: OverlayMount, target: str) -> None:
    """Assemble an overlay and attach it at ``target`` (absolute)."""
    if not has_appending_lowers():
        _overlay_legacy(mount, target)
        return
    tree = overlay_detached(mount)
    try:
        attach(tree, target)
    finally:
        os.close(tree)


def overlay_view(mount: OverlayMount, scratch: str) -> int:
    """A descriptor of the assembled tree that is visible nowhere and ends when it is closed.

    Without the descriptor API the tree is mounted at ``scratch`` for a moment; a lazy unmount keeps
    it alive as long as the descriptor is open.
    """
    if has_appending_lowers():
        tree = overlay_detached(mount)
        try:
            # The mount descriptor is O_PATH; listing needs one that can read.
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
        finally:
            os.close(tree)
    os.makedirs(scratch, mode=0o700)
    try:
        _overlay_legacy(mount, os.path.abspath(scratch))
        try:
            return os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            detach(scratch)
    finally:
        os.rmdir(scratch)


def bind(source: str, target: str) -> None:
    """Bind-mount ``source`` at ``target`` and keep it private."""
    legacy_mount(source, target, "", _MS_BIND, "")
    legacy_mount("", target, "", _MS_PRIVATE, "")


def detach(target: str) -> bool:
    """Lazily unmount ``target``; False if nothing is mounted there or it does not exist."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) < 0:
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOENT):
            return False
        raise _failure(f"unmounting {target}", number)
    return True


def is_mount_point(path: str) -> bool:
    """Whether another file system is mounted at ``path`` (kernel truth; two ``lstat`` calls).

    Compares devices with the parent directory: an overlay or FUSE mount always has its own.
    """
    try:
        return os.lstat(path).st_dev != os.lstat(os.path.dirname(path)).st_dev
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ENOTCONN:  # a FUSE mount whose program is gone
            return True
        raise


def sync_file_system(descriptor: int) -> None:
    """Write out everything of the file system that ``descriptor`` is on (``syncfs``)."""
    if _libc.syncfs(descriptor) < 0:
        raise _failure("syncfs", ctypes.get_errno())


def exchange(one: str, other: str) -> None:
    """Swap two directory entries atomically (``renameat2`` with ``RENAME_EXCHANGE``)."""
    at_here, flag = ctypes.c_int(-100), ctypes.c_uint(2)
    if _libc.renameat2(at_here, os.fsencode(one), at_here, os.fsencode(other), flag) < 0:
        raise _failure(f"exchanging {one} and {other}", ctypes.get_errno())
