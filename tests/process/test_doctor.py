"""`fastwsgi doctor`: the real command before real projects."""

import json
import os
import pty
import pwd
import shutil
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from certificates import AUTHORITY
from subprocesses import PYTHONPATH
from support import PATIENCE

# What no output may have in it.
SECRET = "hunter2-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJ"

# Where nothing of the machine that runs the tests counts.
QUIET = ("--bind", "127.0.0.1:0")


def environment(**variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FASTWSGI", "PYTHON"))}
    return {**kept, "PYTHONPATH": PYTHONPATH, "PYTHONDONTWRITEBYTECODE": "1", **variables}


def run(*words, directory, **variables):
    command = [sys.executable, "-m", "fastwsgi", "doctor", *words]
    return subprocess.run(
        command,
        cwd=directory,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )


@pytest.fixture
def doctor(tmp_path):
    """doctor(*arguments, **variables): the exit code, and the findings by their ids, each as a text."""

    def doctor(*arguments, **variables):
        done = run("--format", "json", *arguments, directory=tmp_path, **variables)
        assert done.stderr == "" and SECRET not in done.stdout
        told = json.loads(done.stdout)
        findings = {}
        for one in told["findings"]:
            text = f"{one['severity']}: {one['what']} -> {one['fix']}"
            findings[one["id"]] = "\n".join(filter(None, (findings.get(one["id"]), text)))
        assert "check-failed" not in findings, findings
        return SimpleNamespace(**told | {"code": done.returncode, "findings": findings})

    return doctor


@pytest.fixture
def write(tmp_path):
    def write(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)

    return write


APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return []
"""


# ---- the command ----


def test_text(write, tmp_path):
    write(app=APP)
    # Found as the server does.
    done = run(*QUIET, "--timeout", "0", directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    place = lines.index("warning  deadlines-off: --timeout 0: a request that hangs keeps its thread for ever")
    assert lines[place + 1] == "         -> --timeout 30s, or what pages take"
    assert " checks: " in lines[-1] and "\x1b" not in done.stdout


def test_colours_at_a_terminal(write, tmp_path):
    write(app=APP)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fastwsgi", "doctor", *QUIET, "--timeout", "0"]
    kept = {name: value for name, value in environment().items() if name != "NO_COLOR"}
    with subprocess.Popen(command, cwd=tmp_path, env=kept, stdout=theirs, stdin=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # the terminal has ended
            pass
        os.close(ours)
    assert process.returncode == 0
    assert b"\x1b[33mwarning\x1b[0m  deadlines-off: " in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-such-option"], "unknown option --no-such-option"),
        (["--format", "xml"], "--format: 'xml' is not one of text, json"),
        (["--import-timeout"], "--import-timeout needs a value: --import-timeout TIME"),
        (["a:app", "b:app"], "one application is served"),
        (["--check-config"], "doctor does not go with check"),
    ],
)
def test_a_wrong_command_line(capsys, words, said):
    from fastwsgi.cli import main

    assert main(["doctor", *words]) == 2
    told = capsys.readouterr()
    assert told.out == "" and said in told.err and "Usage: fastwsgi doctor" in told.err


def test_help(capsys):
    from fastwsgi.cli import main

    assert main(["doctor", "--help"]) == 0
    assert "--ask-database" in capsys.readouterr().out


def test_what_is_wrong_with_the_configuration(doctor, write, tmp_path):
    told = doctor()
    assert told.code == 1 and told.checks > 30
    assert told.findings["no-application"].startswith("error: which application? None is named")
    write(app=APP)
    (tmp_path / "fastwsgi.toml").write_text("threads = 0\n")
    told = doctor()
    assert told.code == 1 and list(told.findings) == ["configuration"]
    assert "fastwsgi.toml: threads" in told.findings["configuration"]
    (tmp_path / "fastwsgi.toml").write_text("chdir = 'no-such-directory'\napp = 'app:app'\n")
    assert "no-such-directory" in doctor().findings["configuration"]


def test_settings_of_gunicorn(doctor, write):
    write(app=APP)
    told = doctor(*QUIET, "--spew", "app:app")
    assert told.code == 0 and "--spew" in told.findings["settings-ignored"]


def test_a_taken_port(doctor, write):
    write(app=APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = doctor("--bind", f"127.0.0.1:{taken.getsockname()[1]}")
    assert "another server is listening there" in told.findings["address"]


def test_beside_the_server_that_runs(doctor, write, start):
    write(app=APP)
    server = start("app:app")
    told = doctor("--bind", f"127.0.0.1:{server.ports[0]}")
    assert told.findings["address"].startswith("hint: ")
    assert "a fastwsgi runs here" in told.findings["address"]


def test_a_broken_import(doctor, write):
    write(app=f"password = {SECRET!r}\nprint(password)\nimport no_such_module\n")
    told = doctor(*QUIET, "app:app")
    assert told.code == 1
    assert "No module named 'no_such_module'" in told.findings["import-fails"]


def test_a_hanging_import(doctor, write, tmp_path):
    write(app="import time\ntime.sleep(1000)\n")
    before = time.monotonic()
    told = doctor(*QUIET, "--import-timeout", "300ms", "app:app")
    assert told.code == 1 and time.monotonic() - before < 3 * PATIENCE
    assert f"takes longer than 0.3 s, at {tmp_path}/app.py:2" in told.findings["import-hangs"]


def test_an_exit_at_import(doctor, write):
    write(app="import sys\nsys.exit(3)\n")
    told = doctor(*QUIET, "app:app")
    assert told.code == 1 and "raised SystemExit" in told.findings["import-fails"]


def test_certificates(doctor, write, tmp_path):
    write(app=APP)
    certfile, keyfile = AUTHORITY.write(tmp_path, "example", "example.com", days=10.5, age=-80)
    os.chmod(keyfile, 0o644)
    words = (*QUIET, "--certfile", certfile, "--keyfile", keyfile, "--route", "www.example.com/ respond=200")
    told = doctor(*words, "app:app")
    assert told.code == 1
    assert (
        "ends in 1" in told.findings["certificate-ends"] or "ends in 9" in told.findings["certificate-ends"]
    )
    assert f"chmod 600 {keyfile}" in told.findings["key-readable"]
    assert "routes are for www.example.com" in told.findings["certificate-names"]


def test_preload_with_threads(doctor, write):
    write(
        app=APP
        + "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), name='t').start()\n"
    )
    told = doctor(*QUIET, "--preload", "app:app")
    assert "thread 't', started at " in told.findings["threads-at-import"]


def test_memory_of_the_application(doctor, write):
    write(app=APP + "kept = bytearray(100 << 20)\nkept[::4096] = b'x' * len(kept[::4096])\n")
    told = doctor(*QUIET, "--max-worker-memory", "50m", "app:app")
    assert told.code == 1 and "is replaced at 50 MiB" in told.findings["memory"]


# ---- Flask ----

FLASK = """
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix
app = Flask(__name__)
app.secret_key = {key!r}
app.debug = {debug}
app.wsgi_app = ProxyFix(app.wsgi_app)
"""


def test_flask(doctor, write):
    write(shop=FLASK.format(key="dev", debug=True))
    told = doctor("--bind", ":0", "shop:app")
    assert told.code == 1
    assert {"flask-debug", "flask-secret-key", "proxy-fix"} <= set(told.findings)
    write(shop=FLASK.format(key=SECRET, debug=False))
    told = doctor("--bind", ":0", "--forwarded-allow-ips", "10.0.0.1", "shop:app")
    assert told.code == 0
    assert not {"flask-debug", "flask-secret-key", "proxy-fix"} & set(told.findings)


# ---- Django ----

SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).parent
ROOT_URLCONF = "urls"
STATIC_URL = "static/"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.staticfiles"]
"""

# As `startproject` leaves it, and as people go on from there.
CARELESS = f"""
SECRET_KEY = "django-insecure-{SECRET}"
DEBUG = True
ALLOWED_HOSTS = ["*"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_SCHEME", "https")
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}}}
"""

# Mistakes of those who do not.
CAREFUL = f"""
SECRET_KEY = {SECRET!r}
DEBUG = False
ALLOWED_HOSTS = []
STATIC_ROOT = BASE_DIR / "collected"
SECURE_SSL_REDIRECT = True
CACHES = {{"default": {{"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}}}
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql", "NAME": "shop", "USER": "shop", "PASSWORD": {SECRET!r},
        "HOST": "127.0.0.1", "PORT": "1", "CONN_MAX_AGE": 60,
    }},
    "reports": {{"ENGINE": "django.db.backends.mysql", "NAME": "reports", "PASSWORD": {SECRET!r}}},
}}
"""

GOOD = f"""
SECRET_KEY = {SECRET!r}
DEBUG = False
ALLOWED_HOSTS = ["shop.example"]
STATIC_ROOT = BASE_DIR / "collected"
INSTALLED_APPS += ["fastwsgi.contrib.django"]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
"""

WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
application = get_wsgi_application()
"""


@pytest.fixture
def project(write):
    def project(settings):
        write(settings=SETTINGS + settings, urls="urlpatterns = []\n", wsgi=WSGI)

    return project


def of_django(told):
    """The ids that are about the application."""
    kinds = ("django", "sqlite", "database", "stale", "import")
    return {id for id in told.findings if id.startswith(kinds)}


def test_a_careless_project(doctor, project):
    project(CARELESS)
    told = doctor("--bind", ":0", "--workers", "2", "wsgi")
    assert told.code == 1
    assert of_django(told) == {
        "django-debug",
        "django-secret-key",
        "django-hosts",
        "django-proxy",
        "django-cache",
        "sqlite-writers",
    }
    assert "HTTP_X_SCHEME" in told.findings["django-proxy"]
    assert "users are logged out" in told.findings["django-cache"]


def test_a_careful_project(doctor, project):
    pytest.importorskip("psycopg")
    project(CAREFUL)
    told = doctor("--bind", ":0", "--workers", "30", "wsgi")
    assert told.code == 1
    expected = {"django-hosts", "django-static", "django-cache", "stale-connections", "database-connections"}
    assert of_django(told) == {*expected, "django-proxy"} | {"django-new-connections"}
    assert "every request gets 400" in told.findings["django-hosts"]
    assert "collectstatic --noinput" in told.findings["django-static"]
    assert "30 workers with 4 connections each are 120" in told.findings["database-connections"]
    assert "'reports' is 0" in told.findings["django-new-connections"]
    assert "redirected without end" in told.findings["django-proxy"]
    # Nobody listens at that port.
    told = doctor(*QUIET, "--workers", "1", "--ask-database", "wsgi")
    assert (
        "Django's 'default' (postgresql) does not answer: OperationalError"
        in told.findings["database-connections"]
    )


@pytest.fixture
def postgresql(short_path):
    """A PostgreSQL that takes 20 connections, 3 of them for superusers: the directory of its socket."""
    if not shutil.which("initdb") or not shutil.which("pg_ctl"):
        pytest.skip("no PostgreSQL here")
    pytest.importorskip("psycopg")
    data = short_path / "data"
    owner = {}
    if os.geteuid() == 0:  # it does not run as root
        owner = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        shutil.chown(short_path, "nobody")

    def ask(*command):
        # Its own processes would hold a pipe.
        with open(short_path / "said", "wb") as said:
            done = subprocess.run(
                command,
                cwd="/",
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=3 * PATIENCE,
                **owner,
            )
        assert done.returncode == 0, (short_path / "said").read_text()

    ask("initdb", "--pgdata", data, "--auth", "trust", "--username", "shop", "--no-sync")
    options = f"-c listen_addresses= -k {short_path} -c max_connections=20 -c fsync=off"
    ask("pg_ctl", "start", "--wait", "--pgdata", data, "--options", options, "--log", short_path / "log")
    yield short_path
    ask("pg_ctl", "stop", "--mode", "immediate", "--pgdata", data)


ASKED = f"""
SECRET_KEY = {SECRET!r}
ALLOWED_HOSTS = ["shop.example"]
DATABASES = {{{{"default": {{{{
    "ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "shop", "HOST": "{{place}}",
}}}}}}}}
"""


def test_what_a_database_says(doctor, project, postgresql):
    project(ASKED.format(place=postgresql))
    told = doctor(*QUIET, "--workers", "4", "--ask-database", "wsgi")
    assert "database-connections" not in told.findings
    told = doctor(*QUIET, "--workers", "5", "--ask-database", "wsgi")
    assert told.code == 1
    said = told.findings["database-connections"]
    assert said.startswith(
        "error: Django's 'default' (postgresql): 5 workers with 4 connections each are 20, "
    )
    assert "and it takes 17 -> " in said


def test_a_good_project(doctor, project, tmp_path):
    project(GOOD)
    (tmp_path / "collected").mkdir()
    (tmp_path / "collected/app.js").touch()
    told = doctor(*QUIET, "--workers", "2", "--forwarded-allow-ips", "10.0.0.1", "wsgi")
    assert (told.code, of_django(told)) == (0, set())
