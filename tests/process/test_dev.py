"""`fastwsgi dev`: an application that is edited while it is served, well and badly."""

import contextlib
import os
import re
import signal
import threading
import time

import psutil
import pytest

from support import wait_until

APPLICATION = """\
{before}
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [{content}]
"""
HTML = [("Accept", "text/html,application/xhtml+xml")]


class Project:
    """A directory with an application that is served from there."""

    def __init__(self, directory, server=None):
        self.directory = directory
        self.server = server

    def write(self, content, before="", file="site_app.py"):
        """Write the application as editors do that save atomically."""
        source = APPLICATION.format(before=before, content=content)
        path = self.directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(source)
        new.replace(path)

    def get(self, target="/", fields=(), **options):
        if "Host" not in dict(fields):
            fields = [*fields, ("Host", "localhost")]
        return self.server.ask(target, fields=fields, **options)

    def wait_served(self, words):
        """Wait until an answer has these words; return it."""
        last = None

        def is_there():
            nonlocal last
            last = self.get()
            return words in last.content

        wait_until(is_there, lambda: f"{words!r} in {last.content!r}; {self.server.stderr}")
        return last


@pytest.fixture
def develop(start, tmp_path):
    """develop(*options, content=..., **variables): a project of one module under `fastwsgi dev`."""

    def develop(*options, content='b"one"', before="", app="site_app:app", **variables):
        project = Project(tmp_path)
        project.write(content, before)
        bind = () if "--bind" in options else ("--bind", "127.0.0.1:0")
        project.server = start("dev", *bind, *options, app, alone=False, **variables)
        return project

    return develop


@pytest.mark.parametrize("engine", ["poll", "watchfiles"])
def test_new_code_is_served(develop, engine):
    if engine == "watchfiles":
        pytest.importorskip("watchfiles")
    project = develop("--reload-engine", engine)
    assert project.get().content == b"one"
    # The same length within the same second: bytecode of the one could be taken for that of the other.
    for word in ("two", "six", "ten"):
        project.write(f'b"{word}"')
        project.wait_served(word.encode())
    project.server.wait_said("site_app.py changed: loading again")
    project.server.stop()
    lines = project.server.stdout.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d 200 GET /  \d+\.\dms 3B", lines[0])


def test_it_says_what_it_is(develop):
    project = develop("--threads", "2", before="debug = True")
    project.server.stop()
    version = re.escape(".".join(map(str, __import__("sys").version_info[:3])))
    assert "serves site_app:app with 1 worker of 2 threads" in project.server.stderr
    assert re.search(
        rf"Python {version}, site_app.py; not for production: --reload, --lint, --tracebacks$",
        project.server.stderr,
        re.M,
    )


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("def (", b"SyntaxError"),
        ("import no_such_module", b"ModuleNotFoundError: No module named &#x27;no_such_module&#x27;"),
        ("import sys; sys.exit('no <config>')", b"SystemExit: no &lt;config&gt;"),
        ("import os; os._exit(7)", b"exit code 7"),
        ("import os; os.kill(os.getpid(), 11)", b"SIGSEGV"),
        ("import os; os.kill(os.getpid(), 11)", b"site_app.py&quot;, line 1 in &lt;module&gt;"),
        ("class Odd(BaseException): pass\nraise Odd", b"raised Odd"),
    ],
)
def test_what_cannot_be_imported_is_shown_until_it_is_mended(develop, before, words):
    project = develop()
    project.write('b"bad"', before)
    page = project.get(fields=HTML)
    wait_until(lambda: words in project.get(fields=HTML).content, lambda: project.server.stderr)
    page = project.get(fields=HTML)
    assert page.status == 500
    assert page["Cache-Control"] == "no-store"
    assert b"://" not in page.content.replace(str(project.directory).encode(), b"")
    token = re.search(rb'now === "([^"]+)"', page.content)[1]
    edition = project.get("/.fastwsgi/edition")
    assert edition.content == token
    # It is not loaded again and again.
    said = project.server.stderr
    assert project.get().status == 500
    assert project.server.stderr == said
    project.write('b"mended"')
    project.wait_served(b"mended")
    assert project.get("/.fastwsgi/edition").content != token
    project.server.stop()
    assert "/.fastwsgi/edition" not in project.server.stdout
    assert project.server.stderr.count("Traceback (most recent call last)") <= 1


def test_a_name_error_at_the_first_start(develop):
    project = develop(before="undefined_name")
    answer = project.get()
    assert (answer.status, answer["Content-Type"]) == (500, "text/plain; charset=utf-8")
    assert b"NameError: name 'undefined_name' is not defined" in answer.content
    project.write('b"mended"')
    project.wait_served(b"mended")
    project.server.stop()
    assert project.server.stderr.count("NameError: name") == 1


def test_an_application_that_is_not_there_ends_the_start(develop, start, tmp_path):
    server = start("dev", "--bind", "127.0.0.1:0", "no_such:app", started=False)
    assert server.wait() == 4
    assert "there is no module 'no_such'" in server.stderr


