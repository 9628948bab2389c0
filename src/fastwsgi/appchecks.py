"""What will hurt by what an imported application tells.

Of a framework only what the application has imported itself is looked at. Of values that may be secret
nothing is said but that they are bad.
"""

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastwsgi import gil, mounts
from fastwsgi.config import Settings
from fastwsgi.findings import Checks, Found, error, hint, warning
from fastwsgi.scene import Scene
from fastwsgi.settingchecks import directory_problem

# What PostgreSQL takes unless told otherwise, without those that are for superusers.
POSTGRESQL_CONNECTIONS = 97

# Of them, those for superusers and the like; and what is open, this query too.
RESERVED_CONNECTIONS = (
    "SELECT coalesce(sum(setting::int), 0) FROM pg_settings "
    "WHERE name IN ('superuser_reserved_connections', 'reserved_connections')"
)
OPEN_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"

# Keys of documentation and of templates, and what no key is long enough without.
KNOWN_KEYS = {
    "dev",
    "secret",
    "secret-key",
    "secret_key",
    "changeme",
    "change-me",
    "development",
    "key",
    "test",
}
KEY_OCTETS = 16
DJANGO_KEY_OCTETS, DJANGO_KEY_SIGNS = 50, 5

DEBUGGERS = ("pydevd", "debugpy", "pudb", "ipdb")


@dataclass
class Imported:
    """An application that has been imported in this process."""

    scene: Scene
    applications: tuple[Any, ...]
    ghosts: list[str] = field(default_factory=list)  # what the import has left running or open

    @property
    def settings(self) -> Settings:
        return self.scene.settings

    @property
    def workers(self) -> int:
        return self.scene.workers

    @property
    def wrapped(self) -> Iterator[Any]:
        """The applications, and those within, as far as middleware has them in usual places."""
        seen: list[Any] = []
        left = [one for one in self.applications if one is not None]
        while left:
            one = left.pop()
            if any(one is other for other in seen) or len(seen) > 50:
                continue
            seen.append(one)
            yield one
            for name in ("wsgi_app", "app", "application", "_app", "wrapped"):
                inner = getattr(one, "__dict__", {}).get(name)
                # A bound method belongs to what it is bound to.
                inner = getattr(inner, "__self__", inner)
                if callable(inner):
                    left.append(inner)


CHECKS: Checks[Imported] = Checks()


def loaded(module: str, name: str) -> Any:
    """What a module has under a name, if something has imported it; or None."""
    return getattr(sys.modules.get(module), name, None)


def instances(kind: Any) -> list[Any]:
    """All objects of a class, and of those beneath it."""
    if kind is None:
        return []
    # Not isinstance: that would wake lazy objects.
    return [one for one in gc.get_objects() if issubclass(type(one), kind)]


def is_weak(key: Any) -> str:
    """Why a key can be guessed, or an empty text."""
    octets = key.encode() if isinstance(key, str) else bytes(key)
    if octets.decode("latin-1").lower() in KNOWN_KEYS:
        return "is one that everybody knows"
    return f"has {len(octets)} octets" if len(octets) < KEY_OCTETS else ""


NEW_KEY = "a key from the environment, made by: python -c 'import secrets; print(secrets.token_urlsafe(50))'"


# ---- any application ----


@CHECKS.add("threads-at-import")
def threads_at_import(imported: Imported) -> Found:
    """With --preload they are not in the workers, without it in each of them."""
    for ghost in imported.ghosts:
        if imported.settings.preload != "off":
            say = error if imported.settings.preload == "strict" else warning
            yield say(
                f"--preload, and the import leaves this, which workers cannot use: {ghost}",
                "begin that in the hook post_fork (--config), or at the first request; or --no-preload",
            )
        elif ghost.startswith(("thread ", "a thread,")) and imported.workers > 1:
            yield hint(
                f"the import starts this in each of {imported.workers} workers: {ghost}",
                "a process of its own for what is to run once",
            )


@CHECKS.add("monkey-patched")
def monkey_patched(imported: Imported) -> Found:
    """Threads that are none."""
    if imported.settings.gevent:
        return
    gevent = loaded("gevent.monkey", "is_module_patched")
    eventlet = loaded("eventlet.patcher", "is_monkey_patched")
    for name, is_patched in (("gevent", gevent), ("eventlet", eventlet)):
        if is_patched is not None and is_patched("socket"):
            yield error(
                f"{name} has replaced threads and sockets: requests of a worker run one after the other, "
                "or not at all",
                f"--gevent, or take out what {name} patches; --threads is for requests that wait",
            )


