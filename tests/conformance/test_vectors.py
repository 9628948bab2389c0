"""The vectors held against the grammar of the standards, and the document that lists them."""

import json
import re

import pytest

from conformance.grammar import judge
from conformance.index import DOCUMENT, VECTORS, with_index
from conformance.sections import REASONS, TITLES

# Accepted although RFC 3986 wants these octets percent-encoded: browsers and common libraries send them so.
# RFC 9112, 3, says that they should be refused; nothing says that they must.
RAW_IN_TARGET = {
    "json-in-query",
    "malformed-percent-in-query",
    "octet-ff",
    "octets-browsers-leave-raw-in-path",
    "raw-utf8-path",
    "raw-utf8-query",
    "visible-octets-in-query",
}


def vectors(kind):
    return [
        pytest.param(file.with_suffix(".http"), json.loads(file.read_text()), id=file.stem)
        for file in sorted(VECTORS.glob(f"{kind}/*/*.json"))
    ]


@pytest.mark.parametrize("file, expected", vectors("accept"))
def test_what_is_accepted_is_a_request(file, expected):
    count, fault = judge(file.read_bytes())
    if file.stem in RAW_IN_TARGET:
        assert fault.section == "9112 3.2"
        assert not fault.must
    else:
        assert fault is None
        assert count == len(expected["requests"])


@pytest.mark.parametrize("file, expected", vectors("reject"))
def test_a_refusal_has_its_section(file, expected):
    """Either it is no request, or a section says that the server need not take it."""
    count, fault = judge(file.read_bytes())
    before = expected.get("requests_before", 0)
    assert expected["reason"] in REASONS
    if fault:
        assert count == before


def test_every_vector_has_its_section():
    sections = {json.loads(file.read_text())["rfc"] for file in VECTORS.glob("*/*/*.json")}
    sections |= {section for section, _why in REASONS.values()}
    assert sections == set(TITLES)


def test_the_index_is_up_to_date():
    text = DOCUMENT.read_text()
    assert text == with_index(text), "run `make index`"


def test_every_advisory_has_its_vectors():
    table = DOCUMENT.read_text().partition("## Advisories")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) > 50
    for row in rows:
        named = re.findall(r"`((?:accept|reject)/[\w/.-]+)`", row)
        assert named, row
        assert all((VECTORS / f"{name}.http").exists() for name in named), row
