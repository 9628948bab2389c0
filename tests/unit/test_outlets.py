"""Writing to what nobody reads and to what is full: nothing waits, what is lost is counted and said."""

import os
import resource
import select
import signal
import socket
import stat
import threading

import pytest

from fastwsgi.errors import ConfigError
from fastwsgi.outlets import MOST, FileOutlet, Outlet, own_description

RECORD = b"x" * 999 + b"\n"


def with_notice(outlet):
    outlet.notice = lambda lost, why: f"{lost} lost: {why}\n".encode()
    return outlet


def read_all(fd):
    """What is in a pipe now."""
    read = b""
    while select.select([fd], [], [], 0)[0]:
        block = os.read(fd, 65536)
        read += block
        if not block:
            break
    return read


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_flags_of_an_inherited_descriptor_stay(pipe):
    _, writer = pipe
    outlet = Outlet(own_description(writer))
    assert not os.get_blocking(outlet.fd)
    assert os.get_blocking(writer)
    assert not os.get_inheritable(outlet.fd)
    outlet.close()


@pytest.mark.parametrize("is_shared", [False, True], ids=["own description", "blocking"])
def test_a_pipe_that_nobody_reads(pipe, is_shared):
    reader, writer = pipe
    outlet = with_notice(Outlet(os.dup(writer) if is_shared else own_description(writer)))
    called = []
    outlet.when_waiting = lambda: called.append(True)
    for _ in range(1000):
        outlet.write(RECORD)
    assert called
    assert outlet.advance()
    read = b""
    while outlet.advance():
        read += read_all(reader)
    outlet.write(b"after\n")
    read += read_all(reader)
    *kept, notice, after = read.splitlines(keepends=True)
    assert set(kept) == {RECORD}
    assert after == b"after\n"
    lost = int(notice.split()[0])
    assert len(kept) + lost == 1000
    assert len(kept) >= (65536 + MOST) // len(RECORD) - 8
    assert b"nobody has read" in notice
    outlet.close()


def test_lines_of_a_long_record_are_whole_between_those_of_others(pipe):
    reader, writer = pipe
    outlet = Outlet(own_description(writer))
    outlet.write(b"first\n" + b"".join(b"%04d %s\n" % (n, b"y" * 90) for n in range(3000)))
    read = b""
    while outlet.advance():
        read += os.read(reader, 20_000)
        os.write(writer, b"other\n")
    read += read_all(reader)
    lines = read.splitlines()
    assert [line for line in lines if line != b"other"][1:] == [
        b"%04d %s" % (n, b"y" * 90) for n in range(3000)
    ]
    assert b"other" in lines
    outlet.close()


def test_the_end_waits_for_a_reader(pipe):
    reader, writer = pipe
    outlet = Outlet(own_description(writer))
    for _ in range(200):
        outlet.write(RECORD)
    read = []

    def read_everything():
        while sum(map(len, read)) < 200 * len(RECORD):
            read.append(os.read(reader, 65536))

    thread = threading.Thread(target=read_everything)
    thread.start()
    outlet.finish()
    assert not outlet.advance()
    thread.join()
    outlet.close()


def test_the_end_does_not_wait_for_ever(pipe):
    outlet = Outlet(own_description(pipe[1]))
    for _ in range(200):
        outlet.write(RECORD)
    outlet.finish()
    assert outlet.advance()
    outlet.close()


def test_a_reader_that_is_gone():
    reader, writer = os.pipe()
    outlet = with_notice(Outlet(own_description(writer)))
    os.close(reader)
    outlet.write(RECORD)
    assert outlet.advance()
    outlet.finish()
    outlet.close()
    os.close(writer)


def test_a_socket_that_nobody_reads():
    ours, theirs = socket.socketpair()
    outlet = with_notice(Outlet(os.dup(ours.fileno())))
    for _ in range(2000):
        outlet.write(RECORD)
    assert ours.getblocking()
    read = 0
    while outlet.advance():
        read += len(theirs.recv(1 << 20))
    outlet.close()
    ours.close()
    while block := theirs.recv(1 << 20):
        read += len(block)
        last = block
    assert b" lost: nobody has read" in last
    theirs.close()


def test_a_full_device():
    outlet = with_notice(Outlet(os.open("/dev/full", os.O_WRONLY)))
    for _ in range(1000):
        outlet.write(RECORD)
    assert outlet.advance()
    outlet.close()


def test_a_full_disk(tmp_path):
    path = tmp_path / "log"
    outlet = with_notice(FileOutlet(str(path), "--error-logfile"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_500, hard))
    try:
        for _ in range(1000):
            outlet.write(RECORD)
        assert path.stat().st_size == 10_500
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)
    outlet.write(b"after\n")
    outlet.close()
    *kept, notice, after = path.read_bytes().splitlines(keepends=True)
    assert set(kept) == {RECORD}
    assert notice == b"%d lost: File too large\n" % (1000 - len(kept))
    assert after == b"after\n"


def test_a_file_that_was_moved_away(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outlet = FileOutlet("log", "--error-logfile")
    monkeypatch.chdir("/")
    outlet.write(b"before\n")
    (tmp_path / "log").rename(tmp_path / "old")
    outlet.write(b"after\n")
    outlet.close()
    assert (tmp_path / "old").read_bytes() == b"before\n"
    assert (tmp_path / "log").read_bytes() == b"after\n"


def test_a_fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"^--error-logfile .*/fifo: nobody reads from this pipe$"):
        FileOutlet(str(path), "--error-logfile")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    outlet = FileOutlet(str(path), "--error-logfile")
    outlet.write(b"line\n")
    assert os.read(reader, 100) == b"line\n"
    outlet.close()
    os.close(reader)


def test_a_forked_child_does_not_write_what_waits(pipe):
    reader, writer = pipe
    outlet = Outlet(own_description(writer))
    for _ in range(100):
        outlet.write(RECORD)
    pid = os.fork()
    if pid == 0:
        os._exit(outlet.advance())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(read_all(reader)) <= 65536
    outlet.close()


def test_a_daemon_keeps_no_pipe(pipe):
    reader, writer = pipe
    outlet = Outlet(own_description(writer))
    outlet.leave_terminal()
    outlet.write(b"nowhere\n")
    assert not read_all(reader)
    assert stat.S_ISCHR(os.fstat(outlet.fd).st_mode)
    outlet.close()


def test_closing_twice_closes_nothing_of_others(tmp_path):
    outlet = FileOutlet(str(tmp_path / "log"), "--error-logfile")
    outlet.close()
    reader, writer = os.pipe()  # one of them has the number now
    outlet.close()
    assert os.write(writer, b"x") == 1
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)
