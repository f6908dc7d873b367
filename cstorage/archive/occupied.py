"""What a tree occupies on the disk, counted as ``du`` does: by walking it."""

from __future__ import annotations

import os


def occupied(root_fd: int) -> int:
    """Bytes that the files and directories below ``root_fd`` occupy; hard links count once."""
    total = 0
    seen: set[int] = set()
    for _, _, files, fd in os.fwalk(b".", dir_fd=root_fd):
        total += os.fstat(fd).st_blocks * 512
        for name in files:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if info.st_ino not in seen:
                total += info.st_blocks * 512
                if info.st_nlink > 1:
                    seen.add(info.st_ino)
    return total
