"""gunicorn's settings: which are ours under what name, and why the others are not honoured.

Flags of gunicorn are accepted on the command line, and its configuration files by --config. What cannot be
honoured is told in one line for each source; only what would make the server less safe is an error.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

from fastwsgi.config import NAMES, OPTIONS, Settings
from fastwsgi.errors import ConfigError, did_you_mean
from fastwsgi.hooks import ARITY

# By gunicorn's name, the option; nearly all flags are the same.
OURS = {
    **{
        name: name
        for name in (
            "backlog",
            "bind",
            "ca_certs",
            "capture_output",
            "cert_reqs",
            "certfile",
            "chdir",
            "ciphers",
            "control_socket",
            "daemon",
            "disable_redirect_access_to_syslog",
            "dogstatsd_tags",
            "forwarded_allow_ips",
            "forwarder_headers",
            "graceful_timeout",
            "group",
            "header_map",
            "keyfile",
            "limit_request_field_size",
            "limit_request_fields",
            "limit_request_line",
            "max_requests",
            "max_requests_jitter",
            "proxy_protocol",
            "pythonpath",
            "reload",
            "reload_engine",
            "reuse_port",
            "statsd_host",
            "statsd_prefix",
            "threads",
            "timeout",
            "umask",
            "user",
            "worker_connections",
            "workers",
        )
    },
    "access_log_format": "access_logformat",
    "accesslog": "access_logfile",
    "errorlog": "error_logfile",
    "keepalive": "keep_alive",
    "logconfig": "log_config",
    "logconfig_dict": "log_config_dict",
    "logconfig_json": "log_config_json",
    "loglevel": "log_level",
    "pidfile": "pid",
    "preload_app": "preload",
    "proc_name": "name",
    "proxy_allow_ips": "proxy_allow_from",
    "raw_env": "env",
    "reload_extra_files": "reload_extra_file",
    "syslog": "log_syslog",
    "syslog_addr": "log_syslog_to",
    "syslog_facility": "log_syslog_facility",
    "syslog_prefix": "log_syslog_prefix",
}

# Values that ask for nothing.
NOTHING: tuple[object, ...] = (None, False, 0, "", [], {}, ())


@dataclass(frozen=True, slots=True)
class Foreign:
    """A setting that fastwsgi has not got, and why.

    `value` is what its flags stand for, if they take none. With the values of `idle` nothing is asked for.
    """

    why: str
    flags: tuple[str, ...] = ()
    value: object = None
    idle: tuple[object, ...] = NOTHING


def foreign(why: str, *flags: str, value: object = None, idle: tuple[object, ...] = ()) -> Foreign:
    return Foreign(why, flags, value, NOTHING + idle)


NO_HTTP2 = "no HTTP/2"
NO_ASGI = "for ASGI applications"
NO_DIRTY = "no dirty workers"
STRICT = "requests are read strictly"

FOREIGN = {
    "asgi_disconnect_grace_period": foreign(NO_ASGI, "--asgi-disconnect-grace-period"),
    "asgi_lifespan": foreign(NO_ASGI, "--asgi-lifespan", idle=("auto",)),
    "asgi_loop": foreign(NO_ASGI, "--asgi-loop", idle=("auto",)),
    "casefold_http_method": foreign(STRICT, "--casefold-http-method", value=True),
    "control_socket_disable": foreign(
        "control_socket is none", "--no-control-socket", value=True, idle=(True,)
    ),
    "control_socket_mode": foreign(
        "it is for its owner alone", "--control-socket-mode", idle=(0o600, "0600")
    ),
    "default_proc_name": foreign("proc_name is"),
    "dirty_apps": foreign(NO_DIRTY, "--dirty-app"),
    "dirty_graceful_timeout": foreign(NO_DIRTY, "--dirty-graceful-timeout"),
    "dirty_post_fork": foreign(NO_DIRTY),
    "dirty_threads": foreign(NO_DIRTY, "--dirty-threads"),
    "dirty_timeout": foreign(NO_DIRTY, "--dirty-timeout"),
    "dirty_worker_exit": foreign(NO_DIRTY),
    "dirty_worker_init": foreign(NO_DIRTY),
    "dirty_workers": foreign(NO_DIRTY, "--dirty-workers"),
    "do_handshake_on_connect": foreign("handshakes hold nobody up", "--do-handshake-on-connect", value=True),
    "enable_backlog_metric": foreign(
        "requests that wait are always told", "--enable-backlog-metric", value=True
    ),
    "enable_stdio_inheritance": foreign(
        "output of a daemon is left out", "-R", "--enable-stdio-inheritance", value=True
    ),
    "http2_cleartext": foreign(NO_HTTP2, "--http2-cleartext", idle=("off",)),
    "http2_initial_window_size": foreign(NO_HTTP2, "--http2-initial-window-size"),
    "http2_max_concurrent_streams": foreign(NO_HTTP2, "--http2-max-concurrent-streams"),
    "http2_max_frame_size": foreign(NO_HTTP2, "--http2-max-frame-size"),
    "http2_max_header_list_size": foreign(NO_HTTP2, "--http2-max-header-list-size"),
    "http_parser": foreign("it has its own", "--http-parser", idle=("auto",)),
    "http_protocols": foreign(NO_HTTP2, "--http-protocols", idle=("h1", ["h1"])),
    "initgroups": foreign("--user always does that", "--initgroups", value=True, idle=(True,)),
    "logger_class": foreign("it has its own", "--logger-class", idle=("gunicorn.glogging.Logger", "simple")),
    "on_dirty_starting": foreign(NO_DIRTY),
    "paste": foreign("no paste: name the application", "--paste", "--paster"),
    "permit_obsolete_folding": foreign(STRICT, "--permit-obsolete-folding", value=True),
    "permit_unconventional_http_method": foreign(STRICT, "--permit-unconventional-http-method", value=True),
    "permit_unconventional_http_version": foreign(STRICT, "--permit-unconventional-http-version", value=True),
    "protocol": foreign("nothing but HTTP is served", "--protocol", idle=("http",)),
    "raw_paste_global_conf": foreign("no paste: name the application", "--paste-global"),
    "root_path": foreign(NO_ASGI, "--root-path"),
    "secure_scheme_headers": foreign("X-Forwarded-Proto and X-Forwarded-Ssl are read"),
    "sendfile": Foreign("files are always sent by sendfile", ("--no-sendfile",), False, (None, True)),
    "spew": foreign("a debugger does that", "--spew", value=True),
    # 2 is what gunicorn has if nobody says anything; it does not heed it either.
    "ssl_version": foreign("see --tls-protocol-min", "--ssl-version", idle=(2,)),
    "strip_header_spaces": foreign(STRICT, "--strip-header-spaces", value=True),
    "suppress_ragged_eofs": foreign(
        "a connection that ends early is no error",
        "--suppress-ragged-eofs",
        value=True,
        idle=(True,),
    ),
    "tmp_upload_dir": foreign("set TMPDIR in the environment"),
    "uwsgi_allow_ips": foreign("nothing but HTTP is served", "--uwsgi-allow-from"),
    "websocket_max_message_size": foreign(NO_ASGI, "--websocket-max-message-size"),
    "worker_class": foreign(
        "workers have threads: see --threads and --gevent", "-k", "--worker-class", idle=("gthread",)
    ),
    "worker_tmp_dir": foreign("signs of life are in shared memory", "--worker-tmp-dir"),
}

# What may not be left out: the message says what to do.
REFUSED = {
    "protocol": "fastwsgi serves HTTP alone; let the proxy in front speak that",
}


class Flag(NamedTuple):
    """A flag of gunicorn that is none of ours; `value` is what it stands for if it takes none."""

    name: str
    takes_value: bool
    value: object


FLAGS = {
    flag: Flag(name, row.value is None, row.value) for name, row in FOREIGN.items() for flag in row.flags
}

# What workers are called elsewhere; of gunicorn's three with gevent, two have its own server in them.
CLASSES = {
    "SyncWorker": "sync",
    "ThreadWorker": "gthread",
    **dict.fromkeys(
        ("GeventWorker", "GeventPyWSGIWorker", "PyWSGIWorker", "gevent_wsgi", "gevent_pywsgi"), "gevent"
    ),
}

# What tells the scheme; the last is not read, but stands in gunicorn's default.
SCHEMES = ("X-FORWARDED-PROTO", "X-FORWARDED-SSL", "X-FORWARDED-PROTOCOL")

# Where 0 is no limit with gunicorn: the most that is possible.
UNLIMITED = {
    "limit_request_line": 1 << 20,
    "limit_request_field_size": 1 << 20,
    "limit_request_fields": 32767,
}


def addresses(value: object) -> object:
    """Addresses as fastwsgi writes them."""
    if isinstance(value, str):
        return addresses([word.strip() for word in value.split(",")])
    if not isinstance(value, (list, tuple)):
        return value
    return [address(one) if isinstance(one, str) else one for one in value]


def address(text: str) -> str:
    text = text.removeprefix("tcp://")
    if text.startswith("unix:"):
        return "unix:" + text.removeprefix("unix:").removeprefix("//")
    has_port = ":" in text.rpartition("]")[2]
    return text if has_port or text.startswith("fd://") else f"{text}:8000"


CONVERTED: dict[str, Callable[[object], object]] = {
    "bind": addresses,
    "proxy_protocol": lambda value: ("auto" if value else "off") if isinstance(value, bool) else value,
}


class Setting(NamedTuple):
    """A value for an option of ours, and where it came from."""

    value: object
    origin: str


@dataclass(slots=True)
class Translation:
    """What settings of gunicorn come to: options; others where no source has any; what is not honoured."""

    settings: dict[str, Setting] = field(default_factory=dict)
    fallbacks: dict[str, Setting] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def translate(
    given: Mapping[str, object], source: str, labels: Mapping[str, str] | None = None
) -> Translation:
    """Say what settings by gunicorn's names come to; `labels` are what the user calls them.

    Raises ConfigError for a wrong value, and for what would make the server less safe if it were left out.
    """
    translation = Translation()
    for name, value in given.items():
        label = (labels or {}).get(name, name)
        origin = f"{source}: {label}" if source else label
        if name in OURS:
            take(translation, name, value, label, origin)
        elif name in FOREIGN:
            leave(translation, name, value, label, origin)
        elif name == "wsgi_app":
            if isinstance(value, str) and value:
                translation.settings["app"] = Setting(value, origin)
        elif name in ("check_config", "print_config"):
            if value:
                translation.remarks.append(f"{label} (give --{name.replace('_', '-')})")
        elif name != "config" and name not in ARITY:
            translation.remarks += suspicious(name, value, given)
    return translation


def take(translation: Translation, name: str, value: object, label: str, origin: str) -> None:
    """A setting that is an option of ours."""
    option = OPTIONS[OURS[name]]
    if value is None or (value == "" and option.default is None):
        return
    if name in CONVERTED:
        value = CONVERTED[name](value)
    if name in UNLIMITED and value in (0, "0"):
        value = UNLIMITED[name]
        translation.remarks.append(f"{label} = 0 ({option.kind.show(value)} is the most)")
    translation.settings[option.name] = Setting(option.read(value, origin), origin)


def leave(translation: Translation, name: str, value: object, label: str, origin: str) -> None:
    """A setting that is none of ours: nothing is to be done for it, or it is told of, or refused."""
    row = FOREIGN[name]
    if name == "secure_scheme_headers":
        value = unread_schemes(value, origin)
    elif name == "worker_class":
        value = class_name(value)
        if value == "sync":
            # Such an application may count on it. gunicorn itself takes threads where they are asked for.
            translation.fallbacks["threads"] = Setting(1, origin)
        elif value == "gevent":
            translation.settings["gevent"] = Setting(True, origin)
            return
    elif name == "control_socket_disable" and value:
        translation.settings["control_socket"] = Setting("none", origin)
    if value in row.idle:
        return
    if name in REFUSED:
        raise ConfigError(f"{origin}: {REFUSED[name]}")
    shown = "" if row.value is not None or callable(value) else f" = {value!r}"
    if len(shown) > 60:
        shown = f"{shown[:57]}..."
    translation.remarks.append(f"{label}{shown} ({row.why})")


def class_name(value: object) -> str:
    """gevent, for "gevent", "gunicorn.workers.ggevent.GeventWorker", the class, or one of its relatives."""
    text = value if isinstance(value, str) else str(getattr(value, "__name__", value))
    if text == "fastwsgi.contrib.gunicorn.Worker":
        return "gthread"
    name = text.rpartition(".")[2]
    return CLASSES.get(name, name)


def unread_schemes(value: object, origin: str) -> list[str]:
    """Names of fields that would tell the scheme, and are not read here.

    Raises ConfigError if X-Forwarded-Proto is not among the names: then the proxy may let the client's pass.
    """
    names = [str(name).upper().replace("_", "-") for name in value] if isinstance(value, Mapping) else []
    if "X-FORWARDED-PROTO" not in names:
        raise ConfigError(
            f"{origin}: without X-FORWARDED-PROTO in it, which fastwsgi believes from peers of "
            "forwarded_allow_ips; let the proxy set that field, and add it here"
        )
    return [name for name in names if name not in SCHEMES]


def suspicious(name: str, value: object, given: Mapping[str, object]) -> list[str]:
    """What to say of a name in a file that is no setting: most are helpers, but some are misspelt."""
    if name.startswith("_") or isinstance(value, (ModuleType, type)):
        return []
    known = ARITY if callable(value) else (*OURS, *FOREIGN)
    advice = did_you_mean(name, [one for one in known if one not in given], cutoff=0.85)
    if advice:
        return [f"{name} (no such setting{advice})"]
    if name in NAMES and "_" in name:
        return [f"{name} (an option of fastwsgi: it belongs in fastwsgi.toml)"]
    return []


class Config:
    """`server.cfg`: settings by gunicorn's names, and what else its file says."""

    def __init__(self, settings: Settings, given: Mapping[str, object], workers: int) -> None:
        self._settings = settings
        self._given = given
        self.workers = workers
        self.preload_app = settings.preload != "off"
        self.env = dict(one.split("=", 1) for one in settings.env)
        self.worker_class_str = "gevent" if settings.gevent else "gthread"
        self.is_ssl = settings.has_tls

    def __getattr__(self, name: str) -> Any:
        if name in OURS:
            return getattr(self._settings, OURS[name])
        if name in FOREIGN:
            return self._given.get(name)
        raise AttributeError(f"gunicorn has no setting {name!r}")


