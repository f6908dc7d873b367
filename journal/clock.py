"""Time, identity of the boot, and randomness, in one injectable object.

Rules of this module:

* Order in the journal is the sequence number; times are information (journal format, section 3).
* Deadlines use ``monotonic``; nothing here is consulted by a reducer.
* A simulation replaces ``Clock`` and so decides every value the journal did not compute itself.
"""

from __future__ import annotations

import os
import time

_boot: bytes = b""


class Clock:
    """The real clock of this machine."""

    __slots__ = ()

    time_ns = staticmethod(time.time_ns)
    """Wall clock, nanoseconds since 1970; may jump."""

    monotonic = staticmethod(time.monotonic)
    """Seconds for deadlines."""

    sleep = staticmethod(time.sleep)
    random = staticmethod(os.urandom)

    def boot_id(self) -> bytes:
        """16 bytes that change with every boot of the kernel; zeros where the kernel has none."""
        global _boot  # noqa: PLW0603 - one value per boot, read once per process
        if not _boot:
            try:
                with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
                    _boot = bytes.fromhex(file.read(64).decode().strip().replace("-", ""))
            except (OSError, ValueError):
                _boot = bytes(16)
        return _boot


REAL = Clock()
