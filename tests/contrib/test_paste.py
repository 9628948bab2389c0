"""PasteDeploy: `use = egg:fastwsgi#main` for pserve, and applications of ini files for the command."""

import os
import signal

import pytest

from support import wait_until

pytest.importorskip("pyramid")

APP = """
from pyramid.config import Configurator

def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.add_route("index", "/")
        config.add_view(index, route_name="index", renderer="json")
        return config.make_wsgi_app()

def index(request):
    threads, processes = (request.environ["wsgi." + name] for name in ("multithread", "multiprocess"))
    return {"name": request.registry.settings["name"], "threads": threads, "processes": processes}
"""

INI = """
[app:main]
paste.app_factory = shop:main
name = first

[server:main]
use = egg:fastwsgi#main
SERVER
access_logfile = access
header =
    X-One: 1
    X-Two: 2

[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = INFO
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = PLAIN %(message)s
"""

# The command `pserve`, whether it is installed beside this Python or not.
PSERVE = ("-c", "import sys; from pyramid.scripts.pserve import main; sys.exit(main())")


@pytest.fixture
def shop(write):
    """shop("threads = 1"): write an application and its ini file with these lines on the server."""
    return lambda server: write({"shop.py": APP, "shop.ini": INI.replace("SERVER", server)})


def test_pserve(run, shop, tmp_path):
    shop("host = 127.0.0.1\nport = 0\nthreads = 1")
    server = run(*PSERVE, "shop.ini")
    response = server.ask("/")
    assert response.text == '{"name": "first", "threads": false, "processes": false}'
    assert (response["X-One"], response["X-Two"]) == ("1", "2")
    wait_until(lambda: '"GET / HTTP/1.1" 200' in (tmp_path / "access").read_text(), "the access log")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_pserve_reloads(run, shop, tmp_path):
    shop("listen = 127.0.0.1:0 [::1]:0")
    server = run(*PSERVE, "--reload", "shop.ini")
    assert len(server.ports) == 2
    (tmp_path / "shop.ini").write_text((tmp_path / "shop.ini").read_text().replace("first", "second"))

    def is_seen():
        # Where it looks only now and then (no watchdog), what is written before its first look is not seen.
        os.utime(tmp_path / "shop.ini")
        return "changed; reloading" in server.stdout + server.stderr

    wait_until(is_seen, lambda: server.stdout + server.stderr)
    wait_until(lambda: server.stderr.count("Listening") == 4, lambda: server.stdout + server.stderr)
    port = int(server.stderr.rpartition("Listening at http://[::1]:")[2].split()[0])
    with server.connect(("::1", port)) as client:
        assert '"second"' in client.ask("/").text
    assert "forcefully" not in server.stderr + server.stdout
    server.signal(signal.SIGINT)
    server.wait()


def test_what_is_wrong_ends_it_in_one_line(run, shop, tmp_path):
    wrong = {
        "therads = 1": "unknown setting therads; did you mean threads?",
        "workers = 2": "run does not take workers",
        "listen = :1\nport = 2\nhost = x": "listen and host both say where to listen",
    }
    processes = []
    for number, server in enumerate(wrong):
        shop(server)
        (tmp_path / "shop.ini").rename(tmp_path / f"{number}.ini")
        processes.append(run(*PSERVE, f"{number}.ini", wait=""))
    for words, process in zip(wrong.values(), processes):
        process.wait()  # pserve says 0 whatever it was
        assert words in process.stderr + process.stdout and "Traceback" not in process.stderr


def test_the_command_with_several_workers(run, shop):
    shop("")
    server = run(
        *("-m", "fastwsgi", "-b", "127.0.0.1:0", "--workers", "2", "--threads", "1"),
        'fastwsgi.contrib.paste:application("shop.ini")',
    )
    server.wait_said("All 2 workers serve")
    assert server.ask("/").text == '{"name": "first", "threads": false, "processes": true}'
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
