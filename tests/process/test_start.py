"""How a server starts, and what it says when it cannot."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest

from fastwsgi import resources
from process.family import wait_for_workers
from subprocesses import PYTHONPATH, Process, skip_without_ipv6
from support import Client

SERVED = pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("apps:hello", "hello"),
        ("apps:create_app()", "hello from a factory"),
        ("apps:create_app('given')", "given"),
        ("apps:create_app(greeting='by name')", "by name"),
        ("apps:holder.application", "hello"),
        ("package.application_module", "application"),
        ("package.app_module", "app"),
        ("package.both_module", "application"),
    ],
)


def write_package(directory):
    package = directory / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    source = """
def {}(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{}"]
"""
    (package / "application_module.py").write_text(source.format("application", "application"))
    (package / "app_module.py").write_text(source.format("app", "app"))
    (package / "both_module.py").write_text(
        source.format("app", "app") + source.format("application", "application")
    )


@SERVED
def test_served(start, tmp_path, name, answer):
    write_package(tmp_path)
    server = start(name)
    assert server.ask().text == answer
    server.stop()


def test_the_start_says_what_and_where(start):
    server = start("--threads", "3", "apps:hello")
    assert re.search(r"http://127\.0\.0\.1:[0-9]+", server.stderr)
    assert "3 threads" in server.stderr
    assert str(server.pid) in server.stderr
    assert len(server.lines) < 6
    server.stop()


def test_the_command(start, tmp_path):
    command = shutil.which("fastwsgi", path=os.path.dirname(sys.executable))
    if not command:
        pytest.skip("the command is not installed")
    output = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    assert re.match(r"fastwsgi [0-9]+\.[0-9]+", output)


def test_several_addresses(start, short_path):
    path = f"{short_path}/socket"
    server = start("-b", "127.0.0.1:0", "-b", "127.0.0.1:0", f"--bind=unix:{path}", "apps:hello")
    first, second = server.ports
    assert first != second
    for address in (("127.0.0.1", first), ("127.0.0.1", second), path):
        with Client(address) as client:
            assert client.ask().text == "hello"
    server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_abstract_socket(start):
    name = f"fastwsgi-test-process-{os.getpid()}"
    server = start("-b", f"unix:@{name}", "apps:hello")
    with Client(f"\0{name}") as client:
        assert client.ask().text == "hello"
    server.stop()


def test_ipv6(start):
    skip_without_ipv6()
    server = start("-b", "[::1]:0", "apps:hello")
    with Client(("::1", server.ports[0])) as client:
        assert client.ask().text == "hello"
    server.stop()


def test_chdir_and_pythonpath(start, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper_of_there.py").write_text("ANSWER = b'from the path'\n")
    (tmp_path / "there" / "local_app.py").write_text(
        "import os, helper_of_there\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [helper_of_there.ANSWER, os.path.basename(os.getcwd()).encode()]\n"
    )
    server = start("--chdir", str(tmp_path / "there"), "--pythonpath", str(tmp_path / "lib"), "local_app:app")
    assert server.ask().text == "from the paththere"
    server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_backlog_that_the_kernel_cuts_is_said(start):
    with open("/proc/sys/net/core/somaxconn") as file:
        most = int(file.read())
    if most >= 65535:
        pytest.skip("this kernel takes every --backlog")
    server = start("--backlog", str(most), "apps:hello")
    server.stop()
    assert "net.core.somaxconn" not in server.stderr
    server = start("--backlog", str(most + 1), "apps:hello")
    assert server.ask().text == "hello"
    server.stop()
    assert server.stderr.count("net.core.somaxconn") == 1


@pytest.mark.parametrize("patched", [True, False])
def test_threads_that_gevent_has_patched_are_said(start, tmp_path, patched):
    (tmp_path / "patching.py").write_text(
        "import sys, types\n"
        "sys.modules['gevent.monkey'] = monkey = types.ModuleType('gevent.monkey')\n"
        f"monkey.is_module_patched = lambda name: name == 'threading' and {patched}\n"
        "monkey.get_original = lambda module, name: getattr(sys.modules[module], name)\n"
        "from apps import hello\n"
    )
    server = start("--workers", "2", "patching:hello")
    server.wait_said("All 2 workers serve")
    assert server.ask().text == "hello"
    server.stop()
    assert server.stderr.count("has patched threading with gevent") == patched
    assert "exit code" not in server.stderr


# What it cannot do: an exit code and one line.


def failing(start, *arguments):
    server = start(*arguments, started=False)
    code = server.wait()
    assert server.stdout == ""
    return code, server.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:app", "no_such_module"),
        ("package.no_such_module:app", "no_such_module"),
        ("apps:no_such_name", "no_such_name"),
        ("apps:holder.no_such_name", "no_such_name"),
        ("apps:helo", "did you mean 'hello'"),
        ("apps", "'application' or 'app'"),
        ("apps:not_callable", "not callable"),
        ("apps:create_app", "create_app()"),
        ("apps:create_app(", "create_app("),
        ("apps.py", "apps"),
        ("apps:", "module:callable"),
    ],
)
def test_a_wrong_application_is_one_line_and_exit_code_4(start, tmp_path, name, words):
    write_package(tmp_path)
    code, output = failing(start, "--bind", "127.0.0.1:0", name)
    assert code == 4
    assert len(output.splitlines()) == 1, output
    assert words in output


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("raise ZeroDivisionError('while importing')\n", "ZeroDivisionError: while importing"),
        ("import a_module_that_is_not_there\n", "a_module_that_is_not_there"),
        ("import sys\nsys.exit('leaving')\n", "SystemExit"),
    ],
    ids=["syntax", "exception", "import", "exit"],
)
def test_an_error_inside_the_module_is_its_own_traceback_once(start, tmp_path, source, words):
    (tmp_path / "broken.py").write_text(source)
    code, output = failing(start, "--bind", "127.0.0.1:0", "broken:app")
    assert code == 4
    assert words in output
    assert "broken.py" in output
    assert output.count("Traceback") <= 1
    assert "importlib" not in output
    assert "cli.py" not in output


def test_an_error_inside_a_factory_is_its_own_traceback_once(start, tmp_path):
    (tmp_path / "broken.py").write_text("def create():\n    raise ZeroDivisionError('in the factory')\n")
    code, output = failing(start, "--bind", "127.0.0.1:0", "broken:create()")
    assert code == 4
    assert output.count("ZeroDivisionError: in the factory") == 1
    assert output.count("Traceback") == 1


@pytest.mark.parametrize("started", [0, 1, 4])
def test_threads_that_cannot_be_started_are_exit_code_3(start, tmp_path, started):
    """Of four threads and the keeper so many can be had."""
    (tmp_path / "greedy.py").write_text(
        "import threading\n"
        "from fastwsgi import _crew\n"
        "from apps import hello\n"
        f"left = {started}\n"
        "name = 'start_joinable_thread' if _crew.start_joinable_thread else 'start_new_thread'\n"
        "start = getattr(_crew, name)\n"
        "def start_some(*arguments, **options):\n"
        "    global left\n"
        "    left -= 1\n"
        "    threading.stack_size(0 if left >= 0 else 1 << 47)\n"
        "    try:\n"
        "        return start(*arguments, **options)\n"
        "    finally:\n"
        "        threading.stack_size(0)\n"
        "setattr(_crew, name, start_some)\n"
    )
    code, output = failing(start, "--threads", "4", "--bind", "127.0.0.1:0", "greedy:hello")
    assert code == 3, output
    assert "worker could not go on: can't start new thread" in output


def test_a_busy_port(start):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        code, output = failing(start, "--bind", address, "apps:hello")
    assert code == 1
    assert len(output.splitlines()) == 1, output
    assert address in output


def test_a_port_that_another_fastwsgi_has(start):
    first = start("apps:hello")
    code, output = failing(start, "--bind", f"127.0.0.1:{first.ports[0]}", "apps:hello")
    assert code == 1
    assert len(output.splitlines()) == 1, output
    assert first.ask().text == "hello"
    first.stop()


def test_a_live_unix_socket_is_left_alone(start, short_path):
    path = f"{short_path}/socket"
    first = start("--bind", f"unix:{path}", "apps:hello")
    code, output = failing(start, "--bind", f"unix:{path}", "apps:hello")
    assert code == 1
    assert path in output
    with first.connect(path) as client:
        assert client.ask().text == "hello"
    first.stop()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--thread", "3", "apps:hello"), "--threads"),
        (("--no-such-option", "apps:hello"), "--no-such-option"),
        (("-x", "apps:hello"), "-x"),
        (("--threads", "0", "apps:hello"), "--threads"),
        (("--threads", "many", "apps:hello"), "--threads"),
        (("--threads", "-1", "apps:hello"), "--threads"),
        (("--keep-alive", "soon", "apps:hello"), "--keep-alive"),
        (("--poller", "kqueue", "apps:hello"), "--poller"),
        (("--bind", "nonsense", "apps:hello"), "nonsense"),
        (("--bind", "127.0.0.1:99999", "apps:hello"), "99999"),
        (("--bind", "unix:/no/such/directory/socket", "apps:hello"), "/no/such/directory"),
        (("--chdir", "/no/such/directory", "apps:hello"), "/no/such/directory"),
        (
            ("--access-logfile", "/no/such/directory/log", "--bind", "127.0.0.1:0", "apps:hello"),
            "/no/such/directory",
        ),
        (
            (
                "--access-logformat",
                "%(nonsense)s",
                "--access-logfile",
                "-",
                "--bind",
                "127.0.0.1:0",
                "apps:hello",
            ),
            "nonsense",
        ),
        (("--threads", "2"), "application"),
        ((), "application"),
        (("apps:hello", "apps:fail"), "apps:fail"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_options_are_one_line_and_exit_code_1(start, arguments, words):
    code, output = failing(start, *arguments)
    assert code == 1
    assert len(output.splitlines()) == 1, output
    assert words in output


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(start, option):
    server = start(option, started=False)
    assert server.wait() == 0
    for name in (
        "--bind",
        "--threads",
        "--backlog",
        "--graceful-timeout",
        "--keep-alive",
        "--chdir",
        "--pythonpath",
        "--log-level",
        "--access-logfile",
        "--version",
    ):
        assert name in server.stdout
    assert server.stderr == ""


def test_version(start):
    server = start("--version", started=False)
    assert server.wait() == 0
    assert server.stdout.startswith("fastwsgi ")


def test_the_package_can_be_imported_without_starting_anything():
    code = "import threading, fastwsgi; assert threading.active_count() == 1; print(fastwsgi.__version__)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout


def test_run_from_a_script(start, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import fastwsgi, apps\nfastwsgi.run(apps.hello, bind='127.0.0.1:0', threads=2)\nprint('after run')\n"
    )
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            for line in process.stderr:
                if match := re.search(r"http://127\.0\.0\.1:([0-9]+)", line):
                    break
            with Client(("127.0.0.1", int(match[1]))) as client:
                assert client.ask().text == "hello"
        finally:
            process.terminate()
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert output == "after run\n"


# What platforms set, and how many workers that makes


def first_line(server):
    return next(line for line in server.lines if " serves " in line)


def test_the_port_of_a_platform_is_served_at_every_address(start):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    server = start("--workers", "1", "apps:hello", started=False, PORT=str(port))
    server.wait_started()
    assert server.ports == [port]
    assert f"http://127.0.0.1:{port} (every address)" in server.stderr
    addresses = [("127.0.0.1", port)]
    if socket.has_dualstack_ipv6():
        addresses.append(("::1", port))
    for address in addresses:
        with Client(address) as client:
            assert client.ask().text == "hello"
    server.stop()


def test_an_address_that_is_given_wins_over_the_port_of_a_platform(start):
    server = start("apps:hello", PORT="1")
    assert server.ask().text == "hello"
    server.stop()


@pytest.mark.parametrize("wrong", ["http", "0x50", "70000", "-1"])
def test_a_wrong_port_of_a_platform_is_one_line(start, wrong):
    server = start("apps:hello", started=False, PORT=wrong)
    assert server.wait() == 1
    [line] = server.lines
    assert line.startswith(f"fastwsgi: PORT: '{wrong}' is not")


@pytest.mark.parametrize(
    ("options", "number"), [((), 3), (("--workers", "2"), 2)], ids=["environment", "command line"]
)
def test_the_number_of_workers_of_a_platform(start, options, number):
    server = start(*options, "apps:hello", alone=False, WEB_CONCURRENCY="3")
    assert f"with {number} workers of 4 threads" in first_line(server)
    wait_for_workers(server, number)
    server.stop()


RUN_ON = "import os, sys; os.sched_setaffinity(0, {{{}}}); os.execvp(sys.argv[1], sys.argv[1:])"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinities")
@pytest.mark.parametrize("most", [1, 2, None])
def test_as_many_workers_as_processors_to_use_and_the_line_says_why(tmp_path, most):
    there = sorted(os.sched_getaffinity(0))
    usable = there[:most]
    quota = resources.find_cpus().quota
    if quota is not None and quota < len(usable):
        pytest.skip(f"a quota of {quota}")
    wrapper = (sys.executable, "-c", RUN_ON.format(", ".join(map(str, usable))))
    server = Process(["--bind", "127.0.0.1:0", "apps:hello"], tmp_path, {}, wrapper=wrapper)
    try:
        server.wait_started()
        workers = f"{len(usable)} worker{'s' * (len(usable) > 1)}"
        assert re.search(rf"with {workers} \((\d+ of )?\d+ CPUs?.*\) of 4 threads", first_line(server))
        if len(usable) < os.cpu_count():
            assert f"({len(usable)} of {os.cpu_count()} CPUs" in first_line(server)
        wait_for_workers(server, len(usable))
        server.stop()
    finally:
        server.clean_up()


@pytest.mark.parametrize(
    ("arguments", "address"),
    [((), "127.0.0.1"), (("--forwarded-allow-ips", "127.0.0.0/8"), "192.0.2.1")],
    ids=["environment", "command line"],
)
def test_whom_to_trust_from_the_environment(start, arguments, address):
    server = start(*arguments, "apps:tell", FORWARDED_ALLOW_IPS="10.0.0.0/8")
    answer = server.ask(fields=[("X-Forwarded-For", "192.0.2.1")])
    assert json.loads(answer.content)["REMOTE_ADDR"] == address
    server.stop()


def test_a_wrong_variable_is_one_line(start):
    server = start("apps:tell", started=False, FORWARDED_ALLOW_IPS="10.0.0.1/8")
    assert server.wait() == 1
    [line] = server.lines
    assert line.startswith("fastwsgi: FORWARDED_ALLOW_IPS: '10.0.0.1/8' is not")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_the_application_hears_of_other_workers(start, workers):
    server = start("--workers", str(workers), "apps:shared")
    assert server.ask().text == f"True {workers > 1}"
