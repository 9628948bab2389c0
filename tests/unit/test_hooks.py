"""The hooks of a gunicorn.conf.py: which are taken, what they are called with, and those of requests."""

import dataclasses
import io
import logging
import threading
from wsgiref.validate import validator

import pytest

from fastwsgi import make_server
from fastwsgi.config import Settings
from fastwsgi.errors import ConfigError
from fastwsgi.gunicorn import Config
from fastwsgi.hooks import ARITY, NO_HOOKS, Hooks, Request, Server, Worker, with_request_hooks
from support import Client


def test_each_hook_has_its_field():
    names = {field.name for field in dataclasses.fields(Hooks)}
    assert names == {*ARITY, "given"}
    assert all(getattr(NO_HOOKS, name) is None for name in ARITY)


def test_hooks_are_found():
    def when_ready(server):
        pass

    given = {"when_ready": when_ready, "on_exit": None, "threads": 3, "pre_fork": lambda *arguments: None}
    hooks = Hooks.found_in(given, "conf.py")
    assert hooks.when_ready is when_ready
    assert hooks.pre_fork is given["pre_fork"]
    assert hooks.on_exit is None
    assert hooks.given is given


def test_a_hook_by_its_name():
    assert Hooks.found_in({"child_exit": "shutil.move"}, "conf.py").child_exit.__name__ == "move"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"when_ready": lambda: None}, "conf.py: when_ready has to take 1 argument"),
        ({"pre_fork": lambda server: None}, "conf.py: pre_fork has to take 2 arguments"),
        ({"post_request": lambda worker: None}, "conf.py: post_request has to take 4 arguments"),
        ({"on_exit": 3}, "conf.py: on_exit is not callable: it is of type int"),
        ({"on_exit": "no_such.module"}, "conf.py: on_exit: cannot import 'no_such.module': No module named"),
        ({"on_exit": "shutil.no_such"}, "conf.py: on_exit: cannot import 'shutil.no_such': "),
        ({"on_exit": "shutil"}, "conf.py: on_exit: cannot import 'shutil': "),
    ],
)
def test_wrong_hooks(given, message):
    with pytest.raises(ConfigError) as caught:
        Hooks.found_in(given, "conf.py")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_post_request_may_take_fewer_arguments(number):
    calls = []
    functions = {
        2: lambda worker, req: calls.append((worker, req)),
        3: lambda worker, req, environ: calls.append((worker, req, environ)),
        4: lambda worker, req, environ, resp: calls.append((worker, req, environ, resp)),
    }
    hooks = Hooks.found_in({"post_request": functions[number]}, "conf.py")
    assert hooks.call("post_request", 1, 2, 3, 4)
    assert calls == [(1, 2, 3, 4)[:number]]


def test_a_hook_that_fails_is_logged(caplog):
    def on_exit(server):
        raise ZeroDivisionError("in the hook")

    with caplog.at_level(logging.ERROR, "fastwsgi"):
        assert Hooks(on_exit=on_exit).call("on_exit", None) is False
    [record] = caplog.records
    assert record.getMessage() == "The hook on_exit failed"
    assert "in the hook" in str(record.exc_info[1])
    assert NO_HOOKS.call("on_exit", None) is True


@pytest.fixture
def worker():
    return Worker(age=1, ppid=2, cfg=Config(Settings(name="shop"), {}, 3), pid=4)


def test_server_and_worker(worker):
    server = Server(worker.cfg, num_workers=3)
    server.WORKERS[4] = worker
    assert (server.proc_name, server.address, server.timeout) == ("shop", ["127.0.0.1:8000"], 30.0)
    assert (server.log.name, worker.log.name, str(worker), worker.timeout) == (
        "fastwsgi",
        "fastwsgi",
        "<Worker 4>",
        30.0,
    )


# Hooks of requests, in a real server.


class Closing(io.BytesIO):
    """Content in blocks whose number nobody knows, and a close()."""

    closed_at = None

    def close(self):
        CALLS.append("closed")
        super().close()


CALLS = []


def application(environ, start_response):
    CALLS.append("called")
    path = environ["PATH_INFO"]
    if path == "/fails":
        raise ZeroDivisionError("in the application")
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("X-Path", path)])
    if path == "/list":
        return [b"one", b"two"]
    if path == "/one":
        return [b"alone"]
    if path == "/write":
        write(b"written ")
        return [b"and given"]
    if path == "/file":
        return environ["wsgi.file_wrapper"](open(__file__, "rb"), 4096)
    return Closing(b"a\nb\n")


