"""docs/from-nginx.md: both sides of each pair are run, asked the same things, and answer alike."""

import gzip
import http.client
import re
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from process.test_proxies import free_port, needs, run_proxy
from support import PATIENCE

__all__ = ["run_proxy"]  # a fixture

PAGE = (Path(__file__).parents[2] / "docs" / "from-nginx.md").read_text()
PAIR = re.compile(
    r"^## ([^\n]*)\n.*?```nginx\n(.*?)```.*?```toml\n(.*?)```.*?<!-- ask:\n(.*?)-->", re.DOTALL | re.MULTILINE
)
PAIRS = {re.sub(r"\W+", "-", title.lower()): rest for title, *rest in PAIR.findall(PAGE)}

# What of an answer the two have to agree on, where nginx says it.
COMPARED = (
    "location",
    "content-type",
    "content-encoding",
    "content-range",
    "accept-ranges",
    "last-modified",
    "content-length",
    "x-frame-options",
    "strict-transport-security",
    "content-disposition",
)

NGINX = """
user root;
worker_processes 1;
pid nginx.pid;
events {{}}
http {{
    access_log off;
    absolute_redirect off;
    types {{ text/html html; text/css css; image/png png; text/plain txt; }}
    default_type application/octet-stream;
    charset utf-8;
    charset_types text/css text/plain;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    proxy_set_header Host $host;
    upstream application {{ server 127.0.0.1:{application}; }}
    upstream blog {{ server 127.0.0.1:{blog}; }}
    {server}
}}
"""

SHOP = """
def app(environ, start_response):
    environ["wsgi.input"].read()
    path = environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"]
    fields = [("Content-Type", "text/plain; charset=utf-8")]
    content = f"{NAME}: {environ['REQUEST_METHOD']} {path} of {environ['HTTP_HOST']}\\n".encode()
    if path == "/download":
        fields += [("X-Accel-Redirect", "/protected/paid.txt"), ("Content-Disposition", "attachment")]
    elif path == "/text":
        content *= 100
    fields.append(("Content-Length", str(len(content))))
    start_response("200 OK", fields)
    return [content]
"""


@pytest.fixture
def world(tmp_path):
    """What the page speaks of: the directories /srv and /etc, and two applications."""
    files = {
        "srv/shop/static/site.css": b"body { color: black }\n",
        "srv/shop/static/site.css.gz": gzip.compress(b"body { color: black }\n"),
        "srv/shop/media/a.png": b"\x89PNG",
        "srv/shop/app/index.html": b"<p>the page of all pages</p>\n",
        "srv/shop/errors/404.html": b"<p>nothing is here</p>\n",
        "srv/acme/.well-known/acme-challenge/token": b"the answer\n",
        "srv/shop/protected/paid.txt": b"it was paid for\n",
        "etc/shop.passwd": b"",
        "code/shop.py": f"NAME = 'shop'\n{SHOP}".encode(),
        "code/blog.py": f"NAME = 'blog'\n{SHOP}".encode(),
    }
    for name, content in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path


def certify(world):
    """The certificate of example.com, and its key."""
    directory = world / "etc" / "ssl"
    directory.mkdir()
    files = ["-keyout", str(directory / "example.com.key"), "-out", str(directory / "example.com.pem")]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=example.com"]
    request = ["openssl", "req", "-x509", "-nodes", *key, *files]
    subprocess.run(request, check=True, capture_output=True)


def ask(ports, line):
    """What a line such as `https GET /x Name: value` is answered with."""
    scheme, method, target, *rest = line.split(None, 3)
    fields, content = {"Host": "example.com"}, None
    if rest and rest[0].isdigit():
        content = b"x" * int(rest[0])
    elif rest:
        name, value = rest[0].split(": ", 1)
        fields[name] = value
    port = ports[scheme]
    if scheme == "https":
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, target, body=content, headers=fields)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@needs("nginx")
@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here")
@pytest.mark.parametrize("name", PAIRS)
def test_both_sides_answer_alike(start, run_proxy, world, name):
    nginx, toml, asked = PAIRS[name]
    if "ssl_certificate" in nginx:
        certify(world)
    theirs = {"http": free_port(), "https": free_port()}
    ours = {"http": free_port(), "https": free_port()}
    code = str(world / "code")
    backends = [start("--chdir", code, f"{module}:app").ports[0] for module in ("shop", "blog")]
    block = re.sub(r"listen (80|443)", lambda port: f"listen 127.0.0.1:{theirs[WHICH[port[1]]]}", nginx)
    block = re.sub(r"(?<=[ \t])/(srv|etc)/", rf"{world}/\1/", block)
    run_proxy("nginx", NGINX.format(application=backends[0], blog=backends[1], server=block), theirs["http"])
    toml = re.sub(r':(80|443)"', lambda port: f'127.0.0.1:{ours[WHICH[port[1]]]}"', toml)
    toml = re.sub(r'(?<=["=])/(srv|etc)/', rf"{world}/\1/", toml)
    file = world / "code" / "fastwsgi.toml"
    file.write_text(toml)
    server = start("--workers", "1", "--chdir", code, "-c", str(file), started=False)
    server.wait_started()
    for line in asked.strip().splitlines():
        their, their_content = ask(theirs, line)
        our, our_content = ask(ours, line)
        assert our.status == their.status, (line, our_content)
        says_it_itself = their.status >= 300 and not is_a_page(their_content)
        if not says_it_itself:
            assert plain(our, our_content) == plain(their, their_content), line
        for field in ["location"] if says_it_itself else COMPARED:
            if field in their.headers:
                # At the port of everybody, 443, it would not be there.
                found = without_boundary(our.headers[field]).replace(f":{ours['https']}", "")
                assert found == without_boundary(their.headers[field]), (line, field)


def is_a_page(content):
    """It is the site's own, and not what a server says by itself."""
    return content in (b"<p>nothing is here</p>\n", b"It is gone.\n")


def without_boundary(value):
    return re.sub(r"boundary=\d+", "boundary=", value or "")


def plain(answer, content):
    """The content, without its coding and the boundary of its parts."""
    if answer.headers["Content-Encoding"] == "gzip":
        return gzip.decompress(content)
    found = re.search(r"boundary=(\d+)", answer.headers["Content-Type"] or "")
    return content.replace(found[1].encode(), b"") if found else content


WHICH = {"80": "http", "443": "https"}
