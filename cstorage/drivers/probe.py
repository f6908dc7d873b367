"""What the running kernel and the home's file system can do for overlays.

Each feature is tried once, in a scratch directory inside the home, when somebody needs the answer,
and remembered in RUNROOT as ``<feature>-true`` or ``<feature>-false`` (drivers-and-formats §1.5,
§3.2); a negative file may hold the reason. RUNROOT is empty after a reboot, so a new kernel is
asked again.

A process with a non-zero effective user ID does not probe and counts as unsupported.
"""

from __future__ import annotations

import errno
import os

from cstorage.drivers.layout import SCRATCH
from cstorage.errors import DriverNotSupported
from cstorage.model import IDMapEntry, IDMaps
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cstorage.drivers.overlay_options import OverlaySettings

_FILE_SYSTEMS = {
    0x61756673: "aufs",
    0x9123683E: "btrfs",
    0xCA451A4E: "bcachefs",
    0x28CD3D45: "cramfs",
    0xF15F: "ecryptfs",
    0xEF53: "extfs",
    0xF2F52010: "f2fs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0x794C7630: "overlayfs",
    0x858458F6: "ramfs",
    0x73717368: "squashfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x01021994: "tmpfs",
    0x58465342: "xfs",
    0x2FC12FC1: "zfs",
}
_UNFIT = frozenset(("aufs", "overlayfs", "ecryptfs"))


def file_system(path: str) -> str:
    """Name of the file system ``path`` is on, as the original spells it."""
    import ctypes

    buffer = ctypes.create_string_buffer(512)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), buffer) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    kind = int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], "little") & 0xFFFFFFFF
    return _FILE_SYSTEMS.get(kind, "<unknown>")


