"""Starts the servers that have no command of their own: python launch.py SERVER module:name PORT.

It is run by the interpreter that the server is installed for, and knows nothing of the benchmark.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

Application = Callable[..., Any]


def run_bjoern(application: Application, port: int) -> None:
    import bjoern

    bjoern.run(application, "127.0.0.1", port)


def run_fastwsgi_pypi(application: Application, port: int) -> None:
    import fastwsgi

    fastwsgi.run(wsgi_app=application, host="127.0.0.1", port=port)


def run_wsgiref(application: Application, port: int) -> None:
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    class QuietHandler(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    make_server("127.0.0.1", port, application, handler_class=QuietHandler).serve_forever()


def run_runserver(application: Application, port: int) -> None:
    # Loading the application has configured Django; runserver makes its own from the same settings.
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"])


def run_gevent(application: Application, port: int) -> None:
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", port), application, backlog=2048, log=None).serve_forever()


def run_ceiling(application: Application, port: int) -> None:
    from wsgiref.util import FileWrapper

    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "build"))
    import io

    import ceiling

    template = {
        "SCRIPT_NAME": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(port),
        "SERVER_SOFTWARE": "ceiling",
        "REMOTE_PORT": "0",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    ceiling.run(application, template, port)


SERVERS: dict[str, Callable[[Application, int], None]] = {
    "bjoern": run_bjoern,
    "fastwsgi-pypi": run_fastwsgi_pypi,
    "wsgiref": run_wsgiref,
    "runserver": run_runserver,
    "gevent-pywsgi": run_gevent,
    "ceiling": run_ceiling,
}


def main() -> None:
    server, target, port = sys.argv[1:]
    if server == "gevent-pywsgi":
        from gevent import monkey

        monkey.patch_all()
    module, name = target.split(":")
    SERVERS[server](getattr(importlib.import_module(module), name), int(port))


if __name__ == "__main__":
    main()
