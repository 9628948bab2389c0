"""Who may see pages of what an application raises, and what they say."""

import pytest

from fastwsgi.pages import Page, is_local_name, is_loopback, may_see
from fastwsgi.reloader import Code


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("LOCALHOST.:80", True),
        ("a.b.localhost", True),
        ("127.0.0.1:8000", True),
        ("127.8.9.1", True),
        ("[::1]", True),
        ("[::1]:8000", True),
        ("", False),
        ("localhost.example", False),
        ("xlocalhost", False),
        ("127.0.0.1.example:8000", False),
        ("192.0.2.1", False),
        ("[::2]:80", False),
        ("example:8000", False),
        ("0.0.0.0:8000", False),
    ],
)
def test_names_of_this_machine(host, is_local):
    assert is_local_name(host) is is_local


def test_who_may_see():
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:8000"}
    assert may_see(environ)
    assert may_see({**environ, "REMOTE_ADDR": "::1"})
    assert is_loopback("::ffff:127.0.0.1")
    assert not may_see({**environ, "REMOTE_ADDR": "192.0.2.1"})
    assert not may_see({**environ, "REMOTE_ADDR": ""})
    assert not may_see({**environ, "HTTP_HOST": "evil.example"})
    assert not may_see({**environ, "fastwsgi.peer_addr": "127.0.0.1"})
    assert not may_see({})


def answer(error, method="GET", accept="text/html", shows=True, code=None, what="loading failed"):
    environ = {"REQUEST_METHOD": method, "HTTP_ACCEPT": accept, "SCRIPT_NAME": '/a"b\xe9'}
    fields, content = Page(what, error).answer(environ, code, shows=shows)
    assert dict(fields)["Content-Length"] == str(len(content))
    return content.decode()


def test_pages():
    code = Code()
    try:
        raise LookupError("</script><b>\u20ac \udc80")
    except LookupError as raised:
        error = raised
    page = answer(error, code=code)
    assert "<title>LookupError: &lt;/script&gt;&lt;b&gt;\u20ac \\udc80</title>" in page
    assert page.count("</script>") == 1
    assert 'fetch("/a%22b%E9/.fastwsgi/edition"' in page
    assert code.token in page
    assert "raise LookupError(&quot;&lt;/script&gt;" in page
    assert "<script>" not in answer(error, method="POST", code=code)
    assert "<script>" not in answer(error)
    hidden = answer(error, code=code, shows=False)
    assert "LookupError" not in hidden
    assert code.token in hidden
    text = answer(error, accept="*/*")
    assert text.startswith("loading failed\n\nTraceback (most recent call last):\n")
    assert answer(error, accept="*/*", shows=False).startswith("The application has failed")
    assert "<pre>" not in answer(None)
    code.close()


def test_the_headline_of_a_syntax_error():
    try:
        compile("def (", "wrong.py", "exec")
    except SyntaxError as error:
        page = answer(error)
    assert "<h1>SyntaxError: " in page
    assert "<b>  File &quot;wrong.py&quot;, line 1</b>" in page
