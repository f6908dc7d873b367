"""Two directories change places in one step, as ``renameat2(RENAME_EXCHANGE)`` does it."""

from __future__ import annotations

import errno
import os

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(first: str, second: str) -> None:
    """Let two directories change places in one step. Raises ``OSError``."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def swap(folder: int, one: str, other: str) -> int:
        a, b = os.fsencode(one), os.fsencode(other)
        if libc.renameat2(folder, a, folder, b, ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
            return 0
        return ctypes.get_errno()

    number = swap(_AT_FDCWD, first, second)
    if number == errno.EXDEV:
        from cstorage.drivers.publication import below_mounts

        with below_mounts(first, second) as (folder, one, other):
            number = swap(folder, one, other)
    if number:
        raise OSError(number, os.strerror(number), first, None, second)


def can_exchange(folder: str) -> bool:
    """Whether the file system of ``folder`` can exchange directories."""
    first, second = f"{folder}/exchange-a", f"{folder}/exchange-b"
    os.mkdir(first)
    os.mkdir(second)
    try:
        exchange(first, second)
    except (OSError, AttributeError):
        return False
    finally:
        os.rmdir(first)
        os.rmdir(second)
    return True
