"""The recipes of docs/operating.md: what can be tried of them here."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastwsgi.arguments import parse
from fastwsgi.config import Settings, merge
from fastwsgi.supervisor import KILL_PATIENCE
from fastwsgi.worker import EXIT_PATIENCE

TEXT = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
DOCKER_KILLS_AFTER = 10


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def units():
    """The units, by the name of their file."""
    return {re.match(r"# /etc/systemd/system/(\S+)", unit)[1]: unit for unit in blocks("ini")}


def settings_of(words):
    """What a command line sets."""
    arguments = parse(words)
    assert arguments.application == "shop:app"
    assert not arguments.foreign
    return merge(arguments.settings)


def longest_end(settings: Settings):
    return settings.shutdown_delay + settings.graceful_timeout + EXIT_PATIENCE + KILL_PATIENCE


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_units(tmp_path):
    for name, unit in units().items():
        # Of what is not here: the program. It shall not look for the man pages of others either.
        (tmp_path / name).write_text(unit.replace("/srv/shop/.venv/bin/fastwsgi", sys.executable))
    for name in units():
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / name)],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_waits_for_the_end():
    unit = units()["shop.service"]
    words = re.search(r"^ExecStart=\S+/fastwsgi (.*)$", unit, re.MULTILINE)[1].split()
    patience = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])
    assert longest_end(settings_of(words)) < patience


def test_docker_does_not_kill_before_the_end():
    [file] = blocks("dockerfile")
    command = re.search(r"^CMD \[(.*)\]$", file, re.MULTILINE)[1]
    program, *words = re.findall(r'"([^"]+)"', command)
    assert program == "fastwsgi"
    settings = settings_of(words)
    assert settings.shutdown_delay + settings.graceful_timeout < DOCKER_KILLS_AFTER


def test_kubernetes_waits_for_the_end_and_asks_where_it_is_answered():
    [text] = blocks("yaml")
    program, *words = (word.strip(' "') for word in re.search(r"command: \[(.*)\]", text)[1].split(", "))
    assert program == "fastwsgi"
    settings = settings_of(words)
    assert longest_end(settings) < int(re.search(r"terminationGracePeriodSeconds: (\d+)", text)[1])
    asked = re.findall(r"path: (\S+), port: 8000", text)
    assert set(asked) == {settings.health, settings.ready}
