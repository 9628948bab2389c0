"""`gunicorn -k fastwsgi.contrib.gunicorn.Worker`: its arbiter, our loop."""

import contextlib
import http.client
import re
import signal
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import psutil
import pytest

from fastwsgi.dev import self_signed
from support import Client, wait_until

APP = """
import ctypes, os, time
from pathlib import Path

NAMES = ["wsgi.multithread", "wsgi.multiprocess", "wsgi.url_scheme", "REMOTE_ADDR"]

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/wait"):
        Path("waits").touch()
        while not Path("go").exists():
            time.sleep(0.005)
    if path == "/hold":
        ctypes.PyDLL(None).sleep(60)  # in C, without letting other threads run
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join([str(os.getpid()), *(str(environ[name]) for name in NAMES)]).encode()]
"""


@pytest.fixture
def gunicorn(run, write):
    """gunicorn("--workers", "2"): serve with our workers."""

    def gunicorn(*words, files=(), wait=r"Listening at: \S+:(\d+)", **environment):
        write({"shop.py": APP, "gunicorn.conf.py": "", **dict(files)})
        given = () if {"-b", "--bind"} & set(words) else ("-b", "127.0.0.1:0")
        return run(
            *("-m", "gunicorn", "-k", "fastwsgi.contrib.gunicorn.Worker", *given, *words, "shop:app"),
            wait=wait,
            **environment,
        )

    return gunicorn


def workers(server):
    return {child.pid for child in psutil.Process(server.pid).children()}


def booted(server):
    return len(re.findall("Booting worker", server.stderr))


def stop(server):
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.stderr


def test_requests_have_gunicorns_settings_and_end_before_the_worker(gunicorn, tmp_path):
    server = gunicorn(
        *(
            "--workers",
            "2",
            "--threads",
            "2",
            "--access-logfile",
            "access",
            "--access-logformat",
            "%(r)s %(s)s",
        ),
        *("--limit-request-line", "100", "--no-sendfile", "--log-level", "debug"),
        files={"fastwsgi.toml": 'header = ["X-Name: shop"]\nthreads = 9\n'},
    )
    response = server.ask("/", fields=[("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")])
    pid, *values = response.text.split()
    assert int(pid) in workers(server)
    assert values == ["True", "True", "https", "192.0.2.1"]
    assert response["X-Name"] == "shop"
    assert server.ask("/" + "x" * 100).status == 414
    wait_until(lambda: "GET / HTTP/1.1 200\n" in (tmp_path / "access").read_text(), "the access log")
    assert server.stderr.count("cannot honour: sendfile (files are always sent by sendfile)") == 1
    # Two that wait, in one worker or in two; both are answered, though all are told to leave.
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(server.ask, "/wait") for _ in range(2)]
        wait_until((tmp_path / "waits").exists, "the requests")
        server.signal(signal.SIGTERM)
        server.wait_said("Handling signal: term")
        (tmp_path / "go").touch()
        for one in waiting:
            assert one.result().status == 200
    assert server.wait() == 0, server.stderr


def test_a_worker_that_had_its_requests_is_replaced_and_none_is_lost(gunicorn):
    server = gunicorn("--workers", "2", "--max-requests", "10", "--max-requests-jitter", "5")
    seen = set()

    def ask(_):
        answer = server.ask("/")
        assert answer.status == 200
        seen.add(answer.text.split()[0])

    with ThreadPoolExecutor(4) as pool:

        def ask_more():
            list(pool.map(ask, range(20)))
            return len(seen) >= 4  # at first there were two

        wait_until(ask_more, lambda: f"{seen}")
    assert "Autorestarting worker" in server.stderr
    stop(server)