@CHECKS.add("gil")
def turns_the_gil_on(imported: Imported) -> Found:
    """On a free-threaded Python: loops in one process become processes."""
    if culprit := gil.turned_on_by():
        yield hint(gil.TEXT.format(culprit), "look for a release of it that supports free threading")


@CHECKS.add("debugger")
def debugger(imported: Imported) -> Found:
    fix = "take it out where others are served"
    kind = loaded("werkzeug.debug", "DebuggedApplication")
    if kind is not None and any(issubclass(type(one), kind) for one in imported.wrapped):
        yield error(
            "werkzeug's debugger is around the application: whoever sees an exception may run code", fix
        )
    for name in DEBUGGERS:
        if name in sys.modules:
            yield warning(f"the import loads the debugger {name}", fix)
    if sys.gettrace() is not None:
        yield warning("a trace function is set: everything is slower by far", fix)


@CHECKS.add("debug-logging")
def debug_logging(imported: Imported) -> Found:
    if logging.getLogger().level == logging.DEBUG:
        yield hint(
            "the root logger has the level DEBUG: libraries log queries and headers, with secrets in them",
            "logging.INFO or higher",
        )


@CHECKS.add("prometheus-one-process")
def prometheus(imported: Imported) -> Found:
    if "prometheus_client" not in sys.modules or imported.workers == 1:
        return
    variables = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
    if not any(os.environ.get(name) for name in variables):
        yield warning(
            f"prometheus_client counts in each of {imported.workers} workers, and one of them answers",
            "PROMETHEUS_MULTIPROC_DIR=DIRECTORY in the environment, and MultiProcessCollector",
        )


@CHECKS.add("blas-threads")
def blas_threads(imported: Imported) -> Found:
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    if "numpy" in sys.modules and imported.workers > 1 and not any(map(os.environ.get, variables)):
        yield hint(
            f"numpy computes with a thread for each processor, in each of {imported.workers} workers",
            "--env OMP_NUM_THREADS=1 --env OPENBLAS_NUM_THREADS=1",
        )


@CHECKS.add("rate-limit-in-process")
def rate_limits(imported: Imported) -> Found:
    """Flask-Limiter and what else uses the package limits."""
    if imported.workers > 1 and instances(loaded("limits.storage.memory", "MemoryStorage")):
        yield warning(
            f"rate limits are counted in memory: {imported.workers} workers let through {imported.workers} "
            "times as many",
            "a storage that all share, such as redis://; or the key rate of a route (docs/guards.md)",
        )


@CHECKS.add("cache-in-process")
def caches(imported: Imported) -> Found:
    if imported.workers > 1 and instances(loaded("cachelib.simple", "SimpleCache")):
        yield warning(
            f"SimpleCache is in memory: each of {imported.workers} workers has one, and none knows what "
            "others delete",
            "a cache that all share: Redis, Memcached, FileSystemCache",
        )


@CHECKS.add("sqlite-thread")
def sqlite_thread(imported: Imported) -> Found:
    """A connection that the import has opened, and that other threads may not use."""
    module = sys.modules.get("sqlite3")
    if module is None:
        return
    for connection in instances(module.Connection):
        if refuses_threads(connection, module.ProgrammingError):
            yield error(
                "a connection of sqlite3 is opened at import: threads that serve may not use it "
                "(check_same_thread)",
                "open one in each request; or check_same_thread=False and a lock",
            )


def refuses_threads(connection: Any, refusal: type[Exception]) -> bool:
    """It is open, and for this thread alone."""
    outcomes: list[bool] = []

    def use() -> None:
        try:
            connection.cursor().close()
            outcomes.append(True)
        except refusal:
            outcomes.append(False)

    use()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    return outcomes == [True, False]


# ---- databases ----


@dataclass(frozen=True, slots=True)
class Database:
    """Where connections go, and how many at most from one worker."""

    title: str
    vendor: str
    connections: int
    pool: int | None  # connections of its pool; None: as many as threads
    ask: Callable[[str], Any]  # the first value that a query gives


