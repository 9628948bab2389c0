"""Access log lines: each atom, what is missing, and that nothing from the network can break a line."""

import base64
import calendar
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastwsgi._accesslog import DEFAULT_FORMAT, LogFormat

REQUEST = (
    b"GET /some/path%20here?a=1&b=2 HTTP/1.1\r\n"
    b"Host: example.org\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"Referer: http://example.org/before\r\n"
    b"X-One: first\r\n"
    b"x-one: second\r\n"
    b"X-Forwarded-For: 192.0.2.1\r\n"
    b"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"
    b"Cookie:\r\n"
    b"\r\n"
)
HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/html; charset=utf-8\r\n"
    b"Set-Cookie: a=1\r\n"
    b"X-Empty:\r\n"
    b"set-cookie:b=2\r\n"
    b"\r\n"
)
ENVIRON = {"REMOTE_USER": "Zoë", "wsgi.url_scheme": "http", "wsgi.version": (1, 0), "path.name": "☃"}
MOMENT = 1_000_000_000


def line(format: str, request: bytes | None = REQUEST, **record: object) -> str:
    record = {
        "peer": b"192.0.2.7",
        "status": 200,
        "content_bytes": 1234,
        "duration_ns": 2_034_567_891,
        "wall_ns": MOMENT * 10**9 + 987_654_321,
        "head": HEAD,
        "environ": ENVIRON,
        **record,
    }
    text = LogFormat(format).line(request, **record)
    assert text is not None
    assert text.endswith(b"\n")
    return text[:-1].decode("ascii")


@pytest.fixture
def zone() -> Iterator[Callable[[str], None]]:
    before = os.environ.get("TZ")

    def set_zone(name: str) -> None:
        os.environ["TZ"] = name
        time.tzset()

    yield set_zone
    if before is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("%(h)s", "192.0.2.7"),
        ("%(l)s", "-"),
        ("%(u)s", "Aladdin"),
        ("%(r)s", "GET /some/path%20here?a=1&b=2 HTTP/1.1"),
        ("%(m)s", "GET"),
        ("%(U)s", "/some/path%20here"),
        ("%(q)s", "a=1&b=2"),
        ("%(H)s", "HTTP/1.1"),
        ("%(s)s", "200"),
        ("%(B)s", "1234"),
        ("%(b)s", "1234"),
        ("%(f)s", "http://example.org/before"),
        ("%(a)s", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("%(T)s", "2"),
        ("%(M)s", "2034"),
        ("%(D)s", "2034567"),
        ("%(L)s", "2.034567"),
        pytest.param("%(p)s", f"<{os.getpid()}>", id="process"),
        ("%({x-one}i)s", "first, second"),
        ("%({X-Forwarded-For}i)s", "192.0.2.1"),
        ("%({host}i)s", "example.org"),
        ("%({cookie}i)s", "-"),
        ("%({x-two}i)s", "-"),
        ("%({x-on}i)s", "-"),
        ("%({accept}i)s", "-"),
        ("%({Content-Type}o)s", "text/html; charset=utf-8"),
        ("%({set-cookie}o)s", "a=1, b=2"),
        ("%({x-empty}o)s", "-"),
        ("%({location}o)s", "-"),
        ("%({remote_user}e)s", r"Zo\xeb"),
        ("%({REMOTE_USER}e)s", r"Zo\xeb"),
        ("%({wsgi.url_scheme}e)s", "http"),
        ("%({wsgi.version}e)s", "(1, 0)"),
        ("%({path.name}e)s", r"\xe2\x98\x83"),
        ("%({missing}e)s", "-"),
        ("%({a}e)s %({remote_user}e)s %({b}e)s", r"- Zo\xeb -"),
        ("%({duration}D)s %({duration}L)s %({duration}M)d", "2034567 2.034567 2034"),
        ("%(target)s", "/some/path%20here?a=1&b=2"),
        ("%(id)s", "-"),
        ("%(D)d %(s)d %(B)d %(M)d %(T)d", "2034567 200 1234 2034 2"),
        ("100%% of %(s)s%%", "100% of 200%"),
        ("", ""),
        ("ünï\t%(l)s|%(l)s", "ünï\t-|-"),
    ],
)
def test_atom(format: str, expected: str) -> None:
    text = LogFormat(format).line(
        REQUEST,
        peer=b"192.0.2.7",
        status=200,
        content_bytes=1234,
        duration_ns=2_034_567_891,
        times_ns={"queue": 61_500, "gil": 1_000_000, "application": 2_000_000_000, "sending": 34_567_891},
        wall_ns=MOMENT * 10**9 + 987_654_321,
        head=HEAD,
        environ=ENVIRON,
    )
    assert text == expected.encode() + b"\n"


