"""System calls that cannot leave a directory.

Rules of this module:

* A path is raw bytes, relative to an open directory (``root_fd``), and is resolved as if that
  directory were ``/``: absolute symlinks and ``..`` stay inside it (``openat2`` with
  ``RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS``; kernels without it get a component-wise walk that
  interprets symlinks itself). Nothing is ever resolved through a path string of the host.
* What is mounted below the directory is somebody else's: removing never enters it, and whoever
  writes asks for ``one_mount`` (kernels without ``openat2`` cannot tell).
* The last component of what is removed or described is never followed.
* Attributes of things that cannot be opened (links, devices, pipes) are reached through
  ``/proc/self/fd/<descriptor>``, which names exactly the inode the descriptor holds.

Descriptors passed in are never closed here; descriptors returned belong to the caller.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys

from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10
_SYS_OPENAT2 = 437  # the same number on every architecture (it is newer than their unification)
_TRIES_MAX = 1000
_SYMLINKS_MAX = 40  # the kernel's own bound on links followed in one resolution
_GET_FLAGS = ord("f") << 8 | 1
_FOLDS_CASE = 0x40000000
_DEEP = 48  # descriptors held at once while removing a tree

_PAYLOAD = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_libc: Any = None
_openat2_missing = False


def _openat2(root_fd: int, path: bytes, flags: int, mode: int, more: int = 0) -> int:
    global _libc  # noqa: PLW0603
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | more)
    tries = 0
    while True:
        fd = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(root_fd),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        # EAGAIN: the tree was renamed while "..” was being walked; the kernel asks for a retry.
        tries += code == errno.EAGAIN
        if code not in (errno.EINTR, errno.EAGAIN) or tries >= _TRIES_MAX:
            raise OSError(code, os.strerror(code), path)


def open_in_root(
    root_fd: int, path: bytes, flags: int, mode: int = 0, *, one_mount: bool = False
) -> int:
    """Open ``path`` as if ``root_fd`` were ``/``; returns a new descriptor.

    An empty path or ``.`` is the root itself. ``mode`` counts only with ``O_CREAT``.
    Raises ``OSError`` as ``open`` does (``ENOENT``, ``ENOTDIR``, ``ELOOP``…), with ``one_mount``
    also ``EXDEV`` for a path that leads into something mounted below the root.
    """
    global _openat2_missing  # noqa: PLW0603
    if b"\0" in path:
        raise OSError(errno.EINVAL, "path contains a NUL byte", path)
    if not _openat2_missing:
        try:
            return _openat2(
                root_fd, path or b".", flags, mode if flags & os.O_CREAT else 0,
                RESOLVE_NO_XDEV if one_mount else 0,
            )  # fmt: skip
        except OSError as error:
            # Links to /.. have this answer for ever in a mount that is attached nowhere.
            if error.errno == errno.EAGAIN and not one_mount:
                return walk_in_root(root_fd, path, flags, mode)
            # EPERM is what old container sandboxes answer to calls they do not know.
            if error.errno not in (errno.ENOSYS, errno.EPERM) or _openat2_works():
                raise
            _openat2_missing = True
    return walk_in_root(root_fd, path, flags, mode)


def _openat2_works() -> bool:
    fd = os.open("/", DIRECTORY)
    try:
        os.close(_openat2(fd, b".", DIRECTORY, 0))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def walk_in_root(root_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """What ``open_in_root`` does on kernels without ``openat2``: one component at a time.

    Each component is opened with ``O_NOFOLLOW`` from the descriptor of the one before; symlinks
    are read from their own descriptor and their text is put in front of what is left to walk.
    ``..`` goes back along the descriptors already held, never through the kernel, so a directory
    moved meanwhile cannot lead outside.
    """
    todo = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
    held = [os.open(b".", DIRECTORY, dir_fd=root_fd)]
    links = 0
    try:
        while True:
            if not todo:
                return os.open(b".", flags | os.O_CLOEXEC, dir_fd=held[-1])
            part = todo.pop()
            if part == b"..":
                if len(held) > 1:
                    os.close(held.pop())
                continue
            if not todo and flags & os.O_CREAT:
                # Creating: the component must not be a link at all, as O_EXCL demands anyway.
                return os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=held[-1])
            fd = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1])
            kind = stat.S_IFMT(os.fstat(fd).st_mode)
            if kind == stat.S_IFLNK and (todo or not flags & os.O_NOFOLLOW):
                try:
                    target = os.readlink(b"", dir_fd=fd)
                finally:
                    os.close(fd)
                links += 1
                if links > _SYMLINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith(b"/"):
                    while len(held) > 1:
                        os.close(held.pop())
                todo += [p for p in reversed(target.split(b"/")) if p not in (b"", b".")]
            elif kind == stat.S_IFDIR:
                held.append(fd)
            else:
                os.close(fd)
                if todo:
                    raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
                return os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1])
    finally:
        for fd in held:
            os.close(fd)


def open_payload_in_root(root_fd: int, path: bytes) -> int:
    """Open a regular file for reading, resolved in the root; never blocks on a pipe or device.

    Raises ``OSError`` with ``EINVAL`` if it is not a regular file.
    """
    fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd


class Payloads:
    """Opens contents by name in a stack of trees (a layer's own first, then the lower ones).

    What ``recipe.assemble`` needs: ``open(name)`` returns a descriptor of the topmost regular file
    of that name. The directory of the last name stays open, because names come directory by
    directory. ``root_fds`` stay the caller's; ``close`` closes only what was opened here.
    """

    def __init__(self, root_fds: Sequence[int]) -> None:
        self._roots = tuple(root_fds)
        self._directory: bytes | None = None
        self._held: list[int] = []

    def open(self, name: bytes) -> int:
        """Raises ``OSError``: ``ENOENT`` if no tree has it, ``EINVAL`` if it is no regular file."""
        name = name.strip(b"/")
        directory, _, base = name.rpartition(b"/")
        if base in (b"", b".", b".."):
            raise OSError(errno.EINVAL, "not a regular file", name)
        if directory != self._directory:
            self._enter(directory)
        for fd in self._held:
            try:
                found = os.open(base, _PAYLOAD, dir_fd=fd)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(os.fstat(found).st_mode):
                return found
            os.close(found)
            raise OSError(errno.EINVAL, "not a regular file", name)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def _enter(self, directory: bytes) -> None:
        self.close()
        for root in self._roots:
            try:
                self._held.append(open_in_root(root, directory, DIRECTORY))
            except (FileNotFoundError, NotADirectoryError):
                continue
        self._directory = directory

    def close(self) -> None:
        for fd in self._held:
            os.close(fd)
        self._held.clear()
        self._directory = None

    def __enter__(self) -> Payloads:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stat_in(dir_fd: int, name: bytes) -> os.stat_result | None:
    """``lstat`` of a directory's entry, ``None`` if there is none."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def descriptor_path(fd: int, name: bytes = b"") -> bytes:
    """A path that names what ``fd`` holds, or its entry ``name``, without resolving anything."""
    return b"/proc/self/fd/%d/%s" % (fd, name) if name else b"/proc/self/fd/%d" % fd


def open_folder(dir_fd: int, name: bytes) -> int:
    """Open a directory's subdirectory for reading, neither through a link nor into a mount.

    Raises ``OSError``: ``EXDEV`` if something is mounted there.
    """
    return open_in_root(dir_fd, name, _READABLE, one_mount=True)


def remove_in(dir_fd: int, name: bytes) -> None:
    """Remove an entry and everything below it; a symlink is removed, never followed.

    A missing entry is fine; something mounted there, or below it, is ``EXDEV`` or ``EBUSY``. Depth
    is not bounded by descriptors: directories deeper than ``_DEEP`` levels are first moved up next
    to the top and removed from there.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    top = open_folder(dir_fd, name)
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def _empty(top: int) -> None:
    """Remove everything in the directory ``top``."""
    moved = 0
    while True:
        # (descriptor, name in its parent, names still to remove)
        stack = [(top, b"", list_names(top))]
        try:
            while True:
                fd, own, names = stack[-1]
                if not names:
                    if len(stack) == 1:
                        break
                    stack.pop()
                    os.close(fd)
                    os.rmdir(own, dir_fd=stack[-1][0])
                    continue
                name = names.pop()
                try:
                    os.unlink(name, dir_fd=fd)
                    continue
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno not in (errno.EISDIR, errno.EPERM):
                        raise
                if len(stack) >= _DEEP:
                    moved += 1
                    os.rename(name, b".cstorage-deep-%d" % moved, src_dir_fd=fd, dst_dir_fd=top)
                    continue
                child = open_folder(fd, name)
                stack.append((child, name, list_names(child)))
        finally:
            for fd, _, _ in stack[1:]:
                os.close(fd)
        if not list_names(top):
            return


def list_names(dir_fd: int) -> list[bytes]:
    """Names in an open directory, raw bytes, sorted; the descriptor's own position is untouched."""
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        return sorted(os.fsencode(name) for name in os.listdir(fd))
    finally:
        os.close(fd)


def folds_case(dir_fd: int) -> bool:
    """Whether names that differ in case are one in this directory (and so in new ones below it)."""
    import fcntl

    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        size = ctypes.sizeof(ctypes.c_long)
        flags = fcntl.ioctl(fd, 2 << 30 | size << 16 | _GET_FLAGS, bytes(size))
    except OSError:
        return False  # a file system without such flags
    finally:
        os.close(fd)
    return bool(int.from_bytes(flags, sys.byteorder) & _FOLDS_CASE)


def get_xattr(path: bytes | int, name: str, *, follow: bool = False) -> bytes | None:
    """Value of an extended attribute; ``None`` if it is absent or the file system has none."""
    try:
        if isinstance(path, int):
            return os.getxattr(path, name)
        return os.getxattr(path, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.ENOENT):
            return None
        raise
