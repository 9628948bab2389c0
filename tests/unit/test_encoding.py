"""Which answers get a content coding, and what their heads say then."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codings import DECODE, reader
from fastwsgi import Settings, compression
from fastwsgi._encoding import CODINGS, Encodings
from fastwsgi.errors import ConfigError

TYPES = Settings().compress_types
TEXT = (b"Content-Type", b"text/html; charset=utf-8")


def head(*fields, accept=b"gzip", status=b"200 OK", codings=CODINGS, asked=(), version=b"1.1"):
    """The coding of an answer, and its field lines."""
    encodings = Encodings(compression.makers(codings), TYPES, 1)
    asked = [(b"Host", b"x"), *([(b"Accept-Encoding", accept)] if accept is not None else []), *asked]
    lines = b"".join(b"%b: %b\r\n" % field for field in asked)
    coding, written = encodings.head(b"GET / HTTP/%b\r\n%b\r\n" % (version, lines), status, fields)
    first, *rest = written.decode("latin-1").split("\r\n")
    assert first == f"HTTP/1.1 {status.decode()}"
    assert rest.pop() == ""
    return coding, rest


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, None),
        (b"", None),
        (b"gzip", "gzip"),
        (b"GZIP", "gzip"),
        (b"x-gzip", "gzip"),
        (b"gzip, deflate, br, zstd", "gzip"),
        (b"br;q=1.0, gzip;q=0.8, *;q=0.1", "br"),
        (b"br ; q=0.5 , gzip ;q=0.4", "br"),
        (b"zstd;q=0.001", "zstd"),
        (b"zstd;Q=1", "zstd"),
        (b"*", "gzip"),
        (b"gzip;q=0, *", "br"),
        (b"gzip;q=0, br;q=0.000, *;q=0", None),
        (b"gzip;q=0", None),
        (b"gzip;q=0.5, identity", None),
        (b"gzip;q=0.5, identity;q=0.5", "gzip"),
        (b"identity;q=0", None),
        (b"deflate, compress", None),
        (b"gzipped, xgzip", None),
        (b"gzip;q=2", None),
        (b"gzip;q=x", None),
        (b",, ,gzip,", "gzip"),
        (b"gzip;xq=0", "gzip"),
    ],
)
def test_what_a_client_takes(accept, expected):
    coding, lines = head(TEXT, accept=accept)
    assert coding == expected
    assert "Vary: Accept-Encoding" in lines
    assert (f"Content-Encoding: {coding}" in lines) == (coding is not None)


def wished(elements):
    """The same, written down as RFC 9110, 12.5.3, says it; elements: pairs of a name and thousandths."""
    wishes = dict(elements)
    rated = {name: wishes.get(name, wishes.get("*", 0)) for name in CODINGS}
    best = max(CODINGS, key=rated.__getitem__)
    return best if rated[best] and rated[best] >= wishes.get("identity", 0) else None


@given(
    st.lists(
        st.tuples(st.sampled_from([*CODINGS, "*", "identity", "deflate"]), st.integers(0, 1000)),
        unique_by=lambda element: element[0],
    ),
    st.sampled_from([",", ", ", " ,\t"]),
)
def test_wishes(elements, comma):
    accept = comma.join(f"{name};q={rate / 1000:.3f}" for name, rate in elements)
    assert head(TEXT, accept=accept.encode())[0] == wished(elements)


def test_several_field_lines_are_one_list():
    assert head(TEXT, accept=b"deflate", asked=[(b"accept-encoding", b"br")])[0] == "br"


@given(st.binary(max_size=60).filter(lambda value: not set(value) & {*range(9), *range(10, 32), 127}))
def test_any_field_value(value):
    assert head(TEXT, accept=value)[0] in (None, *CODINGS)


@pytest.mark.parametrize("order", [("zstd", "br", "gzip"), ("br",), ("gzip", "zstd")])
def test_the_order_is_the_servers(order):
    assert head(TEXT, accept=b"gzip, br, zstd", codings=order)[0] == order[0]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_client_of_http_1_0(version):
    assert head(TEXT, version=version)[0] == ("gzip" if version == b"1.1" else None)


CROSS = (b"Sec-Fetch-Site", b"cross-site")


@pytest.mark.parametrize(
    ("asked", "is_coded"),
    [
        ([CROSS], True),
        ([CROSS, (b"Cookie", b"a=b")], False),
        ([CROSS, (b"Authorization", b"Basic eA==")], False),
        ([(b"Sec-Fetch-Site", b"same-origin"), (b"Cookie", b"a=b")], True),
        ([(b"Sec-Fetch-Site", b"none"), (b"Cookie", b"a=b")], True),
        ([(b"Cookie", b"a=b")], True),
    ],
    ids=["cross", "cookie", "authorization", "same", "typed", "no browser"],
)
def test_no_secrets_for_other_sites(asked, is_coded):
    coding, lines = head(TEXT, asked=asked)
    assert (coding == "gzip") == is_coded
    assert "Vary: Accept-Encoding" in lines


@pytest.mark.parametrize(
    ("kind", "is_listed"),
    [
        (b"text/html", True),
        (b"TEXT/HTML;charset=utf-8", True),
        (b"text/event-stream", True),
        (b"application/json", True),
        (b"application/problem+json", True),
        (b"application/Vnd.Some_Thing+JSON", True),
        (b"image/svg+xml; charset=utf-8", True),
        (b"application/jsonx", False),
        (b"application/jso", False),
        (b"application/octet-stream", False),
        (b"image/png", False),
        (b"video/mp4", False),
        (b"text", False),
        (b"", False),
        (b"; text/html", False),
    ],
)
def test_media_types(kind, is_listed):
    fields = [(b"Content-Type", kind), (b"ETag", b'"1"'), (b"Content-Length", b"5")]
    coding, lines = head(*fields)
    assert (coding == "gzip") == is_listed
    if not is_listed:
        assert lines == [f"{name.decode()}: {value.decode()}" for name, value in fields]


def test_without_a_media_type():
    assert head((b"X-Content-Type", b"text/html")) == (None, ["X-Content-Type: text/html"])


@pytest.mark.parametrize(
    "field",
    [
        (b"Content-Encoding", b"gzip"),
        (b"Content-Encoding", b"identity"),
        (b"content-range", b"bytes 0-1/3"),
        (b"Cache-Control", b"no-transform"),
        (b"cache-control", b'max-age=3, private="x" ,No-Transform'),
        (b"Content-MD5", b"x"),
        (b"Digest", b"x"),
        (b"Content-Digest", b"x"),
        (b"Repr-Digest", b"x"),
    ],
)
def test_answers_that_are_left_as_they_are(field):
    for fields in ([TEXT, field], [field, TEXT]):
        coding, lines = head(*fields)
        assert (coding, len(lines)) == (None, 2)


@pytest.mark.parametrize(
    "field", [(b"Cache-Control", b"no-transformation, max-age=no-transform"), (b"Content-Language", b"en")]
)
def test_answers_that_only_look_so(field):
    assert head(TEXT, field)[0] == "gzip"


@pytest.mark.parametrize("status", [b"204 X", b"205 X", b"206 X", b"226 X", b"304 X"])
def test_statuses_without_a_coding(status):
    assert head(TEXT, status=status)[0] is None


@pytest.mark.parametrize("status", [b"200 OK", b"201 Created", b"302 Found", b"404 Not Found", b"500 Oh"])
def test_statuses_with_a_coding(status):
    assert head(TEXT, status=status)[0] == "gzip"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["Accept-Encoding"]),
        ([b"Cookie"], ["Cookie, Accept-Encoding"]),
        ([b"Cookie", b"Origin"], ["Cookie, Accept-Encoding", "Origin"]),
        ([b"Cookie, accept-encoding"], ["Cookie, accept-encoding"]),
        ([b"Cookie", b"Accept-Encoding"], ["Cookie", "Accept-Encoding"]),
        ([b"*"], ["*"]),
        ([b""], ["Accept-Encoding"]),
        ([b"X-Accept-Encoding"], ["X-Accept-Encoding, Accept-Encoding"]),
    ],
)
@pytest.mark.parametrize("accept", [b"gzip", None])
def test_vary(before, after, accept):
    _, lines = head(TEXT, *((b"Vary", value) for value in before), accept=accept)
    assert [line.removeprefix("Vary: ") for line in lines if line.startswith("Vary")] == after


def test_fields_of_the_content():
    fields = [
        (b"ETag", b'"abc"'),
        (b"Content-Length", b"100"),
        TEXT,
        (b"Accept-Ranges", b"bytes"),
        (b"X", b"y"),
    ]
    assert head(*fields) == (
        "gzip",
        [
            'ETag: W/"abc"',
            "Content-Type: text/html; charset=utf-8",
            "X: y",
            "Vary: Accept-Encoding",
            "Content-Encoding: gzip",
        ],
    )
    assert head(*fields, accept=None) == (
        None,
        [*(f"{name.decode()}: {value.decode()}" for name, value in fields), "Vary: Accept-Encoding"],
    )
    assert 'ETag: W/"abc"' in head(TEXT, (b"ETag", b'W/"abc"'))[1]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"ETag", b"Vary", b"X-Some", b"Set-Cookie", b"Accept-Ranges"]),
            st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map(str.encode),
        ),
        max_size=40,
    )
)
def test_other_fields_stay(fields):
    coding, lines = head(TEXT, *fields)
    assert coding == "gzip"
    kept = [
        f"{name.decode()}: {value.decode()}" for name, value in fields if name in (b"X-Some", b"Set-Cookie")
    ]
    assert [line for line in lines if line.startswith(("X-Some", "Set-Cookie"))] == kept


@given(
    st.sampled_from(CODINGS),
    st.lists(
        st.binary(max_size=50) | st.binary(min_size=1, max_size=4).map(lambda some: some * 5000), max_size=8
    ),
    st.booleans(),
    st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_content_comes_back(coding, blocks, is_size_known, flushes):
    content = b"".join(blocks)
    stream = compression.makers([coding])[coding](len(content) if is_size_known else None)
    coded = b""
    for block, flush in zip(blocks, flushes, strict=False):
        coded += stream.feed(block)
        if flush:
            coded += stream.flush()
    coded += stream.end()
    assert DECODE[coding](coded) == content


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_flushed_can_be_read(coding):
    stream = compression.makers([coding])[coding](None)
    coded = stream.feed(b"first") + stream.flush()
    assert reader(coding)(coded) == b"first"


@pytest.mark.parametrize("level", ["gzip:1", "gzip:9", "br:0", "br:11", "zstd:1", "zstd:19"])
def test_levels(level):
    coding = level.partition(":")[0]
    stream = compression.makers([level])[coding](None)
    assert DECODE[coding](stream.feed(b"abc" * 1000) + stream.end()) == b"abc" * 1000


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "brotli", None)
    with pytest.raises(
        ConfigError, match=r"^compress: br needs the module brotli.*install fastwsgi\[brotli\]"
    ):
        compression.makers(["gzip", "br"])
