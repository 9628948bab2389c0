"""Where settings come from, and which source wins.

    gather(argv, environ, cwd, options=None, application=None) -> Configuration

It reads files and environment anew each time, so a reload calls it again with the same argv and cwd.

From the strongest to the weakest: the command line, or the arguments of `fastwsgi.run`; FASTWSGI_CMD_ARGS;
FASTWSGI_<OPTION>; GUNICORN_CMD_ARGS; a gunicorn.conf.py that --config names; variables that platforms set
(PORT, WEB_CONCURRENCY, FORWARDED_ALLOW_IPS); FASTWSGI of a Django project's settings, if --config names
these; fastwsgi.toml, or [tool.fastwsgi] of pyproject.toml; the defaults.
"""

import os
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from fastwsgi import discovery, gunicorn, mounts
from fastwsgi.arguments import Arguments, parse
from fastwsgi.config import NAMES, OPTIONS, Settings, merge, read_as
from fastwsgi.contrib.django import reader
from fastwsgi.errors import ConfigError, did_you_mean
from fastwsgi.hooks import NO_HOOKS, Hooks

PREFIX = "FASTWSGI_"
COMMAND_LINE = "FASTWSGI_CMD_ARGS"
GUNICORN_COMMAND_LINE = "GUNICORN_CMD_ARGS"

# Beside those of options: what is read elsewhere, and what setup.py reads.
OTHER_VARIABLES = (COMMAND_LINE, "FASTWSGI_VARIANT", "FASTWSGI_ANNOTATE")

OUR_FILE = "fastwsgi.toml"
PROJECT_FILE = "pyproject.toml"
GUNICORN_FILE = "gunicorn.conf.py"

# The application has no option, but a variable and a key of the file.
APP = "app"


class Value(NamedTuple):
    value: object
    origin: str


# By the name of the option, or APP. Layers are put over each other with |.
Layer: TypeAlias = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that was found, for a start or for a reload.

    `origins` says of each option, and of "app", where its value came from. `found` says how the application
    was found, if nobody named it. `notices` are lines for the log. `wants` is "check" or "print" if the
    command line asks for that instead of serving; `application` is None only when it is "print".
    """

    settings: Settings
    origins: Mapping[str, str]
    application: str | None
    found: str | None
    hooks: Hooks
    notices: tuple[str, ...]
    wants: str | None


def gather(
    argv: Sequence[str],
    environ: Mapping[str, str],
    cwd: str,
    options: Mapping[str, object] | None = None,
    application: str | None = None,
) -> Configuration:
    """Merge all sources; relative paths count from `cwd`, whatever the current directory has become.

    `options` and `application` are what a program gives instead of a command line. Raises ConfigError for
    what is wrong in any source, and if no application is named or found.
    """
    notices: list[str] = []
    line = parse(argv)
    ours = parse_variable(environ, COMMAND_LINE)
    theirs = parse_variable(environ, GUNICORN_COMMAND_LINE)
    if theirs.flags:
        notices.append(f"{GUNICORN_COMMAND_LINE} is heeded: {', '.join(theirs.flags.values())}")
    strong = from_arguments(theirs) | from_variables(environ) | from_arguments(ours) | from_arguments(line)
    strong |= from_options(options or {})
    if application is not None:
        strong[APP] = Value(application, "run()")
    weak: Layer = {}
    meant: Layer = {}  # by flags of gunicorn
    for arguments in (theirs, ours, line):
        translation = gunicorn.translate(arguments.foreign, arguments.source, arguments.flags)
        weak |= layer_of(translation.fallbacks)
        meant |= layer_of(translation.settings)
        notices += about(arguments.source or "the command line", translation.remarks)
    strong = meant | strong

    hooks = NO_HOOKS
    file = text_in(strong, "config")
    directory = os.path.normpath(os.path.join(cwd, text_in(strong, "chdir") or ""))
    if file is not None and file.endswith(".toml"):
        layer = from_toml(os.path.join(cwd, file), file)
    else:
        layer = from_directory(directory, notices, file)
    is_django = file is not None and file.startswith(reader.PREFIX)
    if is_django:
        layer |= from_django(text_in(strong, "config") or "", directory, environ, strong)
    layer |= from_platform(environ)
    if file is not None and not file.endswith(".toml") and not is_django:
        given = gunicorn.execute(file, cwd, directory)
        translation = gunicorn.translate(given, file)
        hooks = Hooks.found_in(given, file)
        layer |= layer_of(translation.settings)
        weak = layer_of(translation.fallbacks) | weak
        notices += about(file, translation.remarks)

    layer = weak | layer | strong
    if is_django:
        add_settings_module(layer, text_in(strong, "config") or "")
    chdir = text_in(layer, "chdir")
    if chdir is not None:
        # So that it is the same directory after it has been changed to, too.
        layer["chdir"] = Value(os.path.normpath(os.path.join(cwd, chdir)), layer["chdir"].origin)
    found = None
    if APP not in layer:
        routes = mounts.given_in(*(tuple_in(layer, name) for name in ("route", "static", "mount")))
        if mounts.has_root(routes):
            layer[APP] = Value(mounts.NO_APPLICATION, "routes")
        else:
            try:
                found = add_application(layer, cwd, environ, line)
            except discovery.NothingFound:
                if not any(map(mounts.action_of, routes.values())):
                    raise
                layer[APP] = Value(mounts.NO_APPLICATION, "routes")
    settings = merge({name: value for name, (value, _) in layer.items() if name != APP})
    if settings.gevent and "threads" in layer:
        notices.append(
            "threads is ignored: with gevent there is one, and --worker-connections says how many greenlets"
        )
    return Configuration(
        settings,
        {name: layer[name].origin if name in layer else "default" for name in (APP, *OPTIONS)},
        text_in(layer, APP),
        found,
        hooks,
        tuple(notices),
        line.wants,
    )


def add_settings_module(layer: Layer, file: str) -> None:
    """Have the application find the settings that --config names, unless --env says otherwise."""
    variable = f"{reader.SETTINGS_VARIABLE}={file.removeprefix(reader.PREFIX)}"
    layer["env"] = Value((variable, *tuple_in(layer, "env")), f"--config {file}")


def starting_directory() -> str:
    """The current directory; empty if it is gone, of which those will tell who cannot do without."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def text_in(layer: Layer, name: str) -> str | None:
    value = layer[name].value if name in layer else None
    return value if isinstance(value, str) else None


