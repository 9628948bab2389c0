"""Settings from all sources, the commands that show and check them, and the application that nobody names."""

import tomllib

import pytest

FLASK = """
from flask import Flask

def create_app():
    app = Flask(__name__)

    @app.get("/")
    def hello():
        return "hello from Flask"

    return app
"""

MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
raise RuntimeError("manage.py is not to be imported")
"""

SETTINGS = """
SECRET_KEY = "secret"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
"""

URLS = """
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("", lambda request: HttpResponse("hello from Django"))]
"""

WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
"""


@pytest.fixture
def django_project(tmp_path):
    return write(
        tmp_path,
        {
            "manage.py": MANAGE,
            "shop/__init__.py": "",
            "shop/settings.py": SETTINGS,
            "shop/urls.py": URLS,
            "shop/wsgi.py": WSGI,
        },
    )


def write(directory, files):
    for name, content in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return directory


@pytest.fixture
def serve_alone(start):
    """start, without an address in the arguments."""

    def serve_alone(*arguments, **environment):
        server = start(*arguments, started=False, **environment)
        server.wait_started()
        return server

    return serve_alone


@pytest.fixture
def run(start):
    """Start with arguments that end at once; return the exit code, the output and the lines of errors."""

    def run(*arguments, **environment):
        process = start(*arguments, started=False, **environment)
        return process.wait(), process.stdout, process.lines

    return run


# Without an application.


def test_a_django_project_is_found(start, django_project):
    server = start("-b", "127.0.0.1:0")
    assert server.ask().text == "hello from Django"
    assert server.lines[0] == (
        "fastwsgi: found shop.wsgi:application (manage.py and WSGI_APPLICATION of shop.settings)"
    )
    server.stop()


def test_a_flask_application_is_found_in_src(start, tmp_path):
    write(tmp_path, {"src/app.py": FLASK})
    server = start("-b", "127.0.0.1:0")
    assert server.ask().text == "hello from Flask"
    assert server.lines[0] == "fastwsgi: found app:create_app() (create_app() in src/app.py)"
    server.stop()


def test_the_application_is_in_the_file(serve_alone, tmp_path):
    write(tmp_path, {"fastwsgi.toml": 'app = "apps:hello"\nbind = "127.0.0.1:0"\nthreads = 2\n'})
    server = serve_alone()
    assert server.ask().text == "hello"
    assert "2 threads" in server.stderr
    assert "found" not in server.stderr
    server.stop()


# Sources.


def test_variables(serve_alone):
    server = serve_alone(
        FASTWSGI_APP="apps:hello", FASTWSGI_BIND="127.0.0.1:0", FASTWSGI_CMD_ARGS="--threads 3", PORT="1"
    )
    assert server.ask().text == "hello"
    assert "3 threads" in server.stderr
    server.stop()


def test_variables_for_the_application(start, tmp_path):
    write(
        tmp_path,
        {
            "told.py": "import os\n"
            "GREETING = os.environ['GREETING']\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
            "    return [GREETING.encode()]\n"
        },
    )
    server = start("-b", "127.0.0.1:0", "-e", "GREETING=hello = you", "told:app")
    assert server.ask().text == "hello = you"
    server.stop()


def test_gunicorns_command_line_is_read_with_a_notice(serve_alone):
    server = serve_alone("apps:hello", GUNICORN_CMD_ARGS="-b 127.0.0.1:0 --threads 2 -k gthread --spew")
    assert server.ask().text == "hello"
    assert "2 threads" in server.stderr
    assert server.lines[:2] == [
        "fastwsgi: GUNICORN_CMD_ARGS is heeded: -b, --threads, -k, --spew",
        "fastwsgi: GUNICORN_CMD_ARGS has what fastwsgi cannot honour: --spew (a debugger does that)",
    ]
    server.stop()


def test_gunicorns_file(serve_alone, tmp_path):
    write(
        tmp_path,
        {
            "gunicorn.conf.py": "import helper\nbind = '127.0.0.1:0'\nthreads = helper.THREADS\nspew = True\n"
            "wsgi_app = 'apps:hello'\ndef when_ready(server): pass\n",
            "helper.py": "THREADS = 2\n",
        },
    )
    server = serve_alone("-c", "gunicorn.conf.py")
    assert server.ask().text == "hello"
    assert "2 threads" in server.stderr
    assert server.lines[0] == (
        "fastwsgi: gunicorn.conf.py has what fastwsgi cannot honour: spew (a debugger does that)"
    )
    server.stop()


# What is wrong is one line.


