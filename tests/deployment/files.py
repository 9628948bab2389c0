"""The files of deploy/, and how they are made to fit this machine."""

import re
from pathlib import Path

from fastwsgi.arguments import parse
from fastwsgi.config import merge
from fastwsgi.supervisor import KILL_PATIENCE
from fastwsgi.worker import EXIT_PATIENCE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def adapted(name, **replacements):
    """The file deploy/NAME with each of these words replaced; each has to be there."""
    return replaced((DEPLOY / name).read_text(), replacements)


def replaced(text, replacements):
    for word, other in replacements.items():
        text, count = re.subn(rf"(?<!\S){re.escape(word)}(?=[\s;]|$)", str(other), text, flags=re.MULTILINE)
        assert count, f"{word!r} is not there"
    return text


def settings_of(words):
    """What a command line for the shop sets."""
    arguments = parse(words)
    assert arguments.application == "shop:app"
    assert not arguments.foreign
    return merge(arguments.settings)


def longest_end(settings):
    """How long such a server takes to end when all goes as badly as it can."""
    return settings.shutdown_delay + settings.graceful_timeout + EXIT_PATIENCE + KILL_PATIENCE
