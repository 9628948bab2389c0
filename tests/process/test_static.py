"""Files that the command serves: as nginx serves them, and when they change or cannot be read meanwhile."""

import http.client
import os
import re
import resource
import socket
import sys
from email.utils import formatdate

import pytest

from process.test_proxies import free_port, needs, run_proxy  # noqa: F401
from secure import SecureClient, certificate
from support import PATIENCE, Client, request, wait_until

WHEN = 784111777
DATE, BEFORE, AFTER = (formatdate(WHEN + shift, usegmt=True) for shift in (0, -1, 1))
SIZES = {"empty.txt": 0, "small.txt": 100, "script.js": 3000, "large.bin": 100_000, "huge.bin": 3_000_000}


def tag(size, weak=""):
    return f'{weak}"{WHEN:x}-{size:x}"'


@pytest.fixture
def tree(tmp_path):
    """A directory of files, each of an hour long ago, with octets by which their parts can be told."""
    root = tmp_path / "root"
    for directory in ("sub", "empty", "a b", "sub/deep"):
        (root / directory).mkdir(parents=True)
    files = SIZES | {"sub/index.html": 50, "a b/c d.txt": 10, "sub/deep/x.css": 20, "ü.txt": 7, "%41.txt": 9}
    for name, size in files.items():
        (root / name).write_bytes(content_of(size))
    (root / "script.js.gz").write_bytes(b"gzip" * 100)
    (tmp_path / "secret.txt").write_text("secret")
    for path in root.rglob("*"):
        os.utime(path, (WHEN, WHEN))
    return root


