"""What stands before routes: addresses, rates, passwords, limits of content, error pages, maintenance."""

import base64
import hashlib
import time

import pytest

from conftest import POLLERS, serving, with_threads
from secure import SecureServer
from support import answering, chunked, echo, request, text, wait_until

ONE_THREAD, FOUR_THREADS = with_threads(1), with_threads(4)


@answering
def path_of(environ):
    return environ["PATH_INFO"]


@answering
def user_of(environ):
    return f"{environ.get('REMOTE_USER')} by {environ.get('AUTH_TYPE')}"


@answering
def size_of(environ):
    return len(environ["wsgi.input"].read(1 << 30))


def failing(environ, start_response):
    raise RuntimeError("on purpose")


def client(address):
    return [("X-Forwarded-For", address)]


def field(user, password):
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return [("Authorization", f"Basic {token}")]


@pytest.fixture
def guarded(serve):
    """serve, with the log lines of what is refused."""

    def start(app, **options):
        server = serve(app, **options)
        server.log.allow("refused with 4")
        server.log.allow("more log records")
        return server

    return start


@pytest.fixture
def passwords(tmp_path):
    """A password file: ann with sesame, zoë with ключ."""
    lines = []
    for user, password in (("ann", "sesame"), ("zoë", "ключ")):
        digest = hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", 10)
        lines.append(f"{user}:pbkdf2_sha256$10$salt${base64.b64encode(digest).decode()}\n")
    path = tmp_path / "passwords"
    path.write_text("".join(lines))
    return path


# No way round


SPELLINGS = (
    "/admin",
    "/admin/",
    "/admin/x",
    "/admin?x=1",
    "/admin/?../x",
    "//admin",
    "///admin///x",
    "/./admin",
    "/.//admin",
    "/x/../admin",
    "/x/y/../../admin",
    "/x/..//admin",
    "/admin/../admin",
    "/admin/.",
    "/admin/x/..",
    "/%61dmin",
    "/%61%64%6D%69%6e",
    "/%2Fadmin",
    "/admin%2Fx",
    "/admin%2fx",
    "/%2e/admin",
    "/%2E%2F/admin",
    "/x/%2e%2e/admin",
    "/x/.%2e/admin",
    "/x/%2e./%61dmin",
    "/x%2F..%2Fadmin",
    "/x/%2e%2e%2f%2f%61dmin/y",
    "http://other.example/admin",
    "HTTP://other.example:81//x/../admin",
    "http://other.example/%61dmin?",
)


@ONE_THREAD
def test_no_spelling_of_a_path_gets_round_a_guard(guarded):
    server = guarded(path_of, route=["/admin deny=*"], validate=False)
    with server.connect() as one:
        for target in SPELLINGS:
            assert one.ask(target).status == 403, target
            assert one.ask(target, "POST", content=b"").status == 403, target
    for target in SPELLINGS:
        if target.startswith("/"):
            assert server.ask(target, version="1.0").status == 403, f"{target}, without Host"


@ONE_THREAD
def test_what_is_not_beneath_a_guard_is_served(guarded):
    server = guarded(path_of, route=["/admin deny=*"], validate=False)
    for target, path in {
        "/": "/",
        "/administrator": "/administrator",
        "/Admin": "/Admin",
        "/admin/../x": "/x",
        "/x/admin": "/x/admin",
        "/admin%20": "/admin ",
        "/%2561dmin": "/%61dmin",
        "/admin;x": "/admin;x",
        "*": "",
    }.items():
        response = server.ask(target, "OPTIONS" if target == "*" else "GET")
        assert (response.status, response.text) == (200, path), target
    for target in ("/../admin", "/x/../../admin", "/%2e%2e/admin"):
        assert server.ask(target).status == 400, "out of the root"


@ONE_THREAD
def test_no_spelling_of_a_host_gets_round_a_guard(guarded):
    server = guarded(path_of, route=["example.com/admin deny=*"], validate=False)
    for host in (
        "example.com",
        "EXAMPLE.com",
        "example.com.",
        "example.com:80",
        "example.com:",
        "Example.Com.:8000",
    ):
        assert server.ask("/admin", fields=[("Host", host)]).status == 403, host
        assert server.ask("//x/../%61dmin", fields=[("Host", host)]).status == 403, host
        assert server.ask(f"http://{host}/admin").status == 403, f"{host} in the target"
        assert server.ask("/admin", version="1.0", fields=[("Host", host)]).status == 403, host
    for host in ("other.example", "example.com.other.example", "xexample.com"):
        assert server.ask("/admin", fields=[("Host", host)]).status == 200, host
    fields = [("Host", "example.com")]
    assert server.ask("http://other.example/admin", fields=fields).status == 200, "the target counts"