def test_a_busy_worker_leaves_requests_to_the_others(gunicorn, tmp_path):
    server = gunicorn("--workers", "2", "--threads", "1")
    wait_until(lambda: booted(server) == 2, lambda: server.stderr)
    with ThreadPoolExecutor(16) as pool:
        waiting = pool.submit(server.ask, "/wait")
        wait_until((tmp_path / "waits").exists, "the request")
        others = []
        for _ in range(15):
            # One after the other, but not behind one that the busy worker took before it had said that it is.
            others.append(pool.submit(server.ask, "/"))
            wait(others[-1:], 0.2)
        wait_until(lambda: sum(one.done() for one in others) >= 12, lambda: f"{others}")
        free = {one.result().text.split()[0] for one in others if one.done()}
        (tmp_path / "go").touch()
        assert waiting.result().text.split()[0] not in free
    stop(server)


def test_signals_to_the_arbiter(gunicorn, tmp_path):
    server = gunicorn("--workers", "1", "--access-logfile", "access")
    [first] = {int(server.ask("/").text.split()[0])}
    server.signal(signal.SIGTTIN)
    wait_until(lambda: len(workers(server)) == 2, lambda: server.stderr)
    server.signal(signal.SIGTTOU)
    wait_until(lambda: len(workers(server)) == 1, lambda: server.stderr)
    (tmp_path / "shop.py").write_text(APP.replace("environ[name]", "name"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: "wsgi.multithread" in server.ask("/").text, lambda: server.stderr)
    wait_until(lambda: len(workers(server)) == 1 and first not in workers(server), lambda: server.stderr)
    (tmp_path / "access").rename(tmp_path / "former")
    server.signal(signal.SIGUSR1)
    wait_until((tmp_path / "access").exists, "another access log")
    # gunicorn opens it as well, perhaps before the worker does.
    wait_until(lambda: server.ask("/after") and "/after" in (tmp_path / "access").read_text(), "lines in it")
    # At once, whatever runs.
    with Client(server.address) as client:
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until((tmp_path / "waits").exists, "the request")
        server.signal(signal.SIGQUIT)
        assert server.wait() == 0, server.stderr


def test_the_arbiter_ends_a_worker_that_hangs(gunicorn):
    server = gunicorn("--workers", "1", "--timeout", "1", "--threads", "2")
    [first] = {int(server.ask("/").text.split()[0])}
    asking = threading.Thread(target=ask_in_vain, args=(server.address,))
    asking.start()
    server.wait_said("WORKER TIMEOUT")
    wait_until(lambda: booted(server) == 2, lambda: server.stderr)
    assert int(server.ask("/").text.split()[0]) != first
    asking.join()
    stop(server)


def ask_in_vain(address):
    with contextlib.suppress(OSError), Client(address) as client:
        client.ask("/hold")


def test_an_arbiter_that_is_gone(gunicorn):
    server = gunicorn("--workers", "2")
    server.ask("/")
    wait_until(lambda: len(workers(server)) == 2, lambda: server.stderr)
    processes = psutil.Process(server.pid).children()
    server.signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, 10)
    assert not alive


def test_tls_and_a_unix_socket(gunicorn, tmp_path, short_path):
    pytest.importorskip("cryptography")
    (tmp_path / "pem").write_bytes(self_signed())
    server = gunicorn(
        *("-b", "127.0.0.1:0", "-b", f"unix:{short_path}/socket", "--certfile", "pem", "--keyfile", "pem"),
        wait=r"Listening at: https://127.0.0.1:(\d+)",
    )
    context = ssl.create_default_context(cafile=tmp_path / "pem")
    connection = http.client.HTTPSConnection("localhost", server.ports[0], context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        assert connection.getresponse().read().decode().split()[1:4] == ["False", "False", "https"]
    stop(server)


def test_what_may_not_be_left_out_is_told_in_one_line(gunicorn):
    server = gunicorn(
        files={"gunicorn.conf.py": 'secure_scheme_headers = {"X-FORWARDED-PROTOCOL": "ssl"}'}, wait=""
    )
    assert server.wait() == 3
    assert "fastwsgi: gunicorn: secure_scheme_headers: without X-FORWARDED-PROTO" in server.stderr
    assert "Traceback" not in server.stderr
