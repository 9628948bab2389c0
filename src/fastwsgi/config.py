"""The settings. Each option is declared once, as a field of `Settings`: name, type, unit, default, help.

The command line, variables of the environment, keys of files, `--help`, docs/options.md and the checks come
from these declarations. `sources` says where values are taken from.
"""

import sys
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, cast

from fastwsgi.errors import ConfigError, did_you_mean
from fastwsgi.kinds import (
    Kind,
    assignments,
    choice,
    codings,
    count,
    datagrams,
    duration,
    each,
    everywhere,
    facility,
    field_line,
    field_names,
    file_pairs,
    mapping,
    media_types,
    mode,
    name_or_number,
    networks,
    numbered,
    on_or,
    optional,
    path,
    reload_engine,
    several,
    share,
    size,
    size_or_share,
    switch,
    switch_or,
    switch_or_port,
    text,
    tls_version,
    word_or,
    words,
)
from fastwsgi.mounts import given, places, routes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Variable:
    """One of the environment that platforms set, and how its value is read."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Option:
    """One option as the command line knows it; `flags` in the order in which help shows them."""

    name: str
    flags: tuple[str, ...]
    kind: Kind
    default: object
    help: str
    group: str
    repeatable: bool
    variable: Variable | None

    def read(self, value: object, where: str) -> object:
        """Return the checked value; raise ConfigError, saying where, if it is not one."""
        return read_as(self.kind, value, where)

    @property
    def usage(self) -> str:
        """What to type: `-w, --workers auto|N`."""
        # What may follow a switch is one word with it: --preload[=strict].
        gap = "" if self.kind.is_switch else " "
        return f"{', '.join(self.flags)}{gap}{self.kind.metavar}"

    @property
    def shown_default(self) -> str:
        return "none" if self.default is None else self.kind.show(self.default)


def read_as(kind: Kind, value: object, where: str) -> object:
    try:
        return kind.read(value)
    except ConfigError as error:  # it says itself what is wrong, and with what
        raise ConfigError(f"{where}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {value!r} is not {error}") from None


def option(
    default: T,
    kind: Kind,
    group: str,
    help: str,
    *flags: str,
    repeatable: bool = False,
    variable: Variable | None = None,
) -> T:
    """Declare a field of `Settings`; `flags` are those besides `--name-of-the-field`."""
    metadata = {
        "kind": kind,
        "group": group,
        "help": help,
        "flags": flags,
        "repeatable": repeatable,
        "variable": variable,
    }
    return field(default=default, metadata=metadata)


ADDRESSES = "Where to listen"
ANSWERS = "What answers look like"
WORKERS = "Workers"
CREW = "Threads and time"
MEMORY = "Memory and disk"
LIMITS = "What clients may send, and how slowly"
TRUST = "Whom to trust"
TLS = "TLS"
PROCESS = "Processes"
APPLICATION = "The application"
LOGS = "Logs"
WATCHING = "Watching it"
WRITING = "While you write it"
ROUTES = "Hosts and paths"


# That run at a time with --gevent: unless --worker-connections says how many, and at most.
GREENLETS = 1000
GREENLETS_MOST = 10000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, checked; the one object that crosses into the core.

    Values may be given as the command line takes them ("30s", "1m") or as Python values: times in
    seconds, sizes in bytes. Raises ConfigError when a value is wrong.
    """

    bind: tuple[str, ...] = option(
        ("127.0.0.1:8000",),
        several(text("ADDRESS")),
        ADDRESSES,
        "HOST:PORT, [IPV6]:PORT, :PORT (every address), unix:/path, or unix:@name (abstract, Linux); "
        "port 0 takes any free one; with http:// before it without TLS; may be given several times",
        "-b",
        repeatable=True,
        variable=Variable("PORT", everywhere()),
    )
    backlog: int = option(
        2048, count(1, 65535), ADDRESSES, "connections the kernel may queue; net.core.somaxconn caps it"
    )
    worker_connections: int | None = option(
        None,
        optional(count(1, 1 << 20)),
        ADDRESSES,
        "connections at a time; at the limit the longest idle ones are closed, then accepting pauses; "
        "none: as many as open files allow, 50000 at most",
    )
    reuse_port: bool = option(
        False, switch(), ADDRESSES, "each worker has sockets of its own (SO_REUSEPORT), the kernel chooses"
    )
    health: str | None = option(
        None,
        optional(path()),
        ADDRESSES,
        "a path such as /healthz: answered with 200 while a worker lives, without the application",
    )
    ready: str | None = option(
        None, optional(path()), ADDRESSES, "a path such as /readyz: the same, but 503 once it is stopping"
    )
    compress: tuple[str, ...] = option(
        (),
        codings(),
        ANSWERS,
        "compress answers for clients that take it, with the first of these that a client likes best: gzip, "
        "br, zstd, each perhaps with a level as in gzip:6; br and zstd need the extras brotli and zstd",
    )
    compress_types: tuple[str, ...] = option(
        (
            "text/*",
            "application/json",
            "application/javascript",
            "application/xml",
            "application/x-ndjson",
            "application/wasm",
            "*+json",
            "*+xml",
            "font/ttf",
            "font/otf",
        ),
        media_types(),
        ANSWERS,
        "the media types that are compressed; a star stands for anything",
    )
    compress_min_length: int = option(
        1 << 10,
        size(1 << 30, 1),
        ANSWERS,
        "content that is known to be shorter is left as it is",
    )
    early_hints: bool = option(
        False,
        switch(),
        ANSWERS,
        "let the application send 103 before its answer, by environ['wsgi.early_hints'] as gunicorn has it",
    )
    workers: int | str = option(
        "auto",
        word_or("auto", count(0, 1024)),
        WORKERS,
        "processes that serve; auto: as many as there are processors to use, fewer if memory is short; 0: "
        "the command serves by itself, without a supervisor, for debuggers and profilers",
        "-w",
        variable=Variable("WEB_CONCURRENCY", count(1, 1024)),
    )
    worker_timeout: float = option(
        60.0,
        duration(86400.0),
        WORKERS,
        "how long a worker may give no sign of life; then it is ended and replaced; 0 is for ever",
    )
    max_requests: int = option(
        0, count(0, 1 << 30), WORKERS, "requests after which a worker is replaced; 0 is never"
    )
    max_requests_jitter: int | None = option(
        None,
        optional(count(0, 1 << 30)),
        WORKERS,
        "at most so many more, by chance, so that not all are replaced at a time; none: a tenth of them",
    )
    max_worker_memory: int | str | None = option(
        None,
        optional(size_or_share()),
        WORKERS,
        "memory with which a worker is replaced: a size, or a share such as 80% of what this host or "
        "container may use",
    )
    memory_pressure: str = option(
        "90%",
        word_or("off", share()),
        WORKERS,
        "in a container: when so much of its memory limit is used, or the kernel says that memory is short, "
        "the largest worker is replaced",
    )
    max_worker_lifetime: float = option(
        0.0,
        duration(365 * 86400.0),
        WORKERS,
        "time after which a worker is replaced, give or take a tenth; 0 is never",
    )
    preload: str = option(
        "off",
        switch_or("strict"),
        WORKERS,
        "import the application once and fork the workers from there, which shares memory; strict: not "
        "with threads or connections left open by the import",
    )
    threads: int = option(
        4, count(1, 1024), CREW, "threads that run the application: at most so many requests run at a time"
    )
    loops: int | str = option(
        "auto",
        word_or("auto", count(1, 1024)),
        CREW,
        "event loops of a worker, each with its part of the threads; auto: one, or with a free-threaded "
        "Python as many as keep all processors busy",
    )
    gevent: bool = option(
        False,
        switch(),
        CREW,
        "run requests in greenlets of gevent instead of threads, in an application that gevent patches "
        "before it is imported: as many at a time as --worker-connections says, or 1000",
    )
    keep_alive: float = option(
        75.0,
        duration(86400.0),
        CREW,
        "how long an idle connection is kept; choose more than a balancer in front does",
    )
    queue_timeout: float = option(
        30.0,
        duration(86400.0, 0.1),
        CREW,
        "how long a request may wait for a thread; then it is answered with 503",
    )
    timeout: float = option(
        30.0,
        duration(86400.0),
        CREW,
        "how long a request may be in the application without giving anything to its client; then it is "
        "answered with 503, and RequestTimeout is raised in its thread; 0 is for ever",
        "-t",
    )
    graceful_timeout: float = option(
        25.0, duration(86400.0), CREW, "how long requests in progress may take to finish after TERM"
    )
    shutdown_delay: float = option(
        0.0,
        duration(3600.0),
        CREW,
        "how long to go on accepting after TERM, while --ready says 503 and balancers take notice",
    )
    poller: str = option(
        "auto", choice("auto", "epoll", "poll"), CREW, "how to wait for sockets; for diagnosis, auto is best"
    )
    request_buffer: int = option(
        512 << 10,
        size(1 << 40),
        MEMORY,
        "request content kept in memory; what is longer goes to a spool file",
    )
    response_buffer: int = option(
        1 << 20, size(1 << 40), MEMORY, "response bytes kept in memory for a client that reads slowly"
    )
    response_spool: int = option(
        1 << 30, size(1 << 50), MEMORY, "and on disk after that; when both are full, the application waits"
    )
    limit_request_line: int = option(
        8190, size(1 << 20, 64), LIMITS, "the request line; a longer one is refused with 414"
    )
    limit_request_fields: int = option(
        100, count(1, 32767), LIMITS, "field lines of a request; more are refused with 431"
    )
    limit_request_field_size: int = option(
        16 << 10,
        size(1 << 20, 64),
        LIMITS,
        "one field line; a longer one is refused with 431",
        "--limit-request-field_size",
    )
    limit_request_head: int = option(
        64 << 10, size(16 << 20, 256), LIMITS, "request line and all field lines together; 431"
    )
    limit_request_trailer: int = option(
        16 << 10, size(16 << 20), LIMITS, "the trailer section behind chunked content; 431"
    )
    limit_chunk_overhead: int = option(
        16 << 10,
        size(1 << 30),
        LIMITS,
        "chunk framing beyond eight octets for each octet of content; 400",
    )
    limit_request_body: int = option(
        100 << 20,
        size(1 << 50),
        LIMITS,
        "request content; more is refused with 413, before it is received where the client says how much; "
        "0 is no limit",
    )
    header_timeout: float = option(
        15.0, duration(86400.0, 0.1), LIMITS, "how long a request head may take in all; 408"
    )
    body_timeout: float = option(
        30.0, duration(86400.0, 0.1), LIMITS, "how long request content may pause; 408"
    )
    body_min_rate: int = option(
        500,
        size(1 << 40),
        LIMITS,
        "octets of content a second, after the first 15 s; slower is 408; 0 is any",
    )
    send_timeout: float = option(
        60.0, duration(86400.0, 0.1), LIMITS, "how long a client may read nothing of its answer"
    )
    keep_alive_requests: int = option(
        1000, count(1, 1 << 30), LIMITS, "requests of one connection, which is closed after the last"
    )
    forwarded_allow_ips: tuple[str, ...] = option(
        ("127.0.0.1", "::1"),
        networks(),
        TRUST,
        "peers whose Forwarded and X-Forwarded fields are believed, and removed from any other: addresses, "
        "networks, * for every peer; unix sockets are always among them, but for none",
        variable=Variable("FORWARDED_ALLOW_IPS", networks()),
    )
    proxy_protocol: str = option(
        "off",
        choice("off", "v1", "v2", "auto", alone="auto"),
        TRUST,
        "the header of the PROXY protocol that connections begin with; auto is either version",
    )
    proxy_allow_from: tuple[str, ...] | None = option(
        None,
        optional(networks()),
        TRUST,
        "peers that have to send it, and from others it is refused; those of --forwarded-allow-ips if this "
        "is not given",
    )
    header_map: str = option(
        "drop",
        choice("drop", "refuse", "dangerous"),
        TRUST,
        "field names with an underscore: drop them, refuse them with 400, or mix them with those that have "
        "a hyphen there",
    )
    forwarder_headers: tuple[str, ...] = option(
        ("SCRIPT_NAME", "PATH_INFO"),
        field_names(),
        TRUST,
        "names with an underscore that are taken from peers of --forwarded-allow-ips all the same",
    )
    route: tuple[str, ...] = option(
        (),
        routes(),
        ROUTES,
        "what the beginning of a path has of its own, such as 'example.com/admin allow=10.0.0.0/8'; keys and "
        "rules are in docs/routes.md; may be given several times",
        repeatable=True,
    )
    static: tuple[str, ...] = option(
        (),
        places("static", "DIRECTORY"),
        ROUTES,
        "files that are served without the application, such as /static=/srv/static; may be given several "
        "times",
        repeatable=True,
    )
    acme_dir: str | None = option(
        None,
        optional(text("DIRECTORY")),
        ROUTES,
        "files for /.well-known/acme-challenge/ of every host, by which certificates are obtained; neither "
        "redirects nor guards stand before them",
    )
    sendfile_root: tuple[str, ...] = option(
        (),
        each(text("DIRECTORY")),
        ROUTES,
        "a directory whose files the application may have sent for it, by their whole path in X-Sendfile; "
        "may be given several times",
        repeatable=True,
    )
    mount: tuple[str, ...] = option(
        (),
        places("app", "MODULE:NAME"),
        ROUTES,
        "another application beneath a path, such as /blog=blog.wsgi:app; may be given several times",
        repeatable=True,
    )
    header: tuple[str, ...] = option(
        (),
        each(field_line()),
        ROUTES,
        "a field for every response that has none of this name yet, such as 'X-Robots-Tag: noindex'; may be "
        "given several times",
        repeatable=True,
    )
    certfile: str | None = option(
        None,
        optional(text("FILE")),
        TLS,
        "a certificate, PEM, with those between it and its root behind it: addresses are served over TLS, "
        "but for those given with http://",
    )
    keyfile: str | None = option(
        None, optional(text("FILE")), TLS, "its key, PEM, not encrypted; none: it is in the same file"
    )
    tls_cert: tuple[str, ...] = option(
        (),
        file_pairs(),
        TLS,
        "one more certificate with its key, for clients that ask for one of its names; others get the first; "
        "may be given several times",
        repeatable=True,
    )
    ca_certs: str | None = option(
        None, optional(text("FILE")), TLS, "whose certificates are taken from clients, PEM"
    )
    cert_reqs: str = option(
        "none",
        numbered("none", "optional", "required"),
        TLS,
        "whether clients are asked for a certificate; the application gets it as SSL_CLIENT_CERT and more",
    )
    ciphers: str | None = option(
        None,
        optional(text("CIPHERS")),
        TLS,
        "for TLS 1.2, as OpenSSL lists them; none: those that Mozilla calls intermediate",
    )
    tls_protocol_min: str = option(
        "1.2", tls_version(), TLS, "the oldest version of TLS that is spoken", "--ssl-protocol-min"
    )
    tls_redirect: str = option(
        "off",
        switch_or_port(),
        TLS,
        "requests that come without TLS are sent to the same place over TLS, at the port of the first "
        "address that has it, or at this one",
    )
    hsts: float = option(
        0.0,
        on_or(duration(10 * 365 * 86400.0), "730d"),
        TLS,
        "how long browsers shall come to this host over TLS alone, which cannot be taken back before; two "
        "years if no time is given",
    )
    user: str | None = option(
        None,
        optional(name_or_number("USER")),
        PROCESS,
        "run as this user, a name or a number, once the addresses and log files are open",
        "-u",
    )
    group: str | None = option(
        None,
        optional(name_or_number("GROUP")),
        PROCESS,
        "run as this group; none with --user: the groups of that user",
        "-g",
    )
    umask: int | None = option(
        None,
        optional(mode(0o777)),
        PROCESS,
        "bits of the mode that new files, unix sockets among them, do not get",
        "-m",
    )
    pid: str | None = option(
        None, optional(text("FILE")), PROCESS, "write the number of the process to this file", "-p"
    )
    daemon: bool = option(False, switch(), PROCESS, "go to the background, away from the terminal", "-D")
    name: str | None = option(
        None, optional(text("NAME")), PROCESS, "what the processes are called in lists of processes", "-n"
    )
    config: str | None = option(
        None,
        optional(text("FILE")),
        APPLICATION,
        "settings from this file, TOML or a gunicorn.conf.py, or of a Django project (django:shop.settings); "
        "none: fastwsgi.toml, or [tool.fastwsgi] of pyproject.toml, if there is one",
        "-c",
    )
    env: tuple[str, ...] = option(
        (),
        assignments(),
        APPLICATION,
        "a variable for the environment of the application; may be given several times",
        "-e",
        repeatable=True,
    )
    chdir: str | None = option(
        None, optional(text("DIRECTORY")), APPLICATION, "change to it before the import"
    )
    pythonpath: str | None = option(
        None, optional(text("PATHS")), APPLICATION, "directories to import from, separated by commas"
    )
    access_logfile: str | None = option(
        None, optional(text("FILE")), LOGS, "one line per request to this file; - is the standard output"
    )
    access_logformat: str = option(
        '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
        text("FORMAT"),
        LOGS,
        "the line, with gunicorn's atoms; short: time of day, status, method, target, duration, size",
    )
    error_logfile: str = option(
        "-", text("FILE"), LOGS, "messages and tracebacks; - is the standard error", "--log-file"
    )
    log_format: str = option(
        "text",
        choice("text", "json"),
        LOGS,
        "of both logs: lines of text, or a JSON object in each line; with json, every atom of "
        "--access-logformat is a key",
    )
    request_id: bool = option(
        False,
        switch(),
        LOGS,
        "give each request an id: the X-Request-ID of a peer in --forwarded-allow-ips, or else a new one; "
        "the application, the client and the logs get it",
    )
    log_slow: float = option(
        5.0, duration(86400.0), LOGS, "requests that take longer are logged with their Python stack; 0 is off"
    )
    log_level: str = option(
        "info",
        choice("debug", "info", "warning", "error", "critical"),
        LOGS,
        "the least level that is logged",
    )
    capture_output: bool = option(
        False,
        switch(),
        LOGS,
        "what the application prints, and what C code and other programs write to descriptors 1 and 2 for "
        "it, goes to the error log, a record for each line",
    )
    log_config: str | None = option(
        None,
        optional(text("FILE")),
        LOGS,
        "configure Python's logging: FILE.toml or FILE.json as for logging.config.dictConfig, any other as "
        "for fileConfig; messages go where it sends the logger fastwsgi, or else the root logger",
    )
    log_config_json: str | None = option(
        None, optional(text("FILE")), LOGS, "the same as JSON, whatever the name of the file"
    )
    log_config_dict: Mapping[str, Any] | None = option(
        None,
        optional(mapping()),
        LOGS,
        "the same as a table of fastwsgi.toml, a dict of gunicorn.conf.py, or JSON",
    )
    log_syslog: bool = option(
        False,
        switch(),
        LOGS,
        "send messages to syslog, too, and access log lines if --access-logfile is not given",
    )
    log_syslog_to: str | None = option(
        None,
        optional(text("ADDRESS")),
        LOGS,
        "unix:///path, udp://host:port or tcp://host:port; none: /dev/log or /var/run/syslog, or else "
        "udp://localhost:514",
    )
    log_syslog_facility: str = option("user", facility(), LOGS, "the facility of those messages")
    log_syslog_prefix: str | None = option(
        None, optional(text("TEXT")), LOGS, "what they begin with; none: --name, or else fastwsgi"
    )
    disable_redirect_access_to_syslog: bool = option(
        False, switch(), LOGS, "with --log-syslog: no access log lines there"
    )
    control_socket: str = option(
        "auto",
        text("auto|none|FILE"),
        WATCHING,
        "the unix socket of `fastwsgi top` and the like, for its owner alone; auto: fastwsgi-PID.sock in "
        "$XDG_RUNTIME_DIR, or else in /run or the directory for temporary files",
    )
    metrics: str | None = option(
        None,
        optional(text("ADDRESS")),
        WATCHING,
        "an address such as 127.0.0.1:9090 or unix:/path: answers GET /metrics in Prometheus's format",
    )
    statsd_host: str | None = option(
        None,
        optional(datagrams()),
        WATCHING,
        "HOST:PORT or unix:/path of a statsd server, which is sent gunicorn's metrics every second",
    )
    statsd_prefix: str | None = option(
        None, optional(words("PREFIX")), WATCHING, "what their names begin with"
    )
    dogstatsd_tags: str | None = option(
        None,
        optional(words("TAGS")),
        WATCHING,
        "tags for all of them, separated by commas, as DogStatsD has them",
    )
    server_timing: bool = option(
        False,
        switch(),
        WATCHING,
        "tell clients where the time of their request went, in a field Server-Timing; browsers show it",
    )
    leak_report: bool = option(
        False,
        switch(),
        WATCHING,
        "find out which routes keep memory, and the lines that allocate it: in the error log, and by "
        "`fastwsgi leaks`",
    )
    reload: bool = option(
        False,
        switch(),
        WRITING,
        "replace the workers when a file of the application changes; one that cannot be imported is shown in "
        "the browser until it is mended",
    )
    reload_engine: str = option(
        "auto",
        reload_engine(),
        WRITING,
        "how changes are noticed: by looking at the files four times a second, or by the package watchfiles "
        "(the extra reload); auto: by watchfiles if it is there",
    )
    reload_extra_file: tuple[str, ...] = option(
        (),
        each(text("FILE")),
        WRITING,
        "a file, a directory or a pattern such as 'conf/*.yaml' that is watched beside the modules of the "
        "application; may be given several times",
        repeatable=True,
    )
    reload_ignore: tuple[str, ...] = option(
        (),
        each(text("PATTERN")),
        WRITING,
        "files whose changes count for nothing, such as 'generated/*' or '*_pb2.py'; may be given several "
        "times",
        repeatable=True,
    )
    lint: bool = option(
        False,
        switch(),
        WRITING,
        "hold what the application does against PEP 3333, and log each violation once, with its line",
    )
    tracebacks: bool = option(
        False,
        switch(),
        WRITING,
        "show exceptions of the application in the browser, to clients of this machine alone",
    )
    open: bool = option(
        False, switch(), WRITING, "open the first address in a browser once the application is served"
    )

    def __post_init__(self) -> None:
        for declared in OPTIONS.values():
            value = declared.read(getattr(self, declared.name), declared.name)
            object.__setattr__(self, declared.name, value)
        if self.health is not None and self.health == self.ready:
            raise ConfigError(f"health and ready are both {self.health}; each needs a path of its own")
        given(self)
        self._check_tls()
        if self.gevent and (self.poller == "poll" or sys.platform != "linux"):
            raise ConfigError("gevent: its hub watches epoll, which Linux has; and poller is not to be poll")
        if self.gevent and self.leak_report:
            raise ConfigError("leak_report: not with gevent, whose greenlets are many in one thread")
        self._check_reload()
        if isinstance(self.loops, int):
            if self.loops > self.threads:
                raise ConfigError(
                    f"loops is {self.loops} and threads {self.threads}: each loop needs a thread"
                )
            if self.loops > 1 and self.gevent:
                raise ConfigError(f"loops is {self.loops}: greenlets are all in one thread, with one loop")
        if self.leak_report and "t" in sys.abiflags:
            raise ConfigError(
                "leak_report: not with a free-threaded Python, which has other allocators; "
                "run the server with the usual one to find a leak"
            )
        if self.leak_report and not (3, 11, 1) <= sys.version_info < (3, 13):
            major, minor, micro = sys.version_info[:3]
            raise ConfigError(
                f"leak_report: not with Python {major}.{minor}.{micro}, where no frame may be looked at "
                "while memory is allocated; run the server with Python 3.11.1 to 3.12 to find a leak"
            )

    @property
    def concurrency(self) -> int:
        """How many requests a worker runs at a time."""
        if not self.gevent:
            return self.threads
        return min(self.worker_connections or GREENLETS, GREENLETS_MOST)

    @property
    def has_tls(self) -> bool:
        return self.certfile is not None or bool(self.tls_cert)

    def _check_reload(self) -> None:
        """Raise ConfigError for what does not go with --reload."""
        if self.reload and self.preload != "off":
            raise ConfigError("reload and preload: each worker imports what has changed; give --no-preload")
        if self.reload and self.reuse_port:
            raise ConfigError(
                "reload and reuse_port: clients wait while workers change; give --no-reuse-port"
            )

    def _check_tls(self) -> None:
        """Raise ConfigError where one setting wants another."""
        if self.keyfile is not None and self.certfile is None:
            raise ConfigError(f"keyfile: {self.keyfile} is the key of what? give certfile, too")
        if self.cert_reqs != "none" and self.ca_certs is None:
            raise ConfigError(f"cert_reqs is {self.cert_reqs}: give ca_certs, whose certificates are taken")
        if self.cert_reqs != "none" and not self.has_tls:
            raise ConfigError(
                f"cert_reqs is {self.cert_reqs}, and there is no TLS in which to ask for them: give certfile"
            )
        for name in ("tls_redirect", "hsts"):
            if getattr(self, name) not in ("off", 0.0) and not self.has_tls:
                raise ConfigError(f"{name} without a certificate: give certfile")
        if self.has_tls and self.bind and all(address.startswith("http://") for address in self.bind):
            raise ConfigError(
                "bind has no address with TLS, and there is a certificate: give one without http://"
            )
        for address in self.bind:
            if address.startswith("https://") and not self.has_tls:
                raise ConfigError(f"cannot listen at {address} without a certificate: give certfile")