@ONE_THREAD
@pytest.mark.parametrize(("trusted", "status"), [("127.0.0.1", 403), ("none", 200)])
def test_a_host_that_a_proxy_names(guarded, trusted, status):
    server = guarded(path_of, route=["example.com/ deny=*"], forwarded_allow_ips=trusted)
    server.log.allow("are left out")
    assert server.ask(fields=[("X-Forwarded-Host", "example.com")]).status == status


# Addresses


@ONE_THREAD
@pytest.mark.parametrize(
    ("keys", "let_in", "refused"),
    [
        ("allow=10.0.0.0/8,::1", ["10.1.2.3", "::1", "::ffff:10.1.2.3"], ["11.0.0.1", "::2", "127.0.0.1"]),
        ("deny=10.0.0.0/8", ["11.0.0.1", "::1"], ["10.1.2.3"]),
        ("deny=10.1.0.0/16 allow=10.0.0.0/8", ["10.2.0.1"], ["10.1.2.3", "11.0.0.1"]),
        ("allow=10.1.0.0/16 deny=10.0.0.0/8", ["10.1.2.3"], ["10.2.0.1", "11.0.0.1"]),
        ("allow=*", ["10.1.2.3", "unknown"], []),
        ("allow=unix", ["unknown"], ["10.1.2.3"]),
    ],
)
def test_addresses(guarded, keys, let_in, refused):
    server = guarded(text(), route=[f"/ {keys}"])
    for address in let_in:
        fields = [("Forwarded", "for=unknown")] if address == "unknown" else client(address)
        assert server.ask(fields=fields).status == 200, address
    for address in refused:
        response = server.ask(fields=client(address))
        assert (response.status, response.reason) == (403, "Forbidden"), address


@ONE_THREAD
def test_only_a_trusted_proxy_says_who_the_client_is(guarded):
    server = guarded(text(), route=["/ allow=10.0.0.0/8"], forwarded_allow_ips="none")
    server.log.allow("are left out")
    assert server.ask(fields=client("10.1.2.3")).status == 403


# Rates


@FOUR_THREADS
def test_a_rate(guarded):
    server = guarded(text(), route=["/ rate=1/m burst=2"])
    assert [server.ask(fields=client("10.0.0.1")).status for _ in range(3)] == [200] * 3
    response = server.ask(fields=client("10.0.0.1"))
    assert (response.status, response.reason) == (429, "Too Many Requests")
    assert 50 < int(response["Retry-After"]) <= 60
    assert server.ask(fields=client("10.0.0.2")).status == 200


@ONE_THREAD
def test_whose_rate_it_is(guarded):
    """A route that inherits a rate shares it; one with the same of its own does not."""
    server = guarded(text(), route=["/ rate=1/m", "/inner allow=*", "/own rate=1/m", "/free rate=none"])
    assert server.ask("/").status == 200
    assert server.ask("/inner").status == 429
    assert [server.ask("/own").status for _ in range(2)] == [200, 429]
    assert [server.ask("/free").status for _ in range(3)] == [200] * 3


@ONE_THREAD
def test_what_is_refused_sends_no_content(guarded):
    server = guarded(size_of, route=["/ rate=1/h"])
    assert server.ask().status == 200
    with server.connect() as one:
        one.send(request("/", "POST", [("Content-Length", 1 << 20), ("Expect", "100-continue")]))
        response = one.read_response()
        assert (response.status, response.interim) == (429, [])
        one.expect_end()


@ONE_THREAD
def test_probes_are_let_through(guarded):
    server = guarded(text(), route=["/ deny=* rate=1/h auth=none"], health="/healthz", ready="/readyz")
    for _ in range(3):
        assert server.ask("/healthz").status == server.ask("/readyz").status == 200


# The connection after a refusal


