"""The PROXY protocol at a running server."""

import json
import socket
import struct

import pytest

from conftest import with_threads
from support import answering, request

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n"
V2 = (
    SIGNATURE
    + b"\x21\x11\x00\x0c"
    + socket.inet_aton("192.0.2.1")
    + socket.inet_aton("198.51.100.1")
    + struct.pack(">HH", 4711, 443)
)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
UNKNOWN = b"PROXY UNKNOWN\r\n"
BOTH = pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])


@answering
def shown(environ):
    keys = ("REMOTE_ADDR", "REMOTE_PORT", "fastwsgi.peer_addr", "wsgi.url_scheme", "HTTP_X_FORWARDED_FOR")
    return json.dumps({key: environ[key] for key in keys if key in environ})


def read(client):
    answer = client.read_response()
    assert answer.status == 200
    return json.loads(answer.content)


CLIENT = {
    "REMOTE_ADDR": "192.0.2.1",
    "REMOTE_PORT": "4711",
    "fastwsgi.peer_addr": "127.0.0.1",
    "wsgi.url_scheme": "http",
}


@BOTH
def test_the_client_of_a_connection(serve, header):
    server = serve(shown, proxy_protocol="auto")
    with server.connect() as client:
        client.send(header + request("/"))
        assert read(client) == CLIENT
        # Once for the connection: all of its requests are of that client.
        client.send(request("/") * 2)
        assert [read(client), read(client)] == [CLIENT, CLIENT]


@BOTH
def test_the_cut_makes_no_difference(serve, header):
    server = serve(shown, proxy_protocol="auto")
    data = header + request("/")
    for cut in range(1, len(data), 3):
        with server.connect() as client:
            client.send(data[:cut])
            client.send(data[cut:])
            assert read(client) == CLIENT


@BOTH
@with_threads(1)
def test_octet_by_octet(serve, header):
    server = serve(shown, proxy_protocol="auto")
    with server.connect() as client:
        for octet in header + request("/"):
            client.send(bytes([octet]))
        assert read(client) == CLIENT


@pytest.mark.parametrize(
    ("header", "address"), [(LOCAL, "127.0.0.1"), (UNKNOWN, "127.0.0.1")], ids=["LOCAL", "UNKNOWN"]
)
def test_a_header_without_a_client(serve, header, address):
    server = serve(shown, proxy_protocol="auto")
    with server.connect() as client:
        client.send(header + request("/"))
        environ = read(client)
        assert environ["REMOTE_ADDR"] == address
        assert "fastwsgi.peer_addr" not in environ


@pytest.mark.parametrize(
    ("header", "allowed", "address"),
    [
        # Who is trusted is the client that the header names, not the proxy: it has sent the fields.
        (V1, "127.0.0.1", "192.0.2.1"),
        (V1, "127.0.0.1,192.0.2.0/24", "203.0.113.9"),
        (LOCAL, "127.0.0.1", "203.0.113.9"),
        (UNKNOWN, "127.0.0.1", "127.0.0.1"),
    ],
    ids=["client", "proxy behind", "LOCAL", "UNKNOWN"],
)
def test_forwarding_fields_behind_the_header(serve, header, allowed, address):
    server = serve(shown, proxy_protocol="auto", proxy_allow_from="127.0.0.1", forwarded_allow_ips=allowed)
    with server.connect() as client:
        client.send(header + request("/", fields=[("X-Forwarded-For", "203.0.113.9")]))
        environ = read(client)
    assert environ["REMOTE_ADDR"] == address
    assert ("HTTP_X_FORWARDED_FOR" in environ) == (address == "203.0.113.9")
    assert environ.get("fastwsgi.peer_addr", "127.0.0.1") == "127.0.0.1"
    server.log.allow("not in --forwarded-allow-ips")


