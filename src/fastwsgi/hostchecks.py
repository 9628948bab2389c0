"""What will hurt by what the host or the container is like: the kernel, CPUs, memory, disks, this Python.

Nothing is changed: addresses are bound for a moment, and nobody listens there.
"""

import os
import re
import resource
import shlex
import stat
import sys
import tempfile
import time
from pathlib import Path

from fastwsgi import resources
from fastwsgi.errors import ConfigError
from fastwsgi.findings import Checks, Found, error, hint, warning
from fastwsgi.listener import Address, AddressInUseError, bind_tcp
from fastwsgi.resources import show_size
from fastwsgi.scene import Scene

DAY = 86400.0
MIB = 1 << 20

# Less than this at the place of a file that grows is nearly full.
LEAST_FREE = 100 * MIB
LEAST_FREE_SHARE = 0.05

# Descriptors of a worker beside those of connections: logs, shared memory, what the application opens.
OTHER_FILES = 64

# The least connections with which nobody has to think of open files.
FEW_CONNECTIONS = 1000

# The state of a connection in /proc/net/tcp.
TIME_WAIT = "06"

# Variables with which the interpreter is slower or says more.
SLOW_PYTHON = ("PYTHONDEVMODE", "PYTHONASYNCIODEBUG", "PYTHONTRACEMALLOC", "PYTHONDEBUG", "PYTHONINSPECT")

# When there are no more fixes of security (devguide.python.org/versions): year and month.
END_OF_LIFE = {11: (2027, 10), 12: (2028, 10), 13: (2029, 10), 14: (2030, 10), 15: (2031, 10)}

CHECKS: Checks[Scene] = Checks()


# ---- the kernel ----


@CHECKS.add("somaxconn")
def somaxconn(scene: Scene) -> Found:
    longest, backlog = scene.number("proc/sys/net/core/somaxconn", 65535), scene.settings.backlog
    if longest < backlog:
        line = f"net.core.somaxconn={backlog}"
        yield warning(
            f"the kernel queues {longest} clients, --backlog asks for {backlog}: more at once are refused",
            f"docker run --sysctl {line}" if scene.is_container else f"sysctl -w {line}",
        )


@CHECKS.add("open-files")
def open_files(scene: Scene) -> Found:
    """Workers raise the soft limit to the hard one themselves."""
    hard = scene.open_files[1]
    if hard == resource.RLIM_INFINITY:
        return
    room = hard * 4 // 5
    fix = "LimitNOFILE=65536 (systemd), docker run --ulimit nofile=65536, or /etc/security/limits.conf"
    wanted = scene.settings.worker_connections
    if wanted is not None and wanted + OTHER_FILES > hard:
        yield error(
            f"--worker-connections {wanted}, and a process may open {hard} files: new clients wait at the "
            "limit",
            f"{fix}; or --worker-connections {room}",
        )
    elif wanted is None and room < FEW_CONNECTIONS:
        yield warning(f"a process may open {hard} files: a worker has room for {room} connections", fix)


@CHECKS.add("file-table")
def file_table(scene: Scene) -> Found:
    words = resources.read(scene.root / "proc/sys/fs/file-nr").split()
    if len(words) == 3 and int(words[0]) > 0.8 * int(words[2]):
        yield error(
            f"{words[0]} of {words[2]} files of this machine are open: soon nothing can be opened any more",
            f"sysctl -w fs.file-max={2 * int(words[2])}, and find out who has them (lsof)",
        )


