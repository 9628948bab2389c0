"""Other servers' test suites, read and sent: here with small ones of our own, in the forms of theirs."""

import pytest

from conformance.__main__ import main
from conformance.corpora import read

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
TWO_HOSTS = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"

# Each has the two requests above, in the files of which one is the sign of that suite.
SUITES = {
    "gunicorn": {
        "tests/requests/valid/1.http": r"""GET / HTTP/1.1\r\n
Host: a\r\n
\r\n
""",
        "tests/requests/invalid/1.http": r"""GET / HTTP/1.1\r\n
Host: a\r\nHost: b\r\n
\r\n
""",
    },
    "llhttp (Node.js)": {
        "test/request/invalid.md": r"""
<!-- meta={"type": "request"} -->
```http
GET / HTTP/1.1
Host: a


```

```log
off=0 message begin
```

<!-- meta={"type": "request"} -->
```http
GET / HTTP/1.1
Host: a\r\nHost: \
b


```

```log
off=0 error code=1
```
""",
    },
    "puma": {
        "lib/puma.rb": "",
        "test/test_x.rb": r"""
LINE = "GET / HTTP/1.1\r\n"
hosts = ['Host: a', 'Host: b'].join "\r\n"
send_http "#{LINE}Host: a\r\n" \
  "\r\n"
assert_invalid "#{LINE}#{hosts}\r\n\r\n", "two"
""",
    },
    "waitress": {
        "src/waitress/__init__.py": "",
        "tests/test_x.py": r"""
a = b"GET / HTTP/1.1\r\n" + b"Host: a\r\n\r\n"
b = b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", b"Host: b", b"", b""])
""",
    },
    "lighttpd": {
        "src/t/test_request.c": r"""
run_http_request_parse(r, __LINE__, 0, "one",
  CONST_STR_LEN("GET / HTTP/1.1\r\n"
                "Host: a\r\n\r\n"));
run_http_request_parse(r, __LINE__, 400, "two",
  CONST_STR_LEN("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"));
""",
    },
    "cowboy": {
        "test/rfc7230_SUITE.erl": r"""
#{code := 200} = do_raw(Config,
  "GET / HTTP/1.1\r\n"
  "Host: a\r\n\r\n").
#{code := 400, client := C} = do_raw(Config, [
  "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"]).
""",
    },
    "nginx-tests": {
        "lib/Test/Nginx.pm": "",
        "x.t": r"""
http('GET / HTTP/1.1' . CRLF . 'Host: a' . CRLF . CRLF);
http('GET / HTTP/1.1' . CRLF
  . 'Host: a' . CRLF . "Host: b\r\n" . CRLF);
""",
    },
    "httparse": {
        "src/simd/x": "",
        "tests/x.rs": r"""
b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
b"GET / HTTP/1.1\r\n\
  Host: a\r\nHost: b\r\n\r\n"
""",
    },
    "picohttpparser": {
        "picohttpparser.c": "",
        "test.c": r"""
PARSE("GET / HTTP/1.1\r\n" "Host: a\r\n\r\n");
PARSE("GET / HTTP/1.1\r\nHost: a\r\nHost: \x62\r\n\r\n");
""",
    },
    "http-garden": {
        "TROPHIES.md": r"""
  - Payload: `GET / HTTP/1.1\r\nHost: a\r\n\r\n`
  - Payload: `GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n`
""",
    },
    "Http11Probe": {
        "Http11Probe.slnx": "",
        "OneSuite.cs": r"""
yield return new TestCase
{
    Id = "ONE",
    PayloadFactory = ctx => MakeRequest($"GET / HTTP/1.1\r\nHost: {ctx.HostHeader}\r\n\r\n"),
    ExpectedStatus = StatusCodeRange.Range2xx
};
yield return new TestCase
{
    Id = "TWO",
    PayloadFactory = ctx => MakeRequest(
        $"GET / HTTP/1.1\r\nHost: a\r\n" + "Host: b\r\n\r\n"),
    ExpectedStatus = StatusCodeRange.Exact(400)
};
""",
    },
    "h1spec": {
        "http_test.ts": r"""
    {
        request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        description: "one",
        expectedStatus: [[200, 299]],
    },
    {
        request: "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        description: "two",
        expectedStatus: [[400, 499]],
    },
""",
    },
}
WITH_VERDICT = {"gunicorn", "llhttp (Node.js)", "lighttpd", "cowboy", "Http11Probe", "h1spec"}


def write(directory, files):
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_read(tmp_path, name):
    write(tmp_path / "suite", SUITES[name])
    [(found, samples)] = read(tmp_path)
    assert found == name
    assert {sample.octets for sample in samples} == {GET, TWO_HOSTS}
    verdicts = {sample.octets: sample.verdict for sample in samples}
    if name in WITH_VERDICT:
        assert verdicts == {GET: "accept", TWO_HOSTS: "refuse"}
    elif name == "puma":
        assert verdicts == {GET: None, TWO_HOSTS: "refuse"}
    else:
        assert set(verdicts.values()) == {None}


def test_smuggler_is_read(tmp_path):
    write(
        tmp_path / "suite",
        {"configs/exhaustive.py": 'a = render_template("X : y")\nb = render_template("X%c: y"%(i))\n'},
    )
    [(_name, samples)] = read(tmp_path)
    assert len(samples) == 2 * (1 + 31 + 129)
    assert b"POST / HTTP/1.1\r\nX : y\r\nHost: a\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" in {
        sample.octets for sample in samples
    }


def test_suites_are_sent_to_a_server(tmp_path, capsys):
    for name, files in SUITES.items():
        write(tmp_path / name, files)
    assert main(tmp_path) == 0
    count = 2 * len(SUITES)
    assert f"| all | {count} | {count} | 0 | 0 | 0 | 0 | 0 | 0 |" in capsys.readouterr().out


def test_a_difference_without_explanation_is_a_failure(tmp_path, capsys):
    write(
        tmp_path / "gunicorn",
        {"tests/requests/invalid/1.http": "GET /\\x21 HTTP/1.1\\r\\nHost: a\\r\\nX: y\\r\\n\\r\\n"},
    )
    assert main(tmp_path) == 1
    assert "| not explained | 1 |" in capsys.readouterr().out
