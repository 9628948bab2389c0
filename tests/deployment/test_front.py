"""nginx, HAProxy and a platform in front, by the files of deploy/: who the client is, what is kept open."""

import shlex

from deployment.files import DEPLOY, adapted
from fastwsgi.config import Settings
from process.test_proxies import CLIENT, ask, free_port, needs

ASKED = 20

NGINX = """
user root;
worker_processes 1;
pid nginx.pid;
events {{}}
http {{
    access_log off;
    {server}
}}
"""


def accepted(server, path):
    """How many connections the server has accepted."""
    with server.connect(path) as prometheus:
        lines = prometheus.ask("/metrics").text.splitlines()
    [line] = [line for line in lines if line.startswith("fastwsgi_connections_accepted_total ")]
    return int(line.split()[1])


@needs("nginx")
def test_nginx(start, run_proxy, short_path):
    metrics = f"{short_path}/metrics"
    server = start("--metrics", f"unix:{metrics}", "apps:tell")
    port = free_port()
    words = {"listen 80": f"listen 127.0.0.1:{port}", "127.0.0.1:8000": f"127.0.0.1:{server.ports[0]}"}
    run_proxy("nginx", NGINX.format(server=adapted("nginx/shop.conf", **words)), port)
    for _ in range(ASKED):
        told = ask(port, X_Forwarded_For="10.0.0.1", X_Forwarded_Proto="https", Forwarded="for=x")
        assert told["REMOTE_ADDR"] == CLIENT
        assert told["wsgi.url_scheme"] == "http"
        assert told["HTTP_HOST"] == "shop.example"
        assert told["fastwsgi.peer_addr"] == "127.0.0.1"
    assert accepted(server, metrics) == 1
    server.stop()


def test_nginx_gives_connections_up_before_the_server_does():
    assert "keepalive_timeout 60s;" in (DEPLOY / "nginx" / "shop.conf").read_text()
    assert Settings().keep_alive > 60


def behind(name, server, run_proxy, **others):
    """The port of an HAProxy with this file; its three servers are one."""
    port = free_port()
    words = {f"10.0.0.1{number}:8000": f"127.0.0.1:{server.ports[0]}" for number in (1, 2, 3)}
    run_proxy("haproxy", adapted(f"haproxy/{name}", **{":80": f"127.0.0.1:{port}"}, **words, **others), port)
    return port


@needs("haproxy")
def test_haproxy(start, run_proxy, short_path):
    metrics = f"{short_path}/metrics"
    server = start("--ready", "/readyz", "--metrics", f"unix:{metrics}", "apps:tell")
    admin = {"/run/haproxy/admin.sock": f"{short_path}/admin.sock"}
    port = behind("haproxy.cfg", server, run_proxy, **admin)
    for _ in range(ASKED):
        told = ask(port, X_Forwarded_For="10.0.0.1", X_Forwarded_Proto="https", Forwarded="for=x")
        assert told["REMOTE_ADDR"] == CLIENT
        assert told["wsgi.url_scheme"] == "http"
        assert told["HTTP_HOST"] == "shop.example"
    # Besides those of its questions how the server is.
    assert accepted(server, metrics) < ASKED // 2
    server.stop()


@needs("haproxy")
def test_haproxy_that_looks_at_nothing(start, run_proxy):
    server = start(
        "--ready", "/readyz", "--proxy-protocol", "v2", "--proxy-allow-from", "127.0.0.1", "apps:tell"
    )
    port = behind("haproxy-tcp.cfg", server, run_proxy)
    for _ in range(3):
        told = ask(port)
        assert told["REMOTE_ADDR"] == CLIENT
        assert told["fastwsgi.peer_addr"] == "127.0.0.1"
    assert "PROXY protocol" not in server.stderr
    server.stop()


def test_a_platform(start):
    """The command of the Procfile, with the variables that a platform sets."""
    process, command = (DEPLOY / "heroku" / "Procfile").read_text().split(": ", 1)
    program, *words = shlex.split(command)
    assert (process, program, words.pop()) == ("web", "fastwsgi", "shop:app")
    port = free_port()
    server = start(*words, "apps:tell", started=False, PORT=str(port), WEB_CONCURRENCY="1")
    assert server.wait_started() == [port]
    told = ask(port, X_Forwarded_For="192.0.2.7", X_Forwarded_Proto="https")
    assert told["REMOTE_ADDR"] == "192.0.2.7"
    assert told["wsgi.url_scheme"] == "https"
    server.stop()
