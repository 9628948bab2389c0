"""Finding an application that nobody names: by reading source files, and never by importing them."""

import pytest

from fastwsgi.discovery import find
from fastwsgi.errors import ConfigError

APP = "from flask import Flask\napp = Flask(__name__)\n"
FACTORY = "def create_app(test_config=None):\n    return None\n"
MANAGE = """import os, sys
def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{}")
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
if __name__ == "__main__":
    main()
"""


@pytest.fixture
def write(tmp_path):
    """Write files, by path: an import of any of them would fail."""

    def write(files):
        for name, source in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"raise_if_imported\n{source}")
        return str(tmp_path)

    return write


@pytest.mark.parametrize(
    ("files", "application", "how"),
    [
        ({"app.py": APP}, "app:app", "app in app.py"),
        ({"wsgi.py": "application = make()\n"}, "wsgi:application", "application in wsgi.py"),
        ({"main.py": FACTORY}, "main:create_app()", "create_app() in main.py"),
        ({"app/__init__.py": APP}, "app:app", "app in app/__init__.py"),
        ({"app.py": f"{FACTORY}app = create_app()\n"}, "app:app", "app in app.py"),
        ({"app.py": f"{APP}application = app\n"}, "app:application", "application in app.py"),
        ({"app.py": "def app(environ, start_response): ...\n"}, "app:app", "app in app.py"),
        ({"app.py": "app: Flask = Flask(__name__)\n"}, "app:app", "app in app.py"),
        ({"app.py": "try:\n    app = a()\nexcept E:\n    app = b()\n"}, "app:app", "app in app.py"),
        ({"wsgi.py": "from shop import app\n"}, "wsgi:app", "app in wsgi.py"),
        ({"wsgi.py": "from shop import shop as application\n"}, "wsgi:application", "application in wsgi.py"),
        ({"app.py": APP, "wsgi.py": "from app import app\n"}, "wsgi:app", "app in wsgi.py"),
        ({"app.py": APP, "wsgi.py": "import app as a\napp = W(a.app)\n"}, "wsgi:app", "app in wsgi.py"),
        (
            {"app.py": FACTORY, "main.py": "from app import create_app\napp = create_app()\n"},
            "main:app",
            "app in main.py",
        ),
        ({"app.py": APP, "main.py": "import app\nprint(app)\n"}, "app:app", "app in app.py"),
        ({"src/app.py": APP}, "app:app", "app in src/app.py"),
        ({"manage.py": "from flask_script import Manager\n", "app.py": APP}, "app:app", "app in app.py"),
        ({"app.py": APP, "src/main.py": APP}, "app:app", "app in app.py"),
        ({"app.py": f"{APP}def broken(:\n    pass\n"}, "app:app", "app in app.py"),
        ({"app.py": "def app(environ, start_response):\n    x = (\n"}, "app:app", "app in app.py"),
        ({"app.py": "def app(environ, start_response):\n  if x:\n   = 1\n"}, "app:app", "app in app.py"),
    ],
)
def test_found(write, files, application, how):
    directory = write(files)
    found = find(directory)
    assert (found.application, found.how) == (application, how)
    assert found.path == (f"{directory}/src" if how.endswith("src/app.py") else None)


@pytest.mark.parametrize(
    ("files", "application", "how"),
    [
        (
            {
                "manage.py": MANAGE.format("shop.settings"),
                "shop/settings.py": 'WSGI_APPLICATION = "shop.serving.application"\n',
                "app.py": APP,
            },
            "shop.serving:application",
            "manage.py and WSGI_APPLICATION of shop.settings",
        ),
        (
            {"manage.py": MANAGE.format("shop.settings"), "shop/settings.py": "", "shop/wsgi.py": ""},
            "shop.wsgi:application",
            "manage.py and shop/wsgi.py",
        ),
        (
            {"manage.py": MANAGE.format("config.settings.local"), "config/wsgi.py": ""},
            "config.wsgi:application",
            "manage.py and config/wsgi.py",
        ),
        (
            {
                "manage.py": MANAGE.format("config.settings.local"),
                "config/settings/local.py": "from .base import *\nDEBUG = True\n",
                "config/settings/base.py": 'WSGI_APPLICATION = "config.wsgi.app"\n',
            },
            "config.wsgi:app",
            "manage.py and WSGI_APPLICATION of config.settings.local",
        ),
        (
            {
                "manage.py": MANAGE.format("config.settings"),
                "config/settings/__init__.py": "from .base import *\nfrom .local import *\n",
                "config/settings/base.py": 'from . import *\nWSGI_APPLICATION = "config.wsgi.app"\n',
            },
            "config.wsgi:app",
            "manage.py and WSGI_APPLICATION of config.settings",
        ),
        (
            {
                "manage.py": 'import os\nos.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"\n',
                "shop/wsgi.py": "",
            },
            "shop.wsgi:application",
            "manage.py and shop/wsgi.py",
        ),
        (
            {"src/manage.py": MANAGE.format("shop.settings"), "src/shop/wsgi.py": ""},
            "shop.wsgi:application",
            "src/manage.py and src/shop/wsgi.py",
        ),
    ],
)
def test_django(write, files, application, how):
    found = find(write(files))
    assert (found.application, found.how) == (application, how)


def test_the_environment_knows_the_settings_of_django_better(write):
    directory = write(
        {
            "manage.py": MANAGE.format("shop.settings"),
            "shop/wsgi.py": "",
            "production/wsgi.py": "",
            "app.py": APP,
        }
    )
    assert find(directory, "production.settings").application == "production.wsgi:application"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"app.py": "app = None\n"},
        {"app.py": "def make(): ...\n"},
        {"app.py": "def create_app(config): ...\n"},
        {"app.py": "def create_app(*, config): ...\n"},
        {"app.py": "if __name__ == '__main__':\n    app = make()\n"},
        {"app.py": "def f():\n    app = make()\n"},
        {"app.py": "app = (\n"},
        {"other.py": APP},
    ],
)
def test_nothing(write, files):
    directory = write(files)
    with pytest.raises(ConfigError) as caught:
        find(directory)
    assert str(caught.value) == (
        f"which application? None is named, and {directory} has no Django manage.py and no app.py, wsgi.py, "
        "main.py with application, app or create_app(); name it, as in: fastwsgi app:app"
    )


def test_more_than_one(write):
    directory = write({"app.py": APP, "main.py": FACTORY})
    with pytest.raises(ConfigError) as caught:
        find(directory)
    assert str(caught.value) == (
        f"which application? {directory} has more than one: app:app or main:create_app(); "
        "name it, as in: fastwsgi app:app"
    )
    directory = write({"app.py": f"from main import x\n{APP}", "main.py": "from app import app\n"})
    with pytest.raises(ConfigError, match="more than one: app:app or main:app"):
        find(directory)


def test_django_without_an_application(write):
    directory = write({"manage.py": MANAGE.format("settings"), "settings.py": "", "app.py": APP})
    with pytest.raises(ConfigError) as caught:
        find(directory)
    assert str(caught.value) == (
        "which application? manage.py uses the settings settings, but there is neither WSGI_APPLICATION in "
        "them nor a wsgi.py beside them; name it, as in: fastwsgi app:app"
    )