class Probe:
    """Answers about one home; lazily found, cached in the run home."""

    def __init__(self, home: str, run_home: str, settings: OverlaySettings) -> None:
        self._home = home
        self._run_home = run_home
        self._settings = settings
        self._known: dict[str, tuple[bool, str]] = {}
        self._rootless: bool | None = None

    # -- the answers -----------------------------------------------------------------------------

    @property
    def backing_filesystem(self) -> str:
        path = self._home
        while not os.path.isdir(path) and path not in {"", "/"}:
            path = os.path.dirname(path)
        return file_system(path or "/")

    @property
    def user_xattr(self) -> bool:
        """Whether overlay must keep its marks in ``user.*`` (not the host's root)."""
        return self.rootless and not self._settings.mount_program

    @property
    def rootless(self) -> bool:
        """Whether this process lacks what the host's root has, being in a user namespace or not."""
        if self._rootless is None:
            from cstorage.config import is_rootless, rootless_uid

            environ = dict(os.environ)
            self._rootless = is_rootless(environ, rootless_uid(environ))
        return self._rootless

    @property
    def native(self) -> bool:
        """Whether the kernel can mount overlays over the home."""
        return self._ask("overlay", self._overlay)

    @property
    def d_type(self) -> bool:
        return bool(self._settings.mount_program) or self.native

    @property
    def metacopy(self) -> bool:
        """Whether a mount with the configured options copies up metadata only."""
        if self._settings.mount_program:
            return False
        return self._ask(f"metacopy({self._settings.mountopt_text})", self._metacopy)

    using_metacopy = metacopy

    @property
    def native_diff(self) -> bool:
        """Whether ``diff`` alone tells what a layer changed."""
        if self._settings.mount_program:
            return False
        try:
            with open(f"{self._home}/.has-mount-program", encoding="ascii") as file:
                if file.read(16).strip() == "true":
                    return False
        except (OSError, UnicodeDecodeError):
            pass
        return self._ask(f"native-diff({self._settings.mountopt_text})", self._native_diff)

    @property
    def volatile(self) -> bool:
        if self._settings.mount_program:
            return True
        return self._ask("volatile", self._volatile)

    @property
    def shifting(self) -> bool:
        """Whether lower directories can be mounted with other owners."""
        if os.environ.get("_CONTAINERS_OVERLAY_DISABLE_IDMAP") == "yes" or os.geteuid() != 0:
            return False
        if self._settings.mount_program:
            return True
        return self._ask("idmapped-lower-dir", self._idmapped)

    def check_overlay(self) -> None:
        """Raise ``DriverNotSupported`` if overlays cannot be used here."""
        if self._settings.mount_program:
            return
        backing = self.backing_filesystem
        if backing in _UNFIT:
            raise DriverNotSupported(
                f"'overlay' is not supported over {backing}, a mount_program is required"
            )
        if not self._ask("overlay", self._overlay):
            reason = self._known["overlay"][1] or "kernel does not support overlay fs"
            raise DriverNotSupported(f"'overlay' cannot be used on {self._home}: {reason}")

    # -- the cache -------------------------------------------------------------------------------

    def _ask(self, feature: str, test: Callable[[str], None]) -> bool:
        known = self._known.get(feature) or self._cached(feature)
        if known is None:
            known = self._try(test)
            self._remember(feature, known)
        self._known[feature] = known
        return known[0]

    def _cached(self, feature: str) -> tuple[bool, str] | None:
        name = feature.replace("/", "_")
        for answer in (True, False):
            path = f"{self._run_home}/{name}-{str(answer).lower()}"
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    return answer, file.read()
            except FileNotFoundError:
                continue
        return None

    def _remember(self, feature: str, known: tuple[bool, str]) -> None:
        if os.geteuid() != 0:
            return
        os.makedirs(self._run_home, mode=0o700, exist_ok=True)
        name = feature.replace("/", "_")
        path = f"{self._run_home}/{name}-{str(known[0]).lower()}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(known[1])

    def _try(self, test: Callable[[str], None]) -> tuple[bool, str]:
        if os.geteuid() != 0:
            return False, "not probed without root"
        import tempfile

        from cstorage.drivers.removal import remove_tree

        os.makedirs(self._home, mode=0o755, exist_ok=True)
        for name in os.listdir(self._home):
            # Left by a process that was killed while it probed.
            if name.startswith(SCRATCH) and not os.path.exists(f"/proc/{name.split('-')[1]}"):
                remove_tree(f"{self._home}/{name}")
        scratch = tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-", dir=self._home)
        try:
            test(scratch)
        except (OSError, _NoSupport) as error:
            return False, str(error)
        finally:
            remove_tree(scratch)
        return True, ""

    # -- the tests -------------------------------------------------------------------------------

    def _mounted(self, scratch: str, lowers: tuple[str, ...], data: tuple[str, ...]) -> str:
        """A path to an overlay over ``scratch``; it lives as long as the process's descriptor."""
        from cstorage.drivers.mountapi import OverlayMount, overlay_view

        for name in ("upper", "work"):
            os.makedirs(f"{scratch}/{name}", exist_ok=True)
        mount = OverlayMount(
            tuple(f"{scratch}/{name}" for name in lowers),
            f"{scratch}/upper",
            f"{scratch}/work",
            (*data, *(("userxattr",) if self.user_xattr else ())),
        )
        tree = overlay_view(mount, f"{scratch}/view")
        return f"/proc/self/fd/{tree}"

    @property
    def _marks(self) -> str:
        return "user.overlay" if self.user_xattr else "trusted.overlay"

    def _data(self) -> tuple[str, ...]:
        from cstorage.drivers.mountapi import split_options

        return split_options(self._settings.mountopt)[1]

    def _overlay(self, scratch: str) -> None:
        os.makedirs(f"{scratch}/low1/dir")
        os.makedirs(f"{scratch}/low2")
        if not _reports_types(scratch):
            raise _NoSupport("the file system does not report d_type")
        os.mkdir(f"{scratch}/upper")
        os.mknod(f"{scratch}/upper/whiteout", 0o20000, os.makedev(0, 0))
        path = self._mounted(scratch, ("low2", "low1"), ())
        try:
            os.rmdir(f"{path}/dir")
        finally:
            _close(path)

    def _metacopy(self, scratch: str) -> None:
        os.mkdir(f"{scratch}/low")
        with open(f"{scratch}/low/file", "w", encoding="ascii") as file:
            file.write("content")
        path = self._mounted(scratch, ("low",), self._data())
        try:
            os.chmod(f"{path}/file", 0o600)
        finally:
            _close(path)
        try:
            os.getxattr(f"{scratch}/upper/file", f"{self._marks}.metacopy")
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            raise _NoSupport("") from None

    def _native_diff(self, scratch: str) -> None:
        for name in ("low1/d/inner", "low2/d", "low2/renamed"):
            os.makedirs(f"{scratch}/{name}")
        os.setxattr(f"{scratch}/low2/d", f"{self._marks}.opaque", b"y")
        path = self._mounted(scratch, ("low2", "low1"), self._data())
        try:
            with open(f"{path}/d/new", "w", encoding="ascii"):
                pass
            try:
                os.rename(f"{path}/renamed", f"{path}/other")
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            else:
                if f"{self._marks}.redirect" in os.listxattr(f"{scratch}/upper/other"):
                    raise _NoSupport("redirect_dir is on")
        finally:
            _close(path)
        if f"{self._marks}.opaque" in os.listxattr(f"{scratch}/upper/d"):
            raise _NoSupport("opaque flag erroneously copied up, consider a newer kernel")

    def _idmapped(self, scratch: str) -> None:
        from cstorage.drivers.idmapped import mapped_directories

        os.mkdir(f"{scratch}/low")
        maps = IDMaps((IDMapEntry(0, 0, 1),), (IDMapEntry(0, 0, 1),))
        with mapped_directories([f"{scratch}/low"], f"{scratch}/mapped", maps):
            _close(self._mounted(scratch, ("mapped/0",), ()))

    def _volatile(self, scratch: str) -> None:
        os.mkdir(f"{scratch}/low")
        _close(self._mounted(scratch, ("low",), ("volatile",)))


class _NoSupport(Exception):
    """A test found that the feature is missing."""


def _close(path: str) -> None:
    os.close(int(path.rsplit("/", 1)[1]))


def _reports_types(path: str) -> bool:
    """Whether ``readdir`` says what kind an entry is: overlay cannot work without."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.fdopendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.c_void_p
    libc.readdir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
    stream = libc.fdopendir(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        while entry := libc.readdir(stream):
            # struct dirent on 64-bit systems: ino 8, off 8, reclen 2, type 1
            if ctypes.string_at(entry + 18, 1) == b"\0":
                return False
        return True
    finally:
        libc.closedir(stream)
