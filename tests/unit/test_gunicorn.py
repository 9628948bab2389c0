"""What becomes of gunicorn's settings; held against the gunicorn that is installed."""

import sys

import pytest
from gunicorn.config import KNOWN_SETTINGS

from fastwsgi.arguments import COMMANDS, FLAGS, parse
from fastwsgi.config import OPTIONS, Settings
from fastwsgi.errors import ConfigError
from fastwsgi.gunicorn import FLAGS as FOREIGN_FLAGS
from fastwsgi.gunicorn import FOREIGN, OURS, Config, execute, translate
from fastwsgi.hooks import ARITY
from fastwsgi.sources import gather

# A release of gunicorn with a new setting fails here until that has a row in gunicorn.py.
THEIRS = {setting.name: setting for setting in KNOWN_SETTINGS}


def test_every_setting_of_gunicorn_has_its_place():
    elsewhere = ("wsgi_app", "config", "check_config", "print_config")
    for name in THEIRS:
        places = (name in OURS, name in FOREIGN, name in ARITY, name in elsewhere)
        assert sum(places) == 1, name
    assert set(OURS.values()) <= set(OPTIONS)


def test_every_flag_of_gunicorn_is_a_flag():
    for name, setting in THEIRS.items():
        for flag in setting.cli or ():
            if name in OURS:
                assert FLAGS[flag].name == OURS[name], flag
                takes_nothing = setting.action == "store_true"
                assert FLAGS[flag].kind.is_switch == takes_nothing, flag
            elif name == "config":
                assert FLAGS[flag].name == "config"
            elif name in FOREIGN:
                known = FOREIGN_FLAGS[flag]
                assert known.name == name
                assert known.takes_value == (setting.action in (None, "append")), flag
            else:
                assert flag in COMMANDS


def test_defaults_of_gunicorn_leave_nothing_to_say(monkeypatch):
    """Such as from a file that lists every setting."""
    for name in ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
        monkeypatch.delenv(name, raising=False)
    ignored = ("syslog_addr", "default_proc_name", "ssl_version")
    given = {
        name: setting.default
        for name, setting in THEIRS.items()
        if name in FOREIGN and not name.startswith(("dirty", "http2", "on_dirty", "websocket"))
    }
    remarks = translate(given, "conf.py").remarks
    named = {remark.split(" ")[0] for remark in remarks}
    assert named <= {*ignored, "asgi_disconnect_grace_period", "uwsgi_allow_ips", "worker_class"}


def test_without_its_control_socket_there_is_none_of_ours():
    translation = translate({"control_socket_disable": True, "control_socket_mode": 0o600}, "conf.py")
    assert translation.settings["control_socket"].value == "none"
    assert translation.remarks == []


SAME = """
import multiprocessing
import ssl
bind = "0.0.0.0:8000, unix://run/shop.sock,tcp://127.0.0.1:81,localhost"
workers = multiprocessing.cpu_count() * 0 + 3
threads = "2"
worker_class = "gthread"
timeout = 60
graceful_timeout = 20
keepalive = 5
max_requests = 1000
max_requests_jitter = 50
limit_request_line = 8000
limit_request_fields = 50
limit_request_field_size = 4000
raw_env = ["A=1", "B=2"]
proc_name = "shop"
pidfile = "/run/shop.pid"
user = 33
group = "www-data"
umask = 0o27
accesslog = "-"
errorlog = "errors"
loglevel = "WARNING"
access_log_format = "%(h)s"
forwarded_allow_ips = "10.0.0.0/8"
proxy_protocol = True
proxy_allow_ips = ["10.0.0.1"]
preload_app = True
daemon = True
reuse_port = True
pythonpath = "lib"
chdir = None
header_map = "refuse"
reload = False
certfile = "shop.pem"
keyfile = "shop.key"
ca_certs = "ca.pem"
cert_reqs = ssl.CERT_REQUIRED
ciphers = "ECDHE+AESGCM"
ssl_version = 2
do_handshake_on_connect = False
suppress_ragged_eofs = True
"""


