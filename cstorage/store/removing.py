"""Deleting what many layers left in the trash, beside the one who deleted them.

Rules of this module:

* The change is durable and visible before anything comes here; what is left is work on a folder
  that nothing refers to, and a process that ends in the middle of it leaves it to the next sweep.
* A few layers are removed before the deletion returns, and so is everything on a disk that is
  nearly full: who makes room wants to have it.
* The thread ends when there is nothing left to do. ``wait``, which closing a store and ``gc`` do,
  returns when everything is gone.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from cstorage.archive.threads import step_back
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from cstorage.store.workspace import Workspace

MANY = 16
"""Layers in a folder that are too many to wait for."""
ROOM = 0.1
"""Share of a file system that has to be free for letting anybody wait for more of it."""


class Remover:
    """Deletes work folders of one process; ``discard`` is safe to use from several threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[Workspace] = deque()
        self._thread: threading.Thread | None = None

    def discard(self, work: Workspace) -> None:
        """Delete the folder, at once or soon. ``OSError`` if that is tried at once and fails."""
        if len(work.intent.layers) < MANY or _nearly_full(work) or not self._begin(work):
            work.discard()

    def wait(self) -> None:
        """Return when nothing is waiting any more."""
        # In a child of this process the thread counts as ended, and its work as the parent's.
        while (thread := self._thread) is not None and thread.is_alive():
            if thread is threading.current_thread():
                return
            thread.join()

    def _begin(self, work: Workspace) -> bool:
        with self._mutex:
            self._waiting.append(work)
            if self._thread is not None and self._thread.is_alive():
                return True
            # Not a daemon: an interpreter that ends without closing the store waits for it, too.
            self._thread = threading.Thread(target=self._run, name="cstorage-removal")
            try:
                self._thread.start()
            except RuntimeError:  # no more threads, or the interpreter is ending
                self._thread = None
                self._waiting.pop()
                return False
        return True

    def _run(self) -> None:
        step_back()
        while True:
            with self._mutex:
                if not self._waiting:
                    self._thread = None
                    return
                work = self._waiting.popleft()
            try:
                work.discard()
            except OSError:
                work.abandon()  # a sweep tries again to delete the rest


def _nearly_full(work: Workspace) -> bool:
    try:
        found = os.statvfs(work.path)
    except OSError:
        return True
    return found.f_bavail < ROOM * found.f_blocks
