"""start_response, write() and exc_info."""

import contextlib
import sys
import threading
import time
from email.utils import parsedate_to_datetime

import pytest

from support import PATIENCE, TEXT, Incomplete, text


def test_status_and_fields_arrive(serve):
    fields = [
        ("X-One", "1"),
        ("X-One", "2"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("x-LOWER", "\xe9  x"),
    ]
    response = serve(text(status="299 Quite Fine, \xe9", fields=fields)).ask()
    assert (response.status, response.reason) == (299, "Quite Fine, \xe9")
    assert response.all("X-One") == ["1", "2"]
    assert response.all("Set-Cookie") == ["a=1", "b=2"]
    assert response["X-Lower"] == "\xe9  x"
    assert ("x-LOWER", "\xe9  x") in response.fields


def test_server_and_date_are_added(serve):
    response = serve(text()).ask()
    assert response["Server"] == "fastwsgi"
    assert response["Date"].endswith("GMT")


def test_the_date_is_the_time_of_the_answer(serve):
    with serve(text()).connect() as client:
        first = parsedate_to_datetime(client.ask()["Date"]).timestamp()
        assert abs(time.time() - first) < 2
        time.sleep(1.1)
        second = parsedate_to_datetime(client.ask()["Date"]).timestamp()
        assert abs(time.time() - second) < 2
        assert first < second


def test_server_and_date_of_the_application_are_kept(serve):
    fields = [("server", "other"), ("DATE", "Thu, 01 Jan 1970 00:00:00 GMT")]
    response = serve(text(fields=fields)).ask()
    assert response.all("Server") == ["other"]
    assert response.all("Date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]


def test_many_and_large_fields(serve):
    fields = [(f"X-{number}", str(number) * 100) for number in range(200)]
    response = serve(text(fields=fields)).ask()
    assert [value for name, value in response.fields if name.startswith("X-")] == [
        value for _, value in fields
    ]


def test_field_list_may_be_changed_afterwards(serve):
    def application(environ, start_response):
        fields = [TEXT, ("X-Value", "before")]
        start_response("200 OK", fields)
        fields[1] = ("X-Value", "after")
        fields.append(("X-Late", "1"))
        return [b"ok"]

    response = serve(application).ask()
    assert response["X-Value"] == "before"
    assert response["X-Late"] is None


def test_empty_field_value(serve):
    assert serve(text(fields=[("X-Empty", "")])).ask()["X-Empty"] == ""


# What start_response refuses, at once: the application can catch it and answer something else.

BAD_STATUS = [
    "",
    "OK",
    "20 OK",
    "2000 OK",
    "abc OK",
    "2\xb20 OK",
    "200\r\nX-Evil: 1",
    "200 O\nK",
    "200 O\0K",
    "200 \u20ac",
    "100 Continue",
    "101 Switching Protocols",
    "199 Almost",
    b"200 OK",
    200,
    None,
]

BAD_FIELDS = [
    [("X-A", "a\r\nX-Evil: 1")],
    [("X-A", "a\nb")],
    [("X-A", "a\rb")],
    [("X-A", "a\0b")],
    [("X-A", "\u20ac")],
    [("X-A", 5)],
    [("X-A", b"bytes")],
    [("X-A", None)],
    [("X A", "a")],
    [("X-A:", "a")],
    [("", "a")],
    [("X-\xe9", "a")],
    [("X-A\r\nX-Evil", "1")],
    [(b"X-A", "a")],
    [(5, "a")],
    ["ab"],
    [("X-A",)],
    [("X-A", "a", "b")],
    [None],
    {"X-A": "a"},
    "X-A: a",
    None,
    5,
]


def catching(status, fields):
    """An application that calls start_response wrongly, catches the error, and answers all the same."""

    def application(environ, start_response):
        try:
            start_response(status, fields)
        except (ValueError, TypeError, AssertionError):
            start_response("200 OK", [TEXT])
            return [b"refused"]
        return [b"taken"]

    return application


@pytest.mark.parametrize("status", BAD_STATUS, ids=repr)
def test_bad_status(serve, status):
    response = serve(catching(status, [TEXT]), validate=False).ask()
    assert response.text == "refused"
    assert response["X-Evil"] is None


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=repr)
def test_bad_fields(serve, fields):
    response = serve(catching("200 OK", fields), validate=False).ask()
    assert response.text == "refused"
    assert response["X-Evil"] is None


@pytest.mark.parametrize("value", ["abc", "-1", "+1", "1.0", "1,2", "", "0x10", "1 2", "9" * 30])
def test_bad_content_length(serve, value):
    response = serve(catching("200 OK", [("Content-Length", value)]), validate=False).ask()
    assert response.text == "refused"


def test_two_content_lengths(serve):
    fields = [("Content-Length", "5"), ("content-length", "6")]
    assert serve(catching("200 OK", fields), validate=False).ask().text == "refused"


def test_a_refused_field_that_nobody_catches_is_a_500(serve):
    server = serve(text(fields=[("X-Broken", "a\r\nX-Evil: 1")]), validate=False)
    response = server.ask()
    assert response.status == 500
    assert response["X-Evil"] is None
    server.log.expect("X-Broken")


def test_wrong_number_of_arguments(serve):
    def application(environ, start_response):
        for arguments in ((), ("200 OK",), ("200 OK", [], None, None)):
            with pytest.raises(TypeError):
                start_response(*arguments)
        start_response("200 OK", [TEXT], None)
        return [b"ok"]

    assert serve(application, validate=False).ask().text == "ok"


def test_exc_info_by_name(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT], exc_info=None)
        return [b"ok"]

    assert serve(application, validate=False).ask().text == "ok"


