"""What the doctor says of host, container, configuration and certificates: trees as kernels lay them out."""

import os
import re
import resource
import socket
import sys
import time
from pathlib import Path

import pytest

from certificates import AUTHORITY
from fastwsgi import appchecks, certchecks, hostchecks, resources, settingchecks
from fastwsgi.config import Settings
from fastwsgi.findings import FAILED, SEVERITIES, Checks, Finding, by_severity, error, hint
from fastwsgi.listener import parse_address
from fastwsgi.privileges import Identity
from fastwsgi.scene import Scene

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
PLENTY = (1 << 20, 1 << 20)
KINDS = (settingchecks, hostchecks, certchecks, appchecks)

MOUNTS = "31 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"


class Tree:
    """What a machine tells, beneath a directory."""

    def __init__(self, root):
        self.root = root
        self.write("proc/self/cgroup", "0::/")
        self.write("proc/self/mountinfo", MOUNTS)
        (root / "dev/shm").mkdir(parents=True)

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def container(self):
        self.write(".dockerenv", "")
        return self


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "machine")


@pytest.fixture
def look(tree):
    """look(id, **settings): what that check says, as pairs of severity and text with its fix."""

    def look(id, scene=None, **settings):
        values = {"root": tree.root, "open_files": PLENTY, **(scene or {})}
        subject = Scene(Settings(**settings), **values)
        [check] = [check for kind in KINDS for check in kind.CHECKS if check.id == id]
        found = check.findings(subject)
        assert {finding.id for finding in found} <= {id}, found
        return [(finding.severity, f"{finding.what} -> {finding.fix}") for finding in found]

    return look


def test_findings_in_order():
    checks = Checks()

    @checks.add("one")
    def one(subject):
        yield hint("small", "x")
        yield error("large", "y")
        yield hint("small", "x")
        raise KeyError("password")

    found = by_severity(checks.findings(None))
    assert found == [
        Finding("one", "error", "large", "y"),
        Finding("one", "hint", "small", "x"),
        Finding(
            FAILED,
            "hint",
            "the check one could not be made: KeyError",
            "look at that yourself (docs/doctor.md)",
        ),
    ]


def test_the_page_has_every_finding():
    page = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([a-z, ]+) \|", page, re.MULTILINE))
    ids = [check.id for kind in KINDS for check in kind.CHECKS]
    assert len(ids) == len(set(ids))
    others = {"no-application", "import-fails", "import-hangs", "import-ends", "import-slow", FAILED}
    assert set(rows) == set(ids) | others
    for kind in KINDS:
        for check in kind.CHECKS:
            names = check.look.__code__.co_names
            used = {name for name in SEVERITIES if name in names}
            assert used <= set(rows[check.id].split(", ")), check.id


def test_a_good_scene_has_nothing(tree, tmp_path):
    scene = Scene(Settings(bind=["127.0.0.1:0"]), root=tree.root, open_files=PLENTY)
    found = settingchecks.CHECKS.findings(scene) + hostchecks.CHECKS.findings(scene)
    # As root, and with little space, there is something to say.
    assert {finding.id for finding in found} <= {"root", "temporary-files", "python", "slow-python"}


# ---- the configuration ----


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bind": ["8000"]}, "cannot listen at 8000"),
        ({"user": "nobody-of-that-name"}, "there is no such user"),
        ({"access_logformat": "%(nothing)s"}, "nothing"),
        ({"metrics": "9090"}, "cannot listen at 9090"),
        ({"route": ["/a auth=/no/such/file"]}, "/no/such/file"),
    ],
)
def test_what_a_start_refuses(look, settings, words):
    [(severity, text)] = look("configuration", **settings)
    assert severity == "error" and words in text


def test_what_is_ignored(look):
    [(severity, text)] = look("settings-ignored", scene={"notices": ("--reload has no effect",)})
    assert severity == "warning" and "--reload" in text


def test_options_for_developers(look):
    assert [severity for severity, _ in look("development-options", log_level="debug")] == ["hint"]
    assert look("development-options") == []
    for name in ("reload", "lint", "tracebacks"):
        [(severity, text)] = look("development-options", **{name: True})
        assert severity == "warning" and f"--{name} is on: " in text


