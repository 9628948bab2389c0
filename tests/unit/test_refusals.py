"""The table of refusals."""

from http import HTTPStatus

import pytest

from fastwsgi._refusals import REFUSALS, refusal_t


def test_every_reason_has_its_row():
    assert [reason.name for reason in refusal_t] == [*REFUSALS, "REFUSAL_END"]
    assert list(refusal_t) == list(range(1, len(REFUSALS) + 2))


@pytest.mark.parametrize("name", REFUSALS)
def test_row(name):
    status, phrase, text = REFUSALS[name]
    assert 400 <= status <= 599
    renamed = {413: "Content Too Large", 414: "URI Too Long"}
    assert phrase == renamed.get(status, HTTPStatus(status).phrase)
    assert text.isprintable() and text.isascii() and not text.endswith(".")


def test_texts_differ():
    assert len({text for _, _, text in REFUSALS.values()}) == len(REFUSALS)
