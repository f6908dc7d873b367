"""cstorage does what Debian's containers-storage 1.43 does, except where docs/differences.md says.

The harness is first shown to be worth something: the original agrees with itself, and an original
that was tampered with is noticed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from duo import PEER, DuoMaker, Mismatch
from forkserver import ForkServer
from rules import RULES, documented
from sequences import SEQUENCES, subordinate_ranges

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.peer]

DRIVERS = ("vfs", "overlay")

#: Sides that misbehave in one way each: Python that stands between the caller and the original.
ALTERED = {
    "one byte more on standard output": "out += b' '",
    "another exit status": "status = status + 1 if command == 'layers' else status",
    "a word on standard error": "err += b'really\\n'",
    "output on the wrong stream": "out, err = err, out",
    "a file with another mode": (
        "import glob, os\n"
        "for path in glob.glob(graph + '/vfs/dir/base/etc/passwd'): os.chmod(path, 0o600)"
    ),
    "a file with another time": (
        "import glob, os\n"
        "for path in glob.glob(graph + '/vfs/dir/base/etc/passwd'): os.utime(path, (5, 5))"
    ),
    "an attribute too many": (
        "import glob, os\n"
        "for path in glob.glob(graph + '/vfs/dir/base/etc'): os.setxattr(path, 'user.x', b'1')"
    ),
    "a file too few": (
        "import glob, os\nfor path in glob.glob(graph + '/vfs/dir/top/etc/hosts'): os.unlink(path)"
    ),
}

_WRAPPER = """
import subprocess, sys
args = sys.argv[1:]
graph, command = args[args.index("--graph") + 1], args[6]
done = subprocess.run([{peer!r}, *args], input=sys.stdin.buffer.read(), capture_output=True)
out, err, status = done.stdout, done.stderr, done.returncode
{alteration}
sys.stdout.buffer.write(out)
sys.stderr.buffer.write(err)
sys.exit(status)
"""

_SHORT = ("listings_of_a_chain", "deleting_images", "changes_in_a_container")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", _SHORT)
def test_the_original_agrees_with_itself(duo_of: DuoMaker, driver: str, name: str) -> None:
    duo = duo_of(driver, [PEER])
    duo.rules.clear()
    SEQUENCES[name](duo)
    duo.trees()


@pytest.mark.parametrize("alteration", ALTERED)
def test_an_altered_original_is_noticed(duo_of: DuoMaker, alteration: str, tmp_path: Path) -> None:
    script = tmp_path / "altered.py"
    script.write_text(_WRAPPER.format(peer=PEER, alteration=ALTERED[alteration]))
    duo = duo_of("vfs", [sys.executable, str(script)])
    with pytest.raises(Mismatch):  # noqa: PT012 - the sequence and the comparison of its trees
        SEQUENCES["adding_names"](duo)
        duo.trees()


def test_every_rule_has_a_row_and_every_row_a_rule() -> None:
    assert set(documented()) == set(RULES)


def test_a_row_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="five filled cells"):
        documented("| `some-id` | what | theirs | ours |  |\n")
    with pytest.raises(ValueError, match="twice"):
        documented("| `a` | b | c | d | e |\n| `a` | b | c | d | e |\n")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", SEQUENCES)
def test_the_same_commands_do_the_same(
    duo_of: DuoMaker,
    cstorage_command: list[str],
    forks: ForkServer,
    compared: set[str],
    driver: str,
    name: str,
) -> None:
    duo = duo_of(driver, cstorage_command)
    duo.ours.forks = forks
    duo.patient = True
    SEQUENCES[name](duo)
    duo.finish()
    compared.add(name)


@pytest.mark.parametrize("name", ["wrong_command_lines", "directories"])
def test_started_as_from_a_shell_it_does_the_same(
    duo_of: DuoMaker, cstorage_command: list[str], name: str
) -> None:
    """The other comparisons fork a process that has imported cstorage; this one starts Python."""
    duo = duo_of("vfs", cstorage_command)
    duo.patient = True
    SEQUENCES[name](duo)
    duo.finish()


#: Runs a command where other users have subordinate IDs: in a mount namespace of its own.
_WITH_RANGES = """
mount --bind "$0/subuid" /etc/subuid && mount --bind "$0/subgid" /etc/subgid && exec "$@"
"""


def test_subordinate_ranges_become_the_same_maps(
    duo_of: DuoMaker, cstorage_command: list[str], tmp_path: Path
) -> None:
    """On vfs, which records the maps; overlay shifts by the same maps when it mounts."""
    (tmp_path / "subuid").write_text("alice:200000:65536\nbob:70000:10\nbob:50000:5\n")
    (tmp_path / "subgid").write_text("alice:300000:1000\nbob:80000:2000\nalice:90000:10\n")
    inside = ["unshare", "--mount", "sh", "-c", _WITH_RANGES, str(tmp_path)]
    duo = duo_of("vfs", [*inside, *cstorage_command], [*inside, PEER])
    duo.patient = True
    subordinate_ranges(duo)
    duo.finish()
