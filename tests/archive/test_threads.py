"""Threads of ours let others run before them, and leave their creator's turn alone."""

from __future__ import annotations

import os
import threading

from cstorage.archive.threads import NICE, Consumer, Producer, step_back


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_helpers_step_back_and_their_creator_does_not():
    before = nice()
    found: list[int] = []
    producer = Producer(lambda: b"%d" % nice(), 1, "produce")
    consumer = Consumer(lambda _: found.append(nice()), 1, "consume")
    consumer.put("item")
    consumer.finish()
    assert [int(producer.next()), *found] == [NICE, NICE]
    producer.close()
    assert nice() == before < NICE


def test_nobody_steps_forward():
    """Of a process that is further back already a thread stays there."""
    found: list[int] = []

    def run() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE + 5)
        step_back()
        found.append(nice())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [NICE + 5]