def content_of(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.fixture
def serve_static(start, tree):
    def serve(*options, **others):
        return start(*options, "--static", f"/={tree}", **others).ports[0]

    return serve


def ask(port, target, method="GET", fields=(), **options):
    with Client(("127.0.0.1", port)) as client:
        return client.ask(target, method, fields, **options)


# ---- as nginx has it ----

NGINX = """
user root;
worker_processes 1;
pid nginx.pid;
events {{}}
http {{
    access_log off;
    types {{ text/html html; text/plain txt; text/css css; text/javascript js; }}
    default_type application/octet-stream;
    charset utf-8;
    charset_types text/html text/plain text/css text/javascript;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        absolute_redirect off;
        expires 1h;
        if_modified_since before;
        gzip_static on;
        gzip_vary on;
    }}
}}
"""

FIELDS = [
    *("Content-Type", "Content-Length", "Content-Range", "Content-Encoding", "ETag", "Last-Modified"),
    *("Accept-Ranges", "Vary", "Cache-Control"),
]

PATHS = [
    *(
        "/small.txt",
        "/empty.txt",
        "/script.js",
        "/large.bin",
        "/sub/",
        "/sub",
        "/sub?a=b&c",
        "/empty/",
        "/empty",
    ),
    *(
        "/",
        "/nothing",
        "/nothing/",
        "/small.txt/",
        "/small.txt/x",
        "/SMALL.TXT",
        "/%73mall.txt",
        "/sub/./index.html",
    ),
    *("/sub//index.html", "//small.txt", "/sub/../small.txt", "/sub/%2e%2e/small.txt", "/sub%2findex.html"),
    *(
        "/sub/deep/../../small.txt",
        "/a%20b/c%20d.txt",
        "/a%20b",
        "/%C3%BC.txt",
        "/%2541.txt",
        "/%41.txt",
        "/sub/.",
    ),
    *("/sub/..", "/..", "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/sub/../../secret.txt"),
    *(
        "/small.txt%00",
        "/small.txt%00.js",
        "/sub%5c..%5c..%5csecret.txt",
        "/small.txt?x=/../y",
        "/small.txt;a=b",
    ),
    *("/.", "/...", "/sub/%2e", "/%2f", "/" + "x" * 300, "/" + "x/" * 1000),
]
CONDITIONS = [
    *(
        [("If-Modified-Since", date)]
        for date in (DATE, BEFORE, AFTER, "nonsense", "Sunday, 06-Nov-94 08:49:37 GMT")
    ),
    *([("If-Unmodified-Since", date)] for date in (DATE, BEFORE, AFTER)),
    *(
        [("If-None-Match", value)]
        for value in (tag(100), tag(100, "W/"), '"x"', f'"x", {tag(100)}', "*", "nonsense")
    ),
    *(
        [("If-Match", value)]
        for value in (tag(100), tag(100, "W/"), '"x"', f'"x", {tag(100)}', "*", "nonsense")
    ),
    [("If-Match", tag(100)), ("If-None-Match", tag(100))],
    [("If-Match", '"x"'), ("If-None-Match", tag(100))],
    [("If-None-Match", '"x"'), ("If-Modified-Since", DATE)],
    [("If-None-Match", tag(100)), ("If-Modified-Since", DATE)],
]
RANGES = [
    *(
        "bytes=0-9",
        "bytes=50-",
        "bytes=-10",
        "bytes=-1000",
        "bytes=99-99",
        "bytes=100-",
        "bytes=100-200",
        "bytes=-0",
    ),
    *("bytes=5-2", "bytes=0-0,-1", "bytes=0-9,20-29", "bytes=20-29,0-9", "bytes=0-9,5-14", "bytes=0-49,0-49"),
    *("bytes=0-,0-", "bytes=0-9,200-", "bytes=200-,300-", "bytes= 0 - 9", "bytes=x"),
    *("bytes=", "bytes", "bytes=0", "bytes=0-9;", "items=0-9", "BYTES=0-9", "bytes=0-99999999999999999"),
]
CODINGS = [
    *(
        "gzip",
        "GZIP",
        "gzip;q=0",
        "gzip;q=0.5",
        "gzip, br",
        "deflate, gzip;q=1.0, *;q=0.5",
        "identity",
        "br",
        "",
    ),
    *("*;q=0, gzip", "gzip;q=0.000"),
]


def table():
    """(target, method, fields) of everything that is compared."""
    for path in PATHS:
        yield path, "GET", []
        yield path, "HEAD", []
    for fields in CONDITIONS:
        yield "/small.txt", "GET", fields
        yield "/small.txt", "HEAD", fields
    for value in RANGES:
        yield "/small.txt", "GET", [("Range", value)]
        yield "/large.bin", "GET", [("Range", value)]
        yield "/empty.txt", "GET", [("Range", value)]
    for condition in (tag(100), tag(100, "W/"), '"x"', DATE, BEFORE, AFTER):
        yield "/small.txt", "GET", [("Range", "bytes=0-9"), ("If-Range", condition)]
    for value in CODINGS:
        yield "/script.js", "GET", [("Accept-Encoding", value)]
        yield "/script.js", "HEAD", [("Accept-Encoding", value)]
        yield "/small.txt", "GET", [("Accept-Encoding", value)]
    yield "/script.js", "GET", [("Accept-Encoding", "gzip"), ("If-None-Match", tag(400))]
    yield "/script.js", "GET", [("Accept-Encoding", "gzip"), ("If-None-Match", tag(3000))]
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        yield "/small.txt", method, []


def heard(response):
    """What matters of an answer; the boundary between parts is the server's own."""
    content = response.content
    fields = {name: response[name] for name in FIELDS if response[name] is not None}
    if response.status == 206:
        fields.pop("Accept-Ranges", None)  # which goes without saying
    if response.status in (301, 416):
        return response.status, {name: response[name] for name in ("Location", "Content-Range")}
    if response.status not in (200, 206, 304):
        return response.status
    found = re.fullmatch("multipart/byteranges; boundary=(.*)", fields.get("Content-Type", ""))
    if found:
        assert len(found[1]) == 20
        content = content.replace(found[1].encode(), b"boundary")
        fields["Content-Type"] = "multipart"
    return response.status, fields, content


@needs("nginx")
def test_as_nginx(serve_static, run_proxy, tree):  # noqa: F811
    port = free_port()
    run_proxy("nginx", NGINX.format(port=port, root=tree), port)
    ours = serve_static("--keep-alive-requests", "100000")
    different = []
    for target, method, fields in table():
        answers = [heard(ask(one, target, method, fields)) for one in (ours, port)]
        if fields[:1] == [("Accept-Encoding", "gzip")] or "Content-Encoding" in str(answers):
            # Of a sidecar nginx sends no parts.
            for answer in answers:
                if isinstance(answer, tuple):
                    answer[1].pop("Accept-Ranges", None)
        if answers[0] != answers[1]:
            different.append((method, target, fields, *answers))
    assert not different, "\n".join(map(str, different))


def test_where_the_standard_is_followed_and_not_nginx(serve_static):
    port = serve_static()
    # Empty elements of a list are none (5.6.1.2).
    assert ask(port, "/small.txt", "GET", [("Range", "bytes=,0-9,")]).status == 206
    # A date that is none is no condition (13.1.4).
    assert ask(port, "/small.txt", "GET", [("If-Unmodified-Since", "nonsense")]).status == 200
    # A part of what is sent in a coding is one of its octets (14.1.2).
    response = ask(port, "/script.js", "GET", [("Accept-Encoding", "gzip"), ("Range", "bytes=4-7")])
    assert (response.status, response.content, response["Content-Encoding"]) == (206, b"gzip", "gzip")
    # A range is for GET alone (RFC 9110, 14.2).
    assert ask(port, "/small.txt", "HEAD", [("Range", "bytes=0-9")]).status == 200
    # If-None-Match is what counts (13.1.3).
    fields = [("If-None-Match", tag(100)), ("If-Modified-Since", BEFORE)]
    assert ask(port, "/small.txt", "GET", fields).status == 304
    # Who is not allowed is told what is (15.5.6).
    assert ask(port, "/small.txt", "POST")["Allow"] == "GET, HEAD"


# ---- parts ----


@pytest.mark.parametrize("name", ["small.txt", "large.bin", "huge.bin"])
def test_parts(serve_static, name):
    port, whole = serve_static(), content_of(SIZES[name])
    last = len(whole) - 1
    response = ask(port, f"/{name}", "GET", [("Range", f"bytes=3-50,60-60,-20,{last}-")])
    assert response.status == 206
    boundary = response["Content-Type"].partition("boundary=")[2].encode()
    preamble, *parts, end = response.content.split(b"\r\n--" + boundary)
    assert (preamble, end) == (b"", b"--\r\n")
    ends = [(3, 51), (60, 61), (len(whole) - 20, len(whole)), (last, last + 1)]
    for part, (start, stop) in zip(parts, ends, strict=True):
        head, _, content = part.partition(b"\r\n\r\n")
        assert f"Content-Range: bytes {start}-{stop - 1}/{len(whole)}".encode() in head
        assert content == whole[start:stop]


def test_range_bombs_get_the_whole_file_once(serve_static):
    port = serve_static()
    for value in ("0-," * 1300, "0-,0-", ",".join(f"{i}-" for i in range(17)), "5-6," * 17):
        response = ask(port, "/large.bin", "GET", [("Range", f"bytes={value}")])
        assert (response.status, response["Content-Length"]) == (200, "100000")


def test_large_files_in_a_pipeline_and_to_a_slow_client(serve_static):
    port = serve_static()
    targets = [
        "/huge.bin",
        "/small.txt",
        "/large.bin",
        "/nothing",
        "/huge.bin",
        "/empty.txt",
        "/small.txt",
    ] * 2
    with Client(("127.0.0.1", port), receive_buffer=65536) as client:
        client.send(b"".join(map(request, targets)))
        for target in targets:
            response = client.read_response()
            assert response.status == (404 if target == "/nothing" else 200)
            if response.status == 200:
                assert response.content == content_of(SIZES[target[1:]])


# ---- what is no file, or may not be read ----


def test_what_is_no_file(serve_static, tree, monkeypatch):
    os.mkfifo(tree / "fifo")
    monkeypatch.chdir(tree)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        (tree / "out.txt").symlink_to("../secret.txt")
        (tree / "in.txt").symlink_to("small.txt")
        port = serve_static()
        assert ask(port, "/fifo").status == ask(port, "/socket").status == 404
        assert ask(port, "/out.txt").status == 403
        if sys.platform == "linux":
            assert ask(port, "/in.txt").content == content_of(100)


def test_what_may_not_be_read(start, tree, tmp_path):
    if os.geteuid() == 0:
        for directory in (tmp_path, *tmp_path.parents):
            directory.chmod(directory.stat().st_mode | 0o055)
    (tree / "small.txt").chmod(0)
    (tree / "sub").chmod(0o711)
    (tree / "empty").chmod(0)
    user = ("--user", "nobody") if os.geteuid() == 0 else ()
    server = start(*user, "--static", f"/={tree}")
    port = server.ports[0]
    assert ask(port, "/small.txt").status == 403
    assert "may not" in ask(port, "/small.txt").text
    server.wait_said("a file cannot be served")
    server.wait_said("GET /small.txt")
    # It may be searched, though not read.
    assert ask(port, "/sub").status == 301
    assert ask(port, "/sub/index.html").status == 200
    assert ask(port, "/empty/x").status == 403
    (tree / "empty").chmod(0o755)
    (tree / "sub").chmod(0o755)


def test_without_descriptors_left(start, tree):
    for i in range(200):
        (tree / f"{i}.bin").write_bytes(b"x" * 40_000)
    server = start("--threads", "1", "--static", f"/={tree}")
    worker = server.worker
    port = server.ports[0]
    with Client(("127.0.0.1", port)) as client:
        for i in range(100):
            assert client.ask(f"/{i}.bin").status == 200
        used = len(os.listdir(f"/proc/{worker}/fd"))
        assert used > 100
        _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (used, hard))
        # Descriptors that are only kept are given up.
        for i in range(100, 200):
            assert client.ask(f"/{i}.bin").status == 200
        used = len(os.listdir(f"/proc/{worker}/fd"))
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (10, hard))
        assert client.ask("/small.txt").status == 503
        server.wait_said("Too many open files")
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))
        assert client.ask("/small.txt").status == 200


