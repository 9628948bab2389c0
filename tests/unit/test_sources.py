"""Where settings come from: which source wins, what is wrong in each, and what is printed and checked."""

import os
import sys
import tomllib

import pytest

from fastwsgi.commands import print_config
from fastwsgi.config import OPTIONS, Settings
from fastwsgi.errors import ConfigError
from fastwsgi.sources import gather


@pytest.fixture
def look(tmp_path):
    """gather in tmp_path, for an application that is named unless the arguments say otherwise."""

    def look(*argv, named=True, cwd=tmp_path, **environ):
        return gather([*argv, *(["app:app"] if named else [])], environ, str(cwd))

    return look


@pytest.fixture
def refused(look):
    """The message of the ConfigError."""

    def refused(*argv, **environ):
        with pytest.raises(ConfigError) as caught:
            look(*argv, **environ)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refused


def test_nothing_given(look):
    found = look()
    assert found.settings == Settings()
    assert found.application == "app:app"
    assert found.origins == {"app": "the command line", **dict.fromkeys(OPTIONS, "default")}
    assert (found.notices, found.found, found.wants) == ((), None, None)


# From the weakest to the strongest: each is put over the ones before.
SOURCES = [
    ("fastwsgi.toml", "fastwsgi.toml"),
    ("WEB_CONCURRENCY", "WEB_CONCURRENCY"),
    ("gunicorn.conf.py", "gunicorn.conf.py: workers"),
    ("GUNICORN_CMD_ARGS", "GUNICORN_CMD_ARGS: -w"),
    ("FASTWSGI_WORKERS", "FASTWSGI_WORKERS"),
    ("FASTWSGI_CMD_ARGS", "FASTWSGI_CMD_ARGS: --workers"),
    ("-w", "-w"),
]


@pytest.mark.parametrize("last", range(len(SOURCES)), ids=[name for name, _ in SOURCES])
def test_which_source_wins(look, tmp_path, last):
    argv, environ = [], {}
    for number, (name, _) in enumerate(SOURCES[: last + 1]):
        workers = number + 2
        if name == "fastwsgi.toml":
            (tmp_path / name).write_text(f"workers = {workers}\nthreads = 9\n")
        elif name == "gunicorn.conf.py":
            (tmp_path / name).write_text(f"workers = {workers}\n")
            argv += ["-c", name]
        elif name == "-w":
            argv += ["-w", str(workers)]
        elif name == "GUNICORN_CMD_ARGS":
            environ[name] = f"-w {workers}"
        elif name == "FASTWSGI_CMD_ARGS":
            environ[name] = f"--workers={workers}"
        else:
            environ[name] = str(workers)
    found = look(*argv, **environ)
    assert (found.settings.workers, found.origins["workers"]) == (last + 2, SOURCES[last][1])
    assert (found.settings.threads, found.origins["threads"]) == (9, "fastwsgi.toml")


# The file.


def test_a_file(look, tmp_path):
    (tmp_path / "fastwsgi.toml").write_text(
        'app = "shop:app"\n'
        "threads = 8\n"
        'keep-alive = "2m"\n'
        "graceful_timeout = 2.5\n"
        'bind = ["127.0.0.1:0", "unix:/run/shop.sock"]\n'
        'log-file = "errors"\n'
        "preload = true\n"
        "umask = 0o27\n"
        'forwarded_allow_ips = ["10.0.0.0/8"]\n'
        '[env]\nSHOP = "open"\n'
    )
    found = look(named=False)
    settings = found.settings
    assert found.application == "shop:app"
    assert (settings.threads, settings.keep_alive, settings.graceful_timeout) == (8, 120.0, 2.5)
    assert settings.bind == ("127.0.0.1:0", "unix:/run/shop.sock")
    assert (settings.error_logfile, settings.preload, settings.umask) == ("errors", "on", 0o27)
    assert (settings.forwarded_allow_ips, settings.env) == (("10.0.0.0/8",), ("SHOP=open",))
    assert look().application == "app:app"