@CHECKS.add("ephemeral-ports")
def ephemeral_ports(scene: Scene) -> Found:
    """Ports that the kernel gives to outgoing connections."""
    words = resources.read(scene.root / "proc/sys/net/ipv4/ip_local_port_range").split()
    if len(words) != 2:
        return
    first, last = map(int, words)
    reserved = resources.read(scene.root / "proc/sys/net/ipv4/ip_local_reserved_ports").strip()
    for address in scene.addresses:
        port = address.port
        if first <= port <= last and not is_in(port, reserved):
            both = ",".join(filter(None, (reserved, str(port))))
            yield warning(
                f"port {port} is one of those for outgoing connections ({first} to {last}): one of them "
                "may have it "
                "at a start",
                f"sysctl -w net.ipv4.ip_local_reserved_ports={both}, or a port below {first}",
            )
    size = last - first + 1
    waiting = closed_connections(scene, first, last)
    if waiting > size // 2:
        yield warning(
            f"{waiting} closed connections hold a port, and there are {size} for outgoing ones",
            "keep connections to databases and services open; sysctl -w net.ipv4.tcp_tw_reuse=1",
        )
    elif size < 10000:
        yield hint(
            f"{size} ports for outgoing connections: so many to one service in a minute",
            'sysctl -w net.ipv4.ip_local_port_range="10240 60999"',
        )


def closed_connections(scene: Scene, first: int, last: int) -> int:
    """Those in TIME-WAIT whose port here is between these: the server's own have the port it listens at."""
    found = re.search(r"^TCP:.* tw ([0-9]+)", resources.read(scene.root / "proc/net/sockstat"), re.MULTILINE)
    if found is None or int(found[1]) <= (last - first) // 2:
        return 0
    count = 0
    for name in ("tcp", "tcp6"):
        for line in resources.read(scene.root / "proc/net" / name).splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            count += state == TIME_WAIT and first <= int(local.rpartition(":")[2], 16) <= last
    return count


def is_in(port: int, ranges: str) -> bool:
    """Whether a port is in a list such as 8000,9000-9010."""
    for one in filter(None, ranges.split(",")):
        first, _, last = one.partition("-")
        if int(first) <= port <= int(last or first):
            return True
    return False


@CHECKS.add("address")
def address_available(scene: Scene) -> Found:
    """Each address, bound for a moment."""
    for address in scene.addresses:
        try:
            if address.unix is not None:
                try_unix(address)
            elif address.fd is None:
                for sock in bind_tcp(address, dual_stack=True, reuse_port=False):
                    sock.close()
        except AddressInUseError as problem:
            if has_server():
                yield hint(f"{problem}; a fastwsgi runs here", "nothing, if it is the one that serves there")
            else:
                yield error(str(problem), f"find out who that is: ss -ltnp 'sport = :{address.port}'")
        except ConfigError as problem:
            yield error(str(problem), privilege_advice(scene, address))


def try_unix(address: Address) -> None:
    """Raise ConfigError if there cannot be a socket."""
    path = str(address.unix)
    if path.startswith("@"):
        return
    directory = os.path.dirname(os.path.abspath(path))
    if len(os.fsencode(path)) > 107:
        raise ConfigError(f"cannot listen at {address.text}: a path of a socket has 107 octets at most")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot listen at {address.text}: {directory} is missing, or not for this user")
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ConfigError(f"cannot listen at {address.text}: this is not a socket")


def privilege_advice(scene: Scene, address: Address) -> str:
    if address.unix is not None:
        return "another path, or a directory for this user (systemd: RuntimeDirectory=)"
    if 0 < address.port < scene.number("proc/sys/net/ipv4/ip_unprivileged_port_start", 1024):
        return (
            "start as root with --user, give AmbientCapabilities=CAP_NET_BIND_SERVICE (systemd), "
            f"or sysctl -w net.ipv4.ip_unprivileged_port_start={address.port}"
        )
    return "--bind with an address of this machine"


def has_server() -> bool:
    """A fastwsgi that this user may ask runs here."""
    from fastwsgi.console import found

    return next(found(), None) is not None


# ---- CPUs and memory ----


@CHECKS.add("cpus")
def cpus(scene: Scene) -> Found:
    workers, usable = scene.workers, scene.cpus.usable
    if scene.cpus.cores < 1:
        yield hint(
            f"{scene.cpus}: a request that computes is stopped for a while when that is used up",
            "a quota of one CPU or more (docker run --cpus 1; Kubernetes: resources.limits.cpu)",
        )
    if workers > 2 * usable + 1:
        yield warning(
            f"{workers} workers for {scene.cpus}: they take memory and each other's time",
            "--workers auto; for requests that wait, --threads",
        )
    elif isinstance(scene.settings.workers, int) and 1 <= scene.settings.workers <= usable // 4:
        yield hint(f"{workers} workers for {scene.cpus}: the others are idle", "--workers auto")


