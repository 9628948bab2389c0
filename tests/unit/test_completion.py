"""`fastwsgi completion SHELL`: each shell, as it completes with the script that it is given."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time

import pytest

from fastwsgi.cli import INTRODUCTION, main
from fastwsgi.completion import SHELLS, commands, run
from fastwsgi.config import OPTIONS
from support import PATIENCE


def needs(shell):
    return pytest.mark.skipif(not shutil.which(shell), reason=f"no {shell} here")


@pytest.fixture
def script(tmp_path):
    """script(shell): its script, in a file."""

    def write(shell):
        file = tmp_path / f"completion.{shell}"
        file.write_text(run([shell])[1])
        return file

    return write


# What is typed, and what comes of it: all that has to be there, and something that must not.
TYPED = [
    (["st"], {"stats", "stacks", "stop"}, "top"),
    (["app:app", "--thr"], {"--threads"}, "--chdir"),
    (["--poller", ""], {"auto", "epoll", "poll"}, "--poller"),
    (["--poller", "e"], {"epoll"}, "poll"),
    (["stats", "--"], {"--json", "--control-socket"}, "--threads"),
    (["stop", "--"], {"--now"}, "--json"),
    (["completion", ""], set(SHELLS), "stats"),
    (["doctor", "--for"], {"--format", "--forwarded-allow-ips"}, "--json"),
    (["doctor", "--format", ""], {"text", "json"}, "auto"),
    (["--chdir", "fo"], {"folder"}, "found.txt"),
    (["--config", "fou"], {"found.txt"}, "folder"),
    (["--threads", ""], set(), "stats"),
]
IDS = [" ".join(words) for words, _, _ in TYPED]


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "found.txt").touch()
    monkeypatch.chdir(tmp_path)


def ask(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# A line divided into words as bash does it, completed at its end.
BASH = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_fastwsgi
printf "%s\\n" "${COMPREPLY[@]}"
"""


@needs("bash")
@pytest.mark.parametrize(("words", "expected", "other"), [*TYPED, (["--poller", "="], {"epoll"}, "=")])
def test_bash(script, here, words, expected, other):
    found = ask("bash", "-c", BASH, "bash", str(script("bash")), "fastwsgi", *words)
    assert expected <= set(found)
    assert other not in found


@needs("fish")
@pytest.mark.parametrize(("words", "expected", "other"), TYPED, ids=IDS)
def test_fish(script, here, words, expected, other):
    typed = " ".join(["fastwsgi", *words])
    lines = ask("fish", "-N", "-c", 'source $argv[1]; complete -C "$argv[2]"', str(script("fish")), typed)
    found = {line.split("\t")[0].rstrip("/") for line in lines}
    assert expected <= found
    assert other not in found


class Terminal:
    """A zsh at a terminal: nowhere else does it complete."""

    def __init__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="dumb")
            os.execvp("zsh", ["zsh", "-f", "-i"])

    def type(self, text, expected):
        """Type it and wait until that is shown; whatever was shown."""
        os.write(self.fd, text.encode())
        shown, end = "", time.monotonic() + PATIENCE
        while expected not in shown:
            assert select.select([self.fd], [], [], max(0.0, end - time.monotonic()))[0], shown
            shown += os.read(self.fd, 65536).decode(errors="replace")
        return shown

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.end()


@needs("zsh")
@pytest.mark.parametrize("is_installed", [False, True], ids=["sourced", "installed"])
def test_zsh(script, here, terminal, tmp_path, is_installed):
    file = script("zsh")
    begin, end = "", f"source {file}"
    if is_installed:
        (tmp_path / "functions").mkdir()
        file.rename(tmp_path / "functions" / "_fastwsgi")
        begin, end = f"fpath=({tmp_path}/functions $fpath)", ""
    terminal.type(f"{begin}\nautoload -U compinit; compinit -D -u\n{end}\necho now''-ready\n", "now-ready")
    for words, expected, _ in TYPED:
        if len(expected) == 1:
            [only] = expected
            terminal.type(f"fastwsgi {' '.join(words)}\t", f" {only}")
            # The line goes, and nothing of it is left on the screen to be taken for the next.
            terminal.type("\x15echo go''es-on\n", "goes-on\r\n")
    terminal.type("fastwsgi app:app --preload=s\t", "--preload=strict")


def test_every_command_of_the_help_is_there():
    """Those that do not serve: `fastwsgi WORD`, and a word is no application."""
    assert set(re.findall(r"^  fastwsgi ([a-z]+)(?=[ \n])", INTRODUCTION, re.MULTILINE)) == set(commands())


@pytest.mark.parametrize("shell", SHELLS)
def test_every_option_is_there(shell):
    text = run([shell])[1].replace("\\n", "\n")
    for option in OPTIONS.values():
        name = option.flags[-1]
        shown = f"-l {name[2:]}" if shell == "fish" else name
        assert re.search(rf"(?<![a-z-]){shown}(?![a-z-])", text), name


def test_the_command(capsys):
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == run(["bash"])[1]
    assert main(["completion", "--help"]) == 0
    assert capsys.readouterr().out == "Usage: fastwsgi completion bash|zsh|fish\n"


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_a_shell_that_there_is_no_script_for(words, capsys):
    assert main(["completion", *words]) == 1
    assert (
        capsys.readouterr().err == "fastwsgi: completion for which shell? fastwsgi completion bash|zsh|fish\n"
    )
