"""The servers that are compared: how each is started, and how its version is found.

All get one worker process (fastwsgi without its supervisor), in the load test several. Where a server has a
setting that makes it faster here, it has that setting: the comparison is with each server at its best.
"""

import grp
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from apps import plain

HERE = Path(__file__).resolve().parent.parent
VENV = HERE / ".venv"
PEER_PYTHON = str(VENV / "bin" / "python")
PYPI_PYTHON = str(VENV / "fastwsgi-pypi" / "bin" / "python")
FREE_PYTHON = str(VENV / "free" / "bin" / "python")
FRAMEWORKS = VENV / "frameworks"
LAUNCH = str(HERE / "launch.py")
SETUP = "benchmarks/setup.sh"

# What a site may have beside its application, and what is asked for has nothing to do with it.
EDGE_ROUTES = (
    "www.example.com redirect=https://example.com$uri",
    "/admin allow=127.0.0.0/8",
    "example.com/old redirect=/new",
)


@dataclass(frozen=True)
class Start:
    """What a server is told. content_size and closes are for the server that knows no application.

    workers: 0 is one process, without a supervisor where a server can do without.
    """

    application: str
    port: int
    threads: int
    folder: Path
    content_size: int
    closes: bool
    workers: int = 0
    key: str = "rsa"  # of the certificate, where there is one: rsa or ecdsa

    @property
    def certificate(self) -> Path:
        return self.folder.parent / f"{self.key}.pem"

    @property
    def certificate_key(self) -> Path:
        return self.folder.parent / f"{self.key}.key"

    @property
    def files(self) -> Path:
        """What servers of files have beneath /files/."""
        return self.folder.parent / "files"

    @property
    def processes(self) -> int:
        return max(self.workers, 1)


Commands = list[list[str]]


@dataclass(frozen=True)
class Server:
    name: str
    kind: str  # "ours", "peer" or "ceiling"
    commands: Callable[[Start], Commands]
    version: Callable[[], str | None]
    install: str
    threads: int | None = None  # None: the number that the case asks for
    workers: int | None = None  # None: the number that the plan asks for
    note: str = ""


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else None


def _package_version(python: str, package: str) -> str | None:
    return _output([python, "-c", f"import importlib.metadata as m; print(m.version({package!r}))"])


def _python_version(python: str) -> str | None:
    return _output([python, "-c", "import platform; print('Python', platform.python_version())"])


def _django_version() -> str | None:
    show = f"import sys; sys.path.insert(0, {str(FRAMEWORKS)!r}); import django; print(django.__version__)"
    version = _output([PEER_PYTHON, "-c", show])
    return version and f"Django {version}"


def _nginx_version() -> str | None:
    found = re.search(r"nginx/(\S+)", _output(["nginx", "-v"]) or "")
    return found[1] if found else None


def _nginx_gunicorn_version() -> str | None:
    nginx, gunicorn = _nginx_version(), _package_version(PEER_PYTHON, "gunicorn")
    return f"{nginx}, {gunicorn}" if nginx and gunicorn else None


def _built(pattern: str) -> str | None:
    return "of this tree" if list((HERE / "build").glob(pattern)) else None


def _fastwsgi(start: Start) -> Commands:
    bind = f"127.0.0.1:{start.port}"
    # The clients keep their connections for more requests than that is by default.
    options = (
        f"--bind {bind} --workers {start.workers} --threads {start.threads} --keep-alive-requests 1000000000"
    ).split()
    return [[sys.executable, "-m", "fastwsgi", *options, start.application]]


def _fastwsgi_log(start: Start) -> Commands:
    [command] = _fastwsgi(start)
    return [[*command[:-1], "--access-logfile", str(start.folder / "access.log"), command[-1]]]


def _fastwsgi_json(start: Start) -> Commands:
    [command] = _fastwsgi_log(start)
    return [[*command[:-1], "--log-format", "json", command[-1]]]


def _fastwsgi_id(start: Start) -> Commands:
    [command] = _fastwsgi(start)
    return [[*command[:-1], "--request-id", command[-1]]]


def _fastwsgi_tls(start: Start) -> Commands:
    [command] = _fastwsgi(start)
    options = ["--certfile", str(start.certificate), "--keyfile", str(start.certificate_key)]
    return [[*command[:-1], *options, command[-1]]]


def _fastwsgi_static(start: Start) -> Commands:
    [command] = _fastwsgi(start)
    return [[*command[:-1], "--static", f"/files={start.files}", command[-1]]]


