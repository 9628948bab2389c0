"""Writes docs/fastwsgi.1 from the declarations of the options, and from docs/operating.md."""

import re
from collections.abc import Iterator
from pathlib import Path

from fastwsgi import __version__
from fastwsgi.arguments import HELP, VERSION
from fastwsgi.cli import INTRODUCTION, NOTES
from fastwsgi.config import OPTIONS, Option
from fastwsgi.sources import COMMAND_LINE

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "fastwsgi.1"
OPERATING = DOCS / "operating.md"


def page() -> str:
    """The text of docs/fastwsgi.1."""
    return "\n".join(
        [
            '.\\" Written by tools/man_page.py (make options); what is changed here by hand is lost.',
            f'.TH FASTWSGI 1 "" "fastwsgi {__version__}"',
            *section("Name", r"fastwsgi \- serves a WSGI application"),
            *section("Synopsis", r".B fastwsgi", r".RI [ OPTIONS ] \ [ MODULE : CALLABLE ]"),
            *section("Description", *introduction()),
            *section("Options", *options()),
            *section("Signals", *signals()),
            *section("Environment", *environment()),
            *section("Files", *files()),
            *section("Exit status", *text_of(part("Exit codes"))),
            "",
        ]
    )


def section(title: str, *lines: str) -> list[str]:
    """A heading and what is below it, which begins a paragraph without being told."""
    return [f".SH {title.upper()}", *(lines[1:] if lines[0] == ".PP" else lines)]


def introduction() -> Iterator[str]:
    """The first part of the help: sentences, and under each what to type and what that does."""
    for line in INTRODUCTION.splitlines():
        example = re.fullmatch(r"  (\S.*?)(?:  +(.*))?", line)
        if example:
            yield from entry(plain(example[1]), plain(example[2] or ""))
        elif line:
            yield from (".PP", plain(line))


def options() -> Iterator[str]:
    for group in dict.fromkeys(option.group for option in OPTIONS.values()):
        yield f".SS {plain(group)}"
        for option in OPTIONS.values():
            if option.group == group:
                yield from entry(usage(option), f"{plain(option.help)} [{plain(shown_default(option))}]")
    yield ".SS And"
    yield from entry(
        bold("--check-config"), plain("check the settings, import the application, and serve nothing")
    )
    yield from entry(bold("--print-config"), plain("print all settings and where they come from, as TOML"))
    yield from entry(", ".join(map(bold, VERSION)), "print the version")
    yield from entry(", ".join(map(bold, HELP)), "print a summary of this")
    for note in NOTES:
        yield from (".PP", plain(note))


def usage(option: Option) -> str:
    """The flags in bold, what stands for a value in italics."""
    flags = ", ".join(map(bold, option.flags))
    gap = "" if option.kind.is_switch else " "
    return f"{flags}{gap}\\fI{plain(option.kind.metavar)}\\fR" if option.kind.metavar else flags


def shown_default(option: Option) -> str:
    variable = f"${option.variable.name}, or " if option.variable else ""
    return variable + option.shown_default


def signals() -> Iterator[str]:
    """The table of docs/operating.md."""
    text = part("Signals")
    yield from text_of(text.split("\n\n")[0])
    for names, happens in re.findall(r"^\| ((?!signal |-)[^|]+) \| (.*) \|$", text, re.MULTILINE):
        yield from entry(bold(names), marked(happens))


def environment() -> Iterator[str]:
    yield from entry(
        f"{bold('FASTWSGI_')}\\fINAME\\fR",
        plain("an option by its name, with underscores: FASTWSGI_THREADS=8"),
    )
    yield from entry(bold(COMMAND_LINE), plain("a piece of command line: --threads 8 --preload"))
    for option in OPTIONS.values():
        if option.variable:
            yield from entry(
                bold(option.variable.name),
                plain(f"{option.flags[-1]}, if neither that nor a FASTWSGI_ variable is given"),
            )


def files() -> Iterator[str]:
    yield from entry(
        f"{bold('fastwsgi.toml')}, {bold('pyproject.toml')}",
        plain("settings, in the current directory; of the second the table [tool.fastwsgi]"),
    )


def part(heading: str) -> str:
    """What is below a heading of docs/operating.md."""
    text = OPERATING.read_text(encoding="utf-8")
    return re.split(r"^#", re.split(rf"^##+ {heading}\n+", text, flags=re.MULTILINE)[1], flags=re.MULTILINE)[
        0
    ]


def text_of(markdown: str) -> Iterator[str]:
    for one in markdown.strip().split("\n\n"):
        yield from (".PP", marked(" ".join(one.split())))


def entry(left: str, right: str) -> list[str]:
    return [".TP", left, right]


def bold(text: str) -> str:
    return f"\\fB{plain(text)}\\fR"


def plain(text: str) -> str:
    """Text as roff prints it: signs that it would take for something else, and no command at its begin."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("^", r"\(ha").replace("~", r"\(ti")
    text = text.replace("'", r"\(aq").replace("`", r"\(ga")
    return rf"\&{text}" if text.startswith(".") else text


def marked(markdown: str) -> str:
    """A line of Markdown: code and what is strong in bold, links without where they lead."""
    markdown = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", markdown)
    pieces = re.split(r"`([^`]+)`|\*\*([^*]+)\*\*", markdown)
    text = ""
    for number, piece in enumerate(pieces):
        if piece:
            text += plain(piece) if number % 3 == 0 else bold(piece)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
