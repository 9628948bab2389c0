"""The command: what it does with its arguments, help and exit codes."""

import errno
import os
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import NoReturn

from fastwsgi import __version__, upgrade
from fastwsgi.arguments import HELP, VERSION, parse
from fastwsgi.commands import check, print_config
from fastwsgi.config import OPTIONS
from fastwsgi.errors import AppLoadError, ConfigError
from fastwsgi.sources import gather, starting_directory

STOPPED = 0
FAILED = 1
WORKER_FAILED = 3
APPLICATION_FAILED = 4

USAGE = "fastwsgi [OPTIONS] [MODULE:CALLABLE]"

# First words that speak with a running server.
CONSOLE = ("top", "stats", "stacks", "leaks", "reload", "stop")

# First words that stand for a command of their own, and where it is: imported when it is wanted.
TOOLS = {
    "passwd": "fastwsgi.passwords",
    "pack": "fastwsgi.pack",
    "completion": "fastwsgi.completion",
    "doctor": "fastwsgi.doctor",
}

INTRODUCTION = """\
Serves a WSGI application.

  fastwsgi app:app                        the object app of the module app
  fastwsgi 'shop:create_app()'            what the factory returns
  fastwsgi project.wsgi                   its application, or its app
  fastwsgi -b :8000 --threads 8 app:app   at every address, eight requests at a time
  fastwsgi                                the Django project, app.py, wsgi.py or main.py here
  fastwsgi dev [--tls] [app:app]          while you write it: reloads, shows errors, prints

Or says before a start what will hurt (see docs/doctor.md):

  fastwsgi doctor app:app                 looks at application, settings and this machine

Or speaks with one that runs (see --control-socket):

  fastwsgi top                            what it does right now, on one screen
  fastwsgi stats [--json]                 the same once, as text
  fastwsgi stacks [PID]                   where requests are that take longer than a second
  fastwsgi leaks                          which routes keep memory, with --leak-report
  fastwsgi reload                         load settings and code again, and say how that went
  fastwsgi stop [--now]                   finish what runs and end; or just end

Or writes a password file for routes with auth=FILE (see docs/guards.md):

  fastwsgi passwd FILE USER               asks for the password, and adds or replaces its line

Or makes files smaller that it serves (see --static):

  fastwsgi pack DIRECTORY                 write .gz, .br and .zst beside each, if not yet done

Or helps to type all this:

  fastwsgi completion bash|zsh|fish       a script with which that shell completes options

An application in a module named top or the like is served with its name: fastwsgi top:app.
"""

NOTES = (
    "SIZE takes k, m, g, t (64k, 100m); TIME takes ms, s, m, h, d (250ms, 30s), seconds if there is none.",
    "An option without a value is taken back with no- before its name: --no-daemon.",
    "Each option may also be a variable of the environment (FASTWSGI_THREADS=8) or a line of fastwsgi.toml "
    "(threads = 8); the command line wins over the environment, and that over the file.",
    "gunicorn's other options are accepted, and named in a warning where they have no effect.",
)


def help_text(width: int = 96) -> str:
    """The text of `--help`, in lines of at most `width` characters."""
    lines = [f"Usage: {USAGE}", "", *INTRODUCTION.splitlines()]
    groups = dict.fromkeys(option.group for option in OPTIONS.values())
    for group in groups:
        lines += ["", f"{group}:"]
        for option in OPTIONS.values():
            if option.group == group:
                default = option.shown_default
                if option.variable:
                    default = f"${option.variable.name}, or {default}"
                lines += describe(option.usage, f"{option.help} [{default}]", width)
    lines += ["", "And:"]
    lines += describe(
        "--check-config", "check the settings, import the application, and serve nothing", width
    )
    lines += describe("--print-config", "print all settings and where they come from, as TOML", width)
    lines += describe(", ".join(VERSION), "print the version", width)
    lines += describe(", ".join(HELP), "print this", width)
    for note in NOTES:
        lines += ["", *textwrap.wrap(note, width)]
    return "\n".join([*lines, ""])


def describe(left: str, right: str, width: int) -> Iterator[str]:
    """One entry of the help: what to type on the left, what it does on the right."""
    column = 32
    wrapped = textwrap.wrap(right, width - column, break_on_hyphens=False)
    first = f"  {left}".ljust(column - 1)
    if len(first) >= column:
        yield first
        first = " " * (column - 1)
    for line in wrapped:
        yield f"{first} {line}"
        first = " " * (column - 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve as the arguments (default: those of the process) say; return the exit code.

    0 after TERM or Ctrl-C, 3 if the worker could not start, 4 if the application could not be loaded, 1
    for anything else.
    """
    hold_standard_descriptors()
    try:
        arguments = sys.argv[1:] if argv is None else argv
        if arguments and arguments[0] in CONSOLE:
            # Here, because it loads much that no server needs.
            from fastwsgi.console import run

            code, text = run(arguments[0], arguments[1:])
            return say(text) or code
        if arguments and arguments[0] == "dev":
            from fastwsgi.dev import command_line

            arguments = command_line(arguments[1:])
        if arguments and arguments[0] in TOOLS:
            code, text = import_module(TOOLS[arguments[0]]).run(arguments[1:])
            return say(text) or code
        wants = parse(arguments).wants
        if wants == "help":
            return say(help_text())
        if wants == "version":
            return say(f"fastwsgi {__version__} (Python {sys.version.split()[0]})\n")
        environ, directory = dict(os.environ), starting_directory()
        if upgrade.goes_on():
            from fastwsgi.supervisor import supervise

            return supervise(None, lambda: gather(arguments, environ, directory))
        configuration = gather(arguments, environ, directory)
        for notice in configuration.notices:
            warn(notice)
        if wants == "print":
            return say(print_config(configuration))
        if wants == "check":
            return say(check(configuration) + "\n")
        if configuration.found is not None:
            warn(f"found {configuration.application} ({configuration.found})")
        if configuration.settings.workers == 0:
            from fastwsgi.alone import serve_alone

            serve_alone(configuration)
        else:
            from fastwsgi.supervisor import supervise

            return supervise(configuration, lambda: gather(arguments, environ, directory))
    except ConfigError as error:
        return fail(FAILED, str(error))
    except AppLoadError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return fail(APPLICATION_FAILED, str(error))
    except KeyboardInterrupt:
        return STOPPED
    except Exception as error:
        traceback.print_exc()
        return fail(WORKER_FAILED, f"the worker could not go on: {error}")
    return STOPPED


def say(text: str) -> int:
    """Write to the standard output; return the exit code."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(text)
            sys.stdout.flush()
    except OSError as error:
        # Or the interpreter would try to write the rest at its end.
        sys.stdout = None
        # Whoever has read enough of it (`| head`) is no error.
        if error.errno != errno.EPIPE:
            return fail(FAILED, f"the standard output: {error.strerror}")
    return STOPPED


def fail(code: int, message: str) -> int:
    warn(message)
    return code


def warn(message: str) -> None:
    if sys.stderr is not None:
        print(f"fastwsgi: {message}", file=sys.stderr)


def hold_standard_descriptors() -> None:
    """Open what of 0, 1 and 2 is closed: or a socket would get that number, and be printed to."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest that is free is this one; nothing else runs yet.
            os.open(os.devnull, os.O_RDWR)


def command() -> NoReturn:
    """The `fastwsgi` command: `main`, then the end of the process, even if the application has threads."""
    code = main()
    # Who loads applications imports it.
    if "fastwsgi.loader" in sys.modules:
        from fastwsgi.worker import end_soon

        end_soon(code)
    sys.exit(code)
