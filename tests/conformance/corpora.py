"""Requests out of the test suites of other servers, each with what that suite expects of it.

A suite is a checkout in a folder of its own, known by what is in it. What it has as data is read as data; of
tests that are programs the string literals are taken that begin with a request line. Nothing is executed.
"""

import ast
import json
import re
from typing import NamedTuple

REQUEST_LINE = re.compile(rb"[^\r\n]* HTTP/[0-9]\.[0-9]\r?\n")
UNESCAPED = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "0": "\0",
    "e": "\x1b",
    "v": "\v",
    "f": "\f",
    "b": "\b",
    "a": "\a",
}
REFUSALS = {400, 413, 414, 417, 431, 501, 505}
ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|u\{?([0-9A-Fa-f]{2,4})\}?|\n[ \t]*|(.))", re.DOTALL)


class Sample(NamedTuple):
    name: str
    octets: bytes
    verdict: str | None
    """What the suite expects: "accept" or "refuse"; None if it is not told in a way that can be read."""


def place(file, text, found):
    """File and line of a match in its text."""
    return f"{file.stem}:{text.count(chr(10), 0, found.start()) + 1}"


def unescape(text):
    """The value of a string literal of C, Ruby, Rust or JavaScript, as octets."""

    def replace(found):
        hexadecimal = found[1] or found[2]
        if hexadecimal:
            return chr(int(hexadecimal, 16))
        return UNESCAPED.get(found[3], found[3]) if found[3] else ""

    return ESCAPE.sub(replace, text).encode(
        "utf-8" if re.search(r"[^\x00-\xff]", text) else "latin-1", "replace"
    )


def gunicorn(root):
    """tests/requests/valid and invalid: line ends are written out, those of the file mean nothing."""
    for kind, verdict in (("valid", "accept"), ("invalid", "refuse")):
        for file in sorted(root.glob(f"tests/requests/{kind}/*.http")):
            text = file.read_bytes().replace(b"\n", b"").decode("latin-1")
            yield Sample(f"{kind}/{file.stem}", unescape(text), verdict)


def llhttp(root):
    """Markdown: a request in a block, and in the next the events it has to cause; an error refuses it."""
    block = re.compile(r"<!-- meta=([^\n]*?) -->\n```http\n(.*?)\n```\n\n```log\n(.*?)\n```", re.DOTALL)
    for file in sorted(root.glob("test/request/*.md")):
        for number, (meta, text, log) in enumerate(block.findall(file.read_text())):
            if not json.loads(meta)["type"].startswith("request"):
                continue
            # As its own tests do it: first the escapes of the file's line ends, then what is written out.
            text = re.sub(r"\\\n", "", text).replace("\r\n", "\n").replace("\n", "\r\n")
            lenient = "lenient" in meta
            verdict = None if lenient else "refuse" if "error code" in log else "accept"
            yield Sample(f"{file.stem}/{number}", unescape(text), verdict)


def http_garden(root):
    """The list of bugs found with it: each has a payload that servers read in different ways."""
    for number, line in enumerate(re.findall(r"- Payload: (.*)", (root / "TROPHIES.md").read_text())):
        for text in re.findall("`(.*?)`", line):
            yield Sample(f"bug/{number}", unescape(text), None)


def h1spec(root):
    """Its table of test cases: a request in a string literal, then the ranges of the status code."""
    case = re.compile(
        r'request: "((?:[^"\\]|\\.)*)",\s*description: "(.*?)",\s*expectedStatus: (\[\[.*?\]\])'
    )
    for text, name, ranges in case.findall((root / "http_test.ts").read_text()):
        least = [low for low, _high in json.loads(ranges)]
        verdict = "refuse" if min(least) >= 400 else "accept" if max(least) < 400 else None
        yield Sample(name, unescape(text), verdict)


def smuggler(root):
    """Ways to disguise Transfer-Encoding; the loops over octets are those of the tool."""
    for file in sorted(root.glob("configs/*.py")):
        for number, line in enumerate(file.read_text().splitlines()):
            found = re.search(r'render_template\((".*?(?<!\\)")(%\(i.*?\))?\)', line)
            if found:
                text = ast.literal_eval(found[1]).encode("latin-1", "replace")
                octets = [*range(1, 0x20), *range(0x7F, 0x100)] if found[2] else [None]
                for octet in octets:
                    field = text.replace(b"%c", bytes([octet or 0]))
                    for content in (b"0\r\n\r\n", b"5\r\nGPOST\r\n0\r\n\r\n"):
                        head = b"POST / HTTP/1.1\r\n%b\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
                        name = f"{file.stem}/{number}/{octet}/{len(content)}"
                        yield Sample(name, head % (field, len(content)) + content, None)


