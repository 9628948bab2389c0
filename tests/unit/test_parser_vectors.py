"""The vectors, each cut in many ways; tests/vectors/README.md says what is in them."""

import json
import random
from pathlib import Path

import pytest

from fastwsgi._chunked import ChunkedDecoder
from fastwsgi._parser import RequestParser, method_t
from fastwsgi._refusals import REFUSALS

VECTORS = Path(__file__).parent.parent / "vectors"
ACCEPT = sorted(VECTORS.glob("accept/*/*.http"))
REJECT = sorted(VECTORS.glob("reject/*/*.http"))
SEEDS = range(20)


def name_of(path):
    return "/".join(path.with_suffix("").parts[-3:])


def head_of(parser):
    """All that a complete head says, as it stands in the JSON of a vector."""
    method_id = method_t(parser.method_id).name
    return {
        "method": parser.method.decode("latin-1"),
        "method_id": method_id.removeprefix("METHOD_"),
        "request_line": parser.request_line.decode("latin-1"),
        "target": parser.target.decode("latin-1"),
        "form": parser.form,
        "path": parser.path.decode("latin-1"),
        "path_needs_decoding": parser.path_needs_decoding,
        "path_is_ascii": parser.path_is_ascii,
        "query": None if parser.query is None else parser.query.decode("latin-1"),
        "query_is_ascii": parser.query_is_ascii,
        "authority": parser.authority.decode("latin-1"),
        "version": list(parser.version),
        "fields": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in parser.fields],
        "notes": [list(note) for note in parser.field_notes],
        "host": None if parser.host is None else parser.host.decode("latin-1"),
        "content_length": parser.content_length,
        "is_chunked": parser.is_chunked,
        "keep_alive": parser.keep_alive,
        "expects_continue": parser.expects_continue,
        "head_size": parser.head_size,
    }


def converse(pieces, limits):
    """Read a connection that comes in these pieces; its complete requests and how it ended.

    It ends with "NEED_MORE" between requests, "UNFINISHED" inside one, or the name of a refusal.
    """
    requests = []
    parser = RequestParser(**limits)
    head = decoder = None
    has_begun = False
    missing = 0
    content = b""
    for piece in pieces:
        while piece or (head and not decoder and missing == 0):
            if head is None:
                has_begun = True
                outcome = parser.feed(piece)
                if outcome == "NEED_MORE":
                    break
                if outcome != "HEAD_DONE":
                    return requests, outcome
                head = head_of(parser)
                piece = parser.rest
                decoder = ChunkedDecoder(**limits) if parser.is_chunked else None
                missing = parser.content_length or 0
                content = b""
                parser.reset()
            elif decoder:
                outcome, decoded, used = decoder.feed(piece)
                content += decoded
                piece = piece[used:]
                if outcome == "CONTENT_DONE":
                    decoder = None
                elif outcome == "NEED_MORE":
                    assert not piece
                else:
                    return requests, outcome
            elif missing:
                content += piece[:missing]
                piece, missing = piece[missing:], missing - len(piece[:missing])
            else:
                requests.append({**head, "content": content.decode("latin-1")})
                head = None
                has_begun = False
    return requests, "UNFINISHED" if has_begun else "NEED_MORE"


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
    assert len(ACCEPT) + len(REJECT) >= 200
    assert {path.with_suffix("") for path in VECTORS.glob("*/*/*.json")} == {
        path.with_suffix("") for path in ACCEPT + REJECT
    }
