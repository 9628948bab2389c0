"""What a file is, by its name."""

import pytest

from fastwsgi._types import content_type, is_hashed


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        (b"index.html", "text/html; charset=utf-8"),
        (b"A.JS", "text/javascript; charset=utf-8"),
        (b"a/b.c/style.min.css", "text/css; charset=utf-8"),
        (b"font.woff2", "font/woff2"),
        (b"logo.svg", "image/svg+xml"),
        (b"module.wasm", "application/wasm"),
        (b"a.json", "application/json"),
        (b"no-ending", "application/octet-stream"),
        (b"a.js/no-ending", "application/octet-stream"),
        (b"x.", "application/octet-stream"),
        (b"x.an-ending-of-many-letters", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_content_type(name, type_):
    assert content_type(name) == type_


@pytest.mark.parametrize(
    ("name", "hashed"),
    [
        (b"app.3f2a9c1b.js", True),
        (b"css/base.0123abcd4567.css", True),
        (b"logo-d41d8cd98f00b204e9800998ecf8427e.png", True),
        (b"index-BXKz3j9a.js", True),
        (b"chunk-7HX2SDFA.js", True),
        (b"style.BXKz3j9a.css", True),
        (b"report-Q3Budget.pdf", False),
        (b"jquery-3.7.1.min.js", False),
        (b"report-20240101.pdf", False),
        (b"deadbeef1.js", False),
        (b"a.facade12", False),
        (b"3f2a9c1b/app.js", False),
        (b"app.deadbeef.js", False),
        (b"", False),
    ],
)
def test_a_hash_in_the_name(name, hashed):
    assert is_hashed(name) is hashed
