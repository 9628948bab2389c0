"""Forwarding fields and names with an underscore, at a running server."""

import json
import threading

import pytest

from conftest import one_loop
from support import Client, answering, request, wait_until

OTHERS = "192.0.2.0/24"  # the peers of these tests are not in it

KEYS = (
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "wsgi.url_scheme",
    "HTTP_HOST",
    "SERVER_NAME",
    "SERVER_PORT",
    "SCRIPT_NAME",
    "PATH_INFO",
    "fastwsgi.peer_addr",
)


@answering
def shown(environ):
    return json.dumps(
        {key: value for key, value in environ.items() if key in KEYS or key.startswith("HTTP_")}
    )


def ask(server, *fields, target="/", client=None):
    fields = [field.split(": ") for field in fields]
    answer = server.ask(target, fields=fields) if client is None else client.ask(target, fields=fields)
    assert answer.status == 200
    return json.loads(answer.content)


def test_nothing_is_forwarded(serve):
    server = serve(shown)
    environ = ask(server)
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["SERVER_PORT"] == str(server.port)
    assert "fastwsgi.peer_addr" not in environ


def test_a_trusted_peer_says_who_and_how(serve):
    environ = ask(
        serve(shown),
        "X-Forwarded-For: 198.51.100.9, 192.0.2.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example",
    )
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["REMOTE_PORT"] == ""
    assert environ["fastwsgi.peer_addr"] == "127.0.0.1"
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["HTTP_HOST"] == environ["SERVER_NAME"] == "shop.example"
    assert environ["SERVER_PORT"] == "443"
    # An application that looks for itself finds what it would find behind any server.
    assert environ["HTTP_X_FORWARDED_FOR"] == "198.51.100.9, 192.0.2.1"
    assert environ["HTTP_X_FORWARDED_PROTO"] == "https"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            ['Forwarded: for="[2001:db8::1]:4711";proto=https;host="shop.example:8443"'],
            {
                "REMOTE_ADDR": "2001:db8::1",
                "REMOTE_PORT": "4711",
                "wsgi.url_scheme": "https",
                "HTTP_HOST": "shop.example:8443",
                "SERVER_NAME": "shop.example",
                "SERVER_PORT": "8443",
            },
        ),
        (
            ["Forwarded: for=_hidden"],
            {"REMOTE_ADDR": "", "REMOTE_PORT": "", "fastwsgi.peer_addr": "127.0.0.1"},
        ),
        (
            ["X-Forwarded-Host: [2001:db8::1]"],
            {
                "HTTP_HOST": "[2001:db8::1]",
                "SERVER_NAME": "[2001:db8::1]",
                "SERVER_PORT": "80",
                "REMOTE_ADDR": "127.0.0.1",
            },
        ),
        (["X-Forwarded-Host: [2001:db8::1]:81"], {"SERVER_NAME": "[2001:db8::1]", "SERVER_PORT": "81"}),
        (["X-Forwarded-Host: a.example:"], {"SERVER_NAME": "a.example", "SERVER_PORT": "80"}),
        (
            ["X-Forwarded-Port: 8443", "X-Forwarded-Proto: https"],
            {"SERVER_PORT": "8443", "HTTP_HOST": "test.example"},
        ),
        (
            ["X-Forwarded-Host: a.example", "X-Forwarded-Port: 444"],
            {"HTTP_HOST": "a.example", "SERVER_PORT": "444"},
        ),
    ],
    ids=str,
)
def test_forwarded_values(serve, fields, expected):
    environ = ask(serve(shown), *fields)
    assert {key: environ[key] for key in expected} == expected


def test_networks_of_proxies(serve):
    server = serve(shown, forwarded_allow_ips="127.0.0.0/8,10.0.0.0/8")
    environ = ask(server, "X-Forwarded-For: 192.0.2.66, 192.0.2.1, 10.3.2.1, 127.0.0.9")
    assert environ["REMOTE_ADDR"] == "192.0.2.1"


def test_everybody_is_trusted_but_not_what_they_list(serve):
    environ = ask(serve(shown, forwarded_allow_ips="*"), "X-Forwarded-For: 192.0.2.66, 192.0.2.1")
    assert environ["REMOTE_ADDR"] == "192.0.2.1"