def test_an_application_that_is_gone_later(develop):
    project = develop()
    (project.directory / "site_app.py").write_text("other = 1\n")
    project.wait_served(b"site_app has no 'app'")
    project.write('b"back"')
    project.wait_served(b"back")
    project.server.stop()


def test_a_missing_module_that_comes(develop):
    project = develop(content="shop.parts.NAME", before="import shop.parts")
    assert b"No module named 'shop'" in project.get().content
    (project.directory / "shop").mkdir()
    (project.directory / "shop/parts.py").write_text('NAME = b"part"\n')
    project.wait_served(b"part")
    project.server.stop()


def test_modules_that_are_imported_later(develop):
    project = develop(content='__import__("late").NAME')
    (project.directory / "late.py").write_text('NAME = b"late"\n')
    project.wait_served(b"late")
    # Before the worker has looked again what is imported, or after that.
    (project.directory / "late.py").write_text('NAME = b"later"\n')
    project.wait_served(b"later")
    project.server.stop()


def test_other_files(develop, tmp_path):
    (tmp_path / "conf").mkdir()
    for name in ("shop.toml", "conf/a.yaml", "conf/b.txt", "unused.py"):
        (tmp_path / name).write_text("1")
    (tmp_path / "templates").mkdir()
    project = develop(
        *("--reload-extra-file", "shop.toml", "--reload-extra-file", "conf/**/*.yaml"),
        *("--reload-ignore", "unwanted/*"),
        before="import os; made = str(os.getpid()).encode()",
        content="made",
    )
    for name in ("shop.toml", "conf/a.yaml", "conf/new.yaml", "templates/page.html"):
        before = project.get().content
        # As long as before, and within the same second.
        (tmp_path / name).write_text("2")
        wait_until(lambda before=before: project.get().content != before, lambda: project.server.stderr)
        project.server.wait_said(f"{name} changed: loading again")
    said = project.server.stderr
    # What is not of the application does not count, nor what is ignored.
    (tmp_path / "unwanted/templates").mkdir(parents=True)
    for name in ("conf/b.txt", "unused.py", "unwanted/templates/page.html", "notes.md"):
        (tmp_path / name).write_text("3")
    (tmp_path / "shop.toml").write_text("4")
    wait_until(lambda: project.server.stderr.count("shop.toml changed") == 2, lambda: project.server.stderr)
    project.server.stop()
    changed = [line for line in project.server.stderr[len(said) :].splitlines() if "changed" in line]
    assert [line.rpartition("] ")[2] for line in changed] == ["shop.toml changed: loading again"]


def test_clients_wait_while_it_is_loaded(develop):
    project = develop(before="import time; time.sleep(0.2)")
    answers, is_over = [], threading.Event()

    def ask():
        with contextlib.suppress(StopIteration):
            while not is_over.is_set():
                try:
                    answers.append(project.get().content)
                except Exception as error:
                    answers.append(error)

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        for word in ("two", "six"):
            project.write(f'b"{word}"', before="import time; time.sleep(0.2)")
            wait_until(
                lambda word=word: word.encode() in answers, lambda: f"{answers[-5:]} {project.server.stderr}"
            )
    finally:
        is_over.set()
        for client in clients:
            client.join()
    assert set(answers) == {b"one", b"two", b"six"}
    project.server.stop()


