"""PEP 3333: what stands in environ."""

import socket

import pytest

from support import answering, chunked, echo, request


@pytest.fixture
def environ_of(serve):
    """Send bytes (or a request made of the arguments) to a server, return the environ the application saw."""
    seen = []
    server = serve(answering(lambda environ: seen.append(dict(environ)) or "ok"))

    def ask(*arguments, **options):
        with server.connect() as client:
            if isinstance(arguments[0], bytes):
                client.send(arguments[0])
                response = client.read_response(arguments[0].split()[0].decode())
            else:
                response = client.ask(*arguments, **options)
        assert response.status == 200
        return seen.pop()

    ask.server = server
    return ask


def test_required_keys(environ_of):
    environ = environ_of("/a/b?c=d")
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/a/b"
    assert environ["QUERY_STRING"] == "c=d"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["SERVER_NAME"] == "127.0.0.1"
    assert environ["SERVER_PORT"] == str(environ_of.server.port)
    assert environ["HTTP_HOST"] == "test.example"
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.url_scheme"] == "http"
    assert callable(environ["wsgi.input"].read)
    assert callable(environ["wsgi.errors"].write)


def test_conventional_keys(environ_of):
    environ = environ_of("/a/b?c=d")
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == "/a/b?c=d"
    assert environ["SERVER_SOFTWARE"].startswith("fastwsgi")
    assert environ["wsgi.input_terminated"] is True
    assert callable(environ["wsgi.file_wrapper"])


def test_flags_are_true_to_fact(environ_of):
    environ = environ_of("/")
    assert environ["wsgi.multithread"] is (environ_of.server.threads > 1)
    assert environ["wsgi.multiprocess"] is False
    assert environ["wsgi.run_once"] is False


def test_types_are_exactly_str(environ_of):
    environ = environ_of("/%C3%A9?%C3%A9", "POST", [("X-Latin", "\xe9"), ("Content-Type", "a/b")], b"x")
    for key, value in environ.items():
        assert type(key) is str
        if "." not in key:
            assert type(value) is str, key


def test_environ_is_exactly_dict_and_new_for_each_request(serve):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        answer = f"{type(environ) is dict} {environ.get('REQUEST_METHOD')} {'test.mark' in environ}"
        environ.clear()
        environ["test.mark"] = 1
        return [answer.encode()]

    with serve(application, validate=False).connect() as client:
        assert client.ask().text == "True GET False"
        assert client.ask("/", "POST", content=b"x").text == "True POST False"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_method(environ_of, method):
    assert environ_of("/", method)["REQUEST_METHOD"] == method


@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
def test_methods_of_others(environ_of):
    assert environ_of("/", "PROPFIND")["REQUEST_METHOD"] == "PROPFIND"
    assert environ_of("/", "get")["REQUEST_METHOD"] == "get"
    assert environ_of("/", "X-1")["REQUEST_METHOD"] == "X-1"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/a%20b", "/a b"),
        ("/a+b", "/a+b"),
        ("/caf%C3%A9", "/caf\xc3\xa9"),
        ("/%ff%FE", "/\xff\xfe"),
        ("/%41%62%7e", "/Ab~"),
        ("/a%2Fb", "/a/b"),
        ("/a%3Fb?c", "/a?b"),
        ("/100%25", "/100%"),
        ("/%2541", "/%41"),
        ("//a//b/", "//a//b/"),
        ("/a/../b/./c", "/a/../b/./c"),
        ("/a;b=c,d", "/a;b=c,d"),
    ],
)
def test_path_info_is_percent_decoded_as_latin1(environ_of, target, path):
    environ = environ_of(target)
    assert environ["PATH_INFO"] == path
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == target
    assert environ["SCRIPT_NAME"] == ""


@pytest.mark.parametrize(
    ("target", "query"),
    [("/", ""), ("/?", ""), ("/?a=b&c", "a=b&c"), ("/?a%20b=%C3%A9+", "a%20b=%C3%A9+"), ("/?a?b/c", "a?b/c")],
)
def test_query_string_is_raw(environ_of, target, query):
    environ = environ_of(target)
    assert environ["QUERY_STRING"] == query
    assert environ["RAW_URI"] == target


def test_absolute_form_replaces_host(environ_of):
    environ = environ_of("http://other.example:81/a%20b?c", fields=[("Host", "ignored.example")])
    assert environ["HTTP_HOST"] == "other.example:81"
    assert environ["PATH_INFO"] == "/a b"
    assert environ["QUERY_STRING"] == "c"
    assert environ["RAW_URI"] == "http://other.example:81/a%20b?c"


def test_absolute_form_without_path(environ_of):
    environ = environ_of("http://other.example")
    assert environ["HTTP_HOST"] == "other.example"
    assert environ["PATH_INFO"] == "/"
    assert environ_of("http://other.example?a=b")["QUERY_STRING"] == "a=b"


def test_options_asterisk_has_no_path(environ_of):
    environ = environ_of("*", "OPTIONS")
    assert environ["PATH_INFO"] == ""
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == "*"


def test_repeated_field_lines_are_joined(environ_of):
    fields = [("X-A", "1"), ("Accept", "a/b"), ("x-a", "2"), ("Accept", "c/d, e/f"), ("X-A", "")]
    environ = environ_of("/", fields=fields)
    assert environ["HTTP_X_A"] == "1,2,"
    assert environ["HTTP_ACCEPT"] == "a/b,c/d, e/f"


