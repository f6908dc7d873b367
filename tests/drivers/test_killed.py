"""A process killed between any two steps leaves a layer that is there or not, and no trace else.

A child process of the test does the work and is killed (``SIGKILL``) just before its n-th operation
on the file system, for every n until it gets through. Then another driver object, as after a
restart, withdraws by the ID alone.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from cstorage.drivers.removal import remove_tree
from tests.drivers.conftest import root_only
from tests.drivers.stage import ROOTFS, Stage, archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, root_only]

FILE_SYSTEM_EVENTS = frozenset(
    (
        "open", "os.rename", "os.symlink", "os.mkdir", "os.rmdir", "os.remove", "os.chmod",
        "os.chown", "os.link", "os.listdir", "os.scandir", "os.utime", "os.truncate",
        "os.setxattr", "os.getxattr", "os.listxattr",
    )
)  # fmt: skip


def killed_before(step: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that is killed before its ``step``-th operation; True if it was."""
    child = os.fork()
    if child == 0:
        try:
            count = 0

            def hook(event: str, _arguments: object) -> None:
                nonlocal count
                if event in FILE_SYSTEM_EVENTS:
                    count += 1
                    if count == step:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def every_death(work: Callable[[], object], limit: int = 200) -> Iterator[int]:
    """Yields after each death of ``work``, and once after it got through."""
    for step in range(1, limit):
        died = killed_before(step, work)
        yield step
        if not died:
            return
    pytest.fail(f"more than {limit} operations")


@pytest.fixture(params=["vfs", "overlay"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, request.param)
    made.layer("base", "", *ROOTFS)
    yield made
    assert made.close() == []


def after_restart(scene: Stage) -> Stage:
    return Stage(scene.base, scene.variant)


def test_a_death_while_publishing_leaves_all_or_what_can_be_withdrawn(scene: Stage) -> None:
    outcomes = set()
    prepared = scene.prepare("x", "base")
    scene.driver.apply(prepared, io.BytesIO(archive(*ROOTFS)))
    for _ in every_death(lambda: scene.driver.publish(prepared)):
        restarted = after_restart(scene)
        outcomes.add(restarted.driver.exists("x"))
        there = bool(scene.traces("x"))
        assert restarted.driver.withdraw("x", scene.trash) is there
        assert scene.traces("x") == []
        assert restarted.driver.layers() == ["base"]
        remove_tree(str(scene.trash / "x"))
        prepared.close()
        remove_tree(str(scene.work))
        scene.work.mkdir()
        prepared = scene.prepare("x", "base")
        scene.driver.apply(prepared, io.BytesIO(archive(*ROOTFS)))
    prepared.close()
    assert outcomes == {True, False}


def test_a_death_while_preparing_and_applying_touches_nothing_published(scene: Stage) -> None:
    scene.driver.status()  # so that the child does not probe, which takes hundreds of steps

    def work() -> None:
        with scene.prepare("x", "base") as prepared:
            scene.driver.apply(prepared, io.BytesIO(archive(*ROOTFS[:3])))
            scene.driver.make_durable(prepared)

    home = scene.base / scene.name
    before = sorted(str(path) for path in home.rglob("*"))
    for step in every_death(work, 400):
        if step % 7 == 1:
            assert sorted(str(path) for path in home.rglob("*")) == before
            assert after_restart(scene).driver.withdraw("x", scene.trash) is False
        remove_tree(str(scene.work))
        scene.work.mkdir()


def test_a_death_while_withdrawing_is_finished_by_withdrawing_again(scene: Stage) -> None:
    scene.layer("x", "base")
    for _ in every_death(lambda: scene.driver.withdraw("x", scene.trash)):
        restarted = after_restart(scene)
        there = bool(scene.traces("x"))
        assert restarted.driver.withdraw("x", scene.trash) is there
        assert scene.traces("x") == []
        assert restarted.driver.layers() == ["base"]
        for left in scene.trash.iterdir():
            remove_tree(str(left))
        scene.layer("x", "base")


def test_a_death_while_mounting_leaves_nothing_that_withdrawing_does_not_undo(
    tmp_path: Path,
) -> None:
    scene = Stage(tmp_path)
    scene.layer("base", "", *ROOTFS)
    scene.driver.status()
    scene.layer("x", "base", writable=True)
    deaths = 0
    for deaths in every_death(lambda: scene.driver.mount("x")):
        restarted = after_restart(scene)
        restarted.driver.withdraw("x", scene.trash)
        assert scene.mounts() == []
        for left in scene.trash.iterdir():
            remove_tree(str(left))
        scene.layer("x", "base", writable=True)
    assert deaths > 3


def test_a_short_name_without_its_layer_is_found_by_the_layers_id(tmp_path: Path) -> None:
    """After a power cut the directory may be gone and the link still there."""
    made = Stage(tmp_path)
    made.layer("base")
    made.layer("x", "base")
    remove_tree(str(made.directory("x")))
    assert len(made.traces("x")) == 1
    assert made.driver.withdraw("x", made.trash) is True
    assert made.traces("x") == []
    assert len(os.listdir(made.base / "overlay/l")) == 1


def test_a_layer_whose_own_files_are_missing_or_wrong_can_be_withdrawn(tmp_path: Path) -> None:
    made = Stage(tmp_path)
    for number, damage in enumerate(("", "../../etc", None)):
        name = f"x{number}"
        made.layer(name)
        link = made.directory(name) / "link"
        if damage is None:
            link.unlink()
        else:
            link.write_text(damage)
        assert made.driver.withdraw(name, made.trash) is True
        assert made.traces(name) == []