def databases(imported: Imported) -> Iterator[Database]:
    yield from django_databases(imported)
    yield from sqlalchemy_databases(imported)


def django_databases(imported: Imported) -> Iterator[Database]:
    threads = imported.settings.threads
    for alias, given in django_aliases().items():
        vendor = vendor_of(given.get("ENGINE", ""))
        pool = django_pool(given.get("OPTIONS", {}).get("pool"))

        def ask(query: str, alias: str = alias) -> Any:
            connection = loaded("django.db", "connections")[alias]
            try:
                with connection.cursor() as cursor:
                    cursor.execute(query)
                    return cursor.fetchone()[-1]
            finally:
                connection.close()

        yield Database(
            f"Django's {alias!r}", vendor, threads if pool is None else min(threads, pool), pool, ask
        )


def django_aliases() -> dict[str, Any]:
    """DATABASES, with what Django adds to each."""
    connections = loaded("django.db", "connections")
    found: dict[str, Any] = {} if connections is None or django_settings() is None else connections.settings
    return found


def django_pool(given: Any) -> int | None:
    """The most connections of OPTIONS["pool"]; those of psycopg_pool: max_size, else min_size, else 4."""
    if not given:
        return None
    options = given if isinstance(given, dict) else {}
    return int(options.get("max_size") or options.get("min_size", 4))


def engines() -> list[Any]:
    """Those of SQLAlchemy, one for each pool: options make others of the same."""
    found = instances(loaded("sqlalchemy.engine.base", "Engine"))
    return list({id(engine.pool): engine for engine in found}.values())


def sqlalchemy_databases(imported: Imported) -> Iterator[Database]:
    threads = imported.settings.threads
    for engine in engines():
        kind, pool = type(engine.pool).__name__, None
        if kind.endswith("QueuePool"):
            overflow = engine.pool._max_overflow
            pool = None if overflow < 0 else engine.pool.size() + overflow
        elif kind in ("StaticPool", "AssertionPool"):
            pool = 1

        def ask(query: str, engine: Any = engine) -> Any:
            try:
                with engine.connect() as connection:
                    return connection.exec_driver_sql(query).fetchone()[-1]
            finally:
                engine.dispose()

        most = threads if pool is None else min(threads, pool)
        yield Database(engine_title(engine), vendor_of(engine.dialect.name), most, pool, ask)


def engine_title(engine: Any) -> str:
    return f"SQLAlchemy's engine for {engine.url.database or 'memory'!r}"


def vendor_of(name: str) -> str:
    for vendor in ("postgresql", "mysql", "sqlite", "oracle"):
        if vendor in name or (vendor, name) in (("mysql", "mariadb"), ("postgresql", "postgis")):
            return vendor
    return (
        "sqlite" if "spatialite" in name else "postgresql" if "postgis" in name else name.rpartition(".")[2]
    )


@CHECKS.add("database-connections")
def database_connections(imported: Imported) -> Found:
    """Of all workers, against what the database takes."""
    for one in databases(imported):
        most = one.connections * imported.workers
        title = f"{one.title} ({one.vendor})"
        reason = f"{imported.workers} workers with {one.connections} connections each are {most}"
        fix = "fewer --workers or --threads, a pool (PgBouncer), or more max_connections"
        if imported.scene.asks_database and one.vendor in ("postgresql", "mysql"):
            yield from asked(one, most, f"{title}: {reason}", fix)
        elif one.vendor == "postgresql" and most > POSTGRESQL_CONNECTIONS:
            yield warning(
                f"{title}: {reason}, and PostgreSQL takes {POSTGRESQL_CONNECTIONS} unless told otherwise",
                f"{fix}; fastwsgi doctor --ask-database looks at what it really takes",
            )


def asked(database: Database, most: int, reason: str, fix: str) -> Found:
    """The same with what the database says itself."""
    try:
        if database.vendor == "postgresql":
            limit = int(database.ask("SHOW max_connections")) - int(database.ask(RESERVED_CONNECTIONS))
            used = int(database.ask(OPEN_CONNECTIONS))
        else:
            limit = int(database.ask("SHOW VARIABLES LIKE 'max_connections'"))
            used = int(database.ask("SHOW STATUS LIKE 'Threads_connected'"))
    except Exception as problem:
        # The text may have whatever was given to connect.
        yield error(
            f"{database.title} ({database.vendor}) does not answer: {type(problem).__name__}",
            "its address, user and password; from here, not from your machine",
        )
        return
    others = max(0, used - 1)
    if most > limit:
        yield error(f"{reason}, and it takes {limit}", fix)
    elif most + others > limit:
        yield warning(f"{reason}, it takes {limit}, and {others} are open right now", fix)