@pytest.mark.parametrize(
    ("files", "arguments", "environment", "message"),
    [
        (
            {"fastwsgi.toml": "thread = 3\n"},
            (),
            {},
            "fastwsgi.toml: unknown setting thread; did you mean threads?",
        ),
        ({}, (), {"FASTWSGI_THREAD": "3"}, "FASTWSGI_THREAD is no setting; did you mean FASTWSGI_THREADS?"),
        ({"conf.py": "1/0\n"}, ("-c", "conf.py"), {}, "conf.py, line 1: ZeroDivisionError: division by zero"),
        (
            {"conf.py": "keyfile = 'x.pem'\n"},
            ("-c", "conf.py"),
            {},
            "keyfile: x.pem is the key of what? give certfile, too",
        ),
        ({}, ("-c", "no.toml"), {}, "cannot read no.toml: No such file or directory"),
    ],
    ids=["file", "variable", "conf", "keyfile", "missing"],
)
@pytest.mark.parametrize(
    "command", [(), ("--check-config",), ("--print-config",)], ids=["serve", "check", "print"]
)
def test_wrong_settings(run, tmp_path, files, arguments, environment, message, command):
    write(tmp_path, files)
    code, output, lines = run(*arguments, *command, "apps:hello", **environment)
    assert (code, output, lines) == (1, "", [f"fastwsgi: {message}"])


# --check-config.


def test_a_configuration_that_is_right(run, django_project):
    write(django_project, {"fastwsgi.toml": "threads = 2\n"})
    code, output, lines = run("--check-config", "-b", "127.0.0.1:1")
    assert (code, lines) == (0, [])
    assert output.startswith(
        "configuration OK: shop.wsgi:application (manage.py and WSGI_APPLICATION of shop.settings), 2 of "
    )
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1/0\n", "fastwsgi: importing broken raised ZeroDivisionError"),
        ("app = 3\n", "fastwsgi: broken:app is not callable: it is of type int"),
    ],
)
def test_an_application_that_cannot_be_loaded(run, tmp_path, source, words):
    write(tmp_path, {"broken.py": source})
    code, output, lines = run("--check-config", "broken:app")
    assert (code, output, lines[-1]) == (4, "", words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-b", "8000"), "cannot listen at 8000: "),
        (("--user", "no-such-user"), "no-such-user"),
        (("--access-logformat", "%(nonsense)s"), "nonsense"),
        (("--chdir", "/no/such/directory"), "/no/such/directory"),
    ],
)
def test_what_only_serving_would_show(run, arguments, words):
    code, output, lines = run("--check-config", *arguments, "apps:hello")
    assert (code, output, len(lines)) == (1, "", 1)
    assert words in lines[0]


@pytest.mark.parametrize("command", [(), ("--workers", "0"), ("--check-config",)], ids=" ".join)
def test_a_coding_whose_package_is_missing(run, tmp_path, command):
    write(tmp_path, {"brotli.py": "raise ImportError\n"})
    code, output, lines = run("-b", "127.0.0.1:0", "--compress", "gzip,br", *command, "apps:hello")
    assert (code, output, len(lines)) == (1, "", 1)
    assert lines[0].startswith("fastwsgi: compress: br needs the module brotli")


def test_nothing_listens_while_checking(run, short_path, tmp_path):
    socket = short_path / "socket"
    code, _, _ = run("--check-config", "-b", f"unix:{socket}", "--pid", "pid", "apps:hello")
    assert code == 0
    assert not socket.exists()
    assert list(tmp_path.iterdir()) == []


def test_threads_of_the_application_do_not_hold_the_check(run, tmp_path):
    write(
        tmp_path,
        {
            "threaded.py": "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(60,)).start()\n"
            "def app(environ, start_response): ...\n"
        },
    )
    code, output, _ = run("--check-config", "threaded:app")
    assert (code, output.startswith("configuration OK")) == (0, True)


# --print-config.


def test_the_printed_configuration_serves(serve_alone, run, tmp_path):
    write(tmp_path, {"pyproject.toml": "[tool.fastwsgi]\nthreads = 2\n"})
    code, output, lines = run("--print-config", "-b", "127.0.0.1:0", "apps:hello", FASTWSGI_KEEP_ALIVE="5")
    assert (code, lines) == (0, [])
    assert "threads = 2  # pyproject.toml" in output
    assert 'keep_alive = "5s"  # FASTWSGI_KEEP_ALIVE' in output
    assert tomllib.loads(output)["app"] == "apps:hello"
    write(tmp_path, {"fastwsgi.toml": output})
    server = serve_alone()
    assert server.ask().text == "hello"
    assert "2 threads" in server.stderr
    server.stop()


def test_a_configuration_without_an_application_is_printed_too(run):
    code, output, lines = run("--print-config", "--threads", "3")
    assert (code, lines) == (0, [])
    assert "threads = 3  # --threads" in output
    assert "app" not in tomllib.loads(output)
