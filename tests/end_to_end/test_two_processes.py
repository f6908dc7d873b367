"""A commit of one process is what every other process reads next."""

from __future__ import annotations

import subprocess
import sys
import threading
from queue import Empty, Queue

import pytest
from scene import Scene

pytestmark = pytest.mark.root

#: A process that holds the store open and answers each line with what it sees at that moment.
_HOLDER = """
import sys, cstorage
graph, run, driver = sys.argv[1:]
with cstorage.open(graph_root=graph, run_root=run, driver=driver) as store:
    print("open", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "create":
            store.create_layer(id=words[1])
        ids = [layer.id for layer in store.layers()]
        names = [name for layer in store.layers() for name in layer.names]
        print(*ids, "/", *names, flush=True)
"""


class Holder:
    """The other process."""

    def __init__(self, scene: Scene) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(scene.graph), str(scene.run_root), scene.driver],
            env=scene.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, question: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return self.line()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0


def test_a_process_that_holds_the_store_sees_each_commit_at_its_next_read(scene: Scene) -> None:
    holder = Holder(scene)
    try:
        assert holder.line() == "open"
        assert holder.ask("look") == "/"
        scene.ok("create-layer", "--id", "one", "-n", "first")
        assert holder.ask("look") == "one / first"
        scene.ok("set-names", "-n", "renamed", "one")
        assert holder.ask("look") == "one / renamed"
        scene.ok("delete-layer", "one")
        assert holder.ask("look") == "/"
    finally:
        holder.close()


def test_commands_see_each_commit_of_a_process_that_holds_the_store(scene: Scene) -> None:
    holder = Holder(scene)
    try:
        assert holder.line() == "open"
        for number in range(5):
            holder.ask(f"create l{number}")
            assert scene.layers() == [f"l{n}" for n in range(number + 1)]
    finally:
        holder.close()


def test_a_commit_of_one_command_is_there_for_the_next(scene: Scene) -> None:
    for number in range(5):
        scene.ok("create-layer", "--id", f"l{number}")
        assert scene.run("exists", "-q", f"l{number}").exit == 0


def test_watch_prints_each_commit_as_it_happens(scene: Scene) -> None:
    scene.ok("layers")
    process = subprocess.Popen(
        scene.argv("watch"), env=scene.environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines: Queue[str] = Queue()
    stdout = process.stdout
    threading.Thread(target=lambda: [lines.put(line) for line in stdout], daemon=True).start()
    try:
        # The first commits may come before the watcher is at work; one of them shows that it is.
        for number in range(50):
            scene.ok("create-layer", "--id", f"warm{number}")
            try:
                lines.get(timeout=0.5)
                break
            except Empty:
                continue
        scene.ok("create-layer", "--id", "watched-for")
        seen = ""
        while "watched-for" not in seen:
            seen = lines.get(timeout=5)
    finally:
        process.kill()
        process.wait()
