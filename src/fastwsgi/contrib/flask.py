"""`flask --app hello fastwsgi`: Flask's command line, and fastwsgi serves.

The process goes on as the command `fastwsgi`, or `fastwsgi dev` with --debug; each worker loads the
application as `flask run` does (`application`).
"""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
from flask.cli import ScriptInfo, pass_script_info
from flask.helpers import get_debug_flag

from fastwsgi import loader
from fastwsgi.contrib.command import become
from fastwsgi.errors import AppLoadError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# Where `flask run` listens.
HOST, PORT = "127.0.0.1", 5000


def serve(info: ScriptInfo, debug: bool | None, options: tuple[str, ...], **given: Any) -> None:
    """Serve the application with fastwsgi: in production, or with debug mode while you write it.

    Behind these options come those of the command fastwsgi, such as --workers 4 --threads 8; `fastwsgi
    --help` has them all. Without --host and --port, its settings say where it listens, except in debug mode.
    """
    is_debugged = get_debug_flag() if debug is None else debug
    # For the workers; without it `fastwsgi dev` would mean debug mode.
    os.environ["FLASK_DEBUG"] = "1" if is_debugged else "0"
    try:
        become([*words(info, given, is_debugged=is_debugged), *options])
    except ValueError as error:
        raise click.UsageError(str(error)) from None


FILE = click.Path(exists=True, dir_okay=False, resolve_path=True)

# Those of `flask run`; what else there is goes to fastwsgi.
command = click.Command(
    "fastwsgi",
    callback=pass_script_info(serve),
    help=serve.__doc__,
    short_help="Serve with fastwsgi.",
    context_settings={"ignore_unknown_options": True},
    params=[
        click.Option(["--debug/--no-debug"], default=None, help="Set debug mode."),
        click.Option(["--host", "-h"], envvar="FLASK_RUN_HOST", help=f"The interface to bind to.  [{HOST}]"),
        click.Option(
            ["--port", "-p"], envvar="FLASK_RUN_PORT", type=int, help=f"The port to bind to.  [{PORT}]"
        ),
        click.Option(["--cert"], metavar="FILE|adhoc", help="A certificate, for HTTPS; adhoc: make one."),
        click.Option(["--key"], type=FILE, help="The key of the certificate."),
        click.Option(
            ["--reload/--no-reload"], default=None, help="Restart when code changes; on with debug mode."
        ),
        click.Option(
            ["--debugger/--no-debugger"],
            default=None,
            help="Show errors in the debugger; on with debug mode.",
        ),
        click.Option(
            ["--with-threads/--without-threads"], default=True, help="Enable or disable multithreading."
        ),
        click.Option(["--extra-files"], metavar="PATHS", default="", help="Restart when these change, too."),
        click.Option(
            ["--exclude-patterns"],
            metavar="PATTERNS",
            default="",
            help="Do not restart for files like these.",
        ),
        click.Argument(["options"], nargs=-1, type=click.UNPROCESSED, metavar="[OF FASTWSGI]..."),
    ],
)


def words(info: ScriptInfo, given: dict[str, Any], *, is_debugged: bool) -> Iterator[str]:
    """The command line that means what was given; raise ValueError for what cannot be."""
    reloads = is_debugged if given["reload"] is None else given["reload"]
    has_debugger = is_debugged if given["debugger"] is None else given["debugger"]
    is_dev = is_debugged or reloads or has_debugger
    if is_dev:
        yield "dev"
        if not reloads:
            yield "--no-reload"
    host, port = given["host"], given["port"]
    if is_dev or host is not None or port is not None:
        host = HOST if host is None else host
        yield f"--bind={host if host.startswith('unix:') else at(host, PORT if port is None else port)}"
    yield from certificate(given["cert"], given["key"], is_dev=is_dev)
    if not given["with_threads"]:
        yield "--threads=1"
    if reloads:
        for flag, name in (("--reload-extra-file", "extra_files"), ("--reload-ignore", "exclude_patterns")):
            yield from (f"{flag}={one}" for one in given[name].split(os.pathsep) if one)
    arguments = [repr(path_of(info))]
    if has_debugger:
        # Who else may use the debugger: those who come by this name.
        arguments.append(f"debugger={host or HOST!r}")
    yield f"{__name__}:application({', '.join(arguments)})"


def at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def certificate(cert: str | None, key: str | None, *, is_dev: bool) -> Iterator[str]:
    """What says --cert and --key."""
    if cert is None:
        if key is not None:
            raise ValueError("--key is the key of what? Give --cert, too.")
    elif cert == "adhoc":
        if not is_dev:
            raise ValueError("--cert adhoc is for debug mode; give the files of a certificate and its key.")
        yield "--tls"
    else:
        yield f"--certfile={os.path.abspath(cert)}"
        if key is not None:
            yield f"--keyfile={key}"


def path_of(info: ScriptInfo) -> str | None:
    """What to load, as --app has it; for a program of its own with FlaskGroup, its factory."""
    if info.create_app is None:
        path: str | None = info.app_import_path
        return path
    factory: Callable[..., Any] = info.create_app
    module, name = factory.__module__, factory.__qualname__
    if module == "__main__" or not name.isidentifier():
        raise ValueError(
            f"Each worker loads the application anew, and {name} of {module} cannot be imported; put the "
            "function that makes the application into a module and give it to FlaskGroup by its name."
        )
    return f"{module}:{name}"


def application(path: str | None = None, debugger: str | None = None) -> "WSGIApplication":
    """Load the application as `flask run` does, in a worker.

    debugger: with Werkzeug's debugger around it, for clients that come to this host, and to localhost.
    """
    if debugger is not None:
        # What Flask and the debugger go by: this is the process that is replaced when code changes.
        os.environ["WERKZEUG_RUN_MAIN"] = "true"
    try:
        app = ScriptInfo(path).load_app()
    except click.UsageError as error:
        raise AppLoadError(f"flask: {error.message}") from error.__cause__
    loader.made_from = app.import_name
    if debugger is not None:
        from werkzeug.debug import DebuggedApplication

        app = DebuggedApplication(app, evalex=True)
        app.trusted_hosts.append(debugger)
    served: WSGIApplication = app
    return served
