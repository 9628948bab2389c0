"""The parser against the reference model, and what the vectors do not show."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Refused, Unfinished, read_chunked, read_head
from test_parser_vectors import ACCEPT, REJECT, cut

from fastwsgi import _chunked
from fastwsgi._chunked import ChunkedDecoder
from fastwsgi._parser import KNOWN_NAMES, RequestParser, bench_head, known_index, sizes
from fastwsgi._refusals import REFUSALS

EXAMPLES = settings(max_examples=400, deadline=None, derandomize=True)

# Pieces that are right, nearly right and wrong, to be put together at random.
LINE_ENDS = st.sampled_from(
    [b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b"\r\n\r\n", b" \r\n", b"\0\r\n"]
)
METHODS = st.sampled_from(
    [b"GET"] * 6 + [b"POST", b"OPTIONS", b"CONNECT", b"get", b"", b"G T", b"G(", b"PRI", b"M" * 33]
)
TARGETS = st.one_of(
    st.sampled_from(
        [
            b"/",
            b"/",
            b"/a?b",
            b"*",
            b"a:80",
            b"[::1]:80",
            b"http://a",
            b"https://a:8/b?c",
            b"http://a?b",
            b"http://u@a/",
            b"http:///",
            b"ftp://a",
            b"/%41",
            b"/%4",
            b"/%",
            b"/#",
            b"",
            b"//",
            b"/\xe9",
            b"/\x7f",
            b'/"',
            b'/?"<>\\`{}',
            b"http://[::1]/%zz",
            b"http://a b",
            b"*?",
            b"HTTP://A/",
        ]
    ),
    st.text(st.characters(max_codepoint=255), max_size=12).map(lambda text: b"/" + text.encode("latin-1")),
    st.text(st.sampled_from("ahtps:/?#[]@%%4.*\x80\xff"), max_size=12).map(
        lambda text: text.encode("latin-1")
    ),
)
VERSIONS = st.sampled_from(
    [b"HTTP/1.1"] * 8
    + [b"HTTP/1.0"] * 3
    + [b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.", b"http/1.1", b"HTTP/1.10", b"", b"HTTP/11"]
)
SPACES = st.sampled_from([b" "] * 12 + [b"  ", b"\t", b"", b"\r", b"\n"])
HOSTS = st.one_of(
    st.sampled_from(
        [b"a", b"a:80", b"", b"[::1]", b"a:65536", b"a,b", b"a b", b"[::1]x", b"a%20", b"a%2", b"a:b", b":80"]
    ),
    st.text(st.sampled_from("0123f:.[]"), max_size=14).map(str.encode),
    st.text(st.sampled_from("0123f:."), max_size=18).map(lambda text: b"[" + text.encode() + b"]"),
)
VALUES = st.one_of(
    st.sampled_from(
        [
            b"",
            b" ",
            b"a",
            b"\ta b\t",
            b"\xe9",
            b"a\0",
            b"a\x7fb",
            b"\x1f",
            b"a\nb",
            b"a\rb",
            b"long " * 9,
            b"\xff" * 9 + b"\x01",
        ]
    ),
    st.binary(max_size=24),
)
KNOWN_FIELDS = st.one_of(
    st.tuples(st.just(b"Host"), HOSTS),
    st.tuples(
        st.just(b"Content-Length"),
        st.sampled_from(
            [
                b"0",
                b"5",
                b"05",
                b"5,5",
                b"5, 5",
                b"",
                b",",
                b"x",
                b"5,x",
                b"-1",
                b"9" * 19,
                b"9223372036854775807",
                b"5 5",
                b"5 ,5",
            ]
        ),
    ),
    st.tuples(
        st.just(b"Transfer-Encoding"),
        st.sampled_from(
            [
                b"chunked",
                b"Chunked",
                b"gzip",
                b"gzip, chunked",
                b"chunked,chunked",
                b"chunked, x",
                b"",
                b",",
                b"chunked,",
                b"chunked;a",
                b"x",
            ]
        ),
    ),
    st.tuples(
        st.just(b"Connection"),
        st.sampled_from(
            [b"close", b"keep-alive", b"Keep-Alive, x", b"a, CLOSE", b"", b",close,", b"clos", b"keep-alivf"]
        ),
    ),
    st.tuples(
        st.just(b"Expect"), st.sampled_from([b"100-continue", b"100-Continue", b"x", b"", b"100-continu\x65"])
    ),
    st.tuples(st.sampled_from([name.encode() for name in KNOWN_NAMES[1:]]), VALUES),
)
NAMES = st.one_of(
    st.sampled_from(
        [
            b"X",
            b"X-Y",
            b"X_Y",
            b"",
            b" X",
            b"X ",
            b"X\t",
            b"X Y",
            b"X\0",
            b"\xe9",
            b"X(",
            b"\tX",
            b"Hos",
            b"Hostt",
            b"ho\rt",
        ]
    ),
    st.text(st.characters(max_codepoint=255), max_size=10).map(lambda text: text.encode("latin-1")),
)
COLONS = st.sampled_from([b":"] * 6 + [b": "] * 20 + [b":\t ", b" :", b"", b"::", b"\t:"])


@st.composite
def field_lines(draw):
    name, value = draw(st.one_of(KNOWN_FIELDS, KNOWN_FIELDS, st.tuples(NAMES, VALUES)))
    name = draw(st.sampled_from([bytes, bytes.lower, bytes.upper, bytes.swapcase]))(name)
    return name + draw(COLONS) + value + draw(LINE_ENDS)


@st.composite
def heads(draw):
    data = draw(st.sampled_from([b""] * 12 + [b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\x16", b" "]))
    data += draw(METHODS) + draw(SPACES) + draw(TARGETS) + draw(SPACES) + draw(VERSIONS) + draw(LINE_ENDS)
    data += draw(st.sampled_from([b"Host: a\r\n"] * 4 + [b""]))
    data += b"".join(draw(st.lists(field_lines(), max_size=5)))
    data += draw(LINE_ENDS) + draw(st.sampled_from([b"", b"", b"rest\r\n", b"GET / HTTP/1.1\r\n\r\n"]))
    return data


@st.composite
def likely_heads(draw):
    """Heads with at most one fault, so that many get through."""
    fields = draw(st.lists(KNOWN_FIELDS, max_size=4))
    lines = [draw(METHODS) + b" " + draw(TARGETS) + b" " + draw(VERSIONS), b"Host: a"]
    lines += [name + b":" + value for name, value in fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + draw(st.sampled_from([b"", b"abc"]))


COPIED = (
    "method",
    "target",
    "form",
    "path",
    "query",
    "authority",
    "version",
    "fields",
    "content_length",
    "is_chunked",
    "host",
    "keep_alive",
    "expects_continue",
)


def parse(pieces):
    parser = RequestParser()
    outcome = "NEED_MORE"
    for i, piece in enumerate(pieces):
        outcome = parser.feed(piece)
        if outcome != "NEED_MORE":
            if outcome == "HEAD_DONE":
                rest = parser.rest + b"".join(pieces[i + 1 :])
                return {name: getattr(parser, name) for name in COPIED}, rest
            return outcome
    return outcome


def model(data):
    try:
        return read_head(data)
    except Refused as refused:
        return str(refused)
    except Unfinished:
        return "NEED_MORE"


def check_head(data, seed):
    expected = model(data)
    assert parse([data]) == expected
    assert parse(cut(data, seed)) == expected


@EXAMPLES
@given(st.one_of(heads(), likely_heads()), st.integers(0, 1000))
def test_head_as_the_model_says(data, seed):
    check_head(data, seed)


@pytest.mark.parametrize("seed", range(8))
def test_mutated_vectors_as_the_model_says(seed):
    chance = random.Random(seed)
    octets = b"\r\n\t :,;/?#%@[]*\0\x01\x7f\x80\xff" + b"0123456789abcdefGHTP./-_"
    for path in ACCEPT + REJECT:
        if "limits" in path.parts:
            continue
        data = bytearray(path.read_bytes())
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(data))
            change = chance.randrange(4)
            if change == 0:
                data[at] = chance.choice(octets)
            elif change == 1:
                data.insert(at, chance.choice(octets))
            elif change == 2 and len(data) > 1:
                del data[at]
            else:
                data[at:at] = data[at : at + chance.randint(1, 8)]
        check_head(bytes(data), seed)


CHUNK_PARTS = st.one_of(
    st.binary(max_size=20).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data) if data else b""),
    st.sampled_from(
        [
            b"5\r\nhello\r\n",
            b"0\r\n",
            b"00\r\n",
            b"A\r\n0123456789\r\n",
            b"3;a\r\nabc\r\n",
            b'3 ;a=b; c = "d\\"" ;e\r\nabc\r\n',
            b"\r\n",
            b"\n",
            b"\r",
            b"x\r\n",
            b"5\r\nhell\r\n",
            b"3;\r\nabc\r\n",
            b"3;a=\r\nabc\r\n",
            b"3;a=b \r\n",
            b"A: b\r\n",
            b"A : b\r\n",
            b" A: b\r\n",
            b"A\r\n",
            b'3;"a"\r\nabc\r\n',
            b'3;a="b\r\n',
            b"8000000000000000\r\n",
            b"00000000000000001\r\na\r\n",
        ]
    ),
    st.text(st.sampled_from('01a;="\\ \t\r\n:'), max_size=8).map(str.encode),
)


def decode(pieces):
    decoder = ChunkedDecoder()
    content = b""
    for i, piece in enumerate(pieces):
        outcome, decoded, used = decoder.feed(piece)
        content += decoded
        if outcome == "CONTENT_DONE":
            return content, piece[used:] + b"".join(pieces[i + 1 :])
        if outcome != "NEED_MORE":
            return outcome
        assert used == len(piece)
    return "NEED_MORE"


@EXAMPLES
@given(
    st.lists(CHUNK_PARTS, max_size=6),
    st.sampled_from([b"", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\nrest"]),
    st.integers(0, 1000),
)
def test_chunked_as_the_model_says(parts, end, seed):
    data = b"".join(parts) + end
    outcome = decode([data])
    assert decode(cut(data, seed)) == outcome
    try:
        expected = read_chunked(data)
    except Refused:
        assert outcome in REFUSALS
    except Unfinished:
        # The model waits for whole lines and chunks, the decoder may already know better.
        assert outcome == "NEED_MORE" or outcome in REFUSALS
    else:
        assert outcome == expected


@EXAMPLES
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.integers(0, 1000))
def test_chunked_there_and_back(blocks, seed):
    data = (
        b"".join(b"%X;n=%d\r\n%b\r\n" % (len(block), i, block) for i, block in enumerate(blocks))
        + b"0\r\n\r\n"
    )
    assert decode(cut(data + b"next", seed)) == (b"".join(blocks), b"next")


def test_chunked_counts():
    decoder = ChunkedDecoder()
    assert decoder.feed(b"5\r\nhello\r\n0\r\n\r\n") == ("CONTENT_DONE", b"hello", 15)
    assert (decoder.content, decoder.overhead) == (5, 10)
    assert decoder.feed(b"GET") == ("CONTENT_DONE", b"", 0)


def test_known_names():
    assert KNOWN_NAMES[0] == ""
    assert len(set(KNOWN_NAMES)) == len(KNOWN_NAMES) == 64
    for index, name in enumerate(KNOWN_NAMES[1:], 1):
        for spelling in (name, name.upper(), name.title(), name.swapcase()):
            assert known_index(spelling.encode()) == index
        for i, octet in enumerate(name.encode()):
            for other in (octet ^ 1, octet ^ 0x40, octet ^ 0x80, octet & 0x1F, octet | 0x80):
                changed = name.encode()[:i] + bytes([other]) + name.encode()[i + 1 :]
                assert known_index(changed) == (
                    KNOWN_NAMES.index(changed.decode())
                    if changed.isascii() and changed.decode() in KNOWN_NAMES
                    else 0
                )


@pytest.mark.parametrize("name", [b"", b"a", b"ab", b"x" * 30, b"x" * 31, b"x" * 1000])
def test_unknown_names(name):
    assert known_index(name) == 0


def test_a_special_octet_anywhere_in_a_value():
    # The scan reads eight octets at a time: each place within them, each distance from the end of the data.
    for length in range(20):
        for place in range(length):
            for octet in (0x00, 0x1F, 0x7F, 0x09, 0x80, 0xFF, 0x20, 0x7E):
                value = b"v" * place + bytes([octet]) + b"v" * (length - place - 1)
                parser = RequestParser()
                outcome = parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX:" + value + b"\r\n\r\n")
                if octet in (0x00, 0x1F, 0x7F):
                    assert outcome == "REFUSAL_BAD_FIELD_VALUE"
                else:
                    assert outcome == "HEAD_DONE"
                    assert parser.fields[1] == (b"X", value.strip(b" \t"))
                    assert parser.field_notes[1][2] == (octet < 0x80)


def test_fields_grow_and_stay_over_reset():
    parser = RequestParser(fields=1000)
    for count in (5, 17, 400, 999, 3):
        head = (
            b"GET / HTTP/1.1\r\nHost: a\r\n"
            + b"".join(b"X-%d: %d\r\n" % (i, i) for i in range(count))
            + b"\r\n"
        )
        assert parser.feed(head) == "HEAD_DONE"
        assert parser.fields[1:] == [(b"X-%d" % i, b"%d" % i) for i in range(count)]
        parser.reset()


def test_a_slow_client_costs_no_more_than_its_octets():
    # Quadratic work would take minutes here.
    parser = RequestParser()
    assert parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX: ") == "NEED_MORE"
    for _ in range(16300):
        assert parser.feed(b"a") == "NEED_MORE"
    assert parser.feed(b"\r\n\r\n") == "HEAD_DONE"


def test_unknown_limit():
    with pytest.raises(TypeError, match="no such limit: lines"):
        RequestParser(lines=5)


def test_sizes_stay_small():
    assert sizes()["parser_t"] <= 128
    assert sizes()["field_t"] <= 20
    assert _chunked.size() <= 32


def test_bench():
    assert bench_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 10) == 10
