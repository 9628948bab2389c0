"""Servers as the commands of frameworks start them."""

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def metadata(tmp_path_factory):
    """A directory for PYTHONPATH: what pyproject.toml declares is found there as in an installed package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    directory = tmp_path_factory.mktemp("metadata")
    info = directory / "fastwsgi-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fastwsgi\nVersion: 0.1.0\n")
    lines = []
    for group, names in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {where}" for name, where in names.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return directory


@pytest.fixture
def run(tmp_path, metadata):
    """run("manage.py", "serve", NAME="value"): a Process of this Python in `tmp_path`, killed after the test.

    wait: what its output has to say before it is returned, a regular expression; its groups are the ports.
    """
    from subprocesses import PYTHONPATH, Process
    from support import wait_until

    processes = []

    def run(*words, wait=r"Listening at https?://\S+:(\d+)", **environment):
        environment = {
            "PYTHONPATH": os.pathsep.join([PYTHONPATH, str(metadata)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            # What tests in this process have left.
            "FLASK_DEBUG": "",
            # A gunicorn of another test, or of somebody else, has its socket there.
            "HOME": str(tmp_path),
            **environment,
        }
        process = Process(words, tmp_path, environment, program=())
        processes.append(process)

        def said():
            return re.findall(wait, process.stderr + process.stdout)

        if wait:
            wait_until(
                lambda: said() or not process.is_running(),
                lambda: f"{wait}: {process.stderr}{process.stdout}",
            )
            process.ports = [int(port) for port in said() if port.isdigit()]
            assert said(), process.wait() or process.stderr + process.stdout
        return process

    yield run
    for process in processes:
        process.clean_up()


@pytest.fixture
def write(tmp_path):
    """write({"shop/urls.py": "..."}): files of an application."""

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


# For commands that do not serve.
PYTHON = sys.executable
