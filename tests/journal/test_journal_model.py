"""The journal against a list: any order of commits, rotations, snapshots, archiving, reopening,
kills and torn tails gives the events that were acknowledged, in order."""

from __future__ import annotations

import os
import shutil
import tempfile

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from journal import Conflict, Journal, JournalError
from journal import frame as fr
from journal.archive import archive, prune
from journal.digest import StateDigest
from journal.verify import verify

RUNS = int(os.environ.get("JOURNAL_MODEL_RUNS", "25"))


class JournalMachine(RuleBasedStateMachine):
    """Two writing objects and one reader on one folder."""

    @initialize()
    def begin(self) -> None:
        where = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.root = tempfile.mkdtemp(prefix="journal-model-", dir=where)
        self.model: list[int] = []
        self.objects = [self.fresh(), self.fresh()]
        self.reader = Journal.open(self.root).reader()
        self.seen: list[int] = []
        self.pruned = False

    def fresh(self) -> Journal:
        return Journal.open(
            self.root, "w", create=True, segment_bytes=4096, reserve_bytes=0, durability="none"
        )

    @rule(who=st.integers(0, 1), sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=4))
    def commit(self, who: int, sizes: list[int]) -> None:
        first = len(self.model) + 1
        events = [[first + i, b"x" * size] for i, size in enumerate(sizes)]
        done = self.objects[who].commit(events, expected=len(self.model))
        assert done.first_sequence == first
        self.model += [e[0] for e in events]

    @rule(who=st.integers(0, 1), off=st.integers(1, 5))
    def conflict(self, who: int, off: int) -> None:
        try:
            self.objects[who].commit([[0, b""]], expected=len(self.model) + off)
        except Conflict:
            return
        raise AssertionError("a wrong expectation was accepted")

    @rule(who=st.integers(0, 1))
    def rotate(self, who: int) -> None:
        with self.objects[who].writer() as w:
            w.rotate()

    @rule(who=st.integers(0, 1))
    def reopen(self, who: int) -> None:
        self.objects[who].close()
        self.objects[who] = self.fresh()

    @rule(who=st.integers(0, 1), tail=st.binary(min_size=1, max_size=90))
    def kill_with_torn_tail(self, who: int, tail: bytes) -> None:
        appender = self.objects[who]._appender
        assert appender is not None
        appender.abandon()
        last = sorted(os.listdir(f"{self.root}/segments"))[-1]
        sealed = os.stat(f"{self.root}/segments/{last}").st_mode & 0o222 == 0
        if not sealed:
            with open(f"{self.root}/segments/{last}", "ab") as file:
                file.write(b"JFR1" + tail)
        self.objects[who] = self.fresh()

    @rule(who=st.integers(0, 1))
    def snapshot(self, who: int) -> None:
        journal = self.objects[who]
        items = [(b"%06d" % n, b"") for n in self.model]
        digest = StateDigest()
        for key, value in items:
            digest.add(key, value)
        with journal.writer() as w:
            place = w.tail
        journal.snapshots.write(
            items, position=place, schema=1, reducer_version=1, digest=digest.value()
        )
        found = journal.snapshots.open_trusted(schema=1, reducer_version=1)
        assert found is not None
        assert len(found) == len(self.model)
        found.close()

    @rule(who=st.integers(0, 1))
    def archive(self, who: int) -> None:
        archive(self.objects[who])

    @rule(who=st.integers(0, 1))
    def prune(self, who: int) -> None:
        journal = self.objects[who]
        try:
            gone = prune(journal)
        except JournalError as error:
            if "two verified snapshots" not in str(error):
                raise
            return
        found = journal.snapshots.open_trusted(schema=1, reducer_version=1)
        assert found is not None
        with found:
            rest = [e[0] for f in journal.frames(found.position) if f.kind == fr.DATA
                    for e in f.transaction().events]  # fmt: skip
            assert self.model[: len(found)] + rest == self.model
        if gone:
            self.pruned = True

    @rule()
    def fork(self) -> None:
        child = os.fork()
        if child == 0:
            try:
                self.objects[0].commit([[-1, b""]])
            except BaseException:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @invariant()
    def readers_see_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        for frame in self.reader.read_new():
            if frame.kind == fr.DATA:
                self.seen += [event[0] for event in frame.transaction().events]
        assert self.seen == self.model

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        with self.fresh().writer():
            pass
        report = verify(self.root, "strict")
        assert [f for f in report.findings if f.weight == "damage"] == []
        for journal in self.objects:
            journal.close()
        shutil.rmtree(self.root)


TestJournalModel = JournalMachine.TestCase
TestJournalModel.settings = settings(
    max_examples=RUNS,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
