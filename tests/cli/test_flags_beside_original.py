"""The same words through the original's flag parser and ours: same verdict, same messages."""

from __future__ import annotations

import os
import random
import shutil
import subprocess

import pytest

from cstorage.cli import goflags
from cstorage.cli.command import GLOBAL_FLAGS, HELP_FLAG, flags_of
from cstorage.cli.goflags import USAGE
from cstorage.cli.table import find

PEER = "containers-storage"
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which(PEER) is None, reason=f"{PEER} is not installed"),
]

# Flags that Debian's 1.43 does not have yet, and ours.
NEWER = {
    "--image-store", "--transient-store", "--unshare", "--reason", "--when", "--keep-deleted",
    "--quick", "--progress", "--max-bytes", "--max-entries", "--max-ratio",
}  # fmt: skip

WORDS = """
-j --json -jt -tj -t=false -jt=false --json=maybe --debug=F -D -Dj -h --help -help -jh -hj -- - ---x
-= --=x -x= --graph -g -gR -jg -Rgj --graph= a b -é -jé --label='x' --label="x -l -l='' -n -nn -nnj
--name=x -n= -j- -t- --storage-opt -s -sg -j=1 -jD=x --json=T -u -ucbx -bz2 --bz2 -f -fu --file=x -x
-c=no -json -g/dir -Q --Q --help=false --help=x -help=1
""".split()  # noqa: SIM905

CASES = 150
"""Per command; one run of the original takes a few milliseconds."""


def known_to_both(flags):
    return tuple(flag for flag in flags if flag.spellings[0] not in NEWER)


def original(tmp_path, *words):
    """What the original does with ``words``; it never gets as far as opening a store."""
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": f"{tmp_path}/missing"}
    return subprocess.run(
        [PEER, *words], capture_output=True, timeout=20, check=False, env=environment
    )


def messages(text: bytes) -> list[str]:
    lines = text.decode("utf-8", "surrogateescape").splitlines()
    return [line for line in lines if line.startswith(("flag ", "bad flag", "invalid "))]


@pytest.mark.parametrize("command", ["layers", "create-layer", "diff", "exists"])
def test_flags_after_the_command(command, tmp_path):
    row = find(command)
    assert row is not None
    flags = known_to_both(flags_of(row))
    chance = random.Random(command)
    refused = 0
    for _ in range(CASES):
        words = [chance.choice(WORDS) for _ in range(chance.randint(1, 4))]
        theirs = original(tmp_path, command, *words)
        if theirs.returncode == 2:
            continue  # it crashed, which is no interface
        ours = goflags.parse(words, flags, {})
        assert ours.failed == (theirs.returncode == 125), words
        refused += ours.failed
        assert [r for r in ours.reports if r] == messages(theirs.stderr), words
        if ours.failed:
            assert (USAGE in ours.reports) == theirs.stdout.startswith(b"Usage: "), words
        if not ours.failed and b"too many arguments" in theirs.stdout:
            counted = theirs.stdout.splitlines()[0].decode("utf-8", "surrogateescape")
            assert counted == f"{command}: too many arguments ([{' '.join(ours.rest)}]).", words
    assert 0 < refused < CASES


def test_flags_before_the_command(tmp_path):
    flags = known_to_both((*GLOBAL_FLAGS, HELP_FLAG))
    chance = random.Random("global")
    refused = 0
    for _ in range(CASES):
        words = [chance.choice(WORDS) for _ in range(chance.randint(1, 4))]
        theirs = original(tmp_path, *words, "nosuch")
        if theirs.returncode == 2:
            continue
        ours = goflags.parse([*words, "nosuch"], flags, {})
        assert ours.failed == (b" while parsing arguments (1)" in theirs.stdout), words
        refused += ours.failed
        assert [r for r in ours.reports if r] == messages(theirs.stderr), words
        if not ours.failed and not ours.values["help"] and ours.rest:
            assert theirs.stdout.decode() == f"{ours.rest[0]}: unrecognized command.\n", words
    assert 0 < refused < CASES
