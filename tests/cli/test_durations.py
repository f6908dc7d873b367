"""Go's durations, as ``check --max`` takes them (cli.md §8.2)."""

from __future__ import annotations

import pytest

from cstorage.cli.durations import DurationRefused, parse_ns


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("24h", 86_400_000_000_000),
        ("0", 0),
        ("1h30m", 5_400_000_000_000),
        ("1.5s", 1_500_000_000),
        (".5ms", 500_000),
        ("-2us", -2_000),
        ("+3µs", 3_000),
        ("1.s", 1_000_000_000),
        ("7ns", 7),
    ],
)
def test_durations_are_read(text, nanoseconds):
    assert parse_ns(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bogus", 'time: invalid duration "bogus"'),
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("10", 'time: missing unit in duration "10"'),
        ("10x", 'time: unknown unit "x" in duration "10x"'),
        ("9999999h", 'time: invalid duration "9999999h"'),
    ],
)
def test_what_is_no_duration_is_refused(text, message):
    with pytest.raises(DurationRefused) as refusal:
        parse_ns(text)
    assert str(refusal.value) == message
