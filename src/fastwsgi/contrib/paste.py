"""PasteDeploy: a server for `pserve`, and applications of ini files for the command.

[server:main]
use = egg:fastwsgi#main
listen = 127.0.0.1:6543

fastwsgi --workers 4 'fastwsgi.contrib.paste:application("production.ini")'
"""

import logging.config
import os
import sys
from collections.abc import Mapping
from configparser import ConfigParser
from typing import TYPE_CHECKING, Any

from fastwsgi.alone import run
from fastwsgi.config import OPTIONS
from fastwsgi.errors import ConfigError
from fastwsgi.worker import leave

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HOST, PORT = "127.0.0.1", "8080"


def serve(app: "WSGIApplication", global_conf: Mapping[str, str] | None = None, **given: str) -> None:
    """Serve until TERM or Ctrl-C, in this process, as a section [server:...] says.

    given: host and port, or listen (several addresses with spaces between them), and options by their
    names in settings. What is wrong ends the process with one line.
    """
    try:
        run(app, **options_of(given))
    except ConfigError as error:
        raise SystemExit(
            f"fastwsgi: [server] of {(global_conf or {}).get('__file__', 'the file')}: {error}"
        ) from None
    hupper = sys.modules.get("hupper")
    if hupper is not None and hupper.is_active():
        # `pserve --reload` would wait for a thread of its own, and then say that the server did not exit.
        leave(0)


def options_of(given: Mapping[str, str]) -> dict[str, Any]:
    """The values of a section, as `run` takes them."""
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name in OPTIONS and OPTIONS[name].repeatable:
            options[name] = [line.strip() for line in value.splitlines() if line.strip()]
        elif name not in ("host", "port", "listen"):
            options[name] = value
    where = [name for name in ("bind", "listen", "host") if name in given] or ["host"]
    if len(where) > 1:
        raise ConfigError(f"{where[0]} and {where[1]} both say where to listen; give one")
    if "listen" in given:
        options["bind"] = given["listen"].split()
    elif where == ["host"]:
        host, port = given.get("host", HOST), given.get("port", PORT)
        options["bind"] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return options


def application(file: str, name: str = "main") -> "WSGIApplication":
    """Make the application of an ini file, as `pserve` does, with its logging set up before."""
    from paste.deploy import loadapp

    path = os.path.abspath(file)
    parser = ConfigParser(interpolation=None)
    with open(path, encoding="utf-8") as opened:
        parser.read_file(opened)
    if parser.has_section("loggers"):
        defaults = {"__file__": path, "here": os.path.dirname(path)}
        logging.config.fileConfig(path, defaults, disable_existing_loggers=False)
    app: WSGIApplication = loadapp(f"config:{path}", name=name)
    return app