def test_settings_that_are_ours(tmp_path):
    (tmp_path / "conf.py").write_text(SAME)
    translation = translate(execute("conf.py", str(tmp_path), str(tmp_path)), "conf.py")
    assert translation.remarks == []
    settings = Settings(**{name: value for name, (value, _) in translation.settings.items()})
    assert settings == Settings(
        bind=("0.0.0.0:8000", "unix:run/shop.sock", "127.0.0.1:81", "localhost:8000"),
        workers=3,
        threads=2,
        timeout=60,
        graceful_timeout=20,
        keep_alive=5,
        max_requests=1000,
        max_requests_jitter=50,
        limit_request_line=8000,
        limit_request_fields=50,
        limit_request_field_size=4000,
        env=("A=1", "B=2"),
        name="shop",
        pid="/run/shop.pid",
        user="33",
        group="www-data",
        umask=0o27,
        access_logfile="-",
        error_logfile="errors",
        log_level="warning",
        access_logformat="%(h)s",
        forwarded_allow_ips="10.0.0.0/8",
        proxy_protocol="auto",
        proxy_allow_from="10.0.0.1",
        preload="on",
        daemon=True,
        reuse_port=True,
        pythonpath="lib",
        header_map="refuse",
        certfile="shop.pem",
        keyfile="shop.key",
        ca_certs="ca.pem",
        cert_reqs="required",
        ciphers="ECDHE+AESGCM",
    )
    assert translation.settings["workers"].origin == "conf.py: workers"


@pytest.mark.parametrize(
    ("given", "remark"),
    [
        ({"ssl_version": "TLSv1_2"}, "ssl_version = 'TLSv1_2' (see --tls-protocol-min)"),
        ({"tmp_upload_dir": "/spool"}, "tmp_upload_dir = '/spool' (set TMPDIR in the environment)"),
        (
            {"worker_class": "tornado"},
            "worker_class = 'tornado' (workers have threads: see --threads and --gevent)",
        ),
        ({"sendfile": False}, "sendfile (files are always sent by sendfile)"),
        ({"limit_request_line": 0}, "limit_request_line = 0 (1m is the most)"),
        ({"print_config": True}, "print_config (give --print-config)"),
        ({"worker": 3}, "worker (no such setting; did you mean workers?)"),
        ({"keep_alive": 3}, "keep_alive (no such setting; did you mean keepalive?)"),
        ({"pre_forks": print}, "pre_forks (no such setting; did you mean pre_fork?)"),
        (
            {"max_worker_memory": "1g"},
            "max_worker_memory (an option of fastwsgi: it belongs in fastwsgi.toml)",
        ),
        (
            {"secure_scheme_headers": {"X-FORWARDED-PROTO": "https", "X-SCHEME": "https"}},
            "secure_scheme_headers = ['X-SCHEME'] (X-Forwarded-Proto and X-Forwarded-Ssl are read)",
        ),
    ],
)
def test_what_is_not_honoured_is_told(given, remark):
    assert translate(given, "conf.py").remarks == [remark]


def test_helpers_in_a_file_are_no_settings():
    given = {
        "os": sys,
        "cores": 4,
        "graceful_timeout_str": "30",
        "graceful_timeout": 30,
        "Path": type,
        "count_workers": lambda: 3,
        "_private": 1,
        "name": "x",
    }
    assert translate(given, "conf.py").remarks == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": "many"}, "conf.py: workers: 'many' is not auto or a whole number from 0 to 1024"),
        ({"bind": 8000}, "conf.py: bind: 8000 is not a list with at least one address"),
        ({"raw_env": ["A"]}, "conf.py: raw_env: ['A'] is not NAME=VALUE"),
        ({"cert_reqs": 3}, "conf.py: cert_reqs: 3 is not one of none, optional, required"),
        ({"protocol": "uwsgi"}, "conf.py: protocol: fastwsgi serves HTTP alone"),
        ({"secure_scheme_headers": {}}, "conf.py: secure_scheme_headers: without X-FORWARDED-PROTO"),
        (
            {"secure_scheme_headers": {"X-SSL": "1"}},
            "conf.py: secure_scheme_headers: without X-FORWARDED-PROTO",
        ),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(ConfigError) as caught:
        translate(given, "conf.py")
    assert str(caught.value).startswith(message)


