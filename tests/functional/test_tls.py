"""TLS: handshakes, good and bad ones, its records, its end, and what the application sees of it."""

import contextlib
import gc
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from certificates import AUTHORITY, client_context
from conftest import POLLERS, crew_id, one_loop, serving
from secure import SecureServer, SecureSocket, directory
from support import PATIENCE, Client, Gate, answering, request, target_of, text, wait_until

CREWS = [(poller, threads) for poller, threads in zip(POLLERS * 2, (4, 1), strict=False)]


@pytest.fixture(params=CREWS, ids=crew_id)
def serve(request):
    """As `serve` everywhere, with servers that speak TLS."""
    yield from serving(request, SecureServer, *request.param)


@answering
def secure_part(environ):
    """What of the environ is about TLS."""
    return "\n".join(
        f"{name}={value}"
        for name, value in sorted(environ.items())
        if name.startswith("SSL_") or name in ("HTTPS", "SERVER_PORT", "wsgi.url_scheme")
    )


def environ_of(response):
    return dict(line.split("=", 1) for line in response.text.split("\n") if "=" in line)


def raw(server):
    """A connection without TLS to a server that speaks it."""
    return Client(server.address)


def first_flight():
    """What a client sends first."""
    connecting = SecureSocket(None, client_context())
    with contextlib.suppress(ssl.SSLWantReadError):
        connecting.ssl.do_handshake()
    return connecting.outgoing.read()


