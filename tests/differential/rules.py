"""Why the parsers may disagree: what is not listed here fails the test.

A disagreement is about the first request that is not read alike. Where we refuse it, the grammar of the RFCs
(tests/conformance/grammar.py) has to see the fault too, or the refusal is one of CHOICES. Where we accept it,
the grammar has to accept it too, and one of OTHERS_REFUSE or OTHERS_UNDERSTAND says what the other does.
"""

import re
from typing import NamedTuple

from conformance.grammar import Incomplete, NotARequest, behind, find_fault

# What a server may refuse although it is a request; REASONS in conformance/sections.py has the sections.
CHOICES = {
    "REFUSAL_EMPTY_LINES",
    "REFUSAL_REQUEST_LINE_TOO_LONG",
    "REFUSAL_METHOD_TOO_LONG",
    "REFUSAL_BAD_SCHEME",
    "REFUSAL_USERINFO",
    "REFUSAL_BAD_AUTHORITY",
    "REFUSAL_TARGET_FORM",
    "REFUSAL_TOO_MANY_FIELDS",
    "REFUSAL_FIELD_TOO_LARGE",
    "REFUSAL_HEAD_TOO_LARGE",
    "REFUSAL_TRAILER_TOO_LARGE",
    "REFUSAL_BAD_HOST",
    "REFUSAL_TWO_CONTENT_LENGTHS",
    "REFUSAL_CONTENT_LENGTH_OVERFLOW",
    "REFUSAL_BAD_TRANSFER_ENCODING",
    "REFUSAL_EXPECTATION",
    "REFUSAL_CHUNK_SIZE_OVERFLOW",
    "REFUSAL_CHUNK_LINE_TOO_LONG",
    "REFUSAL_CHUNK_OVERHEAD",
}


class Rule(NamedTuple):
    parser: str
    sign: str
    """A regular expression for the message of one that refuses, or the name of what it reads differently."""
    section: str
    why: str
    applies: object
    """Whether it is that: of the request as we read it and the octets, or as we and the other read it."""


# A trailer field that would say something of framing or of the connection, were it not in the trailer section.
ABOUT_FRAMING = rb"\r\n0[^\r\n]*\r\n(?:.+\r\n)*(?i:content-length|transfer-encoding|(?:proxy-)?connection):"

