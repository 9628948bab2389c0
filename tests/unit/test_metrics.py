"""Text for Prometheus, read by the parser of prometheus_client and, where there is one, by promtool."""

import mmap
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastwsgi import __version__
from fastwsgi._stats import TIME_BOUNDS, Board, row_state_t, totals
from fastwsgi.metrics import CONTENT_TYPE, exposition, histogram, of_requests

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def new_board(workers=2, threads=4):
    return Board(mmap.mmap(-1, Board.size(workers, threads)), workers, threads)


@pytest.fixture
def board():
    """With a worker, which is this process."""
    board = new_board()
    board.row(0).pid = os.getpid()
    board.row(0).state = row_state_t.ROW_SERVING
    return board


def parsed(text):
    """Families by name; their samples by name and labels."""
    families = {}
    for family in text_string_to_metric_families(text):
        assert family.name not in families, f"{family.name} is there twice"
        families[family.name] = family
        names = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
        assert len(names) == len(set(names))
    return families


def value(families, name, **labels):
    [found] = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found


def test_it_is_read(board):
    families = parsed(exposition([board]).decode())
    assert value(families, "fastwsgi_workers", state="serving") == 1
    assert value(families, "fastwsgi_threads") == 4
    assert value(families, "fastwsgi_build_info", version=__version__) == 1
    assert value(families, "fastwsgi_start_time_seconds") > 1_700_000_000
    pid = str(os.getpid())
    resident = value(families, "fastwsgi_worker_resident_memory_bytes", pid=pid)
    assert 0 < value(families, "fastwsgi_worker_proportional_memory_bytes", pid=pid) <= resident * 1.1
    assert value(families, "fastwsgi_memory_limit_bytes") > resident
    assert value(families, "fastwsgi_refusals_total", reason="no_host", status="400") == 0
    assert value(families, "fastwsgi_requests_total", method="GET", status="5xx") == 0
    for name, family in families.items():
        assert name.startswith("fastwsgi_")
        assert family.documentation.endswith("."), name
        assert family.type in ("counter", "gauge", "histogram"), name
    assert "version=0.0.4" in CONTENT_TYPE


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool here")
def test_promtool_has_nothing_to_say(board):
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition([board]), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_without_a_board():
    families = parsed(exposition([]).decode())
    assert value(families, "fastwsgi_threads") == 0


def test_a_histogram():
    counts = [1, *[0] * (len(TIME_BOUNDS) - 1), 2]
    samples = list(histogram({"phase": "queue"}, counts, 1.5))
    assert samples[0] == ("_bucket", {"phase": "queue", "le": repr(TIME_BOUNDS[0])}, 1)
    assert samples[-4:] == [
        ("_bucket", {"phase": "queue", "le": "64.0"}, 1),
        ("_bucket", {"phase": "queue", "le": "+Inf"}, 3),
        ("_sum", {"phase": "queue"}, 1.5),
        ("_count", {"phase": "queue"}, 3),
    ]
    assert len(samples) == len(TIME_BOUNDS) + 3


def test_methods_that_nobody_used_are_left_out():
    found = totals([new_board()])
    text = next(of_requests(found._replace(requests={**found.requests, ("PUT", "4xx"): 3})))
    assert 'method="PUT",status="4xx"} 3\n' in text
    assert 'method="PUT",status="2xx"} 0\n' in text
    assert "POST" not in text


def lay_out(root, files):
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def test_in_a_container(tmp_path, board):
    lay_out(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "proc/self/statm": "",
            "sys/fs/cgroup/memory.max": "536870912\n",
            "sys/fs/cgroup/memory.current": "1048576\n",
            "sys/fs/cgroup/memory.stat": "inactive_file 4096\nactive_file 0\n",
            "sys/fs/cgroup/memory.pressure": "some avg10=12.50 avg60=0.00 avg300=0.00 total=3500000\n",
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_throttled 3\nthrottled_usec 2500000\n",
        },
    )
    families = parsed(exposition([board], tmp_path).decode())
    assert value(families, "fastwsgi_memory_limit_bytes") == 512 << 20
    assert value(families, "fastwsgi_memory_used_bytes") == 1 << 20
    assert value(families, "fastwsgi_memory_cache_bytes") == 4096
    assert value(families, "fastwsgi_memory_pressure_ratio") == 0.125
    assert value(families, "fastwsgi_memory_pressure_seconds_total") == 3.5
    assert value(families, "fastwsgi_cpu_limit_cores") == 0.5
    assert value(families, "fastwsgi_cpu_throttled_seconds_total") == 2.5
    # There is no such process there.
    assert not families["fastwsgi_worker_resident_memory_bytes"].samples


def test_where_there_are_no_cgroups(tmp_path, board):
    families = parsed(exposition([board], tmp_path).decode())
    assert not [name for name in families if re.match("fastwsgi_memory_(used|cache|pressure)", name)]
    assert "fastwsgi_cpu_throttled_seconds" not in families


def test_every_metric_is_documented(tmp_path, board):
    lay_out(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/memory.current": "1\n",
            "sys/fs/cgroup/memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            "sys/fs/cgroup/cpu.stat": "throttled_usec 0\n",
        },
    )
    text = exposition([board], tmp_path, [("shop.example", "/etc/shop.pem", 2e9)]).decode()
    assert 'fastwsgi_certificate_end_seconds{name="shop.example",file="/etc/shop.pem"} 2000000000' in text
    named = re.findall("^# TYPE (\\S+)", text, re.MULTILINE)
    documented = re.findall(r"^\| `(fastwsgi_\w+)", PAGE.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(named)
