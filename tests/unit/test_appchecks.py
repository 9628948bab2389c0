"""What the doctor says of applications; and those that do not come back from their import."""

import os
import sqlite3
import textwrap
import types

import flask
import pytest
from werkzeug.debug import DebuggedApplication
from werkzeug.middleware.proxy_fix import ProxyFix

from fastwsgi import appchecks, trial, worker
from fastwsgi.appchecks import Database, Imported
from fastwsgi.config import Settings
from fastwsgi.scene import Scene
from support import PATIENCE, wait_until

# What each process that imports an application loads is loaded here once.
assert worker.Worker


def look(id, *applications, ghosts=(), **settings):
    """What a check says, as pairs of severity and text with its fix."""
    scene = Scene(Settings(**settings), "app:app")
    [check] = [check for check in appchecks.CHECKS if check.id == id]
    found = check.findings(Imported(scene, applications or (None,), list(ghosts)))
    assert {finding.id for finding in found} <= {id}, found
    return [(finding.severity, f"{finding.what} -> {finding.fix}") for finding in found]


def severities(found):
    return [severity for severity, _ in found]


# ---- any application ----


def test_what_the_import_leaves():
    ghosts = ["thread 'ticker', started at app.py:3", "connection to 10.0.0.1:5432, made at app.py:4"]
    assert severities(look("threads-at-import", ghosts=ghosts, preload=True)) == ["warning"] * 2
    assert severities(look("threads-at-import", ghosts=ghosts, preload="strict")) == ["error"] * 2
    [(severity, text)] = look("threads-at-import", ghosts=ghosts, workers=3)
    assert severity == "hint" and "in each of 3 workers: thread 'ticker', started at app.py:3" in text
    assert look("threads-at-import", ghosts=ghosts, workers=1) == []


def test_threads_that_are_none(monkeypatch):
    assert look("monkey-patched") == []
    patched = types.SimpleNamespace(is_module_patched=lambda name: name == "socket")
    monkeypatch.setitem(appchecks.sys.modules, "gevent.monkey", patched)
    assert severities(look("monkey-patched")) == ["error"]


def test_debuggers(monkeypatch):
    # Of tools that measure these tests.
    monkeypatch.setattr(appchecks.sys, "gettrace", lambda: None)
    app = flask.Flask("shop")
    assert look("debugger", app) == []
    assert severities(look("debugger", DebuggedApplication(app))) == ["error"]
    app.wsgi_app = DebuggedApplication(app.wsgi_app)
    assert severities(look("debugger", app)) == ["error"]
    monkeypatch.setitem(appchecks.sys.modules, "debugpy", types.ModuleType("debugpy"))
    assert severities(look("debugger")) == ["warning"]


def test_counters_in_one_process(monkeypatch):
    monkeypatch.setitem(appchecks.sys.modules, "prometheus_client", types.ModuleType("prometheus_client"))
    monkeypatch.setitem(appchecks.sys.modules, "numpy", types.ModuleType("numpy"))
    for name in ("PROMETHEUS_MULTIPROC_DIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert severities(look("prometheus-one-process", workers=2)) == ["warning"]
    assert severities(look("blas-threads", workers=2)) == ["hint"]
    assert look("prometheus-one-process", workers=1) == look("blas-threads", workers=1) == []
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/tmp")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert look("prometheus-one-process", workers=2) == look("blas-threads", workers=2) == []


def test_connections_of_one_thread(tmp_path):
    strict = sqlite3.connect(tmp_path / "a.db")
    shared = sqlite3.connect(tmp_path / "b.db", check_same_thread=False)
    try:
        assert appchecks.refuses_threads(strict, sqlite3.ProgrammingError)
        assert not appchecks.refuses_threads(shared, sqlite3.ProgrammingError)
        assert "error" in severities(look("sqlite-thread"))
    finally:
        strict.close()
        shared.close()
    assert not appchecks.refuses_threads(strict, sqlite3.ProgrammingError)


# ---- databases ----


def database(vendor="postgresql", connections=4, pool=None, answers=None):
    def ask(query):
        if answers is None:
            raise OSError("password authentication failed for user shop, password hunter2")
        return next(value for words, value in answers.items() if words in query)

    return Database("Django's 'default'", vendor, connections, pool, ask)


@pytest.fixture
def with_database(monkeypatch):
    def with_database(one, id="database-connections", asks=False, **settings):
        monkeypatch.setattr(appchecks, "databases", lambda imported: iter([one]))
        scene = Scene(Settings(**settings), asks_database=asks)
        [check] = [check for check in appchecks.CHECKS if check.id == id]
        found = check.findings(Imported(scene, (None,)))
        return [(finding.severity, f"{finding.what} -> {finding.fix}") for finding in found]

    return with_database


def test_connections_of_all_workers(with_database):
    assert with_database(database(), workers=24) == []
    [(severity, text)] = with_database(database(), workers=25)
    assert severity == "warning" and "25 workers with 4 connections each are 100" in text
    assert with_database(database("mysql"), workers=100) == []


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [(100, 1, []), (83, 1, []), (82, 1, ["error"]), (90, 20, ["warning"])],
)
def test_what_postgresql_says(with_database, limit, used, expected):
    answers = {"SHOW max": str(limit), "reserved": 3, "pg_stat": used}
    assert severities(with_database(database(answers=answers), asks=True, workers=20)) == expected


