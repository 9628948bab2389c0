"""fastwsgi.contrib.django: one line of INSTALLED_APPS, and the server has a project's static files."""

import gzip
import subprocess
import sys

import pytest

from support import Client, wait_until

SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).parent
SECRET_KEY = "for a test"
DEBUG = {debug}
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "project.urls"
INSTALLED_APPS = ["django.contrib.staticfiles", "shop", "fastwsgi.contrib.django"]
STATIC_URL = "static/"
STATIC_ROOT = {root}
STATICFILES_DIRS = [BASE_DIR / "assets", ("vendor", BASE_DIR / "lib")]
STORAGES = {{"staticfiles": {{"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}}}}
"""

URLS = """
from django.http import HttpResponse
from django.templatetags.static import static
from django.urls import re_path

urlpatterns = [re_path("", lambda request: HttpResponse(static("shop/style.css")))]
"""

WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
application = get_wsgi_application()
"""


@pytest.fixture
def project(tmp_path):
    """project(debug=False): write the project."""

    def write(debug=False, root='BASE_DIR / "collected"'):
        files = {
            "project/__init__.py": "",
            "project/settings.py": SETTINGS.format(debug=debug, root=root),
            "project/urls.py": URLS,
            "project/wsgi.py": WSGI,
            "project/assets/own.js": "own" * 200,
            "project/lib/lib.js": "lib",
            "shop/__init__.py": "",
            "shop/static/shop/style.css": "shop" * 200,
            "shop/static/own.js": "not this one",
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


def collect(directory):
    command = [sys.executable, "-m", "django", "collectstatic", "--noinput", "--settings", "project.settings"]
    subprocess.run(
        command, cwd=directory, check=True, capture_output=True, env={"PYTHONPATH": ":".join(sys.path)}
    )


def test_what_is_collected(start, project, tmp_path):
    project()
    collect(tmp_path)
    subprocess.run([sys.executable, "-m", "fastwsgi", "pack", "project/collected"], cwd=tmp_path, check=True)
    # A route of the settings beside the one that the application announces.
    server = start("--preload", "--header", "X-One: 1", "project.wsgi")
    with Client(("127.0.0.1", server.ports[0])) as client:
        name = client.ask("/").text
        assert name.startswith("/static/shop/style.") and len(name) == len(
            "/static/shop/style.0123456789ab.css"
        )
        response = client.ask(name)
        assert (response.status, response.text) == (200, "shop" * 200)
        assert response["Cache-Control"] == "max-age=31536000, immutable"
        response = client.ask(name, fields=[("Accept-Encoding", "gzip")])
        assert gzip.decompress(response.content) == b"shop" * 200
        response = client.ask("/static/own.js")
        assert (response.text, response["X-One"]) == ("own" * 200, "1")
        assert client.ask("/static/vendor/lib.js").text == "lib"
        assert client.ask("/static/none").status == 404
        assert client.ask("/staticky").text == name


def test_with_debug_the_finders_places(start, project, tmp_path):
    project(debug=True)
    server = start("project.wsgi")
    with Client(("127.0.0.1", server.ports[0])) as client:
        assert client.ask("/").text == "/static/shop/style.css"
        response = client.ask("/static/shop/style.css")
        assert (response.text, response["Cache-Control"]) == ("shop" * 200, "no-cache")
        assert client.ask("/static/own.js").text == "own" * 200
        assert client.ask("/static/vendor/lib.js").text == "lib"
        assert client.ask("/static/lib.js").status == 404
        (tmp_path / "shop/static/new.js").write_text("new")
        wait_until(lambda: client.ask("/static/new.js").text == "new", "the new file")


def test_without_a_directory(start, project):
    project(root="None")
    start("project.wsgi").wait_said("STATIC_ROOT is not set")
