"""What pages say that can be checked without running anything: links, options, settings, messages."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from docs.pages import PAGES, ROOT, anchors, blocks, indented, site, text_of
from fastwsgi.arguments import KNOWN
from fastwsgi.config import merge
from fastwsgi.sources import from_toml

# Options of other programs that pages show.
OTHERS = {
    "make": "--long --strict --format --quick --output --cases --servers --rounds --seconds --compare",
    "configure, of Python": "--with-thread-sanitizer --disable-test-modules --prefix --disable-gil",
    "useradd, systemctl": "--system --home-dir --kill-whom --signal",
    "docker, helm": "--detach --publish --read-only --tmpfs --ulimit --sysctl --pty --install",
    "manage.py": "--settings --nothreading --check --noinput --deploy --noreload --nostatic --insecure "
    "--skip-checks",
    "flask": "--app --cert --debug --debugger --exclude-patterns --extra-files --host --key --port "
    "--without-threads",
    "certbot, curl": "--webroot --unix-socket",
    "how options begin": "--no --limit-request",
}
SOURCES = ROOT / "src" / "fastwsgi"
OTHER_FLAGS = {flag for flags in OTHERS.values() for flag in flags.split()}

# What other programs say on the page of troubleshooting.
MESSAGES_OF_OTHERS = {
    "Connection refused",
    "Invalid HTTP_HOST header",
    "CSRF verification failed … Origin checking failed",
    "database is locked",
}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    wrong = []
    for link in site.links(text_of(page)):
        file = site.named(page, link.path)
        if not (ROOT / file).exists() or file.startswith(".."):
            wrong.append(f"{link.path}: there is no such file")
        elif link.anchor and link.anchor not in anchors(file):
            wrong.append(f"{link.path}#{link.anchor}: there is no such heading")
    assert wrong == []


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"^ +- .*: (\S+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    assert len(listed) == len(set(listed))
    outside = {"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
    outside.add("benchmarks/README.md")
    wanted = {page for page in PAGES if page.startswith(site.DOCS)} | outside
    assert set(listed) == {site.place(page) for page in wanted}


@pytest.mark.parametrize("page", PAGES)
def test_github_and_the_site_understand_lists_alike(page):
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"^(?![-\s\d]).*\n(?:- |1\. )", text, re.MULTILINE), (
        "a list needs an empty line before it"
    )
    assert not re.search(r"\n\n {5,7}\S", text), "code within a list needs eight blanks"


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md", "docs/tuning.md"])
def test_figures_are_those_of_the_results(page):
    results = text_of("benchmarks/results/latest.md") + text_of("benchmarks/results/tls/latest.md")
    figures = re.findall(r"(?<![\d.])(\d+\.\d\d|\d,\d{3})(?![\d.])", text_of(page))
    assert figures
    assert [figure for figure in figures if figure not in results] == []


def test_options_that_are_named_exist():
    named = {}
    for page in PAGES:
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*(?<!-)", text_of(page)):
            named.setdefault(flag, page)
    # Commands such as `fastwsgi stop` have theirs.
    of_commands = re.findall(r'"(--[a-z-]+)"', "".join(map(Path.read_text, SOURCES.glob("*.py"))))
    known = {*KNOWN, *of_commands, *OTHER_FLAGS}
    assert {flag: page for flag, page in named.items() if flag not in known} == {}
    assert set(named) >= OTHER_FLAGS, "no page names these any more"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")])
def test_configurations_are_right(page, tmp_path):
    file = tmp_path / "fastwsgi.toml"
    for block in blocks(page, "toml"):
        tomllib.loads(block.text)
        file.write_text(block.text)
        layer = from_toml(str(file), page)
        merge({name: value for name, (value, _) in layer.items() if name != "app"})


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_is_python(page):
    for block in blocks(page, "python"):
        ast.parse(block.text)


@pytest.mark.parametrize("page", [page for page in PAGES if indented(page)])
def test_targets_and_extras_exist(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for program, line in indented(page):
        words = shlex.split(line, comments=True)[1:]
        if program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        elif program == "pip":
            named = re.fullmatch(r"install (?:\.|fastwsgi\[([\w,]+)\])", " ".join(words))
            assert named and (named[1] is None or set(named[1].split(",")) <= set(extras)), line


def text_in(node, constants):
    """What a literal says; … stands for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_in(part, constants) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return constants.get(getattr(node.value, "id", None), "…")
    return str(node.value)


def literals():
    """All texts of the sources as one."""
    found = []
    for file in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(getattr(node.value, "value", None), str)
        }
        for node in ast.walk(tree):
            if isinstance(node, (ast.JoinedStr, ast.Constant)):
                found.append(text_in(node, constants))
    for file in sorted((ROOT / "src").glob("*.pyx")):
        text = re.sub(r'"\s*b?"', "", file.read_text(encoding="utf-8"))
        found += re.findall(r'"([^"\n]*)"', text)
    return re.sub(r"%(?:\.\d)?[a-z]|%\.\*s|%llu", "…", "\n".join(found))


def test_messages_of_the_troubleshooting_page_are_those_of_the_server():
    sources = literals()
    rows = re.findall(r"^\| (.*?[^\\]) \|", text_of("docs/troubleshooting.md"), re.MULTILINE)
    quoted = {text for row in rows for text in re.findall(r"`([^`]+)`", row) if " " in text}
    assert len(quoted) > 50
    missing = []
    for text in quoted - MESSAGES_OF_OTHERS:
        # Names and numbers are examples.
        for part in re.split(r"…|\d+|'\w+'|SIG\w+", text):
            part = part.strip(" :;,.?()")
            if len(part) > 6 and part not in sources:
                missing.append((text, part))
    assert missing == []
    assert quoted >= MESSAGES_OF_OTHERS
