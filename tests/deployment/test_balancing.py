"""HAProxy over three servers, each on a host of its own as far as the network can tell: nobody is failed.

The configuration is deploy/haproxy/haproxy.cfg; only addresses are others, and times shorter.
"""

import contextlib
import csv
import os
import signal
import socket
import subprocess

import pytest

from deployment.files import adapted
from process.load import HABITS, load
from process.test_proxies import free_port, needs
from subprocesses import Process
from support import wait_until

pytestmark = needs("haproxy")

# As `server NAME` of the configuration has them, with their addresses there.
SERVERS = {"one": "10.0.0.11:8000", "two": "10.0.0.12:8000", "three": "10.0.0.13:8000"}
# What asks for something that may be asked again; the others are not, where they may have been begun.
SAFE_HABITS = [habit for habit in HABITS if habit != "upload"]


class Host:
    """A network namespace, with a cable to this one."""

    def __init__(self, number):
        self.number = number
        self.name = f"fw-{os.getpid()}-{number}"
        self.ip("netns", "add", self.name)

    def connect(self):
        cable, end = f"fw{os.getpid()}-{self.number}", "eth0"
        # Hosts of other runs have other numbers.
        network = f"10.{100 + os.getpid() % 100}.{os.getpid() // 100 % 60 * 4 + self.number}"
        self.address = f"{network}.2"
        self.ip("link", "add", cable, "type", "veth", "peer", "name", end, "netns", self.name)
        self.ip("address", "add", f"{network}.1/30", "dev", cable)
        self.ip("link", "set", cable, "up")
        self.ip("-n", self.name, "address", "add", f"{self.address}/30", "dev", end)
        self.ip("-n", self.name, "link", "set", end, "up")

    @staticmethod
    def ip(*words):
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no network namespaces here: {done.stderr.strip()}")

    def remove(self):
        # The cable goes with it.
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


@pytest.fixture
def hosts():
    found = subprocess.run(["sh", "-c", "command -v ip"], capture_output=True)
    if found.returncode:
        pytest.skip("no ip here")
    with contextlib.ExitStack() as stack:
        hosts = {}
        for number, name in enumerate(SERVERS, 1):
            hosts[name] = Host(number)
            stack.callback(hosts[name].remove)
            hosts[name].connect()
        yield hosts


class Balancer:
    """HAProxy's own words: its statistics and its commands."""

    def __init__(self, path):
        self.path = str(path)

    def command(self, words):
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(self.path)
            admin.sendall(f"{words}\n".encode())
            return b"".join(iter(lambda: admin.recv(65536), b"")).decode()

    def servers(self):
        rows = csv.DictReader(self.command("show stat").removeprefix("# ").splitlines())
        return {row["svname"]: row for row in rows if row["pxname"] == "shop" and row["svname"] in SERVERS}

    def wait(self, name, status):
        wait_until(
            lambda: self.servers()[name]["status"].startswith(status),
            lambda: f"{name} {status}: {self.servers()[name]}",
        )


@pytest.fixture
def start_host(hosts, tmp_path):
    processes = []

    def start_host(name):
        options = ["--workers", "1", "--ready", "/readyz", "--shutdown-delay", "1s", "--keep-alive", "75s"]
        arguments = ["--bind", f"{hosts[name].address}:8000", *options, "numbered:application"]
        wrapper = ["ip", "netns", "exec", hosts[name].name]
        processes.append(Process(arguments, tmp_path, {}, wrapper=wrapper))
        return processes[-1]

    yield start_host
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
        process.clean_up()


def test_one_is_stopped_one_is_drained_one_freezes(hosts, start_host, run_proxy, short_path):
    servers = {name: start_host(name) for name in SERVERS}
    for server in servers.values():
        server.wait_started()
    port = free_port()
    configuration = adapted(
        "haproxy/haproxy.cfg",
        **{
            ":80": f"127.0.0.1:{port}",
            "/run/haproxy/admin.sock": f"{short_path}/admin.sock",
            "inter 1s": "inter 200ms",
            "server 10s": "server 2s",
            **{address: f"{hosts[name].address}:8000" for name, address in SERVERS.items()},
        },
    )
    run_proxy("haproxy", configuration, port)
    balancer = Balancer(short_path / "admin.sock")
    address = ("127.0.0.1", port)

    def workers(*names):
        return [servers[name].worker for name in names]

    with load(address, seconds=120) as running:
        running.wait_workers(*workers(*SERVERS))

        # It is told to stop, as a deployment does: HAProxy hears of it in time.
        servers["one"].terminate()
        assert servers["one"].wait() == 0, servers["one"].stderr
        running.wait_workers(*workers("two", "three"))
        servers["one"] = start_host("one")
        servers["one"].wait_started()
        balancer.wait("one", "UP")
        running.wait_workers(*workers("one"))

        # It gets nothing new, and can be stopped whenever that is over.
        assert balancer.command("set server shop/two state drain") == "\n"
        wait_until(lambda: balancer.servers()["two"]["scur"] == "0", "the end of what it had")
        running.wait_workers(*workers("one", "three"))
        assert balancer.command("set server shop/two state ready") == "\n"
        balancer.wait("two", "UP")
        running.wait_workers(*workers("two"))
    running.report.check()

    with load(address, habits=SAFE_HABITS, seconds=120) as running:
        running.wait_workers(*workers(*SERVERS))
        # It says nothing any more; the kernel goes on accepting for it.
        os.killpg(servers["three"].pid, signal.SIGSTOP)
        balancer.wait("three", "DOWN")
        running.wait_workers(*workers("one", "two"))
        running.pause(2.5)
        os.killpg(servers["three"].pid, signal.SIGCONT)
        balancer.wait("three", "UP")
        running.wait_workers(*workers("three"))
    running.report.check()
    for server in servers.values():
        server.stop()
