"""The vectors of tests/vectors, sent to a running server: what the parser decides is what a client sees."""

import hashlib
import json
from pathlib import Path

from support import request

VECTORS = Path(__file__).parents[1] / "vectors"


def vectors(kind):
    """Name, octets and expectation of each vector that needs no limits of its own."""
    for file in sorted((VECTORS / kind).rglob("*.http")):
        expected = json.loads(file.with_suffix(".json").read_text())
        if "limits" not in expected:
            yield str(file.relative_to(VECTORS)), file.read_bytes(), expected


def application(environ, start_response):
    """Answers in fields, so that HEAD and GET look the same; the content is answered as its digest."""
    digest = hashlib.sha256(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))).hexdigest()
    fields = [
        ("X-Method", environ["REQUEST_METHOD"]),
        ("X-Target", environ["RAW_URI"]),
        ("X-Query", environ["QUERY_STRING"]),
        ("X-Host", environ.get("HTTP_HOST", "")),
        ("X-Content", digest),
        ("Content-Length", "0"),
    ]
    start_response("200 OK", fields)
    return []


def test_accepted(serve):
    server = serve(application, validate=False)
    server.log.allow("underscore")
    server.log.allow("refused with")  # what stays unfinished
    for name, octets, expected in vectors("accept"):
        with server.connect() as client:
            client.send(octets)
            client.half_close()
            if octets.startswith(b"CONNECT "):
                # The parser understands it; the server is no proxy.
                assert client.read_response().status == 501, name
                continue
            if expected["requests"][:1] and expected["requests"][0].get("target_is_https"):
                # And this connection has no TLS.
                assert client.read_response().status == 421, name
                continue
            for wanted in expected["requests"]:
                response = client.read_response()
                check(name, response, wanted)
                if wanted.get("keep_alive") is False:
                    assert response.closes, name
                    break
    assert server.ask().status == 200


def check(name, response, wanted):
    assert response.status == 200, name
    found = {
        "method": response["X-Method"],
        "target": response["X-Target"],
        "query": response["X-Query"],
        "content": response["X-Content"],
    }
    if "content" in wanted:
        wanted = {**wanted, "content": hashlib.sha256(wanted["content"].encode("latin-1")).hexdigest()}
    for key in found.keys() & wanted.keys():
        assert found[key] == (wanted[key] or ""), (name, key)
    if wanted.get("form") == "absolute" and "authority" in wanted:
        assert response["X-Host"] == wanted["authority"], name


def test_rejected(serve):
    server = serve(application, validate=False)
    server.log.allow("refused with")
    server.log.allow("left out")  # The log takes only so many of them in a second.
    for name, octets, expected in vectors("reject"):
        before = server.count("requests")
        with server.connect() as client:
            client.send(octets + request("/never"))
            for _ in range(expected.get("requests_before", 0)):
                assert client.read_response().status == 200, name
            response = client.read_response("HEAD" if octets.startswith(b"HEAD ") else "GET")
            assert response.status == expected["status"], name
            assert response.closes, name
            client.expect_end()
        assert server.count("requests") - before == expected.get("requests_before", 0), name
    assert server.ask().status == 200