def s_client(server, *arguments, talk):
    """What openssl s_client says; talk: what it gets on its standard input, and what to wait for after it."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", *arguments]
    said = b""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        patience = threading.Timer(PATIENCE, process.kill)
        patience.start()
        for words, answer in talk:
            process.stdin.write(words)
            process.stdin.flush()
            while answer not in said and (more := process.stdout.read1()):
                said += more
        patience.cancel()
        process.kill()
    return said.decode(errors="replace")


# The handshake


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_the_application_sees(serve, version):
    server = serve(secure_part)
    context = client_context(minimum_version=version, maximum_version=version)
    with server.connect(context=context) as client:
        for _ in range(2):
            assert environ_of(client.ask()) == {
                "HTTPS": "on",
                "SERVER_PORT": str(server.port),
                "SSL_CIPHER": client.socket.ssl.cipher()[0],
                "SSL_PROTOCOL": client.socket.ssl.version(),
                "wsgi.url_scheme": "https",
            }
    assert server.count("handshakes") == 1


def test_a_handshake_one_octet_at_a_time(serve):
    server = serve(target_of)
    client = server.connect(shakes_hands=False)
    flush = client.socket.flush

    def dribble():
        octets = client.socket.outgoing.read()
        for i in range(len(octets)):
            client.plain.sendall(octets[i : i + 1])

    client.socket.flush = dribble
    client.shake_hands()
    client.socket.flush = flush
    assert client.ask("/slow").text == "/slow"


def test_a_request_in_many_records_and_many_requests_in_one(serve):
    server = serve(target_of)
    with server.connect() as client:
        for octet in request("/slow"):
            client.send(bytes([octet]))
        assert client.read_response().text == "/slow"
        client.send(b"".join(request(f"/{i}") for i in range(50)))
        assert [client.read_response().text for _ in range(50)] == [f"/{i}" for i in range(50)]


def test_a_request_and_the_end_of_the_handshake_together(serve):
    server = serve(target_of)
    client = server.connect(shakes_hands=False)
    connection = client.socket
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.ssl.do_handshake()
    connection.flush()
    while True:
        connection.take()
        with contextlib.suppress(ssl.SSLWantReadError):
            connection.ssl.do_handshake()
            break
    connection.ssl.write(request("/at-once"))
    connection.flush()
    assert client.read_response().text == "/at-once"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumption(serve, version):
    server = serve(target_of)
    context = client_context(minimum_version=version, maximum_version=version)
    with server.connect(context=context) as client:
        client.ask()
        session = client.socket.ssl.session
    with server.connect(context=context, session=session) as client:
        assert client.ask("/again").text == "/again"
        assert client.socket.ssl.session_reused
    assert (server.count("handshakes"), server.count("handshakes_resumed")) == (2, 1)


def test_a_client_that_trusts_nobody(serve):
    server = serve(target_of)
    server.log.allow("certificate")
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLCertVerificationError):
        server.connect(context=nobody)
    assert server.ask().status == 200


@pytest.mark.filterwarnings("ignore:.*TLSv1.*:DeprecationWarning")
@one_loop
def test_no_common_version(serve):
    server = serve(target_of)
    old = client_context(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    old.set_ciphers("ALL:@SECLEVEL=0")
    for _ in range(3):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            server.connect(context=old)
    server.wait_count("handshakes_failed", 3)
    server.log.expect(
        "a TLS handshake failed (client 127.0.0.1, while in the TLS handshake): unsupported protocol"
    )


@pytest.mark.parametrize(
    "octets",
    [
        b"\0\0\0\0\0\0",
        b"\x16\x03\x01\xff\xff\0",
        b"\x16\x03\x01\0\x05hello",
        b"\x17\x03\x03\0\x01x",
        b"\x80\x2e\x01\3\1" + bytes(64),
    ],
    ids=["zeros", "too long", "no handshake", "data", "of SSL 2"],
)
def test_what_is_no_handshake(serve, octets):
    server = serve(target_of)
    with raw(server) as client:
        client.send(octets)
        with contextlib.suppress(ConnectionError):
            assert len(client.take_rest()) <= 7  # an alert
    server.wait_count("handshakes_failed", 1)
    server.log.expect("a TLS handshake failed")
    assert server.ask().status == 200


def test_plain_http(serve):
    server = serve(target_of)
    with raw(server) as client:
        response = client.ask("/plain")
        assert response.status == 400
        assert "plain HTTP on a listener with TLS" in response.text
        client.expect_end()
    server.log.expect("refused with 400")


def test_handshakes_that_stop_half_way(serve):
    def servers_sides():
        gc.collect()
        return [each for each in gc.get_objects() if type(each) is ssl.SSLObject and each.server_side]

    others = len(servers_sides())
    server = serve(target_of)
    flight = first_flight()
    clients = [raw(server) for _ in range(500)]
    for i, client in enumerate(clients):
        client.send(flight if i % 2 else flight[: len(flight) // 2])
    assert server.ask("/meanwhile").text == "/meanwhile"
    assert server.count("connections") >= 500
    for client in clients:
        client.reset()
    server.wait_count("connections", 0)
    assert server.ask("/after").text == "/after"

    server.wait_count("connections", 0)
    wait_until(lambda: len(servers_sides()) <= others, "what OpenSSL keeps for connections that are gone")


@one_loop
def test_so_many_handshakes_at_once(serve):
    """Of those that are not done there are 1024 at most: one more closes the oldest."""
    server = serve(target_of)
    clients = [raw(server) for _ in range(1030)]
    for client in clients:
        client.send(b"\x16\x03\x01")
    server.wait_count("connections", 1024)
    for client in clients[:6]:
        client.expect_gone()
    assert server.ask().status == 200
    for client in clients:
        client.close()


def test_a_handshake_that_takes_too_long(serve):
    server = serve(target_of, header_timeout=0.2)
    with raw(server) as client:
        client.send(first_flight()[:40])
        client.expect_gone()
    server.wait_count("handshakes_failed", 1)


@one_loop
def test_handshakes_and_probes_while_every_thread_is_busy(serve):
    gate = Gate()

    def application(environ, start_response):
        gate.hold()
        return target_of(environ, start_response)

    server = serve(application, health="/healthz")
    busy = [server.connect() for _ in range(server.threads)]
    for client in busy:
        client.send(request("/held"))
    gate.wait_entered(server.threads)
    for _ in range(3):
        assert server.ask("/healthz").text == "ok\n"
    gate.open()
    assert [client.read_response().text for client in busy] == ["/held"] * server.threads


def test_a_client_certificate(serve):
    ca = Path(directory().name, "ca.pem")
    ca.write_text(AUTHORITY.pem)
    server = serve(secure_part, ca_certs=str(ca), cert_reqs="optional")
    context = client_context()
    context.load_cert_chain(*certificate_of_a_client())
    with server.connect(context=context) as client:
        for _ in range(2):
            environ = environ_of(client.ask())
            assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
            assert environ["SSL_CLIENT_S_DN"] == "CN=Jane\\, of \\+1"
            assert environ["SSL_CLIENT_I_DN"] == "CN=Test Authority"
            assert environ["SSL_CLIENT_CERT"].startswith("-----BEGIN CERTIFICATE-----")
            assert int(environ["SSL_CLIENT_M_SERIAL"], 16) > 0
            assert environ["SSL_CLIENT_V_START"].endswith(" GMT")
            assert environ["SSL_CLIENT_V_END"].endswith(" GMT")
    with server.connect() as client:
        environ = environ_of(client.ask())
        assert environ["SSL_CLIENT_VERIFY"] == "NONE"
        assert "SSL_CLIENT_S_DN" not in environ


def certificate_of_a_client():
    return AUTHORITY.write(Path(directory().name), "client", "jane", is_client=True, common="Jane, of +1")


# Records, and messages for OpenSSL itself


def test_a_broken_record(serve):
    server = serve(target_of)
    client = server.connect()
    sealed = bytearray(client.socket.sealed(request("/")))
    sealed[-1] ^= 1
    client.plain.sendall(sealed)
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
        client.receive()
    server.log.expect("a TLS connection failed")
    assert server.count("requests") == 0


def test_renegotiation_is_refused(serve):
    server = serve(target_of)
    said = s_client(server, "-tls1_2", talk=[(b"R\n", b"no renegotiation")])
    assert "no renegotiation" in said
    server.log.allow("a TLS connection failed")
    assert server.ask().status == 200


def test_new_keys(serve):
    """KeyUpdate, with one asked for in return."""
    server = serve(target_of)
    asked = request("/rekeyed")
    said = s_client(server, "-tls1_3", talk=[(b"K\n", b"KEYUPDATE"), (asked, b"/rekeyed")])
    assert "HTTP/1.1 200 OK" in said and "/rekeyed" in said


# The end


def test_each_end_is_said(serve):
    """SecureClient raises ConnectionAbortedError where close_notify does not come."""
    server = serve(text(b"x" * 100), keep_alive=0.1)
    with server.connect() as client:
        client.ask(fields=[("Connection", "close")])
        client.expect_end()
    with server.connect() as client:
        client.ask()
        client.expect_end()
    with server.connect() as client:
        client.send("GET / HTTP/1.1\r\n\r\n")
        assert client.read_response().status == 400
        client.expect_end()
    server.log.expect("refused with 400")


def test_a_refusal_is_readable_while_the_client_still_sends(serve):
    server = serve(target_of)
    server.log.allow("refused with 400")
    with server.connect() as client:
        wire = client.socket.sealed(request("/", "POST", [("Content-Length", "nonsense")]))
        wire += b"".join(client.socket.sealed(bytes(65536)) for _ in range(64))
        sender = threading.Thread(target=client.plain.sendall, args=(wire,))
        sender.start()
        assert client.read_response().status == 400
        sender.join()
        client.expect_end()


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_client_that_ends_without_saying_so(serve, is_whole):
    server = serve(target_of)
    with server.connect() as client:
        sealed = client.socket.sealed(request("/", "POST", content=b"content"))
        if not is_whole:
            sealed = sealed[:-1]
        client.plain.sendall(sealed)
        client.plain.shutdown(1)
        if is_whole:
            assert client.read_response().status == 200
        client.expect_gone()
    assert server.count("requests") == is_whole


def test_an_answer_that_is_cut_does_not_look_whole(serve):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
        yield b"the beginning"
        raise OSError("no more")

    server = serve(application, validate=False)
    with server.connect() as client:
        client.send(request(version="1.0"))
        client.read_head()
        with pytest.raises(ConnectionError):
            client.take_rest()
    server.log.expect("the application failed")


def test_drain(serve):
    gate = Gate()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/held":
            gate.hold()
        return target_of(environ, start_response)

    server = serve(application)
    idle, busy = server.connect(), server.connect()
    idle.ask()
    busy.send(request("/held"))
    gate.wait_entered()
    half = raw(server)
    half.send(first_flight()[:40])
    server.wait_count("connections", 3)
    server.server._worker.stop(PATIENCE)
    idle.expect_end()
    half.expect_gone()
    gate.open()
    response = busy.read_response()
    assert response.text == "/held" and response.closes
    busy.expect_end()


# In front of it


@pytest.mark.parametrize("together", [True, False])
def test_the_proxy_protocol_comes_before_tls(serve, together):
    server = serve(
        answering(lambda environ: environ["REMOTE_ADDR"]), proxy_protocol="v1", proxy_allow_from="*"
    )
    client = server.connect(shakes_hands=False)
    header = b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n"
    if together:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.socket.ssl.do_handshake()
        header += client.socket.outgoing.read()
    client.plain.sendall(header)
    client.shake_hands()
    assert client.ask().text == "192.0.2.1"


@pytest.mark.parametrize("part", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"])
def test_an_end_behind_a_part_of_a_request_is_seen_at_once(serve, part):
    server = serve(target_of, header_timeout=60, body_timeout=60)
    with server.connect() as client:
        secure = client.socket
        wire = secure.sealed(part)
        with contextlib.suppress(ssl.SSLError):
            secure.ssl.unwrap()
        secure.sock.sendall(wire + secure.outgoing.read())
        while secure.sock.recv(4096):
            pass