def constant(node):
    """The string or bytes of an expression: a literal, a sum of them, or a list of them that is joined."""
    match node:
        case ast.Constant(value=bytes() | str() as value):
            return value if isinstance(value, bytes) else value.encode("latin-1", "replace")
        case ast.BinOp(left, ast.Add(), right):
            parts = [constant(left), constant(right)]
            return None if None in parts else b"".join(parts)
        case ast.Call(ast.Attribute(separator, "join"), [ast.List(members) | ast.Tuple(members)]):
            parts = [constant(member) for member in members]
            between = constant(separator)
            return None if between is None or None in parts else between.join(parts)
    return None


def constants(node):
    """(line, value) of each such expression that is no part of another."""
    octets = constant(node)
    if octets is not None:
        yield node.lineno, octets
        return
    for child in ast.iter_child_nodes(node):
        yield from constants(child)


def python_literals(root):
    for file in sorted([*root.rglob("test_*.py"), *root.rglob("*_test.py")]):
        for line, octets in constants(ast.parse(file.read_bytes())):
            if REQUEST_LINE.match(octets):
                yield Sample(f"{file.stem}:{line}", octets, None)


RUBY_STRING = r"""(?:"(?:[^"\\]|\\.)*"|'[^'\n]*')"""
RUBY_LIST = rf"\[\s*({RUBY_STRING}(?:,\s*{RUBY_STRING})*)\s*\]\.join \"\\r\\n\""
RUBY_STRINGS = rf"({RUBY_STRING}(?:\s*\\\n\s*{RUBY_STRING})*)"
RUBY_STEP = re.compile(rf"(\w+)\s*=\s*(?:{RUBY_LIST}|{RUBY_STRINGS})|(\w*)\s*\(?{RUBY_STRINGS}")


def interpolate(literals, known, between=""):
    """The text of Ruby literals, still escaped, with the strings whose names are in them put there."""
    text = between.join(literal[1:-1] for literal in re.findall(RUBY_STRING, literals))
    return re.sub(r"#\{(\w+)\}", lambda found: known.get(found[1], found[0]), text)


def ruby_literals(root):
    """With the verdict of the assertion a request stands in."""
    for file in sorted(root.glob("test/**/test*.rb")):
        text = file.read_text()
        known = {}
        for found in RUBY_STEP.finditer(text):
            name, members, assigned, function, literals = found.groups()
            value = interpolate(members or assigned or literals, known, "\\r\\n" if members else "")
            if name:
                known[name] = value
            octets = unescape(value)
            if (literals or name == "request") and b"#{" not in octets and REQUEST_LINE.match(octets):
                yield Sample(
                    place(file, text, found), octets, "refuse" if function == "assert_invalid" else None
                )


def rust_literals(root):
    for file in sorted([*root.rglob("tests/*.rs"), *root.rglob("src/lib.rs"), *root.rglob("src/**/h1/*.rs")]):
        text = file.read_text()
        for found in re.finditer(r'"((?:[^"\\]|\\.)*)"', text, re.DOTALL):
            octets = unescape(found[1])
            if REQUEST_LINE.match(octets):
                yield Sample(place(file, text, found), octets, None)


C_STRING = r'"(?:[^"\\\n]|\\.)*"'
C_STRINGS = rf"{C_STRING}(?:\s*,?\s*{C_STRING})*"


def joined(literals):
    return unescape("".join(part[1:-1] for part in re.findall(C_STRING, literals)))


def lighttpd(root):
    """Calls with the status code that has to come of a request, 0 for none."""
    call = re.compile(
        rf"run_http_request_parse\(r, __LINE__, ([0-9]+),\s*({C_STRING}),\s*CONST_STR_LEN\(({C_STRINGS})\)"
    )
    for status, name, literals in call.findall((root / "src/t/test_request.c").read_text()):
        yield Sample(name[1:-1], joined(literals), "accept" if int(status) < 400 else "refuse")


