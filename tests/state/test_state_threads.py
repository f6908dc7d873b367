"""States that several threads read while one changes them."""

from __future__ import annotations

import sys
import threading

from cstorage.state import State


def test_no_key_is_listed_twice_or_lost_however_many_threads_list() -> None:
    state = State()
    keys = [b"%05d" % (number * 7919 % 3000) for number in range(3000)]
    stop = threading.Event()
    wrong: list[str] = []

    def list_on() -> None:
        try:
            while not stop.is_set():
                found = [key for key, _ in state.scan(b"")]
                if sorted(set(found)) != found:
                    wrong.append("a listing is out of order or has a key twice")
        except Exception as error:
            wrong.append(repr(error))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=list_on) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for key in keys:
            state.put(key, "value")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    assert wrong == []
    assert [key for key, _ in state.scan(b"")] == sorted(keys)


def test_a_frozen_state_stays_as_it_was() -> None:
    state = State()
    state.put(b"a", 1)
    state.put(b"b", 2)
    frozen = state.frozen()
    state.remove(b"a")
    state.put(b"c", 3)
    assert list(frozen.scan(b"")) == [(b"a", 1), (b"b", 2)]
    assert list(state.scan(b"")) == [(b"b", 2), (b"c", 3)]