@FOUR_THREADS
def test_the_connection_is_kept(guarded):
    server = guarded(path_of, route=["/admin deny=*"])
    with server.connect() as one:
        one.send(request("/admin") + request("/x") + request("/admin", "HEAD") + request("/y"))
        assert one.read_response().status == 403
        assert one.read_response().text == "/x"
        assert one.read_response("HEAD").status == 403
        assert one.read_response().text == "/y"
        response = one.ask("/admin", version="1.0", fields=[("Connection", "keep-alive")])
        assert (response.status, response["Connection"]) == (403, "keep-alive")
        assert one.ask("/z").text == "/z"
        one.send(request("/admin", "POST", content=b"some"))
        response = one.read_response()
        assert (response.status, response["Connection"]) == (403, "close")
        one.expect_end()


@ONE_THREAD
def test_many_that_are_refused_in_one_turn(guarded):
    server = guarded(path_of, route=["/admin deny=*"], limit_request_line=100)
    with server.connect() as one:
        one.send(request("/admin") * 50 + request("/x"))
        assert [one.read_response().status for _ in range(50)] == [403] * 50
        assert one.read_response().text == "/x"


# Passwords


@FOUR_THREADS
def test_who_has_a_password_is_let_in(guarded, passwords):
    server = guarded(user_of, route=[f"/admin auth={passwords} realm='the \"back\" office'"])
    with server.connect() as one:
        response = one.ask("/admin")
        assert response.status == 401
        assert response["WWW-Authenticate"] == 'Basic realm="the \\"back\\" office", charset="UTF-8"'
        assert one.ask("/admin", fields=field("ann", "sesame")).text == "ann by Basic"
        assert one.ask("/admin/x", fields=field("zoë", "ключ")).text == "zoÃ« by Basic"
        for wrong in (field("ann", "x"), field("bob", "sesame"), [("Authorization", "Bearer x")]):
            response = one.ask("/admin", fields=wrong)
            assert (response.status, "Basic" in response["WWW-Authenticate"]) == (401, True)
        response = one.ask("/admin", "HEAD", fields=field("ann", "x"))
        assert response.status == 401
        assert one.ask("/", fields=field("ann", "x")).text == "None by None"
        response = one.ask("/admin", "POST", fields=field("ann", "x"), content=b"some")
        assert response.status == 401
        assert one.ask("/admin", "POST", fields=field("ann", "sesame"), content=b"some").status == 200
    server.wait_count("connections", 0)


@ONE_THREAD
def test_guessing(guarded, passwords):
    server = guarded(user_of, route=[f"/ auth={passwords}"])
    with server.connect() as one:
        statuses = [one.ask(fields=field("ann", str(guess))).status for guess in range(11)]
        assert statuses == [401] * 10 + [429]
        response = one.ask(fields=field("ann", "sesame"))
        assert response.status == 429
        assert 1 <= int(response["Retry-After"]) <= 6


@ONE_THREAD
def test_a_route_without_the_password_of_the_one_around_it(guarded, passwords):
    server = guarded(user_of, route=[f"/ auth={passwords}", "/public auth=none"])
    assert server.ask("/").status == 401
    assert server.ask("/x").status == 401
    assert server.ask("/public/x").text == "None by None"
    assert server.ask("/public/../x").status == 401