def test_a_django_project(look, tmp_path):
    pytest.importorskip("django")
    (tmp_path / "fastwsgi.toml").write_text("threads = 1\nkeep-alive = 1\nlog-slow = 1\n")
    (tmp_path / "shop.py").write_text(
        "from pathlib import Path\n"
        "print('whatever it prints')\n"
        "FASTWSGI = {'threads': 2, 'bind': ':1', 'workers': 3, 'keep_alive': '2s', 'pid': Path('pid')}\n"
    )
    found = look(
        *("--config", "django:shop", "--workers", "5"),
        named=False,
        PORT="81",
        FASTWSGI_KEEP_ALIVE="3",
        PYTHONPATH=os.pathsep.join(sys.path),
    )
    settings = found.settings
    assert (settings.workers, settings.keep_alive, settings.bind) == (5, 3.0, (":81",))
    assert (settings.threads, settings.pid, settings.log_slow) == (2, "pid", 1.0)
    assert settings.env == ("DJANGO_SETTINGS_MODULE=shop",)
    assert found.application == "django.core.wsgi:get_wsgi_application()"
    assert found.origins["threads"] == "shop: FASTWSGI"


def test_the_table_of_pyproject(look, tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text("[tool.other]\nthreads = 1\n")
    assert look().settings.threads == 4
    project.write_text("[tool.fastwsgi]\nthreads = 6\n")
    found = look()
    assert (found.settings.threads, found.origins["threads"], found.notices) == (6, "pyproject.toml", ())
    (tmp_path / "fastwsgi.toml").write_text("backlog = 10\n")
    found = look()
    assert (found.settings.threads, found.settings.backlog) == (4, 10)
    [notice] = found.notices
    assert notice == "[tool.fastwsgi] of pyproject.toml is not read, since there is fastwsgi.toml"
    assert look("-c", "pyproject.toml").settings.threads == 6


def test_a_file_elsewhere(look, tmp_path):
    (tmp_path / "fastwsgi.toml").write_text("threads = 1\n")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "fastwsgi.toml").write_text("threads = 2\n")
    (tmp_path / "other.toml").write_text("threads = 3\nbacklog = 30\n")
    assert look().settings.threads == 1
    assert look("--chdir", "there").settings.threads == 2
    assert look("-c", "other.toml", "--chdir", "there").settings.threads == 3
    assert look(FASTWSGI_CONFIG=str(tmp_path / "other.toml")).settings.threads == 3
    # A reload from another directory finds the same.
    former = os.getcwd()
    os.chdir(tmp_path / "there")
    try:
        again = look("-c", "other.toml", "--chdir", "there")
    finally:
        os.chdir(former)
    assert (again.settings.threads, again.settings.chdir) == (3, str(tmp_path / "there"))


def test_a_reload_reads_again(look, tmp_path):
    file = tmp_path / "fastwsgi.toml"
    file.write_text("threads = 1\n")
    assert look().settings.threads == 1
    file.write_text("threads = 2\n")
    assert look().settings.threads == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("thread = 3", "fastwsgi.toml: unknown setting thread; did you mean threads?"),
        ("keep-alve = 3", "fastwsgi.toml: unknown setting keep-alve; did you mean keep-alive?"),
        ("[server]\nthreads = 3", "fastwsgi.toml: unknown setting server"),
        ("threads = 0", "fastwsgi.toml: threads: 0 is not a whole number from 1 to 1024"),
        ("threads = true", "fastwsgi.toml: threads: True is not a whole number from 1 to 1024"),
        ("keep-alive = 'long'", "fastwsgi.toml: keep-alive: 'long' is not a time such as"),
        ("keep-alive = 1\nkeep_alive = 2", "fastwsgi.toml: keep_alive is there twice, under two names"),
        ("log-file = 'a'\nerror-logfile = 'b'", "fastwsgi.toml: error-logfile is there twice"),
        ("config = 'x'", "fastwsgi.toml: config is for the command line, or FASTWSGI_CONFIG"),
        ("app = 3", "fastwsgi.toml: app: 3 is not an application such as shop:app"),
        ("threads 3", "fastwsgi.toml: Expected '=' after a key in a key/value pair (at line 1, column 9)"),
        ("app = '\udcff'", "fastwsgi.toml: 'utf-8' codec can't decode byte 0xff"),
        ("health = '/x'\nready = '/x'", "health and ready are both /x"),
    ],
)
def test_a_wrong_file(refused, tmp_path, content, message):
    (tmp_path / "fastwsgi.toml").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert refused().startswith(message)


