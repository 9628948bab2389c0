"""What is handed out: a source archive of everything, the same each time; a package that imports fast."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Which `import fastwsgi` is not to bring along: what is large, and what only some of the commands need.
HEAVY = {
    "asyncio",
    "argparse",
    "concurrent",
    "email",
    "http",
    "logging",
    "multiprocessing",
    "ssl",
    "subprocess",
}
# More than a Python that has just started. Today there are some 60, most of them of the standard library.
MOST = 80


def listed():
    """The files of the project, whether they are committed or not."""
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no git here")
    if done.returncode:
        pytest.skip("this is no checkout")
    return {name for name in done.stdout.splitlines() if (ROOT / name).is_file()}


def pack(tree, dist, **environment):
    pytest.importorskip("Cython")
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(dist)],
        cwd=tree,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    [archive] = dist.iterdir()
    return archive


def test_the_source_archive(tmp_path):
    names = listed()
    tree = tmp_path / "tree"
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    # What lies about where people work.
    for name in (
        "tests/.ruff_cache/1",
        "src/fastwsgi/__pycache__/x.pyc",
        "src/fastwsgi/_parser.so",
        "build/x.c",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    archive = pack(tree, tmp_path / "first", SOURCE_DATE_EPOCH="1700000000")
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        tar.extractall(tmp_path / "unpacked", filter="data")
    files = {member.name.partition("/")[2] for member in members if member.isfile()}
    added = {name for name in files if name.startswith("src/fastwsgi.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    left_out = {name for name in names if name.startswith(".github/")} | {".gitignore"}
    assert files == (names | added) - left_out
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {
        (0, 0, "", 1_700_000_000)
    }
    # From it, in another place and at another time, the same again.
    [unpacked] = (tmp_path / "unpacked").iterdir()
    again = pack(unpacked, tmp_path / "second", SOURCE_DATE_EPOCH="1700000000")
    assert again.read_bytes() == archive.read_bytes()


def test_the_import_brings_little():
    code = "import sys; before = set(sys.modules); import fastwsgi; print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(done.stdout.split())
    assert not {name for name in modules if name.partition(".")[0] in HEAVY}
    # The core is loaded when something is served.
    assert not {name for name in modules if name.startswith("fastwsgi._")}
    assert len(modules) < MOST, sorted(modules)