def test_one_request_says_nothing_of_the_next(serve):
    server = serve(shown)
    with server.connect() as client:
        for number in range(3):
            forwarded = ask(
                server, f"X-Forwarded-For: 192.0.2.{number}", "X-Forwarded-Proto: https", client=client
            )
            assert forwarded["REMOTE_ADDR"] == f"192.0.2.{number}"
            plain = ask(server, client=client)
            assert plain["REMOTE_ADDR"] == "127.0.0.1"
            assert plain["wsgi.url_scheme"] == "http"
            assert "fastwsgi.peer_addr" not in plain
        client.send(request("/", fields=[("X-Forwarded-For", "192.0.2.8")]) + request("/"))
        addresses = [json.loads(client.read_response().content)["REMOTE_ADDR"] for _ in range(2)]
        assert addresses == ["192.0.2.8", "127.0.0.1"]


@one_loop
def test_the_others_are_not_believed(serve):
    server = serve(shown, forwarded_allow_ips=OTHERS)
    fields = [
        "Forwarded: for=192.0.2.1;proto=https;host=evil.example",
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Port: 443",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Ssl: on",
        "X-Real-IP: 192.0.2.1",
        "X-Forwarded-User: root",
        "X-Fine: yes",
    ]
    for _ in range(3):
        environ = ask(server, *fields)
        assert environ["REMOTE_ADDR"] == "127.0.0.1"
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["SERVER_PORT"] == str(server.port)
        assert {key for key in environ if key.startswith("HTTP_")} == {"HTTP_HOST", "HTTP_X_FINE"}
    server.log.expect("not in --forwarded-allow-ips", 1)
    server.log.expect("client 127.0.0.1", 1)


@one_loop
def test_many_threads_of_clients_and_one_warning(serve):
    server = serve(shown, forwarded_allow_ips="none")

    def visit():
        with Client(server.address) as client:
            for _ in range(20):
                assert ask(server, "X-Forwarded-For: 192.0.2.1", client=client)["REMOTE_ADDR"] == "127.0.0.1"

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    server.log.expect("not in --forwarded-allow-ips", 1)


@pytest.mark.parametrize("allowed", [("127.0.0.1", "::1"), "10.0.0.0/8", "unix", ""], ids=str)
def test_unix_sockets_are_trusted(serve, short_path, allowed):
    server = serve(shown, host=f"unix:{short_path}/s", forwarded_allow_ips=allowed)
    environ = ask(server, "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https")
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["fastwsgi.peer_addr"] == ""
    assert environ["wsgi.url_scheme"] == "https"


def test_unix_sockets_are_not_trusted_by_none(serve, short_path):
    server = serve(shown, host=f"unix:{short_path}/s", forwarded_allow_ips="none")
    assert ask(server, "X-Forwarded-For: 192.0.2.1")["REMOTE_ADDR"] == ""
    server.log.expect("not in --forwarded-allow-ips")


def test_an_ipv4_peer_of_a_dual_stack_listener(serve):
    server = serve(shown, host="::")
    with server.connect(("127.0.0.1", server.port)) as client:
        environ = ask(server, "X-Forwarded-For: ::ffff:192.0.2.1", client=client)
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["fastwsgi.peer_addr"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["X-Forwarded-For: garbage"], "malformed Forwarded or X-Forwarded field"),
        (['Forwarded: for="'], "malformed Forwarded or X-Forwarded field"),
        (["X-Forwarded-Proto: gopher"], "malformed Forwarded or X-Forwarded field"),
        (["Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.2"], "contradict each other"),
        (["SCRIPT_NAME: /elsewhere"], "--forwarder-headers"),
    ],
    ids=str,
)
def test_refused_from_a_trusted_peer(serve, fields, words):
    server = serve(shown)
    with server.connect() as client:
        client.send(request("/", fields=[field.split(": ") for field in fields]) + request("/never"))
        assert client.read_response().status == 400
        client.expect_end()
    server.log.expect(words)
    assert server.count("requests") == 0