def test_files_that_cannot_be_read(refused, tmp_path):
    assert refused("-c", "no.toml") == "cannot read no.toml: No such file or directory"
    assert refused("-c", "no.conf.py") == "cannot read no.conf.py: No such file or directory"
    (tmp_path / "directory.toml").mkdir()
    assert refused("-c", "directory.toml") == "cannot read directory.toml: Is a directory"
    (tmp_path / "pyproject.toml").write_text("")
    assert refused("-c", "pyproject.toml") == "pyproject.toml has no table [tool.fastwsgi]"
    (tmp_path / "pyproject.toml").write_text("tool.fastwsgi = 3")
    assert refused() == "pyproject.toml: tool.fastwsgi is not a table"


# Variables.


def test_variables(look):
    found = look(
        named=False,
        FASTWSGI_APP="shop",
        FASTWSGI_THREADS="8",
        FASTWSGI_LOG_FILE="errors",
        FASTWSGI_REUSE_PORT="true",
        FASTWSGI_BIND="127.0.0.1:0 unix:/x",
        FASTWSGI_ENV="A=1 'B=two words'",
        FASTWSGI_VARIANT="asan",
        PATH="/bin",
    )
    settings = found.settings
    assert (found.application, found.origins["app"]) == ("shop", "FASTWSGI_APP")
    assert (settings.threads, settings.error_logfile, settings.reuse_port) == (8, "errors", True)
    assert settings.bind == ("127.0.0.1:0", "unix:/x")
    assert settings.env == ("A=1", "B=two words")
    assert look(FASTWSGI_APP="shop").application == "app:app"


def test_empty_variables_count_as_not_set_unless_that_is_a_value(look):
    found = look(PORT="", WEB_CONCURRENCY="", FASTWSGI_THREADS="", FASTWSGI_APP="", FORWARDED_ALLOW_IPS="")
    assert (found.settings.bind, found.settings.workers, found.settings.threads) == (
        ("127.0.0.1:8000",),
        "auto",
        4,
    )
    assert found.settings.forwarded_allow_ips == ("unix",)
    assert look(FASTWSGI_FORWARDER_HEADERS="").settings.forwarder_headers == ()


def test_platform_variables(look):
    found = look(PORT="8080", WEB_CONCURRENCY="2")
    assert (found.settings.bind, found.settings.workers) == ((":8080",), 2)
    assert (found.origins["bind"], found.origins["workers"]) == ("PORT", "WEB_CONCURRENCY")
    assert look("-b", "127.0.0.1:0", PORT="8080").settings.bind == ("127.0.0.1:0",)


def test_whom_to_trust_is_a_variable_of_gunicorn_too(look):
    found = look(FORWARDED_ALLOW_IPS="10.0.0.0/8", HOME="/")
    assert found.settings == Settings(forwarded_allow_ips=("10.0.0.0/8",))
    assert look("--forwarded-allow-ips", "none", FORWARDED_ALLOW_IPS="::1").settings.forwarded_allow_ips == (
        "none",
    )


