"""The builder's own process: makes the plain files that an importing process describes.

Rules of this module:

* It starts in milliseconds: nothing is imported that the interpreter has not got but ``_socket``,
  ``mmap`` and ``marshal``.
* It resolves no path. The directories come as descriptors from the importer, which found them
  inside the layer; a name in them is created with ``O_EXCL | O_NOFOLLOW``, or not at all.
* Whatever goes wrong, it says how many files it made and ends. The importer makes the rest itself
  and so meets, and words, the error; nothing is decided here.
* It ends at the end of its messages, and after the present one, or ``_PAUSE_S`` at most, if its
  importer is gone: whatever that forked may still have the other end of the channel.

The messages are described in ``builder``.
"""

from __future__ import annotations

import marshal
import mmap
import os
import sys
from _socket import AF_UNIX, CMSG_SPACE, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socket

_PAUSE_S = 1.0
_NICE = 10  # as far as the importer's threads step back (``threads``): it is what others wait for
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def standing() -> bytes:
    """What this thread may do that another one of the same user perhaps may not; empty: unknown.

    A program started by root gets the capabilities back that root gave up, one started by another
    user loses its own; security modules go by the program.
    """
    found = b""
    try:
        with open("/proc/thread-self/status", "rb", buffering=0) as status:
            text = status.read(1 << 14)
    except OSError:
        return b""
    for line in text.split(b"\n"):
        if line.startswith((b"Uid:", b"Gid:", b"CapEff:", b"Seccomp:")):
            found += line
    try:
        with open("/proc/thread-self/attr/current", "rb", buffering=0) as label:
            found += label.read(1 << 12)
    except OSError:
        pass  # no security module has labels here
    return found


def _receive(channel: socket, parent: int, size: int, fds_max: int) -> tuple[bytes, list[int]]:
    """A message and the descriptors that came with it; no message: it is over."""
    data = b""
    ancillary: list[tuple[int, int, bytes]] = []
    while os.getppid() == parent:
        try:
            data, ancillary, _, _ = channel.recvmsg(size, CMSG_SPACE(4 * fds_max))
            break
        except TimeoutError:
            continue
    fds: list[int] = []
    for level, kind, raw in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            fds += memoryview(raw[: len(raw) & ~3]).cast("i")
    return data, fds


def main(message_max: int, files_max: int, directories_max: int) -> None:
    """Serve the importer at descriptor 0 until it has no more to say.

    A message has at most ``message_max`` bytes and ``files_max`` files or descriptors, and numbers
    its directories below ``directories_max``.
    """
    parent = os.getppid()
    os.umask(0)
    try:
        if os.getpriority(os.PRIO_PROCESS, 0) < _NICE:
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    except OSError:
        pass  # a system that does not want that
    channel = socket(AF_UNIX, SOCK_SEQPACKET, 0, 0)
    # The other descriptors lock what is being built against those who clean up after a dead
    # importer: they stay open for as long as this process may write.
    channel.settimeout(_PAUSE_S)
    _, fds = _receive(channel, parent, message_max, files_max)
    with mmap.mmap(fds[0], 0, prot=mmap.PROT_READ) as memory, memoryview(memory) as view:
        channel.send(standing())
        directories = [-1] * directories_max
        checked: set[tuple[int, int]] = set()
        while True:
            data, fds = _receive(channel, parent, message_max, files_max)
            if not data or os.getppid() != parent:
                return
            groups, wanted = marshal.loads(data)
            for number, fd in zip(wanted, fds, strict=True):
                if directories[number] >= 0:
                    os.close(directories[number])
                    checked = {known for known in checked if known[0] != number}
                directories[number] = fd
            made = 0
            try:
                for number, files in groups:
                    directory = directories[number]
                    for file in files:
                        _make(directory, view, file, number, checked)
                        made += 1
            except OSError:
                channel.send(b"%d" % made)
                return
            channel.send(b"%d" % made)


def _make(
    directory: int,
    view: memoryview,
    file: tuple[bytes, int, tuple[int, int], int, int, int],
    number: int,
    checked: set[tuple[int, int]],
) -> None:
    """One file: name, mode, owner (negative: as it is), time, content's place in memory."""
    base, mode, (uid, gid), mtime, start, size = file
    fd = os.open(base, _CREATE, mode & 0o777, dir_fd=directory)
    try:
        while size:
            written = os.write(fd, view[start : start + size])
            start += written
            size -= written
        if uid >= 0:
            os.fchown(fd, uid, gid)
        if mode > 0o777:
            os.fchmod(fd, mode)
        elif (number, mode) not in checked:
            # A directory treats all files of one mode alike: there is no umask, but perhaps an ACL.
            if os.fstat(fd).st_mode & 0o7777 == mode:
                checked.add((number, mode))
            else:
                os.fchmod(fd, mode)
        os.utime(fd, ns=(mtime, mtime))
    finally:
        os.close(fd)


if __name__ == "__main__":
    try:
        main(*map(int, sys.argv[1:]))
    finally:
        os._exit(0)  # the importer waits: nothing here needs to be taken apart