def _fastwsgi_edge(start: Start) -> Commands:
    [command] = _fastwsgi_tls(start)
    options = ["--static", f"/files={start.files}", "--compress", "gzip"]
    for route in EDGE_ROUTES:
        options += ["--route", route]
    command = [*command[:-1], *options, command[-1]]
    # The same address, and plain: TLS is there for others, at an address of its own.
    at = command.index("--bind") + 1
    command[at : at + 1] = [f"http://{command[at]}", "--bind", "127.0.0.1:0"]
    return [command]


def _fastwsgi_gevent(start: Start) -> Commands:
    bind = f"127.0.0.1:{start.port}"
    options = (
        f"--bind {bind} --workers {start.workers} --gevent --worker-connections 4000 "
        "--keep-alive-requests 1000000000"
    ).split()
    return [[sys.executable, "-m", "fastwsgi", *options, start.application]]


def _fastwsgi_free(loops: int, start: Start) -> Commands:
    [command] = _fastwsgi(start)
    return [[FREE_PYTHON, *command[1:-1], "--loops", str(loops), command[-1]]]


def _granian_free(start: Start) -> Commands:
    [command] = _granian(start)
    return [[FREE_PYTHON, *command[1:]]]


def _launched(name: str, python: str, start: Start) -> Commands:
    return [[python, LAUNCH, name, start.application, str(start.port)]]


def _granian(start: Start) -> Commands:
    options = (
        f"--interface wsgi --host 127.0.0.1 --port {start.port} --workers {start.processes} "
        f"--blocking-threads {start.threads} --http 1 --no-ws --http1-pipeline-flush "
        "--backlog 2048 --backpressure 12000 --log-level error"
    )
    return [[PEER_PYTHON, "-m", "granian", *options.split(), start.application]]


def _uwsgi(start: Start) -> Commands:
    options = (
        f"--http-socket 127.0.0.1:{start.port} --processes {start.processes} --listen 1024 --disable-logging "
        "--die-on-term --need-app"
    )
    if start.threads > 1:
        options += f" --enable-threads --threads {start.threads}"
    closing = ["--add-header", "Connection: close"]
    return [[str(VENV / "bin" / "uwsgi"), *options.split(), *closing, "--module", start.application]]


def _granian_tls(start: Start) -> Commands:
    [command] = _granian(start)
    options = ["--ssl-certificate", str(start.certificate), "--ssl-keyfile", str(start.certificate_key)]
    return [[*command[:-1], *options, command[-1]]]


def _granian_static(start: Start) -> Commands:
    [command] = _granian(start)
    options = ["--static-path-route", "/files", "--static-path-mount", str(start.files)]
    return [[*command[:-1], *options, command[-1]]]


def _uwsgi_tls(start: Start) -> Commands:
    [command] = _uwsgi(start)
    at = command.index("--http-socket")
    secure = f"{command[at + 1]},{start.certificate},{start.certificate_key}"
    return [[*command[:at], "--https-socket", secure, *command[at + 2 :]]]


def _gunicorn(bind: str, start: Start) -> list[str]:
    options = (
        f"--worker-class gthread --workers {start.processes} --threads {start.threads} "
        "--worker-connections 12000 --keep-alive 75 --backlog 2048 --log-level error"
    )
    return [PEER_PYTHON, "-m", "gunicorn", "--bind", bind, *options.split(), start.application]


def _gunicorn_alone(start: Start) -> Commands:
    return [_gunicorn(f"127.0.0.1:{start.port}", start)]


def _gunicorn_gevent(start: Start) -> Commands:
    options = (
        f"--worker-class gevent --workers {start.processes} --worker-connections 4000 --keep-alive 75 "
        "--backlog 2048 --log-level error"
    )
    bind = f"127.0.0.1:{start.port}"
    return [[PEER_PYTHON, "-m", "gunicorn", "--bind", bind, *options.split(), start.application]]


def _gunicorn_tls(start: Start) -> Commands:
    [command] = _gunicorn_alone(start)
    options = ["--certfile", str(start.certificate), "--keyfile", str(start.certificate_key)]
    return [[*command[:-1], *options, command[-1]]]


def _whitenoise(start: Start) -> Commands:
    [command] = _gunicorn_alone(start)
    return [[*command[:-1], "apps.whitenoise_files:app"]]