# ---- files that change ----


def test_changes_are_seen(serve_static, tree):
    port = serve_static()
    assert ask(port, "/small.txt").content == content_of(100)
    assert ask(port, "/large.bin").content == content_of(100_000)
    (tree / "small.txt").write_bytes(b"new")
    (tree / "new").write_bytes(b"y" * 50_000)
    (tree / "new").replace(tree / "large.bin")
    wait_until(lambda: ask(port, "/small.txt").content == b"new", "the new content")
    wait_until(lambda: ask(port, "/large.bin").content == b"y" * 50_000, "the new file")
    (tree / "small.txt").unlink()
    wait_until(lambda: ask(port, "/small.txt").status == 404, "the end of it")


def test_a_file_that_is_replaced_or_deleted_is_sent_to_its_end(serve_static, tree):
    port = serve_static()
    for change in (
        lambda: (tree / "huge.bin").unlink(),
        lambda: (tree / "small.txt").replace(tree / "huge.bin"),
    ):
        (tree / "huge.bin").write_bytes(content_of(3_000_000) * 3)
        wait_until(lambda: ask(port, "/huge.bin", "HEAD")["Content-Length"] == "9000000", "the new file")
        with Client(("127.0.0.1", port), receive_buffer=65536) as client:
            client.send(request("/huge.bin"))
            client.receive()
            change()
            assert client.read_response().content == content_of(3_000_000) * 3


