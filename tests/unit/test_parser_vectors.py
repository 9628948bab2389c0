"""The vectors, each cut in many ways; tests/vectors/README.md says what is in them."""

import json
import random
from pathlib import Path

import pytest

from fastwsgi._refusals import REFUSALS
from parsing import converse

VECTORS = Path(__file__).parent.parent / "vectors"
ACCEPT = sorted(VECTORS.glob("accept/*/*.http"))
REJECT = sorted(VECTORS.glob("reject/*/*.http"))
SEEDS = range(20)


def name_of(path):
    return "/".join(path.with_suffix("").parts[-3:])


def cut(data, seed):
    """Random pieces, in some seeds mostly small ones, in others mostly large."""
    chance = random.Random(seed)
    largest = chance.choice((2, 5, 20, 100, 1000))
    pieces = []
    while data:
        size = chance.randint(1, largest)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def cuttings(data):
    yield "whole", [data]
    yield "by line", data.splitlines(keepends=True)
    yield "octet by octet", [data[i : i + 1] for i in range(len(data))]
    for seed in SEEDS:
        yield f"seed {seed}", cut(data, seed)


@pytest.mark.parametrize("path", ACCEPT, ids=name_of)
def test_accept(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    first = None
    for label, pieces in cuttings(path.read_bytes()):
        requests, outcome = converse(pieces, expected.get("limits", {}))
        assert outcome == ("UNFINISHED" if expected.get("unfinished") else "NEED_MORE"), label
        assert len(requests) == len(expected["requests"]), label
        for request, wanted in zip(requests, expected["requests"], strict=True):
            assert {key: request[key] for key in wanted} == wanted, label
        first = first or requests
        assert requests == first, label


@pytest.mark.parametrize("path", REJECT, ids=name_of)
def test_reject(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    for label, pieces in cuttings(path.read_bytes()):
        requests, outcome = converse(pieces, expected.get("limits", {}))
        assert outcome == expected["reason"], label
        assert REFUSALS[outcome][0] == expected["status"], label
        assert len(requests) == expected.get("requests_before", 0), label


def test_every_vector_has_its_outcome():
    assert len(ACCEPT) + len(REJECT) >= 700
    assert {path.with_suffix("") for path in VECTORS.glob("*/*/*.json")} == {
        path.with_suffix("") for path in ACCEPT + REJECT
    }