def _waitress(start: Start) -> Commands:
    options = (
        f"--listen=127.0.0.1:{start.port} --threads={start.threads} --connection-limit=12000 --backlog=2048 "
        "--asyncore-use-poll"
    )
    return [[PEER_PYTHON, "-m", "waitress", *options.split(), start.application]]


def _nginx(start: Start, server_block: str, is_tls: bool = False) -> list[str]:
    configuration = start.folder / "nginx.conf"
    configuration.write_text(
        f"""
daemon off;
worker_processes {start.processes};
worker_rlimit_nofile 20000;
pid {start.folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    client_body_temp_path {start.folder}/body;
    proxy_temp_path {start.folder}/proxy;
    fastcgi_temp_path {start.folder}/fastcgi;
    uwsgi_temp_path {start.folder}/uwsgi;
    scgi_temp_path {start.folder}/scgi;
    upstream application {{ server unix:{start.folder}/application.sock; keepalive 64; }}
    server {{
        listen 127.0.0.1:{start.port} {"ssl" if is_tls else ""} backlog=2048;
        {server_block}
    }}
}}
""",
        encoding="utf-8",
    )
    # The user directive matters as root only, where the default user may not enter a temporary folder.
    return ["nginx", "-p", str(start.folder), "-c", str(configuration), "-g", f"user {_user()};"]


def _nginx_tls(start: Start, server_block: str) -> list[str]:
    certificate = f"ssl_certificate {start.certificate}; ssl_certificate_key {start.certificate_key};"
    # As nginx 1.23.4 does by itself; TLS 1.2 resumes sessions without a new exchange of keys.
    certificate += " ssl_protocols TLSv1.2 TLSv1.3;"
    return _nginx(start, f"{certificate} ssl_session_cache shared:TLS:10m; {server_block}", is_tls=True)


def _user() -> str:
    return f"{pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"


_PROXY = (
    'location / { proxy_pass http://application; proxy_http_version 1.1; proxy_set_header Connection ""; }'
)


def _nginx_gunicorn(start: Start) -> Commands:
    return [_gunicorn(f"unix:{start.folder}/application.sock", start), _nginx(start, _PROXY)]


def _nginx_gunicorn_tls(start: Start) -> Commands:
    return [_gunicorn(f"unix:{start.folder}/application.sock", start), _nginx_tls(start, _PROXY)]


def _nginx_files(start: Start) -> Commands:
    return [_nginx(start, f"root {start.folder.parent};")]


def _nginx_open_files(start: Start) -> Commands:
    cache = "open_file_cache max=1000; open_file_cache_valid 1s;"
    return [_nginx(start, f"root {start.folder.parent}; {cache}")]


def _nginx_fixed_tls(start: Start) -> Commands:
    answer = 'default_type text/plain; return 200 "Hello, World!";'
    return [_nginx_tls(start, f"location / {{ {answer} }}")]


def _ceiling_fixed(start: Start) -> Commands:
    command = [str(HERE / "build" / "fixed"), str(start.port), str(start.content_size)]
    return [command + ["close"] * start.closes]


_FASTWSGI_VERSION = partial(_output, [sys.executable, "-c", "import fastwsgi; print(fastwsgi.__version__)"])
_FASTWSGI_INSTALL = "the interpreter that runs run.py (pip install .)"

