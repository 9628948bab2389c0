"""Routes of a command that runs: several applications, from flags and files, over reloads."""

import signal

import pytest

from support import wait_until

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join((__name__, environ["SCRIPT_NAME"], environ["PATH_INFO"])).encode()]
"""


@pytest.fixture
def apps(tmp_path):
    for name in ("shop", "blog", "api"):
        (tmp_path / f"{name}.py").write_text(APP)
    return tmp_path


def at(host):
    return [("Host", host)]


# Applications.


@pytest.mark.parametrize("options", [(), ("--preload",), ("--workers", "0")])
def test_applications_from_flags(start, apps, options):
    (apps / "blog.py").write_text(f"{APP}\ndef make():\n    print('made')\n    return app\n")
    mounts = ("--mount", "/blog=blog:make()", "--mount", "/b=blog:make()")
    server = start(*options, *mounts, "--route", "api.example.com/ app=api:app", "shop:app")
    assert server.ask("/x").text == "shop  /x"
    assert server.ask("/blog/x").text == "blog /blog /x"
    assert server.ask("/b/x").text == "blog /b /x"
    assert server.ask("/blog/x", fields=at("api.example.com")).text == "api  /blog/x"
    server.stop()
    assert server.stdout == "made\n"


@pytest.mark.parametrize("options", [(), ("--preload",), ("--check-config",)])
def test_an_application_that_fails_names_its_route(start, apps, options):
    (apps / "blog.py").write_text("import nothing_of_that_name\n")
    server = start(*options, "--mount", "/blog=blog:app", "-b", "127.0.0.1:0", "shop:app", started=False)
    assert server.wait() == 4
    assert "fastwsgi: /blog app=blog:app: importing blog raised ModuleNotFoundError" in server.lines
    assert "import nothing_of_that_name" in server.stderr


def test_without_an_application(start, apps):
    server = start("--route", "/ respond='200 Nothing but this.'")
    assert server.ask("/x").text == "Nothing but this.\n"
    server.stop()
    assert "serves its routes" in server.stderr


def test_hooks_are_called_for_every_application(start, apps):
    (apps / "hooks.conf.py").write_text(
        "def pre_request(worker, request):\n    print(request.path, flush=True)\n"
    )
    server = start("-c", "hooks.conf.py", "--mount", "/blog=blog:app", "shop:app")
    server.ask("/x")
    server.ask("/blog/y")
    server.stop()
    assert server.stdout == "/x\n/blog/y\n"


# Settings.


def test_a_reload_has_other_routes(start, apps):
    file = apps / "fastwsgi.toml"
    file.write_text('app = "shop:app"\n[[route]]\npath = "/x"\nrespond = 410\n')
    server = start()
    assert server.ask("/x").status == 410
    file.write_text('app = "shop:app"\n[[route]]\npath = "/x"\napp = "blog:app"\n')
    server.signal(signal.SIGHUP)
    server.wait_said("Reloaded")
    # The former worker may have accepted one more.
    wait_until(lambda: server.ask("/x/y").text == "blog /x /y", "the other route")
    file.write_text('app = "shop:app"\n[[route]]\npath = "/x"\nrespond = 99\n')
    server.signal(signal.SIGHUP)
    server.wait_said("fastwsgi.toml: route: /x: respond: 99 is not a status from 200 to 599")
    assert server.ask("/x/y").text == "blog /x /y"
    server.stop()
