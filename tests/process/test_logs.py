"""The error log and the access log."""

import os
import re
import signal
import threading
import time
from pathlib import Path

from support import request, wait_until

DEFAULT = re.compile(
    r"127\.0\.0\.1 - - \[\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    r'"([^"]*)" (\d{3}) (\d+|-) "([^"]*)" "([^"]*)"'
)


def parsed(lines):
    matches = [DEFAULT.fullmatch(line) for line in lines.splitlines()]
    assert all(matches), lines
    return [match.groups() for match in matches]


def test_the_access_log_is_off_by_default(start):
    server = start("apps:hello")
    assert server.ask().text == "hello"
    server.stop()
    assert server.stdout == ""
    assert "GET" not in server.stderr


def test_the_default_format_to_the_standard_output(start):
    server = start("--access-logfile", "-", "apps:hello")
    fields = [("Referer", "http://a/b"), ("User-Agent", "tester/1")]
    assert server.ask("/path?query", fields=fields).text == "hello"
    server.ask("/", "HEAD")
    server.stop()
    assert parsed(server.stdout) == [
        ("GET /path?query HTTP/1.1", "200", "5", "http://a/b", "tester/1"),
        ("HEAD / HTTP/1.1", "200", server.stdout.splitlines()[1].split()[9], "-", "-"),
    ]


def test_a_line_does_not_wait_for_the_next_request(start, tmp_path):
    log = tmp_path / "access.log"
    server = start("--access-logfile", str(log), "apps:hello")
    with server.connect() as client:
        for number in range(3):
            client.ask(f"/{number}")
            wait_until(lambda number=number: f"GET /{number} " in log.read_text(), "the line")
    server.stop()


def test_one_line_for_each_request_in_the_order_of_a_connection(start, tmp_path):
    log = tmp_path / "access.log"
    server = start("--access-logfile", str(log), "apps:hello")
    with server.connect() as client:
        client.send(b"".join(request(f"/{number}") for number in range(500)))
        for _ in range(500):
            client.read_response()
    server.stop()
    assert [line[0] for line in parsed(log.read_text())] == [
        f"GET /{number} HTTP/1.1" for number in range(500)
    ]


def test_the_access_log_is_appended_to(start, tmp_path):
    log = tmp_path / "access.log"
    log.write_text("there before\n")
    server = start("--access-logfile", str(log), "apps:hello")
    server.ask()
    server.stop()
    assert log.read_text().startswith("there before\n127.0.0.1 ")


def test_atoms(start):
    atoms = "%(m)s|%(U)s|%(q)s|%(H)s|%(s)s|%(B)s|%(b)s"
    atoms += "|%({x-id}i)s|%({content-type}o)s|%({X-None}i)s|%(p)s|%(D)s|%(L)s|%%"
    server = start("--access-logfile", "-", "--access-logformat", atoms, "apps:hello")
    server.ask("/a%20b?c=d", "POST", [("X-Id", "42")], b"content")
    server.stop()
    pattern = (
        r"POST\|/a(%20| )b\|c=d\|HTTP/1\.1\|200\|5\|5\|42\|text/plain\|-\|<[0-9]+>\|[0-9]+\|[0-9.]+\|%\n"
    )
    assert re.fullmatch(pattern, server.stdout), server.stdout


def test_what_clients_send_cannot_forge_lines(start):
    server = start("--access-logfile", "-", "apps:hello")
    server.ask("/", fields=[("User-Agent", 'x" 200 "\xe9\\'), ("Referer", "\t")])
    server.stop()
    assert len(server.stdout.splitlines()) == 1
    assert 'x" 200' not in server.stdout
    assert server.stdout.isascii()


FORGED = "/%1b%5b2J%0d%0a%5b2026-01-01%5d%20forged%c2%9b%e2%80%a8%7f%00"


def test_what_clients_send_cannot_forge_records(start):
    access = "%(r)s|%(U)s|%({PATH_INFO}e)s|%({x-words}i)s|%({HTTP_X_WORDS}e)s"
    server = start("--access-logfile", "-", "--access-logformat", access, "apps:fail_with_words")
    assert (
        server.ask(FORGED, fields=[("X-Words", "\x9b2J\x85\xff"), ("X_Y", "\x9b"), ("Via", "\t\x9b")]).status
        == 500
    )
    with server.connect() as client:
        client.send(b"GET /\x1b[2J\x9b HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.read_response().status == 400
    with server.connect() as client:
        client.send("GET /\x9b\xc2\x9b HTTP/1.1\r\nHost: h\r\nX-Words: \x9b\r\n\r\n")
        assert client.read_response().status == 500
    server.stop()
    for line in server.stdout.splitlines():
        assert line.isascii() and line.isprintable(), line
    assert len(server.stdout.splitlines()) == 3
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028]", server.stderr)
    assert all(line.startswith(("[20", "  ")) for line in server.lines)
    assert "\n[2026-01-01] forged" not in server.stderr
    assert "forged" in server.stderr


def test_errors_of_the_application(start):
    server = start("--access-logfile", "-", "apps:fail")
    assert server.ask().status == 500
    server.wait_said("ZeroDivisionError: in the application")
    server.stop()
    assert server.stderr.count("Traceback") == 1
    assert parsed(server.stdout)[0][1] == "500"


def test_output_of_the_application(start):
    server = start("apps:complain")
    assert server.ask().text == "hello"
    server.stop()
    assert server.stderr.count("written to wsgi.errors\n") == 1
    assert server.stderr.count("printed to stderr\n") == 1
    assert server.stderr.count("logged by the application") == 1
    assert server.stdout == "printed to stdout\n"


def test_the_log_level(start):
    server = start("--log-level", "error", "--bind", "127.0.0.1:0", "apps:hello", started=False)
    wait_until(lambda: listening_ports(server.pid), "it listening")
    [port] = listening_ports(server.pid)
    with server.connect(("127.0.0.1", port)) as client:
        assert client.ask().text == "hello"
    server.stop()
    assert server.stderr == ""


def test_the_error_log_in_a_file(start, tmp_path):
    log = tmp_path / "error.log"
    server = start("--error-logfile", str(log), "--bind", "127.0.0.1:0", "apps:fail", started=False)
    wait_until(lambda: listening_ports(server.pid), "it listening")
    [port] = listening_ports(server.pid)
    with server.connect(("127.0.0.1", port)) as client:
        assert client.ask().status == 500
    server.stop()
    assert "ZeroDivisionError: in the application" in log.read_text()
    assert server.stderr == ""


def test_reopened_after_a_rotation(start, tmp_path):
    log, old = tmp_path / "access.log", tmp_path / "access.log.1"
    server = start("--access-logfile", str(log), "apps:hello")
    server.ask("/before")
    wait_until(lambda: "/before" in log.read_text(), "the line")
    log.rename(old)
    server.signal(signal.SIGUSR1)
    server.wait_said("Log files reopened")
    server.ask("/after")
    wait_until(lambda: "/after" in log.read_text(), "the line")
    server.stop()
    assert "/after" not in old.read_text()


def test_a_reader_of_the_access_log_that_is_stuck_stops_nobody(start, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    server = start("--access-logfile", str(fifo), "apps:hello")
    with server.connect() as client:
        for _ in range(500):
            assert client.ask("/" + "x" * 500).text == "hello"
    drained = threading.Thread(target=drain, args=(reader,))
    drained.start()
    server.stop()
    drained.join()


def drain(descriptor):
    """Read a pipe until its last writer is gone."""
    os.set_blocking(descriptor, True)
    while os.read(descriptor, 65536):
        pass
    os.close(descriptor)


def listening_ports(pid):
    """The TCP ports a process listens at, from /proc."""
    ports = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        sockets = {}
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A":
                sockets[columns[9]] = int(columns[1].rpartition(":")[2], 16)
        for descriptor in os.scandir(f"/proc/{pid}/fd"):
            try:
                match = re.fullmatch(r"socket:\[([0-9]+)\]", os.readlink(descriptor.path))
            except FileNotFoundError:
                continue
            if match and match[1] in sockets:
                ports.append(sockets[match[1]])
    return ports


def test_many_refusals_make_few_records(start):
    server = start("apps:hello")
    begun = time.monotonic()
    for _ in range(300):
        with server.connect() as client:
            client.send("not HTTP\r\n\r\n")
            assert client.read_response().status == 400
    server.stop()
    # Twenty in a second, and one that says how many more there were; at the end, another one.
    seconds = int(time.monotonic() - begun) + 2  # of the clock: the first and the last may be parts
    said = server.stderr.count("refused with 400")
    assert 20 <= said <= 20 * seconds
    left_out = re.findall(r"(\d+) more log records were left out", server.stderr)
    assert len(left_out) <= seconds + 1
    assert said + sum(map(int, left_out)) == 300