@CHECKS.add("memory")
def memory(scene: Scene) -> Found:
    """Workers that have imported the application, and do not serve yet."""
    if scene.each is None:
        return
    settings, size, each = scene.settings, scene.memory.size, scene.each
    limit = settings.max_worker_memory
    if isinstance(limit, str):
        limit = int(float(limit.rstrip("%")) / 100 * size)
    if limit is not None and each >= limit:
        yield error(
            f"a worker has {show_size(each)} once the application is imported, and is replaced at "
            f"{show_size(limit)}: "
            "without end",
            f"--max-worker-memory {3 * each // MIB}m",
        )
    number, _ = resources.fit_to_memory(scene.workers, each, scene.memory)
    together = f"{scene.workers} workers of {show_size(each)} each for {scene.memory}"
    if number == scene.workers:
        return
    if settings.workers == "auto":
        yield hint(f"{together}: --workers auto will start {number}", "more memory, or --preload")
    elif scene.workers * each > size and settings.preload == "off":
        yield error(f"{together}: the kernel will kill some", f"--workers {number}, or --preload")
    else:
        yield warning(f"{together}: that leaves little for requests", f"--workers {number}, or --preload")


@CHECKS.add("memory-short")
def memory_short(scene: Scene) -> Found:
    use = resources.find_memory_use(scene.root)
    if use is not None and use.limit and use.needed > 0.9 * use.limit:
        yield error(
            f"{show_size(use.needed)} of {show_size(use.limit)} of this container are in use already",
            "a higher memory limit, or fewer --workers",
        )
    kills = resources.oom_kills(scene.root) if scene.is_container else None
    if kills is not None and kills.count and kills.where == "cgroup":
        yield warning(
            f"the kernel has killed {kills.count} processes of this container since memory was out",
            "a higher memory limit, fewer --workers, or --max-worker-memory",
        )


@CHECKS.add("swap")
def swap(scene: Scene) -> Found:
    files = [group / "memory.swap.current" for group in resources.cgroups("memory", scene.root)]
    swapped = max((resources.number(file) or 0 for file in files), default=0) if scene.is_container else 0
    if swapped > MIB:
        yield warning(
            f"{show_size(swapped)} of this container are in swap: requests wait for the disk",
            "docker run --memory-swap equal to --memory, or more memory",
        )


# ---- disks ----


def free_space(path: str) -> tuple[int, float]:
    """Octets that are free for others than root, and their share."""
    told = os.statvfs(path)
    return told.f_bavail * told.f_frsize, told.f_bavail / max(1, told.f_blocks)