# The same flags.


def test_flags_that_both_have():
    words = (
        "-w 4 --threads 2 -b 0.0.0.0:8000 -t 30 --graceful-timeout 30 --max-requests 1000 -D --preload "
        "--max-requests-jitter 100 --limit-request-field_size 4000 -n shop -p x.pid --proxy-protocol "
        "--log-file - shop:app"
    )
    arguments = parse(words.split())
    assert arguments.application == "shop:app"
    assert arguments.settings["proxy_protocol"] == "auto"
    assert arguments.settings["workers"] == 4
    assert arguments.foreign == {}
    assert parse(["--proxy-protocol", "v1", "app"]).settings == {"proxy_protocol": "v1"}
    assert parse(["--proxy-protocol=off", "app"]).settings == {"proxy_protocol": "off"}
    assert parse(["--proxy-protocol", "app"]).settings == {"proxy_protocol": "auto"}


def test_reloading():
    given = {"reload": True, "reload_engine": "inotify", "reload_extra_files": ["shop.yaml"]}
    translation = translate(given, "conf.py")
    assert translation.remarks == []
    settings = Settings(**{name: value for name, (value, _) in translation.settings.items()})
    assert settings == Settings(reload=True, reload_engine="auto", reload_extra_file=("shop.yaml",))
    words = "--reload --reload-engine poll --reload-extra-file a --reload-extra-file b app"
    assert parse(words.split()).settings == {
        "reload": True,
        "reload_engine": "poll",
        "reload_extra_file": ("a", "b"),
    }


def test_flags_of_gunicorn_alone(tmp_path):
    words = "-k tornado --spew --worker-tmp-dir /dev/shm --no-sendfile -R --logger-class=x.Y app"
    arguments = parse(words.split())
    assert arguments.application == "app"
    assert arguments.foreign == {
        "worker_class": "tornado",
        "spew": True,
        "worker_tmp_dir": "/dev/shm",
        "sendfile": False,
        "enable_stdio_inheritance": True,
        "logger_class": "x.Y",
    }
    [notice] = gather(words.split(), {}, str(tmp_path)).notices
    assert notice == (
        "the command line has what fastwsgi cannot honour: "
        "-k = 'tornado' (workers have threads: see --threads and --gevent); "
        "--spew (a debugger does that); "
        "--worker-tmp-dir = '/dev/shm' (signs of life are in shared memory); "
        "--no-sendfile (files are always sent by sendfile); "
        "-R (output of a daemon is left out); "
        "--logger-class = 'x.Y' (it has its own)"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--spew=yes app", "--spew takes no value"),
        ("app -k", "-k needs a value: -k VALUE"),
        ("app -k --spew", "-k needs a value: -k VALUE"),
    ],
)
def test_wrong_flags_of_gunicorn(words, message):
    with pytest.raises(ConfigError) as caught:
        parse(words.split())
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("argv", "conf", "threads", "origin"),
    [
        ([], "worker_class = 'sync'", 1, "conf.py: worker_class"),
        ([], "worker_class = 'gunicorn.workers.sync.SyncWorker'", 1, "conf.py: worker_class"),
        ([], "worker_class = 'sync'\nthreads = 3", 3, "conf.py: threads"),
        ([], "", 4, "default"),
        (["-k", "sync"], "threads = 3", 3, "conf.py: threads"),
        (["-k", "sync"], "", 1, "-k"),
        (["--threads", "2"], "worker_class = 'sync'", 2, "--threads"),
    ],
)
def test_sync_workers_have_one_thread_if_nobody_says_more(tmp_path, argv, conf, threads, origin):
    (tmp_path / "conf.py").write_text(conf)
    found = gather([*argv, "-c", "conf.py", "app"], {}, str(tmp_path))
    assert (found.settings.threads, found.origins["threads"]) == (threads, origin)
    said = [notice for notice in found.notices if "workers have threads" in notice]
    assert len(said) == (origin != "default")