def test_the_default_is_the_combined_format(zone: Callable[[str], None]) -> None:
    zone("UTC")
    assert line(DEFAULT_FORMAT) == (
        "192.0.2.7 - Aladdin [09/Sep/2001:01:46:40 +0000] "
        '"GET /some/path%20here?a=1&b=2 HTTP/1.1" 200 1234 "http://example.org/before" '
        '"Mozilla/5.0 (X11; Linux x86_64)"'
    )
    assert LogFormat().line() == LogFormat(DEFAULT_FORMAT).line()


@pytest.mark.parametrize(
    "name", ["UTC", "CET-1CEST,M3.5.0,M10.5.0/3", "EST5", "IST-5:30", "NST3:30", "XXX+12", "YYY-14"]
)
@pytest.mark.parametrize("moment", [0, 1, 951_782_399, MOMENT, 1_719_835_199, 4_102_444_800])
def test_time_is_local(zone: Callable[[str], None], name: str, moment: int) -> None:
    zone(name)
    local = time.localtime(moment)
    month = calendar.month_abbr[local.tm_mon]
    expected = f"[{local.tm_mday:02}/{month}{time.strftime('/%Y:%H:%M:%S %z', local)}]"
    assert line("%(t)s", wall_ns=moment * 10**9) == expected


def test_without_a_request() -> None:
    everything = (
        "%(h)s %(u)s %(r)s %(m)s %(U)s %(q)s %(H)s %(s)s %(B)s %(b)s %(f)s %(a)s %({host}i)s %({server}o)s"
    )
    assert LogFormat(everything).line() == b"- - - - - - - - 0 - - - - -\n"
    assert LogFormat(everything).line(b"") == b"- - - - - - - - 0 - - - - -\n"
    assert LogFormat("%({a}e)s%(L)s").line() == b"-0.000000\n"


def test_no_query_is_empty_as_in_environ() -> None:
    assert line("%(U)s?%(q)s", b"GET /a HTTP/1.0\r\n\r\n") == "/a?"
    assert line("%(H)s", b"GET /a HTTP/1.0\r\n\r\n") == "HTTP/1.0"


