"""Two directories change places in one step, as ``renameat2(RENAME_EXCHANGE)`` does it."""

from __future__ import annotations

import os

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(first: str, second: str) -> None:
    """Let two directories change places in one step. Raises ``OSError``."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    a, b = os.fsencode(first), os.fsencode(second)
    if libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, ctypes.c_uint(_RENAME_EXCHANGE)) != 0:
        number = ctypes.get_errno()
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
