"""What tests of every room share: how to start our programmes, and leaving no mount behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

TOP = Path(__file__).resolve().parent.parent

# Helper modules stand beside the tests that use them.
for _folder in ("conformance", "end_to_end", "scale", "."):
    sys.path.append(str(TOP / "tests" / _folder))

from forkserver import ForkServer  # noqa: E402 - found through the lines above
from mounts import unmount_below  # noqa: E402

# A shell starts what runs in its background with interrupts ignored, which programmes inherit; the
# tests send some.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

_START = (
    "import sys; sys.argv[0] = {name!r}; from cstorage.cli.{module} import main; sys.exit(main())"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cstorage")
    group.addoption(
        "--conformance-examples",
        type=int,
        default=0,
        metavar="N",
        help="generated command sequences per driver, chosen afresh (default: a small fixed set)",
    )
    group.addoption(
        "--archive-examples",
        type=int,
        default=0,
        metavar="N",
        help="generated archives for the byte-exact round trip, chosen afresh (default: 150)",
    )
    group.addoption(
        "--kill-points",
        type=int,
        default=0,
        metavar="N",
        help="kill points per system call in the crash tests (default: a spread of a few)",
    )


@pytest.fixture(scope="session")
def cstorage_command() -> list[str]:
    """How to start ``cstorage`` of this tree as a process of its own."""
    return [sys.executable, "-c", _START.format(name="cstorage", module="main")]


@pytest.fixture(scope="session")
def journal_command() -> list[str]:
    """How to start ``cstorage-journal`` of this tree."""
    return [sys.executable, "-c", _START.format(name="cstorage-journal", module="journal_main")]


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which no configuration of this machine reaches a store."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STORAGE_", "CONTAINERS_"))}
    folder = tmp_path_factory.mktemp("configuration")
    # Every test names its roots and driver; these are for those who forget to, and for peers that
    # warn about a configuration without a driver.
    configuration = folder / "storage.conf"
    configuration.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    )
    return kept | {
        "CONTAINERS_STORAGE_CONF": str(configuration),
        "PYTHONPATH": str(TOP),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


@pytest.fixture(scope="session")
def forks(
    tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]
) -> Iterator[ForkServer]:
    """A fast way to start our programmes; each run is a process of its own."""
    server = ForkServer(tmp_path_factory.mktemp("forks"), clean_environment)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _no_mount_left_behind(request: pytest.FixtureRequest) -> object:
    """Temporary folders must be removable even after a test that failed half-way."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None and os.getuid() == 0:
        unmount_below(folder)