def test_no_deadlines(look):
    found = look("deadlines-off", timeout=0, worker_timeout=0, limit_request_body=0)
    assert [severity for severity, _ in found] == ["warning", "warning", "hint"]


@pytest.mark.parametrize(
    ("bind", "allowed", "expected"),
    [
        (":8000", "*", ["error"]),
        ("0.0.0.0:8000", "0.0.0.0/0,10.0.0.1", ["error"]),
        (":8000", "10.0.0.0/8", []),
        ("127.0.0.1:8000", "*", []),
        ("[::1]:8000", "*", []),
        ("localhost:8000", "*", []),
        ("unix:/run/app", "*", []),
    ],
)
def test_who_is_believed(look, tree, bind, allowed, expected):
    found = look("trusts-everyone", bind=[bind], forwarded_allow_ips=allowed)
    assert [severity for severity, _ in found] == expected
    tree.container()
    found = look("trusts-everyone", bind=[bind], forwarded_allow_ips=allowed)
    assert [severity for severity, _ in found] == ["warning"] * len(expected)


def test_no_tls(look):
    assert look("no-tls", bind=[":8000"])[0][0] == "hint"
    assert look("no-tls", bind=[":443"])[0][0] == "warning"
    assert look("no-tls") == look("no-tls", bind=[":8000"], forwarded_allow_ips="10.0.0.1") == []


def test_no_path_for_the_application(look, assets):
    given = {"application": "app:app"}
    assert look("application-unreachable", scene=given) == []
    assert look("application-unreachable", scene=given, static=[f"/static={assets}"]) == []
    [(severity, text)] = look("application-unreachable", scene=given, static=[f"/={assets}"])
    assert severity == "error" and "no path is left for app:app" in text
    assert look("application-unreachable", scene=given, route=[f"/ static={assets} fallback=app"]) == []
    assert look("application-unreachable", static=[f"/={assets}"]) == []


def test_loopback_in_a_container(look, tree):
    assert look("loopback-in-container") == []
    tree.container()
    [(_, text)] = look("loopback-in-container")
    assert text.endswith("-> --bind :8000")
    assert look("loopback-in-container", bind=[":8000"]) == []


def test_metrics_for_everybody(look):
    assert look("metrics-public", metrics=":9090")[0][1].endswith("--metrics 127.0.0.1:9090")
    assert look("metrics-public", metrics="127.0.0.1:9090") == look("metrics-public") == []


def test_passwords_in_the_clear(look, tmp_path):
    (tmp_path / "passwords").write_text("")
    route = [f"/admin auth={tmp_path / 'passwords'}"]
    assert look("password-in-the-clear", bind=[":8000"], route=route)
    assert look("password-in-the-clear", route=route) == []


@pytest.mark.parametrize(
    ("kept", "idle", "allowed", "expected"),
    [
        ("75s", 60, "10.0.0.1", []),
        ("60s", 60, "10.0.0.1", ["--keep-alive 75s"]),
        ("5s", 60, "10.0.0.1", ["--keep-alive 75s"]),
        ("5s", 60, "127.0.0.1", []),  # nobody in front
        ("75s", 600, "127.0.0.1", ["--keep-alive 615s"]),
    ],
)
def test_keep_alive(look, kept, idle, allowed, expected):
    found = look(
        "keep-alive",
        scene={"balancer_idle": float(idle), "origins": {"keep_alive": "--keep-alive"}},
        bind=[":8000"],
        keep_alive=kept,
        forwarded_allow_ips=allowed,
    )
    assert [text.partition(" -> ")[2] for _, text in found] == expected


def test_keep_alive_behind_a_proxy_of_this_machine(look):
    given = {"origins": {"keep_alive": "--keep-alive"}}
    assert look("keep-alive", scene=given, keep_alive=5)
    assert look("keep-alive", scene=given) == []