def test_what_a_program_gives(tmp_path):
    (tmp_path / "fastwsgi.toml").write_text("threads = 2\nbacklog = 5\napp = 'other:app'\n")
    found = gather([], {"FASTWSGI_THREADS": "3"}, str(tmp_path), {"threads": "4", "bind": ":0"}, "Shop")
    assert (found.settings.threads, found.settings.backlog, found.settings.bind) == (4, 5, (":0",))
    assert (found.application, found.origins["threads"], found.origins["app"]) == ("Shop", "run()", "run()")
    with pytest.raises(ConfigError, match=r"^unknown setting thread; did you mean threads\?$"):
        gather([], {}, str(tmp_path), {"thread": 3}, "Shop")
    with pytest.raises(ConfigError, match=r"^threads: 0 is not a whole number"):
        gather([], {}, str(tmp_path), {"threads": 0}, "Shop")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"FASTWSGI_THREAD": "1"}, "FASTWSGI_THREAD is no setting; did you mean FASTWSGI_THREADS?"),
        ({"FASTWSGI_CMD_ARG": ""}, "FASTWSGI_CMD_ARG is no setting; did you mean FASTWSGI_CMD_ARGS?"),
        ({"FASTWSGI_THREADS": "x"}, "FASTWSGI_THREADS: 'x' is not a whole number from 1 to 1024"),
        ({"FASTWSGI_BIND": "'"}, "FASTWSGI_BIND: No closing quotation"),
        ({"FASTWSGI_CMD_ARGS": "'"}, "FASTWSGI_CMD_ARGS: No closing quotation"),
        (
            {"FASTWSGI_CMD_ARGS": "--thread 1"},
            "FASTWSGI_CMD_ARGS: unknown option --thread; did you mean --threads?",
        ),
        ({"FASTWSGI_CMD_ARGS": "--help"}, "FASTWSGI_CMD_ARGS: only options for serving belong here"),
        (
            {"GUNICORN_CMD_ARGS": "--threads x"},
            "GUNICORN_CMD_ARGS: --threads: 'x' is not a whole number from 1",
        ),
        ({"PORT": "tcp://x"}, "PORT: 'tcp://x' is not a whole number from 0 to 65535"),
        ({"WEB_CONCURRENCY": "two"}, "WEB_CONCURRENCY: 'two' is not a whole number from 1 to 1024"),
        ({"FORWARDED_ALLOW_IPS": "proxy"}, "FORWARDED_ALLOW_IPS: 'proxy' is not addresses"),
    ],
)
def test_wrong_variables(refused, environ, message):
    assert refused(**environ).startswith(message)


def test_a_command_line_in_a_variable(look):
    found = look(FASTWSGI_CMD_ARGS="-w 3 -e 'A=b c' --preload other:app")
    assert (found.settings.workers, found.settings.env, found.settings.preload) == (3, ("A=b c",), "on")
    assert found.application == "app:app"
    assert found.origins["preload"] == "FASTWSGI_CMD_ARGS: --preload"
    assert look(named=False, FASTWSGI_CMD_ARGS="other:app").application == "other:app"


# gunicorn's sources, as far as they are one among others; test_gunicorn.py has what they mean.


