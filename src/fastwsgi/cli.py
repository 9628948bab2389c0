"""The command line: arguments, help and exit codes."""

import errno
import os
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from fastwsgi import __version__
from fastwsgi.config import OPTIONS, Option, did_you_mean, from_environment, merge
from fastwsgi.errors import AppLoadError, ConfigError

STOPPED = 0
FAILED = 1
WORKER_FAILED = 3
APPLICATION_FAILED = 4

USAGE = "fastwsgi [OPTIONS] MODULE:CALLABLE"

INTRODUCTION = """\
Serves a WSGI application.

  fastwsgi app:app                        the object app of the module app
  fastwsgi 'shop:create_app()'            what the factory returns
  fastwsgi project.wsgi                   its application, or its app
  fastwsgi -b :8000 --threads 8 app:app   at every address, eight requests at a time
"""

UNITS = (
    "SIZE takes k, m, g, t (64k, 100m); TIME takes ms, s, m, h, d (250ms, 30s), seconds if there is none. "
    "An option without a value is taken back with no- before its name (--no-daemon)."
)

FLAGS = {flag: option for option in OPTIONS.values() for flag in option.flags}
NEGATED = {
    flag.replace("--", "--no-"): option
    for flag, option in FLAGS.items()
    if flag.startswith("--") and option.kind.is_switch
}
HELP = ("-h", "--help")
VERSION = ("-v", "--version")


@dataclass(slots=True)
class Arguments:
    """What the command line says: an application and settings, or that help or the version is wanted."""

    application: str | None = None
    settings: dict[str, object] = field(default_factory=dict)
    wants: str | None = None


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments; raise ConfigError for one that is unknown, wrong or lacks its value."""
    arguments = Arguments()
    rest = iter(argv)
    for word in rest:
        if word == "--":
            for application in rest:
                take_application(arguments, application)
        elif word in HELP or word in VERSION:
            arguments.wants = "help" if word in HELP else "version"
            return arguments
        elif word.startswith("-") and word != "-":
            flag, value = split_flag(word)
            option = FLAGS.get(flag) or NEGATED.get(flag)
            if option is None and flag not in (*HELP, *VERSION):
                known = [*FLAGS, *NEGATED, *HELP, *VERSION]
                raise ConfigError(f"unknown option {flag}{did_you_mean(flag, known)}")
            if option is None or (flag in NEGATED and value is not None):
                raise ConfigError(f"{flag} takes no value")
            if option.kind.is_switch:
                value = "off" if flag in NEGATED else value or "on"
            elif value is None:
                value = next(rest, None)
            if value is None or value.split("=")[0] in (*FLAGS, *NEGATED):
                raise ConfigError(f"{flag} needs a value: {flag} {option.kind.metavar}")
            take_value(arguments, option, option.read(value, flag))
        else:
            take_application(arguments, word)
    return arguments


def split_flag(word: str) -> tuple[str, str | None]:
    """Split `--name=value` and `-nvalue`; the value is None where it is the next word."""
    if word.startswith("--"):
        flag, equals, value = word.partition("=")
        return flag, value if equals else None
    return word[:2], word[2:].removeprefix("=") or None


def take_value(arguments: Arguments, option: Option, value: object) -> None:
    former = arguments.settings.get(option.name)
    if option.repeatable and isinstance(former, tuple) and isinstance(value, tuple):
        value = former + value
    arguments.settings[option.name] = value


def take_application(arguments: Arguments, word: str) -> None:
    if arguments.application is not None:
        raise ConfigError(f"one application is served, {arguments.application}; what is {word!r}?")
    arguments.application = word


def help_text(width: int = 96) -> str:
    """The text of `--help`, in lines of at most `width` characters."""
    lines = [f"Usage: {USAGE}", "", *INTRODUCTION.splitlines()]
    groups = dict.fromkeys(option.group for option in OPTIONS.values())
    for group in groups:
        lines += ["", f"{group}:"]
        for option in OPTIONS.values():
            if option.group == group:
                # What may follow a switch is one word with it: --preload[=strict].
                gap = "" if option.kind.is_switch else " "
                usage = f"{', '.join(option.flags)}{gap}{option.kind.metavar}"
                default = option.shown_default
                if option.variable:
                    default = f"${option.variable.name}, or {default}"
                lines += describe(usage, f"{option.help} [{default}]", width)
    lines += ["", "And:"]
    lines += describe(", ".join(VERSION), "print the version", width)
    lines += describe(", ".join(HELP), "print this", width)
    return "\n".join([*lines, "", *textwrap.wrap(UNITS, width), ""])


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
        arguments = parse(sys.argv[1:] if argv is None else argv)
        if arguments.wants == "help":
            return say(help_text())
        if arguments.wants == "version":
            return say(f"fastwsgi {__version__} (Python {sys.version.split()[0]})\n")
        if arguments.application is None:
            raise ConfigError(f"which application? {USAGE}; see fastwsgi --help")
        settings = merge(from_environment(os.environ), arguments.settings)
        from fastwsgi.worker import serve

        serve(arguments.application, settings)
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
    if sys.stderr is not None:
        print(f"fastwsgi: {message}", file=sys.stderr)
    return code


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
    if "fastwsgi.worker" in sys.modules:
        from fastwsgi.worker import end_soon

        end_soon(code)
    sys.exit(code)