@pytest.mark.parametrize(
    "call",
    [
        lambda start: start(status="200 OK", headers=[TEXT]),
        lambda start: start("200 OK", exc_info=None, headers=[TEXT]),
        lambda start: start.__call__("200 OK", [TEXT], None),
        lambda start: type(start).__call__(start, "200 OK", headers=[TEXT]),
    ],
    ids=["names", "order", "bound", "type"],
)
def test_every_way_to_call_it(serve, call):
    def application(environ, start_response):
        call(start_response)(b"written, ")
        return [b"and given"]

    assert serve(application, validate=False).ask().text == "written, and given"


def test_names_that_are_not_taken(serve):
    def application(environ, start_response):
        for names in ({"reason": None}, {"headers": [TEXT]}, {"status": "200 OK"}):
            with pytest.raises(TypeError):
                start_response("200 OK", [TEXT], **names)
        with pytest.raises(TypeError):
            start_response("200 OK", exc_info=None)
        start_response("200 OK", [TEXT])
        return [b"ok"]

    assert serve(application, validate=False).ask().text == "ok"


def test_str_subclasses(serve):
    class Text(str):
        __slots__ = ()

    assert (
        serve(text(status=Text("200 OK"), fields=[(Text("X-A"), Text("a"))]), validate=False).ask()["X-A"]
        == "a"
    )


# Hop-by-hop fields.


@pytest.mark.parametrize(
    "name", ["Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade", "Transfer-Encoding"]
)
def test_hop_by_hop_fields_are_dropped_with_one_warning(serve, name):
    server = serve(text(fields=[(name, "chunked" if name == "Transfer-Encoding" else "x")]), validate=False)
    with server.connect() as client:
        for _ in range(3):
            response = client.ask()
            assert response.text == "hello"
            assert response.framing == "length"
            assert response[name] is None
    server.log.expect("hop-by-hop", times=1)


def test_connection_keep_alive_is_the_servers_to_say(serve):
    server = serve(text(fields=[("Connection", "keep-alive, X-Thing")]), validate=False)
    server.log.allow("hop-by-hop")
    with server.connect() as client:
        for _ in range(2):
            assert client.ask()["Connection"] is None


def test_connection_close_is_honoured(serve):
    with serve(text(fields=[("connection", "Close")])).connect() as client:
        response = client.ask()
        assert response.closes
        assert response.text == "hello"
        client.expect_end()


# Called more than once, with and without exc_info.


def test_twice_without_exc_info(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        start_response("201 Created", [TEXT])
        return [b"never"]

    server = serve(application, validate=False)
    assert server.ask().status == 500
    server.log.expect("start_response")


def test_exc_info_before_the_head_has_left_replaces_it(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("X-Old", "1"), ("Content-Length", "12345")])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("503 Replaced", [TEXT, ("X-New", "1")], sys.exc_info())
        return [b"replaced"]

    response = serve(application).ask()
    assert (response.status, response.reason, response.text) == (503, "Replaced", "replaced")
    assert response["X-Old"] is None
    assert response["X-New"] == "1"


def test_exc_info_in_the_first_call(serve):
    def application(environ, start_response):
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("503 Sorry", [TEXT], sys.exc_info())
        return [b"sorry"]

    assert serve(application).ask().reason == "Sorry"