def tuple_in(layer: Layer, name: str) -> tuple[str, ...]:
    value = layer[name].value if name in layer else ()
    return value if isinstance(value, tuple) else ()


def layer_of(settings: Mapping[str, gunicorn.Setting]) -> Layer:
    return {name: Value(*setting) for name, setting in settings.items()}


def about(source: str, remarks: Sequence[str]) -> list[str]:
    """One line of all that a source has, and that is not honoured."""
    return [f"{source} has what fastwsgi cannot honour: {'; '.join(remarks)}"] if remarks else []


def parse_variable(environ: Mapping[str, str], variable: str) -> Arguments:
    """Read a variable that holds a command line."""
    try:
        arguments = parse(shlex.split(environ.get(variable, "")))
        if arguments.wants is not None:
            raise ConfigError("only options for serving belong here")
    except ValueError as error:  # of shlex, or a ConfigError
        raise ConfigError(f"{variable}: {error}") from None
    arguments.source = variable
    return arguments


def from_arguments(arguments: Arguments) -> Layer:
    prefix = f"{arguments.source}: " if arguments.source else ""
    layer = {name: Value(value, prefix + arguments.flags[name]) for name, value in arguments.settings.items()}
    if arguments.application is not None:
        layer[APP] = Value(arguments.application, arguments.source or "the command line")
    return layer


def from_platform(environ: Mapping[str, str]) -> Layer:
    """What variables say that platforms set."""
    layer: Layer = {}
    for option in OPTIONS.values():
        if option.variable is not None and option.variable.name in environ:
            name = option.variable.name
            # An empty one counts as not set, unless that is a value.
            if environ[name] or option.variable.kind.takes(""):
                value = read_as(option.variable.kind, environ[name], name)
                layer[option.name] = Value(option.read(value, name), name)
    return layer


def from_variables(environ: Mapping[str, str]) -> Layer:
    """What variables of our own say; raise ConfigError for one that is none."""
    layer: Layer = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        key = name.removeprefix(PREFIX).lower()
        if key != APP and key not in NAMES:
            known = [f"{PREFIX}{known.upper()}" for known in (*NAMES, APP)]
            raise ConfigError(f"{name} is no setting{did_you_mean(name, [*known, COMMAND_LINE])}")
        if key == APP:
            if text:
                layer[APP] = Value(text, name)
            continue
        option = NAMES[key]
        if text or option.kind.takes(""):
            try:
                value = shlex.split(text) if option.repeatable else text
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from None
            layer[option.name] = Value(option.read(value, name), name)
    return layer


