"""How many system calls an answer takes, as strace sees them."""

import re
import shutil
import signal
import subprocess

import pytest

from support import ENVIRONMENT, request

STRACE = shutil.which("strace")

# A leader that the machine or strace holds up may lose the lead: then an answer leaves in parts.
ATTEMPTS = 5


class Strace:
    """What a process sends, from now on until `stop`."""

    def __init__(self, pid):
        command = [STRACE, "-f", "-e", "trace=network,sendfile", "-s", "300", "-p", str(pid)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self.may_attach = "attached" in self.process.stderr.readline()

    def stop(self):
        """The calls that send, in order, each with its arguments and result."""
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate()[1]
        return re.findall(r"^(?:\[pid +[0-9]+\] )?(send[a-z]*\(.*)", said, re.MULTILINE)


def may_attach():
    if not STRACE:
        return False
    with subprocess.Popen(["sleep", "60"], env=ENVIRONMENT) as process:
        try:
            strace = Strace(process.pid)
            strace.stop()
            return strace.may_attach
        finally:
            process.kill()


pytestmark = pytest.mark.skipif(not may_attach(), reason="no strace here, or it may not attach")


@pytest.fixture
def calls_of(start_polled, tmp_path):
    """calls_of(target, count): what answers so many requests in one segment; the fewest of ATTEMPTS."""
    (tmp_path / "file").write_bytes(b"f" * 100_000)
    server = start_polled("calls_app:application")

    def calls_of(target, count=1):
        found = []
        with server.connect() as client:
            for _ in range(ATTEMPTS):
                strace = Strace(server.worker)
                client.send(request(target) * count)
                for _ in range(count):
                    assert client.read_response().status == 200
                found.append(strace.stop())
        return min(found, key=len)

    yield calls_of
    server.stop()


def test_a_head_and_its_content_leave_together(calls_of):
    (call,) = calls_of("/")
    assert "HTTP/1.1 200 OK" in call
    assert "hello" in call


def test_a_head_leaves_with_the_first_block(calls_of):
    first, second, _ = calls_of("/slow")
    assert "HTTP/1.1 200 OK" in first
    assert "first" in first
    assert "second" in second  # and then the end of the chunks


def test_pipelined_requests_are_answered_with_one_call(calls_of):
    assert len(calls_of("/", 16)) == 1


def test_quick_blocks_leave_together(calls_of):
    assert len(calls_of("/blocks")) == 1


def test_a_file_leaves_by_sendfile(calls_of):
    head, content = calls_of("/file")
    assert "HTTP/1.1 200 OK" in head
    assert content.startswith("sendfile(")