def test_a_kept_connection_and_a_long_request_hold_nothing_up(develop):
    before = "import os, time\nfrom pathlib import Path"
    long = (
        '(Path("long.waits").touch(), time.sleep(60)) and b"" if environ["PATH_INFO"] == "/long" else b"%s"'
    )
    project = develop(content=long % "one", before=before)
    kept = project.server.connect()
    assert kept.ask().content == b"one"
    project.server.connect().send("GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
    project.server.waits("long")
    project.write(long % "two", before)
    project.wait_served(b"two")
    project.server.signal(signal.SIGINT)
    assert project.server.wait(5) == 0, project.server.stderr


def test_ctrl_c_ends_soon(develop):
    project = develop(content="time.sleep(60)", before="import time")
    project.server.connect().send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    began = time.monotonic()
    project.server.signal(signal.SIGINT)
    assert project.server.wait(10) == 0
    assert time.monotonic() - began < 8


FAILING = """\
def generate():
    yield b""
    raise ValueError("<in a generator>")
"""
ASKED = """\
{"/": b"fine", "/call": 1 / (environ["PATH_INFO"] != "/call"), "/blocks": generate}[environ["PATH_INFO"]]
"""


def test_exceptions_are_shown_to_this_machine(develop):
    project = develop(content=ASKED.strip().replace("\n", ""), before=FAILING)
    shown = project.get("/call", fields=HTML)
    assert (shown.status, shown.content.count(b"ZeroDivisionError: division by zero")) == (500, 3)
    assert b"pages.py" not in shown.content
    for host in ("localhost:8000", "shop.localhost", "[::1]:80", "127.0.0.1"):
        assert b"ZeroDivisionError" in project.get("/call", fields=[("Host", host)]).content
    for fields in (
        [("Host", "evil.example")],
        [("Host", "localhost.evil.example:8000")],
        [("Host", "localhost"), ("X-Forwarded-For", "192.0.2.1")],
        [("Host", "localhost"), ("X-Forwarded-For", "127.0.0.1")],
    ):
        answer = project.get("/call", fields=fields)
        assert answer.status == 500
        assert b"ZeroDivisionError" not in answer.content
    assert project.get("/").content == b"fine"
    project.server.stop()
    assert project.server.stderr.count("ZeroDivisionError: division by zero") == 9
    assert "pages.py" not in project.server.stderr


def test_exceptions_of_generators(develop):
    project = develop(content="x", before=FAILING + "x = None")
    source = "    return generate()\n"
    path = project.directory / "site_app.py"
    path.write_text(path.read_text().replace("    return [x]\n", source))
    project.wait_served(b"ValueError: <in a generator>")
    assert b"&lt;in a generator&gt;" in project.get(fields=HTML).content
    project.server.stop()
    assert "pages.py" not in project.server.stderr


def test_exceptions_are_not_shown_to_others(develop):
    project = develop("--bind", "0.0.0.0:0", content="1 / 0")
    answer = project.get(fields=HTML)
    assert answer.status == 500
    assert b"ZeroDivisionError" not in answer.content
    project.write('b""', before="undefined_name")
    # What says that it cannot be loaded refreshes itself all the same.
    page = project.wait_served(b"the terminal of its server says why")
    page = project.get(fields=HTML)
    assert b"undefined_name" not in page.content
    assert b"fetch(" in page.content
    project.server.stop()


def test_violations_are_said_once(develop):
    project = develop(content='"text"')
    for _ in range(2):
        assert project.get().status == 500
    project.server.stop()
    path = project.directory / "site_app.py"
    words = f"a block of content is of type str, and not bytes; {path}, line 2, in app"
    assert project.server.stderr.count(words) == 1


def test_a_busy_port_is_told_with_who_has_it(develop, start):
    project = develop()
    address = f"127.0.0.1:{project.server.ports[0]}"
    other = start("dev", "--bind", address, "site_app:app", started=False, alone=False)
    assert other.wait() == 1
    assert f"cannot listen at {address}: another server is listening there" in other.stderr
    if os.path.exists("/proc/net/tcp"):
        assert f"(process {project.server.pid}: " in other.stderr
    project.server.stop()


def test_the_browser_is_opened(develop, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path}/opened.new\nmv {tmp_path}/opened.new {tmp_path}/opened\n'
    )
    browser.chmod(0o755)
    project = develop("--open", "--bind", ":0", BROWSER=str(browser))
    wait_until((tmp_path / "opened").exists, lambda: project.server.stderr)
    assert (tmp_path / "opened").read_text() == f"http://127.0.0.1:{project.server.ports[0]}\n"
    project.server.stop()


def test_colours_where_they_are_wanted(develop):
    project = develop(FORCE_COLOR="1")
    project.get()
    project.get("/?again")
    project.server.stop()
    assert re.search(r"^\d\d:\d\d:\d\d \x1b\[32m200\x1b\[0m GET /\?again  ", project.server.stdout, re.M)


def test_reload_without_dev(start, tmp_path):
    project = Project(tmp_path)
    project.write('b"one"')
    project.server = start("--reload", "--workers", "2", "site_app:app", alone=False)
    assert project.get().content == b"one"
    project.write('b"two"', before="undefined_name")
    project.wait_served(b"NameError")
    project.server.wait_said("NameError: name")  # maybe by the other worker
    project.write('b"two"')
    project.wait_served(b"two")
    wait_until(lambda: project.server.stderr.count("Loaded again") == 1, lambda: project.server.stderr)
    # Of two workers one has said it.
    assert project.server.stderr.count("NameError: name") == 1
    assert "Not reloaded" not in project.server.stderr
    project.server.stop()


def test_hup_still_reloads(develop):
    project = develop(before="import os", content='os.environ["WORD"].encode()', WORD="one")
    worker = psutil.Process(project.server.pid).children()
    project.server.signal(signal.SIGHUP)
    project.server.wait_said("Reloaded in")
    assert psutil.Process(project.server.pid).children() != worker
    project.write('b"two"')
    project.wait_served(b"two")
    project.server.stop()


def test_a_watcher_that_is_killed_is_replaced(develop):
    project = develop("--reload-engine", "poll")
    [watcher] = [
        one
        for one in psutil.Process(project.server.pid).children()
        if not has_sockets(one, project.server.ports[0])
    ]
    watcher.kill()
    project.server.wait_said("The process that watches files (--reload)")
    project.write('b"two"')
    project.wait_served(b"two")
    project.server.stop()


def has_sockets(process, port):
    return any(one.laddr.port == port for one in process.net_connections("tcp"))
