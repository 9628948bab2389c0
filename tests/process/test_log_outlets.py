"""Logs that are stuck or full, as JSON, configured by the logging module; captured output."""

import contextlib
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from subprocesses import PYTHONPATH
from support import request, wait_until

HOSTILE = "/%22%00%0a'?&\xe2\x80\xa8\xff"


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


# ---- JSON ----


def test_both_logs_as_json(start, tmp_path):
    access = tmp_path / "access.log"
    server = start(
        *("--log-format", "json", "--access-logfile", str(access), "--request-id", "apps:fail_with_words")
    )
    with server.connect() as client:
        fields = [("User-Agent", '\x80\xe9"\t\\'), ("X-Words", "\xe2\x80\xa8\xff\t\\u0022")]
        client.send(request(HOSTILE, fields=fields))
        answer = client.read_response()
        assert answer.status == 500
    server.wait_said("no such thing")
    server.stop()
    assert server.stderr.isascii()
    assert access.read_text().isascii()
    records = objects(server.stderr)
    [failure] = [record for record in records if "exception" in record]
    assert failure["level"] == "error"
    assert failure["logger"] == "fastwsgi"
    assert failure["request_id"] == answer["X-Request-ID"]
    assert failure["exception_type"] == "builtins.ValueError"
    assert "\xe2\x80\xa8\xff" in failure["exception"]
    [line] = objects(access.read_text())
    assert line["target"] == HOSTILE
    assert line["user_agent"] == '\x80\xe9"\t\\'
    assert line["status"] == 500
    assert line["request_id"] == answer["X-Request-ID"]
    assert line["logger"] == "fastwsgi.access"
    assert line["pid"] == failure["pid"] != server.pid
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d", line["time"])
    assert all(re.fullmatch(r"\d{4}-.*\.\d{6}[+-]\d\d:\d\d", record["time"]) for record in records)


# ---- nobody reads, no room ----


@pytest.fixture
def stuck():
    """The write end of a pipe that is full, and that nobody reads for now."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"." * 65536)
    os.set_blocking(writer, True)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def launch(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, limit=None):
    return subprocess.Popen(
        [sys.executable, "-m", "fastwsgi", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        preexec_fn=limit,
        start_new_session=True,
    )


@pytest.fixture
def launched():
    processes = []

    def start(*arguments, **options):
        processes.append(launch(*arguments, **options))
        return processes[-1]

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(path, target="/"):
    """One request over a unix socket, once somebody listens there; the answer as it came."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)

        def connected():
            try:
                client.connect(str(path))
            except OSError:
                return False
            return True

        wait_until(connected, "somebody listening")
        client.sendall(request(target, fields=[("Connection", "close")]))
        answer = b""
        while block := client.recv(65536):
            answer += block
    return answer


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_reader_of_the_standard_error_that_is_stuck_stops_nobody(launched, stuck, short_path, workers):
    path = short_path / "s"
    server = launched("--bind", f"unix:{path}", "--workers", workers, "apps:fail", stderr=stuck[1])
    # More than all buffers hold, from every thread.
    for _ in range(300):
        assert ask(path).startswith(b"HTTP/1.1 500 ")
    server.terminate()
    assert server.wait(10) == 0
    assert os.get_blocking(stuck[1])


def test_what_was_lost_is_said_when_the_reader_goes_on(launched, stuck, short_path):
    path, (reader, writer) = short_path / "s", stuck
    server = launched("--bind", f"unix:{path}", "--workers", "0", "apps:fail", stderr=writer)
    for _ in range(1000):
        ask(path)
    said = []

    def read():
        while not said or not said[-1].endswith(b"\0"):
            said.append(os.read(reader, 65536))

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(lambda: b"were lost: nobody has read them in time" in b"".join(list(said)), "the count")
    ask(path)
    server.terminate()
    assert server.wait(10) == 0
    os.write(writer, b"\0")
    thread.join()
    text = b"".join(said).decode().lstrip(".")
    [lost] = map(int, re.findall(r"(\d+) log records before this one were lost", text))
    assert lost
    assert text.count(": the application failed") + lost == 1001
    assert "Stopped after 1001 requests" in text


def test_a_stuck_reader_of_the_access_log_does_not_end_the_worker(launched, stuck, short_path):
    path = short_path / "s"
    error = short_path / "error.log"
    server = launched(
        *("--bind", f"unix:{path}", "--workers", "1", "--worker-timeout", "2s", "--access-logfile", "-"),
        *("--access-logformat", "x" * 9000, "--error-logfile", str(error), "apps:hello"),
        stdout=stuck[1],
    )
    for _ in range(300):  # 2.7 MB: more than may wait
        ask(path)
    time.sleep(4)
    assert ask(path).endswith(b"hello")
    server.terminate()
    assert server.wait(15) == 0
    said = error.read_text()
    assert "has not been heard of" not in said
    assert said.count("the access log cannot be written") == 1
    assert "access log lines were lost: nobody reads it fast enough" in said


def limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_for_both_logs(launched, tmp_path, short_path):
    path, error, access = short_path / "s", tmp_path / "error.log", tmp_path / "access.log"
    server = launched(
        *("--bind", f"unix:{path}", "--workers", "0", "--access-logfile", str(access)),
        *("--access-logformat", "%(U)s " + "x" * 100, "--error-logfile", str(error), "apps:fail"),
        limit=limited(20_000),
    )
    for number in range(300):
        ask(path, f"/{number}")
    assert error.stat().st_size == access.stat().st_size == 20_000
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ask(path, "/last")
    wait_until(lambda: "the access log is written again" in error.read_text(), "the message")
    server.terminate()
    assert server.wait(10) == 0
    lines = access.read_text().splitlines()
    assert [line.split()[0] for line in lines] == [f"/{number}" for number in range(300)] + ["/last"]
    said = error.read_text()
    assert said.count("the access log cannot be written") == 1
    assert "the access log is written again; 0 lines were lost: File too large" in said
    assert said.count("Traceback") == 301
    assert all(line.startswith(("[20", "  ")) for line in said.splitlines())


# ---- terminals ----


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_on_a_terminal_alone(variables, coloured):
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "fastwsgi",
        "--workers",
        "0",
        "--bind",
        "127.0.0.1:0",
        "--backlog",
        "65535",
    ]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "TERM": "xterm", **variables}
    process = subprocess.Popen(
        [*command, "apps:hello"], stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    said = b""
    while b"Ctrl-C" not in said and select.select([ours], [], [], 10)[0]:
        said += os.read(ours, 4096)
    process.terminate()
    assert process.wait(10) == 0
    os.close(ours)
    assert (b"\x1b[33m[WARNING]\x1b[0m The kernel cuts" in said) == coloured
    assert (b"\x1b" in said) == coloured


# ---- a configuration of Python's logging ----

INI = """\
[loggers]
keys=root, gunicorn.error
[handlers]
keys=file
[formatters]
keys=plain
[logger_root]
level=WARNING
handlers=file
[logger_gunicorn.error]
level=INFO
handlers=file
propagate=0
qualname=gunicorn.error
[handler_file]
class=FileHandler
formatter=plain
args=('{path}',)
[formatter_plain]
format=%(name)s|%(levelname)s|%(message)s
"""

TOML = """\
[handlers.file]
class = "logging.FileHandler"
filename = "{path}"
formatter = "plain"
[formatters.plain]
format = "%(name)s|%(levelname)s|%(message)s"
[root]
handlers = ["file"]
level = "WARNING"
[loggers.fastwsgi]
level = "INFO"
"""

DICT = {
    "version": 1,
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "{path}", "formatter": "plain"}},
    "formatters": {"plain": {"format": "%(name)s|%(levelname)s|%(message)s"}},
    "loggers": {
        "fastwsgi": {"handlers": ["file"], "propagate": False},
        "of.the.application": {"handlers": ["file"]},
    },
}


@pytest.mark.parametrize("kind", ["ini", "toml", "json", "dict", "gunicorn"])
def test_a_log_configuration(start, tmp_path, kind):
    log = tmp_path / "all.log"
    as_json = json.dumps(DICT).replace("{path}", str(log))
    files = {
        "ini": INI,
        "toml": TOML,
        "json": as_json,
        "gunicorn": f"logconfig_dict = {as_json.replace('false', 'False')}",
    }
    if kind == "dict":
        given = ("--log-config-dict", as_json)
    else:
        name = tmp_path / {"gunicorn": "gunicorn.conf.py"}.get(kind, f"log.{kind}")
        name.write_text(files[kind].replace("{path}", str(log)))
        given = ("--config" if kind == "gunicorn" else "--log-config", str(name))
    server = start(*given, "--bind", f"unix:{tmp_path}/s", "apps:complain", started=False)
    wait_until(lambda: log.exists() and "Listening" in log.read_text(), lambda: server.stderr)
    assert ask(tmp_path / "s").endswith(b"hello")
    server.stop()
    lines = log.read_text().splitlines()
    assert sum(line.startswith("fastwsgi|INFO|Listening at") for line in lines) == 1
    assert lines.count("of.the.application|ERROR|logged by the application") == 1
    assert "Listening" not in server.stderr


