"""The blocks of commands on all pages are run, and print what the page shows.

What is typed on a page is run in its order, as by somebody who follows it: files are those blocks that have a
title, servers serve until the next one starts. Addresses and directories are other ones here. In what is
shown a number stands for any number, and … for anything. Command lines that stand in a text by themselves
have to pass `--check-config`.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from docs.pages import PAGES, ROOT, blocks, indented
from fastwsgi.cli import CONSOLE, TOOLS
from process.test_proxies import free_port
from subprocesses import PYTHONPATH, Process
from support import ENVIRONMENT, PATIENCE, wait_until

# Pages whose commands are run elsewhere.
ELSEWHERE = {"docs/deployment.md": "tests/deployment/test_page.py"}

# Commands that are not run here, by what they begin with.
NOT_RUN = {
    "pip install": "it fetches packages; `make package` tries the installation",
    "make bench": "it takes 20 minutes",
    "make abuse": "it is a step of .ci/run",
    "benchmarks/setup.sh": "it fetches and compiles other servers",
    "python benchmarks/": "they take minutes",
}

# With one of these the command serves nothing.
NO_SERVER = {*CONSOLE, *TOOLS, "--check-config", "--print-config"}

TYPED = [page for page in PAGES if page not in ELSEWHERE and blocks(page, "sh", "console")]


def commands(block):
    """Each command of a block, with the lines that it prints; None where the page does not show them."""
    if block.language == "sh":
        lines = re.sub(r"\\\n", " ", block.text).splitlines()
        return [(line, None) for line in lines if line and not line.startswith("#")]
    found = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


def reason_not_to_run(command):
    return next((reason for start, reason in NOT_RUN.items() if command.startswith(start)), None)


def test_every_reason_is_needed():
    shown = [block for page in TYPED for block in blocks(page, "sh", "console")]
    typed = [command for block in shown for command, _ in commands(block)]
    assert [start for start in NOT_RUN if not any(one.startswith(start) for one in typed)] == []
    for page, test in ELSEWHERE.items():
        assert os.path.basename(page) in (ROOT / test).read_text()


NUMBER = r"\d+(?:\.\d+)?(?:e[-+]?\d+)?"


def plain(line):
    """A line without what differs from one run to the next."""
    line = re.sub(NUMBER, "0", line.rstrip())
    line = re.sub(r"0 (?:ms|min|h)\b", "0 s", line)
    line = re.sub(r"(0 \w+?)s\b", r"\1", line)
    return re.sub(r"\(0 CPU[^)]*\)", "(0 CPU)", re.sub(r" +", " ", line))


def pattern(line):
    return ".*".join(map(re.escape, plain(line).split("…")))


class Terminal:
    """Where somebody types: a directory, an environment, and the server that runs."""

    def __init__(self, directory):
        self.directory = directory
        self.state = directory / "state"
        self.home = directory / "home"
        self.cwd = self.home
        programs = directory / "programs"
        for folder in (self.state, self.home, programs):
            folder.mkdir()
        for name, module in {"fastwsgi": "-m fastwsgi", "django-admin": "-m django", "python": ""}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            (programs / name).chmod(0o755)
        # As on a terminal that shows no progress.
        (self.home / ".curlrc").write_text("silent\nshow-error\n")
        self.ports = {"8000": str(free_port()), "9090": str(free_port())}
        self.environment = {
            **ENVIRONMENT,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": PYTHONPATH,
            "HOME": str(self.home),
            "FASTWSGI_BIND": f"127.0.0.1:{self.ports['8000']}",
            "FASTWSGI_CONTROL_SOCKET": str(directory / "control"),
            "FASTWSGI_GRACEFUL_TIMEOUT": "2",
        }
        self.server = None

    def here(self, text):
        """A text of the page, with the addresses and directories of this test."""
        text = re.sub(r"(?<=127\.0\.0\.1:)(8000|9090)\b", lambda match: self.ports[match[1]], text)
        return re.sub(r"(?<![\w.])/(srv|etc)(?=/)", rf"{self.directory}/\1", text)

    def write(self, name, text):
        file = self.cwd / self.here(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.here(text))

    def type(self, command, shown):
        words = shlex.split(command)
        if words[0] == "fastwsgi" and not {*words} & NO_SERVER:
            self.serve(shlex.split(self.here(command))[1:], shown)
        else:
            self.run(command, shown)

    def run(self, command, shown):
        script = f'set -e\n{self.here(command)}\npwd > "$STATE/cwd"\nenv -0 > "$STATE/env"\n'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.cwd,
            env={**self.environment, "STATE": str(self.state)},
            input="a password\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=3 * PATIENCE,
        )
        assert done.returncode == 0, (command, done.stdout)
        self.cwd = self.directory / (self.state / "cwd").read_text().strip()
        pairs = (self.state / "env").read_text().rstrip("\0").split("\0")
        self.environment = dict(pair.split("=", 1) for pair in pairs)
        if shown is not None:
            wanted = "".join(r"(?:.*\n)*" if line == "…" else f"{pattern(line)}\n" for line in shown)
            printed = "".join(f"{plain(line)}\n" for line in done.stdout.splitlines())
            assert re.fullmatch(wanted, printed), (command, shown, done.stdout)

    def serve(self, arguments, shown):
        self.stop()
        self.server = Process(arguments, self.cwd, self.environment)
        self.server.wait_started()
        wanted = "(?:.*\n)*".join(f"{pattern(line)}\n" for line in shown or () if line != "…")

        def is_shown():
            printed = "".join(f"{plain(line)}\n" for line in self.server.stderr.splitlines())
            return re.search(wanted, printed)

        wait_until(is_shown, lambda: f"{shown} in {self.server.stderr}")

    def stop(self):
        if self.server is not None:
            with contextlib.suppress(ProcessLookupError):
                self.server.terminate()
            code = self.server.wait()
            self.server.clean_up()
            assert code == 0, self.server.stderr
            assert "Traceback" not in self.server.stderr
            self.server = None


@pytest.fixture
def terminal(tmp_path):
    terminal = Terminal(tmp_path)
    yield terminal
    if terminal.server is not None:
        terminal.server.clean_up()


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
@pytest.mark.parametrize("page", TYPED)
def test_commands_do_what_the_page_shows(page, terminal):
    if any("django" in block.text for block in blocks(page)):
        pytest.importorskip("django")
    if any("flask" in block.text for block in blocks(page, "python")):
        pytest.importorskip("flask")
    for block in blocks(page):
        if block.title:
            terminal.write(block.title, block.text)
        elif block.language in ("sh", "console"):
            for command, shown in commands(block):
                if reason_not_to_run(command) is None:
                    terminal.type(command, shown)
    terminal.stop()


# What command lines in texts name.
WORLD = {
    "app.py": "def app(environ, start_response): ...",
    "blog.py": "def app(environ, start_response): ...",
    "waits.py": "def app(environ, start_response): ...",
    "shop/__init__.py": "def app(environ, start_response): ...",
    "shop/wsgi.py": "from shop import app",
    "/srv/static/site.css": "body { color: black }" * 100,
    "/srv/protected/paid.txt": "",
    "/etc/none": "",
    ".zfunc/none": "",
    ".local/share/bash-completion/completions/none": "",
    ".config/fish/completions/none": "",
}

CHECK_ALL = """
import json, sys
from fastwsgi.cli import main
for words in json.load(sys.stdin):
    assert main([*words, "--check-config"]) == 0, words
"""


def test_commands_in_texts(terminal):
    pytest.importorskip("brotli")
    certificates = pytest.importorskip("certificates")
    for name, text in WORLD.items():
        terminal.write(name, text)
    for name, pem in zip(("fullchain.pem", "key.pem"), certificates.AUTHORITY.issue("shop.example")):
        terminal.write(name, pem)
    to_check = []
    for program, line in [found for page in PAGES for found in indented(page)]:
        words = shlex.split(terminal.here(line))[1:]
        if program not in ("fastwsgi", "gunicorn") or words[0] in CONSOLE:
            continue
        if words[0] in TOOLS:
            terminal.run(line, None)
        elif "--leak-report" not in words or sys.version_info < (3, 13):
            to_check.append(words)
    # Last what patches the process that checks.
    to_check.sort(key=lambda words: "--gevent" in words)
    # A file of passwords has to be there before.
    done = subprocess.run(
        [sys.executable, "-c", CHECK_ALL],
        input=json.dumps(to_check),
        cwd=terminal.cwd,
        env=terminal.environment,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.count("configuration OK") == len(to_check) > 10
