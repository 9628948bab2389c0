"""What a request wants of a file: preconditions, ranges, codings (RFC 9110, 12 to 14)."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastwsgi._conditions import Asked, seconds_of

TAG = b'"6b03e678-5"'
WHEN = 784111777
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"


@pytest.mark.parametrize(
    "text", [DATE, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"], ids=len
)
def test_a_date_in_each_form(text):
    assert seconds_of(text.encode()) == WHEN


@given(st.integers(0, 253402300799))
def test_every_date_is_read_as_it_was_written(seconds):
    assert seconds_of(formatdate(seconds, usegmt=True).encode()) == seconds


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_what_is_no_date_is_none(text):
    assert seconds_of(text.encode()) >= -1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        DATE[:-1],
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        DATE.replace("Nov", "Foo"),
    ],
)
def test_no_date(text):
    assert seconds_of(text.encode()) == -1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([], 200),
        ([("If-Match", "*")], 200),
        ([("If-Match", TAG.decode())], 200),
        ([("If-Match", f'"x", {TAG.decode()}')], 200),
        ([("If-Match", '"x"'), ("If-Match", TAG.decode())], 200),
        ([("If-Match", '"x"')], 412),
        ([("If-Match", f"W/{TAG.decode()}")], 412),
        ([("If-Match", "nothing")], 412),
        ([("If-Unmodified-Since", DATE)], 200),
        ([("If-Unmodified-Since", BEFORE)], 412),
        ([("If-Unmodified-Since", "yesterday")], 200),
        ([("If-Match", TAG.decode()), ("If-Unmodified-Since", BEFORE)], 200),
        ([("If-None-Match", TAG.decode())], 304),
        ([("If-None-Match", f"W/{TAG.decode()}")], 304),
        ([("If-None-Match", "*")], 304),
        ([("If-None-Match", '"x"')], 200),
        ([("If-None-Match", '"x"'), ("If-Modified-Since", DATE)], 200),
        ([("If-None-Match", TAG.decode()), ("If-Modified-Since", BEFORE)], 304),
        ([("If-Modified-Since", DATE)], 304),
        ([("If-Modified-Since", AFTER)], 304),
        ([("If-Modified-Since", BEFORE)], 200),
        ([("If-Modified-Since", DATE), ("If-Modified-Since", DATE)], 200),
        ([("If-Match", '"x"'), ("If-None-Match", TAG.decode())], 412),
    ],
)
def test_preconditions(fields, status):
    assert Asked(*fields).precondition(TAG, WHEN) == status


def test_a_weak_tag_does_for_get_and_not_for_changes():
    assert Asked(("If-None-Match", f"W/{TAG.decode()}")).precondition(TAG, WHEN, True) == 304
    assert Asked(("If-Match", TAG.decode())).precondition(TAG, WHEN, True) == 412


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("bytes=0-4", [(0, 5)]),
        ("BYTES=0-4", [(0, 5)]),
        ("bytes=5-", [(5, 20)]),
        ("bytes=-5", [(15, 20)]),
        ("bytes=-50", [(0, 20)]),
        ("bytes=0-99999999999999999999999", [(0, 20)]),
        ("bytes=0-0,-1", [(0, 1), (19, 20)]),
        ("bytes= 0 - 4 , 6-7", [(0, 5), (6, 8)]),
        ("bytes=0-4,100-", [(0, 5)]),
        ("bytes=100-", None),
        ("bytes=5-2", None),
        ("bytes=-0", None),
        ("bytes=x", None),
        ("bytes=", []),
        ("bytes=0-4x", None),
        ("items=0-4", []),
        ("bytes 0-4", []),
        ("bytes=0-,0-", []),
        ("bytes=" + ",".join(f"{i}-{i}" for i in range(16)), [(i, i + 1) for i in range(16)]),
        ("bytes=" + ",".join(f"{i}-{i}" for i in range(17)), []),
        ("bytes=" + "0-," * 1000, []),
    ],
)
def test_ranges(value, found):
    assert Asked(("Range", value)).ranges(20) == found


def test_two_range_fields_are_none():
    assert Asked(("Range", "bytes=0-1"), ("Range", "bytes=0-1")).ranges(20) == []


def test_of_an_empty_file_there_is_no_part():
    assert Asked(("Range", "bytes=0-")).ranges(0) == Asked(("Range", "bytes=-5")).ranges(0) == []
    assert Asked(("Range", "bytes=1-")).ranges(0) is None


@given(st.text("0123456789-, bytes=", max_size=60), st.integers(0, 1 << 40))
def test_parts_are_always_within_the_file(value, size):
    for start, end in Asked(("Range", f"bytes={value}")).ranges(size) or []:
        assert 0 <= start < end <= size


@pytest.mark.parametrize(
    ("condition", "is_weak", "applies"),
    [
        (TAG.decode(), False, True),
        (f"W/{TAG.decode()}", False, False),
        ('"x"', False, False),
        (DATE, False, True),
        (AFTER, False, False),
        (DATE, True, False),
        (TAG.decode(), True, False),
        ("nonsense", False, False),
    ],
)
def test_if_range(condition, is_weak, applies):
    asked = Asked(("Range", "bytes=0-4"), ("If-Range", condition))
    assert asked.ranges(20, TAG, WHEN, is_weak) == ([(0, 5)] if applies else [])


@pytest.mark.parametrize(
    ("value", "weights"),
    [
        (None, (1, 0, 0, 0)),
        ("", (1, 0, 0, 0)),
        ("gzip, deflate, br, zstd", (1, 1000, 1000, 1000)),
        ("GZIP;Q=0.5", (1, 0, 0, 500)),
        ("x-gzip", (1, 0, 0, 1000)),
        ("br;q=0.123, gzip ; q=0", (1, 123, 0, 0)),
        ("*", (1000, 1000, 1000, 1000)),
        ("identity;q=0, br", (0, 1000, 0, 0)),
        ("*;q=0, gzip", (0, 0, 0, 1000)),
        ("gzip;q=1.000, br;q=0.001", (1, 1, 0, 1000)),
        ("gzip;q=", (1, 0, 0, 1000)),
        (",,;q=1,gzip", (1, 0, 0, 1000)),
    ],
)
def test_codings(value, weights):
    assert Asked(*([] if value is None else [("Accept-Encoding", value)])).codings() == weights