def test_cookie_lines_are_joined_with_a_semicolon(environ_of):
    assert (
        environ_of("/", fields=[("Cookie", "a=1"), ("cookie", "b=2; c=3")])["HTTP_COOKIE"] == "a=1; b=2; c=3"
    )


def test_field_values(environ_of):
    environ = environ_of(
        b"GET / HTTP/1.1\r\nHost: h\r\nX-Space: \t a b\t \r\nX-Empty:\r\nX-None:v\r\nX-Latin: \xe9\r\n\r\n"
    )
    assert environ["HTTP_X_SPACE"] == "a b"
    assert environ["HTTP_X_EMPTY"] == ""
    assert environ["HTTP_X_NONE"] == "v"
    assert environ["HTTP_X_LATIN"] == "\xe9"


def test_names_with_underscores_are_dropped(environ_of):
    environ_of.server.log.allow("underscore")
    environ = environ_of("/", fields=[("X_Evil", "1"), ("X-Good", "2"), ("Content_Length", "5")])
    assert "HTTP_X_EVIL" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ
    assert "CONTENT_LENGTH" not in environ
    assert environ["HTTP_X_GOOD"] == "2"


def test_a_proxy_field_cannot_become_an_environment_variable(environ_of):
    environ = environ_of(
        "/", fields=[("Proxy", "http://evil"), ("Path-Info", "/evil"), ("Script-Name", "/evil")]
    )
    assert environ["PATH_INFO"] == "/"
    assert environ["SCRIPT_NAME"] == ""


def test_content_fields_absent(environ_of):
    environ = environ_of("/")
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        assert key not in environ


def test_content_fields_present(environ_of):
    environ = environ_of("/", "POST", [("Content-Type", "text/plain; charset=utf-8")], b"hello")
    assert environ["CONTENT_TYPE"] == "text/plain; charset=utf-8"
    assert environ["CONTENT_LENGTH"] == "5"


def test_content_of_length_zero(environ_of):
    assert environ_of("/", "POST", content=b"")["CONTENT_LENGTH"] == "0"


@pytest.mark.parametrize("content", [b"", b"x", b"hello world" * 1000])
def test_chunked_content_has_a_length(environ_of, content):
    fields = [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")]
    environ = environ_of("/", "POST", fields, chunked(content, trailer=b"X-Sum: 1\r\n"))
    assert environ["CONTENT_LENGTH"] == str(len(content))
    assert "HTTP_TRANSFER_ENCODING" not in environ
    assert "HTTP_X_SUM" not in environ
    assert environ["wsgi.input_terminated"] is True


def test_http10(environ_of):
    environ = environ_of("/", version="1.0")
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert "HTTP_HOST" not in environ
    assert environ_of("/", fields=[("Host", "h")], version="1.0")["HTTP_HOST"] == "h"


def test_remote_address(serve):
    server = serve(answering(lambda environ: f"{environ['REMOTE_ADDR']} {environ['REMOTE_PORT']}"))
    with server.connect() as client:
        host, port = client.socket.getsockname()
        assert client.ask().text == f"{host} {port}"
        assert client.ask().text == f"{host} {port}"


SERVER_AND_REMOTE = answering(
    lambda environ: "|".join(
        str(environ.get(key)) for key in ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT")
    )
)


def test_ipv6(serve):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    server = serve(SERVER_AND_REMOTE, host="::1")
    with server.connect() as client:
        port = client.socket.getsockname()[1]
        assert client.ask().text == f"[::1]|{server.port}|::1|{port}"


def test_unix_socket(serve, short_path):
    with serve(SERVER_AND_REMOTE, host=f"unix:{short_path}/socket").connect() as client:
        name, port, remote, remote_port = client.ask().text.split("|")
    assert name
    assert port.isdigit()
    assert remote == ""
    assert remote_port in ("", "None")


def test_errors_is_a_text_stream(serve):
    def complain(environ):
        environ["wsgi.errors"].write("")
        environ["wsgi.errors"].writelines([])
        environ["wsgi.errors"].flush()
        return "ok"

    assert serve(answering(complain)).ask().text == "ok"


def test_environ_survives_the_exchange(serve):
    kept = []
    server = serve(answering(lambda environ: kept.append(environ) or "ok"))
    with server.connect() as client:
        for number in range(50):
            client.ask(f"/{number}", fields=[("X-Number", number)])
    assert [environ["HTTP_X_NUMBER"] for environ in kept] == [str(number) for number in range(50)]
    assert [environ["PATH_INFO"] for environ in kept] == [f"/{number}" for number in range(50)]


def test_long_head(serve):
    server = serve(
        answering(lambda environ: f"{len(environ['QUERY_STRING'])} {len(environ['HTTP_AUTHORIZATION'])}")
    )
    response = server.ask("/?" + "q" * 8000, fields=[("Authorization", "a" * 16000)])
    assert response.text == "8000 16000"


def test_requests_do_not_leak_into_each_other(serve):
    with serve(echo).connect() as client:
        for _ in range(3):
            client.send(request("/", "POST", [("X-Once", "1")], b"content") + request("/"))
            assert client.read_response().text == "content"
            assert client.read_response().text == ""