def test_time_to_stop(look, tree):
    assert look("stop-time", graceful_timeout=1000) == []
    kubernetes = {"environ": {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}}
    [(severity, text)] = look("stop-time", scene=kubernetes, shutdown_delay=5)
    assert severity == "warning" and "--graceful-timeout 25s" in text
    assert text.endswith("terminationGracePeriodSeconds: 37")
    assert look("stop-time", scene=kubernetes, graceful_timeout=20) == []
    unit = "[Service]\nExecStart=/srv/bin/fastwsgi shop:app\nTimeoutStopSec={}"
    tree.write("etc/systemd/system/shop.service", unit.format(10))
    [(_, text)] = look("stop-time", scene={"application": "shop:app"})
    assert "after 10 s (shop.service)" in text
    assert look("stop-time", scene={"application": "other:app"}) == []
    for enough in ("40s", "1min 30s", "1h", "infinity"):
        tree.write("etc/systemd/system/shop.service", unit.format(enough))
        assert look("stop-time", scene={"application": "shop:app"}) == []
    tree.container()
    assert look("stop-time")[0][1].endswith("stop_grace_period: 32s in a Compose file")


def test_probes(look):
    kubernetes = {"environ": {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}}
    assert look("probes") == []
    assert [severity for severity, _ in look("probes", scene=kubernetes)] == ["hint", "warning"]
    assert look("probes", scene=kubernetes, health="/healthz", ready="/readyz", shutdown_delay=5) == []


# ---- the kernel ----


def test_the_queue_of_the_kernel(look, tree):
    assert look("somaxconn") == []
    tree.write("proc/sys/net/core/somaxconn", "128")
    [(severity, text)] = look("somaxconn")
    assert severity == "warning" and "128" in text and text.endswith("sysctl -w net.core.somaxconn=2048")
    assert look("somaxconn", backlog=100) == []
    tree.container()
    assert "docker run --sysctl" in look("somaxconn")[0][1]


@pytest.mark.parametrize(
    ("hard", "connections", "expected"),
    [
        (resource.RLIM_INFINITY, None, []),
        (4096, None, []),
        (1024, None, ["warning"]),
        (1024, 1000, ["error"]),
        (1024, 500, []),
    ],
)
def test_open_files(look, hard, connections, expected):
    found = look("open-files", scene={"open_files": (256, hard)}, worker_connections=connections)
    assert [severity for severity, _ in found] == expected


def test_files_of_the_machine(look, tree):
    tree.write("proc/sys/fs/file-nr", "900\t0\t1000")
    assert look("file-table")[0][0] == "error"
    tree.write("proc/sys/fs/file-nr", "100\t0\t9223372036854775807")
    assert look("file-table") == []


def test_ports_of_outgoing_connections(look, tree):
    assert look("ephemeral-ports") == []
    tree.write("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999")
    assert look("ephemeral-ports") == []
    [(severity, text)] = look("ephemeral-ports", bind=[":40000"])
    assert severity == "warning" and "ip_local_reserved_ports=40000" in text
    tree.write("proc/sys/net/ipv4/ip_local_reserved_ports", "100,39000-41000")
    assert look("ephemeral-ports", bind=[":40000"]) == []
    tree.write("proc/sys/net/ipv4/ip_local_port_range", "32768\t33000")
    assert [severity for severity, _ in look("ephemeral-ports")] == ["hint"]


@pytest.mark.parametrize(("port", "expected"), [(32800, "warning"), (8000, "hint")])
def test_ports_of_closed_connections(look, tree, port, expected):
    tree.write("proc/sys/net/ipv4/ip_local_port_range", "32768\t33000")
    tree.write("proc/net/sockstat", "sockets: used 1\nTCP: inuse 3 orphan 0 tw 150 alloc 4 mem 1")
    lines = [f"{n}: 0100007F:{port:04X} 0100007F:1F90 06 00000000:00000000 03:00000ED9" for n in range(150)]
    tree.write("proc/net/tcp", "\n".join(["  sl  local_address rem_address   st tx_queue", *lines]))
    assert [severity for severity, _ in look("ephemeral-ports")] == [expected]


