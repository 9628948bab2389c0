"""manage.py with fastwsgi.contrib.django in INSTALLED_APPS: runserver and serve."""

import signal

import pytest

from support import wait_until

SETTINGS = """
import os
from pathlib import Path
BASE_DIR = Path(__file__).parent
SECRET_KEY = "for a test"
DEBUG = {debug}
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
INSTALLED_APPS = ["fastwsgi.contrib.django", "django.contrib.staticfiles", "shop"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "database"}}}}
TEMPLATES = [{{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}}]
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "collected"
FASTWSGI = {table}
"""

FILES = {
    "manage.py": """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "shop/__init__.py": "",
    "shop/wsgi.py": """
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
""",
    "shop/urls.py": """
import os
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path

def about(request):
    names = ["wsgi.multithread", "wsgi.multiprocess", "SERVER_SOFTWARE"]
    values = [str(request.META[name]) for name in names]
    return HttpResponse(" ".join([*values, os.environ["DJANGO_SETTINGS_MODULE"]]))

urlpatterns = [path("", about), path("page", lambda request: render(request, "shop/page.html"))]
""",
    "shop/templates/shop/page.html": "the page",
    "shop/static/shop/style.css": "shop",
    "shop/checks.py": """
from django.core import checks

@checks.register
def refuse(app_configs, **kwargs):
    return [checks.Error("the shop is closed", id="shop.E001")]
""",
}


@pytest.fixture
def project(write):
    """project(debug=True, table="{}"): write the project, its settings with that FASTWSGI."""

    def project(debug=True, table="{}", **more):
        write({**FILES, "shop/settings.py": SETTINGS.format(debug=debug, table=table), **more})

    return project


def stop(server, number=signal.SIGINT):
    server.signal(number)
    assert server.wait() == 0, server.stderr


def test_runserver_serves_with_djangos_messages_and_checks(run, project, tmp_path):
    project()
    server = run("manage.py", "runserver", "127.0.0.1:0")
    wait_until(lambda: "Quit the server" in server.stdout, lambda: server.stdout + server.stderr)
    for words in (
        "Performing system checks...",
        "System check identified no issues",
        "using settings 'shop.settings'",
        "development server at http://127.0.0.1:0/",
        "Quit the server with CONTROL-C.",
    ):
        assert server.stdout.count(words) == 1, server.stdout
    assert server.ask("/").text.endswith("shop.settings")
    assert "fastwsgi/" in server.ask("/").text
    response = server.ask("/static/shop/style.css")
    assert (response.text, response["Cache-Control"]) == ("shop", "no-cache")
    assert server.ask("/static/none").status == 404
    assert ", shop/wsgi.py; not for production: " in server.stderr
    # Templates are kept also in development, until the process is another one.
    assert server.ask("/page").text == "the page"
    (tmp_path / "shop/templates/shop/page.html").write_text("another page")
    wait_until(lambda: server.ask("/page").text == "another page", lambda: server.stderr)
    (tmp_path / "shop/__init__.py").write_text("import shop.checks")
    wait_until(lambda: server.ask("/").status == 500, lambda: server.stderr)
    assert "(shop.E001) the shop is closed" in server.ask("/", fields=[("Host", "localhost")]).text
    assert "Traceback" not in server.stderr
    (tmp_path / "shop/__init__.py").write_text("")
    wait_until(lambda: server.ask("/").status == 200, lambda: server.stderr)
    stop(server)


def test_runserver_in_this_process(run, project):
    project(debug=False)
    server = run(
        *("manage.py", "runserver", "--noreload", "--nothreading", "--insecure", "-6", "0"),
        wait=r"http://\[::1\]:(\d+)",
    )
    with server.connect(("::1", server.ports[0])) as client:
        assert client.ask("/").text.startswith("False False fastwsgi/")
        assert client.ask("/static/shop/style.css").text == "shop"
    assert "Quit the server with CONTROL-C." in server.stdout
    # The port is taken, and Django's command says so in one line.
    again = run("manage.py", "runserver", "--noreload", f"[::1]:{server.ports[0]}", wait="")
    assert again.wait() == 1
    assert "CommandError: cannot listen at [::1]" in again.stderr and "Traceback" not in again.stderr
    stop(server)


def test_runserver_without_static_files(run, project):
    project()
    server = run("manage.py", "runserver", "--nostatic", "--nothreading", "127.0.0.1:0")
    assert server.ask("/").text.startswith("False ")
    assert server.ask("/static/shop/style.css").status == 404
    stop(server)


def test_serve_has_the_settings_of_the_project(run, project, tmp_path):
    project(
        debug=False,
        table='{"workers": 2, "threads": 1, "header": ["X-Name: first"], "error_logfile": BASE_DIR / "log"}',
    )
    server = run("manage.py", "serve", "--bind", "127.0.0.1:0", "--error-logfile=-", "--access-logfile", "-")
    server.wait_said("All 2 workers serve")
    response = server.ask("/")
    assert response.text.startswith("False True fastwsgi/")
    assert response.text.endswith(" shop.settings")
    assert response["X-Name"] == "first"
    wait_until(lambda: '"GET / HTTP/1.1" 200' in server.stdout, "the access log")
    # Another FASTWSGI, as any other file of settings.
    project(debug=False, table='{"workers": 1, "threads": 2, "header": ["X-Name: second"]}')
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.ask("/")["X-Name"] == "second", lambda: server.stderr)
    wait_until(lambda: server.ask("/").text.startswith("True False"), lambda: server.stderr)
    # One that is wrong changes nothing.
    project(debug=False, table='{"thread": 2}')
    server.signal(signal.SIGHUP)
    server.wait_said("shop.settings: FASTWSGI: unknown setting thread; did you mean threads?")
    assert server.ask("/")["X-Name"] == "second"
    stop(server, signal.SIGTERM)


def test_serve_refuses_what_is_wrong_in_one_line(run, project):
    project(debug=True, table='{"therads": 2}')
    # At the same time, as each is a Python that starts twice.
    wrong = {
        "unknown setting therads; did you mean threads?": run("manage.py", "serve", wait=""),
        "--backlog: 'x' is not": run("manage.py", "serve", "--backlog", "x", wait=""),
        "unrecognized arguments: --thread": run("manage.py", "serve", "--thread", "2", wait=""),
    }
    for words, process in wrong.items():
        assert process.wait() in (1, 2), process.stderr
        assert words in process.stderr and "Traceback" not in process.stderr, process.stderr
        if "arguments" not in words:
            assert process.stderr.startswith("DEBUG is on")
    wrong = {
        "3": "FASTWSGI is of type int; give a dict",
        '{"threads": "many"}': "FASTWSGI: threads: 'many' is not",
        '{"log_config_dict": {"a": open}}': "FASTWSGI: ",
        '{"config": "x.toml"}': "FASTWSGI: config is for the command line",
        "1 / 0": "ZeroDivisionError: division by zero",
    }
    project(
        **{
            f"shop/wrong{i}.py": f"from shop.settings import *\nFASTWSGI = {table}"
            for i, table in enumerate(wrong)
        }
    )
    tried = [
        run("-m", "fastwsgi", "--config", f"django:shop.wrong{i}", "--check-config", wait="")
        for i in range(len(wrong))
    ]
    for words, process in zip(wrong.values(), tried):
        assert process.wait() == 1
        assert words in process.stderr.splitlines()[-1], process.stderr


def test_checks_stand_before_both(run, project):
    project(**{"shop/__init__.py": "import shop.checks"})
    serve = run("manage.py", "serve", wait="")
    development = run("manage.py", "runserver", "--noreload", "0", wait="")
    for process in (serve, development):
        assert process.wait() == 1
        assert "(shop.E001) the shop is closed" in process.stderr


def test_the_commands_application_is_that_of_the_settings(run, project):
    project(
        debug=False, table='{"threads": 1}', **{"shop/other.py": "from shop.settings import *\nFASTWSGI = {}"}
    )
    server = run(
        *("-m", "fastwsgi", "--config", "django:shop.other", "--workers", "1", "-b", "127.0.0.1:0"),
        DJANGO_SETTINGS_MODULE="shop.settings",
    )
    assert server.ask("/").text.startswith("True ")
    assert server.ask("/").text.endswith(" shop.other")
    stop(server)