@pytest.mark.parametrize(
    ("version", "data", "words"),
    [
        ("auto", request("/"), "does not begin with a header of the PROXY protocol"),
        ("v1", V2 + request("/"), "does not begin with a header of the PROXY protocol"),
        ("v2", V1 + request("/"), "does not begin with a header of the PROXY protocol"),
        ("v1", b" " + V1 + request("/"), "does not begin with a header of the PROXY protocol"),
        ("v1", b"PROXY TCP4 nonsense\r\n" + request("/"), "malformed header of the PROXY protocol"),
        ("v2", SIGNATURE + b"\x21\x11\xff\xff" + bytes(100), "malformed header of the PROXY protocol"),
        ("v1", b"PROXY " + b"x" * 300, "malformed header of the PROXY protocol"),
    ],
)
def test_closed_without_an_answer(serve, version, data, words):
    server = serve(shown, proxy_protocol=version)
    with server.connect() as client:
        client.send(data)
        client.expect_gone()
    server.log.expect(words)
    assert server.count("refused") == 1
    assert server.count("requests") == 0


@BOTH
def test_a_second_header_is_a_request_and_refused(serve, header):
    server = serve(shown, proxy_protocol="auto")
    with server.connect() as client:
        client.send(header + request("/"))
        assert read(client) == CLIENT
        client.send(header + request("/never"))
        assert client.read_response().status == 400
        client.expect_end()
    server.log.expect("refused with 400")
    assert server.count("requests") == 1


@BOTH
@pytest.mark.parametrize(
    "options", [{}, {"proxy_protocol": "auto", "proxy_allow_from": "10.0.0.0/8"}], ids=["off", "others"]
)
def test_from_those_who_may_not_it_is_a_bad_request(serve, header, options):
    server = serve(shown, **options)
    with server.connect() as client:
        client.send(header + request("/never"))
        assert client.read_response().status == 400
        client.expect_end()
    server.log.expect("refused with 400")
    # And without it they are served, as themselves: a health check, say.
    assert json.loads(server.ask().content)["REMOTE_ADDR"] == "127.0.0.1"


def test_a_unix_socket(serve, short_path):
    server = serve(shown, host=f"unix:{short_path}/s", proxy_protocol="v2")
    with server.connect() as client:
        client.send(V2 + request("/"))
        assert read(client) == {**CLIENT, "fastwsgi.peer_addr": ""}


@with_threads(1)
def test_half_a_header_has_the_deadline_of_a_head(serve):
    server = serve(shown, proxy_protocol="auto", header_timeout="300ms")
    with server.connect() as client:
        client.send(V1[:20])
        client.expect_gone()
    server.log.expect("closed without an answer")
    assert server.count("expired") == 1


@with_threads(1)
def test_a_header_alone_is_no_request(serve):
    # A balancer that only looks whether somebody is there: nothing to say to it, and nothing to log.
    server = serve(shown, proxy_protocol="auto", header_timeout="300ms")
    with server.connect() as client:
        client.send(V1)
        client.expect_end()
    with server.connect() as client:
        client.send(V1)
    with server.connect() as client:
        client.send(V1[:9])
    server.wait_count("connections", 0)
    assert server.count("refused") == 0


@with_threads(1)
def test_a_request_after_a_header_that_came_alone(serve):
    server = serve(shown, proxy_protocol="auto")
    with server.connect() as client:
        client.send(V2)
        server.wait_count("connections", 1)
        assert not client.readable(0.1)
        client.send(request("/"))
        assert read(client) == CLIENT


@with_threads(1)
def test_many_connections_leave_nothing(serve):
    server = serve(shown, proxy_protocol="auto")
    for number in range(300):
        with server.connect() as client:
            client.send(b"PROXY TCP4 192.0.2.%d 198.51.100.1 4711 443\r\n" % (number % 250) + request("/"))
            assert read(client)["REMOTE_ADDR"] == f"192.0.2.{number % 250}"
        server.clients.clear()
    server.wait_count("connections", 0)