def test_a_file_that_becomes_shorter_ends_with_a_reset(start, tree):
    (tree / "huge.bin").write_bytes(b"x" * 30_000_000)
    server = start("--static", f"/={tree}")
    with Client(("127.0.0.1", server.ports[0]), receive_buffer=4096) as client:
        client.send(request("/huge.bin"))
        client.receive()
        os.truncate(tree / "huge.bin", 10_000)
        with pytest.raises(ConnectionResetError):
            client.read_response()
    server.wait_said("a file became shorter while it was sent")


# ---- over TLS ----


def test_over_tls(start, tree, tmp_path):
    certfile, keyfile = certificate()
    (tmp_path / "handing_app.py").write_text(APPLICATION)
    server = start(
        *("--certfile", str(certfile), "--keyfile", str(keyfile), "--bind", "127.0.0.1:0"),
        *("--static", f"/s={tree}", "--sendfile-root", str(tree), "handing_app:application"),
        started=False,
    )
    server.wait_said("Ctrl-C")
    port = int(re.search(r"https://127.0.0.1:(\d+)", server.stderr)[1])
    whole = content_of(3_000_000)
    with SecureClient(("127.0.0.1", port)) as client:
        for name, size in SIZES.items():
            assert client.ask(f"/s/{name}").content == content_of(size)
            assert client.ask(f"/s/{name}", "HEAD")["Content-Length"] == str(size)
        assert client.ask("/s/huge.bin", fields=[("Range", "bytes=2000000-")]).content == whole[2_000_000:]
        assert client.ask("/s/small.txt", fields=[("If-None-Match", tag(100))]).status == 304
        for name in ("small.txt", "huge.bin"):
            plain = content_of(SIZES[name])
            response = client.ask(f"/s/{name}", fields=[("Range", "bytes=5-20,50-60,-7")])
            assert [part.partition(b"\r\n\r\n")[2] for part in response.content.split(b"\r\n--")[1:4]] == [
                *(plain[5:21], plain[50:61], plain[-7:]),
            ]
        targets = ["/s/huge.bin", f"/X-Sendfile{tree}/large.bin", "/", "/s/nothing", "/s/small.txt"] * 2
        client.send(b"".join(map(request, targets)))
        sizes = [3_000_000, 100_000, 3, len("there is no such file\n"), 100] * 2
        assert [len(client.read_response().content) for _ in targets] == sizes
        assert client.ask("/s/huge.bin", fields=[("Connection", "close")]).content == whole
        client.expect_end()