def execute(location: str, cwd: str, directory: str) -> dict[str, object]:
    """Execute a configuration file (PATH, file:PATH or python:MODULE); return what it defines.

    `directory` is where the application is; modules can be imported from there from now on. Raises
    ConfigError, with the line, for whatever the file raises.
    """
    if directory not in sys.path:
        sys.path.insert(0, directory)
    is_module = location.startswith("python:")
    name = location.removeprefix("python:")
    path = os.path.join(cwd, location.removeprefix("file:"))
    try:
        if is_module:
            module = sys.modules.get(name)
            return vars(importlib.import_module(name) if module is None else importlib.reload(module))
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec")
        module = ModuleType("__config__")
        module.__file__ = path
        # Where dataclasses and pickle look for what is defined in it.
        sys.modules[module.__name__] = module
        exec(code, vars(module))
        return vars(module)
    except OSError as error:
        if is_module or error.filename != path:
            raise wrong_file(location, error) from error
        raise ConfigError(f"cannot read {location}: {error.strerror}") from None
    except (Exception, SystemExit) as error:
        raise wrong_file(location, error) from error


def wrong_file(location: str, error: BaseException) -> ConfigError:
    """The error of a file that raised another: with the last line of the file that was reached."""
    reached = [
        (frame.f_code.co_filename, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename != __file__ and "importlib" not in frame.f_code.co_filename
    ]
    lines = [number for name, number in reached if name == reached[0][0]]
    if isinstance(error, SyntaxError) and error.lineno:
        lines.append(error.lineno)
    where = f"{location}, line {lines[-1]}" if lines else location
    text = " ".join(str(error).split())
    return ConfigError(
        f"{where}: {type(error).__name__}: {text}" if text else f"{where}: {type(error).__name__}"
    )
