"""Text forms: Go quoting, the original's JSON, its time stamps (cli.md §2.2, §2.3, §7.1)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cstorage.cli.quoting import by_key, go_quote, json_text, timestamp, well_formed


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain /path", '"plain /path"'),
        ('q"\\', '"q\\"\\\\"'),
        ("\a\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'),
        ("\x00\x1f\x7f", '"\\x00\\x1f\\x7f"'),
        ("ä€😀", '"ä€😀"'),
        ("\u00a0\u200b\ufeff", '"\\u00a0\\u200b\\ufeff"'),
        ("\U000e0001", '"\\U000e0001"'),
        (b"a\xff\xc3\xa9\xc3", '"a\\xffé\\xc3"'),
        ("\ufffd", '"\ufffd"'),
    ],
)
def test_go_quoting(text, quoted):
    assert go_quote(text) == quoted


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [], "b": {}, "c": None}, '{"a":[],"b":{},"c":null}'),
        ([True, False, 0, -1, 10**20], "[true,false,0,-1,100000000000000000000]"),
        ("<a>&\u2028\u2029", '"\\u003ca\\u003e\\u0026\\u2028\\u2029"'),
        ('"\\\n\r\t\b\f\x01\x7f', '"\\"\\\\\\n\\r\\t\\b\\f\\u0001\x7f"'),
        ("a\udcffb\ufffd", '"a\\ufffdb\ufffd"'),
        ((1, ("x",)), '[1,["x"]]'),
        (1.0, "1"),
        (1.5, "1.5"),
        (1e21, "1e+21"),
        (1e-7, "1e-7"),
        (0.00001234, "0.00001234"),
        (-2.5e-6, "-0.0000025"),
    ],
)
def test_json_as_the_original_writes_it(value, text):
    assert json_text(value) == text


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON_VALUES)
def test_json_reads_back_as_what_was_written(value):
    assert json.loads(json_text(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_read_back_exactly(value):
    assert float(json.loads(json_text(value))) == value


def test_maps_are_sorted_by_the_bytes_of_their_keys():
    assert list(by_key({"é": 1, "z": 2, "\U00010000": 3, "\uffff": 4})) == [
        "z",
        "é",
        "\uffff",
        "\U00010000",
    ]


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1_000_000_000, "1970-01-01T00:00:01Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (1_000_000_001, "1970-01-01T00:00:01.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_time_stamps(time_ns, text):
    assert timestamp(time_ns) == text


def test_bytes_that_are_no_utf8_are_stored_as_replacement_characters():
    assert well_formed(b"a\xff\xc3".decode("utf-8", "surrogateescape")) == "a\ufffd\ufffd"
