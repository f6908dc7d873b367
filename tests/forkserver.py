"""Starts our programmes by forking a process that has already imported them.

Each command is a process of its own, as from a shell, without the time that starting Python takes;
generated sequences run thousands of them. As a programme, this file reads one JSON request a line
(programme, words, files for its three streams) and answers with an exit status.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class ForkServer:
    """The caller's end."""

    def __init__(self, folder: Path, environment: dict[str, str], planted: str = "") -> None:
        """``planted``: Python that is run once all is imported, to show what a defect does."""
        self._streams = [folder / name for name in ("in", "out", "err")]
        self._process = subprocess.Popen(
            [sys.executable, __file__, planted],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, words: list[str], stdin: bytes, programme: str = "cstorage"
    ) -> tuple[int, bytes, bytes]:
        """Exit status (negative for a signal), standard output, standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        source, out, err = self._streams
        source.write_bytes(stdin)
        streams = [str(path) for path in self._streams]
        request = {"programme": programme, "words": words, "streams": streams}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the fork server is gone"
        return int(answer), out.read_bytes(), err.read_bytes()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def _serve() -> None:
    import importlib
    import pkgutil

    import cstorage
    import journal

    for package in (cstorage, journal):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    exec(sys.argv[1], {})
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _command(json.loads(line))
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def _command(request: dict[str, Any]) -> None:
    if request["programme"] == "cstorage":
        from cstorage.cli.main import main
    else:
        from cstorage.cli.journal_main import main

    modes = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_TRUNC] * 2)
    for number, (path, mode) in enumerate(zip(request["streams"], modes, strict=True)):
        fd = os.open(path, mode, 0o600)
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "r" if n == 0 else "w") for n in range(3))
    sys.argv = [request["programme"], *request["words"]]
    status: Any = 1
    try:
        status = main()
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        print(f"Traceback: {error!r}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    _serve()