@CHECKS.add("database-pool")
def database_pool(imported: Imported) -> Found:
    threads = imported.settings.threads
    for one in databases(imported):
        if one.pool is not None and one.pool < threads:
            yield warning(
                f"{one.title} has a pool of {one.pool}, and a worker {threads} threads: some wait for a "
                "connection",
                f"a pool of {threads} (max_size; pool_size), or --threads {one.pool}",
            )


@CHECKS.add("sqlite-writers")
def sqlite_writers(imported: Imported) -> Found:
    if imported.scene.threads == 1:
        return
    for one in databases(imported):
        if one.vendor == "sqlite":
            yield warning(
                f"{one.title} is SQLite, and {imported.scene.threads} threads serve: of those that write, "
                "others get "
                '"database is locked"',
                "PostgreSQL; or PRAGMA journal_mode=WAL, a timeout of 20 s, and BEGIN IMMEDIATE",
            )


@CHECKS.add("stale-connections")
def stale_connections(imported: Imported) -> Found:
    """Connections that are kept, and that nobody tries before they are used."""
    for engine in engines():
        keeps = (
            type(engine.pool).__name__.endswith("QueuePool") and vendor_of(engine.dialect.name) != "sqlite"
        )
        if keeps and not engine.pool._pre_ping and engine.pool._recycle < 0:
            yield hint(
                f"{engine_title(engine)} keeps connections untried: after a restart of the database "
                "requests fail",
                "create_engine(..., pool_pre_ping=True)",
            )
    for alias, given in django_aliases().items():
        age = given.get("CONN_MAX_AGE", 0)
        if age != 0 and not given.get("CONN_HEALTH_CHECKS") and vendor_of(given["ENGINE"]) != "sqlite":
            yield warning(
                f"CONN_MAX_AGE of {alias!r} keeps connections untried: after a restart of the database "
                "requests fail",
                f"CONN_HEALTH_CHECKS = True in DATABASES[{alias!r}]",
            )


@CHECKS.add("django-new-connections")
def new_connections(imported: Imported) -> Found:
    for alias, given in django_aliases().items():
        vendor = vendor_of(given.get("ENGINE", ""))
        is_kept = given.get("CONN_MAX_AGE", 0) != 0 or given.get("OPTIONS", {}).get("pool")
        if vendor in ("postgresql", "mysql", "oracle") and not is_kept:
            yield hint(
                f"CONN_MAX_AGE of {alias!r} is 0: each request opens a connection to {vendor}",
                "CONN_MAX_AGE = 60 and CONN_HEALTH_CHECKS = True; PostgreSQL also OPTIONS = {'pool': True}",
            )


# ---- Django ----


def django_settings() -> Any:
    """The settings of a Django project that is set up, or None."""
    settings = loaded("django.conf", "settings")
    return settings if settings is not None and settings.configured else None


@CHECKS.add("django-debug")
def django_debug(imported: Imported) -> Found:
    settings = django_settings()
    if settings is None:
        return
    if settings.DEBUG:
        yield error(
            "DEBUG is on: each exception shows code and settings to its client, and queries pile up in "
            "memory",
            "DEBUG = False",
        )
    elif "debug_toolbar" in settings.INSTALLED_APPS:
        yield hint(
            "debug_toolbar is installed where DEBUG is off", "take it out of INSTALLED_APPS and MIDDLEWARE"
        )


@CHECKS.add("django-hosts")
def django_hosts(imported: Imported) -> Found:
    settings = django_settings()
    if settings is None:
        return
    if not settings.ALLOWED_HOSTS and not settings.DEBUG:
        yield error("ALLOWED_HOSTS is empty: every request gets 400", "ALLOWED_HOSTS = ['example.com']")
    elif "*" in settings.ALLOWED_HOSTS:
        yield warning(
            "ALLOWED_HOSTS has '*': clients choose the host of links, such as those to reset a password",
            "ALLOWED_HOSTS = ['example.com']",
        )