def test_what_mysql_says(with_database):
    answers = {"max_connections": "151", "Threads_connected": "100"}
    found = with_database(database("mysql", answers=answers), asks=True, workers=20)
    assert severities(found) == ["warning"] and "99 are open right now" in found[0][1]


def test_a_database_that_does_not_answer(with_database):
    [(severity, text)] = with_database(database(), asks=True, workers=1)
    assert severity == "error" and "does not answer: OSError" in text and "hunter2" not in text


def test_pools_and_writers(with_database):
    assert severities(with_database(database(pool=4), "database-pool", threads=8)) == ["warning"]
    assert with_database(database(pool=8), "database-pool", threads=8) == []
    assert severities(with_database(database("sqlite"), "sqlite-writers", workers=2)) == ["warning"]
    assert with_database(database("sqlite"), "sqlite-writers", workers=1, threads=1) == []


@pytest.mark.parametrize(
    ("given", "connections"),
    [(None, None), (False, None), (True, 4), ({"min_size": 2}, 2), ({"min_size": 2, "max_size": 9}, 9)],
)
def test_pools_of_django(given, connections):
    assert appchecks.django_pool(given) == connections


@pytest.mark.parametrize(
    ("name", "vendor"),
    [
        ("django.db.backends.postgresql", "postgresql"),
        ("django.contrib.gis.db.backends.postgis", "postgresql"),
        ("postgresql", "postgresql"),
        ("django.db.backends.mysql", "mysql"),
        ("mariadb", "mysql"),
        ("django.db.backends.sqlite3", "sqlite"),
        ("django.contrib.gis.db.backends.spatialite", "sqlite"),
        ("django.db.backends.dummy", "dummy"),
    ],
)
def test_vendors(name, vendor):
    assert appchecks.vendor_of(name) == vendor


def test_engines_of_sqlalchemy():
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from sqlalchemy.pool import NullPool

    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://shop:hunter2@db.example/shop"
    engines = [
        sqlalchemy.create_engine(url, pool_size=2, max_overflow=1),
        sqlalchemy.create_engine(url, max_overflow=-1, pool_pre_ping=True),
        sqlalchemy.create_engine(url, poolclass=NullPool),
    ]
    imported = Imported(Scene(Settings(threads=8)), (None,))
    found = list(appchecks.sqlalchemy_databases(imported))
    assert {(one.connections, one.pool) for one in found} >= {(3, 3), (8, None)}
    assert {one.vendor for one in found} == {"postgresql"}
    assert "hunter2" not in str([one.title for one in found])
    assert severities(look("stale-connections")) == ["hint"]
    del engines


# ---- Flask ----


def test_flask_as_it_is_developed():
    app = flask.Flask("shop")
    assert look("flask-debug", app) == []
    app.debug = app.testing = True
    assert severities(look("flask-debug", app)) == ["error", "error"]


@pytest.mark.parametrize(
    ("key", "expected"), [(None, ["hint"]), ("dev", ["error"]), ("short", ["error"]), (b"x" * 32, [])]
)
def test_keys_of_flask(key, expected):
    app = flask.Flask("shop")
    app.secret_key = key
    found = look("flask-secret-key", app)
    assert severities(found) == expected
    assert all("short" not in text for _, text in found)


def test_files_of_flask(tmp_path):
    (tmp_path / "static").mkdir()
    app = flask.Flask("shop", root_path=str(tmp_path))
    assert look("flask-static", app) == []
    (tmp_path / "static/app.js").touch()
    [(severity, text)] = look("flask-static", app)
    assert severity == "hint" and text.endswith(f"--static /static={tmp_path}/static")
    assert look("flask-static", app, static=[f"/static={tmp_path}/static"]) == []


def test_views_behind_files(tmp_path):
    app = flask.Flask("shop", static_folder=None)
    app.add_url_rule("/static/version", "version", lambda: "1")
    app.add_url_rule("/statics", "statics", lambda: "1")
    [(severity, text)] = look("flask-shadowed", app, static=[f"/static={tmp_path}"])
    assert severity == "warning" and "the view version at /static/version is never asked" in text
    assert look("flask-shadowed", app, route=[f"/static static={tmp_path} fallback=app"]) == []


def test_proxy_fix():
    app = flask.Flask("shop")
    app.wsgi_app = ProxyFix(app.wsgi_app)
    assert severities(look("proxy-fix", app, bind=[":8000"])) == ["warning"]
    assert look("proxy-fix", app, bind=[":8000"], forwarded_allow_ips="10.0.0.1") == []
    assert look("proxy-fix", app) == []