SERVERS = {
    server.name: server
    for server in (
        Server("fastwsgi", "ours", _fastwsgi, _FASTWSGI_VERSION, _FASTWSGI_INSTALL),
        Server("fastwsgi-t1", "ours", _fastwsgi, _FASTWSGI_VERSION, _FASTWSGI_INSTALL, threads=1),
        Server("fastwsgi-t32", "ours", _fastwsgi, _FASTWSGI_VERSION, _FASTWSGI_INSTALL, threads=32),
        Server("fastwsgi-w1", "ours", _fastwsgi, _FASTWSGI_VERSION, _FASTWSGI_INSTALL, workers=1),
        Server("fastwsgi-w2", "ours", _fastwsgi, _FASTWSGI_VERSION, _FASTWSGI_INSTALL, workers=2),
        Server(
            "fastwsgi-log",
            "ours",
            _fastwsgi_log,
            _FASTWSGI_VERSION,
            _FASTWSGI_INSTALL,
            note="with an access log",
        ),
        Server(
            "fastwsgi-json",
            "ours",
            _fastwsgi_json,
            _FASTWSGI_VERSION,
            _FASTWSGI_INSTALL,
            note="with an access log of JSON",
        ),
        Server(
            "fastwsgi-id",
            "ours",
            _fastwsgi_id,
            _FASTWSGI_VERSION,
            _FASTWSGI_INSTALL,
            note="with ids of requests",
        ),
        Server(
            "fastwsgi-tls",
            "ours",
            _fastwsgi_tls,
            _FASTWSGI_VERSION,
            _FASTWSGI_INSTALL,
            note="with a certificate",
        ),
        Server(
            "fastwsgi-static",
            "ours",
            _fastwsgi_static,
            _FASTWSGI_VERSION,
            _FASTWSGI_INSTALL,
            note="--static",
        ),
        Server(
            "fastwsgi-edge",
            "ours",
            _fastwsgi_edge,
            _FASTWSGI_VERSION,
            _FASTWSGI_INSTALL,
            note="with routes, files, a certificate and compression that the request has nothing to do with",
        ),
        Server(
            "bjoern",
            "peer",
            partial(_launched, "bjoern", PEER_PYTHON),
            partial(_package_version, PEER_PYTHON, "bjoern"),
            f"{SETUP}, with libev-dev",
            note="one thread by design",
        ),
        Server(
            "fastwsgi-pypi",
            "peer",
            partial(_launched, "fastwsgi-pypi", PYPI_PYTHON),
            partial(_package_version, PYPI_PYTHON, "fastwsgi"),
            f"{SETUP}, in an environment of its own",
            note="the project of that name on the package index; one thread by design",
        ),
        Server(
            "granian",
            "peer",
            _granian,
            partial(_package_version, PEER_PYTHON, "granian"),
            SETUP,
            note="--http 1 --no-ws --http1-pipeline-flush; as many blocking threads as we have threads",
        ),
        Server(
            "uwsgi",
            "peer",
            _uwsgi,
            partial(_package_version, PEER_PYTHON, "uwsgi"),
            SETUP,
            # Tried: --http11-socket (keeps connections; with one thread 1.6 times the CPU time, with 64
            # threads 1.3 times) and --http with --http-keepalive (a second process; 2.3 times).
            note="--http-socket, which closes after every answer, and says so; its two ways of keeping "
            "connections, --http11-socket and the router of --http, take more CPU time",
        ),
        Server(
            "fastwsgi-gevent", "ours", _fastwsgi_gevent, _FASTWSGI_VERSION, _FASTWSGI_INSTALL, note="--gevent"
        ),
        Server(
            "free-loop",
            "ours",
            partial(_fastwsgi_free, 1),
            partial(_python_version, FREE_PYTHON),
            SETUP,
            workers=1,
            note="free-threaded, one loop",
        ),
        Server(
            "free-2loops",
            "ours",
            partial(_fastwsgi_free, 2),
            partial(_python_version, FREE_PYTHON),
            SETUP,
            workers=1,
            note="free-threaded, one worker of two loops",
        ),
        Server(
            "free-2workers",
            "ours",
            partial(_fastwsgi_free, 1),
            partial(_python_version, FREE_PYTHON),
            SETUP,
            workers=2,
            note="free-threaded, two workers of one loop each",
        ),
        Server(
            "granian-free",
            "peer",
            _granian_free,
            partial(_package_version, FREE_PYTHON, "granian"),
            SETUP,
            workers=1,
            note="free-threaded, one worker",
        ),
        Server(
            "gunicorn-gevent",
            "peer",
            _gunicorn_gevent,
            partial(_package_version, PEER_PYTHON, "gunicorn"),
            SETUP,
            note="its gevent worker",
        ),
        Server(
            "gevent-pywsgi",
            "peer",
            partial(_launched, "gevent-pywsgi", PEER_PYTHON),
            partial(_package_version, PEER_PYTHON, "gevent"),
            SETUP,
            note="gevent's own",
        ),
        Server(
            "gunicorn",
            "peer",
            _gunicorn_alone,
            partial(_package_version, PEER_PYTHON, "gunicorn"),
            SETUP,
            note="gthread",
        ),
        Server(
            "waitress",
            "peer",
            _waitress,
            partial(_package_version, PEER_PYTHON, "waitress"),
            SETUP,
        ),
        Server(
            "wsgiref",
            "peer",
            partial(_launched, "wsgiref", PEER_PYTHON),
            partial(_python_version, PEER_PYTHON),
            "part of Python",
            note="HTTP/1.0: a connection for every request",
        ),
        Server(
            "nginx-gunicorn",
            "peer",
            _nginx_gunicorn,
            _nginx_gunicorn_version,
            f"{SETUP}, with nginx",
            note="both on the same cores, unix socket between them, kept connections to gunicorn",
        ),
        Server(
            "nginx-file",
            "peer",
            _nginx_files,
            _nginx_version,
            "nginx from the system's packages",
            note="no Python: the file sent with sendfile",
        ),
        Server(
            "nginx-open-file",
            "peer",
            _nginx_open_files,
            _nginx_version,
            "nginx from the system's packages",
            note="the same with open_file_cache",
        ),
        Server(
            "whitenoise",
            "peer",
            _whitenoise,
            partial(_package_version, PEER_PYTHON, "whitenoise"),
            SETUP,
            note="under gunicorn, gthread",
        ),
        Server(
            "granian-static",
            "peer",
            _granian_static,
            partial(_package_version, PEER_PYTHON, "granian"),
            SETUP,
            note="--static-path-mount",
        ),
        Server(
            "nginx-gunicorn-tls",
            "peer",
            _nginx_gunicorn_tls,
            _nginx_gunicorn_version,
            f"{SETUP}, with nginx",
            note="as nginx-gunicorn; TLS as far as nginx",
        ),
        Server(
            "nginx-tls",
            "peer",
            _nginx_fixed_tls,
            _nginx_version,
            "nginx from the system's packages",
            note="no Python: a fixed answer over TLS",
        ),
        Server(
            "gunicorn-tls",
            "peer",
            _gunicorn_tls,
            partial(_package_version, PEER_PYTHON, "gunicorn"),
            SETUP,
            note="gthread, --certfile",
        ),
        Server(
            "granian-tls",
            "peer",
            _granian_tls,
            partial(_package_version, PEER_PYTHON, "granian"),
            SETUP,
            note="--ssl-certificate",
        ),
        Server(
            "uwsgi-tls",
            "peer",
            _uwsgi_tls,
            partial(_package_version, PEER_PYTHON, "uwsgi"),
            SETUP,
            note="--https-socket, which closes after every answer",
        ),
        Server(
            "runserver",
            "peer",
            partial(_launched, "runserver", PEER_PYTHON),
            _django_version,
            f"{SETUP} (Django)",
            note="Django's development server, --noreload",
        ),
        Server(
            "ceiling-app",
            "ceiling",
            partial(_launched, "ceiling", PEER_PYTHON),
            partial(_built, "ceiling.*"),
            SETUP,
            note="a C loop that calls the application",
        ),
        Server(
            "ceiling-fixed",
            "ceiling",
            _ceiling_fixed,
            partial(_built, "fixed"),
            SETUP,
            note="the same loop with a fixed answer, no Python",
        ),
    )
}