@CHECKS.add("django-secret-key")
def django_secret_key(imported: Imported) -> Found:
    settings = django_settings()
    if settings is None:
        return
    try:
        key = settings.SECRET_KEY
    except Exception:  # ImproperlyConfigured: it is empty
        yield error("SECRET_KEY is empty: sessions and much else fail", NEW_KEY)
        return
    text = key if isinstance(key, str) else bytes(key).decode("latin-1")
    if text.startswith("django-insecure-"):
        yield error(
            "SECRET_KEY is the one of startproject, which is in the repository: sessions can be forged",
            NEW_KEY,
        )
    elif len(text) < DJANGO_KEY_OCTETS or len(set(text)) < DJANGO_KEY_SIGNS:
        yield warning(
            f"SECRET_KEY has {len(text)} signs, {len(set(text))} of them different: it may be guessed",
            NEW_KEY,
        )


@CHECKS.add("django-proxy")
def django_proxy(imported: Imported) -> Found:
    """A scheme that clients can say themselves, and redirects without end."""
    settings, scene = django_settings(), imported.scene
    if settings is None:
        return
    header = settings.SECURE_PROXY_SSL_HEADER
    if header:
        name = header[0]
        is_ours = name in ("HTTP_X_REAL_IP", "HTTP_FORWARDED") or name.startswith("HTTP_X_FORWARDED_")
        if not is_ours and scene.public:
            yield error(
                f"SECURE_PROXY_SSL_HEADER is {name}, which the server leaves in requests of anybody",
                "take it out: the server takes X-Forwarded-Proto from --forwarded-allow-ips",
            )
        elif is_ours and scene.public and not scene.trusts_others:
            yield warning(
                f"SECURE_PROXY_SSL_HEADER is {name}, and no proxy on another machine is trusted: the field "
                "is removed",
                "--forwarded-allow-ips with the addresses of the proxies",
            )
    elif (
        settings.SECURE_SSL_REDIRECT
        and scene.public
        and not scene.settings.has_tls
        and not scene.trusts_others
    ):
        yield error(
            "SECURE_SSL_REDIRECT, no certificate and no trusted proxy: every request is redirected without "
            "end",
            "--forwarded-allow-ips with the addresses of the proxies, or --certfile FILE",
        )


