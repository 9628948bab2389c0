"""The fixtures that every pytest has where fastwsgi is installed."""

import subprocess
import sys

from contrib.test_django_commands import FILES, SETTINGS

PLAIN = """
import sys
import urllib.request

import pytest


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['wsgi.multithread']} {environ['PATH_INFO']}".encode()]


def get(url):
    with urllib.request.urlopen(url) as response:
        return response.read().decode()


def test_nothing_is_imported_before_it_is_asked_for():
    assert "fastwsgi.contrib.pytest" in sys.modules
    assert not {"fastwsgi.worker", "fastwsgi._crew", "fastwsgi.config", "django"} & set(sys.modules)


def test_servers(fastwsgi_server):
    one, other = fastwsgi_server(app), fastwsgi_server("test_plain:app", threads=1)
    assert get(one.url + "/a") == "True /a"
    assert get(f"{other}/b") == "False /b"
    assert other.counters()["requests"] == 1
    other.stop()
    with pytest.raises(OSError):
        get(other.url)
    assert get(f"http://{one.host}:{one.port}/c") == "True /c"


def test_a_wrong_option(fastwsgi_server):
    with pytest.raises(ValueError, match="did you mean threads"):
        fastwsgi_server(app, thread=1)


def test_without_an_application(request):
    with pytest.raises(pytest.UsageError, match="fastwsgi_app"):
        request.getfixturevalue("fastwsgi_live_server")


class TestWithAnApp:
    @pytest.fixture
    def app(self):
        return app

    def test_live_server(self, fastwsgi_live_server):
        assert get(fastwsgi_live_server + "/d") == "True /d"


class TestWithOneOfItsOwn:
    @pytest.fixture
    def fastwsgi_app(self):
        return "test_plain:app"

    def test_live_server(self, fastwsgi_live_server):
        assert get(fastwsgi_live_server + "/e") == "True /e"
"""

DJANGO = """
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import Group


def get(url):
    with urllib.request.urlopen(url) as response:
        return response.read().decode()


def test_the_database_of_the_test(fastwsgi_live_server):
    Group.objects.create(name="made in the test")
    with ThreadPoolExecutor() as pool:
        answers = set(pool.map(get, [fastwsgi_live_server.url + "/groups"] * 8))
    assert answers == {"made in the test"}
    get(fastwsgi_live_server.url + "/groups?name=asked+for")
    assert Group.objects.count() == 2
    assert get(fastwsgi_live_server.url + "/static/shop/style.css") == "shop"


def test_beside_the_live_server_of_pytest_django(live_server, fastwsgi_live_server):
    assert get(live_server.url + "/groups") == get(fastwsgi_live_server.url + "/groups") == ""


@pytest.mark.django_db
def test_it_is_left_as_it_was():
    assert Group.objects.count() == 0
"""

GROUPS = """
from django.contrib.auth.models import Group
from django.http import HttpResponse
from django.urls import path


def groups(request):
    if "name" in request.GET:
        Group.objects.create(name=request.GET["name"])
    return HttpResponse(" ".join(group.name for group in Group.objects.all()))


urlpatterns = [path("groups", groups)]
"""


def pytest(run, *words):
    process = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *words, wait="")
    assert process.wait(60) == 0, process.stdout + process.stderr
    return process.stdout


def test_by_itself(run, write):
    write({"test_plain.py": PLAIN})
    said = pytest(run, "-p", "no:django", "test_plain.py")
    assert "6 passed" in said, said
    said = pytest(run, "-p", "no:django", "--fixtures", "test_plain.py")
    assert "fastwsgi_live_server" in said and "fastwsgi_server(app, **options)" in said


def test_along_with_pytest_django(run, write):
    settings = SETTINGS.format(debug=False, table="{}").replace('"shop"]', '"shop", *OTHERS]')
    settings = "OTHERS = ['django.contrib.contenttypes', 'django.contrib.auth']\n" + settings
    write({**FILES, "shop/settings.py": settings, "shop/urls.py": GROUPS, "test_shop.py": DJANGO})
    said = pytest(run, "--ds", "shop.settings", "test_shop.py")
    assert "3 passed" in said, said


def test_it_costs_next_to_nothing():
    # What the plugin imports itself, with what pytest has imported before.
    code = (
        "import pytest, sys; before = set(sys.modules); import fastwsgi.contrib.pytest;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) < 10, done.stdout
