"""Sends the requests of other servers' test suites to a running fastwsgi: make conformance CORPORA=DIRECTORY

DIRECTORY has a checkout of each suite in a folder of its own. Prints the tables of docs/conformance.md. Exits
with 1 when a request was accepted that must be refused, or when a difference is not explained.
"""

import contextlib
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from conformance.corpora import read
from conformance.grammar import find_fault, judge
from conformance.sections import REASONS
from fastwsgi._refusals import REFUSALS
from parsing import converse
from support import Server

STATUS = re.compile(rb"^HTTP/1\.1 ([2-5][0-9]{2}) ", re.MULTILINE)
LACKS_HOST = re.compile(rb"((?:\r\n)*[^\r\n]+ HTTP/1\.1\r\n)(?!(?:[^\r\n]+\r\n)*(?i:host[ \t]*:))")


class Difference(NamedTuple):
    column: str
    section: str
    why: str


MUST = "accepted, must be refused"
UNEXPLAINED = "not explained"
COLUMNS = [
    "as expected",
    "refused: no request by the grammar",
    "refused by choice",
    "accepted by choice",
    "accepted, should be refused",
    MUST,
    UNEXPLAINED,
]
AS_EXPECTED, NO_REQUEST, REFUSED, ACCEPTED, SHOULD, *_ = COLUMNS

# Why a request is accepted that its suite wants refused: the section, what it says, and what shows it.
CHOICES = [
    (section, why, re.compile(sign))
    for section, why, sign in [
        ("9110 2.3", "how long a line or a head may be is the server's choice", rb"(?s)\A.{4000}"),
        ("9110 6.5", "trailer fields are checked and dropped, whatever their names", rb"\r\n0\r\n[^\r]"),
        ("9110 7.8", "a server may pass over Upgrade", rb"\r\nUpgrade: "),
        ("9110 9.1", "an application knows its methods", rb"\A(?!GET |HEAD |POST / HTTP/1.0|.*\n\r\n\w)\w+ "),
        ("9112 3.2", "Host is empty where the target has no authority", rb"\r\nHost: ?\r\n"),
        ("9112 3.2.2", "the authority of the target replaces Host", rb"\AGET http:"),
        ("9110 2.5", "a higher minor version is taken for the highest that is known", rb"HTTP/1\.2"),
        ("9110 7.6.1", "a connection option that is not understood is passed over", rb"\r\nConnection: jndi"),
        ("3986 3.2.2", "a host need be no name of DNS, nor one that is served", rb"\r\nHost: .*\r\n\r\n\Z"),
        ("9110 5.2", "what a repeated field means is for the application", rb"(\r\n[\w-]+:).+\1"),
        ("9110 9.3.1", "content in a GET or HEAD is received", rb"\A(?:GET|HEAD) [^#]*-Length: 4"),
        ("9112 6.3", "a request without a framing field has no content", rb"\APOST / HTTP/1.0\r\n\r\n"),
        ("9112 9.3", "what follows the last request is not looked at", rb"HTTP/1.0\r\n\r\n\w"),
    ]
]


def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "0")])
    return []


def understand(octets):
    """What the parser makes of them: the requests the application is to get, and why the next is refused."""
    requests, outcome = converse([octets], {})
    for number, request in enumerate(requests):
        if request["method"] == "CONNECT":
            return requests[:number], "REFUSAL_CONNECT"
        if request["target_is_https"]:
            return requests[:number], "REFUSAL_MISDIRECTED"
        if not request["keep_alive"]:
            return requests[: number + 1], None
    return requests, outcome if outcome in REFUSALS else None


def ask(server, octets):
    """What the server answers to them: how many 200, and the status that ends the connection, or None."""
    with server.connect() as client:
        with contextlib.suppress(ConnectionError):
            client.send(octets)
            client.half_close()
            while client.receive():
                pass
        statuses = [int(status) for status in STATUS.findall(client.received)]
    accepted = statuses.count(200)
    assert len(statuses) - accepted <= 1, (octets, statuses)
    assert 200 not in statuses[accepted:], (octets, statuses)
    return accepted, statuses[accepted] if len(statuses) > accepted else None


def compare(server, octets, verdict):
    """What became of a request, against the verdict of its suite, or of the grammar where it has none."""
    requests, reason = understand(octets)
    accepted, status = ask(server, octets)
    expected = len(requests), REFUSALS[reason][0] if reason else None
    assert (accepted, status) == expected, (octets, accepted, status, expected)
    possible, fault = judge(octets)
    if accepted > possible:
        return Difference(MUST if fault.must else SHOULD, fault.section, fault.text)
    if reason:
        fault = find_fault(octets)
        if verdict == "refuse" or (verdict is None and fault):
            return None
        return Difference(NO_REQUEST if fault else REFUSED, *REASONS[reason])
    if verdict == "refuse":
        if not requests:
            return Difference(ACCEPTED, "9112 8", "it is not all there, and the application never sees it")
        for section, why, sign in CHOICES:
            if sign.search(octets):
                return Difference(ACCEPTED, section, why)
        return Difference(UNEXPLAINED, "", repr(octets))
    return None


def with_host(sample):
    """The sample with a Host where none is, for what it is about is not seen behind that; otherwise None."""
    octets = LACKS_HOST.sub(rb"\1Host: a\r\n", sample.octets, count=1)
    if octets == sample.octets:
        return None
    # The suite may want it refused for the missing Host itself.
    return octets, None if sample.verdict == "refuse" else sample.verdict


def row(*cells):
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def main(directory):
    total = Counter()
    differences = defaultdict(list)
    server = Server(application, validate=False, threads=1)
    server.log.allow("")
    print(row("suite", "requests", *COLUMNS), "|---" * (len(COLUMNS) + 2) + "|", sep="\n")
    for name, samples in read(directory):
        counts = Counter()
        for sample in samples:
            for octets, verdict in filter(None, [(sample.octets, sample.verdict), with_host(sample)]):
                difference = compare(server, octets, verdict)
                counts[difference.column if difference else AS_EXPECTED] += 1
                if difference:
                    differences[difference].append(f"{name} {sample.name}")
        total += counts
        print(row(name, sum(counts.values()), *(counts[column] for column in COLUMNS)))
    server.stop()
    print(row("all", sum(total.values()), *(total[column] for column in COLUMNS)), "\n")
    print(row("difference", "requests", "section", "why", "for example"), "|---" * 5 + "|", sep="\n")
    for difference, names in sorted(differences.items(), key=lambda item: COLUMNS.index(item[0].column)):
        print(row(difference.column, len(names), *difference[1:], names[0]))
    return 1 if total[MUST] or total[UNEXPLAINED] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