@FOUR_THREADS
def test_passwords_before_what_the_loop_answers(guarded, passwords, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a file")
    server = guarded(
        user_of,
        route=[
            f"/ auth={passwords}",
            f"/files static={tmp_path}/files",
            f"/both static={tmp_path}/files fallback=app",
            "/old redirect=/new",
            "/gone respond='410 It has moved.'",
        ],
    )
    with server.connect() as one:
        for target, status, content in (
            ("/files/a.txt", 200, "a file"),
            ("/files/b.txt", 404, "there is no such file\n"),
            ("/both/a.txt", 200, "a file"),
            ("/both/b.txt", 200, "ann by Basic"),
            ("/old", 302, ""),
            ("/gone", 410, "It has moved.\n"),
            ("/", 200, "ann by Basic"),
        ):
            assert one.ask(target).status == 401, target
            assert one.ask(target, fields=field("ann", "x")).status == 401, target
            response = one.ask(target, fields=field("ann", "sesame"))
            assert (response.status, response.text) == (status, content), target
        one.send(
            b"".join(
                request(target, fields=field("ann", "sesame"))
                for target in ("/files/a.txt", "/", "/old", "/gone")
            )
        )
        assert [one.read_response().status for _ in range(4)] == [200, 200, 302, 410]
        response = one.ask("/files/a.txt", "HEAD", fields=field("ann", "sesame"))
        assert (response.status, response["Content-Length"]) == (200, "6")


@pytest.fixture(params=POLLERS)
def secure(request):
    """serve, with a server that speaks TLS."""
    yield from serving(request, SecureServer, request.param, 4)


def test_guards_over_tls(secure, passwords, tmp_path):
    (tmp_path / "a.txt").write_text("a file")
    page = tmp_path / "sorry.html"
    page.write_text("sorry" * 10_000)
    server = secure(
        user_of,
        route=[
            f"/ error-page=401,403={page}",
            "/admin deny=*",
            f"/user auth={passwords}",
            f"/user/files static={tmp_path}",
        ],
    )
    server.log.allow("refused with 4")
    with server.connect() as one:
        for target, fields, status, content in (
            ("/", [], 200, "None by None"),
            ("/admin", [], 403, page.read_text()),
            ("/user", [], 401, page.read_text()),
            ("/user", field("ann", "x"), 401, page.read_text()),
            ("/user", field("ann", "sesame"), 200, "ann by Basic"),
            ("/user/files/a.txt", field("ann", "sesame"), 200, "a file"),
            ("/user/files/a.txt", field("ann", "x"), 401, page.read_text()),
        ):
            response = one.ask(target, fields=fields)
            assert (response.status, response.text) == (status, content), target


# Limits of content


@FOUR_THREADS
def test_a_limit_of_content_for_a_route(guarded):
    server = guarded(
        size_of,
        route=["/small limit-request-body=10", "/large limit-request-body=1m"],
        limit_request_body=1000,
    )
    large, larger = b"x" * 300_000, b"x" * ((1 << 20) + 1)
    for target, content, status in (
        ("/small", b"x" * 10, 200),
        ("/small", b"x" * 11, 413),
        ("/", b"x" * 1000, 200),
        ("/", b"x" * 1001, 413),
        ("/large", large, 200),
        ("/large/x", large, 200),
        ("/large/../small", large, 413),
        ("/large", larger, 413),
    ):
        fields = [("Expect", "100-continue"), ("Content-Length", len(content))]
        with server.connect() as one:
            one.send(request(target, "POST", fields))
            if status == 200:
                assert one.read_head().status == 100
                one.send(content)
                assert one.read_response().text == str(len(content)), target
            else:
                response = one.read_response()
                assert (response.status, response.interim) == (status, []), target
        with server.connect() as one:
            one.send(request(target, "POST", [("Transfer-Encoding", "chunked")]) + chunked(content[:900_000]))
            if target == "/large" and status == 413:
                one.send(chunked(b"")[:0])
                assert one.read_response().text == "900000"
            else:
                assert one.read_response().status == status, target


# Error pages


@ONE_THREAD
def test_error_pages(guarded, tmp_path):
    (tmp_path / "sorry.html").write_text("<p>sorry</p>")
    (tmp_path / "no.json").write_text('{"error": "no"}')
    server = guarded(
        failing,
        route=[
            f"/ error-page=403,500,400={tmp_path}/sorry.html",
            f"/api error-page=403={tmp_path}/no.json deny=*",
            "/x deny=*",
        ],
    )
    server.log.allow("on purpose")
    for target, status, content, kind in (
        ("/x", 403, "<p>sorry</p>", "text/html; charset=utf-8"),
        ("/api", 403, '{"error": "no"}', "application/json"),
        ("/", 500, "<p>sorry</p>", "text/html; charset=utf-8"),
        ("/api/../", 500, "<p>sorry</p>", "text/html; charset=utf-8"),
        ("/%zz", 400, "<p>sorry</p>", "text/html; charset=utf-8"),
    ):
        response = server.ask(target)
        assert (response.status, response.text, response["Content-Type"]) == (status, content, kind), target
    response = server.ask("/x", "HEAD")
    assert (response.status, response["Content-Length"], response.content) == (403, "12", b"")
    response = server.ask("/", "PUT", fields=[("Content-Length", "x")])
    assert (response.status, response.text) == (400, "<p>sorry</p>")


@ONE_THREAD
def test_error_pages_of_files_and_of_nothing(guarded, tmp_path):
    (tmp_path / "sorry.html").write_text("<p>sorry</p>")
    (tmp_path / "a.txt").write_text("a file")
    server = guarded(
        None,
        validate=False,
        route=[
            f"/ error-page=404,405={tmp_path}/sorry.html",
            f"/files static={tmp_path}",
            "/gone respond=404",
        ],
    )
    for target, method, status in (
        ("/", "GET", 404),
        ("/files/b.txt", "GET", 404),
        ("/files/a.txt", "POST", 405),
        ("/gone", "GET", 404),
    ):
        response = server.ask(target, method)
        assert (response.status, response.text) == (status, "<p>sorry</p>"), target
        assert response["Content-Type"] == "text/html; charset=utf-8"
    response = server.ask("/", "HEAD")
    assert (response.status, response["Content-Length"], response.content) == (404, "12", b"")
    assert server.ask("/files/a.txt").text == "a file"


# Challenges for certificates


@ONE_THREAD
def test_challenges_are_neither_guarded_nor_redirected(guarded, tmp_path, passwords):
    (tmp_path / "token").write_text("token.thumbprint")
    server = guarded(
        path_of,
        acme_dir=str(tmp_path),
        route=[
            f"/ deny=* auth={passwords} maintenance={tmp_path} error-page=404={passwords}",
            "www.example.com redirect=https://example.com$uri",
            "/.well-known/acme-challenge deny=*",
        ],
    )
    server.log.allow("cannot be sent")
    target = "/.well-known/acme-challenge/token"
    for host in ("any.example", "www.example.com", "WWW.example.com.:80"):
        response = server.ask(target, fields=[("Host", host)])
        assert (response.status, response.text) == (200, "token.thumbprint"), host
        assert server.ask("/", fields=[("Host", host)]).status == 503
    assert server.ask(target, version="1.0").text == "token.thumbprint"
    assert server.ask("/.well-known/acme-challenge/other").text == "there is no such file\n"
    assert server.ask("/.well-known/acme-challenge/../other").status == 503
    assert server.ask("/.well-known/acme-challengex").status == 503


# Maintenance


@FOUR_THREADS
def test_maintenance(guarded, tmp_path, monkeypatch):
    monkeypatch.setattr("fastwsgi.guards.PAUSE", 0.05)
    page = tmp_path / "closed.html"
    server = guarded(
        path_of,
        route=[f"/ maintenance={page} maintenance-allow=10.0.0.1", "/open maintenance=none"],
        health="/healthz",
    )
    assert server.ask().status == 200
    page.write_text("<p>closed</p>")
    began = time.monotonic()
    wait_until(lambda: server.ask().status == 503, "closed")
    assert time.monotonic() - began < 5
    with server.connect() as one:
        for _ in range(2):
            response = one.ask("/x")
            assert (response.status, response.text, response["Retry-After"]) == (503, "<p>closed</p>", "60")
        assert response["Content-Type"] == "text/html; charset=utf-8"
        assert one.ask("/healthz").status == 200
        assert one.ask("/open").text == "/open"
        assert one.ask("/y", fields=client("10.0.0.1")).text == "/y"
        page.write_text("<p>still closed</p>")
        wait_until(lambda: one.ask().text == "<p>still closed</p>", "the other page")
        page.write_text("")
        wait_until(lambda: one.ask().text == "Service Unavailable\n", "no page")
        page.unlink()
        wait_until(lambda: one.ask().status == 200, "open again")


@ONE_THREAD
def test_a_maintenance_that_is_there_at_the_start(guarded, tmp_path):
    server = guarded(text(), route=[f"/ maintenance={tmp_path}"])
    server.log.allow("cannot be sent")
    assert server.ask().text == "Service Unavailable\n", "a directory is there too"


@FOUR_THREADS
@pytest.mark.parametrize("size", [1000, 100_000])
def test_content_waits_for_the_password_and_what_comes_after_it(guarded, passwords, tmp_path, size):
    route = [f"/both auth={passwords} static={tmp_path} fallback=app"]
    server = guarded(echo, route=route)
    response = server.ask("/both/x", "POST", fields=field("ann", "sesame"), content=b"x" * size)
    assert (response.status, response.content) == (200, b"x" * size)
