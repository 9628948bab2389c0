"""Response heads without a socket: checks, framing, Date, refusals."""

import datetime
import email.utils

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastwsgi._refusals import REFUSALS, refusal_t
from fastwsgi._response import ResponseHead, chunk_size_line, refuse

OK, DROPPED = 0, 1


def head(status=b"200 OK", *fields, **options):
    built = ResponseHead()
    assert built.start(status) == OK
    for name, value in fields:
        assert built.field(name, value) == OK
    data, framing = built.finish(**options)
    assert data.endswith(b"\r\n\r\n")
    first, *lines = data[:-4].split(b"\r\n")
    return first, dict(line.split(b": ", 1) for line in lines), framing


def test_the_reason_phrase_is_kept():
    assert head(b"404 Nothing Here")[0] == b"HTTP/1.1 404 Nothing Here"
    assert head(b"200")[0] == b"HTTP/1.1 200 "


@pytest.mark.parametrize(
    "status", [b"", b"20", b"2000", b"2x0 OK", b"200OK", b"200 O\rK", b"200 O\nK", b"200 \0"]
)
def test_a_wrong_status(status):
    assert ResponseHead().start(status) < 0


@pytest.mark.parametrize("status", [b"100 Continue", b"101 Switching Protocols", b"199 Odd"])
def test_interim_statuses_are_the_servers(status):
    assert ResponseHead().start(status) < 0


@given(st.binary(max_size=30))
def test_values(value):
    built = ResponseHead()
    built.start(b"200 OK")
    is_good = all(octet == 9 or (octet >= 32 and octet != 127) for octet in value)
    assert (built.field(b"X-Value", value) == OK) == is_good


@given(st.binary(min_size=1, max_size=20))
def test_names(name):
    built = ResponseHead()
    built.start(b"200 OK")
    token = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert (built.field(b"x" + name, b"") == OK) == (set(name) <= token)


HOP_BY_HOP = [
    b"Connection",
    b"keep-alive",
    b"Transfer-Encoding",
    b"TE",
    b"Trailer",
    b"Upgrade",
    b"Proxy-Authenticate",
    b"Proxy-Authorization",
    b"Proxy-Connection",
]


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_fields_are_left_out(name):
    built = ResponseHead()
    built.start(b"200 OK")
    for spelling in (name, name.lower(), name.upper()):
        assert built.field(spelling, b"x") == DROPPED


@pytest.mark.parametrize("name", [*HOP_BY_HOP, b"Content-Length"])
def test_no_octet_of_a_name_is_passed_over(name):
    built = ResponseHead()
    built.start(b"200 OK")
    for i in range(len(name)):
        assert built.field(name[:i] + b"!" + name[i + 1 :], b"x") == OK


@pytest.mark.parametrize("value", [b"", b"-1", b"1x", b"1, 1", b"9" * 20])
def test_a_wrong_content_length(value):
    built = ResponseHead()
    built.start(b"200 OK")
    assert built.field(b"Content-Length", value) < 0


def test_framing():
    length = (b"Content-Length", b"5")
    assert head(b"200 OK", length)[2] == "length"
    assert head(length=7)[1][b"Content-Length"] == b"7"
    assert head()[1][b"Transfer-Encoding"] == b"chunked"
    assert head(version_minor=0)[2] == "close"
    assert head(version_minor=0)[1][b"Connection"] == b"close"
    assert head(version_minor=0, length=1)[1][b"Connection"] == b"keep-alive"
    assert (
        head(b"204 No Content")[2] == head(b"304 Not Modified")[2] == head(is_head_request=True)[2] == "none"
    )
    assert b"Connection" not in head()[1]
    assert head(keep_alive=False)[1][b"Connection"] == b"close"


def test_the_applications_date_and_server_stay():
    fields = head(b"200 OK", (b"Date", b"then"), (b"server", b"mine"))[1]
    assert (fields[b"Date"], fields[b"server"]) == (b"then", b"mine")
    assert b"Server" not in fields


@given(st.datetimes(min_value=datetime.datetime(1970, 1, 1), max_value=datetime.datetime(2199, 12, 31)))
@example(datetime.datetime(1970, 1, 1))
def test_date(moment):
    moment = moment.replace(microsecond=0, tzinfo=datetime.UTC)
    fields = head(now=int(moment.timestamp()))[1]
    assert fields[b"Date"].decode() == email.utils.format_datetime(moment, usegmt=True)


@pytest.mark.parametrize("reason", list(REFUSALS), ids=str)
def test_refusals(reason):
    status, phrase, text = REFUSALS[reason]
    number = refusal_t[reason]
    answer = refuse(number)
    line, _, rest = answer.partition(b"\r\n")
    assert line == f"HTTP/1.1 {status} {phrase}".encode()
    fields, _, content = rest.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(content)}".encode() in fields
    assert b"Connection: close" in fields
    # A client hears what is wrong with its request, and nothing of what is wrong with the server.
    assert content.decode() == (text if status < 500 else phrase) + "\n"
    assert refuse(number, is_head_request=True) == answer[: len(answer) - len(content)]


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_chunk_size_line(size):
    assert chunk_size_line(size) == b"%x\r\n" % size
