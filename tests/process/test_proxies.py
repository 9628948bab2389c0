"""Behind real proxies: nginx and HAProxy, each configured as docs/behind-a-proxy.md has it."""

import http.client
import json
import shutil
import socket
import subprocess

import pytest

from support import PATIENCE, wait_until

# On the loopback interface of Linux a client can have an address that the proxy has not.
CLIENT = "127.0.0.2"


def needs(program):
    return pytest.mark.skipif(not find(program), reason=f"no {program} here")


def find(program):
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def run_proxy(short_path):
    """run_proxy("nginx", configuration): start it with this file; ends with the test."""
    running = []

    def run(program, configuration, *ports):
        file = short_path / "configuration"
        file.write_text(configuration)
        arguments = {
            "nginx": ["-p", str(short_path), "-c", str(file), "-e", "stderr", "-g", "daemon off;"],
            "haproxy": ["-db", "-f", str(file)],
        }[program]
        process = subprocess.Popen([find(program), *arguments], stderr=subprocess.PIPE, text=True)
        running.append(process)

        def listens():
            assert process.poll() is None, process.stderr.read()
            for port in ports:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)):
                        return False
            return True

        wait_until(listens, f"{program} listening")

    yield run
    for process in running:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def ask(port, **fields):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE, source_address=(CLIENT, 0))
    try:
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        connection.request("GET", "/", headers={"Host": "shop.example", **fields})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, (answer.status, content)
        return json.loads(content)
    finally:
        connection.close()


NGINX = """
user root;
worker_processes 1;
pid nginx.pid;
events {{}}
http {{
    access_log off;
    upstream application {{ server {upstream}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Forwarded-Port 443;
            proxy_set_header Forwarded "";
        }}
    }}
}}
"""


@needs("nginx")
@pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])
def test_nginx(start, run_proxy, short_path, is_unix):
    if is_unix:
        server = start("--bind", f"unix:{short_path}/socket", "apps:tell", started=False)
        server.wait_said("Ctrl-C")
        upstream = f"unix:{short_path}/socket"
    else:
        server = start("apps:tell")
        upstream = f"127.0.0.1:{server.ports[0]}"
    port = free_port()
    run_proxy("nginx", NGINX.format(port=port, upstream=upstream), port)
    expected = {
        "REMOTE_ADDR": CLIENT,
        "REMOTE_PORT": "",
        "fastwsgi.peer_addr": "" if is_unix else "127.0.0.1",
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "shop.example",
        "SERVER_PORT": "443",
    }
    for _ in range(3):
        assert ask(port) == expected
    # What a client makes up.
    lies = {
        "X_Forwarded_For": "10.0.0.1, nonsense",
        "X_Forwarded_Proto": "http",
        "X_Forwarded_Host": "evil.example",
        "Forwarded": 'for=10.0.0.1;proto="',
    }
    assert ask(port, **lies) == expected
    server.stop()


HAPROXY = """
defaults
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend http
    mode http
    bind 127.0.0.1:{http}
    default_backend forwarding
backend forwarding
    mode http
    http-request del-header Forwarded
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[req.hdr(Host)]
    option forwardfor
    server application 127.0.0.1:{upstream}
frontend v1
    mode tcp
    bind 127.0.0.1:{v1}
    default_backend proxy1
backend proxy1
    mode tcp
    server application 127.0.0.1:{proxied} send-proxy
frontend v2
    mode tcp
    bind 127.0.0.1:{v2}
    default_backend proxy2
backend proxy2
    mode tcp
    server application 127.0.0.1:{proxied} send-proxy-v2 check inter 100ms
"""


@needs("haproxy")
def test_haproxy(start, run_proxy):
    plain = start("apps:tell")
    proxied = start("--proxy-protocol", "auto", "apps:tell")
    ports = {name: free_port() for name in ("http", "v1", "v2")}
    configuration = HAPROXY.format(upstream=plain.ports[0], proxied=proxied.ports[0], **ports)
    run_proxy("haproxy", configuration, *ports.values())
    for _ in range(3):
        told = ask(ports["http"], X_Forwarded_For="10.0.0.1", X_Forwarded_Proto="http", Forwarded="for=x")
        assert told["REMOTE_ADDR"] == CLIENT
        assert told["wsgi.url_scheme"] == "https"
        assert told["fastwsgi.peer_addr"] == "127.0.0.1"
        for version in ("v1", "v2"):
            # In this mode nobody touches the fields: they are the client's, and removed.
            told = ask(ports[version], X_Forwarded_For="10.0.0.1", X_Forwarded_Proto="https")
            assert told["REMOTE_ADDR"] == CLIENT
            assert told["REMOTE_PORT"]
            assert told["wsgi.url_scheme"] == "http"
            assert told["fastwsgi.peer_addr"] == "127.0.0.1"
    proxied.wait_said("not in --forwarded-allow-ips")
    assert "PROXY protocol" not in proxied.stderr
    plain.stop()
    proxied.stop()