def test_addresses(look, short_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [(severity, text)] = look("address", bind=[f"127.0.0.1:{port}"])
        # With a server of this user it may be that one.
        assert severity in ("error", "hint") and "another server is listening there" in text
    assert look("address", bind=[f"127.0.0.1:{port}", f"unix:{short_path}/socket", "unix:@x", "fd://3"]) == []
    assert look("address", bind=["192.0.2.1:8000"])[0][1].endswith("--bind with an address of this machine")
    (short_path / "file").touch()
    assert "is not a socket" in look("address", bind=[f"unix:{short_path}/file"])[0][1]
    assert "is missing" in look("address", bind=[f"unix:{short_path}/no/socket"])[0][1]
    assert "107 octets" in look("address", bind=[f"unix:{short_path}/{'x' * 107}"])[0][1]


def test_a_port_for_root_alone(tree):
    address = parse_address(":80")
    assert "CAP_NET_BIND_SERVICE" in hostchecks.privilege_advice(Scene(root=tree.root), address)
    tree.write("proc/sys/net/ipv4/ip_unprivileged_port_start", "80")
    assert "CAP_NET_BIND_SERVICE" not in hostchecks.privilege_advice(Scene(root=tree.root), address)


# ---- CPUs and memory ----


def test_cpus(look, tree):
    usable = resources.find_cpus(tree.root).usable
    assert look("cpus") == []
    assert look("cpus", workers=2 * usable + 2)[0][0] == "warning"
    tree.write("sys/fs/cgroup/cpu.max", "50000 100000")
    assert [severity for severity, _ in look("cpus")] == ["hint"]


@pytest.mark.parametrize(
    ("each", "settings", "expected"),
    [
        (None, {"workers": 4}, []),
        (50, {"workers": 4}, []),
        (110, {"workers": 4}, ["warning"]),
        (200, {"workers": 4}, ["error"]),
        (200, {"workers": 4, "preload": True}, ["warning"]),
        (600, {"workers": 1, "preload": True}, []),  # fewer than one there cannot be
        (50, {"workers": 1, "max_worker_memory": "40m"}, ["error"]),
        (300, {"workers": 1, "max_worker_memory": "50%"}, ["error"]),
        (50, {"workers": 1, "max_worker_memory": "50%"}, []),
    ],
)
def test_memory(look, tree, each, settings, expected):
    tree.write("sys/fs/cgroup/memory.max", 512 * MIB)
    found = look("memory", scene={"each": each and each * MIB}, **settings)
    assert [severity for severity, _ in found] == expected


def test_auto_fits_to_memory(look, tree):
    tree.write("sys/fs/cgroup/memory.max", 64 * MIB)
    usable = resources.find_cpus(tree.root).usable
    found = look("memory", scene={"each": 60 * MIB})
    assert [severity for severity, _ in found] == ["hint"] * (usable > 1)


def test_memory_is_short(look, tree):
    tree.container()
    assert look("memory-short") == []
    tree.write("sys/fs/cgroup/memory.max", 100 * MIB)
    tree.write("sys/fs/cgroup/memory.current", 95 * MIB)
    tree.write("sys/fs/cgroup/memory.events", "oom_kill 3")
    found = look("memory-short")
    assert [severity for severity, _ in found] == ["error", "warning"]
    assert "killed 3 processes" in found[1][1]


def test_swap(look, tree):
    tree.write("sys/fs/cgroup/memory.swap.current", 50 * MIB)
    assert look("swap") == []
    tree.container()
    assert look("swap")[0][0] == "warning"


# ---- disks ----


def test_logs(look, tmp_path):
    assert look("logs", access_logfile="-") == look("logs", access_logfile=str(tmp_path / "log")) == []
    [(severity, text)] = look("logs", access_logfile="/no/such/directory/log")
    assert severity == "error" and text.endswith("mkdir -p /no/such/directory")


def test_a_full_disk(look, tmp_path, monkeypatch):
    monkeypatch.setattr(hostchecks, "free_space", lambda path: (5 * MIB, 0.001))
    assert "5 MiB (0%) are free" in look("logs", error_logfile=str(tmp_path / "log"))[0][1]
    [(severity, text)] = look("temporary-files")
    assert severity == "warning" and "an upload may have 100 MiB" in text


def test_temporary_files_in_memory(look, tree, monkeypatch, tmp_path):
    monkeypatch.setattr(hostchecks.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(hostchecks, "free_space", lambda path: (500 * MIB, 0.9))
    tree.write("sys/fs/cgroup/memory.max", 512 * MIB)
    assert look("temporary-files") == []
    tree.write("proc/self/mountinfo", f"{MOUNTS}\n40 23 0:30 / {tmp_path} rw - tmpfs tmpfs rw")
    assert [severity for severity, _ in look("temporary-files")] == ["hint"]


@pytest.mark.skipif(sys.platform != "linux", reason="it is of Linux")
def test_shared_memory(look, tree):
    assert look("shared-memory") == []
    (tree.root / "dev/shm").rmdir()
    assert look("shared-memory")[0][0] == "hint"


# ---- files ----


@pytest.fixture
def assets(tmp_path):
    directory = tmp_path / "assets"
    directory.mkdir()
    (directory / "app.js").touch()
    return directory


def test_directories_with_files(look, assets, tmp_path):
    assert look("static-directory", static=[f"/static={assets}"]) == []
    (assets / "app.js").unlink()
    [(severity, text)] = look("static-directory", static=[f"/static={assets}", f"/other={assets}"])
    assert severity == "warning" and text.startswith(f"static of /static: {assets} is empty")
    [(severity, text)] = look("static-directory", static=["/static=/no/such/directory"])
    assert severity == "error" and "mkdir -p" in text
    assert look("static-directory", sendfile_root=["/no/such/directory"])[0][0] == "error"


def test_a_directory_that_workers_may_not_read(assets):
    nobody = Identity(65534, 65534, (65534,))
    assets.chmod(0o700)
    if os.geteuid() == 0:
        assert not settingchecks.may_read(str(assets), nobody)
    assert settingchecks.may_read(str(assets), None)
    assert settingchecks.may_read("/", nobody)
    told = assets.stat()
    assert settingchecks.allowed(assets, Identity(told.st_uid, 1, ()), 5)
    assets.chmod(0o050)
    assert settingchecks.allowed(assets, Identity(told.st_uid + 1, 1, (told.st_gid,)), 5)
    assert not settingchecks.allowed(assets, Identity(told.st_uid, told.st_gid, ()), 5)


def test_what_is_not_for_everybody(look, assets):
    assert look("static-private", static=[f"/static={assets}"]) == []
    (assets / "slides.key").write_bytes(b"PK")
    (assets / "settings.py").touch()
    [(severity, text)] = look("static-private", static=[f"/static={assets}"])
    assert severity == "warning" and "everybody may have settings.py of" in text
    for name in (".env", "db.sqlite3", ".git"):
        (assets / name).touch()
    (assets / "site.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    (severity, text), _ = look("static-private", static=[f"/static={assets}"])
    assert severity == "error" and ".env, .git, db.sqlite3 and 1 more" in text


def test_guarded_and_not(look, assets):
    inner = assets / "reports"
    inner.mkdir()
    routes = [f"/reports static={inner} allow=10.0.0.0/8"]
    assert look("static-overlap", route=routes) == []
    [(severity, text)] = look("static-overlap", route=routes, static=[f"/static={assets}"])
    assert severity == "error" and "is guarded at /reports" in text


def test_challenges(look, tmp_path):
    assert look("acme-dir", acme_dir="/no/such/directory")[0][0] == "warning"
    assert look("acme-dir", acme_dir=str(tmp_path)) == look("acme-dir") == []


# ---- processes and Python ----


def test_root(look, tree):
    found = look("root")
    assert [severity for severity, _ in found] == ["warning"] * (os.geteuid() == 0)
    if found:
        assert look("root", user="nobody") == []
        tree.container()
        assert "Dockerfile" in look("root")[0][1]


def test_the_clock(look, monkeypatch):
    assert look("clock") == []
    monkeypatch.setattr(hostchecks.time, "time", lambda: 0.0)
    assert look("clock")[0][0] == "error"


@pytest.mark.parametrize(("year", "month", "expected"), [(2020, 1, ["warning"]), (2999, 1, [])])
def test_an_old_python(look, monkeypatch, year, month, expected):
    monkeypatch.setitem(hostchecks.END_OF_LIFE, sys.version_info.minor, (year, month))
    assert [severity for severity, _ in look("python")] == expected
    now = time.gmtime()
    soon = divmod(now.tm_year * 12 + now.tm_mon - 1 + 3, 12)
    monkeypatch.setitem(hostchecks.END_OF_LIFE, sys.version_info.minor, (soon[0], soon[1] + 1))
    assert [severity for severity, _ in look("python")] == ["hint"]


def test_variables_for_developers(look, tree):
    if not sys.flags.dev_mode:
        assert look("slow-python") == []
    [(_, text)] = look("slow-python", scene={"environ": {"PYTHONDEVMODE": "1", "PYTHONMALLOC": "debug"}})
    assert text.endswith("env -u PYTHONDEVMODE -u PYTHONMALLOC fastwsgi ...")
    assert look("buffered-output") == []
    tree.container()
    assert look("buffered-output")[0][0] == "hint"
    assert look("buffered-output", scene={"environ": {"PYTHONUNBUFFERED": "1"}}) == []
    assert look("buffered-output", capture_output=True) == []


# ---- certificates ----


@pytest.fixture
def of_certificate(look, tmp_path):
    """of_certificate(id, *names, **how): what that check says of a new certificate."""

    def of_certificate(id, *names, route=(), stem="new", **how):
        certfile, keyfile = AUTHORITY.write(tmp_path, stem, *(names or ("example.com",)), **how)
        os.chmod(keyfile, 0o600)
        certchecks.read.cache_clear()
        return look(id, certfile=certfile, keyfile=keyfile, route=route)

    return of_certificate


@pytest.mark.parametrize(
    ("days", "age", "expected"),
    [
        (60.5, -1, []),
        (29.5, -60, ["warning"]),
        (13.5, -76, ["error"]),
        (-0.5, -90, ["error"]),
        (5.5, -0.5, []),  # one that is good for six days
        (1.5, -4.5, ["warning"]),
        (0.5, -5.5, ["error"]),
    ],
)
def test_the_end_of_a_certificate(of_certificate, days, age, expected):
    found = of_certificate("certificate-ends", days=days, age=age)
    assert [severity for severity, _ in found] == expected


def test_a_certificate_that_is_not_valid_yet(of_certificate):
    [(severity, text)] = of_certificate("certificate-begins", age=5)
    assert severity == "error" and "is not valid before" in text
    assert of_certificate("certificate-begins") == []


def test_names_of_certificates(of_certificate):
    hosts = [
        "10.0.0.1/ respond=200",
        "[::1]/ respond=200",
        "example.com/ respond=200",
        "www.example.com/ respond=200",
        "*.shop.example/ respond=200",
    ]
    [(severity, text)] = of_certificate("certificate-names", "example.com", route=hosts)
    assert severity == "error" and "*.shop.example, www.example.com" in text
    assert (
        of_certificate("certificate-names", "example.com", "*.example.com", "*.shop.example", route=hosts)
        == []
    )


def test_files_of_certificates(of_certificate, look, tmp_path):
    assert of_certificate("certificate") == of_certificate("key-readable") == []
    (tmp_path / "new.key").chmod(0o644)
    certfile, keyfile = str(tmp_path / "new.pem"), str(tmp_path / "new.key")
    [(severity, text)] = look("key-readable", certfile=certfile, keyfile=keyfile)
    assert severity == "error" and text.endswith(f"chmod 600 {keyfile}")
    assert of_certificate("certificate-chain") == []
    assert of_certificate("certificate-chain", stem="cert")[0][0] == "hint"
    _, other = AUTHORITY.write(tmp_path, "other", "example.com")
    [(severity, text)] = look("certificate", certfile=certfile, keyfile=other)
    assert severity == "error" and f"the key in {other} is not that of the certificate" in text
    # The others have nothing to look at then.
    assert look("certificate-ends", certfile=certfile, keyfile=other) == []
