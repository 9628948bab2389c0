"""The dict FASTWSGI of a project's settings: `--config django:project.settings`.

    read("project.settings", "/srv/project", environ) -> Found({"threads": 8}, "project.wsgi:application")

Another process imports them, as whoever reads them may fork workers afterwards and reads them again later.
That process is this module, run: `python -m fastwsgi.contrib.django.reader project.settings`.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastwsgi.errors import ConfigError

# What --config begins with.
PREFIX = "django:"

SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"
NAME = "FASTWSGI"

# A supervisor waits so long for them, in seconds.
PATIENCE = 30

# Without WSGI_APPLICATION.
DEFAULT_APPLICATION = "django.core.wsgi:get_wsgi_application()"


class Found(NamedTuple):
    """What settings say: ours by their names, and the application."""

    table: dict[str, Any]
    application: str


def read(module: str, directory: str, environ: Mapping[str, str]) -> Found:
    """Import settings in a process of its own; raise ConfigError if that or FASTWSGI is wrong.

    directory: where modules are looked for first.
    """
    shown = f"--config {PREFIX}{module}"
    if not module:
        raise ConfigError(f"{shown}: the module of the settings is missing, as in {PREFIX}project.settings")
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, module],
            cwd=directory or None,
            env={**environ, SETTINGS_VARIABLE: module},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{shown}: importing the settings takes longer than {PATIENCE} s") from None
    except OSError as error:
        raise ConfigError(f"{shown}: {error.strerror}") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise ConfigError(f"{shown}: reading the settings ended with exit code {done.returncode}") from None
    if "error" in answer:
        raise ConfigError(f"{shown}: {answer['error']}")
    return Found(answer["table"], answer["application"])


def main(module: str) -> None:
    """Print what was found, as JSON; whatever the settings print goes to the standard error."""
    with open(os.dup(1), "w", encoding="utf-8") as output:
        os.dup2(2, 1)
        json.dump(look(module), output)


def look(module: str) -> dict[str, Any]:
    """What there is to say: table and application, or an error."""
    try:
        from django.conf import settings

        table = getattr(settings, NAME, {})
        path = settings.WSGI_APPLICATION
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    if not isinstance(table, dict):
        return {"error": f"{NAME} is of type {type(table).__name__}; give a dict of settings"}
    try:
        table = json.loads(json.dumps(table, default=os.fspath))
    except (TypeError, ValueError) as error:
        return {"error": f"{NAME}: {error}"}
    return {"table": table, "application": path_to_target(path)}


def path_to_target(path: str | None) -> str:
    """What WSGI_APPLICATION names, as the command takes it."""
    holder, _, name = (path or "").rpartition(".")
    return f"{holder}:{name}" if holder else DEFAULT_APPLICATION


if __name__ == "__main__":
    main(sys.argv[1])
