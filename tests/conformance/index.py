"""Writes the vectors by section into docs/conformance.md: python -m conformance.index"""

import json
from collections import defaultdict
from pathlib import Path

from conformance.sections import TITLES

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
DOCUMENT = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- index: begin -->\n", "<!-- index: end -->\n"


def section_key(section):
    rfc, number = section.split()
    return int(rfc), [int(part) for part in number.split(".")]


def index():
    """The vectors as Markdown, by section, in the order of the standards."""
    found = defaultdict(lambda: defaultdict(list))
    for file in sorted(VECTORS.glob("*/*/*.json")):
        kind, topic, name = file.with_suffix("").parts[-3:]
        found[json.loads(file.read_text())["rfc"]][f"{kind}/{topic}"].append(name)
    lines = []
    for section in sorted(found, key=section_key):
        rfc, number = section.split()
        count = sum(map(len, found[section].values()))
        lines.append(f"**RFC {rfc}, {number}: {TITLES[section]}** ({count})\n")
        lines += [f"- {folder}: {', '.join(names)}" for folder, names in found[section].items()]
        lines.append("")
    return "\n".join(lines)


def with_index(text):
    """The text of the document with the index as it is now."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + index() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    DOCUMENT.write_text(with_index(DOCUMENT.read_text()))
