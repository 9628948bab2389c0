"""Hosts and paths with something of their own: applications, redirects, fixed answers, response fields."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from conftest import one_loop, with_threads
from fastwsgi.mounts import SECURITY_FIELDS
from functional.mounted import showing
from support import request, text

main = showing("main")


@pytest.fixture
def server(serve):
    return serve(
        main,
        validate=False,
        mount=["/blog=functional.mounted:blog", "api.example.com/=functional.mounted:api"],
        route=[
            "www.example.com/ redirect=https://example.com$uri status=301",
            "/old redirect=/new$rest$query status=308",
            "/elsewhere redirect=$scheme://$host:8443$path",
            "/gone respond='410 It has moved.'",
            "/empty respond=204",
            "*.canon.example/ canonical-host=canon.example",
            "/item rewrite='^/item/([0-9]+) /items/$1'",
            "/blog/fields header='X-Frame-Options: DENY' security-headers=on header='Server: mine'",
        ],
        header=["X-Everywhere: yes"],
        request_id=True,
    )


def at(host):
    return [("Host", host)]


@pytest.mark.parametrize(
    ("host", "target", "shown"),
    [
        ("a", "/", "main  / /"),
        ("a", "/blog", "blog /blog  /blog"),
        ("a", "/blog/", "blog /blog / /blog/"),
        ("a", "/blogs", "main  /blogs /blogs"),
        ("a", "/blog/x?y=/..", "blog /blog /x /blog/x?y=/.."),
        ("a", "//x/..//%62log/./x/", "blog /blog /x/ //x/..//%62log/./x/"),
        ("a", "/blog/%2541", "blog /blog /%41 /blog/%2541"),
        ("a", "http://b/blog/x", "blog /blog /x http://b/blog/x"),
        ("a", "http://api.example.com/blog/x", "api  /blog/x http://api.example.com/blog/x"),
        ("API.example.com.:80", "/blog/x", "api  /blog/x /blog/x"),
        ("a", "/item/12", "main  /items/12 /item/12"),
        ("a", "/item/x", "main  /item/x /item/x"),
        ("canon.example", "/x", "main  /x /x"),
    ],
)
def test_applications(server, host, target, shown):
    assert server.ask(target, fields=at(host)).text == shown


def test_the_whole_server_is_asked(serve):
    server = serve(main, validate=False, mount=["/blog=functional.mounted:blog"])
    assert server.ask("*", "OPTIONS").text == "main   *"


@pytest.mark.parametrize(
    ("host", "target", "status", "location"),
    [
        ("www.example.com", "/blog/x?y=1", 301, "https://example.com/blog/x?y=1"),
        ("WWW.Example.com:80", "/", 301, "https://example.com/"),
        ("a", "/old", 308, "/new"),
        ("a", "/old/x?", 308, "/new/x?"),
        ("a", "/old//x%20%3f/%C3%A9", 308, "/new/x%20%3F/%C3%A9"),
        ("a", "http://b/old/x", 308, "/new/x"),
        ("a:80", "/elsewhere/x?y", 302, "http://a:8443/elsewhere/x"),
        ("[::1]:80", "/elsewhere", 302, "http://[::1]:8443/elsewhere"),
        ("b.canon.example:1", "/x?y", 308, "http://canon.example/x?y"),
    ],
)
def test_redirects(server, host, target, status, location):
    with server.connect() as client:
        for method in ("GET", "HEAD"):
            response = client.ask(target, method, fields=at(host))
            assert (response.status, response["Location"]) == (status, location)
            assert response["X-Everywhere"] == "yes"
            assert not response.closes
        client.send(request(target, fields=at(host), content=b"x" * 100_000))
        assert client.read_response().status == status
    assert server.count("requests") == 0


@pytest.mark.parametrize("rest", ["/evil.example", "//evil.example", "/%2Fevil.example", "/./evil.example"])
def test_no_redirect_leads_to_another_host_by_its_path(serve, rest):
    server = serve(main, validate=False, route=["/go redirect=/$rest"])
    assert server.ask(f"/go{rest}")["Location"] == "/evil.example"


def test_a_redirect_to_a_host_that_nobody_named(server):
    response = server.ask("/elsewhere", version="1.0")
    assert response.status == 400
    server.log.expect("request without a Host field")


def test_fixed_answers(server):
    with server.connect() as client:
        response = client.ask("/gone/x")
        assert (response.status, response.text) == (410, "It has moved.\n")
        assert response["Content-Type"] == "text/plain; charset=utf-8"
        assert client.ask("/gone", "HEAD")["Content-Length"] == "14"
        response = client.ask("/empty")
        assert (response.status, response["Content-Length"], response["Content-Type"]) == (204, None, None)


def test_pipelined_answers_come_in_order(server):
    with server.connect() as client:
        client.send(request("/blog") + request("/gone") + request("/") + request("/old") + request("/blog/x"))
        assert [client.read_response().status for _ in range(5)] == [200, 410, 200, 308, 200]


def test_nothing_is_served(serve):
    server = serve(None, validate=False, mount=["/blog=functional.mounted:blog"])
    assert server.ask("/blog").status == 200
    with server.connect() as client:
        for target in ("/", "/x", "/blogs"):
            response = client.ask(target)
            assert (response.status, response.text) == (404, "nothing is served at this address\n")


@pytest.mark.parametrize("target", ["/..", "/blog/../../x", "/%2e%2e/x"])
def test_paths_that_lead_out_are_refused(server, target):
    response = server.ask(target)
    assert response.status == 400
    assert response["X-Everywhere"] == "yes"
    server.log.expect(".. segments")


def test_a_proxy_mounts_us_elsewhere(serve):
    """What it says of the host counts; its prefix is not ours, and nothing of ours is found in it."""
    server = serve(
        main,
        validate=False,
        mount=["/blog=functional.mounted:blog", "api.example.com/=functional.mounted:api"],
        forwarded_allow_ips="*",
    )
    prefix = ("SCRIPT_NAME", "/site")
    assert server.ask("/site/blog/x", fields=[prefix]).text == "blog /site/blog /x /site/blog/x"
    assert server.ask("/site//blog/x", fields=[prefix]).text == "blog /site/blog /x /site//blog/x"
    assert server.ask("/site", fields=[prefix]).text == "main /site  /site"
    assert server.ask("/blog/x", fields=[("SCRIPT_NAME", "/blog")]).text == "main /blog /x /blog/x"
    assert server.ask("/x", fields=[("X-Forwarded-Host", "api.example.com")]).text == "api  /x /x"


# Response fields.


def test_fields_are_added(server):
    response = server.ask("/blog/fields")
    assert response["X-Frame-Options"] == "DENY"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Everywhere"] == "yes"
    assert response["Server"] == "mine"
    assert server.ask("/blog")["X-Frame-Options"] is None


def test_fields_of_the_application_are_its_own(serve):
    fields = [("x-everywhere", "mine"), ("X-Everywhere", "twice"), ("SERVER", "app"), ("Vary", "Cookie")]
    server = serve(text(fields=fields), header=["X-Everywhere: yes", "Server: x", "Var: 1", "Variant: 2"])
    response = server.ask()
    assert response.all("X-Everywhere") == ["mine", "twice"]
    assert response["Server"] == "app"
    assert (response["Var"], response["Variant"], response["Vary"]) == ("1", "2", "Cookie")


def test_fields_are_added_to_errors(serve):
    def failing(environ, start_response):
        raise LookupError("on purpose")

    server = serve(failing, validate=False, header=["X-Everywhere: yes", "Server: x"])
    response = server.ask()
    assert (response.status, response["X-Everywhere"], response["Server"]) == (500, "yes", "x")
    server.log.expect("the application failed")
    with server.connect() as client:
        client.send("NO\r\n\r\n")
        response = client.read_response()
        assert (response.status, response["X-Everywhere"], response["Server"]) == (400, "yes", "x")
    server.log.expect("refused with 400")


def test_fields_of_a_request_do_not_stay(serve):
    """One that is refused before it has a route, on a connection that has had another."""
    server = serve(main, validate=False, route=["/x header='X-Only: here'"])
    with server.connect() as client:
        assert client.ask("/x")["X-Only"] == "here"
        client.send("GET /x HTTP/1.1\r\n\r\n")
        response = client.read_response()
        assert (response.status, response["X-Only"]) == (400, None)
    server.log.expect("Host")


# Logs and counts.


@one_loop
@with_threads(4)
def test_answers_are_logged_and_counted(serve, tmp_path):
    log = tmp_path / "access.log"
    server = serve(
        main,
        validate=False,
        route=["/old redirect=/new$rest", "/gone respond=410"],
        header=["X-Everywhere: yes"],
        access_logfile=str(log),
        access_logformat="%(r)s %(s)s %(B)s %({x-everywhere}o)s",
    )
    for target in ("/old/x", "/gone", "/"):
        server.ask(target)
    server.stop()
    lines = log.read_text().splitlines()
    assert lines[:2] == ["GET /old/x HTTP/1.1 302 0 -", "GET /gone HTTP/1.1 410 9 -"]
    assert re.fullmatch(r"GET / HTTP/1.1 200 \d+ yes", lines[2])


# The examples of docs/routes.md.


TEXT = (Path(__file__).parents[2] / "docs" / "routes.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def serve_example(serve, tmp_path, monkeypatch):
    """serve_example(number): with applications that show their names."""
    monkeypatch.syspath_prepend(tmp_path)

    def serve_example(number):
        options = tomllib.loads(EXAMPLES[number])
        for name in ("shop", "blog", "api"):
            source = f"from functional.mounted import showing\n\napp = showing('{name}')\n"
            (tmp_path / f"{name}.py").write_text(source)
            monkeypatch.delitem(sys.modules, name, raising=False)
        assert options.pop("app") == "shop:app"
        return serve(showing("shop"), validate=False, **options)

    return serve_example


@with_threads(4)
def test_the_first_example(serve_example):
    server = serve_example(0)
    assert server.ask("/x").text == "shop  /x /x"
    assert server.ask("/blog/x").text == "blog /blog /x /blog/x"
    assert server.ask("/blog/x", fields=at("example.com")).text == "blog /blog /x /blog/x"
    response = server.ask("/blog/x?y", fields=at("www.example.com"))
    assert (response.status, response["Location"]) == (308, "http://example.com/blog/x?y")
    response = server.ask("/old/x?y")
    assert (response.status, response["Location"]) == (301, "/new/x?y")
    response = server.ask("/gone")
    assert (response.status, response.text) == (410, "This page is no more.\n")


@with_threads(4)
def test_the_example_of_what_is_inherited(serve_example):
    server = serve_example(1)
    server.log.expect("/srv/static is no directory")
    assert server.ask("/x")["Content-Language"] == "en"
    response = server.ask("/static/x", fields=at("api.example.com"))
    assert (response.text, response["Content-Language"]) == ("api  /static/x /static/x", "en")
    response = server.ask("/admin/x", fields=at("example.com"))
    assert (response.text, response["X-Frame-Options"]) == ("shop  /admin/x /admin/x", "SAMEORIGIN")
    assert server.ask("/admin/x")["X-Frame-Options"] is None


@with_threads(4)
def test_the_example_of_rewriting(serve_example):
    server = serve_example(2)
    assert server.ask("/item/12/x").text == "shop  /items/12/x /item/12/x"
    response = server.ask("/articles/7/a%20b?c")
    assert (response.status, response["Location"]) == (301, "/blog/7/a%20b?c")
    assert server.ask("/articles").text == "shop  /articles /articles"
    assert len(EXAMPLES) == 3


def test_the_page_has_the_security_fields():
    assert re.findall(r"\| `([\w-]+)` \| `([\w-]+)` \|", TEXT) == list(SECURITY_FIELDS)
