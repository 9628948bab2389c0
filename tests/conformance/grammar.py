"""The grammar of a request as the standards collect it, and nothing else: what does not match is no request.

RFC 9112, RFC 9110 and RFC 3986, rule by rule, as regular expressions. Of the leniencies of RFC 9112, 2.2,
there is the one that it asks for: empty lines before a request line. It shares nothing with the parser, and
nothing with tests/unit/reference.py, which describes what the parser does.
"""

import re
from typing import NamedTuple


class Fault(NamedTuple):
    section: str
    text: str
    must: bool
    """The standard says that such a request must be refused; otherwise it matches no rule, and should be."""


# RFC 3986, appendix A.
UNRESERVED = r"[A-Za-z0-9\-._~]"
PERCENT = r"%[0-9A-Fa-f]{2}"
SUB_DELIMS = r"[!$&'()*+,;=]"
PCHAR = rf"(?:{UNRESERVED}|{PERCENT}|{SUB_DELIMS}|[:@])"
PATH_ABEMPTY = rf"(?:/{PCHAR}*)*"
QUERY = rf"(?:{PCHAR}|[/?])*"
OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = rf"{OCTET}(?:\.{OCTET}){{3}}"
H16 = "[0-9A-Fa-f]{1,4}"
LS32 = f"(?:{H16}:{H16}|{IPV4})"
IPV6 = "(?:{})".format(
    "|".join(
        [
            f"(?:{H16}:){{6}}{LS32}",
            f"::(?:{H16}:){{5}}{LS32}",
            f"(?:{H16})?::(?:{H16}:){{4}}{LS32}",
            f"(?:(?:{H16}:){{0,1}}{H16})?::(?:{H16}:){{3}}{LS32}",
            f"(?:(?:{H16}:){{0,2}}{H16})?::(?:{H16}:){{2}}{LS32}",
            f"(?:(?:{H16}:){{0,3}}{H16})?::{H16}:{LS32}",
            f"(?:(?:{H16}:){{0,4}}{H16})?::{LS32}",
            f"(?:(?:{H16}:){{0,5}}{H16})?::{H16}",
            f"(?:(?:{H16}:){{0,6}}{H16})?::",
        ]
    )
)
IPVFUTURE = rf"v[0-9A-Fa-f]+\.(?:{UNRESERVED}|{SUB_DELIMS}|:)+"
REG_NAME = rf"(?:{UNRESERVED}|{PERCENT}|{SUB_DELIMS})*"
HOST = rf"(?:\[(?:{IPV6}|{IPVFUTURE})\]|{REG_NAME})"
PORT = "[0-9]*"
SCHEME = r"[A-Za-z][A-Za-z0-9+\-.]*"
USERINFO = rf"(?:{UNRESERVED}|{PERCENT}|{SUB_DELIMS}|:)*"

# RFC 9110, 5.6 and 5.5.
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
OWS = r"[ \t]*"
QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
VALUE = r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"

# RFC 9112, 3 and 5. The value of "HTTP-version" is case-sensitive.
ORIGIN_FORM = rf"(?:/{PCHAR}*)+(?:\?{QUERY})?"
ABSOLUTE_FORM = rf"{SCHEME}:(?://(?:{USERINFO}@)?{HOST}(?::{PORT})?)?{PATH_ABEMPTY}(?:\?{QUERY})?"
# What browsers and common libraries send without encoding it; a "%" with nothing to decode after it too.
RAW = r"[\"<>\\^`{|}\[\]\x80-\xff]|%(?![0-9A-Fa-f]{2})"
AUTHORITY_FORM = f"{HOST}:{PORT}"
REQUEST_LINE = rf"({TOKEN}) (.*) HTTP/([0-9])\.([0-9])"
FIELD_LINE = f"({TOKEN}):{OWS}({VALUE}){OWS}"
UNIQUE_HOST = f"{HOST}(?::{PORT})?"

# RFC 9112, 6.1 and 7.1.
PARAMETER = f"{TOKEN}{OWS}={OWS}(?:{TOKEN}|{QUOTED})"
CODING = f"({TOKEN})(?:{OWS};{OWS}{PARAMETER})*"
CHUNK_LINE = f"([0-9A-Fa-f]+)(?:{OWS};{OWS}{TOKEN}(?:{OWS}={OWS}(?:{TOKEN}|{QUOTED}))?)*"


class NotARequest(Exception):
    def __init__(self, section, text, must=False):
        super().__init__(text)
        self.fault = Fault(section, text, must)


class Incomplete(Exception):
    """So far it may be a request, but it is not all here."""


def match(rule, text):
    return re.fullmatch(rule, text, re.DOTALL)


def take_line(text):
    """The first line and what follows it. Only CRLF ends a line: another CR or LF is part of it."""
    line, end, rest = text.partition("\r\n")
    if not end:
        if "\n" in line or "\r" in line[:-1]:
            raise NotARequest("9112 2.2", "bare CR or LF", must="\r" in line[:-1])
        raise Incomplete
    return line, rest


def check_octets(line):
    """What RFC 9112, 2.2, and RFC 9110, 5.5, have to say of single octets."""
    if "\r" in line:
        raise NotARequest("9112 2.2", "bare CR", must=True)
    if "\n" in line:
        raise NotARequest("9112 2.2", "bare LF")
    if "\0" in line:
        raise NotARequest("9110 5.5", "NUL", must=True)