def test_exc_info_after_empty_blocks_replaces_the_head(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b""
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("503 Replaced", [TEXT], sys.exc_info())
        yield b"replaced"

    assert serve(application).ask().status == 503


@pytest.mark.parametrize("by_write", [True, False], ids=["write", "yield"])
def test_exc_info_after_the_head_has_left_is_raised(serve, by_write):
    arrived = threading.Event()

    def fail(start_response):
        assert arrived.wait(PATIENCE)
        try:
            raise ZeroDivisionError("late")
        except ZeroDivisionError:
            start_response("500 Too Late", [TEXT], sys.exc_info())

    def writing(environ, start_response):
        start_response("200 OK", [TEXT])(b"part")
        fail(start_response)
        return [b"never"]

    def yielding(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"part"
        fail(start_response)
        yield b"never"

    server = serve(writing if by_write else yielding)
    with server.connect() as client:
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.read_head().status == 200
        assert client.take_chunk() == b"part"
        arrived.set()
        client.expect_gone()
    server.log.expect("ZeroDivisionError: late")


def test_a_bad_second_call_leaves_the_first(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            with pytest.raises((ValueError, AssertionError)):
                start_response("503 Bad", [("X-A", "a\nb")], sys.exc_info())
            start_response("503 Good", [TEXT], sys.exc_info())
        return [b"ok"]

    assert serve(application, validate=False).ask().reason == "Good"


# Never called, or late.


def test_never_called(serve):
    server = serve(lambda environ, start_response: [b"hello"], validate=False)
    assert server.ask().status == 500
    server.log.expect("start_response")


def test_never_called_and_nothing_to_send(serve):
    server = serve(lambda environ, start_response: [], validate=False)
    assert server.ask().status == 500
    server.log.expect("start_response")


def test_called_in_the_first_step_of_the_iteration(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"hello"

    assert serve(application).ask().text == "hello"


def test_called_after_the_first_block_is_too_late(serve):
    def application(environ, start_response):
        yield b"hello"
        start_response("200 OK", [TEXT])

    server = serve(application, validate=False)
    assert server.ask().status == 500
    server.log.expect("start_response")


def test_start_response_kept_after_the_exchange_is_harmless(serve):
    kept = []

    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        kept.append((start_response, write))
        return [b"ok"]

    server = serve(application, validate=False)
    with server.connect() as client:
        assert client.ask().text == "ok"
        server.wait_count("exchanges", 0)
        [(start_response, write)] = kept
        with contextlib.suppress(Exception):
            start_response("200 OK", [TEXT])
        with contextlib.suppress(Exception):
            write(b"late")
        assert client.ask().text == "ok"
        assert not client.readable(0.05)
    kept.clear()


# write()


def test_write(serve):
    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        write(b"one ")
        write(b"")
        write(b"two ")
        return [b"three"]

    response = serve(application).ask()
    assert response.text == "one two three"


def test_write_only(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])(b"all")
        return []

    assert serve(application).ask().text == "all"


def test_write_with_content_length(serve):
    def application(environ, start_response):
        write = start_response("200 OK", [TEXT, ("Content-Length", "6")])
        write(b"one")
        return [b"two"]

    response = serve(application).ask()
    assert (response.framing, response.text) == ("length", "onetwo")


def test_write_from_inside_the_iterable(serve):
    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        yield b"1"
        write(b"2")
        yield b"3"

    assert serve(application, validate=False).ask().text == "123"


@pytest.mark.parametrize("block", ["text", None, 5, [b"a"]], ids=repr)
def test_write_takes_bytes_only(serve, block):
    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        with pytest.raises((TypeError, AssertionError)):
            write(block)
        return [b"ok"]

    assert serve(application, validate=False).ask().text == "ok"


def test_writes_arrive_before_the_application_ends(serve):
    arrived = threading.Event()

    def application(environ, start_response):
        start_response("200 OK", [TEXT])(b"early")
        assert arrived.wait(PATIENCE)
        return [b"late"]

    with serve(application).connect() as client:
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        client.read_head()
        assert client.take_chunk() == b"early"
        arrived.set()
        assert client.take_chunks() == b"late"


def test_an_error_after_write_cuts_the_response(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])(b"part")
        raise ZeroDivisionError("after write")

    server = serve(application)
    with server.connect() as client:
        with pytest.raises((Incomplete, ConnectionError)):
            client.ask()
    server.log.expect("ZeroDivisionError: after write")