@CHECKS.add("django-cookies")
def django_cookies(imported: Imported) -> Found:
    settings = django_settings()
    if settings is None or not (imported.settings.has_tls or imported.scene.trusts_others):
        return
    names = [name for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE") if not getattr(settings, name)]
    if names:
        yield hint(
            f"{' and '.join(names)} off: cookies are sent without TLS, too", f"{' = '.join(names)} = True"
        )


@CHECKS.add("django-cache")
def django_cache(imported: Imported) -> Found:
    settings = django_settings()
    if settings is None or imported.workers == 1:
        return
    local = [alias for alias, given in settings.CACHES.items() if "locmem" in str(given.get("BACKEND", ""))]
    engine = settings.SESSION_ENGINE
    if engine.endswith(".cache") and settings.SESSION_CACHE_ALIAS in local:
        yield error(
            f"sessions are in the memory of one of {imported.workers} workers: users are logged out by "
            "chance",
            "SESSION_ENGINE = 'django.contrib.sessions.backends.db', or a cache that all share",
        )
    # Django has it when nothing is given: then most often nobody uses it.
    elif local and settings.is_overridden("CACHES"):
        yield warning(
            f"the cache {local[0]!r} is in memory: each of {imported.workers} workers has one, and none "
            "knows what "
            "others delete",
            "a cache that all share: django.core.cache.backends.redis.RedisCache",
        )


@CHECKS.add("django-static")
def django_static(imported: Imported) -> Found:
    """What `collectstatic` should have made."""
    settings = django_settings()
    if settings is None or settings.DEBUG or "django.contrib.staticfiles" not in settings.INSTALLED_APPS:
        return
    if not settings.STATIC_ROOT:
        yield warning(
            "STATIC_ROOT is not set: there are no static files to serve",
            "STATIC_ROOT = BASE_DIR / 'static', and manage.py collectstatic",
        )
        return
    root = os.path.abspath(str(settings.STATIC_ROOT))
    problem = directory_problem(root, imported.scene.identity)
    if problem is not None:
        yield problem._replace(what=f"STATIC_ROOT: {problem.what}", fix="manage.py collectstatic --noinput")
        return
    backend = str(settings.STORAGES.get("staticfiles", {}).get("BACKEND", ""))
    if "Manifest" in backend and not os.path.exists(os.path.join(root, "staticfiles.json")):
        yield error(
            f"there is no staticfiles.json in {root}: pages with static files get 500",
            "manage.py collectstatic --noinput",
        )
    if not is_served(imported, root, str(settings.STATIC_URL or "")):
        yield warning(
            f"STATIC_URL is {settings.STATIC_URL}, and nothing here serves it",
            '"fastwsgi.contrib.django" in INSTALLED_APPS; or nothing, if the proxy does it',
        )


def is_served(imported: Imported, root: str, url: str) -> bool:
    """By a route, by what the application has announced, by WhiteNoise, or by another host."""
    if "//" in url or "whitenoise" in sys.modules:
        return True
    path = mounts.read_path("/" + url.strip("/"))
    routes = mounts.plan(imported.settings, bool(imported.scene.application)).routes
    return any(route.action == "static" and route.path in (path, "/") for route in routes)


# ---- Flask ----


def flasks(imported: Imported) -> list[Any]:
    kind = loaded("flask", "Flask")
    return [one for one in imported.wrapped if kind is not None and issubclass(type(one), kind)]


@CHECKS.add("flask-debug")
def flask_debug(imported: Imported) -> Found:
    for app in flasks(imported):
        if app.debug:
            yield error(
                f"debug of {app.name} is on: exceptions are passed on, and templates are read again each "
                "time",
                "app.debug = False, and no FLASK_DEBUG in the environment",
            )
        if app.testing:
            yield error(
                f"testing of {app.name} is on: handlers of errors are left out", "app.testing = False"
            )


@CHECKS.add("flask-secret-key")
def flask_secret_key(imported: Imported) -> Found:
    for app in flasks(imported):
        if not app.secret_key:
            yield hint(
                f"{app.name} has no SECRET_KEY: a view that uses the session or flash() fails", NEW_KEY
            )
        elif reason := is_weak(app.secret_key):
            yield error(f"SECRET_KEY of {app.name} {reason}: sessions can be forged", NEW_KEY)


@CHECKS.add("flask-shadowed")
def flask_shadowed(imported: Imported) -> Found:
    """Views beneath a path where the loop answers with files."""
    routes = mounts.plan(imported.settings, bool(imported.scene.application)).routes
    paths = {
        route.path
        for route in routes
        if route.action == "static" and route.path != "/" and route.values.get("fallback") != "app"
    }
    for app in flasks(imported):
        if app is not imported.applications[0]:
            continue
        for rule in app.url_map.iter_rules():
            begin = rule.rule.partition("<")[0]
            hidden = [path for path in paths if f"{begin}/".startswith(f"{path}/")]
            if hidden and not rule.endpoint.endswith("static"):
                yield warning(
                    f"the view {rule.endpoint} at {rule.rule} is never asked: {hidden[0]} has files",
                    "another path for one of them, or fallback=app",
                )


@CHECKS.add("flask-static")
def flask_static(imported: Imported) -> Found:
    """Files that Python sends, and the loop could."""
    for app in flasks(imported):
        folder, url = app.static_folder, app.static_url_path
        if app is not imported.applications[0] or not folder or not url or not os.path.isdir(folder):
            continue
        routes = mounts.plan(imported.settings, bool(imported.scene.application)).routes
        if any(os.scandir(folder)) and not any(
            route.action == "static" and route.path in (url.rstrip("/"), "/") for route in routes
        ):
            yield hint(
                f"files of {folder} are sent by threads of the application", f"--static {url}={folder}"
            )


@CHECKS.add("proxy-fix")
def proxy_fix(imported: Imported) -> Found:
    kind = loaded("werkzeug.middleware.proxy_fix", "ProxyFix")
    if kind is None or not imported.scene.public or imported.scene.trusts_others:
        return
    for one in imported.wrapped:
        if issubclass(type(one), kind):
            yield warning(
                "ProxyFix is there, and no proxy on another machine is trusted: the fields it reads "
                "are removed",
                "--forwarded-allow-ips with the addresses of the proxies; ProxyFix is not needed then",
            )
