"""Ids of requests: which are taken, and that those that are made are never the same."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastwsgi._requestid import IdSource, is_sane, sixteen_digits


@given(st.integers(0, 2**64 - 1))
def test_digits(number):
    assert sixteen_digits(number) == f"{number:016x}"


def test_none_twice():
    source, other = IdSource(), IdSource()
    numbers = [thread << 48 | number for thread in range(5) for number in range(2000)]
    made = [source.make(number) for number in numbers]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)
    assert len(set(made)) == len(numbers)
    assert len({each[:16] for each in made}) == 1
    assert not set(made) & {other.make(number) for number in numbers}


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_numbers_are_told_apart(one, other):
    source = IdSource()
    assert (source.make(one) == source.make(other)) == (one == other)


def test_they_tell_nothing_of_the_number():
    source = IdSource()
    made = [int(source.make(number)[16:], 16) for number in range(2000)]
    # About half of the bits differ from one to the next.
    differ = [(one ^ other).bit_count() for one, other in itertools.pairwise(made)]
    assert 24 < sum(differ) / len(differ) < 40


@pytest.mark.parametrize(
    "text",
    [
        b"a",
        b"4bf92f3577b34da6a3ce929d0e0e4736",
        b"5c1f3e2a-8f0b-4d57-9c61-0a4a5b8e2f11",
        b"Root=1-67891233-abcdef012345678912345678;Self=1-x",
        b"pod_7/12:34.5~x+y=@z|#",
        b"x" * 128,
    ],
)
def test_what_is_taken(text):
    assert is_sane(text)


@pytest.mark.parametrize(
    "text",
    [b"", b"x" * 129, b"a b", b"a\tb", b'a"b', b"a\\b", b"a'b", b"<a>", b"a,b", b"a%20", b"\xe9", b"a\nb"],
)
def test_what_is_not(text):
    assert not is_sane(text)