@one_loop
def test_dropped_underscores(serve):
    server = serve(shown)
    for _ in range(2):
        environ = ask(server, "X_Auth: 1", "X-Auth: 2", "X_Other: 3")
        assert environ["HTTP_X_AUTH"] == "2"
        assert "HTTP_X_OTHER" not in environ
    ask(server, "X_Other: 3")
    server.log.expect("X_Auth is dropped", 1)
    server.log.expect("X_Other is dropped", 1)


def test_refused_underscores(serve):
    server = serve(shown, header_map="refuse")
    with server.connect() as client:
        client.send(request("/", fields=[("X_Auth", "1")]))
        assert client.read_response().status == 400
        client.expect_end()
    server.log.expect("--header-map refuse")


def test_dangerous_underscores(serve):
    server = serve(shown, header_map="dangerous")
    environ = ask(server, "User_Agent: a", "User-Agent: b", "X_A: 1", "X-A: 2", "X_B: 3")
    assert environ["HTTP_USER_AGENT"] == "a,b"
    assert environ["HTTP_X_A"] == "1,2"
    assert environ["HTTP_X_B"] == "3"


def test_danger_has_its_end_at_forwarding_fields(serve):
    server = serve(shown, header_map="dangerous", forwarded_allow_ips=OTHERS)
    environ = ask(server, "X_Forwarded_For: 192.0.2.1", "X_Forwarded_User: root")
    assert {key for key in environ if key.startswith("HTTP_")} == {"HTTP_HOST"}
    server.log.expect("not in --forwarded-allow-ips", 1)


def test_script_name(serve):
    server = serve(shown)
    environ = ask(server, "SCRIPT_NAME: /caf%C3%A9", target="/caf%C3%A9/a%20b?q")
    assert environ["SCRIPT_NAME"] == "/caf\xc3\xa9"
    assert environ["PATH_INFO"] == "/a b"
    environ = ask(server, "SCRIPT_NAME: /app", target="/app")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "")


def test_forwarder_headers(serve):
    server = serve(shown, forwarder_headers="REMOTE_USER")
    environ = ask(server, "Remote-User: eve", "REMOTE_USER: ada")
    assert environ["HTTP_REMOTE_USER"] == "ada"


def test_the_access_log_has_the_client(serve, tmp_path):
    log = tmp_path / "log"
    format = "%(h)s %({fastwsgi.peer_addr}e)s %(s)s"
    server = serve(shown, access_logfile=str(log), access_logformat=format)
    with server.connect() as client:
        ask(server, "X-Forwarded-For: 192.0.2.1", client=client)
        ask(server, client=client)
        ask(server, "X-Forwarded-For: unknown", client=client)
    wait_until(lambda: log.read_text().count("\n") == 3, "three lines")
    assert log.read_text().splitlines() == ["192.0.2.1 127.0.0.1 200", "127.0.0.1 - 200", "- 127.0.0.1 200"]


def test_a_refused_request_is_logged_with_its_client(serve, tmp_path):
    log = tmp_path / "log"
    server = serve(shown, access_logfile=str(log), access_logformat="%(h)s %(s)s", limit_request_body=10)
    with server.connect() as client:
        client.send(
            request("/", "POST", [("X-Forwarded-For", "192.0.2.1"), ("Transfer-Encoding", "chunked")])
        )
        client.send(b"zz\r\n")
        assert client.read_response().status == 400
    server.log.expect("refused with 400")
    wait_until(lambda: log.read_text() == "192.0.2.1 400\n", "a line")


def test_content_keeps_its_client(serve):
    server = serve(shown)
    content = b"x" * 300_000
    with server.connect() as client:
        client.send(request("/", "POST", [("X-Forwarded-For", "192.0.2.1")], content)[:-100_000])
        client.send(content[-100_000:])
        assert json.loads(client.read_response().content)["REMOTE_ADDR"] == "192.0.2.1"


def test_the_cut_makes_no_difference(serve):
    server = serve(shown)
    data = request("/", fields=[("X-Forwarded-For", "9.9.9.9, 192.0.2.1"), ("X-Forwarded-Proto", "https")])
    with server.connect() as client:
        for cut in range(1, len(data), 9):
            client.send(data[:cut])
            client.send(data[cut:])
            environ = json.loads(client.read_response().content)
            assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("192.0.2.1", "https")