def from_options(options: Mapping[str, object]) -> Layer:
    """What a program gives to `fastwsgi.run`."""
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(f"unknown setting {name}{did_you_mean(name, OPTIONS)}")
    return {name: Value(OPTIONS[name].read(value, name), "run()") for name, value in options.items()}


def from_directory(directory: str, notices: list[str], file: str | None) -> Layer:
    """The settings of fastwsgi.toml, or of the table in pyproject.toml; `file` is what --config names."""
    ours, project = (os.path.join(directory, name) for name in (OUR_FILE, PROJECT_FILE))
    has_table = os.path.exists(project) and table_of(project, PROJECT_FILE) is not None
    if file is None and os.path.exists(os.path.join(directory, GUNICORN_FILE)):
        notices.append(f"{GUNICORN_FILE} is not read; give --config {GUNICORN_FILE} if it should be")
    if os.path.exists(ours):
        if has_table:
            notices.append(f"[tool.fastwsgi] of {PROJECT_FILE} is not read, since there is {OUR_FILE}")
        return from_toml(ours, OUR_FILE)
    return from_toml(project, PROJECT_FILE) if has_table else {}


def from_toml(path: str, shown: str) -> Layer:
    """The settings of a file; raise ConfigError for one that is wrong or unknown."""
    table = table_of(path, shown)
    if table is None:
        raise ConfigError(f"{shown} has no table [tool.fastwsgi]")
    return from_table(table, shown)


def from_django(file: str, directory: str, environ: Mapping[str, str], strong: Layer) -> Layer:
    """The settings of a Django project: FASTWSGI, its application, and which module has them."""
    module = file.removeprefix(reader.PREFIX)
    paths = [
        os.path.join(directory, path) for path in (text_in(strong, "pythonpath") or "").split(",") if path
    ]
    if former := environ.get("PYTHONPATH"):
        paths.append(former)
    found = reader.read(module, directory, {**environ, "PYTHONPATH": os.pathsep.join(paths)})
    layer = from_table(found.table, f"{module}: {reader.NAME}")
    layer.setdefault(APP, Value(found.application, f"{module}: WSGI_APPLICATION"))
    return layer


def from_table(table: Mapping[str, Any], shown: str) -> Layer:
    """Settings by name, as files have them; raise ConfigError for one that is wrong or unknown."""
    layer: Layer = {}
    for key, value in table.items():
        option = NAMES.get(key.replace("-", "_"))
        if option is not None and option.name == "config":
            raise ConfigError(f"{shown}: {key} is for the command line, or FASTWSGI_CONFIG")
        if option is None and key != APP:
            known = [name.replace("_", "-") if "-" in key else name for name in (*NAMES, APP)]
            raise ConfigError(f"{shown}: unknown setting {key}{did_you_mean(key, known)}")
        name = APP if option is None else option.name
        if name in layer:
            raise ConfigError(f"{shown}: {key} is there twice, under two names")
        if option is not None:
            value = option.read(value, f"{shown}: {key}")
        elif not isinstance(value, str) or not value:
            raise ConfigError(f"{shown}: {key}: {value!r} is not an application such as shop:app")
        layer[name] = Value(value, shown)
    return layer


def table_of(path: str, shown: str) -> dict[str, Any] | None:
    """Read a file; of pyproject.toml the table that is ours, or None without it."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {shown}: {error.strerror}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigError(f"{shown}: {error}") from None
    if os.path.basename(path) != PROJECT_FILE:
        return content
    tools = content.get("tool")
    table = tools.get("fastwsgi") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"{shown}: tool.fastwsgi is not a table")
    return table


def add_application(layer: Layer, cwd: str, environ: Mapping[str, str], line: Arguments) -> str | None:
    """Look for an application where it would be imported from; return how it was found."""
    variables = layer["env"].value if "env" in layer else ()
    assert isinstance(variables, tuple)
    environ = {**environ, **dict(one.split("=", 1) for one in variables)}
    try:
        found = discovery.find(text_in(layer, "chdir") or cwd, environ.get(discovery.VARIABLE))
    except ConfigError:
        if line.wants == "print":
            return None
        raise
    layer[APP] = Value(found.application, found.how)
    if found.path is not None:
        paths = ",".join(filter(None, (found.path, text_in(layer, "pythonpath"))))
        layer["pythonpath"] = Value(paths, found.how)
    return found.how
