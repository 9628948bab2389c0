"""Hooks of MkDocs: what makes a site of docs/, and of what lies outside of it and is linked from there.

Pages are written for whoever reads them in a checkout: links go to files of the project. In the site the
README is the first page, other Markdown keeps its path, and sources are copied as text.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
# Files that are copied as they are; all other sources become text.
AS_THEY_ARE = {".md", ".svg", ".png"}

FENCED = re.compile(r"^( *)(```+)[^\n]*\n.*?^ *\2`*[ \t]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?:(?: {4}|\t)[^\n]*(?:\n|\Z)|[ \t]*\n(?= {4}))+")
FETCHED = re.compile(r'<(?:script|img|iframe|link)[^>]* (?:src|href)="https?:[^>]*>')
LINK = re.compile(r"(?<!\\)(\]\()([^()\s]+)(\))")


class Link(NamedTuple):
    """A link of a page: where its target begins and ends in the text, the file it names and the anchor."""

    start: int
    end: int
    path: str
    anchor: str


def prose(text: str) -> str:
    """A page with its code blanked out, as long as it was."""
    for pattern in (FENCED, INDENTED, CODE):
        text = pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    return text


def links(text: str) -> Iterator[Link]:
    """The links of a page that are not to another site."""
    for match in LINK.finditer(prose(text)):
        path, _, anchor = match[2].partition("#")
        if not re.match(r"[a-z]+:", path):
            yield Link(match.start(2), match.end(2), path, anchor)


def named(page: str, path: str) -> str:
    """The file of the project that a link on a page means."""
    return os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page


def place(file: str) -> str:
    """Where a file of the project is in the site."""
    if file == "README.md":
        return "index.md"
    if file.startswith(DOCS):
        return file.removeprefix(DOCS)
    if os.path.splitext(file)[1] in AS_THEY_ARE:
        return file
    return f"source/{file}.txt"


def linked(pages: list[str]) -> set[str]:
    """The files outside of docs/ that pages lead to, by other such files as well."""
    found: set[str] = set()
    while pages:
        page = pages.pop()
        for link in links((ROOT / page).read_text(encoding="utf-8")):
            file = named(page, link.path)
            if file not in found and not file.startswith(DOCS) and (ROOT / file).is_file():
                found.add(file)
                if file.endswith(".md"):
                    pages.append(file)
    return found


def converted(text: str, page: str) -> str:
    """The text of a page of the project as it is in the site."""
    here = os.path.dirname(place(page))
    parts, end = [], 0
    for link in links(text):
        file = named(page, link.path)
        target = os.path.relpath(place(file), here or ".") if link.path else ""
        if (ROOT / file).is_dir():
            # There is nothing to show: the first page will do.
            target = os.path.relpath("index.md", here or ".")
        parts += [text[end : link.start], target, f"#{link.anchor}" if link.anchor else ""]
        end = link.end
    text = "".join([*parts, text[end:]])
    # Markdown within tables of HTML; and bars in code, which need no backslash here.
    text = re.sub(r"^(?:</td>)?<t.*$", opened, text, flags=re.MULTILINE)
    return re.sub(r"^\|.*$", unescaped, text, flags=re.MULTILINE)


def opened(row: re.Match[str]) -> str:
    return re.sub(r"<(table|tr|th|td)>", r'<\1 markdown="1">', row[0])


def unescaped(row: re.Match[str]) -> str:
    return re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), row[0])


def source_of(file: Any) -> str:
    """The file of the project that a page of the site is made of."""
    return os.path.relpath(file.abs_src_path, ROOT)


# What MkDocs calls. Its types are not needed for what is done with them here.


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    pages = [source_of(file) for file in files.documentation_pages()]
    for file in sorted(linked(["README.md", "CHANGELOG.md", "CONTRIBUTING.md", *pages]) | {"README.md"}):
        files.append(File.generated(config, place(file), abs_src_path=str(ROOT / file)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    return converted(markdown, source_of(page.file))


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Stop where reading a page would fetch something from another site."""
    from mkdocs.exceptions import PluginError

    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} fetches {found[0]}")
    return output