@pytest.fixture
def ask(worker, caplog):
    """Serve with hooks, ask for a path, and return the answer and what the hooks saw."""

    def ask(path, app=application, **changed):
        CALLS.clear()
        seen = {}

        def pre_request(worker, req):
            CALLS.append("pre_request")
            seen["before"] = (worker, req)

        def post_request(worker, req, environ, resp):
            CALLS.append("post_request")
            seen["after"] = (worker, req, environ, resp)

        hooks = Hooks(**{"pre_request": pre_request, "post_request": post_request, **changed})
        with make_server("127.0.0.1", 0, with_request_hooks(app, hooks, worker), threads=1) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            with Client(server.server_address) as client:
                answer = client.ask(path, fields=[("X-Asked", "yes")])
            server.shutdown()
            thread.join()
        return answer, seen

    return ask


@pytest.mark.parametrize(
    ("path", "content"),
    [("/list", "onetwo"), ("/one", "alone"), ("/write", "written and given"), ("/blocks?x=1", "a\nb\n")],
)
def test_hooks_around_a_request(ask, worker, path, content):
    answer, seen = ask(path)
    assert answer.text == content
    closed = ["closed"] if path.startswith("/blocks") else []
    assert ["pre_request", "called", *closed, "post_request"] == CALLS
    assert worker.nr == 1
    before, request = seen["before"]
    after, same, environ, response = seen["after"]
    assert before is after is worker
    assert request is same
    assert (request.method, request.uri, request.version, request.scheme) == ("GET", path, (1, 1), "http")
    assert (request.path, request.query) == (path.partition("?")[0], path.partition("?")[2])
    assert ("X-ASKED", "yes") in request.headers
    assert request.remote_addr[0] == "127.0.0.1"
    assert environ["PATH_INFO"] == request.path
    assert (response.status, response.status_code, response.sent) == ("200 OK", 200, len(content))
    assert ("X-Path", request.path) in response.headers


def test_one_block_still_needs_no_chunks(ask):
    answer, _ = ask("/one")
    assert answer["Content-Length"] == "5"


def test_a_file_is_closed_before_the_hook(ask):
    answer, seen = ask("/file")
    with open(__file__, "rb") as file:
        assert answer.content == file.read()
    # Read in blocks, it would be in chunks: this is sendfile.
    assert answer["Content-Length"] == str(len(answer.content))
    assert CALLS[-1] == "post_request"
    assert seen["after"][3].status_code == 200


def test_the_hook_comes_after_a_failure_too(ask):
    answer, seen = ask("/fails")
    assert answer.status == 500
    assert CALLS == ["pre_request", "called", "post_request"]
    assert seen["after"][3].status_code == 0


def test_pre_request_that_fails_is_a_failure_of_the_application(ask):
    def pre_request(worker, req):
        raise ZeroDivisionError("in the hook")

    answer, _ = ask("/list", pre_request=pre_request)
    assert answer.status == 500
    assert CALLS == ["post_request"]


def test_post_request_that_fails_is_logged(ask, caplog):
    def post_request(worker, req):
        raise ZeroDivisionError("in the hook")

    hooks = Hooks.found_in({"post_request": post_request}, "conf.py")
    with caplog.at_level(logging.ERROR, "fastwsgi"):
        answer, _ = ask("/list", post_request=hooks.post_request)
    assert answer.text == "onetwo"
    assert [record.getMessage() for record in caplog.records] == ["The hook post_request failed"]


def test_pep_3333_is_kept(ask):
    def strict(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"strict"]

    answer, _ = ask("/", app=validator(strict))
    assert answer.text == "strict"


def test_only_pre_request(ask):
    answer, _ = ask("/list", post_request=None)
    assert answer.text == "onetwo"
    assert CALLS == ["pre_request", "called"]


def test_no_hook_no_wrapper(worker):
    assert with_request_hooks(application, NO_HOOKS, worker) is application


def test_a_request_needs_little():
    request = Request(
        {
            "REQUEST_METHOD": "GET",
            "wsgi.url_scheme": "http",
            "SERVER_PROTOCOL": "HTTP/1.0",
            "wsgi.input": None,
        }
    )
    assert (request.version, request.path, request.headers) == ((1, 0), "", [])
