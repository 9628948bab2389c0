"""The manual page: it says what the declarations say, and those who format it have nothing to complain of."""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from fastwsgi.config import OPTIONS
from support import ENVIRONMENT

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "fastwsgi.1"


def formatted(*command):
    environment = {**ENVIRONMENT, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MAN_KEEP_FORMATTING": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_page_is_what_make_options_writes():
    page = runpy.run_path(str(ROOT / "tools" / "man_page.py"))["page"]()
    assert PAGE.read_text(encoding="utf-8") == page


@pytest.mark.skipif(not shutil.which("man"), reason="no man here")
def test_man_shows_it_without_a_warning():
    shown = formatted("man", "--warnings", "-E", "UTF-8", "-l", str(PAGE))
    for option in OPTIONS.values():
        assert re.search(rf"^ +.*{option.flags[-1]}\b", shown, re.MULTILINE), option
    for words in (
        "TTIN, TTOU",
        "FASTWSGI_NAME",
        "3 if the worker could not start",
        "fastwsgi stats [--json]",
    ):
        assert words in shown, words
    # No mark-up of the page that it is from.
    assert not re.search(r"\*\*|\]\(|^ *\| ", shown, re.MULTILINE)


@pytest.mark.skipif(not shutil.which("mandoc"), reason="no mandoc here")
def test_mandoc_has_nothing_to_warn_of():
    command = ["mandoc", "-T", "lint", "-W", "warning", str(PAGE)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    # There is no date on purpose: the same sources make the same page.
    assert [line for line in said.splitlines() if "missing date" not in line] == []