def declared_options() -> Iterator[Option]:
    """The options, in the order in which they are declared."""
    for row in fields(Settings):
        named = "--" + row.name.replace("_", "-")
        # The short one, the one named as the field, other names.
        flags = tuple(sorted((named, *row.metadata["flags"]), key=lambda flag: flag.startswith("--")))
        meta = row.metadata
        yield Option(
            row.name,
            flags,
            meta["kind"],
            row.default,
            meta["help"],
            meta["group"],
            meta["repeatable"],
            meta["variable"],
        )


OPTIONS = {declared.name: declared for declared in declared_options()}


def names() -> Iterator[tuple[str, Option]]:
    """Each option under all its names, with underscores: `error_logfile` and `log_file`."""
    for declared in OPTIONS.values():
        for flag in declared.flags:
            if flag.startswith("--"):
                yield flag[2:].replace("-", "_"), declared


NAMES = dict(names())


def merge(*layers: Mapping[str, object]) -> Settings:
    """Put layers of values over the defaults, later over earlier; raise ConfigError for a wrong value."""
    values = ChainMap(*map(dict, reversed(layers)))
    for name in values:
        if name not in OPTIONS:
            raise ConfigError(f"unknown setting {name}{did_you_mean(name, OPTIONS)}")
    return Settings(**cast("dict[str, Any]", dict(values)))
