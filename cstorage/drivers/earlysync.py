"""Bringing to the disk what is being written, so that little is left when it is to be durable.

Only that: whoever promises durability syncs afterwards. Each open file description is told of a
failed write once, so the one used here is its own and keeps the news from nobody.
"""

from __future__ import annotations

import os
from threading import Event, Thread
from time import monotonic

from cstorage.archive.threads import step_back
from cstorage.drivers import mountapi

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PAUSE_S = 0.02
_REST = 0.1  # of the time that the one before took, if that is longer
_LONG_S = 0.25  # one that takes longer tells of a slow or busy disk, and leaves half of the time


class EarlySync:
    """Goes on for as long as the block; ``root_fd`` is a directory of the file system."""

    def __init__(self, root_fd: int) -> None:
        self._fd = os.open(b".", _DIRECTORY, dir_fd=root_fd)
        self._ended = Event()
        self._thread = Thread(target=self._run, name="early-sync", daemon=True)

    def _run(self) -> None:
        step_back()
        pause = _PAUSE_S
        try:
            while not self._ended.wait(pause):
                begun = monotonic()
                mountapi.sync_file_system(self._fd)
                taken = monotonic() - begun
                pause = max(_PAUSE_S, taken * _REST if taken < _LONG_S else taken)
        except OSError:
            pass  # the sync at the end fails as well, and says so

    def __enter__(self) -> EarlySync:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        os.close(self._fd)
