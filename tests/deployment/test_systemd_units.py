"""The units of deploy/systemd: systemd takes them, and the server does with them what they are for.

There is no systemd that runs here as a rule. What it would do for the service is done by a stand-in: it opens
the socket of the socket unit, and starts the server with it, as the unit says, and with a socket to notify.
"""

import configparser
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from deployment.files import DEPLOY, adapted, longest_end, settings_of
from process.test_activation import ACTIVATE
from process.test_proxies import free_port
from process.test_systemd import Manager, monotonic_usec
from subprocesses import PYTHONPATH, Process
from support import Client, wait_until

UNITS = {name: DEPLOY / "systemd" / name for name in ("shop.service", "shop.socket")}
# Of 100: a tenth of that is what `systemd-analyze security` shows.
EXPOSURE = 20

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")


def read(name):
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(UNITS[name])
    return unit


def analyze(*words):
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=30)


@needs_systemd
def test_systemd_takes_the_units(tmp_path):
    for name in UNITS:
        # Of what is not here: the program. It shall not look for the man pages of others either.
        replacements = {"ExecStart=/srv/shop/.venv/bin/fastwsgi": f"ExecStart={sys.executable}"}
        unit = adapted(f"systemd/{name}", **(replacements if name == "shop.service" else {}))
        (tmp_path / name).write_text(unit)
    done = analyze("verify", "--man=no", "--recursive-errors=no", *(str(tmp_path / name) for name in UNITS))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_the_service_is_hardened():
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", str(UNITS["shop.service"]))
    if "nknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    assert done.returncode == 0, done.stdout


def test_systemd_waits_for_the_end():
    service = read("shop.service")["Service"]
    program, *words = service["ExecStart"].split()
    assert program.endswith("/bin/fastwsgi")
    assert longest_end(settings_of(words)) < int(service["TimeoutStopSec"])


class Systemd(Manager):
    """What it hears, but for signs of life."""

    def hears(self, *patience):
        while (message := super().hears(*patience)) == "WATCHDOG=1":
            pass
        return message


class Service:
    """The server as the service unit starts it, in the hands of a stand-in for systemd."""

    def __init__(self, directory, manager, wrapper=()):
        service, listen = read("shop.service")["Service"], read("shop.socket")["Socket"]
        assert service["Type"] == "notify"
        assert listen["ListenStream"] == "80"
        self.port = free_port()
        self.control = f"{directory}/control"
        command = service["ExecStart"].replace("/run/shop/control", self.control)
        environment = {
            "NOTIFY_SOCKET": manager.path,
            "WATCHDOG_USEC": str(int(service["WatchdogSec"]) * 1_000_000),
        }
        wrapper = (*wrapper, sys.executable, ACTIVATE, str(self.port), "--")
        (directory / "shop.py").write_text("from numbered import application as app\n")
        self.process = Process(command.split()[1:], directory, environment, wrapper=wrapper)

    def ask(self):
        with Client(("127.0.0.1", self.port)) as client:
            return client.ask("/7")


@pytest.fixture
def manager(short_path):
    manager = Systemd(f"{short_path}/notify")
    yield manager
    manager.socket.close()


@pytest.fixture
def start_service(manager, short_path):
    services = []

    def start_service(*wrapper):
        services.append(Service(short_path, manager, wrapper))
        return services[-1]

    yield start_service
    for service in services:
        service.process.clean_up()


def test_the_service_starts_reloads_and_stops(start_service, manager):
    service = start_service()
    manager.expect(service.process, "READY=1")
    assert service.ask().status == 200
    since = monotonic_usec()
    # As ExecReload= has it.
    assert read("shop.service")["Service"]["ExecReload"] == "/bin/kill -HUP $MAINPID"
    service.process.signal(signal.SIGHUP)
    manager.expect_a_reload(service.process, since)
    stats = subprocess.run(
        [sys.executable, "-m", "fastwsgi", "stats", "--control-socket", service.control],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    assert "shop:app" in stats.stdout, stats.stderr
    service.process.terminate()
    manager.expect(service.process, "STOPPING=1")
    assert service.process.wait() == 0


def allowed():
    """The system calls that SystemCallFilter= lets through, as this systemd knows its groups."""

    def members(group):
        listed = analyze("syscall-filter", group).stdout.splitlines()[2:]
        for line in map(str.strip, listed):
            if line.startswith("@"):
                yield from members(line)
            elif line:
                yield line

    service = UNITS["shop.service"].read_text()
    lines = [line.partition("=")[2] for line in service.splitlines() if line.startswith("SystemCallFilter=")]
    calls = set()
    for line in lines:
        if line.startswith("~"):
            calls -= set(members(line[1:]))
        else:
            calls |= set(members(line))
    return calls


@needs_systemd
@pytest.mark.skipif(not shutil.which("strace"), reason="no strace here")
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer traces as well")
def test_the_server_does_with_what_it_may_do(start_service, manager, short_path):
    """Start, answer, reload and end need no other system calls, and no memory that is written and run."""
    counts = short_path / "calls"
    # -D: the server is our child, and not strace's.
    service = start_service("strace", "-D", "-f", "-c", "-U", "name", "-o", str(counts))
    manager.expect(service.process, "READY=1")
    assert service.ask().status == 200
    for process in psutil.Process(service.process.pid).children():
        with open(f"/proc/{process.pid}/maps") as maps:
            assert not [line for line in maps if " rwx" in line]
    since = monotonic_usec()
    service.process.signal(signal.SIGHUP)
    manager.expect_a_reload(service.process, since)
    service.process.terminate()
    assert service.process.wait() == 0, service.process.stderr
    wait_until(lambda: counts.exists() and counts.read_text().count("---") >= 2, "the calls")
    rows = counts.read_text().splitlines()
    calls = {row.strip() for row in rows if row.strip().replace("_", "").isalnum()} - {"syscall", "total"}
    assert "epoll_wait" in calls or "epoll_pwait" in calls
    assert calls <= allowed()
