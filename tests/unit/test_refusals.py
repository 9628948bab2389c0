"""The table of refusals."""

from http import HTTPStatus

import pytest

from fastwsgi import _refusals
from fastwsgi._refusals import REFUSALS


def test_every_reason_has_its_row():
    names = {name for name in vars(_refusals) if name.startswith("REFUSAL_")} - {"REFUSAL_END"}
    assert names == set(REFUSALS)


def test_rows_are_in_the_order_of_the_enum():
    assert [int(getattr(_refusals, name)) for name in REFUSALS] == list(range(1, len(REFUSALS) + 1))
    assert int(_refusals.REFUSAL_END) == len(REFUSALS) + 1


@pytest.mark.parametrize("name", REFUSALS)
def test_row(name):
    status, phrase, text = REFUSALS[name]
    assert 400 <= status <= 599
    renamed = {413: "Content Too Large", 414: "URI Too Long"}
    assert phrase == renamed.get(status, HTTPStatus(status).phrase)
    assert text.isprintable() and text.isascii() and not text.endswith(".")


def test_texts_differ():
    assert len({text for _, _, text in REFUSALS.values()}) == len(REFUSALS)
