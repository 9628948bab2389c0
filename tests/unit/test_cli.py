"""The command line: what is read, what is refused and with which words, help, exit codes before serving."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fastwsgi
from fastwsgi.arguments import parse
from fastwsgi.cli import help_text, main
from fastwsgi.config import OPTIONS
from fastwsgi.errors import ConfigError


@pytest.mark.parametrize(
    "argv",
    [
        ["--threads", "8", "--bind", ":80", "app"],
        ["--threads=8", "--bind=:80", "app"],
        ["app", "--threads=8", "-b", ":80"],
        ["-b:80", "app", "--threads", "8"],
        ["-b=:80", "--threads", "8", "--", "app"],
    ],
)
def test_forms_of_options(argv):
    arguments = parse(argv)
    assert arguments.application == "app"
    assert arguments.settings == {"threads": 8, "bind": (":80",)}


def test_repeated_options():
    arguments = parse(["-b", ":80", "-b", "unix:/x", "--threads", "1", "--threads", "2", "app"])
    assert arguments.settings == {"bind": (":80", "unix:/x"), "threads": 2}


def test_a_dash_is_a_value():
    assert parse(["--access-logfile", "-", "app"]).settings == {"access_logfile": "-"}


def test_alias():
    assert parse(["--log-file=x", "app"]).settings == {"error_logfile": "x"}


@pytest.mark.parametrize(
    ("argv", "settings"),
    [
        (["--reuse-port", "--preload", "-D"], {"reuse_port": True, "preload": "on", "daemon": True}),
        (["--preload=strict", "--daemon=off"], {"preload": "strict", "daemon": False}),
        (["--preload", "--no-preload", "--no-reuse-port"], {"preload": "off", "reuse_port": False}),
        (["-w4", "-p", "x.pid", "-n=shop"], {"workers": 4, "pid": "x.pid", "name": "shop"}),
        (["-e", "A=1", "--env", "B=2"], {"env": ("A=1", "B=2")}),
    ],
)
def test_switches_and_short_options(argv, settings):
    arguments = parse([*argv, "app"])
    assert (arguments.application, arguments.settings) == ("app", settings)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preload=hard"], "--preload: 'hard' is not one of on, off, strict"),
        (["--no-preload=on"], "--no-preload takes no value"),
        (["--no-threads"], "unknown option --no-threads; did you mean --threads?"),
        (["--threads", "--no-daemon", "app"], "--threads needs a value: --threads N"),
        (["--thread", "8", "app"], "unknown option --thread; did you mean --threads?"),
        (["--threds=8", "app"], "unknown option --threds; did you mean --threads?"),
        (["--jabberwock", "app"], "unknown option --jabberwock"),
        (["-x", "app"], "unknown option -x"),
        (["--threads"], "--threads needs a value: --threads N"),
        (["--threads", "--bind=:80", "app"], "--threads needs a value: --threads N"),
        (["--threads", "0", "app"], "--threads: '0' is not a whole number from 1 to 1024"),
        (
            ["--keep-alive=5x", "app"],
            "--keep-alive: '5x' is not a time such as 250ms, 30s or 2h (at most 1d)",
        ),
        (["--bind=", "app"], "--bind: '' is not a valid address"),
        (["app", "other"], "one application is served, app; what is 'other'?"),
    ],
)
def test_refusals(argv, message):
    with pytest.raises(ConfigError) as caught:
        parse(argv)
    assert str(caught.value) == message


def test_help_shows_every_option_within_the_width():
    text = help_text()
    for option in OPTIONS.values():
        for flag in option.flags:
            assert re.search(rf"(^|[ ,]){flag}\b", text, re.MULTILINE)
        assert option.shown_default.split()[0] in text
    assert max(map(len, text.splitlines())) <= 96
    assert text.isascii()


def test_help_and_version_win_over_the_rest(capsys):
    assert main(["--threads", "2", "--help", "--nonsense"]) == 0
    assert capsys.readouterr().out == help_text()
    assert main(["-v"]) == 0
    assert capsys.readouterr().out.startswith(f"fastwsgi {fastwsgi.__version__} (Python ")


def test_no_application(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fastwsgi: which application? None is named, and {tmp_path} has no ")
    assert error.endswith("; name it, as in: fastwsgi app:app\n")


def command(*argv, cwd):
    # The descriptors of this process are no business of the child, nor is what pytest put on the path.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "fastwsgi", *argv],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_exit_codes(tmp_path):
    (tmp_path / "broken.py").write_text("1/0\n")
    done = command("--bind", "127.0.0.1:0", "broken:app", cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr.count("Traceback") == 1
    assert "importlib" not in done.stderr
    assert "fastwsgi/loader.py" not in done.stderr
    assert done.stderr.endswith("fastwsgi: importing broken raised ZeroDivisionError\n")
    done = command("--bind", "127.0.0.1:0", "brokn:app", cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr.startswith("fastwsgi: there is no module 'brokn' ")
    assert done.stderr.endswith("; did you mean 'broken'?\n")
    done = command("--bind", "8000", "broken:app", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("fastwsgi: cannot listen at 8000: ")


def test_the_documentation_has_the_help():
    assert help_text() in (Path(__file__).parents[2] / "docs" / "options.md").read_text()


@pytest.mark.parametrize("argument", ["-hx", "--help=1", "-vv", "--version=2"])
def test_help_and_version_take_no_value(argument):
    with pytest.raises(ConfigError, match="takes no value"):
        parse([argument])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_help_that_cannot_be_written(tmp_path):
    shell = f'"{sys.executable}" -m fastwsgi --help'
    done = subprocess.run(
        ["bash", "-c", f"{shell} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(["sh", "-c", f"{shell} >/dev/full"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "fastwsgi: the standard output: No space left on device\n")


def test_a_directory_that_is_gone(tmp_path):
    shell = f'mkdir gone && cd gone && rmdir ../gone && "{sys.executable}" -m fastwsgi app:app'
    environment = {**os.environ, "PYTHONPATH": str(Path(fastwsgi.__file__).parents[1])}
    done = subprocess.run(["sh", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("fastwsgi: the current directory cannot be found")
    assert "Traceback" not in done.stderr


def test_access_logs_that_nobody_can_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "app.py").write_text("def app(environ, start_response): ...\n")
    done = command("--access-logfile", "fifo", "-b", "127.0.0.1:0", "app:app", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("/fifo: nobody reads from this pipe\n")


def test_the_page_of_options_is_current():
    """make options writes it."""
    root = Path(__file__).parents[2]
    page = runpy.run_path(str(root / "tools" / "options_page.py"))["page"]()
    assert (root / "docs" / "options.md").read_text(encoding="utf-8") == page
    assert all(
        f"`{flag}" in page or f", {flag}" in page for option in OPTIONS.values() for flag in option.flags
    )