def filesystem(path: str, root: Path) -> str:
    """The kind of file system that a path is in, such as tmpfs; empty if it is not told."""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in resources.read(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        mount = resources.unescape(left.split()[4])
        if (real == mount or real.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, right.split()[0]
    return kind


def full(path: str) -> str:
    """How full the disk is, if there is nearly nothing left; or an empty text."""
    octets, share = free_space(path)
    if octets >= LEAST_FREE and (share >= LEAST_FREE_SHARE or octets >= 100 * LEAST_FREE):
        return ""
    return f"{show_size(octets)} ({share:.0%}) are free"


@CHECKS.add("logs")
def logs(scene: Scene) -> Found:
    for name in ("access_logfile", "error_logfile"):
        file = getattr(scene.settings, name)
        if file in (None, "-"):
            continue
        path = scene.path(file)
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            yield error(
                f"{scene.shown(name)}: there is no directory {directory}",
                f"mkdir -p {shlex.quote(directory)}",
            )
        elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
            yield error(
                f"{scene.shown(name)}: this user may not write there", "another file, or its owner (chown)"
            )
        elif how := full(directory):
            yield warning(
                f"{scene.shown(name)}: {how} there; lines are lost when it is full", "logrotate, or space"
            )


@CHECKS.add("temporary-files")
def temporary_files(scene: Scene) -> Found:
    """Where uploads and answers for slow clients wait that are too large for memory."""
    try:
        directory = tempfile.gettempdir()
    except OSError:
        yield error(
            "there is no directory for temporary files that this user may write to: large uploads fail",
            "TMPDIR=DIRECTORY in the environment, or docker run --tmpfs /tmp",
        )
        return
    octets, _ = free_space(directory)
    largest = max(scene.settings.limit_request_body, scene.settings.request_buffer)
    advice = "TMPDIR=DIRECTORY in the environment, on a larger disk"
    if octets < largest:
        yield warning(
            f"{show_size(octets)} are free in {directory}, and an upload may have {show_size(largest)}",
            f"{advice}; or a lower --limit-request-body",
        )
    elif filesystem(directory, scene.root) in ("tmpfs", "ramfs") and octets > scene.memory.size // 4:
        yield hint(
            f"{directory} is in memory: uploads and answers that wait there count for the limit",
            f"{advice}; or --response-spool and --limit-request-body with less",
        )


@CHECKS.add("shared-memory")
def shared_memory(scene: Scene) -> Found:
    directory = scene.root / "dev/shm"
    if sys.platform == "linux" and not os.access(directory, os.W_OK):
        yield hint(
            "/dev/shm is missing, or not for this user: multiprocessing in the application fails",
            "docker run --tmpfs /dev/shm, or mount -t tmpfs tmpfs /dev/shm",
        )


# ---- processes and Python ----


@CHECKS.add("root")
def runs_as_root(scene: Scene) -> Found:
    identity = scene.identity
    uid = os.geteuid() if identity is None else identity.uid
    if uid == 0:
        fix = "USER 10001 in the Dockerfile" if scene.is_container else "--user www-data, or User= of systemd"
        yield warning("workers run as root: a fault of the application is one of the machine", fix)


@CHECKS.add("clock")
def clock(scene: Scene) -> Found:
    written = os.stat(__file__).st_mtime
    behind = written - time.time()
    if behind > DAY:
        yield error(
            f"the clock is {behind / DAY:.0f} days behind the files of fastwsgi: certificates and sessions "
            "fail",
            "timedatectl set-ntp true, or set it by hand",
        )


@CHECKS.add("python")
def python(scene: Scene) -> Found:
    minor = sys.version_info.minor
    if minor not in END_OF_LIFE:
        return
    year, month = END_OF_LIFE[minor]
    now = time.gmtime()
    left = (year - now.tm_year) * 12 + month - now.tm_mon
    newest = max(END_OF_LIFE)
    if left <= 0:
        yield warning(
            f"Python 3.{minor} gets no fixes of security since {year}-{month:02}",
            f"Python 3.{newest - 1} or later",
        )
    elif left <= 6:
        yield hint(
            f"Python 3.{minor} gets fixes of security until {year}-{month:02}",
            f"Python 3.{newest - 1} or later",
        )


@CHECKS.add("slow-python")
def slow_python(scene: Scene) -> Found:
    given = [name for name in SLOW_PYTHON if scene.environ.get(name)]
    if scene.environ.get("PYTHONMALLOC", "").endswith("debug"):
        given.append("PYTHONMALLOC")
    if given or sys.flags.dev_mode:
        yield warning(
            f"{', '.join(given) or 'python -X dev'}: the interpreter is slower, and says more",
            f"env {' '.join(f'-u {name}' for name in given)} fastwsgi ..."
            if given
            else "python without -X dev",
        )


@CHECKS.add("buffered-output")
def buffered_output(scene: Scene) -> Found:
    if scene.is_container and not scene.environ.get("PYTHONUNBUFFERED") and not scene.settings.capture_output:
        yield hint(
            "what the application prints waits in a buffer, and is lost if it is killed",
            "PYTHONUNBUFFERED=1 in the environment, or --capture-output",
        )