# ---- what the application hands over ----

APPLICATION = """
def application(environ, start_response):
    how, _, path = environ["PATH_INFO"][1:].partition("/")
    if how not in ("X-Accel-Redirect", "X-Sendfile"):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
        return [b"app"]
    fields = [(how, "/" + path), ("Set-Cookie", "a=b"), ("ETag", '"x"')]
    fields += [("Content-Disposition", "attachment"), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")]
    if environ["QUERY_STRING"]:
        fields += [("Content-Type", "text/x-own"), ("Cache-Control", "private"), ("Content-Length", "5")]
    start_response("200 OK", fields)
    return [b"never"]
"""


@pytest.fixture
def handing(start, tree, tmp_path):
    """A server whose application leaves files to it: what "/X-Sendfile/…" says behind that."""
    (tmp_path / "handing_app.py").write_text(APPLICATION)
    return start(
        *("--route", f"/kept static={tree} internal=on", "--route", f"/files static={tree} fallback=app"),
        *(
            "--sendfile-root",
            str(tree),
            "--access-logfile",
            "access.log",
            "--access-logformat",
            "%(s)s %(b)s %(r)s",
        ),
        "handing_app:application",
    )


def test_an_application_hands_over(handing, tree, tmp_path):
    port = handing.ports[0]
    assert ask(port, "/kept/small.txt").status == 404
    for target in ("/X-Accel-Redirect/kept", f"/X-Sendfile{tree}"):
        for name in ("small.txt", "huge.bin", "sub/index.html"):
            whole = (tree / name).read_bytes()
            with Client(("127.0.0.1", port)) as client:
                response = client.ask(f"{target}/{name}?own")
                assert (response.status, response.content) == (200, whole)
                assert response["Content-Type"] == "text/x-own"
                assert response["Cache-Control"] == "private"
                assert response["Set-Cookie"] == "a=b"
                assert response["Content-Disposition"] == "attachment"
                assert response["ETag"] == tag(len(whole))
                assert response["Date"] == "Sun, 06 Nov 1994 08:49:37 GMT"
                # Its type would be that of the parts.
                response = client.ask(f"{target}/{name}?own", fields=[("Range", "bytes=0-0,2-2")])
                assert (response.status, response.content) == (200, whole)
                response = client.ask(f"{target}/{name}", "HEAD")
                assert response["Content-Length"] == str(len(whole))
                assert response["Cache-Control"] is None
                response = client.ask(f"{target}/{name}", fields=[("Range", "bytes=4-7")])
                assert (response.status, response.content) == (206, whole[4:8])
                response = client.ask(f"{target}/{name}", fields=[("If-None-Match", tag(len(whole)))])
                assert (response.status, response["Set-Cookie"]) == (304, "a=b")
                response = client.ask(f"{target}/{name}", "POST", content=b"form")
                assert (response.status, response.content) == (200, whole)
                client.send(request(f"{target}/{name}") + request("/") + request(f"{target}/small.txt"))
                assert client.read_response().content == whole
                assert client.read_response().content == b"app"
                assert client.read_response().content == content_of(100)
    line = f"206 4 GET /X-Sendfile{tree}/small.txt HTTP/1.1\n"
    wait_until(lambda: line in (tmp_path / "access.log").read_text(), "the line of it")
    assert (tmp_path / "access.log").read_text().count(line) == 1