def server_environment(server: Server, folder: Path) -> dict[str, str]:
    """The environment of a server; folder holds the file and the database of the cases that want one."""
    paths = [str(HERE), str(FRAMEWORKS)]
    if server.kind == "ours":
        # Perhaps it was built in place; and the fastwsgi of the package index must not find it.
        paths += filter(None, [os.environ.get("PYTHONPATH")])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "BENCH_FILE": str(folder / "file.bin"),
        "BENCH_FILES": str(folder / "files"),
        "BENCH_DB": str(folder / "django.sqlite3"),
    }


def fill_database(folder: Path) -> None:
    """Make the database that the Django views read."""
    if FRAMEWORKS.exists() and Path(PEER_PYTHON).exists():
        fill = "from apps.django_views import fill_database; fill_database()"
        environment = server_environment(SERVERS["ceiling-app"], folder)
        subprocess.run([PEER_PYTHON, "-c", fill], env=environment, check=False)


def make_files(folder: Path) -> None:
    """What servers find there: files to send, and certificates with their keys, which nobody has signed."""
    (folder / "file.bin").write_bytes(b"x" * plain.FILE_SIZE)
    (folder / "files").mkdir()
    (folder / "files" / "1k.txt").write_bytes(plain.KIB)
    (folder / "files" / "1m.bin").write_bytes(b"x" * plain.FILE_SIZE)
    for name, kind in (("rsa", ["rsa:2048"]), ("ecdsa", ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])):
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "30"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        request = ["openssl", "req", "-x509", "-nodes", "-newkey", *kind, *subject, *files]
        subprocess.run(request, check=True, capture_output=True)


def missing_tools() -> list[str]:
    """What the runner itself cannot do without."""
    return [tool for tool in ("wrk", "taskset", "openssl") if shutil.which(tool) is None]