def cowboy(root):
    """Its suite for RFC 7230: a request, matched against the status code it has to be answered with."""
    call = re.compile(rf"code := ([0-9]+)[^}}]*}} = do_raw\(Config,\s*\[?\s*({C_STRINGS})\s*\]?\)")
    for file in sorted(root.glob("test/rfc7230_SUITE.erl")):
        text = file.read_text()
        for found in call.finditer(text):
            status = int(found[1])
            # 404 and the like come from its application, which this is not.
            verdict = "accept" if status < 400 else "refuse" if status in REFUSALS else None
            yield Sample(place(file, text, found), joined(found[2]), verdict)


def http11probe(root):
    """Test cases in C#, but for those whose request is put together; no verdict where it is a function."""
    request = re.compile(rf"MakeRequest\(\s*\$?({C_STRING}(?:\s*\+\s*\$?{C_STRING})*)\)")
    for file in sorted(root.rglob("*Suite.cs")):
        for case in file.read_text().split("new TestCase\n")[1:]:
            found = request.search(case)
            literals = (
                found[1].replace("{ctx.HostHeader}", "a").replace("{{", "{").replace("}}", "}")
                if found
                else ""
            )
            status = re.search(r"ExpectedStatus = StatusCodeRange\.(?:Exact\(|Range)([245])", case)
            if found and "{ctx." not in literals:
                verdict = None if status is None else "accept" if status[1] == "2" else "refuse"
                yield Sample(re.search(r'Id = "(.*?)"', case)[1], joined(literals), verdict)


def c_literals(root):
    for file in sorted(root.glob("*test*.c")):
        text = file.read_text()
        for found in re.finditer(rf"{C_STRING}(?:\s*{C_STRING})*", text):
            octets = joined(found[0])
            if REQUEST_LINE.match(octets):
                yield Sample(place(file, text, found), octets, None)


def perl_literals(root):
    """Literals and the word CRLF, joined by points."""
    part = r"""(?:'[^'\n]*'|"(?:[^"\\\n$@]|\\.)*"|CRLF)"""
    for file in sorted(root.glob("*.t")):
        text = file.read_text(errors="replace")
        for found in re.finditer(rf"{part}(?:\s*\.\s*{part})+", text):
            parts = re.findall(part, found[0])
            octets = b"".join(b"\r\n" if each == "CRLF" else unescape(each[1:-1]) for each in parts)
            if REQUEST_LINE.match(octets):
                yield Sample(place(file, text, found), octets, None)


# Name, a file by which a checkout is known, and how to read it.
READERS = [
    ("gunicorn", "tests/requests/invalid", gunicorn),
    ("llhttp (Node.js)", "test/request/invalid.md", llhttp),
    ("http-parser (Node.js)", "http_parser.gyp", c_literals),
    ("puma", "lib/puma.rb", ruby_literals),
    ("waitress", "src/waitress", python_literals),
    ("cheroot", "cheroot", python_literals),
    ("aiohttp", "aiohttp", python_literals),
    ("uvicorn", "uvicorn", python_literals),
    ("h11", "h11", python_literals),
    ("tornado", "tornado", python_literals),
    ("twisted", "src/twisted", python_literals),
    ("cowboy", "test/rfc7230_SUITE.erl", cowboy),
    ("lighttpd", "src/t/test_request.c", lighttpd),
    ("nginx-tests", "lib/Test/Nginx.pm", perl_literals),
    ("hyper", "src/proto/h1", rust_literals),
    ("httparse", "src/simd", rust_literals),
    ("picohttpparser", "picohttpparser.c", c_literals),
    ("http-garden", "TROPHIES.md", http_garden),
    ("Http11Probe", "Http11Probe.slnx", http11probe),
    ("h1spec", "http_test.ts", h1spec),
    ("smuggler", "configs/exhaustive.py", smuggler),
]


def read(directory):
    """(name, samples) of each corpus among the folders of a directory; each sequence of octets once."""
    for name, sign, reader in READERS:
        for root in sorted(directory.iterdir()):
            if (root / sign).exists():
                samples = {}
                for sample in reader(root):
                    known = samples.setdefault(sample.octets, sample)
                    if known.verdict is None:
                        samples[sample.octets] = sample
                yield name, list(samples.values())
