"""Running a part of a command in a new user and mount namespace.

Rules: the caller's own ID becomes 0, its subordinate ranges (/etc/subuid, /etc/subgid) follow from
1 upward; real root keeps all its IDs as they are. The child is marked by the environment variables
that the original uses, so that nothing enters a namespace twice (cli.md §1.5, §8.8).
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from cstorage.cli.quoting import go_quote
from cstorage.cli.wording import describe, log_line
from cstorage.errors import StorageError
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cstorage.model import IDMap

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_DONE = "_CONTAINERS_USERNS_CONFIGURED"


class NamespaceRefused(StorageError):
    """The kernel or the ID map helpers did not let us have a user namespace."""


class _Span(NamedTuple):
    """``size`` IDs from ``inside`` in the namespace are those from ``outside`` out of it."""

    inside: int
    outside: int
    size: int


def configured() -> bool:
    """Whether this process is in such a namespace already."""
    if os.environ.get(_DONE):
        return True
    return os.geteuid() == 0 and os.environ.get("_CONTAINERS_ROOTLESS_UID", "") not in ("", "0")


def run_inside(work: Callable[[], int]) -> int:
    """Run ``work`` in a child in new namespaces; its exit status. Output must be flushed."""
    uid, gid = os.geteuid(), os.getegid()
    uids, gids = _maps(uid, gid)
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready_r)
        os.close(go_w)
        os._exit(_child(work, ready_w, go_r, (uid, gid)))
    os.close(ready_w)
    os.close(go_r)
    try:
        if os.read(ready_r, 1):
            _write_maps(child, "uid", uids)
            _write_maps(child, "gid", gids)
            os.write(go_w, b"1")
    finally:
        os.close(ready_r)
        os.close(go_w)
        with _passed_on(child):
            _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


@contextmanager
def _passed_on(child: int) -> Iterator[None]:
    """What ends this process in the block ends the child, which does the work, first."""
    import signal

    def pass_on(number: int, _frame: object) -> None:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            pass  # it has just ended by itself

    before = {
        number: signal.signal(number, pass_on)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _child(work: Callable[[], int], ready: int, go: int, ids: tuple[int, int]) -> int:
    """The child's whole life; never returns into the caller's frames."""
    import sys
    import traceback

    try:
        _unshare()
        os.write(ready, b"1")
        os.close(ready)
        if not os.read(go, 1):
            return 1
        os.close(go)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        os.environ[_DONE] = "done"
        os.environ["_CONTAINERS_ROOTLESS_UID"] = str(ids[0])
        os.environ["_CONTAINERS_ROOTLESS_GID"] = str(ids[1])
        status = work()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except (StorageError, OSError) as error:
        os.write(2, f"{describe(error)}\n".encode("utf-8", "surrogateescape"))
        return 1
    except BaseException:
        os.write(2, traceback.format_exc().encode("utf-8", "surrogateescape"))
        return 2


def _unshare() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
        raise NamespaceRefused(
            f"cannot make a user namespace: {os.strerror(ctypes.get_errno())}; "
            "see user.max_user_namespaces and the system's policy on user namespaces"
        )


def _maps(uid: int, gid: int) -> tuple[list[_Span], list[_Span]]:
    """The maps of UIDs and GIDs for the caller."""
    if uid == 0:
        return _present("uid"), _present("gid")
    uids, gids = _subordinate(uid)
    return _spans(uid, uids), _spans(gid, gids)


def _present(kind: str) -> list[_Span]:
    """All IDs of this namespace, as they are."""
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    return [_Span(inside, inside, size) for inside, _, size in ranges]


def _spans(own: int, others: IDMap) -> list[_Span]:
    """The caller's own ID as 0, the subordinate ones from 1 upward."""
    return [_Span(0, own, 1), *(_Span(1 + inside, start, size) for inside, start, size in others)]


def _subordinate(uid: int) -> tuple[IDMap, IDMap]:
    """The caller's subordinate ranges of UIDs and GIDs; none is worth a warning, not an error."""
    import pwd

    from cstorage import idmap

    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    found: list[IDMap] = []
    troubles: list[str] = []
    for kind, file in (("user", "/etc/subuid"), ("group", "/etc/subgid")):
        try:
            found.append(idmap.read_subordinate(file, user, uid, kind))
        except StorageError as error:
            found.append(())
            troubles.append(describe(error))
    quoted = go_quote(user)
    if troubles:
        _warn(
            f"Reading allowed ID mappings: reading subuid mappings for user {quoted} and subgid "
            f"mappings for group {quoted}: {troubles[0]}"
        )
    for letter, ranges in zip("UG", found, strict=True):
        if not ranges:
            file = f"/etc/sub{letter.lower()}id"
            _warn(f"Found no {letter}ID ranges set aside for user {quoted} in {file}.")
    return found[0], found[1]


def _warn(text: str) -> None:
    os.write(2, f"{log_line('warning', text)}\n".encode("utf-8", "surrogateescape"))


def _write_maps(pid: int, kind: str, spans: list[_Span]) -> None:
    """Give process ``pid`` its map: by the helper where ranges of others are in it."""
    if len(spans) > 1 and os.geteuid() != 0:
        import subprocess

        words = [str(number) for span in spans for number in span]
        try:
            subprocess.run([f"new{kind}map", str(pid), *words], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NamespaceRefused(
                f"new{kind}map failed: {error}; it comes with the uidmap package"
            ) from None
        return
    if kind == "gid" and os.geteuid() != 0:
        _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/{kind}_map", "".join(f"{a} {b} {c}\n" for a, b, c in spans))


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)