def test_what_cannot_be_handed_over(handing, tree, tmp_path):
    port = handing.ports[0]
    assert ask(port, f"/X-Sendfile{tmp_path}/secret.txt").status == 404
    handing.wait_said(f"{tmp_path}/secret.txt: this is beneath no --sendfile-root, or no regular file")
    assert ask(port, f"/X-Sendfile{tree}/../secret.txt").status == 404
    assert ask(port, f"/X-Sendfile{tree}/nothing").status == 404
    handing.wait_said(f"a file that cannot be served (client 127.0.0.1, GET /X-Sendfile{tree}/nothing")
    handing.wait_said(f"{tree}/nothing: No such file or directory")
    assert ask(port, "/X-Accel-Redirect/kept/empty").status == 404
    handing.wait_said("/kept/empty: this is a directory")
    assert ask(port, "/X-Accel-Redirect/elsewhere").status == 404
    handing.wait_said("X-Accel-Redirect names what no route with static= has")
    assert ask(port, "/X-Accel-Redirect/kept/%252e%252e/secret.txt").status == 404
    assert ask(port, "/").content == b"app"


def test_what_is_no_file_is_the_applications(handing):
    port = handing.ports[0]
    assert ask(port, "/files/small.txt").content == content_of(100)
    for target in ("/files/nothing", "/files/empty/", "/files/empty", "/files/"):
        assert ask(port, target).content == b"app"
    assert ask(port, "/files/small.txt", "POST", content=b"x").content == b"app"
    with Client(("127.0.0.1", port)) as client:
        client.send(
            b"".join(request(f"/files/{name}") for name in ("no", "small.txt", "no", "large.bin", "no"))
        )
        sizes = [len(client.read_response().content) for _ in range(5)]
    assert sizes == [3, 100, 3, 100_000, 3]


def test_without_the_options_the_fields_are_clients(start, tmp_path):
    (tmp_path / "handing_app.py").write_text(APPLICATION)
    port = start("handing_app:application").ports[0]
    response = ask(port, "/X-Accel-Redirect/kept/small.txt")
    assert (response["X-Accel-Redirect"], response.content) == ("/kept/small.txt", b"never")


def test_while_the_application_computes(start, tree, tmp_path):
    (tmp_path / "busy_app.py").write_text(
        "import time\ndef application(environ, start_response):\n"
        "    until = time.monotonic() + 1\n    while time.monotonic() < until:\n        pass\n"
        "    start_response('200 OK', [('Content-Length', '0')])\n    return []\n"
    )
    port = start("--threads", "2", "--static", f"/s={tree}", "busy_app:application").ports[0]
    busy = [http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE) for _ in range(2)]
    for connection in busy:
        connection.request("GET", "/")
    with Client(("127.0.0.1", port)) as client:
        for _ in range(50):
            assert client.ask("/s/small.txt").content == content_of(100)
            assert client.ask("/s/large.bin").content == content_of(100_000)
    assert all(connection.sock is not None for connection in busy)
    for connection in busy:
        assert connection.getresponse().status == 200
        connection.close()