def test_notices_of_what_is_gunicorns(look, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text("workers = 3\nspew = True\n")
    [notice] = look().notices
    assert notice == "gunicorn.conf.py is not read; give --config gunicorn.conf.py if it should be"
    [notice] = look("-c", "gunicorn.conf.py").notices
    assert notice == "gunicorn.conf.py has what fastwsgi cannot honour: spew (a debugger does that)"
    first, second, _ = look("--spew", "-c", "gunicorn.conf.py", GUNICORN_CMD_ARGS="--threads 2").notices
    assert first == "GUNICORN_CMD_ARGS is heeded: --threads"
    assert second == "the command line has what fastwsgi cannot honour: --spew (a debugger does that)"


def test_an_application_in_a_conf_file(look, tmp_path):
    (tmp_path / "conf.py").write_text("wsgi_app = 'shop:app'\n")
    found = look("-c", "conf.py", named=False)
    assert (found.application, found.origins["app"]) == ("shop:app", "conf.py: wsgi_app")
    assert look("-c", "conf.py").application == "app:app"


def test_a_file_and_a_conf_file(look, tmp_path):
    (tmp_path / "fastwsgi.toml").write_text("threads = 2\nbacklog = 5\n")
    (tmp_path / "conf.py").write_text("threads = 3\n")
    settings = look("-c", "conf.py").settings
    assert (settings.threads, settings.backlog) == (3, 5)


# Nobody names the application.


def test_found_here_and_in_src(look, tmp_path):
    source = "def app(environ, start_response): ...\n"
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_text(source)
    found = look("--pythonpath", "lib", named=False)
    assert (found.application, found.found) == ("main:app", "app in src/main.py")
    assert found.settings.pythonpath == f"{tmp_path}/src,lib"
    assert found.origins["pythonpath"] == "app in src/main.py"
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "app.py").write_text(source)
    assert look("--chdir", "there", named=False).application == "app:app"


def test_found_by_the_settings_of_django(look, tmp_path):
    (tmp_path / "manage.py").write_text("os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'a.settings')")
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "wsgi.py").write_text("")
    assert look(named=False).application == "a.wsgi:application"
    environ = {"DJANGO_SETTINGS_MODULE": "b.settings"}
    assert look(named=False, **environ).application == "b.wsgi:application"
    argv = ("-e", "DJANGO_SETTINGS_MODULE=c.settings")
    assert look(*argv, named=False, **environ).application == "c.wsgi:application"


def test_nothing_found(refused, look, tmp_path):
    assert refused(named=False) == (
        f"which application? None is named, and {tmp_path} has no Django manage.py and no app.py, wsgi.py, "
        "main.py with application, app or create_app(); name it, as in: fastwsgi app:app"
    )
    assert look("--print-config", named=False).application is None


# What is printed.


def test_the_printed_configuration_is_a_file_that_says_the_same(look, tmp_path):
    (tmp_path / "fastwsgi.toml").write_text("threads = 8\nchdir = '.'\n")
    text = r"""a "quoted" \ path with %, é, 𝄞 and """ + "\t\x7f\n"
    found = look(
        *("-b", "127.0.0.1:0", "-b", "unix:/x", "-e", f"TEXT={text}", "--name", text, "--umask", "022"),
        *("--daemon", "--preload=strict", "--keep-alive", "1500ms", "--max-worker-memory", "80%"),
        *("--forwarder-headers=", "--config", "fastwsgi.toml"),
        WEB_CONCURRENCY="3",
    )
    printed = print_config(found)
    assert printed.isascii()
    values = tomllib.loads(printed)
    assert values["keep_alive"] == "1.5"
    assert "config" not in values
    assert "user" not in values
    lines = printed.splitlines()
    assert 'app = "app:app"  # the command line' in lines
    assert "threads = 8  # fastwsgi.toml" in lines
    assert "workers = 3  # WEB_CONCURRENCY" in lines
    assert "backlog = 2048  # default" in lines
    assert "daemon = true  # --daemon" in lines
    assert "# user: none  # default" in lines
    assert '# config = "fastwsgi.toml"  # --config' in lines
    (tmp_path / "saved.toml").write_text(printed)
    again = look("-c", "saved.toml", named=False)
    assert again.application == "app:app"
    assert {**vars_of(again.settings), "config": None} == {**vars_of(found.settings), "config": None}


def test_every_option_is_printed_once(look):
    names = [line.removeprefix("# ").split(" ")[0].rstrip(":") for line in print_config(look()).splitlines()]
    for name in ("app", *OPTIONS):
        assert names.count(name) == 1, name


def vars_of(settings):
    return {name: getattr(settings, name) for name in OPTIONS}