def test_a_log_configuration_holds_over_an_upgrade(start, tmp_path):
    """Also one with objects, of which no other program can be told."""
    log = tmp_path / "all.log"
    (tmp_path / "gunicorn.conf.py").write_text(
        "import logging\n"
        "logconfig_dict = {\n"
        "    'version': 1,\n"
        f"    'handlers': {{'file': {{'()': logging.FileHandler, 'filename': {str(log)!r}}}}},\n"
        "    'loggers': {'fastwsgi': {'handlers': ['file'], 'propagate': False}},\n"
        "}\n"
    )
    server = start("--config", "gunicorn.conf.py", "apps:hello", started=False)
    wait_until(lambda: log.exists() and "Listening" in log.read_text(), lambda: server.stderr)
    server.signal(signal.SIGUSR2)
    wait_until(lambda: "Reloaded in" in log.read_text(), lambda: log.read_text() + server.stderr)
    server.stop()
    assert "Stopped after" in log.read_text()
    assert not server.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--log-config", "missing.toml"], "--log-config missing.toml: No such file or directory"),
        (["--log-config", "a-list.json"], "--log-config a-list.json: not an object of JSON"),
        (["--log-config-dict", '{"version": 2}'], "--log-config-dict: Unsupported version: 2"),
        (["--log-config-dict", "nothing"], "--log-config-dict: 'nothing' is not an object of JSON"),
        (
            ["--log-config-dict", '{"handlers": {"a": {"class": "no.such.Handler"}}}'],
            "--log-config-dict: Unable to configure handler 'a'",
        ),
        (
            ["--log-config", "a", "--log-config-json", "b"],
            "--log-config and --log-config-json are both given; one configures all logs",
        ),
    ],
)
def test_a_wrong_log_configuration_is_one_line(start, tmp_path, given, said):
    (tmp_path / "a-list.json").write_text("[1]")
    server = start(*given, "apps:hello", started=False)
    assert server.wait() == 1
    [line] = server.lines
    assert said in line


# ---- captured output ----

PRINTED = [
    "one, printed",
    "two, to descriptor 1",
    "three, to descriptor 2",
    "four, by C",
    "five, by a command",
    "six, to its standard error",
    "seven, in two parts \x1b[31m\xe9",
    "eight, by logging",
    "nine, to wsgi.errors",
    "ten \\xff",
    "",
    "after an empty line",
]


@pytest.mark.parametrize("preload", [False, True])
def test_captured_output(start, short_path, preload):
    server = start(
        *("--capture-output", "--log-format", "json", "--log-level", "error", "--access-logfile", "-"),
        *(["--preload"] if preload else []),
        *("--bind", f"unix:{short_path}/s", "--workers", "1", "apps:print_in_all_ways"),
        started=False,
        PYTHONUNBUFFERED="",
    )
    assert ask(short_path / "s").endswith(b"hello")
    wait_until(lambda: "after an empty" in server.stderr, lambda: server.stderr)
    server.stop()
    records = [record for record in objects(server.stderr) if record["logger"] == "fastwsgi.output"]
    assert [record["message"] for record in records] == PRINTED
    assert len({record["pid"] for record in records} - {server.pid}) == 1
    assert [line["status"] for line in objects(server.stdout)] == [200]


def test_the_last_words_of_a_worker(start):
    server = start("--capture-output", "apps:print_and_die")
    with server.connect() as client:
        client.send(request("/die"))
        wait_until(lambda: "was killed by SIGKILL" in server.stderr, lambda: server.stderr)
    assert server.ask().text == "hello"
    server.stop()
    said = [line.partition("[INFO] ")[2] for line in server.lines]
    assert said.index("last words") + 1 == said.index("and half a line")
    assert server.stderr.index("and half a line") < server.stderr.index("was killed by SIGKILL")
    assert server.stdout == ""


def test_c_code_may_print_much_while_it_holds_the_gil(start):
    server = start("--capture-output", "--log-format", "json", "apps:print_holding_gil")
    assert server.ask().text == "hello"
    server.stop()
    printed = "".join(r["message"] for r in objects(server.stderr) if r["logger"] == "fastwsgi.output")
    assert printed.count("x") == 4 * 99_999


def test_output_goes_on_over_an_upgrade(start):
    server = start("--capture-output", "apps:complain")
    server.ask()
    server.signal(signal.SIGUSR2)
    server.wait_said("Reloaded in")
    assert server.ask().text == "hello"
    server.stop()
    assert server.stderr.count("printed to stdout") == 2
    assert server.stdout == ""


def test_a_failure_to_start_is_an_error_when_output_is_captured(start, tmp_path):
    """Also where the application has disabled all loggers before."""
    (tmp_path / "silent.py").write_text(
        "import logging.config\n"
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': True})\n"
        "import no_such_module\n"
    )
    server = start(
        *("--capture-output", "--log-level", "error", "--pythonpath", str(tmp_path)),
        *("--bind", "127.0.0.1:0", "silent:app"),
        started=False,
    )
    assert server.wait() == 4
    assert "[ERROR] importing silent raised ModuleNotFoundError" in server.stderr
    assert "No module named 'no_such_module'" in server.stderr
