"""What the command does instead of serving: print the settings, or check everything but the network."""

import os
import re

from fastwsgi import __version__
from fastwsgi.config import OPTIONS, Option, Settings
from fastwsgi.errors import ConfigError
from fastwsgi.logs import LOG
from fastwsgi.sources import Configuration

# What a reader of TOML would not take between quotes, and what a terminal may not show.
UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")


def print_config(configuration: Configuration) -> str:
    """All settings as a fastwsgi.toml, each with where it came from; those without a value in comments."""
    lines = [f"# fastwsgi {__version__}", ""]
    if not configuration.application:
        lines.append(f"# app: none{origin(configuration, 'app')}")
    else:
        lines.append(f"app = {quote(configuration.application)}{origin(configuration, 'app')}")
    group = None
    for option in OPTIONS.values():
        if option.group != group:
            group = option.group
            lines += ["", f"# {group}"]
        value = getattr(configuration.settings, option.name)
        if value is None:
            lines.append(f"# {option.name}: none{origin(configuration, option.name)}")
        else:
            # The file cannot name itself.
            mark = "# " if option.name == "config" else ""
            shown = toml_value(option, value)
            lines.append(f"{mark}{option.name} = {shown}{origin(configuration, option.name)}")
    return "\n".join([*lines, ""])


def origin(configuration: Configuration, name: str) -> str:
    return f"  # {UNQUOTABLE.sub(escape, configuration.origins[name])}"


def toml_value(option: Option, value: object) -> str:
    """A value as TOML: with units where the option has them, so that it can be read and changed."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(quote, value))}]"
    shown = option.kind.show(value)
    return shown if shown == str(value) and isinstance(value, int) else quote(shown)


def quote(text: str) -> str:
    return f'"{UNQUOTABLE.sub(escape, text)}"'


def escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in '"\\':
        return f"\\{match[0]}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def check(configuration: Configuration) -> str:
    """Try all that can be tried without serving, the import of the application too; return what to say.

    Raises ConfigError or AppLoadError for what is wrong.
    """
    from fastwsgi import compression, gil, greening, loader, logs, mounts
    from fastwsgi._accesslog import LogFormat
    from fastwsgi.guards import Guards
    from fastwsgi.listener import parse_address
    from fastwsgi.privileges import Identity
    from fastwsgi.reloader import check_engine
    from fastwsgi.supervisor import Supervisor  # noqa: F401 - an upgrade has to know that it can be imported

    settings = configuration.settings
    for address in settings.bind:
        parse_address(address)
    Identity.find(settings.user, settings.group)
    try:
        LogFormat(settings.access_logformat, is_json=settings.log_format == "json")
        compression.makers(settings.compress)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    loader.prepare_environ(settings.env)
    loader.prepare_path(settings.chdir, settings.pythonpath)
    logs.configure(settings)
    if settings.has_tls:
        check_certificates(settings)
    if settings.reload:
        check_engine(settings)
    has_application = bool(configuration.application)
    Guards(mounts.plan(settings, has_application).routes)
    if settings.gevent:
        greening.patch()
    loader.load_all(str(configuration.application), mounts.targets(settings))
    if culprit := gil.turned_on_by():
        LOG.warning("%s", gil.TEXT.format(culprit))
    # The application may have added some.
    for missing in mounts.missing_directories(settings, mounts.plan(settings, has_application).routes):
        LOG.warning("%s", missing)
    given = sum(where != "default" for where in configuration.origins.values()) - 1
    name = configuration.application or "no application"
    return f"configuration OK: {name} ({configuration.origins['app']}), {given} of {len(OPTIONS)} options set"


def check_certificates(settings: Settings) -> None:
    """Read them as a start would; raise ConfigError for what nobody can be served with."""
    from fastwsgi import upgrade
    from fastwsgi.renewal import Store, at_hand, ending
    from fastwsgi.tls import Policy

    policy = Policy.of(settings)
    handed_on = os.environ.pop(upgrade.CERTIFICATES, None)
    material = policy.read() if handed_on is None else at_hand(policy, Store(int(handed_on)))
    for level, text in ending(material):
        LOG.log(level, "%s", text)
