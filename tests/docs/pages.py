"""The pages of the documentation: where they are, their blocks, and the anchors that others may link to."""

import importlib.util
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

_found = importlib.util.spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
site = importlib.util.module_from_spec(_found)
_found.loader.exec_module(site)

# Those of the project, not of what lies about where people work.
PAGES = sorted(
    str(file.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "model/*.md", "tests/vectors/*.md")
    for file in ROOT.glob(pattern)
)

FENCED = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.*?) *#*$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page, beneath its heading; with a title it is a file."""

    heading: str
    language: str
    title: str
    text: str


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, *languages):
    """Those of a page in these languages, or in any."""
    text, found, heading, end = text_of(page), [], "", 0
    for match in FENCED.finditer(text):
        heading = [heading, *HEADING.findall(text, end, match.start())][-1]
        end = match.end()
        if not languages or match[1] in languages:
            found.append(Block(heading, *match.groups()))
    return found


def anchors(page):
    """What GitHub calls the headings of a page."""
    text = re.sub(FENCED, "", text_of(page))
    seen, found = Counter(), set()
    for title in HEADING.findall(text):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def indented(page):
    """Commands that stand in a text as an indented block: the program, and all of it."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^ {4,}((fastwsgi|pip|make|curl|gunicorn) .*)$", text, re.MULTILINE)
    return [(program, line) for line, program in found]