def read_request_line(line, takes_raw_target):
    """method, minor version."""
    check_octets(line)
    found = match(REQUEST_LINE, line)
    if not found:
        raise NotARequest("9112 3", "request line")
    method, target, major, minor = found.groups()
    if major != "1":
        raise NotARequest("9110 2.5", "major version")
    if takes_raw_target:
        target = re.sub(RAW, "x", target)
    if match(ORIGIN_FORM, target):
        wanted = method != "CONNECT"
    elif target == "*":
        wanted = method == "OPTIONS"
    elif method == "CONNECT":
        wanted = match(AUTHORITY_FORM, target)
    else:
        wanted = match(ABSOLUTE_FORM, target)
    if not wanted:
        raise NotARequest("9112 3.2", "request target")
    if re.match("(?i)https?:(?://(?:[/?:]|$)|/?(?!/))", target):
        raise NotARequest("9110 4.2.1", "http URI without a host", must=True)
    return method, int(minor)


def read_fields(text):
    """The field lines up to the empty line, as (lower-case name, value), and what follows."""
    fields = []
    while True:
        line, text = take_line(text)
        if not line:
            return fields, text
        if line[0] in " \t":
            if not fields:
                raise NotARequest("9112 2.2", "white space before the first field", must=True)
            raise NotARequest("9112 5.2", "line folding", must=True)
        check_octets(line)
        if match(rf"{TOKEN}[ \t]+:.*", line):
            raise NotARequest("9112 5.1", "white space before the colon", must=True)
        found = match(FIELD_LINE, line)
        if not found:
            raise NotARequest("9112 5", "field line")
        fields.append((found[1].lower(), found[2]))


def elements(rule, values, section, text):
    """The members of a list (RFC 9110, 5.6.1): empty ones are to be passed over."""
    members = [member.strip(" \t") for value in values for member in value.split(",")]
    found = [match(rule, member) for member in members if member]
    if not found or not all(found):
        raise NotARequest(section, text, must=True)
    return found


def content_framing(fields, minor):
    """None without content, "chunked", or the length (RFC 9112, 6.3)."""
    lengths = [value for name, value in fields if name == "content-length"]
    codings = [value for name, value in fields if name == "transfer-encoding"]
    if codings:
        if minor == 0:
            raise NotARequest("9112 6.1", "Transfer-Encoding in HTTP/1.0", must=True)
        if lengths:
            # A server may process it, but the standard says that it ought to be handled as an error.
            raise NotARequest("9112 6.3", "both framings", must=True)
        names = [found[1].lower() for found in elements(CODING, codings, "9112 6.1", "Transfer-Encoding")]
        if names[-1] != "chunked":
            raise NotARequest("9112 6.3", "chunked is not the last coding", must=True)
        if names.count("chunked") > 1:
            raise NotARequest("9112 6.1", "chunked more than once", must=True)
        if len(names) > 1:
            raise NotARequest("9112 6.1", "a coding that is not understood")
        return "chunked"
    if lengths:
        if "" in lengths:
            raise NotARequest("9112 6.3", "Content-Length", must=True)
        numbers = {found[0] for found in elements("[0-9]+", lengths, "9112 6.3", "Content-Length")}
        if len(numbers) > 1:
            raise NotARequest("9112 6.3", "Content-Lengths that differ", must=True)
        return int(numbers.pop())
    return None


def skip_chunked(text):
    """What follows the chunked content."""
    while True:
        line, text = take_line(text)
        check_octets(line)
        found = match(CHUNK_LINE, line)
        if not found:
            raise NotARequest("9112 7.1", "chunk size or extension")
        size = int(found[1], 16)
        if size == 0:
            return read_fields(text)[1]
        if len(text) < size + 2:
            if not "\r\n".startswith(text[size:]):
                raise NotARequest("9112 7.1", "chunk data")
            raise Incomplete
        if text[size : size + 2] != "\r\n":
            raise NotARequest("9112 7.1", "chunk data")
        text = text[size + 2 :]


def skip_request(text, takes_raw_target=False):
    """What follows the first request."""
    while text.startswith("\r\n"):
        text = text[2:]
    line, text = take_line(text)
    _method, minor = read_request_line(line, takes_raw_target)
    fields, text = read_fields(text)
    hosts = [value for name, value in fields if name == "host"]
    if len(hosts) > 1 or (minor > 0 and not hosts):
        raise NotARequest("9112 3.2", "no Host, or more than one", must=True)
    if hosts and not match(UNIQUE_HOST, hosts[0]):
        raise NotARequest("9112 3.2", "invalid Host", must=True)
    framing = content_framing(fields, minor)
    if framing == "chunked":
        return skip_chunked(text)
    if len(text) < (framing or 0):
        raise Incomplete
    return text[framing or 0 :]


def judge(octets):
    """How many complete requests there are one after the other, and the fault that ends them, or None."""
    text = octets.decode("latin-1")
    count = 0
    try:
        while text:
            text = skip_request(text)
            count += 1
    except NotARequest as wrong:
        return count, wrong.fault
    except Incomplete:
        pass
    return count, None


def find_fault(octets):
    """What is wrong with a request that was refused, maybe before its head had come; None if nothing is."""
    fault = judge(octets)[1]
    # Some things can be said only when the head has ended.
    return fault or judge(octets + b"\r\n")[1]


def behind(octets, count):
    """The octets behind so many requests, whose targets may have octets that they should not have raw."""
    text = octets.decode("latin-1")
    for _ in range(count):
        text = skip_request(text, takes_raw_target=True)
    return text.encode("latin-1")