@pytest.mark.parametrize(
    ("credentials", "user"),
    [
        (b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin"),
        (b"basic   QWxhZGRpbjpvcGVuIHNlc2FtZQ", "Aladdin"),
        (b"Basic OnBhc3N3b3Jk", "-"),  # ":password"
        (b"Basic dXNlcg==", "-"),  # "user", no colon
        (b"Basic YSJiXAo6", r"a\"b\\\x0a"),
        (b"Basic " + b"QUFB" * 100, "-"),
        (b"Basic " + b"QUFB" * 40 + b"Og==", "A" * 120),
        (b"Basic !!!", "-"),
        (b"Basic", "-"),
        (b"Basic ", "-"),
        (b"Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "-"),
        (b"", "-"),
    ],
)
def test_user(credentials: bytes, user: str) -> None:
    assert line("%(u)s", b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: " + credentials + b"\r\n\r\n") == user


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'"', r"\""),
        (b"\\", r"\\"),
        (b"\\x0a", r"\\x0a"),
        (b"a\tb", r"a\x09b"),
        (b"\xe4\xff", r"\xe4\xff"),
        (b'1234567"', r"1234567\""),
        (b'12345678"', r"12345678\""),
        (b"12345678 {}~!#", "12345678 {}~!#"),
    ],
)
def test_escaping(value: bytes, expected: str) -> None:
    assert line("%(a)s", b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: " + value + b"\r\n\r\n") == expected
    assert line("%({x-any}o)s", head=b"HTTP/1.1 200 OK\r\nX-Any: " + value + b"\r\n\r\n") == expected
    assert line("%(h)s", peer=value) == expected
    assert line("%({value}e)s", environ={"VALUE": value.decode("latin-1")}) == expected


def escaped(value: bytes) -> str:
    plain = {octet: chr(octet) for octet in range(0x20, 0x7F)} | {0x22: r"\"", 0x5C: r"\\"}
    return "".join(plain.get(octet, rf"\x{octet:02x}") for octet in value)


@given(
    st.one_of(
        st.binary(max_size=60), st.text(st.characters(max_codepoint=0xFF)).map(lambda s: s.encode("latin-1"))
    )
)
def test_escaping_of_anything(value: bytes) -> None:
    expected = escaped(value) or "-"
    assert line("%(h)s", peer=value) == expected
    assert line("%(h)s", peer=b"plain..." + value) == "plain..." + escaped(value)


@given(st.binary(max_size=100))
def test_no_octet_breaks_a_line(value: bytes) -> None:
    text = LogFormat(DEFAULT_FORMAT + "%({x}i)s %({x}o)s %({x}e)s").line(
        b"GET /" + value + b" HTTP/1.1\r\nX: " + value + b"\r\n\r\n",
        peer=value,
        head=b"HTTP/1.1 200 OK\r\nX: " + value + b"\r\n\r\n",
        environ={"X": value.decode("latin-1")},
    )
    assert text is not None
    assert re.fullmatch(rb"[ -~]*\n", text)
    assert text.replace(rb"\\", b"").replace(rb"\"", b"").count(b'"') == 6


@pytest.mark.parametrize(
    ("format", "is_json", "record"),
    [
        *(
            (format, False, {"content_bytes": 10**18, "environ": ENVIRON})
            for format in (
                DEFAULT_FORMAT,
                "%(L)s%(p)s%({x-one}i)s%({set-cookie}o)s%({remote_user}e)s%%",
                '"\\x%(h)s"',
            )
        ),
        (DEFAULT_FORMAT, True, {"request_id": b"\0"}),
    ],
)
def test_a_line_that_does_not_fit_is_not_written(format: str, is_json: bool, record: dict[str, Any]) -> None:
    compiled = LogFormat(format, is_json=is_json)
    record = {"peer": b'a"b\xff', "status": 404, "head": HEAD, **record}
    whole = compiled.line(REQUEST, **record)
    assert whole is not None
    for capacity in range(len(whole)):
        assert compiled.line(REQUEST, **record, capacity=capacity) is None
    assert compiled.line(REQUEST, **record, capacity=len(whole)) == whole


def test_largest_numbers() -> None:
    most = 2**64 - 1
    assert line("%(B)s %(L)s %(D)s", content_bytes=most, duration_ns=most) == (
        f"{most} {most // 10**9}.{most // 1000 % 10**6:06} {most // 1000}"
    )


def test_values_that_cannot_be_had() -> None:
    class Faulty:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    environ = {"a": Faulty(), "b": 5, "C": "\udcff"}
    assert line("%({a}e)s|%({b}e)s|%({c}e)s", environ=environ) == r"-|5|\\udcff"


def test_whether_the_environ_is_needed() -> None:
    assert LogFormat("%({a}e)s").needs_environ
    assert not LogFormat(DEFAULT_FORMAT).needs_environ


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("%(z)s", "unknown atom %(z)s"),
        ("%(st)s", "unknown atom %(st)s"),
        ("%(h)s %({name}x)s", "unknown atom %({name}x)s"),
        ("%({name}h)s", "unknown atom %({name}h)s"),
        ("%(i)s", "unknown atom %(i)s"),
        ("%({nothing}D)s", "unknown atom %({nothing}D)s"),
        ("%(r)d", "%(r)d is not a number"),
        ("%({host}i)d", "%({host}i)d is not a number"),
        ("%h %l", "'%h %l' begins no atom"),
        ("%(h)s 100%", "'%' begins no atom"),
        ("%(h)", "'%(h)' begins no atom"),
        ("%()s", "'%()s' begins no atom"),
        ("%({}i)s", "'%({}i)s' begins no atom"),
        ("%(h)5s", "'%(h)5s' begins no atom"),
    ],
)
def test_a_wrong_format_is_one_line_that_names_the_atom(format: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^access log format: ") as caught:
        LogFormat(format)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_format_is_text() -> None:
    for wrong in (None, b"%(h)s", 5):
        with pytest.raises(TypeError):
            LogFormat(wrong)


# JSON

OBJECT_START = {"level": "info", "logger": "fastwsgi.access", "pid": os.getpid()}


def json_line(
    format: str = DEFAULT_FORMAT, request: bytes | None = REQUEST, **record: object
) -> dict[str, Any]:
    """The line as a JSON reader has it; it is ASCII without control characters, each key is there once."""
    text = LogFormat(format, is_json=True).line(request, **record)
    assert text is not None
    assert re.fullmatch(rb"[ -~]*\n", text)
    keys: list[str] = []

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys.extend(key for key, _ in pairs)
        return dict(pairs)

    read = json.loads(text, object_pairs_hook=noted)
    assert len(keys) == len(set(keys))
    assert isinstance(read, dict)
    return read


def test_a_json_line(zone: Callable[[str], None]) -> None:
    zone("IST-5:30")
    read = json_line(
        peer=b"192.0.2.7",
        status=200,
        content_bytes=1234,
        duration_ns=2_034_567_891,
        times_ns={"queue": 61_500, "gil": 1_000_000, "application": 2_000_000_000, "sending": 34_567_891},
        wall_ns=MOMENT * 10**9 + 987_654_321,
        request_id=b"4f0c",
    )
    assert read == OBJECT_START | {
        "time": "2001-09-09T07:16:40.987654+05:30",
        "remote_addr": "192.0.2.7",
        "user": "Aladdin",
        "method": "GET",
        "target": "/some/path%20here?a=1&b=2",
        "protocol": "HTTP/1.1",
        "host": "example.org",
        "status": 200,
        "bytes": 1234,
        "duration_us": 2034567,
        "head_us": 0,
        "content_us": 0,
        "queue_us": 61,
        "gil_us": 1000,
        "application_us": 2_000_000,
        "sending_us": 34567,
        "referer": "http://example.org/before",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
        "request_id": "4f0c",
    }


def test_json_without_a_request() -> None:
    read = json_line(request=None)
    assert read["status"] is None
    assert read["bytes"] == 0
    names = ("remote_addr", "user", "method", "target", "protocol", "referer", "user_agent", "request_id")
    assert [read[name] for name in names] == [None] * len(names)


def test_each_atom_is_a_key() -> None:
    format = (
        '[%(r)s] "%(U)s" %(q)s%% %(b)s %(B)s %(l)s %(p)s %(T)s %(M)s %(L)s %({X-One}i)s %({x-two}i)s'
        " %({set-cookie}o)s %({x-empty}o)s %({wsgi.url_scheme}e)s %({missing}e)s %({x-one}i)s"
    )
    read = json_line(format, head=HEAD, environ=ENVIRON, duration_ns=2_034_567_891)
    assert read == OBJECT_START | {
        "request": "GET /some/path%20here?a=1&b=2 HTTP/1.1",
        "path": "/some/path%20here",
        "query": "a=1&b=2",
        "bytes": 0,
        "duration_s": 2,
        "duration_ms": 2034,
        "duration_seconds": 2.034567,
        "request_header_x_one": "first, second",
        "request_header_x_two": None,
        "response_header_set_cookie": "a=1, b=2",
        "response_header_x_empty": "",
        "environ_wsgi_url_scheme": "http",
        "environ_missing": None,
    }
    assert json_line("nothing but text") == OBJECT_START


@given(
    st.one_of(
        st.binary(max_size=60), st.text(st.characters(max_codepoint=0xFF)).map(lambda s: s.encode("latin-1"))
    )
)
def test_json_of_anything(value: bytes) -> None:
    said = value.decode("latin-1")
    read = json_line(
        "%(h)s%({x-any}o)s%({value}e)s%(id)s",
        peer=b"plain..." + value,
        head=b"HTTP/1.1 200 OK\r\nX-Any: plain" + value.replace(b"\n", b"") + b"plain\r\n\r\n",
        environ={"VALUE": said},
        request_id=value,
    )
    assert read["remote_addr"] == "plain..." + said
    assert read["response_header_x_any"] == f"plain{said}plain".replace("\n", "")
    assert read["environ_value"] == (said or None)
    assert read["request_id"] == (said or None)


@given(st.binary(max_size=100))
def test_hostile_requests_in_json(value: bytes) -> None:
    request = b"GET /" + value + b" HTTP/1.1\r\nHost: a\r\nUser-Agent: " + value + b'\r\nReferer: "' + value
    json_line(request=request + b"\r\nAuthorization: Basic " + base64.b64encode(value) + b"\r\n\r\n")


def test_what_lines_begin_with() -> None:
    assert LogFormat("%(m)s", prefix=b"<134>web: ").line(REQUEST) == b"<134>web: GET\n"
    text = LogFormat("%(m)s", prefix=b"<134>web: ", is_json=True).line(REQUEST)
    assert text is not None
    assert json.loads(text.removeprefix(b"<134>web: "))["method"] == "GET"


def test_the_id_of_a_request() -> None:
    sent = b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: theirs\r\n\r\n"
    assert line("%(id)s %({x-request-id}i)s", sent) == "theirs theirs"
    assert line("%(id)s %({x-request-id}i)s", sent, request_id=b"ours") == "ours ours"
    assert line("%(id)s %({x-request-id}i)s", None, request_id=b"ours") == "ours -"


# The short format.


@pytest.mark.parametrize(
    ("status", "size", "duration_ns", "shown"),
    [
        (200, 0, 0, "200 GET /x?y=%22  0.0ms 0B"),
        (204, 999, 999_400_000, "204 GET /x?y=%22  999.4ms 999B"),
        (500, 1000, 1_000_000_000, "500 GET /x?y=%22  1.00s 1.0kB"),
        (0, 5_600_000, 61_234_000_000, "--- GET /x?y=%22  61.23s 5.6MB"),
    ],
)
def test_the_short_format(status, size, duration_ns, shown):
    line = LogFormat("short").line(
        b"GET /x?y=%22 HTTP/1.1\r\nHost: x\r\n\r\n",
        status=status,
        content_bytes=size,
        duration_ns=duration_ns,
        wall_ns=1_700_000_000 * 10**9,
    )
    clock, _, rest = line.decode().partition(" ")
    assert clock == time.strftime("%H:%M:%S", time.localtime(1_700_000_000))
    assert rest == shown + "\n"


@pytest.mark.parametrize(
    ("status", "colour"), [(200, 32), (304, 36), (404, 33), (499, 90), (503, 31), (599, 31)]
)
def test_the_short_format_in_colours(status, colour):
    line = LogFormat("short", has_colours=True).line(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", status=status)
    assert f" \x1b[{colour}m{status}\x1b[0m GET /  ".encode() in line


def test_the_short_format_without_a_request():
    assert LogFormat("short", has_colours=True).line(status=0).split(b" ", 1)[1] == b"--- - -  0.0ms 0B\n"


def test_the_short_format_as_json():
    short = LogFormat("short", is_json=True).line(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", status=200)
    assert short == LogFormat(is_json=True).line(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", status=200)