# They refuse what we accept.
OTHERS_REFUSE = [
    Rule(
        "llhttp",
        "Invalid method encountered|Expected space after method|Expected HTTP/2 Connection Preface",
        "9110 9.1",
        "any token is a method",
        lambda request, octets: request.method not in {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"},
    ),
    Rule(
        "llhttp",
        "Invalid HTTP version",
        "9110 2.5",
        "a higher minor version is taken for the highest that is known",
        lambda request, octets: re.search(rb" HTTP/1\.[2-9]\r\n", octets),
    ),
    Rule(
        "llhttp",
        "Invalid char in url (path|query)",
        "9112 3.2",
        "octets that a target should not have raw are the application's to judge",
        lambda request, octets: re.search(r"[^!-~]", request.target),
    ),
    Rule(
        "llhttp",
        "Invalid character in chunk (size|extensions)",
        "9112 7.1.1",
        "there may be white space around the semicolon and the equals sign of an extension",
        lambda request, octets: re.search(rb"[ \t][;=]|[;=][ \t]", octets),
    ),
    Rule(
        "llhttp",
        "Request has invalid `Transfer-Encoding`",
        "9112 5.1",
        "white space after a value is no part of it",
        lambda request, octets: re.search(rb"(?i)chunked[ \t]+\r\n", octets),
    ),
    Rule(
        "llhttp",
        ".*(Content-Length|Transfer-Encoding)|Data after `Connection: close`",
        "9110 6.5.1",
        "a trailer field says nothing of framing, nor of the connection",
        lambda request, octets: re.search(ABOUT_FRAMING, octets),
    ),
    Rule(
        "h11",
        ".*(Content-Length|Transfer-Encoding)",
        "9110 6.5.1",
        "a trailer field says nothing of framing, nor of the connection",
        lambda request, octets: re.search(ABOUT_FRAMING, octets),
    ),
    Rule(
        "h11",
        "illegal request line",
        "9112 3.2",
        "octets that a target should not have raw are the application's to judge",
        lambda request, octets: re.search(r"[^!-~]", request.target),
    ),
    Rule(
        "h11",
        "no request line received",
        "9112 2.2",
        "empty lines before a request line should be passed over",
        lambda request, octets: b"\r\n\r\n" in octets or octets.startswith(b"\r\n"),
    ),
    Rule(
        "h11",
        "illegal chunk header",
        "9112 7.1.1",
        "there may be white space around the semicolon and the equals sign of an extension",
        lambda request, octets: re.search(rb"[ \t][;=]|[;=][ \t]", octets),
    ),
]

# They accept it too, and read something else.
OTHERS_UNDERSTAND = [
    Rule(
        "h11",
        "version",
        "9110 2.5",
        "a higher minor version is taken for the highest that is known",
        lambda ours, theirs: ours.version == "1.1" and theirs.version > "1.1",
    ),
    Rule(
        "h11",
        "fields",
        "9110 5.5",
        "a value is kept as it came: it puts Transfer-Encoding into small letters",
        lambda ours, theirs: lowered(ours.fields) == lowered(theirs.fields),
    ),
    Rule(
        "h11",
        "keep_alive",
        "9112 9.3",
        "HTTP/1.0 persists with the keep-alive option",
        lambda ours, theirs: ours.version == "1.0" and ours.keep_alive,
    ),
    Rule(
        "llhttp",
        "keep_alive",
        "9112 9.3",
        "close comes before keep-alive, and Proxy-Connection says nothing",
        lambda ours, theirs: ours.version == "1.0" or "proxy-connection" in dict(ours.fields),
    ),
    Rule(
        "llhttp",
        "content",
        "9110 7.8",
        "a request with Upgrade has its content, where the server goes on with HTTP/1.1",
        lambda ours, theirs: "upgrade" in dict(ours.fields) and not theirs.content,
    ),
]


def lowered(fields):
    return [(name, value.lower()) for name, value in fields]


class Unexplained(Exception):
    pass


def differing(ours, theirs):
    """The names of what the two read differently in a request."""
    return [name for name in ours._fields if getattr(ours, name) != getattr(theirs, name)]


def explain(parser, octets, ours, theirs):
    """Rule, or name of the refusal, for each thing that two readings of the same octets disagree about.

    Raises Unexplained.
    """
    explained = []
    for index, request in enumerate(ours.requests):
        if index == len(theirs.requests):
            explained.append(explain_their_refusal(parser, octets, index, request, theirs.refused))
            return explained
        different = differing(request, theirs.requests[index])
        for name in different:
            explained.append(explain_their_understanding(parser, name, request, theirs.requests[index]))
        if {"keep_alive", "content"} & set(different):
            # From here on the two read different messages.
            return explained
    has_more = len(theirs.requests) > len(ours.requests)
    if ours.refused and (has_more or not theirs.refused):
        explained.append(explain_our_refusal(octets, len(ours.requests), ours.refused))
    elif has_more:
        raise Unexplained(f"{parser} reads a request where we wait for more, or have closed")
    elif theirs.refused and not ours.refused:
        explained.append(
            ("9112 8", "a line is judged when it has come; until then the application sees nothing")
        )
    return explained


def explain_our_refusal(octets, index, reason):
    if reason in CHOICES or find_fault(behind(octets, index)):
        return reason
    raise Unexplained(f"we refuse with {reason} what the grammar takes")


def explain_their_refusal(parser, octets, index, request, message):
    try:
        behind(octets, index + 1)
    except (NotARequest, Incomplete) as error:
        raise Unexplained(f"we accept what the grammar does not take: {error!r}") from error
    if message is None:
        raise Unexplained(f"{parser} waits for more where we have a request")
    for rule in OTHERS_REFUSE:
        if rule.parser == parser and re.match(rule.sign, message) and rule.applies(request, octets):
            return rule
    raise Unexplained(f"{parser} refuses what we accept: {message}")


def explain_their_understanding(parser, name, ours, theirs):
    for rule in OTHERS_UNDERSTAND:
        if rule.parser == parser and rule.sign == name and rule.applies(ours, theirs):
            return rule
    raise Unexplained(f"{name} is {getattr(ours, name)!r} for us, {getattr(theirs, name)!r} for {parser}")