# ---- imports ----


@pytest.fixture
def examine(tmp_path):
    """examine(source): what becomes of the import of a module `subject` with this source."""

    def examine(source, application="subject:app", patience=PATIENCE, **settings):
        (tmp_path / "subject.py").write_text(textwrap.dedent(source))
        scene = Scene(Settings(chdir=str(tmp_path), **settings), application)
        return trial.examine(scene, patience)

    return examine


def only(report):
    [finding] = report.findings
    assert report.each is None
    return finding


APP = "def app(environ, start_response): pass\n"


def test_an_import_that_is_all_right(examine):
    report = examine(APP + "print('secret')")
    assert report.checks == 1 + len(appchecks.CHECKS)
    assert report.each > 1 << 20


def test_an_import_that_fails(examine, tmp_path):
    finding = only(examine("import no_such_module"))
    assert finding.id == "import-fails"
    assert finding.what == (
        "importing subject raised ModuleNotFoundError: No module named 'no_such_module', "
        f"at {tmp_path}/subject.py:1"
    )
    assert finding.fix == "fastwsgi --check-config subject:app shows the whole traceback"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import os\nos.environ['NO_SUCH_VARIABLE']", "raised KeyError: NO_SUCH_VARIABLE, at "),
        ("open('/no/such/file')", "No such file or directory: /no/such/file"),
        ("app = 1", "is not callable"),
        ("other = 1", "has no 'app'"),
        ("raise SystemExit(1)", "raised SystemExit, at "),
        ("def app(:", "raised SyntaxError: invalid syntax"),
        ("raise ValueError('postgres://shop:hunter2@db')", "raised ValueError, at "),
        ("{}['hunter2 is the password']", "raised KeyError, at "),
    ],
)
def test_what_is_told_of_an_exception(examine, source, words):
    finding = only(examine(source))
    assert finding.id == "import-fails"
    assert words in finding.what
    assert "hunter2" not in str(finding)


def test_arguments_of_a_factory_are_not_told(examine):
    source = "def make(key): raise ValueError(key)"
    finding = only(examine(source, "subject:make('hunter2')"))
    assert finding.what.startswith("calling subject:make(...) raised ValueError")
    assert "hunter2" not in str(finding)


def test_an_import_that_hangs(examine, tmp_path):
    source = """
    import subprocess, threading, time
    process = subprocess.Popen(["sleep", "1000"])
    open("pid", "w").write(str(process.pid))
    def wait():
        time.sleep(1000)
    threading.Thread(target=time.sleep, args=(1000,)).start()
    wait()
    """
    finding = only(examine(source, patience=0.5))
    assert finding.id == "import-hangs"
    assert finding.what == f"importing subject:app takes longer than 0.5 s, at {tmp_path}/subject.py:6"
    pid = int((tmp_path / "pid").read_text())

    def is_gone():
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True

    if os.path.exists("/proc/self/stat"):
        wait_until(is_gone, "the end of what the import has started")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import os\nos._exit(7)", "ends the process with code 7"),
        ("import os\nos._exit(0)", "ends the process with code 0"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "by SIGKILL: was memory out?"),
        pytest.param(
            "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
            "by SIGSEGV, at {file}:2: a fault of C code",
            marks=pytest.mark.skipif(
                "libasan" in os.environ.get("LD_PRELOAD", ""),
                reason="AddressSanitizer takes that signal, and ends the process in its own way",
            ),
        ),
    ],
)
def test_an_import_that_ends(examine, source, words, tmp_path):
    finding = only(examine(source))
    assert finding.id == "import-ends"
    assert words.format(file=tmp_path / "subject.py") in finding.what


def test_a_slow_import(examine, monkeypatch):
    monkeypatch.setattr(trial, "SLOW_IMPORT", 0.0)
    assert "import-slow" in {finding.id for finding in examine(APP).findings}


def test_settings_of_the_import(examine):
    assert only(examine(APP, log_config="/no/such/file")).id == "configuration"
    source = "import os\nassert os.environ['COLOUR'] == 'blue'\n" + APP
    assert examine(source, env=["COLOUR=blue"]).each
    # In the process of the test nothing of it is left.
    assert "COLOUR" not in os.environ


def test_places_in_stacks():
    stacks = (
        "Thread 0x01 (most recent call first):\n"
        '  File "/srv/other.py", line 1 in run\n\n'
        "Current thread 0x02 (most recent call first):\n"
        f'  File "{os.__file__}", line 2 in sleep\n'
        '  File "/srv/shop/app.py", line 3 in wait\n'
        '  File "/srv/shop/app.py", line 9 in <module>\n'
    )
    assert trial.place_in(stacks) == "/srv/shop/app.py:3"
    assert trial.place_in("") == ""