# The file.


@pytest.fixture
def modules():
    """Forgets the modules, and the path, of a test."""
    former, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - former:
        del sys.modules[name]


@pytest.mark.parametrize("location", ["conf.py", "file:conf.py", "python:conf", "{}/conf.py"])
def test_ways_to_name_a_file(tmp_path, modules, location):
    (tmp_path / "helper_of_conf.py").write_text("WORKERS = 7\n")
    file = tmp_path / "conf.py"
    file.write_text("import helper_of_conf\nworkers = helper_of_conf.WORKERS\n")
    argv = ["-c", location.format(tmp_path), "app"]
    assert gather(argv, {}, str(tmp_path)).settings.workers == 7
    file.write_text(
        "from dataclasses import dataclass\n@dataclass\nclass A: x: 'int' = 22\nworkers = A().x\n"
    )
    assert gather(argv, {}, str(tmp_path)).settings.workers == 22


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n1/0\n", "conf.py, line 2: ZeroDivisionError: division by zero"),
        ("def f():\n    return 1/0\n\nf()\n", "conf.py, line 2: ZeroDivisionError: division by zero"),
        ("x = (\n", "conf.py, line 1: SyntaxError: '(' was never closed (conf.py, line 1)"),
        ("import no_such_module\n", "conf.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("\nraise SystemExit\n", "conf.py, line 2: SystemExit"),
        ("open('/no/such')\n", "conf.py, line 1: FileNotFoundError: "),
        ("x = 'a\0b'\n", "conf.py"),
    ],
)
def test_files_that_fail(tmp_path, modules, source, message):
    (tmp_path / "conf.py").write_text(source)
    with pytest.raises(ConfigError) as caught:
        gather(["-c", "conf.py", "app"], {}, str(tmp_path))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there(tmp_path, modules):
    with pytest.raises(ConfigError) as caught:
        gather(["-c", "python:no_such_module", "app"], {}, str(tmp_path))
    assert str(caught.value) == "python:no_such_module: ModuleNotFoundError: No module named 'no_such_module'"


def test_the_settings_as_hooks_see_them():
    config = Config(
        Settings(threads=2, preload="on", env=["A=b=c"], keep_alive=5), {"worker_tmp_dir": "x", "other": 1}, 3
    )
    assert (config.workers, config.threads, config.preload_app, config.keepalive) == (3, 2, True, 5)
    assert (config.env, config.worker_tmp_dir, config.reload) == ({"A": "b=c"}, "x", False)
    assert (config.bind, config.proc_name, config.worker_class_str) == (("127.0.0.1:8000",), None, "gthread")
    with pytest.raises(AttributeError, match="gunicorn has no setting 'other'"):
        _ = config.other


@pytest.mark.parametrize("words", ["-k gevent", "--worker-class gunicorn.workers.ggevent.GeventWorker"])
def test_greenlets(tmp_path, words):
    found = gather([*words.split(), "--worker-connections", "50", "app"], {}, str(tmp_path))
    assert found.settings.gevent
    assert found.settings.concurrency == 50
    assert not found.notices


def test_threads_beside_greenlets_are_ignored_with_one_line(tmp_path):
    found = gather(["-k", "gevent", "--threads", "8", "app"], {}, str(tmp_path))
    assert found.settings.concurrency == 1000
    [notice] = found.notices
    assert notice.startswith("threads is ignored")
